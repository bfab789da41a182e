//! The kernel's family `IPVS`: its commands and attributes as typed messages.
//!
//! **Source** — names, numbers and layouts of linux/ip_vs.h; order and padding of attributes as
//! recorded from Linux 6.1.

use nix::errno::Errno;

use super::GenericFamily;
use super::attr::{Attributes, Nest, Writer};
use crate::engine::stats::{Rates, Totals};

/// The family. The number is the one Linux happens to give it; clients ask for it by name.
pub const FAMILY: GenericFamily = GenericFamily {
    name: "IPVS",
    id: 0x1c,
    version: 1,
    max_attribute: 6,
    operations: &[
        (command::NEW_SERVICE, WRITE),
        (command::SET_SERVICE, WRITE),
        (command::DEL_SERVICE, WRITE),
        (command::GET_SERVICE, WRITE | DUMP),
        (command::NEW_DEST, WRITE),
        (command::SET_DEST, WRITE),
        (command::DEL_DEST, WRITE),
        (command::GET_DEST, ADMIN | DUMP | POLICY),
        (command::NEW_DAEMON, WRITE),
        (command::DEL_DAEMON, WRITE),
        (command::GET_DAEMON, ADMIN | DUMP | POLICY),
        (command::SET_CONFIG, WRITE),
        (command::GET_CONFIG, WRITE),
        (command::GET_INFO, WRITE),
        (command::ZERO, WRITE),
        (command::FLUSH, WRITE),
    ],
};

/// **Source** — `GENL_ADMIN_PERM`, `GENL_CMD_CAP_DO`, `_DUMP`, `_HASPOL` of linux/genetlink.h.
const ADMIN: u32 = 1;
const DO: u32 = 2;
const DUMP: u32 = 4;
const POLICY: u32 = 8;
const WRITE: u32 = ADMIN | DO | POLICY;

/// Commands, `IPVS_CMD_*`.
#[expect(missing_docs, reason = "the names say it")]
pub mod command {
    pub const NEW_SERVICE: u8 = 1;
    pub const SET_SERVICE: u8 = 2;
    pub const DEL_SERVICE: u8 = 3;
    pub const GET_SERVICE: u8 = 4;
    pub const NEW_DEST: u8 = 5;
    pub const SET_DEST: u8 = 6;
    pub const DEL_DEST: u8 = 7;
    pub const GET_DEST: u8 = 8;
    pub const NEW_DAEMON: u8 = 9;
    pub const DEL_DAEMON: u8 = 10;
    pub const GET_DAEMON: u8 = 11;
    pub const SET_CONFIG: u8 = 12;
    pub const GET_CONFIG: u8 = 13;
    pub const SET_INFO: u8 = 14;
    pub const GET_INFO: u8 = 15;
    pub const ZERO: u8 = 16;
    pub const FLUSH: u8 = 17;
}

/// Attributes of a command, `IPVS_CMD_ATTR_*`.
pub mod attribute {
    /// A [`super::Service`].
    pub const SERVICE: u16 = 1;
    /// A [`super::Dest`].
    pub const DEST: u16 = 2;
    /// A [`super::Daemon`].
    pub const DAEMON: u16 = 3;
    /// In a service, beyond the kernel's, which has no number near it: local addresses for full
    /// NAT, 16 bytes each.
    pub const LOCAL_ADDRESSES: u16 = 0x100;
    /// In a real server, beyond the kernel's: how it is told who its clients are, one byte: 0 not
    /// at all, 1 by TCP option (TOA), 2 by the PROXY protocol, version 2.
    pub const CLIENT_ADDRESS: u16 = 0x101;
}

/// `AF_INET` and `AF_INET6`.
pub const AF_INET: u16 = 2;
/// See [`AF_INET`].
pub const AF_INET6: u16 = 10;

/// Flags of a service, `IP_VS_SVC_F_*`.
pub mod service_flag {
    /// Persistent.
    pub const PERSISTENT: u32 = 0x01;
    /// In the table: always set in what the kernel tells.
    pub const HASHED: u32 = 0x02;
    /// One-packet scheduling.
    pub const ONE_PACKET: u32 = 0x04;
    /// The first of three scheduler flags.
    pub const SCHEDULER_1: u32 = 0x08;
    /// The second.
    pub const SCHEDULER_2: u32 = 0x10;
    /// The third.
    pub const SCHEDULER_3: u32 = 0x20;
}

/// Longest scheduler, engine and interface names, `IP_VS_*_MAXLEN` less the NUL.
pub const MAX_NAME: usize = 15;

