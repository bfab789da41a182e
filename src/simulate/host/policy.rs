//! Policy routing: tables beside the main one, and rules that lead marked packets to them.

use std::net::IpAddr;

use super::routes::{Prefix, RouteError};
use crate::simulate::topology::Link;

/// `ip rule add fwmark MARK [iif LINK] lookup TABLE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The firewall mark of the packets it takes.
    pub mark: u32,
    /// The link they come by; any if `None`.
    pub input: Option<Link>,
    /// Where it looks their destination up.
    pub table: u32,
}

/// Rules, and tables of networks that are delivered to the host.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    rules: Vec<Rule>,
    local: Vec<(u32, Prefix)>,
}

impl Policy {
    /// Has a table deliver a network to the host.
    pub fn add_local(&mut self, prefix: Prefix, table: u32) -> Result<(), RouteError> {
        if self.local.contains(&(table, prefix)) {
            return Err(RouteError::Exists);
        }
        self.local.push((table, prefix));
        Ok(())
    }

    /// Adds a rule.
    pub fn add_rule(&mut self, rule: Rule) -> Result<(), RouteError> {
        if self.rules.contains(&rule) {
            return Err(RouteError::Exists);
        }
        self.rules.push(rule);
        Ok(())
    }

    /// Whether a packet with this mark, which came by `input`, is delivered to the host.
    pub fn delivers(&self, mark: u32, input: Option<Link>, to: IpAddr) -> bool {
        let takes = |rule: &&Rule| {
            rule.mark == mark && rule.input.is_none_or(|wanted| input == Some(wanted))
        };
        self.rules.iter().filter(takes).any(|rule| {
            let mut networks = self.local.iter().filter(|(table, _)| *table == rule.table);
            networks.any(|(_, prefix)| prefix.contains(to))
        })
    }
}
