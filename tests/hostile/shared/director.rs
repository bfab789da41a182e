//! The engine under hostile IP packets: one director with services of every kind, a virtual clock,
//! and connections that nobody attacks and that have to go on working.
//!
//! Bits of a script's manner: 0 and 1 who sees copies of packets, 2 whether virtual addresses are the
//! director's own, 3 a smaller MTU, 4 batches, 5 settings that ask more of the director, 6 settings
//! of the defences, 7 full NAT with four ports only, 8 `pmtu_disc` off, 9 `schedule_icmp`, 10 master and
//! backup of synchronisation. What is of no version of IP is heard as a message of another director.

use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrayvec::ArrayVec;
use ulvs::control::client::{Director as Administrator, InProcess};
use ulvs::control::handler::{Handler, Host};
use ulvs::control::ipvsadm::names::NoNames;
use ulvs::control::netlink::connection::ConnectionView;
use ulvs::control::rules;
use ulvs::driver::virtio;
use ulvs::engine::fragments::FragmentCounters;
use ulvs::engine::local::Locals;
use ulvs::engine::service::ServiceTable;
use ulvs::engine::sync::{MasterConfig, SyncRoles, message};
use ulvs::engine::{
    Copies, Director, DirectorConfig, DropReason, MAX_BATCH, Moment, Network, Owner, Verdict,
};
use ulvs::packet::fragment::{Cutter, must_be_cut};
use ulvs::packet::{Addr, Checksum, PacketBuf, SegmentKind};

use super::build::{self, ACK, Ends, SYN, Segment, TCP, UDP, ends, mended, tcp, udp};
use super::judge::{self, Seen};
use super::script::{Script, Step};

pub const CLIENT: &str = "12.0.0.12";
pub const CLIENT6: &str = "2001:db8:1::12";
pub const VIP: &str = "12.0.0.1";
pub const VIP6: &str = "2001:db8:1::1";
pub const REAL: &str = "192.168.200.110";
pub const REAL6: &str = "2001:db8:2::110";
pub const INSIDE: &str = "192.168.200.1";
const INSIDE6: &str = "2001:db8:2::1";
/// Where servers reached by full NAT see their clients.
pub const LOCAL: &str = "192.168.200.9";
pub const OUTSIDE: &str = "203.0.113.80";
pub const OUTSIDE6: &str = "2001:db8:3::80";
/// Nobody knows a way to it.
const NOWHERE: &str = "203.0.113.99";
pub const TUNNELLED: [&str; 4] =
    ["192.168.200.130", "192.168.200.131", "192.168.200.132", "192.168.200.133"];

