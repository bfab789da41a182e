//! What the control protocol asks of the daemon beside the service table.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::bounded;

use crate::control::advice::Route;
use crate::control::handler::Host;
use crate::control::netlink::connection::ConnectionView;
use crate::host::{HostWatch, RouteAdvice, advise};
use crate::packet::Addr;
use crate::worker::{ListedConnection, Peers, Request, SharedLink, WorkerCounters};

/// The daemon, as the control protocol sees it.
pub struct DaemonHost {
    peers: Peers,
    link: Arc<SharedLink>,
    watch: Arc<HostWatch>,
}

/// How long a worker may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

impl DaemonHost {
    pub(super) fn new(peers: Peers, link: Arc<SharedLink>, watch: Arc<HostWatch>) -> Self {
        Self { peers, link, watch }
    }

    fn is_configured(&self, addr: Addr) -> bool {
        self.link.with(|layer| {
            let mut networks = layer.configured_networks().into_iter();
            networks.any(|(_, prefix)| prefix.contains(addr))
        })
    }

    /// What each worker has counted.
    pub fn counters(&self) -> Vec<WorkerCounters> {
        let ask = |mailbox: &crate::worker::Mailbox| {
            let (answer, counted) = bounded(1);
            mailbox.send(Request::Count { answer });
            counted.recv_timeout(ANSWER_TIMEOUT).ok()
        };
        self.peers.iter().filter_map(ask).collect()
    }
}

impl Host for DaemonHost {
    fn connections(&self, each: &mut dyn FnMut(ConnectionView) -> ControlFlow<()>) {
        for mailbox in self.peers.iter() {
            let mut from = Some(0);
            while let Some(start) = from {
                let (answer, page) = bounded(1);
                mailbox.send(Request::List { from: start, answer });
                let Ok(page) = page.recv_timeout(ANSWER_TIMEOUT) else { return };
                for conn in &page.connections {
                    if each(view(conn)).is_break() {
                        return;
                    }
                }
                from = page.next;
            }
        }
    }

    fn route(&self, addr: Addr) -> Route {
        let host = self.watch.view();
        match advise(&host, addr) {
            RouteAdvice::Own | RouteAdvice::Reachable => Route::Reachable,
            // On a link without addresses everybody is found by asking, and an address of the
            // director's own says which network that link is.
            RouteAdvice::Unknown => Route::Unknown,
            RouteAdvice::Unlikely { .. } if self.is_configured(addr) => Route::Reachable,
            RouteAdvice::Unlikely { default_via, meant } => Route::Unlikely { default_via, meant },
        }
    }
}

fn view(conn: &ListedConnection) -> ConnectionView {
    ConnectionView {
        protocol: conn.key.protocol,
        client: conn.key.client,
        service: conn.key.virtual_endpoint,
        real: conn.key.real_endpoint,
        state: conn.state.into(),
        expires_s: conn.remaining_ms.div_ceil(1000),
        is_template: false,
        persistence_engine: None,
    }
}
