//! The client side: typed calls over anything that carries requests and replies.

use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use nix::errno::Errno;

use super::handler::{Handler, Host};
use super::netlink::connection::{self, ConnectionView};
use super::netlink::counter::CounterView;
use super::netlink::ipvs::{self, Daemon, Dest, Info, Service, Side, command};
use super::netlink::setting::{self, SettingView};
use super::netlink::{
    Attributes, Frame, GenericFamily, Outcome, Writer, controller, convert, frames, header,
};
use super::sync::{self, SyncDaemon, SyncRequest, SyncRole};
use crate::engine::Moment;
use crate::engine::service::{RealSpec, RealView, ServiceKey, ServiceSpec, ServiceView, Timeouts};
use crate::packet::Addr;

/// Carries a request to a director and its replies back.
pub trait Transport {
    /// Sends `request` and calls `reply` with every datagram that comes back, up to the one that
    /// ends the reply.
    fn request(&mut self, request: &[u8], reply: &mut dyn FnMut(&[u8])) -> io::Result<()>;
}

/// A director in this very process.
#[derive(Debug)]
pub struct InProcess<'a, H> {
    /// The director's handler.
    pub handler: &'a Handler<H>,
    /// The moment at which requests arrive.
    pub now: Moment,
}

impl<H: Host> Transport for InProcess<'_, H> {
    fn request(&mut self, request: &[u8], reply: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        self.handler.handle(request, self.now, &mut |datagram| {
            reply(&datagram);
            ControlFlow::Continue(())
        });
        Ok(())
    }
}

/// Why a call failed.
#[derive(Debug)]
pub enum Failure {
    /// The director refused it.
    Refused {
        /// Why.
        errno: Errno,
        /// What the director has to say about it.
        hint: Option<String>,
    },
    /// The director could not be reached, or what it said made no sense.
    Transport(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Transport(error)
    }
}

/// A remark of the director on something that it did.
pub type Remark = Option<String>;

/// Calls a director.
pub struct Director<'a> {
    transport: &'a mut dyn Transport,
    families: HashMap<&'static str, u16>,
    sequence: u32,
}

impl<'a> Director<'a> {
    /// A director at the other end of `transport`.
    pub fn new(transport: &'a mut dyn Transport) -> Self {
        Self { transport, families: HashMap::new(), sequence: 0 }
    }

    /// Version and table size.
    pub fn info(&mut self) -> Result<Info, Failure> {
        let mut info = Err(Errno::EPROTO);
        self.call(&ipvs::FAMILY, command::GET_INFO, |_| {}, &mut |from| info = Info::parse(from))?;
        told(info)
    }

    /// Adds a service.
    pub fn add_service(&mut self, spec: &ServiceSpec) -> Result<Remark, Failure> {
        self.tell(command::NEW_SERVICE, |to| {
            convert::describe_service(spec).emit(to, Side::Client);
        })
    }

    /// Replaces a service's settings.
    pub fn edit_service(&mut self, spec: &ServiceSpec) -> Result<Remark, Failure> {
        self.tell(command::SET_SERVICE, |to| {
            convert::describe_service(spec).emit(to, Side::Client);
        })
    }

    /// Changes the local addresses of a service by `edit`, and nothing else of it.
    pub fn edit_local_addresses(
        &mut self,
        key: &ServiceKey,
        edit: impl FnOnce(&mut Vec<Addr>) -> Result<(), Errno>,
    ) -> Result<Remark, Failure> {
        let spec = self.service(key)?.spec;
        let mut addrs = spec.local_addresses.to_vec();
        edit(&mut addrs).map_err(|errno| Failure::Refused { errno, hint: None })?;
        let message =
            convert::describe_service(&ServiceSpec { local_addresses: addrs.into(), ..spec });
        // Said also if there are none, for what is not spoken of stays.
        let local_addresses = message.local_addresses.or(Some(Vec::new()));
        let message = Service { local_addresses, ..message };
        self.tell(command::SET_SERVICE, |to| message.emit(to, Side::Client))
    }

