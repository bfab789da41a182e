//! A whole worker under hostile frames: classification, ARP and neighbour discovery, the engine, next
//! hops and cutting, between cables in memory. And the link layer alone, with a virtual clock.
//!
//! Bits of a script's manner: 0 a smaller MTU inside, 1 no addresses of the kernel, so that the
//! director answers for its own, 2 two workers, of which only the first one receives.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ulvs::control::client::InProcess;
use ulvs::control::handler::Handler;
use ulvs::control::ipvsadm::names::NoNames;
use ulvs::control::rules;
use ulvs::driver::memory::{Cable, Memory};
use ulvs::driver::{Receiver, Sender, virtio};
use ulvs::engine::service::ServiceTable;
use ulvs::engine::{Director, DirectorConfig, Moment};
use ulvs::link::{
    Class, HostView, Interface, KernelAddress, KernelNeighbour, KernelRoute, LinkLayer, PortId,
    Services, Settings,
};
use ulvs::packet::{PacketBuf, Prefix, SegmentKind};
use ulvs::worker::{Clock, Mailbox, Patience, Request, SharedLink, Worker, WorkerConfig};

use super::build::{Ends, ends, udp};
use super::director::{Alone, addr};
use super::judge;
use super::script::{Script, Step};

pub const OUT_MAC: [u8; 6] = [0x0a, 0, 0, 0, 0, 1];
pub const IN_MAC: [u8; 6] = [0x0a, 0, 0, 0, 1, 1];
pub const CLIENT_MAC: [u8; 6] = [0x0a, 0, 0, 0, 0, 0x12];
pub const REAL_MAC: [u8; 6] = [0x0a, 0, 0, 0, 1, 0x10];
const CANARY_MACS: [[u8; 6]; 2] = [[0x0a, 0, 0, 0, 0, 0xca], [0x0a, 0, 0, 0, 1, 0xca]];

/// Beside these there are frames of neighbours only, which know nothing of IP.
const RULES: &str = "
    -A -t 12.0.0.1:80 -s rr
    -a -t 12.0.0.1:80 -r 192.168.200.110:8080 -m
    -A -u 12.0.0.1:53 -s rr
    -a -u 12.0.0.1:53 -r 192.168.200.110:53 -m
    -A -t 12.0.0.1:81 -s rr
    -a -t 12.0.0.1:81 -r 192.168.200.111 -g
    -A -t 12.0.0.1:82 -s rr
    -a -t 12.0.0.1:82 -r 192.168.200.110 -i --tun-type gre --tun-csum
    -a -t 12.0.0.1:82 -r 192.168.200.120 -i
    -A -t 12.0.0.1:85 -s rr
    -a -t 12.0.0.1:85 -r 192.168.200.110:8080 --fullnat
    -A -t [2001:db8:1::1]:80 -s rr
    -a -t [2001:db8:1::1]:80 -r [2001:db8:2::110]:8080 -m
    -A -u 12.0.0.77:7778 -s rr
    -a -u 12.0.0.77:7778 -r 192.168.200.177:7078 -m
";
const HEADROOM: usize = 64;
const LINK_LEN: usize = 14;
/// Two tags.
const MOST_LINK_LEN: usize = 22;

struct World {
    workers: Vec<Worker>,
    /// Two of each worker's.
    cables: Vec<Memory>,
    mtu: usize,
    canary: u32,
}

pub fn play(script: &Script) {
    let mut world = World::new(script.manner);
    let mut alone = layer(script.manner);
    let mut now = Moment::from_ms(1 << 20);
    world.check_canary();
    for step in &script.steps {
        match step {
            Step::Bytes { way, virtio, bytes } => {
                world.throw(usize::from(way & 1), *virtio, bytes);
                tell_layer(&mut alone, PortId(u16::from(way & 1)), bytes, now);
            }
            Step::Wait(ms) => {
                now = Moment::from_ms(now.as_ms() + ms);
                alone.handle_timeout(now);
                drain(&mut alone);
            }
            Step::Edit(_) => {}
        }
        world.check_canary();
    }
}

