//! The files below `/proc/net` in which the kernel's IPVS shows what it has, as text.
//!
//! Numbers and addresses are hexadecimal where the kernel's are.
//!
//! **Source** — the files of Linux 6.1, as recorded in `tests/golden/ipvs/cli`.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::client::{Director, Failure};
use super::ipvsadm::{method_name, protocol_name};
use super::netlink::connection::ConnectionView;
use crate::engine::service::{RealView, ServiceKey, ServiceSpec};
use crate::engine::stats::{Rates, Totals};
use crate::packet::{Addr, Endpoint, Family};

/// What [`content`] has, sorted.
pub const NAMES: [&str; 6] =
    ["ip_vs", "ip_vs_app", "ip_vs_conn", "ip_vs_conn_sync", "ip_vs_stats", "ip_vs_stats_percpu"];

/// The content of a file, asked of a director; `None` if there is none of that name. `totals` are those of the
/// director as a whole.
pub fn content(
    name: &str,
    director: &mut Director,
    (totals, rates): (Totals, Rates),
) -> Result<Option<String>, Failure> {
    Ok(Some(match name {
        "ip_vs" => services(director)?,
        "ip_vs_app" => APPLICATIONS.into(),
        "ip_vs_conn" => connections(director, CONNECTIONS, connection_line)?,
        "ip_vs_conn_sync" => connections(director, CONNECTIONS_SYNC, origin_line)?,
        "ip_vs_stats" => format!("{STATS}{}\n{RATES}{}", totals_line(&totals), rates_line(&rates)),
        "ip_vs_stats_percpu" => {
            let line = totals_line(&totals);
            format!("{WORKER_STATS}  0 {line}  ~ {line}\n{WORKER_RATES}    {}", rates_line(&rates))
        }
        _ => return Ok(None),
    }))
}

fn services(director: &mut Director) -> Result<String, Failure> {
    let info = director.info()?;
    let [_, major, minor, patch] = info.version.to_be_bytes();
    let size = info.table_size;
    let mut text = format!("IP Virtual Server version {major}.{minor}.{patch} (size={size})\n");
    text += SERVICES;
    for service in director.services()? {
        text += &service_line(&service.spec);
        for real in director.reals(&service.spec.key)? {
            text += &real_line(&real);
        }
    }
    Ok(text)
}

fn service_line(spec: &ServiceSpec) -> String {
    let scheduler = &spec.scheduler;
    let ops = if spec.one_packet { "ops " } else { "" };
    let mut line = match spec.key {
        ServiceKey::Mark { mark, .. } => format!("FWM  {mark:08X} {scheduler} {ops}"),
        ServiceKey::Address { protocol, addr, port } => {
            let name = protocol_name(protocol.number());
            let at = end(Endpoint::new(addr, port));
            // What the kernel says of IPv6 services is less.
            match addr.family() {
                Family::V4 => format!("{name}  {at} {scheduler} {ops} "),
                Family::V6 => format!("{name}  {at} {scheduler} "),
            }
        }
    };
    if let Some(timeout_s) = spec.persistence_timeout_s {
        let netmask = match spec.key.family() {
            Family::V4 => spec.netmask,
            // A prefix length, shown as if it were a mask.
            Family::V6 => spec.netmask.swap_bytes(),
        };
        let ticks = u64::from(timeout_s) * TICKS_PER_S;
        put(&mut line, format_args!("persistent {ticks} {netmask:08X}"));
    }
    line + "\n"
}

fn real_line(real: &RealView) -> String {
    let RealView { spec, active, inactive, .. } = real;
    let at = end(Endpoint::new(spec.addr, spec.port));
    let method = method_name(spec.method);
    format!("  -> {at}      {method:<7} {:<6} {active:<10} {inactive:<10}\n", spec.weight)
}

/// An address and a port as in the list of services.
fn end(endpoint: Endpoint) -> String {
    let Endpoint { addr, port } = endpoint;
    match addr.family() {
        Family::V4 => format!("{}:{port:04X}", digits(addr)),
        Family::V6 => format!("[{}]:{port:04X}", digits(addr)),
    }
}

fn digits(addr: Addr) -> String {
    match IpAddr::from(addr) {
        IpAddr::V4(addr) => format!("{:08X}", addr.to_bits()),
        IpAddr::V6(addr) => addr.segments().map(|part| format!("{part:04x}")).join(":"),
    }
}

fn connections(
    director: &mut Director,
    title: &str,
    line: fn(&ConnectionView) -> String,
) -> Result<String, Failure> {
    let mut text = title.to_owned();
    director.connections(&mut |connection| text += &line(&connection))?;
    Ok(text)
}

fn ends(connection: &ConnectionView) -> String {
    let ends = [connection.client, connection.service, connection.real];
    let ends = ends.map(|at| format!("{} {:04X}", digits(at.addr), at.port)).join(" ");
    let protocol = protocol_name(connection.protocol);
    format!("{protocol:<3} {ends} {:<11}", connection.state)
}

fn connection_line(connection: &ConnectionView) -> String {
    let mut line = format!("{} {:>7}", ends(connection), connection.expires_s);
    if let Some((name, data)) = &connection.persistence_engine {
        put(&mut line, format_args!(" {name} {}", String::from_utf8_lossy(data)));
    }
    line + "\n"
}

fn origin_line(connection: &ConnectionView) -> String {
    let origin = if connection.is_heard { "SYNC" } else { "LOCAL" };
    format!("{} {origin:<6} {:>7}\n", ends(connection), connection.expires_s)
}

fn totals_line(totals: &Totals) -> String {
    let Totals { connections, in_packets, out_packets, in_bytes, out_bytes } = totals;
    format!(
        "{connections:>8X} {in_packets:>8X} {out_packets:>8X} {in_bytes:>16X} {out_bytes:>16X}\n"
    )
}

fn rates_line(rates: &Rates) -> String {
    let Rates { cps, in_pps, out_pps, in_bps, out_bps } = rates;
    format!("{cps:>8X} {in_pps:>8X} {out_pps:>8X} {in_bps:>16X} {out_bps:>16X}\n")
}

fn put(text: &mut String, arguments: std::fmt::Arguments) {
    text.write_fmt(arguments).expect("a string takes everything");
}

/// The kernel's ticks, in which it shows how long clients persist. **Source** — User-Mode Linux.
const TICKS_PER_S: u64 = 100;
const SERVICES: &str = "Prot LocalAddress:Port Scheduler Flags\n  \
    -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n";
/// The helper of FTP is always there.
const APPLICATIONS: &str = "prot port    usecnt name\nTCP  21      0      ftp              \n";
const CONNECTIONS: &str =
    "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n";
const CONNECTIONS_SYNC: &str =
    "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Origin Expires\n";
const STATS: &str = "   Total Incoming Outgoing         Incoming         Outgoing\n   \
    Conns  Packets  Packets            Bytes            Bytes\n";
const RATES: &str = " Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n";
const WORKER_STATS: &str = "       Total Incoming Outgoing         Incoming         Outgoing\n\
    CPU    Conns  Packets  Packets            Bytes            Bytes\n";
const WORKER_RATES: &str = "     Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n";
