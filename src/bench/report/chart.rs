//! The report as a picture: a panel for each load, a bar for each contender.

use svg::Document;
use svg::node::element::{Group, Line, Rectangle, Style, Text};

use super::{Entry, Figure, Report, human};
use crate::bench::contender::Contender;
use crate::bench::load::{Latency, Load};

pub(super) fn render(report: &Report) -> String {
    let mut panels: Vec<_> = report.loads().into_iter().map(|load| rates(report, load)).collect();
    panels.extend(latencies(report));
    let rows = panels.len().div_ceil(COLUMNS).max(1);
    let panel_height = panels.iter().map(Panel::height).fold(HEADING, f64::max);
    let height = TOP + rows as f64 * (panel_height + GAP) + BOTTOM;
    let mut document = Document::new()
        .set("viewBox", (0.0, 0.0, WIDTH, height))
        .set("width", WIDTH)
        .set("height", height)
        .set("role", "img")
        .add(Style::new(STYLE))
        .add(Rectangle::new().set("width", WIDTH).set("height", height).set("fill", "#ffffff"))
        .add(text(MARGIN, 44.0, "title", "ulvs beside other forwarders"))
        .add(text(MARGIN, 68.0, "quiet", &subtitle(report)));
    for (index, panel) in panels.iter().enumerate() {
        let x = MARGIN + (index % COLUMNS) as f64 * (PANEL_WIDTH + GAP);
        let y = TOP + (index / COLUMNS) as f64 * (panel_height + GAP);
        document = document.add(panel.draw().set("transform", format!("translate({x} {y})")));
    }
    let footer = text(MARGIN, height - 22.0, "quiet", &report.machine.summary());
    document.add(footer).to_string() + "\n"
}

fn subtitle(report: &Report) -> String {
    let settings = &report.settings;
    let rounds = match settings.rounds {
        1 => "one round".to_owned(),
        rounds => format!("medians of {rounds} rounds"),
    };
    format!(
        "{rounds} of {} s; the thin line spans lowest to highest; × is relative to plain routing",
        settings.seconds
    )
}

/// Bars below a title.
struct Panel {
    title: String,
    bars: Vec<Bar>,
}

struct Bar {
    contender: Contender,
    /// None where nothing could be measured.
    extent: Option<Extent>,
    label: String,
}

#[derive(Clone, Copy)]
struct Extent {
    low: f64,
    median: f64,
    high: f64,
}

/// The entries that have a place in every panel.
fn shown(report: &Report) -> impl Iterator<Item = &Entry> {
    report.entries.iter().filter(|entry| !entry.figures.is_empty())
}

fn rates(report: &Report, load: Load) -> Panel {
    let bar = |entry: &Entry| {
        let figure = entry.figure(load);
        let extent = figure.and_then(|figure| {
            let (low, high) = figure.range()?;
            Some(Extent { low, median: figure.median?, high })
        });
        let label = match (figure, extent) {
            (Some(figure), Some(extent)) => value(report, entry, figure, extent.median),
            _ => entry.contender.declines(load).unwrap_or("not measured").to_owned(),
        };
        Bar { contender: entry.contender, extent, label }
    };
    Panel { title: load.title().to_owned(), bars: shown(report).map(bar).collect() }
}

fn value(report: &Report, entry: &Entry, figure: &Figure, median: f64) -> String {
    let rate = human(median, figure.load);
    let doubt = if figure.troubles().is_empty() { "" } else { " (with failures)" };
    match report.ratio(figure.load, entry.contender, Contender::Routing) {
        Some(ratio) if entry.contender != Contender::Routing => {
            format!("{rate}  ×{ratio:.2}{doubt}")
        }
        _ => rate + doubt,
    }
}

/// How long requests took, from the median to the 99th percentile; none if none was measured.
fn latencies(report: &Report) -> Option<Panel> {
    let bar = |entry: &Entry| {
        let figure = entry.figure(Load::Requests)?;
        let percentile = |of: fn(&Latency) -> f64| figure.latency_us(of);
        let (low, high) = (percentile(|l| l.p50_us)?, percentile(|l| l.p99_us)?);
        Some(Bar {
            contender: entry.contender,
            extent: Some(Extent { low, median: low, high }),
            label: format!("{:.2} / {:.2} ms", low / 1e3, high / 1e3),
        })
    };
    let bars: Vec<_> = shown(report).filter_map(bar).collect();
    let title = "latency of requests (median and 99 %, shorter is better)".to_owned();
    (!bars.is_empty()).then_some(Panel { title, bars })
}

