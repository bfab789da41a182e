//! What an administrator says: services, real servers and timeouts as configured.

use std::fmt;
use std::sync::Arc;

use crate::packet::{Addr, Family};

/// A transport protocol that a virtual service balances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP, RFC 9293.
    Tcp,
    /// UDP, RFC 768.
    Udp,
    /// SCTP, RFC 9260.
    Sctp,
}

impl Protocol {
    /// The IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol with an IP protocol number, if it is one of ours.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }
}

/// What identifies a virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServiceKey {
    /// Traffic of a protocol to an address and port; port 0 takes every port.
    Address {
        /// The transport protocol.
        protocol: Protocol,
        /// The virtual address.
        addr: Addr,
        /// The virtual port in host order.
        port: u16,
    },
    /// Traffic that carries a firewall mark.
    Mark {
        /// The mark, never 0.
        mark: u32,
        /// The family it balances.
        family: Family,
    },
}

impl ServiceKey {
    /// The address family of the service's traffic.
    pub fn family(&self) -> Family {
        match self {
            Self::Address { addr, .. } => addr.family(),
            Self::Mark { family, .. } => *family,
        }
    }
}

/// Flags of a service that only its scheduler reads.
///
/// **Source** — ipvsadm(8) `-b`: `IP_VS_SVC_F_SCHED1..3`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedulerFlags {
    /// flag-1: `sh-fallback` or `mh-fallback`.
    pub fallback: bool,
    /// flag-2: `sh-port` or `mh-port`.
    pub port: bool,
    /// flag-3: unused by the schedulers there are.
    pub third: bool,
}

/// A virtual service as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Its identity.
    pub key: ServiceKey,
    /// Name of its scheduler, as in `scheduler::registry`.
    pub scheduler: String,
    /// Flags for the scheduler.
    pub scheduler_flags: SchedulerFlags,
    /// Persistence timeout in seconds; `None` if the service is not persistent.
    pub persistence_timeout_s: Option<u32>,
    /// Which bits of a client's address persistence looks at: for IPv4 the mask in host order
    /// (`0xffff_ffff` is one client), for IPv6 the prefix length (128 is one client).
    pub netmask: u32,
    /// Whether each packet is scheduled for itself (`-o`).
    pub one_packet: bool,
    /// Persistence engine (`--pe`), if any.
    pub persistence_engine: Option<String>,
    /// From which addresses of the director its servers reached by full NAT see their clients come
    /// (`--local-address`); if there is none, from the director's address on the way to them.
    pub local_addresses: Arc<[Addr]>,
}

impl ServiceSpec {
    /// A service with ipvsadm's defaults: wlc, not persistent.
    pub fn new(key: ServiceKey) -> Self {
        let netmask = match key.family() {
            Family::V4 => u32::MAX,
            Family::V6 => 128,
        };
        Self {
            key,
            scheduler: "wlc".into(),
            scheduler_flags: SchedulerFlags::default(),
            persistence_timeout_s: None,
            netmask,
            one_packet: false,
            persistence_engine: None,
            local_addresses: Arc::default(),
        }
    }
}

/// How packets reach a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ForwardingMethod {
    /// NAT (`-m`): destination rewritten, replies come back through the director.
    Masquerade,
    /// The server is the director itself.
    Local,
    /// Encapsulated (`-i`).
    Tunnel,
    /// Direct routing (`-g`): only the link address changes.
    Direct,
    /// Sent on unchanged, to the packet's own destination (cache bypass).
    Bypass,
    /// Both addresses rewritten; replies come back to an address of the director.
    FullNat,
}

/// Encapsulation of a tunnelled real server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tunnel {
    /// The outer protocol.
    pub kind: TunnelKind,
    /// UDP port for GUE.
    pub port: u16,
    /// Checksum choice.
    pub checksum: TunnelChecksum,
}

/// How a real server that sees the director instead of its clients is told who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAddress {
    /// Not at all.
    #[default]
    Untold,
    /// By a TCP option of kind 254 in the client's first segments after the handshake, for servers
    /// whose kernel has a module for it. **Source** — the TOA of LVS's full NAT and DPVS.
    Toa,
    /// By a header in front of the client's first bytes or datagram, which the server's program
    /// has to expect. **Source** — the PROXY protocol, version 2.
    ProxyV2,
}

/// Outer protocol of a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TunnelKind {
    /// IP in IP, RFC 2003.
    #[default]
    IpIp,
    /// Generic UDP encapsulation.
    Gue,
    /// GRE, RFC 2784.
    Gre,
}

/// Checksum of the outer header of GUE and GRE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TunnelChecksum {
    /// None (`--tun-nocsum`).
    #[default]
    Off,
    /// Full (`--tun-csum`).
    On,
    /// Remote checksum offload, GUE only (`--tun-remcsum`).
    Remote,
}

/// A real server of a service as configured. Its identity within the service is address and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealSpec {
    /// Its address.
    pub addr: Addr,
    /// Its port in host order.
    pub port: u16,
    /// How packets reach it.
    pub method: ForwardingMethod,
    /// Its weight; 0 takes no new connections.
    pub weight: i32,
    /// Connections at which it is overloaded; 0 for no limit (`-x`).
    pub upper_threshold: u32,
    /// Connections below which it stops being overloaded; 0 for three quarters of `upper` (`-y`).
    pub lower_threshold: u32,
    /// Encapsulation, if the method is `Tunnel`.
    pub tunnel: Tunnel,
    /// How it is told who its clients are, if the method is `FullNat`.
    pub client_address: ClientAddress,
}

impl RealSpec {
    /// A server with the kernel's and ipvsadm's defaults: direct routing, weight 1.
    pub fn new(addr: Addr, port: u16) -> Self {
        Self {
            addr,
            port,
            method: ForwardingMethod::Direct,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
            tunnel: Tunnel::default(),
            client_address: ClientAddress::default(),
        }
    }
}

/// The three timeouts that `ipvsadm --set` knows.
///
/// **Units** — seconds; 0 in an edit keeps the present value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP connections in ESTABLISHED.
    pub tcp_s: u32,
    /// TCP connections in FIN_WAIT.
    pub tcp_fin_s: u32,
    /// UDP connections.
    pub udp_s: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { tcp_s: 900, tcp_fin_s: 120, udp_s: 300 }
    }
}

/// Why an edit was refused. Nothing has changed when one of these comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// The service exists already (EEXIST).
    ServiceExists,
    /// No such service (ESRCH).
    NoSuchService,
    /// The real server exists already in the service (EEXIST).
    RealExists,
    /// No such real server in the service (ENOENT).
    NoSuchReal,
    /// No such scheduler or persistence engine (ENOENT).
    NoSuchScheduler,
    /// A number outside its range, e.g. a lower threshold above the upper one (ERANGE).
    OutOfRange,
    /// Anything else the kernel refuses as invalid, e.g. a multicast server (EINVAL).
    Invalid,
    /// A limit on memory was reached (ENOMEM).
    OutOfMemory,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ServiceExists => "the virtual service exists already",
            Self::NoSuchService => "there is no such virtual service",
            Self::RealExists => "the real server exists already in this service",
            Self::NoSuchReal => "there is no such real server in this service",
            Self::NoSuchScheduler => "there is no such scheduler or persistence engine",
            Self::OutOfRange => "a value is out of range",
            Self::Invalid => "the request is invalid",
            Self::OutOfMemory => "a limit was reached",
        })
    }
}

impl std::error::Error for ConfigError {}
