//! From words to a command, with ipvsadm's own checks in ipvsadm's own order.

mod finish;

use std::net::IpAddr;

use super::address::{endpoint, inet_aton, leading_number, number};
use super::local::{self, LocalEdit};
use super::names::Names;
use super::options::{KNOWN, Meaning, ServiceKind, Setting, Verb};
use super::popt::Parser;
use crate::control::netlink::ipvs::MAX_NAME;
use crate::control::{SyncRequest, SyncRole};
use crate::engine::service::{
    ClientAddress, Protocol, RealSpec, ServiceKey, ServiceSpec, Timeouts, TunnelKind,
};
use crate::packet::{Addr, Family};

/// A command that makes sense as far as can be told without asking the director.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    AddService(ServiceSpec),
    EditService(ServiceSpec),
    DeleteService(ServiceKey),
    Clear,
    Restore,
    Save(Form),
    AddServer(ServiceKey, RealSpec),
    EditServer(ServiceKey, RealSpec),
    DeleteServer(ServiceKey, RealSpec),
    List(List),
    EditLocal(LocalEdit),
    ListLocal(Option<ServiceKey>),
    Zero(Option<ServiceKey>),
    SetTimeouts(Timeouts),
    StartDaemon(SyncRequest),
    StopDaemon(SyncRole, u8),
    Help,
    Version,
}

/// The form in which a table is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// ipvsadm's, with names of hosts and services.
    Names,
    /// ipvsadm's, in numbers.
    Numbers,
    /// In numbers, and nothing is left out.
    Full,
}

/// What to list, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// What.
    pub what: Listed,
    /// Which columns.
    pub columns: Columns,
    /// Whether addresses and ports stay numbers.
    pub numeric: bool,
    /// Whether large numbers stay exact.
    pub exact: bool,
    /// Whether entries stay in the director's order.
    pub unsorted: bool,
    /// Whether connections are shown with the data of their persistence engine.
    pub persistent: bool,
    /// Whether the list is for programs.
    pub json: bool,
}

/// What to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Listed {
    #[default]
    Services,
    Service(ServiceKey),
    Connections,
    Timeouts,
    Daemons,
}

/// Which columns a listing of services has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Columns {
    #[default]
    Usual,
    Stats,
    Rate,
    Thresholds,
    PersistentConnections,
    TunnelInfo,
}

/// Why a line is no command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Illegal {
    /// What ipvsadm says on standard error, with its line end.
    pub message: String,
    /// ipvsadm's exit status.
    pub status: i32,
    /// Whether ipvsadm's `-R` gives up over it.
    pub is_fatal: bool,
}

type Parsed<T> = Result<T, Illegal>;

/// Reads a command from `words`, which do not include the program's name. `names` looks names up.
pub fn parse(words: &[String], names: &mut dyn Names) -> Parsed<Command> {
    if words.is_empty() {
        return Ok(Command::List(List::default()));
    }
    let mut parser = Parser::new(KNOWN, words);
    let Ok(Some((Meaning::Command(verb), role))) = parser.next() else { return Err(try_help()) };
    match verb {
        Verb::Help => return Ok(Command::Help),
        Verb::Version => return Ok(Command::Version),
        _ => {}
    }
    let mut line =
        Line { role: role.map(|role| daemon_role(verb, role)).transpose()?, ..Line::new() };
    loop {
        match parser.next() {
            Ok(None) => break,
            Ok(Some((Meaning::Command(_), _))) => {
                return Err(bad(format!("invalid option `{}'", parser.last_word())));
            }
            Ok(Some((Meaning::Sort, _))) => {}
            Ok(Some((Meaning::Ipv6, _))) => line.take_ipv6()?,
            Ok(Some((Meaning::Option(setting), value))) => {
                line.take(setting, value.unwrap_or_default(), value.is_some(), names)?;
            }
            Err(misuse) => {
                let message = format!("{}: {}\n", parser.last_word(), misuse.text());
                return Err(Illegal { message, status: 255, is_fatal: false });
            }
        }
    }
    line.finish(verb, parser.leftovers())
}

/// What was read of a line so far.
struct Line {
    settings: Vec<Setting>,
    role: Option<SyncRole>,
    service: Option<Service>,
    family: Family,
    netmask: u32,
    scheduler: Option<String>,
    flags: String,
    persistent: Option<u32>,
    engine: Option<String>,
    real: Option<(Addr, u16)>,
    weight: i32,
    upper: u32,
    lower: u32,
    tunnel: TunnelKind,
    tunnel_port: u16,
    local_addresses: Vec<Addr>,
    client_address: ClientAddress,
    interface: String,
    sync_id: u8,
    group: Option<IpAddr>,
    port: Option<u16>,
    ttl: Option<u8>,
    max_len: Option<u16>,
}

