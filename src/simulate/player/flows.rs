//! Whole flows: which packets each side sends, and one word for what became of them.

use std::io::Write;
use std::net::IpAddr;

use super::{Played, Player, StepError};
use crate::simulate::lab::Frame;
use crate::simulate::packet::{Packet, Proto};
use crate::simulate::scenario::{Act, Flow, Side};
use crate::simulate::topology::{Host, Link};

const FATES_PER_LINE: usize = 16;

/// Where a flow's packets arrive, and whether its answers go around the director.
#[derive(Clone, Copy, Debug)]
pub(super) struct Server {
    link: Link,
    address: IpAddr,
    port: u16,
    direct: bool,
}

type Script = &'static [(Side, &'static str)];

use Side::{Client, Server as Real};

const NEW_TCP: Script = &[(Client, "S seq=1000")];
const NEW_UDP: Script = &[(Client, "len=4")];
const NEW_SCTP: Script = &[(Client, "INIT")];
const HANDSHAKE_TCP: Script =
    &[(Client, "S seq=1000"), (Real, "SA seq=5000 ack=1001"), (Client, "A seq=1001 ack=5001")];
const HANDSHAKE_UDP: Script = &[(Client, "len=4"), (Real, "len=4")];
const HANDSHAKE_SCTP: Script = &[
    (Client, "INIT"),
    (Real, "INIT_ACK tag=1"),
    (Client, "COOKIE_ECHO tag=2"),
    (Real, "COOKIE_ACK tag=1"),
];
const CLIENT_CLOSES_TCP: Script = &[
    (Client, "FA seq=1001 ack=5001"),
    (Real, "FA seq=5001 ack=1002"),
    (Client, "A seq=1002 ack=5002"),
];
const SERVER_CLOSES_TCP: Script = &[
    (Real, "FA seq=5001 ack=1001"),
    (Client, "FA seq=1001 ack=5002"),
    (Real, "A seq=5002 ack=1002"),
];
const CLIENT_CLOSES_SCTP: Script = &[
    (Client, "SHUTDOWN tag=2"),
    (Real, "SHUTDOWN_ACK tag=1"),
    (Client, "SHUTDOWN_COMPLETE tag=2"),
];
const SERVER_CLOSES_SCTP: Script =
    &[(Real, "SHUTDOWN tag=1"), (Client, "SHUTDOWN_ACK tag=2"), (Real, "SHUTDOWN_COMPLETE tag=1")];
const CLIENT_RESETS_TCP: Script = &[(Client, "R seq=1001")];
const SERVER_RESETS_TCP: Script = &[(Real, "RA seq=5001 ack=1001")];
const CLIENT_ABORTS_SCTP: Script = &[(Client, "ABORT tag=2")];
const SERVER_ABORTS_SCTP: Script = &[(Real, "ABORT tag=1")];

/// What each side sends in an act; UDP flows have no end.
fn script(act: Act, proto: Proto) -> Script {
    match (act, proto) {
        (Act::Open, Proto::Tcp) => NEW_TCP,
        (Act::Open, Proto::Udp) => NEW_UDP,
        (Act::Open, _) => NEW_SCTP,
        (Act::Handshake, Proto::Tcp) => HANDSHAKE_TCP,
        (Act::Handshake, Proto::Udp) => HANDSHAKE_UDP,
        (Act::Handshake, _) => HANDSHAKE_SCTP,
        (Act::Close(Client), Proto::Tcp) => CLIENT_CLOSES_TCP,
        (Act::Close(Real), Proto::Tcp) => SERVER_CLOSES_TCP,
        (Act::Close(Client), _) => CLIENT_CLOSES_SCTP,
        (Act::Close(Real), _) => SERVER_CLOSES_SCTP,
        (Act::Reset(Client), Proto::Tcp) => CLIENT_RESETS_TCP,
        (Act::Reset(Real), Proto::Tcp) => SERVER_RESETS_TCP,
        (Act::Reset(Client), _) => CLIENT_ABORTS_SCTP,
        (Act::Reset(Real), _) => SERVER_ABORTS_SCTP,
    }
}

