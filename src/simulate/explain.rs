//! Tells people why a packet became what it became: `ulvs simulate --explain`.

use std::fmt::Write;

use super::host::{Fate, Story};
use super::packet::Packet;
use crate::engine::conn::{Direction, State};
use crate::engine::event::{Binding, Ending, Event, Sight};
use crate::engine::scheduler::Explanation;
use crate::engine::service::{ForwardingMethod, Protocol, ServiceKey};
use crate::packet::Endpoint;

/// Where the text of a line begins, behind what it is about.
const MARGIN: usize = 12;

/// The lines that explain a packet, the packet itself not among them.
pub fn explain(story: &Story) -> Vec<String> {
    let mut page = Page::default();
    let mut scheduler = "";
    let mut candidates: Option<(&[Endpoint], &Explanation)> = None;
    for event in &story.events {
        match event {
            Event::Matched { service, scheduler: name } => {
                scheduler = name;
                page.add("service", service_name(service));
            }
            Event::Weighed { reals, explanation } => candidates = Some((reals, explanation)),
            Event::Chose(chosen) => {
                if let Some((reals, explanation)) = candidates.take() {
                    page.add_choice(scheduler, reals, explanation, *chosen);
                }
            }
            other => page.add_event(other),
        }
    }
    page.add_fate(story);
    page.lines
}

#[derive(Default)]
struct Page {
    lines: Vec<String>,
}

impl Page {
    fn add(&mut self, about: &str, text: impl AsRef<str>) {
        self.lines.push(format!("{about:<MARGIN$}{}", text.as_ref()));
    }

    fn add_event(&mut self, event: &Event) {
        match event {
            Event::Found { connection, direction } => {
                let side = match direction {
                    Direction::ToReal => "client",
                    Direction::ToClient => "server",
                };
                self.add("connection", format!("{}, from its {side}", describe(connection)));
            }
            Event::Related { connection, direction } => {
                let side = match direction {
                    Direction::ToReal => "server",
                    Direction::ToClient => "client",
                };
                self.add("about", format!("{}; goes to its {side}", describe(connection)));
            }
            Event::Ended(ending) => self.add("ends", ending_reason(*ending)),
            Event::Bound(binding) => self.add("persistence", binding_text(binding)),
            Event::Opened(connection) => {
                self.add("connection", format!("{}, a new one", describe(connection)));
            }
            Event::BeganOutbound(endpoint) => {
                self.add("snat", format!("a server goes out; it becomes {endpoint}"));
            }
            Event::Moved { from, to, timeout_ms } => {
                self.add("state", state_text(*from, *to, *timeout_ms));
            }
            Event::Matched { .. } | Event::Weighed { .. } | Event::Chose(_) => {}
        }
    }

    /// The candidates of a scheduler with their figures, the chosen one marked.
    fn add_choice(
        &mut self,
        scheduler: &str,
        reals: &[Endpoint],
        explanation: &Explanation,
        chosen: Option<Endpoint>,
    ) {
        self.add(scheduler, explanation.rule);
        if !explanation.note.is_empty() {
            self.add("", &explanation.note);
        }
        let names: Vec<String> = reals.iter().map(Endpoint::to_string).collect();
        let width = names.iter().map(String::len).max().unwrap_or(0);
        for ((real, name), figure) in reals.iter().zip(&names).zip(&explanation.figures) {
            let mark = if chosen == Some(*real) { "->" } else { "  " };
            self.add("", format!("{mark} {name:<width$}  {figure}"));
        }
        if chosen.is_none() {
            self.add(
                "",
                if reals.is_empty() { "there are no servers" } else { "none can take it" },
            );
        }
    }

    fn add_fate(&mut self, story: &Story) {
        match &story.fate {
            Fate::Forwarded { packet, to } => {
                match to {
                    Some(host) => {
                        let link_address = host.link_address();
                        self.add("sent to", format!("{host}, link address {link_address}"));
                    }
                    None => self.add("sent to", "nobody: there is no way"),
                }
                let changes = packet.iter().flat_map(|after| changes(&story.packet, after));
                let changes: Vec<String> = changes.collect();
                self.add("rewritten", changes.join(", "));
            }
            Fate::Held => self.add("held", "until the other fragments of its datagram come"),
            Fate::Answered => self.add("answered", "by the director itself"),
            Fate::LeftToHost(local) => self.add_left_to_host(!story.events.is_empty(), *local),
            Fate::Dropped(reason) => {
                self.add("dropped", format!("{}: {}", reason.name(), reason.about()));
            }
            Fate::NotTaken(why) => self.add("dropped", format!("by the host: {why}")),
            Fate::Bypassed => {
                self.add("forwarded", "by the host: the virtual address is none of its own");
            }
        }
    }

