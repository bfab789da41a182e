//! Attributes of one nesting level, read and written.

use netlink_packet_core::{DefaultNla, Emitable, NetlinkBuffer, NetlinkHeader, NlasIterator};
use netlink_packet_generic::GenlHeader;
use nix::errno::Errno;

/// The attributes of one nesting level, by number. Of equal ones the last counts, as in Linux.
#[derive(Clone, Debug, Default)]
pub struct Attributes<'a> {
    values: Vec<(u16, &'a [u8])>,
}

impl<'a> Attributes<'a> {
    /// Splits `bytes` into attributes; what follows a malformed one is left out, as in Linux.
    pub fn parse(bytes: &'a [u8]) -> Self {
        let mut values = Vec::new();
        for attribute in NlasIterator::new(bytes).map_while(Result::ok) {
            let kind = attribute.kind();
            let value = attribute.into_inner();
            // `new_checked` of the iterator vouches for the length field.
            let end = usize::from(u16::from_ne_bytes([value[0], value[1]]));
            values.push((kind, &value[HEADER..end]));
        }
        Self { values }
    }

    /// The value of an attribute.
    pub fn bytes(&self, kind: u16) -> Option<&'a [u8]> {
        self.values.iter().rev().find(|(known, _)| *known == kind).map(|(_, value)| *value)
    }

    /// The attributes inside an attribute.
    pub fn nested(&self, kind: u16) -> Option<Attributes<'a>> {
        self.bytes(kind).map(Attributes::parse)
    }

    /// The first `N` bytes of an attribute.
    ///
    /// **Errors** — `ERANGE` if it is shorter, as Linux answers.
    pub fn array<const N: usize>(&self, kind: u16) -> Result<Option<[u8; N]>, Errno> {
        let Some(value) = self.bytes(kind) else { return Ok(None) };
        value.first_chunk().copied().map(Some).ok_or(Errno::ERANGE)
    }

    /// A byte.
    pub fn u8(&self, kind: u16) -> Result<Option<u8>, Errno> {
        Ok(self.array(kind)?.map(u8::from_ne_bytes))
    }

    /// Two bytes in host order.
    pub fn u16(&self, kind: u16) -> Result<Option<u16>, Errno> {
        Ok(self.array(kind)?.map(u16::from_ne_bytes))
    }

    /// Two bytes in network order.
    pub fn be16(&self, kind: u16) -> Result<Option<u16>, Errno> {
        Ok(self.array(kind)?.map(u16::from_be_bytes))
    }

    /// Four bytes in host order.
    pub fn u32(&self, kind: u16) -> Result<Option<u32>, Errno> {
        Ok(self.array(kind)?.map(u32::from_ne_bytes))
    }

    /// Eight bytes in host order.
    pub fn u64(&self, kind: u16) -> Result<Option<u64>, Errno> {
        Ok(self.array(kind)?.map(u64::from_ne_bytes))
    }

    /// A string, up to its first NUL, of at most `limit` bytes.
    ///
    /// **Errors** — `ERANGE` if it is longer, `EINVAL` if it is no UTF-8.
    pub fn string(&self, kind: u16, limit: usize) -> Result<Option<String>, Errno> {
        let Some(value) = self.bytes(kind) else { return Ok(None) };
        let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
        if text.len() > limit {
            return Err(Errno::ERANGE);
        }
        String::from_utf8(text.to_vec()).map(Some).map_err(|_| Errno::EINVAL)
    }
}

/// Writes one netlink message.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    header: NetlinkHeader,
}

/// An attribute that was begun and waits for its end.
#[derive(Debug)]
#[must_use]
pub struct Nest {
    start: usize,
    kind: u16,
}

impl Writer {
    /// Begins a message with this netlink header; the length is filled in by `finish`.
    pub fn new(header: NetlinkHeader) -> Self {
        let mut bytes = vec![0; header.buffer_len()];
        header.emit(&mut bytes);
        Self { bytes, header }
    }

    /// Begins a generic-netlink message.
    pub fn generic(header: NetlinkHeader, command: u8, version: u8) -> Self {
        let mut writer = Self::new(header);
        writer.emit(&GenlHeader { cmd: command, version });
        writer
    }

    /// Appends anything that knows how to emit itself, padded to four bytes.
    pub fn emit(&mut self, part: &impl Emitable) {
        let start = self.bytes.len();
        self.bytes.resize(start + part.buffer_len().next_multiple_of(ALIGNMENT), 0);
        part.emit(&mut self.bytes[start..][..part.buffer_len()]);
    }

    /// Appends bytes as they are, padded to four.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }

    /// Appends an attribute.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.emit(&DefaultNla::new(kind, value.to_vec()));
    }

    /// Appends a string with its NUL.
    pub fn string(&mut self, kind: u16, text: &str) {
        self.bytes(kind, &[text.as_bytes(), &[0]].concat());
    }

    /// Appends a byte.
    pub fn u8(&mut self, kind: u16, value: u8) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// Appends two bytes in host order.
    pub fn u16(&mut self, kind: u16, value: u16) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// Appends two bytes in network order.
    pub fn be16(&mut self, kind: u16, value: u16) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Appends four bytes in host order.
    pub fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// Appends eight bytes in host order, after an empty attribute `pad` where it takes one to
    /// align the value to eight bytes.
    pub fn u64(&mut self, kind: u16, value: u64, pad: u16) {
        if !(self.bytes.len() + HEADER).is_multiple_of(8) {
            self.bytes(pad, &[]);
        }
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// Begins an attribute that holds attributes.
    pub fn begin(&mut self, kind: u16) -> Nest {
        let nest = Nest { start: self.bytes.len(), kind };
        self.bytes.resize(nest.start + HEADER, 0);
        nest
    }

    /// Ends it.
    pub fn end(&mut self, nest: Nest) {
        let length = self.bytes.len() - nest.start;
        let length = u16::try_from(length).expect("nests of ours hold a few hundred bytes");
        self.bytes[nest.start..][..2].copy_from_slice(&length.to_ne_bytes());
        self.bytes[nest.start + 2..][..2].copy_from_slice(&nest.kind.to_ne_bytes());
    }

    /// The finished message.
    pub fn finish(mut self) -> Vec<u8> {
        self.header.length = self.bytes.len() as u32;
        NetlinkBuffer::new(&mut self.bytes).set_length(self.header.length);
        self.bytes
    }
}

/// **Source** — `NLA_HDRLEN` and `NLA_ALIGNTO` of linux/netlink.h.
const HEADER: usize = 4;
const ALIGNMENT: usize = 4;