#[derive(Clone, Copy)]
enum Service {
    Address(Protocol, Addr, u16),
    Mark(u32),
}

impl Line {
    fn new() -> Self {
        Self {
            settings: Vec::new(),
            role: None,
            service: None,
            family: Family::V4,
            netmask: u32::MAX,
            scheduler: None,
            flags: String::new(),
            persistent: None,
            engine: None,
            real: None,
            weight: 1,
            upper: 0,
            lower: 0,
            tunnel: TunnelKind::IpIp,
            tunnel_port: 0,
            local_addresses: Vec::new(),
            client_address: ClientAddress::Untold,
            interface: String::new(),
            sync_id: 0,
            group: None,
            port: None,
            ttl: None,
            max_len: None,
        }
    }

    fn has(&self, setting: Setting) -> bool {
        self.settings.iter().any(|set| set.is_same_option(setting))
    }

    fn take_ipv6(&mut self) -> Parsed<()> {
        if !matches!(self.service, Some(Service::Mark(_))) {
            return Err(bad("-6 used before -f\n".into()));
        }
        self.become_ipv6();
        Ok(())
    }

    fn become_ipv6(&mut self) {
        self.family = Family::V6;
        self.netmask = 128;
    }

    fn take(
        &mut self,
        setting: Setting,
        value: &str,
        is_given: bool,
        names: &mut dyn Names,
    ) -> Parsed<()> {
        if self.has(setting) {
            return Err(bad(format!("multiple '{}' options specified", setting.name())));
        }
        self.settings.push(setting);
        match setting {
            Setting::Service(kind) => self.take_service(kind, value, names)?,
            Setting::Server => self.take_server(value, names)?,
            Setting::Scheduler => self.scheduler = Some(clipped(value)),
            Setting::Persistent => {
                let timeout = if is_given { timeout(value, 1)? } else { DEFAULT_PERSISTENCE_S };
                self.persistent = Some(timeout);
            }
            Setting::Netmask => self.netmask = self.read_netmask(value)?,
            Setting::Engine => self.engine = Some(clipped(value)),
            Setting::SchedulerFlags => self.flags = value.into(),
            Setting::Weight => {
                self.weight = ranged(value, 0, i32::MAX as u64, "illegal weight specified")?;
            }
            Setting::UpperThreshold => {
                self.upper = ranged(value, 0, i32::MAX as u64, "illegal u_threshold specified")?;
            }
            Setting::LowerThreshold => {
                self.lower = ranged(value, 0, i32::MAX as u64, "illegal l_threshold specified")?;
            }
            Setting::TunnelType => self.tunnel = tunnel_kind(value)?,
            Setting::TunnelPort => {
                self.tunnel_port = ranged(value, 1, 65535, "illegal tunnel port specified")?;
            }
            Setting::LocalAddress => {
                let illegal = || bad("illegal local address specified".into());
                self.local_addresses = local::addresses(value).ok_or_else(illegal)?;
            }
            Setting::ClientAddress => {
                let illegal = || bad("illegal client-address specified".into());
                self.client_address = local::client_address(value).ok_or_else(illegal)?;
            }
            _ => self.take_daemon_setting(setting, value)?,
        }
        Ok(())
    }

    fn take_daemon_setting(&mut self, setting: Setting, value: &str) -> Parsed<()> {
        match setting {
            Setting::Interface => self.interface = clipped(value),
            Setting::SyncId => self.sync_id = ranged(value, 0, 255, "illegal syncid specified")?,
            Setting::Group => self.group = Some(multicast_group(value)?),
            Setting::Port => {
                self.port = Some(ranged(value, 1, 65535, "illegal mcast-port specified")?);
            }
            Setting::Ttl => self.ttl = Some(ranged(value, 1, 255, "illegal mcast-ttl specified")?),
            Setting::MaxLen => {
                let most = 65535 - 20 - 8;
                self.max_len = Some(ranged(value, 1, most, "illegal sync-maxlen specified")?);
            }
            // The others have no value.
            _ => {}
        }
        Ok(())
    }

