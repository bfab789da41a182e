//! Networks and hosts in the words of iptables.

use std::net::{IpAddr, Ipv4Addr};

use crate::control::ipvsadm::names::Names;
use crate::engine::mark::Criterion;
use crate::packet::{Addr, Prefix};

/// The networks that an option names; one that is any if it is not given.
pub(super) fn any_of(
    asked: Option<&Criterion<String>>,
    names: &mut dyn Names,
) -> Result<Vec<Option<Criterion<Prefix>>>, String> {
    let Some(Criterion { wanted: text, inverted }) = asked else { return Ok(vec![None]) };
    let mut found = Vec::new();
    for part in text.split(',') {
        let named = prefixes(part, names)?.into_iter();
        found.extend(named.map(|wanted| Some(Criterion { wanted, inverted: *inverted })));
    }
    if *inverted && found.len() > 1 {
        return Err("! not allowed with multiple source or destination IP addresses".into());
    }
    Ok(found)
}

/// The networks that `ADDRESS`, `ADDRESS/BITS`, `ADDRESS/MASK` or the same with the name of a host
/// stand for. An IPv4 address may lack its last numbers, which are then zero.
fn prefixes(text: &str, names: &mut dyn Names) -> Result<Vec<Prefix>, String> {
    let (host, mask) = text.split_once('/').map_or((text, None), |(host, mask)| (host, Some(mask)));
    let addrs = match host.parse::<IpAddr>() {
        Ok(addr) => vec![addr],
        Err(_) => match short_address(host) {
            Some(addr) => vec![addr.into()],
            None => names.addresses(host).into_iter().map(IpAddr::from).collect(),
        },
    };
    if addrs.is_empty() {
        return Err(format!("host/network `{host}' not found"));
    }
    let mut found = Vec::new();
    for addr in addrs {
        let prefix = network(addr, mask)?;
        // Several addresses of a host may be of one network.
        if !found.contains(&prefix) {
            found.push(prefix);
        }
    }
    Ok(found)
}

/// `10`, `10.1` or `10.1.2`.
fn short_address(text: &str) -> Option<Ipv4Addr> {
    let parts = text.split('.').map(str::parse).collect::<Result<Vec<u8>, _>>().ok()?;
    let mut octets = [0; 4];
    octets.get_mut(..parts.len())?.copy_from_slice(&parts);
    Some(octets.into())
}

/// A network without its host bits, as iptables lists it.
fn network(addr: IpAddr, mask: Option<&str>) -> Result<Prefix, String> {
    let whole = if addr.is_ipv4() { 32 } else { 128 };
    let len = match mask {
        None => whole,
        Some(mask) => match mask.parse::<Ipv4Addr>() {
            Ok(dotted) if addr.is_ipv4() => {
                let bits = dotted.to_bits();
                if bits.leading_ones() + bits.trailing_zeros() < 32 {
                    return Err(format!("`{mask}' is not a mask: ones follow a zero"));
                }
                bits.leading_ones()
            }
            _ => mask.parse().map_err(|_| format!("`{mask}' is not a prefix length"))?,
        },
    };
    if len > whole {
        return Err(format!("`/{len}' is longer than /{whole}"));
    }
    let addr = match addr {
        IpAddr::V4(addr) => {
            Addr::v4(addr.to_bits() & u32::MAX.checked_shl(whole - len).unwrap_or(0))
        }
        IpAddr::V6(addr) => {
            Addr::v6(addr.to_bits() & u128::MAX.checked_shl(whole - len).unwrap_or(0))
        }
    };
    Ok(Prefix::new(addr, len as u8).expect("the length was looked at"))
}
