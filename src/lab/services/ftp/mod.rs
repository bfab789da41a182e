//! A small FTP server for labs, and a client that sums up what it moves.
//!
//! The server lets everybody in and keeps nothing: it has two kinds of files to read, and sums up what
//! it is given. It is our own because the servers that there are as crates bring sixty others, TLS
//! among them. The client is suppaftp's, which believes neither side: it connects where the server
//! says, and takes active connections from the server's address only.
//!
//! | command | answer |
//! |---|---|
//! | `RETR hostname` | the server's name |
//! | `RETR N` | N bytes of the web server's [`pattern`](crate::lab::web::pattern), N up to 1 GiB |
//! | `STOR NAME` | takes any file, and remembers the sum of the last one |
//! | `XSHA256 NAME` | the SHA-256 of a file to read, or of the last one given |
//! | `PASV`, `EPSV`, `PORT`, `EPRT` | as RFC 959 and RFC 2428 have it; active connections come from port 20 |

mod client;
mod data;
mod session;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;

use super::sessions;
pub use client::{Client, Data};
use session::Session;

/// Starts a server on a thread of its own, which lives as long as the process. When this returns,
/// it is listening.
pub fn serve(listen: SocketAddr, hostname: &str) -> io::Result<()> {
    let hostname = hostname.to_owned();
    sessions::serve(listen, "ftp", move |stream| {
        // How a session ends is its client's concern.
        let _ = Session::new(stream, &hostname).and_then(|mut own| own.answer_all());
    })
}
