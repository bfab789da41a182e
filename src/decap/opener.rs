//! From what a tunnel carries to the packet inside, ready for the host's own stack. No I/O.

use std::net::IpAddr;

use hashbrown::HashSet;

use crate::driver::raw::{Arrived, Carrier};
use crate::packet::checksum::{Sum, updated};
use crate::packet::encap::{Closed, RemoteChecksum, open_datagram, open_payload};
use crate::packet::headers::{carries_ports, protocol, set_word, word};
use crate::packet::{Addr, Family, Headers, PacketBuf, Prefix};

/// What may come out of tunnels.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// The virtual addresses: what is for others is dropped.
    pub virtuals: HashSet<Addr>,
    /// Who may send; everybody if there are none.
    pub senders: Vec<Prefix>,
}

macro_rules! refusals {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)*) => {
        /// Why nothing comes out.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Refusal {
            $($(#[doc = $doc])+ $variant,)*
        }

        impl Refusal {
            /// Every one, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// What it means, in words that follow a number of packets.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

refusals! {
    /// Its sender is none of those that may send.
    Stranger = "from others than the directors",
    /// The tunnel's header is damaged, of an unknown kind or around something else than IP.
    Envelope = "in a header that is damaged or of an unknown kind",
    /// The tunnel's checksum is wrong.
    Checksum = "with a wrong checksum of the tunnel",
    /// What is inside is no IP packet of the family that the tunnel says.
    Inside = "with no whole IP packet inside",
    /// It is for none of the virtual addresses.
    NotVirtual = "for no virtual address",
    /// A router on the way marked it as congested, and its sender has not agreed to that.
    Congested = "marked as congested without the sender's consent",
}

/// Opens what has arrived: `arrived.packet` becomes the packet inside.
///
/// The packet goes on as it is but for the mark of congestion that routers gave the outer one. Where
/// only the pseudo-header was summed up, its checksum is left unfinished for whoever is next.
///
/// **Source** — RFC 6040 §4.2 for the mark, as Linux `IP_ECN_decapsulate` has it.
pub fn open(arrived: &mut Arrived<'_>, policy: &Policy) -> Result<(), Refusal> {
    if !may_send(arrived.source, &policy.senders) {
        return Err(Refusal::Stranger);
    }
    let packet = &mut arrived.packet;
    let (start, family, remote) = match arrived.carrier {
        Carrier::Ip { protocol, .. } => {
            let (start, family) = open_payload(protocol, packet.bytes())?;
            (start, family, None)
        }
        Carrier::Udp { .. } => open_datagram(packet.bytes())?,
    };
    if !packet.pull(start) {
        return Err(Refusal::Envelope);
    }
    let headers = Headers::parse(packet.bytes()).map_err(|_| Refusal::Inside)?;
    if headers.family != family || !packet.resize(headers.len) {
        return Err(Refusal::Inside);
    }
    if !policy.virtuals.contains(&headers.destination.addr) {
        return Err(Refusal::NotVirtual);
    }
    if arrived.tos & ECN == CONGESTED {
        mark_congested(packet, family)?;
    }
    leave_unfinished(packet, &headers, remote)
}

impl From<Closed> for Refusal {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::Checksum => Self::Checksum,
            Closed::NoTunnel | Closed::Truncated | Closed::Unknown => Self::Envelope,
        }
    }
}

fn may_send(source: IpAddr, senders: &[Prefix]) -> bool {
    senders.is_empty() || senders.iter().any(|prefix| prefix.contains(source.into()))
}

fn mark_congested(packet: &mut PacketBuf<'_>, family: Family) -> Result<(), Refusal> {
    let bytes = packet.bytes_mut();
    match family {
        Family::V4 => {
            if bytes[1] & ECN == 0 {
                return Err(Refusal::Congested);
            }
            let old = word(bytes, 0);
            bytes[1] |= CONGESTED;
            let change = Sum::default().minus_word(old).plus_word(word(bytes, 0));
            let checksum = updated(word(bytes, 10), change);
            set_word(bytes, 10, checksum);
        }
        Family::V6 => {
            if bytes[1] >> 4 & ECN == 0 {
                return Err(Refusal::Congested);
            }
            bytes[1] |= CONGESTED << 4;
        }
    }
    Ok(())
}

/// Declares the transport checksum unfinished where it is: the sender said so, or it holds just the
/// sum of the pseudo-header, as it comes from virtual machines and from packets that a card joined.
fn leave_unfinished(
    packet: &mut PacketBuf<'_>,
    headers: &Headers,
    remote: Option<RemoteChecksum>,
) -> Result<(), Refusal> {
    if let Some(RemoteChecksum { start, field }) = remote {
        let (start, field) = (usize::from(start), usize::from(field));
        if field < start || field + 2 > packet.len() {
            return Err(Refusal::Envelope);
        }
        packet.set_unfinished_checksum(start, (field - start) as u16);
        return Ok(());
    }
    let offset = match headers.protocol {
        protocol::TCP => 16,
        protocol::UDP => 6,
        _ => return Ok(()),
    };
    debug_assert!(carries_ports(headers.protocol));
    if headers.fragment != crate::packet::Fragment::Whole {
        return Ok(());
    }
    let (from, to) = (headers.source.addr, headers.destination.addr);
    let pseudo = Sum::pseudo_header(from, to, headers.protocol, headers.transport_len());
    let transport = headers.transport;
    if word(packet.bytes(), transport + usize::from(offset)) == pseudo.folded() {
        packet.set_unfinished_checksum(transport, offset);
    }
    Ok(())
}

/// The two bits of explicit congestion notification, RFC 3168 §5.
const ECN: u8 = 3;
const CONGESTED: u8 = 3;
