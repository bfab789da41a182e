//! One conversation with the kernel's route netlink, inside a namespace.

use std::io;

use rtnetlink::Handle;

use super::error::During;
use super::{Error, Namespace};

impl Namespace {
    /// Runs `talk` with a route netlink socket of this namespace.
    pub(super) fn netlink<T: Send>(
        &self,
        what: impl FnOnce() -> String,
        talk: impl AsyncFnOnce(Handle) -> Result<T, rtnetlink::Error> + Send,
    ) -> Result<T, Error> {
        self.run(|| converse(talk))?.during(|| format!("{}: {}", self.name(), what()))
    }
}

fn converse<T>(talk: impl AsyncFnOnce(Handle) -> Result<T, rtnetlink::Error>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        talk(handle).await.map_err(into_io)
    })
}

/// Keeps the kernel's error number, by which callers tell errors apart.
fn into_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}
