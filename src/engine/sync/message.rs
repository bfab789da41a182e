//! Messages: entries behind a header, in the two versions of the protocol.
//!
//! **Shape** — all numbers in network order. Version 1: 0, id, length (2), number of entries,
//! 1, 0 (2); an entry has its kind, protocol, length (2; the upper four bits are a version, 0),
//! flags (4), state (2), three ports, mark (4), timeout (4), three addresses, then options as
//! (kind, length, value); entries begin at multiples of four. Version 0: number of entries, id,
//! length (2); an entry has 0, protocol, three ports, three IPv4 addresses, flags (2), state (2),
//! and the shifts of sequence numbers if `flags` tell of any.
//!
//! **Source** — the kernel's messages as recorded, and linux/net/netfilter/ipvs/ip_vs_sync.c for
//! what a backup refuses.

use super::entry::{Engine, Entry, SEQUENCE_LEN, flag};
use crate::packet::{Addr, Endpoint, Family};

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4 only, without marks, timeouts and options.
    V0,
    /// Everything.
    V1,
}

/// Why a message, or an entry of it, is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Shorter than a header.
    #[error("too short")]
    Short,
    /// Not as long as its header says.
    #[error("not as long as it says")]
    Length,
    /// Of another synchronisation id.
    #[error("of another id")]
    Id,
    /// An entry that does not fit, is of an unknown kind, or has options that cannot be read. What
    /// follows it cannot be read either.
    #[error("an entry cannot be read")]
    Entry,
    /// An entry with an option that is not known here and must not be passed over.
    #[error("an entry makes no sense here")]
    Senseless,
}

const HEADER_V0: usize = 4;
const HEADER_V1: usize = 8;
const ENTRY_V0: usize = 24;
/// What comes before the addresses.
const FIXED_V1: usize = 24;
const KIND_IPV6: u8 = 1;
const LENGTH_MASK: u16 = 0x0fff;
const OPTION_SEQUENCE: u8 = 1;
const OPTION_ENGINE_DATA: u8 = 2;
const OPTION_ENGINE_NAME: u8 = 3;
/// Who does not know such an option may pass over it.
const OPTION_MAY_BE_SKIPPED: u8 = 0x40;
/// **Source** — IPVS `IP_VS_PENAME_MAXLEN`.
const LONGEST_NAME: usize = 16;

impl Version {
    /// The length of an entry, without padding.
    pub fn entry_len(self, entry: &Entry) -> usize {
        let shifts = entry.flags & flag::SEQUENCE != 0;
        match self {
            Self::V0 => ENTRY_V0 + if shifts { SEQUENCE_LEN } else { 0 },
            Self::V1 => {
                let addresses = 3 * width(entry.client.addr.family());
                let engine =
                    entry.engine.map_or(0, |engine| 2 + engine.data.len() + 2 + engine.name.len());
                FIXED_V1 + addresses + if shifts { 2 + SEQUENCE_LEN } else { 0 } + engine
            }
        }
    }

    /// The length of a header.
    pub fn header_len(self) -> usize {
        match self {
            Self::V0 => HEADER_V0,
            Self::V1 => HEADER_V1,
        }
    }

    /// Begins a message.
    pub fn begin(self, message: &mut Vec<u8>, id: u8) {
        message.clear();
        match self {
            Self::V0 => message.extend([0, id, 0, HEADER_V0 as u8]),
            Self::V1 => message.extend([0, id, 0, HEADER_V1 as u8, 0, 1, 0, 0]),
        }
    }

    /// Appends an entry; the caller keeps to 255 of them, and to what 16 bits can tell as length.
    pub fn push(self, message: &mut Vec<u8>, entry: &Entry) {
        let count_at = match self {
            Self::V0 => {
                push_v0(message, entry);
                0
            }
            Self::V1 => {
                message.resize(message.len().next_multiple_of(4), 0);
                push_v1(message, entry, self.entry_len(entry));
                4
            }
        };
        message[count_at] = message[count_at].wrapping_add(1);
        let len = message.len() as u16;
        message[2..4].copy_from_slice(&len.to_be_bytes());
    }
}

fn push_v0(message: &mut Vec<u8>, entry: &Entry) {
    message.extend([0, entry.protocol]);
    let ends = [entry.client, entry.virtual_endpoint, entry.real_endpoint];
    ends.iter().for_each(|end| message.extend(end.port.to_be_bytes()));
    ends.iter().for_each(|end| message.extend(end.addr.v4_bits().to_be_bytes()));
    message.extend((entry.flags as u16).to_be_bytes());
    message.extend(entry.state.to_be_bytes());
    if entry.flags & flag::SEQUENCE != 0 {
        message.extend(entry.shifts.unwrap_or_default());
    }
}

