//! The same for IPv6.

use std::collections::BTreeSet;

use super::*;
use crate::link::message::{Speaker, is_host};
use crate::link::nd::{self, Advertisement, Heard, Solicitation, Version};

const SERVER_ADDR: &str = "2001:db8:200::110";
const GATEWAY: &str = "2001:db8:200::1";
const VIP: &str = "2001:db8:12::80";

/// Interfaces without addresses but for those that the kernel makes by itself.
fn bare_host_v6() -> HostView {
    let own = |interface, text: &str| KernelAddress {
        interface,
        addr: addr(text),
        prefix: prefix("fe80::", 64),
    };
    let route = |interface| KernelRoute {
        prefix: prefix("fe80::", 64),
        interface,
        gateway: None,
        metric: 256,
    };
    HostView {
        addresses: vec![own(1, "fe80::a"), own(2, "fe80::b")],
        routes: vec![route(1), route(2)],
        ..bare_host()
    }
}

/// The lab with the director's addresses, and a default route to a link-local router.
fn lab_host_v6() -> HostView {
    let mut host = bare_host_v6();
    let own =
        |interface, text| KernelAddress { interface, addr: addr(text), prefix: prefix(text, 64) };
    let route = |prefix, interface, gateway| KernelRoute { prefix, interface, gateway, metric: 0 };
    host.addresses.extend([own(1, "2001:db8:12::1"), own(2, GATEWAY)]);
    host.routes.extend([
        route(prefix("2001:db8:12::", 64), 1, None),
        route(prefix("2001:db8:200::", 64), 2, None),
        route(prefix("::", 0), 1, Some(addr("fe80::fe"))),
    ]);
    host
}

fn services_v6() -> Services {
    let servers = HashSet::from_iter([addr(SERVER_ADDR)]);
    let virtuals = HashSet::from_iter([addr(VIP)]);
    Services { virtuals, servers: servers.clone(), masqueraded: servers, ..Services::default() }
}

/// What was sent, read again; reports of groups are left out.
#[derive(Debug, PartialEq)]
enum Said {
    Asked { port: PortId, by: MacAddr, to: MacAddr, what: Solicitation },
    Told { port: PortId, to: MacAddr, what: Advertisement },
    Frame(PortId, Vec<u8>),
}

fn said(layer: &mut LinkLayer) -> Vec<Said> {
    let mut all = Vec::new();
    while let Some(Transmit { port, mut frame }) = layer.poll_transmit() {
        let packet = frame.packet();
        let bytes = packet.bytes().to_vec();
        let mac = |at: usize| {
            let octets: &[u8; 6] = bytes[at..].first_chunk().unwrap();
            MacAddr::from(*octets)
        };
        if bytes.get(54) == Some(&58) && bytes.get(62) == Some(&143) {
            continue;
        }
        all.push(match heard_in(&bytes[14..]) {
            Some(Heard::Solicitation(what)) => Said::Asked { port, by: mac(6), to: mac(0), what },
            Some(Heard::Advertisement(what)) => Said::Told { port, to: mac(0), what },
            _ => Said::Frame(port, bytes),
        });
    }
    all
}

fn heard_in(packet: &[u8]) -> Option<Heard> {
    let mut storage = packet.to_vec();
    let end = storage.len();
    nd::parse(&PacketBuf::new(&mut storage, 0, end))
}

fn speaker(text: &str, mac: MacAddr) -> Speaker {
    Speaker { addr: addr(text), mac }
}

fn receive(layer: &mut LinkLayer, port: PortId, frame: &[u8], ms: u64) {
    let to = if frame[0] & 1 == 1 { Addressee::Everybody } else { Addressee::Kernel };
    let source: &[u8; 6] = frame[6..].first_chunk().unwrap();
    let segment = Segment { port, tags: Tags::NONE };
    let arrival = Arrival { segment, source: MacAddr::from(*source), to };
    let mut storage = frame[14..].to_vec();
    let end = storage.len();
    layer.handle_discovery(&arrival, &PacketBuf::new(&mut storage, 0, end), at(ms));
}

