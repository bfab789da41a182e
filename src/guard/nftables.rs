//! A table of nftables that belongs to this process: messages to the kernel, without policy.
//!
//! The table has the owner flag: nobody else can change it, and it vanishes with the socket, however
//! the process ends. **Source** — linux/netfilter/nf_tables.h.

use std::io;
use std::time::Duration;

use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};
use socket2::SockRef;

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

/// A step of a rule. Registers are 32 bits wide and numbered from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// Loads bytes of the packet into a register.
    Payload { register: u32, base: Base, offset: u32, len: u32 },
    /// Loads the transport protocol.
    TransportProtocol { register: u32 },
    /// Loads the EtherType.
    EtherType { register: u32 },
    /// Loads the number of the interface that the packet came by.
    Arrival { register: u32 },
    /// Loads the number of the interface that the packet leaves by, once it is routed.
    Departure { register: u32 },
    /// Loads for whom the packet is on its link.
    LinkAddressee { register: u32 },
    /// Loads what kind of address the destination is for the kernel's routes.
    DestinationType { register: u32 },
    /// Loads what kind of address the source is for the kernel's routes.
    SourceType { register: u32 },
    /// Loads the name of the interface the packet would leave by, before it is routed.
    OutInterface { register: u32 },
    /// Loads the name of the interface the packet came by.
    InInterface { register: u32 },
    /// Goes on if the register is in this relation to the value.
    Compare { register: u32, relation: Relation, value: Vec<u8> },
    /// Keeps some bits of a register.
    Mask { register: u32, mask: Vec<u8> },
    /// Goes on if the registers from this one on are a key of the set.
    Lookup { register: u32, set: &'static str },
    /// Goes on if they are none.
    Miss { register: u32, set: &'static str },
    /// Adds them to the learned set, for as many milliseconds.
    Learn { register: u32, set: &'static str, keep_ms: u64 },
    /// Loads a constant.
    Constant { register: u32, value: Vec<u8> },
    /// Drops the packet.
    Drop,
    /// Leaves the packet to the kernel.
    Accept,
    /// Keeps the packet from connection tracking.
    Untrack,
    /// Sends the packet out of the interface whose number is in a register, to the neighbour there
    /// whose address is in another.
    Forward { device: u32, neighbour: u32, family: Family },
    /// Sends the packet out of the interface whose number is in a register, as it is.
    Redirect { device: u32 },
    /// Sends the connection to the IPv4 address and the port in two registers.
    DestinationNat { address: u32, port: u32 },
}

/// Which header an offset counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// The Ethernet header, with its VLAN tag if there is one; packets without one have none.
    Link = 0,
    /// The IP header.
    Network = 1,
    /// The transport header.
    Transport = 2,
}

/// How a register is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Equal.
    Equal = 0,
    /// Not equal.
    Unequal = 1,
    /// Less or equal, as numbers of the network's byte order.
    AtMost = 3,
    /// Greater or equal.
    AtLeast = 5,
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

/// The error number of an acknowledgement, 0 for success, and what follows it.
fn parse_answer(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let len = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let errno = i32::from_ne_bytes(*bytes.get(16..)?.first_chunk()?);
    let errno = if i32::from(kind) == libc::NLMSG_ERROR { errno.checked_neg()? } else { 0 };
    Some((errno, bytes.get(len.max(16).next_multiple_of(4)..).unwrap_or_default()))
}

/// A transaction on its way to the kernel.
struct Batch<'a> {
    table: &'a str,
    family: u8,
    bytes: Vec<u8>,
    messages: usize,
}

impl<'a> Batch<'a> {
    fn new(table: &'a str, family: u8) -> Self {
        let mut batch = Self { table, family, bytes: Vec::new(), messages: 0 };
        batch.mark(BATCH_BEGIN);
        batch
    }

    fn finish(mut self) -> (Vec<u8>, usize) {
        self.mark(BATCH_END);
        (self.bytes, self.messages)
    }

    fn delete_table(&mut self) {
        let name = self.table;
        self.message(DELETE_TABLE, 0, |out| out.text(1, name));
    }

