//! Servers that talk to each client on a thread of its own.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

/// Listens, and has `talk` done with each client, on threads that live as long as the process. When
/// this returns, it is listening.
///
/// **Shape** — at most 64 clients at a time; further ones see their connection end at once.
pub(super) fn serve(
    listen: SocketAddr,
    name: &'static str,
    talk: impl Fn(TcpStream) + Send + Sync + 'static,
) -> io::Result<()> {
    let listener = TcpListener::bind(listen)?;
    // Each session has one of these, and this thread another.
    let talk = Arc::new(talk);
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        for stream in listener.incoming().flatten() {
            let own = Arc::clone(&talk);
            if Arc::strong_count(&talk) > MOST_SESSIONS + 1 {
                continue;
            }
            // A session that cannot be had is a connection that ends at once.
            let _ =
                thread::Builder::new().name(format!("{name} session")).spawn(move || own(stream));
        }
    })?;
    Ok(())
}

const MOST_SESSIONS: usize = 64;
