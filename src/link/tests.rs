//! The link layer as a whole, in made-up networks with a virtual clock.

mod ipv6;

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashSet;
use pnet_base::MacAddr;
use proptest::prelude::*;

use super::arp::{Arp, Operation};
use super::*;
use crate::engine::Moment;
use crate::packet::{Addr, PacketBuf, Prefix};

const CLIENT: MacAddr = MacAddr(0x0a, 0, 0, 0, 0, 0x12);
const SERVER: MacAddr = MacAddr(0x0a, 0, 0, 0, 1, 0x10);
const OTHER: MacAddr = MacAddr(0x0a, 0, 0, 0, 9, 9);
const OUT_MAC: MacAddr = MacAddr(0x0a, 0, 0, 0, 0, 1);
const IN_MAC: MacAddr = MacAddr(0x0a, 0, 0, 0, 1, 1);
const OUT: PortId = PortId(0);
const IN: PortId = PortId(1);

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

fn prefix(text: &str, len: u8) -> Prefix {
    Prefix::new(addr(text), len).unwrap()
}

fn at(ms: u64) -> Moment {
    Moment::from_ms(ms)
}

/// Interfaces `out` (1) and `in` (2) without addresses.
fn bare_host() -> HostView {
    let interface = |index, name: &str, mac| Interface {
        index,
        name: name.into(),
        mac: Some(mac),
        mtu_bytes: 1500,
        up: true,
        ..Interface::default()
    };
    HostView {
        interfaces: vec![interface(1, "out", OUT_MAC), interface(2, "in", IN_MAC)],
        ..HostView::default()
    }
}

/// The same with 12.0.0.1/24 and 192.168.200.1/24 and a default route to 12.0.0.254.
fn lab_host() -> HostView {
    let own =
        |interface, text| KernelAddress { interface, addr: addr(text), prefix: prefix(text, 24) };
    let route = |prefix, interface, gateway| KernelRoute { prefix, interface, gateway, metric: 0 };
    HostView {
        addresses: vec![own(1, "12.0.0.1"), own(2, "192.168.200.1")],
        routes: vec![
            route(prefix("12.0.0.0", 24), 1, None),
            route(prefix("192.168.200.0", 24), 2, None),
            route(prefix("0.0.0.0", 0), 1, Some(addr("12.0.0.254"))),
        ],
        ..bare_host()
    }
}

fn services() -> Services {
    let servers: HashSet<Addr> =
        ["192.168.200.110", "192.168.200.120"].into_iter().map(addr).collect();
    let virtuals = HashSet::from_iter([addr("12.0.0.1")]);
    Services { virtuals, servers: servers.clone(), masqueraded: servers, ..Services::default() }
}

fn layer(host: HostView, change: impl FnOnce(&mut Settings)) -> LinkLayer {
    let interfaces = vec!["out".into(), "in".into()];
    let mut settings = Settings { interfaces, adopt: true, ..Settings::default() };
    change(&mut settings);
    let mut layer = LinkLayer::new(settings);
    layer.set_host(Arc::new(host), at(0));
    layer
}

fn dispatch(layer: &mut LinkLayer, to: &str, ms: u64) -> Dispatch {
    dispatch_learned(layer, to, None, ms)
}

fn dispatch_learned(layer: &mut LinkLayer, to: &str, from: Option<Place>, ms: u64) -> Dispatch {
    let mut storage = [0x45; 60];
    let packet = PacketBuf::new(&mut storage, 20, 60);
    layer.dispatch(addr(to), from, &packet, at(ms))
}

/// What was sent: the port and either an ARP packet with its destination, or another frame.
#[derive(Debug, PartialEq)]
enum Sent {
    Arp(PortId, MacAddr, Arp),
    Frame(PortId, Vec<u8>),
}

fn sent(layer: &mut LinkLayer) -> Vec<Sent> {
    let mut all = Vec::new();
    while let Some(Transmit { port, mut frame }) = layer.poll_transmit() {
        let packet = frame.packet();
        let bytes = packet.bytes();
        let to = MacAddr(bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]);
        all.push(match (&bytes[12..14], Arp::parse(&bytes[14..])) {
            ([8, 6], Some(arp)) => Sent::Arp(port, to, arp),
            _ => Sent::Frame(port, bytes.to_vec()),
        });
    }
    all
}