/// The services under attack.
const RULES: &str = "
    --set 60 60 60
    -A -t 12.0.0.1:80 -s rr
    -a -t 12.0.0.1:80 -r 192.168.200.110:8080 -m
    -a -t 12.0.0.1:80 -r 192.168.200.120:8080 -m
    -A -t 12.0.0.1:21 -s rr
    -a -t 12.0.0.1:21 -r 192.168.200.110:21 -m
    -A -u 12.0.0.1:53 -s wlc
    -a -u 12.0.0.1:53 -r 192.168.200.110:53 -m
    -A -u 12.0.0.1:54 -s rr -o
    -a -u 12.0.0.1:54 -r 192.168.200.110:54 -m
    -A -u 12.0.0.1:500 -s sh
    -a -u 12.0.0.1:500 -r 192.168.200.110:500 -m
    -A -u 12.0.0.1:5060 -s rr -p 60 --pe sip
    -a -u 12.0.0.1:5060 -r 192.168.200.110:5060 -m
    -A --sctp-service 12.0.0.1:3868 -s rr
    -a --sctp-service 12.0.0.1:3868 -r 192.168.200.110:3868 -m
    -A -t 12.0.0.1:81 -s sh
    -a -t 12.0.0.1:81 -r 192.168.200.111 -g
    -A -t 12.0.0.1:82 -s rr
    -a -t 12.0.0.1:82 -r 192.168.200.130 -i
    -a -t 12.0.0.1:82 -r 192.168.200.131 -i --tun-type gre
    -a -t 12.0.0.1:82 -r 192.168.200.132 -i --tun-type gre --tun-csum
    -a -t 12.0.0.1:82 -r 192.168.200.133 -i --tun-type gue --tun-port 6080
    -A -t 12.0.0.1:83 -s rr
    -a -t 12.0.0.1:83 -r 192.168.200.134 -i --tun-type gue --tun-port 6080 --tun-csum
    -a -t 12.0.0.1:83 -r 192.168.200.135 -i --tun-type gue --tun-port 6080 --tun-remcsum
    -a -t 12.0.0.1:83 -r [2001:db8:2::130]:0 -i
    -A -t 12.0.0.1:84 -s rr
    -a -t 12.0.0.1:84 -r 203.0.113.99 -i
    -A -t 12.0.0.1:89 -s rr
    -a -t 12.0.0.1:89 -r 203.0.113.99:84 -m
    -A -u 12.0.0.1:82 -s rr
    -a -u 12.0.0.1:82 -r 192.168.200.130 -i
    -a -u 12.0.0.1:82 -r 192.168.200.131 -i --tun-type gre
    -a -u 12.0.0.1:82 -r 192.168.200.133 -i --tun-type gue --tun-port 6080
    -A -t 12.0.0.1:85 -s rr --local-address 192.168.200.9
    -a -t 12.0.0.1:85 -r 192.168.200.110:8080 --fullnat
    -A -t 12.0.0.1:86 -s rr --local-address 192.168.200.9
    -a -t 12.0.0.1:86 -r 192.168.200.110:8080 --fullnat --client-address proxy-v2
    -A -t 12.0.0.1:87 -s rr --local-address 192.168.200.9
    -a -t 12.0.0.1:87 -r 192.168.200.110:8080 --fullnat --client-address toa
    -A -u 12.0.0.1:88 -s rr --local-address 192.168.200.9
    -a -u 12.0.0.1:88 -r 192.168.200.110:53 --fullnat --client-address proxy-v2
    -A -t 12.0.0.3:0 -s rr -p 50
    -a -t 12.0.0.3:0 -r 192.168.200.110:0 -m
    -A -f 10 -s rr -p 40
    -a -f 10 -r 192.168.200.110:0 -m
    -A -t [2001:db8:1::1]:80 -s rr
    -a -t [2001:db8:1::1]:80 -r [2001:db8:2::110]:8080 -m
    -A -t [2001:db8:1::1]:21 -s rr
    -a -t [2001:db8:1::1]:21 -r [2001:db8:2::110]:21 -m
    -A -u [2001:db8:1::1]:53 -s rr
    -a -u [2001:db8:1::1]:53 -r [2001:db8:2::110]:53 -m
    -A -t [2001:db8:1::1]:81 -s rr
    -a -t [2001:db8:1::1]:81 -r [2001:db8:2::111]:81 -g
    -A -t [2001:db8:1::1]:82 -s rr
    -a -t [2001:db8:1::1]:82 -r [2001:db8:2::130]:0 -i
    -a -t [2001:db8:1::1]:82 -r 192.168.200.130 -i
    -a -t [2001:db8:1::1]:82 -r [2001:db8:2::131]:0 -i --tun-type gre --tun-csum
    -a -t [2001:db8:1::1]:82 -r 192.168.200.133 -i --tun-type gue --tun-port 6080 --tun-remcsum
    -A -t [2001:db8:1::1]:85 -s rr --local-address 2001:db8:2::9
    -a -t [2001:db8:1::1]:85 -r [2001:db8:2::110]:8080 --fullnat
    -A -t [2001:db8:1::1]:86 -s rr --local-address 2001:db8:2::9
    -a -t [2001:db8:1::1]:86 -r [2001:db8:2::110]:8080 --fullnat --client-address proxy-v2
    -A -t [2001:db8:1::1]:87 -s rr --local-address 2001:db8:2::9
    -a -t [2001:db8:1::1]:87 -r [2001:db8:2::110]:8080 --fullnat --client-address toa
    -A -u [2001:db8:1::1]:88 -s rr --local-address 2001:db8:2::9
    -a -u [2001:db8:1::1]:88 -r [2001:db8:2::110]:53 --fullnat --client-address proxy-v2
";

