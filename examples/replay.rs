//! Replays a capture through the director and shows what becomes of each packet.
//!
//! ```text
//! cargo run --example replay -- --rules rules.ipvs in.pcap out.pcap
//! ```
//!
//! `rules.ipvs` is what `ipvsadm -S` prints, or a script of ipvsadm lines. The capture may begin
//! with Ethernet or IP headers; its timestamps drive the director's clock, so that connections
//! expire as they would have. What the director sends, forwarded packets and its own replies, goes
//! to `out.pcap` from the IP header on. What it leaves to its host is only listed.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use ulvs::control::client::InProcess;
use ulvs::control::handler::{Handler, Host};
use ulvs::control::ipvsadm::names::SystemNames;
use ulvs::control::netlink::connection::ConnectionView;
use ulvs::control::rules;
use ulvs::driver::Sender;
use ulvs::driver::pcap::{LinkType, PcapReceiver, PcapSender};
use ulvs::engine::service::ServiceTable;
use ulvs::engine::{Director, DirectorConfig, Moment, Network, Owner, Verdict};
use ulvs::packet::fragment::{Cutter, must_be_cut};
use ulvs::packet::{Addr, PacketBuf};
use ulvs::simulate::packet::dissect;

/// Replay a capture through the director and show what becomes of each packet.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// Rules: what `ipvsadm -S` prints, or a script of ipvsadm lines
    #[arg(short, long, value_name = "FILE")]
    rules: PathBuf,
    /// Address that the director has itself: it answers pings there, and sends ICMP errors from
    /// there; may be given several times
    #[arg(short, long = "address", value_name = "ADDRESS")]
    addresses: Vec<std::net::IpAddr>,
    /// The largest packet that can be sent on, in bytes from the IP header on. A capture made on
    /// a host may hold packets larger than any link, which its network card would have cut
    #[arg(short, long, value_name = "BYTES", default_value_t = u16::MAX)]
    mtu: u16,
    /// Capture to replay, in pcap format
    #[arg(value_name = "IN.pcap")]
    input: PathBuf,
    /// Capture to write
    #[arg(value_name = "OUT.pcap")]
    output: PathBuf,
}

