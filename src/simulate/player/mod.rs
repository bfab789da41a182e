//! Plays the steps of one scenario and writes its transcript.

mod answer;
mod commands;
mod flows;
mod shell;

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use super::admin::Administration;
use super::explain::explain;
use super::host::{DirectorHost, Question};
use super::lab::{Frame, Lab};
use super::packet::{Packet, Proto, SYNC_PORT, dissect, fragments, reassemble, to_hex};
use super::scenario::{Action, Flow, Step};
use super::sync;
use super::topology::{Host, Link};
use super::transcript::Transcript;
use crate::engine::Moment;
use crate::engine::service::ServiceTable;
use answer::{answer, set_words};
use flows::Server;

/// The identification that packets have unless they say otherwise.
const DEFAULT_ID: u32 = 1;
/// How long the links must stay silent before a step is over, unless a scenario says otherwise:
/// for the simulator no time at all.
const DEFAULT_QUIET: Duration = Duration::from_millis(3);
/// How far the clock moves at a time. **Source** — a jiffy of the oracle's kernel.
const TICK_MS: u64 = 10;
/// Seeds hashes and random choices, so that a scenario always plays alike.
const SEED: u64 = 0x0075_6c76_7331_3337;

/// Why a scenario could not be played to its end.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// A step asks for something impossible.
    #[error("line {line}: {why}")]
    Step {
        /// The line of the step.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// The transcript could not be written.
    #[error("cannot write the transcript: {0}")]
    Write(#[from] io::Error),
}

/// How a scenario is played.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Whether the transcript tells under each packet why it became what it became. Such a
    /// transcript cannot be compared with recorded ones.
    pub explain: bool,
}

/// Plays `steps` in a network of their own, and writes what happens to `writer`.
pub fn play(steps: &[Step], writer: impl Write) -> Result<(), PlayError> {
    play_in(Manner::default(), steps, writer)
}

/// Plays `steps` as [`play`] does, in some manner.
pub fn play_in(manner: Manner, steps: &[Step], writer: impl Write) -> Result<(), PlayError> {
    let mut player = Player::new(writer);
    if manner.explain {
        player.lab.host.take_notes();
    }
    steps.iter().try_for_each(|step| player.play_step(step))
}

struct Player<W> {
    lab: Lab,
    services: Arc<ServiceTable>,
    administration: Administration,
    transcript: Transcript<W>,
    now: Moment,
    quiet: Duration,
    trace: bool,
    hex: bool,
    /// Whether what the host asks its links is shown.
    arp: bool,
    /// What it asked and was not shown yet.
    questions: Vec<Question>,
    /// What each host got last, but for ICMP errors and fragments.
    last_packet: HashMap<Host, Packet>,
    /// The IP identification that was sent last.
    last_id: u32,
    servers: HashMap<Flow, Server>,
}

/// An error of a step, before its line is known.
enum StepError {
    Impossible(String),
    Write(io::Error),
}

impl From<io::Error> for StepError {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

impl From<super::packet::NotationError> for StepError {
    fn from(error: super::packet::NotationError) -> Self {
        Self::Impossible(error.to_string())
    }
}

type Played = Result<(), StepError>;

/// What the kernel sets `sync_qlen_max` to, a share of its free pages, with 256 MB of memory.
const SYNC_QUEUE: &str = "1860";

impl<W: Write> Player<W> {
    fn new(writer: W) -> Self {
        let now = Moment::default();
        let services = Arc::new(ServiceTable::new(1));
        services.count_late();
        let queue = services.set_setting("sync_qlen_max", SYNC_QUEUE);
        queue.expect("the kernel has this setting and value");
        services.handle_timeout(now);
        let host = DirectorHost::new(Arc::clone(&services), SEED, now);
        Self {
            lab: Lab::new(host),
            administration: Administration::new(Arc::clone(&services)),
            services,
            transcript: Transcript::new(writer),
            now,
            quiet: DEFAULT_QUIET,
            trace: false,
            hex: false,
            arp: false,
            questions: Vec::new(),
            last_packet: HashMap::new(),
            last_id: DEFAULT_ID,
            servers: HashMap::new(),
        }
    }

    fn play_step(&mut self, step: &Step) -> Result<(), PlayError> {
        let played = self.play_action(step).and_then(|()| self.tell_stories(None));
        played.map_err(|error| match error {
            StepError::Impossible(why) => PlayError::Step { line: step.line, why },
            StepError::Write(error) => PlayError::Write(error),
        })
    }

