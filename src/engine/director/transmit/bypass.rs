//! Cache bypass: the packet goes on to where it was sent, as it is.

use super::check_way;
use crate::engine::director::Director;
use crate::engine::director::transit::Transit;
use crate::engine::network::Network;
use crate::engine::rewrite::nat::write_ttl;
use crate::engine::verdict::{DropReason, Hop, Verdict};

impl Director {
    /// **Source** — IPVS `ip_vs_bypass_xmit`.
    pub(super) fn transmit_bypass(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
        is_first: bool,
    ) -> Verdict {
        let to = transit.headers.destination.addr;
        if transit.network.is_local(to) {
            return Verdict::Drop(DropReason::LocalBoundary);
        }
        if let Err(error) = check_way(transit, to, is_first) {
            return self.refuse_request(error, transit, to);
        }
        write_ttl(transit.packet.bytes_mut(), transit.headers);
        Verdict::Forward(Hop { to })
    }
}
