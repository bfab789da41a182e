//! Firewall marks, as `iptables -t mangle ... -j MARK` gives them.

use std::ops::RangeInclusive;

use super::conn::tcp::TcpFlags;
use super::network::Network;
use crate::packet::headers::{carries_ports, protocol};
use crate::packet::{Addr, Headers, Prefix};

/// A rule in the words of iptables: `[!] -s SOURCE [!] -d DESTINATION [!] -i INTERFACE [!] -p PROTOCOL
/// [-m MATCH ...] -j MARK --set-xmark VALUE/MASK`. One without addresses is for both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MarkRule {
    /// The interface the packet came by (`-i`); any if `None`.
    pub input: Option<Criterion<String>>,
    /// Where the packet comes from (`-s`); anywhere if `None`.
    pub source: Option<Criterion<Prefix>>,
    /// Where it goes to (`-d`); anywhere if `None`.
    pub destination: Option<Criterion<Prefix>>,
    /// Its IP protocol number (`-p`); any if `None`.
    pub protocol: Option<Criterion<u8>>,
    /// What else it has to be (`-m`), in the order in which it was asked for.
    pub matches: Vec<Match>,
    /// Bits that are turned over once those of the mask are zero.
    pub value: u32,
    /// Bits of the mark that are set to zero first.
    pub mask: u32,
}

/// What a packet has to be, or, inverted (`!`), what it must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Criterion<T> {
    /// What is asked for.
    pub wanted: T,
    /// Whether it is the opposite that is asked for.
    pub inverted: bool,
}

impl<T> Criterion<T> {
    /// Whether it is met, where `is` tells whether the packet is what is asked for.
    pub fn is_met(&self, is: impl FnOnce(&T) -> bool) -> bool {
        is(&self.wanted) != self.inverted
    }
}

impl<T> From<T> for Criterion<T> {
    fn from(wanted: T) -> Self {
        Self { wanted, inverted: false }
    }
}

/// What a rule asks by a module of iptables (`-m`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// `-m tcp`, `-m udp`, `-m sctp`.
    Transport {
        /// `--sport`.
        source: Option<Criterion<Ports>>,
        /// `--dport`.
        destination: Option<Criterion<Ports>>,
        /// `--tcp-flags`, `--syn`.
        flags: Option<Criterion<FlagTest>>,
    },
    /// `-m multiport`: one of several ports.
    Multiport(Side, Criterion<Vec<Ports>>),
    /// `-m mark`: what the rules before have made of the mark.
    Mark(Criterion<MarkTest>),
    /// `-m comment`: what the rule is for, in somebody's words.
    Comment(String),
}

/// A range of ports.
pub type Ports = RangeInclusive<u16>;

/// All ports.
pub const ALL_PORTS: Ports = 0..=u16::MAX;

/// Which of a packet's ports are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The source's (`--sports`).
    Source,
    /// The destination's (`--dports`).
    Destination,
    /// Both: one of them is enough (`--ports`).
    Either,
}

/// Flags of TCP: of those of the mask just these are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlagTest {
    /// The flags that are looked at.
    pub mask: u8,
    /// Those of them that are set; one that is none of them never is.
    pub set: u8,
}

/// A mark whose bits of the mask are those of the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkTest {
    /// The bits that are asked for.
    pub value: u32,
    /// The bits that are looked at.
    pub mask: u32,
}

impl MarkTest {
    fn takes(self, mark: u32) -> bool {
        mark & self.mask == self.value
    }
}

/// A packet that rules are asked about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// What its headers say.
    pub headers: &'a Headers,
    /// The flags of a TCP segment.
    pub flags: Option<TcpFlags>,
}

impl<'a> Subject<'a> {
    /// The packet in `bytes`, whose headers these are.
    pub fn new(headers: &'a Headers, bytes: &[u8]) -> Self {
        let flags = bytes.get(headers.transport + TCP_FLAGS_OFFSET).copied().map(TcpFlags);
        Self { headers, flags: flags.filter(|_| headers.protocol == protocol::TCP) }
    }
}

/// **Source** — RFC 9293 §3.1.
const TCP_FLAGS_OFFSET: usize = 13;

impl MarkRule {
    /// The network that the rule names as the destination, if it does.
    pub fn destination_network(&self) -> Option<Prefix> {
        self.destination.as_ref().filter(|asked| !asked.inverted).map(|asked| asked.wanted)
    }

