//! From a line that was read to a command: whether its options go together, and what they make.

use super::{
    Columns, Command, DEFAULT_SCHEDULER, Form, Line, List, Listed, Parsed, Service, bad, timeout,
    tunnel_name,
};
use crate::control::ipvsadm::local::LocalEdit;
use crate::control::ipvsadm::options::{CHECK_ORDER, Forwarding, Rule, Setting, Verb, rule};
use crate::control::{SyncRequest, SyncRole};
use crate::engine::service::{
    ClientAddress, ForwardingMethod, Protocol, RealSpec, SchedulerFlags, ServiceKey, ServiceSpec,
    Timeouts, Tunnel, TunnelChecksum, TunnelKind,
};
use crate::packet::Addr;

impl Line {
    pub(super) fn finish(self, verb: Verb, leftovers: &[&str]) -> Parsed<Command> {
        let (timeouts, unexpected) = match verb {
            Verb::Set => timeouts(leftovers)?,
            _ => (Timeouts { tcp_s: 0, tcp_fin_s: 0, udp_s: 0 }, leftovers),
        };
        if let Some(word) = unexpected.first() {
            return Err(bad(format!("unexpected argument {word}")));
        }
        let flags = self.scheduler_flags()?;
        self.check(verb)?;
        Ok(match verb {
            Verb::AddService => Command::AddService(self.service_spec(flags)?),
            Verb::EditService => Command::EditService(self.service_spec(flags)?),
            Verb::DeleteService => Command::DeleteService(self.key()),
            Verb::AddServer => Command::AddServer(self.key(), self.real_spec(verb)?),
            Verb::EditServer => Command::EditServer(self.key(), self.real_spec(verb)?),
            Verb::DeleteServer => Command::DeleteServer(self.key(), self.real_spec(verb)?),
            Verb::Clear => Command::Clear,
            Verb::Restore => Command::Restore,
            Verb::Save if self.has(Setting::Full) => Command::Save(Form::Full),
            Verb::Save if self.has(Setting::Numeric) => Command::Save(Form::Numbers),
            Verb::Save => Command::Save(Form::Names),
            Verb::Zero => Command::Zero(self.service.map(|_| self.key())),
            Verb::List => Command::List(self.list()?),
            Verb::AddLocal | Verb::DeleteLocal => {
                let adds = verb == Verb::AddLocal;
                Command::EditLocal(LocalEdit { key: self.key(), addrs: self.local_addresses, adds })
            }
            Verb::ListLocal => Command::ListLocal(self.service.map(|_| self.key())),
            Verb::Set => Command::SetTimeouts(timeouts),
            Verb::StartDaemon => Command::StartDaemon(self.sync_request()),
            Verb::StopDaemon => Command::StopDaemon(self.sync_role(), self.sync_id),
            Verb::Help => Command::Help,
            Verb::Version => Command::Version,
        })
    }

    /// Checks that the options are those of the command.
    fn check(&self, verb: Verb) -> Parsed<()> {
        let what = format!("'{}' command", verb.name());
        let rules = CHECK_ORDER.map(|setting| (setting, rule(verb, setting)));
        self.check_rules(&rules, &what)
    }

