//! A kernel as real server: User-Mode Linux unpacks every kind of tunnel with its own ipip, gre and fou
//! devices, as the servers of an LVS-TUN cluster do, and answers the client by itself.

#[allow(dead_code, reason = "the NAT topology's part")]
mod bed;
#[path = "uml/guest.rs"]
mod guest;

use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use bed::{Director, PATIENCE};
use guest::Guest;
use ulvs::lab::Network;
use ulvs::lab::net::sandbox;
use ulvs::lab::topology::{Host, Topology, port, switched};
use ulvs::lab::web;

const MIB: u64 = 1 << 20;
const DIRECTOR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const VIRTUAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
const GUEST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 110);

/// How the director packs, and the device by which the guest unpacks that.
///
/// A gre device takes packets with checksums if it was made with `icsum`, and others if not.
const KINDS: [(&str, &str); 6] = [
    ("--tun-type ipip", ""),
    ("--tun-type gre", "gre"),
    ("--tun-type gre --tun-csum", "gre icsum"),
    ("--tun-type gue --tun-port 6080 --tun-nocsum", ""),
    ("--tun-type gue --tun-port 6080 --tun-csum", ""),
    ("--tun-type gue --tun-port 6080 --tun-remcsum", ""),
];

/// What the guest is made of: programs, and Debian's packages of them.
const PEERS: [(&str, &str, &str); 4] = [
    ("linux.uml", "--version", "user-mode-linux"),
    ("modprobe", "--version", "kmod"),
    ("ip", "-V", "iproute2"),
    ("unshare", "--version", "util-linux"),
];

#[test]
fn a_kernel_unpacks_every_kind_of_tunnel() {
    sandbox::run("a_kernel_unpacks_every_kind_of_tunnel", || {
        for (program, argument, package) in PEERS {
            if Command::new(program).arg(argument).output().is_err() {
                return println!("skipped: {package} is not installed");
            }
        }
        if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
            return println!("skipped: /dev/net/tun cannot be opened ({error})");
        }
        let network = Network::build(&topology()).unwrap();
        let switch = network.host("switch").unwrap();
        // Before the guest says its first word, which would find the link down.
        let tap = ["tuntap", "add", "dev", guest::INTERFACE, "mode", "tap", "vnet_hdr"];
        assert!(switch.command("ip").args(tap).status().unwrap().success());
        switch.add_port("br0", guest::INTERFACE).unwrap();
        switch.set_up(guest::INTERFACE).unwrap();
        let mut guest = Guest::boot(switch, &set_up());
        let host = network.host("director").unwrap();
        let director = Director::start(host, &["--interface", "eth0"]);
        director.ulvs(host, &format!("ipvsadm -A -t {VIRTUAL}:80 -s rr"));
        for (kind, device) in KINDS {
            if !device.is_empty() {
                guest.does("! ip link show tunnel || ip link delete tunnel");
                guest.does(&format!(
                    "ip link add tunnel type {device} local {GUEST} remote {DIRECTOR}"
                ));
                guest.does("ip link set tunnel up");
            }
            director.ulvs(host, &format!("ipvsadm -a -t {VIRTUAL}:80 -r {GUEST} -i {kind}"));
            let client = network.host("client").unwrap();
            let service = SocketAddr::from((VIRTUAL, 80));
            let page = client.run(|| web::get(service, "/", PATIENCE)).unwrap();
            assert_eq!(page.expect(kind).server, "guest", "{kind}");
            // What comes is compared with what it should be, at the guest and here.
            client.run(|| web::download(service, 20 * MIB, PATIENCE)).unwrap().expect(kind);
            client.run(|| web::upload(service, 20 * MIB, PATIENCE)).unwrap().expect(kind);
            director.ulvs(host, &format!("ipvsadm -d -t {VIRTUAL}:80 -r {GUEST}"));
        }
    });
}

fn topology() -> Topology {
    let at = |addr: Ipv4Addr| format!("{addr}/24");
    Topology {
        name: "uml",
        title: "a guest's kernel behind a tunnel",
        hosts: vec![
            Host::new("client", "client"),
            Host::new("director", "director"),
            Host::switch("switch"),
        ],
        links: switched(
            "switch",
            vec![
                port("client", "eth0", &["192.0.2.12/24"]),
                port("director", "eth0", &[&at(DIRECTOR)]),
            ],
        ),
    }
}

/// What makes a real server of LVS-TUN of a host.
fn set_up() -> Vec<String> {
    vec![
        "modprobe -a ipip ip_gre fou".to_owned(),
        // The virtual address, without telling anybody.
        "echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore".to_owned(),
        "echo 2 > /proc/sys/net/ipv4/conf/all/arp_announce".to_owned(),
        format!("ip address add {VIRTUAL}/32 dev lo"),
        format!("ip address add {GUEST}/24 dev {}", guest::LINK),
        format!("ip link set {} up", guest::LINK),
        // The device that takes any IPIP packet, GUE's too.
        "ip link set tunl0 up".to_owned(),
        "ip fou add port 6080 gue".to_owned(),
        // Clients' packets come by another device than answers leave by.
        "for each in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $each; done".to_owned(),
        format!("{} lab web --name guest --listen {VIRTUAL}:80 &", env!("CARGO_BIN_EXE_ulvs")),
        // Port 80 in a list of the kernel's.
        "until grep -q :0050 /proc/net/tcp; do sleep 0.1; done".to_owned(),
    ]
}