/// The services that nobody attacks.
const CANARY_RULES: &str = "
    -A -t 12.0.0.77:7777 -s rr
    -a -t 12.0.0.77:7777 -r 192.168.200.177:7077 -m
    -A -u 12.0.0.77:7778 -s rr
    -a -u 12.0.0.77:7778 -r 192.168.200.177:7078 -m
    -A -t [2001:db8:1::77]:7777 -s rr
    -a -t [2001:db8:1::77]:7777 -r [2001:db8:2::177]:7077 -m
";

const MARKS: &str = "-t mangle -A PREROUTING -p udp -d 12.0.0.4 -j MARK --set-mark 10";
const SNAT: [&str; 2] = [
    "-t nat -A POSTROUTING -o out -s 192.168.200.0/24 -j SNAT --to-source 12.0.0.1",
    "-t nat -A POSTROUTING -o out -s 2001:db8:2::/64 -j SNAT --to-source 2001:db8:1::1",
];

/// What the administrator may do between packets.
const EDITS: [&str; 14] = [
    "-d -t 12.0.0.1:80 -r 192.168.200.110:8080",
    "-a -t 12.0.0.1:80 -r 192.168.200.110:8080 -m",
    "-e -t 12.0.0.1:80 -r 192.168.200.110:8080 -m -w 0",
    "-e -t 12.0.0.1:80 -r 192.168.200.120:8080 -g",
    "-e -t 12.0.0.1:82 -r 192.168.200.130 -i --tun-type gue --tun-port 6080 --tun-remcsum",
    "-e -t 12.0.0.1:86 -r 192.168.200.110:8080 --fullnat",
    "-d -t 12.0.0.1:86 -r 192.168.200.110:8080",
    "-E -t 12.0.0.1:80 -s sh -p 5",
    "-D -t 12.0.0.1:80",
    "-A -t 12.0.0.1:80 -s lblcr",
    "-D -u 12.0.0.1:5060",
    "-d -t 12.0.0.1:21 -r 192.168.200.110:21",
    "-D -f 10",
    "--set 1 1 1",
];

/// Settings of bit 5 and of bit 6.
const DEMANDING: [(&str, &str); 6] = [
    ("sloppy_tcp", "1"),
    ("sloppy_sctp", "1"),
    ("expire_nodest_conn", "1"),
    ("expire_quiescent_template", "1"),
    ("cache_bypass", "1"),
    ("nat_icmp_send", "1"),
];
const DEFENCES: [(&str, &str); 3] =
    [("drop_entry", "3"), ("drop_packet", "3"), ("secure_tcp", "3")];

const SYNC_ID: u8 = 5;
const SYNC_LEN: u16 = 500;
pub const MAX_CONNECTIONS: usize = 96;
const FRAGMENTS_BYTES: usize = 64 << 10;
const START: Moment = Moment::from_ms(1 << 20);
/// After that much there are no more leaps: every one is gone through, tick by tick, at the end.
const MOST_WAITED_MS: u64 = 4 * 86_400_000;
/// Room in front of packets, as much as a driver leaves, and behind them.
const HEADROOM: usize = 192;
const TAILROOM: usize = 16;
/// How much longer a packet may become by a PROXY header, an option or what FTP says, and by a tunnel.
const MOST_GROWTH: usize = 64;
const MOST_ENVELOPE: usize = 64;

/// Nobody behind the handler.
pub struct Alone;

impl Host for Alone {
    fn connections(&self, _: &mut dyn FnMut(ConnectionView) -> ControlFlow<()>) {}
}

/// The network around the director.
struct Surroundings {
    copies: Copies,
    virtuals: Owner,
    mtu: usize,
}

pub fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

fn is_inside(at: Addr) -> bool {
    match IpAddr::from(at) {
        IpAddr::V4(at) => at.octets().starts_with(&[192, 168, 200]),
        IpAddr::V6(at) => at.segments()[..3] == [0x2001, 0xdb8, 2],
    }
}

impl Network for Surroundings {
    fn mtu(&self, to: Addr) -> Option<usize> {
        (to != addr(NOWHERE)).then_some(self.mtu)
    }

    fn address_towards(&self, to: Addr) -> Option<Addr> {
        let v6 = IpAddr::from(to).is_ipv6();
        Some(addr(match (is_inside(to), v6) {
            (true, false) => INSIDE,
            (true, true) => INSIDE6,
            (false, false) => VIP,
            (false, true) => VIP6,
        }))
    }

