//! Requests in, replies out, without I/O.
//!
//! Owns no state: edits go to the service table, everything else is asked of the [`Host`], which is
//! the daemon, the simulator or a test.

mod call;
mod edits;
mod lists;
#[cfg(test)]
mod tests;

use std::ops::{ControlFlow, RangeInclusive};
use std::sync::{Arc, Mutex, PoisonError};

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_packet_generic::GenlHeader;
use nix::errno::Errno;

use super::advice::{self, Route};
use super::errno::errno;
use super::netlink::connection::{self, ConnectionView};
use super::netlink::counter::CounterView;
use super::netlink::ipvs::{self, command};
use super::netlink::setting::SettingView;
use super::netlink::{Attributes, Frame, acknowledge, controller, frames, refuse};
use super::sync::{SyncDaemon, SyncRequest, SyncRole};
use super::{marks, snat};
use crate::engine::Moment;
use crate::engine::service::{ConfigError, ServiceKey, ServiceTable};
use crate::engine::settings::REGISTRY;
use crate::packet::Addr;
use call::{Call, dump_all, dump_rules, find_family};

/// What the handler needs to know of the world around the service table.
pub trait Host {
    /// Calls `each` for every connection, until that breaks off.
    fn connections(&self, each: &mut dyn FnMut(ConnectionView) -> ControlFlow<()>);

    /// Keeps the kernel away from ports of `addr`, if that is its own, for connections that begin
    /// there; says which ports it could keep.
    ///
    /// **Errors** — a sentence that says why none could be kept.
    fn hold_ports(
        &self,
        _addr: Addr,
        ports: RangeInclusive<u16>,
    ) -> Result<RangeInclusive<u16>, String> {
        Ok(ports)
    }

    /// Called after every edit, before it is acknowledged: returns when the world around the table
    /// has followed it.
    ///
    /// **Errors** — a sentence that says why the services as they are now would be damaged rather
    /// than served; what was added is taken back then.
    fn settle(&self) -> Result<(), String> {
        Ok(())
    }

    /// What the director knows of the way to `addr`.
    fn route(&self, _addr: Addr) -> Route {
        Route::Unknown
    }

    /// What the director counts beyond the services' own statistics.
    fn counters(&self) -> Vec<CounterView> {
        Vec::new()
    }

    /// Starts a synchronisation daemon; may have a remark on it.
    fn start_sync(&self, _request: SyncRequest) -> Result<Option<String>, Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Stops a synchronisation daemon.
    fn stop_sync(&self, _role: SyncRole) -> Result<(), Errno> {
        Err(Errno::ESRCH)
    }

    /// The synchronisation daemons that run.
    fn sync_daemons(&self) -> Vec<SyncDaemon> {
        Vec::new()
    }
}

/// Takes the datagrams of a reply, in order, until it breaks off.
pub type Reply<'a> = &'a mut dyn FnMut(Vec<u8>) -> ControlFlow<()>;

/// Answers requests of the control protocol.
#[derive(Debug)]
pub struct Handler<H> {
    table: Arc<ServiceTable>,
    host: H,
    /// Held while a request changes something.
    turn: Mutex<()>,
}

/// Why a request was refused, with what to say about it.
struct Refusal {
    errno: Errno,
    hint: Option<String>,
}

/// How a request that was not refused ended.
enum Answer {
    /// With an acknowledgement, if one is wanted, and perhaps a remark.
    Done(Option<String>),
    /// With the end of a dump.
    Told,
    /// With nobody listening any more.
    Left,
}

type Answered = Result<Answer, Refusal>;

/// What carries out a request that changes something.
type Edit<H> = fn(&Handler<H>, &Call) -> Answered;

impl<H: Host> Handler<H> {
    /// A handler of edits to `table`.
    pub fn new(table: Arc<ServiceTable>, host: H) -> Self {
        Self { table, host, turn: Mutex::new(()) }
    }

    /// The world around the table.
    pub fn host(&self) -> &H {
        &self.host
    }

    /// Answers a datagram of requests.
    pub fn handle(&self, datagram: &[u8], now: Moment, reply: Reply) {
        for frame in frames(datagram) {
            let last = match self.answer(&frame, now, reply) {
                Ok(Answer::Left) => return,
                Ok(Answer::Told) => continue,
                Ok(Answer::Done(_)) if frame.header.flags & NLM_F_ACK == 0 => continue,
                Ok(Answer::Done(remark)) => acknowledge(&frame, remark.as_deref()),
                Err(refused) => refuse(&frame, refused.errno, refused.hint.as_deref()),
            };
            if reply(last).is_break() {
                return;
            }
        }
    }

