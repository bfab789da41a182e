//! Text to packet.

use std::net::IpAddr;
use std::str::FromStr;

use super::wire::from_hex;
use super::{
    Fields, Fragment, NAMED_PROTOCOLS, Packet, Payload, Proto, SCTP_CHUNKS, Sum, TCP_FLAGS,
};

/// Why the text of a packet cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotationError(pub(super) String);

/// A field of the notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Seq,
    Ack,
    Win,
    Opts,
    Ident,
    Mtu,
    Gw,
    Tag,
    Spi,
    Csum,
    Len,
    Data,
    Text,
    Sum,
    Ttl,
    Tos,
    Df,
    Id,
    Frag,
    IpOpts,
    Ext,
    IpSum,
    Quote,
}

/// The fields of every protocol, in the order in which they are written.
const COMMON_FIELDS: [Field; 13] = [
    Field::Len,
    Field::Data,
    Field::Text,
    Field::Sum,
    Field::Ttl,
    Field::Tos,
    Field::Df,
    Field::Id,
    Field::Frag,
    Field::IpOpts,
    Field::Ext,
    Field::IpSum,
    Field::Quote,
];

/// Every field a protocol may have, in the order in which they are written.
pub(super) fn fields_of(proto: Proto) -> impl Iterator<Item = Field> {
    let own: &[Field] = match proto {
        Proto::Tcp => &[Field::Seq, Field::Ack, Field::Win, Field::Opts],
        Proto::Icmp => &[Field::Ident, Field::Seq, Field::Mtu, Field::Gw],
        Proto::Icmp6 => &[Field::Ident, Field::Seq, Field::Mtu],
        Proto::Sctp => &[Field::Tag],
        Proto::Esp | Proto::Ah => &[Field::Spi, Field::Seq],
        Proto::Gre => &[Field::Csum],
        Proto::Igmp | Proto::IpIp | Proto::Udp | Proto::Other(_) => &[],
    };
    own.iter().copied().chain(COMMON_FIELDS)
}

impl Field {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Seq => "seq",
            Self::Ack => "ack",
            Self::Win => "win",
            Self::Opts => "opts",
            Self::Ident => "ident",
            Self::Mtu => "mtu",
            Self::Gw => "gw",
            Self::Tag => "tag",
            Self::Spi => "spi",
            Self::Csum => "csum",
            Self::Len => "len",
            Self::Data => "data",
            Self::Text => "text",
            Self::Sum => "sum",
            Self::Ttl => "ttl",
            Self::Tos => "tos",
            Self::Df => "df",
            Self::Id => "id",
            Self::Frag => "frag",
            Self::IpOpts => "ipopts",
            Self::Ext => "ext",
            Self::IpSum => "ipsum",
            Self::Quote => "quote",
        }
    }
}

impl FromStr for Packet {
    type Err = NotationError;

    fn from_str(text: &str) -> Result<Self, NotationError> {
        parse_packet(text, 0)
    }
}

/// Nested packets beyond this depth are refused, so that text cannot exhaust the stack.
const MAX_DEPTH: usize = 8;
/// The bytes that the length field of an IP header can tell.
const MAX_LEN_BYTES: usize = 65_535;

fn parse_packet(text: &str, depth: usize) -> Result<Packet, NotationError> {
    let (head, inner) = match text.split_once('{') {
        Some((head, rest)) => (head, Some(Box::new(parse_inner(rest, depth)?))),
        None => (text, None),
    };
    let words: Vec<&str> = head.split_whitespace().collect();
    let [src, ">", dst, proto, rest @ ..] = words.as_slice() else {
        return fail("expected 'SRC > DST PROTOCOL ...'");
    };
    let (src, sport) = parse_endpoint(src)?;
    let (dst, dport) = parse_endpoint(dst)?;
    if src.is_ipv6() != dst.is_ipv6() {
        return fail("source and destination differ in address family");
    }
    let mut packet = Packet::new(src, dst, parse_protocol(proto)?);
    packet.ports = sport.zip(dport);
    packet.inner = inner;
    if packet.proto.has_ports() != packet.ports.is_some() {
        return fail("ports go with tcp, udp and sctp, and only with them");
    }
    let fields = packet.parse_kind_word(rest)?;
    for word in fields {
        packet.parse_field(word)?;
    }
    check(&packet)?;
    Ok(packet)
}

fn parse_inner(text: &str, depth: usize) -> Result<Packet, NotationError> {
    let Some(text) = text.trim_end().strip_suffix('}') else { return fail("missing '}'") };
    if depth == MAX_DEPTH {
        return fail(format!("packets are nested more than {MAX_DEPTH} deep"));
    }
    parse_packet(text, depth + 1)
}

