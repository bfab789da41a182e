//! Which worker owns a connection: both directions of it have to meet in one.
//!
//! Frames are steered by the same computation in the kernel, so it is made for a packet filter: one
//! multiplication, the upper half.

use crate::packet::headers::{ISAKMP, carries_ports, protocol};
use crate::packet::{Addr, Endpoint, Family};

/// The worker that owns the connections of an endpoint, `0..workers`.
pub fn owner(endpoint: Endpoint, number: u8, workers: usize) -> usize {
    if workers <= 1 {
        return 0;
    }
    let port = match number {
        // They follow the ISAKMP exchange between the same hosts.
        protocol::ESP | protocol::AH => ISAKMP.into(),
        _ if carries_ports(number) => endpoint.port.into(),
        _ => 0,
    };
    mix(fold(endpoint.addr), port) as usize % workers
}

/// The 32-bit words of an address, exclusive-ored.
pub fn fold(addr: Addr) -> u32 {
    match addr.family() {
        Family::V4 => addr.v4_bits(),
        Family::V6 => (0..4).fold(0, |all, word| all ^ (addr.bits() >> (32 * word)) as u32),
    }
}

fn mix(addr: u32, port: u32) -> u32 {
    (addr ^ port.wrapping_mul(PORT_FACTOR)).wrapping_mul(FACTOR) >> 16
}

/// **Source** — 2^32 divided by the golden ratio (Knuth, TAOCP 6.4), and a prime.
pub const FACTOR: u32 = 0x9e37_79b1;
/// See [`FACTOR`].
pub const PORT_FACTOR: u32 = 0x85eb_ca77;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_spread_over_the_workers() {
        let mut counts = [0; 4];
        for port in 1024..5120 {
            let client = Endpoint::new(Addr::v4(0x0c00_000c), port);
            counts[owner(client, protocol::TCP, 4)] += 1;
        }
        assert!(counts.iter().all(|count| (900..1150).contains(count)), "{counts:?}");
    }
}
