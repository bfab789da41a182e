//! Requests that tell something.

use std::ops::ControlFlow;

use netlink_packet_core::NLM_F_MULTIPART;
use nix::errno::Errno;

use super::call::{Call, Dump, dump_all};
use super::{Answer, Answered, Handler, Host, Reply};
use crate::control::netlink::ipvs::{self, Info, Side, command};
use crate::control::netlink::{connection, convert};
use crate::control::sync;
use crate::engine::service::{ServiceKey, ServiceView, Timeouts};
use crate::packet::Addr;

impl<H: Host> Handler<H> {
    /// The commands that tell one thing.
    pub(super) fn get(&self, call: &Call, reply: Reply) -> Answered {
        let message = match call.command {
            command::GET_SERVICE => {
                let key = convert::service_key(&call.service()?)?;
                let view = self.table.view(&key).map_err(|error| self.missing(error, &key))?;
                let mut message = call.message(&ipvs::FAMILY, command::NEW_SERVICE, 0);
                convert::list_service(&view).emit(&mut message, Side::Director);
                message
            }
            command::GET_CONFIG => {
                let Timeouts { tcp_s, tcp_fin_s, udp_s } = self.table.snapshot().timeouts;
                let mut message = call.message(&ipvs::FAMILY, command::SET_CONFIG, 0);
                ipvs::emit_timeouts(&mut message, [tcp_s, tcp_fin_s, udp_s]);
                message
            }
            command::GET_INFO => {
                let mut message = call.message(&ipvs::FAMILY, command::SET_INFO, 0);
                Info { version: VERSION, table_size: TABLE_SIZE }.emit(&mut message);
                message
            }
            _ => return Err(Errno::EOPNOTSUPP.into()),
        };
        Ok(match reply(message.finish()) {
            ControlFlow::Continue(()) => Answer::Done(None),
            ControlFlow::Break(()) => Answer::Left,
        })
    }

    pub(super) fn dump_services(&self, call: &Call, reply: Reply) -> Answered {
        let mut views = self.table.views();
        views.sort_by_key(|view| dump_order(&view.spec.key));
        dump_all(call, reply, (&ipvs::FAMILY, command::NEW_SERVICE), views, |view, to| {
            convert::list_service(&view).emit(to, Side::Director);
        })
    }

    pub(super) fn dump_reals(&self, call: &Call, reply: Reply) -> Answered {
        // A service that does not exist has no servers, says the kernel.
        let key = call.service().and_then(|service| convert::service_key(&service));
        let view = key.ok().and_then(|key| self.table.view(&key).ok());
        let reals = view.iter().flat_map(|view: &ServiceView| &view.reals);
        dump_all(call, reply, (&ipvs::FAMILY, command::NEW_DEST), reals, |real, to| {
            convert::list_real(real).emit(to, Side::Director);
        })
    }

    pub(super) fn dump_daemons(&self, call: &Call, reply: Reply) -> Answered {
        let daemons = self.host.sync_daemons();
        dump_all(call, reply, (&ipvs::FAMILY, command::NEW_DAEMON), daemons, |daemon, to| {
            sync::describe(&daemon).emit(to, Side::Director);
        })
    }

    pub(super) fn dump_connections(&self, call: &Call, reply: Reply) -> Answered {
        let mut dump = Dump::new(call, reply);
        let mut listener_left = false;
        self.host.connections(&mut |view| {
            let (family, command) = (&connection::FAMILY, connection::NEW_CONNECTION);
            let mut message = call.message(family, command, NLM_F_MULTIPART);
            view.emit(&mut message);
            let flow = dump.push(&message.finish());
            listener_left = flow.is_break();
            flow
        });
        if listener_left { Ok(Answer::Left) } else { dump.end() }
    }
}

/// Services by address first, then by mark, as the kernel's two tables are dumped. Within each the
/// kernel follows its hash table; a stable order serves people better.
fn dump_order(key: &ServiceKey) -> (bool, u32, u8, Addr, u16) {
    match *key {
        ServiceKey::Address { protocol, addr, port } => (false, 0, protocol.number(), addr, port),
        ServiceKey::Mark { mark, family } => {
            (true, mark, convert::af(family) as u8, Addr::default(), 0)
        }
    }
}

/// **Source** — `IP_VS_VERSION_CODE` of linux/ip_vs.h.
const VERSION: u32 = 0x01_02_01;
/// What `size=` of a listing says: the number of buckets of IPVS's connection table by default.
const TABLE_SIZE: u32 = 4096;