/// Somebody asks for an address.
fn ask(layer: &mut LinkLayer, port: PortId, by: Speaker, target: &str, ms: u64) {
    let frame = nd::solicitation(Segment::default(), by, addr(target), None);
    receive(layer, port, &frame, ms);
}

/// Somebody answers whoever asked him at a link address.
fn tell(layer: &mut LinkLayer, port: PortId, owner: Speaker, ms: u64) {
    let asker = speaker("fe80::a", OUT_MAC);
    receive(layer, port, &nd::advertisement(Segment::default(), owner, Some(asker), false), ms);
}

fn dispatch_to(layer: &mut LinkLayer, to: &str, ms: u64) -> Dispatch {
    dispatch(layer, to, ms)
}

/// The group of an address on the link.
fn group(text: &str) -> MacAddr {
    nd::group_mac(nd::solicited_node(addr(text)))
}

#[test]
fn a_packet_waits_for_its_neighbour_to_be_discovered() {
    let mut layer = layer(lab_host_v6(), |_| {});
    assert_eq!(dispatch_to(&mut layer, SERVER_ADDR, 0), Dispatch::Held);
    let source = Some(addr(GATEWAY));
    let what = Solicitation { source, target: addr(SERVER_ADDR), mac: Some(IN_MAC) };
    let asked = Said::Asked { port: IN, by: IN_MAC, to: group(SERVER_ADDR), what };
    assert_eq!(said(&mut layer), [asked]);
    tell(&mut layer, IN, speaker(SERVER_ADDR, SERVER), 2);
    let header = [&SERVER.octets()[..], &IN_MAC.octets(), &[0x86, 0xdd]].concat();
    assert_eq!(said(&mut layer), [Said::Frame(IN, [&header[..], &[0x45; 40]].concat())]);
    let Dispatch::Ready(hop) = dispatch_to(&mut layer, SERVER_ADDR, 3) else { panic!() };
    assert_eq!((hop.port, hop.header()), (IN, &header[..]));
}

#[test]
fn a_router_with_a_link_local_address_is_asked_for_on_its_link() {
    let mut layer = layer(lab_host_v6(), |_| {});
    assert_eq!(dispatch_to(&mut layer, "2001:db8:99::5", 0), Dispatch::Held);
    let source = Some(addr("fe80::a"));
    let what = Solicitation { source, target: addr("fe80::fe"), mac: Some(OUT_MAC) };
    let asked = Said::Asked { port: OUT, by: OUT_MAC, to: group("fe80::fe"), what };
    assert_eq!(said(&mut layer), [asked]);
    tell(&mut layer, IN, speaker("fe80::fe", OTHER), 1);
    assert_eq!(said(&mut layer), [], "that is another link");
    tell(&mut layer, OUT, speaker("fe80::fe", CLIENT), 2);
    let [Said::Frame(OUT, frame)] = &said(&mut layer)[..] else { panic!() };
    assert_eq!(frame[..6], CLIENT.octets());
}

#[test]
fn ipv4_may_go_through_a_router_that_is_found_by_ipv6() {
    let mut host = lab_host_v6();
    let via = Some(addr("fe80::fe"));
    let route =
        KernelRoute { prefix: prefix("10.0.0.0", 8), interface: 2, gateway: via, metric: 0 };
    host.routes.push(route);
    let mut layer = layer(host, |_| {});
    assert_eq!(dispatch(&mut layer, "10.1.1.1", 0), Dispatch::Held);
    tell(&mut layer, IN, speaker("fe80::fe", OTHER), 2);
    let Dispatch::Ready(hop) = dispatch(&mut layer, "10.1.1.1", 3) else { panic!() };
    assert_eq!(hop.header(), [&OTHER.octets()[..], &IN_MAC.octets(), &[8, 0]].concat());
}

