//! Fragments on their way through the director.

use super::*;
use crate::engine::Copies;
use crate::packet::fragment::{Cutting, Fragments};
use crate::packet::{Checksum, SegmentKind};

/// The lab with a kernel that sees some of the packets as well.
struct Beside(Lab, Copies);

impl Network for Beside {
    fn mtu(&self, to: Addr) -> Option<usize> {
        self.0.mtu(to)
    }

    fn address_towards(&self, to: Addr) -> Option<Addr> {
        self.0.address_towards(to)
    }

    fn owner(&self, address: Addr) -> Owner {
        self.0.owner(address)
    }

    fn leaves_by(&self, to: Addr, interface: &str) -> bool {
        self.0.leaves_by(to, interface)
    }

    fn copies(&self) -> Copies {
        self.1
    }
}

/// The fragments of a packet that may be fragmented.
fn fragments(mut packet: Vec<u8>) -> Vec<Vec<u8>> {
    set_word(&mut packet, 6, 0);
    let mut fragments = Fragments::default();
    let cutting = Cutting { limit: 576, lengths: &[], id: 0, headroom: 0 };
    fragments.cut(&packet, &cutting).unwrap();
    fragments.packets().map(|piece| piece.bytes().to_vec()).collect()
}

/// A datagram whose IPv4 header says that it may be fragmented.
fn question(from: (&str, u16), to: (&str, u16)) -> Vec<Vec<u8>> {
    fragments(udp(from, to, 1000))
}

impl Fixture {
    /// Sends fragments, all of which are held, and judges the datagram if there is one.
    fn send_all(&mut self, fragments: &mut [Vec<u8>], network: &Lab) -> Option<(Verdict, Vec<u8>)> {
        for fragment in fragments {
            assert_eq!(self.send_into(fragment, network), Verdict::Held);
        }
        let mut whole = self.director.poll_datagram()?;
        assert!(self.director.poll_datagram().is_none());
        let mut packet = whole.packet();
        let verdict = self.director.handle_packet(&mut packet, network, self.now);
        let bytes = packet.bytes().to_vec();
        self.director.recycle_datagram(whole);
        Some((verdict, bytes))
    }

    /// What the director says when everything has waited for too long.
    fn expire(&mut self, network: &impl Network) -> Vec<(u8, u8, String)> {
        self.now = self.now + std::time::Duration::from_secs(60);
        self.director.expire_fragments(network, self.now, 1000);
        let outputs = std::iter::from_fn(|| self.director.poll_output());
        outputs.map(|each| (each.bytes[20], each.bytes[21], ends(&each.bytes).0)).collect()
    }
}

#[test]
fn a_datagram_is_translated_whole_both_ways() {
    let mut lab = Fixture::new();
    let mut request = question((CLIENT, 1000), (VIP, 53));
    request.reverse();
    let (verdict, bytes) = lab.send_all(&mut request, &LAB).unwrap();
    assert_eq!(verdict, Verdict::Forward(Hop { to: addr(BENET) }));
    assert!(checksum_is_right(&bytes) && bytes.len() == 1028);
    let mut reply = question((BENET, 53), (CLIENT, 1000));
    let (verdict, bytes) = lab.send_all(&mut reply, &LAB).unwrap();
    assert_eq!(verdict, Verdict::Forward(Hop { to: addr(CLIENT) }));
    assert!(checksum_is_right(&bytes));
    assert_eq!(ends(&bytes).0, "12.0.0.1:53");
    let verdicts = lab.director.verdicts();
    assert_eq!((verdicts.held, verdicts.forwarded, verdicts.total()), (4, 2, 6));
    let totals = lab.services.view(&key(Protocol::Udp, 53)).unwrap().totals;
    assert_eq!((totals.in_packets, totals.in_bytes, totals.out_bytes), (1, 1028, 1028));
    assert_eq!(lab.director.fragments().reassembled, 2);
}

