use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use super::*;

/// Two namespaces with one link and an address each.
fn pair() -> (Namespace, Namespace) {
    let client = Namespace::new("client").unwrap();
    let server = Namespace::new("server").unwrap();
    connect(&client.end("eth0"), &server.end("eth0")).unwrap();
    client.add_address("eth0", "192.0.2.1/24".parse().unwrap()).unwrap();
    server.add_address("eth0", "192.0.2.2/24".parse().unwrap()).unwrap();
    (client, server)
}

fn exchange(client: &Namespace, server: &Namespace, address: &str) {
    let listener = server.run(|| TcpListener::bind(address)).unwrap().unwrap();
    let mut near = client.run(|| TcpStream::connect(address)).unwrap().unwrap();
    let (mut far, _) = listener.accept().unwrap();
    near.write_all(b"hello").unwrap();
    let mut heard = [0; 5];
    far.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello");
}

#[test]
fn two_namespaces_talk_over_a_link() {
    sandbox::run("lab::net::tests::two_namespaces_talk_over_a_link", || {
        let (client, server) = pair();
        exchange(&client, &server, "192.0.2.2:80");
    });
}

#[test]
fn a_bridge_a_router_and_routes_carry_traffic() {
    sandbox::run("lab::net::tests::a_bridge_a_router_and_routes_carry_traffic", || {
        let [client, router, switch, server] =
            ["client", "router", "switch", "server"].map(|name| Namespace::new(name).unwrap());
        connect(&client.end("eth0"), &router.end("out")).unwrap();
        connect(&router.end("in"), &switch.end("p0")).unwrap();
        connect(&server.end("eth0"), &switch.end("p1")).unwrap();
        switch.add_bridge("br0", &["p0", "p1"]).unwrap();
        client.add_address("eth0", "192.0.2.10/24".parse().unwrap()).unwrap();
        router.add_address("out", "192.0.2.1/24".parse().unwrap()).unwrap();
        router.add_address("in", "198.51.100.1/24".parse().unwrap()).unwrap();
        server.add_address("eth0", "198.51.100.10/24".parse().unwrap()).unwrap();
        client.add_route(&Route::default_via([192, 0, 2, 1].into())).unwrap();
        server.add_route(&Route::default_via([198, 51, 100, 1].into())).unwrap();
        router.set_sysctl("net.ipv4.ip_forward", "1").unwrap();
        assert_eq!(router.sysctl("net.ipv4.ip_forward").unwrap(), "1");
        exchange(&client, &server, "198.51.100.10:80");
    });
}

#[test]
fn ipv6_addresses_are_usable_at_once() {
    sandbox::run("lab::net::tests::ipv6_addresses_are_usable_at_once", || {
        let (client, server) = pair();
        client.add_address("eth0", "2001:db8::1/64".parse().unwrap()).unwrap();
        server.add_address("eth0", "2001:db8::2/64".parse().unwrap()).unwrap();
        exchange(&client, &server, "[2001:db8::2]:80");
    });
}

#[test]
fn offloads_can_be_switched_off_and_traffic_goes_on() {
    sandbox::run("lab::net::tests::offloads_can_be_switched_off_and_traffic_goes_on", || {
        let (client, server) = pair();
        client.disable_offloads("eth0").unwrap();
        server.disable_offloads("eth0").unwrap();
        exchange(&client, &server, "192.0.2.2:80");
        client.set_offload("eth0", Offload::TransmitChecksum, true).unwrap();
    });
}

#[test]
fn a_command_runs_in_its_namespace() {
    sandbox::run("lab::net::tests::a_command_runs_in_its_namespace", || {
        let (client, _server) = pair();
        let output = client.command("cat").arg("/proc/net/dev").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("eth0:"), "{text}");
        assert_eq!(client.interfaces().unwrap(), ["lo", "eth0"]);
    });
}

#[test]
fn addresses_and_traffic_are_told() {
    sandbox::run("lab::net::tests::addresses_and_traffic_are_told", || {
        let (client, server) = pair();
        client.add_address("lo", "198.51.100.1/32".parse().unwrap()).unwrap();
        let on = |interface| -> Vec<String> {
            client.addresses(interface).unwrap().iter().map(ToString::to_string).collect()
        };
        assert!(on("lo").contains(&"198.51.100.1/32".to_owned()), "{:?}", on("lo"));
        assert!(on("eth0").contains(&"192.0.2.1/24".to_owned()), "{:?}", on("eth0"));
        let before = (client.traffic("eth0").unwrap(), server.traffic("eth0").unwrap());
        exchange(&client, &server, "192.0.2.2:80");
        let after = (client.traffic("eth0").unwrap(), server.traffic("eth0").unwrap());
        assert!(after.0.sent_bytes > before.0.sent_bytes);
        assert!(after.1.received_bytes > before.1.received_bytes);
        assert!(after.1.sent_bytes > before.1.sent_bytes);
    });
}

#[test]
fn a_missing_interface_is_named() {
    sandbox::run("lab::net::tests::a_missing_interface_is_named", || {
        let client = Namespace::new("client").unwrap();
        let error = client.set_up("eth9").unwrap_err();
        assert!(error.to_string().contains("client: no interface eth9"), "{error}");
    });
}

#[test]
fn hardware_addresses_are_as_asked_for() {
    sandbox::run("lab::net::tests::hardware_addresses_are_as_asked_for", || {
        let (one, other) = (Namespace::new("one").unwrap(), Namespace::new("other").unwrap());
        let near = one.end("a").with_mac([2, 0, 0, 0, 0, 1]);
        connect(&near, &other.end("b").with_mac([2, 0, 0, 0, 0, 2])).unwrap();
        one.set_mac("a", [2, 0, 0, 0, 0, 3]).unwrap();
        assert_eq!(one.mac("a").unwrap(), [2, 0, 0, 0, 0, 3]);
        assert_eq!(other.mac("b").unwrap(), [2, 0, 0, 0, 0, 2]);
    });
}

#[test]
fn a_link_and_its_peer_can_be_removed() {
    sandbox::run("lab::net::tests::a_link_and_its_peer_can_be_removed", || {
        let (client, server) = pair();
        client.remove_link("eth0").unwrap();
        assert_eq!(server.interfaces().unwrap(), ["lo"]);
    });
}

#[test]
fn prefixes_are_checked() {
    for bad in ["12.0.0.1/33", "12.0.0/8", "::1/129", "12.0.0.1/", "12.0.0.1/x", ""] {
        assert!(bad.parse::<Prefix>().is_err(), "{bad}");
    }
    assert_eq!("12.0.0.1".parse::<Prefix>().unwrap().to_string(), "12.0.0.1/32");
}
