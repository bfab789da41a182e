//! Ports held at the kernel's addresses for connections that are announced on others: the passive
//! data connections of FTP.
//!
//! Nobody knows them before the server names one, so each is taken while its answer is on its way to
//! the client, and given back when the connection is over or did not come in time.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use hashbrown::HashMap;

use super::Guarded;
use super::raise_descriptor_limit;
use super::socket::GuardSocket;
use crate::engine::{Awaited, Hold, Keeper};
use crate::packet::Endpoint;
use crate::packet::headers::protocol;

/// The ports that are held.
#[derive(Debug)]
pub struct AnnouncedPorts {
    /// By endpoint; those that were given back are forgotten when another is taken.
    held: Mutex<HashMap<Endpoint, Weak<GuardSocket>>>,
    most: usize,
    /// Whether it was said that one could not be had.
    has_failed: AtomicBool,
}

/// Ports that are held at a time, unless the limit on open files is low.
const MOST: usize = 4096;
/// They take this part of the open files that there may be.
const SHARE: usize = 4;

impl Default for AnnouncedPorts {
    fn default() -> Self {
        Self::new()
    }
}

impl AnnouncedPorts {
    /// None yet.
    pub fn new() -> Self {
        Self::at_most(MOST.min(raise_descriptor_limit() / SHARE))
    }

    /// None yet, and so many at a time.
    fn at_most(most: usize) -> Self {
        Self { held: Mutex::default(), most, has_failed: AtomicBool::new(false) }
    }

    fn hold(&self, at: Endpoint) -> io::Result<Awaited> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // The servers of several clients may name the same port.
        if let Some(socket) = held.get(&at).and_then(Weak::upgrade) {
            return Ok(awaited(at, socket));
        }
        held.retain(|_, socket| socket.strong_count() > 0);
        if held.len() >= self.most {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let guarded = Guarded { protocol: protocol::TCP, at, interface: 0 };
        let (socket, at) = match GuardSocket::open(guarded) {
            Ok(socket) => (socket, at),
            // A program of this host has it, or it is for privileged ones only.
            Err(_) => {
                let (socket, port) = GuardSocket::open_any(at.addr)?;
                (socket, Endpoint::new(at.addr, port))
            }
        };
        let socket = Arc::new(socket);
        held.insert(at, Arc::downgrade(&socket));
        Ok(awaited(at, socket))
    }
}

impl Keeper for AnnouncedPorts {
    fn await_connection(&self, at: Endpoint) -> Awaited {
        if at.port == 0 {
            return Awaited::at(at);
        }
        match self.hold(at) {
            Ok(awaited) => {
                self.has_failed.store(false, Ordering::Relaxed);
                awaited
            }
            Err(error) => {
                if !self.has_failed.swap(true, Ordering::Relaxed) {
                    tracing::error!(
                        "the ports of FTP data connections at {} cannot be held ({error}), so that \
                         this host's kernel will reset them",
                        at.addr
                    );
                }
                Awaited::at(at)
            }
        }
    }
}

fn awaited(at: Endpoint, socket: Arc<GuardSocket>) -> Awaited {
    let hold: Arc<dyn Hold> = socket;
    Awaited { at, hold: Some(hold) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Addr;
    use std::net::TcpListener;

    const LOOPBACK: Addr = Addr::v4(0x7f00_0001);

    /// A program, and what it listens at.
    fn program() -> (TcpListener, Endpoint) {
        let program = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = program.local_addr().unwrap().port();
        (program, Endpoint::new(LOOPBACK, port))
    }

    fn is_free(port: u16) -> bool {
        TcpListener::bind(("127.0.0.1", port)).is_ok()
    }

    #[test]
    fn a_port_is_held_for_all_who_await_it_and_then_free_again() {
        let (program, at) = program();
        drop(program);
        let ports = AnnouncedPorts::new();
        let [one, other] = [(); 2].map(|()| ports.await_connection(at));
        assert_eq!([one.at, other.at], [at; 2]);
        assert!(!is_free(at.port));
        drop(one);
        assert!(!is_free(at.port), "somebody still waits");
        drop(other);
        assert!(is_free(at.port));
    }

    #[test]
    fn another_port_stands_in_for_one_that_is_taken() {
        let (_program, at) = program();
        let awaited = AnnouncedPorts::new().await_connection(at);
        assert_ne!(awaited.at.port, at.port);
        assert!(awaited.hold.is_some() && !is_free(awaited.at.port));
    }

    #[test]
    fn only_so_many_are_held() {
        let (_program, at) = program();
        let ports = AnnouncedPorts::at_most(2);
        let any = || ports.hold(at).unwrap();
        let (first, _second) = (any(), any());
        assert_eq!(ports.hold(at).unwrap_err().kind(), io::ErrorKind::QuotaExceeded);
        let refused = ports.await_connection(at);
        assert!(refused.at == at && refused.hold.is_none());
        drop(first);
        let _third = any();
    }
}
