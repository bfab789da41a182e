//! The order of ipvsadm's listings.

use std::net::IpAddr;

use crate::control::netlink::convert::af;
use crate::engine::service::{RealView, ServiceKey, ServiceView};
use crate::packet::Addr;

/// Sorts services: marks, families, protocols, addresses, ports.
pub fn services(views: &mut Vec<ServiceView>) {
    merge_sort(views, &|a, b| compare_services(&a.spec.key, &b.spec.key));
}

/// Sorts real servers: families, addresses, ports.
pub fn reals(views: &mut Vec<RealView>) {
    merge_sort(views, &|a, b| {
        let (a, b) = (&a.spec, &b.spec);
        let families = i32::from(af(a.addr.family())) - i32::from(af(b.addr.family()));
        let ports = i32::from(a.port) - i32::from(b.port);
        first([families, compare_addresses(a.addr, b.addr), ports])
    });
}

fn compare_services(a: &ServiceKey, b: &ServiceKey) -> i32 {
    let parts = |key: &ServiceKey| match *key {
        ServiceKey::Mark { mark, .. } => (mark, 0, Addr::default(), 0),
        ServiceKey::Address { protocol, addr, port } => (0, protocol.number(), addr, port),
    };
    let (mark_a, protocol_a, addr_a, port_a) = parts(a);
    let (mark_b, protocol_b, addr_b, port_b) = parts(b);
    first([
        difference(mark_a, mark_b),
        i32::from(af(a.family())) - i32::from(af(b.family())),
        i32::from(protocol_a) - i32::from(protocol_b),
        compare_addresses(addr_a, addr_b),
        i32::from(port_a) - i32::from(port_b),
    ])
}

fn first<const N: usize>(differences: [i32; N]) -> i32 {
    differences.into_iter().find(|difference| *difference != 0).unwrap_or(0)
}

fn compare_addresses(a: Addr, b: Addr) -> i32 {
    match (IpAddr::from(a), IpAddr::from(b)) {
        (IpAddr::V4(a), IpAddr::V4(b)) => difference(a.to_bits(), b.to_bits()),
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let words = |bits: u128| [96, 64, 32, 0].map(|shift| (bits >> shift) as u32);
            let pairs = words(a.to_bits()).into_iter().zip(words(b.to_bits()));
            pairs.map(|(a, b)| difference(a, b)).find(|difference| *difference != 0).unwrap_or(0)
        }
        _ => 0,
    }
}

/// The difference as a signed number, which wraps: 192.0.2.1 comes before 10.0.0.1. That is no
/// order that a sort could rely on, so the result depends on the way of sorting.
fn difference(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b).cast_signed()
}

/// Sorts as the C library's qsort does, whose merge sort ipvsadm relies on without knowing.
///
/// The library's own `sort_by` may panic at comparisons that contradict each other.
fn merge_sort<T>(items: &mut Vec<T>, compare: &impl Fn(&T, &T) -> i32) {
    if items.len() < 2 {
        return;
    }
    let mut right = items.split_off(items.len() / 2);
    merge_sort(items, compare);
    merge_sort(&mut right, compare);
    let left = std::mem::take(items);
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let next = if compare(a, b) <= 0 { left.next() } else { right.next() };
        items.extend(next);
    }
    items.extend(left);
    items.extend(right);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(unsorted: &str) -> String {
        let mut addrs: Vec<Addr> = unsorted
            .split_whitespace()
            .map(|addr| addr.parse::<IpAddr>().unwrap().into())
            .collect();
        merge_sort(&mut addrs, &|a, b| compare_addresses(*a, *b));
        addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    /// Recorded: `ipvsadm -Ln --nosort` and `ipvsadm -Ln` of the same servers.
    #[test]
    fn addresses_far_apart_come_out_as_recorded() {
        assert_eq!(
            sorted("200.0.0.1 10.0.0.1 192.168.200.110"),
            "192.168.200.110 200.0.0.1 10.0.0.1"
        );
        assert_eq!(
            sorted("1001::1:1 1001::8000:1 1001::1 f001::1 2001::1 9001::1"),
            "f001::1 1001::1:1 1001::8000:1 1001::1 2001::1 9001::1"
        );
    }
}
