//! The scenario language: one step per line, checked before anything is played.

mod expand;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::Duration;

use super::packet::{Packet, Proto};
use super::topology::{Host, Link};
use expand::{expand_endpoints, expand_hosts};

/// Bytes that a link carries at most.
const LINK_MTU: usize = 1500;
/// Nothing in IPVS waits longer than a persistence timeout of a month.
const LONGEST_SLEEP_S: f64 = 100.0 * 86_400.0;

/// Why a line cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct ScenarioError {
    /// The line's number, from 1 on.
    pub line: usize,
    /// What is wrong with it.
    pub why: String,
}

/// A line of a scenario, with the input that is indented below it.
#[derive(Clone, Debug)]
pub struct Step {
    /// The line's number, from 1 on.
    pub line: usize,
    /// The line as written, for the transcript.
    pub text: String,
    /// What it asks for.
    pub action: Action,
    /// Standard input, line by line.
    pub stdin: Vec<String>,
}

/// What a step does.
#[derive(Clone, Debug)]
pub enum Action {
    /// Nothing: a comment or an empty line.
    Note,
    /// Runs ipvsadm with these arguments.
    Ipvsadm(Vec<String>),
    /// Runs a shell command on the director.
    Shell(String),
    /// Shows a kernel setting, or sets it.
    Sysctl {
        /// Its name with dots.
        name: String,
        /// The new value.
        value: Option<String>,
    },
    /// Gives the director more addresses on `out`.
    Vip(Vec<IpAddr>),
    /// Adds a route.
    Route {
        /// The destination.
        prefix: String,
        /// The router.
        router: String,
    },
    /// Sets the MTU of a link.
    Mtu(Link, u32),
    /// Marks arriving packets.
    Mark(Marking),
    /// Puts a packet on a link.
    Send(Link, Packet),
    /// Puts a packet on a link in fragments.
    Fragments {
        /// The link.
        link: Link,
        /// The packet.
        packet: Packet,
        /// Payload bytes of a fragment.
        size: usize,
        /// Which fragments to send in which order, from 1 on.
        order: Option<Vec<usize>>,
    },
    /// Answers the last packet that a host received.
    Reply(Host, Vec<String>),
    /// Sends an ICMP error about the last packet that a host received.
    Error {
        /// The host.
        host: Host,
        /// ICMP type and code.
        kind: String,
        /// Fields of the error.
        words: Vec<String>,
    },
    /// Plays whole flows.
    Flows(Act, Vec<Flow>),
    /// Opens sockets on the director.
    Listen(Proto, Vec<(IpAddr, u16)>),
    /// Connects, or sends a datagram, from the director.
    Connect {
        /// TCP or UDP.
        proto: Proto,
        /// From where.
        source: (IpAddr, u16),
        /// To where.
        destination: (IpAddr, u16),
    },
    /// Lets time pass.
    Sleep(Duration),
    /// Sets how long the links must stay silent before a step is over.
    Quiet(Duration),
    /// Shows the packets of flow steps one by one, or not.
    Trace(bool),
    /// Shows ARP, or not.
    Arp(bool),
    /// Shows the bytes of emitted packets, or not.
    Hex(bool),
    /// Sends packets with unfinished checksums, or not.
    Offload(bool),
    /// Lists connections.
    Connections,
    /// Lists services.
    Table,
    /// Lists counters.
    Statistics,
}

/// A rule that gives arriving packets a firewall mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marking {
    /// Name of the protocol.
    pub proto: String,
    /// Destination addresses.
    pub prefix: String,
    /// Destination port.
    pub port: Option<String>,
    /// The mark.
    pub value: u32,
}

/// A client's connection as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// TCP, UDP or SCTP.
    pub proto: Proto,
    /// The client.
    pub client: (IpAddr, u16),
    /// The service it means.
    pub virtual_end: (IpAddr, u16),
}

/// Which part of a flow's life is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Its first packet.
    Open,
    /// The packets up to an established connection.
    Handshake,
    /// The packets of an orderly end.
    Close(Side),
    /// An abrupt end.
    Reset(Side),
}

/// An end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Client,
    /// The real server.
    Server,
}

/// Reads a whole scenario.
///
/// **Errors** — for the first line that cannot be understood.
pub fn parse_scenario(text: &str) -> Result<Vec<Step>, ScenarioError> {
    let mut steps: Vec<Step> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let (number, text) = (index + 1, line.trim_end().to_string());
        let error = |why: String| ScenarioError { line: number, why };
        if text.is_empty() || text.starts_with('#') {
            steps.push(Step { line: number, text, action: Action::Note, stdin: Vec::new() });
        } else if text.starts_with(char::is_whitespace) {
            let last = steps.last_mut().filter(|step| step.action.reads_input());
            let step = last.ok_or_else(|| error(STRAY_INPUT.into()))?;
            step.stdin.push(text.trim_start().to_string());
        } else {
            let action = parse_action(&text).map_err(error)?;
            steps.push(Step { line: number, text, action, stdin: Vec::new() });
        }
    }
    Ok(steps)
}