    /// Whether packets to an address may be taken.
    pub fn may_go_to(&self, addr: Addr) -> bool {
        lies_within(self.destination.as_ref(), addr)
    }

    /// Whether packets of a protocol may be taken.
    pub fn may_be(&self, number: u8) -> bool {
        self.protocol.as_ref().is_none_or(|asked| asked.is_met(|wanted| *wanted == number))
    }

    /// Whether the mark may be this one after the rule, whatever it was before.
    pub fn may_give(&self, mark: u32) -> bool {
        (mark ^ self.value) & self.mask == 0
    }

    /// Whether the rule picks out packets by where they come from, or by an earlier mark.
    pub fn is_picky(&self) -> bool {
        let is_for_marked = |each: &Match| match each {
            Match::Mark(asked) => !asked.is_met(|test| test.takes(0)),
            Match::Transport { .. } | Match::Multiport(..) | Match::Comment(_) => false,
        };
        self.source.is_some() || self.input.is_some() || self.matches.iter().any(is_for_marked)
    }

    /// The destination ports that its packets may have, in order and apart.
    pub fn destination_ports(&self) -> Vec<Ports> {
        // Between two ends of ranges all ports fare alike.
        let ends = self.matches.iter().flat_map(Match::destinations);
        let ends = ends.flat_map(|range| [u32::from(*range.start()), u32::from(*range.end()) + 1]);
        let mut starts: Vec<u32> = ends.chain([0]).filter(|start| *start <= MAX_PORT).collect();
        starts.sort_unstable();
        starts.dedup();
        let mut found: Vec<Ports> = Vec::new();
        for (at, start) in starts.iter().enumerate() {
            let next = starts.get(at + 1).copied().unwrap_or(MAX_PORT + 1);
            let (first, last) = (*start as u16, (next - 1) as u16);
            if !self.matches.iter().all(|each| each.may_go_to(first)) {
                continue;
            }
            match found.last_mut() {
                Some(range) if u32::from(*range.end()) + 1 == *start => {
                    *range = *range.start()..=last;
                }
                _ => found.push(first..=last),
            }
        }
        found
    }

    /// Whether the rule takes a packet that has a mark already, or 0.
    pub fn takes(&self, packet: Subject<'_>, mark: u32, network: &impl Network) -> bool {
        let Headers { source, destination, .. } = packet.headers;
        self.may_be(packet.headers.protocol)
            && lies_within(self.source.as_ref(), source.addr)
            && lies_within(self.destination.as_ref(), destination.addr)
            && self.matches.iter().all(|each| each.takes(packet, mark))
            && self.input.as_ref().is_none_or(|asked| asked.is_met(|name| network.arrived_by(name)))
    }
}

const MAX_PORT: u32 = u16::MAX as u32;

impl Match {
    fn takes(&self, packet: Subject<'_>, mark: u32) -> bool {
        let headers = packet.headers;
        let has_ports = headers.has_ports() && carries_ports(headers.protocol);
        let (from, to) = (headers.source.port, headers.destination.port);
        match self {
            Self::Transport { source, destination, flags } => {
                has_ports
                    && is_one_of(source.as_ref(), from)
                    && is_one_of(destination.as_ref(), to)
                    && flags.as_ref().is_none_or(|asked| {
                        let tells = |flags: TcpFlags| asked.is_met(|test| test.takes(flags));
                        packet.flags.is_some_and(tells)
                    })
            }
            Self::Multiport(side, asked) => {
                let is_there = |port| asked.wanted.iter().any(|range| range.contains(&port));
                let is = match side {
                    Side::Source => is_there(from),
                    Side::Destination => is_there(to),
                    Side::Either => is_there(from) || is_there(to),
                };
                has_ports && is != asked.inverted
            }
            Self::Mark(asked) => asked.is_met(|test| test.takes(mark)),
            Self::Comment(_) => true,
        }
    }

    /// The destination ports that are named.
    fn destinations(&self) -> &[Ports] {
        match self {
            Self::Transport { destination: Some(asked), .. } => std::slice::from_ref(&asked.wanted),
            Self::Multiport(Side::Destination | Side::Either, asked) => &asked.wanted,
            Self::Transport { .. }
            | Self::Multiport(Side::Source, _)
            | Self::Mark(_)
            | Self::Comment(_) => &[],
        }
    }

