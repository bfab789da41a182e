//! The routes that the host remembers for its real servers, as IPVS does.
//!
//! All connections of a server share one route, which the first packet that goes there asks for. Direct
//! routing names the server as the next hop; other methods leave that to the packet's destination,
//! which is then the server's address as well. So direct routing with a route that NAT or a tunnel
//! asked for takes the virtual address for the next hop. Behind a router all routes are alike.
//!
//! **Source** — IPVS `__ip_vs_get_out_rt`, `__ip_vs_update_dest`, and its recordings. Only the
//! simulator does so: it is no director's aim to lose packets.

use std::net::IpAddr;
use std::sync::Arc;

use super::DirectorHost;
use super::routes::Way;
use crate::engine::conn::{Connection, Direction};
use crate::engine::service::{ForwardingMethod, RealServer};
use crate::packet::Headers;
use crate::simulate::topology::Link;

/// The route of every server that packets went to.
#[derive(Debug, Default)]
pub struct ServerRoutes(Vec<(Arc<RealServer>, ServerRoute)>);

/// One server's route, and when it was asked for.
#[derive(Clone, Copy, Debug)]
struct ServerRoute {
    names_next_hop: bool,
    /// How often the host's routes had changed, and the server's configuration.
    changes: (u64, u32),
}

impl ServerRoutes {
    /// Whether the route to a server names it as the next hop; `asks` is whether a route that is
    /// asked for now does.
    fn names_next_hop(&mut self, real: &Arc<RealServer>, asks: bool, changes: u64) -> bool {
        let changes = (changes, real.edits());
        let fresh = ServerRoute { names_next_hop: asks, changes };
        let Some((_, known)) = self.0.iter_mut().find(|(each, _)| Arc::ptr_eq(each, real)) else {
            self.0.push((Arc::clone(real), fresh));
            return asks;
        };
        if known.changes != changes {
            *known = fresh;
        }
        known.names_next_hop
    }
}

impl DirectorHost {
    /// The neighbour whom the packet in `bytes`, which the director has just sent on or refused to, is
    /// for by the route of its server; `None` if that is the one whom everybody takes.
    pub(super) fn misled(&mut self, bytes: &[u8]) -> Option<(Link, IpAddr)> {
        let headers = Headers::parse(bytes).ok()?;
        let (real, is_direct) = {
            let conn = self.connection_towards_server(&headers, bytes)?;
            (Arc::clone(conn.real()?), conn.method() == ForwardingMethod::Direct)
        };
        let changes = self.routes.changes();
        let names_next_hop = self.server_routes.names_next_hop(&real, is_direct, changes);
        let server: IpAddr = real.addr().into();
        match self.routes.way(server) {
            Way::Link(link, next_hop) if is_direct && !names_next_hop && next_hop == server => {
                Some((link, headers.destination.addr.into()))
            }
            Way::Link(..) | Way::Local | Way::Unreachable => None,
        }
    }

    /// The connection to whose server a packet goes, or an error about one that came from there.
    fn connection_towards_server(&self, headers: &Headers, bytes: &[u8]) -> Option<&Connection> {
        let conns = self.director.connections();
        let lookup = match headers.quoted(bytes) {
            Some(quoted) => conns.prepare(quoted.destination, quoted.source, quoted.protocol),
            None => conns.prepare(headers.source, headers.destination, headers.protocol),
        };
        let (id, direction) = conns.find(&lookup)?;
        (direction == Direction::ToReal).then(|| conns.get(id))
    }
}
