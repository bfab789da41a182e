//! What `-S` prints: a table as commands.

use super::listing::{Told, endpoint_name, netmask, protocol, put, role_name, scheduler_flags};
use super::local::client_address_name;
use super::parse::{Form, tunnel_name};
use super::{Ran, Session, sort};
use crate::control::SyncDaemon;
use crate::control::client::Failure;
use crate::engine::service::{
    ClientAddress, ForwardingMethod, Protocol, RealSpec, RealView, SchedulerFlags, ServiceKey,
    ServiceSpec, Timeouts, Tunnel, TunnelChecksum, TunnelKind,
};
use crate::packet::{Endpoint, Family};

impl Session<'_, '_> {
    /// Saves all services. Only the full form has thresholds, flags without a name, timeouts,
    /// daemons, settings and rules; but for these two all of it can be restored by ipvsadm too.
    pub(super) fn save(&mut self, form: Form) -> Ran {
        match self.save_all(form) {
            Ok(Ok(())) => Ok(0),
            Ok(Err(stopped)) => Err(stopped.into()),
            Err(failure) => self.give_up(failure),
        }
    }

    fn save_all(&mut self, form: Form) -> Told {
        let mut text = String::new();
        if form == Form::Full {
            let Timeouts { tcp_s, tcp_fin_s, udp_s } = self.director.timeouts()?;
            put(&mut text, format_args!("--set {tcp_s} {tcp_fin_s} {udp_s}\n"));
            self.save_beyond(&mut text)?;
        }
        let mut services = self.director.services()?;
        sort::services(&mut services);
        for service in services {
            self.save_service(&mut text, &service.spec, form)?;
            if let Err(stopped) = self.flush(&mut text, 0) {
                return Ok(Err(stopped));
            }
        }
        if form == Form::Full {
            let daemons = self.director.sync_daemons()?;
            daemons.iter().for_each(|daemon| text.push_str(&daemon_line(daemon)));
        }
        Ok(self.flush(&mut text, 0))
    }

    fn save_service(
        &mut self,
        text: &mut String,
        spec: &ServiceSpec,
        form: Form,
    ) -> Result<(), Failure> {
        let key = spec.key;
        let mut reals = self.director.reals(&key)?;
        match form {
            // Schedulers depend on the order in which servers were added; the last one is dumped first.
            Form::Full => reals.reverse(),
            _ => sort::reals(&mut reals),
        }
        let name = self.service_option(&key, form);
        put(text, format_args!("-A {name} {}\n", service_options(spec, form)));
        for RealView { spec, .. } in reals {
            let endpoint = Endpoint::new(spec.addr, spec.port);
            let server = endpoint_name(endpoint, protocol(&key), form != Form::Names, self.names);
            let options = real_options(&spec, form);
            put(text, format_args!("-a {name} -r {server} {options}\n"));
        }
        Ok(())
    }

    /// The option that names a service.
    fn service_option(&mut self, key: &ServiceKey, form: Form) -> String {
        match *key {
            ServiceKey::Mark { mark, family } => {
                let suffix = if family == Family::V6 { " -6" } else { "" };
                match form {
                    // ipvsadm does not take its own negative marks back.
                    Form::Full => format!("-f {mark}{suffix}"),
                    _ => format!("-f {}{suffix}", mark.cast_signed()),
                }
            }
            ServiceKey::Address { protocol, addr, port } => {
                let option = match protocol {
                    Protocol::Tcp => "-t",
                    Protocol::Udp => "-u",
                    Protocol::Sctp => "--sctp-service",
                };
                let endpoint = Endpoint::new(addr, port);
                format!(
                    "{option} {}",
                    endpoint_name(endpoint, Some(protocol), form != Form::Names, self.names)
                )
            }
        }
    }
}

fn service_options(spec: &ServiceSpec, form: Form) -> String {
    let mut text = format!("-s {}", spec.scheduler);
    if let Some(timeout) = spec.persistence_timeout_s {
        put(&mut text, format_args!(" -p {timeout}"));
    }
    if let Some(mask) = netmask(spec)
        && (form == Form::Full || spec.persistence_timeout_s.is_some())
    {
        put(&mut text, format_args!(" -M {mask}"));
    }
    if let Some(engine) = &spec.persistence_engine {
        put(&mut text, format_args!(" --pe {engine}"));
    }
    if spec.one_packet {
        text.push_str(" -o");
    }
    if spec.scheduler_flags != SchedulerFlags::default() {
        let flags = match form {
            Form::Full => numbered_flags(spec.scheduler_flags),
            _ => scheduler_flags(spec),
        };
        put(&mut text, format_args!(" -b {flags}"));
    }
    if !spec.local_addresses.is_empty() {
        let addrs: Vec<_> = spec.local_addresses.iter().map(ToString::to_string).collect();
        put(&mut text, format_args!(" --local-address {}", addrs.join(",")));
    }
    text
}

/// The flags by their numbers, under which every scheduler takes them.
fn numbered_flags(flags: SchedulerFlags) -> String {
    let set = (1..).zip([flags.fallback, flags.port, flags.third]);
    let names = set.filter(|(_, is_set)| *is_set).map(|(number, _)| format!("flag-{number}"));
    names.collect::<Vec<_>>().join(",")
}

fn real_options(spec: &RealSpec, form: Form) -> String {
    let method = match spec.method {
        ForwardingMethod::Masquerade => "-m",
        ForwardingMethod::Tunnel => "-i",
        ForwardingMethod::FullNat => "--fullnat",
        _ => "-g",
    };
    let mut text = format!("{method} -w {}", spec.weight);
    if spec.method == ForwardingMethod::Tunnel {
        text.push_str(&tunnel_options(spec.tunnel));
    }
    if spec.client_address != ClientAddress::Untold {
        put(
            &mut text,
            format_args!(" --client-address {}", client_address_name(spec.client_address)),
        );
    }
    if form == Form::Full && spec.upper_threshold != 0 {
        put(&mut text, format_args!(" -x {} -y {}", spec.upper_threshold, spec.lower_threshold));
    }
    text
}

fn daemon_line(daemon: &SyncDaemon) -> String {
    let SyncDaemon { role, interface, id, max_len, group, port, ttl } = daemon;
    let role = role_name(*role);
    format!(
        "--start-daemon {role} --mcast-interface {interface} --syncid {id} --sync-maxlen {max_len} \
         --mcast-group {group} --mcast-port {port} --mcast-ttl {ttl}\n"
    )
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
