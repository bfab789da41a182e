//! ipvsadm's options, and which of them go with which command.

use super::popt::{Argument, Known};

/// What a word on the command line stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// A command.
    Command(Verb),
    /// An option of a command.
    Option(Setting),
    /// `-6`, which goes with `-f`.
    Ipv6,
    /// `--sort`, the default.
    Sort,
}

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    AddService,
    EditService,
    DeleteService,
    Clear,
    Restore,
    Save,
    AddServer,
    EditServer,
    DeleteServer,
    List,
    Zero,
    Set,
    StartDaemon,
    StopDaemon,
    Help,
    Version,
    /// Beyond ipvsadm, as of DPVS: `--add-laddr`.
    AddLocal,
    /// Beyond ipvsadm: `--del-laddr`.
    DeleteLocal,
    /// Beyond ipvsadm: `--get-laddr`.
    ListLocal,
}

impl Verb {
    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::AddService => "add-service",
            Self::EditService => "edit-service",
            Self::DeleteService => "delete-service",
            Self::Clear => "flush",
            Self::Restore => "restore",
            Self::Save => "save",
            Self::AddServer => "add-server",
            Self::EditServer => "edit-server",
            Self::DeleteServer => "delete-server",
            Self::List => "list",
            Self::Zero => "zero",
            Self::Set => "set",
            Self::StartDaemon => "start-daemon",
            Self::StopDaemon => "stop-daemon",
            Self::Help => "help",
            Self::Version => "version",
            Self::AddLocal => "add-laddr",
            Self::DeleteLocal => "del-laddr",
            Self::ListLocal => "get-laddr",
        }
    }
}

/// An option of a command, in the order in which ipvsadm checks them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    Numeric,
    Connection,
    Service(ServiceKind),
    Scheduler,
    Persistent,
    Netmask,
    Server,
    Forwarding(Forwarding),
    Weight,
    UpperThreshold,
    LowerThreshold,
    Interface,
    Timeout,
    Daemon,
    Stats,
    Rate,
    Thresholds,
    PersistentConnections,
    NoSort,
    SyncId,
    Exact,
    OnePacket,
    Engine,
    SchedulerFlags,
    Group,
    Port,
    Ttl,
    MaxLen,
    TunnelInfo,
    TunnelType,
    TunnelPort,
    TunnelNoChecksum,
    TunnelChecksum,
    TunnelRemoteChecksum,
    /// Beyond ipvsadm: `--local-address`.
    LocalAddress,
    /// Beyond ipvsadm: `--client-address`.
    ClientAddress,
    /// Beyond ipvsadm: `--ifname`, which DPVS wants with a local address.
    LocalInterface,
    /// Beyond ipvsadm: `-S --full`.
    Full,
    /// Beyond ipvsadm: `-L --json`.
    Json,
}

/// How a service is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServiceKind {
    Tcp,
    Udp,
    Sctp,
    Mark,
}

/// A forwarding method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Forwarding {
    Direct,
    Tunnel,
    Masquerade,
    FullNat,
}

impl Setting {
    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Numeric => "numeric",
            Self::Connection => "connection",
            Self::Service(_) => "service-address",
            Self::Scheduler => "scheduler",
            Self::Persistent => "persistent",
            Self::Netmask => "netmask",
            Self::Server => "real-server",
            Self::Forwarding(_) => "forwarding-method",
            Self::Weight => "weight",
            Self::UpperThreshold => "u-threshold",
            Self::LowerThreshold => "l-threshold",
            Self::Interface => "mcast-interface",
            Self::Timeout => "timeout",
            Self::Daemon => "daemon",
            Self::Stats => "stats",
            Self::Rate => "rate",
            Self::Thresholds => "thresholds",
            Self::PersistentConnections => "persistent-conn",
            Self::NoSort => "nosort",
            Self::SyncId => "syncid",
            Self::Exact => "exact",
            Self::OnePacket => "ops",
            Self::Engine => "pe",
            Self::SchedulerFlags => "sched-flags",
            Self::Group => "mcast-group",
            Self::Port => "mcast-port",
            Self::Ttl => "mcast-ttl",
            Self::MaxLen => "sync-maxlen",
            Self::TunnelInfo => "tun-info",
            Self::TunnelType => "tun-type",
            Self::TunnelPort => "tun-port",
            Self::TunnelNoChecksum => "tun-nocsum",
            Self::TunnelChecksum => "tun-csum",
            Self::TunnelRemoteChecksum => "tun-remcsum",
            Self::LocalAddress => "local-address",
            Self::ClientAddress => "client-address",
            Self::LocalInterface => "ifname",
            Self::Full => "full",
            Self::Json => "json",
        }
    }

    /// Whether two settings are the same option, whatever their values.
    pub fn is_same_option(self, other: Self) -> bool {
        self.name() == other.name()
    }
}

