//! What the director counts, under the names by which it is shown.

use crate::control::netlink::counter::CounterView;
use crate::driver::{ReceiverCounters, SenderCounters};
use crate::engine::fragments::FragmentCounters;
use crate::engine::{DropReason, VerdictCounters};
use crate::link::LinkCounters;
use crate::worker::WorkerCounters;

/// The counters of one worker; `interfaces` are the names of its ports.
pub(super) fn of_worker(
    number: usize,
    counted: &WorkerCounters,
    interfaces: &[String],
) -> Vec<CounterView> {
    let VerdictCounters { forwarded, replied, passed, held, .. } = counted.verdicts;
    let FragmentCounters { reassembled, timed_out, pushed_out, restarted } = counted.fragments;
    let drops = DropReason::ALL.iter();
    let drops = drops.map(|reason| (reason.name(), counted.verdicts.dropped(*reason)));
    let mut groups = vec![
        (
            "packets".to_owned(),
            vec![
                ("forwarded", forwarded),
                ("replied", replied),
                ("passed", passed),
                ("held", held),
            ],
        ),
        (
            "fragments".to_owned(),
            vec![
                ("reassembled", reassembled),
                ("timed-out", timed_out),
                ("pushed-out", pushed_out),
                ("restarted", restarted),
            ],
        ),
        ("dropped".to_owned(), drops.collect()),
        ("ignored".to_owned(), counted.ignored.iter().collect()),
        (
            "full-nat".to_owned(),
            vec![
                ("ports-reused", counted.full_nat.reused),
                ("client-untold", counted.full_nat.untold),
            ],
        ),
        (
            "sync".to_owned(),
            vec![
                ("told", counted.sync.told),
                ("lost", counted.sync.lost),
                ("unsent", counted.sync_unsent),
                ("heard", counted.sync.heard),
                ("ignored", counted.sync.ignored),
                ("broken", counted.sync.broken),
            ],
        ),
        (
            "worker".to_owned(),
            vec![
                ("connections", counted.connections as u64),
                ("handed-over", counted.handed_over),
                ("mailbox-full", counted.mailbox_full),
                ("no-next-hop", counted.lost.no_next_hop),
                ("too-long", counted.lost.too_long),
            ],
        ),
    ];
    let ports = interfaces.iter().zip(&counted.ports);
    groups.extend(ports.map(|(name, port)| (format!("interface {name}"), of_port(port))));
    views(Some(number as u32), groups)
}

fn of_port((received, sent): &(ReceiverCounters, SenderCounters)) -> Vec<(&'static str, u64)> {
    vec![
        ("received", received.frames),
        ("ring-drops", received.ring_drops),
        ("damaged", received.damaged),
        ("sent", sent.frames),
        ("refused", sent.refused),
        ("link-down", sent.link_down),
        ("rejected", sent.rejected),
    ]
}

/// The counters of the link layer, which all workers share.
pub(super) fn of_link(counted: &LinkCounters) -> Vec<CounterView> {
    let LinkCounters { no_route, silent, overflow, bad_arp, bad_nd, questions, answers, reports } =
        *counted;
    let counters = vec![
        ("no-route", no_route),
        ("silent", silent),
        ("overflow", overflow),
        ("bad-arp", bad_arp),
        ("bad-nd", bad_nd),
        ("questions", questions),
        ("answers", answers),
        ("reports", reports),
    ];
    views(None, vec![("link".to_owned(), counters)])
}

/// The counters of messages of other directors.
pub(super) fn of_sync(counted: Vec<(&'static str, u64)>) -> Vec<CounterView> {
    views(None, vec![("sync".to_owned(), counted)])
}

fn views(worker: Option<u32>, groups: Vec<(String, Vec<(&'static str, u64)>)>) -> Vec<CounterView> {
    let mut views = Vec::new();
    for (group, counters) in groups {
        views.extend(counters.into_iter().map(|(name, value)| {
            let (group, name) = (group.clone(), name.to_owned());
            CounterView { worker, group, name, value }
        }));
    }
    views
}
