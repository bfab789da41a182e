//! What neighbours say to each other, whether in ARP or in neighbour discovery.

use pnet_base::MacAddr;

use super::arp::{Arp, Operation};
use super::claim::Asker;
use super::frame::{Addressee, Arrival, Segment};
use super::nd::{self, Advertisement, Solicitation};
use super::neighbour::Evidence;
use crate::packet::{Addr, Family};

/// What a neighbour says of itself, and what it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its link address.
    pub mac: MacAddr,
    /// The address it says it has; none if it only probes for one.
    pub has: Option<Addr>,
    /// The address it asks for, if it asks.
    pub asks: Option<Addr>,
    /// What its word is worth if it does not ask.
    pub evidence: Evidence,
}

impl Message {
    /// What an ARP packet says.
    pub fn of_arp(arp: &Arp, arrival: &Arrival) -> Self {
        let asks = arp.operation == Operation::Request;
        let answers = !asks && arrival.to != Addressee::Everybody;
        Self {
            mac: arp.sender_mac,
            has: (!arp.is_probe()).then_some(arp.sender),
            asks: (asks && is_host(arp.target)).then_some(arp.target),
            evidence: if answers { Evidence::Answer } else { Evidence::Overheard },
        }
    }

    /// What a neighbour solicitation says.
    pub fn of_solicitation(asked: &Solicitation, arrival: &Arrival) -> Self {
        Self {
            mac: asked.mac.unwrap_or(arrival.source),
            has: asked.source,
            asks: Some(asked.target),
            evidence: Evidence::Overheard,
        }
    }

    /// What a neighbour advertisement says.
    ///
    /// **Source** — RFC 4861 §7.2.5.
    pub fn of_advertisement(told: &Advertisement, arrival: &Arrival) -> Self {
        let answers = told.solicited && arrival.to != Addressee::Everybody;
        let evidence = match (answers, told.mac) {
            (false, _) => Evidence::Overheard,
            (true, None) => Evidence::Confirmation,
            (true, Some(_)) if told.overrides => Evidence::Answer,
            (true, Some(_)) => Evidence::Offer,
        };
        Self {
            mac: told.mac.unwrap_or(arrival.source),
            has: Some(told.target),
            asks: None,
            evidence,
        }
    }
}

/// An address and the link address it is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speaker {
    /// The address; that of nobody if the speaker has none.
    pub addr: Addr,
    /// The link address.
    pub mac: MacAddr,
}

/// The frame that asks who has `target`: everybody, or only whoever is at the link address `of`.
pub fn question(segment: Segment, from: Speaker, target: Addr, of: Option<MacAddr>) -> Box<[u8]> {
    match target.family() {
        Family::V4 => {
            let to = of.unwrap_or(MacAddr::broadcast());
            arp_request(from, target).frame(segment, to)
        }
        Family::V6 => nd::solicitation(segment, from, target, of),
    }
}

/// The frame that tells everybody on a segment who has an address.
pub fn announcement(segment: Segment, owner: Speaker, is_router: bool) -> Box<[u8]> {
    match owner.addr.family() {
        Family::V4 => arp_request(owner, owner.addr).frame(segment, MacAddr::broadcast()),
        Family::V6 => nd::advertisement(segment, owner, None, is_router),
    }
}

/// The frame that tells somebody who asked.
pub fn answer(owner: Speaker, asker: &Asker, is_router: bool) -> Box<[u8]> {
    match owner.addr.family() {
        Family::V4 => {
            let arp = Arp {
                operation: Operation::Reply,
                sender_mac: owner.mac,
                sender: owner.addr,
                target_mac: asker.mac,
                target: asker.addr,
            };
            arp.frame(asker.segment, asker.mac)
        }
        Family::V6 => {
            // One without an address yet is told together with everybody.
            let to = is_host(asker.addr).then_some(Speaker { addr: asker.addr, mac: asker.mac });
            nd::advertisement(asker.segment, owner, to, is_router)
        }
    }
}

fn arp_request(from: Speaker, target: Addr) -> Arp {
    Arp {
        operation: Operation::Request,
        sender_mac: from.mac,
        sender: from.addr,
        target_mac: MacAddr::zero(),
        target,
    }
}

/// Whether an address can be a single host's.
pub fn is_host(addr: Addr) -> bool {
    match addr.family() {
        Family::V4 => !matches!(addr.v4_bits() >> 24, 0 | 127 | 224..),
        Family::V6 => addr.bits() > 1 && addr.bits() >> 120 != 0xff && !addr.is_mapped(),
    }
}

/// The address of somebody who has none yet, in a family.
pub fn nobody(family: Family) -> Addr {
    match family {
        Family::V4 => Addr::v4(0),
        Family::V6 => Addr::v6(0),
    }
}
