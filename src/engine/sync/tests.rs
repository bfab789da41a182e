//! Messages there and back, hostile ones, and when what is told.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::due::{Candidate, Told, due};
use super::master::Master;
use super::message::{Refusal, Version, read};
use super::*;
use crate::engine::conn::State;
use crate::engine::conn::tcp::TcpState;
use crate::engine::settings::Settings;
use crate::packet::{Addr, Endpoint};

fn endpoint(is_v6: bool) -> impl Strategy<Value = Endpoint> {
    (any::<u32>(), any::<u16>()).prop_map(move |(bits, port)| {
        let v6 =
            Addr::v6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0).to_bits() | u128::from(bits));
        Endpoint::new(if is_v6 { v6 } else { Addr::v4(bits) }, port)
    })
}

/// What an entry has beside an engine's data, which it borrows.
fn plain(is_v6: bool) -> impl Strategy<Value = Entry<'static>> {
    let ends = (endpoint(is_v6), endpoint(is_v6), endpoint(is_v6));
    let numbers = (any::<u8>(), any::<u32>(), any::<u16>(), any::<u32>(), any::<u32>());
    (ends, numbers, any::<[u8; SEQUENCE_LEN]>()).prop_map(
        |((client, virtual_endpoint, real_endpoint), numbers, shifts)| {
            let (protocol, flags, state, mark, timeout_s) = numbers;
            let shifts = (flags & flag::SEQUENCE != 0).then_some(shifts);
            Entry {
                protocol,
                client,
                virtual_endpoint,
                real_endpoint,
                flags,
                state,
                mark,
                timeout_s,
                shifts,
                engine: None,
            }
        },
    )
}

/// An engine's name and data.
type Known = Option<(Vec<u8>, Vec<u8>)>;

fn entry() -> impl Strategy<Value = (Entry<'static>, Known)> {
    let engine = option::of((vec(any::<u8>(), 1..=16), vec(any::<u8>(), 1..=255)));
    (any::<bool>().prop_flat_map(plain), engine)
}

/// A message of one connection, as the kernel sends it.
const RECORDED: &str = "0005002c010100000006002400000100000103e8005000500000000000000384\
                        0c0000020c000001c0a8c86e";

fn recorded() -> Vec<u8> {
    let digits: Vec<u8> = RECORDED.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn recorded_entry() -> Entry<'static> {
    let v4 = |text: &str, port| {
        Endpoint::new(Addr::v4(text.parse::<Ipv4Addr>().unwrap().to_bits()), port)
    };
    Entry {
        protocol: 6,
        client: v4("12.0.0.2", 1000),
        virtual_endpoint: v4("12.0.0.1", 80),
        real_endpoint: v4("192.168.200.110", 80),
        flags: flag::INACTIVE,
        state: 1,
        mark: 0,
        timeout_s: 900,
        shifts: None,
        engine: None,
    }
}

#[test]
fn a_recorded_message_is_read_and_written_as_it_is() {
    let bytes = recorded();
    let read: Result<Vec<_>, _> = read(&bytes, 5).unwrap().collect();
    assert_eq!(read.unwrap(), [recorded_entry()]);
    let mut written = vec![0xa5; 100];
    Version::V1.begin(&mut written, 5);
    Version::V1.push(&mut written, &recorded_entry());
    assert_eq!(written, bytes);
}

#[test]
fn messages_for_others_and_cut_ones_are_refused() {
    let bytes = recorded();
    assert!(read(&bytes, 0).is_ok(), "id 0 listens to all");
    assert_eq!(read(&bytes, 6).err(), Some(Refusal::Id));
    for len in 0..4 {
        assert_eq!(read(&bytes[..len], 5).err(), Some(Refusal::Short));
    }
    for len in 4..bytes.len() {
        assert_eq!(read(&bytes[..len], 5).err(), Some(Refusal::Length));
    }
}

#[test]
fn what_follows_an_entry_that_cannot_be_read_is_not_read() {
    let mut bytes = Vec::new();
    Version::V1.begin(&mut bytes, 5);
    (0..3).for_each(|_| Version::V1.push(&mut bytes, &recorded_entry()));
    // The kind of the second.
    bytes[8 + 36] = 2;
    let read: Vec<_> = read(&bytes, 5).unwrap().collect();
    assert_eq!(read, [Ok(recorded_entry()), Err(Refusal::Entry)]);
}

