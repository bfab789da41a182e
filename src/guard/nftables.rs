//! A table of nftables that belongs to this process: messages to the kernel, without policy.
//!
//! The table has the owner flag: nobody else can change it, and it vanishes with the socket, however
//! the process ends. **Source** — linux/netfilter/nf_tables.h.

mod expression;
mod message;

use std::io;
use std::time::Duration;

use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};
use socket2::SockRef;

pub use expression::{Base, Expression, Relation};
use message::{Batch, parse_answer};

use crate::packet::{Addr, Family};

/// The table in the kernel, as long as this lives.
#[derive(Debug)]
pub struct OwnedTable {
    socket: Socket,
    name: String,
    family: u8,
    /// What is there; none while there is no table.
    present: Option<Present>,
}

/// What a table has in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Present {
    chains: Vec<(&'static str, Hook)>,
    /// The sets, but for the learned ones.
    sets: Vec<&'static str>,
}

/// Where a chain of a table sees packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Packets of a family that arrive, before routing and before connection tracking.
    Prerouting(Family),
    /// Packets of a family that the kernel forwards.
    Forward(Family),
    /// Packets of a family that the host itself sends.
    Output(Family),
    /// All packets that arrive by these interfaces, before anything else of the kernel.
    Ingress(Vec<String>),
    /// All packets that leave by these interfaces, after everything else of the kernel. Takes Linux
    /// 5.17 with CONFIG_NETFILTER_EGRESS.
    Egress(Vec<String>),
    /// First packets of IPv4 connections that arrive, before routing, for translation.
    DestinationNat,
}

impl Hook {
    fn family(&self) -> u8 {
        match self {
            Self::Prerouting(family) | Self::Forward(family) | Self::Output(family) => match family
            {
                Family::V4 => libc::NFPROTO_IPV4 as u8,
                Family::V6 => libc::NFPROTO_IPV6 as u8,
            },
            Self::DestinationNat => libc::NFPROTO_IPV4 as u8,
            Self::Ingress(_) | Self::Egress(_) => libc::NFPROTO_NETDEV as u8,
        }
    }

    fn chain_type(&self) -> &'static str {
        match self {
            Self::DestinationNat => "nat",
            _ => FILTER,
        }
    }
}

/// What a table is to consist of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Where the first chain is. A table stays with the family of the hook it began with.
    pub hook: Hook,
    /// The sets that rules look up.
    pub sets: Vec<Set>,
    /// The rules, each a list of expressions that ends in what becomes of the packet.
    pub rules: Vec<Vec<Expression>>,
    /// Sets that rules add to.
    pub learned: Vec<LearnedSet>,
    /// Further chains.
    pub others: Vec<Chain>,
}

/// A chain beside the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// Where it is.
    pub hook: Hook,
    /// Its rules.
    pub rules: Vec<Vec<Expression>>,
}

impl Contents {
    /// Nothing yet.
    pub fn new(hook: Hook) -> Self {
        let (sets, rules) = (Vec::new(), Vec::new());
        Self { hook, sets, rules, learned: Vec::new(), others: Vec::new() }
    }

    fn chains(&self) -> impl Iterator<Item = (&'static str, &Hook)> {
        let others = self.others.iter().map(|chain| (chain.name, &chain.hook));
        std::iter::once((CHAIN, &self.hook)).chain(others)
    }

    fn present(&self) -> Present {
        let chains = self.chains().map(|(name, hook)| (name, hook.clone()));
        let sets = self.sets.iter().map(|set| set.name);
        Present { chains: chains.collect(), sets: sets.collect() }
    }
}

/// A set of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: &'static str,
    /// How tools are to show its keys.
    pub key_type: u32,
    /// Its keys, each a whole number of 32-bit registers.
    pub keys: Vec<Vec<u8>>,
}

