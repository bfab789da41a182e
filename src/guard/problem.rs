//! What is wrong with services beside the kernel, told to an administrator.

use std::fmt;
use std::io;

use super::holder;
use super::plan::Guarded;
use crate::engine::service::{Protocol, ServiceKey};
use crate::packet::headers::protocol;
use crate::packet::{Addr, Endpoint, Family};

/// What an administrator should know about a service that the kernel may interfere with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A program of this host already has the port.
    InUse {
        /// The service's address.
        guarded: Guarded,
        /// The program, if it can be seen.
        holder: Option<String>,
    },
    /// The port could not be taken for another reason.
    Refused {
        /// The service's address.
        guarded: Guarded,
        /// What the kernel said.
        reason: String,
    },
    /// The kernel forwards packets, and would forward what real servers reply.
    Forwarding {
        /// Of which address family.
        family: Family,
        /// Why there are no rules against it.
        reason: String,
    },
    /// A virtual address cannot be led to the director's device.
    Leading {
        /// The address.
        addr: Addr,
        /// What the kernel said.
        reason: String,
    },
    /// Packets cannot be diverted to the director's device.
    Diverting {
        /// What the kernel said.
        reason: String,
    },
    /// A server is reached by its link address, which a device without link headers cannot do.
    NeedsLinkHeader {
        /// The server.
        server: Addr,
    },
    /// A real server is this host itself, and packets cannot be handed to its programs.
    LocalServer {
        /// The server.
        server: Endpoint,
        /// Why not.
        reason: String,
    },
    /// The kernel does not forward IPv6 packets, not even the director's.
    ForwardingV6,
    /// A service of every port, or of a protocol without ports, at an address of the kernel.
    Unguardable {
        /// The service.
        service: ServiceKey,
        /// The address.
        addr: Addr,
    },
}

impl Problem {
    /// Whether the director would damage traffic rather than serve it.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Forwarding { .. } | Self::Diverting { .. })
    }
}

impl fmt::Display for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.protocol {
            protocol::TCP => "TCP",
            protocol::UDP => "UDP",
            protocol::SCTP => "SCTP",
            protocol::ESP => "ESP",
            protocol::AH => "AH",
            other => return write!(f, "protocol {other} {}", self.at.addr),
        };
        match self.at.port {
            0 => write!(f, "{name} {}", self.at.addr),
            _ => write!(f, "{name} {}", self.at),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { guarded, holder } => {
                let holder = holder.as_deref().unwrap_or("a program of this host");
                write!(
                    f,
                    "{guarded} is a virtual service, but {holder} listens there as well and will \
                     answer its clients: stop it, or let it listen on other addresses only"
                )
            }
            Self::Refused { guarded, reason } => write!(
                f,
                "{guarded} is a virtual service at an address of this host, whose kernel will \
                 reject its packets, for they cannot be kept from it: {reason}"
            ),
            Self::Forwarding { family, reason } => {
                let setting = match family {
                    Family::V4 => "net.ipv4.ip_forward",
                    Family::V6 => "net.ipv6.conf.all.forwarding",
                };
                write!(
                    f,
                    "this host's kernel forwards packets ({setting} is 1), so it will send replies \
                     of real servers on untranslated, and break their connections; rules against \
                     that cannot be made ({reason}): give ulvs CAP_NET_ADMIN, or set {setting} to \
                     0, which the director does not need"
                )
            }
            Self::Leading { addr, reason } => {
                write!(f, "packets to {addr} do not come to the director: {reason}")
            }
            Self::Diverting { reason } => write!(
                f,
                "packets of virtual services and real servers cannot be diverted to the director's \
                 device, so this host's kernel would answer or forward them: {reason}"
            ),
            Self::NeedsLinkHeader { server } => write!(
                f,
                "{server} cannot be reached by direct routing (-g) over a TUN device, which has no \
                 link addresses: use -m, or run ulvs without --tun"
            ),
            Self::LocalServer { server, reason } => {
                write!(f, "real server {server} is this host itself, and is not served: {reason}")
            }
            Self::ForwardingV6 => write!(
                f,
                "this host's kernel does not forward IPv6 packets, not even those of a device: set \
                 net.ipv6.conf.all.forwarding to 1"
            ),
            Self::Unguardable { service, addr } => {
                let what = match service {
                    ServiceKey::Address { protocol: Protocol::Sctp, .. } => "all SCTP ports",
                    ServiceKey::Address { .. } => "all ports",
                    ServiceKey::Mark { .. } => "a mark",
                };
                write!(
                    f,
                    "the service of {what} at {addr} cannot be kept from this host's kernel, which \
                     owns that address and will answer as well: give ulvs CAP_NET_ADMIN, or take the \
                     address off the host's interfaces, and ulvs answers for it itself"
                )
            }
        }
    }
}

pub(super) fn explain(guarded: Guarded, error: &io::Error) -> Problem {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            Problem::InUse { guarded, holder: holder::find(guarded.protocol, guarded.at.port) }
        }
        _ if error.raw_os_error() == Some(libc::EACCES) => Problem::Refused {
            guarded,
            reason: format!("{error} (ports below 1024 need CAP_NET_BIND_SERVICE)"),
        },
        _ if error.raw_os_error() == Some(libc::EPERM) => {
            Problem::Refused { guarded, reason: format!("{error} (it takes CAP_NET_RAW)") }
        }
        _ => Problem::Refused { guarded, reason: error.to_string() },
    }
}