proptest! {
    #[test]
    fn entries_come_out_as_they_went_in(all in vec(entry(), 1..8)) {
        let entries: Vec<Entry> = all.iter().map(|(plain, engine)| {
            let engine = engine.as_ref().map(|(name, data)| Engine { name, data });
            Entry { engine, ..*plain }
        }).collect();
        let mut message = vec![0xa5; 7];
        Version::V1.begin(&mut message, 9);
        entries.iter().for_each(|entry| Version::V1.push(&mut message, entry));
        let read: Result<Vec<_>, _> = read(&message, 9).unwrap().collect();
        prop_assert_eq!(read, Ok(entries));
    }

    #[test]
    fn the_old_version_has_what_it_has_room_for(all in vec(plain(false), 1..8)) {
        let mut message = Vec::new();
        Version::V0.begin(&mut message, 9);
        all.iter().for_each(|entry| Version::V0.push(&mut message, entry));
        let old: Vec<_> = all.iter().map(|entry| Entry {
            flags: entry.flags & 0xffff, mark: 0, timeout_s: 0, ..*entry
        }).collect();
        let read: Result<Vec<_>, _> = read(&message, 9).unwrap().collect();
        prop_assert_eq!(read, Ok(old));
    }

    #[test]
    fn any_bytes_are_read_without_harm(mut bytes in vec(any::<u8>(), 0..400), new in any::<bool>()) {
        // Headers that are right, so that it is the entries that are wrong.
        if let Some(header) = bytes.first_chunk_mut::<8>() {
            header[2..4].copy_from_slice(&400u16.to_be_bytes());
            if new {
                (header[0], header[5], header[6], header[7]) = (0, 1, 0, 0);
            }
        }
        let len = bytes.len() as u16;
        if let Some(field) = bytes.get_mut(2..4) {
            field.copy_from_slice(&len.to_be_bytes());
        }
        let Ok(entries) = read(&bytes, 0) else { return Ok(()) };
        let count = entries.count();
        prop_assert!(count <= 255 && count <= bytes.len() / 24 + 1, "{count}");
        prop_assert!(entries.filter(|entry| *entry == Err(Refusal::Entry)).count() <= 1);
    }

    #[test]
    fn a_damaged_message_is_read_without_harm(all in vec(entry(), 1..8), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut message = Vec::new();
        Version::V1.begin(&mut message, 9);
        for (plain, engine) in &all {
            let engine = engine.as_ref().map(|(name, data)| Engine { name, data });
            Version::V1.push(&mut message, &Entry { engine, ..*plain });
        }
        let at = at.index(message.len());
        message[at] = byte;
        if let Ok(entries) = read(&message, 0) {
            prop_assert!(entries.count() <= 255);
        }
    }
}

const SINCE: Moment = Moment::from_ms(1_000_000);

fn after(ms: u64) -> Moment {
    Moment::from_ms(SINCE.as_ms() + ms)
}

fn master(max_len: u16) -> Master {
    Master::new(MasterConfig { id: 5, max_len, ports: 1, since: SINCE, start: 1 })
}

fn entries_in(master: &mut Master) -> Vec<usize> {
    std::iter::from_fn(|| master.poll())
        .map(|message| read(&message.bytes, 5).unwrap().filter(Result::is_ok).count())
        .collect()
}

#[test]
fn a_message_waits_two_seconds_for_more() {
    let mut master = master(1472);
    for step in 0..3 {
        master.tell(&recorded_entry(), Version::V1, 0, 10, after(100 * step));
    }
    for ms in (0..3000).step_by(100) {
        master.handle_timeout(after(ms), 10);
        assert!(master.poll().is_none(), "after {ms} ms");
    }
    master.handle_timeout(after(3000), 10);
    assert_eq!(entries_in(&mut master), [3]);
}

#[test]
fn messages_are_no_longer_than_asked_for_and_leave_together() {
    let mut master = master(8 + 3 * 36);
    (0..8).for_each(|_| master.tell(&recorded_entry(), Version::V1, 0, 10, SINCE));
    assert!(master.poll().is_none(), "they wait for others");
    master.handle_timeout(after(20), 10);
    assert_eq!(entries_in(&mut master), [3, 3]);
    master.handle_timeout(after(5000), 10);
    assert_eq!(entries_in(&mut master), [2]);
}

#[test]
fn so_many_messages_wait_and_no_more() {
    let mut master = master(1);
    (0..9).for_each(|_| master.tell(&recorded_entry(), Version::V1, 0, 4, SINCE));
    assert_eq!(master.counters(), MasterCounters { entries: 9, lost: 4 });
    master.handle_timeout(after(20), 4);
    assert_eq!(entries_in(&mut master), [1; 4]);
}

fn settings(threshold: [i32; 2], refresh_s: i32, retries: i32) -> Settings {
    Settings {
        sync_threshold: threshold,
        sync_refresh_period: refresh_s,
        sync_retries: retries,
        ..Settings::default()
    }
}

fn candidate(state: Option<State>, packets: u32) -> Candidate {
    let told = Told::default();
    Candidate { state, is_in_told_state: true, packets, timeout_ms: 40_000, told }
}

#[test]
fn connections_are_told_at_their_third_packet_and_every_fifty() {
    let told: Vec<u32> = (1..200)
        .filter(|packets| {
            due(&candidate(Some(State::Udp), *packets), &Settings::default(), SINCE).is_some()
        })
        .collect();
    assert_eq!(told, [3, 53, 103, 153]);
}

#[test]
fn tcp_is_told_once_established_and_at_once_when_it_ends() {
    let at = |state, is_in_told_state| {
        let candidate = Candidate { is_in_told_state, ..candidate(Some(State::Tcp(state)), 2) };
        due(&candidate, &Settings::default(), SINCE).is_some()
    };
    assert!(!at(TcpState::SynRecv, false));
    assert!(!at(TcpState::Established, false), "that waits for its packet");
    assert!(at(TcpState::FinWait, false));
    assert!(!at(TcpState::FinWait, true));
    assert!(!at(TcpState::LastAck, false));
}

#[test]
fn what_was_told_of_late_is_not_told_again_but_for_retries() {
    let settings = settings([0, 0], 8, 2);
    let mut udp = candidate(Some(State::Udp), 1);
    udp.told = due(&udp, &settings, SINCE).unwrap();
    assert_eq!(due(&udp, &settings, after(900)), None, "an eighth of the period is not over");
    udp.told = due(&udp, &settings, after(1000)).unwrap();
    assert_eq!(udp.told.retries, 1);
    udp.told = due(&udp, &settings, after(2000)).unwrap();
    assert_eq!(udp.told.retries, 2);
    assert_eq!(due(&udp, &settings, after(9000)), None);
    assert_eq!(due(&udp, &settings, after(10_000)).unwrap().retries, 0);
}