/// The host: interfaces `out` and `in`, and neighbours that nobody can talk away.
fn host(manner: u16) -> HostView {
    let inside_mtu = if manner & 1 == 1 { 1300 } else { 1500 };
    let interface = |index, name: &str, mac: [u8; 6], mtu_bytes| Interface {
        index,
        name: name.into(),
        mac: Some(mac.into()),
        mtu_bytes,
        up: true,
        running: true,
        ethernet: true,
        ..Interface::default()
    };
    let prefix = |text: &str, len| Prefix::new(addr(text), len).unwrap();
    let own = |interface, text, len| KernelAddress {
        interface,
        addr: addr(text),
        prefix: prefix(text, len),
    };
    let route = |prefix, interface, gateway| KernelRoute { prefix, interface, gateway, metric: 0 };
    let neighbour = |interface, text, mac: [u8; 6]| KernelNeighbour {
        interface,
        addr: addr(text),
        mac: mac.into(),
        permanent: true,
    };
    let addresses = vec![
        own(1, "12.0.0.1", 24),
        own(2, "192.168.200.1", 24),
        own(1, "2001:db8:1::1", 64),
        own(2, "2001:db8:2::1", 64),
    ];
    HostView {
        interfaces: vec![
            interface(1, "out", OUT_MAC, 1500),
            interface(2, "in", IN_MAC, inside_mtu),
        ],
        addresses: if manner & 2 == 0 { addresses } else { Vec::new() },
        routes: vec![
            route(prefix("12.0.0.0", 24), 1, None),
            route(prefix("192.168.200.0", 24), 2, None),
            route(prefix("2001:db8:1::", 64), 1, None),
            route(prefix("2001:db8:2::", 64), 2, None),
            route(prefix("0.0.0.0", 0), 1, Some(addr("12.0.0.254"))),
        ],
        neighbours: vec![
            neighbour(1, "12.0.0.200", CANARY_MACS[0]),
            neighbour(2, "192.168.200.177", CANARY_MACS[1]),
            neighbour(1, "12.0.0.12", CLIENT_MAC),
            neighbour(2, "192.168.200.110", REAL_MAC),
        ],
        ..HostView::default()
    }
}

fn layer(manner: u16) -> LinkLayer {
    let interfaces = vec!["out".into(), "in".into()];
    let mut layer = LinkLayer::new(Settings { interfaces, adopt: true, ..Settings::default() });
    let now = Moment::from_ms(1 << 20);
    layer.set_host(Arc::new(host(manner)), now);
    let set = |texts: &[&str]| texts.iter().map(|text| addr(text)).collect();
    let servers =
        set(&["192.168.200.110", "192.168.200.120", "192.168.200.177", "2001:db8:2::110"]);
    let services = Services {
        virtuals: set(&["12.0.0.1", "12.0.0.77", "2001:db8:1::1"]),
        masqueraded: Clone::clone(&servers),
        servers,
        ..Services::default()
    };
    layer.set_services(services, now);
    layer
}

