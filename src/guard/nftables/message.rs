//! Messages to the kernel that change a table, all at once or not at all, and its answers.

use super::{CHAIN, Contents, Expression, Hook, LEARNED_MOST, LearnedSet, Present, Set};

/// The error number of an acknowledgement, 0 for success, and what follows it.
pub(super) fn parse_answer(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let len = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let errno = i32::from_ne_bytes(*bytes.get(16..)?.first_chunk()?);
    let errno = if i32::from(kind) == libc::NLMSG_ERROR { errno.checked_neg()? } else { 0 };
    Some((errno, bytes.get(len.max(16).next_multiple_of(4)..).unwrap_or_default()))
}

/// A transaction on its way to the kernel.
pub(super) struct Batch<'a> {
    table: &'a str,
    family: u8,
    bytes: Vec<u8>,
    messages: usize,
}

impl<'a> Batch<'a> {
    pub fn new(table: &'a str, family: u8) -> Self {
        let mut batch = Self { table, family, bytes: Vec::new(), messages: 0 };
        batch.mark(BATCH_BEGIN);
        batch
    }

    pub fn finish(mut self) -> (Vec<u8>, usize) {
        self.mark(BATCH_END);
        (self.bytes, self.messages)
    }

    pub fn delete_table(&mut self) {
        let name = self.table;
        self.message(DELETE_TABLE, 0, |out| out.text(1, name));
    }

    /// Makes the table, its chains and the sets that are learned.
    pub fn create(&mut self, contents: &Contents) {
        let table = self.table;
        self.message(NEW_TABLE, CREATE, |out| {
            out.text(1, table);
            out.number(2, OWNER);
        });
        for (id, learned) in (LEARNED_ID..).zip(&contents.learned) {
            self.add_learned_set(id, *learned);
        }
        for (name, hook) in contents.chains() {
            self.add_chain(name, hook.chain_type(), |out| out.hook(hook));
        }
    }

    /// Takes out all but the chains and what is learned.
    pub fn empty(&mut self, present: &Present) {
        let table = self.table;
        for (chain, _) in &present.chains {
            self.message(DELETE_RULE, 0, |out| {
                out.text(1, table);
                out.text(2, chain);
            });
        }
        for set in &present.sets {
            self.message(DELETE_SET, 0, |out| {
                out.text(1, table);
                out.text(2, set);
            });
        }
    }

    /// Adds sets and rules.
    pub fn add(&mut self, contents: &Contents) {
        for (id, set) in (1..).zip(&contents.sets) {
            self.add_set(id, set);
        }
        contents.rules.iter().for_each(|rule| self.add_rule(CHAIN, rule));
        for chain in &contents.others {
            chain.rules.iter().for_each(|rule| self.add_rule(chain.name, rule));
        }
    }

