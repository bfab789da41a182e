//! Between the kernel's spellings and the engine's terms.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use nix::errno::Errno;

use super::ipvs::{AF_INET, AF_INET6, Dest, Service, Stats, service_flag as flag};
use crate::engine::service::{
    ClientAddress, ForwardingMethod, Protocol, RealSpec, RealView, SchedulerFlags, ServiceKey,
    ServiceSpec, ServiceView, Tunnel, TunnelChecksum, TunnelKind,
};
use crate::packet::{Addr, Family};

/// The identity of the service that a message names.
///
/// **Errors** — `EINVAL` if it names none, `EAFNOSUPPORT` and `EPROTONOSUPPORT` for a family or
/// protocol that is not balanced.
pub fn service_key(service: &Service) -> Result<ServiceKey, Errno> {
    let family = family(service.af.ok_or(Errno::EINVAL)?)?;
    match service.fwmark {
        Some(0) => Err(Errno::EINVAL),
        Some(mark) => Ok(ServiceKey::Mark { mark, family }),
        None => address_key(service, family),
    }
}

fn address_key(service: &Service, family: Family) -> Result<ServiceKey, Errno> {
    let (Some(number), Some(bytes), Some(port)) = (service.protocol, service.addr, service.port)
    else {
        return Err(Errno::EINVAL);
    };
    let protocol = u8::try_from(number).ok().and_then(Protocol::from_number);
    let protocol = protocol.ok_or(Errno::EPROTONOSUPPORT)?;
    Ok(ServiceKey::Address { protocol, addr: addr(bytes, family)?, port })
}

/// A message that names a service and says no more.
pub fn name_service(key: &ServiceKey) -> Service {
    let af = Some(af(key.family()));
    match *key {
        ServiceKey::Mark { mark, .. } => Service { af, fwmark: Some(mark), ..Service::default() },
        ServiceKey::Address { protocol, addr, port } => Service {
            af,
            protocol: Some(u16::from(protocol.number())),
            addr: Some(addr_bytes(addr)),
            port: Some(port),
            ..Service::default()
        },
    }
}

/// The service that a message describes. Flags that do not count keep what `existing` has, and so
/// do local addresses that it does not speak of.
///
/// **Errors** — `EINVAL` if a part is missing.
pub fn service_spec(
    service: &Service,
    existing: Option<&ServiceSpec>,
) -> Result<ServiceSpec, Errno> {
    let key = service_key(service)?;
    let (Some(scheduler), Some((value, mask)), Some(timeout), Some(netmask)) =
        (&service.sched_name, service.flags, service.timeout, service.netmask)
    else {
        return Err(Errno::EINVAL);
    };
    let kept = existing.map_or(0, service_flags);
    let flags = (kept & !mask) | (value & mask);
    let is_set = |bit: u32| flags & bit != 0;
    Ok(ServiceSpec {
        key,
        scheduler: scheduler.clone(),
        scheduler_flags: SchedulerFlags {
            fallback: is_set(flag::SCHEDULER_1),
            port: is_set(flag::SCHEDULER_2),
            third: is_set(flag::SCHEDULER_3),
        },
        persistence_timeout_s: is_set(flag::PERSISTENT).then_some(timeout),
        netmask: match key.family() {
            Family::V4 => u32::from_be_bytes(netmask),
            Family::V6 => u32::from_ne_bytes(netmask),
        },
        one_packet: is_set(flag::ONE_PACKET),
        persistence_engine: service.pe_name.clone().filter(|name| !name.is_empty()),
        local_addresses: match &service.local_addresses {
            Some(addrs) => {
                let addrs = addrs.iter().map(|bytes| local_address(*bytes, key.family()));
                addrs.collect::<Result<_, _>>()?
            }
            None => existing.map(|spec| Arc::clone(&spec.local_addresses)).unwrap_or_default(),
        },
    })
}

/// The message that describes a service, as a client writes it.
pub fn describe_service(spec: &ServiceSpec) -> Service {
    Service {
        sched_name: Some(spec.scheduler.clone()),
        pe_name: spec.persistence_engine.clone(),
        flags: Some((service_flags(spec), u32::MAX)),
        timeout: Some(spec.persistence_timeout_s.unwrap_or(0)),
        netmask: Some(match spec.key.family() {
            Family::V4 => spec.netmask.to_be_bytes(),
            Family::V6 => spec.netmask.to_ne_bytes(),
        }),
        local_addresses: Some(&spec.local_addresses[..])
            .filter(|addrs| !addrs.is_empty())
            .map(|addrs| addrs.iter().copied().map(addr_bytes).collect()),
        ..name_service(&spec.key)
    }
}

