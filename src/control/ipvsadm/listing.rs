//! What `-L` prints.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use super::names::Names;
use super::parse::{Columns, List, Listed, tunnel_name};
use super::{Ran, Session, sort};
use crate::control::client::Failure;
use crate::control::netlink::connection::ConnectionView;
use crate::control::sync::{SyncDaemon, SyncRole};
use crate::engine::service::{
    ForwardingMethod, Protocol, RealView, SchedulerFlags, ServiceKey, ServiceSpec, ServiceView,
    Timeouts, Tunnel, TunnelChecksum, TunnelKind,
};
use crate::packet::{Endpoint, Family, address_text};

impl Session<'_, '_> {
    /// Lists what was asked for.
    pub(super) fn list(&mut self, list: &List) -> Ran {
        let told = match &list.what {
            _ if list.json => self.list_json(list),
            Listed::Services => self.list_services(list),
            Listed::Service(key) => self.list_service(key, list),
            Listed::Connections => self.list_connections(list),
            Listed::Timeouts => self.list_timeouts(),
            Listed::Daemons => self.list_daemons(),
        };
        match told {
            Ok(Ok(())) => Ok(0),
            Ok(Err(stopped)) => Err(stopped.into()),
            Err(failure) => self.give_up(failure),
        }
    }

    fn list_services(&mut self, list: &List) -> Told {
        let info = self.director.info()?;
        let mut services = self.director.services()?;
        if !list.unsorted {
            sort::services(&mut services);
        }
        let [_, major, minor, patch] = info.version.to_be_bytes();
        let size = info.table_size;
        let mut text = format!("IP Virtual Server version {major}.{minor}.{patch} (size={size})\n");
        text.push_str(&titles(list.columns));
        for service in services {
            self.format_service(&mut text, service, list)?;
            if let Err(stopped) = self.flush(&mut text, MAX_PENDING) {
                return Ok(Err(stopped));
            }
        }
        Ok(self.flush(&mut text, 0))
    }

    fn list_service(&mut self, key: &ServiceKey, list: &List) -> Told {
        let service = self.director.service(key)?;
        let mut text = titles(list.columns);
        self.format_service(&mut text, service, list)?;
        Ok(self.flush(&mut text, 0))
    }

    fn format_service(
        &mut self,
        text: &mut String,
        service: ServiceView,
        list: &List,
    ) -> Result<(), Failure> {
        let mut reals = self.director.reals(&service.spec.key)?;
        if !list.unsorted {
            sort::reals(&mut reals);
        }
        let protocol = protocol(&service.spec.key);
        service_line(text, &service, list, self.names);
        for real in &reals {
            real_line(text, real, protocol, list, self.names);
        }
        Ok(())
    }

    fn list_connections(&mut self, list: &List) -> Told {
        let mut text = String::from("IPVS connection entries\n");
        text.push_str("pro expire state       source             virtual            destination");
        text.push_str(if list.persistent { "        pe name          pe_data\n" } else { "\n" });
        let mut stopped = Ok(());
        let (names, stdout) = (&mut *self.names, &mut *self.console.stdout);
        self.director.connections(&mut |connection| {
            connection_line(&mut text, &connection, list, names);
            if text.len() > MAX_PENDING && stopped.is_ok() {
                stopped = stdout.write_all(text.as_bytes());
                text.clear();
            }
        })?;
        Ok(stopped.and_then(|()| self.flush(&mut text, 0)))
    }

    fn list_timeouts(&mut self) -> Told {
        let Timeouts { tcp_s, tcp_fin_s, udp_s } = self.director.timeouts()?;
        let mut text = format!("Timeout (tcp tcpfin udp): {tcp_s} {tcp_fin_s} {udp_s}\n");
        Ok(self.flush(&mut text, 0))
    }

    fn list_daemons(&mut self) -> Told {
        let mut text = String::new();
        for daemon in self.director.sync_daemons()? {
            let SyncDaemon { interface, id, max_len, group, port, ttl, role } = daemon;
            let role = role_name(role);
            put(&mut text, format_args!("{role} sync daemon (mcast={interface}, syncid={id}, "));
            put(
                &mut text,
                format_args!("maxlen={max_len}, group={group}, port={port}, ttl={ttl})\n"),
            );
        }
        Ok(self.flush(&mut text, 0))
    }

