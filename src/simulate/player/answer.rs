//! What the receiver of a packet would normally send back.

use crate::simulate::packet::{NotationError, Packet, Payload, Proto};

/// The sequence number a server begins with.
const SERVER_SEQUENCE: u32 = 5000;

/// The natural answer to a packet.
pub(super) fn answer(received: &Packet) -> Packet {
    let mut packet = Packet::new(received.dst, received.src, received.proto);
    packet.ports = received.ports.map(|(sport, dport)| (dport, sport));
    let payload = received.fields.payload.bytes();
    match received.proto {
        Proto::Tcp => answer_tcp(&mut packet, received, payload.len()),
        Proto::Sctp => packet.kind = sctp_answer(&received.kind).into(),
        Proto::Icmp | Proto::Icmp6 => {
            packet.kind = icmp_answer(&received.kind).into();
            packet.fields.ident = received.fields.ident;
            packet.fields.seq = received.fields.seq;
            packet.fields.payload = Payload::Filler(payload.len());
        }
        _ => packet.fields.payload = Payload::Filler(payload.len()),
    }
    packet
}

fn answer_tcp(packet: &mut Packet, received: &Packet, payload_len: usize) {
    let (flags, fields) = (&received.kind, &received.fields);
    let has = |flag| flags.contains(flag);
    packet.kind = match (has('S') && !has('A'), has('F')) {
        (true, _) => "SA",
        (false, true) => "FA",
        (false, false) => "A",
    }
    .into();
    packet.fields.seq = if fields.ack == 0 { SERVER_SEQUENCE } else { fields.ack };
    let taken = payload_len as u32 + u32::from(has('S')) + u32::from(has('F'));
    packet.fields.ack = fields.seq.wrapping_add(taken);
}

fn sctp_answer(kind: &str) -> &'static str {
    match kind.split('+').next().unwrap_or_default() {
        "INIT" => "INIT_ACK",
        "COOKIE_ECHO" => "COOKIE_ACK",
        "HEARTBEAT" => "HEARTBEAT_ACK",
        "SHUTDOWN" => "SHUTDOWN_ACK",
        "SHUTDOWN_ACK" => "SHUTDOWN_COMPLETE",
        _ => "SACK",
    }
}

fn icmp_answer(kind: &str) -> &str {
    match kind {
        "8/0" => "0/0",
        "13/0" => "14/0",
        "128/0" => "129/0",
        kind => kind,
    }
}

/// Sets fields and the kind of a packet from the words after a host's name.
pub(super) fn set_words(packet: &mut Packet, words: &[String]) -> Result<(), NotationError> {
    words.iter().try_for_each(|word| {
        if word.contains('=') || word == "df" {
            packet.parse_field(word)
        } else {
            packet.parse_kind(word)
        }
    })
}