/// The message that lists a service, as the kernel writes it.
pub fn list_service(view: &ServiceView) -> Service {
    Service {
        flags: Some((service_flags(&view.spec) | flag::HASHED, u32::MAX)),
        stats: Some(Stats { totals: view.totals, rates: view.rates }),
        ..describe_service(&view.spec)
    }
}

/// The service that a listing tells of, with its counters and without its servers.
pub fn listed_service(service: &Service) -> Result<ServiceView, Errno> {
    let stats = service.stats.unwrap_or_default();
    Ok(ServiceView {
        spec: service_spec(service, None)?,
        totals: stats.totals,
        rates: stats.rates,
        reals: Vec::new(),
    })
}

fn service_flags(spec: &ServiceSpec) -> u32 {
    let SchedulerFlags { fallback, port, third } = spec.scheduler_flags;
    [
        (spec.persistence_timeout_s.is_some(), flag::PERSISTENT),
        (spec.one_packet, flag::ONE_PACKET),
        (fallback, flag::SCHEDULER_1),
        (port, flag::SCHEDULER_2),
        (third, flag::SCHEDULER_3),
    ]
    .into_iter()
    .filter_map(|(is_set, bit)| is_set.then_some(bit))
    .sum()
}

/// Address and port of the real server that a message names. Without a family of its own it has
/// that of the service.
///
/// **Errors** — `EINVAL` if it names none.
pub fn real_endpoint(dest: &Dest, key: &ServiceKey) -> Result<(Addr, u16), Errno> {
    let (Some(bytes), Some(port)) = (dest.addr, dest.port) else { return Err(Errno::EINVAL) };
    let family = match dest.af {
        None | Some(0) => key.family(),
        Some(af) => family(af)?,
    };
    Ok((addr(bytes, family)?, port))
}

/// The real server that a message describes.
///
/// **Errors** — `EINVAL` if a part is missing or a method is unknown.
pub fn real_spec(dest: &Dest, key: &ServiceKey) -> Result<RealSpec, Errno> {
    let (addr, port) = real_endpoint(dest, key)?;
    let (Some(method), Some(weight), Some(upper_threshold), Some(lower_threshold)) =
        (dest.fwd_method, dest.weight, dest.u_thresh, dest.l_thresh)
    else {
        return Err(Errno::EINVAL);
    };
    let method = METHODS.iter().find(|(number, _)| *number == method & METHOD_MASK);
    let kind = usize::from(dest.tun_type.unwrap_or(0));
    Ok(RealSpec {
        addr,
        port,
        method: method.ok_or(Errno::EINVAL)?.1,
        weight: weight.cast_signed(),
        upper_threshold,
        lower_threshold,
        tunnel: Tunnel {
            kind: *TUNNELS.get(kind).ok_or(Errno::EINVAL)?,
            port: dest.tun_port.unwrap_or(0),
            checksum: checksum(dest.tun_flags.unwrap_or(0)),
        },
        client_address: *TELLINGS
            .get(usize::from(dest.client_address.unwrap_or(0)))
            .ok_or(Errno::EINVAL)?,
    })
}

/// The message that describes a real server, as a client writes it.
pub fn describe_real(spec: &RealSpec) -> Dest {
    let method = METHODS.iter().find(|(_, method)| *method == spec.method);
    let kind = TUNNELS.iter().position(|kind| *kind == spec.tunnel.kind);
    Dest {
        af: Some(af(spec.addr.family())),
        addr: Some(addr_bytes(spec.addr)),
        port: Some(spec.port),
        fwd_method: Some(method.expect("every method is in the table").0),
        weight: Some(spec.weight.cast_unsigned()),
        u_thresh: Some(spec.upper_threshold),
        l_thresh: Some(spec.lower_threshold),
        tun_type: Some(kind.expect("every kind is in the table") as u8),
        tun_port: Some(spec.tunnel.port),
        tun_flags: Some(match spec.tunnel.checksum {
            TunnelChecksum::Off => 0,
            TunnelChecksum::On => TUNNEL_CHECKSUM,
            TunnelChecksum::Remote => TUNNEL_REMOTE_CHECKSUM,
        }),
        client_address: TELLINGS
            .iter()
            .position(|each| *each == spec.client_address)
            .filter(|number| *number != 0)
            .map(|number| number as u8),
        ..Dest::default()
    }
}