fn push_v1(message: &mut Vec<u8>, entry: &Entry, len: usize) {
    let family = entry.client.addr.family();
    let kind = if family == Family::V6 { KIND_IPV6 } else { 0 };
    message.extend([kind, entry.protocol]);
    message.extend((len as u16 & LENGTH_MASK).to_be_bytes());
    message.extend(entry.flags.to_be_bytes());
    message.extend(entry.state.to_be_bytes());
    let ends = [entry.client, entry.virtual_endpoint, entry.real_endpoint];
    ends.iter().for_each(|end| message.extend(end.port.to_be_bytes()));
    message.extend(entry.mark.to_be_bytes());
    message.extend(entry.timeout_s.to_be_bytes());
    for end in ends {
        match family {
            Family::V4 => message.extend(end.addr.v4_bits().to_be_bytes()),
            Family::V6 => message.extend(end.addr.bits().to_be_bytes()),
        }
    }
    if entry.flags & flag::SEQUENCE != 0 {
        push_option(message, OPTION_SEQUENCE, &entry.shifts.unwrap_or_default());
    }
    if let Some(Engine { name, data }) = entry.engine {
        push_option(message, OPTION_ENGINE_DATA, data);
        push_option(message, OPTION_ENGINE_NAME, name);
    }
}

fn push_option(message: &mut Vec<u8>, kind: u8, value: &[u8]) {
    message.extend([kind, value.len() as u8]);
    message.extend(value);
}

fn width(family: Family) -> usize {
    match family {
        Family::V4 => 4,
        Family::V6 => 16,
    }
}

/// The entries of a message.
#[derive(Clone, Copy, Debug)]
pub struct Entries<'a> {
    message: &'a [u8],
    version: Version,
    at: usize,
    left: u8,
}

/// The entries of a message for whoever listens to `id`, 0 for any.
///
/// **Errors** — why the message as a whole is not taken.
pub fn read(message: &[u8], id: u8) -> Result<Entries<'_>, Refusal> {
    let Some((header, _)) = message.split_first_chunk::<HEADER_V0>() else {
        return Err(Refusal::Short);
    };
    let [count, its_id, high, low] = *header;
    if usize::from(u16::from_be_bytes([high, low])) != message.len() {
        return Err(Refusal::Length);
    }
    if id != 0 && its_id != id {
        return Err(Refusal::Id);
    }
    // What is not of version 1 is of version 0, in which the first byte counts.
    Ok(match message.get(4..HEADER_V1) {
        Some([left, 1, 0, 0]) if count == 0 => {
            Entries { message, version: Version::V1, at: HEADER_V1, left: *left }
        }
        _ => Entries { message, version: Version::V0, at: HEADER_V0, left: count },
    })
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, Refusal>;

    /// The next entry; after one that cannot be read there are no more.
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let read = match self.version {
            Version::V0 => self.next_v0().ok_or(Refusal::Entry),
            Version::V1 => self.next_v1(),
        };
        if read == Err(Refusal::Entry) {
            self.left = 0;
        }
        Some(read)
    }
}

impl<'a> Entries<'a> {
    fn next_v0(&mut self) -> Option<Entry<'a>> {
        let fields = Fields(self.message.get(self.at..self.at + ENTRY_V0)?);
        self.at += ENTRY_V0;
        let flags = u32::from(fields.u16(20)?);
        let shifts = if flags & flag::SEQUENCE != 0 {
            let shifts = self.message.get(self.at..self.at + SEQUENCE_LEN)?;
            self.at += SEQUENCE_LEN;
            shifts.first_chunk().copied()
        } else {
            None
        };
        let end = |index: usize| {
            let addr = Addr::v4(fields.u32(8 + 4 * index)?);
            Some(Endpoint::new(addr, fields.u16(2 + 2 * index)?))
        };
        Some(Entry {
            protocol: fields.u8(1)?,
            client: end(0)?,
            virtual_endpoint: end(1)?,
            real_endpoint: end(2)?,
            flags,
            state: fields.u16(22)?,
            mark: 0,
            timeout_s: 0,
            shifts,
            engine: None,
        })
    }

    fn next_v1(&mut self) -> Result<Entry<'a>, Refusal> {
        let (bytes, next) = self.bytes_v1().ok_or(Refusal::Entry)?;
        self.at = next;
        entry_v1(bytes)
    }

    /// The bytes of the next entry, and where the one after it begins.
    fn bytes_v1(&self) -> Option<(&'a [u8], usize)> {
        let rest = self.message.get(self.at..)?;
        // What is shorter than the shortest entry is not looked at.
        rest.get(..FIXED_V1 + 3 * width(Family::V4))?;
        let length = Fields(rest).u16(2)?;
        let len = usize::from(length & LENGTH_MASK);
        if length & !LENGTH_MASK != 0 {
            return None;
        }
        Some((rest.get(..len)?, self.at + len.next_multiple_of(4)))
    }
}

