//! One thread of the web server: readiness in, served connections out.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;

use super::connection::{Connection, Desk, Fate};
use super::site::Site;

/// A listener and its connections.
#[derive(Debug)]
pub(super) struct Worker {
    poll: Poll,
    listener: mio::net::TcpListener,
    connections: Slab<Connection>,
    /// Connections that have more to do at once.
    again: Vec<usize>,
    /// Whether connections may still wait at the listener.
    accepting: bool,
    /// Counts the sweeps for idle connections.
    sweep: u64,
    site: Arc<Site>,
    requests: Arc<AtomicU64>,
}

const LISTENER: Token = Token(usize::MAX - 1);
const STOP: Token = Token(usize::MAX - 2);
/// Connections of one thread; beyond, new ones wait at the listener.
const MAX_CONNECTIONS: usize = 64 * 1024;
/// New connections that are taken before the old ones come first again.
const ACCEPT_TURNS: usize = 256;
/// A connection on which nothing happens for one to two of these is closed.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

impl Worker {
    pub(super) fn new(
        listener: TcpListener,
        site: Arc<Site>,
        requests: Arc<AtomicU64>,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let mut listener = mio::net::TcpListener::from_std(listener);
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Worker {
            poll,
            listener,
            connections: Slab::new(),
            again: Vec::new(),
            accepting: false,
            sweep: 0,
            site,
            requests,
        })
    }

    /// What wakes the thread up to end.
    pub(super) fn waker(&mut self) -> io::Result<Waker> {
        Waker::new(self.poll.registry(), STOP)
    }

    /// Serves until woken up to end.
    pub(super) fn run(&mut self) {
        let site = Arc::clone(&self.site);
        let requests = Arc::clone(&self.requests);
        let mut desk = Desk::new(&site, &requests);
        let mut events = Events::with_capacity(1024);
        let mut next_sweep = Instant::now() + SWEEP_EVERY;
        loop {
            let busy = !self.again.is_empty() || self.accepting;
            let patience = if busy { Duration::ZERO } else { SWEEP_EVERY };
            match self.poll.poll(&mut events, Some(patience)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            }
            if events.iter().any(|event| event.token() == STOP) {
                return;
            }
            self.round(&events, &mut desk);
            if Instant::now() >= next_sweep {
                self.drop_idle();
                next_sweep = Instant::now() + SWEEP_EVERY;
            }
        }
    }

    fn round(&mut self, events: &Events, desk: &mut Desk<'_>) {
        for index in std::mem::take(&mut self.again) {
            self.serve(index, desk);
        }
        for token in events.iter().map(Event::token) {
            match token {
                LISTENER => self.accepting = true,
                Token(index) => self.serve(index, desk),
            }
        }
        if self.accepting {
            self.accept(desk);
        }
    }

    fn accept(&mut self, desk: &mut Desk<'_>) {
        for _ in 0..ACCEPT_TURNS {
            if self.connections.len() >= MAX_CONNECTIONS {
                self.accepting = false;
                return;
            }
            match self.listener.accept() {
                Ok((stream, client)) => {
                    if let Some(index) = self.admit(stream, client) {
                        self.serve(index, desk);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.accepting = false;
                    return;
                }
                // The client is gone already, or descriptors are short: the next one may do.
                Err(_) => {}
            }
        }
    }

    fn admit(
        &mut self,
        stream: mio::net::TcpStream,
        client: std::net::SocketAddr,
    ) -> Option<usize> {
        let index = self.connections.insert(Connection::new(stream, client, self.sweep));
        let stream = &mut self.connections[index].stream;
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(stream, Token(index), interest).is_err() {
            self.connections.remove(index);
            return None;
        }
        Some(index)
    }

    fn serve(&mut self, index: usize, desk: &mut Desk<'_>) {
        // An event may come after the end of its connection.
        let Some(connection) = self.connections.get_mut(index) else { return };
        connection.active = self.sweep;
        match connection.serve(desk) {
            Fate::Wait => {}
            Fate::Again => self.again.push(index),
            Fate::Close => self.close(index),
        }
    }

    /// Closing the descriptor also takes it out of the poll.
    fn close(&mut self, index: usize) {
        let full = self.connections.len() >= MAX_CONNECTIONS;
        self.connections.remove(index);
        self.accepting |= full;
    }

    fn drop_idle(&mut self) {
        let current = self.sweep;
        let full = self.connections.len() >= MAX_CONNECTIONS;
        self.connections.retain(|_, connection| connection.active >= current);
        self.accepting |= full;
        self.sweep += 1;
    }
}
