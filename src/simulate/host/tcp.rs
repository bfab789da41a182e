//! One TCP connection of the host, whose program neither reads nor writes nor closes.
//!
//! **Source** — RFC 9293 §3.10.7, RFC 5961, RFC 2018, RFC 2883, RFC 3168; where these leave a choice,
//! Linux's `tcp_check_req`, `tcp_validate_incoming`, `tcp_rcv_state_process`, and its recordings.

use super::answers::tcp_reset;
use super::sockets::End;
use crate::engine::Moment;
use crate::simulate::packet::{Packet, Proto};

/// The scale of windows, if it is agreed on.
pub const WINDOW_SCALE: u8 = 5;
/// Answers to segments that cannot be right are this far apart at least. **Source** — Linux
/// `tcp_invalid_ratelimit`.
const BETWEEN_CHALLENGES_MS: u64 = 500;
/// What waits for an answer is sent again after a second, and then after twice as long each time.
const FIRST_WAIT_MS: u64 = 1000;
/// How long an acknowledgement may wait for company. **Source** — Linux `TCP_ATO_MIN`.
const DELAY_MS: u64 = 40;
/// How soon a SYN is sent again whose answer made no sense. **Source** — Linux `TCP_TIMEOUT_MIN`.
const SOON_MS: u64 = 20;
/// How often a SYN is sent again, and the answer to one. **Source** — Linux `tcp_syn_retries`,
/// `tcp_synack_retries`.
const SYN_REPEATS: u32 = 6;
const ANSWER_REPEATS: u32 = 5;
/// Blocks of a selective acknowledgement at most, RFC 2018 §3.
const MOST_BLOCKS: usize = 4;

/// What becomes of a segment.
#[derive(Debug, PartialEq, Eq)]
pub enum Reaction {
    /// It was taken, and perhaps answered.
    Taken(Option<Box<Packet>>),
    /// It ended the connection, and was perhaps answered.
    Ended(Option<Box<Packet>>),
    /// It is none of the connection's.
    Foreign,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The host has sent a SYN.
    SynSent,
    /// The host has answered a SYN.
    Requested,
    /// Both have sent a SYN before they got the other's.
    Crossed,
    /// Both have agreed.
    Established,
    /// The peer has closed its half.
    HalfClosed,
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    /// The host's end.
    pub own: End,
    /// The other end.
    pub peer: End,
    /// How far it has come.
    pub state: State,
    /// Number of the next byte to send.
    pub next: u32,
    /// Number of the next byte expected.
    pub expected: u32,
    /// The window that was announced last, in bytes, and the number it counts from.
    pub window: u32,
    /// What was acknowledged last.
    pub acknowledged: u32,
    /// Whether windows are scaled.
    pub is_scaled: bool,
    /// Whether acknowledgements are selective.
    pub is_selective: bool,
    /// Whether congestion is told by explicit notification.
    pub tells_congestion: bool,
    /// The SYN, or the answer to one, that waits for its own answer.
    pub opening: Option<Opening>,
    /// Whether the peer is to be told of congestion until it says that it knows.
    is_congested: bool,
    has_data: bool,
    /// What came ahead of its turn, the newest first.
    ahead: Vec<(u32, u32)>,
    challenged: Option<Moment>,
    acknowledge_at: Option<Moment>,
}

/// A segment that is repeated until it is answered.
#[derive(Debug)]
pub struct Opening {
    segment: Packet,
    at: Moment,
    repeats: u32,
}

impl Opening {
    /// Begins to wait for the answer to `segment`.
    pub fn new(segment: Packet, now: Moment) -> Self {
        Self { segment, at: now, repeats: 0 }
    }

    fn due(&self) -> u64 {
        self.at.as_ms() + (FIRST_WAIT_MS << self.repeats)
    }
}

/// A segment as numbers.
struct Arrived {
    seq: u32,
    /// The number behind it.
    end: u32,
    ack: u32,
    syn: bool,
    fin: bool,
    rst: bool,
    has_ack: bool,
}

