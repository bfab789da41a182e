//! Small UDP packets per second: what a packet costs when its bytes cost nothing.
//!
//! Prebuilt 60-byte frames of 64 flows are sent in batches from a packet socket, so that the
//! client's own stack takes as little as possible of the processors that it shares with the
//! director. A UDP socket in the server's namespace counts what arrives. The offered rate is
//! raised until more pressure delivers no more, then measured at the best one.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, MultiHeaders, SockFlag, SockType, SockaddrIn, bind,
    recvmmsg, sendmmsg, socket,
};

use super::{Failures, Measurement, Pressure, Timing, per_second};

/// Where the packets go.
#[derive(Clone, Debug)]
pub struct Target {
    /// The client's interface.
    pub interface: String,
    /// The client's address.
    pub source: Ipv4Addr,
    /// Who takes the frames off the link.
    pub next_hop: Ipv4Addr,
    /// Where the packets are addressed to; flows take the addresses in turn.
    pub addresses: Vec<SocketAddrV4>,
}

/// Finds the most packets per second that reach `sink` through `target`.
///
/// **Errors** — no packet socket, or the next hop has no link address.
pub fn run(target: &Target, sink: &Sink, timing: Timing) -> io::Result<Measurement> {
    let mut blaster = Blaster::new(target)?;
    let step = (timing.measured / 10).max(MIN_STEP);
    blaster.offer(FIRST_RATE, timing.warm_up, sink)?;
    let search = Search::run(|rate| blaster.offer(rate, step, sink))?;
    let last = blaster.offer(search.best.asked, timing.measured, sink)?;
    let stalled = u64::from(last.delivered == 0);
    let failures = Failures { length: sink.wrong(), stalled, ..Failures::default() };
    Ok(Measurement {
        rate: last.delivered_rate(),
        seconds: last.elapsed.as_secs_f64(),
        failures,
        latency: None,
        pressure: Some(Pressure {
            offered: last.offered_rate(),
            lossless: search.lossless,
            generator_limited: search.generator_limited,
        }),
    })
}

/// What one stretch at one rate came to.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    asked: f64,
    offered: u64,
    delivered: u64,
    elapsed: Duration,
}

impl Stretch {
    fn offered_rate(&self) -> f64 {
        per_second(self.offered, self.elapsed)
    }

    fn delivered_rate(&self) -> f64 {
        per_second(self.delivered, self.elapsed)
    }

    fn is_lossless(&self) -> bool {
        self.delivered as f64 >= self.offered as f64 * 0.999
    }
}

/// The search for the offered rate at which most is delivered.
struct Search {
    best: Stretch,
    lossless: f64,
    generator_limited: bool,
}

impl Search {
    /// Raises the rate until that stops paying, be it at the path's limit or the generator's.
    /// One stretch in which the machine had other things to do does not end it.
    fn run(mut offer: impl FnMut(f64) -> io::Result<Stretch>) -> io::Result<Self> {
        let mut last = offer(FIRST_RATE)?;
        let mut search = Self { best: last, lossless: 0.0, generator_limited: false };
        search.note(&last);
        let mut in_vain = 0;
        while in_vain < STEPS_IN_VAIN && last.asked < MAX_RATE {
            last = offer(last.asked * RATE_FACTOR)?;
            in_vain = if search.note(&last) { 0 } else { in_vain + 1 };
        }
        search.generator_limited = last.is_lossless() && last.offered_rate() < last.asked * 0.9;
        Ok(search)
    }

    /// Keeps what is worth keeping; true if this was the best so far.
    fn note(&mut self, stretch: &Stretch) -> bool {
        if stretch.is_lossless() {
            self.lossless = self.lossless.max(stretch.delivered_rate());
        }
        let better = stretch.delivered_rate() > self.best.delivered_rate();
        if better {
            self.best = *stretch;
        }
        better
    }
}

/// Sends prebuilt frames at a given rate.
struct Blaster {
    socket: OwnedFd,
    frames: Vec<Vec<u8>>,
    headers: MultiHeaders<LinkAddr>,
}

