//! What the director does by time: connections that expire, those that the defences drop, and
//! those whose server was removed.

use super::Director;
use crate::engine::conn::ConnId;
use crate::engine::defence::DEFENCE_PERIOD_MS;
use crate::engine::scheduler::Random;
use crate::engine::time::Moment;

/// Work on the whole connection table that is done a little at a time.
#[derive(Debug, Default)]
pub(super) struct Chores {
    next_defence: Moment,
    /// Connections that `drop_entry` has still to look at in this second.
    to_examine: u32,
    /// How far each of the counters of `drop_entry` is from dropping a connection.
    countdowns: [i8; COUNTDOWNS],
    /// The removals of servers that the sweep under way was begun for.
    removals: u64,
    sweep: Option<Sweep>,
}

/// Where a sweep for the connections of removed servers goes on.
#[derive(Clone, Copy, Debug)]
enum Sweep {
    Connections(usize),
    Templates(usize),
}

/// **Source** — IPVS `todrop_rate`: of established connections with up to eight packets, every
/// first, second, … eighth is dropped; those without a packet and those with more are not.
const COUNTDOWNS: usize = 9;

/// `drop_entry` looks at one connection of so many in a second.
///
/// **Source** — IPVS `ip_vs_random_dropentry`.
const SHARE: u64 = 32;

/// Connections over which data may flow are spared if they had a packet in this time.
const YOUNG_MS: u32 = 60_000;

/// Records that are looked at under one lock of the templates.
const TEMPLATE_BATCH: usize = 1024;

impl Director {
    /// Expires connections whose time has come, drops some if the defences say so, and ends those
    /// of removed servers, but does no more than about `budget` steps of each.
    pub fn handle_timeout(&mut self, now: Moment, budget: u32) {
        self.expire(now, budget);
        self.drop_entries(now, budget);
        self.sweep(budget);
    }

    /// Whether `drop_packet` drops the packet at hand, which would open a connection.
    ///
    /// **Source** — IPVS `ip_vs_todrop`.
    pub(super) fn drops_packet(&mut self) -> bool {
        let rate = self.defence.drop_rate;
        if rate == 0 {
            return false;
        }
        self.until_drop = self.until_drop.saturating_sub(1);
        if self.until_drop > 0 {
            return false;
        }
        self.until_drop = rate;
        true
    }

    fn drop_entries(&mut self, now: Moment, budget: u32) {
        if now >= self.chores.next_defence {
            self.chores.next_defence = Moment::from_ms(now.as_ms() + DEFENCE_PERIOD_MS);
            self.services.report_room(self.worker, self.conns.room() as u64);
            self.chores.to_examine = if self.defence.drops_connections {
                // Rounded at random, so that small tables are thinned out too.
                (self.conns.positions() as u64 + self.random.below(SHARE)) / SHARE
            } else {
                0
            } as u32;
        }
        let examined = self.chores.to_examine.min(budget);
        self.chores.to_examine -= examined;
        for _ in 0..examined {
            let drawn = self.random.below(self.conns.positions() as u64);
            if let Some(id) = self.conns.at(drawn as usize)
                && self.is_dropped(id, now)
            {
                self.drop_connection(id);
            }
        }
    }

    /// Whether `drop_entry` drops a connection that it came upon.
    fn is_dropped(&mut self, id: ConnId, now: Moment) -> bool {
        let conn = self.conns.get(id);
        if conn.is_outbound() {
            return false;
        }
        if conn.state().is_half_open() {
            return true;
        }
        if !conn.state().may_carry_data() || conn.idle_ms(now) < YOUNG_MS {
            return false;
        }
        let packets = conn.in_packets() as usize;
        let Some(countdown) = self.chores.countdowns.get_mut(packets).filter(|_| packets > 0)
        else {
            return false;
        };
        *countdown -= 1;
        if *countdown > 0 {
            return false;
        }
        *countdown = packets as i8;
        true
    }

    /// Drops a connection, and its template if no connection of that was ever answered.
    fn drop_connection(&mut self, id: ConnId) {
        let template = self.conns.get(id).template().cloned();
        self.conns.remove(id);
        self.dropped_connections += 1;
        if let Some(template) = template
            && !template.is_assured()
        {
            self.services.templates().drop_unheld(template);
        }
    }

    /// Ends the connections of servers that were removed under `expire_nodest_conn`, then those
    /// templates of theirs that no connection holds.
    ///
    /// **Source** — IPVS `ip_vs_expire_nodest_conn_flush`.
    fn sweep(&mut self, budget: u32) {
        let removals = self.services.removals();
        if removals != self.chores.removals {
            self.chores.removals = removals;
            self.chores.sweep = Some(Sweep::Connections(0));
        }
        if let Some(Sweep::Connections(from)) = self.chores.sweep {
            let end = from.saturating_add(budget as usize).min(self.conns.positions());
            (from..end).for_each(|at| self.end_removed(at));
            let is_done = end == self.conns.positions();
            let next = if is_done { Sweep::Templates(0) } else { Sweep::Connections(end) };
            self.chores.sweep = Some(next);
        }
        if let Some(Sweep::Templates(from)) = self.chores.sweep {
            let next = self.services.templates().drop_removed(from, TEMPLATE_BATCH);
            self.chores.sweep = next.map(Sweep::Templates);
        }
    }

    /// Ends the connection at a position if its server was removed.
    fn end_removed(&mut self, position: usize) {
        let Some(id) = self.conns.at(position) else { return };
        if self.conns.get(id).real().is_some_and(|real| !real.is_available()) {
            self.conns.remove(id);
        }
    }
}
