//! The picture: a card for each scheduler.

use std::fmt::Write;

use svg::Document;
use svg::node::element::{Group, Line, Path, Rectangle, Style, Text};

use super::traffic::{Course, QUIESCED, QUIET, SAMPLES, WEIGHTS};

/// Draws one card per scheduler below a heading.
pub fn draw(courses: &[Course]) -> String {
    let rows = courses.len().div_ceil(COLUMNS).max(1);
    let height = TOP + rows as f64 * (CARD_HEIGHT + GAP) + BOTTOM - GAP;
    let most = most_open(courses);
    let mut document = Document::new()
        .set("viewBox", (0.0, 0.0, WIDTH, height))
        .set("width", WIDTH)
        .set("height", height)
        .set("role", "img")
        .set("class", "schedulers")
        .add(Style::new(STYLE))
        .add(Rectangle::new().set("width", WIDTH).set("height", height).set("fill", "#fff"))
        .add(heading(courses));
    for (index, course) in courses.iter().enumerate() {
        let x = MARGIN + (index % COLUMNS) as f64 * (CARD_WIDTH + GAP);
        let y = TOP + (index / COLUMNS) as f64 * (CARD_HEIGHT + GAP);
        let card = card(course, most).set("transform", format!("translate({x} {y})"));
        document = document.add(card);
    }
    document.to_string() + "\n"
}

/// The most connections that are open at a time, of all schedulers: the height of every chart.
fn most_open(courses: &[Course]) -> f64 {
    let sums = courses.iter().flat_map(|course| &course.open).map(|open| open.iter().sum::<u32>());
    f64::from(sums.max().unwrap_or(0).max(1))
}

fn heading(courses: &[Course]) -> Group {
    let connections = courses.first().map_or(0, |course| course.choices.len());
    let subtitle = format!("distribute the same {connections} connections over four servers");
    let mut group = Group::new()
        .add(text(MARGIN, 46.0, "title", &format!("{} schedulers", courses.len())))
        .add(text(MARGIN, 70.0, "quiet", &subtitle));
    let lines = [
        "squares: the first connections, in their order",
        "area: connections that are open, over time",
        "bar: where all connections went; ticks: what the weights ask for",
    ];
    for (index, line) in lines.iter().enumerate() {
        group = group.add(text(KEY, 34.0 + index as f64 * 18.0, "quiet", line));
    }
    let mut x = MARGIN;
    for (server, weight) in WEIGHTS.iter().enumerate() {
        let label = match server {
            QUIESCED => format!("weight {weight}, and 0 between the dotted lines"),
            _ => format!("weight {weight}"),
        };
        group =
            group.add(square(x, 88.0, 12.0, COLOURS[server])).add(text(x + 18.0, 98.5, "", &label));
        x += 40.0 + label.len() as f64 * 7.0;
    }
    group.add(square(x, 88.0, 12.0, REFUSED)).add(text(x + 18.0, 98.5, "", "refused"))
}

fn card(course: &Course, most: f64) -> Group {
    let frame = Rectangle::new()
        .set("width", CARD_WIDTH)
        .set("height", CARD_HEIGHT)
        .set("rx", 6)
        .set("class", "card");
    let mut group = Group::new().add(frame).add(text(PAD, 26.0, "name", course.name));
    for (index, line) in wrapped(course.rule).iter().enumerate() {
        group = group.add(text(PAD, 44.0 + index as f64 * 14.0, "rule", line));
    }
    group.add(first_choices(course)).add(area(course, most)).add(shares(course))
}

