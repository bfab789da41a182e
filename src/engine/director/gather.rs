//! Fragments: gathering them, and what has to be said about them one by one.

use super::Director;
use super::related::translation;
use super::transit::Transit;
use super::transmit::check_way;
use crate::engine::conn::{ConnId, Direction, Lookup};
use crate::engine::fragments::Gathered;
use crate::engine::network::{Copies, Network, Owner};
use crate::engine::rewrite::icmp::{ErrorTranslation, translate_error};
use crate::engine::rewrite::nat::write_ttl;
use crate::engine::service::ForwardingMethod;
use crate::engine::time::Moment;
use crate::engine::verdict::{DropReason, Verdict};
use crate::packet::headers::{ICMP_HEADER_LEN, protocol};
use crate::packet::reply::{IcmpError, write_icmp_error};
use crate::packet::{Addr, Family, Fragment, Headers, PacketBuf, SegmentKind};

/// What a fragment is to the director.
enum Concern {
    /// Nothing.
    None,
    /// A packet like any other.
    Single,
    /// One that says too little to be anything.
    Headless,
    /// A part of a datagram that is to be seen whole.
    Part {
        /// Whether the datagram leaves in fragments of the same lengths.
        keep_lengths: bool,
    },
}

impl Director {
    /// Lets a fragment wait for the rest of its datagram; `None` if it is to be judged by itself.
    pub(super) fn gather(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
        lookup: &Lookup,
    ) -> Option<Verdict> {
        let headers = transit.headers;
        let keep_lengths = match self.concern(headers, transit.network) {
            Concern::None => return Some(Verdict::Pass),
            Concern::Single => return None,
            Concern::Headless if self.conns.find(lookup).is_some() => {
                return Some(Verdict::Drop(DropReason::BadTransport));
            }
            Concern::Headless => return Some(Verdict::Pass),
            Concern::Part { keep_lengths } => keep_lengths,
        };
        if headers.family == Family::V4
            && self.is_forwarded(headers.destination.addr, transit.network)
            && let Some(verdict) = self.check_forwarded(transit, lookup)
        {
            return Some(verdict);
        }
        if transit.packet.offload.segmentation.kind != SegmentKind::None {
            return Some(Verdict::Drop(DropReason::BadFragment));
        }
        let bytes = transit.packet.bytes();
        Some(match self.fragments.add(bytes, headers, keep_lengths, transit.now) {
            Gathered::Held => Verdict::Held,
            Gathered::Whole(datagram) => {
                self.whole.push_back(datagram);
                Verdict::Held
            }
            Gathered::Refused(reason) => Verdict::Drop(reason),
        })
    }

    /// What is to be gathered.
    ///
    /// **Source** — Linux gathers the fragments of packets to the host itself before IPVS sees them,
    /// and joins their buffers; IPVS those of balanced protocols that the host forwards, and of ICMP,
    /// which stay as they were beside each other; with an IPv6 service, those of all IPv6 packets are
    /// gathered on arrival, and stay as they were, unless the first has less than the transport
    /// header (RFC 8200 §4.5).
    fn concern(&self, headers: &Headers, network: &impl Network) -> Concern {
        let to = headers.destination.addr;
        let is_v6 = headers.family == Family::V6;
        if network.owner(to) == Owner::Director {
            return Concern::Part { keep_lengths: is_v6 };
        }
        if !self.snapshot.serves(headers.family) {
            return Concern::None;
        }
        if is_v6 && headers.fragment == Fragment::First && !headers.has_transport_header() {
            return Concern::Headless;
        }
        if is_v6 || !self.is_forwarded(to, network) {
            return Concern::Part { keep_lengths: is_v6 };
        }
        match headers.protocol {
            protocol::TCP | protocol::UDP | protocol::SCTP | protocol::ICMP => {
                Concern::Part { keep_lengths: true }
            }
            protocol::ESP | protocol::AH => Concern::Single,
            _ => Concern::None,
        }
    }

    fn is_forwarded(&self, to: Addr, network: &impl Network) -> bool {
        network.owner(to) == Owner::Other && !self.snapshot.is_virtual(to)
    }

    /// Looks at a fragment on its way through the host, as routing does before IPVS gathers it.
    /// `None` if it can go on.
    fn check_forwarded(
        &mut self,
        transit: &Transit<'_, '_, impl Network>,
        lookup: &Lookup,
    ) -> Option<Verdict> {
        let error = check_way(transit, transit.headers.destination.addr, false).err()?;
        let is_first = transit.headers.fragment == Fragment::First;
        let is_ours = is_first && self.is_reply(lookup);
        // Others are the host's to answer; of ours only the first fragment is told of.
        Some(if is_ours { self.refuse(error, transit, None) } else { Verdict::Pass })
    }