    fn take_service(
        &mut self,
        kind: ServiceKind,
        value: &str,
        names: &mut dyn Names,
    ) -> Parsed<()> {
        let protocol = match kind {
            ServiceKind::Tcp => Protocol::Tcp,
            ServiceKind::Udp => Protocol::Udp,
            ServiceKind::Sctp => Protocol::Sctp,
            ServiceKind::Mark => {
                let illegal = || bad(format!("invalid fwmark value `{value}' specified"));
                let mark = number(value, 1, u64::from(u32::MAX)).ok_or_else(illegal)?;
                self.service = Some(Service::Mark(mark as u32));
                return Ok(());
            }
        };
        let illegal = || bad("illegal virtual server address[:port] specified".into());
        let (addr, port) = endpoint(value, Some(protocol), names).ok_or_else(illegal)?;
        if addr.family() == Family::V6 {
            self.become_ipv6();
        }
        self.service = Some(Service::Address(protocol, addr, port.unwrap_or(0)));
        Ok(())
    }

    fn take_server(&mut self, value: &str, names: &mut dyn Names) -> Parsed<()> {
        let (protocol, default_port) = match self.service {
            None => (None, 0),
            Some(Service::Mark(_)) => (Some(Protocol::Tcp), 0),
            Some(Service::Address(protocol, _, port)) => (Some(protocol), port),
        };
        let illegal = || bad("illegal real server address[:port] specified".into());
        let (addr, port) = endpoint(value, protocol, names).ok_or_else(illegal)?;
        self.real = Some((addr, port.unwrap_or(default_port)));
        Ok(())
    }

    fn read_netmask(&self, value: &str) -> Parsed<u32> {
        if self.family == Family::V6 {
            let bits = leading_number(value).filter(|bits| (1..=128).contains(bits));
            return bits.ok_or_else(|| bad("illegal ipv6 netmask specified".into()));
        }
        let illegal = || bad("illegal virtual server persistent mask specified".into());
        Ok(inet_aton(value).ok_or_else(illegal)?.to_bits())
    }
}

fn daemon_role(verb: Verb, role: &str) -> Parsed<SyncRole> {
    match (role, verb) {
        ("master", _) => Ok(SyncRole::Master),
        ("backup", _) => Ok(SyncRole::Backup),
        (_, Verb::StopDaemon) => Err(bad("illegal start_daemon specified".into())),
        _ => Err(bad("illegal start-daemon parameter specified".into())),
    }
}

fn timeout(value: &str, least: u64) -> Parsed<u32> {
    let illegal = || bad(format!("invalid timeout value `{value}' specified"));
    number(value, least, MAX_TIMEOUT_S).map(|seconds| seconds as u32).ok_or_else(illegal)
}

fn ranged<T: TryFrom<u64>>(value: &str, least: u64, most: u64, message: &str) -> Parsed<T> {
    let number = number(value, least, most).and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| bad(message.into()))
}

fn multicast_group(value: &str) -> Parsed<IpAddr> {
    let version = if value.contains(':') { "IPv6" } else { "IPv4" };
    let group = value.parse::<IpAddr>().ok().filter(IpAddr::is_multicast);
    group.ok_or_else(|| bad(format!("invalid {version} mcast-group `{value}'")))
}

fn tunnel_kind(value: &str) -> Parsed<TunnelKind> {
    match value {
        "ipip" => Ok(TunnelKind::IpIp),
        "gue" => Ok(TunnelKind::Gue),
        "gre" => Ok(TunnelKind::Gre),
        _ => Err(bad("illegal tunnel type specified".into())),
    }
}

/// ipvsadm's name of a tunnel type.
pub fn tunnel_name(kind: TunnelKind) -> &'static str {
    match kind {
        TunnelKind::IpIp => "ipip",
        TunnelKind::Gue => "gue",
        TunnelKind::Gre => "gre",
    }
}

/// Names that the kernel has no room for are cut, as by ipvsadm.
fn clipped(name: &str) -> String {
    let end = (0..=name.len().min(MAX_NAME)).rev().find(|at| name.is_char_boundary(*at));
    name[..end.unwrap_or(0)].into()
}

fn bad(message: String) -> Illegal {
    Illegal { message: message + "\n", status: 2, is_fatal: true }
}

fn try_help() -> Illegal {
    let message = "Try `ipvsadm -h' or 'ipvsadm --help' for more information.\n".into();
    Illegal { message, status: 255, is_fatal: true }
}

const DEFAULT_SCHEDULER: &str = "wlc";
/// **Source** — recorded; ipvsadm(8) says 300.
const DEFAULT_PERSISTENCE_S: u32 = 360;
/// Thirty-one days.
const MAX_TIMEOUT_S: u64 = 2_678_400;
