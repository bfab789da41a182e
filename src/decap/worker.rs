//! One thread: from its sockets to its queue of the device.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrayvec::ArrayVec;

use super::Kind;
use super::counters::Counters;
use super::opener::{Policy, open};
use crate::driver::raw::{Memory, TunnelSocket};
use crate::driver::{MOST_DESCRIPTORS, Sender, Waker, wait};

pub(super) struct Worker {
    sockets: Vec<TunnelSocket>,
    sender: Box<dyn Sender>,
    policy: Arc<Policy>,
    counters: Arc<Counters>,
    memory: Memory,
    /// What was reported so far of the sockets' and the sender's own numbers.
    lost: u64,
    undelivered: u64,
}

impl Worker {
    pub fn new(
        sockets: Vec<TunnelSocket>,
        sender: Box<dyn Sender>,
        policy: Arc<Policy>,
        counters: Arc<Counters>,
    ) -> Self {
        let memory = Memory::default();
        Self { sockets, sender, policy, counters, memory, lost: 0, undelivered: 0 }
    }

    /// Runs until told to stop.
    pub fn run(mut self, waker: &Waker, stop: &AtomicBool) -> io::Result<()> {
        while !stop.load(Ordering::Acquire) {
            if self.turn()? > 0 {
                continue;
            }
            self.report();
            let sockets = self.sockets.iter().map(AsFd::as_fd);
            let descriptors: ArrayVec<_, MOST_DESCRIPTORS> =
                std::iter::once(waker.as_fd()).chain(sockets).collect();
            if wait(&descriptors, Some(LONGEST_SLEEP))?.trouble {
                self.sockets.iter().for_each(TunnelSocket::clear_error);
            }
            waker.clear();
        }
        self.report();
        Ok(())
    }

    /// Unpacks what has arrived; returns how many datagrams that was.
    fn turn(&mut self) -> io::Result<usize> {
        let Self { sockets, sender, policy, counters, memory, .. } = self;
        let mut done = 0;
        for socket in sockets {
            let kind = Kind::of(socket.carrier());
            done +=
                socket.receive(memory, &mut |mut arrived| match open(&mut arrived, policy) {
                    Ok(()) => {
                        counters.count(kind, arrived.packet.len());
                        sender.send(&mut [&mut arrived.packet]);
                    }
                    Err(refusal) => counters.refuse(refusal),
                })?;
        }
        Ok(done)
    }

    /// Adds what sockets and sender have counted since the last time.
    fn report(&mut self) {
        let sockets = self.sockets.iter().map(TunnelSocket::counters);
        let lost = sockets.map(|each| each.lost + each.damaged).sum();
        self.counters.count_lost(lost - self.lost);
        self.lost = lost;
        let sent = self.sender.counters();
        let undelivered = sent.refused + sent.link_down + sent.rejected;
        self.counters.count_undelivered(undelivered - self.undelivered);
        self.undelivered = undelivered;
    }
}

/// How late a signal may be followed, and numbers be told.
const LONGEST_SLEEP: Duration = Duration::from_millis(500);