    /// Whether packets to a port may be taken.
    fn may_go_to(&self, port: u16) -> bool {
        let is_named = self.destinations().iter().any(|range| range.contains(&port));
        match self {
            Self::Transport { destination, .. } => is_one_of(destination.as_ref(), port),
            Self::Multiport(Side::Destination, asked) => is_named != asked.inverted,
            // A source port may be one of them as well.
            Self::Multiport(Side::Either, asked) => !asked.inverted || !is_named,
            Self::Multiport(Side::Source, _) | Self::Mark(_) | Self::Comment(_) => true,
        }
    }
}

impl FlagTest {
    fn takes(self, flags: TcpFlags) -> bool {
        flags.0 & self.mask == self.set
    }
}

/// The mark that rules give to a packet: each that takes it, in their order, changes the mark.
pub fn mark(rules: &[MarkRule], packet: Subject<'_>, network: &impl Network) -> u32 {
    rules.iter().fold(0, |mark, rule| match rule.takes(packet, mark, network) {
        true => mark & !rule.mask ^ rule.value,
        false => mark,
    })
}

/// Rules that name addresses are for those of their family only.
fn lies_within(asked: Option<&Criterion<Prefix>>, addr: Addr) -> bool {
    asked.is_none_or(|asked| {
        asked.wanted.addr().family() == addr.family()
            && asked.is_met(|prefix| prefix.contains(addr))
    })
}

fn is_one_of(asked: Option<&Criterion<Ports>>, port: u16) -> bool {
    asked.is_none_or(|asked| asked.is_met(|range| range.contains(&port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(matches: Vec<Match>) -> MarkRule {
        MarkRule { matches, value: 1, mask: u32::MAX, ..MarkRule::default() }
    }

    fn multiport(side: Side, wanted: Vec<Ports>, inverted: bool) -> Match {
        Match::Multiport(side, Criterion { wanted, inverted })
    }

    #[test]
    fn destination_ports_of_several_matches_are_those_that_all_of_them_take() {
        let dport = |wanted, inverted| Match::Transport {
            source: Some((1..=2).into()),
            destination: Some(Criterion { wanted, inverted }),
            flags: None,
        };
        let listed =
            |inverted| multiport(Side::Destination, vec![80..=90, 85..=95, 7..=7], inverted);
        for (matches, ports) in [
            (vec![], vec![ALL_PORTS]),
            (vec![dport(80..=80, false)], vec![80..=80]),
            (vec![dport(80..=80, true)], vec![0..=79, 81..=u16::MAX]),
            (vec![dport(0..=1023, true)], vec![1024..=u16::MAX]),
            (vec![dport(ALL_PORTS, true)], vec![]),
            (vec![listed(false)], vec![7..=7, 80..=95]),
            (vec![listed(true)], vec![0..=6, 8..=79, 96..=u16::MAX]),
            (vec![listed(false), dport(90..=100, false)], vec![90..=95]),
            (vec![listed(false), dport(100..=101, false)], vec![]),
            (vec![multiport(Side::Source, vec![80..=80], false)], vec![ALL_PORTS]),
            (vec![multiport(Side::Either, vec![80..=80], false)], vec![ALL_PORTS]),
            (vec![multiport(Side::Either, vec![0..=8], true)], vec![9..=u16::MAX]),
            (vec![Match::Comment("x".into())], vec![ALL_PORTS]),
        ] {
            assert_eq!(rule(matches.clone()).destination_ports(), ports, "{matches:?}");
        }
    }

    #[test]
    fn rules_for_what_has_an_earlier_mark_are_picky() {
        let marked = |value, inverted| {
            let wanted = MarkTest { value, mask: 0xff };
            rule(vec![Match::Mark(Criterion { wanted, inverted })])
        };
        assert!(marked(1, false).is_picky());
        assert!(!marked(0, false).is_picky());
        assert!(marked(0, true).is_picky());
        assert!(!marked(1, true).is_picky());
        assert!(!rule(vec![]).is_picky());
    }

    #[test]
    fn a_mark_is_possible_if_the_bits_of_the_mask_agree() {
        let gives = |value, mask, mark| MarkRule { value, mask, ..rule(vec![]) }.may_give(mark);
        assert!(gives(5, u32::MAX, 5) && !gives(5, u32::MAX, 7));
        assert!(gives(0x10, 0x10, 0x13) && !gives(0x10, 0x10, 0x03));
        assert!(gives(0, !0x0f, 0x05) && !gives(0, !0x0f, 0x15));
    }
}
