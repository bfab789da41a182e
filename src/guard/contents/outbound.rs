//! Rules for what the director translates by source NAT: connections that real servers begin.

use super::super::nftables::{Contents, Expression, PROTOCOL, Set};
use super::{Layout, equal, interface_name, is_forwarded, load_protocol, lookup};
use crate::engine::SnatRule;
use crate::packet::headers::protocol;

impl Layout {
    /// Drops what the director translates on its way out, but for answers to what was forwarded in.
    pub fn drop_outbound(self, to: &mut Contents, rules: &[SnatRule]) {
        if rules.is_empty() {
            return;
        }
        let keys = WITH_PORTS.iter().map(|number| vec![*number, 0, 0, 0]).collect();
        to.sets.push(Set { name: "with_ports", key_type: PROTOCOL, keys });
        let has_ports = || vec![load_protocol(0), lookup(0, "with_ports")];
        for snat in rules {
            let (out, back) = (self.matches(snat, Way::Out), self.matches(snat, Way::In));
            if snat.protocol.is_none_or(|number| WITH_PORTS.contains(&number)) {
                let unless = self.unless_direct();
                self.drop(to, [out.clone(), has_ports(), unless, is_forwarded()].concat());
                self.learn_requests(to, &[back, has_ports()].concat());
                self.drop_errors(to, &self.matches_addresses(snat, Way::Out));
            }
            if snat.protocol.is_none_or(|number| number == self.icmp) {
                let asks = self.is_icmp(self.echo_request);
                self.drop(to, [out, asks, is_forwarded()].concat());
            }
        }
    }

    /// Whether a packet goes the way that a rule of source NAT is for, or comes back on it.
    fn matches(self, snat: &SnatRule, way: Way) -> Vec<Expression> {
        let mut matches = self.matches_addresses(snat, way);
        if let Some(number) = snat.protocol {
            matches.extend([load_protocol(0), equal(0, vec![number])]);
        }
        let name = snat.out.as_deref().map(interface_name).unwrap_or_default();
        if !name.is_empty() {
            matches.push(match way {
                Way::Out => Expression::OutInterface { register: 0 },
                Way::In => Expression::InInterface { register: 0 },
            });
            matches.push(equal(0, name));
        }
        matches
    }

    fn matches_addresses(self, snat: &SnatRule, way: Way) -> Vec<Expression> {
        let (inside, outside) = match way {
            Way::Out => (self.source, self.destination),
            Way::In => (self.destination, self.source),
        };
        let source = snat.source.iter().flat_map(|prefix| self.within(*prefix, inside));
        let destination = snat.destination.iter().flat_map(|prefix| self.within(*prefix, outside));
        source.chain(destination).collect()
    }
}

/// Which way a packet goes.
#[derive(Clone, Copy)]
enum Way {
    Out,
    In,
}

/// Protocols with ports whose connections to the outside the director translates.
const WITH_PORTS: [u8; 2] = [protocol::TCP, protocol::UDP];
