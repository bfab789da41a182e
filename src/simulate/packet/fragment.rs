//! Cutting packets into fragments, and putting them together again.

use super::dissect::dissect;
use super::{Fragment, Packet};

/// The packet cut into fragments of at most `size` payload bytes, a multiple of 8.
pub fn fragments(packet: &Packet, size: usize) -> Vec<Vec<u8>> {
    let transport = packet.build_transport();
    let pieces = transport.chunks(size.max(8)).enumerate().map(|(index, piece)| {
        let offset = index * size.max(8);
        let more = offset + piece.len() < transport.len();
        packet.with_transport(Fragment { offset: offset as u16, more }, piece)
    });
    pieces.collect()
}

/// The packet that these fragments make up, if they are all there. Behind other extension headers
/// none is seen: transcripts do not show such packets together.
pub fn reassemble(pieces: &[Packet]) -> Option<Packet> {
    if pieces.iter().any(|piece| !piece.fields.ext.is_empty()) {
        return None;
    }
    let mut pieces: Vec<(Fragment, &Packet)> =
        pieces.iter().map(|piece| Some((piece.fields.frag?, piece))).collect::<Option<_>>()?;
    pieces.sort_by_key(|(frag, _)| frag.offset);
    let mut transport = Vec::new();
    for (index, (frag, piece)) in pieces.iter().enumerate() {
        let last = index + 1 == pieces.len();
        if usize::from(frag.offset) != transport.len() || frag.more == last {
            return None;
        }
        let start = piece.raw.len().checked_sub(payload_len(piece)?)?;
        transport.extend(&piece.raw[start..]);
    }
    let mut whole = pieces.first()?.1.clone();
    whole.fields.frag = None;
    whole.fields.quote = 0;
    dissect(&whole.wrap_in_ip(&transport))
}

/// The transport bytes that a dissected fragment carries.
fn payload_len(piece: &Packet) -> Option<usize> {
    let length = |at: usize| {
        Some(usize::from(u16::from_be_bytes([*piece.raw.get(at)?, *piece.raw.get(at + 1)?])))
    };
    if piece.src.is_ipv6() {
        length(4)?.checked_sub(8)
    } else {
        length(2)?.checked_sub(usize::from(piece.raw.first()? & 15) * 4)
    }
}

impl Packet {
    /// The bytes of a fragment of this packet that carries `transport`.
    pub fn with_transport(&self, frag: Fragment, transport: &[u8]) -> Vec<u8> {
        let mut part = self.clone();
        part.fields.frag = Some(frag);
        part.wrap_in_ip(transport)
    }
}