/// Flag that libnl sets on nested attributes; the kernel itself does not.
const NESTED: u16 = 0x8000;

/// Who a message is from: requests and replies differ in small ways that byte-for-byte
/// compatibility asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// From a client, as ipvsadm writes it.
    Client,
    /// From the director, as the kernel writes it.
    Director,
}

impl Side {
    fn begin(self, writer: &mut Writer, kind: u16) -> Nest {
        writer.begin(if self == Self::Client { kind | NESTED } else { kind })
    }
}

/// A virtual service, `IPVS_SVC_ATTR_*`. Every part may be absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Address family.
    pub af: Option<u16>,
    /// IP protocol number.
    pub protocol: Option<u16>,
    /// Address, an IPv4 one in the first four bytes.
    pub addr: Option<[u8; 16]>,
    /// Port in host order.
    pub port: Option<u16>,
    /// Firewall mark.
    pub fwmark: Option<u32>,
    /// Scheduler.
    pub sched_name: Option<String>,
    /// Persistence engine.
    pub pe_name: Option<String>,
    /// Flags and which of them count.
    pub flags: Option<(u32, u32)>,
    /// Persistence timeout in seconds.
    pub timeout: Option<u32>,
    /// IPv4 netmask in network order, IPv6 prefix length in host order.
    pub netmask: Option<[u8; 4]>,
    /// Beyond the kernel's: local addresses for full NAT, each like `addr`.
    pub local_addresses: Option<Vec<[u8; 16]>>,
    /// Counters and rates.
    pub stats: Option<Stats>,
}

impl Service {
    /// Reads the attributes of a service.
    pub fn parse(from: &Attributes) -> Result<Self, Errno> {
        let flags = from.array::<8>(7)?.map(|bytes| {
            let word = |at: usize| u32::from_ne_bytes(bytes[at..][..4].try_into().expect("four"));
            (word(0), word(4))
        });
        Ok(Self {
            af: from.u16(1)?,
            protocol: from.u16(2)?,
            addr: address(from, 3)?,
            port: from.be16(4)?,
            fwmark: from.u32(5)?,
            sched_name: from.string(6, MAX_NAME)?,
            flags,
            timeout: from.u32(8)?,
            netmask: from.array(9)?,
            pe_name: from.string(11, MAX_NAME)?,
            local_addresses: addresses(from, attribute::LOCAL_ADDRESSES)?,
            stats: Stats::parse(from, 10, 12)?,
        })
    }

    /// Appends the service as an attribute of a command.
    pub fn emit(&self, to: &mut Writer, side: Side) {
        let nest = side.begin(to, attribute::SERVICE);
        self.af.inspect(|af| to.u16(1, *af));
        self.protocol.inspect(|protocol| to.u16(2, *protocol));
        self.addr.inspect(|addr| to.bytes(3, addr));
        self.port.inspect(|port| to.be16(4, *port));
        self.fwmark.inspect(|mark| to.u32(5, *mark));
        self.sched_name.as_ref().inspect(|name| to.string(6, name));
        self.pe_name.as_ref().inspect(|name| to.string(11, name));
        self.flags.inspect(|(flags, mask)| {
            to.bytes(7, &[flags.to_ne_bytes(), mask.to_ne_bytes()].concat());
        });
        self.timeout.inspect(|seconds| to.u32(8, *seconds));
        self.netmask.inspect(|mask| to.bytes(9, mask));
        self.local_addresses.as_ref().inspect(|addrs| {
            to.bytes(attribute::LOCAL_ADDRESSES, addrs.as_flattened());
        });
        self.stats.inspect(|stats| stats.emit(to, 10, 12));
        to.end(nest);
    }
}

/// A real server, `IPVS_DEST_ATTR_*`. Every part may be absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dest {
    /// Address family; that of the service if absent.
    pub af: Option<u16>,
    /// Address, an IPv4 one in the first four bytes.
    pub addr: Option<[u8; 16]>,
    /// Port in host order.
    pub port: Option<u16>,
    /// Forwarding method, `IP_VS_CONN_F_*`.
    pub fwd_method: Option<u32>,
    /// Weight, a signed number.
    pub weight: Option<u32>,
    /// Upper threshold.
    pub u_thresh: Option<u32>,
    /// Lower threshold.
    pub l_thresh: Option<u32>,
    /// Tunnel type.
    pub tun_type: Option<u8>,
    /// Tunnel port in host order.
    pub tun_port: Option<u16>,
    /// Tunnel flags.
    pub tun_flags: Option<u16>,
    /// Beyond the kernel's: how the server is told who its clients are.
    pub client_address: Option<u8>,
    /// Active, inactive and persistent connections.
    pub conns: Option<[u32; 3]>,
    /// Counters and rates.
    pub stats: Option<Stats>,
}