impl<W: Write> Player<W> {
    pub(super) fn play_flows(&mut self, act: Act, flows: &[Flow]) -> Played {
        let mut reports = Vec::with_capacity(flows.len());
        for flow in flows {
            reports.push(self.play_flow(flow, script(act, flow.proto))?);
        }
        for line in reports.chunks(FATES_PER_LINE) {
            self.transcript.result(&line.join(" "))?;
        }
        Ok(())
    }

    /// Sends a flow's packets; says which server got them, or what became of each if that is not
    /// all.
    fn play_flow(&mut self, flow: &Flow, script: Script) -> Result<String, StepError> {
        let (mut fates, mut expected) = (Vec::new(), Vec::new());
        let client = Host::owner_of(Link::Out, flow.client.0);
        for (side, words) in script {
            let Some((link, packet)) = self.flow_packet(flow, *side, words)? else { continue };
            let frames = self.exchange(link, &packet, vec![packet.build()])?;
            if self.trace {
                self.trace_packet(link, *side, &packet, &frames)?;
            }
            self.tell_stories(None)?;
            self.overhear();
            let asked = self.questions.drain(..).map(|question| question.text);
            let words: Vec<String> =
                asked.chain(frames.iter().map(|frame| fate(frame, link, &packet))).collect();
            fates.push(if words.is_empty() { "-".into() } else { words.join("+") });
            match side {
                Client => {
                    self.learn_server(flow, client, &frames);
                    expected.push(fates[0].clone());
                }
                Real => expected.push(client.to_string()),
            }
        }
        let uneventful = script[0].0 == Client && !fates.is_empty() && fates == expected;
        Ok(match fates.first() {
            Some(first) if uneventful => first.clone(),
            Some(_) => fates.join("/"),
            None => "-".into(),
        })
    }

    /// The packet that a side sends, and the link it goes out on; `None` from servers that answer
    /// around the director.
    fn flow_packet(
        &self,
        flow: &Flow,
        side: Side,
        words: &str,
    ) -> Result<Option<(Link, Packet)>, StepError> {
        let (link, source, destination) = match side {
            Client => (Link::Out, flow.client, flow.virtual_end),
            Real => match self.servers.get(flow) {
                Some(server) if !server.direct => {
                    (server.link, (server.address, server.port), flow.client)
                }
                _ => return Ok(None),
            },
        };
        let mut packet = Packet::new(source.0, destination.0, flow.proto);
        packet.ports = Some((source.1, destination.1));
        for word in words.split_whitespace() {
            if word.contains('=') { packet.parse_field(word)? } else { packet.parse_kind(word)? }
        }
        Ok(Some((link, packet)))
    }

    fn trace_packet(
        &mut self,
        link: Link,
        side: Side,
        packet: &Packet,
        frames: &[Frame],
    ) -> Played {
        let side = match side {
            Client => "client",
            Real => "server",
        };
        self.transcript.result(&format!("{link} {side} sends {packet}"))?;
        self.tell_stories(Some(packet))?;
        self.show(frames)
    }

    fn learn_server(&mut self, flow: &Flow, client: Host, frames: &[Frame]) {
        for frame in frames.iter().filter(|frame| frame.host != client) {
            let arrived = frame.packet.innermost();
            let server = Server {
                link: frame.host.link,
                address: arrived.dst,
                port: arrived.ports.map_or(0, |(_, dport)| dport),
                direct: arrived.dst == flow.virtual_end.0,
            };
            self.servers.insert(*flow, server);
        }
    }
}

/// A word for what became of a packet: where it arrived, or how it was refused.
fn fate(frame: &Frame, link: Link, sent: &Packet) -> String {
    let arrived = frame.packet.innermost();
    let dport = |packet: &Packet| packet.ports.map(|(_, dport)| dport);
    if arrived.is_icmp_error() || frame.host.link == link && arrived.dst == sent.src {
        return format!("{}!{}", frame.host, arrived.kind);
    }
    match dport(arrived) {
        Some(port) if link == Link::Out && dport(sent) != Some(port) => {
            format!("{}:{port}", frame.host)
        }
        _ => frame.host.to_string(),
    }
}
