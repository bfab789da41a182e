use std::path::PathBuf;

use super::*;

/// Every packet that any recorded transcript shows, with the masks replaced by values that would be
/// masked again.
fn recorded_packets() -> Vec<String> {
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ipvs");
    let mut found = Vec::new();
    for group in std::fs::read_dir(corpus).unwrap() {
        for file in std::fs::read_dir(group.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "ipvs") {
                let text = std::fs::read_to_string(path).unwrap();
                found.extend(text.lines().filter_map(packet_of_line).map(str::to_string));
            }
        }
    }
    found
}

/// The packet in a line such as `  in rs110: PACKET` or `  out c2 sends PACKET`.
fn packet_of_line(line: &str) -> Option<&str> {
    let line = line.strip_prefix("  ")?;
    let after = ["together: "].iter().find_map(|mark| line.trim_start().strip_prefix(mark));
    let shown = || {
        let (link, rest) = line.split_once(' ')?;
        let (_, rest) = ["out", "in"].contains(&link).then(|| rest.split_once(' '))??;
        Some(rest.strip_prefix("sends ").unwrap_or(rest))
    };
    let packet = after.or_else(shown)?;
    packet.contains(" > ").then_some(packet)
}

fn unmask(text: &str) -> String {
    text.replace("id=*", "id=777")
        .replace("seq=*", "seq=2000000")
        .replace("ack=*", "ack=3000000")
        .replace(":* >", ":55555 >")
}

/// The identification of the packet that was sent last, as far as the text shows it.
fn known_id(text: &str) -> u32 {
    let mut numbers =
        text.split([' ', '}']).filter_map(|word| word.strip_prefix("id=")?.parse().ok());
    numbers.find(|id| *id != 0).unwrap_or(1)
}

#[test]
fn every_recorded_packet_is_read_and_written_alike() {
    let packets = recorded_packets();
    assert!(packets.len() > 700, "only {} packets found", packets.len());
    for text in packets {
        // What a cut header or a later fragment shows is no packet that could be sent.
        let fragment = text.contains("frag=") && !text.contains("frag=0");
        if fragment || text.contains(" short ") || cut_before_its_kind(&text) {
            continue;
        }
        let packet: Packet =
            unmask(&text).parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(packet.format(known_id(&text)), text);
    }
}

fn cut_before_its_kind(text: &str) -> bool {
    let kindless = |proto: &str| {
        text.split(proto).skip(1).any(|rest| {
            let word = rest.split(' ').next().unwrap_or("");
            word.contains('=')
        })
    };
    kindless(" tcp ") || kindless(" sctp ")
}

#[test]
fn every_recorded_packet_survives_the_wire() {
    let mut compared = 0;
    for text in recorded_packets() {
        let Ok(packet) = unmask(&text).parse::<Packet>() else { continue };
        // Quotes whose checksum is wrong were rewritten, fragments show only their length.
        if text.contains("quote=") || text.contains("frag=") {
            continue;
        }
        // What a step sends is shown with its flags in the order in which the step has them.
        let places = packet.kind.chars().map(|flag| TCP_FLAGS.find(flag));
        if packet.proto == Proto::Tcp && !places.is_sorted() {
            continue;
        }
        let arrived = dissect(&packet.build()).expect("a whole packet");
        assert_eq!(arrived.format(known_id(&text)), text);
        compared += 1;
    }
    assert!(compared > 600, "only {compared} packets compared");
}

#[test]
fn fragments_come_together_again() {
    for text in [
        "12.0.0.2:1000 > 12.0.0.1:53 udp len=3000 ttl=64 id=77",
        "[2001:db8:12::2]:1000 > [2001:db8:12::1]:53 udp len=3000 ttl=64",
    ] {
        let packet: Packet = text.parse().unwrap();
        let pieces: Vec<Packet> =
            fragments(&packet, 1480).iter().map(|piece| dissect(piece).unwrap()).collect();
        assert_eq!(pieces.len(), 3);
        assert_eq!(reassemble(&pieces[..2]), None);
        let backwards: Vec<Packet> = pieces.into_iter().rev().collect();
        assert_eq!(reassemble(&backwards).unwrap().format(77), text);
    }
    // The transcripts of the kernel do not show these together.
    let text = "[2001:db8:12::2]:1000 > [2001:db8:12::1]:53 udp len=30 ttl=64 ext=60";
    let packet: Packet = text.parse().unwrap();
    let pieces: Vec<Packet> =
        fragments(&packet, 24).iter().map(|piece| dissect(piece).unwrap()).collect();
    assert_eq!(reassemble(&pieces), None);
}

#[test]
fn what_cannot_be_a_packet_is_refused_with_the_reason() {
    for (text, reason) in [
        ("12.0.0.1:80", "expected 'SRC > DST PROTOCOL ...'"),
        ("12.0.0.2:1 > 12.0.0.300:80 tcp S", "bad address '12.0.0.300:80'"),
        ("12.0.0.2:1 > [::1]:80 tcp S", "source and destination differ in address family"),
        ("12.0.0.2 > 12.0.0.1 quic", "unknown protocol 'quic'"),
        ("12.0.0.2 > 12.0.0.1 tcp S", "ports go with tcp, udp and sctp, and only with them"),
        ("12.0.0.2:1 > 12.0.0.1:80 tcp X", "tcp wants flags out of FSRPAUEC, or 0, not 'X'"),
        ("12.0.0.2:1 > 12.0.0.1:80 udp seq=1", "'seq' is no field of udp"),
        ("12.0.0.2:1 > 12.0.0.1:80 udp ttl=256", "bad value in 'ttl=256'"),
        ("12.0.0.2:1 > 12.0.0.1:80 udp df=1", "bad value in 'df=1'"),
        ("12.0.0.2 > 12.0.0.1 icmp 300/1", "icmp wants TYPE/CODE, not '300/1'"),
        ("12.0.0.2 > 12.0.0.1 ipip", "ipip needs an {inner packet}"),
        ("12.0.0.2 > 12.0.0.1 ipip {12.0.0.2 > 12.0.0.1 p9", "missing '}'"),
        (
            "12.0.0.2:1 > 12.0.0.1:80 udp len=65520",
            "the packet takes 65548 bytes, more than IP can carry",
        ),
    ] {
        assert_eq!(text.parse::<Packet>().unwrap_err().to_string(), reason, "{text}");
    }
}

#[test]
fn cut_and_damaged_bytes_are_told_apart_without_panic() {
    let packet: Packet =
        "12.0.0.2 > 12.0.0.1 icmp 3/3 {12.0.0.1:80 > 12.0.0.2:1 tcp SA}".parse().unwrap();
    let bytes = packet.build();
    for len in 0..bytes.len() {
        let _ = dissect(&bytes[..len]);
        for value in [0, 0x7f, 0xff] {
            let mut damaged = bytes.clone();
            damaged[len] = value;
            let _ = dissect(&damaged).map(|packet| packet.to_string());
        }
    }
    let cut = dissect(&bytes[..28 + 24]).unwrap();
    let shown = "12.0.0.2 > 12.0.0.1 icmp 3/3 ttl=64 quote=52 {12.0.0.1 > 12.0.0.2 tcp short ttl=64 quote=24}";
    assert_eq!(cut.to_string(), shown);
}