/// The message that lists a real server, as the kernel writes it.
pub fn list_real(view: &RealView) -> Dest {
    Dest {
        conns: Some([view.active, view.inactive, view.persistent]),
        stats: Some(Stats { totals: view.totals, rates: view.rates }),
        ..describe_real(&view.spec)
    }
}

/// The real server that a listing tells of.
pub fn listed_real(dest: &Dest, key: &ServiceKey) -> Result<RealView, Errno> {
    let [active, inactive, persistent] = dest.conns.unwrap_or_default();
    let stats = dest.stats.unwrap_or_default();
    Ok(RealView {
        spec: real_spec(dest, key)?,
        active,
        inactive,
        persistent,
        totals: stats.totals,
        rates: stats.rates,
    })
}

fn checksum(flags: u16) -> TunnelChecksum {
    if flags & TUNNEL_REMOTE_CHECKSUM != 0 {
        TunnelChecksum::Remote
    } else if flags & TUNNEL_CHECKSUM != 0 {
        TunnelChecksum::On
    } else {
        TunnelChecksum::Off
    }
}

/// `AF_INET` or `AF_INET6`.
pub fn af(family: Family) -> u16 {
    match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    }
}

fn family(af: u16) -> Result<Family, Errno> {
    match af {
        AF_INET => Ok(Family::V4),
        AF_INET6 => Ok(Family::V6),
        _ => Err(Errno::EAFNOSUPPORT),
    }
}

/// **Errors** — a reserved IPv6 group that [`Addr`] takes for an IPv4 address.
fn addr(bytes: [u8; 16], family: Family) -> Result<Addr, Errno> {
    let [a, b, c, d, ..] = bytes;
    let addr = match family {
        Family::V4 => Addr::from(Ipv4Addr::new(a, b, c, d)),
        Family::V6 => Addr::from(Ipv6Addr::from(bytes)),
    };
    if addr.family() == family { Ok(addr) } else { Err(Errno::EINVAL) }
}

/// A local address, which must be of the service's family to the last byte.
fn local_address(bytes: [u8; 16], family: Family) -> Result<Addr, Errno> {
    let is_longer = bytes[4..].iter().any(|byte| *byte != 0);
    if family == Family::V4 && is_longer { Err(Errno::EINVAL) } else { addr(bytes, family) }
}

fn addr_bytes(addr: Addr) -> [u8; 16] {
    match IpAddr::from(addr) {
        IpAddr::V4(addr) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&addr.octets());
            bytes
        }
        IpAddr::V6(addr) => addr.octets(),
    }
}

/// **Source** — `IP_VS_CONN_F_MASQ` and its like of linux/ip_vs.h. `FullNat` has no number there;
/// 5 is the one that the patches for it use.
const METHODS: [(u32, ForwardingMethod); 6] = [
    (0, ForwardingMethod::Masquerade),
    (1, ForwardingMethod::Local),
    (2, ForwardingMethod::Tunnel),
    (3, ForwardingMethod::Direct),
    (4, ForwardingMethod::Bypass),
    (5, ForwardingMethod::FullNat),
];
/// **Source** — `IP_VS_CONN_F_FWD_MASK`.
const METHOD_MASK: u32 = 7;
/// In the order of their numbers in [`attribute::CLIENT_ADDRESS`](super::ipvs::attribute).
const TELLINGS: [ClientAddress; 3] =
    [ClientAddress::Untold, ClientAddress::Toa, ClientAddress::ProxyV2];
/// In the order of `IP_VS_CONN_F_TUNNEL_TYPE_*`.
const TUNNELS: [TunnelKind; 3] = [TunnelKind::IpIp, TunnelKind::Gue, TunnelKind::Gre];
/// **Source** — `IP_VS_TUNNEL_ENCAP_FLAG_CSUM` and `_REMCSUM`.
const TUNNEL_CHECKSUM: u16 = 1;
const TUNNEL_REMOTE_CHECKSUM: u16 = 2;