fn request(sender_mac: MacAddr, sender: &str, target: &str) -> Arp {
    Arp {
        operation: Operation::Request,
        sender_mac,
        sender: addr(sender),
        target_mac: MacAddr::zero(),
        target: addr(target),
    }
}

fn reply(sender_mac: MacAddr, sender: &str, target_mac: MacAddr, target: &str) -> Arp {
    Arp {
        operation: Operation::Reply,
        sender_mac,
        sender: addr(sender),
        target_mac,
        target: addr(target),
    }
}

fn hear(layer: &mut LinkLayer, port: PortId, arp: &Arp, ms: u64) {
    let to = match arp.operation {
        Operation::Request => Addressee::Everybody,
        Operation::Reply => Addressee::Kernel,
    };
    let segment = Segment { port, tags: Tags::NONE };
    let arrival = Arrival { segment, source: arp.sender_mac, to };
    let frame = arp.frame(segment, MacAddr::broadcast());
    layer.handle_arp(&arrival, &frame[14..], at(ms));
}

fn run_until(layer: &mut LinkLayer, ms: u64) {
    while let Some(due) = layer.next_timeout().filter(|due| *due <= at(ms)) {
        layer.handle_timeout(due);
    }
}

fn events(layer: &mut LinkLayer) -> Vec<Event> {
    std::iter::from_fn(|| layer.poll_event()).collect()
}

fn place(port: PortId, mac: MacAddr) -> Place {
    Place { segment: Segment { port, tags: Tags::NONE }, mac }
}

/// Makes a real server known on the inside and serves it a packet.
fn serve(layer: &mut LinkLayer, ms: u64) {
    assert_eq!(dispatch(layer, "192.168.200.110", ms), Dispatch::Held);
    let answer = reply(SERVER, "192.168.200.110", IN_MAC, "0.0.0.0");
    hear(layer, IN, &answer, ms);
    sent(layer);
}

#[test]
fn a_packet_waits_for_its_neighbour_and_leaves_with_the_right_header() {
    let mut layer = layer(lab_host(), |_| {});
    assert_eq!(dispatch(&mut layer, "192.168.200.110", 0), Dispatch::Held);
    let question = request(IN_MAC, "192.168.200.1", "192.168.200.110");
    assert_eq!(sent(&mut layer), [Sent::Arp(IN, MacAddr::broadcast(), question)]);
    assert_eq!(dispatch(&mut layer, "192.168.200.110", 1), Dispatch::Held);
    assert_eq!(sent(&mut layer), []);
    hear(&mut layer, IN, &reply(SERVER, "192.168.200.110", IN_MAC, "192.168.200.1"), 2);
    let header = [&SERVER.octets()[..], &IN_MAC.octets(), &[8, 0]].concat();
    let frame = [&header[..], &[0x45; 40]].concat();
    assert_eq!(sent(&mut layer), [Sent::Frame(IN, frame.clone()), Sent::Frame(IN, frame)]);
    let Dispatch::Ready(hop) = dispatch(&mut layer, "192.168.200.110", 3) else { panic!() };
    assert_eq!((hop.port, hop.header()), (IN, &header[..]));
}

#[test]
fn a_client_far_away_is_reached_through_the_router() {
    let mut layer = layer(lab_host(), |_| {});
    dispatch(&mut layer, "203.0.113.5", 0);
    let question = request(OUT_MAC, "12.0.0.1", "12.0.0.254");
    assert_eq!(sent(&mut layer), [Sent::Arp(OUT, MacAddr::broadcast(), question)]);
}

#[test]
fn a_silent_neighbour_is_asked_three_times_and_then_given_up_for_a_second() {
    let mut layer = layer(lab_host(), |_| {});
    for _ in 0..100 {
        dispatch(&mut layer, "12.0.0.12", 0);
    }
    run_until(&mut layer, 2999);
    assert_eq!(sent(&mut layer).len(), 3);
    assert_eq!(layer.counters().silent, 0);
    run_until(&mut layer, 3000);
    assert_eq!((layer.counters().silent, layer.counters().overflow), (64, 36));
    assert_eq!(events(&mut layer), [Event::Silent { addr: addr("12.0.0.12") }]);
    assert_eq!(dispatch(&mut layer, "12.0.0.12", 3001), Dispatch::Lost(Lost::Silent));
    run_until(&mut layer, 4000);
    assert_eq!(dispatch(&mut layer, "12.0.0.12", 4001), Dispatch::Held);
}

