//! The director's own end of a connection by full NAT.

use crate::engine::rewrite::sequence::Shift;
use crate::engine::service::ClientAddress;
use crate::packet::{Endpoint, Family};

/// Where a server reached by full NAT sees its client, and what is done so that both get along.
#[derive(Debug)]
pub struct LocalEnd {
    /// Where the server sees the client.
    pub endpoint: Endpoint,
    /// How far what the client sends is shifted.
    pub shift: Shift,
    /// Whether another connection had the endpoint just before, so that the server may remember it.
    pub is_second_hand: bool,
    /// How the server is told who its client is, until it knows.
    pub introduction: Option<Introduction>,
    /// The sequence number behind the client's FIN, as the server counts.
    pub end: Option<u32>,
}

impl LocalEnd {
    /// An end that nobody had before.
    pub fn new(endpoint: Endpoint, how: ClientAddress) -> Self {
        Self {
            endpoint,
            shift: Shift::default(),
            is_second_hand: false,
            introduction: Introduction::new(how),
            end: None,
        }
    }

    /// The same after a connection whose client's stream ended with number `end`: a SYN that
    /// begins with `sequence` will seem to come later.
    ///
    /// **Source** — RFC 9293 §3.6.1: a SYN beyond the last number opens a connection in the place
    /// of one in TIME-WAIT. The distance is Linux's own, `tcp_twsk_unique`.
    #[must_use]
    pub fn after(mut self, end: u32, sequence: u32) -> Self {
        self.is_second_hand = true;
        self.shift = Shift::all(end.wrapping_add(DISTANCE).wrapping_sub(sequence));
        self
    }

    /// Whether its segments are translated and no more.
    pub fn is_plain(&self) -> bool {
        self.introduction.is_none() && !self.shift.is_anything()
    }
}

const DISTANCE: u32 = 65_535 + 2;

/// How far a server has been told who its client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Introduction {
    how: How,
    /// The number of the client's first byte.
    client_start: Option<u32>,
    /// The number of the server's first byte.
    server_start: Option<u32>,
    was_made: bool,
    /// Whether the client's first bytes have been seen.
    has_begun: bool,
}

/// The ways of telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// By a TCP option.
    Option,
    /// By a header in front of all.
    Header,
}

/// A segment of the client's, in its own numbers.
#[derive(Clone, Copy, Debug)]
pub struct Said {
    /// Its sequence number.
    pub sequence: u32,
    /// What it acknowledges.
    pub acknowledged: u32,
    /// Whether it has a payload.
    pub has_payload: bool,
}

impl Introduction {
    fn new(how: ClientAddress) -> Option<Self> {
        let how = match how {
            ClientAddress::Untold => return None,
            ClientAddress::Toa => How::Option,
            ClientAddress::ProxyV2 => How::Header,
        };
        let (client_start, server_start) = (None, None);
        Some(Self { how, client_start, server_start, was_made: false, has_begun: false })
    }

    /// How it is made.
    pub fn how(&self) -> How {
        self.how
    }

    /// Bytes that it adds to a packet.
    pub fn len_bytes(&self, family: Family) -> usize {
        match (self.how, family) {
            (How::Option, Family::V4) => 8,
            (How::Option, Family::V6) => 20,
            (How::Header, Family::V4) => 28,
            (How::Header, Family::V6) => 52,
        }
    }

    /// The client's SYN says that its first byte has number `start`.
    pub fn begin(&mut self, start: u32) {
        let how = self.how;
        *self = Self { how, client_start: Some(start), ..*self };
    }

    /// The server's SYN says that its first byte has number `start`.
    pub fn answer(&mut self, start: u32) {
        self.server_start = Some(start);
    }

