//! What the kernel knows about this host, kept current, and what it lets this process do.
//!
//! One thread asks the kernel over route netlink, listens to its notifications and publishes an
//! immutable [`HostView`] whenever something changed. Needs no privilege. Refuses to know what the
//! view is used for.

mod advice;
mod device;
mod dump;
pub mod privileges;
#[cfg(test)]
mod tests;
mod watch;

pub use advice::{RouteAdvice, advise};
pub use device::{Device, Lead, Use};
pub use watch::HostWatch;

use std::io;

use crate::link::HostView;

/// What the kernel of the calling thread's network namespace knows now.
pub fn look() -> io::Result<HostView> {
    dump::runtime()?.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let driver = tokio::spawn(connection);
        let mut view = HostView::default();
        let dumped = dump::refresh(&handle, dump::Dirty::ALL, &mut view).await;
        driver.abort();
        dumped.map(|()| view)
    })
}
