//! The addresses that are led to a device of the director's own, as they come and go.

use std::collections::BTreeMap;
use std::io;

use crate::host::{Device, Lead};
use crate::packet::Addr;

/// What is led to a device.
#[derive(Default)]
pub(super) struct Leads {
    led: BTreeMap<Addr, Lead>,
}

/// What came of leading an address to the device.
pub(super) struct Led {
    pub addr: Addr,
    pub how: Lead,
    pub done: io::Result<()>,
}

impl Leads {
    /// Leads these addresses to the device, and no others. Returns what came of those that are new:
    /// what failed is tried again the next time.
    pub fn follow(&mut self, device: &Device, wanted: BTreeMap<Addr, Lead>) -> Vec<Led> {
        self.led.retain(|addr, how| {
            let is_wanted = wanted.get(addr) == Some(how);
            if !is_wanted && let Err(error) = device.leave(*addr, *how) {
                // Somebody else may have removed it.
                tracing::debug!("{error}");
            }
            is_wanted
        });
        let mut outcomes = Vec::new();
        for (addr, how) in wanted {
            if self.led.contains_key(&addr) {
                continue;
            }
            let done = device.lead(addr, how);
            if done.is_ok() {
                self.led.insert(addr, how);
            }
            outcomes.push(Led { addr, how, done });
        }
        outcomes
    }
}
