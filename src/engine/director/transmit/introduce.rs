//! What full NAT does to a client's packets beyond translating them: sequence numbers that go on
//! where another connection's ended, and telling the server who its client is.

use crate::engine::conn::local::{How, Introduction, LocalEnd, Said};
use crate::engine::conn::tcp::{TcpFlags, TcpState};
use crate::engine::conn::{ConnId, State};
use crate::engine::director::transit::Transit;
use crate::engine::director::{Director, Output};
use crate::engine::network::Network;
use crate::engine::rewrite::introduce::{
    Telling, address_option, blank_options, insert, insert_option, lower_largest_segment,
    proxy_header,
};
use crate::engine::rewrite::sequence::{Shift, write_len};
use crate::packet::checksum::Sum;
use crate::packet::headers::{protocol, set_word};
use crate::packet::options::{self, kind};
use crate::packet::reply::IcmpError;
use crate::packet::{Headers, PacketBuf, SegmentKind};

/// What full NAT has counted beyond packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FullNatCounters {
    /// Local endpoints given to a connection while another still had them.
    pub reused: u64,
    /// Packets that should have told of their client and had no room for it.
    pub untold: u64,
}

impl Director {
    /// Whether a datagram has room for the header that goes with it.
    pub(super) fn check_telling(
        &self,
        transit: &Transit<'_, '_, impl Network>,
        id: ConnId,
    ) -> Result<(), IcmpError> {
        let conn = self.conns.get(id);
        let local = conn.local().filter(|_| transit.headers.protocol == protocol::UDP);
        let introduction = local.and_then(|local| local.introduction);
        let Some(introduction) = introduction.filter(|one| one.awaits_datagram()) else {
            return Ok(());
        };
        let added = introduction.len_bytes(transit.headers.family);
        match transit.network.mtu(conn.real_endpoint().addr) {
            Some(mtu) if transit.headers.dont_fragment && transit.headers.len + added > mtu => {
                let mtu = mtu.saturating_sub(added).min(usize::from(u16::MAX)) as u16;
                Err(IcmpError::TooBig { mtu })
            }
            _ => Ok(()),
        }
    }

    /// Does to a client's translated packet what else is needed.
    pub(super) fn accompany(&mut self, transit: &mut Transit<'_, '_, impl Network>, id: ConnId) {
        let headers = transit.headers;
        match (headers.protocol, transit.flags) {
            (protocol::TCP, Some(flags)) => self.accompany_segment(transit, id, flags),
            (protocol::UDP, _) => self.accompany_datagram(transit, id),
            _ => {}
        }
    }

    fn accompany_segment(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
        id: ConnId,
        flags: TcpFlags,
    ) {
        let headers = transit.headers;
        let conn = self.conns.get_mut(id);
        let (client, virtual_endpoint) = (conn.client(), conn.virtual_endpoint());
        let (state, real) = (conn.state(), conn.real_endpoint().addr);
        let Some(local) = conn.local_mut() else { return };
        let Some(segment) = Segment::read(transit.packet, headers) else { return };
        if flags.syn() && !flags.ack() && state == State::Tcp(TcpState::SynRecv) {
            let header = proxy_header(protocol::TCP, client, virtual_endpoint);
            begin(local, transit.packet, headers, &segment, &header);
        }
        if flags.fin() {
            local.end = Some(local.shift.sequence(segment.end()).wrapping_add(1));
        }
        local.shift.shift_sequence(transit.packet, headers);
        let introduction = local.introduction.as_mut();
        let Some(introduction) = introduction.filter(|_| flags.ack() && !flags.syn()) else {
            return;
        };
        if flags.rst() || !introduction.is_due(segment.said()) {
            return;
        }
        let mtu = transit.network.mtu(real).unwrap_or(0);
        match introduction.how() {
            How::Option => {
                let option = address_option(client);
                let told = fits(transit.packet, headers, option.len(), mtu)
                    && insert_option(transit.packet, headers, &option);
                self.full_nat.untold += u64::from(!told);
            }
            How::Header => {
                let header = proxy_header(protocol::TCP, client, virtual_endpoint);
                let at = segment.payload_at;
                // What follows the header lies behind it; what carries it begins in front.
                let back = Shift::all(0u32.wrapping_sub(header.len() as u32));
                if fits_payload(transit.packet, headers, header.len(), mtu)
                    && insert(transit.packet, headers, at, &header)
                {
                    back.shift_sequence(transit.packet, headers);
                } else {
                    let output = alone(self.spare.pop(), transit.packet, headers, at, &header);
                    self.outbox.push_back(Output { bytes: output, to: real });
                }
            }
        }
    }

    fn accompany_datagram(&mut self, transit: &mut Transit<'_, '_, impl Network>, id: ConnId) {
        let conn = self.conns.get_mut(id);
        let (client, virtual_endpoint) = (conn.client(), conn.virtual_endpoint());
        let introduction = conn.local_mut().and_then(|local| local.introduction.as_mut());
        if !introduction.is_some_and(Introduction::is_due_with_datagram) {
            return;
        }
        let headers = transit.headers;
        let header = proxy_header(protocol::UDP, client, virtual_endpoint);
        let is_single = transit.packet.offload.segmentation.kind == SegmentKind::None;
        let at = headers.transport + UDP_HEADER;
        let told = is_single && insert(transit.packet, headers, at, &header);
        self.full_nat.untold += u64::from(!told);
    }

