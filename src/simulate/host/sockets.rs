//! Sockets of the director host, whose programs neither read nor write more than scenarios ask for.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;

use super::tcp::{Connection, Opening, Reaction, State, WINDOW_SCALE, segment};
use crate::engine::Moment;
use crate::simulate::packet::{Packet, Proto};

/// An address and a port of either side.
pub type End = (IpAddr, u16);

/// The room that Linux has at first, in bytes: it announces the whole segments of that.
const BUFFER: u32 = 65_536;
const MSS_OPTION_KIND: u8 = 2;
const MSS_OPTION: [u8; 2] = [MSS_OPTION_KIND, 4];
/// Headers of a segment without options.
const HEADERS_V4: usize = 40;
const HEADERS_V6: usize = 60;
/// The maximum segment to the host itself, whose loopback link takes 65,536 bytes: one byte more
/// would not fit into a datagram. **Source** — Linux's recordings.
const LOOPBACK_MTU: usize = 65_535;
const LOOPBACK_MTU_V6: usize = 65_536;
const SACK_OPTION: [u8; 4] = [1, 1, 4, 2];
const WINDOW_SCALE_OPTION: [u8; 4] = [1, 3, 3, WINDOW_SCALE];
/// Numbers from a million on are shown as chosen at random.
const FIRST_SEQUENCE: u32 = 1_000_000_007;

/// Why a socket cannot be had, in the words of the C library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SocketError {
    /// The address is not one of the host's.
    #[error("Cannot assign requested address")]
    NotLocal,
    /// The address and port are taken.
    #[error("Address already in use")]
    InUse,
}

/// The host's sockets.
#[derive(Debug, Default)]
pub struct Sockets {
    bound: Vec<(Proto, End)>,
    /// Those for TCP that accept connections.
    listening: Vec<End>,
    /// UDP sockets that hear one peer only.
    paired: HashMap<End, End>,
    connections: HashMap<(End, End), Connection>,
    opened: u32,
}

/// What the host's sockets make of a packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Delivery {
    /// There is no socket for it.
    Refused,
    /// It was taken, and perhaps answered.
    Taken(Option<Box<Packet>>),
}

impl Sockets {
    /// Binds a socket.
    pub fn bind(&mut self, proto: Proto, end: End) -> Result<(), SocketError> {
        if self.bound.contains(&(proto, end)) {
            return Err(SocketError::InUse);
        }
        self.bound.push((proto, end));
        Ok(())
    }

    /// Has a bound TCP socket accept connections.
    pub fn listen(&mut self, end: End) {
        self.listening.push(end);
    }

    /// Begins a connection; the SYN is to be sent.
    ///
    /// `mtu` is the size of the link towards the destination, in bytes; `None` for the host itself.
    pub fn connect(
        &mut self,
        source: End,
        destination: End,
        mtu: Option<usize>,
        now: Moment,
    ) -> Packet {
        let start = self.first_sequence();
        let mss = largest_segment(destination.0, mtu);
        let window = first_window(mss);
        let mut connection = Connection::new(source, destination, State::SynSent, start, window);
        let mut syn = segment(source, destination, "S");
        syn.fields.win = window;
        syn.fields.seq = start;
        syn.fields.opts = [mss_option(mss), SACK_OPTION, WINDOW_SCALE_OPTION].concat();
        connection.opening = Some(Opening::new(syn.clone(), now));
        self.connections.insert((source, destination), connection);
        syn
    }

    /// Has a UDP socket that is bound hear one peer only.
    pub fn pair(&mut self, source: End, destination: End) {
        self.paired.insert(source, destination);
    }

    /// Delivers a datagram.
    pub fn deliver_udp(&self, packet: &Packet) -> Delivery {
        let Some((source, destination)) = ends(packet) else { return Delivery::Taken(None) };
        let hears = self.paired.get(&destination).is_none_or(|peer| *peer == source);
        if hears && self.is_bound(Proto::Udp, destination) {
            Delivery::Taken(None)
        } else {
            Delivery::Refused
        }
    }

    /// Delivers a segment. `mtu` is the size of the link towards its sender, in bytes; `None` for the
    /// host itself.
    pub fn deliver_tcp(&mut self, packet: &Packet, mtu: Option<usize>, now: Moment) -> Delivery {
        let Some((source, destination)) = ends(packet) else { return Delivery::Taken(None) };
        let key = (destination, source);
        if let Some(connection) = self.connections.get_mut(&key) {
            if connection.state == State::SynSent && packet.kind.contains('S') {
                agree(connection, packet);
                // A SYN that crosses the host's own takes nothing back that this one offered.
                connection.is_scaled |= !packet.kind.contains('A');
            }
            match connection.receive(packet, now) {
                Reaction::Taken(answer) => return Delivery::Taken(answer),
                Reaction::Ended(answer) => {
                    self.connections.remove(&key);
                    return Delivery::Taken(answer);
                }
                Reaction::Foreign => {}
            }
        }
        if !self.is_listening(destination) || packet.kind.contains('A') {
            return Delivery::Refused;
        }
        let opens = packet.kind.contains('S') && !packet.kind.contains(['R', 'F']);
        Delivery::Taken(opens.then(|| Box::new(self.accept(packet, destination, source, mtu, now))))
    }

