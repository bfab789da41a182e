//! Neighbour discovery and listener discovery for IPv6 over Ethernet: reading their messages, and
//! writing frames of them.
//!
//! **Source** — RFC 4861, RFC 4862 §5.4, RFC 3810; RFC 2710 for the older form of reports.

use pnet_base::MacAddr;

use super::frame::{ETHER_TYPE_IPV6, Hop, Segment};
use super::message::{Speaker, is_host};
use crate::packet::checksum::Sum;
use crate::packet::headers::{protocol, set_word};
use crate::packet::reply::icmp_checksum_is_right;
use crate::packet::{Addr, Family, Fragment, Headers, PacketBuf};

/// A message that the link layer understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Somebody asks who has an address.
    Solicitation(Solicitation),
    /// Somebody says who has an address.
    Advertisement(Advertisement),
    /// A router asks which groups are listened to.
    Query(Version),
}

/// A question who has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Solicitation {
    /// Who asks; none if it only probes for an address that it wants itself.
    pub source: Option<Addr>,
    /// The address it asks for.
    pub target: Addr,
    /// Its link address, if it says so.
    pub mac: Option<MacAddr>,
}

/// A statement who has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// The address.
    pub target: Addr,
    /// The link address it is at, if that is said.
    pub mac: Option<MacAddr>,
    /// Whether it answers a question of its receiver.
    pub solicited: bool,
    /// Whether it is to replace what is known.
    pub overrides: bool,
}

/// Versions of multicast listener discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// RFC 2710.
    One,
    /// RFC 3810.
    Two,
}

/// Whether an IP packet is, by its looks, one of these messages. Asked for every IPv6 packet.
pub fn is_link_message(packet: &[u8]) -> bool {
    let Some(header) = packet.first_chunk::<41>() else { return false };
    match (header[6], header[40]) {
        (protocol::ICMP6, kind) => matches!(kind, SOLICITATION | ADVERTISEMENT),
        // Queries have a router alert in front.
        (HOP_BY_HOP, protocol::ICMP6) => packet.get(48) == Some(&QUERY),
        _ => false,
    }
}

/// Reads a packet; `None` if it is no valid message.
///
/// **Source** — RFC 4861 §7.1, RFC 3810 §6.2.
pub fn parse(packet: &PacketBuf<'_>) -> Option<Heard> {
    let bytes = packet.bytes();
    let headers = Headers::parse(bytes).ok()?;
    let whole = headers.fragment == Fragment::Whole && headers.family == Family::V6;
    if !whole || headers.protocol != protocol::ICMP6 {
        return None;
    }
    let icmp = &bytes[headers.transport..headers.len];
    let is_right = packet.unfinished_checksum().is_some() || icmp_checksum_is_right(icmp, &headers);
    if !is_right || icmp[1] != 0 || icmp.len() < FIXED_LEN {
        return None;
    }
    let is_near = headers.ttl == NEAR && headers.transport == HEADER_LEN;
    match icmp[0] {
        SOLICITATION if is_near => parse_solicitation(icmp, &headers).map(Heard::Solicitation),
        ADVERTISEMENT if is_near => parse_advertisement(icmp, &headers).map(Heard::Advertisement),
        QUERY if headers.ttl == 1 && headers.source.addr.is_link_local() => {
            let version = if icmp.len() == FIXED_LEN { Version::One } else { Version::Two };
            Some(Heard::Query(version))
        }
        _ => None,
    }
}

fn parse_solicitation(icmp: &[u8], headers: &Headers) -> Option<Solicitation> {
    let target = target(icmp)?;
    let mac = link_address(&icmp[FIXED_LEN..], SOURCE_LINK_ADDRESS)?;
    let source = headers.source.addr;
    if is_host(source) {
        return Some(Solicitation { source: Some(source), target, mac });
    }
    let probes =
        source == Addr::UNSPECIFIED && is_solicited_node(headers.destination.addr) && mac.is_none();
    probes.then_some(Solicitation { source: None, target, mac: None })
}