fn main() -> ExitCode {
    match replay(&Arguments::parse(), &mut BufWriter::new(io::stdout().lock())) {
        // A reader that has seen enough, such as `head`, is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("replay: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Replays a capture and writes a line for each packet, and a summary, to `lines`.
pub fn replay(arguments: &Arguments, lines: &mut impl Write) -> io::Result<()> {
    let services = Arc::new(ServiceTable::new(1));
    apply_rules(&arguments.rules, &services)?;
    let input = File::open(&arguments.input).map_err(named(&arguments.input))?;
    let mut capture = PcapReceiver::new(BufReader::new(input)).map_err(named(&arguments.input))?;
    let output = create(arguments).map_err(named(&arguments.output))?;
    let mut replay = Replay::new(services, arguments, output)?;
    let link = capture.link_type();
    let mut skipped = 0;
    loop {
        let line = capture.receive_one(|time, frame| replay.play(link, time, frame));
        let Some(line) = line.map_err(named(&arguments.input))? else { break };
        skipped = ulvs::driver::Receiver::counters(&mut capture).damaged;
        let number = replay.played + skipped;
        writeln!(lines, "{number:>6} {line}")?;
    }
    writeln!(lines, "{}", replay.summary(skipped))?;
    replay.sender.finish().map_err(named(&arguments.output))?;
    lines.flush()
}

/// Puts the file's name in front of an error.
fn named(path: &Path) -> impl Fn(io::Error) -> io::Error {
    let path = path.display().to_string();
    move |error| io::Error::new(error.kind(), format!("{path}: {error}"))
}

fn apply_rules(path: &Path, services: &Arc<ServiceTable>) -> io::Result<()> {
    let text = std::fs::read_to_string(path).map_err(named(path))?;
    let handler = Handler::new(Arc::clone(services), NoConnections);
    let mut transport = InProcess { handler: &handler, now: START };
    let file = path.display().to_string();
    rules::apply(&file, &text, &mut transport, &mut SystemNames::default())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}

/// Creates the output, unless that would destroy the input.
fn create(arguments: &Arguments) -> io::Result<BufWriter<File>> {
    if arguments.output.exists()
        && arguments.output.canonicalize()? == arguments.input.canonicalize()?
    {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is the input as well"));
    }
    Ok(BufWriter::new(File::create(&arguments.output)?))
}

/// A director with its clock and what it has around it.
struct Replay {
    services: Arc<ServiceTable>,
    director: Director,
    surroundings: Surroundings,
    sender: PcapSender<BufWriter<File>>,
    cutter: Cutter,
    first: Option<Duration>,
    now: Moment,
    /// Frames played so far.
    played: u64,
    /// Frames that hold no IP packet.
    others: u64,
}

const START: Moment = Moment::from_ms(0);
/// Keys hashes and random choices, so that a capture always plays alike.
const SEED: u64 = 42;
/// No connection outlives this, so that a longer gap between two packets needs no more of the
/// director's time.
const LONGEST_GAP: Duration = Duration::from_secs(50 * 24 * 3600);

impl Replay {
    fn new(
        services: Arc<ServiceTable>,
        arguments: &Arguments,
        output: BufWriter<File>,
    ) -> io::Result<Self> {
        let addresses = arguments.addresses.iter().map(|addr| Addr::from(*addr)).collect();
        let config = DirectorConfig { icmp_errors_per_s: None, ..DirectorConfig::new(0, SEED) };
        Ok(Self {
            director: Director::new(Arc::clone(&services), config, START),
            services,
            surroundings: Surroundings { addresses, mtu: arguments.mtu.into() },
            sender: PcapSender::new(output, LinkType::RawIp)?,
            cutter: Cutter::new(0, SEED),
            first: None,
            now: START,
            played: 0,
            others: 0,
        })
    }

    /// Lets the director judge a frame, sends what it wants sent, and describes all that.
    fn play(&mut self, link: LinkType, time: Duration, frame: &mut PacketBuf<'_>) -> String {
        self.played += 1;
        let since = time.saturating_sub(*self.first.get_or_insert(time));
        self.advance(since);
        self.sender.set_time(time);
        let clock = format!("{:>12.6}", since.as_secs_f64());
        if let Err(other) = take_off_link_header(link, frame) {
            self.others += 1;
            return format!("{clock}  {other:<52}  pass");
        }
        let seen = describe(frame.bytes());
        let mut fate = self.judge(frame, &[]);
        while let Some(mut datagram) = self.director.poll_datagram() {
            let (mut packet, lengths) = datagram.parts();
            fate += &format!("; together: {}", self.judge(&mut packet, lengths));
            self.director.recycle_datagram(datagram);
        }
        format!("{clock}  {seen:<52}  {fate}")
    }

    /// Lets the director judge a packet, sends what it wants sent, and says what became of it.
    fn judge(&mut self, packet: &mut PacketBuf<'_>, lengths: &[u16]) -> String {
        match self.director.handle_packet(packet, &self.surroundings, self.now) {
            Verdict::Forward(hop) => {
                let sent = describe(packet.bytes());
                self.send(packet, lengths);
                format!("forward to {}: {sent}", hop.to)
            }
            Verdict::Reply => format!("reply {}", self.send_replies().join(", ")),
            Verdict::Pass => "pass".to_owned(),
            Verdict::Held => "hold".to_owned(),
            Verdict::Drop(reason) => format!("drop: {}", reason.name()),
        }
    }

    /// Sends a packet, in fragments if it is too long or came in some.
    fn send(&mut self, packet: &mut PacketBuf<'_>, lengths: &[u16]) {
        if !must_be_cut(packet, self.surroundings.mtu) {
            return self.sender.send(&mut [packet]);
        }
        let (sender, mtu) = (&mut self.sender, self.surroundings.mtu);
        // What cannot be cut is lost.
        let _ = self.cutter.cut(packet, mtu, lengths, |fragments| {
            fragments.packets().for_each(|mut fragment| sender.send(&mut [&mut fragment]));
        });
    }

    /// Moves the clock on and does what is due by then.
    fn advance(&mut self, since: Duration) {
        let latest = self.now + LONGEST_GAP;
        // A capture's clock may go back, the director's may not.
        self.now = (START + since).clamp(self.now, latest);
        self.services.handle_timeout(self.now);
        self.director.refresh();
        self.director.handle_timeout(self.now, u32::MAX);
        self.director.expire_fragments(&self.surroundings, self.now, u32::MAX);
        self.send_replies();
    }

    fn send_replies(&mut self) -> Vec<String> {
        let mut sent = Vec::new();
        while let Some(mut reply) = self.director.poll_output() {
            sent.push(describe(&reply.bytes));
            let end = reply.bytes.len();
            self.sender.send(&mut [&mut PacketBuf::new(&mut reply.bytes, 0, end)]);
            self.director.recycle(reply);
        }
        sent
    }

    fn summary(&self, skipped: u64) -> String {
        let verdicts = self.director.verdicts();
        let mut summary = format!(
            "{} packets: {} forwarded, {} answered, {} passed",
            self.played,
            verdicts.forwarded,
            verdicts.replied,
            verdicts.passed + self.others
        );
        if verdicts.held > 0 {
            let together = self.director.fragments().reassembled;
            summary += &format!(", {} held as fragments of {together} more", verdicts.held);
        }
        for (reason, count) in verdicts.drops() {
            summary += &format!(", {count} dropped ({})", reason.name());
        }
        if skipped > 0 {
            summary += &format!("; {skipped} more were captured only in part and skipped");
        }
        summary
    }
}

/// Takes off what is in front of the IP header; if that is no IP packet, says what it is.
fn take_off_link_header(link: LinkType, frame: &mut PacketBuf<'_>) -> Result<(), String> {
    if link == LinkType::RawIp {
        return Ok(());
    }
    let bytes = frame.bytes();
    let mut at = 12;
    while matches!(bytes.get(at..at + 2), Some([0x81, 0x00] | [0x88, 0xa8])) {
        at += 4;
    }
    match bytes.get(at..at + 2) {
        Some([0x08, 0x00] | [0x86, 0xdd]) => {}
        Some([0x08, 0x06]) => return Err("ARP".to_owned()),
        Some([high, low]) => return Err(format!("EtherType {high:02x}{low:02x}")),
        _ => return Err(format!("{} bytes", bytes.len())),
    }
    let pulled = frame.pull(at + 2);
    debug_assert!(pulled, "the EtherType was there");
    Ok(())
}

/// Addresses, protocol and flags of a packet.
fn describe(packet: &[u8]) -> String {
    let Some(dissected) = dissect(packet) else { return format!("{} bytes", packet.len()) };
    let text = dissected.to_string();
    let words = text.split(' ').take_while(|word| !word.contains(['=', '{']));
    words.collect::<Vec<_>>().join(" ")
}

/// The network around the director: everybody can be reached.
struct Surroundings {
    addresses: Vec<Addr>,
    mtu: usize,
}

impl Network for Surroundings {
    fn mtu(&self, _to: Addr) -> Option<usize> {
        Some(self.mtu)
    }

    fn address_towards(&self, to: Addr) -> Option<Addr> {
        self.addresses.iter().copied().find(|own| own.family() == to.family())
    }

    fn owner(&self, addr: Addr) -> Owner {
        if self.addresses.contains(&addr) { Owner::Director } else { Owner::Other }
    }

    fn leaves_by(&self, _to: Addr, _interface: &str) -> bool {
        false
    }
}

/// What the rules are applied beside: nothing yet.
struct NoConnections;

impl Host for NoConnections {
    fn connections(&self, _each: &mut dyn FnMut(ConnectionView) -> ControlFlow<()>) {}
}
