//! What a lab consists of: hosts, the links between them, and the programs on them.
//!
//! A topology is data. [`Network::build`](crate::lab::Network::build) makes the namespaces and
//! links, and the hosts' processes start the programs.

pub mod dr;
pub mod ftp;
pub mod fullnat;
pub mod fwmark;
pub mod ipv6;
pub mod nat;
pub mod persistence;
mod routed;
pub mod tun;
pub mod weights;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

use serde::{Deserialize, Serialize};

use crate::lab::net::{Prefix, Route};

/// A whole lab.
#[derive(Clone, Debug)]
pub struct Topology {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it shows, in a line.
    pub title: &'static str,
    /// The hosts, the first of which is where the drawing begins.
    pub hosts: Vec<Host>,
    /// The links between them.
    pub links: Vec<Link>,
}

/// One host.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name, by which one enters it.
    pub name: &'static str,
    /// What it does, in a few words.
    pub role: &'static str,
    /// Whether its interfaces are the ports of a bridge.
    pub bridge: bool,
    /// Addresses besides those of its links: interface and address, as of `lo`.
    pub addresses: Vec<(&'static str, Prefix)>,
    /// Its routes besides those of its addresses.
    pub routes: Vec<Route>,
    /// Its kernel parameters.
    pub sysctls: Vec<(&'static str, &'static str)>,
    /// What runs on it, in the order in which it is started.
    pub programs: Vec<Program>,
}

/// A cable between two hosts.
#[derive(Clone, Debug)]
pub struct Link {
    /// Its ends.
    pub ends: [Port; 2],
}

/// An interface of a host.
#[derive(Clone, Debug)]
pub struct Port {
    /// The host.
    pub host: &'static str,
    /// The interface's name on it.
    pub interface: &'static str,
    /// The addresses of the interface.
    pub addresses: Vec<Prefix>,
}

/// Something that runs on a host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Program {
    /// `ulvs run` on these interfaces.
    Director {
        /// The interfaces that it balances on.
        interfaces: Vec<String>,
    },
    /// `ulvs decap` for tunnels of a kind.
    Decap {
        /// The virtual address.
        virtual_address: IpAddr,
        /// What `ulvs decap --type` calls it.
        kind: String,
        /// The director.
        from: IpAddr,
    },
    /// An NFS server with these files.
    Storage {
        /// Where it listens.
        listen: SocketAddr,
        /// Paths and contents.
        files: Vec<(String, String)>,
    },
    /// An FTP server.
    Files {
        /// Where it listens.
        listen: SocketAddr,
    },
    /// A stand-in for a database.
    Database {
        /// Where it listens.
        listen: SocketAddr,
    },
    /// Destination NAT by the host's kernel, for TCP.
    Translate {
        /// What connections are for, and where they are sent instead.
        translations: Vec<(SocketAddrV4, SocketAddrV4)>,
    },
    /// A web server.
    Web {
        /// Where it listens.
        listen: SocketAddr,
        /// Its first page.
        page: Content,
    },
}

/// What a web server shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Content {
    /// This text.
    Text(String),
    /// A file that it gets over NFS when it starts.
    Stored {
        /// Where the NFS server is.
        storage: SocketAddr,
        /// The file there.
        file: String,
    },
}

impl Topology {
    /// The host of that name.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// The interfaces of a host, with the far end of each.
    pub fn ports<'a>(&'a self, host: &'a str) -> impl Iterator<Item = (&'a Port, &'a Port)> {
        self.links.iter().flat_map(move |link| {
            let [one, other] = &link.ends;
            let near = (one.host == host).then_some((one, other));
            let far = (other.host == host).then_some((other, one));
            near.into_iter().chain(far)
        })
    }

    /// The first address of a host's links, by which people know it.
    pub fn address(&self, host: &str) -> Option<IpAddr> {
        let mut addresses = self.ports(host).flat_map(|(near, _)| &near.addresses);
        addresses.next().map(|prefix| prefix.address())
    }
}

impl Program {
    /// A stand-in for a database at all addresses of its host.
    pub fn database() -> Self {
        let listen = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), DATABASE_PORT);
        Program::Database { listen }
    }
}

impl Host {
    /// A host that runs nothing.
    pub fn new(name: &'static str, role: &'static str) -> Self {
        Host {
            name,
            role,
            bridge: false,
            addresses: Vec::new(),
            routes: Vec::new(),
            sysctls: Vec::new(),
            programs: Vec::new(),
        }
    }

    /// A host that joins its interfaces to one network.
    pub fn switch(name: &'static str) -> Self {
        Host { bridge: true, ..Host::new(name, "switch") }
    }

