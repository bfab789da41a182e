//! Connections from one director to another.

use super::*;
use crate::engine::sync::{MasterConfig, SyncRoles};
use crate::packet::Endpoint;

fn roles(fixture: &Fixture, ports: u8) -> SyncRoles {
    let since = fixture.now;
    let master = Some(MasterConfig { id: 5, max_len: 1472, ports, since, start: 1 });
    SyncRoles { master, is_backup: false }
}

fn masters(ports: u8) -> Fixture {
    let mut lab = Fixture::new();
    lab.services.set_sync(roles(&lab, ports));
    lab.director.refresh();
    lab
}

/// Opens a connection and has so many packets of its client follow.
fn establish(lab: &mut Fixture, port: u16, packets: usize) {
    lab.send(&mut tcp((CLIENT, port), (VIP, 80), SYN));
    for _ in 0..packets {
        lab.send(&mut tcp((CLIENT, port), (VIP, 80), ACK));
    }
}

fn told(lab: &mut Fixture) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| lab.director.poll_sync()).map(|message| message.bytes).collect()
}

#[test]
fn a_backup_goes_on_where_the_master_was() {
    let mut master = masters(1);
    for port in 1000..1100 {
        establish(&mut master, port, 2);
    }
    master.sleep(4);
    let messages = told(&mut master);
    assert_eq!(messages.iter().map(Vec::len).max(), Some(8 + 40 * 36));
    let mut backup = Fixture::new();
    for message in &messages {
        backup.director.handle_sync(message, 5, |_| true, &LAB, backup.now).unwrap();
    }
    let counters = backup.director.sync_counters();
    assert_eq!((counters.heard, counters.ignored, counters.broken), (100, 0, 0));
    assert_eq!(master.director.sync_counters().told, 100);
    for port in 1000..1100 {
        let here = master.send(&mut tcp((CLIENT, port), (VIP, 80), ACK));
        let there = backup.send(&mut tcp((CLIENT, port), (VIP, 80), ACK));
        assert_eq!(here, there, "the same server for port {port}");
        assert!(matches!(here, Verdict::Forward(_)));
    }
    assert_eq!((backup.load(ACCP), backup.load(BENET)), ((50, 0), (50, 0)));
}

#[test]
fn what_a_director_does_not_own_it_leaves_to_others() {
    let mut master = masters(1);
    (1000..1010).for_each(|port| establish(&mut master, port, 2));
    master.sleep(4);
    let mut backup = Fixture::new();
    for message in told(&mut master) {
        let owns = |entry: &crate::engine::sync::Entry| entry.client.port.is_multiple_of(2);
        backup.director.handle_sync(&message, 5, owns, &LAB, backup.now).unwrap();
    }
    assert_eq!(backup.director.connections().len(), 5);
}

#[test]
fn messages_are_spread_over_ports_and_lost_when_too_many_wait() {
    let mut master = masters(4);
    (1000..1400).for_each(|port| establish(&mut master, port, 2));
    master.sleep(4);
    let ports: std::collections::BTreeSet<u8> =
        std::iter::from_fn(|| master.director.poll_sync()).map(|each| each.port_offset).collect();
    assert_eq!(ports, [0, 1, 2, 3].into());
    master.services.set_setting("sync_qlen_max", "0").unwrap();
    master.director.refresh();
    (2000..2400).for_each(|port| establish(&mut master, port, 2));
    master.sleep(4);
    assert!(told(&mut master).is_empty());
    assert!(master.director.sync_counters().lost >= 10);
}

#[test]
fn a_standing_by_backup_leaves_clients_to_the_host() {
    let mut lab = Fixture::new();
    lab.services.set_setting("backup_only", "1").unwrap();
    lab.director.refresh();
    let verdict = lab.send(&mut tcp((CLIENT, 1000), (VIP, 80), SYN));
    assert!(matches!(verdict, Verdict::Forward(_)), "it is no backup yet");
    lab.services.set_sync(SyncRoles { master: None, is_backup: true });
    lab.director.refresh();
    assert_eq!(lab.send(&mut tcp((CLIENT, 1000), (VIP, 80), ACK)), Verdict::Pass);
    assert_eq!(lab.send(&mut tcp((CLIENT, 1001), (VIP, 80), SYN)), Verdict::Pass);
    let answer = lab.send(&mut tcp((BENET, 8080), (CLIENT, 1000), SYN_ACK));
    assert_eq!(answer, Verdict::Forward(Hop { to: addr(CLIENT) }));
}

#[test]
fn a_full_table_takes_no_more_from_others() {
    let mut master = masters(1);
    (1000..1010).for_each(|port| establish(&mut master, port, 2));
    master.sleep(4);
    let services = Fixture::new().services;
    let config = DirectorConfig { max_connections: 3, ..DirectorConfig::new(0, 1) };
    let mut backup = Director::new(services, config, master.now);
    for message in told(&mut master) {
        backup.handle_sync(&message, 0, |_| true, &LAB, master.now).unwrap();
    }
    let counters = backup.sync_counters();
    assert_eq!((counters.heard, counters.ignored, backup.connections().len()), (3, 7, 3));
}

/// Recounts what a director's connections weigh with their servers.
fn recounted(lab: &Fixture, server: &str) -> (u32, u32) {
    let mut counts = (0, 0);
    for conn in lab.director.connections().iter() {
        let is_its =
            conn.real().is_some_and(|real| real.endpoint() == Endpoint::new(addr(server), 8080));
        match conn.activity() {
            _ if !is_its => {}
            crate::engine::service::Activity::Active => counts.0 += 1,
            crate::engine::service::Activity::Inactive => counts.1 += 1,
        }
    }
    counts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn whatever_is_heard_the_servers_counts_stay_right(
        steps in proptest::collection::vec((0u8..8, 1000u16..1006, any::<u32>(), any::<prop::sample::Index>(), any::<u8>()), 1..60),
    ) {
        let mut master = masters(1);
        master.services.set_setting("sync_threshold", "0 1").unwrap();
        master.director.refresh();
        let mut backup = Fixture::new();
        for (step, port, number, at, byte) in steps {
            match step {
                0 => establish(&mut master, port, 1),
                1 => drop(master.send(&mut tcp((CLIENT, port), (VIP, 80), FIN_ACK))),
                2 => drop(backup.send(&mut tcp((CLIENT, port), (VIP, 80), number as u8 & 0x3f))),
                3 => drop(backup.send(&mut tcp((BENET, 8080), (CLIENT, port), number as u8 & 0x3f))),
                4 => backup.sleep(u64::from(number % 70)),
                _ => {
                    master.sleep(4);
                    for mut message in told(&mut master) {
                        let at = at.index(message.len());
                        if step == 5 {
                            message[at] = byte;
                        }
                        let _ = backup.director.handle_sync(&message, 0, |_| true, &LAB, backup.now);
                    }
                }
            }
            for server in [ACCP, BENET] {
                prop_assert_eq!(backup.load(server), recounted(&backup, server));
            }
        }
    }
}
