//! When a connection is to be told: after so many packets, after a time, when its state changes.
//!
//! **Source** — IPVS `ip_vs_sync_conn_needed`, Documentation/networking/ipvs-sysctl.rst.

use crate::engine::conn::State;
use crate::engine::conn::sctp::SctpState;
use crate::engine::conn::tcp::TcpState;
use crate::engine::settings::Settings;
use crate::engine::time::Moment;

/// When something was told last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Until when it lived then, in milliseconds; 0 if it was never told.
    pub until_ms: u64,
    /// How often it was told again since.
    pub retries: u8,
}

/// What the decision is about.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Its state; `None` for a template.
    pub state: Option<State>,
    /// Whether it is in the state that it was told to be in last.
    pub is_in_told_state: bool,
    /// Packets from the client so far.
    pub packets: u32,
    /// Milliseconds it lives after a packet.
    pub timeout_ms: u64,
    /// When it was told last.
    pub told: Told,
}

/// Whether something is to be told now, and what is to be remembered of it.
pub fn due(candidate: &Candidate, settings: &Settings, now: Moment) -> Option<Told> {
    let until_ms = now.as_ms().saturating_add(candidate.timeout_ms);
    let fresh = Told { until_ms, retries: 0 };
    if let Some(state) = candidate.state {
        if !is_told_of(state) {
            return None;
        }
        if has_states(state) && !candidate.is_in_told_state && !is_established(state) {
            return Some(fresh);
        }
    }
    let refresh_ms = u64::from(settings.sync_refresh_period.max(0).unsigned_abs()) * 1000;
    let told = if refresh_ms > 0 {
        refreshed(candidate, fresh, refresh_ms, settings, now)?
    } else {
        fresh
    };
    let [threshold, period] = settings.sync_threshold.map(|each| each.max(0).unsigned_abs());
    let is_its_turn = match period {
        0 => refresh_ms > 0 || candidate.packets == threshold,
        // Kernels tell templates along with every packet that asks for it.
        period => candidate.state.is_none() || candidate.packets % period == threshold,
    };
    is_its_turn.then_some(told)
}

/// Whether what was told is old enough to be told again.
fn refreshed(
    candidate: &Candidate,
    fresh: Told,
    refresh_ms: u64,
    settings: &Settings,
    now: Moment,
) -> Option<Told> {
    let Told { until_ms, retries } = candidate.told;
    let longest = (candidate.timeout_ms / 2).max(SHORTEST_MS);
    if until_ms == 0 || fresh.until_ms.abs_diff(until_ms) >= refresh_ms.min(longest) {
        return Some(fresh);
    }
    if i32::from(retries) >= settings.sync_retries {
        return None;
    }
    let told_ms = until_ms.saturating_sub(candidate.timeout_ms);
    (now.as_ms() >= told_ms + refresh_ms / 8).then_some(Told { retries: retries + 1, ..fresh })
}

/// What changed by less than this is not worth telling.
const SHORTEST_MS: u64 = 10_000;

fn has_states(state: State) -> bool {
    match state {
        State::Tcp(_) | State::Sctp(_) => true,
        State::Udp | State::Echo => false,
    }
}

fn is_established(state: State) -> bool {
    matches!(state, State::Tcp(TcpState::Established) | State::Sctp(SctpState::Established))
}

/// Whether connections in a state are told of: those that have been established.
fn is_told_of(state: State) -> bool {
    match state {
        State::Tcp(state) => matches!(
            state,
            TcpState::Established
                | TcpState::FinWait
                | TcpState::Close
                | TcpState::CloseWait
                | TcpState::TimeWait
        ),
        State::Sctp(state) => matches!(
            state,
            SctpState::Established
                | SctpState::ShutdownSent
                | SctpState::ShutdownReceived
                | SctpState::ShutdownAckSent
                | SctpState::Closed
        ),
        State::Udp => true,
        State::Echo => false,
    }
}