/// What a command thinks of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It may be there.
    Allowed,
    /// It must be there.
    Required,
    /// It must not be there.
    Illegal,
    /// At most one of those with this rule may be there.
    Exclusive,
}

/// What `verb` thinks of `setting`.
pub fn rule(verb: Verb, setting: Setting) -> Rule {
    use Setting as S;
    let allowed: &[&str] = match (verb, setting) {
        (Verb::AddService | Verb::EditService | Verb::DeleteService, S::Service(_)) => {
            return Rule::Required;
        }
        (Verb::AddServer | Verb::EditServer | Verb::DeleteServer, S::Service(_) | S::Server) => {
            return Rule::Required;
        }
        (Verb::AddLocal | Verb::DeleteLocal, S::Service(_) | S::LocalAddress) => {
            return Rule::Required;
        }
        (Verb::List, S::Connection | S::Service(_) | S::Timeout | S::Daemon) => {
            return Rule::Exclusive;
        }
        (Verb::AddService | Verb::EditService, _) => {
            &["scheduler", "persistent", "netmask", "ops", "pe", "sched-flags", "local-address"]
        }
        (Verb::AddServer | Verb::EditServer, _) => &SERVER,
        (Verb::List, _) => &LIST,
        (Verb::Save, _) => &["numeric", "full"],
        (Verb::Zero, _) => &["service-address"],
        (Verb::StartDaemon, _) => &DAEMON,
        (Verb::StopDaemon, _) => &["syncid"],
        (Verb::AddLocal | Verb::DeleteLocal, _) => &["ifname"],
        (Verb::ListLocal, _) => &["service-address", "numeric"],
        _ => &[],
    };
    if allowed.contains(&setting.name()) { Rule::Allowed } else { Rule::Illegal }
}

const SERVER: [&str; 10] = [
    "forwarding-method",
    "weight",
    "u-threshold",
    "l-threshold",
    "tun-type",
    "tun-port",
    "tun-nocsum",
    "tun-csum",
    "tun-remcsum",
    "client-address",
];
const LIST: [&str; 10] = [
    "numeric",
    "stats",
    "rate",
    "thresholds",
    "persistent-conn",
    "nosort",
    "syncid",
    "exact",
    "tun-info",
    "json",
];
const DAEMON: [&str; 6] =
    ["mcast-interface", "syncid", "mcast-group", "mcast-port", "mcast-ttl", "sync-maxlen"];

/// One of every option, in the order in which ipvsadm checks them.
pub const CHECK_ORDER: [Setting; 39] = [
    Setting::Numeric,
    Setting::Connection,
    Setting::Service(ServiceKind::Tcp),
    Setting::Scheduler,
    Setting::Persistent,
    Setting::Netmask,
    Setting::Server,
    Setting::Forwarding(Forwarding::Direct),
    Setting::Weight,
    Setting::UpperThreshold,
    Setting::LowerThreshold,
    Setting::Interface,
    Setting::Timeout,
    Setting::Daemon,
    Setting::Stats,
    Setting::Rate,
    Setting::Thresholds,
    Setting::PersistentConnections,
    Setting::NoSort,
    Setting::SyncId,
    Setting::Exact,
    Setting::OnePacket,
    Setting::Engine,
    Setting::SchedulerFlags,
    Setting::Group,
    Setting::Port,
    Setting::Ttl,
    Setting::MaxLen,
    Setting::TunnelInfo,
    Setting::TunnelType,
    Setting::TunnelPort,
    Setting::TunnelNoChecksum,
    Setting::TunnelChecksum,
    Setting::TunnelRemoteChecksum,
    Setting::LocalAddress,
    Setting::LocalInterface,
    Setting::ClientAddress,
    Setting::Full,
    Setting::Json,
];

