//! What a lab consists of: hosts, the links between them, and the programs on them.
//!
//! A topology is data. [`Network::build`](crate::lab::Network::build) makes the namespaces and
//! links, and the hosts' processes start the programs.

pub mod nat;

use std::net::{IpAddr, SocketAddr};

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
    /// An NFS server with these files.
    Storage {
        /// Where it listens.
        listen: SocketAddr,
        /// Paths and contents.
        files: Vec<(String, String)>,
    },
    /// A web server that gets its first page over NFS when it starts.
    Web {
        /// Where it listens.
        listen: SocketAddr,
        /// Where the NFS server is.
        storage: SocketAddr,
        /// The page's file there.
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
}

impl Host {
    /// A host that runs nothing.
    pub fn new(name: &'static str, role: &'static str) -> Self {
        Host {
            name,
            role,
            bridge: false,
            routes: Vec::new(),
            sysctls: Vec::new(),
            programs: Vec::new(),
        }
    }

    /// A host that joins its interfaces to one network.
    pub fn switch(name: &'static str) -> Self {
        Host { bridge: true, ..Host::new(name, "switch") }
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
    let parse = |text: &&str| text.parse().expect("a topology's addresses are ADDRESS/LENGTH");
    Port { host, interface, addresses: addresses.iter().map(parse).collect() }
}

/// A link between two ends.
pub fn link(one: Port, other: Port) -> Link {
    Link { ends: [one, other] }
}