impl World {
    fn new(manner: u16) -> Self {
        let count = if manner & 4 == 0 { 1 } else { 2 };
        let services = Arc::new(ServiceTable::new(count));
        let clock = Clock::start();
        let handler = Handler::new(Arc::clone(&services), Alone);
        let mut transport = InProcess { handler: &handler, now: clock.now() };
        rules::apply("rules", RULES, &mut transport, &mut NoNames).unwrap();
        let link = Arc::new(SharedLink::new(layer(manner)));
        // A worker's first look is for a change.
        link.with(|layer| layer.set_host(Arc::new(host(manner)), clock.now()));
        let (mailboxes, inboxes): (Vec<_>, Vec<_>) =
            (0..count).map(|_| Mailbox::new().unwrap()).unzip();
        let peers: Arc<[Mailbox]> = mailboxes.into();
        let workers = inboxes.into_iter().enumerate().map(|(number, inbox)| {
            let config =
                DirectorConfig { max_connections: 1024, ..DirectorConfig::new(number, 42) };
            Worker::new(WorkerConfig {
                number,
                director: Director::new(Arc::clone(&services), config, clock.now()),
                link: Arc::clone(&link),
                clock,
                patience: Patience::default(),
                peers: Arc::clone(&peers),
                outlet: Arc::default(),
                inbox,
                stop: Arc::new(AtomicBool::new(false)),
            })
        });
        let mut workers: Vec<Worker> = workers.collect();
        let cables = (0..count * 2).map(|number| {
            let [near, far] = Memory::cable(Cable::default()).unwrap();
            let Memory { receiver, sender } = near;
            let (receiver, sender) = (Box::new(receiver), Box::new(sender));
            let port = PortId((number % 2) as u16);
            assert!(peers[number / 2].send(Request::Attach { port, receiver, sender }));
            far
        });
        let cables = cables.collect();
        for worker in &mut workers {
            worker.turn();
        }
        let mtu = if manner & 1 == 1 { 1300 } else { 1500 };
        Self { workers, cables, mtu, canary: 0 }
    }

    fn throw(&mut self, port: usize, header: Option<[u8; 10]>, bytes: &[u8]) {
        if bytes.windows(6).any(|part| CANARY_MACS.iter().any(|mac| part == mac)) {
            return;
        }
        let before = self.counted();
        self.send(port, header, bytes);
        let counted = self.counted() - before;
        let kind = bytes.get(12..14).map(|kind| u16::from_be_bytes([kind[0], kind[1]]));
        let may_be_link_message = !matches!(kind, None | Some(0x0800));
        assert!(counted >= 1 || may_be_link_message, "a frame was not counted");
        // A frame, and the datagram that it makes whole.
        assert!(counted <= 2, "a frame was counted {counted} times");
        self.take_frames();
    }

    fn send(&mut self, port: usize, header: Option<[u8; 10]>, bytes: &[u8]) {
        let mut storage = vec![0xa5; HEADROOM];
        storage.extend(bytes);
        let mut packet = PacketBuf::new(&mut storage, HEADROOM, HEADROOM + bytes.len());
        if let Some(offload) =
            header.and_then(|header| virtio::parse(&header, HEADROOM, bytes.len()))
        {
            packet.offload = offload;
        }
        self.cables[port].sender.send(&mut [&mut packet]);
        while self.workers.iter_mut().map(Worker::turn).sum::<usize>() > 0 {}
    }

    /// Frames that were judged or ignored.
    fn counted(&mut self) -> u64 {
        let counters = self.workers.iter_mut().map(Worker::counters);
        let each = counters.map(|counters| {
            let ignored = counters.ignored.iter().map(|(_, count)| count);
            counters.verdicts.total() + ignored.sum::<u64>()
        });
        each.sum()
    }

    /// Checks and returns what has left, by port.
    fn take_frames(&mut self) -> [Vec<Vec<u8>>; 2] {
        let mut left = [Vec::new(), Vec::new()];
        for (number, cable) in self.cables.iter_mut().enumerate() {
            let (port, left) = (number % 2, &mut left[number % 2]);
            let mtu = if port == 1 { self.mtu } else { 1500 };
            let mut look = |frames: &mut [PacketBuf<'_>]| {
                for frame in frames {
                    check_frame(frame, mtu);
                    left.push(frame.bytes().to_vec());
                }
            };
            while cable.receiver.receive(&mut look).unwrap() > 0 {}
        }
        left
    }

