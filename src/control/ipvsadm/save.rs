//! What `-S` prints: a table as commands.

use super::listing::{Told, endpoint_name, netmask, protocol, put, scheduler_flags};
use super::parse::tunnel_name;
use super::{Ran, Session, sort};
use crate::engine::service::{
    ForwardingMethod, Protocol, RealSpec, SchedulerFlags, ServiceKey, ServiceSpec, Tunnel,
    TunnelChecksum, TunnelKind,
};
use crate::packet::{Endpoint, Family};

impl Session<'_, '_> {
    /// Saves all services, without thresholds, as ipvsadm does.
    pub(super) fn save(&mut self, numeric: bool) -> Ran {
        match self.save_services(numeric) {
            Ok(Ok(())) => Ok(0),
            Ok(Err(stopped)) => Err(stopped.into()),
            Err(failure) => self.give_up(failure),
        }
    }

    fn save_services(&mut self, numeric: bool) -> Told {
        let mut services = self.director.services()?;
        sort::services(&mut services);
        let mut text = String::new();
        for service in services {
            let key = service.spec.key;
            let mut reals = self.director.reals(&key)?;
            sort::reals(&mut reals);
            let name = self.service_option(&key, numeric);
            put(&mut text, format_args!("-A {name} {}\n", service_options(&service.spec)));
            for real in reals {
                let endpoint = Endpoint::new(real.spec.addr, real.spec.port);
                let server = endpoint_name(endpoint, protocol(&key), numeric, self.names);
                let options = real_options(&real.spec);
                put(&mut text, format_args!("-a {name} -r {server} {options}\n"));
            }
            if let Err(stopped) = self.flush(&mut text, 0) {
                return Ok(Err(stopped));
            }
        }
        Ok(Ok(()))
    }

    /// The option that names a service.
    fn service_option(&mut self, key: &ServiceKey, numeric: bool) -> String {
        match *key {
            ServiceKey::Mark { mark, family } => {
                let suffix = if family == Family::V6 { " -6" } else { "" };
                format!("-f {}{suffix}", mark.cast_signed())
            }
            ServiceKey::Address { protocol, addr, port } => {
                let option = match protocol {
                    Protocol::Tcp => "-t",
                    Protocol::Udp => "-u",
                    Protocol::Sctp => "--sctp-service",
                };
                let endpoint = Endpoint::new(addr, port);
                format!("{option} {}", endpoint_name(endpoint, Some(protocol), numeric, self.names))
            }
        }
    }
}

fn service_options(spec: &ServiceSpec) -> String {
    let mut text = format!("-s {}", spec.scheduler);
    if let Some(timeout) = spec.persistence_timeout_s {
        put(&mut text, format_args!(" -p {timeout}"));
        if let Some(mask) = netmask(spec) {
            put(&mut text, format_args!(" -M {mask}"));
        }
    }
    if let Some(engine) = &spec.persistence_engine {
        put(&mut text, format_args!(" --pe {engine}"));
    }
    if spec.one_packet {
        text.push_str(" -o");
    }
    if spec.scheduler_flags != SchedulerFlags::default() {
        put(&mut text, format_args!(" -b {}", scheduler_flags(spec)));
    }
    text
}

fn real_options(spec: &RealSpec) -> String {
    let method = match spec.method {
        ForwardingMethod::Masquerade => "-m",
        ForwardingMethod::Tunnel => "-i",
        _ => "-g",
    };
    let mut text = format!("{method} -w {}", spec.weight);
    if spec.method == ForwardingMethod::Tunnel {
        text.push_str(&tunnel_options(spec.tunnel));
    }
    text
}

fn tunnel_options(tunnel: Tunnel) -> String {
    let kind = tunnel_name(tunnel.kind);
    let checksum = match tunnel.checksum {
        TunnelChecksum::Off => "--tun-nocsum",
        TunnelChecksum::On => "--tun-csum",
        TunnelChecksum::Remote => "--tun-remcsum",
    };
    match tunnel.kind {
        TunnelKind::IpIp => format!(" --tun-type {kind}"),
        TunnelKind::Gue => format!(" --tun-type {kind} --tun-port {} {checksum}", tunnel.port),
        TunnelKind::Gre => format!(" --tun-type {kind} {checksum}"),
    }
}
