//! The local ports of one worker.

use std::sync::Arc;

use hashbrown::HashMap;

use super::{DEFAULT_LOCAL_PORTS, Locals};
use crate::engine::shard::owner;
use crate::packet::{Addr, Endpoint};

/// The ports that one worker gives to its connections, by local address and protocol.
#[derive(Debug)]
pub struct Pools {
    share: Share,
    locals: Arc<Locals>,
    pools: HashMap<(Addr, u8), Pool>,
    /// Where new pools begin, so that a director that is started anew does not go through the same
    /// ports as the one before, which its servers may remember.
    start: usize,
}

/// The ports at one address, in turn: the one that was given away longest ago comes first.
#[derive(Debug)]
pub struct Pool {
    ports: Box<[u16]>,
    next: usize,
}

/// Which worker of how many.
#[derive(Clone, Copy, Debug)]
struct Share {
    worker: usize,
    workers: usize,
}

/// Addresses that ports are kept for; beyond that, all are found out anew.
const MAX_POOLS: usize = 1024;

impl Pools {
    /// The pools of worker number `worker` of `workers`.
    pub fn new(worker: usize, workers: usize, start: u64) -> Self {
        let share = Share { worker, workers };
        Self { share, locals: Arc::default(), pools: HashMap::new(), start: start as usize }
    }

    /// Takes over which ports may be used. Where they change, their turn goes on at the next higher
    /// one.
    pub fn follow(&mut self, locals: &Arc<Locals>) {
        if Arc::ptr_eq(&self.locals, locals) {
            return;
        }
        self.locals = Arc::clone(locals);
        for ((addr, protocol), pool) in &mut self.pools {
            let ports = self.share.ports(locals, *addr, *protocol);
            if ports != pool.ports {
                let turn = pool.ports.get(pool.next).copied().unwrap_or(0);
                let next = ports.iter().position(|port| *port >= turn).unwrap_or(0);
                *pool = Pool { ports, next };
            }
        }
    }

    /// Whether ports of an address of the kernel may be used.
    pub fn may_use(&self, addr: Addr, protocol: u8) -> bool {
        !self.locals.guarded || self.locals.ports.contains_key(&(addr, protocol))
    }

    /// The ports at an address.
    pub fn pool(&mut self, addr: Addr, protocol: u8) -> &mut Pool {
        let Self { share, locals, pools, start } = self;
        if pools.len() >= MAX_POOLS && !pools.contains_key(&(addr, protocol)) {
            pools.clear();
        }
        pools.entry((addr, protocol)).or_insert_with(|| {
            let ports = share.ports(locals, addr, protocol);
            let next = *start % ports.len().max(1);
            Pool { ports, next }
        })
    }
}

impl Share {
    /// The ports at an address to which answers are steered to this worker.
    fn ports(self, locals: &Locals, addr: Addr, protocol: u8) -> Box<[u16]> {
        let is_ours =
            |port: &u16| owner(Endpoint::new(addr, *port), protocol, self.workers) == self.worker;
        match locals.ports.get(&(addr, protocol)) {
            Some(ports) => ports.iter().filter(is_ours).collect(),
            None => DEFAULT_LOCAL_PORTS.filter(is_ours).collect(),
        }
    }
}

impl Pool {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.ports.len()
    }

    /// The port whose turn it is, which then is the last in turn; `None` if there is none.
    pub fn take(&mut self) -> Option<u16> {
        let port = self.ports.get(self.next).copied()?;
        self.next = (self.next + 1) % self.ports.len();
        Some(port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::headers::protocol::TCP;

    const LOCAL: Addr = Addr::v4(0x0c00_0001);

    fn locals(ports: impl IntoIterator<Item = u16>) -> Arc<Locals> {
        let ports = [((LOCAL, TCP), ports.into_iter().collect())].into_iter().collect();
        Arc::new(Locals { ports, guarded: true, ..Locals::default() })
    }

    #[test]
    fn workers_share_the_ports_among_them() {
        let mut seen = vec![0; 65_536];
        for worker in 0..3 {
            let mut pools = Pools::new(worker, 3, 7);
            let pool = pools.pool(LOCAL, TCP);
            for _ in 0..pool.len() {
                let port = pool.take().unwrap();
                assert_eq!(owner(Endpoint::new(LOCAL, port), TCP, 3), worker);
                seen[usize::from(port)] += 1;
            }
        }
        let is_default = |port: &usize| DEFAULT_LOCAL_PORTS.contains(&(*port as u16));
        assert!((0..65_536).all(|port| seen[port] == i32::from(is_default(&port))));
    }

    #[test]
    fn a_changed_pool_goes_on_where_it_was() {
        let mut pools = Pools::new(0, 1, 0);
        pools.follow(&locals([40_000, 40_010, 40_020]));
        let pool = pools.pool(LOCAL, TCP);
        assert_eq!((pool.take(), pool.take()), (Some(40_000), Some(40_010)));
        pools.follow(&locals([40_000, 40_015, 40_030]));
        let pool = pools.pool(LOCAL, TCP);
        assert_eq!(
            [pool.take(), pool.take(), pool.take()].map(Option::unwrap),
            [40_030, 40_000, 40_015]
        );
        pools.follow(&locals([]));
        assert_eq!(pools.pool(LOCAL, TCP).take(), None);
    }

    #[test]
    fn only_what_is_kept_from_the_kernel_is_used_at_its_addresses() {
        let mut pools = Pools::new(0, 1, 0);
        assert!(pools.may_use(LOCAL, TCP), "nobody guards anything here");
        pools.follow(&locals([40_000]));
        assert!(pools.may_use(LOCAL, TCP));
        assert!(!pools.may_use(Addr::v4(1), TCP));
    }
}