    /// Writes `text` out once it is longer than `limit`.
    pub(super) fn flush(&mut self, text: &mut String, limit: usize) -> io::Result<()> {
        if text.len() > limit {
            self.console.stdout.write_all(text.as_bytes())?;
            text.clear();
        }
        Ok(())
    }
}

/// The outer error is the director's, the inner one the terminal's.
pub(super) type Told = Result<io::Result<()>, Failure>;

fn titles(columns: Columns) -> String {
    let plain = "Prot LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port           Forward";
    let address = "Prot LocalAddress:Port";
    let remote = "  -> RemoteAddress:Port\n";
    let five = |names: [&str; 5]| {
        let mut line = format!("{address:<33}");
        names.into_iter().for_each(|name| put(&mut line, format_args!(" {name:>8}")));
        line + "\n" + remote
    };
    match columns {
        Columns::Usual => format!("{plain} Weight ActiveConn InActConn\n"),
        Columns::TunnelInfo => format!("{plain} TunnelInfo    Weight ActiveConn InActConn\n"),
        Columns::Stats => five(["Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"]),
        Columns::Rate => five(["CPS", "InPPS", "OutPPS", "InBPS", "OutBPS"]),
        Columns::Thresholds => {
            format!("{address:<33} Uthreshold Lthreshold ActiveConn InActConn \n{remote}")
        }
        Columns::PersistentConnections => {
            format!("{address:<33} Weight    PersistConn ActiveConn InActConn \n{remote}")
        }
    }
}

fn service_line(text: &mut String, view: &ServiceView, list: &List, names: &mut dyn Names) {
    let spec = &view.spec;
    let name = match spec.key {
        ServiceKey::Mark { mark, family } => {
            let suffix = if family == Family::V6 { " IPv6" } else { "" };
            format!("FWM  {}{suffix}", mark.cast_signed())
        }
        ServiceKey::Address { protocol, addr, port } => {
            let endpoint = Endpoint::new(addr, port);
            let name = endpoint_name(endpoint, Some(protocol), list.numeric, names);
            format!("{:<4} {}", protocol_name(protocol.number()), shortened(name, endpoint))
        }
    };
    let (t, r) = (&view.totals, &view.rates);
    let cells = match list.columns {
        Columns::Stats => [t.connections, t.in_packets, t.out_packets, t.in_bytes, t.out_bytes],
        Columns::Rate => [r.cps, r.in_pps, r.out_pps, r.in_bps, r.out_bps],
        _ => {
            put(text, format_args!("{name} {}\n", service_flags(spec)));
            return;
        }
    };
    put(text, format_args!("{name:<33}"));
    cells.into_iter().for_each(|value| text.push_str(&cell(value, list.exact)));
    text.push('\n');
}

/// Scheduler and what else there is to say of a service.
fn service_flags(spec: &ServiceSpec) -> String {
    let mut text = spec.scheduler.clone();
    if spec.scheduler_flags != SchedulerFlags::default() {
        put(&mut text, format_args!(" ({})", scheduler_flags(spec)));
    }
    if let Some(timeout) = spec.persistence_timeout_s {
        put(&mut text, format_args!(" persistent {timeout}"));
        if let Some(mask) = netmask(spec) {
            put(&mut text, format_args!(" mask {mask}"));
        }
        if let Some(engine) = &spec.persistence_engine {
            put(&mut text, format_args!(" pe {engine}"));
        }
    }
    if spec.one_packet {
        text.push_str(" ops");
    }
    text
}

/// The scheduler's flags by name. Those that sh and mh do not know have none.
pub(super) fn scheduler_flags(spec: &ServiceSpec) -> String {
    let names = match spec.scheduler.as_str() {
        "sh" => ["sh-fallback", "sh-port", ""],
        "mh" => ["mh-fallback", "mh-port", ""],
        _ => ["flag-1", "flag-2", "flag-3"],
    };
    let SchedulerFlags { fallback, port, third } = spec.scheduler_flags;
    let set = names.into_iter().zip([fallback, port, third]);
    let set = set.filter(|(name, is_set)| *is_set && !name.is_empty());
    set.map(|(name, _)| name).collect::<Vec<_>>().join(",")
}

