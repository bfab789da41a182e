//! Ranges and lists of addresses and ports.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::Parsed;

/// Flows or addresses that one line may stand for.
const MAX_COUNT: usize = 1 << 20;

pub(super) fn check_count(count: usize) -> Parsed<()> {
    if count > MAX_COUNT {
        return Err(format!(
            "the line stands for {count} flows or addresses, more than {MAX_COUNT}"
        ));
    }
    Ok(())
}

/// `12.0.0.2-12.0.0.4:1000-1009` or `10.0.0.1,10.1.0.1:1000`, the address turning slowest.
pub(super) fn expand_endpoints(text: &str) -> Parsed<Vec<(IpAddr, u16)>> {
    let wanted = || format!("expected ADDRESS:PORT, not '{text}'");
    let split = match text.strip_prefix('[') {
        Some(rest) => rest.split_once("]:"),
        None => text.split_once(':').filter(|(_, ports)| !ports.contains(':')),
    };
    let (hosts, ports) = split.ok_or_else(wanted)?;
    let (hosts, ports) = (expand_hosts(hosts)?, expand_ports(ports)?);
    check_count(hosts.len().saturating_mul(ports.len()))?;
    Ok(hosts.iter().flat_map(|host| ports.iter().map(|port| (*host, *port))).collect())
}

fn expand_ports(text: &str) -> Parsed<Vec<u16>> {
    let mut found = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let port = |text: &str| text.parse().map_err(|_| format!("bad port range '{part}'"));
        let range: RangeInclusive<u16> = port(first)?..=port(last)?;
        check_count(found.len() + range.len())?;
        found.extend(range);
    }
    if found.is_empty() { Err(format!("no port in '{text}'")) } else { Ok(found) }
}

/// `12.0.0.2-12.0.0.4,12.0.0.9`.
pub(super) fn expand_hosts(text: &str) -> Parsed<Vec<IpAddr>> {
    let mut found = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let address = |text: &str| text.parse::<IpAddr>().ok();
        let range = address(first).zip(address(last)).and_then(range_of);
        let range = range.ok_or_else(|| format!("bad address '{part}'"))??;
        check_count(found.len() + range.len())?;
        found.extend(range);
    }
    if found.is_empty() { Err(format!("no address in '{text}'")) } else { Ok(found) }
}

/// Every address of a range; `None` if its ends are out of order or of different families.
fn range_of((first, last): (IpAddr, IpAddr)) -> Option<Parsed<Vec<IpAddr>>> {
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => {
            let (low, high) = (first.to_bits().into(), last.to_bits().into());
            Some(addresses(low, high, |bits| IpAddr::V4((bits as u32).into())))
        }
        (IpAddr::V6(first), IpAddr::V6(last)) if first <= last => {
            Some(addresses(first.to_bits(), last.to_bits(), |bits| IpAddr::V6(bits.into())))
        }
        _ => None,
    }
}

fn addresses(low: u128, high: u128, make: fn(u128) -> IpAddr) -> Parsed<Vec<IpAddr>> {
    check_count(usize::try_from(high - low).unwrap_or(usize::MAX).saturating_add(1))?;
    Ok((low..=high).map(make).collect())
}