    /// Gives a connection up that only begins, if an ICMP error about its own SYN says so. The answer
    /// to a SYN is given up if the error `refuses_answer`.
    pub fn hear_error(&mut self, sent: &Packet, refuses_answer: bool) {
        let Some(ends) = ends(sent) else { return };
        let fails = self.connections.get(&ends).is_some_and(|connection| match connection.state {
            State::SynSent | State::Crossed => connection.is_waiting(sent.fields.seq),
            State::Requested => {
                refuses_answer && sent.fields.seq.wrapping_add(1) == connection.next
            }
            State::Established | State::HalfClosed => false,
        });
        if fails {
            self.connections.remove(&ends);
        }
    }

    /// What the connections have to say by now of their own accord.
    pub fn poll(&mut self, now: Moment) -> Vec<Packet> {
        let mut due = Vec::new();
        self.connections.retain(|_, connection| match connection.poll(now) {
            Some(packets) => {
                due.push((connection.next, packets));
                true
            }
            None => false,
        });
        // The clock wakes those first that came last.
        due.sort_by_key(|(begun, _)| Reverse(*begun));
        due.into_iter().flat_map(|(_, packets)| packets).collect()
    }

    /// Whether a segment of the host's own has a number that its connection waits to have
    /// acknowledged, or will use next.
    pub fn is_waiting(&self, sent: &Packet) -> bool {
        let connection = ends(sent).and_then(|ends| self.connections.get(&ends));
        connection.is_some_and(|connection| connection.is_waiting(sent.fields.seq))
    }

    fn accept(
        &mut self,
        syn: &Packet,
        own: End,
        peer: End,
        mtu: Option<usize>,
        now: Moment,
    ) -> Packet {
        let start = self.first_sequence();
        let mss = largest_segment(peer.0, mtu);
        let window = first_window(mss);
        let mut connection = Connection::new(own, peer, State::Requested, start, window);
        connection.expect_after(syn.fields.seq);
        agree(&mut connection, syn);
        // Who marks a SYN as able to tell of congestion does not know the rules. RFC 3168 §6.1.1.
        connection.tells_congestion =
            syn.kind.contains('E') && syn.kind.contains('C') && syn.fields.tos & 3 == 0;
        let mut answer = segment(own, peer, if connection.tells_congestion { "SAE" } else { "SA" });
        answer.fields.seq = start;
        answer.fields.ack = connection.expected;
        answer.fields.win = window;
        answer.fields.id = 0;
        answer.fields.opts = mss_option(mss).to_vec();
        if connection.is_selective {
            answer.fields.opts.extend(SACK_OPTION);
        }
        if connection.is_scaled {
            answer.fields.opts.extend(WINDOW_SCALE_OPTION);
        }
        connection.opening = Some(Opening::new(answer.clone(), now));
        self.connections.insert((own, peer), connection);
        answer
    }

    fn is_listening(&self, (addr, port): End) -> bool {
        self.listening.iter().any(|(bound, bound_port)| {
            *bound_port == port && (*bound == addr || bound.is_unspecified())
        })
    }

    fn is_bound(&self, proto: Proto, (addr, port): End) -> bool {
        self.bound.iter().any(|(each, (bound, bound_port))| {
            *each == proto && *bound_port == port && (*bound == addr || bound.is_unspecified())
        })
    }

    fn first_sequence(&mut self) -> u32 {
        self.opened = self.opened.wrapping_add(1);
        FIRST_SEQUENCE.wrapping_add(self.opened.wrapping_mul(0x1000) & 0x3fff_ffff)
    }
}

/// Takes over what the peer's SYN offers.
fn agree(connection: &mut Connection, syn: &Packet) {
    connection.is_selective = has_option(&syn.fields.opts, SACK_OPTION[2]);
    connection.is_scaled = has_option(&syn.fields.opts, WINDOW_SCALE_OPTION[1]);
}

/// The largest segment that a link of `mtu` bytes takes; `None` for the host itself.
fn largest_segment(peer: IpAddr, mtu: Option<usize>) -> u16 {
    let (headers, loopback) = match peer {
        IpAddr::V4(_) => (HEADERS_V4, LOOPBACK_MTU),
        IpAddr::V6(_) => (HEADERS_V6, LOOPBACK_MTU_V6),
    };
    mtu.unwrap_or(loopback).saturating_sub(headers) as u16
}

/// Has a SYN that is sent again, or the answer to one, offer no larger segments than its path is by
/// now known to take.
pub fn lower_mss(segment: &mut Packet, path: Option<usize>) {
    let largest = largest_segment(segment.dst, path);
    if let Some([MSS_OPTION_KIND, _, mss @ ..]) = segment.fields.opts.first_chunk_mut::<4>() {
        *mss = u16::from_be_bytes(*mss).min(largest).to_be_bytes();
    }
}

fn mss_option(mss: u16) -> [u8; 4] {
    let [high, low] = mss.to_be_bytes();
    [MSS_OPTION[0], MSS_OPTION[1], high, low]
}

/// **Source** — Linux `tcp_select_initial_window`: whole segments.
fn first_window(mss: u16) -> u16 {
    let whole = BUFFER - BUFFER % u32::from(mss.max(1));
    whole.min(u16::MAX.into()) as u16
}

fn ends(packet: &Packet) -> Option<(End, End)> {
    let (sport, dport) = packet.ports?;
    Some(((packet.src, sport), (packet.dst, dport)))
}

/// Whether TCP options hold one of a kind. **Source** — RFC 9293 §3.1.
fn has_option(mut options: &[u8], kind: u8) -> bool {
    while let Some((&first, rest)) = options.split_first() {
        match first {
            0 => return false,
            1 => options = rest,
            _ if first == kind => return true,
            _ => {
                let len = rest.first().map_or(0, |len| usize::from(*len));
                options = options.get(len.max(2)..).unwrap_or_default();
            }
        }
    }
    false
}
