//! Rules for fragments: a datagram's pieces after the first tell no ports, and go with it.

use super::super::nftables::{Base, Contents, Expression, Relation};
use super::{Layout, PIECES, PIECES_MS, equal, load, lookup};
use crate::packet::Family;

impl Layout {
    /// Drops fragments after the first, which tell no ports, if the first was dropped; leaves the
    /// others alone.
    pub fn drop_pieces(self, to: &mut Contents) {
        let known = vec![lookup(0, PIECES), Expression::Drop];
        to.rules.push([self.is_fragment(Piece::Later), self.datagram(), known].concat());
        to.rules.push([self.is_fragment(Piece::Later), vec![Expression::Accept]].concat());
    }

    /// Drops packets that meet some conditions, and what follows of their datagrams.
    pub(super) fn drop(self, to: &mut Contents, conditions: Vec<Expression>) {
        let mut learn = self.datagram();
        learn.push(Expression::Learn { register: 0, set: PIECES, keep_ms: PIECES_MS });
        to.rules.push([self.is_fragment(Piece::First), conditions.clone(), learn].concat());
        to.rules.push([conditions, vec![Expression::Drop]].concat());
    }

    /// Loads what the fragments of a datagram have in common.
    fn datagram(self) -> Vec<Expression> {
        let (offset, len) = match self.family {
            Family::V4 => (4, 2),
            Family::V6 => (V6_HEADER_LEN + 4, 4),
        };
        vec![
            self.load_addr(0, self.source),
            self.load_addr(self.addr_registers, self.destination),
            load(2 * self.addr_registers, Base::Network, offset, len),
        ]
    }

    /// Goes on for such a fragment.
    fn is_fragment(self, piece: Piece) -> Vec<Expression> {
        let (field, offset_bits, more): (_, u16, u16) = match self.family {
            Family::V4 => (vec![load(0, Base::Network, 6, 2)], 0x1fff, 0x2000),
            Family::V6 => (
                vec![
                    load(0, Base::Network, 6, 1),
                    equal(0, vec![FRAGMENT_HEADER]),
                    load(0, Base::Network, V6_HEADER_LEN + 2, 2),
                ],
                0xfff8,
                0x0001,
            ),
        };
        let (mask, relation, value) = match piece {
            Piece::First => (offset_bits | more, Relation::Equal, more),
            Piece::Later => (offset_bits, Relation::Unequal, 0),
        };
        let value = value.to_be_bytes().to_vec();
        let test = vec![
            Expression::Mask { register: 0, mask: mask.to_be_bytes().to_vec() },
            Expression::Compare { register: 0, relation, value },
        ];
        [field, test].concat()
    }
}

/// Which fragment of a datagram.
#[derive(Clone, Copy)]
enum Piece {
    First,
    Later,
}

const FRAGMENT_HEADER: u8 = 44;
const V6_HEADER_LEN: u32 = 40;