/// Refuses what no sequence of bytes can be made of.
fn check(packet: &Packet) -> Result<(), NotationError> {
    let (fields, inner) = (&packet.fields, packet.inner.as_deref());
    let ipv6 = packet.src.is_ipv6();
    match packet.proto {
        Proto::IpIp | Proto::Gre if inner.is_none() => {
            fail(format!("{} needs an {{inner packet}}", packet.proto_name()))
        }
        _ if !ipv6 && fields.id > 0xffff => fail(format!("id={} is above 65535", fields.id)),
        _ if ipv6 && !fields.ipopts.is_empty() => fail("ipopts go with IPv4 only"),
        _ if !ipv6 && !fields.ext.is_empty() => fail("ext goes with IPv6 only"),
        _ => {
            let len = packet.whole_len();
            if len > MAX_LEN_BYTES {
                return fail(format!("the packet takes {len} bytes, more than IP can carry"));
            }
            Ok(())
        }
    }
}

/// Reads `12.0.0.1:80`, `12.0.0.1`, `[2001:db8::1]:80` or `2001:db8::1`.
fn parse_endpoint(text: &str) -> Result<(IpAddr, Option<u16>), NotationError> {
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').unwrap_or((rest, ""));
            (address, port.strip_prefix(':').unwrap_or(port))
        }
        None if text.matches(':').count() == 1 => text.split_once(':').unwrap_or((text, "")),
        None => (text, ""),
    };
    let bad = || NotationError(format!("bad address '{text}'"));
    let address = address.parse().map_err(|_| bad())?;
    let port = if port.is_empty() { None } else { Some(port.parse().map_err(|_| bad())?) };
    Ok((address, port))
}

fn parse_protocol(text: &str) -> Result<Proto, NotationError> {
    if let Some((proto, ..)) = NAMED_PROTOCOLS.iter().find(|(_, name, _)| *name == text) {
        return Ok(*proto);
    }
    let number = text.strip_prefix('p').and_then(|number| number.parse().ok());
    number.map(Proto::Other).ok_or_else(|| NotationError(format!("unknown protocol '{text}'")))
}

impl Packet {
    /// Takes the kind off the words after the protocol, where it has one.
    fn parse_kind_word<'a>(
        &mut self,
        words: &'a [&'a str],
    ) -> Result<&'a [&'a str], NotationError> {
        match self.proto {
            Proto::Tcp | Proto::Sctp | Proto::Icmp | Proto::Icmp6 => {
                let (kind, rest) = words.split_first().unwrap_or((&"", &[]));
                self.parse_kind(kind)?;
                Ok(rest)
            }
            Proto::Udp if self.inner.is_some() => match words.split_first() {
                Some((kind, rest)) if is_gue(kind) => {
                    self.kind = (*kind).to_string();
                    Ok(rest)
                }
                _ => fail("an inner packet of udp goes with the kind gue"),
            },
            _ => Ok(words),
        }
    }

    /// Sets TCP flags, ICMP type and code, or SCTP chunks.
    ///
    /// **Errors** — if the packet's protocol has no such kind; it is left as it was.
    pub fn parse_kind(&mut self, kind: &str) -> Result<(), NotationError> {
        let byte = |part: &str| part.parse::<u8>().is_ok();
        let (good, wanted) = match self.proto {
            Proto::Tcp => {
                let flags = kind == "0" || kind.chars().all(|letter| TCP_FLAGS.contains(letter));
                (!kind.is_empty() && flags, format!("flags out of {TCP_FLAGS}, or 0"))
            }
            Proto::Sctp => {
                let good = kind.split('+').all(|chunk| SCTP_CHUNKS.contains(&chunk));
                (good, "chunk names joined by '+'".into())
            }
            Proto::Icmp | Proto::Icmp6 => {
                let good = kind.split_once('/').is_some_and(|(ty, code)| byte(ty) && byte(code));
                (good, "TYPE/CODE".into())
            }
            _ => (false, "no kind".into()),
        };
        if !good {
            return fail(format!("{} wants {wanted}, not '{kind}'", self.proto_name()));
        }
        self.kind = kind.to_string();
        Ok(())
    }

    /// Sets one field from `NAME=VALUE`, or `NAME` for those that are there or not.
    ///
    /// **Errors** — if the packet's protocol has no such field, or the value does not fit; the packet
    /// is left as it was.
    pub fn parse_field(&mut self, word: &str) -> Result<(), NotationError> {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let Some(field) = fields_of(self.proto).find(|field| field.name() == name) else {
            return fail(format!("'{name}' is no field of {}", self.proto_name()));
        };
        let wide_seq = !self.proto.is_icmp();
        let set = self.fields.set(field, value, wide_seq);
        set.ok_or_else(|| NotationError(format!("bad value in '{word}'")))
    }
}

