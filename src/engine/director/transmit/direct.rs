//! Direct routing: the packet goes to the real server's link address as it is.

use super::check_way;
use crate::engine::conn::ConnId;
use crate::engine::director::Director;
use crate::engine::director::transit::Transit;
use crate::engine::network::Network;
use crate::engine::rewrite::nat::write_ttl;
use crate::engine::verdict::{Hop, Verdict};

impl Director {
    /// **Source** — IPVS `ip_vs_dr_xmit`.
    pub(super) fn transmit_direct(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
        id: ConnId,
        is_first: bool,
    ) -> Verdict {
        let conn = self.conns.get(id);
        let to = conn.real_endpoint().addr;
        if let Err(error) = check_way(transit, to, is_first) {
            let virtual_addr = conn.virtual_endpoint().addr;
            return self.refuse_request(error, transit, virtual_addr);
        }
        write_ttl(transit.packet.bytes_mut(), transit.headers);
        Verdict::Forward(Hop { to })
    }
}