#[test]
fn too_many_unknown_neighbours_are_refused() {
    let mut host = lab_host();
    host.routes[0].prefix = prefix("12.0.0.0", 8);
    let mut layer = layer(host, |_| {});
    let mut storage = [0; 64];
    let packet = PacketBuf::new(&mut storage, 20, 60);
    let lost = (0..2000).filter(|n| {
        let to = Addr::v4(0x0c01_0000 + n);
        layer.dispatch(to, None, &packet, at(0)) == Dispatch::Lost(Lost::Overload)
    });
    assert_eq!(lost.count(), 2000 - 512);
    assert_eq!(layer.counters().overflow, 2000 - 512);
}

#[test]
fn without_addresses_a_server_is_searched_for_on_all_ports() {
    let mut layer = layer(bare_host(), |_| {});
    assert_eq!(dispatch(&mut layer, "192.168.200.110", 0), Dispatch::Held);
    let question = |port, mac| {
        Sent::Arp(port, MacAddr::broadcast(), request(mac, "0.0.0.0", "192.168.200.110"))
    };
    assert_eq!(sent(&mut layer), [question(OUT, OUT_MAC), question(IN, IN_MAC)]);
    hear(&mut layer, IN, &reply(SERVER, "192.168.200.110", IN_MAC, "0.0.0.0"), 1);
    assert!(matches!(&sent(&mut layer)[..], [Sent::Frame(IN, _)]));
}

#[test]
fn without_addresses_a_client_is_reached_where_it_came_from() {
    let mut layer = layer(bare_host(), |_| {});
    layer.set_services(services(), at(0));
    let from = Some(place(OUT, CLIENT));
    let Dispatch::Ready(hop) = dispatch_learned(&mut layer, "203.0.113.5", from, 0) else {
        panic!()
    };
    assert_eq!((hop.port, &hop.header()[..6]), (OUT, &CLIENT.octets()[..]));
    // Anybody may send from a server's address; that does not make him the server.
    let spoofed = dispatch_learned(&mut layer, "192.168.200.110", from, 0);
    assert_eq!(spoofed, Dispatch::Held);
}

#[test]
fn where_the_kernel_has_addresses_its_routes_decide() {
    let mut layer = layer(lab_host(), |_| {});
    let from = Some(place(IN, SERVER));
    assert_eq!(dispatch_learned(&mut layer, "203.0.113.5", from, 0), Dispatch::Held);
    let router = request(OUT_MAC, "12.0.0.1", "12.0.0.254");
    assert_eq!(sent(&mut layer), [Sent::Arp(OUT, MacAddr::broadcast(), router)]);
}

#[test]
fn a_server_nobody_has_on_bare_links_is_reached_by_the_default_route() {
    let mut host = lab_host();
    host.addresses.remove(1);
    host.routes.remove(1);
    let mut layer = layer(host, |_| {});
    layer.set_services(services(), at(0));
    assert_eq!(dispatch(&mut layer, "192.168.200.110", 0), Dispatch::Held);
    run_until(&mut layer, 600);
    let asked: Vec<Sent> = sent(&mut layer);
    let router = request(OUT_MAC, "12.0.0.1", "12.0.0.254");
    assert_eq!(asked.last(), Some(&Sent::Arp(OUT, MacAddr::broadcast(), router)));
    hear(&mut layer, OUT, &reply(OTHER, "12.0.0.254", OUT_MAC, "12.0.0.1"), 610);
    assert!(
        matches!(&sent(&mut layer)[..], [Sent::Frame(OUT, frame)] if frame[..6] == OTHER.octets())
    );
    assert!(matches!(dispatch(&mut layer, "192.168.200.110", 5000), Dispatch::Ready(_)));
}

