//! Local addresses for full NAT: beyond ipvsadm, in the words of DPVS's.

use std::collections::BTreeMap;
use std::net::IpAddr;

use nix::errno::Errno;

use super::listing::{Told, protocol_name, put};
use super::{Ran, Session, Topic, sort};
use crate::engine::service::{ClientAddress, ServiceKey, ServiceSpec};
use crate::packet::{Addr, Endpoint, Family};

/// A change to the local addresses of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalEdit {
    /// The service.
    pub key: ServiceKey,
    /// The addresses.
    pub addrs: Vec<Addr>,
    /// Whether they come or go.
    pub adds: bool,
}

/// Reads `ADDRESS[,ADDRESS…]`.
pub fn addresses(text: &str) -> Option<Vec<Addr>> {
    text.split(',').map(|one| one.parse::<IpAddr>().ok().map(Addr::from)).collect()
}

/// Reads how servers are told who their clients are.
pub fn client_address(text: &str) -> Option<ClientAddress> {
    TELLINGS.iter().find(|(_, name)| *name == text).map(|(how, _)| *how)
}

/// The name under which [`client_address`] knows it.
pub fn client_address_name(how: ClientAddress) -> &'static str {
    TELLINGS.iter().find(|(each, _)| *each == how).map_or("none", |(_, name)| name)
}

const TELLINGS: [(ClientAddress, &str); 3] = [
    (ClientAddress::Untold, "none"),
    (ClientAddress::Toa, "toa"),
    (ClientAddress::ProxyV2, "proxy-v2"),
];

impl LocalEdit {
    fn apply(&self, addrs: &mut Vec<Addr>) -> Result<(), Errno> {
        for addr in &self.addrs {
            match (self.adds, addrs.iter().position(|each| each == addr)) {
                (true, None) => addrs.push(*addr),
                (true, Some(_)) => return Err(Errno::EEXIST),
                (false, Some(at)) => drop(addrs.remove(at)),
                (false, None) => return Err(Errno::ENOENT),
            }
        }
        Ok(())
    }
}

impl Session<'_, '_> {
    /// Carries a change out.
    pub(super) fn edit_local(&mut self, edit: &LocalEdit) -> Ran {
        let edited = self.director.edit_local_addresses(&edit.key, |addrs| edit.apply(addrs));
        self.conclude(Topic::Local, edited)
    }

    /// Lists the local addresses of one service or all, with the connections that each has.
    pub(super) fn list_local(&mut self, key: Option<&ServiceKey>) -> Ran {
        match self.tell_local(key) {
            Ok(Ok(())) => Ok(0),
            Ok(Err(stopped)) => Err(stopped.into()),
            Err(failure) => self.give_up(failure),
        }
    }

    fn tell_local(&mut self, key: Option<&ServiceKey>) -> Told {
        let mut services = match key {
            Some(key) => vec![self.director.service(key)?],
            None => self.director.services()?,
        };
        sort::services(&mut services);
        let mut used = BTreeMap::<(u8, Endpoint), BTreeMap<Addr, u64>>::new();
        self.director.connections(&mut |view| {
            if let Some(local) = view.local {
                let addresses = used.entry((view.protocol, view.service)).or_default();
                *addresses.entry(local.addr).or_default() += 1;
            }
        })?;
        let mut text = String::from(TITLE);
        for service in services {
            local_lines(&mut text, &service.spec, &used);
        }
        Ok(self.flush(&mut text, 0))
    }
}

const TITLE: &str = "Prot VirtualAddress:Port        LocalAddress                    Conns\n";

/// Connections by protocol, virtual endpoint and local address.
type Used = BTreeMap<(u8, Endpoint), BTreeMap<Addr, u64>>;

/// The service's own local addresses, and those of the director that it uses for want of any.
fn local_lines(text: &mut String, spec: &ServiceSpec, used: &Used) {
    let (prot, name, counts) = match spec.key {
        ServiceKey::Mark { mark, family } => {
            let suffix = if family == Family::V6 { " IPv6" } else { "" };
            ("FWM", format!("{}{suffix}", mark.cast_signed()), None)
        }
        ServiceKey::Address { protocol, addr, port } => {
            let (number, endpoint) = (protocol.number(), Endpoint::new(addr, port));
            (protocol_name(number), endpoint.to_string(), used.get(&(number, endpoint)))
        }
    };
    let own = &spec.local_addresses;
    let others = counts.iter().flat_map(|counts| counts.keys()).filter(|addr| !own.contains(addr));
    let all = own.iter().map(|addr| (addr, "")).chain(others.map(|addr| (addr, " (default)")));
    let mut name = format!("{prot:<4} {name}");
    for (addr, remark) in all {
        let count = counts.and_then(|counts| counts.get(addr)).copied().unwrap_or(0);
        let addr = format!("{addr}{remark}");
        put(text, format_args!("{name:<31} {addr:<31} {count}\n"));
        name.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_addresses_are_read() {
        let read = |text| addresses(text).map(|addrs| addrs.len());
        assert_eq!(read("192.0.2.1"), Some(1));
        assert_eq!(read("192.0.2.1,2001:db8::1"), Some(2));
        for wrong in ["", ",", "192.0.2.1,", "192.0.2", "x"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn addresses_come_once_and_go_if_they_are_there() {
        let [a, b] = [Addr::v4(1), Addr::v4(2)];
        let key = ServiceKey::Mark { mark: 1, family: Family::V4 };
        let mut addrs = vec![a];
        let edit = |adds, one| LocalEdit { key, addrs: vec![one], adds };
        assert_eq!(edit(true, a).apply(&mut addrs), Err(Errno::EEXIST));
        assert_eq!(edit(false, b).apply(&mut addrs), Err(Errno::ENOENT));
        edit(true, b).apply(&mut addrs).unwrap();
        edit(false, a).apply(&mut addrs).unwrap();
        assert_eq!(addrs, [b]);
    }
}
