//! Addresses that the director itself answers for, with its virtual link addresses.
//!
//! An address is probed for before it is taken, announced when it is, defended once against a
//! rival, and given up if the rival insists. **Source** — RFC 5227, with shorter waits; IPv6 addresses
//! are treated alike, where RFC 4862 §5.4 would give up at once.

use arrayvec::ArrayVec;
use hashbrown::HashMap;
use pnet_base::MacAddr;

use super::frame::{PortId, Segment};
use crate::engine::Moment;
use crate::packet::{Addr, Family};

/// Why the director answers for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is the address of a virtual service.
    VirtualAddress,
    /// Servers reached by full NAT answer to it.
    LocalAddress,
    /// It was told to (`--address`).
    Configured,
    /// A real server uses it as its gateway and nobody else answers.
    Adopted {
        /// The server that asked.
        server: Addr,
    },
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::VirtualAddress => f.write_str("the virtual address of a service"),
            Self::LocalAddress => f.write_str("a local address for full NAT"),
            Self::Configured => f.write_str("an address of the director's own"),
            Self::Adopted { server } => write!(
                f,
                "real server {server} uses it as its gateway and nobody has it; decide yourself \
                 with --address or --no-adopt"
            ),
        }
    }
}

/// A set of ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortSet(u64);

impl PortSet {
    /// Adds a port.
    pub fn insert(&mut self, port: PortId) {
        self.0 |= 1 << port.0;
    }

    /// Whether a port is in it.
    pub fn contains(self, port: PortId) -> bool {
        self.0 & 1 << port.0 != 0
    }

    /// The ports that are not in the other set.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether no port is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl std::ops::BitOr for PortSet {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitAnd for PortSet {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl FromIterator<PortId> for PortSet {
    fn from_iter<T: IntoIterator<Item = PortId>>(ports: T) -> Self {
        ports.into_iter().fold(Self::default(), |mut set, port| {
            set.insert(port);
            set
        })
    }
}

/// Somebody who asked for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// Where it asked.
    pub segment: Segment,
    /// Its address.
    pub addr: Addr,
    /// Its link address.
    pub mac: MacAddr,
}

/// A rival for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rival {
    /// Where it was heard.
    pub segment: Segment,
    /// Its link address.
    pub mac: MacAddr,
    /// Whether it is one of our own real servers, which must not answer for virtual addresses.
    pub server: Option<Addr>,
}

/// What the claims want done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask on these ports whether anybody has the address.
    Probe(Addr, PortSet),
    /// Tell these ports that it is ours.
    Announce(Addr, PortSet),
    /// Answer somebody who asked for it.
    Answer(Addr, Asker),
    /// It was taken.
    Took(Addr, PortSet, Why),
    /// It was left to a rival.
    Yielded(Addr, Why, Rival),
    /// A rival uses it as well.
    Contested(Addr, Rival),
}

/// The addresses the director claims, or would.
#[derive(Debug, Default)]
pub struct Claims {
    claims: HashMap<Addr, Claim>,
    actions: Vec<Action>,
}

#[derive(Debug)]
struct Claim {
    why: Why,
    ports: PortSet,
    state: State,
    due: Option<Moment>,
    askers: ArrayVec<Asker, MAX_ASKERS>,
    defended: Option<Moment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Probing { sent: u8 },
    Owned { announced: u8 },
    Yielded,
}

impl Claims {
    /// Makes `wanted` the addresses to claim, besides adopted ones.
    pub fn set(&mut self, wanted: &HashMap<Addr, (Why, PortSet)>, now: Moment) {
        self.claims.retain(|addr, claim| {
            wanted.contains_key(addr) || matches!(claim.why, Why::Adopted { .. })
        });
        for (addr, (why, ports)) in wanted {
            match self.claims.get_mut(addr) {
                Some(claim) if claim.ports == *ports => claim.why = *why,
                _ => self.start(*addr, *why, *ports, now),
            }
        }
    }