#[test]
fn overheard_messages_do_not_change_a_known_neighbour() {
    let mut layer = layer(lab_host(), |_| {});
    dispatch(&mut layer, "12.0.0.12", 0);
    hear(&mut layer, OUT, &reply(CLIENT, "12.0.0.12", OUT_MAC, "12.0.0.1"), 1);
    sent(&mut layer);
    hear(&mut layer, OUT, &request(OTHER, "12.0.0.12", "12.0.0.77"), 2);
    let question = request(OUT_MAC, "12.0.0.1", "12.0.0.12");
    assert_eq!(sent(&mut layer), [Sent::Arp(OUT, MacAddr::broadcast(), question)]);
    let Dispatch::Ready(hop) = dispatch(&mut layer, "12.0.0.12", 3) else { panic!() };
    assert_eq!(hop.header()[..6], CLIENT.octets());
    // The real move of an address is answered, and believed.
    let epoch = layer.epoch();
    hear(&mut layer, OUT, &reply(OTHER, "12.0.0.12", OUT_MAC, "12.0.0.1"), 4);
    let Dispatch::Ready(hop) = dispatch(&mut layer, "12.0.0.12", 5) else { panic!() };
    assert_eq!(hop.header()[..6], OTHER.octets());
    assert_ne!(layer.epoch(), epoch);
}

#[test]
fn a_neighbour_is_asked_again_after_a_while_and_replaced_if_it_is_gone() {
    let mut layer = layer(lab_host(), |_| {});
    dispatch(&mut layer, "12.0.0.12", 0);
    hear(&mut layer, OUT, &reply(CLIENT, "12.0.0.12", OUT_MAC, "12.0.0.1"), 1);
    sent(&mut layer);
    assert!(matches!(dispatch(&mut layer, "12.0.0.12", 31_000), Dispatch::Ready(_)));
    let question = request(OUT_MAC, "12.0.0.1", "12.0.0.12");
    assert_eq!(sent(&mut layer), [Sent::Arp(OUT, CLIENT, question)]);
    run_until(&mut layer, 33_999);
    assert!(matches!(dispatch(&mut layer, "12.0.0.12", 33_999), Dispatch::Ready(_)));
    run_until(&mut layer, 34_000);
    assert_eq!(dispatch(&mut layer, "12.0.0.12", 34_001), Dispatch::Lost(Lost::Silent));
}

#[test]
fn permanent_neighbours_are_never_asked() {
    let mut host = lab_host();
    let known =
        KernelNeighbour { interface: 1, addr: addr("12.0.0.12"), mac: CLIENT, permanent: true };
    host.neighbours.push(known);
    let mut layer = layer(host, |_| {});
    hear(&mut layer, OUT, &request(OTHER, "12.0.0.12", "12.0.0.12"), 2);
    let Dispatch::Ready(hop) = dispatch(&mut layer, "12.0.0.12", 1_000_000) else { panic!() };
    assert_eq!(hop.header()[..6], CLIENT.octets());
    assert_eq!(sent(&mut layer), []);
    layer.set_host(Arc::new(lab_host()), at(1_000_001));
    assert_eq!(dispatch(&mut layer, "12.0.0.12", 1_000_002), Dispatch::Held);
}

#[test]
fn a_virtual_address_is_probed_for_taken_announced_and_answered_for() {
    let mut layer = layer(bare_host(), |_| {});
    layer.set_services(services(), at(0));
    hear(&mut layer, OUT, &request(CLIENT, "12.0.0.12", "12.0.0.1"), 50);
    run_until(&mut layer, 299);
    let probes = sent(&mut layer);
    assert_eq!(probes.len(), 6);
    let own = own_mac(OUT_MAC);
    let probe = request(own, "0.0.0.0", "12.0.0.1");
    assert_eq!(probes[0], Sent::Arp(OUT, MacAddr::broadcast(), probe));
    assert_eq!(layer.owned_addresses(), []);
    run_until(&mut layer, 300);
    assert_eq!(layer.owned_addresses(), [addr("12.0.0.1")]);
    let answer = reply(own, "12.0.0.1", CLIENT, "12.0.0.12");
    let announced = request(own, "12.0.0.1", "12.0.0.1");
    let after = sent(&mut layer);
    assert_eq!(after[0], Sent::Arp(OUT, MacAddr::broadcast(), announced));
    assert_eq!(after[2], Sent::Arp(OUT, CLIENT, answer));
    assert!(matches!(&events(&mut layer)[..], [Event::Took { why: Why::VirtualAddress, .. }]));
    hear(&mut layer, OUT, &request(CLIENT, "12.0.0.12", "12.0.0.1"), 400);
    assert_eq!(sent(&mut layer), [Sent::Arp(OUT, CLIENT, answer)]);
    // Packets to the client now leave from the virtual link address.
    let Dispatch::Ready(hop) = dispatch(&mut layer, "12.0.0.12", 500) else {
        // The client asked on a bare port and is not searched for again.
        panic!()
    };
    assert_eq!(hop.header()[6..12], own.octets());
}

