//! Steps that administer the director's host.

use std::io::Write;
use std::net::IpAddr;

use super::{Played, Player};
use crate::simulate::admin::Output;
use crate::simulate::host::{End, Prefix, RouteError, Target};
use crate::simulate::packet::{Packet, Payload, Proto};
use crate::simulate::scenario::Marking;
use crate::simulate::topology::Link;

/// The exit code of iproute2 for what the kernel refuses.
const REFUSED: i32 = 2;

impl<W: Write> Player<W> {
    pub(super) fn run_ipvsadm_words(&mut self, arguments: &str) -> Played {
        let arguments: Vec<String> = arguments.split_whitespace().map(str::to_string).collect();
        self.run_ipvsadm(&arguments, &[])
    }

    pub(super) fn run_ipvsadm(&mut self, arguments: &[String], stdin: &[String]) -> Played {
        let output = self.ipvsadm(arguments, &text(stdin));
        self.finish(output)
    }

    pub(super) fn ipvsadm(&mut self, arguments: &[String], stdin: &str) -> Output {
        let output = self.administration.ipvsadm(arguments, stdin, &self.lab.host, self.now);
        self.lab.host.set_sync(self.administration.sync_daemons());
        // Commands take longer than what the kernel puts off to its next tick.
        self.lab.host.advance(self.now);
        output
    }

    /// Writes what a command said.
    pub(super) fn finish(&mut self, output: Output) -> Played {
        for line in tidy_connections(&output.stdout) {
            self.transcript.result(&line)?;
        }
        for line in output.stderr.lines() {
            self.transcript.failure(line)?;
        }
        self.transcript.exit_code(output.code)?;
        self.show_pending()
    }

    pub(super) fn add_addresses(&mut self, addresses: &[IpAddr]) -> Played {
        addresses.iter().try_for_each(|address| {
            let done = self.lab.host.routes.add_address(*address);
            self.finish(outcome(done))
        })
    }

    pub(super) fn add_route(&mut self, prefix: &str, router: &str) -> Played {
        let routes = &mut self.lab.host.routes;
        let done = parse(prefix).and_then(|prefix| {
            let router = router.parse().map_err(|_| RouteError::BadPrefix)?;
            routes.add(prefix, Target::Via(router))
        });
        self.finish(outcome(done))
    }

    pub(super) fn set_mtu(&mut self, link: Link, size: u32) -> Played {
        let done = self.lab.host.routes.set_mtu(link, size);
        self.finish(outcome(done))
    }

    pub(super) fn mark(&mut self, marking: &Marking) -> Played {
        let value = marking.value.to_string();
        let mut words = vec!["-A", "PREROUTING", "-p", &marking.proto, "-d", &marking.prefix];
        words.extend(marking.port.iter().flat_map(|port| ["--dport", port]));
        words.extend(["-j", "MARK", "--set-mark", &value]);
        let output = self.administration.iptables(&words);
        self.finish(output)
    }

    pub(super) fn sysctl(&mut self, name: &str, value: Option<&str>) -> Played {
        let (host, now) = (&self.lab.host, self.now);
        let done = match value {
            None => self.administration.setting(name, host, now).map(Some),
            Some(value) => self.administration.set(name, value, host, now).map(|()| None),
        };
        match done {
            Ok(Some(value)) => self.transcript.result(&value)?,
            Ok(None) => {}
            Err(why) => self.transcript.failure(why)?,
        }
        Ok(())
    }

    // --- the director's own sockets ---

    pub(super) fn listen(&mut self, proto: Proto, ends: &[End]) -> Played {
        ends.iter().try_for_each(|end| {
            if self.bind(proto, *end)? && proto == Proto::Tcp {
                self.lab.host.sockets.listen(*end);
            }
            Ok(())
        })
    }

    /// Begins a connection, or sends one datagram, from the director itself.
    pub(super) fn connect(&mut self, proto: Proto, source: End, destination: End) -> Played {
        if !self.bind(proto, source)? {
            return Ok(());
        }
        if source.0.is_loopback() && !self.lab.host.routes.is_local(destination.0) {
            return Ok(self.transcript.failure(INVALID)?);
        }
        let packet = if proto == Proto::Tcp {
            let mtu = self.lab.host.path_towards(destination.0);
            let now = self.now;
            self.lab.host.sockets.connect(source, destination, mtu, now)
        } else {
            let mut datagram = Packet::new(source.0, destination.0, proto);
            datagram.ports = Some((source.1, destination.1));
            datagram.fields.payload = Payload::Filler(4);
            datagram.fields.df = true;
            self.lab.host.sockets.pair(source, destination);
            datagram
        };
        let permitted = self.lab.host.send_own(packet);
        // TCP goes on trying.
        if !permitted && proto == Proto::Udp {
            self.transcript.failure(NOT_PERMITTED)?;
        }
        self.show_pending()
    }

    fn bind(&mut self, proto: Proto, end: End) -> Result<bool, super::StepError> {
        let host = &mut self.lab.host;
        let local = end.0.is_unspecified() || host.routes.is_local(end.0);
        let bound = if local {
            host.sockets.bind(proto, end)
        } else {
            Err(crate::simulate::host::SocketError::NotLocal)
        };
        if let Err(error) = bound {
            self.transcript.failure(&error.to_string())?;
        }
        Ok(bound.is_ok())
    }
}

/// Lines of input as a command reads them.
pub(super) fn text(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

pub(super) fn parse(prefix: &str) -> Result<Prefix, RouteError> {
    Prefix::parse(prefix).ok_or(RouteError::BadPrefix)
}

pub(super) fn outcome(done: Result<(), RouteError>) -> Output {
    match done {
        Ok(()) => Output::default(),
        Err(error) => Output::failed(REFUSED, &error.to_string()),
    }
}

/// What the C library says of a packet that is not let out.
const NOT_PERMITTED: &str = "Operation not permitted";
/// What it says of what cannot be: a loopback address as the source of what leaves the host.
const INVALID: &str = "Invalid argument";
const CONNECTIONS_TITLE: &str = "IPVS connection entries";

/// Sorts a connection listing, and rounds its expiry times up to what was left a moment ago.
fn tidy_connections(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    if lines.first() != Some(&CONNECTIONS_TITLE) {
        return lines.into_iter().map(str::to_string).collect();
    }
    let (head, rows) = lines.split_at(lines.len().min(2));
    let mut rows: Vec<String> = rows.iter().map(|row| round_up(row)).collect();
    rows.sort();
    head.iter().map(|line| (*line).to_string()).chain(rows).collect()
}

/// Adds a second to the first `MM:SS` of a line.
fn round_up(row: &str) -> String {
    let time = row.split_whitespace().find_map(|word| {
        let (minutes, seconds) = word.split_once(':')?;
        let digits = |text: &str| text.len() >= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        let plausible = digits(minutes) && digits(seconds) && seconds.len() == 2;
        let total = minutes.parse::<u64>().ok()? * 60 + seconds.parse::<u64>().ok()? + 1;
        plausible.then_some((word, total))
    });
    match time {
        Some((word, total)) => {
            row.replacen(word, &format!("{:02}:{:02}", total / 60, total % 60), 1)
        }
        None => row.to_string(),
    }
}