    /// Makes the table, its chains and the sets that are learned.
    fn create(&mut self, contents: &Contents) {
        let table = self.table;
        self.message(NEW_TABLE, CREATE, |out| {
            out.text(1, table);
            out.number(2, OWNER);
        });
        for (id, learned) in (LEARNED_ID..).zip(&contents.learned) {
            self.add_learned_set(id, *learned);
        }
        for (name, hook) in contents.chains() {
            self.add_chain(name, hook.chain_type(), |out| out.hook(hook));
        }
    }

    /// Takes out all but the chains and what is learned.
    fn empty(&mut self, present: &Present) {
        let table = self.table;
        for (chain, _) in &present.chains {
            self.message(DELETE_RULE, 0, |out| {
                out.text(1, table);
                out.text(2, chain);
            });
        }
        for set in &present.sets {
            self.message(DELETE_SET, 0, |out| {
                out.text(1, table);
                out.text(2, set);
            });
        }
    }

    /// Adds sets and rules.
    fn add(&mut self, contents: &Contents) {
        for (id, set) in (1..).zip(&contents.sets) {
            self.add_set(id, set);
        }
        contents.rules.iter().for_each(|rule| self.add_rule(CHAIN, rule));
        for chain in &contents.others {
            chain.rules.iter().for_each(|rule| self.add_rule(chain.name, rule));
        }
    }