impl Blaster {
    fn new(target: &Target) -> io::Result<Self> {
        let next_hop = resolve(target.next_hop)?;
        let link = link_address(&target.interface)?;
        let own = link.addr().unwrap_or_default();
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
        bind(socket.as_raw_fd(), &link)?;
        Ok(Self {
            socket,
            frames: frames(target, own, next_hop)?,
            headers: MultiHeaders::preallocate(FLOWS, None),
        })
    }

    /// Sends `rate` packets per second for `duration`, as far as it can, and waits for the last
    /// of them to arrive.
    fn offer(&mut self, rate: f64, duration: Duration, sink: &Sink) -> io::Result<Stretch> {
        let slices: Vec<_> = self.frames.iter().map(|f| [IoSlice::new(f)]).collect();
        let before = sink.delivered();
        let begin = Instant::now();
        let mut sent = 0;
        let elapsed = loop {
            let elapsed = begin.elapsed();
            if elapsed >= duration {
                break elapsed;
            }
            let due = (elapsed.as_secs_f64() * rate) as u64;
            if due < sent + FLOWS as u64 {
                thread::sleep(PACE);
                continue;
            }
            sent += send_batch(&self.socket, &mut self.headers, &slices)?;
        };
        thread::sleep(DRAIN);
        Ok(Stretch {
            asked: rate,
            offered: sent,
            delivered: sink.delivered().saturating_sub(before),
            elapsed,
        })
    }
}

fn send_batch<'a>(
    socket: &OwnedFd,
    headers: &'a mut MultiHeaders<LinkAddr>,
    slices: &'a [[IoSlice<'a>; 1]],
) -> io::Result<u64> {
    let nobody = [None; FLOWS];
    match sendmmsg(socket.as_raw_fd(), headers, slices, nobody, [], MsgFlags::empty()) {
        Ok(sent) => Ok(sent.count() as u64),
        // The device's queue is full: these packets were not offered.
        Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// One frame per flow: flows differ in their source port.
fn frames(target: &Target, own: [u8; 6], next_hop: [u8; 6]) -> io::Result<Vec<Vec<u8>>> {
    let to = |flow: usize| target.addresses.get(flow % target.addresses.len().max(1));
    (0..FLOWS)
        .map(|flow| {
            let to = to(flow).ok_or_else(|| {
                io::Error::new(ErrorKind::InvalidInput, "a load needs an address to send to")
            })?;
            let mut frame = Vec::with_capacity(FRAME_BYTES);
            PacketBuilder::ethernet2(own, next_hop)
                .ipv4(target.source.octets(), to.ip().octets(), 64)
                .udp(FIRST_PORT + flow as u16, to.port())
                .write(&mut frame, &PAYLOAD)
                .map_err(io::Error::other)?;
            Ok(frame)
        })
        .collect()
}

/// The address to bind a packet socket to that only sends: a protocol of 0 receives nothing.
fn link_address(interface: &str) -> io::Result<LinkAddr> {
    getifaddrs()?
        .filter(|entry| entry.interface_name == interface)
        .find_map(|entry| entry.address?.as_link_addr().copied())
        .ok_or_else(|| {
            let message = format!("there is no interface {interface:?} with a link address");
            io::Error::new(ErrorKind::NotFound, message)
        })
}

/// Finds the link address of a neighbour by talking to it, as the kernel's table knows it then.
fn resolve(next_hop: Ipv4Addr) -> io::Result<[u8; 6]> {
    let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    for _ in 0..RESOLVE_ATTEMPTS {
        probe.send_to(b"", (next_hop, DISCARD_PORT))?;
        thread::sleep(RESOLVE_PAUSE);
        // Of this thread, not of the process: its namespace may be another.
        let table = std::fs::read_to_string("/proc/thread-self/net/arp")?;
        if let Some(address) = neighbour_in(&table, next_hop) {
            return Ok(address);
        }
    }
    let message = format!("{next_hop} does not answer ARP");
    Err(io::Error::new(ErrorKind::HostUnreachable, message))
}

/// Reads one neighbour out of the kernel's table in its text form.
fn neighbour_in(table: &str, wanted: Ipv4Addr) -> Option<[u8; 6]> {
    let complete = "0x2";
    let line = table.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [address, _, flags, link, ..] = fields[..] else {
            return None;
        };
        (address.parse() == Ok(wanted) && flags == complete).then(|| link.to_owned())
    })?;
    let mut bytes = line.split(':').map(|byte| u8::from_str_radix(byte, 16).ok());
    let mut link = [0; 6];
    for byte in &mut link {
        *byte = bytes.next()??;
    }
    Some(link)
}