    fn owner(&self, at: Addr) -> Owner {
        let virtuals = [VIP, VIP6, "12.0.0.3", "12.0.0.4", "12.0.0.77", "2001:db8:1::77"];
        match at {
            at if virtuals.iter().any(|known| addr(known) == at) => self.virtuals,
            at if [INSIDE, INSIDE6].iter().any(|known| addr(known) == at) => Owner::Kernel,
            at if [LOCAL, "2001:db8:2::9"].iter().any(|known| addr(known) == at) => Owner::Director,
            _ => Owner::Other,
        }
    }

    fn copies(&self) -> Copies {
        self.copies
    }

    fn leaves_by(&self, to: Addr, interface: &str) -> bool {
        interface == if is_inside(to) { "in" } else { "out" }
    }
}

/// A connection that nobody attacks.
struct Canary {
    /// As the client sees it, but for its port, which changes.
    request: Ends,
    real: SocketAddr,
    port: u16,
    is_known: bool,
}

/// The addresses of its clients: what contains these bytes is not played.
const CANARY_CLIENTS: [&[u8]; 2] = [&[198, 51, 100, 200], &[0x20, 1, 0xd, 0xb8, 0xca]];

struct World {
    services: Arc<ServiceTable>,
    handler: Handler<Alone>,
    director: Director,
    network: Surroundings,
    cutter: Cutter,
    now: Moment,
    canaries: Vec<Canary>,
    has_defences: bool,
    /// Whether another director has told of something, which lives for as long as that says.
    has_heard: bool,
    batch: usize,
}

/// What a packet was before it was judged.
struct Before {
    bytes: Vec<u8>,
    unfinished: bool,
    is_super: bool,
}

/// What was left when all steps were done.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "for floods")]
pub struct Remains {
    pub fragments: FragmentCounters,
    pub expected: usize,
    pub connections: usize,
}

pub fn play(script: &Script) -> Remains {
    let mut world = World::new(script.manner);
    world.check_canaries();
    let mut waiting: Vec<(Vec<u8>, Option<[u8; 10]>)> = Vec::new();
    for step in &script.steps {
        match step {
            Step::Bytes { virtio, bytes, .. } => waiting.push((bytes.clone(), *virtio)),
            Step::Wait(_) | Step::Edit(_) => world.throw(&mut waiting),
        }
        match step {
            Step::Bytes { .. } if waiting.len() < world.batch => continue,
            Step::Bytes { .. } => world.throw(&mut waiting),
            Step::Wait(ms) => world.wait(*ms),
            Step::Edit(which) => world.edit(*which),
        }
        world.check_canaries();
    }
    world.throw(&mut waiting);
    world.check_canaries();
    let remains = Remains {
        fragments: world.director.fragments(),
        expected: world.services.expectations().list(world.now).len(),
        connections: world.director.connections().len(),
    };
    world.check_end();
    remains
}

impl World {
    fn new(manner: u16) -> Self {
        let bit = |number: u16| manner >> number & 1 == 1;
        let now = START;
        let services = Arc::new(ServiceTable::new(1));
        let handler = Handler::new(Arc::clone(&services), Alone);
        let config = DirectorConfig {
            max_connections: MAX_CONNECTIONS,
            fragments_bytes: FRAGMENTS_BYTES,
            ..DirectorConfig::new(0, 42)
        };
        let director = Director::new(Arc::clone(&services), config, now);
        let network = Surroundings {
            copies: [Copies::None, Copies::All, Copies::ButServices, Copies::None]
                [usize::from(manner & 3)],
            virtuals: if bit(2) { Owner::Director } else { Owner::Kernel },
            mtu: if bit(3) { 1280 } else { 1500 },
        };
        let (client, client6) = ("198.51.100.200:40000", "[2001:db8:ca::200]:40000");
        let canary = |client, virtual_end, real: &str| Canary {
            request: ends(client, virtual_end),
            real: real.parse().unwrap(),
            port: 40_000,
            is_known: false,
        };
        let mut world = Self {
            services,
            handler,
            director,
            network,
            cutter: Cutter::new(HEADROOM, 7),
            now,
            canaries: vec![
                canary(client, "12.0.0.77:7777", "192.168.200.177:7077"),
                canary(client, "12.0.0.77:7778", "192.168.200.177:7078"),
                canary(client6, "[2001:db8:1::77]:7777", "[2001:db8:2::177]:7077"),
            ],
            has_defences: bit(6),
            has_heard: false,
            batch: if bit(4) { 8 } else { 1 },
        };
        world.set_up(manner);
        world
    }

