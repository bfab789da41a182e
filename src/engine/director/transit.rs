//! A packet on its way through the director.

use crate::engine::conn::sctp::SctpEvent;
use crate::engine::conn::tcp::TcpFlags;
use crate::engine::event::Event;
use crate::engine::mark::Subject;
use crate::engine::network::Network;
use crate::engine::sip::call_id;
use crate::engine::time::Moment;
use crate::packet::headers::protocol;
use crate::packet::segment::longest_segment;
use crate::packet::{Family, Headers, PacketBuf, SegmentKind, Segmentation};

/// **Source** — RFC 768.
const UDP_HEADER_LEN: usize = 8;

/// A packet with what was read of it, the network around it, and the time.
pub(super) struct Transit<'a, 'b, N> {
    pub packet: &'a mut PacketBuf<'b>,
    /// As the packet came; what is written to it later does not show here.
    pub headers: &'a Headers,
    pub network: &'a N,
    pub now: Moment,
    /// The flags of a TCP segment.
    pub flags: Option<TcpFlags>,
}

impl<'a, 'b, N: Network> Transit<'a, 'b, N> {
    pub fn new(
        packet: &'a mut PacketBuf<'b>,
        headers: &'a Headers,
        network: &'a N,
        now: Moment,
    ) -> Self {
        let Subject { flags, .. } = Subject::new(headers, packet.bytes());
        Self { packet, headers, network, now, flags }
    }

    /// Tells whoever listens what is considered.
    #[inline]
    pub fn tell(&self, event: impl FnOnce() -> Event) {
        self.network.witness(event);
    }

    /// The packet as rules of marks see it.
    pub fn subject(&self) -> Subject<'a> {
        Subject { headers: self.headers, flags: self.flags }
    }

    /// The bytes from the transport header on.
    pub fn transport(&self) -> &[u8] {
        &self.packet.bytes()[self.headers.transport..self.headers.len]
    }

    /// What an SCTP packet means for its association.
    pub fn sctp_event(&self) -> Option<SctpEvent> {
        (self.headers.protocol == protocol::SCTP).then(|| SctpEvent::of(self.transport()))?
    }

    /// The call that a SIP message over UDP is about.
    pub fn call_id(&self) -> Option<&[u8]> {
        let is_datagram = self.headers.protocol == protocol::UDP;
        call_id(self.transport().get(UDP_HEADER_LEN..).filter(|_| is_datagram)?)
    }

    /// Whether it asks for a new connection: a SYN or an INIT.
    pub fn asks_anew(&self) -> bool {
        match self.flags {
            Some(flags) => flags.syn(),
            None => self.sctp_event() == Some(SctpEvent::Init),
        }
    }

    /// The length that a way must take, in bytes from the IP header on: that of the longest packet
    /// which the packet becomes. Of an IPv4 datagram that came in fragments Linux asks how long it
    /// is as a whole.
    pub fn longest(&self) -> usize {
        let Segmentation { kind, size_bytes, .. } = self.packet.offload.segmentation;
        match (kind, self.headers.family) {
            (SegmentKind::Fragments, Family::V6) => self.headers.len.min(size_bytes.into()),
            _ => longest_segment(self.packet, self.headers),
        }
    }

    /// Whether it is an IPv4 datagram that came in fragments, none longer than this, that must not be
    /// fragmented again.
    pub fn stays_in_fragments_of(&self, most: u16) -> bool {
        let Segmentation { kind, size_bytes, .. } = self.packet.offload.segmentation;
        kind == SegmentKind::Fragments
            && self.headers.family == Family::V4
            && self.headers.dont_fragment
            && size_bytes <= most
    }

    /// Whether it says to come from the host itself and does not. Kernels take such packets for
    /// martians; where they are seen before a kernel has, nobody else keeps outsiders from what is
    /// for the host's own programs only.
    pub fn is_forged(&self) -> bool {
        let from = self.headers.source.addr;
        !from.is_link_local() && !self.network.is_from_host() && self.network.is_local(from)
    }

    /// Whether it is an ICMP echo request or reply.
    pub fn is_echo(&self) -> bool {
        let kind = self.transport().first();
        match self.headers.protocol {
            protocol::ICMP => matches!(kind, Some(0 | 8)),
            protocol::ICMP6 => matches!(kind, Some(128 | 129)),
            _ => false,
        }
    }
}

/// What stands where the flags of a TCP segment would be if there were no IPv6 extension headers.
pub(super) fn misread_flags(packet: &PacketBuf<'_>) -> Option<TcpFlags> {
    packet.bytes().get(IPV6_HEADER_LEN + 13).copied().map(TcpFlags)
}

/// What stands where the first chunk of an SCTP packet would be if there were no IPv6 extension headers.
pub(super) fn misread_event(packet: &PacketBuf<'_>) -> Option<SctpEvent> {
    SctpEvent::of(packet.bytes().get(IPV6_HEADER_LEN..)?)
}

const IPV6_HEADER_LEN: usize = 40;
