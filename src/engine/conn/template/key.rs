//! What connections share a template by.

use std::sync::Arc;

use crate::engine::ftp;
use crate::engine::service::{Protocol, ServiceKey, ServiceSpec};
use crate::packet::{Addr, Endpoint, Family};

/// What connections share a template.
///
/// **Source** — IPVS: (protocol, client's network, virtual address and port); the port is 0 for a
/// service on port 0, and on 21 together with the ports that come with FTP. For a marked service
/// the protocol is 0 and the mark stands in for the virtual address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TemplateKey {
    pub(super) protocol: u8,
    pub(super) client: Addr,
    /// 0, unless another director has it otherwise.
    pub(super) client_port: u16,
    pub(super) virtual_endpoint: Endpoint,
    /// The call that it is about, if the service's persistence engine tells calls apart.
    pub(super) call: Option<Arc<[u8]>>,
}

impl TemplateKey {
    /// The key of what `client` sends to `destination` of a persistent service.
    pub fn new(
        service: &ServiceSpec,
        protocol: Protocol,
        client: Addr,
        destination: Endpoint,
    ) -> Self {
        let client = network(client, service.netmask);
        match service.key {
            ServiceKey::Address { port, .. } => {
                let own = destination.port == port && port != ftp::CONTROL_PORT;
                let port = if own { port } else { 0 };
                let virtual_endpoint = Endpoint::new(destination.addr, port);
                Self::heard(protocol.number(), without_port(client), virtual_endpoint, None)
            }
            ServiceKey::Mark { mark, family } => {
                let addr = match family {
                    Family::V4 => Addr::v4(mark),
                    Family::V6 => Addr::v6(u128::from(mark) << 96),
                };
                let virtual_endpoint = Endpoint::new(addr, 0);
                Self::heard(0, without_port(client), virtual_endpoint, None)
            }
        }
    }

    /// The same for one call of the client.
    #[must_use]
    pub fn of_call(self, call: &[u8]) -> Self {
        Self { call: Some(call.into()), ..self }
    }

    /// The key that another director tells.
    pub fn heard(
        protocol: u8,
        client: Endpoint,
        virtual_endpoint: Endpoint,
        call: Option<&[u8]>,
    ) -> Self {
        let Endpoint { addr: client, port: client_port } = client;
        Self { protocol, client, client_port, virtual_endpoint, call: call.map(Arc::from) }
    }

    /// IP protocol number, or 0.
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// The virtual address and port, as far as it depends on them.
    pub fn virtual_endpoint(&self) -> Endpoint {
        self.virtual_endpoint
    }

    /// The call that it is about.
    pub fn call(&self) -> Option<&[u8]> {
        self.call.as_deref()
    }

    /// The client, or the network of clients, that it binds.
    pub fn client(&self) -> Addr {
        self.client
    }

    /// Whether it holds for one port only.
    pub fn has_port(&self) -> bool {
        self.virtual_endpoint.port != 0
    }
}

fn without_port(addr: Addr) -> Endpoint {
    Endpoint::new(addr, 0)
}

/// The client's network: `netmask` is a mask for IPv4 and a prefix length for IPv6.
fn network(client: Addr, netmask: u32) -> Addr {
    match client.family() {
        Family::V4 => Addr::v4(client.v4_bits() & netmask),
        Family::V6 => {
            let host_bits = 128 - netmask.min(128);
            Addr::v6(client.bits() & u128::MAX.checked_shl(host_bits).unwrap_or(0))
        }
    }
}
