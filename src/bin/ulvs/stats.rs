//! `ulvs stats`: what the director counts beyond what ipvsadm shows.

use std::fmt::Write;
use std::process::ExitCode;

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use serde_json::{Value, json};
use ulvs::control::client::{Director, Failure};
use ulvs::control::netlink::counter::CounterView;
use ulvs::control::socket::{SocketTransport, default_path};

/// Arguments of `ulvs stats`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Groups:
  packets         what became of packets: forwarded, replied to, passed to the host, or held as
                  fragments until their datagram is whole
  fragments       datagrams that came in fragments: reassembled (and judged like packets),
                  timed-out (some did not come), pushed-out (to make room for others),
                  restarted (too many other fragments of their sender in between)
  dropped         packets that ended here, by reason
  ignored         frames that were not for the director, by reason
  sync            connections told to other directors and heard of them; messages lost as too many
                  waited, unsent, received, or refused (another syncid, another length); entries
                  ignored (no room, unknown), and messages broken (the rest could not be read)
  worker          connections tracked; packets handed over to other workers, or lost on the way:
                  too-long (for their link, and not to be fragmented)
  interface NAME  frames received and sent since it was opened, and those lost:
                  ring-drops (a worker was too slow), refused (the device's queue was full)
  link            next hops: packets without a route, or whose next hop was silent; ARP")]
pub struct Args {
    /// Show counters that are still zero, too
    #[arg(short, long)]
    all: bool,
    /// Print all of them as one JSON document
    #[arg(long)]
    json: bool,
}

/// Runs the command. Status 1 is a director that cannot be reached.
pub fn run(args: &Args) -> ExitCode {
    let mut transport = SocketTransport::new(default_path());
    match Director::new(&mut transport).counters() {
        Ok(counters) => {
            let rows = rows(&counters);
            match args.json {
                true => println!("{:#}", document(&rows)),
                false => print!("{}", render(&rows, args.all)),
            }
            ExitCode::SUCCESS
        }
        Err(Failure::Refused { errno, hint }) => {
            eprintln!("ulvs stats: {}", hint.unwrap_or_else(|| errno.desc().into()));
            ExitCode::FAILURE
        }
        Err(Failure::Transport(error)) => {
            // It names the socket, and what starts a director there.
            eprintln!("ulvs stats: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One counter with what each worker has of it.
struct Row<'a> {
    group: &'a str,
    name: &'a str,
    total: u64,
    workers: Vec<(u32, u64)>,
}

/// Counters of the same name together, in the order in which they come first.
fn rows(counters: &[CounterView]) -> Vec<Row<'_>> {
    let mut rows = Vec::<Row>::new();
    for CounterView { worker, group, name, value } in counters {
        let known = rows.iter().position(|row| row.group == group && row.name == name);
        let at = known.unwrap_or_else(|| {
            rows.push(Row { group, name, total: 0, workers: Vec::new() });
            rows.len() - 1
        });
        rows[at].total = rows[at].total.saturating_add(*value);
        rows[at].workers.extend(worker.map(|worker| (worker, *value)));
    }
    rows
}

fn document(rows: &[Row]) -> Value {
    let one = |row: &Row| {
        let workers = row.workers.iter().map(|(worker, value)| (worker.to_string(), *value));
        let workers: std::collections::BTreeMap<_, _> = workers.collect();
        json!({ "group": row.group, "name": row.name, "total": row.total, "workers": workers })
    };
    json!({ "counters": rows.iter().map(one).collect::<Vec<_>>() })
}

/// A table with a column for each worker, if there is more than one.
fn render(rows: &[Row], all: bool) -> String {
    let mut workers: Vec<u32> =
        rows.iter().flat_map(|row| &row.workers).map(|(worker, _)| *worker).collect();
    workers.sort_unstable();
    workers.dedup();
    if workers.len() < 2 {
        workers.clear();
    }
    let mut header = vec!["group".to_owned(), "counter".to_owned(), "total".to_owned()];
    header.extend(workers.iter().map(|worker| format!("worker {worker}")));
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─')));
    table.set_header(header);
    let mut group = "";
    let shown = rows.iter().filter(|row| all || row.total > 0);
    for row in shown {
        let label = if row.group == group { "" } else { row.group };
        group = row.group;
        let mut cells = vec![label.to_owned(), row.name.to_owned(), row.total.to_string()];
        cells.extend(workers.iter().map(|worker| row.of_worker(*worker)));
        table.add_row(cells);
    }
    for column in 2..3 + workers.len() {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = String::new();
    let hidden = rows.len() - table.row_count();
    let written = match (table.row_count(), hidden) {
        (0, _) => writeln!(text, "nothing counted yet"),
        (_, 0) => writeln!(text, "{}", table.trim_fmt()),
        _ => writeln!(text, "{}\n{hidden} more are zero (--all shows them)", table.trim_fmt()),
    };
    written.expect("a string takes everything");
    text
}

impl Row<'_> {
    fn of_worker(&self, worker: u32) -> String {
        let own = self.workers.iter().find(|(number, _)| *number == worker);
        own.map_or_else(String::new, |(_, value)| value.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(worker: Option<u32>, group: &str, name: &str, value: u64) -> CounterView {
        CounterView { worker, group: group.into(), name: name.into(), value }
    }

    fn two_workers() -> Vec<CounterView> {
        vec![
            counter(Some(0), "packets", "forwarded", 7),
            counter(Some(0), "dropped", "truncated", 0),
            counter(Some(1), "packets", "forwarded", 5),
            counter(Some(1), "dropped", "truncated", 0),
            counter(None, "link", "silent", 3),
        ]
    }

    #[test]
    fn zero_rows_are_shown_only_when_asked_for() {
        let counters = two_workers();
        let text = render(&rows(&counters), false);
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[2], ["packets", "forwarded", "12", "7", "5"]);
        assert_eq!(lines[3], ["link", "silent", "3"]);
        assert_eq!(lines[4], ["1", "more", "are", "zero", "(--all", "shows", "them)"]);
        let text = render(&rows(&counters), true);
        assert!(text.contains("truncated") && !text.contains("--all"), "{text}");
        assert_eq!(render(&[], false), "nothing counted yet\n");
    }

    #[test]
    fn the_document_has_every_counter() {
        let counters = two_workers();
        let document = document(&rows(&counters));
        assert_eq!(document["counters"][0]["total"], 12);
        assert_eq!(document["counters"][0]["workers"]["1"], 5);
        assert_eq!(document["counters"][1]["total"], 0);
        assert_eq!(document["counters"][2]["workers"], json!({}));
    }
}