#[test]
fn without_addresses_servers_are_searched_for_from_link_local_ones() {
    let mut layer = layer(bare_host(), |_| {});
    layer.set_services(services_v6(), at(0));
    said(&mut layer);
    assert_eq!(dispatch_to(&mut layer, SERVER_ADDR, 0), Dispatch::Held);
    let question = |port, mac| {
        let source = Some(nd::link_local(own_mac(mac)));
        let what = Solicitation { source, target: addr(SERVER_ADDR), mac: Some(own_mac(mac)) };
        Said::Asked { port, by: own_mac(mac), to: group(SERVER_ADDR), what }
    };
    assert_eq!(said(&mut layer), [question(OUT, OUT_MAC), question(IN, IN_MAC)]);
    tell(&mut layer, IN, speaker(SERVER_ADDR, SERVER), 1);
    assert!(matches!(&said(&mut layer)[..], [Said::Frame(IN, _)]));
    // Whoever was asked so asks back, now and then.
    let own = nd::link_local(own_mac(IN_MAC));
    ask(&mut layer, IN, speaker(SERVER_ADDR, SERVER), &own.to_string(), 9000);
    let what =
        Advertisement { target: own, mac: Some(own_mac(IN_MAC)), solicited: true, overrides: true };
    assert_eq!(said(&mut layer), [Said::Told { port: IN, to: SERVER, what }]);
    ask(&mut layer, OUT, speaker("fe80::12", CLIENT), &own.to_string(), 9000);
    assert_eq!(said(&mut layer), [], "it is not on that link");
}

#[test]
fn the_kernels_link_local_address_asks_where_there_is_one() {
    let mut layer = layer(bare_host_v6(), |_| {});
    layer.set_services(services_v6(), at(0));
    said(&mut layer);
    dispatch_to(&mut layer, SERVER_ADDR, 0);
    let asked = said(&mut layer);
    let by = asked.iter().map(|said| match said {
        Said::Asked { what, by, .. } => (what.source, *by),
        other => panic!("{other:?}"),
    });
    let kernels = [(Some(addr("fe80::a")), OUT_MAC), (Some(addr("fe80::b")), IN_MAC)];
    assert_eq!(by.collect::<Vec<_>>(), kernels);
}

#[test]
fn a_virtual_address_is_taken_and_answered_for() {
    let mut layer = layer(lab_host_v6(), |_| {});
    layer.set_services(services_v6(), at(0));
    ask(&mut layer, OUT, speaker("fe80::12", CLIENT), VIP, 50);
    run_until(&mut layer, 299);
    let own = own_mac(OUT_MAC);
    let what = Solicitation { source: None, target: addr(VIP), mac: None };
    let probe = || Said::Asked { port: OUT, by: own, to: group(VIP), what };
    assert_eq!(said(&mut layer), [probe(), probe(), probe()]);
    assert_eq!(layer.owned_addresses(), []);
    run_until(&mut layer, 300);
    assert_eq!(layer.owned_addresses(), [addr(VIP)]);
    let what =
        |solicited| Advertisement { target: addr(VIP), mac: Some(own), solicited, overrides: true };
    let everybody = nd::group_mac(nd::ALL_NODES);
    let announced = || Said::Told { port: OUT, to: everybody, what: what(false) };
    let answered = || Said::Told { port: OUT, to: CLIENT, what: what(true) };
    assert_eq!(said(&mut layer), [announced(), answered()]);
    ask(&mut layer, OUT, speaker("2001:db8:12::2", CLIENT), VIP, 400);
    assert_eq!(said(&mut layer), [answered()]);
    ask(&mut layer, IN, speaker(SERVER_ADDR, SERVER), VIP, 401);
    assert_eq!(said(&mut layer), [], "it is not on that link");
    // Whoever wants it himself is told, together with everybody.
    ask(&mut layer, OUT, speaker("::", OTHER), VIP, 500);
    assert_eq!(said(&mut layer), [announced()]);
}

