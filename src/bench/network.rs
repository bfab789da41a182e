//! The network that every contender gets for itself: client, director, servers.
//!
//! ```text
//!  client               director                    server
//!  12.0.0.12 ── out 12.0.0.1 │ in 192.168.200.1 ── 192.168.200.110, .120
//! ```
//!
//! The links are veth pairs with the offloads that they come with. The two real servers are two
//! addresses of one namespace with one web server thread, since client, director and servers
//! share the processors and two servers would only add switches between them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use crate::lab::net::{self, Namespace, Prefix, Route};
use crate::lab::web::{self, Site, WebServer};

use super::load::bulk::Counterpart;
use super::load::packets::{Sink, Target};

/// The director's outer address, where the services are.
pub const DIRECTOR_OUTSIDE: Ipv4Addr = Ipv4Addr::new(12, 0, 0, 1);
/// The director's inner address, the servers' gateway.
pub const DIRECTOR_INSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 200, 1);
/// The client's address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(12, 0, 0, 12);
/// The real servers' addresses.
pub const SERVERS: [Ipv4Addr; 2] =
    [Ipv4Addr::new(192, 168, 200, 110), Ipv4Addr::new(192, 168, 200, 120)];

/// The director's interface to the client.
pub const OUTSIDE: &str = "out";
/// The director's interface to the servers.
pub const INSIDE: &str = "in";
/// The only interface of the client and of the server.
const LINK: &str = "eth0";

/// Where pages are served.
pub const PAGE_PORT: u16 = 80;
/// Where bulk data is served.
pub const BULK_PORT: u16 = 5201;
/// Where packets are counted.
pub const PACKET_PORT: u16 = 5202;

/// Three namespaces with their links, and the servers at work.
#[derive(Debug)]
pub struct Network {
    /// Where the loads run.
    pub client: Namespace,
    /// Where the contender runs.
    pub director: Namespace,
    /// Where the servers run.
    pub server: Namespace,
    bulk: Counterpart,
    web: WebServer,
}

impl Network {
    /// Builds the network and starts the servers.
    ///
    /// **Errors** — without the privilege to make namespaces.
    pub fn new() -> Result<Self, net::Error> {
        let [client, director, server] = ["client", "director", "server"].map(Namespace::new);
        let (client, director, server) = (client?, director?, server?);
        net::connect(&client.end(LINK), &director.end(OUTSIDE))?;
        net::connect(&director.end(INSIDE), &server.end(LINK))?;
        client.add_address(LINK, prefix(CLIENT)?)?;
        director.add_address(OUTSIDE, prefix(DIRECTOR_OUTSIDE)?)?;
        director.add_address(INSIDE, prefix(DIRECTOR_INSIDE)?)?;
        for address in SERVERS {
            server.add_address(LINK, prefix(address)?)?;
        }
        client.add_route(&Route::default_via(DIRECTOR_OUTSIDE.into()))?;
        server.add_route(&Route::default_via(DIRECTOR_INSIDE.into()))?;
        let during = |what: &'static str| move |error: io::Error| net::Error::new(what, error);
        let web = server.run(start_web)?.map_err(during("start the web server"))?;
        let bulk = server
            .run(|| Counterpart::start(BULK_PORT))?
            .map_err(during("start the bulk server"))?;
        Ok(Self { client, director, server, bulk, web })
    }

    /// Requests that the web server has answered.
    pub fn pages_served(&self) -> u64 {
        self.web.requests()
    }

    /// Counts what the bulk server receives.
    pub fn bulk(&self) -> &Counterpart {
        &self.bulk
    }

    /// Starts counting packets in the server.
    pub fn sink(&self) -> io::Result<Sink> {
        self.server.run(|| Sink::start(PACKET_PORT)).map_err(io::Error::other)?
    }

    /// Where a packet load for `addresses` leaves the client.
    pub fn packet_target(&self, addresses: &[Ipv4Addr]) -> Target {
        Target {
            interface: LINK.to_owned(),
            source: CLIENT,
            next_hop: DIRECTOR_OUTSIDE,
            addresses: addresses.iter().map(|&to| SocketAddrV4::new(to, PACKET_PORT)).collect(),
        }
    }
}

fn prefix(address: Ipv4Addr) -> Result<Prefix, net::Error> {
    Prefix::new(IpAddr::V4(address), 24)
}

fn start_web() -> io::Result<WebServer> {
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PAGE_PORT));
    let listeners = web::listen(everywhere, 1)?;
    WebServer::start(listeners, Site::new("server").page(PAGE, "text/html", BODY))
}

/// What is fetched.
pub const PAGE: &str = "/";

const BODY: &str = "<!doctype html><title>ulvs bench</title><p>this page comes from a server\n";