    fn add_left_to_host(&mut self, known: bool, local: bool) {
        if !known {
            self.add("director", "knows no connection for it, and no service takes it");
        }
        self.add("left", if local { "to the host itself" } else { "to the host, a router for it" });
    }
}

fn service_name(service: &ServiceKey) -> String {
    match service {
        ServiceKey::Address { protocol, addr, port } => {
            let name = match protocol {
                Protocol::Tcp => "TCP",
                Protocol::Udp => "UDP",
                Protocol::Sctp => "SCTP",
            };
            let every = if *port == 0 { " (every port)" } else { "" };
            format!("{name} {}{every}", Endpoint::new(*addr, *port))
        }
        ServiceKey::Mark { mark, .. } => format!("FWM {mark}: the packet carries that mark"),
    }
}

fn describe(connection: &Sight) -> String {
    let key = &connection.key;
    let method = method_name(connection.method);
    let (client, real) = (key.client, key.real_endpoint);
    format!("{client} -> {} -> {real}, {method}", key.virtual_endpoint)
}

fn method_name(method: ForwardingMethod) -> &'static str {
    match method {
        ForwardingMethod::Masquerade => "NAT",
        ForwardingMethod::Local => "local",
        ForwardingMethod::Tunnel => "tunnel",
        ForwardingMethod::Direct => "direct routing",
        ForwardingMethod::Bypass => "bypass",
        ForwardingMethod::FullNat => "full NAT",
    }
}

fn ending_reason(ending: Ending) -> &'static str {
    match ending {
        Ending::Reused => "that connection: it is closing, and the client begins anew",
        Ending::Quiesced => {
            "that connection: its server has weight 0, and the client begins anew \
             (expire_nodest_conn)"
        }
        Ending::Removed => "that connection: its server was removed (expire_nodest_conn)",
    }
}

fn binding_text(binding: &Binding) -> String {
    let Binding { client, call, real, is_new, timeout_s } = binding;
    let who = match call {
        Some(call) => format!("call {call}"),
        None => client.to_string(),
    };
    if *is_new {
        format!("{who} is bound to {real}, until {timeout_s} s after its last new connection")
    } else {
        format!("{who} is bound to {real}, so that no scheduler is asked")
    }
}

fn state_text(from: State, to: State, timeout_ms: u32) -> String {
    let names = if from == to {
        to.name().to_string()
    } else {
        format!("{} -> {}", from.name(), to.name())
    };
    format!("{names}, for {} s", f64::from(timeout_ms) / 1000.0)
}

/// What was rewritten, one text each.
fn changes(before: &Packet, after: &Packet) -> Vec<String> {
    let mut texts = Vec::new();
    let inside = after.innermost();
    if !std::ptr::eq(inside, after) {
        let kind = after.proto_name();
        texts.push(format!("wrapped in {kind} {} > {}", after.src, after.dst));
    }
    let ends = |packet: &Packet| {
        let (sport, dport) = packet.ports.unwrap_or_default();
        [Endpoint::new(packet.src.into(), sport), Endpoint::new(packet.dst.into(), dport)]
    };
    let names = ["source", "destination"];
    for ((name, old), new) in names.iter().zip(ends(before)).zip(ends(inside)) {
        if old != new {
            let (old, new) = (end_name(before, old), end_name(before, new));
            texts.push(format!("{name} {old} -> {new}"));
        }
    }
    if let (Some(old), Some(new)) = (&before.inner, &inside.inner)
        && before.is_icmp_error()
    {
        texts.extend(changes(old, new).into_iter().map(|change| format!("quoted {change}")));
    }
    let (old, new) = (before.fields.ttl, inside.fields.ttl);
    if old != new {
        texts.push(format!("TTL {old} -> {new}"));
    }
    texts
}

fn end_name(packet: &Packet, end: Endpoint) -> String {
    let mut text = String::new();
    let _ = match packet.ports {
        Some(_) => write!(text, "{end}"),
        None => write!(text, "{}", end.addr),
    };
    text
}