    /// Begins to adopt an address on a port, for a server that asked.
    pub fn adopt(&mut self, addr: Addr, asker: Asker, now: Moment) {
        let why = Why::Adopted { server: asker.addr };
        self.start(addr, why, PortSet::from_iter([asker.segment.port]), now);
        self.asked(addr, asker);
    }

    /// Tells some ports again what is the director's own, because their link addresses changed.
    pub fn announce_again(&mut self, ports: PortSet, now: Moment) {
        for (addr, claim) in &mut self.claims {
            let ports = claim.ports & ports;
            if claim.is_owned() && !ports.is_empty() {
                claim.state = State::Owned { announced: 1 };
                claim.due = Some(later(now, ANNOUNCE_MS));
                self.actions.push(Action::Announce(*addr, ports));
            }
        }
    }

    /// Forgets a claim, if there is one.
    pub fn release(&mut self, addr: Addr) {
        self.claims.remove(&addr);
    }

    /// Somebody asks for an address: answers now, or as soon as the address is ours.
    pub fn asked(&mut self, addr: Addr, asker: Asker) {
        let Some(claim) = self.claims.get_mut(&addr) else { return };
        if !claim.ports.contains(asker.segment.port) {
            return;
        }
        match claim.state {
            State::Owned { .. } => self.actions.push(Action::Answer(addr, asker)),
            State::Probing { .. } if !claim.askers.contains(&asker) => {
                // One who is not remembered asks again within a second.
                let _full = claim.askers.try_push(asker);
            }
            State::Probing { .. } | State::Yielded => {}
        }
    }

    /// Somebody else uses an address, or probes for it.
    pub fn contested(&mut self, addr: Addr, rival: Rival, now: Moment) {
        let Some(claim) = self.claims.get_mut(&addr) else { return };
        // What was adopted was a guess; a sign from anywhere that it was wrong is enough.
        let adopted = matches!(claim.why, Why::Adopted { .. });
        if !adopted && !claim.ports.contains(rival.segment.port) {
            return;
        }
        match claim.state {
            State::Owned { .. } if claim.defends(rival, now) => {
                claim.defended = Some(now);
                self.actions.push(Action::Announce(addr, claim.ports));
                self.actions.push(Action::Contested(addr, rival));
            }
            State::Owned { .. } | State::Probing { .. } => {
                claim.state = State::Yielded;
                claim.due = Some(later(now, RECLAIM_MS));
                claim.askers.clear();
                self.actions.push(Action::Yielded(addr, claim.why, rival));
            }
            State::Yielded => claim.due = Some(later(now, RECLAIM_MS)),
        }
    }

    /// Whether an address is the director's own.
    pub fn owns(&self, addr: Addr) -> bool {
        self.claims.get(&addr).is_some_and(Claim::is_owned)
    }

    /// Whether an address is claimed in any state.
    pub fn knows(&self, addr: Addr) -> bool {
        self.claims.contains_key(&addr)
    }

    /// Whether an address of a family was adopted, or refused after all, on a port.
    pub fn has_adopted(&self, port: PortId, family: Family) -> bool {
        self.claims.iter().any(|(addr, claim)| {
            let adopted = matches!(claim.why, Why::Adopted { .. });
            adopted && addr.family() == family && claim.ports.contains(port)
        })
    }

    /// Whether an address is one that others send packets through, rather than to.
    pub fn is_gateway(&self, addr: Addr) -> bool {
        let why = self.claims.get(&addr).map(|claim| claim.why);
        matches!(why, Some(Why::Configured | Why::Adopted { .. }))
    }

    /// All addresses, whether they are the director's own yet or not, with their ports.
    pub fn all(&self) -> impl Iterator<Item = (Addr, PortSet)> {
        self.claims.iter().map(|(addr, claim)| (*addr, claim.ports))
    }