impl Dest {
    /// Reads the attributes of a real server.
    pub fn parse(from: &Attributes) -> Result<Self, Errno> {
        let conns = match (from.u32(7)?, from.u32(8)?, from.u32(9)?) {
            (Some(active), Some(inactive), Some(persistent)) => {
                Some([active, inactive, persistent])
            }
            _ => None,
        };
        Ok(Self {
            af: from.u16(11)?,
            addr: address(from, 1)?,
            port: from.be16(2)?,
            fwd_method: from.u32(3)?,
            weight: from.u32(4)?,
            u_thresh: from.u32(5)?,
            l_thresh: from.u32(6)?,
            tun_type: from.u8(13)?,
            tun_port: from.be16(14)?,
            tun_flags: from.u16(15)?,
            client_address: from.u8(attribute::CLIENT_ADDRESS)?,
            conns,
            stats: Stats::parse(from, 10, 12)?,
        })
    }

    /// Appends the real server as an attribute of a command.
    pub fn emit(&self, to: &mut Writer, side: Side) {
        let nest = side.begin(to, attribute::DEST);
        if side == Side::Client {
            self.af.inspect(|af| to.u16(11, *af));
        }
        self.addr.inspect(|addr| to.bytes(1, addr));
        self.port.inspect(|port| to.be16(2, *port));
        self.fwd_method.inspect(|method| to.u32(3, *method));
        self.weight.inspect(|weight| to.u32(4, *weight));
        self.tun_type.inspect(|kind| to.u8(13, *kind));
        self.tun_port.inspect(|port| to.be16(14, *port));
        self.tun_flags.inspect(|flags| to.u16(15, *flags));
        self.u_thresh.inspect(|threshold| to.u32(5, *threshold));
        self.l_thresh.inspect(|threshold| to.u32(6, *threshold));
        self.client_address.inspect(|number| to.u8(attribute::CLIENT_ADDRESS, *number));
        if let Some(conns) = self.conns {
            (7..).zip(conns).for_each(|(kind, count)| to.u32(kind, count));
        }
        if side == Side::Director {
            self.af.inspect(|af| to.u16(11, *af));
        }
        self.stats.inspect(|stats| stats.emit(to, 10, 12));
        to.end(nest);
    }
}

/// A synchronisation daemon, `IPVS_DAEMON_ATTR_*`. Every part may be absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Daemon {
    /// 1 master, 2 backup.
    pub state: Option<u32>,
    /// Multicast interface.
    pub mcast_ifn: Option<String>,
    /// Synchronisation id.
    pub sync_id: Option<u32>,
    /// Longest message.
    pub sync_maxlen: Option<u16>,
    /// IPv4 group, in network order.
    pub mcast_group: Option<[u8; 4]>,
    /// IPv6 group.
    pub mcast_group6: Option<[u8; 16]>,
    /// UDP port in host order. The attribute itself is in host order too.
    pub mcast_port: Option<u16>,
    /// TTL.
    pub mcast_ttl: Option<u8>,
}

impl Daemon {
    /// Reads the attributes of a daemon.
    pub fn parse(from: &Attributes) -> Result<Self, Errno> {
        Ok(Self {
            state: from.u32(1)?,
            mcast_ifn: from.string(2, MAX_NAME)?,
            sync_id: from.u32(3)?,
            sync_maxlen: from.u16(4)?,
            mcast_group: from.array(5)?,
            mcast_group6: from.array(6)?,
            mcast_port: from.u16(7)?,
            mcast_ttl: from.u8(8)?,
        })
    }

    /// Appends the daemon as an attribute of a command.
    pub fn emit(&self, to: &mut Writer, side: Side) {
        let nest = side.begin(to, attribute::DAEMON);
        self.state.inspect(|state| to.u32(1, *state));
        self.mcast_ifn.as_ref().inspect(|name| to.string(2, name));
        self.sync_id.inspect(|id| to.u32(3, *id));
        self.sync_maxlen.inspect(|length| to.u16(4, *length));
        self.mcast_port.inspect(|port| to.u16(7, *port));
        self.mcast_ttl.inspect(|ttl| to.u8(8, *ttl));
        self.mcast_group.inspect(|group| to.bytes(5, group));
        self.mcast_group6.inspect(|group| to.bytes(6, group));
        to.end(nest);
    }
}

/// Counters and rates, `IPVS_STATS_ATTR_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Counters.
    pub totals: Totals,
    /// Rates.
    pub rates: Rates,
}

