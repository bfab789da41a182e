//! The groups that the director listens to: those that neighbours ask for its IPv6 addresses in.
//!
//! A card passes on only frames of groups that it was told of, and a switch only those that somebody
//! reported to listen to. **Source** — RFC 4861 §7.2.1, RFC 4541.

use std::collections::BTreeSet;

use pnet_base::MacAddr;

use super::super::claim::PortSet;
use super::super::frame::{Arrival, PortId, Segment};
use super::super::message::Speaker;
use super::super::nd::{self, Version};
use super::super::port::Port;
use super::{LinkLayer, Services};
use crate::engine::Moment;
use crate::packet::{Addr, Family};

/// The groups whose frames an interface has to receive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Groups {
    /// Those with these link addresses.
    Some(BTreeSet<MacAddr>),
    /// All, because real servers may ask for a gateway that is not known yet.
    All,
}

impl Default for Groups {
    fn default() -> Self {
        Self::Some(BTreeSet::new())
    }
}

impl LinkLayer {
    /// The groups that each port has to receive, in the order of the ports.
    pub fn groups(&self) -> Vec<Groups> {
        let ids = (0..=u16::MAX).map(PortId);
        ids.zip(&self.ports).map(|(id, port)| self.groups_on(id, port)).collect()
    }

    fn groups_on(&self, id: PortId, port: &Port) -> Groups {
        if !self.reported.contains(id) {
            return Groups::default();
        }
        let masqueraded = &self.services.masqueraded;
        let adopts = self.settings.adopt && port.is_bare(Family::V6);
        if adopts && masqueraded.iter().any(|server| server.family() == Family::V6) {
            return Groups::All;
        }
        let groups = self.listened_to(id).into_iter().chain([nd::ALL_NODES]);
        Groups::Some(groups.map(nd::group_mac).collect())
    }

    /// Whether any service or address is one of IPv6. Where none is, there is no trace of it.
    fn speaks_ipv6(&self) -> bool {
        let Services { virtuals, servers, locals, .. } = &self.services;
        let services = virtuals.iter().chain(servers).chain(locals);
        let own = self.settings.addresses.iter().map(|own| own.addr);
        services.copied().chain(own).any(|addr| addr.family() == Family::V6)
    }

    /// Makes our own link-local address known on ports where that is not done yet.
    pub(super) fn introduce(&mut self) {
        if !self.speaks_ipv6() {
            self.reported = PortSet::default();
            return;
        }
        let ports: PortSet = self.port_ids().map(|(id, _)| id).collect();
        let strangers = ports.without(self.reported);
        if strangers.is_empty() {
            return;
        }
        self.reported = ports;
        for segment in self.segments_of(strangers) {
            let own = self.ports[usize::from(segment.port.0)].own_link_local;
            self.send_reports(segment, &[nd::solicited_node(own)], Version::Two);
        }
    }

    /// Whether an address is our own link-local one somewhere.
    pub(super) fn introduces(&self, addr: Addr) -> bool {
        addr.is_link_local() && self.port_ids().any(|(_, port)| port.own_link_local == addr)
    }

    /// Reports that we listen to the group of an address.
    pub(super) fn report(&mut self, addr: Addr, ports: PortSet) {
        if addr.family() == Family::V4 {
            return;
        }
        for segment in self.segments_of(ports) {
            self.send_reports(segment, &[nd::solicited_node(addr)], Version::Two);
        }
    }

    /// Reports all groups that we listen to, because a router asked.
    pub(super) fn answer_query(&mut self, arrival: &Arrival, version: Version, now: Moment) {
        let segment = arrival.segment;
        let Some(last) = self.queried.get_mut(usize::from(segment.port.0)) else { return };
        let is_flood = last.is_some_and(|last| now.ms_since(last) < QUERY_MS);
        if is_flood || !self.reported.contains(segment.port) {
            return;
        }
        *last = Some(now);
        self.note_segment(segment);
        let groups = self.listened_to(segment.port);
        self.send_reports(segment, &groups.into_iter().collect::<Vec<_>>(), version);
    }

    /// The groups of our addresses on a port.
    fn listened_to(&self, id: PortId) -> BTreeSet<Addr> {
        let own = self.ports[usize::from(id.0)].own_link_local;
        let claimed = self.claims.all().filter(|(_, ports)| ports.contains(id));
        let claimed = claimed.map(|(addr, _)| addr).filter(|addr| addr.family() == Family::V6);
        claimed.chain([own]).map(nd::solicited_node).collect()
    }

    fn send_reports(&mut self, segment: Segment, groups: &[Addr], version: Version) {
        let port = &self.ports[usize::from(segment.port.0)];
        let from = Speaker { addr: port.own_link_local, mac: port.own_mac };
        for frame in nd::reports(segment, from, groups, version) {
            self.counters.reports += 1;
            self.send(segment, frame);
        }
    }
}

/// Queries on a port that come sooner after another are taken for a flood.
const QUERY_MS: u64 = 1000;
