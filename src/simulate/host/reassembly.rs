//! Fragments that wait for the rest of their datagram.

use std::net::IpAddr;

use crate::simulate::packet::{Packet, Proto, reassemble};

/// Datagrams that may be incomplete at a time; the oldest makes way.
const MAX_DATAGRAMS: usize = 1024;

/// The host's reassembly queue.
#[derive(Debug, Default)]
pub struct Reassembly {
    waiting: Vec<(Key, Vec<Packet>)>,
}

type Key = (IpAddr, IpAddr, Proto, u32);

impl Reassembly {
    /// Takes a fragment; answers the datagram if it was the last one missing.
    pub fn add(&mut self, fragment: Packet) -> Option<Packet> {
        let key = (fragment.src, fragment.dst, fragment.proto, fragment.fields.id);
        let index = match self.waiting.iter().position(|(each, _)| *each == key) {
            Some(index) => index,
            None => {
                if self.waiting.len() == MAX_DATAGRAMS {
                    self.waiting.remove(0);
                }
                self.waiting.push((key, Vec::new()));
                self.waiting.len() - 1
            }
        };
        let pieces = &mut self.waiting[index].1;
        pieces.retain(|piece| piece.fields.frag != fragment.fields.frag);
        pieces.push(fragment);
        let whole = reassemble(pieces)?;
        self.waiting.remove(index);
        Some(whole)
    }
}