    fn set_up(&mut self, manner: u16) {
        let bit = |number: u16| manner >> number & 1 == 1;
        self.apply(RULES).unwrap();
        self.apply(CANARY_RULES).unwrap();
        let mut transport = InProcess { handler: &self.handler, now: self.now };
        let mut administrator = Administrator::new(&mut transport);
        administrator.edit_marks(MARKS).unwrap();
        for rule in SNAT {
            administrator.edit_snat(rule).unwrap();
        }
        let demanding = DEMANDING.iter().filter(|_| bit(5));
        let others = [("pmtu_disc", "0", bit(8)), ("schedule_icmp", "1", bit(9))];
        let others =
            others.iter().filter(|(.., is_on)| *is_on).map(|(name, value, _)| (*name, *value));
        let defences = DEFENCES.iter().filter(|_| bit(6));
        for (name, value) in demanding.chain(defences).copied().chain(others) {
            administrator.set_setting(name, value).unwrap();
        }
        if bit(7) {
            let ports = |at: &str| ((addr(at), TCP), (40_000..40_004).collect());
            let ports = [ports(LOCAL), ports("2001:db8:2::9")].into_iter().collect();
            self.services.set_locals(Locals { ports, ..Locals::default() });
        }
        if bit(10) {
            let since = self.now;
            let master = MasterConfig { id: SYNC_ID, max_len: SYNC_LEN, ports: 2, since, start: 1 };
            self.services.set_sync(SyncRoles { master: Some(master), is_backup: true });
        }
        self.services.handle_timeout(self.now);
        self.director.refresh();
    }

    fn apply(&self, text: &str) -> Result<(), rules::RuleError> {
        let mut transport = InProcess { handler: &self.handler, now: self.now };
        rules::apply("rules", text, &mut transport, &mut NoNames)
    }

    fn edit(&mut self, which: u8) {
        // Some only apply after others.
        let _ = self.apply(EDITS[usize::from(which) % EDITS.len()]);
        self.director.refresh();
    }

    fn wait(&mut self, ms: u64) {
        let may_leap = self.now.ms_since(START) + ms <= MOST_WAITED_MS;
        let ms = if may_leap { ms } else { ms.min(200_000) };
        self.now = Moment::from_ms(self.now.as_ms() + ms);
        self.services.handle_timeout(self.now);
        self.director.refresh();
        self.director.handle_timeout(self.now, 1 << 14);
        self.director.expire_fragments(&self.network, self.now, 256);
        self.take_outputs(usize::MAX, 0);
        // They may have expired.
        self.canaries.iter_mut().for_each(|canary| canary.is_known &= ms < 1000);
    }

    /// Throws packets at the director, all at once.
    fn throw(&mut self, packets: &mut Vec<(Vec<u8>, Option<[u8; 10]>)>) {
        let is_ours = |bytes: &[u8]| {
            CANARY_CLIENTS.iter().any(|addr| bytes.windows(addr.len()).any(|part| part == *addr))
        };
        packets.retain(|(bytes, _)| !is_ours(bytes));
        for (bytes, _) in packets.iter().filter(|(bytes, _)| !is_of_ip(bytes)) {
            let before = self.director.sync_counters();
            let _ = self.director.handle_sync(bytes, SYNC_ID, |_| true, &self.network, self.now);
            self.has_heard |= self.director.sync_counters() != before;
        }
        let mut storages: Vec<Vec<u8>> = packets.iter().map(|(bytes, _)| roomy(bytes)).collect();
        let mut befores = Vec::new();
        let mut batch: ArrayVec<PacketBuf<'_>, MAX_BATCH> = ArrayVec::new();
        for (storage, (bytes, header)) in storages.iter_mut().zip(packets.drain(..)) {
            let mut packet = PacketBuf::new(storage, HEADROOM, HEADROOM + bytes.len());
            if let Some(offload) =
                header.and_then(|header| virtio::parse(&header, HEADROOM, bytes.len()))
            {
                packet.offload = offload;
            }
            let offload = packet.offload;
            befores.push(Before {
                bytes,
                unfinished: offload.checksum != Checksum::Complete,
                is_super: offload.segmentation.kind != SegmentKind::None,
            });
            batch.push(packet);
        }
        let total = self.director.verdicts().total();
        let mut verdicts = ArrayVec::new();
        self.director.handle_batch(&mut batch, &self.network, self.now, &mut verdicts);
        assert_eq!(verdicts.len(), befores.len(), "every packet has a verdict");
        let counted = self.director.verdicts().total() - total;
        assert_eq!(counted, befores.len() as u64, "every verdict is counted once");
        for ((packet, before), verdict) in batch.iter_mut().zip(&befores).zip(verdicts) {
            self.check(before, packet, verdict, &[]);
        }
        let longest = befores.iter().map(|before| before.bytes.len()).max().unwrap_or(0);
        self.take_outputs(befores.len(), longest);
        self.judge_datagrams();
        self.take_messages();
        self.check_memory();
    }

