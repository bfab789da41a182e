//! The web server of a lab's hosts: HTTP/1.1 for curl, browsers and load generators.
//!
//! One thread per listener waits for readiness (mio) and answers from memory. An idle or answered
//! connection owns no buffers and an answered request allocates nothing, so that the server does
//! not get in the way of what is measured through it. A connection may begin with a PROXY header
//! (version 2), which says who the client is; whoever connects is believed.
//!
//! | request | answer |
//! |---|---|
//! | `GET`/`HEAD` of a page of the [`Site`] | the page |
//! | `GET /whoami` | the client's address as the server sees it |
//! | `GET /bytes/N` | N bytes of the [`pattern`] |
//! | `GET /sha256/N` | the SHA-256 of those, N up to 256 MiB |
//! | `POST`/`PUT /sink` | how many bytes came |
//! | `POST`/`PUT /sha256` | the SHA-256 of the body |
//! | `POST`/`PUT /verify` | 200 if the body was the [`pattern`], 422 with the first difference |
//!
//! ```no_run
//! use ulvs::lab::web::{self, Site, WebServer};
//!
//! # fn main() -> std::io::Result<()> {
//! let site = Site::new("real1").page("/", "text/html", "this is accp web\n");
//! let listeners = web::listen("192.168.200.110:80".parse().unwrap(), 1)?;
//! let server = WebServer::start(listeners, site)?;
//! // … until `server` is dropped
//! # drop(server); Ok(()) }
//! ```

mod connection;
mod fetch;
pub mod pattern;
mod proxy;
mod request;
mod response;
mod site;
pub(super) mod sum;
#[cfg(test)]
mod tests;
mod worker;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use mio::Waker;
use socket2::{Domain, Protocol, Socket, Type};

pub use fetch::{Answer, Transfer, download, download_summed, get, upload, upload_summed};
pub use site::Site;
use worker::Worker;

/// A running web server. It stops when dropped, with its connections.
#[derive(Debug)]
pub struct WebServer {
    address: SocketAddr,
    /// One counter for each thread, so that threads do not wait for each other's counting.
    requests: Vec<Arc<AtomicU64>>,
    threads: Vec<(Waker, JoinHandle<()>)>,
}

impl WebServer {
    /// Serves `site` on `listeners`, one thread for each. The listeners decide in which namespace.
    pub fn start(listeners: Vec<TcpListener>, site: Site) -> io::Result<Self> {
        let Some(first) = listeners.first() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no listener to serve on"));
        };
        let address = first.local_addr()?;
        let site = Arc::new(site);
        let mut server = WebServer { address, requests: Vec::new(), threads: Vec::new() };
        for listener in listeners {
            let requests = Arc::new(AtomicU64::new(0));
            server.requests.push(Arc::clone(&requests));
            let mut worker = Worker::new(listener, Arc::clone(&site), requests)?;
            let waker = worker.waker()?;
            let name = format!("web {}", site.name());
            let thread = std::thread::Builder::new().name(name).spawn(move || worker.run())?;
            server.threads.push((waker, thread));
        }
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests it has answered.
    pub fn requests(&self) -> u64 {
        self.requests.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        for (waker, thread) in self.threads.drain(..) {
            // A thread that has ended already needs no waking, and has nobody to tell.
            if waker.wake().is_ok() {
                let _ = thread.join();
            }
        }
    }
}

/// Opens `count` listeners on one address, among which the kernel spreads connections.
pub fn listen(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let count = NonZeroUsize::new(count).map_or(1, NonZeroUsize::get);
    let first = listener(address, count > 1)?;
    // With port 0 the first one finds the port for all.
    let address = first.local_addr()?;
    let rest = (1..count).map(|_| listener(address, true));
    std::iter::once(Ok(first)).chain(rest).collect()
}

fn listener(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    // Accepted connections inherit it; an answer is written at once, so waiting gains nothing.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Connections that may wait to be accepted; the kernel lowers it to net.core.somaxconn.
const BACKLOG: i32 = 4096;
