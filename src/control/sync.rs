//! What a client asks of the synchronisation daemons, and what they are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;

use super::netlink::ipvs::Daemon;

/// The side of a synchronisation daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncRole {
    /// Tells its connections to others.
    Master,
    /// Takes over what masters tell.
    Backup,
}

/// A request to start a daemon; what is `None` has a default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncRequest {
    /// Its side.
    pub role: SyncRole,
    /// Its interface.
    pub interface: String,
    /// Its synchronisation id.
    pub id: u8,
    /// Longest message.
    pub max_len: Option<u16>,
    /// Multicast group.
    pub group: Option<IpAddr>,
    /// UDP port.
    pub port: Option<u16>,
    /// TTL.
    pub ttl: Option<u8>,
}

/// A daemon that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncDaemon {
    /// Its side.
    pub role: SyncRole,
    /// Its interface.
    pub interface: String,
    /// Its synchronisation id.
    pub id: u8,
    /// Longest message.
    pub max_len: u16,
    /// Multicast group.
    pub group: IpAddr,
    /// UDP port.
    pub port: u16,
    /// TTL.
    pub ttl: u8,
}

impl SyncRequest {
    /// The daemon this asks for, on an interface of that MTU.
    ///
    /// **Source** — IPVS: group 224.0.0.81, port 8848, TTL 1; a master's messages fill a packet of
    /// 1500 bytes, and a backup takes what its interface takes.
    pub fn on_link(self, mtu: u32) -> SyncDaemon {
        let group = self.group.unwrap_or(DEFAULT_GROUP.into());
        let headers: u16 = if group.is_ipv4() { 20 + 8 } else { 40 + 8 };
        let (packet, least) = match self.role {
            SyncRole::Master => (1500, 1),
            SyncRole::Backup => (mtu.clamp(1500, u16::MAX.into()) as u16, 1024),
        };
        let max_len = match self.max_len {
            Some(wanted) => wanted.clamp(least, u16::MAX - headers),
            None => packet - headers,
        };
        SyncDaemon {
            role: self.role,
            interface: self.interface,
            id: self.id,
            max_len,
            group,
            port: self.port.unwrap_or(DEFAULT_PORT),
            ttl: self.ttl.unwrap_or(1),
        }
    }
}

/// The daemons that were asked for, one for each side at most.
#[derive(Debug, Default)]
pub struct SyncDaemons(Mutex<Vec<SyncDaemon>>);

impl SyncDaemons {
    /// Takes note of a daemon, on an interface of that MTU; `None` if there is no such interface.
    ///
    /// **Errors** — `ENODEV` without an interface, `EEXIST` if the side has its daemon.
    pub fn start(&self, request: SyncRequest, mtu: Option<u32>) -> Result<(), Errno> {
        let mtu = mtu.ok_or(Errno::ENODEV)?;
        let mut daemons = self.lock();
        if daemons.iter().any(|daemon| daemon.role == request.role) {
            return Err(Errno::EEXIST);
        }
        daemons.push(request.on_link(mtu));
        daemons.sort_by_key(|daemon| state(daemon.role));
        Ok(())
    }

    /// Forgets a daemon.
    ///
    /// **Errors** — `ESRCH` if the side has none.
    pub fn stop(&self, role: SyncRole) -> Result<(), Errno> {
        let mut daemons = self.lock();
        let known = daemons.iter().position(|daemon| daemon.role == role);
        daemons.remove(known.ok_or(Errno::ESRCH)?);
        Ok(())
    }

    /// All of them, the master's first.
    pub fn list(&self) -> Vec<SyncDaemon> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<SyncDaemon>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is said of every daemon that is started.
pub const NOT_YET: &str = "ulvs does not synchronise connections yet: the daemon is listed and \
                           saved, but sends and takes no messages";

/// The request in a message. Zeros stand for defaults, as in the kernel.
pub(super) fn request(message: &Daemon) -> Result<SyncRequest, Errno> {
    let (Some(_), Some(interface), Some(id)) = (message.state, &message.mcast_ifn, message.sync_id)
    else {
        return Err(Errno::EINVAL);
    };
    let group4 = message.mcast_group.map(|group| IpAddr::from(Ipv4Addr::from(group)));
    let group6 = message.mcast_group6.map(|group| IpAddr::from(Ipv6Addr::from(group)));
    let group = group6.or(group4).filter(|group| !group.is_unspecified());
    if group.is_some_and(|group| !group.is_multicast()) {
        return Err(Errno::EADDRNOTAVAIL);
    }
    Ok(SyncRequest {
        role: role(message)?,
        interface: interface.clone(),
        id: u8::try_from(id).map_err(|_| Errno::EINVAL)?,
        max_len: message.sync_maxlen.filter(|length| *length != 0),
        group,
        port: message.mcast_port.filter(|port| *port != 0),
        ttl: message.mcast_ttl.filter(|ttl| *ttl != 0),
    })
}

/// The side that a message names.
pub(super) fn role(message: &Daemon) -> Result<SyncRole, Errno> {
    match message.state {
        Some(MASTER) => Ok(SyncRole::Master),
        Some(BACKUP) => Ok(SyncRole::Backup),
        _ => Err(Errno::EINVAL),
    }
}

/// The message that tells of a daemon.
pub(super) fn describe(daemon: &SyncDaemon) -> Daemon {
    let (mcast_group, mcast_group6) = groups(daemon.group);
    Daemon {
        state: Some(state(daemon.role)),
        mcast_ifn: Some(daemon.interface.clone()),
        sync_id: Some(u32::from(daemon.id)),
        sync_maxlen: Some(daemon.max_len),
        mcast_group,
        mcast_group6,
        mcast_port: Some(daemon.port),
        mcast_ttl: Some(daemon.ttl),
    }
}

/// The message that asks for a daemon.
pub(super) fn ask(request: &SyncRequest) -> Daemon {
    let (mcast_group, mcast_group6) = request.group.map_or((None, None), groups);
    Daemon {
        state: Some(state(request.role)),
        mcast_ifn: Some(request.interface.clone()),
        sync_id: Some(u32::from(request.id)),
        sync_maxlen: request.max_len,
        mcast_group,
        mcast_group6,
        mcast_port: request.port,
        mcast_ttl: request.ttl,
    }
}

/// The daemon that a listing tells of.
pub(super) fn listed(message: &Daemon) -> Result<SyncDaemon, Errno> {
    // Kernels before 4.3 tell no more than the first three; their daemons had these values.
    Ok(request(message)?.on_link(1500))
}

fn state(role: SyncRole) -> u32 {
    match role {
        SyncRole::Master => MASTER,
        SyncRole::Backup => BACKUP,
    }
}

fn groups(group: IpAddr) -> (Option<[u8; 4]>, Option<[u8; 16]>) {
    match group {
        IpAddr::V4(group) => (Some(group.octets()), None),
        IpAddr::V6(group) => (None, Some(group.octets())),
    }
}

/// **Source** — `IP_VS_STATE_MASTER` and `_BACKUP` of linux/ip_vs.h.
const MASTER: u32 = 1;
const BACKUP: u32 = 2;
const DEFAULT_GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 81);
const DEFAULT_PORT: u16 = 8848;
