//! The director as a host, at addresses that the kernel does not have.

use super::Director;
use super::transit::Transit;
use crate::engine::conn::tcp::TcpFlags;
use crate::engine::network::{Network, Owner};
use crate::engine::verdict::{DropReason, Verdict};
use crate::packet::Family;
use crate::packet::headers::{V6_HEADER_LEN, protocol};
use crate::packet::reply::{IcmpError, icmp_checksum_is_right, write_echo_reply, write_reset};

impl Director {
    /// Judges a packet that belongs to no connection and no service.
    ///
    /// At an address of its own the director answers as a host without programs does: echo
    /// requests with replies, TCP with resets, UDP with port unreachable, other protocols with
    /// protocol unreachable. Everything at other addresses is the kernel's.
    pub(super) fn act_as_host(&mut self, transit: &Transit<'_, '_, impl Network>) -> Verdict {
        let headers = transit.headers;
        if transit.network.owner(headers.destination.addr) != Owner::Director {
            return Verdict::Pass;
        }
        let from = Some(headers.destination.addr);
        match headers.protocol {
            protocol::ICMP | protocol::ICMP6 => self.answer_echo(transit),
            protocol::TCP => self.reset(transit),
            protocol::UDP => self.refuse(IcmpError::PortUnreachable, transit, from),
            protocol::NONE => Verdict::Drop(DropReason::NotForUs),
            // Behind extension headers the pointer of the IPv6 error would be wrong.
            _ if headers.family == Family::V6 && headers.transport != V6_HEADER_LEN => {
                Verdict::Drop(DropReason::NotForUs)
            }
            _ => self.refuse(IcmpError::ProtocolUnreachable, transit, from),
        }
    }

    fn answer_echo(&mut self, transit: &Transit<'_, '_, impl Network>) -> Verdict {
        let (bytes, headers) = (transit.packet.bytes(), transit.headers);
        let asks = transit.is_echo() && matches!(bytes[headers.transport], 8 | 128);
        if !asks {
            return Verdict::Drop(DropReason::NotForUs);
        }
        if !icmp_checksum_is_right(transit.transport(), headers) {
            return Verdict::Drop(DropReason::BadChecksum);
        }
        self.reply(headers.source.addr, |out, id| write_echo_reply(out, bytes, headers, id))
    }

    fn reset(&mut self, transit: &Transit<'_, '_, impl Network>) -> Verdict {
        if transit.flags.is_some_and(TcpFlags::rst) {
            return Verdict::Drop(DropReason::NotForUs);
        }
        let (bytes, headers) = (transit.packet.bytes(), transit.headers);
        self.reply(headers.source.addr, |out, _| write_reset(out, bytes, headers))
    }
}