impl Stats {
    /// Reads the 64-bit form (`wide`), else the 32-bit one (`narrow`).
    fn parse(from: &Attributes, narrow: u16, wide: u16) -> Result<Option<Self>, Errno> {
        let mut values = [0; 10];
        if let Some(stats) = from.nested(wide) {
            for (kind, value) in (1..).zip(&mut values) {
                *value = stats.u64(kind)?.unwrap_or(0);
            }
        } else if let Some(stats) = from.nested(narrow) {
            for (kind, value) in (1..).zip(&mut values) {
                let wide = matches!(kind, BYTES_IN | BYTES_OUT);
                let narrow = || Ok(stats.u32(kind)?.map(u64::from));
                *value = if wide { stats.u64(kind)? } else { narrow()? }.unwrap_or(0);
            }
        } else {
            return Ok(None);
        }
        Ok(Some(Self::from_values(values)))
    }

    /// Appends both forms, as the kernel does. What does not fit 32 bits loses its high half there.
    fn emit(&self, to: &mut Writer, narrow: u16, wide: u16) {
        let nest = to.begin(narrow);
        for (kind, value) in (1..).zip(self.values()) {
            match kind {
                BYTES_IN | BYTES_OUT => to.u64(kind, value, PAD),
                _ => to.u32(kind, value as u32),
            }
        }
        to.end(nest);
        let nest = to.begin(wide);
        (1..).zip(self.values()).for_each(|(kind, value)| to.u64(kind, value, PAD));
        to.end(nest);
    }

    fn values(&self) -> [u64; 10] {
        let Self { totals: t, rates: r } = self;
        [
            t.connections,
            t.in_packets,
            t.out_packets,
            t.in_bytes,
            t.out_bytes,
            r.cps,
            r.in_pps,
            r.out_pps,
            r.in_bps,
            r.out_bps,
        ]
    }

    fn from_values(values: [u64; 10]) -> Self {
        let [connections, in_packets, out_packets, in_bytes, out_bytes, rates @ ..] = values;
        let [cps, in_pps, out_pps, in_bps, out_bps] = rates;
        Self {
            totals: Totals { connections, in_packets, out_packets, in_bytes, out_bytes },
            rates: Rates { cps, in_pps, out_pps, in_bps, out_bps },
        }
    }
}

const BYTES_IN: u16 = 4;
const BYTES_OUT: u16 = 5;
const PAD: u16 = 11;

/// Version and size of the connection table, the reply to `GET_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Version as `0xXXYYZZ`.
    pub version: u32,
    /// Buckets of the connection table.
    pub table_size: u32,
}

impl Info {
    /// Reads a reply.
    pub fn parse(from: &Attributes) -> Result<Self, Errno> {
        let version = from.u32(1)?.ok_or(Errno::EPROTO)?;
        Ok(Self { version, table_size: from.u32(2)?.ok_or(Errno::EPROTO)? })
    }

    /// Appends it.
    pub fn emit(&self, to: &mut Writer) {
        to.u32(1, self.version);
        to.u32(2, self.table_size);
    }
}

/// The three timeouts of `GET_CONFIG` and `SET_CONFIG`, in seconds; absent ones read as 0.
pub fn parse_timeouts(from: &Attributes) -> Result<[u32; 3], Errno> {
    Ok([from.u32(4)?.unwrap_or(0), from.u32(5)?.unwrap_or(0), from.u32(6)?.unwrap_or(0)])
}

/// Appends them: TCP, TCP after a FIN, UDP.
pub fn emit_timeouts(to: &mut Writer, timeouts: [u32; 3]) {
    (4..).zip(timeouts).for_each(|(kind, seconds)| to.u32(kind, seconds));
}

/// Addresses of 16 bytes each.
fn addresses(from: &Attributes, kind: u16) -> Result<Option<Vec<[u8; 16]>>, Errno> {
    let Some(bytes) = from.bytes(kind) else { return Ok(None) };
    let (addrs, rest) = bytes.as_chunks();
    if rest.is_empty() { Ok(Some(addrs.to_vec())) } else { Err(Errno::ERANGE) }
}

/// An address of 16 bytes; clients that write four bytes for IPv4 are understood.
fn address(from: &Attributes, kind: u16) -> Result<Option<[u8; 16]>, Errno> {
    let Some(bytes) = from.bytes(kind) else { return Ok(None) };
    let mut addr = [0; 16];
    match bytes.len() {
        4 | 16 => addr[..bytes.len()].copy_from_slice(bytes),
        _ => return Err(Errno::ERANGE),
    }
    Ok(Some(addr))
}
