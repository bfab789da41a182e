//! Keeps what the director forwards from the kernel's connection tracking.
//!
//! The kernel sees each direction of a balanced connection as one of its own, the reply's without a
//! beginning: a firewall would drop it as invalid, and a rule that masquerades what leaves would
//! rename the virtual address. IPVS keeps its packets from tracking as well
//! (`net.ipv4.vs.conntrack` is 0). What the director hands back stays tracked.

use std::collections::BTreeSet;
use std::io;

use super::divert::within;
use super::nftables::{Base, Contents, Expression, Hook, OwnedTable, Relation, Set};
use super::nftables::{addresses, octets};
use crate::packet::{Addr, Family, Prefix};

/// The rules, as long as this lives.
#[derive(Debug, Default)]
pub struct Untracking {
    /// For IPv4 and IPv6.
    tables: [Option<OwnedTable>; 2],
    tried: Option<Untracked>,
    has_failed: bool,
}

/// What is not tracked when it comes from the director's device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Untracked {
    /// The device's number.
    pub device: u32,
    /// The director's addresses, which it answers from.
    pub addresses: BTreeSet<Addr>,
    /// Networks whose addresses are the director's as well.
    pub networks: Vec<Prefix>,
    /// Real servers, which clients' packets go to. What comes from them is handed back, unless it is
    /// from one of the addresses.
    pub servers: BTreeSet<Addr>,
}

impl Untracking {
    /// Brings the kernel's rules up to date.
    ///
    /// **Errors** — they are not in force; without a reason if that was said before.
    pub fn update(&mut self, wanted: Untracked) -> Result<(), Option<io::Error>> {
        if self.tried.as_ref() == Some(&wanted) {
            return if self.has_failed { Err(None) } else { Ok(()) };
        }
        let done = self.install(&wanted);
        self.tried = Some(wanted);
        let had_failed = std::mem::replace(&mut self.has_failed, done.is_err());
        done.map_err(|error| (!had_failed).then_some(error))
    }

    fn install(&mut self, wanted: &Untracked) -> io::Result<()> {
        for (family, table) in [Family::V4, Family::V6].into_iter().zip(&mut self.tables) {
            let contents = wanted.contents(family);
            if contents.rules.is_empty() {
                *table = None;
                continue;
            }
            let table = match table {
                Some(table) => table,
                none => none.insert(OwnedTable::new(&contents.hook)?),
            };
            table.replace(&contents)?;
        }
        Ok(())
    }
}

impl Untracked {
    fn contents(&self, family: Family) -> Contents {
        let (source, destination) = match family {
            Family::V4 => (12, 16),
            Family::V6 => (8, 24),
        };
        let mut contents = Contents::new(Hook::Prerouting(family));
        for (name, members) in [(ADDRESSES, &self.addresses), (SERVERS, &self.servers)] {
            let members = members.iter().filter(|addr| addr.family() == family);
            let keys: Vec<_> = members.map(|addr| octets(*addr)).collect();
            if !keys.is_empty() {
                contents.sets.push(Set { name, key_type: addresses(family), keys });
            }
        }
        let len = if family == Family::V4 { 4 } else { 16 };
        let value = self.device.to_ne_bytes().to_vec();
        let arrival = [
            Expression::Arrival { register: 0 },
            Expression::Compare { register: 0, relation: Relation::Equal, value },
        ];
        for network in self.networks.iter().filter(|each| each.addr().family() == family) {
            let mut rule = [&arrival[..], &within(*network, source)].concat();
            rule.push(Expression::Untrack);
            contents.rules.push(rule);
        }
        for (set, offset, end) in [
            (ADDRESSES, source, Expression::Untrack),
            (SERVERS, source, Expression::Accept),
            (SERVERS, destination, Expression::Untrack),
        ] {
            if contents.sets.iter().all(|each| each.name != set) {
                continue;
            }
            let rule = [
                Expression::Payload { register: 0, base: Base::Network, offset, len },
                Expression::Lookup { register: 0, set },
                end,
            ];
            contents.rules.push([&arrival[..], &rule].concat());
        }
        contents
    }
}

const ADDRESSES: &str = "addresses";
const SERVERS: &str = "servers";
