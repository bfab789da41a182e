//! Groups whose frames an interface has to receive.

use std::collections::BTreeSet;
use std::io;

use nix::net::if_::if_nametoindex;

use super::open::failed;
use crate::driver::sys::PacketSocket;

/// Memberships in groups of one interface: all its sockets receive the groups' frames as long as
/// this lives.
#[derive(Debug)]
pub struct Memberships {
    socket: PacketSocket,
    interface: String,
    index: u32,
    joined: BTreeSet<[u8; 6]>,
    all: bool,
}

impl Memberships {
    /// Of the interface of this name, in no group yet.
    pub fn open(interface: &str) -> io::Result<Self> {
        let index = if_nametoindex(interface)
            .map_err(|error| failed(interface, "find interface", &error.into()))?;
        let socket =
            PacketSocket::new().map_err(|error| failed(interface, "open packet socket", &error))?;
        let joined = BTreeSet::new();
        Ok(Self { socket, interface: interface.to_owned(), index, joined, all: false })
    }

    /// Joins these groups, and leaves those joined before that are not among them.
    ///
    /// **Errors** — of the first that cannot be joined; the others are not tried.
    pub fn set(&mut self, groups: &BTreeSet<[u8; 6]>) -> io::Result<()> {
        if groups.len() > MOST_GROUPS {
            return self.join_all();
        }
        for gone in self.joined.difference(groups) {
            // If the interface is gone, so is the membership.
            let _ = self.socket.leave_group(self.index, *gone);
        }
        self.joined.retain(|group| groups.contains(group));
        for group in groups {
            if !self.joined.contains(group) {
                self.socket
                    .join_group(self.index, *group)
                    .map_err(|error| failed(&self.interface, "join group", &error))?;
                self.joined.insert(*group);
            }
        }
        Ok(())
    }

    /// Joins all groups there are, for good.
    pub fn join_all(&mut self) -> io::Result<()> {
        if self.all {
            return Ok(());
        }
        self.socket
            .join_all_groups(self.index)
            .map_err(|error| failed(&self.interface, "join all groups", &error))?;
        self.all = true;
        Ok(())
    }
}

/// Beyond this many groups the interface receives all: cards filter a few dozen at most.
const MOST_GROUPS: usize = 256;
