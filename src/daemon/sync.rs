//! The sockets of the synchronisation daemons, and the thread that hears other directors.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arrayvec::ArrayVec;

use crate::control::{RunningSync, SyncRole};
use crate::driver::{Group, MOST_DESCRIPTORS, MulticastReceiver, MulticastSender, Waker, wait};
use crate::engine::shard;
use crate::engine::sync::{MAX_PORTS, message};
use crate::worker::{Peers, Request, SyncOutlet};

/// What is open for the daemons that run.
pub(super) struct SyncSockets {
    outlet: Arc<SyncOutlet>,
    peers: Peers,
    listener: Mutex<Option<Listener>>,
    counted: Arc<Counted>,
}

/// Messages of other directors.
#[derive(Debug, Default)]
struct Counted {
    received: AtomicU64,
    refused: AtomicU64,
}

/// A thread that hears other directors. Dropping it ends the thread.
struct Listener {
    stop: Arc<AtomicBool>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

/// Ports that one backup listens to at most.
const MOST_PORTS: usize = MAX_PORTS as usize;
// The waker is one more that the thread waits for.
const _: () = assert!(MOST_PORTS < MOST_DESCRIPTORS);
/// Messages taken from one port before the others have their turn.
const TURN: usize = 64;
/// How long the thread sleeps if nothing wakes it.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

impl SyncSockets {
    pub(super) fn new(outlet: Arc<SyncOutlet>, peers: Peers) -> Self {
        Self { outlet, peers, listener: Mutex::default(), counted: Arc::default() }
    }

    /// Opens what a daemon takes, on the interface of that number.
    ///
    /// **Errors** — what the host refuses.
    pub(super) fn open(
        &self,
        running: &RunningSync,
        index: u32,
        buffer_bytes: Option<usize>,
    ) -> io::Result<()> {
        let daemon = &running.daemon;
        let (addr, port, interface) = (daemon.group, daemon.port, daemon.interface.clone());
        let group = Group { addr, port, interface, index, buffer_bytes };
        match daemon.role {
            SyncRole::Master => self.outlet.set(Some(MulticastSender::open(group, daemon.ttl)?)),
            SyncRole::Backup => {
                let listener = self.listen(running, &group)?;
                *self.lock() = Some(listener);
            }
        }
        Ok(())
    }

    /// Closes what was open for a side.
    pub(super) fn close(&self, role: SyncRole) {
        match role {
            SyncRole::Master => self.outlet.set(None),
            SyncRole::Backup => drop(self.lock().take()),
        }
    }

    /// Messages of other directors that came, and how many of them were refused as a whole.
    pub(super) fn counters(&self) -> Vec<(&'static str, u64)> {
        let Counted { received, refused } = &*self.counted;
        vec![
            ("received", received.load(Ordering::Relaxed)),
            ("refused", refused.load(Ordering::Relaxed)),
        ]
    }

    fn listen(&self, running: &RunningSync, group: &Group) -> io::Result<Listener> {
        let ports = 0..running.ports.min(MAX_PORTS);
        let receivers: io::Result<ArrayVec<_, MOST_PORTS>> =
            ports.map(|offset| MulticastReceiver::open(group, offset)).collect();
        let mut ear = Ear {
            receivers: receivers?,
            id: running.daemon.id,
            buffer: vec![0; usize::from(running.daemon.max_len) + 1],
            peers: Arc::clone(&self.peers),
            counted: Arc::clone(&self.counted),
        };
        let stop = Arc::new(AtomicBool::new(false));
        let waker = Waker::new()?;
        let (stopped, awake) = (Arc::clone(&stop), waker.clone());
        let thread = std::thread::Builder::new().name("ulvs-backup".into()).spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                if let Err(error) = ear.wait(&awake) {
                    tracing::error!("other directors are heard no more: {error}");
                    return;
                }
                ear.hear();
            }
        })?;
        Ok(Listener { stop, waker, thread: Some(thread) })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Listener>> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            // It says nothing when it ends.
            let _ = thread.join();
        }
    }
}

/// What the thread hears with.
struct Ear {
    receivers: ArrayVec<MulticastReceiver, MOST_PORTS>,
    id: u8,
    /// A byte longer than any message that is taken, so that those are told apart.
    buffer: Vec<u8>,
    peers: Peers,
    counted: Arc<Counted>,
}

impl Ear {
    fn wait(&self, waker: &Waker) -> io::Result<()> {
        let sockets = self.receivers.iter().map(AsFd::as_fd);
        let descriptors: ArrayVec<_, MOST_DESCRIPTORS> =
            std::iter::once(waker.as_fd()).chain(sockets).collect();
        wait(&descriptors, Some(LONGEST_SLEEP))?;
        waker.clear();
        Ok(())
    }

    /// Hands what has come to the workers whose connections it tells of.
    fn hear(&mut self) {
        let Self { receivers, id, buffer, peers, counted } = self;
        for receiver in receivers.iter() {
            for _ in 0..TURN {
                // A socket's error says something of an earlier moment; the next read is another.
                let Ok(Some(length)) = receiver.receive(buffer) else { break };
                counted.received.fetch_add(1, Ordering::Relaxed);
                if length == buffer.len() || !hand_over(&buffer[..length], *id, peers) {
                    counted.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

/// Hands a message to the workers that own something of it; `false` if it cannot be read.
///
/// Workers that have much to do are waited for: what comes meanwhile waits in the socket, and is
/// lost there in the end.
fn hand_over(message: &[u8], id: u8, peers: &Peers) -> bool {
    let Ok(entries) = message::read(message, id) else { return false };
    let mut owners = vec![false; peers.len()];
    for entry in entries {
        // Somebody has to count what cannot be read.
        let owner =
            entry.map_or(0, |entry| shard::owner(entry.client, entry.protocol, peers.len()));
        owners[owner] = true;
    }
    let message: Arc<[u8]> = message.into();
    for (mailbox, _) in peers.iter().zip(owners).filter(|(_, owns)| *owns) {
        mailbox.send(Request::Synchronise { message: Arc::clone(&message), id });
    }
    true
}