/// Counts packets in the server's namespace until it is dropped.
#[derive(Debug)]
pub struct Sink {
    counters: Arc<SinkCounters>,
    thread: Option<JoinHandle<()>>,
    port: u16,
}

#[derive(Debug, Default)]
struct SinkCounters {
    delivered: AtomicU64,
    wrong: AtomicU64,
    stop: AtomicBool,
}

impl Sink {
    /// Listens on `port` of all IPv4 addresses of the calling thread's namespace.
    ///
    /// **Errors** — the port is taken or not allowed.
    pub fn start(port: u16) -> io::Result<Self> {
        let socket = socket2::Socket::from(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?);
        socket.set_nonblocking(true)?;
        // Room for a few milliseconds; the kernel caps it at net.core.rmem_max.
        socket.set_recv_buffer_size(SINK_BUFFER_BYTES)?;
        let socket = UdpSocket::from(socket);
        let port = socket.local_addr()?.port();
        let counters = Arc::<SinkCounters>::default();
        let in_thread = counters.clone();
        let thread = thread::spawn(move || count(&socket, &in_thread));
        Ok(Self { counters, thread: Some(thread), port })
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Packets that arrived whole.
    pub fn delivered(&self) -> u64 {
        self.counters.delivered.load(Ordering::Relaxed)
    }

    /// Packets that arrived with another length than they were sent with.
    pub fn wrong(&self) -> u64 {
        self.counters.wrong.load(Ordering::Relaxed)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.counters.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A sink that panicked has counted nothing since; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

/// Receives in batches. When nothing is there it sleeps instead of waiting on the socket, so
/// that the director's packets need not wake anybody.
fn count(socket: &UdpSocket, counters: &SinkCounters) {
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(SINK_BATCH, None);
    let mut storage = [[0; SINK_PACKET_BYTES]; SINK_BATCH];
    while !counters.stop.load(Ordering::Relaxed) {
        let mut slices = storage.each_mut().map(|bytes| [IoSliceMut::new(bytes)]);
        let flags = MsgFlags::MSG_TRUNC;
        let (mut whole, mut all) = (0, 0);
        if let Ok(messages) = recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, flags, None) {
            for message in messages {
                all += 1;
                whole += u64::from(message.bytes == PAYLOAD.len());
            }
        }
        counters.delivered.fetch_add(whole, Ordering::Relaxed);
        counters.wrong.fetch_add(all - whole, Ordering::Relaxed);
        if all < SINK_BATCH as u64 {
            thread::sleep(SINK_PAUSE);
        }
    }
}

/// Flows, and frames per batch.
const FLOWS: usize = 64;

/// Source port of the first flow; below the ephemeral range.
const FIRST_PORT: u16 = 20_000;

/// Ethernet's smallest frame without its checksum.
const FRAME_BYTES: usize = 60;

const PAYLOAD: [u8; FRAME_BYTES - 14 - 20 - 8] = *b"ulvs bench packet.";

/// Packets per second that the search begins with.
const FIRST_RATE: f64 = 40_000.0;

/// Where the search ends at the latest: more than a packet socket can send.
const MAX_RATE: f64 = 20e6;

/// Factor from one step of the search to the next.
const RATE_FACTOR: f64 = 1.25;

/// Steps without a gain that end the search.
const STEPS_IN_VAIN: u32 = 3;

/// The shortest step of the search.
const MIN_STEP: Duration = Duration::from_millis(100);

/// Sleep between batches when ahead of the rate.
const PACE: Duration = Duration::from_micros(20);

/// Time for the last packets to arrive.
const DRAIN: Duration = Duration::from_millis(10);

const RESOLVE_ATTEMPTS: u32 = 100;
const RESOLVE_PAUSE: Duration = Duration::from_millis(10);

/// Where the packet goes that makes the kernel ask for a neighbour.
const DISCARD_PORT: u16 = 9;

const SINK_BUFFER_BYTES: usize = 4 << 20;
const SINK_BATCH: usize = 64;
const SINK_PACKET_BYTES: usize = 64;

/// A hundred packets at a million per second.
const SINK_PAUSE: Duration = Duration::from_micros(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn path_of(capacity: f64, generator: f64) -> impl FnMut(f64) -> io::Result<Stretch> {
        move |asked| {
            Ok(Stretch {
                asked,
                offered: asked.min(generator) as u64,
                // Beyond its capacity a path delivers less the harder it is pressed.
                delivered: asked.min(generator).min(capacity * capacity / asked) as u64,
                elapsed: Duration::from_secs(1),
            })
        }
    }

    #[test]
    fn the_search_stops_where_pressure_stops_paying() {
        let search = Search::run(path_of(300e3, 5e6)).unwrap();
        assert!((240e3..=300e3).contains(&search.best.delivered_rate()));
        assert!((240e3..=300e3).contains(&search.lossless));
        assert!(!search.generator_limited);
    }

    #[test]
    fn one_disturbed_step_does_not_end_the_search() {
        let mut path = path_of(300e3, 5e6);
        let mut step = 0;
        let search = Search::run(|asked| {
            step += 1;
            path(if step == 3 { asked / 4.0 } else { asked })
                .map(|stretch| Stretch { asked, ..stretch })
        });
        assert!((240e3..=300e3).contains(&search.unwrap().best.delivered_rate()));
    }

    #[test]
    fn a_path_faster_than_the_generator_is_noted() {
        let search = Search::run(path_of(5e6, 800e3)).unwrap();
        assert!(search.generator_limited);
        assert_eq!(search.best.delivered_rate(), 800e3);
    }

    #[test]
    fn frames_are_60_bytes_with_valid_checksums_and_a_port_per_flow() {
        let target = Target {
            interface: "eth0".to_owned(),
            source: Ipv4Addr::new(192, 0, 2, 1),
            next_hop: Ipv4Addr::new(192, 0, 2, 2),
            addresses: vec![SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), 53)],
        };
        let frames = frames(&target, [2; 6], [4; 6]).unwrap();
        let mut ports = std::collections::HashSet::new();
        for frame in &frames {
            assert_eq!(frame.len(), FRAME_BYTES);
            let parsed = etherparse::PacketHeaders::from_ethernet_slice(frame).unwrap();
            let (Some(etherparse::NetHeaders::Ipv4(ip, _)), Some(transport)) =
                (parsed.net, parsed.transport)
            else {
                panic!("not UDP over IPv4");
            };
            let udp = transport.udp().unwrap();
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            let sum = udp.calc_checksum_ipv4(&ip, &PAYLOAD).unwrap();
            assert_eq!(udp.checksum, sum);
            ports.insert(udp.source_port);
        }
        assert_eq!(ports.len(), FLOWS);
    }

    #[test]
    fn the_sink_counts_whole_packets_and_others_apart() {
        let sink = Sink::start(0).unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = (Ipv4Addr::LOCALHOST, sink.port());
        for _ in 0..100 {
            client.send_to(&PAYLOAD, to).unwrap();
        }
        client.send_to(b"short", to).unwrap();
        client.send_to(&[0; 1000], to).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while sink.delivered() + sink.wrong() < 102 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!((sink.delivered(), sink.wrong()), (100, 2));
    }

    #[test]
    fn a_neighbour_is_read_only_when_it_is_complete() {
        let table = "IP address       HW type     Flags       HW address            Mask     Device\n\
                     192.0.2.1        0x1         0x2         02:00:00:00:0a:ff     *        out\n\
                     192.0.2.2        0x1         0x0         00:00:00:00:00:00     *        out\n";
        let known = neighbour_in(table, Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(known, Some([2, 0, 0, 0, 0x0a, 0xff]));
        assert_eq!(neighbour_in(table, Ipv4Addr::new(192, 0, 2, 2)), None);
        assert_eq!(neighbour_in("", Ipv4Addr::new(192, 0, 2, 2)), None);
    }
}