#[test]
fn a_virtual_address_that_somebody_has_or_wants_is_left_to_him() {
    for wants in [false, true] {
        let mut layer = layer(lab_host_v6(), |_| {});
        layer.set_services(services_v6(), at(0));
        if wants {
            ask(&mut layer, OUT, speaker("::", OTHER), VIP, 50);
        } else {
            let rival = speaker(VIP, OTHER);
            let frame = nd::advertisement(Segment::default(), rival, None, false);
            receive(&mut layer, OUT, &frame, 50);
        }
        run_until(&mut layer, 1000);
        assert_eq!(layer.owned_addresses(), []);
        let events = events(&mut layer);
        assert!(matches!(&events[..], [Event::Yielded { rival: OTHER, .. }]), "{events:?}");
    }
}

#[test]
fn a_neighbour_that_only_confirms_is_believed_and_one_that_offers_is_not() {
    let mut layer = layer(lab_host_v6(), |_| {});
    dispatch_to(&mut layer, SERVER_ADDR, 0);
    // An answer to nobody in particular must say the link address.
    let mut silent = nd::advertisement(
        Segment::default(),
        speaker(SERVER_ADDR, SERVER),
        Some(speaker("fe80::b", IN_MAC)),
        false,
    )
    .to_vec();
    let confirmation = |frame: &mut Vec<u8>| {
        frame.truncate(frame.len() - 8);
        frame[19] -= 8;
        frame[58] &= !0x20;
        mend(frame);
    };
    confirmation(&mut silent);
    receive(&mut layer, IN, &silent, 1);
    assert_eq!(dispatch_to(&mut layer, SERVER_ADDR, 2), Dispatch::Held);
    tell(&mut layer, IN, speaker(SERVER_ADDR, SERVER), 3);
    said(&mut layer);
    // After a while it is asked again, itself only, and says no more than that it is there.
    assert!(matches!(dispatch_to(&mut layer, SERVER_ADDR, 31_000), Dispatch::Ready(_)));
    let asked = said(&mut layer);
    assert!(matches!(asked[..], [Said::Asked { to: SERVER, .. }]), "{asked:?}");
    receive(&mut layer, IN, &silent, 31_001);
    run_until(&mut layer, 60_000);
    assert!(matches!(dispatch_to(&mut layer, SERVER_ADDR, 60_000), Dispatch::Ready(_)));
    assert_eq!(said(&mut layer), []);
    // A proxy that offers itself does not take its place.
    let mut offer = nd::advertisement(
        Segment::default(),
        speaker(SERVER_ADDR, OTHER),
        Some(speaker("fe80::b", IN_MAC)),
        false,
    )
    .to_vec();
    offer[58] &= !0x20;
    mend(&mut offer);
    receive(&mut layer, IN, &offer, 60_001);
    receive(&mut layer, IN, &offer, 60_002);
    let Dispatch::Ready(hop) = dispatch_to(&mut layer, SERVER_ADDR, 60_003) else { panic!() };
    assert_eq!(hop.header()[..6], SERVER.octets());
    tell(&mut layer, IN, speaker(SERVER_ADDR, OTHER), 60_004);
    let Dispatch::Ready(hop) = dispatch_to(&mut layer, SERVER_ADDR, 60_005) else { panic!() };
    assert_eq!(hop.header()[..6], OTHER.octets());
}

