//! Which address is a real server's gateway that nobody has.
//!
//! With NAT, real servers reply through the director, so the gateway they are configured with is
//! meant to be the director. Where the kernel does not have that address, the director may take it;
//! but it must never take an address that is somebody's. So a server's question is evidence only if
//! the director's own packet provoked it, the server asks for nothing else in vain, and nobody was
//! ever heard to have the address.

use hashbrown::{HashMap, HashSet};

use crate::engine::Moment;
use crate::packet::Addr;

/// What has been seen of addresses, and of servers that ask in vain.
#[derive(Debug, Default)]
pub struct Watch {
    /// Addresses that somebody was heard to have.
    taken: HashSet<Addr>,
    asks: HashMap<(Addr, Addr), Ask>,
    served: HashMap<Addr, Served>,
}

#[derive(Clone, Copy, Debug)]
struct Ask {
    first: Moment,
    last: Moment,
}

#[derive(Clone, Copy, Debug)]
struct Served {
    first: Moment,
    last: Moment,
}

/// What a server's question says about its gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nothing.
    Nothing,
    /// The address is its gateway, and nobody's.
    Gateway,
    /// It asks for several addresses in vain; one of them may be its gateway.
    Ambiguous(Vec<Addr>),
}

impl Watch {
    /// Somebody has this address.
    pub fn taken(&mut self, addr: Addr) {
        if self.taken.len() < MAX_TAKEN {
            self.taken.insert(addr);
        }
        self.asks.retain(|(_, target), _| *target != addr);
    }

    /// A packet was sent to a real server.
    pub fn served(&mut self, server: Addr, now: Moment) {
        if let Some(served) = self.served.get_mut(&server) {
            served.last = now;
        } else if self.served.len() < MAX_SERVED {
            self.served.insert(server, Served { first: now, last: now });
        }
    }

    /// A real server asks for an address.
    pub fn asked(&mut self, server: Addr, target: Addr, now: Moment) -> Finding {
        if self.taken.len() >= MAX_TAKEN || self.taken.contains(&target) {
            return Finding::Nothing;
        }
        self.asks.retain(|_, ask| now.ms_since(ask.last) < REMEMBER_MS);
        if self.asks.len() >= MAX_ASKS {
            return Finding::Nothing;
        }
        let ask = self.asks.entry((server, target)).or_insert(Ask { first: now, last: now });
        ask.last = now;
        let Some(served) = self.served.get(&server) else { return Finding::Nothing };
        let provoked = ask.first >= served.first && now.ms_since(served.last) < PROVOKED_MS;
        if !provoked {
            return Finding::Nothing;
        }
        let others = self.asks.iter().filter(|((asker, other), ask)| {
            *asker == server && *other != target && now.ms_since(ask.last) < PROVOKED_MS
        });
        let mut candidates: Vec<Addr> = others.map(|((_, other), _)| *other).collect();
        if candidates.is_empty() {
            return Finding::Gateway;
        }
        candidates.push(target);
        candidates.sort_unstable();
        Finding::Ambiguous(candidates)
    }
}

/// A question is provoked by a packet that was sent to the server at most this long ago.
const PROVOKED_MS: u64 = 5000;
/// A question in vain is remembered for this long.
const REMEMBER_MS: u64 = 300_000;
/// Most addresses remembered as taken. Beyond, nothing is adopted.
const MAX_TAKEN: usize = 65_536;
const MAX_ASKS: usize = 1024;
const MAX_SERVED: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: Addr = Addr::v4(0xc000_020a);
    const GATEWAY: Addr = Addr::v4(0xc000_0201);
    const STORAGE: Addr = Addr::v4(0xc000_0282);

    fn at(ms: u64) -> Moment {
        Moment::from_ms(ms)
    }

    #[test]
    fn a_question_that_our_packet_provoked_names_the_gateway() {
        let mut watch = Watch::default();
        watch.served(SERVER, at(1000));
        assert_eq!(watch.asked(SERVER, GATEWAY, at(1001)), Finding::Gateway);
    }

    #[test]
    fn a_question_that_was_asked_before_our_packet_is_no_evidence() {
        let mut watch = Watch::default();
        assert_eq!(watch.asked(SERVER, STORAGE, at(1000)), Finding::Nothing);
        watch.served(SERVER, at(1500));
        assert_eq!(watch.asked(SERVER, STORAGE, at(2000)), Finding::Nothing);
    }

    #[test]
    fn a_question_long_after_our_packet_is_no_evidence() {
        let mut watch = Watch::default();
        watch.served(SERVER, at(1000));
        assert_eq!(watch.asked(SERVER, GATEWAY, at(6000)), Finding::Nothing);
    }

    #[test]
    fn an_address_that_anybody_has_is_never_a_finding() {
        let mut watch = Watch::default();
        watch.served(SERVER, at(1000));
        watch.taken(GATEWAY);
        assert_eq!(watch.asked(SERVER, GATEWAY, at(1001)), Finding::Nothing);
    }

    #[test]
    fn two_questions_in_vain_are_ambiguous() {
        let mut watch = Watch::default();
        watch.served(SERVER, at(1000));
        assert_eq!(watch.asked(SERVER, GATEWAY, at(1001)), Finding::Gateway);
        let both = Finding::Ambiguous(vec![GATEWAY, STORAGE]);
        assert_eq!(watch.asked(SERVER, STORAGE, at(1002)), both);
    }
}