impl Panel {
    fn height(&self) -> f64 {
        HEADING + self.bars.len() as f64 * ROW
    }

    fn draw(&self) -> Group {
        let longest = self.bars.iter().filter_map(|bar| bar.extent).map(|extent| extent.high);
        let longest = longest.fold(0.0, f64::max);
        let scale = if longest > 0.0 { BAR_WIDTH / longest } else { 0.0 };
        let mut group = Group::new().add(text(0.0, 16.0, "load", &self.title));
        for (index, bar) in self.bars.iter().enumerate() {
            let y = HEADING + index as f64 * ROW;
            group = group.add(bar.draw(scale).set("transform", format!("translate(0 {y})")));
        }
        let axis = Line::new().set("class", "axis").set("x1", LABELS).set("x2", LABELS);
        group.add(axis.set("y1", HEADING - 4.0).set("y2", self.height() - 4.0))
    }
}

impl Bar {
    fn draw(&self, scale: f64) -> Group {
        let middle = BAR_HEIGHT / 2.0 + 4.0;
        let name = text(LABELS - 10.0, middle, "name", self.contender.title());
        let group = Group::new().add(name);
        let Some(Extent { low, median, high }) = self.extent else {
            return group.add(text(LABELS + 8.0, middle, "quiet", &self.label));
        };
        let bar = Rectangle::new()
            .set("x", LABELS)
            .set("width", format!("{:.1}", median * scale))
            .set("height", BAR_HEIGHT)
            .set("rx", 2)
            .set("fill", colour(self.contender));
        group.add(bar).add(whisker(LABELS + low * scale, LABELS + high * scale)).add(text(
            LABELS + high * scale + 8.0,
            middle,
            "value",
            &self.label,
        ))
    }
}

fn whisker(from: f64, to: f64) -> Line {
    let y = BAR_HEIGHT / 2.0;
    let line = Line::new().set("class", "range").set("y1", y).set("y2", y);
    line.set("x1", format!("{from:.1}")).set("x2", format!("{to:.1}"))
}

fn text(x: f64, y: f64, class: &str, content: &str) -> Text {
    Text::new(content).set("x", format!("{x:.1}")).set("y", y).set("class", class)
}

/// Greys for the kernel, muted colours for proxies, the strong one for what this is about.
fn colour(contender: Contender) -> &'static str {
    match contender {
        Contender::Routing => "#b8bec6",
        Contender::Nft => "#8a94a1",
        Contender::Haproxy => "#8fb4d9",
        Contender::Nginx => "#9cc5a1",
        Contender::Ulvs => "#d9480f",
        Contender::UlvsTun => "#f08c5a",
    }
}

const STYLE: &str = "text { font-family: system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; \
    font-size: 13px; fill: #24292f } \
    .title { font-size: 22px; font-weight: 600 } .load { font-size: 15px; font-weight: 600 } \
    .quiet { fill: #68727d; font-size: 12px } .name { text-anchor: end } \
    .axis { stroke: #c9d0d7; stroke-width: 1 } \
    .range { stroke: #24292f; stroke-width: 1.5; stroke-opacity: 0.55 }";

const COLUMNS: usize = 2;
const WIDTH: f64 = 1080.0;
const MARGIN: f64 = 36.0;
const GAP: f64 = 32.0;
const PANEL_WIDTH: f64 = (WIDTH - 2.0 * MARGIN - GAP) / COLUMNS as f64;
/// Above the panels.
const TOP: f64 = 104.0;
/// Below the panels.
const BOTTOM: f64 = 28.0;
/// Of a panel, for its name.
const HEADING: f64 = 34.0;
/// From one bar to the next.
const ROW: f64 = 28.0;
const BAR_HEIGHT: f64 = 18.0;
/// Of a panel, for the contenders' names.
const LABELS: f64 = 116.0;
/// The longest bar; the rest of the panel is for its value.
const BAR_WIDTH: f64 = PANEL_WIDTH - LABELS - 140.0;