fn parse_advertisement(icmp: &[u8], headers: &Headers) -> Option<Advertisement> {
    let target = target(icmp)?;
    let mac = link_address(&icmp[FIXED_LEN..], TARGET_LINK_ADDRESS)?;
    let solicited = icmp[4] & SOLICITED != 0;
    let to_everybody = is_group(headers.destination.addr);
    if !is_host(headers.source.addr) || solicited && to_everybody {
        return None;
    }
    Some(Advertisement { target, mac, solicited, overrides: icmp[4] & OVERRIDE != 0 })
}

fn target(icmp: &[u8]) -> Option<Addr> {
    let bits: &[u8; 16] = icmp.get(8..FIXED_LEN)?.first_chunk()?;
    Some(Addr::v6(u128::from_be_bytes(*bits))).filter(|addr| is_host(*addr))
}

/// The link address that options of some kind tell: the inner `None` if there is no such option,
/// the outer one if the options are malformed or tell something that is no host's.
fn link_address(mut options: &[u8], kind: u8) -> Option<Option<MacAddr>> {
    let mut found = None;
    while let [this, len, ..] = *options {
        let len = usize::from(len) * 8;
        let option = options.get(..len).filter(|option| !option.is_empty())?;
        if this == kind && len == OPTION_LEN {
            let octets: &[u8; 6] = option[2..].first_chunk()?;
            let mac = MacAddr::from(*octets);
            found = Some(mac).filter(|mac| !mac.is_multicast() && !mac.is_zero());
            found?;
        }
        options = &options[len..];
    }
    options.is_empty().then_some(found)
}

/// The frame that asks for an address, as [`question`](super::message::question) has it.
pub fn solicitation(
    segment: Segment,
    from: Speaker,
    target: Addr,
    of: Option<MacAddr>,
) -> Box<[u8]> {
    let to = match of {
        Some(mac) => Speaker { addr: target, mac },
        None => group(solicited_node(target)),
    };
    let mut body = [0; 4].to_vec();
    body.extend(target.bits().to_be_bytes());
    if is_host(from.addr) {
        body.extend(option(SOURCE_LINK_ADDRESS, from.mac));
    }
    Packet { from, to, hops: NEAR, extension: &[], kind: SOLICITATION, body: &body }.frame(segment)
}

/// The frame that says who has an address: to whoever asked, else to everybody.
pub fn advertisement(
    segment: Segment,
    owner: Speaker,
    to: Option<Speaker>,
    is_router: bool,
) -> Box<[u8]> {
    let flags =
        OVERRIDE | if to.is_some() { SOLICITED } else { 0 } | if is_router { ROUTER } else { 0 };
    let to = to.unwrap_or(group(ALL_NODES));
    let mut body = vec![flags, 0, 0, 0];
    body.extend(owner.addr.bits().to_be_bytes());
    body.extend(option(TARGET_LINK_ADDRESS, owner.mac));
    let message =
        Packet { from: owner, to, hops: NEAR, extension: &[], kind: ADVERTISEMENT, body: &body };
    message.frame(segment)
}

/// The frames that tell routers and switches which groups somebody listens to.
///
/// **Shape** — `from` is a link-local address. With the second version one frame tells of many.
pub fn reports(
    segment: Segment,
    from: Speaker,
    groups: &[Addr],
    version: Version,
) -> Vec<Box<[u8]>> {
    let report = |to, kind, body: &[u8]| {
        let extension = &ROUTER_ALERT;
        Packet { from, to: group(to), hops: 1, extension, kind, body }.frame(segment)
    };
    match version {
        Version::One => {
            let body = |group: &Addr| [&[0; 4][..], &group.bits().to_be_bytes()].concat();
            groups.iter().map(|group| report(*group, REPORT, &body(group))).collect()
        }
        Version::Two => {
            let chunks = groups.chunks(RECORDS_EACH);
            let body = |groups: &[Addr]| {
                let mut body = vec![0, 0, 0, groups.len() as u8];
                for group in groups {
                    body.extend([TO_EXCLUDE, 0, 0, 0]);
                    body.extend(group.bits().to_be_bytes());
                }
                body
            };
            chunks.map(|groups| report(ALL_ROUTERS_V2, REPORT_V2, &body(groups))).collect()
        }
    }
}

