//! Packets that the director sends by itself: ICMP errors with their limit, and the outbox.

use super::transit::Transit;
use super::{Director, Output};
use crate::engine::conn::ConnId;
use crate::engine::network::Network;
use crate::engine::service::ForwardingMethod;
use crate::engine::time::Moment;
use crate::engine::verdict::{DropReason, Verdict};
use crate::packet::reply::{IcmpError, may_be_answered, write_icmp_error};
use crate::packet::{Addr, Headers};

/// A token bucket for ICMP errors.
///
/// **Source** — Linux `icmp_msgs_per_sec` 1000 and `icmp_msgs_burst` 50: a flood must not make the
/// director send as much as it receives.
#[derive(Debug)]
pub(super) struct ErrorLimit {
    per_s: Option<u32>,
    /// Tokens in thousandths.
    tokens: u64,
    filled: Moment,
}

const BURST: u64 = 50;

impl ErrorLimit {
    pub(super) fn new(per_s: Option<u32>, now: Moment) -> Self {
        Self { per_s, tokens: BURST * 1000, filled: now }
    }

    pub(super) fn take(&mut self, now: Moment) -> bool {
        let Some(per_s) = self.per_s else { return true };
        let gained = now.ms_since(self.filled).saturating_mul(u64::from(per_s));
        self.tokens = (self.tokens.saturating_add(gained)).min(BURST * 1000);
        self.filled = now;
        let granted = self.tokens >= 1000;
        if granted {
            self.tokens -= 1000;
        }
        granted
    }
}

impl Director {
    /// Answers a packet with an ICMP error from an address that the sender knows.
    ///
    /// `from` is the address it was sent to, if that is the director's; otherwise the error comes
    /// from the director's address on the sender's side.
    pub(super) fn refuse(
        &mut self,
        error: IcmpError,
        transit: &Transit<'_, '_, impl Network>,
        from: Option<Addr>,
    ) -> Verdict {
        let (original, headers) = (transit.packet.bytes(), transit.headers);
        self.tell_sender(error, &original[..headers.len], headers, from, transit)
    }

    /// Sends an ICMP error about the packet `original`, of which the headers were read and perhaps
    /// only the beginning is there.
    pub(super) fn tell_sender(
        &mut self,
        error: IcmpError,
        original: &[u8],
        headers: &Headers,
        from: Option<Addr>,
        transit: &Transit<'_, '_, impl Network>,
    ) -> Verdict {
        if !may_be_answered(original, headers) {
            return Verdict::Drop(match error {
                IcmpError::TimeExceeded => DropReason::TtlExpired,
                _ => DropReason::NotForUs,
            });
        }
        let sender = headers.source.addr;
        let Some(source) = from.or_else(|| transit.network.address_towards(sender)) else {
            return Verdict::Drop(DropReason::NotForwarded);
        };
        if !self.limit.take(transit.now) {
            return Verdict::Drop(DropReason::IcmpLimited);
        }
        self.reply(sender, |bytes, id| {
            write_icmp_error(bytes, error, original, headers, source, id);
        })
    }

    /// Counts an ICMP error of the director's own, if `verdict` says that there is one, as an answer
    /// of the connection's server, if it answers around the director.
    ///
    /// **Source** — IPVS `ip_vs_out_icmp`, which sees what the host itself sends, and finds direct
    /// and tunnelled connections by the virtual address, unless they are for one packet only.
    pub(super) fn count_own_error(&self, id: ConnId, verdict: Verdict) {
        let error = self.outbox.back().filter(|_| verdict == Verdict::Reply);
        let conn = self.conns.get(id);
        let is_direct =
            matches!(conn.method(), ForwardingMethod::Direct | ForwardingMethod::Tunnel)
                && !conn.is_one_packet();
        if let Some(error) = error.filter(|_| is_direct) {
            self.count_answer(id, error.bytes.len());
        }
    }

    /// Counts `len` bytes as an answer of the connection's server.
    pub(super) fn count_answer(&self, id: ConnId, len: usize) {
        if let Some(real) = self.conns.get(id).real().filter(|real| real.is_available()) {
            real.counters(self.worker).count_out(1, len as u64);
        }
    }

    /// Puts a packet that `write` makes into the outbox.
    pub(super) fn reply(&mut self, to: Addr, write: impl FnOnce(&mut Vec<u8>, u16)) -> Verdict {
        let mut bytes = self.spare.pop().unwrap_or_default();
        self.ip_id = self.ip_id.wrapping_add(1).max(1);
        write(&mut bytes, self.ip_id);
        self.outbox.push_back(Output { bytes, to });
        Verdict::Reply
    }
}