impl Arrived {
    fn read(packet: &Packet) -> Self {
        let has = |flag| packet.kind.contains(flag);
        let len = packet.fields.payload.bytes().len() as u32;
        let (syn, fin) = (has('S'), has('F'));
        let end = packet.fields.seq.wrapping_add(len + u32::from(syn) + u32::from(fin));
        Self {
            seq: packet.fields.seq,
            end,
            ack: packet.fields.ack,
            syn,
            fin,
            rst: has('R'),
            has_ack: has('A'),
        }
    }

    fn is_empty(&self) -> bool {
        self.seq == self.end
    }
}

impl Connection {
    /// A connection that begins.
    pub fn new(own: End, peer: End, state: State, start: u32, window: u16) -> Self {
        Self {
            own,
            peer,
            state,
            next: start.wrapping_add(1),
            expected: 0,
            window: window.into(),
            acknowledged: 0,
            is_scaled: false,
            is_selective: false,
            tells_congestion: false,
            opening: None,
            is_congested: false,
            has_data: false,
            ahead: Vec::new(),
            challenged: None,
            acknowledge_at: None,
        }
    }

    /// Takes the number of the peer's SYN.
    pub fn expect_after(&mut self, start: u32) {
        self.expected = start.wrapping_add(1);
        self.acknowledged = self.expected;
    }

    /// Whether the peer has a number still to acknowledge, or it is the next.
    pub fn is_waiting(&self, number: u32) -> bool {
        let is_first = self.state == State::SynSent && number.wrapping_add(1) == self.next;
        self.state != State::Requested && (number == self.next || is_first)
    }

    /// Takes a segment.
    pub fn receive(&mut self, packet: &Packet, now: Moment) -> Reaction {
        let arrived = Arrived::read(packet);
        match self.state {
            State::SynSent => self.receive_first(packet, &arrived, now),
            State::Requested => self.receive_agreement(packet, &arrived, now),
            State::Crossed | State::Established | State::HalfClosed => {
                self.receive_more(packet, &arrived, now)
            }
        }
    }

    /// What is due by now; `None` if the connection gives up.
    pub fn poll(&mut self, now: Moment) -> Option<Vec<Packet>> {
        let mut due = Vec::new();
        if self.acknowledge_at.is_some_and(|at| at <= now) {
            due.push(self.acknowledgement(None));
        }
        let most = if self.state == State::SynSent { SYN_REPEATS } else { ANSWER_REPEATS };
        while let Some(opening) = self.opening.as_mut().filter(|each| each.due() <= now.as_ms()) {
            if opening.repeats == most {
                return None;
            }
            opening.at = Moment::from_ms(opening.due());
            opening.repeats += 1;
            due.push(opening.segment.clone());
        }
        Some(due)
    }

    fn receive_first(&mut self, packet: &Packet, arrived: &Arrived, now: Moment) -> Reaction {
        if arrived.has_ack && arrived.ack != self.next {
            if let Some(opening) = self.opening.as_mut().filter(|each| each.repeats == 0) {
                opening.at = Moment::from_ms((now.as_ms() + SOON_MS).saturating_sub(FIRST_WAIT_MS));
            }
            return Reaction::Taken(tcp_reset(packet).map(Box::new));
        }
        if arrived.rst {
            return if arrived.has_ack { Reaction::Ended(None) } else { Reaction::Taken(None) };
        }
        if !arrived.syn {
            return Reaction::Taken(None);
        }
        self.expect_after(arrived.seq);
        if arrived.has_ack {
            self.state = State::Established;
            self.opening = None;
            return self.answer(None);
        }
        self.state = State::Crossed;
        let opening = self.opening.as_mut();
        let answer = opening.map(|opening| {
            opening.segment.kind = "SA".into();
            opening.segment.fields.ack = self.expected;
            Box::new(opening.segment.clone())
        });
        Reaction::Taken(answer)
    }