    fn check_rules(&self, rules: &[(Setting, Rule)], what: &str) -> Parsed<()> {
        let mut chosen: Option<Setting> = None;
        for (setting, rule) in rules {
            let name = setting.name();
            match (rule, self.has(*setting)) {
                (Rule::Required, false) => {
                    return Err(bad(format!(
                        "You need to supply the '{name}' option for the {what}"
                    )));
                }
                (Rule::Illegal, true) => {
                    return Err(bad(format!("Illegal '{name}' option with the {what}")));
                }
                (Rule::Exclusive, true) => {
                    if let Some(other) = chosen.replace(*setting) {
                        let other = other.name();
                        return Err(bad(format!(
                            "The option '{name}' conflicts with the '{other}' option in the {what}"
                        )));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The service's identity, which `check` has made sure of.
    fn key(&self) -> ServiceKey {
        match self.service.expect("the command requires a service") {
            Service::Mark(mark) => ServiceKey::Mark { mark, family: self.family },
            Service::Address(protocol, addr, port) => ServiceKey::Address { protocol, addr, port },
        }
    }

    fn service_spec(self, scheduler_flags: SchedulerFlags) -> Parsed<ServiceSpec> {
        let key = self.key();
        let one_packet = self.has(Setting::OnePacket);
        if let ServiceKey::Address { protocol, port, .. } = key {
            if port == 0 && self.persistent.is_none() {
                return Err(bad("Zero port specified for non-persistent service".into()));
            }
            if one_packet && protocol != Protocol::Udp {
                let text = "One-Packet Scheduling is only for UDP virtual services";
                return Err(bad(text.into()));
            }
        }
        Ok(ServiceSpec {
            scheduler: self.scheduler.unwrap_or_else(|| DEFAULT_SCHEDULER.into()),
            scheduler_flags,
            persistence_timeout_s: self.persistent,
            netmask: self.netmask,
            one_packet,
            persistence_engine: self.engine,
            local_addresses: self.local_addresses.into(),
            ..ServiceSpec::new(key)
        })
    }

    fn scheduler_flags(&self) -> Parsed<SchedulerFlags> {
        let scheduler = self.scheduler.as_deref().unwrap_or(DEFAULT_SCHEDULER);
        let mut flags = SchedulerFlags::default();
        for name in self.flags.split(',').filter(|name| !name.is_empty()) {
            let (owner, flag) = match name {
                "flag-1" => (None, &mut flags.fallback),
                "flag-2" => (None, &mut flags.port),
                "flag-3" => (None, &mut flags.third),
                "sh-fallback" => (Some("sh"), &mut flags.fallback),
                "sh-port" => (Some("sh"), &mut flags.port),
                "mh-fallback" => (Some("mh"), &mut flags.fallback),
                "mh-port" => (Some("mh"), &mut flags.port),
                _ => return Err(bad(format!("invalid scheduler flag `{name}'"))),
            };
            if owner.is_some_and(|owner| owner != scheduler) {
                return Err(bad(format!("incompatible scheduler flag `{name}'")));
            }
            *flag = true;
        }
        Ok(flags)
    }

    fn real_spec(&self, verb: Verb) -> Parsed<RealSpec> {
        let (addr, mut port) = self.real.expect("the command requires a real server");
        let method = self.method();
        if verb != Verb::DeleteServer {
            self.check_method(addr, method)?;
            // Only NAT can change the port.
            if let Some(Service::Address(_, _, service_port)) = self.service
                && !matches!(method, ForwardingMethod::Masquerade | ForwardingMethod::FullNat)
            {
                port = service_port;
            }
        }
        let checksum = if self.has(Setting::TunnelRemoteChecksum) {
            TunnelChecksum::Remote
        } else if self.has(Setting::TunnelChecksum) {
            TunnelChecksum::On
        } else {
            TunnelChecksum::Off
        };
        Ok(RealSpec {
            method,
            weight: self.weight,
            upper_threshold: self.upper,
            lower_threshold: self.lower,
            tunnel: Tunnel { kind: self.tunnel, port: self.tunnel_port, checksum },
            client_address: self.client_address,
            ..RealSpec::new(addr, port)
        })
    }

    fn method(&self) -> ForwardingMethod {
        let chosen = self.settings.iter().find_map(|setting| match setting {
            Setting::Forwarding(forwarding) => Some(*forwarding),
            _ => None,
        });
        match chosen {
            None | Some(Forwarding::Direct) => ForwardingMethod::Direct,
            Some(Forwarding::Tunnel) => ForwardingMethod::Tunnel,
            Some(Forwarding::Masquerade) => ForwardingMethod::Masquerade,
            Some(Forwarding::FullNat) => ForwardingMethod::FullNat,
        }
    }

    fn check_method(&self, addr: Addr, method: ForwardingMethod) -> Parsed<()> {
        if self.client_address != ClientAddress::Untold {
            self.check_telling(method)?;
        }
        if method == ForwardingMethod::Tunnel {
            let name = tunnel_name(self.tunnel);
            return self.check_rules(&tunnel_rules(self.tunnel), &format!("'{name}' tunnel type"));
        }
        if addr.family() != self.family {
            let text = "Different address family is allowed only for tunneling servers";
            return Err(bad(text.into()));
        }
        let tunnel_options = tunnel_rules(self.tunnel).map(|(setting, _)| setting);
        if self.has(Setting::TunnelType) || tunnel_options.iter().any(|one| self.has(*one)) {
            return Err(bad("Tunnel options conflict with forward method".into()));
        }
        Ok(())
    }

    fn check_telling(&self, method: ForwardingMethod) -> Parsed<()> {
        let is_udp = matches!(self.service, Some(Service::Address(Protocol::Udp, ..)));
        if method != ForwardingMethod::FullNat {
            return Err(bad("The client-address option is only for --fullnat servers".into()));
        }
        if is_udp && self.client_address == ClientAddress::Toa {
            return Err(bad("TOA is a TCP option, not for UDP virtual services".into()));
        }
        Ok(())
    }

    fn list(&self) -> Parsed<List> {
        let has = |setting| self.has(setting);
        let counters = has(Setting::Stats) || has(Setting::Rate) || has(Setting::Thresholds);
        let is_table = !has(Setting::Timeout) && !has(Setting::Daemon);
        let persistent = has(Setting::PersistentConnections);
        if (has(Setting::Connection) && counters) || (!is_table && (counters || persistent)) {
            return Err(bad("options conflicts in the list command".into()));
        }
        let what = if has(Setting::Connection) {
            Listed::Connections
        } else if has(Setting::Timeout) {
            Listed::Timeouts
        } else if has(Setting::Daemon) {
            Listed::Daemons
        } else if self.service.is_some() {
            Listed::Service(self.key())
        } else {
            Listed::Services
        };
        let columns = [
            (Setting::Stats, Columns::Stats),
            (Setting::Rate, Columns::Rate),
            (Setting::Thresholds, Columns::Thresholds),
            (Setting::PersistentConnections, Columns::PersistentConnections),
            (Setting::TunnelInfo, Columns::TunnelInfo),
        ];
        let chosen = columns.into_iter().find(|(setting, _)| has(*setting));
        Ok(List {
            what,
            columns: chosen.map_or(Columns::Usual, |(_, columns)| columns),
            numeric: has(Setting::Numeric),
            exact: has(Setting::Exact),
            unsorted: has(Setting::NoSort),
            persistent,
            json: has(Setting::Json),
        })
    }

    fn sync_request(self) -> SyncRequest {
        SyncRequest {
            role: self.sync_role(),
            interface: self.interface,
            id: self.sync_id,
            max_len: self.max_len,
            group: self.group,
            port: self.port,
            ttl: self.ttl,
        }
    }

    fn sync_role(&self) -> SyncRole {
        self.role.expect("the command requires a role")
    }
}

/// The three timeouts of `--set`, and the words that follow them.
fn timeouts<'a, 'b>(words: &'a [&'b str]) -> Parsed<(Timeouts, &'a [&'b str])> {
    let [tcp, tcp_fin, udp, rest @ ..] = words else {
        return Err(bad("--set option requires 3 timeout values".into()));
    };
    let tcp_s = timeout(tcp, 0)?;
    let tcp_fin_s = timeout(tcp_fin, 0)?;
    Ok((Timeouts { tcp_s, tcp_fin_s, udp_s: timeout(udp, 0)? }, rest))
}

/// What a tunnel type thinks of the tunnel options.
fn tunnel_rules(kind: TunnelKind) -> [(Setting, Rule); 4] {
    use Rule::{Exclusive, Illegal, Required};
    let rules = match kind {
        TunnelKind::IpIp => [Illegal, Illegal, Illegal, Illegal],
        TunnelKind::Gue => [Required, Exclusive, Exclusive, Exclusive],
        TunnelKind::Gre => [Illegal, Exclusive, Exclusive, Illegal],
    };
    let settings = [
        Setting::TunnelPort,
        Setting::TunnelNoChecksum,
        Setting::TunnelChecksum,
        Setting::TunnelRemoteChecksum,
    ];
    std::array::from_fn(|index| (settings[index], rules[index]))
}