    /// Removes a service.
    pub fn delete_service(&mut self, key: &ServiceKey) -> Result<Remark, Failure> {
        self.tell(command::DEL_SERVICE, |to| convert::name_service(key).emit(to, Side::Client))
    }

    /// Removes all services.
    pub fn flush(&mut self) -> Result<Remark, Failure> {
        self.tell(command::FLUSH, |_| {})
    }

    /// Adds a real server.
    pub fn add_real(&mut self, key: &ServiceKey, spec: &RealSpec) -> Result<Remark, Failure> {
        self.tell_of_real(command::NEW_DEST, key, spec)
    }

    /// Changes a real server.
    pub fn edit_real(&mut self, key: &ServiceKey, spec: &RealSpec) -> Result<Remark, Failure> {
        self.tell_of_real(command::SET_DEST, key, spec)
    }

    /// Removes a real server, of which only the address and port count.
    pub fn delete_real(&mut self, key: &ServiceKey, spec: &RealSpec) -> Result<Remark, Failure> {
        self.tell_of_real(command::DEL_DEST, key, spec)
    }

    /// Sets counters to zero, of one service or of everything.
    pub fn zero(&mut self, key: Option<&ServiceKey>) -> Result<Remark, Failure> {
        self.tell(command::ZERO, |to| {
            if let Some(key) = key {
                convert::name_service(key).emit(to, Side::Client);
            }
        })
    }

    /// The timeouts.
    pub fn timeouts(&mut self) -> Result<Timeouts, Failure> {
        let mut timeouts = Err(Errno::EPROTO);
        self.call(&ipvs::FAMILY, command::GET_CONFIG, |_| {}, &mut |from| {
            timeouts = ipvs::parse_timeouts(from);
        })?;
        let [tcp_s, tcp_fin_s, udp_s] = told(timeouts)?;
        Ok(Timeouts { tcp_s, tcp_fin_s, udp_s })
    }

