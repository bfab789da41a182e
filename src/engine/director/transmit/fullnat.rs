//! Full NAT: the destination becomes the real server, the source a local endpoint of the director.

use super::check_way;
use crate::engine::conn::ConnId;
use crate::engine::director::Director;
use crate::engine::director::transit::Transit;
use crate::engine::network::Network;
use crate::engine::rewrite::nat::{Translation, translate};
use crate::engine::verdict::{DropReason, Hop, Verdict};

impl Director {
    /// Like NAT, with a source that answers find back to whatever their sender's routes are.
    ///
    /// **Source** — DPVS `dp_vs_xmit_fnat`, for what it does; IPVS has no such method.
    pub(super) fn transmit_full_nat(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
        id: ConnId,
        is_first: bool,
    ) -> Verdict {
        let conn = self.conns.get(id);
        let real = conn.real_endpoint();
        let Some(local) = conn.local() else { return Verdict::Drop(DropReason::NoLocalAddress) };
        if let Err(error) = check_way(transit, real.addr, is_first) {
            let virtual_addr = conn.virtual_endpoint().addr;
            return self.refuse_request(error, transit, virtual_addr);
        }
        let translation = Translation { source: Some(local), destination: Some(real) };
        translate(transit.packet, transit.headers, translation);
        Verdict::Forward(Hop { to: real.addr })
    }
}