    fn add_chain(&mut self, name: &str, kind: &str, hook: impl FnOnce(&mut Attributes<'_>)) {
        let table = self.table;
        self.message(NEW_CHAIN, CREATE, |out| {
            out.text(1, table);
            out.text(3, name);
            out.nest(4, hook);
            out.number(5, libc::NF_ACCEPT as u32);
            out.text(7, kind);
        });
    }

    fn add_rule(&mut self, chain: &str, rule: &[Expression]) {
        let table = self.table;
        self.message(NEW_RULE, CREATE | APPEND, |out| {
            out.text(1, table);
            out.text(2, chain);
            out.nest(4, |list| {
                for expression in rule {
                    list.nest(LIST_ELEMENT, |out| out.expression(expression));
                }
            });
        });
    }

    fn add_learned_set(&mut self, id: u32, set: LearnedSet) {
        let table = self.table;
        self.message(NEW_SET, CREATE, |out| {
            out.text(1, table);
            out.text(2, set.name);
            out.number(3, SET_LEARNS | SET_FORGETS);
            out.number(4, set.key_type);
            out.number(5, set.key_len);
            out.nest(9, |shape| shape.number(1, LEARNED_MOST));
            out.number(10, id);
            out.bytes(11, &set.keep_ms.to_be_bytes());
        });
    }

    fn add_set(&mut self, id: u32, set: &Set) {
        let table = self.table;
        let key_len = set.keys.first().map_or(4, Vec::len) as u32;
        self.message(NEW_SET, CREATE, |out| {
            out.text(1, table);
            out.text(2, set.name);
            out.number(3, 0);
            out.number(4, set.key_type);
            out.number(5, key_len);
            out.number(10, id);
        });
        for keys in set.keys.chunks(KEYS_EACH) {
            self.message(NEW_ELEMENTS, CREATE, |out| {
                out.text(1, table);
                out.text(2, set.name);
                out.number(4, id);
                out.nest(3, |list| {
                    for key in keys {
                        list.nest(LIST_ELEMENT, |element| {
                            element.nest(1, |data| data.bytes(1, key));
                        });
                    }
                });
            });
        }
    }

    fn mark(&mut self, kind: u16) {
        let at = self.begin(kind, REQUEST, 0, SUBSYSTEM);
        self.end(at);
    }

    fn message(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Attributes<'_>)) {
        let flags = REQUEST | ACKNOWLEDGE | flags;
        let at = self.begin(SUBSYSTEM << 8 | kind, flags, self.family, 0);
        body(&mut Attributes(&mut self.bytes));
        self.end(at);
        self.messages += 1;
    }

    fn begin(&mut self, kind: u16, flags: u16, family: u8, resource: u16) -> usize {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        at
    }

    fn end(&mut self, at: usize) {
        let len = (self.bytes.len() - at) as u32;
        self.bytes[at..at + 4].copy_from_slice(&len.to_ne_bytes());
    }
}

/// Attributes at the end of a message.
pub(super) struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.raw(kind, |out| out.extend_from_slice(value));
    }

    pub fn text(&mut self, kind: u16, text: &str) {
        self.raw(kind, |out| {
            out.extend_from_slice(text.as_bytes());
            out.push(0);
        });
    }

    pub fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Attributes<'_>)) {
        self.raw(kind | libc::NLA_F_NESTED as u16, |out| body(&mut Attributes(out)));
    }

    fn hook(&mut self, hook: &Hook) {
        match hook {
            Hook::Prerouting(_) => {
                self.number(1, PREROUTING);
                self.number(2, PRIORITY as u32);
            }
            Hook::DestinationNat => {
                self.number(1, PREROUTING);
                self.number(2, NAT_PRIORITY as u32);
            }
            Hook::Forward(_) => {
                self.number(1, libc::NF_INET_FORWARD as u32);
                self.number(2, 0);
            }
            Hook::Output(_) => {
                self.number(1, libc::NF_INET_LOCAL_OUT as u32);
                self.number(2, 0);
            }
            Hook::Ingress(interfaces) | Hook::Egress(interfaces) => {
                let is_egress = matches!(hook, Hook::Egress(_));
                self.number(1, if is_egress { EGRESS } else { INGRESS });
                self.number(2, 0);
                self.nest(4, |list| interfaces.iter().for_each(|name| list.text(1, name)));
            }
        }
    }

    /// A value as expressions have it.
    pub fn value(&mut self, kind: u16, value: &[u8]) {
        self.nest(kind, |data| data.bytes(1, value));
    }

    fn raw(&mut self, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
        let at = self.0.len();
        self.0.extend_from_slice(&[0; 2]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        body(self.0);
        let len = (self.0.len() - at) as u16;
        self.0[at..at + 2].copy_from_slice(&len.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// Before connection tracking, as iptables' table `raw`.
const PRIORITY: i32 = -300;
/// As iptables' table `nat` has it there.
const NAT_PRIORITY: i32 = -100;
const INGRESS: u32 = 0;
const EGRESS: u32 = 1;
const PREROUTING: u32 = libc::NF_INET_PRE_ROUTING as u32;
const SUBSYSTEM: u16 = libc::NFNL_SUBSYS_NFTABLES as u16;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const DELETE_SET: u16 = 11;
const NEW_ELEMENTS: u16 = 12;
const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const ACKNOWLEDGE: u16 = libc::NLM_F_ACK as u16;
const CREATE: u16 = libc::NLM_F_CREATE as u16;
const APPEND: u16 = libc::NLM_F_APPEND as u16;
const OWNER: u32 = 2;
/// The number by which the first learned set is known within a transaction; others count from one.
const LEARNED_ID: u32 = 1000;
/// `NFT_SET_EVAL` and `NFT_SET_TIMEOUT`.
const SET_LEARNS: u32 = 0x20;
const SET_FORGETS: u32 = 0x10;
const LIST_ELEMENT: u16 = 1;
/// An attribute's length is 16 bits wide.
const KEYS_EACH: usize = 1000;
