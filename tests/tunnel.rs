//! Tunnels end to end: a real director, and real servers that unpack with `ulvs decap`.

#[allow(dead_code, reason = "the NAT topology's part")]
mod bed;

use std::fs::OpenOptions;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bed::{Director, PATIENCE};
use ulvs::lab::Network;
use ulvs::lab::net::{Namespace, sandbox};
use ulvs::lab::services::watch::LinkWatch;
use ulvs::lab::topology::tun::{DIRECTOR, FAR, NEAR, VIRTUAL, topology};
use ulvs::lab::web::{self, Site, WebServer};
use ulvs::simulate::packet::dissect;

const MIB: u64 = 1 << 20;

/// Runs a test that needs a TUN device.
fn run(name: &str, body: impl FnOnce()) {
    sandbox::run(name, || match OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => body(),
        Err(error) => println!("skipped: {name}: /dev/net/tun cannot be opened ({error})"),
    });
}

/// A process of `ulvs decap`; it dies with the test.
struct Decap(Child);

impl Decap {
    /// Starts one and waits until it announces that it is ready.
    fn start(host: &Namespace, options: &[&str]) -> Self {
        let directory = std::env::temp_dir();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ulvs-test-{}-decap-{number}", std::process::id());
        let notify = directory.join(name);
        let _ = std::fs::remove_file(&notify);
        let readiness = UnixDatagram::bind(&notify).unwrap();
        readiness.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut command = host.command(env!("CARGO_BIN_EXE_ulvs"));
        command.args(["decap", "--vip", &VIRTUAL.to_string()]).args(options);
        command.env("NOTIFY_SOCKET", &notify).stdin(Stdio::null());
        let decap = Decap(command.spawn().unwrap());
        let mut message = [0; 256];
        let received = readiness.recv(&mut message);
        std::fs::remove_file(&notify).unwrap();
        let length = received.expect("it announces that it is ready");
        assert!(String::from_utf8_lossy(&message[..length]).contains("READY=1"));
        decap
    }
}

impl Drop for Decap {
    fn drop(&mut self) {
        // As the kernel's memory guard would.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The lab's network with web servers, a director, and nothing yet that unpacks.
struct Lab {
    network: Network,
    director: Director,
    _webs: [WebServer; 2],
}

impl Lab {
    fn new(options: &[&str]) -> Self {
        let network = Network::build(&topology("ipip")).unwrap();
        let webs = ["real1", "real2"].map(|host| {
            let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 80));
            let inside = network.host(host).unwrap();
            let listeners = inside.run(|| web::listen(listen, 1)).unwrap().unwrap();
            WebServer::start(listeners, Site::new(host).page("/", "text/plain", "")).unwrap()
        });
        let options = [&["--interface", "eth0"][..], options].concat();
        let director = Director::start(network.host("director").unwrap(), &options);
        Lab { network, director, _webs: webs }
    }

    fn host(&self, name: &str) -> &Namespace {
        self.network.host(name).unwrap()
    }

    fn ulvs(&self, line: &str) -> String {
        self.director.ulvs(self.host("director"), line)
    }

    /// A service with both servers behind tunnels.
    fn balance(&self, options: &str) {
        self.ulvs(&format!("ipvsadm -A -t {VIRTUAL}:80 -s rr"));
        for real in [NEAR, FAR] {
            self.ulvs(&format!("ipvsadm -a -t {VIRTUAL}:80 -r {real} -i {options}"));
        }
    }

    fn unpack(&self, options: &[&str]) -> [Decap; 2] {
        ["real1", "real2"].map(|host| Decap::start(self.host(host), options))
    }

    /// Which servers answer the client, one after the other.
    fn servers(&self, count: usize) -> Vec<String> {
        let fetch = || web::get((VIRTUAL, 80).into(), "/", PATIENCE).unwrap().server;
        (0..count).map(|_| self.host("client").run(fetch).unwrap()).collect()
    }

    /// Has both servers send and receive `length` bytes, each compared with what it should be.
    fn transfer(&self, length: u64) {
        let (client, service) = (self.host("client"), SocketAddr::from((VIRTUAL, 80)));
        for _ in 0..2 {
            client.run(|| web::download(service, length, PATIENCE)).unwrap().unwrap();
        }
        for _ in 0..2 {
            client.run(|| web::upload(service, length, PATIENCE)).unwrap().unwrap();
        }
    }
}

const KINDS: [&str; 6] = [
    "--tun-type ipip",
    "--tun-type gre",
    "--tun-type gre --tun-csum",
    "--tun-type gue --tun-port 6080 --tun-nocsum",
    "--tun-type gue --tun-port 6080 --tun-csum",
    "--tun-type gue --tun-port 6080 --tun-remcsum",
];

#[test]
fn pages_and_long_transfers_go_through_every_kind_of_tunnel() {
    run("pages_and_long_transfers_go_through_every_kind_of_tunnel", || {
        let lab = Lab::new(&[]);
        let _decaps = lab.unpack(&["--from", &DIRECTOR.to_string()]);
        for kind in KINDS {
            lab.balance(kind);
            assert_eq!(lab.servers(4), ["real2", "real1", "real2", "real1"], "{kind}");
            lab.transfer(20 * MIB);
            lab.ulvs("ipvsadm -C");
        }
    });
}

