use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::*;
use crate::lab::net::{Namespace, Route, connect, sandbox};
use crate::packet::{Addr, Prefix};

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

/// Waits until the view is as wanted.
fn eventually(watch: &HostWatch, wanted: impl Fn(&HostView) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !wanted(&watch.view()) {
        assert!(Instant::now() < deadline, "not in {:?}", watch.view());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_namespace_is_seen_as_it_is_and_as_it_changes() {
    sandbox::run("host::tests::a_namespace_is_seen_as_it_is_and_as_it_changes", || {
        let director = Namespace::new("director").unwrap();
        let client = Namespace::new("client").unwrap();
        connect(&director.end("out"), &client.end("eth0")).unwrap();
        director.set_mac("out", [2, 0, 0x5e, 0, 0x53, 7]).unwrap();
        director.add_address("out", "12.0.0.1/24".parse().unwrap()).unwrap();
        director.add_route(&Route::default_via([12, 0, 0, 254].into())).unwrap();
        let watch = director.run(|| HostWatch::start(None)).unwrap().unwrap();
        let view = watch.view();
        let out = view.interface("out").unwrap();
        assert_eq!(out.mac.unwrap().octets(), [2, 0, 0x5e, 0, 0x53, 7]);
        assert!(out.up && out.ethernet && out.mtu_bytes == 1500, "{out:?}");
        assert_eq!(out.kind.as_deref(), Some("veth"));
        assert!(!view.interface("lo").unwrap().ethernet);
        assert!(view.owns(addr("12.0.0.1")) && !view.owns(addr("12.0.0.2")));
        assert!(view.owns(addr("127.9.9.9")));
        let prefixes: Vec<(Prefix, Option<Addr>)> =
            view.routes.iter().map(|route| (route.prefix, route.gateway)).collect();
        assert!(prefixes.contains(&(Prefix::new(addr("12.0.0.0"), 24).unwrap(), None)));
        let default = Prefix::new(addr("0.0.0.0"), 0).unwrap();
        assert!(prefixes.contains(&(default, Some(addr("12.0.0.254")))));

        let epoch = watch.epoch();
        director.add_address("out", "12.0.0.7/32".parse().unwrap()).unwrap();
        eventually(&watch, |view| view.owns(addr("12.0.0.7")));
        assert!(watch.epoch() > epoch);
        assert!(!view.forwards_v4);
        director.set_sysctl("net.ipv4.ip_forward", "1").unwrap();
        eventually(&watch, |view| view.forwards_v4);
        assert!(!view.forwards_v6);
        director.set_sysctl("net.ipv6.conf.all.forwarding", "1").unwrap();
        eventually(&watch, |view| view.forwards_v6);
        director.remove_link("out").unwrap();
        eventually(&watch, |view| view.interface("out").is_none() && view.routes.is_empty());
    });
}

#[test]
fn whoever_asks_sees_all_that_has_changed() {
    sandbox::run("host::tests::whoever_asks_sees_all_that_has_changed", || {
        let director = Namespace::new("director").unwrap();
        let watch = director.run(|| HostWatch::start(None)).unwrap().unwrap();
        for number in 1..=20 {
            director.add_address("lo", format!("12.0.0.{number}/32").parse().unwrap()).unwrap();
            let forwards = number % 2 == 0;
            director.set_sysctl("net.ipv4.ip_forward", if forwards { "1" } else { "0" }).unwrap();
            watch.catch_up(Duration::from_secs(60));
            let view = watch.view();
            assert!(view.owns(addr(&format!("12.0.0.{number}"))), "{number}: {view:?}");
            assert_eq!(view.forwards_v4, forwards);
        }
    });
}

#[test]
fn routes_of_ipv6_are_seen_with_the_link_their_router_is_on() {
    sandbox::run("host::tests::routes_of_ipv6_are_seen_with_the_link_their_router_is_on", || {
        let director = Namespace::new("director").unwrap();
        let client = Namespace::new("client").unwrap();
        connect(&director.end("out"), &client.end("eth0")).unwrap();
        connect(&director.end("in"), &client.end("eth1")).unwrap();
        director.add_address("out", "2001:db8:12::1/64".parse().unwrap()).unwrap();
        let router = "fe80::fe".parse().unwrap();
        for (network, interface) in [("::/0", "out"), ("2001:db8:77::/48", "in")] {
            let destination = network.parse().unwrap();
            let interface = Some(interface.to_owned());
            director.add_route(&Route { destination, via: Some(router), interface }).unwrap();
        }
        let view = director.run(look).unwrap().unwrap();
        let route = |network: &str| {
            let prefix: Prefix = network.parse().unwrap();
            let route = view.routes.iter().find(|route| route.prefix == prefix).unwrap();
            (route.interface, route.gateway)
        };
        let index = |name: &str| view.interface(name).unwrap().index;
        assert_eq!(route("::/0"), (index("out"), Some(addr("fe80::fe"))));
        assert_eq!(route("2001:db8:77::/48"), (index("in"), Some(addr("fe80::fe"))));
        assert_eq!(route("2001:db8:12::/64"), (index("out"), None));
        assert!(view.owns(addr("2001:db8:12::1")) && view.owns(addr("::1")));
        assert!(!view.owns(addr("2001:db8:12::2")) && !view.owns(addr("fe80::fe")));
    });
}

#[test]
fn a_neighbour_the_kernel_talks_to_is_seen() {
    sandbox::run("host::tests::a_neighbour_the_kernel_talks_to_is_seen", || {
        let director = Namespace::new("director").unwrap();
        let client = Namespace::new("client").unwrap();
        connect(&director.end("out"), &client.end("eth0")).unwrap();
        director.add_address("out", "12.0.0.1/24".parse().unwrap()).unwrap();
        client.add_address("eth0", "12.0.0.12/24".parse().unwrap()).unwrap();
        let watch = director.run(|| HostWatch::start(None)).unwrap().unwrap();
        let refused = director.run(|| std::net::TcpStream::connect("12.0.0.12:9")).unwrap();
        assert!(refused.is_err());
        let known = |view: &HostView| {
            view.neighbours.iter().any(|known| known.addr == addr("12.0.0.12") && !known.permanent)
        };
        eventually(&watch, known);
        assert!(known(&director.run(look).unwrap().unwrap()));
    });
}