impl Fields {
    fn set(&mut self, field: Field, value: Option<&str>, wide_seq: bool) -> Option<()> {
        match (field, value) {
            (Field::Df, None) => self.df = true,
            (Field::Csum, None) => self.csum = true,
            (Field::Df | Field::Csum, Some(_)) | (_, None) => return None,
            (Field::Seq, Some(value)) if wide_seq => self.seq = number(value)?,
            (Field::Seq, Some(value)) => self.seq = number::<u16>(value)?.into(),
            (Field::Ack, Some(value)) => self.ack = number(value)?,
            (Field::Win, Some(value)) => self.win = number(value)?,
            (Field::Opts, Some(value)) => self.opts = options(value)?,
            (Field::Ident, Some(value)) => self.ident = number(value)?,
            (Field::Mtu, Some(value)) => self.mtu = number(value)?,
            (Field::Gw, Some(value)) => self.gw = Some(value.parse().ok()?),
            (Field::Tag, Some(value)) => self.tag = number(value)?,
            (Field::Spi, Some(value)) => self.spi = number(value)?,
            (Field::Len, Some(value)) => {
                self.payload = Payload::Filler(number::<u16>(value)?.into());
            }
            (Field::Data, Some(value)) => self.payload = Payload::Data(from_hex(value)?),
            (Field::Text, Some(value)) => self.payload = Payload::Text(latin(value)?),
            (Field::Sum, Some(value)) => self.sum = checksum_state(value)?,
            (Field::Ttl, Some(value)) => self.ttl = number(value)?,
            (Field::Tos, Some(value)) => self.tos = number(value)?,
            (Field::Id, Some(value)) => self.id = number(value)?,
            (Field::Frag, Some(value)) => self.frag = Some(fragment(value)?),
            (Field::IpOpts, Some(value)) => self.ipopts = options(value)?,
            (Field::Ext, Some(value)) => self.ext = extension_headers(value)?,
            (Field::IpSum, Some(value)) => self.bad_ip_sum = checksum_state(value)? == Sum::Bad,
            (Field::Quote, Some(value)) => self.quote = number::<u16>(value)?.into(),
        }
        Some(())
    }
}

/// A decimal number, or a hexadecimal one after `0x`.
fn number<T: TryFrom<u64>>(text: &str) -> Option<T> {
    let value = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    T::try_from(value.ok()?).ok()
}

/// Options of TCP or IPv4, of which a header has room for 40 bytes.
fn options(text: &str) -> Option<Vec<u8>> {
    from_hex(text).filter(|bytes| bytes.len() <= 40 && bytes.len().is_multiple_of(4))
}

fn latin(text: &str) -> Option<String> {
    text.is_ascii().then(|| text.to_string())
}

fn checksum_state(text: &str) -> Option<Sum> {
    match text {
        "ok" => Some(Sum::Good),
        "bad" => Some(Sum::Bad),
        "none" => Some(Sum::Absent),
        _ => None,
    }
}

/// `24+` is offset 24 with more fragments to come.
fn fragment(text: &str) -> Option<Fragment> {
    let (offset, more) = match text.strip_suffix('+') {
        Some(offset) => (offset, true),
        None => (text, false),
    };
    let offset: u16 = offset.parse().ok()?;
    offset.is_multiple_of(8).then_some(Fragment { offset, more })
}

fn extension_headers(text: &str) -> Option<Vec<u8>> {
    text.split(',').map(|header| header.parse().ok()).collect()
}

fn is_gue(kind: &str) -> bool {
    match kind.strip_prefix("gue") {
        Some("") => true,
        Some(options) => gue_options(options).is_some(),
        None => false,
    }
}

/// The bytes of a GUE header after its second, as in `gue+0001...`.
pub(super) fn gue_options(suffix: &str) -> Option<Vec<u8>> {
    let bytes = from_hex(suffix.strip_prefix('+')?)?;
    (bytes.len() >= 6 && bytes.len() <= 2 + 31 * 4 && bytes.len() % 4 == 2).then_some(bytes)
}

fn fail<T>(why: impl Into<String>) -> Result<T, NotationError> {
    Err(NotationError(why.into()))
}