    /// A host that runs a director on these interfaces.
    pub fn director(interfaces: &[&str]) -> Self {
        let interfaces = interfaces.iter().map(|&name| name.to_owned()).collect();
        // The director forwards by itself; the kernel below it is no router.
        Host::new("director", "ulvs run")
            .sysctl("net.ipv4.ip_forward", "0")
            .runs(Program::Director { interfaces })
    }

    /// A host that serves a page at all its addresses.
    pub fn web(name: &'static str, page: Content) -> Self {
        let listen = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), WEB_PORT);
        Host::new(name, "web server").runs(Program::Web { listen, page })
    }

    /// A host that serves a page at all its IPv6 addresses.
    pub fn web_v6(name: &'static str, page: Content) -> Self {
        let listen = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), WEB_PORT);
        Host::new(name, "web server").runs(Program::Web { listen, page })
    }

    /// The same web server with a stand-in for a database at all its addresses.
    pub fn database(self) -> Self {
        Host { role: "web and database", ..self }.runs(Program::database())
    }

    /// A host whose kernel forwards packets.
    pub fn router(name: &'static str) -> Self {
        Host::new(name, "router").sysctl("net.ipv4.ip_forward", "1")
    }

    /// The same host as a real server of direct routing: it has the virtual address on `lo`, and
    /// leaves it to the director to answer for it.
    ///
    /// **Panics** — if the address is not ADDRESS/LENGTH.
    pub fn quiet_address(self, address: &str) -> Self {
        let quiet = QUIET.into_iter().fold(self, |host, (key, value)| host.sysctl(key, value));
        quiet.address("lo", address)
    }

    /// The same host with one more address, on an interface that is no link's end.
    ///
    /// **Panics** — if the address is not ADDRESS/LENGTH.
    pub fn address(mut self, interface: &'static str, address: &str) -> Self {
        self.addresses.push((interface, written(address)));
        self
    }

    /// The same host with a default gateway.
    pub fn gateway(mut self, gateway: impl Into<IpAddr>) -> Self {
        self.routes.push(Route::default_via(gateway.into()));
        self
    }

    /// The same host with a kernel parameter set.
    pub fn sysctl(mut self, key: &'static str, value: &'static str) -> Self {
        self.sysctls.push((key, value));
        self
    }

    /// The same host with one more program.
    pub fn runs(mut self, program: Program) -> Self {
        self.programs.push(program);
        self
    }
}

/// One end of a link. The addresses are written by the topology's author.
///
/// **Panics** — if an address is not ADDRESS/LENGTH.
pub fn port(host: &'static str, interface: &'static str, addresses: &[&str]) -> Port {
    Port { host, interface, addresses: addresses.iter().map(|text| written(text)).collect() }
}

fn written(address: &str) -> Prefix {
    address.parse().expect("a topology's addresses are ADDRESS/LENGTH")
}

/// A link between two ends.
pub fn link(one: Port, other: Port) -> Link {
    Link { ends: [one, other] }
}

/// The links of a switch with the interfaces that are plugged into it.
///
/// **Panics** — if there are more than eight.
pub fn switched(switch: &'static str, plugged: Vec<Port>) -> Vec<Link> {
    let free = ["port1", "port2", "port3", "port4", "port5", "port6", "port7", "port8"];
    assert!(plugged.len() <= free.len(), "{switch} has too few ports");
    let links = plugged.into_iter().zip(free);
    links.map(|(end, own)| link(port(switch, own, &[]), end)).collect()
}

/// The links of a director with a client outside, given by the addresses of both, and a switch with
/// the real servers, where the director's address is `inside`.
///
/// **Panics** — if an address is not ADDRESS/LENGTH, or there are too many servers for a switch.
pub fn between(
    [client, outside]: [&str; 2],
    inside: &str,
    servers: &[(&'static str, &str)],
) -> Vec<Link> {
    let mut links =
        vec![link(port("client", "eth0", &[client]), port("director", "out", &[outside]))];
    let mut plugged = vec![port("director", "in", &[inside])];
    plugged.extend(servers.iter().map(|(name, address)| port(name, "eth0", &[address])));
    links.extend(switched("switch", plugged));
    links
}

/// What keeps a real server of direct routing from answering for the virtual address: answer ARP
/// on the interface only that has the address asked for, and never ask under the address of another
/// interface.
pub const QUIET: [(&str, &str); 2] =
    [("net.ipv4.conf.all.arp_ignore", "1"), ("net.ipv4.conf.all.arp_announce", "2")];

const WEB_PORT: u16 = 80;
const DATABASE_PORT: u16 = 3306;