/// Everything that may stand on the command line.
pub const KNOWN: &[Known<Meaning>] = &[
    verb("add-service", Some('A'), Verb::AddService),
    verb("edit-service", Some('E'), Verb::EditService),
    verb("delete-service", Some('D'), Verb::DeleteService),
    verb("clear", Some('C'), Verb::Clear),
    verb("restore", Some('R'), Verb::Restore),
    verb("save", Some('S'), Verb::Save),
    verb("add-server", Some('a'), Verb::AddServer),
    verb("edit-server", Some('e'), Verb::EditServer),
    verb("delete-server", Some('d'), Verb::DeleteServer),
    verb("list", Some('L'), Verb::List),
    verb("list", Some('l'), Verb::List),
    verb("zero", Some('Z'), Verb::Zero),
    verb("set", None, Verb::Set),
    with_role("start-daemon", Verb::StartDaemon),
    with_role("stop-daemon", Verb::StopDaemon),
    verb("help", Some('h'), Verb::Help),
    verb("version", Some('v'), Verb::Version),
    verb("add-laddr", None, Verb::AddLocal),
    verb("del-laddr", None, Verb::DeleteLocal),
    verb("get-laddr", None, Verb::ListLocal),
    value("tcp-service", Some('t'), Setting::Service(ServiceKind::Tcp)),
    value("udp-service", Some('u'), Setting::Service(ServiceKind::Udp)),
    value("sctp-service", None, Setting::Service(ServiceKind::Sctp)),
    value("fwmark-service", Some('f'), Setting::Service(ServiceKind::Mark)),
    bare("ipv6", Some('6'), Meaning::Ipv6),
    value("scheduler", Some('s'), Setting::Scheduler),
    Known {
        long: "persistent",
        short: Some('p'),
        argument: Argument::Optional,
        meaning: Meaning::Option(Setting::Persistent),
    },
    value("netmask", Some('M'), Setting::Netmask),
    value("real-server", Some('r'), Setting::Server),
    flag("gatewaying", Some('g'), Setting::Forwarding(Forwarding::Direct)),
    flag("ipip", Some('i'), Setting::Forwarding(Forwarding::Tunnel)),
    flag("masquerading", Some('m'), Setting::Forwarding(Forwarding::Masquerade)),
    flag("fullnat", None, Setting::Forwarding(Forwarding::FullNat)),
    value("local-address", None, Setting::LocalAddress),
    value("ifname", None, Setting::LocalInterface),
    value("client-address", None, Setting::ClientAddress),
    value("weight", Some('w'), Setting::Weight),
    value("u-threshold", Some('x'), Setting::UpperThreshold),
    value("l-threshold", Some('y'), Setting::LowerThreshold),
    flag("numeric", Some('n'), Setting::Numeric),
    flag("connection", Some('c'), Setting::Connection),
    value("mcast-interface", None, Setting::Interface),
    flag("timeout", None, Setting::Timeout),
    flag("daemon", None, Setting::Daemon),
    flag("stats", None, Setting::Stats),
    flag("rate", None, Setting::Rate),
    flag("thresholds", None, Setting::Thresholds),
    flag("persistent-conn", None, Setting::PersistentConnections),
    flag("nosort", None, Setting::NoSort),
    bare("sort", None, Meaning::Sort),
    value("syncid", None, Setting::SyncId),
    flag("exact", Some('X'), Setting::Exact),
    flag("ops", Some('o'), Setting::OnePacket),
    value("pe", None, Setting::Engine),
    value("sched-flags", Some('b'), Setting::SchedulerFlags),
    value("mcast-group", None, Setting::Group),
    value("mcast-port", None, Setting::Port),
    value("mcast-ttl", None, Setting::Ttl),
    value("sync-maxlen", None, Setting::MaxLen),
    flag("tun-info", None, Setting::TunnelInfo),
    value("tun-type", None, Setting::TunnelType),
    value("tun-port", None, Setting::TunnelPort),
    flag("tun-nocsum", None, Setting::TunnelNoChecksum),
    flag("tun-csum", None, Setting::TunnelChecksum),
    flag("tun-remcsum", None, Setting::TunnelRemoteChecksum),
    flag("full", None, Setting::Full),
    flag("json", None, Setting::Json),
];

const fn verb(long: &'static str, short: Option<char>, verb: Verb) -> Known<Meaning> {
    bare(long, short, Meaning::Command(verb))
}

const fn with_role(long: &'static str, verb: Verb) -> Known<Meaning> {
    let (argument, meaning) = (Argument::Required, Meaning::Command(verb));
    Known { long, short: None, argument, meaning }
}

const fn flag(long: &'static str, short: Option<char>, setting: Setting) -> Known<Meaning> {
    bare(long, short, Meaning::Option(setting))
}

const fn value(long: &'static str, short: Option<char>, setting: Setting) -> Known<Meaning> {
    let (argument, meaning) = (Argument::Required, Meaning::Option(setting));
    Known { long, short, argument, meaning }
}

const fn bare(long: &'static str, short: Option<char>, meaning: Meaning) -> Known<Meaning> {
    Known { long, short, argument: Argument::None, meaning }
}