    /// Does to a server's translated segment what is needed, and hears from it what the server
    /// knows.
    pub(in crate::engine::director) fn hear_segment(
        &mut self,
        transit: &mut Transit<'_, '_, impl Network>,
        id: ConnId,
    ) {
        let headers = transit.headers;
        let Some(flags) = transit.flags else { return };
        let conn = self.conns.get_mut(id);
        let Some(local) = conn.local_mut().filter(|local| !local.is_plain()) else { return };
        let Some(segment) = Segment::read(transit.packet, headers) else { return };
        if let Some(introduction) = &mut local.introduction {
            if flags.syn() && flags.ack() {
                introduction.answer(segment.sequence.wrapping_add(1));
                if introduction.how() == How::Option {
                    let len = introduction.len_bytes(headers.family) as u16;
                    lower_largest_segment(transit.packet, headers, len);
                }
            } else if flags.ack() && introduction.is_over(segment.acknowledged, local.shift) {
                local.introduction = None;
                local.shift.settle();
            }
        }
        local.shift.shift_acknowledgements(transit.packet, headers);
    }
}

/// Notes where a client's stream begins, and takes out of its SYN what would not go well.
fn begin(
    local: &mut LocalEnd,
    packet: &mut PacketBuf<'_>,
    headers: &Headers,
    segment: &Segment,
    header: &Telling,
) {
    if local.is_second_hand {
        // The server would compare them with those of the connection that it remembers.
        blank_options(packet, headers, &[kind::TIMESTAMPS]);
    }
    let Some(introduction) = &mut local.introduction else { return };
    let start = segment.sequence.wrapping_add(1);
    introduction.begin(start);
    if introduction.how() == How::Header {
        // A payload that comes with the SYN would come before the header.
        blank_options(packet, headers, &[kind::FAST_OPEN]);
        local.shift.insert(start, header.len() as u32);
    }
}

/// What a TCP segment says, as it came.
struct Segment {
    sequence: u32,
    acknowledged: u32,
    /// Where its payload starts in the packet, and how long that is.
    payload_at: usize,
    payload_len: usize,
}

impl Segment {
    fn read(packet: &PacketBuf<'_>, headers: &Headers) -> Option<Self> {
        let tcp = packet.bytes().get(headers.transport..headers.len)?;
        let header_len = options::header_len(tcp)?;
        let number = |at: usize| {
            let bytes = tcp.get(at..at + 4)?.first_chunk()?;
            Some(u32::from_be_bytes(*bytes))
        };
        Some(Self {
            sequence: number(4)?,
            acknowledged: number(8)?,
            payload_at: headers.transport + header_len,
            payload_len: tcp.len() - header_len,
        })
    }

    /// The number behind its payload.
    fn end(&self) -> u32 {
        self.sequence.wrapping_add(self.payload_len as u32)
    }

    fn said(&self) -> Said {
        let Self { sequence, acknowledged, payload_len, .. } = *self;
        Said { sequence, acknowledged, has_payload: payload_len > 0 }
    }
}

/// Whether an option of `count` bytes in each segment leaves them small enough for their way. A
/// super-frame is cut smaller if need be.
fn fits(packet: &mut PacketBuf<'_>, headers: &Headers, count: usize, mtu: usize) -> bool {
    if packet.offload.segmentation.kind == SegmentKind::None {
        return headers.len + count <= mtu;
    }
    let Some(segment) = Segment::read(packet, headers) else { return false };
    let size = usize::from(packet.offload.segmentation.size_bytes);
    let room = mtu.saturating_sub(segment.payload_at + count);
    if size > room && room > 0 {
        packet.offload.segmentation.size_bytes = room as u16;
    }
    room > 0
}

/// Whether `count` more bytes of payload leave a packet small enough for its way. A super-frame
/// becomes one segment more.
fn fits_payload(packet: &PacketBuf<'_>, headers: &Headers, count: usize, mtu: usize) -> bool {
    let is_single = packet.offload.segmentation.kind == SegmentKind::None;
    !is_single || headers.len + count <= mtu
}

/// A segment that is like the one in `packet`, whose payload starts at `at`, but has `header` for
/// its payload and comes right before it.
fn alone(
    memory: Option<Vec<u8>>,
    packet: &PacketBuf<'_>,
    headers: &Headers,
    at: usize,
    header: &Telling,
) -> Vec<u8> {
    let mut bytes = memory.unwrap_or_default();
    bytes.clear();
    bytes.extend_from_slice(&packet.bytes()[..at]);
    bytes.extend_from_slice(header);
    write_len(&mut bytes, &Headers { len: at + header.len(), ..*headers });
    let tcp = &mut bytes[headers.transport..];
    let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
    tcp[4..8].copy_from_slice(&sequence.wrapping_sub(header.len() as u32).to_be_bytes());
    tcp[13] = ACK;
    set_word(tcp, CHECKSUM, 0);
    let whole = Headers::parse(&bytes).expect("it is like a packet that was parsed");
    let (from, to) = (whole.source.addr, whole.destination.addr);
    let pseudo = Sum::pseudo_header(from, to, protocol::TCP, whole.transport_len());
    let checksum = pseudo.plus(Sum::of(&bytes[headers.transport..])).checksum();
    set_word(&mut bytes, headers.transport + CHECKSUM, checksum);
    bytes
}

const ACK: u8 = 0x10;
const CHECKSUM: usize = 16;
const UDP_HEADER: usize = 8;