#[test]
fn an_address_of_the_kernel_is_never_answered_for() {
    let mut layer = layer(lab_host(), |_| {});
    layer.set_services(services(), at(0));
    hear(&mut layer, OUT, &request(CLIENT, "12.0.0.12", "12.0.0.1"), 50);
    run_until(&mut layer, 10_000);
    assert_eq!(sent(&mut layer), []);
    // Also not after the kernel gave it up, as keepalived's backup does.
    layer.set_host(Arc::new(bare_host()), at(10_000));
    run_until(&mut layer, 20_000);
    assert_eq!(layer.owned_addresses(), []);
}

#[test]
fn an_address_that_the_kernel_gets_is_the_kernels() {
    let mut layer = layer(bare_host(), |_| {});
    layer.set_services(services(), at(0));
    run_until(&mut layer, 300);
    assert_eq!(layer.owned_addresses().len(), 1);
    layer.set_host(Arc::new(lab_host()), at(400));
    assert_eq!(layer.owned_addresses(), []);
}

#[test]
fn a_virtual_address_somebody_has_is_left_to_him() {
    let mut layer = layer(bare_host(), |_| {});
    layer.set_services(services(), at(0));
    hear(&mut layer, OUT, &reply(OTHER, "12.0.0.1", own_mac(OUT_MAC), "0.0.0.0"), 50);
    run_until(&mut layer, 1000);
    assert_eq!(layer.owned_addresses(), []);
    assert!(matches!(&events(&mut layer)[..], [Event::Yielded { rival: OTHER, .. }]));
    run_until(&mut layer, 31_000);
    assert_eq!(layer.owned_addresses(), [addr("12.0.0.1")]);
}

#[test]
fn an_own_address_is_defended_once() {
    let mut layer = layer(bare_host(), |_| {});
    layer.set_services(services(), at(0));
    run_until(&mut layer, 5000);
    sent(&mut layer);
    events(&mut layer);
    hear(&mut layer, OUT, &request(OTHER, "12.0.0.1", "12.0.0.1"), 6000);
    assert_eq!(sent(&mut layer).len(), 2);
    assert!(matches!(&events(&mut layer)[..], [Event::Contested { .. }]));
    assert_eq!(layer.owned_addresses().len(), 1);
    hear(&mut layer, OUT, &request(OTHER, "12.0.0.1", "12.0.0.1"), 7000);
    assert!(matches!(&events(&mut layer)[..], [Event::Yielded { .. }]));
    assert_eq!(layer.owned_addresses(), []);
}

#[test]
fn a_probe_for_an_own_address_is_answered() {
    let mut layer = layer(bare_host(), |_| {});
    layer.set_services(services(), at(0));
    run_until(&mut layer, 5000);
    sent(&mut layer);
    hear(&mut layer, OUT, &request(OTHER, "0.0.0.0", "12.0.0.1"), 6000);
    let answer = reply(own_mac(OUT_MAC), "12.0.0.1", OTHER, "0.0.0.0");
    assert_eq!(sent(&mut layer), [Sent::Arp(OUT, OTHER, answer)]);
}

