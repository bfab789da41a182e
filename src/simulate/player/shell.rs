//! Steps that run a shell: what it finds on the director's host.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use super::commands::{outcome, parse, text};
use super::{Played, Player};
use crate::control::proc;
use crate::engine::Moment;
use crate::simulate::admin::Output;
use crate::simulate::host::{DirectorHost, Policy, RouteError, Rule, Target};
use crate::simulate::packet::{Packet, Payload, Proto};
use crate::simulate::shell::{self, System};
use crate::simulate::topology::Link;

/// The exit code of a shell for what it does not find.
const NOT_FOUND: i32 = 127;
/// A port that a socket gets which asks for none. **Source** — Linux gives ports from here on.
const EPHEMERAL: u16 = 32_768;
const NO_FILE: &str = "No such file or directory";
/// Where files are that the kernel makes.
const PROC: &str = "/proc/";
const PROC_NET: &str = "/proc/net";
const SETTINGS: &str = "/proc/sys/";
const IPVS_SETTINGS: &str = "/proc/sys/net/ipv4/vs";

impl<W: Write> Player<W> {
    /// Runs a shell command.
    pub(super) fn run_shell(&mut self, command: &str, stdin: &[String]) -> Played {
        let output = shell::run(command, &text(stdin), self);
        self.finish(output)
    }

    fn ip(&mut self, words: &[&str]) -> Output {
        let DirectorHost { routes, policy, .. } = &mut self.lab.host;
        let done = match words {
            ["route", "add", "local", prefix, "dev", "lo", "table", table] => {
                parse(prefix).and_then(|prefix| policy.add_local(prefix, parse_number(table)?))
            }
            ["rule", "add", "fwmark", mark, rest @ .., "lookup" | "table", table] => {
                add_rule(policy, mark, rest, table)
            }
            ["route", "add", "local", prefix, "dev", "lo"] => {
                parse(prefix).and_then(|prefix| routes.add(prefix, Target::Local))
            }
            ["route", "del", "local", prefix, "dev", "lo"] => {
                parse(prefix).and_then(|prefix| routes.remove(&prefix))
            }
            ["route", "add", "unreachable", prefix] => {
                parse(prefix).and_then(|prefix| routes.add(prefix, Target::Unreachable))
            }
            ["addr" | "address" | "a", "add", addr, "dev", "out"] => {
                parse(addr).and_then(|prefix| routes.add_address(prefix.addr()))
            }
            ["addr" | "address" | "a", "del", addr, "dev", "out"] => {
                parse(addr).and_then(|prefix| routes.remove_address(prefix.addr()))
            }
            ["link", "set", "dev", link, "mtu", size] | ["link", "set", link, "mtu", size] => {
                let size = size.parse().map_err(|_| RouteError::BadMtu(false));
                link_named(link).and_then(|link| routes.set_mtu(link, size?))
            }
            ["route" | "r", "add", prefix, "via", router]
            | ["route" | "r", "add", prefix, "via", router, "dev", _] => {
                let router = router.parse().map_err(|_| RouteError::BadPrefix);
                parse(prefix).and_then(|prefix| routes.add(prefix, Target::Via(router?)))
            }
            ["route" | "r", "add", prefix, "dev", link] => parse(prefix)
                .and_then(|prefix| routes.add(prefix, Target::OnLink(link_named(link)?))),
            ["route" | "r", "del", prefix, ..] => {
                parse(prefix).and_then(|prefix| routes.remove(&prefix))
            }
            _ => {
                let command = words.join(" ");
                let why = format!("sh: the simulator cannot run 'ip {command}'");
                return Output::failed(NOT_FOUND, &why);
            }
        };
        outcome(done)
    }
}

