//! Opening interfaces for the workers, again when they were away, and steering among workers.

use std::io;

use pnet_base::MacAddr;

use crate::driver::af_packet::{AfPacket, AfPacketConfig, Memberships, RingConfig, Steering};
use crate::link::{Groups, HostView, PortId};
use crate::packet::Addr;
use crate::worker::{Peers, Request, SharedLink, steer};

/// The interfaces as they are open now.
pub(super) struct Ports {
    ports: Vec<Port>,
    ring: RingConfig,
    peers: Peers,
    virtuals: Vec<Addr>,
    /// Whether one of them is a local address as well.
    shared: bool,
}

struct Port {
    name: String,
    /// The kernel's number of the interface that is open, and its link address, from which the
    /// virtual one follows; `None` if none is.
    open: Option<(u32, MacAddr)>,
    steering: Option<Steering>,
    /// The groups it receives frames of.
    memberships: Option<Memberships>,
    groups: Groups,
}

/// A request for one worker.
pub(super) struct Addressed {
    worker: usize,
    request: Request,
}

impl Addressed {
    /// A request for the worker of this number.
    pub fn new(worker: usize, request: Request) -> Self {
        Self { worker, request }
    }

    /// Sends it.
    pub fn send(self, peers: &Peers) {
        peers[self.worker].send(self.request);
    }
}

impl Port {
    fn listen(&mut self, groups: &Groups) -> io::Result<()> {
        let memberships = match &mut self.memberships {
            Some(memberships) => memberships,
            none => none.insert(Memberships::open(&self.name)?),
        };
        match groups {
            Groups::All => memberships.join_all(),
            Groups::Some(groups) => {
                memberships.set(&groups.iter().map(|group| group.octets()).collect())
            }
        }
    }
}

impl Ports {
    pub fn new(names: Vec<String>, ring: RingConfig, peers: Peers) -> Self {
        let port = |name| Port {
            name,
            open: None,
            steering: None,
            memberships: None,
            groups: Groups::default(),
        };
        Self {
            ports: names.into_iter().map(port).collect(),
            ring,
            peers,
            virtuals: Vec::new(),
            shared: false,
        }
    }

    /// Opens all interfaces.
    ///
    /// **Errors** — of the first that cannot be opened.
    pub fn open_all(&mut self, link: &SharedLink) -> io::Result<Vec<Addressed>> {
        let mut requests = Vec::new();
        for at in 0..self.ports.len() {
            requests.extend(self.open(at, link)?);
        }
        Ok(requests)
    }

    /// Opens interfaces that came back under their names, and forgets those that went away.
    pub fn follow(&mut self, view: &HostView, link: &SharedLink) {
        for at in 0..self.ports.len() {
            let interface = view.interface(&self.ports[at].name);
            let now = interface.and_then(|interface| Some((interface.index, interface.mac?)));
            if now == self.ports[at].open {
                continue;
            }
            let name = self.ports[at].name.clone();
            self.ports[at].open = None;
            self.ports[at].steering = None;
            self.ports[at].memberships = None;
            self.ports[at].groups = Groups::default();
            if now.is_none() {
                tracing::warn!("interface {name} is gone; waiting for it to come back");
                continue;
            }
            match self.open(at, link) {
                Ok(requests) => {
                    requests.into_iter().for_each(|request| request.send(&self.peers));
                    tracing::info!("interface {name} is back");
                }
                Err(error) => {
                    // Not again until something about it changes.
                    self.ports[at].open = now;
                    tracing::error!("{error}");
                }
            }
        }
    }

    /// Steers by these virtual addresses from now on; `shared` says whether one of them is a local
    /// address as well.
    pub fn steer(&mut self, mut virtuals: Vec<Addr>, shared: bool) {
        virtuals.sort_unstable();
        if virtuals == self.virtuals && shared == self.shared {
            return;
        }
        self.virtuals = virtuals;
        self.shared = shared;
        let program = self.steering();
        for steering in self.ports.iter().filter_map(|port| port.steering.as_ref()) {
            if let Err(error) = steering.set(&program) {
                // Packets still reach their workers, by hand-over.
                tracing::warn!("{error}");
            }
        }
    }

    /// Receives frames of these groups from now on, given in the order of the interfaces.
    pub fn listen(&mut self, groups: Vec<Groups>) {
        for (port, groups) in self.ports.iter_mut().zip(groups) {
            if port.open.is_some() && port.groups != groups {
                if let Err(error) = port.listen(&groups) {
                    tracing::warn!(
                        "{error}: neighbours may not be heard when they ask for IPv6 addresses of \
                         the director"
                    );
                }
                // Not again until something about it changes.
                port.groups = groups;
            }
        }
    }

    /// Names of the interfaces.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.ports.iter().map(|port| port.name.as_str())
    }

    /// Megabytes of the receive ring for each interface and worker.
    pub fn ring_mib(&self) -> usize {
        self.ring.bytes >> 20
    }

    fn steering(&self) -> Vec<libc::sock_filter> {
        steer::program(self.virtuals.iter().copied(), self.shared)
    }

    fn open(&mut self, at: usize, link: &SharedLink) -> io::Result<Vec<Addressed>> {
        let id = PortId(at as u16);
        let state = link.with(|layer| layer.ports().get(at).cloned());
        let virtual_mac = state.as_ref().map(|port| port.own_mac.octets());
        let config = AfPacketConfig { ring: self.ring, virtual_mac };
        let program = self.steering();
        let port = &mut self.ports[at];
        let halves = if self.peers.len() == 1 {
            vec![AfPacket::open(&port.name, &config)?]
        } else {
            let group = AfPacket::open_group(&port.name, &config, self.peers.len(), &program)?;
            port.steering = Some(group.steering);
            group.workers
        };
        port.open = state.and_then(|port| Some((port.index?, port.mac)));
        let requests = halves.into_iter().enumerate().map(|(worker, half)| {
            let receiver = Box::new(half.receiver);
            let sender = Box::new(half.sender);
            Addressed::new(worker, Request::Attach { port: id, receiver, sender })
        });
        Ok(requests.collect())
    }
}
