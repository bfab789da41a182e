//! Spells out the synchronisation messages that a master director multicasts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::packet::{proto_name, to_hex};

const TYPE_INET6: u8 = 1;
/// Connection flags that announce TCP sequence adjustments in version 0.
const SEQ_OPTIONS_V0: u16 = 0x0060;
const OPTION_IS_PARAMETER: u8 = 0x40;
/// The bits of a length field that tell the length.
const LENGTH_MASK: u16 = 0x0fff;

/// A header line, then one line per connection; what cannot be read is said to be so.
pub(super) fn describe(message: &[u8]) -> Vec<String> {
    let version = message.first().zip(message.get(5));
    let lines = match version {
        Some((0, 1)) => describe_v1(message),
        Some(_) => describe_v0(message),
        None => None,
    };
    lines.unwrap_or_else(|| vec!["sync: malformed".into()])
}

fn describe_v1(message: &[u8]) -> Option<Vec<String>> {
    let reader = Reader(message);
    let (id, size, count) = (reader.u8(1)?, reader.u16(2)?, reader.u8(4)?);
    let mut lines = vec![format!("sync version=1 syncid={id} size={size} connections={count}")];
    let mut at = 8;
    for _ in 0..count {
        let entry = Reader(message.get(at..)?);
        let length = entry.u16(2)?;
        let end = usize::from(length & LENGTH_MASK);
        lines.push(describe_entry(&entry, length, end)?);
        at += end.next_multiple_of(4);
    }
    Some(lines)
}

fn describe_entry(entry: &Reader<'_>, length: u16, end: usize) -> Option<String> {
    let kind = entry.u8(0)?;
    let width = if kind & TYPE_INET6 != 0 { 16 } else { 4 };
    let ends = (0..3).map(|index| {
        let addr = entry.addr(24 + width * index, width)?;
        Some(endpoint(addr, entry.u16(10 + 2 * index)?))
    });
    let ends: Option<Vec<String>> = ends.collect();
    let options = describe_options(entry.0.get(24 + 3 * width..end).unwrap_or_default())?;
    let line = format!(
        "{} {} flags={:#x} state={} fwmark={} timeout={} type={kind} length={length}",
        proto_name(entry.u8(1)?),
        ends?.join(" "),
        entry.u32(4)?,
        entry.u16(8)?,
        entry.u32(16)?,
        entry.u32(20)?,
    );
    Some([vec![line], options].concat().join(" "))
}

fn describe_options(data: &[u8]) -> Option<Vec<String>> {
    let (mut words, mut rest) = (Vec::new(), data);
    while let [kind, length, tail @ ..] = rest {
        if *kind == 0 {
            break;
        }
        let (value, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        words.push(match kind & !OPTION_IS_PARAMETER {
            1 => format!("seq={}", to_hex(value)),
            2 => format!("pe_data={}", to_hex(value)),
            3 => format!("pe_name={}", std::str::from_utf8(value).ok()?),
            other => format!("{other}={}", to_hex(value)),
        });
        rest = tail;
    }
    Some(words)
}

fn describe_v0(message: &[u8]) -> Option<Vec<String>> {
    let reader = Reader(message);
    let (count, id, size) = (reader.u8(0)?, reader.u8(1)?, reader.u16(2)?);
    let mut lines = vec![format!("sync version=0 syncid={id} size={size} connections={count}")];
    let mut at = 4;
    for _ in 0..count {
        let entry = Reader(message.get(at..)?);
        let ends = (0..3)
            .map(|index| Some(endpoint(entry.addr(8 + 4 * index, 4)?, entry.u16(2 + 2 * index)?)));
        let ends: Option<Vec<String>> = ends.collect();
        let (flags, state) = (entry.u16(20)?, entry.u16(22)?);
        let name = proto_name(entry.u8(1)?);
        lines.push(format!("{name} {} flags={flags:#x} state={state}", ends?.join(" ")));
        at += if flags & SEQ_OPTIONS_V0 != 0 { 48 } else { 24 };
    }
    Some(lines)
}

fn endpoint(addr: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(addr, port).to_string()
}

/// Reads numbers in network order.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn u8(&self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    fn u16(&self, at: usize) -> Option<u16> {
        Some(u16::from_be_bytes(self.0.get(at..at + 2)?.try_into().ok()?))
    }

    fn u32(&self, at: usize) -> Option<u32> {
        Some(u32::from_be_bytes(self.0.get(at..at + 4)?.try_into().ok()?))
    }

    fn addr(&self, at: usize, width: usize) -> Option<IpAddr> {
        let bytes = self.0.get(at..at + width)?;
        Some(match <[u8; 16]>::try_from(bytes) {
            Ok(octets) => Ipv6Addr::from(octets).into(),
            Err(_) => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_spelled_out_and_damaged_ones_called_so() {
        let mut message = vec![0, 7, 0, 44, 1, 1, 0, 0];
        message.extend([
            0, 6, 0, 36, 0, 0, 1, 0, 0, 1, 3, 232, 0, 80, 0, 80, 0, 0, 0, 0, 0, 0, 3, 132,
        ]);
        message.extend([12, 0, 0, 2, 12, 0, 0, 1, 192, 168, 200, 110]);
        let lines = describe(&message);
        assert_eq!(
            lines,
            [
                "sync version=1 syncid=7 size=44 connections=1",
                "tcp 12.0.0.2:1000 12.0.0.1:80 192.168.200.110:80 flags=0x100 state=1 fwmark=0 timeout=900 type=0 length=36",
            ]
        );
        for len in 0..message.len() {
            assert_eq!(describe(&message[..len]), ["sync: malformed"], "cut to {len}");
        }
        assert_eq!(describe(&[2, 7, 0, 4]), ["sync: malformed"]);
    }
}