    fn play_action(&mut self, step: &Step) -> Played {
        if let Action::Note = step.action {
            return Ok(self.transcript.note(&step.text)?);
        }
        self.transcript.step(step)?;
        match &step.action {
            Action::Note => Ok(()),
            Action::Ipvsadm(arguments) => self.run_ipvsadm(arguments, &step.stdin),
            Action::Connections => self.run_ipvsadm_words("-Lnc"),
            Action::Table => self.run_ipvsadm_words("-Ln"),
            Action::Statistics => self.run_ipvsadm_words("-Ln --stats --exact"),
            Action::Shell(command) => self.run_shell(command, &step.stdin),
            Action::Sysctl { name, value } => self.sysctl(name, value.as_deref()),
            Action::Vip(addresses) => self.add_addresses(addresses),
            Action::Route { prefix, router } => self.add_route(prefix, router),
            Action::Mtu(link, size) => self.set_mtu(*link, *size),
            Action::Mark(marking) => self.mark(marking),
            Action::Listen(proto, ends) => self.listen(*proto, ends),
            Action::Connect { proto, source, destination } => {
                self.connect(*proto, *source, *destination)
            }
            Action::Send(link, packet) => self.send(*link, packet, vec![packet.build()]),
            Action::Fragments { link, packet, size, order } => {
                self.send_fragments(*link, packet, *size, order.as_deref())
            }
            Action::Reply(host, words) => self.reply(*host, words),
            Action::Error { host, kind, words } => self.report_error(*host, kind, words),
            Action::Flows(act, flows) => self.play_flows(*act, flows),
            Action::Sleep(time) => self.sleep(*time),
            setting => {
                self.set(setting);
                Ok(())
            }
        }
    }

    /// Takes over a setting of the scenario itself.
    fn set(&mut self, action: &Action) {
        match action {
            Action::Quiet(time) => self.quiet = *time,
            Action::Trace(on) => self.trace = *on,
            Action::Hex(on) => self.hex = *on,
            Action::Offload(on) => self.lab.offload = *on,
            Action::Arp(on) => self.arp = *on,
            _ => {}
        }
    }

    // --- time ---

    fn sleep(&mut self, time: Duration) -> Played {
        let end = Moment::from_ms(self.now.as_ms() + time.as_millis() as u64);
        while self.now < end {
            self.tick(end);
            let frames = self.lab.collect();
            self.show(&frames)?;
        }
        Ok(())
    }

    /// Lets time pass without a look at what is emitted meanwhile.
    fn advance_to(&mut self, end: Moment) {
        while self.now < end {
            self.tick(end);
        }
    }

    fn tick(&mut self, end: Moment) {
        let next = (self.now.as_ms() / TICK_MS + 1) * TICK_MS;
        self.advance(Moment::from_ms(next.min(end.as_ms())));
    }

    fn advance(&mut self, now: Moment) {
        self.now = now;
        self.services.handle_timeout(now);
        self.lab.host.advance(now);
    }

    // --- single packets ---

    fn send_fragments(
        &mut self,
        link: Link,
        packet: &Packet,
        size: usize,
        order: Option<&[usize]>,
    ) -> Played {
        let pieces = fragments(packet, size);
        let pieces = match order {
            Some(order) => order.iter().map(|number| pieces[number - 1].clone()).collect(),
            None => pieces,
        };
        self.send(link, packet, pieces)
    }

    fn send(&mut self, link: Link, packet: &Packet, pieces: Vec<Vec<u8>>) -> Played {
        let frames = self.exchange(link, packet, pieces)?;
        self.tell_stories(Some(packet))?;
        self.overhear();
        if frames.is_empty() && self.questions.is_empty() {
            self.transcript.result("nothing")?;
        }
        self.show(&frames)
    }

    /// Sends a packet to the director, and returns what it emits in answer.
    fn exchange(
        &mut self,
        link: Link,
        packet: &Packet,
        pieces: Vec<Vec<u8>>,
    ) -> Result<Vec<Frame>, StepError> {
        self.show_pending()?;
        self.last_id = packet.fields.id;
        for piece in pieces {
            self.lab.inject(link, piece);
        }
        let mut frames = self.lab.collect();
        if self.quiet > DEFAULT_QUIET {
            let end = Moment::from_ms(self.now.as_ms() + self.quiet.as_millis() as u64);
            while self.now < end {
                self.advance(Moment::from_ms(self.now.as_ms() + TICK_MS));
                frames.extend(self.lab.collect());
            }
        }
        self.remember(&frames);
        Ok(frames)
    }

