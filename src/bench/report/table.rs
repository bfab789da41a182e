//! The report as text for a terminal.

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};

use super::{Entry, Figure, Report, Standing, human};
use crate::bench::contender::Contender;
use crate::bench::load::{Latency, Load};

pub(super) fn render(report: &Report) -> String {
    let mut parts = vec![headline(report)];
    if report.loads().is_empty() {
        parts.push("nothing was measured\n".to_owned());
    } else {
        parts.push(rates(report));
    }
    parts.extend(latencies(report));
    parts.push(notes(report).join("\n") + "\n");
    parts.join("\n")
}

fn headline(report: &Report) -> String {
    let settings = &report.settings;
    let rounds = match settings.rounds {
        1 => "one round".to_owned(),
        rounds => format!("medians of {rounds} rounds"),
    };
    format!(
        "ulvs {} on {}\n{rounds}, {} s each after {} s of warm-up\n",
        report.machine.ulvs,
        report.machine.summary(),
        settings.seconds,
        settings.warm_up_seconds
    )
}

/// One group of rows for each load, one row for each contender.
fn rates(report: &Report) -> String {
    let header = ["load", "contender", "median", "lowest", "highest", "x routing", "x nft", ""];
    let mut table = table(&header, 2..=6);
    for load in report.loads() {
        if table.row_count() > 0 {
            table.add_row(vec![""; header.len()]);
        }
        let mut label = load.title();
        for entry in &report.entries {
            let Some(figure) = entry.figure(load) else {
                continue;
            };
            table.add_row(rate_row(report, label, entry, figure));
            label = "";
        }
    }
    finished(&table)
}

fn rate_row(report: &Report, label: &str, entry: &Entry, figure: &Figure) -> Vec<String> {
    let load = figure.load;
    let rate = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| human(v, load));
    let ratio = |to| {
        let ratio = report.ratio(load, entry.contender, to);
        ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"))
    };
    let range = figure.range();
    let mark = if figure.troubles().is_empty() { "" } else { "!" };
    vec![
        label.to_owned(),
        entry.contender.title().to_owned(),
        rate(figure.median),
        rate(range.map(|(low, _)| low)),
        rate(range.map(|(_, high)| high)),
        ratio(Contender::Routing),
        ratio(Contender::Nft),
        mark.to_owned(),
    ]
}

/// The latencies of the loads that have them; none if none was measured.
fn latencies(report: &Report) -> Option<String> {
    let header = ["latency, us", "contender", "p50", "p90", "p99", "p99.9", "longest"];
    let mut table = table(&header, 2..=6);
    for load in [Load::Connections, Load::Requests] {
        let mut label = load.title();
        for entry in &report.entries {
            let figure = entry.figure(load);
            let Some(row) = figure.and_then(|figure| latency_row(label, entry, figure)) else {
                continue;
            };
            if !label.is_empty() && table.row_count() > 0 {
                table.add_row(vec![""; header.len()]);
            }
            table.add_row(row);
            label = "";
        }
    }
    (table.row_count() > 0).then(|| finished(&table))
}

fn latency_row(label: &str, entry: &Entry, figure: &Figure) -> Option<Vec<String>> {
    let percentiles: [fn(&Latency) -> f64; 5] =
        [|l| l.p50_us, |l| l.p90_us, |l| l.p99_us, |l| l.p999_us, |l| l.max_us];
    let mut row = vec![label.to_owned(), entry.contender.title().to_owned()];
    for percentile in percentiles {
        row.push(format!("{:.0}", figure.latency_us(percentile)?));
    }
    Some(row)
}

/// A table without lines but one below its header; `numbers` are the columns of figures.
fn table(header: &[&str], numbers: std::ops::RangeInclusive<usize>) -> Table {
    let mut table = Table::new();
    let style = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));
    table.load_style(style);
    table.set_header(header.to_vec());
    for column in numbers {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn finished(table: &Table) -> String {
    table.trim_fmt() + "\n"
}

/// What one has to know to read the figures.
fn notes(report: &Report) -> Vec<String> {
    let mut notes: Vec<String> = report.entries.iter().filter_map(standing_note).collect();
    for entry in &report.entries {
        notes.extend(entry.figures.iter().flat_map(|figure| trouble_notes(entry, figure)));
        notes.extend(entry.figures.iter().filter_map(|figure| pressure_note(entry, figure)));
    }
    let loads = report.loads();
    let taking_part = report.entries.iter().filter(|entry| entry.standing.reason().is_none());
    for entry in taking_part {
        let declined = loads.iter().filter_map(|&load| entry.contender.declines(load));
        notes.extend(declined.map(|reason| format!("{}: {reason}", entry.contender.name())));
    }
    if loads.iter().any(|load| matches!(load, Load::Connections | Load::Requests)) {
        notes.push(format!(
            "latency: of a closed loop of {} connections, each of which waits for its response; \
             a stall delays the requests behind it uncounted",
            report.settings.concurrency
        ));
    }
    if report.machine.debug_build {
        notes.push("THIS IS A DEBUG BUILD of ulvs: its figures mean nothing".to_owned());
    }
    notes
}

fn standing_note(entry: &Entry) -> Option<String> {
    let name = entry.contender.name();
    match &entry.standing {
        Standing::Measured { version } => Some(format!("{name}: {version}")),
        Standing::Skipped { reason } => Some(format!("{name}: {reason}")),
        Standing::Failed { reason } => Some(format!("{name}: FAILED, {reason}")),
    }
}

fn trouble_notes(entry: &Entry, figure: &Figure) -> Vec<String> {
    let (name, load) = (entry.contender.name(), figure.load.name());
    let note = |trouble| format!("! {load} with {name}: {trouble}");
    figure.troubles().into_iter().map(note).collect()
}

fn pressure_note(entry: &Entry, figure: &Figure) -> Option<String> {
    let load = figure.load;
    let offered = figure.pressure(|pressure| pressure.offered)?;
    let lossless = figure.pressure(|pressure| pressure.lossless)?;
    let limited = figure.measurements().any(|m| m.pressure.is_some_and(|p| p.generator_limited));
    let limit = if limited { "; more could not be sent" } else { "" };
    Some(format!(
        "{} with {}: at {} offered; lossless up to {}{limit}",
        load.name(),
        entry.contender.name(),
        human(offered, load),
        human(lossless, load)
    ))
}