    /// Whether it is to be made with a segment of the client's, which is noted then.
    ///
    /// The option goes with everything that acknowledges the server's SYN and nothing more. The
    /// header goes in front of the client's first byte: with the acknowledgement that completes the
    /// handshake, for servers that speak first, and again with whatever the client sends from its
    /// first byte on a second time. So nothing has to be kept and sent again here.
    pub fn is_due(&mut self, said: Said) -> bool {
        match self.how {
            How::Option => self.server_start == Some(said.acknowledged),
            How::Header => {
                let is_first = said.has_payload && !self.has_begun;
                let is_due =
                    self.client_start == Some(said.sequence) && !(self.was_made && is_first);
                if self.client_start == Some(said.sequence) {
                    self.was_made = true;
                    self.has_begun |= said.has_payload;
                }
                is_due
            }
        }
    }

    /// Whether it is to be made with a datagram, which is noted then: the header with the first.
    pub fn is_due_with_datagram(&mut self) -> bool {
        self.awaits_datagram() && !std::mem::replace(&mut self.was_made, true)
    }

    /// Whether it still is to be made with a datagram.
    pub fn awaits_datagram(&self) -> bool {
        self.how == How::Header && !self.was_made
    }

    /// Whether the server knows, if it acknowledges `acknowledged` in its own numbers, by which the
    /// client's are shifted by `shift`.
    pub fn is_over(&self, acknowledged: u32, shift: Shift) -> bool {
        let Some(start) = self.client_start else { return false };
        let beyond = match self.how {
            How::Option => shift.sequence(start).wrapping_add(1),
            How::Header => shift.sequence(start),
        };
        acknowledged.wrapping_sub(beyond) as i32 >= 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(sequence: u32, acknowledged: u32, has_payload: bool) -> Said {
        Said { sequence, acknowledged, has_payload }
    }

    #[test]
    fn the_option_goes_until_the_server_was_heard_or_has_heard() {
        let mut introduction = Introduction::new(ClientAddress::Toa).unwrap();
        introduction.begin(1001);
        assert!(!introduction.is_due(said(1001, 5001, false)), "the server has not answered");
        introduction.answer(5001);
        assert!(introduction.is_due(said(1001, 5001, false)));
        assert!(introduction.is_due(said(1001, 5001, true)));
        assert!(!introduction.is_due(said(1101, 5002, true)));
        assert!(!introduction.is_over(1001, Shift::default()));
        assert!(introduction.is_over(1002, Shift::default()));
    }

    #[test]
    fn the_header_goes_once_and_again_with_what_is_sent_again() {
        let mut introduction = Introduction::new(ClientAddress::ProxyV2).unwrap();
        let start = u32::MAX;
        introduction.begin(start);
        assert!(introduction.is_due(said(start, 1, false)), "with the handshake's end");
        assert!(!introduction.is_due(said(start, 1, true)), "the first bytes follow it");
        assert!(!introduction.is_due(said(99, 1, true)));
        assert!(introduction.is_due(said(start, 1, true)), "sent again, as it may have been lost");
        assert!(introduction.is_due(said(start, 1, false)), "a SYN's answer sent again");
        let mut shift = Shift::default();
        shift.insert(start, 28);
        assert!(!introduction.is_over(start, shift) && !introduction.is_over(26, shift));
        assert!(introduction.is_over(27, shift) && introduction.is_over(28, shift));
    }

    #[test]
    fn without_the_handshakes_end_the_header_goes_with_the_first_bytes() {
        let mut introduction = Introduction::new(ClientAddress::ProxyV2).unwrap();
        introduction.begin(7);
        assert!(!introduction.is_due(said(107, 1, true)), "these came too early");
        assert!(introduction.is_due(said(7, 1, true)));
    }

    #[test]
    fn a_second_hand_end_comes_after_the_first() {
        let endpoint = Endpoint::default();
        let local = LocalEnd::new(endpoint, ClientAddress::Untold).after(u32::MAX - 5, 123);
        assert_eq!(local.shift.sequence(123), (u32::MAX - 5).wrapping_add(65_537));
        assert_eq!(local.shift.acknowledgement(local.shift.sequence(124)), 124);
        assert!(!local.is_plain() && LocalEnd::new(endpoint, ClientAddress::Untold).is_plain());
    }
}