#[test]
fn a_gateway_that_nobody_has_is_adopted_for_the_server_that_asks() {
    let mut layer = layer(bare_host(), |_| {});
    layer.set_services(services(), at(0));
    run_until(&mut layer, 900);
    serve(&mut layer, 1000);
    events(&mut layer);
    hear(&mut layer, IN, &request(SERVER, "192.168.200.110", "192.168.200.1"), 1001);
    run_until(&mut layer, 1301);
    let own = own_mac(IN_MAC);
    let answer = reply(own, "192.168.200.1", SERVER, "192.168.200.110");
    assert_eq!(sent(&mut layer).last(), Some(&Sent::Arp(IN, SERVER, answer)));
    let why = Why::Adopted { server: addr("192.168.200.110") };
    let took = Event::Took { addr: addr("192.168.200.1"), at: vec![("in".into(), own)], why };
    assert_eq!(events(&mut layer), [took]);
    // It is not answered for on the outside, and given up at the first other claim.
    hear(&mut layer, OUT, &request(CLIENT, "12.0.0.12", "192.168.200.1"), 1400);
    assert_eq!(sent(&mut layer), []);
    hear(&mut layer, IN, &request(OTHER, "192.168.200.1", "192.168.200.1"), 1500);
    assert!(!layer.owned_addresses().contains(&addr("192.168.200.1")));
    run_until(&mut layer, 100_000);
    assert!(!layer.owned_addresses().contains(&addr("192.168.200.1")));
}

#[test]
fn a_gateway_is_not_adopted_where_it_might_be_somebodys() {
    let ask = request(SERVER, "192.168.200.110", "192.168.200.1");
    let adopts = |host: HostView, change: &dyn Fn(&mut Settings), before: &[Arp], ask: &Arp| {
        let mut layer = layer(host, change);
        layer.set_services(services(), at(0));
        run_until(&mut layer, 500);
        before.iter().for_each(|arp| hear(&mut layer, IN, arp, 600));
        if dispatch(&mut layer, "192.168.200.110", 1000) == Dispatch::Held {
            let answer = reply(SERVER, "192.168.200.110", IN_MAC, "0.0.0.0");
            hear(&mut layer, IN, &answer, 1000);
        }
        hear(&mut layer, IN, ask, 1001);
        run_until(&mut layer, 2000);
        layer.owned_addresses().contains(&ask.target)
    };
    let nothing = |_: &mut Settings| {};
    assert!(adopts(bare_host(), &nothing, &[], &ask));
    assert!(!adopts(bare_host(), &|settings| settings.adopt = false, &[], &ask));
    let mut other_gateway = lab_host();
    other_gateway.addresses[1].addr = addr("192.168.200.9");
    assert!(!adopts(other_gateway, &nothing, &[], &ask), "the kernel is in that network");
    let heard = request(OTHER, "192.168.200.1", "192.168.200.77");
    assert!(!adopts(bare_host(), &nothing, &[heard], &ask), "somebody has it");
    assert!(!adopts(bare_host(), &nothing, &[ask], &ask), "asked before we sent anything");
    let stranger = request(OTHER, "192.168.200.55", "192.168.200.1");
    assert!(!adopts(bare_host(), &nothing, &[], &stranger), "not a server of ours");
    let impostor = request(OTHER, "192.168.200.110", "192.168.200.1");
    assert!(!adopts(bare_host(), &nothing, &[], &impostor), "not the server's link address");
    let peer = request(SERVER, "192.168.200.110", "192.168.200.120");
    assert!(!adopts(bare_host(), &nothing, &[], &peer), "a real server");
}

#[test]
fn configured_addresses_are_taken_and_asked_with() {
    let own = OwnAddress {
        addr: addr("192.168.200.1"),
        prefix: prefix("192.168.200.1", 24),
        interface: "in".into(),
    };
    let mut layer = layer(bare_host(), |settings| settings.addresses.push(own));
    run_until(&mut layer, 5000);
    assert_eq!(layer.owned_addresses(), [addr("192.168.200.1")]);
    sent(&mut layer);
    dispatch(&mut layer, "192.168.200.110", 6000);
    let question = request(own_mac(IN_MAC), "192.168.200.1", "192.168.200.110");
    assert_eq!(sent(&mut layer), [Sent::Arp(IN, MacAddr::broadcast(), question)]);
}

#[test]
fn an_interface_made_anew_is_asked_anew() {
    let mut layer = layer(lab_host(), |_| {});
    serve(&mut layer, 0);
    layer.set_host(Arc::new(HostView::default()), at(10));
    assert_eq!(dispatch(&mut layer, "192.168.200.110", 20), Dispatch::Lost(Lost::NoRoute));
    let mut host = lab_host();
    host.interfaces[1].index = 7;
    host.addresses[1].interface = 7;
    host.routes[1].interface = 7;
    layer.set_host(Arc::new(host), at(30));
    assert_eq!(dispatch(&mut layer, "192.168.200.110", 40), Dispatch::Held);
}