const STRAY_INPUT: &str =
    "an indented line is input for the ipvsadm or sh line above it, and there is none";

impl Action {
    fn reads_input(&self) -> bool {
        matches!(self, Self::Ipvsadm(_) | Self::Shell(_))
    }
}

type Parsed<T> = Result<T, String>;

fn parse_action(line: &str) -> Parsed<Action> {
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    let rest = rest.trim();
    match verb {
        "ipvsadm" => Ok(Action::Ipvsadm(words(rest))),
        "sh" if rest.is_empty() => Err("expected a command".into()),
        "sh" => Ok(Action::Shell(rest.to_string())),
        "sysctl" => sysctl(rest),
        "vip" => Ok(Action::Vip(expand_hosts(&rest.replace(' ', ","))?)),
        "route" => route(rest),
        "mtu" => mtu(rest),
        "mark" => marking(rest),
        "send" => send(rest),
        "fragments" => fragments(rest),
        "reply" => host_and_words(rest).map(|(host, words)| Action::Reply(host, words)),
        "error" => icmp_error(rest),
        "open" => flows(rest).map(|flows| Action::Flows(Act::Open, flows)),
        "handshake" => flows(rest).map(|flows| Action::Flows(Act::Handshake, flows)),
        "close" => side_and_flows(rest).map(|(side, flows)| Action::Flows(Act::Close(side), flows)),
        "reset" => side_and_flows(rest).map(|(side, flows)| Action::Flows(Act::Reset(side), flows)),
        "listen" => sockets(rest).map(|(proto, ends)| Action::Listen(proto, ends)),
        "connect" => connect(rest),
        "sleep" => duration(rest, 1.0).map(Action::Sleep),
        "quiet" => duration(rest, 1e-3).map(Action::Quiet),
        "trace" => switch(rest).map(Action::Trace),
        "arp" => switch(rest).map(Action::Arp),
        "hex" => switch(rest).map(Action::Hex),
        "offload" => switch(rest).map(Action::Offload),
        "conns" => alone(rest, Action::Connections),
        "table" => alone(rest, Action::Table),
        "stats" => alone(rest, Action::Statistics),
        _ => Err(format!("unknown verb '{verb}'")),
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_string).collect()
}

fn alone(rest: &str, action: Action) -> Parsed<Action> {
    if rest.is_empty() { Ok(action) } else { Err(format!("unexpected '{rest}'")) }
}

fn duration(text: &str, unit_s: f64) -> Parsed<Duration> {
    let number: f64 = text.parse().map_err(|_| format!("expected a number, not '{text}'"))?;
    if !(0.0..=LONGEST_SLEEP_S).contains(&(number * unit_s)) {
        return Err(format!("'{text}' is no time from 0 to {LONGEST_SLEEP_S} seconds"));
    }
    Ok(Duration::from_secs_f64(number * unit_s))
}

fn switch(text: &str) -> Parsed<bool> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("expected on or off, not '{text}'")),
    }
}

fn sysctl(text: &str) -> Parsed<Action> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_string())),
        None => (text, None),
    };
    let in_name = |letter: char| letter.is_alphanumeric() || "_./-".contains(letter);
    if name.is_empty() || !name.chars().all(in_name) || value.as_deref() == Some("") {
        return Err("expected NAME or NAME=VALUE".into());
    }
    Ok(Action::Sysctl { name: name.to_string(), value })
}

fn route(text: &str) -> Parsed<Action> {
    match words(text).as_slice() {
        [prefix, via, router] if via == "via" => {
            Ok(Action::Route { prefix: prefix.clone(), router: router.clone() })
        }
        _ => Err("expected PREFIX via ROUTER".into()),
    }
}

fn mtu(text: &str) -> Parsed<Action> {
    let parsed = text
        .split_once(' ')
        .and_then(|(link, size)| Some(Action::Mtu(Link::from_name(link)?, size.parse().ok()?)));
    parsed.ok_or_else(|| "expected LINK NUMBER".into())
}

fn marking(text: &str) -> Parsed<Action> {
    let wanted = || "expected PROTOCOL PREFIX[:PORT] VALUE".to_string();
    let [proto, target, value] = words(text).try_into().map_err(|_| wanted())?;
    let (prefix, port) = match target.strip_prefix('[') {
        Some(rest) => {
            let (prefix, port) = rest.split_once(']').ok_or_else(wanted)?;
            (prefix, port.strip_prefix(':'))
        }
        None => match target.split_once(':') {
            Some((prefix, port)) => (prefix, Some(port)),
            None => (target.as_str(), None),
        },
    };
    if prefix.is_empty() || port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(wanted());
    }
    let value = value.parse().map_err(|_| wanted())?;
    let (prefix, port) = (prefix.to_string(), port.map(str::to_string));
    Ok(Action::Mark(Marking { proto, prefix, port, value }))
}

fn packet(text: &str) -> Parsed<Packet> {
    text.parse().map_err(|error: super::packet::NotationError| error.to_string())
}