    /// Changes the timeouts that are not 0.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<Remark, Failure> {
        let Timeouts { tcp_s, tcp_fin_s, udp_s } = timeouts;
        self.tell(command::SET_CONFIG, |to| ipvs::emit_timeouts(to, [tcp_s, tcp_fin_s, udp_s]))
    }

    /// All services, without their servers, in the director's order.
    pub fn services(&mut self) -> Result<Vec<ServiceView>, Failure> {
        let mut views = Vec::new();
        self.dump(&ipvs::FAMILY, command::GET_SERVICE, |_| {}, &mut |from| {
            views.push(listed_service(from));
        })?;
        told(views.into_iter().collect())
    }

    /// One service, without its servers.
    pub fn service(&mut self, key: &ServiceKey) -> Result<ServiceView, Failure> {
        let mut view = Err(Errno::EPROTO);
        let name = convert::name_service(key);
        let ask = |to: &mut Writer| name.emit(to, Side::Client);
        self.call(&ipvs::FAMILY, command::GET_SERVICE, ask, &mut |from| {
            view = listed_service(from);
        })?;
        told(view)
    }

    /// The real servers of a service, in the director's order.
    pub fn reals(&mut self, key: &ServiceKey) -> Result<Vec<RealView>, Failure> {
        let mut views = Vec::new();
        let ask = |to: &mut Writer| convert::name_service(key).emit(to, Side::Client);
        self.dump(&ipvs::FAMILY, command::GET_DEST, ask, &mut |from| {
            let nested = from.nested(ipvs::attribute::DEST).ok_or(Errno::EPROTO);
            let dest = nested.and_then(|nested| Dest::parse(&nested));
            views.push(dest.and_then(|dest| convert::listed_real(&dest, key)));
        })?;
        told(views.into_iter().collect())
    }

    /// Calls `each` with every connection.
    pub fn connections(&mut self, each: &mut dyn FnMut(ConnectionView)) -> Result<(), Failure> {
        let mut garbled = Ok(());
        let (family, command) = (&connection::FAMILY, connection::GET_CONNECTION);
        self.dump(family, command, |_| {}, &mut |from| match ConnectionView::parse(from) {
            Ok(view) => each(view),
            Err(errno) => garbled = Err(errno),
        })?;
        told(garbled)
    }

    /// Changes the rules of source NAT by a command in the words of iptables.
    pub fn edit_snat(&mut self, command: &str) -> Result<Remark, Failure> {
        self.edit_rules(connection::EDIT_SNAT, command)
    }

    /// The rules of source NAT, in the form of `iptables -S`.
    pub fn snat_rules(&mut self) -> Result<Vec<String>, Failure> {
        self.rules(connection::GET_SNAT)
    }

    /// Changes the rules of firewall marks by a command in the words of iptables.
    pub fn edit_marks(&mut self, command: &str) -> Result<Remark, Failure> {
        self.edit_rules(connection::EDIT_MARKS, command)
    }

    /// The rules of firewall marks, in the form of `iptables -S`.
    pub fn mark_rules(&mut self) -> Result<Vec<String>, Failure> {
        self.rules(connection::GET_MARKS)
    }

    fn edit_rules(&mut self, edit: u8, command: &str) -> Result<Remark, Failure> {
        let fill = |to: &mut Writer| to.string(connection::RULE, command);
        self.call(&connection::FAMILY, edit, fill, &mut |_| {})
    }

    fn rules(&mut self, get: u8) -> Result<Vec<String>, Failure> {
        let mut rules = Vec::new();
        self.dump(&connection::FAMILY, get, |_| {}, &mut |from| {
            let rule = from.string(connection::RULE, connection::MAX_RULE);
            rules.push(rule.and_then(|rule| rule.ok_or(Errno::EPROTO)));
        })?;
        told(rules.into_iter().collect())
    }

    /// All settings of `net.ipv4.vs`, in the order of their names.
    pub fn settings(&mut self) -> Result<Vec<SettingView>, Failure> {
        let mut settings = Vec::new();
        self.dump(&connection::FAMILY, connection::GET_SETTINGS, |_| {}, &mut |from| {
            settings.push(SettingView::parse(from));
        })?;
        told(settings.into_iter().collect())
    }

    /// Changes a setting, named without `net.ipv4.vs`.
    pub fn set_setting(&mut self, name: &str, value: &str) -> Result<Remark, Failure> {
        if name.len().max(value.len()) > setting::MAX_TEXT {
            return Err(Failure::Refused { errno: Errno::EINVAL, hint: None });
        }
        let setting = SettingView { name: name.into(), value: value.into() };
        let fill = |to: &mut Writer| setting.emit(to);
        self.call(&connection::FAMILY, connection::EDIT_SETTING, fill, &mut |_| {})
    }

    /// What the director counts beyond the services' own statistics.
    pub fn counters(&mut self) -> Result<Vec<CounterView>, Failure> {
        let mut counters = Vec::new();
        self.dump(&connection::FAMILY, connection::GET_COUNTERS, |_| {}, &mut |from| {
            counters.push(CounterView::parse(from));
        })?;
        told(counters.into_iter().collect())
    }

    /// Starts a synchronisation daemon.
    pub fn start_sync(&mut self, request: &SyncRequest) -> Result<Remark, Failure> {
        self.tell(command::NEW_DAEMON, |to| sync::ask(request).emit(to, Side::Client))
    }

    /// Stops a synchronisation daemon.
    pub fn stop_sync(&mut self, role: SyncRole, id: u8) -> Result<Remark, Failure> {
        let (max_len, group, port, ttl) = (None, None, None, None);
        let interface = String::new();
        let request = SyncRequest { role, interface, id, max_len, group, port, ttl };
        self.tell(command::DEL_DAEMON, |to| sync::ask(&request).emit(to, Side::Client))
    }

    /// The synchronisation daemons that run.
    pub fn sync_daemons(&mut self) -> Result<Vec<SyncDaemon>, Failure> {
        let mut daemons = Vec::new();
        self.dump(&ipvs::FAMILY, command::GET_DAEMON, |_| {}, &mut |from| {
            let nested = from.nested(ipvs::attribute::DAEMON).ok_or(Errno::EPROTO);
            let daemon = nested.and_then(|nested| Daemon::parse(&nested));
            daemons.push(daemon.and_then(|daemon| sync::listed(&daemon)));
        })?;
        told(daemons.into_iter().collect())
    }

    fn tell_of_real(
        &mut self,
        command: u8,
        key: &ServiceKey,
        spec: &RealSpec,
    ) -> Result<Remark, Failure> {
        self.tell(command, |to| {
            convert::name_service(key).emit(to, Side::Client);
            convert::describe_real(spec).emit(to, Side::Client);
        })
    }

    fn tell(&mut self, command: u8, fill: impl Fn(&mut Writer)) -> Result<Remark, Failure> {
        self.call(&ipvs::FAMILY, command, fill, &mut |_| {})
    }

    fn call(
        &mut self,
        family: &GenericFamily,
        command: u8,
        fill: impl Fn(&mut Writer),
        each: &mut dyn FnMut(&Attributes),
    ) -> Result<Remark, Failure> {
        self.send(family, command, NLM_F_REQUEST | NLM_F_ACK, fill, each)
    }

    fn dump(
        &mut self,
        family: &GenericFamily,
        command: u8,
        fill: impl Fn(&mut Writer),
        each: &mut dyn FnMut(&Attributes),
    ) -> Result<Remark, Failure> {
        self.send(family, command, NLM_F_REQUEST | NLM_F_ACK | NLM_F_DUMP, fill, each)
    }

    fn send(
        &mut self,
        family: &GenericFamily,
        command: u8,
        flags: u16,
        fill: impl Fn(&mut Writer),
        each: &mut dyn FnMut(&Attributes),
    ) -> Result<Remark, Failure> {
        let id = self.family(family.name)?;
        self.sequence += 1;
        let header = header(id, flags, self.sequence, 0);
        let mut request = Writer::generic(header, command, family.version);
        fill(&mut request);
        self.exchange(&request.finish(), each)
    }

    /// The number of a family, asked for once.
    fn family(&mut self, name: &'static str) -> Result<u16, Failure> {
        if let Some(id) = self.families.get(name) {
            return Ok(*id);
        }
        self.sequence += 1;
        let request = controller::ask(name, NLM_F_REQUEST | NLM_F_ACK, self.sequence);
        let mut id = None;
        self.exchange(&request, &mut |from| id = controller::family_id(from))?;
        let id = told(id.ok_or(Errno::EPROTO))?;
        self.families.insert(name, id);
        Ok(id)
    }

    fn exchange(
        &mut self,
        request: &[u8],
        each: &mut dyn FnMut(&Attributes),
    ) -> Result<Remark, Failure> {
        let mut last = None;
        let sequence = self.sequence;
        self.transport.request(request, &mut |datagram| {
            for frame in frames(datagram) {
                if frame.header.sequence_number != sequence {
                    continue;
                }
                match frame.outcome() {
                    Some(outcome) => last = Some(outcome),
                    None => each(&generic_attributes(&frame)),
                }
            }
        })?;
        match last {
            Some(Outcome { error: None, text }) => Ok(text),
            Some(Outcome { error: Some(errno), text }) => {
                Err(Failure::Refused { errno, hint: text })
            }
            None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }
}

fn generic_attributes<'a>(frame: &Frame<'a>) -> Attributes<'a> {
    Attributes::parse(frame.payload.get(4..).unwrap_or_default())
}

fn listed_service(from: &Attributes) -> Result<ServiceView, Errno> {
    let nested = from.nested(ipvs::attribute::SERVICE).ok_or(Errno::EPROTO)?;
    convert::listed_service(&Service::parse(&nested)?)
}

fn told<T>(reply: Result<T, Errno>) -> Result<T, Failure> {
    reply.map_err(|errno| Failure::Transport(errno.into()))
}
