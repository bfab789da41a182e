//! A director without traffic, for tests of the control plane.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::ControlFlow;
use std::sync::Arc;

use nix::errno::Errno;
use ulvs::control::advice::Route;
use ulvs::control::handler::{Handler, Host};
use ulvs::control::netlink::connection::ConnectionView;
use ulvs::control::netlink::counter::CounterView;
use ulvs::control::{SyncDaemon, SyncDaemons, SyncRequest, SyncRole};
use ulvs::engine::Moment;
use ulvs::engine::service::ServiceTable;
use ulvs::packet::Addr;

/// The director's host in the recorded scenarios: links `out` 12.0.0.1/24 and `in`
/// 192.168.200.1/24, both with an MTU of 1500.
#[derive(Debug, Default)]
pub struct TestHost {
    pub connections: Vec<ConnectionView>,
    pub counters: Vec<CounterView>,
    pub daemons: SyncDaemons,
}

impl Host for TestHost {
    fn connections(&self, each: &mut dyn FnMut(ConnectionView) -> ControlFlow<()>) {
        let _ = self.connections.iter().try_for_each(|connection| each(connection.clone()));
    }

    fn counters(&self) -> Vec<CounterView> {
        self.counters.clone()
    }

    fn route(&self, addr: Addr) -> Route {
        match IpAddr::from(addr) {
            IpAddr::V4(addr) => match addr.octets() {
                [12, 0, 0, 255] | [192, 168, 200, 255] => Route::Broadcast,
                [12, 0, 0, _] | [192, 168, 200, _] | [127, ..] => Route::Reachable,
                [129, 168, 200, last] => Route::Unlikely {
                    default_via: Some("out".into()),
                    meant: Some(Ipv4Addr::new(192, 168, 200, last).into()),
                },
                _ => Route::Unknown,
            },
            IpAddr::V6(_) => Route::Unknown,
        }
    }

    fn start_sync(&self, request: SyncRequest) -> Result<Option<String>, Errno> {
        let is_known = ["in", "out"].contains(&request.interface.as_str());
        let mtu = is_known.then_some(1500);
        let director = ServiceTable::new(1);
        self.daemons.start(request, mtu, &director, Moment::default(), |_| Ok(()))?;
        Ok(None)
    }

    fn stop_sync(&self, role: SyncRole) -> Result<(), Errno> {
        self.daemons.stop(role, &ServiceTable::new(1))
    }

    fn sync_daemons(&self) -> Vec<SyncDaemon> {
        self.daemons.list()
    }
}

/// A handler of an empty table.
pub fn handler() -> Handler<TestHost> {
    Handler::new(Arc::new(ServiceTable::new(1)), TestHost::default())
}
