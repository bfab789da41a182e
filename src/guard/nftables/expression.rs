//! The steps of a rule, and how they are told to the kernel.

use super::message::Attributes;
use crate::packet::Family;

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

/// How an expression is told.
impl Attributes<'_> {
    pub fn expression(&mut self, expression: &Expression) {
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

const LOOKUP_INVERTED: u32 = 1;
const UPDATE: u32 = 1;
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
