//! What the options of a packet that arrived make of the host's answers to it.

use std::net::{IpAddr, Ipv4Addr};

use super::answers::QUOTE_V4;
use super::options;
use crate::simulate::packet::{Packet, Proto};

/// The options that answers to a packet have, and how they quote it.
#[derive(Debug)]
pub struct Echo {
    sender: Ipv4Addr,
    /// The packet's header as the host has taken it.
    header: Vec<u8>,
    /// Whether it refused to.
    refused: bool,
    /// Whether the host has changed the options, and not yet summed up the header again.
    is_changed: bool,
}

impl Echo {
    /// What is to be known of `packet`, which came to the host at `here`; `None` if it has no options.
    pub fn of(packet: &Packet, here: Option<IpAddr>) -> Option<Self> {
        let (IpAddr::V4(sender), Some(IpAddr::V4(here))) = (packet.src, here) else { return None };
        let came = &packet.raw;
        let header_len = usize::from(came.first()? & 15) * 4;
        let mut header = came.get(..header_len).filter(|header| header.len() > 20)?.to_vec();
        let refused = options::receive(&mut header, here).is_err();
        let is_changed = came[20..header_len] != header[20..];
        Some(Self { sender, header, refused, is_changed })
    }

    /// Takes note that the header was summed up.
    pub fn mend(&mut self) {
        self.is_changed = false;
    }

    /// Changes an answer accordingly, if it is one; returns whether it is.
    ///
    /// **Source** — Linux `__icmp_send`, `icmp_reply`, `ip_send_unicast_reply`.
    pub fn apply(&self, answer: &mut Packet) -> bool {
        let is_answer = match answer.proto {
            Proto::Icmp => true,
            Proto::Tcp => answer.kind.contains('R'),
            _ => false,
        };
        let IpAddr::V4(source) = answer.src else { return false };
        if !is_answer || answer.dst != IpAddr::V4(self.sender) {
            return false;
        }
        answer.fields.ipopts = options::echo(&self.header, source, self.refused);
        let most = QUOTE_V4 - answer.fields.ipopts.len();
        if let Some(quoted) = &mut answer.inner {
            quoted.raw.truncate(most);
            // Of a packet that was on its way elsewhere, the host has recorded this side's address so far.
            if let Some(quoted) = quoted.raw.get_mut(20..self.header.len()) {
                quoted.copy_from_slice(&self.header[20..]);
            }
            if self.is_changed && quoted.raw.len() >= 20 {
                // What the checksum was before makes it wrong; by how much nobody needs to know.
                quoted.raw[10] ^= 0xff;
            }
        }
        true
    }
}
