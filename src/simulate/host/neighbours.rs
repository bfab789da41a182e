//! Neighbours that do not exist: what packets to them wait for, and how that ends.

use std::net::IpAddr;

use crate::engine::Moment;
use crate::simulate::topology::{DIRECTOR, Host, Link};

/// What the host asks a link: who has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The link.
    pub link: Link,
    /// Whom it is asked of: `broadcast`, or `multicast`.
    pub audience: &'static str,
    /// What is asked, as in `arp request for 192.168.200.150`.
    pub text: String,
}

/// The packets that wait for an answer.
#[derive(Debug, Default)]
pub struct Neighbours(Vec<Waiting>);

#[derive(Debug)]
struct Waiting {
    link: Link,
    addr: IpAddr,
    /// The source of the first packet, if that is an address of the host's.
    source: Option<IpAddr>,
    begun: Moment,
    asked: u64,
    packets: Vec<Vec<u8>>,
}

/// How often a link is asked, a second apart. **Source** — Linux `mcast_solicit`, `retrans_time_ms`.
const QUESTIONS: u64 = 3;
const PATIENCE_MS: u64 = 1000;
/// Packets that wait for one neighbour; the oldest make room for others.
const MOST_PACKETS: usize = 256;

impl Neighbours {
    /// Lets a packet wait, whose source is `source` if that is the host's own.
    pub fn wait(
        &mut self,
        (link, addr): (Link, IpAddr),
        packet: Vec<u8>,
        source: Option<IpAddr>,
        now: Moment,
    ) {
        let known = self.0.iter().position(|each| (each.link, each.addr) == (link, addr));
        let index = known.unwrap_or_else(|| {
            let packets = Vec::new();
            self.0.push(Waiting { link, addr, source, begun: now, asked: 0, packets });
            self.0.len() - 1
        });
        let packets = &mut self.0[index].packets;
        if packets.len() == MOST_PACKETS {
            packets.remove(0);
        }
        packets.push(packet);
    }

    /// What is to be asked by now.
    pub fn ask(&mut self, now: Moment, mut ask: impl FnMut(Question)) {
        for waiting in &mut self.0 {
            while waiting.asked < QUESTIONS
                && now.ms_since(waiting.begun) >= waiting.asked * PATIENCE_MS
            {
                waiting.asked += 1;
                waiting.question().into_iter().for_each(&mut ask);
            }
        }
    }

    /// The packets that have waited in vain.
    pub fn give_up(&mut self, now: Moment) -> Vec<Vec<u8>> {
        let in_vain = |each: &mut Waiting| now.ms_since(each.begun) >= QUESTIONS * PATIENCE_MS;
        self.0.extract_if(.., in_vain).flat_map(|waiting| waiting.packets).collect()
    }
}

impl Waiting {
    fn question(&self) -> Option<Question> {
        let link = self.link;
        match self.addr {
            IpAddr::V4(addr) => {
                let text = format!("arp request for {addr}");
                Some(Question { link, audience: "broadcast", text })
            }
            IpAddr::V6(addr) => {
                // Without an address of its own on the link the host has nobody to ask in whose name.
                let source = self.source?;
                let [.., a, b, c] = addr.octets();
                let to = format!("ff02::1:ff{a:02x}:{:x}", u16::from_be_bytes([b, c]));
                let target: String =
                    addr.octets().iter().map(|byte| format!("{byte:02x}")).collect();
                let own = Host { link, number: DIRECTOR }.link_address().replace(':', "");
                let text = format!("{source} > {to} icmp6 135/0 data={target}0101{own} ttl=255");
                Some(Question { link, audience: "multicast", text })
            }
        }
    }
}
