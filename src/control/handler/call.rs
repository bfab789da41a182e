//! A request, taken apart, and the dumps that answer some.

use std::ops::ControlFlow;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_MULTIPART};
use nix::errno::Errno;

use super::{Answer, Answered, Reply};
use crate::control::netlink::ipvs::{self, Service, attribute};
use crate::control::netlink::{
    Attributes, Frame, GenericFamily, Writer, connection, controller, done, header,
};
use crate::engine::Moment;

/// One request, taken apart.
pub(super) struct Call<'a> {
    pub frame: &'a Frame<'a>,
    pub command: u8,
    pub attributes: Attributes<'a>,
    pub now: Moment,
}

impl Call<'_> {
    /// Whether it asks for a list.
    pub(super) fn is_dump(&self) -> bool {
        self.frame.header.flags & NLM_F_DUMP == NLM_F_DUMP
    }

    /// Refuses commands that the family lacks.
    pub(super) fn check(&self, family: &GenericFamily) -> Result<(), Errno> {
        let wanted = if self.is_dump() { CAN_DUMP } else { CAN_DO };
        let mut operations = family.operations.iter();
        let known = operations.any(|(command, can)| *command == self.command && can & wanted != 0);
        if known { Ok(()) } else { Err(Errno::EOPNOTSUPP) }
    }

    /// The service that it is about.
    pub(super) fn service(&self) -> Result<Service, Errno> {
        Service::parse(&self.attributes.nested(attribute::SERVICE).ok_or(Errno::EINVAL)?)
    }

    /// The words of a command about rules.
    pub(super) fn rule(&self) -> Result<String, Errno> {
        let rule = self.attributes.string(connection::RULE, connection::MAX_RULE)?;
        rule.ok_or(Errno::EINVAL)
    }

    /// A message of the answer.
    pub(super) fn message(&self, family: &GenericFamily, command: u8, flags: u16) -> Writer {
        let asked = &self.frame.header;
        let header = header(family.id, flags, asked.sequence_number, asked.port_number);
        Writer::generic(header, command, family.version)
    }
}

/// A dump under way: messages are put together into datagrams.
pub(super) struct Dump<'a> {
    call: &'a Call<'a>,
    reply: Reply<'a>,
    datagram: Vec<u8>,
}

impl<'a> Dump<'a> {
    /// An empty dump in answer to `call`.
    pub(super) fn new(call: &'a Call<'a>, reply: Reply<'a>) -> Self {
        Self { call, reply, datagram: Vec::new() }
    }

    /// Appends a message.
    pub(super) fn push(&mut self, message: &[u8]) -> ControlFlow<()> {
        if self.datagram.len() + message.len() > MAX_DATAGRAM {
            (self.reply)(std::mem::take(&mut self.datagram))?;
        }
        self.datagram.extend_from_slice(message);
        ControlFlow::Continue(())
    }

    /// Sends the rest and the end.
    pub(super) fn end(self) -> Answered {
        let rest = Some(self.datagram).filter(|datagram| !datagram.is_empty());
        let end = done(&self.call.frame.header);
        let mut last = rest.into_iter().chain([end]);
        let is_heard = last.try_for_each(self.reply).is_continue();
        Ok(if is_heard { Answer::Told } else { Answer::Left })
    }
}

/// Dumps rules in the words of iptables.
pub(super) fn dump_rules(call: &Call, reply: Reply, command: u8, rules: Vec<String>) -> Answered {
    dump_all(call, reply, (&connection::FAMILY, command), rules, |rule, to| {
        to.string(connection::RULE, &rule);
    })
}

/// Dumps `items`, each as a message of the family and command that `emit` fills in.
pub(super) fn dump_all<T>(
    call: &Call,
    reply: Reply,
    (family, command): (&GenericFamily, u8),
    items: impl IntoIterator<Item = T>,
    emit: impl Fn(T, &mut Writer),
) -> Answered {
    let mut dump = Dump::new(call, reply);
    for item in items {
        let mut message = call.message(family, command, NLM_F_MULTIPART);
        emit(item, &mut message);
        if dump.push(&message.finish()).is_break() {
            return Ok(Answer::Left);
        }
    }
    dump.end()
}

/// Answers what is asked of generic netlink's controller.
pub(super) fn find_family(call: &Call, reply: Reply) -> Answered {
    if call.command != controller::GET_FAMILY {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let asked = &call.frame.header;
    let (sequence, port) = (asked.sequence_number, asked.port_number);
    if call.is_dump() {
        let mut dump = Dump::new(call, reply);
        for family in &FAMILIES {
            let message = controller::describe(family, NLM_F_MULTIPART, sequence, port);
            if dump.push(&message).is_break() {
                return Ok(Answer::Left);
            }
        }
        return dump.end();
    }
    let family = controller::requested(&call.attributes, &FAMILIES)?;
    Ok(match reply(controller::describe(family, 0, sequence, port)) {
        ControlFlow::Continue(()) => Answer::Done(None),
        ControlFlow::Break(()) => Answer::Left,
    })
}

const FAMILIES: [GenericFamily; 2] = [ipvs::FAMILY, connection::FAMILY];
/// **Source** — `GENL_CMD_CAP_DO` and `_DUMP` of linux/genetlink.h.
const CAN_DO: u32 = 2;
const CAN_DUMP: u32 = 4;
/// libnl and most other clients read into 16 KiB.
const MAX_DATAGRAM: usize = 16 * 1024;