/// The group that everybody with an address like this one listens to.
///
/// **Source** — RFC 4291 §2.7.1.
pub fn solicited_node(addr: Addr) -> Addr {
    Addr::v6(SOLICITED_NODES << 24 | addr.bits() & 0xff_ffff)
}

/// The link address of a group. **Source** — RFC 2464 §7.
pub fn group_mac(group: Addr) -> MacAddr {
    let [a, b, c, d] = (group.bits() as u32).to_be_bytes();
    MacAddr(0x33, 0x33, a, b, c, d)
}

/// The group of all hosts on a link.
pub const ALL_NODES: Addr = Addr::v6(0xff02 << 112 | 1);

/// The address that a link address gives an interface on its link.
///
/// **Source** — RFC 4291 §2.5.6 and appendix A.
pub fn link_local(mac: MacAddr) -> Addr {
    let MacAddr(a, b, c, d, e, f) = mac;
    let interface = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    Addr::v6(0xfe80 << 112 | u128::from(interface))
}

fn is_solicited_node(addr: Addr) -> bool {
    addr.bits() >> 24 == SOLICITED_NODES
}

fn is_group(addr: Addr) -> bool {
    addr.bits() >> 120 == 0xff
}

fn group(addr: Addr) -> Speaker {
    Speaker { addr, mac: group_mac(addr) }
}

fn option(kind: u8, mac: MacAddr) -> [u8; OPTION_LEN] {
    let MacAddr(a, b, c, d, e, f) = mac;
    [kind, 1, a, b, c, d, e, f]
}

/// An ICMPv6 message to be sent.
struct Packet<'a> {
    from: Speaker,
    to: Speaker,
    hops: u8,
    /// An extension header, complete but for its first byte.
    extension: &'a [u8],
    kind: u8,
    /// What follows type, code and checksum.
    body: &'a [u8],
}

