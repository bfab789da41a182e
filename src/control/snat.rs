//! Edits to the rules of source NAT.

use std::ops::RangeInclusive;

use crate::control::iptables::{Shown, SnatCommand, parse_snat};
use crate::engine::SnatRule;
use crate::engine::service::{ConfigError, ServiceTable};
use crate::packet::Addr;

/// Carries a command out.
///
/// `hold` keeps the kernel away from ports of an address, if that is its own, and says which of
/// them it could keep.
///
/// **Errors** — a sentence that says what is wrong; nothing has changed then.
pub fn edit(
    table: &ServiceTable,
    command: &str,
    hold: impl Fn(Addr, RangeInclusive<u16>) -> Result<RangeInclusive<u16>, String>,
) -> Result<(), String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let held = |mut rule: SnatRule| {
        rule.ports = hold(rule.to, rule.ports.clone())?;
        Ok::<_, String>(rule)
    };
    let mut rules = table.snapshot().snat.clone();
    let command = match parse_snat(&words)? {
        SnatCommand::Append(rule) => SnatCommand::Append(held(rule)?),
        SnatCommand::Insert(rule, number) => SnatCommand::Insert(held(rule)?, number),
        SnatCommand::Replace(rule, number) => SnatCommand::Replace(held(rule)?, number),
        other => other,
    };
    if !command.apply(&mut rules, is_same)? {
        return Ok(());
    }
    table.set_snat(rules).map_err(|error| match error {
        ConfigError::OutOfMemory => "there are too many rules".into(),
        other => other.to_string(),
    })
}

/// Whether two rules are the same but for the ports, of which fewer may have been held than asked
/// for.
fn is_same(a: &SnatRule, b: &SnatRule) -> bool {
    let without_ports = |rule: &SnatRule| SnatRule { ports: 0..=0, ..rule.clone() };
    without_ports(a) == without_ports(b)
}

/// The rules in the form of `iptables -S`.
pub fn list(table: &ServiceTable) -> Vec<String> {
    table.snapshot().snat.iter().map(|rule| Shown(rule).to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = "POSTROUTING -s 192.168.200.0/24 -o out -j SNAT --to-source 12.0.0.1";

    #[test]
    fn rules_come_and_go_and_a_refused_edit_changes_nothing() {
        let table = ServiceTable::new(1);
        let hold = |_, ports| Ok(ports);
        edit(&table, &format!("-t nat -A {RULE}"), hold).unwrap();
        edit(&table, "-I POSTROUTING -p tcp -j SNAT --to-source 12.0.0.2", hold).unwrap();
        let first = "-A POSTROUTING -p tcp -j SNAT --to-source 12.0.0.2".to_owned();
        assert_eq!(list(&table), [first.clone(), format!("-A {RULE}")]);
        let (epoch, refuse) = (table.epoch(), |_, _| Err("the ports are taken".to_owned()));
        for wrong in ["-D POSTROUTING -j SNAT --to-source 12.0.0.9", "-A POSTROUTING -j MARK"] {
            edit(&table, wrong, hold).unwrap_err();
        }
        edit(&table, &format!("-A {RULE}"), refuse).unwrap_err();
        assert_eq!(table.epoch(), epoch);
        edit(&table, &format!("-D {RULE}"), refuse).unwrap();
        assert_eq!(list(&table), [first]);
        edit(&table, "-F", hold).unwrap();
        assert!(list(&table).is_empty());
    }
}
