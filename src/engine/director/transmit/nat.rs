//! NAT: the destination becomes the real server.

use super::check_way;
use crate::engine::conn::ConnId;
use crate::engine::director::Director;
use crate::engine::director::transit::Transit;
use crate::engine::network::Network;
use crate::engine::rewrite::nat::{Translation, translate};
use crate::engine::verdict::{Hop, Verdict};

impl Director {
    /// **Source** — IPVS `ip_vs_nat_xmit`.
    pub(super) fn transmit_nat(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
        id: ConnId,
        is_first: bool,
    ) -> Verdict {
        let conn = self.conns.get(id);
        let real = conn.real_endpoint();
        if let Err(error) = check_way(transit, real.addr, is_first) {
            let virtual_addr = conn.virtual_endpoint().addr;
            return self.refuse_request(error, transit, virtual_addr);
        }
        if self.conns.get(id).is_ftp_control() {
            self.hear_client(transit, id);
        }
        let translation = Translation { destination: Some(real), ..Default::default() };
        translate(transit.packet, transit.headers, translation);
        Verdict::Forward(Hop { to: real.addr })
    }
}