/// The persistence mask, if it is not that of a single client.
pub(super) fn netmask(spec: &ServiceSpec) -> Option<String> {
    match (spec.key.family(), spec.netmask) {
        (Family::V4, u32::MAX) | (Family::V6, 128) => None,
        (Family::V4, mask) => Some(Ipv4Addr::from_bits(mask).to_string()),
        (Family::V6, prefix) => Some(prefix.to_string()),
    }
}

fn real_line(
    text: &mut String,
    real: &RealView,
    protocol: Option<Protocol>,
    list: &List,
    names: &mut dyn Names,
) {
    let spec = &real.spec;
    let endpoint = Endpoint::new(spec.addr, spec.port);
    let name = shortened(endpoint_name(endpoint, protocol, list.numeric, names), endpoint);
    put(text, format_args!("  -> {name:<28}"));
    let (active, inactive) = (real.active, real.inactive);
    let (t, r) = (&real.totals, &real.rates);
    let method = method_name(spec.method);
    match list.columns {
        Columns::Usual => put(text, format_args!(" {method:<7} {:<6}", spec.weight)),
        Columns::TunnelInfo => {
            let info = tunnel_info(spec.method, spec.tunnel);
            put(text, format_args!(" {method:<7} {info:<13} {:<6}", spec.weight));
        }
        Columns::Thresholds => {
            put(text, format_args!(" {:<10} {:<10}", spec.upper_threshold, spec.lower_threshold));
        }
        Columns::PersistentConnections => {
            put(text, format_args!(" {:<9} {:<11}", spec.weight, real.persistent));
        }
        Columns::Stats => {
            let cells = [t.connections, t.in_packets, t.out_packets, t.in_bytes, t.out_bytes];
            cells.into_iter().for_each(|value| text.push_str(&cell(value, list.exact)));
        }
        Columns::Rate => {
            let exact = [r.cps, r.in_pps, r.out_pps];
            exact.into_iter().for_each(|value| text.push_str(&cell(value, true)));
            let bytes = [r.in_bps, r.out_bps];
            bytes.into_iter().for_each(|value| text.push_str(&cell(value, list.exact)));
        }
    }
    if !matches!(list.columns, Columns::Stats | Columns::Rate) {
        put(text, format_args!(" {active:<10} {inactive:<10}"));
    }
    text.push('\n');
}

/// A number in nine columns, abbreviated if it is large and need not be exact.
fn cell(value: u64, exact: bool) -> String {
    let (divisor, unit) = match value {
        _ if exact => (1, ""),
        0..100_000_000 => (1, ""),
        100_000_000..1_000_000_000 => (1_000, "K"),
        1_000_000_000..100_000_000_000 => (1_000_000, "M"),
        100_000_000_000..100_000_000_000_000 => (1_000_000_000, "G"),
        _ => (1_000_000_000_000, "T"),
    };
    format!(" {:>8}", format!("{}{unit}", value / divisor))
}

fn tunnel_info(method: ForwardingMethod, tunnel: Tunnel) -> String {
    let checksum = match tunnel.checksum {
        TunnelChecksum::Off => "-c",
        TunnelChecksum::On => "+c",
        TunnelChecksum::Remote => "r+c",
    };
    let kind = tunnel_name(tunnel.kind);
    match (method, tunnel.kind) {
        (ForwardingMethod::Tunnel, TunnelKind::IpIp) => kind.into(),
        (ForwardingMethod::Tunnel, TunnelKind::Gue) => format!("{kind}:{}:{checksum}", tunnel.port),
        (ForwardingMethod::Tunnel, TunnelKind::Gre) => format!("{kind}:{checksum}"),
        _ => "n/a".into(),
    }
}

