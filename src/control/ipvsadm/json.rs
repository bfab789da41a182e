//! What `-L --json` prints: the listings, for programs. Numbers are exact, addresses numeric.

use std::io;

use serde_json::{Value, json};

use super::listing::{Told, method_name, netmask, protocol_name, role_name, scheduler_flags};
use super::local::client_address_name;
use super::parse::{List, Listed, tunnel_name};
use super::{Session, sort};
use crate::control::SyncDaemon;
use crate::control::client::Failure;
use crate::control::netlink::connection::ConnectionView;
use crate::engine::service::{
    ForwardingMethod, RealView, ServiceKey, ServiceView, Timeouts, TunnelChecksum,
};
use crate::engine::stats::{Rates, Totals};
use crate::packet::{Endpoint, Family};

impl Session<'_, '_> {
    /// Lists what was asked for as one JSON document.
    pub(super) fn list_json(&mut self, list: &List) -> Told {
        let document = match &list.what {
            Listed::Connections => return self.connections_json(),
            Listed::Services => {
                let mut services = self.director.services()?;
                if !list.unsorted {
                    sort::services(&mut services);
                }
                let services = services.into_iter().map(|view| self.service_json(view, list));
                json!({ "services": services.collect::<Result<Vec<_>, _>>()? })
            }
            Listed::Service(key) => {
                let view = self.director.service(key)?;
                json!({ "services": [self.service_json(view, list)?] })
            }
            Listed::Timeouts => {
                let Timeouts { tcp_s, tcp_fin_s, udp_s } = self.director.timeouts()?;
                json!({ "timeouts": { "tcp_s": tcp_s, "tcp_fin_s": tcp_fin_s, "udp_s": udp_s } })
            }
            Listed::Daemons => {
                let daemons = self.director.sync_daemons()?;
                json!({ "daemons": daemons.iter().map(daemon).collect::<Vec<_>>() })
            }
        };
        Ok(writeln!(self.console.stdout, "{document:#}"))
    }

    fn service_json(&mut self, view: ServiceView, list: &List) -> Result<Value, Failure> {
        let mut reals = self.director.reals(&view.spec.key)?;
        if !list.unsorted {
            sort::reals(&mut reals);
        }
        Ok(service(&view, &reals))
    }

    /// Connections are written as they come: there may be millions.
    fn connections_json(&mut self) -> Told {
        let stdout = &mut *self.console.stdout;
        let mut written = write!(stdout, "{{\n  \"connections\": [");
        let mut separator = "\n    ";
        self.director.connections(&mut |view| {
            if written.is_ok() {
                written = write!(stdout, "{separator}{}", connection(&view));
                separator = ",\n    ";
            }
        })?;
        let finish = |stdout: &mut dyn io::Write| writeln!(stdout, "\n  ]\n}}");
        Ok(written.and_then(|()| finish(stdout)))
    }
}

fn service(view: &ServiceView, reals: &[RealView]) -> Value {
    let spec = &view.spec;
    let mut service = match spec.key {
        ServiceKey::Mark { mark, family } => json!({ "fwmark": mark, "family": name(family) }),
        ServiceKey::Address { protocol, addr, port } => json!({
            "protocol": protocol_name(protocol.number()).to_lowercase(),
            "address": addr.to_string(),
            "port": port,
            "family": name(addr.family()),
        }),
    };
    let flags = scheduler_flags(spec);
    let flags: Vec<_> = flags.split(',').filter(|flag| !flag.is_empty()).collect();
    service["scheduler"] = json!(spec.scheduler);
    service["scheduler_flags"] = json!(flags);
    service["persistence_timeout_s"] = json!(spec.persistence_timeout_s);
    service["netmask"] = json!(netmask(spec));
    service["persistence_engine"] = json!(spec.persistence_engine);
    service["one_packet"] = json!(spec.one_packet);
    let locals = spec.local_addresses.iter().map(ToString::to_string);
    service["local_addresses"] = locals.collect();
    service["totals"] = totals(&view.totals);
    service["rates"] = rates(&view.rates);
    service["servers"] = reals.iter().map(real).collect();
    service
}

fn real(view: &RealView) -> Value {
    let spec = &view.spec;
    let tunnel = (spec.method == ForwardingMethod::Tunnel).then(|| {
        let checksum = match spec.tunnel.checksum {
            TunnelChecksum::Off => "none",
            TunnelChecksum::On => "full",
            TunnelChecksum::Remote => "remote",
        };
        json!({
            "type": tunnel_name(spec.tunnel.kind),
            "port": spec.tunnel.port,
            "checksum": checksum,
        })
    });
    json!({
        "address": spec.addr.to_string(),
        "port": spec.port,
        "forwarding_method": method_name(spec.method).to_lowercase(),
        "client_address": client_address_name(spec.client_address),
        "weight": spec.weight,
        "upper_threshold": spec.upper_threshold,
        "lower_threshold": spec.lower_threshold,
        "tunnel": tunnel,
        "active_connections": view.active,
        "inactive_connections": view.inactive,
        "persistent_connections": view.persistent,
        "totals": totals(&view.totals),
        "rates": rates(&view.rates),
    })
}

fn connection(view: &ConnectionView) -> Value {
    let endpoint = |at: &Endpoint| json!({ "address": at.addr.to_string(), "port": at.port });
    let engine = view
        .persistence_engine
        .as_ref()
        .map(|(name, data)| json!({ "name": name, "data": String::from_utf8_lossy(data) }));
    json!({
        "protocol": protocol_name(view.protocol).to_lowercase(),
        "client": endpoint(&view.client),
        "service": endpoint(&view.service),
        "server": endpoint(&view.real),
        "local": view.local.as_ref().map(endpoint),
        "state": view.state,
        "expires_s": view.expires_s,
        "template": view.is_template,
        "persistence_engine": engine,
    })
}

fn daemon(daemon: &SyncDaemon) -> Value {
    json!({
        "role": role_name(daemon.role),
        "interface": daemon.interface,
        "sync_id": daemon.id,
        "max_len": daemon.max_len,
        "group": daemon.group,
        "port": daemon.port,
        "ttl": daemon.ttl,
    })
}

fn totals(totals: &Totals) -> Value {
    json!({
        "connections": totals.connections,
        "in_packets": totals.in_packets,
        "out_packets": totals.out_packets,
        "in_bytes": totals.in_bytes,
        "out_bytes": totals.out_bytes,
    })
}

fn rates(rates: &Rates) -> Value {
    json!({
        "connections_per_s": rates.cps,
        "in_packets_per_s": rates.in_pps,
        "out_packets_per_s": rates.out_pps,
        "in_bytes_per_s": rates.in_bps,
        "out_bytes_per_s": rates.out_bps,
    })
}

fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}