impl Packet<'_> {
    fn frame(&self, segment: Segment) -> Box<[u8]> {
        let hop = Hop::with_type(segment, self.from.mac, self.to.mac, ETHER_TYPE_IPV6);
        let (from, to) = (self.from.addr, self.to.addr);
        let mut icmp = vec![self.kind, 0, 0, 0];
        icmp.extend(self.body);
        let pseudo = Sum::pseudo_header(from, to, protocol::ICMP6, icmp.len());
        let checksum = pseudo.plus(Sum::of(&icmp)).checksum();
        set_word(&mut icmp, 2, checksum);
        let mut frame = hop.header().to_vec();
        let first = if self.extension.is_empty() { protocol::ICMP6 } else { HOP_BY_HOP };
        let extension_len = if self.extension.is_empty() { 0 } else { 1 + self.extension.len() };
        frame.extend([0x60, 0, 0, 0]);
        frame.extend(((extension_len + icmp.len()) as u16).to_be_bytes());
        frame.extend([first, self.hops]);
        frame.extend(from.bits().to_be_bytes());
        frame.extend(to.bits().to_be_bytes());
        if !self.extension.is_empty() {
            frame.push(protocol::ICMP6);
            frame.extend(self.extension);
        }
        frame.extend(icmp);
        frame.into()
    }
}

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const QUERY: u8 = 130;
const REPORT: u8 = 131;
const REPORT_V2: u8 = 143;
const HOP_BY_HOP: u8 = 0;
const HEADER_LEN: usize = 40;
/// The hop limit of what no router has passed on.
const NEAR: u8 = 255;
/// ICMPv6 header, four bytes of flags and the target; the same length for a first-version query.
const FIXED_LEN: usize = 24;
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
const SOURCE_LINK_ADDRESS: u8 = 1;
const TARGET_LINK_ADDRESS: u8 = 2;
/// An option with an Ethernet address.
const OPTION_LEN: usize = 8;
/// ff02::1:ff00:0/104.
const SOLICITED_NODES: u128 = 0xff02 << 88 | 0x1ff;
const ALL_ROUTERS_V2: Addr = Addr::v6(0xff02 << 112 | 0x16);
/// Router alert for listener discovery, and padding. **Source** — RFC 2711.
const ROUTER_ALERT: [u8; 7] = [0, 5, 2, 0, 0, 1, 0];
/// `CHANGE_TO_EXCLUDE_MODE`, nobody being excluded.
const TO_EXCLUDE: u8 = 4;
/// Records of 20 bytes that fit into the smallest packet that every link takes.
const RECORDS_EACH: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::frame::{PortId, Tags};
    use proptest::prelude::*;
    use std::net::IpAddr;

    const MAC: MacAddr = MacAddr(2, 0, 0x5e, 0, 0x53, 1);
    const PEER: MacAddr = MacAddr(2, 0, 0x5e, 0, 0x53, 2);

    fn addr(text: &str) -> Addr {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn speaker(text: &str, mac: MacAddr) -> Speaker {
        Speaker { addr: addr(text), mac }
    }

    fn heard(packet: &[u8]) -> Option<Heard> {
        let mut storage = packet.to_vec();
        let end = storage.len();
        assert!(is_link_message(packet));
        parse(&PacketBuf::new(&mut storage, 0, end))
    }

    /// Mends the ICMPv6 checksum of a packet without extension headers.
    fn mended(mut packet: Vec<u8>) -> Vec<u8> {
        set_word(&mut packet, 42, 0);
        let read = |at: usize| {
            Addr::v6(packet[at..at + 16].iter().fold(0, |all, byte| all << 8 | u128::from(*byte)))
        };
        let pseudo = Sum::pseudo_header(read(8), read(24), 58, packet.len() - 40);
        let sum = pseudo.plus(Sum::of(&packet[40..])).checksum();
        set_word(&mut packet, 42, sum);
        packet
    }

    fn a_solicitation() -> Vec<u8> {
        let from = speaker("2001:db8::1", MAC);
        solicitation(Segment::default(), from, addr("2001:db8::12:3456"), None)[14..].to_vec()
    }

    #[test]
    fn addresses_are_derived_as_the_standards_say() {
        assert_eq!(solicited_node(addr("2001:db8::12:3456")), addr("ff02::1:ff12:3456"));
        assert_eq!(
            group_mac(addr("ff02::1:ff12:3456")),
            MacAddr(0x33, 0x33, 0xff, 0x12, 0x34, 0x56)
        );
        // RFC 4291, appendix A.
        let mac = MacAddr(0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde);
        assert_eq!(link_local(mac), addr("fe80::3656:78ff:fe9a:bcde"));
    }

    #[test]
    fn a_solicitation_is_what_rfc_4861_says() {
        let segment = Segment { port: PortId(0), tags: Tags::vlan(5) };
        let from = speaker("2001:db8::1", MAC);
        let frame = solicitation(segment, from, addr("2001:db8::12:3456"), None);
        let link = [&[0x33, 0x33, 0xff, 0x12, 0x34, 0x56][..], &MAC.octets()];
        assert_eq!(frame[..18], [&link.concat()[..], &[0x81, 0, 0, 5, 0x86, 0xdd]].concat());
        assert_eq!(frame[18..26], [0x60, 0, 0, 0, 0, 32, 58, 255]);
        assert_eq!(frame[58..60], [135, 0]);
        assert_eq!(frame[82..], [1, 1, 2, 0, 0x5e, 0, 0x53, 1]);
        let expected = Solicitation {
            source: Some(from.addr),
            target: addr("2001:db8::12:3456"),
            mac: Some(MAC),
        };
        assert_eq!(heard(&frame[18..]), Some(Heard::Solicitation(expected)));
        let probe = solicitation(segment, speaker("::", MAC), addr("2001:db8::9"), None);
        let expected = Solicitation { source: None, target: addr("2001:db8::9"), mac: None };
        assert_eq!(heard(&probe[18..]), Some(Heard::Solicitation(expected)));
    }

    #[test]
    fn advertisements_answer_or_announce() {
        let owner = speaker("2001:db8::1", MAC);
        for (to, flags, group) in
            [(Some(speaker("fe80::2", PEER)), 0x60, false), (None, 0x20, true)]
        {
            let frame = advertisement(Segment::default(), owner, to, false);
            assert_eq!((frame[0] == 0x33, frame[58]), (group, flags));
            let Some(Heard::Advertisement(told)) = heard(&frame[14..]) else { panic!() };
            assert_eq!((told.target, told.mac, told.solicited), (owner.addr, Some(MAC), !group));
        }
        assert_eq!(advertisement(Segment::default(), owner, None, true)[58], 0xa0);
    }

    #[test]
    fn reports_name_groups_and_are_for_routers() {
        let from = speaker("fe80::1", MAC);
        let groups: Vec<Addr> = (0..100).map(|n| solicited_node(Addr::v6(n))).collect();
        let frames = reports(Segment::default(), from, &groups, Version::Two);
        assert_eq!(frames.len(), 2);
        assert!(frames.iter().all(|frame| frame.len() <= 14 + 1280));
        let frame = &frames[1];
        assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 0x16]);
        assert_eq!(frame[20..22], [0, 1]);
        assert_eq!(frame[54..62], [58, 0, 5, 2, 0, 0, 1, 0]);
        assert_eq!((frame[62], frame[69]), (143, 40));
        let headers = Headers::parse(&frame[14..]).unwrap();
        assert!(icmp_checksum_is_right(&frame[62..], &headers));
        assert_eq!(reports(Segment::default(), from, &groups, Version::One).len(), 100);
    }

    #[test]
    fn queries_are_heard() {
        let mut packet = vec![0x60, 0, 0, 0, 0, 36, 0, 1];
        packet.extend(addr("fe80::9").bits().to_be_bytes());
        packet.extend(ALL_NODES.bits().to_be_bytes());
        packet.extend([58, 0, 5, 2, 0, 0, 1, 0]);
        let mut icmp = vec![130, 0, 0, 0, 0x27, 0x10, 0, 0];
        icmp.extend([0; 16]);
        icmp.extend([2, 125, 0, 0]);
        let pseudo = Sum::pseudo_header(addr("fe80::9"), ALL_NODES, 58, 28);
        let sum = pseudo.plus(Sum::of(&icmp)).checksum();
        set_word(&mut icmp, 2, sum);
        packet.extend(icmp);
        assert_eq!(heard(&packet), Some(Heard::Query(Version::Two)));
        packet[7] = 2;
        assert_eq!(heard(&packet), None);
    }

    #[test]
    fn malformed_messages_are_refused() {
        let good = a_solicitation();
        assert!(heard(&good).is_some());
        for len in 48..good.len() {
            assert_eq!(heard(&good[..len]), None, "{len} bytes");
        }
        let mut bad = good.clone();
        bad[43] ^= 1;
        assert_eq!(heard(&bad), None, "the checksum");
        // Hop limit, code, group as target, option of no length, of more than there is, of a group.
        for (at, value) in [(7, 254), (41, 1), (48, 0xff), (65, 0), (65, 2), (66, 1)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(heard(&mended(bad)), None, "byte {at} = {value}");
        }
        // A probe says no link address, and goes to the group of its target.
        let probe = solicitation(Segment::default(), speaker("::", MAC), addr("2001:db8::9"), None);
        let probe = &probe[14..];
        let mut long = [probe, &[1, 1, 2, 0, 0, 0, 0, 1]].concat();
        set_word(&mut long, 4, 32);
        assert_eq!(heard(&mended(long)), None);
        let mut elsewhere = probe.to_vec();
        elsewhere[24..40].copy_from_slice(&ALL_NODES.bits().to_be_bytes());
        assert_eq!(heard(&mended(elsewhere)), None);
        // An answer is not for everybody.
        let told = advertisement(Segment::default(), speaker("2001:db8::1", MAC), None, false);
        let mut told = told[14..].to_vec();
        told[44] |= SOLICITED;
        assert_eq!(heard(&mended(told)), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_options_panic_or_go_on_for_ever(
            options in proptest::collection::vec(any::<u8>(), 0..200),
            kind in prop_oneof![Just(135u8), Just(136), Just(130)],
            hops in prop_oneof![Just(255u8), Just(1), any::<u8>()],
        ) {
            let mut packet = a_solicitation();
            packet.truncate(64);
            packet.extend(&options);
            packet[40] = kind;
            packet[7] = hops;
            let len = packet.len() - 40;
            set_word(&mut packet, 4, len as u16);
            let mut packet = mended(packet);
            let end = packet.len();
            let _ = parse(&PacketBuf::new(&mut packet, 0, end));
        }
    }
}
