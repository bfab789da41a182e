//! A director with any number of established connections, and packets for it.

use std::sync::Arc;

use arrayvec::ArrayVec;
use ulvs::engine::service::{
    ForwardingMethod, Protocol, RealSpec, ServiceKey, ServiceSpec, ServiceTable, Timeouts,
};
use ulvs::engine::{Director, DirectorConfig, MAX_BATCH, Moment, Network, Owner, Verdict};
use ulvs::packet::checksum::Sum;
use ulvs::packet::{Addr, PacketBuf};

pub const SYN: u8 = 0x02;
pub const ACK: u8 = 0x10;

/// The director, and which server each connection got.
pub struct Crowd {
    pub director: Director,
    pub now: Moment,
    pub services: Arc<ServiceTable>,
    servers: Vec<u32>,
}

/// Packets that the director gets at once.
pub type Batch = ArrayVec<[u8; SLOT], MAX_BATCH>;
/// The verdicts on them.
pub type Verdicts = ArrayVec<Verdict, MAX_BATCH>;

/// Memory of a packet: a cache line, and room for a tunnel's headers in front.
const SLOT: usize = 128;
/// Where packets lie while they are handled.
const HEADROOM: usize = 64;
/// IPv4 and TCP headers without options or payload.
const LEN: usize = 40;
const TCP_AT: usize = 20;

const VIP: u32 = 0x0c00_0001;
const SERVERS: [u32; 2] = [0xc0a8_c86e, 0xc0a8_c878];
/// 198.18.0.0/15, RFC 2544: addresses for benchmarks.
const FIRST_CLIENT: u32 = 0xc612_0000;
const PORTS_PER_CLIENT: u32 = 60_000;

impl Crowd {
    /// `ipvsadm -A -t 12.0.0.1:80 -s rr` with two masqueraded servers and `size` connections.
    pub fn new(size: u32) -> Self {
        Self::reached_by(ForwardingMethod::Masquerade, size)
    }

    /// The same with servers that are reached by another method.
    pub fn reached_by(method: ForwardingMethod, size: u32) -> Self {
        let now = Moment::default();
        let services = Arc::new(ServiceTable::new(1));
        // The connections are to outlive every measurement.
        let timeouts = Timeouts { tcp_s: 30 * 24 * 3600, ..Timeouts::default() };
        services.set_timeouts(timeouts).expect("a month is allowed");
        let spec = ServiceSpec { scheduler: "rr".into(), ..ServiceSpec::new(service()) };
        services.add_service(spec, now).expect("the service is new");
        for server in SERVERS {
            let real = RealSpec { method, ..RealSpec::new(Addr::v4(server), 8080) };
            services.add_real(&service(), &real).expect("the server is new");
        }
        let director = Director::new(Arc::clone(&services), DirectorConfig::new(0, SEED), now);
        let mut crowd = Self { director, now, services, servers: Vec::new() };
        crowd.establish(size);
        crowd
    }

    fn establish(&mut self, size: u32) {
        let mut verdicts = Verdicts::new();
        for first in (0..size).step_by(MAX_BATCH) {
            let some = first..size.min(first + MAX_BATCH as u32);
            let mut opening: Batch = some.clone().map(|n| request(n, SYN)).collect();
            self.handle(&mut opening, &mut verdicts);
            self.servers.extend(verdicts.iter().map(|verdict| match verdict {
                Verdict::Forward(hop) => hop.to.v4_bits(),
                other => panic!("a SYN to the service was not forwarded: {other:?}"),
            }));
            let mut settled: Batch = some.map(|n| request(n, ACK)).collect();
            self.handle(&mut settled, &mut verdicts);
        }
        assert_eq!(self.director.connections().len(), size as usize);
    }

    /// An acknowledgement from the server of connection `n`.
    pub fn reply(&self, n: u32) -> [u8; SLOT] {
        let (client, port) = client(n);
        segment((self.servers[n as usize], 8080), (client, port), ACK)
    }

    /// Takes both servers out of the service; their connections stay.
    pub fn remove_servers(&self) {
        for server in SERVERS {
            let removed = self.services.delete_real(&service(), Addr::v4(server), 8080);
            removed.expect("the server is there");
        }
    }

    /// Lets time pass and everything expire that then has to.
    pub fn sleep(&mut self, seconds: u64) {
        self.now = Moment::from_ms(self.now.as_ms() + seconds * 1000);
        self.director.handle_timeout(self.now, u32::MAX);
    }

    /// Has the director judge a batch.
    pub fn handle(&mut self, batch: &mut Batch, verdicts: &mut Verdicts) {
        self.director.refresh();
        // Filled in place: moving it would copy all of its capacity.
        let mut packets = ArrayVec::<PacketBuf<'_>, MAX_BATCH>::new();
        for slot in batch {
            packets.push(PacketBuf::new(slot, HEADROOM, HEADROOM + LEN));
        }
        self.director.handle_batch(&mut packets, &Anywhere, self.now, verdicts);
    }
}

/// A segment from the client of connection `n` to the service.
pub fn request(n: u32, flags: u8) -> [u8; SLOT] {
    segment(client(n), (VIP, 80), flags)
}

/// The same to an address that no service has.
pub fn to_nobody(n: u32) -> [u8; SLOT] {
    segment(client(n), (VIP + 1, 80), ACK)
}

fn service() -> ServiceKey {
    ServiceKey::Address { protocol: Protocol::Tcp, addr: Addr::v4(VIP), port: 80 }
}

fn client(n: u32) -> (u32, u16) {
    (FIRST_CLIENT + n / PORTS_PER_CLIENT, 1024 + (n % PORTS_PER_CLIENT) as u16)
}

fn segment(from: (u32, u16), to: (u32, u16), flags: u8) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    let bytes = &mut slot[HEADROOM..HEADROOM + LEN];
    bytes[..12].copy_from_slice(&[0x45, 0, 0, LEN as u8, 0, 1, 0x40, 0, 64, 6, 0, 0]);
    bytes[12..16].copy_from_slice(&from.0.to_be_bytes());
    bytes[16..20].copy_from_slice(&to.0.to_be_bytes());
    let checksum = Sum::of(&bytes[..TCP_AT]).checksum();
    bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
    bytes[20..22].copy_from_slice(&from.1.to_be_bytes());
    bytes[22..24].copy_from_slice(&to.1.to_be_bytes());
    bytes[32] = 0x50;
    bytes[33] = flags;
    let pseudo = Sum::pseudo_header(Addr::v4(from.0), Addr::v4(to.0), 6, LEN - TCP_AT);
    let checksum = pseudo.plus(Sum::of(&bytes[TCP_AT..])).checksum();
    bytes[36..38].copy_from_slice(&checksum.to_be_bytes());
    slot
}

/// Keys hashes, so that every run is alike.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// A network in which everybody can be reached and nobody is the host itself.
struct Anywhere;

impl Network for Anywhere {
    fn mtu(&self, _: Addr) -> Option<usize> {
        Some(1500)
    }

    fn address_towards(&self, _: Addr) -> Option<Addr> {
        Some(Addr::v4(VIP))
    }

    fn owner(&self, _: Addr) -> Owner {
        Owner::Other
    }

    fn leaves_by(&self, _: Addr, _: &str) -> bool {
        false
    }
}
