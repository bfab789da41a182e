//! Where workers send what other directors are to be told.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::driver::MulticastSender;
use crate::engine::sync::Outgoing;

/// The way to other directors, shared by all workers. Locked for each message, which tells of
/// dozens of connections; packets never come here.
#[derive(Debug, Default)]
pub struct SyncOutlet(Mutex<Option<Arc<MulticastSender>>>);

impl SyncOutlet {
    /// Opens the way, or closes it.
    pub fn set(&self, sender: Option<MulticastSender>) {
        *self.lock() = sender.map(Arc::new);
    }

    /// Sends a message; `false` if it did not leave.
    pub(super) fn send(&self, message: &Outgoing) -> bool {
        let sender = self.lock().clone();
        sender.is_some_and(|sender| sender.send(&message.bytes, message.port_offset).is_ok())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<MulticastSender>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
