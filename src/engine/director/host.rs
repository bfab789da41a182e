//! The director as a host, at addresses that the kernel does not have.

use super::{Director, is_echo};
use crate::engine::network::{Network, Owner};
use crate::engine::time::Moment;
use crate::engine::verdict::{DropReason, Verdict};
use crate::packet::headers::protocol;
use crate::packet::reply::{IcmpError, icmp_checksum_is_right, write_echo_reply, write_reset};
use crate::packet::{Headers, PacketBuf};

impl Director {
    /// Judges a packet that belongs to no connection and no service.
    ///
    /// At an address of its own the director answers as a host without programs does: echo
    /// requests with replies, TCP with resets, UDP with port unreachable. Everything else is the
    /// kernel's.
    pub(super) fn act_as_host(
        &mut self,
        packet: &PacketBuf<'_>,
        headers: &Headers,
        network: &impl Network,
        now: Moment,
    ) -> Verdict {
        if network.owner(headers.destination.addr) != Owner::Director {
            return Verdict::Pass;
        }
        let bytes = packet.bytes();
        match headers.protocol {
            protocol::ICMP | protocol::ICMP6 => self.answer_echo(bytes, headers),
            protocol::TCP => self.reset(bytes, headers),
            protocol::UDP => {
                let from = Some(headers.destination.addr);
                self.refuse(IcmpError::PortUnreachable, bytes, headers, from, network, now)
            }
            _ => Verdict::Drop(DropReason::NotForUs),
        }
    }

    fn answer_echo(&mut self, bytes: &[u8], headers: &Headers) -> Verdict {
        let asks = is_echo(headers, bytes) && matches!(bytes[headers.transport], 8 | 128);
        if !asks {
            return Verdict::Drop(DropReason::NotForUs);
        }
        if !icmp_checksum_is_right(&bytes[headers.transport..headers.len], headers) {
            return Verdict::Drop(DropReason::BadChecksum);
        }
        self.reply(headers.source.addr, |out, id| write_echo_reply(out, bytes, headers, id))
    }

    fn reset(&mut self, bytes: &[u8], headers: &Headers) -> Verdict {
        let is_reset = bytes[headers.transport + 13] & 0x04 != 0;
        if is_reset {
            return Verdict::Drop(DropReason::NotForUs);
        }
        self.reply(headers.source.addr, |out, _| write_reset(out, bytes, headers))
    }
}
