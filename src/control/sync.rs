//! What a client asks of the synchronisation daemons, and what they are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;

use super::netlink::ipvs::Daemon;
use crate::engine::Moment;
use crate::engine::service::ServiceTable;
use crate::engine::sync::{MAX_PORTS, MasterConfig, SyncRoles};

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

/// A daemon at work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningSync {
    /// How it was set up.
    pub daemon: SyncDaemon,
    /// How many ports its messages are spread over, from the daemon's port on.
    pub ports: u8,
    since: Moment,
    start: u64,
}

/// The daemons that run, one for each side at most.
#[derive(Debug, Default)]
pub struct SyncDaemons(Mutex<Daemons>);

#[derive(Debug, Default)]
struct Daemons {
    running: Vec<RunningSync>,
    starts: u64,
}

impl SyncDaemons {
    /// Starts a daemon on an interface of that MTU, `None` if there is no such interface, and tells
    /// the director of it. `open` opens what it takes.
    ///
    /// **Errors** — `ENODEV` without an interface, `EEXIST` if the side has its daemon; what `open`
    /// says.
    pub fn start(
        &self,
        request: SyncRequest,
        mtu: Option<u32>,
        services: &ServiceTable,
        now: Moment,
        open: impl FnOnce(&RunningSync) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let mtu = mtu.ok_or(Errno::ENODEV)?;
        let mut daemons = self.lock();
        if daemons.running.iter().any(|running| running.daemon.role == request.role) {
            return Err(Errno::EEXIST);
        }
        let ports = services.snapshot().settings.sync_ports.clamp(1, MAX_PORTS.into()) as u8;
        let start = daemons.starts + 1;
        let running = RunningSync { daemon: request.on_link(mtu), ports, since: now, start };
        open(&running)?;
        daemons.starts = start;
        daemons.running.push(running);
        daemons.running.sort_by_key(|running| state(running.daemon.role));
        services.set_sync(daemons.roles());
        Ok(())
    }

    /// Stops a daemon, and tells the director.
    ///
    /// **Errors** — `ESRCH` if the side has none.
    pub fn stop(&self, role: SyncRole, services: &ServiceTable) -> Result<(), Errno> {
        let mut daemons = self.lock();
        let known = daemons.running.iter().position(|running| running.daemon.role == role);
        daemons.running.remove(known.ok_or(Errno::ESRCH)?);
        services.set_sync(daemons.roles());
        Ok(())
    }

    /// All of them, the master's first.
    pub fn running(&self) -> Vec<RunningSync> {
        self.lock().running.clone()
    }

    /// How they are set up, the master first.
    pub fn list(&self) -> Vec<SyncDaemon> {
        self.lock().running.iter().map(|running| running.daemon.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Daemons> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Daemons {
    /// What the director has to know of them.
    fn roles(&self) -> SyncRoles {
        let of = |role| self.running.iter().find(|running| running.daemon.role == role);
        let master = of(SyncRole::Master).map(|running| MasterConfig {
            id: running.daemon.id,
            max_len: running.daemon.max_len,
            ports: running.ports,
            since: running.since,
            start: running.start,
        });
        SyncRoles { master, is_backup: of(SyncRole::Backup).is_some() }
    }
}

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
