//! What other threads say to a worker.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::egress::LostCounters;
use crate::driver;
use crate::driver::{ReceiverCounters, SenderCounters, Waker};
use crate::engine::conn::{ConnKey, Connection};
use crate::engine::fragments::{Datagram, FragmentCounters};
use crate::engine::{FullNatCounters, Moment, SyncCounters, VerdictCounters};
use crate::link::{IgnoredCounters, OwnedPacket, PortId};
use crate::packet::Endpoint;

/// A request to a worker.
pub enum Request {
    /// Work on an interface from now on, in place of what the port was before.
    Attach {
        /// Which of the link layer's ports it is.
        port: PortId,
        /// Receives from it.
        receiver: Box<dyn driver::Receiver>,
        /// Sends on it.
        sender: Box<dyn driver::Sender>,
    },
    /// Say that everything until now is followed: requests sent before this one, and what they and
    /// all others refer to.
    Follow {
        /// Where to say it.
        followed: Sender<()>,
    },
    /// Tell some of the connections.
    List {
        /// Where to go on.
        from: usize,
        /// Where to send the answer.
        answer: Sender<Page>,
    },
    /// Tell the counters.
    Count {
        /// Where to send the answer.
        answer: Sender<WorkerCounters>,
    },
    /// Take over what another director tells of this worker's connections.
    Synchronise {
        /// The message.
        message: Arc<[u8]>,
        /// The id that is listened to.
        id: u8,
    },
    /// A packet whose connection is this worker's.
    HandOver {
        /// The packet.
        packet: OwnedPacket,
        /// The port by which it came.
        port: PortId,
    },
    /// A datagram that was put together from its fragments, and whose connection is this worker's.
    HandOverDatagram {
        /// The datagram.
        datagram: Datagram,
        /// The port by which the last of its fragments came.
        port: PortId,
    },
}

/// Some of a worker's connections.
#[derive(Debug)]
pub struct Page {
    /// The connections.
    pub connections: Vec<ListedConnection>,
    /// Where to go on; `None` at the end.
    pub next: Option<usize>,
}

/// What a listing shows of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedConnection {
    /// Its identity.
    pub key: ConnKey,
    /// By full NAT, from where its server sees the client come.
    pub local: Option<Endpoint>,
    /// Its state's name.
    pub state: &'static str,
    /// Milliseconds until it expires.
    pub remaining_ms: u32,
    /// Whether another director told of it.
    pub is_heard: bool,
}

impl ListedConnection {
    pub(super) fn new(conn: &Connection, now: Moment) -> Self {
        Self {
            key: conn.key(),
            local: conn.local_endpoint(),
            state: conn.state().name(),
            remaining_ms: conn.remaining_ms(now),
            is_heard: conn.is_heard(),
        }
    }
}

/// What a worker has counted.
#[derive(Clone, Debug, Default)]
pub struct WorkerCounters {
    /// Packets judged, by verdict.
    pub verdicts: VerdictCounters,
    /// What full NAT counts.
    pub full_nat: FullNatCounters,
    /// What became of datagrams that came in fragments.
    pub fragments: FragmentCounters,
    /// Frames that were not for the director.
    pub ignored: IgnoredCounters,
    /// Connections it tracks.
    pub connections: usize,
    /// Packets handed over to other workers.
    pub handed_over: u64,
    /// Packets lost because another worker's mailbox was full.
    pub mailbox_full: u64,
    /// Packets that did not leave.
    pub lost: LostCounters,
    /// Connections that other directors were told of, or told of.
    pub sync: SyncCounters,
    /// Messages to other directors that did not leave.
    pub sync_unsent: u64,
    /// What the ports' drivers count, by port.
    pub ports: Vec<(ReceiverCounters, SenderCounters)>,
}

/// The sending end of a worker's mailbox.
#[derive(Clone, Debug)]
pub struct Mailbox {
    requests: Sender<Request>,
    waker: Waker,
}

impl Mailbox {
    /// A mailbox and the worker's end of it.
    pub fn new() -> std::io::Result<(Self, Receiver<Request>)> {
        let (requests, inbox) = bounded(MAILBOX_LEN);
        Ok((Self { requests, waker: Waker::new()? }, inbox))
    }

    /// Sends a request, waiting for room; `false` if the worker has ended.
    pub fn send(&self, request: Request) -> bool {
        let sent = self.requests.send(request).is_ok();
        self.waker.wake();
        sent
    }

    /// Hands a packet or datagram over without ever waiting; `false` if there is no room.
    pub(super) fn try_hand_over(&self, request: Request) -> bool {
        match self.requests.try_send(request) {
            Ok(()) => {
                self.waker.wake();
                true
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }

    /// Wakes the worker without a request.
    pub fn wake(&self) {
        self.waker.wake();
    }

    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }
}

/// Requests, packets included, that wait for a worker at most.
const MAILBOX_LEN: usize = 1024;