#[test]
fn a_veth_pair_does_the_same_as_a_tun_device() {
    sandbox::run("a_veth_pair_does_the_same_as_a_tun_device", || {
        let lab = Lab::new(&[]);
        let before = lab.host("real1").interfaces().unwrap();
        let decaps = lab.unpack(&["--way", "veth", "--workers", "2"]);
        for kind in KINDS {
            lab.balance(kind);
            assert_eq!(lab.servers(4), ["real2", "real1", "real2", "real1"], "{kind}");
            lab.transfer(20 * MIB);
            lab.ulvs("ipvsadm -C");
        }
        lab.balance("");
        lab.transfer(100 * MIB);
        drop(decaps);
        // The kernel removes a namespace that nobody has when it finds the time.
        let deadline = std::time::Instant::now() + PATIENCE;
        while lab.host("real1").interfaces().unwrap() != before {
            assert!(std::time::Instant::now() < deadline, "the pair is still there");
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

#[test]
fn a_hundred_mebibytes_arrive_unharmed_by_two_workers_without_offloads() {
    run("a_hundred_mebibytes_arrive_unharmed_by_two_workers_without_offloads", || {
        let lab = Lab::new(&["--workers", "2"]);
        for host in ["client", "director", "real1"] {
            lab.host(host).disable_offloads("eth0").unwrap();
        }
        let _decaps = lab.unpack(&["--workers", "2"]);
        lab.balance("--tun-type gre --tun-csum");
        lab.transfer(100 * MIB);
    });
}

#[test]
fn strict_source_filters_do_not_matter() {
    run("strict_source_filters_do_not_matter", || {
        let lab = Lab::new(&[]);
        for host in ["real1", "real2"] {
            for interface in ["all", "eth0"] {
                let key = format!("net.ipv4.conf.{interface}.rp_filter");
                lab.host(host).set_sysctl(&key, "1").unwrap();
            }
        }
        for way in ["tun", "veth"] {
            let _decaps = lab.unpack(&["--way", way, "--device", &format!("{way}%d")]);
            lab.balance("");
            assert_eq!(lab.servers(2), ["real2", "real1"], "{way}");
            lab.ulvs("ipvsadm -C");
        }
    });
}

#[test]
fn servers_are_silent_towards_the_director_and_nothing_is_left_after_a_kill() {
    run("servers_are_silent_towards_the_director_and_nothing_is_left_after_a_kill", || {
        let lab = Lab::new(&[]);
        let real = lab.host("real1");
        let before = real.interfaces().unwrap();
        let addresses = || real.addresses("eth0").unwrap();
        let own = addresses();
        let decaps = lab.unpack(&[]);
        assert_ne!(real.interfaces().unwrap(), before);
        lab.balance("");
        let mut watch = lab.host("director").run(|| LinkWatch::open("eth0")).unwrap().unwrap();
        assert_eq!(lab.servers(4).len(), 4);
        let packets = watch.packets().unwrap();
        let from_servers = packets.iter().filter_map(|bytes| dissect(bytes)).filter(|packet| {
            [IpAddr::V4(NEAR), IpAddr::V4(FAR), IpAddr::V4(VIRTUAL)].contains(&packet.src)
        });
        assert_eq!(from_servers.map(|packet| packet.to_string()).collect::<Vec<_>>(), [""; 0]);
        drop(decaps);
        assert_eq!((real.interfaces().unwrap(), addresses()), (before, own));
        // Now the kernel says that it knows no such protocol, and the client hears of it.
        let refused = lab.host("client").run(|| web::get((VIRTUAL, 80).into(), "/", PATIENCE));
        assert!(refused.unwrap().is_err());
        let packets = watch.packets().unwrap();
        let errors = packets.iter().filter_map(|bytes| dissect(bytes));
        assert!(errors.into_iter().any(|packet| packet.to_string().contains("icmp 3/2")));
    });
}

#[test]
fn datagrams_longer_than_the_tunnel_leave_in_fragments() {
    run("datagrams_longer_than_the_tunnel_leave_in_fragments", || {
        let lab = Lab::new(&[]);
        let _decaps = lab.unpack(&[]);
        lab.ulvs(&format!("ipvsadm -A -u {VIRTUAL}:53 -s rr"));
        lab.ulvs(&format!("ipvsadm -a -u {VIRTUAL}:53 -r {NEAR} -i"));
        // What the client sends may be fragmented.
        lab.host("client").set_sysctl("net.ipv4.ip_no_pmtu_disc", "1").unwrap();
        let server = lab.host("real1").run(|| UdpSocket::bind((VIRTUAL, 53))).unwrap().unwrap();
        let client = lab.host("client").run(|| UdpSocket::bind(("0.0.0.0", 0))).unwrap().unwrap();
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        // With the outer header it is longer than the link takes.
        let sent: Vec<u8> = (0..1470u32).map(|n| n as u8).collect();
        client.send_to(&sent, (VIRTUAL, 53)).unwrap();
        let mut received = [0; 2000];
        let (length, from) = server.recv_from(&mut received).unwrap();
        assert_eq!(&received[..length], sent);
        assert_eq!(from.ip(), IpAddr::from([12, 0, 0, 12]));
        server.send_to(b"thanks", from).unwrap();
        assert_eq!(client.recv(&mut received).unwrap(), 6);
    });
}

#[test]
fn what_others_send_is_not_unpacked() {
    run("what_others_send_is_not_unpacked", || {
        let lab = Lab::new(&[]);
        let _decaps = lab.unpack(&["--from", "203.0.113.0/24"]);
        lab.balance("");
        let patience = Duration::from_millis(700);
        let fetch = move || web::get((VIRTUAL, 80).into(), "/", patience);
        assert!(lab.host("client").run(fetch).unwrap().is_err());
    });
}