/// The word for a forwarding method.
pub fn method_name(method: ForwardingMethod) -> &'static str {
    match method {
        ForwardingMethod::Masquerade => "Masq",
        ForwardingMethod::Local => "Local",
        ForwardingMethod::Tunnel => "Tunnel",
        ForwardingMethod::Direct => "Route",
        ForwardingMethod::Bypass => "Bypass",
        ForwardingMethod::FullNat => "FullNat",
    }
}

fn connection_line(
    text: &mut String,
    connection: &ConnectionView,
    list: &List,
    names: &mut dyn Names,
) {
    let protocol = Protocol::from_number(connection.protocol);
    let mut name = |endpoint| endpoint_name(endpoint, protocol, list.numeric, names);
    let client = name(connection.client);
    let service = name(connection.service);
    let real = name(connection.real);
    let expires_s = connection.expires_s;
    let expiry = format!("{:02}:{:02}", expires_s / 60, expires_s % 60);
    let what = protocol_name(connection.protocol);
    let state = printable(connection.state.as_bytes());
    put(text, format_args!("{what:<3} {expiry:<6} {state:<11} {client:<18} {service:<18} "));
    match connection.persistence_engine.as_ref().filter(|_| list.persistent) {
        None if connection.local.is_some() => {
            // Beyond ipvsadm, behind all that those who read its columns know.
            let local = connection.local.map(&mut name).unwrap_or_default();
            put(text, format_args!("{real:<18} {local}\n"));
        }
        None => put(text, format_args!("{real}\n")),
        Some((engine, data)) => {
            let (engine, data) = (printable(engine.as_bytes()), printable(data));
            put(text, format_args!("{real:<16} {engine:<18} {data}\n"));
        }
    }
}

/// Data of a persistence engine comes from the network: it must not control a terminal.
fn printable(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

/// ipvsadm's word for the side of a daemon.
pub(super) fn role_name(role: SyncRole) -> &'static str {
    match role {
        SyncRole::Master => "master",
        SyncRole::Backup => "backup",
    }
}

/// The protocol by which the ports of a service have names.
pub(super) fn protocol(key: &ServiceKey) -> Option<Protocol> {
    match key {
        ServiceKey::Address { protocol, .. } => Some(*protocol),
        ServiceKey::Mark { .. } => None,
    }
}

/// The name of a protocol by its number.
pub fn protocol_name(number: u8) -> &'static str {
    match number {
        6 => "TCP",
        17 => "UDP",
        50 => "ESP",
        51 => "AH",
        132 => "SCTP",
        _ => "IP",
    }
}

/// `host:port`, in names where there are any and `numeric` does not forbid them.
pub(super) fn endpoint_name(
    endpoint: Endpoint,
    protocol: Option<Protocol>,
    numeric: bool,
    names: &mut dyn Names,
) -> String {
    if numeric {
        return endpoint.to_string();
    }
    let addr = IpAddr::from(endpoint.addr);
    let host = names.host(addr).unwrap_or_else(|| address_text(addr));
    let service = protocol.and_then(|protocol| names.service(endpoint.port, protocol));
    let port = service.unwrap_or_else(|| endpoint.port.to_string());
    match endpoint.addr.family() {
        Family::V4 => format!("{host}:{port}"),
        Family::V6 => clipped(format!("[{host}]:{port}"), MAX_IPV6_NAME),
    }
}

/// The part of a name that fits its column.
fn shortened(name: String, endpoint: Endpoint) -> String {
    match endpoint.addr.family() {
        Family::V4 => clipped(name, MAX_IPV4_COLUMN),
        Family::V6 => name,
    }
}

fn clipped(mut name: String, most: usize) -> String {
    if let Some((end, _)) = name.char_indices().nth(most) {
        name.truncate(end);
    }
    name
}

pub(super) fn put(text: &mut String, what: std::fmt::Arguments) {
    text.write_fmt(what).expect("a string takes everything");
}

/// **Source** — recorded: names of IPv4 services are cut there in listings, those of IPv6 ones
/// everywhere.
const MAX_IPV4_COLUMN: usize = 28;
const MAX_IPV6_NAME: usize = 58;
/// A listing is written in pieces of about this size.
const MAX_PENDING: usize = 32 * 1024;