    fn receive_agreement(&mut self, packet: &Packet, arrived: &Arrived, now: Moment) -> Reaction {
        let is_first = arrived.seq.wrapping_add(1) == self.expected;
        if is_first && arrived.syn && !arrived.rst && !arrived.has_ack {
            let again = (!self.is_limited(now)).then_some(self.opening.as_ref()).flatten();
            return Reaction::Taken(again.map(|opening| Box::new(opening.segment.clone())));
        }
        if arrived.has_ack && arrived.ack != self.next {
            return Reaction::Foreign;
        }
        let end_of_window = self.expected.wrapping_add(self.window);
        let is_inside = arrived.seq == self.expected
            || is_before(self.expected, arrived.end) && is_before(arrived.seq, end_of_window)
            || arrived.seq == end_of_window && arrived.is_empty();
        if !is_inside {
            let is_quiet = arrived.rst || self.doubts(arrived, now);
            let mut answer = (!is_quiet).then(|| self.acknowledgement(None));
            if let Some(answer) = &mut answer {
                answer.fields.id = 0;
            }
            return Reaction::Taken(answer.map(Box::new));
        }
        if arrived.rst {
            return Reaction::Ended(None);
        }
        if arrived.syn && !is_first {
            return Reaction::Ended(tcp_reset(packet).map(Box::new));
        }
        if !arrived.has_ack {
            return Reaction::Taken(None);
        }
        self.state = State::Established;
        self.opening = None;
        self.challenged = None;
        self.receive_more(packet, arrived, now)
    }

    fn receive_more(&mut self, packet: &Packet, arrived: &Arrived, now: Moment) -> Reaction {
        if !(arrived.has_ack || arrived.rst || arrived.syn) {
            return Reaction::Taken(None);
        }
        let is_last_again =
            self.state == State::HalfClosed && arrived.seq.wrapping_add(1) == self.expected;
        let is_in_window = !is_before(arrived.end, self.acknowledged)
            && !is_before(self.acknowledged.wrapping_add(self.window), arrived.seq);
        if arrived.rst {
            if is_in_window && arrived.seq == self.expected || is_last_again {
                return Reaction::Ended(None);
            }
            return if is_in_window { self.challenge(now) } else { Reaction::Taken(None) };
        }
        if arrived.syn {
            return self.challenge(now);
        }
        if !is_in_window {
            if self.doubts(arrived, now) {
                return Reaction::Taken(None);
            }
            let is_repeated = !arrived.is_empty() && is_before(arrived.seq, self.expected);
            return self.answer(is_repeated.then_some((arrived.seq, arrived.end)));
        }
        if arrived.ack != self.next {
            return self.receive_wrong_ack(packet, arrived, now);
        }
        if self.state == State::Crossed {
            self.state = State::Established;
            self.opening = None;
        }
        self.take(packet, arrived, now)
    }

    /// **Source** — RFC 5961 §5.2; the peer's window is not known here, so what is old counts as too
    /// old.
    fn receive_wrong_ack(&mut self, packet: &Packet, arrived: &Arrived, now: Moment) -> Reaction {
        match self.state {
            State::Crossed => Reaction::Taken(tcp_reset(packet).map(Box::new)),
            State::Established if is_before(self.next, arrived.ack) => Reaction::Taken(None),
            _ => self.challenge(now),
        }
    }

    /// Takes the payload of a segment.
    fn take(&mut self, packet: &Packet, arrived: &Arrived, now: Moment) -> Reaction {
        let text_end = arrived.end.wrapping_sub(u32::from(arrived.fin));
        if arrived.is_empty() {
            return Reaction::Taken(None);
        }
        if self.state == State::HalfClosed {
            if !is_before(arrived.seq, self.expected) {
                return Reaction::Taken(None);
            }
            if is_before(self.expected, text_end) {
                return Reaction::Ended(tcp_reset(packet).map(Box::new));
            }
        }
        self.hear_congestion(packet);
        if !is_before(self.expected, arrived.end) {
            return self.answer(Some((arrived.seq, arrived.end)));
        }
        if is_before(self.expected, arrived.seq) {
            self.keep((arrived.seq, arrived.end));
            return self.answer(None);
        }
        let again = is_before(arrived.seq, self.expected).then_some((arrived.seq, self.expected));
        self.expected = arrived.end;
        let has_text = text_end != arrived.seq;
        if arrived.fin {
            self.state = State::HalfClosed;
            self.ahead.clear();
            if self.has_data || has_text {
                self.acknowledge_at = Some(Moment::from_ms(now.as_ms() + DELAY_MS));
                return Reaction::Taken(None);
            }
        }
        self.has_data |= has_text;
        self.catch_up();
        self.answer(again)
    }

