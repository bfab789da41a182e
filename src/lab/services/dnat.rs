//! Destination NAT by a host's kernel, as `iptables -t nat -A PREROUTING ... -j DNAT` does it.

use std::io;
use std::net::SocketAddrV4;

use crate::guard::nftables::{Base, Contents, Expression, Hook, OwnedTable, Relation};

/// Translations in the kernel, until this is dropped or its process ends.
#[derive(Debug)]
pub struct DestinationNat {
    _table: OwnedTable,
}

impl DestinationNat {
    /// Sends TCP connections to the first address of a pair to the second instead, in the
    /// namespace of the calling thread.
    ///
    /// **Errors** — if the kernel has no nftables or no NAT.
    pub fn start(translations: &[(SocketAddrV4, SocketAddrV4)]) -> io::Result<Self> {
        let rules = translations.iter().map(|(from, to)| rule(*from, *to)).collect();
        let contents = Contents { rules, ..Contents::new(Hook::DestinationNat) };
        let describe = |error: io::Error| {
            let why = format!("this kernel does not translate addresses (nftables): {error}");
            io::Error::new(error.kind(), why)
        };
        let mut table = OwnedTable::new(&contents.hook).map_err(describe)?;
        table.replace(&contents).map_err(describe)?;
        Ok(DestinationNat { _table: table })
    }
}

fn rule(from: SocketAddrV4, to: SocketAddrV4) -> Vec<Expression> {
    let equal = |value: &[u8]| Expression::Compare {
        register: 0,
        relation: Relation::Equal,
        value: value.to_vec(),
    };
    let load = |base, offset, len| Expression::Payload { register: 0, base, offset, len };
    vec![
        load(Base::Network, DESTINATION_OFFSET, 4),
        equal(&from.ip().octets()),
        Expression::TransportProtocol { register: 0 },
        equal(&[libc::IPPROTO_TCP as u8]),
        load(Base::Transport, PORT_OFFSET, 2),
        equal(&from.port().to_be_bytes()),
        Expression::Constant { register: 0, value: to.ip().octets().to_vec() },
        Expression::Constant { register: 1, value: to.port().to_be_bytes().to_vec() },
        Expression::DestinationNat { address: 0, port: 1 },
    ]
}

/// Of the destination address in an IPv4 header.
const DESTINATION_OFFSET: u32 = 16;
/// Of the destination port in a TCP header.
const PORT_OFFSET: u32 = 2;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

    use super::*;
    use crate::lab::net::{self, Namespace, Route, sandbox};

    #[test]
    fn connections_arrive_at_the_other_address_and_port() {
        sandbox::run(
            "lab::services::dnat::tests::connections_arrive_at_the_other_address_and_port",
            || {
                let [client, router, server] =
                    ["client", "router", "server"].map(|name| Namespace::new(name).unwrap());
                net::connect(&client.end("eth0"), &router.end("out")).unwrap();
                net::connect(&router.end("in"), &server.end("eth0")).unwrap();
                client.add_address("eth0", "192.0.2.9/24".parse().unwrap()).unwrap();
                router.add_address("out", "192.0.2.1/24".parse().unwrap()).unwrap();
                router.add_address("in", "198.51.100.1/24".parse().unwrap()).unwrap();
                server.add_address("eth0", "198.51.100.2/24".parse().unwrap()).unwrap();
                server.add_route(&Route::default_via([198, 51, 100, 1].into())).unwrap();
                router.set_sysctl("net.ipv4.ip_forward", "1").unwrap();
                let at = |address: [u8; 4], port| SocketAddrV4::new(Ipv4Addr::from(address), port);
                let (from, to) = (at([192, 0, 2, 1], 80), at([198, 51, 100, 2], 8080));
                let nat = router.run(|| DestinationNat::start(&[(from, to)])).unwrap().unwrap();

                let listener = server.run(|| TcpListener::bind(to)).unwrap().unwrap();
                let mut near = client.run(|| TcpStream::connect(from)).unwrap().unwrap();
                let (mut far, peer) = listener.accept().unwrap();
                assert_eq!(peer.ip(), Ipv4Addr::new(192, 0, 2, 9));
                far.write_all(b"hello").unwrap();
                let mut heard = [0; 5];
                near.read_exact(&mut heard).unwrap();
                assert_eq!(&heard, b"hello");

                let closed = SocketAddr::from(([192, 0, 2, 1], 81));
                let other = client.run(|| TcpStream::connect(closed)).unwrap().unwrap_err();
                assert_eq!(other.kind(), io::ErrorKind::ConnectionRefused);
                drop(nat);
                let after = client.run(|| TcpStream::connect(from)).unwrap().unwrap_err();
                assert_eq!(after.kind(), io::ErrorKind::ConnectionRefused);
            },
        );
    }
}