    fn answer(&self, frame: &Frame, now: Moment, reply: Reply) -> Answered {
        let is_request = frame.header.flags & NLM_F_REQUEST != 0;
        if !is_request || frame.header.message_type < FIRST_PROTOCOL_TYPE {
            return Ok(Answer::Done(None));
        }
        let Some((generic, attributes)) = frame.payload.split_at_checked(GENERIC_HEADER) else {
            return Err(Errno::EINVAL.into());
        };
        let command = GenlHeader::parse(generic).map_err(|_| Errno::EINVAL)?.cmd;
        let call = Call { frame, command, attributes: Attributes::parse(attributes), now };
        match frame.header.message_type {
            controller::ID => find_family(&call, reply),
            id if id == ipvs::FAMILY.id => self.ipvs(&call, reply),
            id if id == connection::FAMILY.id => self.ulvs(&call, reply),
            _ => Err(Errno::ENOENT.into()),
        }
    }

    fn ipvs(&self, call: &Call, reply: Reply) -> Answered {
        call.check(&ipvs::FAMILY)?;
        if call.is_dump() {
            return match call.command {
                command::GET_SERVICE => self.dump_services(call, reply),
                command::GET_DEST => self.dump_reals(call, reply),
                _ => self.dump_daemons(call, reply),
            };
        }
        let edit: Edit<H> = match call.command {
            command::NEW_SERVICE | command::SET_SERVICE | command::DEL_SERVICE => {
                Self::edit_service
            }
            command::NEW_DEST | command::SET_DEST | command::DEL_DEST => Self::edit_real,
            command::NEW_DAEMON | command::DEL_DAEMON => Self::edit_daemon,
            command::SET_CONFIG => Self::set_timeouts,
            command::ZERO => Self::zero,
            command::FLUSH => Self::flush,
            _ => return self.get(call, reply),
        };
        self.in_turn(edit, call)
    }

    /// Changes something while nobody else does, as the kernel has it: of two that change the same
    /// thing neither is lost, and each is told of its own problems.
    fn in_turn(&self, edit: Edit<H>, call: &Call) -> Answered {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        edit(self, call)
    }

    fn ulvs(&self, call: &Call, reply: Reply) -> Answered {
        call.check(&connection::FAMILY)?;
        match call.command {
            connection::EDIT_SNAT => self.in_turn(Self::edit_snat, call),
            connection::EDIT_MARKS => self.in_turn(Self::edit_marks, call),
            connection::EDIT_SETTING => self.in_turn(Self::edit_setting, call),
            connection::GET_SNAT => {
                dump_rules(call, reply, connection::NEW_SNAT, snat::list(&self.table))
            }
            connection::GET_MARKS => {
                dump_rules(call, reply, connection::NEW_MARK, marks::list(&self.table))
            }
            connection::GET_SETTINGS => {
                let settings = self.table.snapshot().settings;
                let kind = (&connection::FAMILY, connection::NEW_SETTING);
                dump_all(call, reply, kind, REGISTRY, |setting, to| {
                    let value = setting.show(&settings);
                    SettingView { name: setting.name.into(), value }.emit(to);
                })
            }
            connection::GET_COUNTERS => {
                let kind = (&connection::FAMILY, connection::NEW_COUNTER);
                dump_all(call, reply, kind, self.host.counters(), |counter, to| counter.emit(to))
            }
            _ => self.dump_connections(call, reply),
        }
    }

    /// A refusal, with a hint if it is for want of the service.
    fn missing(&self, error: ConfigError, key: &ServiceKey) -> Refusal {
        let hint = (error == ConfigError::NoSuchService).then(|| {
            let snapshot = self.table.snapshot();
            let keys: Vec<_> = snapshot.services().map(|service| service.key()).collect();
            advice::about_missing_service(key, keys.iter())
        });
        Refusal { errno: errno(error), hint: hint.flatten() }
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { errno, hint: None }
    }
}

/// **Source** — `NLMSG_MIN_TYPE` of linux/netlink.h.
const FIRST_PROTOCOL_TYPE: u16 = 16;
/// **Source** — `GENL_HDRLEN` of linux/genetlink.h.
const GENERIC_HEADER: usize = 4;