#[test]
fn an_interface_made_anew_is_told_what_was_adopted() {
    let mut layer = layer(bare_host(), |_| {});
    layer.set_services(services(), at(0));
    run_until(&mut layer, 900);
    serve(&mut layer, 1000);
    hear(&mut layer, IN, &request(SERVER, "192.168.200.110", "192.168.200.1"), 1001);
    run_until(&mut layer, 10_000);
    sent(&mut layer);
    let mut host = bare_host();
    host.interfaces[1].index = 7;
    host.interfaces[1].mac = Some(OTHER);
    layer.set_host(Arc::new(host), at(10_001));
    let announcement = request(own_mac(OTHER), "192.168.200.1", "192.168.200.1");
    let announced = Sent::Arp(IN, MacAddr::broadcast(), announcement);
    assert!(sent(&mut layer).contains(&announced));
    run_until(&mut layer, 20_000);
    assert!(sent(&mut layer).contains(&announced));
}

#[test]
fn neighbours_in_a_vlan_are_answered_there() {
    let mut layer = layer(bare_host(), |_| {});
    layer.set_services(services(), at(0));
    run_until(&mut layer, 5000);
    sent(&mut layer);
    let segment = Segment { port: OUT, tags: Tags::vlan(5) };
    let arrival = Arrival { segment, source: CLIENT, to: Addressee::Everybody };
    let ask = request(CLIENT, "12.0.0.12", "12.0.0.1").frame(segment, MacAddr::broadcast());
    layer.handle_arp(&arrival, &ask[18..], at(6000));
    let [Sent::Frame(OUT, frame)] = &sent(&mut layer)[..] else { panic!() };
    assert_eq!(frame[12..18], [0x81, 0, 0, 5, 8, 6]);
    // And asked for there as well.
    dispatch(&mut layer, "192.168.200.110", 6001);
    assert_eq!(sent(&mut layer).len(), 3);
}

#[test]
fn the_director_does_not_speak_to_servers_from_an_address_that_they_may_have_too() {
    let mut host = lab_host();
    let virtual_address = KernelAddress { addr: addr("192.168.200.100"), ..host.addresses[1] };
    host.addresses.insert(0, virtual_address);
    let mut layer = layer(host, |_| {});
    let towards = |layer: &LinkLayer| layer.address_towards(addr("192.168.200.110"), None);
    assert_eq!(towards(&layer), Some(addr("192.168.200.100")), "the first of the kernel's");
    let virtuals = HashSet::from_iter([addr("192.168.200.100")]);
    layer.set_services(Services { virtuals, ..services() }, at(0));
    assert_eq!(towards(&layer), Some(addr("192.168.200.1")));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A flood of ARP in every shape moves counters, is bounded and takes no address of anybody.
    #[test]
    fn floods_of_arp_are_survived(
        // The link address with a 1 is the director's: it hears nothing of its own.
        packets in prop::collection::vec((0..2u16, 0..3u16, 0..6u8, 0..6u8, 2..=u8::MAX), 0..200)
    ) {
        let mut layer = layer(bare_host(), |_| {});
        layer.set_services(services(), at(0));
        let name = ["12.0.0.1", "12.0.0.12", "192.168.200.110", "192.168.200.1", "0.0.0.0", "10.9.9.9"];
        let mut heard = HashSet::new();
        for (n, (port, operation, sender, target, mac)) in packets.into_iter().enumerate() {
            let mac = MacAddr(0x0a, 0, 0, 0, 0, mac);
            let operation = if operation == 1 { Operation::Reply } else { Operation::Request };
            let arp = Arp { operation, ..request(mac, name[sender as usize], name[target as usize]) };
            hear(&mut layer, PortId(port), &arp, n as u64 * 10);
            heard.insert(arp.sender);
            dispatch(&mut layer, name[sender as usize], n as u64 * 10);
            run_until(&mut layer, n as u64 * 10);
            for addr in layer.owned_addresses() {
                prop_assert!(addr == self::addr("12.0.0.1") || !heard.contains(&addr));
            }
        }
        prop_assert!(events(&mut layer).len() <= 256);
    }
}
