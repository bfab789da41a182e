//! What both ends of a transfer compare.

use sha2::{Digest, Sha256};

/// The SHA-256 of bytes that come one piece after the other.
#[derive(Clone, Debug, Default)]
pub(in crate::lab) struct Sum(Sha256);

impl Sum {
    pub(in crate::lab) fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The sum so far, in hexadecimal.
    pub(in crate::lab) fn text(&self) -> String {
        self.0.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