    /// Judges what fragments have made whole.
    fn judge_datagrams(&mut self) {
        while let Some(mut datagram) = self.director.poll_datagram() {
            let bytes = datagram.bytes().to_vec();
            let len = bytes.len();
            let before = Before { bytes, unfinished: false, is_super: false };
            let total = self.director.verdicts().total();
            let (mut packet, lengths) = datagram.parts();
            let verdict = self.director.handle_packet(&mut packet, &self.network, self.now);
            assert_eq!(self.director.verdicts().total(), total + 1);
            assert_ne!(verdict, Verdict::Held, "a whole datagram is no fragment");
            let lengths = lengths.to_vec();
            self.check(&before, &mut packet, verdict, &lengths);
            self.director.recycle_datagram(datagram);
            self.take_outputs(1, len);
        }
    }

    fn check(
        &mut self,
        before: &Before,
        packet: &mut PacketBuf<'_>,
        verdict: Verdict,
        lengths: &[u16],
    ) {
        if matches!(verdict, Verdict::Forward(_) | Verdict::Reply) {
            assert!(!is_from_nobody(&before.bytes), "a packet of nobody's is taken seriously");
        }
        match verdict {
            Verdict::Forward(_) => self.check_forwarded(before, packet, lengths),
            Verdict::Pass => {
                // SCTP's checksum may have been completed.
                let same = before.bytes.starts_with(packet.bytes()) || before.unfinished;
                assert!(same, "what is left to the host is as it came");
            }
            Verdict::Drop(reason) => assert!(DropReason::ALL.contains(&reason)),
            Verdict::Reply | Verdict::Held => {}
        }
    }

    /// Checks a packet that goes on, and what it is cut into.
    fn check_forwarded(&mut self, before: &Before, packet: &mut PacketBuf<'_>, lengths: &[u16]) {
        let was = trimmed(&before.bytes);
        let seen_before = judge::see(was).expect("only what is well-formed is forwarded");
        let was_right = judge::checksum_is_right(was, seen_before);
        if packet.offload.outer.is_some() {
            // A pattern for what it is to be cut into.
            return self.cut(packet, lengths, false);
        }
        let bytes = packet.bytes();
        let seen = judge::see(bytes).unwrap_or_else(|why| panic!("{why}: {bytes:02x?}"));
        let most = was.len() + MOST_GROWTH + MOST_ENVELOPE;
        assert!(
            packet.len() <= most.min(65_575),
            "{} bytes have become {}",
            was.len(),
            packet.len()
        );
        if let Some((start, field)) = packet.unfinished_checksum() {
            assert!(start <= field && field + 2 <= packet.len());
        }
        let is_tunnelled = seen.protocol != seen_before.protocol || seen.is_v4 != seen_before.is_v4;
        let has_right_sum = !before.unfinished && was_right == Some(true);
        let was_pending = before.unfinished
            && matches!(seen_before.protocol, TCP | UDP)
            && !seen_before.is_fragment
            && judge::holds_pseudo_sum(was, seen_before);
        if !is_tunnelled && packet.offload.checksum == Checksum::Complete && has_right_sum {
            assert_sum(packet.bytes(), seen);
        }
        let pending_start = packet.unfinished_checksum().map(|(start, _)| start);
        if !is_tunnelled && was_pending && pending_start == Some(seen.transport) {
            assert!(
                judge::holds_pseudo_sum(packet.bytes(), seen),
                "the pseudo-header's sum is lost"
            );
        }
        let is_sound = !before.is_super && !is_tunnelled && has_right_sum;
        self.cut(packet, lengths, is_sound);
    }

