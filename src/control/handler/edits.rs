//! Requests that change something.

use nix::errno::Errno;

use super::call::Call;
use super::{Answer, Answered, Handler, Host, Refusal};
use crate::control::advice::{self, Route};
use crate::control::errno::errno;
use crate::control::netlink::convert;
use crate::control::netlink::ipvs::{self, Daemon, Dest, attribute, command};
use crate::control::netlink::setting::SettingView;
use crate::control::{marks, snat, sync};
use crate::engine::service::{ConfigError, ServiceKey, Timeouts};
use crate::engine::settings::SettingError;

impl<H: Host> Handler<H> {
    pub(super) fn edit_service(&self, call: &Call) -> Answered {
        let edited = self.try_edit_service(call)?;
        let settled = self.host.settle();
        match call.command {
            command::NEW_SERVICE => {
                settled.or_else(|problem| {
                    let key = convert::service_key(&call.service()?)?;
                    self.take_back(self.table.delete_service(&key), problem)
                })?;
                Ok(edited)
            }
            command::SET_SERVICE => Ok(Answer::Done(settled.err())),
            _ => Ok(edited),
        }
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

    pub(super) fn edit_real(&self, call: &Call) -> Answered {
        let edited = self.try_edit_real(call)?;
        let settled = self.host.settle();
        match call.command {
            command::NEW_DEST => {
                settled.or_else(|problem| {
                    let key = convert::service_key(&call.service()?)?;
                    let dest = call.attributes.nested(attribute::DEST).ok_or(Errno::EINVAL)?;
                    let (addr, port) = convert::real_endpoint(&Dest::parse(&dest)?, &key)?;
                    self.take_back(self.table.delete_real(&key, addr, port), problem)
                })?;
                Ok(edited)
            }
            command::SET_DEST => Ok(Answer::Done(settled.err())),
            _ => Ok(edited),
        }
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
        let is_mixed = addr.family() != key.family() && call.command != command::DEL_DEST;
        if is_mixed && !self.host.sync_daemons().is_empty() {
            return Err(Errno::EINVAL.into());
        }
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

    pub(super) fn edit_daemon(&self, call: &Call) -> Answered {
        let nested = call.attributes.nested(attribute::DAEMON).ok_or(Errno::EINVAL)?;
        let message = Daemon::parse(&nested)?;
        if call.command == command::NEW_DAEMON {
            let request = sync::request(&message)?;
            // What a backup is told has no room for two families.
            if self.mixes_families() {
                return Err(Errno::EINVAL.into());
            }
            return Ok(Answer::Done(self.host.start_sync(request)?));
        }
        self.host.stop_sync(sync::role(&message)?)?;
        Ok(Answer::Done(None))
    }

    /// Whether a real server is of another family than its service.
    fn mixes_families(&self) -> bool {
        let snapshot = self.table.snapshot();
        snapshot.services().any(|service| {
            let family = service.key().family();
            service.pool().reals().iter().any(|real| real.addr().family() != family)
        })
    }

    pub(super) fn flush(&self, _call: &Call) -> Answered {
        self.table.flush();
        // Nothing is left that could have a problem.
        let _ = self.host.settle();
        Ok(Answer::Done(None))
    }

    pub(super) fn set_timeouts(&self, call: &Call) -> Answered {
        let [tcp_s, tcp_fin_s, udp_s] = ipvs::parse_timeouts(&call.attributes)?;
        let timeouts = Timeouts { tcp_s, tcp_fin_s, udp_s };
        self.table.set_timeouts(timeouts).map_err(errno)?;
        Ok(Answer::Done(None))
    }

    pub(super) fn zero(&self, call: &Call) -> Answered {
        if call.attributes.bytes(attribute::SERVICE).is_none() {
            self.table.zero(None).map_err(errno)?;
            return Ok(Answer::Done(None));
        }
        let key = convert::service_key(&call.service()?)?;
        self.table.zero(Some(&key)).map_err(|error| self.missing(error, &key))?;
        Ok(Answer::Done(None))
    }

    pub(super) fn edit_snat(&self, call: &Call) -> Answered {
        let hold = |addr, ports| self.host.hold_ports(addr, ports);
        snat::edit(&self.table, &call.rule()?, hold).map_err(bad_rule)?;
        Ok(Answer::Done(self.host.settle().err()))
    }

    pub(super) fn edit_marks(&self, call: &Call) -> Answered {
        marks::edit(&self.table, &call.rule()?).map_err(bad_rule)?;
        // What the guard could not do about it becomes a remark.
        Ok(Answer::Done(self.host.settle().err()))
    }

    pub(super) fn edit_setting(&self, call: &Call) -> Answered {
        let SettingView { name, value } = SettingView::parse(&call.attributes)?;
        let setting = self.table.set_setting(&name, &value).map_err(|error| match error {
            SettingError::Unknown => Errno::ENOENT,
            SettingError::Invalid => Errno::EINVAL,
            SettingError::ReadOnly => Errno::EACCES,
        })?;
        let remark = setting.idle.map(|why| format!("{name} is kept, but has no effect: {why}"));
        Ok(Answer::Done(remark))
    }
}

fn bad_rule(problem: String) -> Refusal {
    Refusal { errno: Errno::EINVAL, hint: Some(problem) }
}