/// Makes the ICMPv6 checksum of a frame right.
fn mend(frame: &mut [u8]) {
    use crate::packet::checksum::Sum;
    frame[56..58].fill(0);
    let read = |at: usize| {
        let bytes: &[u8; 16] = frame[at..].first_chunk().unwrap();
        Addr::v6(u128::from_be_bytes(*bytes))
    };
    let pseudo = Sum::pseudo_header(read(22), read(38), 58, frame.len() - 54);
    let sum = pseudo.plus(Sum::of(&frame[54..])).checksum();
    frame[56..58].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn what_came_from_behind_a_router_is_counted_and_ignored() {
    let mut layer = layer(lab_host_v6(), |_| {});
    dispatch_to(&mut layer, SERVER_ADDR, 0);
    said(&mut layer);
    let answer = Some(speaker(GATEWAY, IN_MAC));
    let mut frame =
        nd::advertisement(Segment::default(), speaker(SERVER_ADDR, SERVER), answer, false).to_vec();
    frame[21] = 254;
    receive(&mut layer, IN, &frame, 1);
    assert_eq!(layer.counters().bad_nd, 1);
    assert_eq!(dispatch_to(&mut layer, SERVER_ADDR, 2), Dispatch::Held);
}

#[test]
fn a_gateway_that_nobody_has_is_adopted() {
    for gateway in [GATEWAY, "fe80::1"] {
        let mut layer = layer(bare_host_v6(), |_| {});
        layer.set_services(services_v6(), at(0));
        run_until(&mut layer, 900);
        dispatch_to(&mut layer, SERVER_ADDR, 1000);
        tell(&mut layer, IN, speaker(SERVER_ADDR, SERVER), 1000);
        said(&mut layer);
        ask(&mut layer, IN, speaker(SERVER_ADDR, SERVER), gateway, 1001);
        run_until(&mut layer, 1301);
        let own = own_mac(IN_MAC);
        let Some(Said::Told { port: IN, to: SERVER, what }) = said(&mut layer).pop() else {
            panic!()
        };
        assert_eq!((what.target, what.mac), (addr(gateway), Some(own)));
        assert!(layer.owned_addresses().contains(&addr(gateway)));
        // Whoever has it gets it.
        let owner = speaker(gateway, OTHER);
        receive(&mut layer, IN, &nd::advertisement(Segment::default(), owner, None, true), 1400);
        assert!(!layer.owned_addresses().contains(&addr(gateway)));
    }
}

#[test]
fn a_gateway_says_that_it_is_a_router() {
    let own =
        OwnAddress { addr: addr("fe80::1"), prefix: prefix("fe80::", 64), interface: "in".into() };
    let mut layer = layer(lab_host_v6(), |settings| settings.addresses = vec![own]);
    layer.set_services(services_v6(), at(0));
    run_until(&mut layer, 1000);
    while layer.poll_transmit().is_some() {}
    ask(&mut layer, IN, speaker(SERVER_ADDR, SERVER), "fe80::1", 1100);
    let mut answer = layer.poll_transmit().unwrap();
    assert_eq!(answer.frame.packet().bytes()[58], 0xe0);
    ask(&mut layer, OUT, speaker("fe80::12", CLIENT), VIP, 1100);
    let mut answer = layer.poll_transmit().unwrap();
    assert_eq!(answer.frame.packet().bytes()[58], 0x60);
}

#[test]
fn link_local_clients_are_answered_where_they_are() {
    let mut layer = layer(lab_host_v6(), |_| {});
    let from = Some(place(IN, OTHER));
    let Dispatch::Ready(hop) = dispatch_learned(&mut layer, "fe80::77", from, 0) else { panic!() };
    assert_eq!((hop.port, &hop.header()[..6]), (IN, &OTHER.octets()[..]));
    assert_eq!(dispatch_to(&mut layer, "fe80::78", 0), Dispatch::Held);
    assert_eq!(said(&mut layer).len(), 2, "it is asked for on both links");
    assert_eq!(layer.address_towards(addr("fe80::77"), from), Some(addr("fe80::b")));
    let towards = layer.address_towards(addr("2001:db8:99::9"), None);
    assert_eq!(towards, Some(addr("2001:db8:12::1")), "not a link-local one");
}

#[test]
fn groups_are_received_and_reported_where_ipv6_is_spoken() {
    let listened = |layer: &LinkLayer| {
        layer.groups().into_iter().map(|groups| match groups {
            Groups::Some(groups) => Some(groups),
            Groups::All => None,
        })
    };
    let mut layer = layer(lab_host_v6(), |_| {});
    layer.set_services(services(), at(0));
    assert!(listened(&layer).all(|groups| groups == Some(BTreeSet::new())));
    assert_eq!(layer.counters().reports, 0);
    layer.set_services(services_v6(), at(0));
    let own = |mac| nd::group_mac(nd::solicited_node(nd::link_local(own_mac(mac))));
    let everybody = nd::group_mac(nd::ALL_NODES);
    let expected = [
        Some(BTreeSet::from([own(OUT_MAC), everybody, group(VIP)])),
        Some(BTreeSet::from([own(IN_MAC), everybody])),
    ];
    assert_eq!(listened(&layer).collect::<Vec<_>>(), expected);
    assert_eq!(layer.counters().reports, 3);
    // A router that asks is told, but not as often as it may ask.
    run_until(&mut layer, 10_000);
    said(&mut layer);
    let before = layer.counters().reports;
    for ms in [20_000, 20_001, 20_002, 21_000] {
        query(&mut layer, ms);
    }
    assert_eq!(layer.counters().reports, before + 4, "twice, of two groups");
    // Without addresses, any address may turn out to be the servers' gateway.
    let mut bare = super::layer(bare_host(), |_| {});
    bare.set_services(services_v6(), at(0));
    assert!(listened(&bare).all(|groups| groups.is_none()));
}

fn query(layer: &mut LinkLayer, ms: u64) {
    let router = Speaker { addr: addr("fe80::fe"), mac: OTHER };
    // A report of the older form, turned into the query that it answers.
    let mut frame =
        nd::reports(Segment::default(), router, &[nd::ALL_NODES], Version::One).remove(0).to_vec();
    frame[62] = 130;
    frame[64..66].fill(0);
    use crate::packet::checksum::Sum;
    let pseudo = Sum::pseudo_header(router.addr, nd::ALL_NODES, 58, 24);
    let sum = pseudo.plus(Sum::of(&frame[62..])).checksum();
    frame[64..66].copy_from_slice(&sum.to_be_bytes());
    receive(layer, OUT, &frame, ms);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A flood of neighbour discovery moves counters, is bounded and takes no address of anybody.
    #[test]
    fn floods_of_discovery_are_survived(
        messages in prop::collection::vec(
            // The link address with a 1 is the director's: it hears nothing of its own.
            (0..2u16, any::<bool>(), 0..7u8, 0..7u8, 2..=u8::MAX, any::<u8>()), 0..200)
    ) {
        let mut layer = layer(bare_host(), |_| {});
        layer.set_services(services_v6(), at(0));
        let name = [VIP, "2001:db8:12::2", SERVER_ADDR, GATEWAY, "fe80::1", "::", "ff02::1"];
        let mut heard = HashSet::new();
        for (n, (port, asks, sender, target, mac, flags)) in messages.into_iter().enumerate() {
            let (ms, port) = (n as u64 * 10, PortId(port));
            let by = speaker(name[sender as usize], MacAddr(0x0a, 0, 0, 0, 0, mac));
            if asks {
                ask(&mut layer, port, by, name[target as usize], ms);
            } else {
                let mut frame = nd::advertisement(Segment::default(), by, None, false).to_vec();
                frame[58] = flags;
                mend(&mut frame);
                receive(&mut layer, port, &frame, ms);
            }
            let asks_for_host = !asks || is_host(addr(name[target as usize]));
            let is_valid = asks_for_host && (asks || flags & 0x40 == 0) && is_host(by.addr);
            heard.extend(is_valid.then_some(by.addr));
            dispatch_to(&mut layer, name[sender as usize], ms);
            run_until(&mut layer, ms);
            for own in layer.owned_addresses() {
                prop_assert!(own == addr(VIP) || !heard.contains(&own));
            }
        }
        prop_assert!(events(&mut layer).len() <= 256);
    }
}
