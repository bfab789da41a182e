//! What the kernel refuses of a service or a real server.

use super::spec::{
    ClientAddress, ConfigError, ForwardingMethod, Protocol, RealSpec, ServiceKey, ServiceSpec,
    TunnelKind,
};
use crate::packet::{Addr, Family};

/// Most local addresses of one service.
const MAX_LOCAL_ADDRESSES: usize = 256;

pub(super) fn check_service(spec: &ServiceSpec) -> Result<(), ConfigError> {
    let locals = spec.local_addresses.iter();
    let fits = |addr: &Addr| is_unicast(*addr) && addr.family() == spec.key.family();
    if spec.local_addresses.len() > MAX_LOCAL_ADDRESSES || !locals.copied().all(|addr| fits(&addr))
    {
        return Err(ConfigError::Invalid);
    }
    let mask_is_valid = match spec.key.family() {
        Family::V4 => true,
        Family::V6 => (1..=128).contains(&spec.netmask),
    };
    if !mask_is_valid {
        return Err(ConfigError::Invalid);
    }
    match spec.persistence_engine.as_deref() {
        None | Some("sip") => Ok(()),
        Some(_) => Err(ConfigError::NoSuchScheduler),
    }
}

pub(super) fn check_real(key: &ServiceKey, spec: &RealSpec) -> Result<(), ConfigError> {
    let lower_above_upper = spec.lower_threshold > spec.upper_threshold;
    if spec.weight < 0 || lower_above_upper {
        return Err(ConfigError::OutOfRange);
    }
    if spec.upper_threshold > i32::MAX as u32 {
        return Err(ConfigError::Invalid);
    }
    let tunnelled = spec.method == ForwardingMethod::Tunnel;
    if spec.addr.family() != key.family() && !tunnelled {
        return Err(ConfigError::Invalid);
    }
    let told = spec.client_address != ClientAddress::Untold;
    if told && (spec.method != ForwardingMethod::FullNat || !may_tell(key, spec.client_address)) {
        return Err(ConfigError::Invalid);
    }
    if tunnelled && spec.tunnel.kind == TunnelKind::Gue && spec.tunnel.port == 0 {
        return Err(ConfigError::Invalid);
    }
    if is_unicast(spec.addr) { Ok(()) } else { Err(ConfigError::Invalid) }
}

/// Whether an address is one host's.
///
/// **Source** — Linux `ipv6_addr_type`, which does not call IPv4-mapped addresses unicast.
pub fn is_unicast(addr: Addr) -> bool {
    match std::net::IpAddr::from(addr) {
        std::net::IpAddr::V4(addr) => {
            !addr.is_multicast() && !addr.is_broadcast() && !addr.is_unspecified()
        }
        std::net::IpAddr::V6(v6) => !v6.is_multicast() && !v6.is_unspecified() && !addr.is_mapped(),
    }
}

/// Whether servers of a service can be told of their clients so.
fn may_tell(key: &ServiceKey, how: ClientAddress) -> bool {
    let ServiceKey::Address { protocol, .. } = key else { return true };
    match how {
        ClientAddress::Untold => true,
        ClientAddress::Toa => *protocol == Protocol::Tcp,
        ClientAddress::ProxyV2 => *protocol != Protocol::Sctp,
    }
}
