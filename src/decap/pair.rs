//! A way into the host's own stack without a TUN device: a veth pair, of which one end has the virtual
//! addresses and the other is in a network namespace that only this process has.
//!
//! With the process the kernel removes that namespace, and the pair with it, however the process ends.
//! Needs CAP_SYS_ADMIN besides what all of this needs; root of a user namespace has it.

use std::io;

use nix::net::if_::if_nametoindex;

use super::MTU_BYTES;
use crate::driver::af_packet::{AfPacket, AfPacketConfig, AfPacketSender, RingConfig};
use crate::driver::{Sender, SenderCounters};
use crate::host::{Device, Use};
use crate::lab::net::{self, Namespace};
use crate::packet::PacketBuf;

/// A pair, with the end that is here named and not yet set up.
#[derive(Debug)]
pub(super) struct Pair {
    /// The name of the end that is here.
    pub(super) name: String,
    /// One for each worker.
    pub(super) senders: Vec<PairSender>,
}

/// Sends IP packets into the far end.
#[derive(Debug)]
pub(super) struct PairSender {
    sender: AfPacketSender,
    /// Destination and source of all frames.
    ends: [u8; 12],
    /// Packets that had no room for a header in front.
    rejected: u64,
}

impl Pair {
    /// Makes a pair, whose end here has a name; a `%d` in it is replaced by the first free number.
    ///
    /// **Errors** — say what failed; nothing stays.
    pub(super) fn open(name: &str, workers: usize) -> io::Result<Self> {
        let name = free_name(name)?;
        let here = Namespace::current("this host").map_err(in_io)?;
        let beyond = Namespace::new("the far end").map_err(in_io)?;
        net::connect(&here.end(&name), &beyond.end(FAR_END)).map_err(in_io)?;
        let [near, far] = [here.mac(&name), beyond.mac(FAR_END)].map(|mac| mac.map_err(in_io));
        let mut ends = [0; 12];
        ends[..6].copy_from_slice(&near?);
        ends[6..].copy_from_slice(&far?);
        // Nothing is ever received there.
        let ring = RingConfig { bytes: 1 << 20, ..RingConfig::default() };
        let config = AfPacketConfig { ring, virtual_mac: None };
        let open = || {
            Device::set_up(FAR_END, MTU_BYTES, Use::Delivered)?;
            let one = |_| AfPacket::open(FAR_END, &config).map(|opened| opened.sender);
            (0..workers).map(one).collect::<io::Result<Vec<_>>>()
        };
        let senders = beyond.run(open).map_err(in_io)??;
        let senders = senders.into_iter().map(|sender| PairSender { sender, ends, rejected: 0 });
        Ok(Self { name, senders: senders.collect() })
    }
}

impl Sender for PairSender {
    fn send(&mut self, packets: &mut [&mut PacketBuf<'_>]) {
        for packet in packets {
            let is_v4 = packet.bytes().first().is_some_and(|byte| byte >> 4 == 4);
            match packet.push(ETHERNET_BYTES) {
                Some(header) => {
                    header[..12].copy_from_slice(&self.ends);
                    header[12..].copy_from_slice(if is_v4 { &IPV4 } else { &IPV6 });
                    self.sender.send(&mut [packet]);
                }
                None => self.rejected += 1,
            }
        }
    }

    fn counters(&self) -> SenderCounters {
        let counters = self.sender.counters();
        SenderCounters { rejected: counters.rejected + self.rejected, ..counters }
    }
}

/// What the far end is called; it is alone where it is.
const FAR_END: &str = "inside";
const ETHERNET_BYTES: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];

fn free_name(name: &str) -> io::Result<String> {
    let is_free = |name: &String| if_nametoindex(name.as_str()).is_err();
    let found = match name.contains("%d") {
        true => (0..=u16::MAX).map(|number| name.replace("%d", &number.to_string())).find(is_free),
        false => Some(name.to_owned()).filter(is_free),
    };
    found.ok_or_else(|| {
        let problem = format!("there is an interface {name} already; name another");
        io::Error::new(io::ErrorKind::AlreadyExists, problem)
    })
}

fn in_io(error: net::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}
