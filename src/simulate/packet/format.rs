//! Packet to text.

use std::fmt::{self, Write};
use std::net::IpAddr;

use super::parse::{Field, fields_of};
use super::wire::to_hex;
use super::{Fields, GUE_PORT, NAMED_PROTOCOLS, Packet, Payload, Proto, SYNC_PORT, Sum};
use crate::packet::address_text;

/// TCP sequence numbers from here on are chosen at random by the director's own stack.
const SEQ_RANDOM_FROM: u32 = 1_000_000;
/// The identification that a packet has unless it says otherwise.
const DEFAULT_ID: u32 = 1;

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.format(DEFAULT_ID))
    }
}

impl Packet {
    /// One line; fields that hold their default are left out, except the TTL, and random values are
    /// masked: of the identifications all but `known_id` and 0.
    pub fn format(&self, known_id: u32) -> String {
        let mut line = self.format_ends();
        line += " ";
        line += &self.proto_name();
        if !self.kind.is_empty() {
            line += " ";
            line += &self.kind;
        }
        for field in fields_of(self.proto) {
            if let Some(word) = self.format_field(field, known_id) {
                line += " ";
                line += &word;
            }
        }
        if let Some(inner) = &self.inner {
            write!(line, " {{{}}}", inner.format(known_id)).expect("a String takes everything");
        }
        line
    }

    /// The protocol's name in the notation.
    pub fn proto_name(&self) -> String {
        match self.proto {
            Proto::Other(number) => format!("p{number}"),
            proto => {
                let named = NAMED_PROTOCOLS.iter().find(|(each, ..)| *each == proto);
                named.expect("every other protocol is in the table").1.to_string()
            }
        }
    }

    fn format_ends(&self) -> String {
        let Some((sport, dport)) = self.ports else {
            return format!("{} > {}", address_text(self.src), address_text(self.dst));
        };
        // The director picks the source ports of these.
        let random = self.proto == Proto::Udp && [GUE_PORT, SYNC_PORT].contains(&dport);
        let sport = if random { "*".to_string() } else { sport.to_string() };
        format!("{} > {}", endpoint(self.src, &sport), endpoint(self.dst, &dport.to_string()))
    }

    fn format_field(&self, field: Field, known_id: u32) -> Option<String> {
        let Self { fields, .. } = self;
        match field {
            Field::Id => self.format_id(known_id),
            Field::Seq | Field::Ack if self.proto == Proto::Tcp => {
                let value = if field == Field::Seq { fields.seq } else { fields.ack };
                let masked = value >= SEQ_RANDOM_FROM;
                let value = if masked { "*".to_string() } else { value.to_string() };
                (value != "0").then(|| format!("{}={value}", field.name()))
            }
            Field::Df | Field::Csum => {
                let set = if field == Field::Df { fields.df } else { fields.csum };
                set.then(|| field.name().to_string())
            }
            field => fields.value(field).map(|value| format!("{}={value}", field.name())),
        }
    }

    /// Identifications are random unless copied from the packet that was sent.
    fn format_id(&self, known_id: u32) -> Option<String> {
        if self.src.is_ipv6() && self.fields.frag.is_none() {
            return None;
        }
        match self.fields.id {
            DEFAULT_ID if known_id == DEFAULT_ID => None,
            id if id == known_id => Some(format!("id={id}")),
            0 => Some("id=0".into()),
            _ => Some("id=*".into()),
        }
    }
}

impl Fields {
    /// What is written after `NAME=`, if the field is to be written at all.
    fn value(&self, field: Field) -> Option<String> {
        let number = |value: u32| (value != 0).then(|| value.to_string());
        let bytes = |value: &[u8]| (!value.is_empty()).then(|| to_hex(value));
        match (field, &self.payload) {
            (Field::Seq, _) => number(self.seq),
            (Field::Ack, _) => number(self.ack),
            (Field::Win, _) => (self.win != Self::default().win).then(|| self.win.to_string()),
            (Field::Opts, _) => bytes(&self.opts),
            (Field::Ident, _) => number(self.ident.into()),
            (Field::Mtu, _) => number(self.mtu),
            (Field::Gw, _) => self.gw.map(|gateway| gateway.to_string()),
            (Field::Tag, _) => number(self.tag),
            (Field::Spi, _) => number(self.spi),
            (Field::Len, Payload::Filler(len)) => (*len != 0).then(|| len.to_string()),
            (Field::Data, Payload::Data(data)) => bytes(data),
            (Field::Text, Payload::Text(text)) => (!text.is_empty()).then(|| text.clone()),
            (Field::Len | Field::Data | Field::Text, _) => None,
            (Field::Sum, _) => match self.sum {
                Sum::Good => None,
                Sum::Bad => Some("bad".into()),
                Sum::Absent => Some("none".into()),
            },
            (Field::Ttl, _) => Some(self.ttl.to_string()),
            (Field::Tos, _) => (self.tos != 0).then(|| format!("{:#x}", self.tos)),
            (Field::Frag, _) => {
                self.frag.map(|frag| format!("{}{}", frag.offset, if frag.more { "+" } else { "" }))
            }
            (Field::IpOpts, _) => bytes(&self.ipopts),
            (Field::Ext, _) => {
                let numbers: Vec<String> = self.ext.iter().map(u8::to_string).collect();
                (!numbers.is_empty()).then(|| numbers.join(","))
            }
            (Field::IpSum, _) => self.bad_ip_sum.then(|| "bad".into()),
            (Field::Quote, _) => number(self.quote as u32),
            (Field::Df | Field::Csum | Field::Id, _) => None,
        }
    }
}

/// An address and a port as they are written in transcripts.
pub(super) fn endpoint(addr: IpAddr, port: &str) -> String {
    let text = address_text(addr);
    if addr.is_ipv6() { format!("[{text}]:{port}") } else { format!("{text}:{port}") }
}