    /// Explains what became of each packet since the last call. `shown` is one whose line stands
    /// above already.
    fn tell_stories(&mut self, shown: Option<&Packet>) -> Played {
        while let Some(story) = self.lab.host.poll_story() {
            let text = story.packet.format(self.last_id);
            if shown.is_none_or(|shown| shown.format(self.last_id) != text) {
                self.transcript.explanation(&text)?;
            }
            for line in explain(&story) {
                self.transcript.explanation(&format!("  {line}"))?;
            }
        }
        Ok(())
    }

    fn show_pending(&mut self) -> Played {
        let frames = self.lab.collect();
        self.show(&frames)
    }

    fn remember(&mut self, frames: &[Frame]) {
        for frame in frames {
            if !frame.packet.is_icmp_error() && frame.packet.fields.frag.is_none() {
                self.last_packet.insert(frame.host, frame.packet.clone());
            }
        }
    }

    /// Takes note of what the host asked its links, if that is to be shown.
    fn overhear(&mut self) {
        let questions = self.lab.host.take_questions();
        if self.arp {
            self.questions.extend(questions);
        }
    }

    fn show(&mut self, frames: &[Frame]) -> Played {
        self.remember(frames);
        self.overhear();
        for Question { link, audience, text } in self.questions.drain(..) {
            self.transcript.result(&format!("{link} {audience}: {text}"))?;
        }
        let mut pieces: Vec<((Host, u32), Vec<Packet>)> = Vec::new();
        for frame in frames {
            let packet = &frame.packet;
            let text = packet.format(self.last_id);
            self.transcript.result(&format!("{} {}: {text}", frame.host.link, frame.host))?;
            if self.hex {
                self.transcript.result(&format!("  {}", to_hex(&packet.raw)))?;
            }
            let is_sync = packet.proto == Proto::Udp
                && packet.ports.is_some_and(|(_, dport)| dport == SYNC_PORT);
            if is_sync {
                for line in sync::describe(&packet.fields.payload.bytes()) {
                    self.transcript.result(&format!("  {line}"))?;
                }
            }
            if packet.fields.frag.is_none() {
                continue;
            }
            let key = (frame.host, packet.fields.id);
            let known = pieces.iter().position(|(each, group)| {
                *each == key && (group[0].src, group[0].dst) == (packet.src, packet.dst)
            });
            let index = known.unwrap_or_else(|| {
                pieces.push((key, Vec::new()));
                pieces.len() - 1
            });
            pieces[index].1.push(packet.clone());
            if let Some(whole) = reassemble(&pieces[index].1) {
                let text = whole.format(self.last_id);
                self.transcript.result(&format!("  together: {text}"))?;
            }
        }
        Ok(())
    }

    fn reply(&mut self, host: Host, words: &[String]) -> Played {
        let Some(received) = self.received(host)? else { return Ok(()) };
        let mut packet = answer(received.innermost());
        set_words(&mut packet, words)?;
        self.transcript.result(&format!("{} {host} sends {packet}", host.link))?;
        self.send(host.link, &packet, vec![packet.build()])
    }

    /// Sends an ICMP error from a host about the last packet it received.
    fn report_error(&mut self, host: Host, kind: &str, words: &[String]) -> Played {
        let Some(received) = self.received(host)? else { return Ok(()) };
        let ipv6 = received.src.is_ipv6();
        let proto = if ipv6 { Proto::Icmp6 } else { Proto::Icmp };
        let mut packet = Packet::new(host.address(ipv6), received.src, proto);
        packet.parse_kind(kind)?;
        let mut quoted = received.raw.as_slice();
        for word in words {
            match word.strip_prefix("quote=").and_then(|len| len.parse().ok()) {
                Some(len) => quoted = &quoted[..quoted.len().min(len)],
                None => packet.parse_field(word)?,
            }
        }
        let inner = dissect(quoted).ok_or_else(|| {
            StepError::Impossible("the quote is shorter than an IP header".into())
        })?;
        packet.inner = Some(Box::new(inner));
        let text = packet.format(self.last_id);
        self.transcript.result(&format!("{} {host} sends {text}", host.link))?;
        self.send(host.link, &packet, vec![packet.build()])
    }

    fn received(&mut self, host: Host) -> Result<Option<Packet>, StepError> {
        let packet = self.last_packet.get(&host).cloned();
        if packet.is_none() {
            self.transcript.failure(&format!("{host} has received nothing"))?;
        }
        Ok(packet)
    }
}