/// A rule in lines that fit a card.
fn wrapped(rule: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in rule.split(' ') {
        let line = lines.last_mut().expect("there is a line");
        if !line.is_empty() && line.len() + word.len() >= LINE_LETTERS {
            lines.push(word.into());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// A square for each of the first connections; drawn in steps of one, to keep the picture small.
fn first_choices(course: &Course) -> Group {
    let mut paths = vec![String::new(); COLOURS.len() + 1];
    for (index, choice) in course.choices.iter().take(FIRST).enumerate() {
        let _ = write!(paths[choice.unwrap_or(COLOURS.len())], "M{index} 0h.8");
    }
    let step = INNER / FIRST as f64;
    let place = format!("translate({PAD} {STRIP}) scale({step:.2})");
    let group = Group::new().set("transform", place).set("stroke-width", 0.8);
    let drawn = paths.into_iter().zip(COLOURS.iter().chain([&REFUSED]));
    drawn.filter(|(path, _)| !path.is_empty()).fold(group, |group, (path, colour)| {
        group.add(Path::new().set("d", path).set("stroke", *colour))
    })
}

/// Open connections over time, one server upon the other.
fn area(course: &Course, most: f64) -> Group {
    let (across, up) = (INNER / (SAMPLES - 1) as f64, AREA_HEIGHT / most);
    let place = format!("translate({PAD} {AREA_BOTTOM}) scale({across:.3} -{up:.3})");
    let mut areas = Group::new().set("transform", place);
    // The sum of all first, and what is left without the last server before it.
    for server in (0..WEIGHTS.len()).rev() {
        let sums = course.open.iter().map(|open| open[..=server].iter().sum::<u32>());
        let path = Path::new().set("d", outline(sums)).set("fill", COLOURS[server]);
        areas = areas.add(path);
    }
    let mut group = Group::new().add(areas);
    for part in [QUIET.0, QUIET.1] {
        let x = format!("{:.1}", PAD + INNER * part);
        let line = Line::new().set("class", "dots").set("x1", x.clone()).set("x2", x);
        group = group.add(line.set("y1", AREA_BOTTOM - AREA_HEIGHT).set("y2", AREA_BOTTOM));
    }
    group
}

/// A path along heights that are one apart, and back along the ground.
fn outline(heights: impl Iterator<Item = u32>) -> String {
    let mut path = String::from("M0 0");
    let mut last = 0;
    for (index, height) in heights.map(i64::from).enumerate() {
        let _ = match index {
            0 => write!(path, "v{height}l"),
            _ => write!(path, "1 {} ", height - last),
        };
        last = height;
    }
    path.trim_end().to_owned() + "V0z"
}

/// Where all connections went.
fn shares(course: &Course) -> Group {
    let total = course.choices.len().max(1) as f64;
    let mut group = Group::new();
    let mut x = PAD;
    let parts = (0..WEIGHTS.len()).map(Some).chain([None]);
    for part in parts {
        let count = course.choices.iter().filter(|choice| **choice == part).count();
        let share = count as f64 / total;
        if count == 0 {
            continue;
        }
        let width = INNER * share;
        let colour = part.map_or(REFUSED, |server| COLOURS[server]);
        let bar = Rectangle::new()
            .set("x", format!("{x:.1}"))
            .set("y", BAR)
            .set("width", format!("{width:.1}"))
            .set("height", BAR_HEIGHT)
            .set("fill", colour);
        group = group.add(bar);
        if width > 30.0 {
            let class = if part.is_some() { "share" } else { "share dark" };
            let label = format!("{:.0} %", share * 100.0);
            group = group.add(text(x + width / 2.0, BAR + 14.0, class, &label));
        }
        x += width;
    }
    let all: i32 = WEIGHTS.iter().sum();
    let mut sum = 0;
    for weight in &WEIGHTS[..WEIGHTS.len() - 1] {
        sum += weight;
        let x = PAD + INNER * f64::from(sum) / f64::from(all);
        let x = format!("{x:.1}");
        let tick = Line::new().set("class", "tick").set("x1", x.clone()).set("x2", x);
        group = group.add(tick.set("y1", BAR + BAR_HEIGHT).set("y2", BAR + BAR_HEIGHT + 5.0));
    }
    group
}

fn square(x: f64, y: f64, side: f64, colour: &str) -> Rectangle {
    let square = Rectangle::new().set("x", format!("{x:.0}")).set("y", y).set("rx", 2);
    square.set("width", side).set("height", side).set("fill", colour)
}

fn text(x: f64, y: f64, class: &str, content: &str) -> Text {
    Text::new(content).set("x", format!("{x:.1}")).set("y", y).set("class", class)
}

/// Told apart by people who see colours otherwise, too.
const COLOURS: [&str; 4] = ["#2f6db3", "#e8833a", "#3f9c78", "#8d5fa8"];
const REFUSED: &str = "#d5dae0";

/// Holds below the class of the document only, so that it can be part of a page.
const STYLE: &str = ".schedulers text { font-family: system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; \
    font-size: 12px; fill: #24292f } .schedulers .title { font-size: 24px; font-weight: 600 } \
    .schedulers .name { font-size: 17px; font-weight: 600 } \
    .schedulers .rule { font-size: 11px; fill: #57606a } .schedulers .quiet { fill: #57606a } \
    .schedulers .share { fill: #fff; font-size: 11px; text-anchor: middle } \
    .schedulers .dark { fill: #57606a } .schedulers .card { fill: #fff; stroke: #d0d7de } \
    .schedulers .tick { stroke: #24292f; stroke-width: 1.5 } \
    .schedulers .dots { stroke: #24292f; stroke-opacity: 0.6; stroke-dasharray: 1.5 3 }";

const COLUMNS: usize = 3;
const WIDTH: f64 = 1080.0;
const MARGIN: f64 = 30.0;
const GAP: f64 = 18.0;
const CARD_WIDTH: f64 = (WIDTH - 2.0 * MARGIN - 2.0 * GAP) / COLUMNS as f64;
const CARD_HEIGHT: f64 = 224.0;
/// Above the cards, and below them.
const TOP: f64 = 122.0;
const BOTTOM: f64 = 30.0;
/// Where the key begins.
const KEY: f64 = 620.0;
/// Inside a card.
const PAD: f64 = 14.0;
const INNER: f64 = CARD_WIDTH - 2.0 * PAD;
/// Letters that fit into a line of a rule.
const LINE_LETTERS: usize = 54;
/// The first choices: how many, and where.
const FIRST: usize = 40;
const STRIP: f64 = 75.0;
/// The chart of open connections.
const AREA_BOTTOM: f64 = 182.0;
const AREA_HEIGHT: f64 = 92.0;
/// The bar of shares.
const BAR: f64 = 192.0;
const BAR_HEIGHT: f64 = 19.0;