    /// The addresses that are the director's own.
    pub fn owned(&self) -> impl Iterator<Item = (Addr, PortSet)> {
        self.claims
            .iter()
            .filter(|(_, claim)| claim.is_owned())
            .map(|(addr, claim)| (*addr, claim.ports))
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Moment) {
        let due = |claim: &Claim| claim.due.is_some_and(|due| due <= now);
        let addrs: Vec<Addr> =
            self.claims.iter().filter(|(_, claim)| due(claim)).map(|(addr, _)| *addr).collect();
        for addr in addrs {
            self.advance(addr, now);
        }
    }

    /// When something is due next.
    pub fn next_timeout(&self) -> Option<Moment> {
        self.claims.values().filter_map(|claim| claim.due).min()
    }

    /// What is to be done now.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    fn start(&mut self, addr: Addr, why: Why, ports: PortSet, now: Moment) {
        let claim = Claim {
            why,
            ports,
            state: State::Probing { sent: 0 },
            due: Some(now),
            askers: ArrayVec::new(),
            defended: None,
        };
        self.claims.insert(addr, claim);
        self.advance(addr, now);
    }

    fn advance(&mut self, addr: Addr, now: Moment) {
        let Some(claim) = self.claims.get_mut(&addr) else { return };
        let ports = claim.ports;
        match claim.state {
            State::Probing { sent } if sent < PROBES => {
                claim.state = State::Probing { sent: sent + 1 };
                claim.due = Some(later(now, PROBE_MS));
                self.actions.push(Action::Probe(addr, ports));
            }
            State::Probing { .. } => {
                claim.state = State::Owned { announced: 1 };
                claim.due = Some(later(now, ANNOUNCE_MS));
                self.actions.push(Action::Took(addr, ports, claim.why));
                self.actions.push(Action::Announce(addr, ports));
                let askers = claim.askers.drain(..).map(|asker| Action::Answer(addr, asker));
                self.actions.extend(askers);
            }
            State::Owned { announced } if announced < ANNOUNCEMENTS => {
                claim.state = State::Owned { announced: announced + 1 };
                claim.due = None;
                self.actions.push(Action::Announce(addr, ports));
            }
            State::Owned { .. } => claim.due = None,
            State::Yielded if matches!(claim.why, Why::Adopted { .. }) => claim.due = None,
            State::Yielded => {
                claim.state = State::Probing { sent: 0 };
                self.advance(addr, now);
            }
        }
    }
}

impl Claim {
    fn is_owned(&self) -> bool {
        matches!(self.state, State::Owned { .. })
    }

    fn defends(&self, rival: Rival, now: Moment) -> bool {
        let lately = self.defended.is_some_and(|last| now.ms_since(last) < DEFEND_MS);
        match self.why {
            Why::Adopted { .. } => false,
            Why::VirtualAddress | Why::LocalAddress | Why::Configured => {
                rival.server.is_some() || !lately
            }
        }
    }
}

fn later(now: Moment, ms: u64) -> Moment {
    Moment::from_ms(now.as_ms() + ms)
}

/// Probes before an address is taken, and milliseconds between them. RFC 5227 has 3 and 1 to 2
/// seconds; the first connection is not to wait so long, and a neighbour on a LAN answers at once.
const PROBES: u8 = 3;
const PROBE_MS: u64 = 100;
/// Announcements and milliseconds between them. **Source** — RFC 5227 §1.1.
const ANNOUNCEMENTS: u8 = 2;
const ANNOUNCE_MS: u64 = 2000;
/// A second rival within this time wins. **Source** — RFC 5227 `DEFEND_INTERVAL`.
const DEFEND_MS: u64 = 10_000;
/// After this long without a sign of the rival an address is probed for again.
const RECLAIM_MS: u64 = 30_000;
/// Askers that are answered as soon as an address is taken.
const MAX_ASKERS: usize = 8;
