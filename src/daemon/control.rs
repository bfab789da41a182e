//! What the control protocol asks of the daemon beside the service table.

use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use nix::errno::Errno;

use super::counters;
use super::sync::SyncSockets;
use crate::control::advice::Route;
use crate::control::handler::Host;
use crate::control::netlink::connection::ConnectionView;
use crate::control::netlink::counter::CounterView;
use crate::control::{RunningSync, SyncDaemon, SyncDaemons, SyncRequest, SyncRole};
use crate::engine::service::ServiceTable;
use crate::host::{HostWatch, RouteAdvice, advise};
use crate::packet::Addr;
use crate::worker::{
    Clock, ListedConnection, Mailbox, Peers, Request, SharedLink, SyncOutlet, WorkerCounters,
};

/// The daemon, as the control protocol sees it.
pub struct DaemonHost {
    peers: Peers,
    services: Arc<ServiceTable>,
    clock: Clock,
    link: Arc<SharedLink>,
    watch: Arc<HostWatch>,
    chores: Sender<Chore>,
    sync: SyncDaemons,
    sockets: SyncSockets,
}

/// Something for the housekeeper to do while somebody waits for it.
pub(super) enum Chore {
    /// Follow the edit just made.
    Settle {
        /// Told when that is done, or why the services would be damaged.
        done: Sender<Result<(), String>>,
    },
    /// Keep the kernel away from ports of one of its addresses.
    HoldPorts {
        /// The address.
        addr: Addr,
        /// The ports.
        ports: RangeInclusive<u16>,
        /// Told which of them are held.
        held: Sender<Result<RangeInclusive<u16>, String>>,
    },
}

/// How long a worker may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Templates looked at under one lock, which new connections wait for.
const TEMPLATE_PAGE: usize = 4096;

impl DaemonHost {
    pub(super) fn new(
        peers: Peers,
        services: Arc<ServiceTable>,
        clock: Clock,
        link: Arc<SharedLink>,
        watch: Arc<HostWatch>,
        chores: Sender<Chore>,
        outlet: Arc<SyncOutlet>,
    ) -> Self {
        let sockets = SyncSockets::new(outlet, Arc::clone(&peers));
        let sync = SyncDaemons::default();
        Self { peers, services, clock, link, watch, chores, sync, sockets }
    }

    fn is_configured(&self, addr: Addr) -> bool {
        self.link.with(|layer| {
            let mut networks = layer.configured_networks().into_iter();
            networks.any(|(_, prefix)| prefix.contains(addr))
        })
    }

    /// Tells the templates of persistent services; breaks off if `each` does.
    fn templates(
        &self,
        each: &mut dyn FnMut(ConnectionView) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut from = Some(0);
        while let Some(start) = from {
            let now = self.clock.now();
            let (page, next) = self.services.templates().page(start, TEMPLATE_PAGE, now);
            for template in &page {
                let expires_s = template.remaining_ms.div_ceil(1000);
                each(ConnectionView::of_template(template, expires_s))?;
            }
            from = next;
        }
        ControlFlow::Continue(())
    }

    /// Waits until packets that come from now on are judged by what holds now.
    fn wait_for_workers(&self) {
        self.ask_workers(|followed| Request::Follow { followed });
    }

    /// What each worker has counted, with its number; those are left out that do not answer.
    pub fn worker_counters(&self) -> Vec<(usize, WorkerCounters)> {
        self.ask_workers(|answer| Request::Count { answer })
    }

    /// Asks all workers at once, and returns their answers with their numbers; those are left out
    /// that do not answer.
    fn ask_workers<T>(&self, request: impl Fn(Sender<T>) -> Request) -> Vec<(usize, T)> {
        let ask = |mailbox: &Mailbox| {
            let (answer, answered) = bounded(1);
            mailbox.send(request(answer));
            answered
        };
        let asked: Vec<_> = self.peers.iter().map(ask).collect();
        let answers = asked.into_iter().enumerate();
        answers
            .filter_map(|(worker, answered)| {
                Some((worker, answered.recv_timeout(ANSWER_TIMEOUT).ok()?))
            })
            .collect()
    }
}

impl Host for DaemonHost {
    fn connections(&self, each: &mut dyn FnMut(ConnectionView) -> ControlFlow<()>) {
        if self.templates(each).is_break() {
            return;
        }
        for expected in self.services.expectations().list(self.clock.now()) {
            let expires_s = expected.remaining_ms.div_ceil(1000);
            if each(ConnectionView::of_expected(&expected, expires_s)).is_break() {
                return;
            }
        }
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

    fn counters(&self) -> Vec<CounterView> {
        let workers = self.worker_counters();
        let (interfaces, link) = self.link.with(|layer| {
            let names = layer.ports().iter().map(|port| port.name.clone());
            (names.collect::<Vec<_>>(), layer.counters())
        });
        let each = |(number, counted): &(usize, WorkerCounters)| {
            counters::of_worker(*number, counted, &interfaces)
        };
        let shared = [counters::of_link(&link), counters::of_sync(self.sockets.counters())];
        workers.iter().flat_map(each).chain(shared.into_iter().flatten()).collect()
    }

    fn hold_ports(
        &self,
        addr: Addr,
        ports: RangeInclusive<u16>,
    ) -> Result<RangeInclusive<u16>, String> {
        let (held, answer) = bounded(1);
        let late = |_| "the director is too busy; try again".to_owned();
        self.chores.send(Chore::HoldPorts { addr, ports, held }).map_err(|_| "it is ending")?;
        answer.recv_timeout(ANSWER_TIMEOUT).map_err(late)?
    }

    fn start_sync(&self, request: SyncRequest) -> Result<Option<String>, Errno> {
        let view = self.watch.view();
        let interface = view.interface(&request.interface);
        let (mtu, index) = interface.map(|found| (found.mtu_bytes, found.index)).unzip();
        let wanted = self.services.snapshot().settings.sync_sock_size;
        let buffer_bytes = usize::try_from(wanted).ok().filter(|bytes| *bytes > 0);
        let mut problem = None;
        let open = |running: &RunningSync| {
            let opened = self.sockets.open(running, index.unwrap_or_default(), buffer_bytes);
            opened.map_err(|error| {
                let errno = Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO));
                problem = Some(error);
                errno
            })
        };
        let started = self.sync.start(request, mtu, &self.services, self.clock.now(), open);
        if let Some(error) = problem {
            tracing::error!("a synchronisation daemon cannot open its socket: {error}");
        }
        started.map(|()| None)
    }

    fn stop_sync(&self, role: SyncRole) -> Result<(), Errno> {
        self.sync.stop(role, &self.services)?;
        self.sockets.close(role);
        Ok(())
    }

    fn sync_daemons(&self) -> Vec<SyncDaemon> {
        self.sync.list()
    }

    fn settle(&self) -> Result<(), String> {
        let (done, settled) = bounded(1);
        if self.chores.send(Chore::Settle { done }).is_ok() {
            // The edit stands however long the rest takes to follow.
            settled.recv_timeout(ANSWER_TIMEOUT).unwrap_or(Ok(()))?;
        }
        self.wait_for_workers();
        Ok(())
    }

    fn route(&self, addr: Addr) -> Route {
        let host = self.watch.view();
        match advise(&host, addr) {
            RouteAdvice::Reachable => Route::Reachable,
            RouteAdvice::Own => Route::Own,
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
        is_heard: conn.is_heard,
        persistence_engine: None,
        local: conn.local,
    }
}