    /// A datagram of a client that nobody attacks, and its answer.
    fn check_canary(&mut self) {
        self.canary += 1;
        self.take_frames();
        let there = ends("12.0.0.200:4000", "12.0.0.77:7778");
        let translated = Ends { to: "192.168.200.177:7078".parse().unwrap(), ..there };
        let number = self.canary.to_be_bytes();
        let ways =
            [(0, OUT_MAC, there, translated), (1, IN_MAC, translated.turned(), there.turned())];
        for (port, mac, sent, expected) in ways {
            let frame = [&mac[..], &CANARY_MACS[port], &[8, 0], &udp(sent, &number)].concat();
            self.send(port, None, &frame);
            let other = 1 - port;
            let arrived = self.take_frames();
            let mut expected = udp(expected, &number);
            expected[8] -= 1;
            let expected = super::build::mended(expected);
            let is_it = |frame: &&Vec<u8>| {
                frame[..6] == CANARY_MACS[other] && frame[LINK_LEN..] == expected
            };
            let count = arrived[other].iter().filter(is_it).count();
            assert_eq!(count, 1, "a canary's frame by port {port}: {:02x?}", arrived[other]);
        }
    }
}

/// Checks a frame that leaves.
fn check_frame(frame: &PacketBuf<'_>, mtu: usize) {
    let bytes = frame.bytes();
    assert!(bytes.len() >= LINK_LEN, "half a link header");
    if let Some((start, field)) = frame.unfinished_checksum() {
        assert!(start <= field && field + 2 <= bytes.len());
    }
    let (mut at, mut kind) = (LINK_LEN, u16::from_be_bytes([bytes[12], bytes[13]]));
    while matches!(kind, 0x8100 | 0x88a8) {
        kind = u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]);
        at += 4;
    }
    assert!(at <= MOST_LINK_LEN, "more than two tags");
    match kind {
        0x0806 => {}
        0x0800 | 0x86dd => {
            let packet = &bytes[at..];
            judge::see(packet).unwrap_or_else(|why| panic!("{why}: {packet:02x?}"));
            assert_eq!(packet[0] >> 4 == 4, kind == 0x0800, "the link header says another family");
            let is_super = frame.offload.segmentation.kind != SegmentKind::None;
            assert!(is_super || packet.len() <= mtu, "{} bytes for {mtu}", packet.len());
        }
        other => panic!("a frame of type {other:04x}"),
    }
}

/// Tells a link layer alone what a frame says.
fn tell_layer(layer: &mut LinkLayer, port: PortId, bytes: &[u8], now: Moment) {
    let mut storage = bytes.to_vec();
    let len = storage.len();
    let mut frame = PacketBuf::new(&mut storage, 0, len);
    let Some(classifier) = layer.classifier(port) else { return };
    match classifier.classify(&mut frame) {
        Class::Arp(arrival) => layer.handle_arp(&arrival, frame.bytes(), now),
        Class::Discovery(arrival) => layer.handle_discovery(&arrival, &frame, now),
        // What the director has let pass is well-formed.
        Class::Packet(_) if judge::see(frame.bytes()).is_err() => {}
        Class::Packet(_) => {
            let source = match frame.bytes().first().map(|first| first >> 4) {
                Some(4) => frame
                    .bytes()
                    .get(12..16)
                    .map(|at| IpAddr::from(<[u8; 4]>::try_from(at).unwrap())),
                Some(6) => frame
                    .bytes()
                    .get(8..24)
                    .map(|at| IpAddr::from(<[u8; 16]>::try_from(at).unwrap())),
                _ => None,
            };
            if let Some(source) = source {
                let _ = layer.dispatch(source.into(), None, &frame, now);
            }
        }
        Class::Ignored(_) => {}
    }
    drain(layer);
}

fn drain(layer: &mut LinkLayer) {
    let mut count = 0;
    while let Some(mut transmit) = layer.poll_transmit() {
        check_frame(&transmit.frame.packet(), 1500);
        count += 1;
    }
    // Those that were held for a neighbour, questions and announcements.
    assert!(count <= 4096, "{count} frames at once");
    while layer.poll_event().is_some() {}
}