    /// Cuts a packet as a worker would, and checks the pieces.
    fn cut(&mut self, packet: &mut PacketBuf<'_>, lengths: &[u16], is_sound: bool) {
        let mtu = self.network.mtu;
        if !must_be_cut(packet, mtu) {
            return;
        }
        // A super-frame's sender chooses how small segments are; not here.
        let segmentation = packet.offload.segmentation;
        if segmentation.kind.is_super_frame() && segmentation.size_bytes < 8 {
            return;
        }
        let _ = self.cutter.cut(packet, mtu, lengths, |pieces| {
            for piece in pieces.packets() {
                let bytes = piece.bytes();
                let seen = judge::see(bytes).unwrap_or_else(|why| panic!("{why}: {bytes:02x?}"));
                assert!(bytes.len() <= mtu, "a piece of {} bytes for {mtu}", bytes.len());
                if is_sound && !seen.is_fragment {
                    assert_sum(bytes, seen);
                }
            }
        });
    }

    /// Checks what the director sends by itself.
    fn take_outputs(&mut self, most: usize, longest: usize) {
        let mut count = 0;
        while let Some(output) = self.director.poll_output() {
            count += 1;
            let bytes = &output.bytes;
            let seen = judge::see(bytes).unwrap_or_else(|why| panic!("{why}: {bytes:02x?}"));
            assert_sum(bytes, seen);
            let is_error = match seen.is_v4 {
                true => seen.protocol == build::ICMP && bytes[seen.transport] != 0,
                false => seen.protocol == build::ICMP6 && bytes[seen.transport] < 128,
            };
            let limit = match (is_error, seen.is_v4) {
                (true, true) => 576,
                (true, false) => 1280,
                (false, _) => longest.max(60),
            };
            assert!(bytes.len() <= limit, "an answer of {} bytes", bytes.len());
            self.director.recycle(output);
        }
        assert!(count <= most, "{count} answers to {most} packets");
    }

    /// Checks what it tells other directors.
    fn take_messages(&mut self) {
        while let Some(message) = self.director.poll_sync() {
            let entries = message::read(&message.bytes, SYNC_ID).expect("what is told can be read");
            let count = entries.inspect(|entry| assert!(entry.is_ok(), "{entry:?}")).count();
            let len = message.bytes.len();
            assert!(count == 1 || len <= SYNC_LEN.into(), "{count} entries in {len} bytes");
        }
    }

    fn check_memory(&self) {
        assert!(self.director.connections().len() <= MAX_CONNECTIONS);
        assert!(self.director.fragments_bytes() <= FRAGMENTS_BYTES);
    }

    /// Sends something through every canary's connection, both ways.
    fn check_canaries(&mut self) {
        let mut canaries = std::mem::take(&mut self.canaries);
        for canary in &mut canaries {
            self.check_canary(canary);
        }
        self.canaries = canaries;
    }

    fn check_canary(&mut self, canary: &mut Canary) {
        let is_tcp = canary.real.port() == 7077;
        let is_new = !canary.is_known;
        if is_new {
            canary.port = canary.port.checked_add(1).unwrap_or(40_000);
        }
        let mut there = canary.request;
        there.from.set_port(canary.port);
        let translated = Ends { to: canary.real, ..there };
        let talk = |ends: Ends, flags: u8| match is_tcp {
            true => {
                tcp(ends, Segment { sequence: 5, acknowledged: 6, flags, ..Segment::default() })
            }
            false => udp(ends, b"canary"),
        };
        let is_full = self.director.connections().len() >= MAX_CONNECTIONS;
        let verdict = self.pass_on(&talk(there, if is_new { SYN } else { ACK }));
        match verdict {
            Ok(sent) => {
                let expected = talk(translated, if is_new { SYN } else { ACK });
                assert_eq!(sent, last_hop_less(expected), "a canary's packet, translated");
                canary.is_known = true;
            }
            Err(_) if self.has_defences => {
                canary.is_known = false;
                return;
            }
            Err(Verdict::Drop(DropReason::TableFull)) if is_new && is_full => return,
            Err(other) => panic!("a canary's packet is not forwarded: {other:?} {there:?}"),
        }
        let flags = if is_new { SYN | ACK } else { ACK };
        let back = self.pass_on(&talk(translated.turned(), flags));
        let expected = last_hop_less(talk(there.turned(), flags));
        assert_eq!(back, Ok(expected), "an answer to a canary, translated");
        if is_new && is_tcp {
            let sent = self.pass_on(&talk(there, ACK));
            assert_eq!(sent, Ok(last_hop_less(talk(translated, ACK))));
        }
    }