impl<W: Write> System for Player<W> {
    fn run(&mut self, words: &[String], stdin: &str) -> Option<Output> {
        let arguments = &words[1..];
        Some(match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["ipvsadm", ..] => self.ipvsadm(arguments, stdin),
            ["ipvsadm-save", rest @ ..] => {
                let numbers = rest.contains(&"-n").then(|| "-n".to_owned());
                let words: Vec<String> = std::iter::once("-S".to_owned()).chain(numbers).collect();
                self.ipvsadm(&words, stdin)
            }
            ["ipvsadm-restore", ..] => {
                self.ipvsadm(&["-C".to_owned()], "");
                let lines = stdin.lines().filter(|line| !line.starts_with('#'));
                let rules: String = lines.map(|line| format!("{line}\n")).collect();
                self.ipvsadm(&["-R".to_owned()], &rules)
            }
            ["sysctl", ..] => {
                self.administration.sysctl(arguments, stdin, &self.lab.host, self.now)
            }
            ["ip", rest @ ..] => self.ip(rest),
            ["iptables" | "ip6tables", rest @ ..] => self.administration.iptables(rest),
            ["modprobe", module, ..] => {
                self.administration.shows_ftp |= *module == "ip_vs_ftp";
                Output::default()
            }
            _ => return None,
        })
    }

    fn read(&mut self, path: &str) -> Result<String, &'static str> {
        if let Some(name) = path.strip_prefix(PROC_NET) {
            let name = name.trim_start_matches('/');
            return self.administration.proc_file(name, &self.lab.host, self.now).ok_or(NO_FILE);
        }
        if let Some(name) = path.strip_prefix(SETTINGS) {
            let value = self.administration.setting(&dotted(name), &self.lab.host, self.now)?;
            return Ok(format!("{value}\n"));
        }
        self.administration.files.get(path).cloned().ok_or(NO_FILE)
    }

    fn write(&mut self, path: &str, text: &str) -> Result<(), &'static str> {
        if path == "/dev/null" {
            return Ok(());
        }
        if let Some(name) = path.strip_prefix(SETTINGS) {
            let (host, value) = (&self.lab.host, text.trim_end_matches('\n'));
            return self.administration.set(&dotted(name), value, host, self.now);
        }
        if path.starts_with(PROC) {
            return Err(NO_FILE);
        }
        self.administration.files.insert(path.to_owned(), text.to_owned());
        Ok(())
    }

    fn list(&mut self, path: &str) -> Option<Vec<String>> {
        match path {
            PROC_NET => Some(proc::NAMES.map(String::from).to_vec()),
            IPVS_SETTINGS => Some(self.administration.setting_names(&self.lab.host, self.now)),
            "" => {
                let mut names: Vec<String> = self.administration.files.keys().cloned().collect();
                names.sort();
                Some(names)
            }
            _ => None,
        }
    }

    fn send(&mut self, to: SocketAddr, payload: &[u8], times: usize) {
        let host = &mut self.lab.host;
        let Some(source) = host.routes.source_towards(to.ip()) else { return };
        let mut datagram = Packet::new(source, to.ip(), Proto::Udp);
        datagram.ports = Some((EPHEMERAL, to.port()));
        datagram.fields.payload = Payload::Data(payload.to_vec());
        datagram.fields.df = true;
        host.sockets.pair((source, EPHEMERAL), (to.ip(), to.port()));
        for _ in 0..times {
            host.send_own(datagram.clone());
        }
    }

    fn sleep(&mut self, time: Duration) {
        let end = Moment::from_ms(self.now.as_ms() + time.as_millis() as u64);
        self.advance_to(end);
    }
}

/// A setting's name with dots, from that of its file.
fn dotted(name: &str) -> String {
    name.replace('/', ".")
}

fn link_named(name: &str) -> Result<Link, RouteError> {
    Link::ALL.into_iter().find(|link| link.name() == name).ok_or(RouteError::NoSuchLink)
}

fn parse_number(text: &str) -> Result<u32, RouteError> {
    text.parse().map_err(|_| RouteError::BadRule)
}

fn add_rule(
    policy: &mut Policy,
    mark: &str,
    input: &[&str],
    table: &str,
) -> Result<(), RouteError> {
    let input = match input {
        [] => None,
        ["iif", "out"] => Some(Link::Out),
        ["iif", "in"] => Some(Link::In),
        _ => return Err(RouteError::BadRule),
    };
    policy.add_rule(Rule { mark: parse_number(mark)?, input, table: parse_number(table)? })
}