fn send(text: &str) -> Parsed<Action> {
    let (link, rest) = text.split_once(' ').unwrap_or((text, ""));
    let link = Link::from_name(link).ok_or_else(|| format!("unknown link '{link}'"))?;
    let packet = packet(rest)?;
    let len = packet.build().len();
    if len > LINK_MTU {
        return Err(format!(
            "the packet takes {len} bytes, more than a link carries; use fragments"
        ));
    }
    Ok(Action::Send(link, packet))
}

fn fragments(text: &str) -> Parsed<Action> {
    let wanted = || "expected LINK SIZE [order=N,N...] PACKET, SIZE a multiple of 8".to_string();
    let (link, rest) = text.split_once(' ').ok_or_else(wanted)?;
    let (size, mut rest) = rest.split_once(' ').ok_or_else(wanted)?;
    let link = Link::from_name(link).ok_or_else(wanted)?;
    let size: usize =
        size.parse().ok().filter(|size| size % 8 == 0 && *size > 0).ok_or_else(wanted)?;
    let mut order = None;
    if let Some((numbers, packet)) =
        rest.strip_prefix("order=").and_then(|rest| rest.split_once(' '))
    {
        let numbers: Result<Vec<usize>, _> = numbers.split(',').map(str::parse).collect();
        order = Some(numbers.map_err(|_| wanted())?);
        rest = packet;
    }
    let packet = packet(rest)?;
    let count = super::packet::fragments(&packet, size).len();
    if let Some(number) = order.iter().flatten().find(|number| !(1..=count).contains(number)) {
        return Err(format!("there is no fragment {number}, only 1 to {count}"));
    }
    Ok(Action::Fragments { link, packet, size, order })
}

fn host(name: &str) -> Parsed<Host> {
    Host::from_name(name)
        .ok_or_else(|| format!("expected a host such as rs110, c2 or gw, not '{name}'"))
}

fn host_and_words(text: &str) -> Parsed<(Host, Vec<String>)> {
    let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
    Ok((host(name)?, words(rest)))
}

fn icmp_error(text: &str) -> Parsed<Action> {
    let (host, mut words) = host_and_words(text)?;
    let kind = if words.is_empty() { String::new() } else { words.remove(0) };
    let mut sample = packet("192.0.2.1 > 192.0.2.2 icmp 3/3")?;
    if sample.parse_kind(&kind).is_err() {
        return Err("expected HOST TYPE/CODE [FIELD=VALUE]...".into());
    }
    for word in &words {
        sample.parse_field(word).map_err(|error| error.to_string())?;
    }
    Ok(Action::Error { host, kind, words })
}

fn flows(text: &str) -> Parsed<Vec<Flow>> {
    let words = words(text);
    let [proto, clients, virtuals] = words.as_slice() else {
        return Err("expected tcp|udp|sctp CLIENT:PORT VIRTUAL:PORT".into());
    };
    let proto = match proto.as_str() {
        "tcp" => Proto::Tcp,
        "udp" => Proto::Udp,
        "sctp" => Proto::Sctp,
        _ => return Err("expected tcp|udp|sctp CLIENT:PORT VIRTUAL:PORT".into()),
    };
    let (clients, virtuals) = (expand_endpoints(clients)?, expand_endpoints(virtuals)?);
    if clients.iter().chain(&virtuals).any(|(addr, _)| addr.is_ipv6() != clients[0].0.is_ipv6()) {
        return Err("client and virtual address differ in address family".into());
    }
    expand::check_count(clients.len().saturating_mul(virtuals.len()))?;
    let flow = |client| virtuals.iter().map(move |end| Flow { proto, client, virtual_end: *end });
    Ok(clients.iter().flat_map(|client| flow(*client)).collect())
}

fn side_and_flows(text: &str) -> Parsed<(Side, Vec<Flow>)> {
    let (side, rest) = text.split_once(' ').unwrap_or((text, ""));
    let side = match side {
        "client" => Side::Client,
        "server" => Side::Server,
        _ => return Err("expected client or server, then tcp|sctp CLIENT:PORT VIRTUAL:PORT".into()),
    };
    if rest.trim_start().starts_with("udp") {
        return Err("udp flows have no end".into());
    }
    Ok((side, flows(rest)?))
}

fn sockets(text: &str) -> Parsed<(Proto, Vec<(IpAddr, u16)>)> {
    let (proto, rest) = text.split_once(' ').unwrap_or((text, ""));
    let ends: Vec<_> =
        rest.split_whitespace().map(expand_endpoints).collect::<Parsed<Vec<_>>>()?.concat();
    match proto {
        "tcp" if !ends.is_empty() => Ok((Proto::Tcp, ends)),
        "udp" if !ends.is_empty() => Ok((Proto::Udp, ends)),
        _ => Err("expected tcp|udp ADDRESS:PORT...".into()),
    }
}

fn connect(text: &str) -> Parsed<Action> {
    let (proto, ends) = sockets(text)?;
    match ends.as_slice() {
        [source, destination] if source.0.is_ipv6() == destination.0.is_ipv6() => {
            Ok(Action::Connect { proto, source: *source, destination: *destination })
        }
        _ => Err("expected tcp|udp SOURCE:PORT DESTINATION:PORT".into()),
    }
}