    /// What a packet becomes.
    fn pass_on(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Verdict> {
        let mut storage = roomy(bytes);
        let mut packet = PacketBuf::new(&mut storage, HEADROOM, HEADROOM + bytes.len());
        match self.director.handle_packet(&mut packet, &self.network, self.now) {
            Verdict::Forward(_) => Ok(packet.bytes().to_vec()),
            other => Err(other),
        }
    }

    fn is_empty(&self) -> bool {
        self.director.connections().is_empty()
            && self.director.fragments_bytes() == 0
            && self.services.templates().is_empty()
            && self.services.expectations().is_empty()
    }

    /// When everything has expired, nothing is left, and the director works as at the beginning.
    fn check_end(&mut self) {
        for (name, _) in DEFENCES {
            let mut transport = InProcess { handler: &self.handler, now: self.now };
            Administrator::new(&mut transport).set_setting(name, "0").unwrap();
        }
        self.has_defences = false;
        // What is given a time to live by `--set` ends at once, associations of SCTP after a quarter of
        // an hour, and connections that hold others, or templates, before those do.
        for _ in 0..12 {
            self.wait(100_000);
            self.director.handle_timeout(self.now, u32::MAX);
            while self.services.handle_timeout(self.now) <= self.now {}
            self.take_messages();
            if self.is_empty() {
                break;
            }
        }
        if self.has_heard {
            self.director.clear_connections();
            self.check_canaries();
            return;
        }
        assert_eq!(self.director.connections().len(), 0, "connections stay for ever");
        assert_eq!(self.director.fragments_bytes(), 0, "fragments stay for ever");
        assert!(self.services.templates().is_empty(), "templates stay for ever");
        assert!(self.services.expectations().is_empty(), "expectations stay for ever");
        self.check_canaries();
        assert!(self.canaries.iter().all(|canary| canary.is_known));
    }
}

fn assert_sum(bytes: &[u8], seen: Seen) {
    let is_right = judge::checksum_is_right(bytes, seen);
    assert_ne!(is_right, Some(false), "a wrong transport checksum: {bytes:02x?}");
}

fn is_of_ip(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| matches!(first >> 4, 4 | 6))
}

/// Whether a packet says to come from a group, from everybody or from nobody.
fn is_from_nobody(bytes: &[u8]) -> bool {
    let source: IpAddr = match bytes[0] >> 4 {
        4 => <[u8; 4]>::try_from(&bytes[12..16]).unwrap().into(),
        _ => <[u8; 16]>::try_from(&bytes[8..24]).unwrap().into(),
    };
    let is_everybody = matches!(source, IpAddr::V4(addr) if addr.is_broadcast());
    source.is_multicast() || source.is_unspecified() || is_everybody
}

/// A packet without what follows it.
fn trimmed(bytes: &[u8]) -> &[u8] {
    let len = judge::total_len(bytes).unwrap_or(bytes.len());
    &bytes[..len.min(bytes.len())]
}

fn roomy(bytes: &[u8]) -> Vec<u8> {
    let mut storage = vec![0xa5; HEADROOM];
    storage.extend(bytes);
    storage.extend([0x5a; TAILROOM]);
    storage
}

/// The packet with one hop less to live.
fn last_hop_less(mut packet: Vec<u8>) -> Vec<u8> {
    let at = if packet[0] >> 4 == 4 { 8 } else { 7 };
    packet[at] -= 1;
    mended(packet)
}
