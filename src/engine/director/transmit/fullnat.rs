//! Full NAT: the destination becomes the real server, the source a local endpoint of the director.

use super::check_way;
use crate::engine::conn::ConnId;
use crate::engine::conn::tcp::TcpFlags;
use crate::engine::director::Director;
use crate::engine::director::transit::Transit;
use crate::engine::network::Network;
use crate::engine::rewrite::nat::{Translation, rewrite, translate};
use crate::engine::verdict::{DropReason, Hop, Verdict};

impl Director {
    /// Like NAT, with a source that answers find back to whatever their sender's routes are.
    ///
    /// **Source** — DPVS `dp_vs_xmit_fnat`, for what it does; IPVS has no such method.
    pub(in crate::engine::director) fn transmit_full_nat(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
        id: ConnId,
        is_first: bool,
    ) -> Verdict {
        let conn = self.conns.get(id);
        let real = conn.real_endpoint();
        let Some(local) = conn.local() else { return Verdict::Drop(DropReason::NoLocalAddress) };
        let (endpoint, is_plain) = (local.endpoint, local.is_plain());
        let is_here = conn.host().server;
        let way = if is_here { Ok(()) } else { check_way(transit, real.addr, is_first) };
        let way = if is_plain { way } else { way.and_then(|()| self.check_telling(transit, id)) };
        if let Err(error) = way {
            let virtual_addr = conn.virtual_endpoint().addr;
            return self.refuse_request(error, transit, virtual_addr);
        }
        let translation = Translation { source: Some(endpoint), destination: Some(real) };
        if is_here {
            rewrite(transit.packet, transit.headers, translation);
        } else {
            translate(transit.packet, transit.headers, translation);
        }
        if !is_plain || transit.flags.is_some_and(TcpFlags::fin) {
            self.accompany(transit, id);
        }
        Verdict::Forward(Hop { to: real.addr })
    }
}