    fn hear_congestion(&mut self, packet: &Packet) {
        if self.tells_congestion {
            self.is_congested &= !packet.kind.contains('C');
            self.is_congested |= packet.fields.tos & 3 == 3;
        }
    }

    /// Keeps what comes ahead of its turn, joined with what it touches.
    fn keep(&mut self, mut block: (u32, u32)) {
        self.ahead.retain(|&(start, end)| {
            let is_apart = is_before(end, block.0) || is_before(block.1, start);
            if !is_apart {
                block.0 = if is_before(start, block.0) { start } else { block.0 };
                block.1 = if is_before(block.1, end) { end } else { block.1 };
            }
            is_apart
        });
        self.ahead.insert(0, block);
    }

    /// Goes on with what came ahead of its turn, as far as it follows.
    fn catch_up(&mut self) {
        let follows = |expected: u32, start: u32| !is_before(expected, start);
        while let Some(at) = self.ahead.iter().position(|each| follows(self.expected, each.0)) {
            let (_, end) = self.ahead.remove(at);
            if is_before(self.expected, end) {
                self.expected = end;
            }
        }
    }

    fn challenge(&mut self, now: Moment) -> Reaction {
        if self.is_limited(now) { Reaction::Taken(None) } else { self.answer(None) }
    }

    /// Whether a segment that is out of the window gets no answer.
    fn doubts(&mut self, arrived: &Arrived, now: Moment) -> bool {
        (arrived.is_empty() || arrived.syn) && self.is_limited(now)
    }

    fn is_limited(&mut self, now: Moment) -> bool {
        let is_limited =
            self.challenged.is_some_and(|last| now.ms_since(last) < BETWEEN_CHALLENGES_MS);
        if !is_limited {
            self.challenged = Some(now);
        }
        is_limited
    }

    fn answer(&mut self, again: Option<(u32, u32)>) -> Reaction {
        Reaction::Taken(Some(Box::new(self.acknowledgement(again))))
    }

    /// What acknowledges all that came; `again` has come twice.
    fn acknowledgement(&mut self, again: Option<(u32, u32)>) -> Packet {
        self.acknowledge_at = None;
        let left = self.acknowledged.wrapping_add(self.window).wrapping_sub(self.expected);
        // The right edge of the window never goes back.
        let scale = if self.is_scaled { WINDOW_SCALE } else { 0 };
        self.window = left.next_multiple_of(1 << scale);
        self.acknowledged = self.expected;
        let mut answer = segment(self.own, self.peer, if self.is_congested { "AE" } else { "A" });
        answer.fields.seq = self.next;
        answer.fields.ack = self.expected;
        answer.fields.win = (self.window >> scale).min(u16::MAX.into()) as u16;
        if self.is_selective {
            answer.fields.opts = selective(again.iter().chain(&self.ahead));
        }
        answer
    }
}

/// The option that names blocks, if there are any.
fn selective<'a>(blocks: impl Iterator<Item = &'a (u32, u32)>) -> Vec<u8> {
    let numbers = blocks.take(MOST_BLOCKS).flat_map(|(start, end)| [*start, *end]);
    let bytes: Vec<u8> = numbers.flat_map(u32::to_be_bytes).collect();
    if bytes.is_empty() {
        return bytes;
    }
    [&[1, 1, 5, bytes.len() as u8 + 2][..], &bytes].concat()
}

/// A segment of the host's own without options.
pub fn segment(source: End, destination: End, flags: &str) -> Packet {
    let mut packet = Packet::new(source.0, destination.0, Proto::Tcp);
    packet.ports = Some((source.1, destination.1));
    packet.kind = flags.into();
    packet.fields.df = true;
    packet
}

/// Whether a sequence number comes before another, RFC 9293 §3.4.
fn is_before(one: u32, other: u32) -> bool {
    (one.wrapping_sub(other) as i32) < 0
}
