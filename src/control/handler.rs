//! Requests in, replies out, without I/O.
//!
//! Owns no state: edits go to the service table, everything else is asked of the [`Host`], which is
//! the daemon, the simulator or a test.

use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_MULTIPART, NLM_F_REQUEST};
use netlink_packet_generic::GenlHeader;
use nix::errno::Errno;

use super::advice::{self, Route};
use super::errno::errno;
use super::netlink::connection::{self, ConnectionView};
use super::netlink::counter::CounterView;
use super::netlink::ipvs::{self, Daemon, Dest, Info, Service, Side, attribute, command};
use super::netlink::{
    Attributes, Frame, GenericFamily, Writer, acknowledge, controller, convert, done, frames,
    header, refuse,
};
use super::sync::{self, SyncDaemon, SyncRequest, SyncRole};
use super::{marks, snat};
use crate::engine::Moment;
use crate::engine::service::{ConfigError, ServiceKey, ServiceTable, ServiceView, Timeouts};
use crate::packet::Addr;

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

    /// Starts a synchronisation daemon.
    fn start_sync(&self, _request: SyncRequest) -> Result<(), Errno> {
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

impl<H: Host> Handler<H> {
    /// A handler of edits to `table`.
    pub fn new(table: Arc<ServiceTable>, host: H) -> Self {
        Self { table, host }
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
        match call.command {
            command::NEW_SERVICE | command::SET_SERVICE | command::DEL_SERVICE => {
                self.edit_service(call)
            }
            command::NEW_DEST | command::SET_DEST | command::DEL_DEST => self.edit_real(call),
            command::NEW_DAEMON | command::DEL_DAEMON => self.edit_daemon(call),
            command::SET_CONFIG => self.set_timeouts(call),
            command::ZERO => self.zero(call),
            command::FLUSH => {
                self.table.flush();
                // Nothing is left that could have a problem.
                let _ = self.host.settle();
                Ok(Answer::Done(None))
            }
            _ => self.get(call, reply),
        }
    }

    /// The commands that tell one thing.
    fn get(&self, call: &Call, reply: Reply) -> Answered {
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

    fn edit_service(&self, call: &Call) -> Answered {
        let edited = self.try_edit_service(call)?;
        let settled = self.host.settle();
        if call.command != command::NEW_SERVICE {
            return Ok(edited);
        }
        settled.or_else(|problem| {
            let key = convert::service_key(&call.service()?)?;
            self.take_back(self.table.delete_service(&key), problem)
        })?;
        Ok(edited)
    }

    fn try_edit_service(&self, call: &Call) -> Answered {
        let service = call.service()?;
        let key = convert::service_key(&service)?;
        let result = match call.command {
            command::NEW_SERVICE => {
                let spec = convert::service_spec(&service, None)?;
                self.table.add_service(spec, call.now)
            }
            command::SET_SERVICE => {
                let view = self.table.view(&key).map_err(|error| self.missing(error, &key))?;
                let spec = convert::service_spec(&service, Some(&view.spec))?;
                self.table.edit_service(spec, call.now)
            }
            _ => self.table.delete_service(&key),
        };
        match result {
            Ok(()) => Ok(Answer::Done(None)),
            Err(error @ ConfigError::NoSuchScheduler) => {
                let name = service.sched_name.unwrap_or_default();
                Err(Refusal { errno: errno(error), hint: advice::about_schedulers(&name) })
            }
            Err(error) => Err(self.missing(error, &key)),
        }
    }

    fn edit_real(&self, call: &Call) -> Answered {
        let edited = self.try_edit_real(call)?;
        let settled = self.host.settle();
        if call.command != command::NEW_DEST {
            return Ok(edited);
        }
        settled.or_else(|problem| {
            let key = convert::service_key(&call.service()?)?;
            let dest = call.attributes.nested(attribute::DEST).ok_or(Errno::EINVAL)?;
            let (addr, port) = convert::real_endpoint(&Dest::parse(&dest)?, &key)?;
            self.take_back(self.table.delete_real(&key, addr, port), problem)
        })?;
        Ok(edited)
    }

    /// Refuses what was just added and has been removed again.
    fn take_back(&self, removed: Result<(), ConfigError>, problem: String) -> Result<(), Refusal> {
        // Somebody else may have removed it first, and what is left may have problems of its own.
        let _ = (removed, self.host.settle());
        Err(Refusal { errno: Errno::EBUSY, hint: Some(problem) })
    }

    fn try_edit_real(&self, call: &Call) -> Answered {
        let key = convert::service_key(&call.service()?)?;
        if self.table.snapshot().service(&key).is_none() {
            return Err(self.missing(ConfigError::NoSuchService, &key));
        }
        let dest = Dest::parse(&call.attributes.nested(attribute::DEST).ok_or(Errno::EINVAL)?)?;
        let (addr, port) = convert::real_endpoint(&dest, &key)?;
        let result = match call.command {
            command::NEW_DEST => return self.add_real(&key, &dest),
            command::SET_DEST => self.table.edit_real(&key, &convert::real_spec(&dest, &key)?),
            _ => self.table.delete_real(&key, addr, port),
        };
        result.map(|()| Answer::Done(None)).map_err(|error| match error {
            ConfigError::NoSuchReal => {
                let view = self.table.view(&key).ok();
                let hint = view.map(|view| advice::about_missing_real(&view, addr, port));
                Refusal { errno: errno(error), hint }
            }
            _ => self.missing(error, &key),
        })
    }

    fn add_real(&self, key: &ServiceKey, dest: &Dest) -> Answered {
        let spec = convert::real_spec(dest, key)?;
        let route = self.host.route(spec.addr);
        // A link-local address says nothing of the link; the director's own needs none.
        let is_ambiguous = spec.addr.is_link_local() && route != Route::Own;
        if route == Route::Broadcast || is_ambiguous {
            let taken = self.table.would_take_real(key, &spec);
            taken.map_err(|error| self.missing(error, key))?;
            let hint = is_ambiguous.then(|| advice::about_link_local(spec.addr));
            return Err(Refusal { errno: errno(ConfigError::Invalid), hint });
        }
        self.table.add_real(key, &spec).map_err(|error| self.missing(error, key))?;
        Ok(Answer::Done(advice::about_real(&spec, &route)))
    }

    fn edit_daemon(&self, call: &Call) -> Answered {
        let nested = call.attributes.nested(attribute::DAEMON).ok_or(Errno::EINVAL)?;
        let message = Daemon::parse(&nested)?;
        if call.command == command::NEW_DAEMON {
            self.host.start_sync(sync::request(&message)?)?;
        } else {
            self.host.stop_sync(sync::role(&message)?)?;
        }
        Ok(Answer::Done(None))
    }

    fn set_timeouts(&self, call: &Call) -> Answered {
        let [tcp_s, tcp_fin_s, udp_s] = ipvs::parse_timeouts(&call.attributes)?;
        let timeouts = Timeouts { tcp_s, tcp_fin_s, udp_s };
        self.table.set_timeouts(timeouts).map_err(errno)?;
        Ok(Answer::Done(None))
    }

    fn zero(&self, call: &Call) -> Answered {
        if call.attributes.bytes(attribute::SERVICE).is_none() {
            self.table.zero(None).map_err(errno)?;
            return Ok(Answer::Done(None));
        }
        let key = convert::service_key(&call.service()?)?;
        self.table.zero(Some(&key)).map_err(|error| self.missing(error, &key))?;
        Ok(Answer::Done(None))
    }

    fn dump_services(&self, call: &Call, reply: Reply) -> Answered {
        let mut views = self.table.views();
        views.sort_by_key(|view| dump_order(&view.spec.key));
        dump_all(call, reply, (&ipvs::FAMILY, command::NEW_SERVICE), views, |view, to| {
            convert::list_service(&view).emit(to, Side::Director);
        })
    }

    fn dump_reals(&self, call: &Call, reply: Reply) -> Answered {
        // A service that does not exist has no servers, says the kernel.
        let key = call.service().and_then(|service| convert::service_key(&service));
        let view = key.ok().and_then(|key| self.table.view(&key).ok());
        let reals = view.iter().flat_map(|view: &ServiceView| &view.reals);
        dump_all(call, reply, (&ipvs::FAMILY, command::NEW_DEST), reals, |real, to| {
            convert::list_real(real).emit(to, Side::Director);
        })
    }

    fn dump_daemons(&self, call: &Call, reply: Reply) -> Answered {
        let daemons = self.host.sync_daemons();
        dump_all(call, reply, (&ipvs::FAMILY, command::NEW_DAEMON), daemons, |daemon, to| {
            sync::describe(&daemon).emit(to, Side::Director);
        })
    }

    fn ulvs(&self, call: &Call, reply: Reply) -> Answered {
        call.check(&connection::FAMILY)?;
        match call.command {
            connection::EDIT_SNAT => self.edit_snat(call),
            connection::EDIT_MARKS => self.edit_marks(call),
            connection::GET_SNAT => {
                dump_rules(call, reply, connection::NEW_SNAT, snat::list(&self.table))
            }
            connection::GET_MARKS => {
                dump_rules(call, reply, connection::NEW_MARK, marks::list(&self.table))
            }
            connection::GET_COUNTERS => {
                let kind = (&connection::FAMILY, connection::NEW_COUNTER);
                dump_all(call, reply, kind, self.host.counters(), |counter, to| counter.emit(to))
            }
            _ => self.dump_connections(call, reply),
        }
    }

    fn edit_snat(&self, call: &Call) -> Answered {
        let hold = |addr, ports| self.host.hold_ports(addr, ports);
        snat::edit(&self.table, &call.rule()?, hold).map_err(bad_rule)?;
        // Ports that could not be held were refused above.
        let _ = self.host.settle();
        Ok(Answer::Done(None))
    }

    fn edit_marks(&self, call: &Call) -> Answered {
        marks::edit(&self.table, &call.rule()?).map_err(bad_rule)?;
        // What the guard could not do about it becomes a remark.
        Ok(Answer::Done(self.host.settle().err()))
    }

    fn dump_connections(&self, call: &Call, reply: Reply) -> Answered {
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

/// One request, taken apart.
struct Call<'a> {
    frame: &'a Frame<'a>,
    command: u8,
    attributes: Attributes<'a>,
    now: Moment,
}

impl Call<'_> {
    fn is_dump(&self) -> bool {
        self.frame.header.flags & NLM_F_DUMP == NLM_F_DUMP
    }

    /// Refuses commands that the family lacks.
    fn check(&self, family: &GenericFamily) -> Result<(), Errno> {
        let wanted = if self.is_dump() { CAN_DUMP } else { CAN_DO };
        let mut operations = family.operations.iter();
        let known = operations.any(|(command, can)| *command == self.command && can & wanted != 0);
        if known { Ok(()) } else { Err(Errno::EOPNOTSUPP) }
    }

    fn service(&self) -> Result<Service, Errno> {
        Service::parse(&self.attributes.nested(attribute::SERVICE).ok_or(Errno::EINVAL)?)
    }

    /// The words of a command about rules.
    fn rule(&self) -> Result<String, Errno> {
        let rule = self.attributes.string(connection::RULE, connection::MAX_RULE)?;
        rule.ok_or(Errno::EINVAL)
    }

    fn message(&self, family: &GenericFamily, command: u8, flags: u16) -> Writer {
        let asked = &self.frame.header;
        let header = header(family.id, flags, asked.sequence_number, asked.port_number);
        Writer::generic(header, command, family.version)
    }
}

/// A dump under way: messages are put together into datagrams.
struct Dump<'a> {
    call: &'a Call<'a>,
    reply: Reply<'a>,
    datagram: Vec<u8>,
}

impl<'a> Dump<'a> {
    fn new(call: &'a Call<'a>, reply: Reply<'a>) -> Self {
        Self { call, reply, datagram: Vec::new() }
    }

    fn push(&mut self, message: &[u8]) -> ControlFlow<()> {
        if self.datagram.len() + message.len() > MAX_DATAGRAM {
            (self.reply)(std::mem::take(&mut self.datagram))?;
        }
        self.datagram.extend_from_slice(message);
        ControlFlow::Continue(())
    }

    fn end(self) -> Answered {
        let rest = Some(self.datagram).filter(|datagram| !datagram.is_empty());
        let end = done(&self.call.frame.header);
        let mut last = rest.into_iter().chain([end]);
        let is_heard = last.try_for_each(self.reply).is_continue();
        Ok(if is_heard { Answer::Told } else { Answer::Left })
    }
}

fn bad_rule(problem: String) -> Refusal {
    Refusal { errno: Errno::EINVAL, hint: Some(problem) }
}

fn dump_rules(call: &Call, reply: Reply, command: u8, rules: Vec<String>) -> Answered {
    dump_all(call, reply, (&connection::FAMILY, command), rules, |rule, to| {
        to.string(connection::RULE, &rule);
    })
}

/// Dumps `items`, each as a message of the family and command that `emit` fills in.
fn dump_all<T>(
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

fn find_family(call: &Call, reply: Reply) -> Answered {
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

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { errno, hint: None }
    }
}

const FAMILIES: [GenericFamily; 2] = [ipvs::FAMILY, connection::FAMILY];
/// **Source** — `IP_VS_VERSION_CODE` of linux/ip_vs.h.
const VERSION: u32 = 0x01_02_01;
/// What `size=` of a listing says: the number of buckets of IPVS's connection table by default.
const TABLE_SIZE: u32 = 4096;
/// **Source** — `NLMSG_MIN_TYPE` of linux/netlink.h.
const FIRST_PROTOCOL_TYPE: u16 = 16;
/// **Source** — `GENL_HDRLEN` of linux/genetlink.h.
const GENERIC_HEADER: usize = 4;
/// **Source** — `GENL_CMD_CAP_DO` and `_DUMP` of linux/genetlink.h.
const CAN_DO: u32 = 2;
const CAN_DUMP: u32 = 4;
/// libnl and most other clients read into 16 KiB.
const MAX_DATAGRAM: usize = 16 * 1024;
