//! The NAT topology with a real director process in it, for end-to-end tests.

#[allow(dead_code, reason = "some tests capture nothing")]
pub mod capture;
mod director;
#[allow(dead_code, reason = "some tests leave nothing behind")]
pub mod traces;

use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use ulvs::lab::Network;
use ulvs::lab::net::Namespace;
use ulvs::lab::topology::{Topology, nat};
use ulvs::lab::web::{self, Answer, Site, WebServer};

pub use director::Director;

/// How long anything may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The virtual service of the topology.
pub fn service() -> SocketAddr {
    (nat::OUTSIDE, 80).into()
}

/// The textbook's configuration.
#[allow(dead_code, reason = "some tests have another")]
pub const ROUND_ROBIN: [&str; 3] = [
    "-A -t 12.0.0.1:80 -s rr",
    "-a -t 12.0.0.1:80 -r 192.168.200.110:80 -m",
    "-a -t 12.0.0.1:80 -r 192.168.200.120:80 -m",
];

/// All interfaces on the ways between the client and the real servers.
#[allow(dead_code, reason = "some tests leave the offloads as they are")]
pub const WAYS: [(&str, &str); 5] = [
    ("client", "eth0"),
    ("director", "out"),
    ("director", "in"),
    ("real1", "eth0"),
    ("real2", "eth0"),
];

/// Hosts, links, web servers on both real servers, and a director process.
pub struct Bed {
    pub network: Network,
    pub director: Director,
    service: SocketAddr,
    _webs: [WebServer; 2],
}

#[allow(dead_code, reason = "each test program uses its part of the bed")]
impl Bed {
    /// Builds everything; the director knows no service yet.
    pub fn new() -> Self {
        Self::with_director_options(&[])
    }

    pub fn with_director_options(options: &[&str]) -> Self {
        let servers = [nat::ACCP.into(), nat::BENET.into()];
        Self::over(&nat::topology(), servers, service(), options)
    }

    /// The same on another network, whose real servers have these addresses.
    pub fn over(
        topology: &Topology,
        servers: [IpAddr; 2],
        service: SocketAddr,
        options: &[&str],
    ) -> Self {
        let network = Network::build(topology).unwrap();
        let sites = [("real1", servers[0], "accp"), ("real2", servers[1], "benet")];
        let webs = sites.map(|(host, address, site)| {
            let inside = network.host(host).unwrap();
            let listeners =
                inside.run(|| web::listen((address, service.port()).into(), 1)).unwrap().unwrap();
            let page = format!("this is {site} web\n");
            WebServer::start(listeners, Site::new(host).page("/", "text/html", page)).unwrap()
        });
        let director = Director::start(network.host("director").unwrap(), options);
        Bed { network, director, service, _webs: webs }
    }

    pub fn host(&self, name: &str) -> &Namespace {
        self.network.host(name).unwrap()
    }

    /// Runs ipvsadm lines, each of which must succeed.
    pub fn configure(&self, lines: &[&str]) {
        for line in lines {
            self.ipvsadm(line);
        }
    }

    /// Runs an ipvsadm line, which must succeed. Returns what it printed.
    pub fn ipvsadm(&self, line: &str) -> String {
        self.ulvs(&format!("ipvsadm {line}"))
    }

    /// Runs a command of ulvs as the administrator of the director's host.
    pub fn ulvs(&self, line: &str) -> String {
        self.director.ulvs(self.host("director"), line)
    }

    /// Fetches the page of the virtual service as the client.
    pub fn fetch(&self) -> std::io::Result<Answer> {
        self.host("client").run(|| web::get(self.service, "/", PATIENCE)).unwrap()
    }

    /// Which servers answer `count` requests, one after the other.
    pub fn servers(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.fetch().unwrap().server).collect()
    }

    /// Fetches and sends 100 MiB with each real server, which must arrive unharmed.
    pub fn transfer_both_ways(&self) {
        self.transfer(100 << 20);
    }

    /// The same with some number of bytes.
    pub fn transfer(&self, length: u64) {
        let client = self.host("client");
        // Each real server serves one connection each way.
        for _ in 0..2 {
            client.run(|| web::download(self.service, length, PATIENCE)).unwrap().unwrap();
        }
        for _ in 0..2 {
            client.run(|| web::upload(self.service, length, PATIENCE)).unwrap().unwrap();
        }
    }

    /// What a director could leave behind on its host, but for sockets: it may have some now.
    pub fn traces(&self) -> Vec<String> {
        traces::beside_sockets(self.host("director"))
    }

    /// What a program says on the director's host, if it is installed.
    pub fn shown(&self, program: &str, arguments: &[&str]) -> Option<String> {
        traces::shown(self.host("director"), program, arguments)
    }

    /// Has interfaces neither join nor split segments, nor leave checksums to each other.
    pub fn disable_offloads(&self, interfaces: &[(&str, &str)]) {
        for (host, interface) in interfaces {
            self.host(host).disable_offloads(interface).unwrap();
        }
    }

    /// A socket for datagrams on a host.
    pub fn datagrams(&self, host: &str, address: impl Into<SocketAddr>) -> UdpSocket {
        let address = address.into();
        let socket = self.host(host).run(|| UdpSocket::bind(address)).unwrap().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// Has the first real server answer a datagram of the client under the address of a service at
    /// port 53, whose packets go to its port 5353.
    pub fn ask(&self) {
        let server = self.datagrams("real1", (nat::ACCP, 5353));
        let client = self.datagrams("client", (nat::CLIENT, 0));
        client.send_to(b"question", (nat::OUTSIDE, 53)).unwrap();
        let mut datagram = [0; 64];
        let (length, from) = server.recv_from(&mut datagram).unwrap();
        assert_eq!((&datagram[..length], from.ip()), (&b"question"[..], IpAddr::V4(nat::CLIENT)));
        server.send_to(b"answer", from).unwrap();
        let (length, from) = client.recv_from(&mut datagram).unwrap();
        assert_eq!((&datagram[..length], from), (&b"answer"[..], (nat::OUTSIDE, 53).into()));
    }

    /// Connects from a host to an address.
    pub fn connect(&self, host: &str, to: impl Into<SocketAddr>) -> std::io::Result<TcpStream> {
        let to = to.into();
        self.host(host).run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap()
    }
}