    fn add_chain(&mut self, name: &str, kind: &str, hook: impl FnOnce(&mut Attributes<'_>)) {
        let table = self.table;
        self.message(NEW_CHAIN, CREATE, |out| {
            out.text(1, table);
            out.text(3, name);
            out.nest(4, hook);
            out.number(5, libc::NF_ACCEPT as u32);
            out.text(7, kind);
        });
    }

    fn add_rule(&mut self, chain: &str, rule: &[Expression]) {
        let table = self.table;
        self.message(NEW_RULE, CREATE | APPEND, |out| {
            out.text(1, table);
            out.text(2, chain);
            out.nest(4, |list| {
                for expression in rule {
                    list.nest(LIST_ELEMENT, |out| out.expression(expression));
                }
            });
        });
    }

    fn add_learned_set(&mut self, id: u32, set: LearnedSet) {
        let table = self.table;
        self.message(NEW_SET, CREATE, |out| {
            out.text(1, table);
            out.text(2, set.name);
            out.number(3, SET_LEARNS | SET_FORGETS);
            out.number(4, set.key_type);
            out.number(5, set.key_len);
            out.nest(9, |shape| shape.number(1, LEARNED_MOST));
            out.number(10, id);
            out.bytes(11, &set.keep_ms.to_be_bytes());
        });
    }

    fn add_set(&mut self, id: u32, set: &Set) {
        let table = self.table;
        let key_len = set.keys.first().map_or(4, Vec::len) as u32;
        self.message(NEW_SET, CREATE, |out| {
            out.text(1, table);
            out.text(2, set.name);
            out.number(3, 0);
            out.number(4, set.key_type);
            out.number(5, key_len);
            out.number(10, id);
        });
        for keys in set.keys.chunks(KEYS_EACH) {
            self.message(NEW_ELEMENTS, CREATE, |out| {
                out.text(1, table);
                out.text(2, set.name);
                out.number(4, id);
                out.nest(3, |list| {
                    for key in keys {
                        list.nest(LIST_ELEMENT, |element| {
                            element.nest(1, |data| data.bytes(1, key));
                        });
                    }
                });
            });
        }
    }

    fn mark(&mut self, kind: u16) {
        let at = self.begin(kind, REQUEST, 0, SUBSYSTEM);
        self.end(at);
    }

    fn message(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Attributes<'_>)) {
        let flags = REQUEST | ACKNOWLEDGE | flags;
        let at = self.begin(SUBSYSTEM << 8 | kind, flags, self.family, 0);
        body(&mut Attributes(&mut self.bytes));
        self.end(at);
        self.messages += 1;
    }

    fn begin(&mut self, kind: u16, flags: u16, family: u8, resource: u16) -> usize {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        at
    }

    fn end(&mut self, at: usize) {
        let len = (self.bytes.len() - at) as u32;
        self.bytes[at..at + 4].copy_from_slice(&len.to_ne_bytes());
    }
}

/// Attributes at the end of a message.
struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.raw(kind, |out| out.extend_from_slice(value));
    }

    fn text(&mut self, kind: u16, text: &str) {
        self.raw(kind, |out| {
            out.extend_from_slice(text.as_bytes());
            out.push(0);
        });
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Attributes<'_>)) {
        self.raw(kind | libc::NLA_F_NESTED as u16, |out| body(&mut Attributes(out)));
    }

    fn hook(&mut self, hook: &Hook) {
        match hook {
            Hook::Prerouting(_) => {
                self.number(1, PREROUTING);
                self.number(2, PRIORITY as u32);
            }
            Hook::DestinationNat => {
                self.number(1, PREROUTING);
                self.number(2, NAT_PRIORITY as u32);
            }
            Hook::Forward(_) => {
                self.number(1, libc::NF_INET_FORWARD as u32);
                self.number(2, 0);
            }
            Hook::Output(_) => {
                self.number(1, libc::NF_INET_LOCAL_OUT as u32);
                self.number(2, 0);
            }
            Hook::Ingress(interfaces) | Hook::Egress(interfaces) => {
                let is_egress = matches!(hook, Hook::Egress(_));
                self.number(1, if is_egress { EGRESS } else { INGRESS });
                self.number(2, 0);
                self.nest(4, |list| interfaces.iter().for_each(|name| list.text(1, name)));
            }
        }
    }

    /// A value as expressions have it.
    fn value(&mut self, kind: u16, value: &[u8]) {
        self.nest(kind, |data| data.bytes(1, value));
    }

    fn raw(&mut self, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
        let at = self.0.len();
        self.0.extend_from_slice(&[0; 2]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        body(self.0);
        let len = (self.0.len() - at) as u16;
        self.0[at..at + 2].copy_from_slice(&len.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn expression(&mut self, expression: &Expression) {
        use Expression::*;
        match expression {
            Payload { register, base, offset, len } => self.named("payload", |out| {
                out.number(1, FIRST_REGISTER + register);
                out.number(2, *base as u32);
                out.number(3, *offset);
                out.number(4, *len);
            }),
            TransportProtocol { register } => self.meta(*register, META_L4PROTO),
            EtherType { register } => self.meta(*register, META_PROTOCOL),
            Arrival { register } => self.meta(*register, META_ARRIVAL),
            Departure { register } => self.meta(*register, META_DEPARTURE),
            LinkAddressee { register } => self.meta(*register, META_PACKET_TYPE),
            InInterface { register } => self.meta(*register, META_INPUT_NAME),
            DestinationType { register } => {
                self.fib(*register, FIB_ADDRESS_TYPE, FIB_BY_DESTINATION);
            }
            SourceType { register } => self.fib(*register, FIB_ADDRESS_TYPE, FIB_BY_SOURCE),
            OutInterface { register } => {
                self.fib(*register, FIB_INTERFACE_NAME, FIB_BY_DESTINATION);
            }
            Compare { register, relation, value } => self.named("cmp", |out| {
                out.number(1, FIRST_REGISTER + register);
                out.number(2, *relation as u32);
                out.value(3, value);
            }),
            Mask { register, mask } => self.named("bitwise", |out| {
                out.number(1, FIRST_REGISTER + register);
                out.number(2, FIRST_REGISTER + register);
                out.number(3, mask.len() as u32);
                out.value(4, mask);
                out.value(5, &vec![0; mask.len()]);
            }),
            Lookup { register, set } => self.named("lookup", |out| {
                out.text(1, set);
                out.number(2, FIRST_REGISTER + register);
            }),
            Miss { register, set } => self.named("lookup", |out| {
                out.text(1, set);
                out.number(2, FIRST_REGISTER + register);
                out.number(5, LOOKUP_INVERTED);
            }),
            Learn { register, set, keep_ms } => self.named("dynset", |out| {
                out.text(1, set);
                out.number(3, UPDATE);
                out.number(4, FIRST_REGISTER + register);
                out.bytes(6, &keep_ms.to_be_bytes());
            }),
            Constant { register, value } => self.named("immediate", |out| {
                out.number(1, FIRST_REGISTER + register);
                out.value(2, value);
            }),
            Drop => self.verdict(libc::NF_DROP),
            Accept => self.verdict(libc::NF_ACCEPT),
            Untrack => self.text(1, "notrack"),
            Forward { device, neighbour, family } => self.named("fwd", |out| {
                let protocol = match family {
                    Family::V4 => libc::NFPROTO_IPV4,
                    Family::V6 => libc::NFPROTO_IPV6,
                };
                out.number(1, FIRST_REGISTER + device);
                out.number(2, FIRST_REGISTER + neighbour);
                out.number(3, protocol as u32);
            }),
            Redirect { device } => {
                self.named("fwd", |out| out.number(1, FIRST_REGISTER + device));
            }
            DestinationNat { address, port } => self.named("nat", |out| {
                out.number(1, DESTINATION_NAT);
                out.number(2, libc::NFPROTO_IPV4 as u32);
                out.number(3, FIRST_REGISTER + address);
                out.number(5, FIRST_REGISTER + port);
            }),
        }
    }

    fn verdict(&mut self, code: i32) {
        self.named("immediate", |out| {
            out.number(1, VERDICT_REGISTER);
            out.nest(2, |data| data.nest(2, |verdict| verdict.number(1, code as u32)));
        });
    }

    fn meta(&mut self, register: u32, what: u32) {
        self.named("meta", |out| {
            out.number(1, FIRST_REGISTER + register);
            out.number(2, what);
        });
    }

    fn fib(&mut self, register: u32, result: u32, by: u32) {
        self.named("fib", |out| {
            out.number(1, FIRST_REGISTER + register);
            out.number(2, result);
            out.number(3, by);
        });
    }

    fn named(&mut self, name: &str, body: impl FnOnce(&mut Attributes<'_>)) {
        self.text(1, name);
        self.nest(2, body);
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
/// Before connection tracking, as iptables' table `raw`.
const PRIORITY: i32 = -300;
/// As iptables' table `nat` has it there.
const NAT_PRIORITY: i32 = -100;
const INGRESS: u32 = 0;
const EGRESS: u32 = 1;
const PREROUTING: u32 = libc::NF_INET_PRE_ROUTING as u32;
const SUBSYSTEM: u16 = libc::NFNL_SUBSYS_NFTABLES as u16;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const DELETE_SET: u16 = 11;
const NEW_ELEMENTS: u16 = 12;
const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const ACKNOWLEDGE: u16 = libc::NLM_F_ACK as u16;
const CREATE: u16 = libc::NLM_F_CREATE as u16;
const APPEND: u16 = libc::NLM_F_APPEND as u16;
const OWNER: u32 = 2;
/// The number by which the first learned set is known within a transaction; others count from one.
const LEARNED_ID: u32 = 1000;
/// Keys that a learned set has room for.
pub const LEARNED_MOST: u32 = 65_536;
/// `NFT_SET_EVAL` and `NFT_SET_TIMEOUT`.
const SET_LEARNS: u32 = 0x20;
const SET_FORGETS: u32 = 0x10;
const LOOKUP_INVERTED: u32 = 1;
const UPDATE: u32 = 1;
const LIST_ELEMENT: u16 = 1;
/// `NFT_REG32_00`.
const FIRST_REGISTER: u32 = 8;
const VERDICT_REGISTER: u32 = 0;
const META_PROTOCOL: u32 = 1;
const META_ARRIVAL: u32 = 4;
const META_DEPARTURE: u32 = 5;
const META_INPUT_NAME: u32 = 6;
const META_L4PROTO: u32 = 16;
const META_PACKET_TYPE: u32 = 19;
const FIB_INTERFACE_NAME: u32 = 2;
const FIB_ADDRESS_TYPE: u32 = 3;
const FIB_BY_SOURCE: u32 = 1;
const FIB_BY_DESTINATION: u32 = 2;
const DESTINATION_NAT: u32 = 1;
/// An attribute's length is 16 bits wide.
const KEYS_EACH: usize = 1000;