    /// Whether a packet belongs to a connection whose answers are translated.
    fn is_reply(&self, lookup: &Lookup) -> bool {
        let found = self.conns.find(lookup);
        found.is_some_and(|(id, direction)| {
            let conn = self.conns.get(id);
            direction == Direction::ToClient
                && conn.method() == ForwardingMethod::Masquerade
                && (self.balances() || conn.is_outbound())
        })
    }

    /// Discards datagrams of which fragments are missing for too long, `budget` at most, and tells
    /// their senders.
    pub fn expire_fragments(&mut self, network: &impl Network, now: Moment, budget: u32) {
        for _ in 0..budget {
            let Some(expired) = self.fragments.expire(now) else { return };
            if let Some(first) = expired.first {
                self.tell_incomplete(first, network, now);
            }
        }
    }

    /// Tells the sender of a first fragment that the rest did not come.
    ///
    /// **Source** — RFC 792, RFC 4443 §3.3, Linux `ip_expire`, and its recordings.
    fn tell_incomplete(&mut self, mut first: Vec<u8>, network: &impl Network, now: Moment) {
        let Ok(mut headers) = Headers::parse(&first) else { return };
        let to = headers.destination.addr;
        let is_forwarded = self.is_forwarded(to, network);
        if !self.tells_of(&headers, is_forwarded, network) {
            return;
        }
        if is_forwarded && headers.family == Family::V4 {
            write_ttl(&mut first, &headers);
            headers.ttl = headers.ttl.saturating_sub(1);
        }
        let len = first.len();
        let mut packet = PacketBuf::new(&mut first, 0, len);
        let transit = Transit::new(&mut packet, &headers, network, now);
        let from = (!is_forwarded).then_some(to);
        self.refuse(IcmpError::ReassemblyTimeExceeded, &transit, from);
    }

    /// Whether nobody else tells a sender of what is missing: the host's own stack does of packets
    /// to it that it gathers as well.
    fn tells_of(&mut self, headers: &Headers, is_forwarded: bool, network: &impl Network) -> bool {
        let Headers { source, destination, protocol, .. } = *headers;
        if network.owner(destination.addr) == Owner::Director {
            return true;
        }
        let lookup = self.conns.prepare(source, destination, protocol);
        match network.copies() {
            Copies::None => true,
            _ if is_forwarded => self.is_reply(&lookup),
            Copies::All => false,
            Copies::ButServices => {
                let service = super::service_protocol(headers).and_then(|each| {
                    self.snapshot.lookup(each, destination.addr, destination.port)
                });
                service.is_some()
            }
        }
    }

    /// Answers a server whose datagram came in fragments that must not be fragmented: Linux does not
    /// send it on once it was translated.
    ///
    /// The error is about the translated datagram, goes to the virtual address, and is translated
    /// like any other error that comes from the client's side.
    ///
    /// **Source** — Linux `ip_fragment`, and its recordings.
    pub(super) fn refuse_refragmenting(
        &mut self,
        transit: &Transit<'_, '_, impl Network>,
        id: ConnId,
    ) -> Verdict {
        let conn = self.conns.get(id);
        let (virtual_endpoint, real) = (conn.virtual_endpoint(), conn.real_endpoint());
        let translation = translation(conn, false);
        let mtu = transit.network.mtu(conn.client().addr).unwrap_or(0);
        if !self.limit.take(transit.now) {
            return Verdict::Drop(DropReason::IcmpLimited);
        }
        let original = &transit.packet.bytes()[..transit.headers.len];
        let ttl = transit.headers.ttl.saturating_sub(1);
        let headers = Headers { source: virtual_endpoint, ttl, ..*transit.headers };
        let error = IcmpError::TooBig { mtu: mtu.min(usize::from(u16::MAX)) as u16 };
        let mut len = 0;
        let verdict = self.reply(real.addr, |bytes, id| {
            write_icmp_error(bytes, error, original, &headers, virtual_endpoint.addr, id);
            translate_own_error(bytes, translation);
            len = bytes.len();
        });
        self.count_related(self.conns.get(id), &Headers { len, ..headers }, false);
        verdict
    }
}

/// Translates an error that was just written.
fn translate_own_error(bytes: &mut [u8], translation: ErrorTranslation) {
    let Ok(headers) = Headers::parse(bytes) else { return };
    let Some(quoted) = headers.quoted(bytes) else { return };
    let start = headers.transport + ICMP_HEADER_LEN;
    let len = bytes.len();
    translate_error(&mut PacketBuf::new(bytes, 0, len), &headers, &quoted, start, translation);
}
