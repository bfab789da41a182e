//! What a host gets to see on one of its interfaces.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use ulvs::driver::af_packet::{AfPacket, AfPacketConfig};
use ulvs::driver::{Receiver, wait};
use ulvs::lab::net::Namespace;
use ulvs::packet::{Endpoint, Family, Headers};

/// A capture under way.
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<std::io::Result<Vec<Seen>>>,
}

/// An IP packet that came, by the side of the host's own.
#[derive(Clone, Debug)]
pub struct Seen {
    pub headers: Headers,
    /// From its IP header on.
    pub bytes: Vec<u8>,
}

impl Capture {
    /// Begins, in the namespace of a host.
    pub fn start(host: &Namespace, interface: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, interface) = (Arc::clone(&stop), interface.to_owned());
        let (begun, has_begun) = mpsc::channel();
        let capture = move || {
            let mut receiver =
                AfPacket::open(&interface, &AfPacketConfig::default()).unwrap().receiver;
            begun.send(()).unwrap();
            let mut seen = Vec::new();
            // What came until the end is looked at as well.
            loop {
                let is_over = stopped.load(Ordering::Relaxed);
                wait(&receiver.readiness(), Some(Duration::from_millis(20))).unwrap();
                let mut come = |frames: &mut [ulvs::packet::PacketBuf<'_>]| {
                    seen.extend(frames.iter().filter_map(|frame| Seen::in_frame(frame.bytes())));
                };
                while receiver.receive(&mut come).unwrap() > 0 {}
                if is_over {
                    assert_eq!(receiver.counters().ring_drops, 0);
                    return seen;
                }
            }
        };
        let thread = host.spawn(capture).unwrap();
        has_begun.recv().unwrap();
        Self { stop, thread }
    }

    /// Ends it, once what is under way has come.
    pub fn stop(self) -> Vec<Seen> {
        std::thread::sleep(Duration::from_millis(100));
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap().unwrap()
    }
}

impl Seen {
    fn in_frame(frame: &[u8]) -> Option<Self> {
        let bytes = frame.get(14..)?;
        let is_ip = matches!(frame[12..14], [0x08, 0x00] | [0x86, 0xdd]);
        let headers = is_ip.then(|| Headers::parse(bytes).ok())??;
        Some(Self { headers, bytes: bytes.to_vec() })
    }

    pub fn source(&self) -> IpAddr {
        self.headers.source.addr.into()
    }

    pub fn from(&self) -> Endpoint {
        self.headers.source
    }

    /// The flags of a TCP segment.
    pub fn flags(&self) -> Option<u8> {
        (self.headers.protocol == 6).then(|| self.bytes[self.headers.transport + 13])
    }

    /// Whether it opens a connection, or agrees to that.
    pub fn is_syn(&self) -> bool {
        self.flags().is_some_and(|flags| flags & 2 != 0)
    }

    pub fn is_reset(&self) -> bool {
        self.flags().is_some_and(|flags| flags & 4 != 0)
    }

    /// The type of an ICMP message, but for what neighbours and routers say to each other.
    pub fn icmp(&self) -> Option<u8> {
        let kind = *self.bytes.get(self.headers.transport)?;
        match self.headers.family {
            _ if !self.headers.is_icmp() => None,
            Family::V6 if matches!(kind, 130..=136 | 143) => None,
            _ => Some(kind),
        }
    }

    /// Whether hosts say such things to each other by themselves.
    pub fn is_housekeeping(&self) -> bool {
        let is_group = IpAddr::from(self.headers.destination.addr).is_multicast();
        is_group || self.headers.is_icmp() && self.icmp().is_none()
    }
}