#[test]
fn what_is_nobodys_is_passed_as_it_is() {
    let mut idle = Fixture::empty();
    let [mut first, mut later] = question((CLIENT, 1000), (VIP, 53)).try_into().unwrap();
    assert_eq!(idle.send(&mut first), Verdict::Pass);
    assert_eq!(idle.send(&mut later), Verdict::Pass);
    let mut lab = Fixture::new();
    let mut gre = fragments(udp((ACCP, 1), (CLIENT, 2), 1000));
    for fragment in &mut gre {
        fragment[9] = 47;
        set_word(fragment, 10, 0);
        let sum = Sum::of(&fragment[..20]).checksum();
        set_word(fragment, 10, sum);
        let before = fragment.clone();
        assert_eq!(lab.send(fragment), Verdict::Pass);
        assert_eq!(*fragment, before);
    }
    // Only the whole datagram shows whose it is.
    let mut other = question((ACCP, 9), (CLIENT, 1000));
    let (verdict, bytes) = lab.send_all(&mut other, &LAB).unwrap();
    assert_eq!(verdict, Verdict::Pass);
    assert_eq!(ends(&bytes), ("192.168.200.110:9".into(), "12.0.0.12:1000".into()));
}

#[test]
fn the_host_that_the_director_is_answers_long_pings() {
    let mut lab = Fixture::empty();
    let mut ping = Vec::new();
    let ip = PacketBuilder::ipv4(octets(CLIENT), octets(VIP), 64);
    ip.icmpv4_echo_request(7, 1).write(&mut ping, &[7; 2000]).unwrap();
    let (verdict, _) = lab.send_all(&mut fragments(ping), &OWN_MAC).unwrap();
    assert_eq!(verdict, Verdict::Reply);
    let reply = lab.director.poll_output().unwrap().bytes;
    assert_eq!((reply.len(), reply[20]), (2028, 0));
    assert!(checksum_is_right(&reply));
}

#[test]
fn whoever_gathers_alone_tells_that_fragments_are_missing() {
    const OTHER: &str = "192.168.200.130";
    for (network, copies, expected) in [
        (LAB, Copies::None, [true, true, true, true]),
        (LAB, Copies::All, [false, false, true, false]),
        (LAB, Copies::ButServices, [true, false, true, false]),
        (OWN_MAC, Copies::All, [true, true, true, false]),
    ] {
        let mut lab = Fixture::new();
        lab.send_all(&mut question((CLIENT, 1000), (VIP, 53)), &network).unwrap();
        // To the service and beside it, the server's answer, and what another host sends.
        let ends = [
            ((CLIENT, 1000), (VIP, 53)),
            ((CLIENT, 1000), (VIP, 99)),
            ((BENET, 53), (CLIENT, 1000)),
            ((OTHER, 53), (CLIENT, 1000)),
        ];
        for ((from, to), expected) in ends.into_iter().zip(expected) {
            let mut question = question(from, to);
            assert!(lab.send_all(&mut question[..1], &network).is_none());
            let told = lab.expire(&Beside(Lab { ..network }, copies));
            let from = if to.0 == VIP { VIP } else { "192.168.200.1" };
            let message = (11, 1, format!("{from}:0"));
            let expected = if expected { vec![message] } else { Vec::new() };
            assert_eq!(told, expected, "{copies:?} {from:?} {to:?}");
            assert!(lab.send_all(&mut question[1..], &network).is_none());
            assert_eq!(lab.expire(&Beside(Lab { ..network }, copies)), [], "the first is missing");
        }
    }
}

#[test]
fn a_fragment_that_would_have_to_be_cut_is_damaged() {
    let mut lab = Fixture::new();
    let [mut first, _] = question((CLIENT, 1000), (VIP, 53)).try_into().unwrap();
    let len = first.len();
    let mut packet = PacketBuf::new(&mut first, 0, len);
    packet.offload.segmentation.kind = SegmentKind::UdpL4;
    packet.offload.segmentation.size_bytes = 100;
    packet.offload.checksum = Checksum::Complete;
    let verdict = lab.director.handle_packet(&mut packet, &LAB, lab.now);
    assert_eq!(verdict, Verdict::Drop(DropReason::BadFragment));
}
