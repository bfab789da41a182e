//! The engine as a library: one service, two real servers, one packet. `cargo run --example embed`
//!
//! The engine does no I/O. You bring it packets from wherever you have them, and the time; it
//! rewrites each packet in place and says what to do with it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use etherparse::PacketBuilder;
use ulvs::engine::service::{
    ForwardingMethod, Protocol, RealSpec, ServiceKey, ServiceSpec, ServiceTable,
};
use ulvs::engine::{Director, DirectorConfig, Moment, Network, Owner, Verdict};
use ulvs::packet::{Addr, Headers, PacketBuf};

/// Feeds four connection requests to a director.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (client, vip) = (Ipv4Addr::new(12, 0, 0, 12), Ipv4Addr::new(12, 0, 0, 1));
    // Any clock will do that never goes back; the engine never looks at one itself.
    let now = Moment::from_ms(0);

    // ipvsadm -A -t 12.0.0.1:80 -s rr. Threads may share this table; here there is one.
    let services = Arc::new(ServiceTable::new(1));
    let key = ServiceKey::Address { protocol: Protocol::Tcp, addr: vip.into(), port: 80 };
    services.add_service(ServiceSpec { scheduler: "rr".into(), ..ServiceSpec::new(key) }, now)?;
    for host in [110, 120] {
        // ipvsadm -a -t 12.0.0.1:80 -r 192.168.200.110:8080 -m
        let server = RealSpec::new(Ipv4Addr::new(192, 168, 200, host).into(), 8080);
        services.add_real(&key, &RealSpec { method: ForwardingMethod::Masquerade, ..server })?;
    }

    // A director tracks the connections of one thread. The seed keeps its hashes secret: in
    // earnest, draw it at random.
    let mut director = Director::new(Arc::clone(&services), DirectorConfig::new(0, 42), now);
    for port in 40_000..40_004 {
        let mut bytes = Vec::new();
        let syn = PacketBuilder::ipv4(client.octets(), vip.octets(), 64).tcp(port, 80, 1, 65_535);
        syn.syn().write(&mut bytes, &[])?;
        let before = Headers::parse(&bytes)?;

        // A packet is a window into memory that you own, and is rewritten there.
        let end = bytes.len();
        let mut packet = PacketBuf::new(&mut bytes, 0, end);
        let verdict = director.handle_packet(&mut packet, &Surroundings, now);

        let after = Headers::parse(packet.bytes())?;
        println!("{} > {}: {verdict:?}", before.source, before.destination);
        if let Verdict::Forward(hop) = verdict {
            println!("    send {} > {} towards {}", after.source, after.destination, hop.to);
        }
    }
    Ok(())
}

/// What the director must know of the network around it: here everybody is an Ethernet frame away,
/// and the virtual address is the host's own.
struct Surroundings;

impl Network for Surroundings {
    fn mtu(&self, _to: Addr) -> Option<usize> {
        Some(1500)
    }

    fn address_towards(&self, _to: Addr) -> Option<Addr> {
        Some(Ipv4Addr::new(12, 0, 0, 1).into())
    }

    fn owner(&self, addr: Addr) -> Owner {
        let own = IpAddr::from(addr) == IpAddr::from(Ipv4Addr::new(12, 0, 0, 1));
        if own { Owner::Kernel } else { Owner::Other }
    }

    fn leaves_by(&self, _to: Addr, _interface: &str) -> bool {
        false
    }
}