/// A set whose keys the kernel adds itself, at most [`LEARNED_MOST`], and forgets again some time
/// after it saw them last. It outlives all changes of the other contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LearnedSet {
    /// Its name.
    pub name: &'static str,
    /// How tools are to show its keys.
    pub key_type: u32,
    /// Bytes of a key, a whole number of 32-bit registers.
    pub key_len: u32,
    /// How long a key is remembered, in milliseconds.
    pub keep_ms: u64,
}

impl OwnedTable {
    /// A table for hooks of this kind that is not in the kernel yet.
    pub fn new(hook: &Hook) -> io::Result<Self> {
        Self::beside(hook, "")
    }

    /// The same with something behind its name, for a process that has several of a kind.
    pub fn beside(hook: &Hook, behind: &str) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        SockRef::from(&socket).set_read_timeout(Some(ANSWER_TIME))?;
        let name = format!("ulvs_{}{behind}", std::process::id());
        Ok(Self { socket, name, family: hook.family(), present: None })
    }

    /// Makes these the table's contents, all at once or not at all.
    ///
    /// **Errors** — `PermissionDenied` without CAP_NET_ADMIN.
    pub fn replace(&mut self, contents: &Contents) -> io::Result<()> {
        let mut batch = Batch::new(&self.name, self.family);
        let wanted = contents.present();
        match &self.present {
            // What was learned stays.
            Some(present) if !contents.learned.is_empty() && present.chains == wanted.chains => {
                batch.empty(present);
            }
            Some(_) => {
                batch.delete_table();
                batch.create(contents);
            }
            None => batch.create(contents),
        }
        batch.add(contents);
        self.commit(batch)?;
        self.present = Some(wanted);
        Ok(())
    }

    fn commit(&self, batch: Batch) -> io::Result<()> {
        let (bytes, messages) = batch.finish();
        if self.socket.send(&bytes, 0)? != bytes.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let mut answered = 0;
        while answered < messages {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = &datagram[..];
            while let Some((errno, next)) = parse_answer(rest) {
                if errno != 0 {
                    return Err(io::Error::from_raw_os_error(errno));
                }
                answered += 1;
                rest = next;
            }
        }
        Ok(())
    }
}

/// An address as it stands in packets.
pub fn octets(addr: Addr) -> Vec<u8> {
    match addr.family() {
        Family::V4 => addr.v4_bits().to_be_bytes().to_vec(),
        Family::V6 => addr.bits().to_be_bytes().to_vec(),
    }
}

/// A key of an address, a protocol and perhaps a port. Each takes whole registers.
pub fn key(addr: Addr, protocol: u8, port: Option<u16>) -> Vec<u8> {
    let mut key = octets(addr);
    key.extend_from_slice(&[protocol, 0, 0, 0]);
    if let Some(port) = port {
        let [high, low] = port.to_be_bytes();
        key.extend_from_slice(&[high, low, 0, 0]);
    }
    key
}

/// How nft shows keys that consist of these (`ipv4_addr . inet_proto`).
pub fn key_type(parts: &[u32]) -> u32 {
    parts.iter().fold(0, |all, part| all << 6 | part)
}

/// How nft shows the number of a protocol (`inet_proto`).
pub const PROTOCOL: u32 = 12;
/// How nft shows a port (`inet_service`).
pub const PORT: u32 = 13;
/// How nft shows any number of 32 bits (`mark`).
pub const MARK: u32 = 19;
/// How nft shows an address (`ipv4_addr`, `ipv6_addr`).
pub const fn addresses(family: Family) -> u32 {
    match family {
        Family::V4 => 7,
        Family::V6 => 8,
    }
}

/// The kernel answers while the batch is sent; this is for a kernel that does not.
const ANSWER_TIME: Duration = Duration::from_secs(2);
const CHAIN: &str = "beside_ulvs";
const FILTER: &str = "filter";
/// Keys that a learned set has room for.
pub const LEARNED_MOST: u32 = 65_536;
