//! What the host makes of ICMP errors about its own packets.

use super::DirectorHost;
use crate::simulate::packet::{Packet, Proto};

impl DirectorHost {
    /// Takes an ICMP error: paths may take less than was known, and connections that begin may fail.
    ///
    /// **Source** — Linux `icmp_err`, `tcp_v4_err`, `tcp_v6_err`: errors about TCP count only if they
    /// tell a number that the connection waits to have acknowledged.
    pub(super) fn hear_error(&mut self, error: &Packet) {
        let Some(quoted) = error.inner.as_deref().filter(|_| error.is_icmp_error()) else { return };
        if !self.routes.is_local(quoted.src) {
            return;
        }
        match (error.proto, &*error.kind) {
            (Proto::Icmp, "3/4") | (Proto::Icmp6, "2/0") => self.hear_too_big(error, quoted),
            (_, kind) if quoted.proto == Proto::Tcp => {
                self.sockets.hear_error(quoted, refuses_answer(error.proto, kind));
            }
            _ => {}
        }
    }

    fn hear_too_big(&mut self, error: &Packet, quoted: &Packet) {
        let is_own = match quoted.proto {
            Proto::Icmp | Proto::Icmp6 => true,
            Proto::Tcp => self.sockets.is_waiting(quoted),
            _ => false,
        };
        if is_own {
            self.paths.learn(quoted.dst, error.fields.mtu as usize);
        }
    }
}

/// Whether an error means that the answer to a SYN is not sent again.
///
/// **Source** — Linux `tcp_v4_err`, `icmpv6_err_convert`.
fn refuses_answer(proto: Proto, kind: &str) -> bool {
    let kind = kind.split_once('/').unwrap_or((kind, ""));
    match proto {
        Proto::Icmp => matches!(kind, ("3", "0" | "1") | ("11" | "12", _)),
        _ => matches!(kind, ("1", "1" | "4" | "5" | "6") | ("4", _)),
    }
}
