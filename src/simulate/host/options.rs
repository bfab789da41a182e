//! What the host's own stack does with the options of an IPv4 packet that arrives, before anybody
//! else sees it.
//!
//! **Source** — RFC 791 §3.1, RFC 1812 §5.2.4; which mistakes are told, and that source routes are
//! not followed, as Linux does by default.

use std::net::Ipv4Addr;

use crate::simulate::packet::internet_checksum;

/// Why a packet goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It wants to go a way of its own.
    SourceRoute,
    /// The byte of its header at this place makes no sense.
    Problem(u8),
}

/// Takes note of `here`, the host's address, where the packet asks for that.
///
/// **Errors** — the packet is to be dropped; nothing of it has changed.
pub fn receive(packet: &mut [u8], here: Ipv4Addr) -> Result<(), Refused> {
    let header_len = packet.first().map_or(0, |first| usize::from(first & 15) * 4);
    if packet.first().is_none_or(|first| first >> 4 != 4)
        || header_len <= HEADER
        || header_len > packet.len()
    {
        return Ok(());
    }
    let mut header = packet[..header_len].to_vec();
    take_options(&mut header, here)?;
    header[10..12].fill(0);
    let sum = internet_checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    packet[..header_len].copy_from_slice(&header);
    Ok(())
}

/// The options of an answer from `here` to the packet with this header, which [`receive`] has taken,
/// or refused.
///
/// **Source** — RFC 1122 §3.2.2.6, §3.2.1.8, Linux `__ip_options_echo`: routes are recorded on the way
/// back as well.
pub fn echo(packet: &[u8], here: Ipv4Addr, refused: bool) -> Vec<u8> {
    let header_len = packet.first().map_or(0, |first| usize::from(first & 15) * 4);
    let mut rest = packet.get(HEADER..header_len).unwrap_or_default();
    let (mut routes, mut times, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    while let Some((&kind, behind)) = rest.split_first() {
        let len = match kind {
            END => break,
            NO_OPERATION => 1,
            _ => behind.first().map_or(0, |len| usize::from(*len)),
        };
        let Some((option, behind)) = rest.split_at_checked(len.max(1)) else { break };
        match kind {
            // What was refused was not heeded.
            RECORD_ROUTE if !refused => routes = recorded_again(option, here),
            TIMESTAMP if !refused => times = option.to_vec(),
            SECURITY_LABEL => labels = option.to_vec(),
            _ => {}
        }
        rest = behind;
    }
    let mut options = [routes, times, labels].concat();
    options.resize(options.len().next_multiple_of(4), END);
    options
}

/// An option that records a route, with one more address if there is room.
fn recorded_again(option: &[u8], here: Ipv4Addr) -> Vec<u8> {
    let mut option = option.to_vec();
    let pointer = option.get(2).map_or(0, |pointer| usize::from(*pointer));
    if let Some(place) = option.get_mut(pointer.saturating_sub(1)..pointer + 3)
        && place.len() == 4
    {
        place.copy_from_slice(&here.octets());
        option[2] += 4;
    }
    option
}

fn take_options(header: &mut [u8], here: Ipv4Addr) -> Result<(), Refused> {
    let problem = |at: usize| Refused::Problem(at as u8);
    let mut seen = Vec::new();
    let mut source_route = false;
    let mut at = HEADER;
    while at < header.len() {
        let left = header.len() - at;
        let len = match header[at] {
            END => {
                header[at..].fill(END);
                break;
            }
            NO_OPERATION => 1,
            _ if left < 2 => return Err(problem(at)),
            _ => usize::from(header[at + 1]),
        };
        let kind = header[at];
        if kind != NO_OPERATION && (len < 2 || len > left) {
            return Err(problem(at));
        }
        let option = &mut header[at..at + len];
        let repeated = seen.contains(&kind);
        match kind {
            STRICT_ROUTE | LOOSE_ROUTE => {
                check(option, at, 3, 4)?;
                if source_route {
                    return Err(problem(at));
                }
                source_route = true;
            }
            RECORD_ROUTE if repeated => return Err(problem(at)),
            RECORD_ROUTE => {
                check(option, at, 3, 4)?;
                record(option, at, here)?;
            }
            TIMESTAMP if repeated => return Err(problem(at)),
            TIMESTAMP => {
                check(option, at, 4, 5)?;
                stamp(option, at, here)?;
            }
            // Nobody has told the host of any domain of interpretation.
            SECURITY_LABEL => {
                return Err(problem(if len < LABEL_HEADER { at + 1 } else { at + 2 }));
            }
            ROUTER_ALERT if len < 4 => return Err(problem(at + 1)),
            _ => {}
        }
        seen.push(kind);
        at += len;
    }
    if source_route { Err(Refused::SourceRoute) } else { Ok(()) }
}

/// Checks the length of an option at `at`, and its pointer.
fn check(option: &[u8], at: usize, least_len: usize, least_pointer: u8) -> Result<(), Refused> {
    if option.len() < least_len {
        Err(Refused::Problem(at as u8 + 1))
    } else if option[2] < least_pointer {
        Err(Refused::Problem(at as u8 + 2))
    } else {
        Ok(())
    }
}

fn record(option: &mut [u8], at: usize, here: Ipv4Addr) -> Result<(), Refused> {
    let pointer = usize::from(option[2]);
    if pointer > option.len() {
        return Ok(());
    }
    let place = option.get_mut(pointer - 1..pointer + 3).ok_or(Refused::Problem(at as u8 + 2))?;
    place.copy_from_slice(&here.octets());
    option[2] += 4;
    Ok(())
}

/// Makes room for a timestamp, with this host's address where that is wanted. The time of day
/// itself is midnight: the simulator has no other.
fn stamp(option: &mut [u8], at: usize, here: Ipv4Addr) -> Result<(), Refused> {
    let pointer = usize::from(option[2]);
    if pointer > option.len() {
        return match option[3] >> 4 {
            15 => Err(Refused::Problem(at as u8 + 3)),
            _ => {
                option[3] += 1 << 4;
                Ok(())
            }
        };
    }
    let len = match option[3] & 15 {
        TIME_ONLY => 4,
        TIME_AND_ADDRESS => 8,
        _ => return Ok(()),
    };
    let place = option.get_mut(pointer - 1..pointer - 1 + len);
    let place = place.ok_or(Refused::Problem(at as u8 + 2))?;
    if len == 8 {
        place[..4].copy_from_slice(&here.octets());
    }
    option[2] += len as u8;
    Ok(())
}

const HEADER: usize = 20;
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const RECORD_ROUTE: u8 = 7;
const TIMESTAMP: u8 = 68;
const LOOSE_ROUTE: u8 = 131;
const STRICT_ROUTE: u8 = 137;
const ROUTER_ALERT: u8 = 148;
/// The commercial IP security option, and what it has at least.
const SECURITY_LABEL: u8 = 134;
const LABEL_HEADER: usize = 8;
const TIME_ONLY: u8 = 0;
const TIME_AND_ADDRESS: u8 = 1;