/// An entry of version 1. What has options that nobody knows is `Senseless`.
fn entry_v1(bytes: &[u8]) -> Result<Entry<'_>, Refusal> {
    let (fixed, options) = fixed_v1(bytes).ok_or(Refusal::Entry)?;
    let options = Options::read(options)?;
    // Data without a name is for the reader to refuse.
    let engine = options.data.map(|data| Engine { name: options.name.unwrap_or_default(), data });
    Ok(Entry { shifts: options.shifts, engine, ..fixed })
}

/// An entry without its options, and the options.
fn fixed_v1(bytes: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let fields = Fields(bytes);
    let family = match fields.u8(0)? {
        0 => Family::V4,
        kind if kind & KIND_IPV6 != 0 => Family::V6,
        _ => return None,
    };
    let width = width(family);
    let end = |index: usize| {
        let at = FIXED_V1 + width * index;
        let addr = match family {
            Family::V4 => Addr::v4(fields.u32(at)?),
            Family::V6 => Addr::v6(u128::from_be_bytes(*bytes.get(at..)?.first_chunk()?)),
        };
        // No host has an address that cannot be told from an IPv4 one.
        (addr.family() == family).then_some(Endpoint::new(addr, fields.u16(10 + 2 * index)?))
    };
    let entry = Entry {
        protocol: fields.u8(1)?,
        client: end(0)?,
        virtual_endpoint: end(1)?,
        real_endpoint: end(2)?,
        flags: fields.u32(4)?,
        state: fields.u16(8)?,
        mark: fields.u32(16)?,
        timeout_s: fields.u32(20)?,
        shifts: None,
        engine: None,
    };
    Some((entry, bytes.get(FIXED_V1 + 3 * width..)?))
}

#[derive(Default)]
struct Options<'a> {
    shifts: Option<[u8; SEQUENCE_LEN]>,
    data: Option<&'a [u8]>,
    name: Option<&'a [u8]>,
}

impl<'a> Options<'a> {
    /// Reads options; each may be there once.
    ///
    /// **Errors** — `Senseless` at one that nobody knows and that may not be skipped, `Entry` at
    /// one that cannot be read.
    fn read(mut bytes: &'a [u8]) -> Result<Self, Refusal> {
        let mut options = Self::default();
        while !bytes.is_empty() {
            let [kind, len, rest @ ..] = bytes else { return Err(Refusal::Entry) };
            let (value, rest) = rest.split_at_checked(usize::from(*len)).ok_or(Refusal::Entry)?;
            if value.is_empty() {
                return Err(Refusal::Entry);
            }
            let known = match kind & !OPTION_MAY_BE_SKIPPED {
                OPTION_SEQUENCE => {
                    value.try_into().ok().and_then(|shifts| once(&mut options.shifts, shifts))
                }
                OPTION_ENGINE_DATA => once(&mut options.data, value),
                OPTION_ENGINE_NAME if value.len() > LONGEST_NAME => None,
                OPTION_ENGINE_NAME => once(&mut options.name, value),
                _ if kind & OPTION_MAY_BE_SKIPPED != 0 => Some(()),
                _ => return Err(Refusal::Senseless),
            };
            known.ok_or(Refusal::Entry)?;
            bytes = rest;
        }
        Ok(options)
    }
}

/// Takes a value over that may come once only.
fn once<T>(option: &mut Option<T>, value: T) -> Option<()> {
    option.replace(value).is_none().then_some(())
}

/// Reads numbers in network order.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u8(&self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    fn u16(&self, at: usize) -> Option<u16> {
        Some(u16::from_be_bytes(*self.0.get(at..)?.first_chunk()?))
    }

    fn u32(&self, at: usize) -> Option<u32> {
        Some(u32::from_be_bytes(*self.0.get(at..)?.first_chunk()?))
    }
}
