//! The whole daemon in namespaces, with real clients and servers.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::*;
use crate::control::client::{Director, InProcess};
use crate::control::handler::Host;
use crate::engine::Moment;
use crate::engine::service::{
    ClientAddress, ForwardingMethod, Protocol, RealSpec, ServiceKey, ServiceSpec, Tunnel,
};
use crate::lab::net::{Namespace, Route, connect, sandbox};
use crate::packet::{Addr, Family, Prefix};

const SERVERS: [(&str, &str); 2] = [("web1", "192.168.200.110"), ("web2", "192.168.200.120")];

/// How long anything may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The NAT lab: client, director, switch and two servers that say their names.
struct Lab {
    client: Namespace,
    director: Namespace,
    _switch: Namespace,
    servers: Vec<Namespace>,
}

/// A daemon in the director's namespace, and what keeps its house.
struct Running {
    handler: Arc<Handler<DaemonHost>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Running {
    /// An administrator's access, whose edits are in force when they return.
    fn transport(&self) -> InProcess<'_, DaemonHost> {
        InProcess { handler: self.handler.as_ref(), now: Moment::default() }
    }

    fn balance(&self, protocol: Protocol, port: u16) {
        let key = ServiceKey::Address { protocol, addr: addr("12.0.0.1"), port };
        let spec = ServiceSpec { scheduler: "rr".into(), ..ServiceSpec::new(key) };
        let mut transport = self.transport();
        let mut director = Director::new(&mut transport);
        director.add_service(&spec).unwrap();
        for (_, server) in SERVERS {
            director.add_real(&key, &masqueraded(server, port)).unwrap();
        }
    }
}

fn masqueraded(server: &str, port: u16) -> RealSpec {
    RealSpec {
        addr: addr(server),
        port,
        method: ForwardingMethod::Masquerade,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
        tunnel: Tunnel::default(),
        client_address: ClientAddress::default(),
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(Ok(())))), "the daemon failed");
    }
}

impl Lab {
    fn new(with_kernel_addresses: bool) -> Self {
        let [client, director, switch] =
            ["client", "director", "switch"].map(|name| Namespace::new(name).unwrap());
        connect(&client.end("eth0"), &director.end("out")).unwrap();
        connect(&director.end("in"), &switch.end("p0")).unwrap();
        client.add_address("eth0", "12.0.0.12/24".parse().unwrap()).unwrap();
        if with_kernel_addresses {
            director.add_address("out", "12.0.0.1/24".parse().unwrap()).unwrap();
            director.add_address("in", "192.168.200.1/24".parse().unwrap()).unwrap();
        }
        let mut ports = vec!["p0".to_owned()];
        let mut servers = Vec::new();
        for (name, addr) in SERVERS {
            let server = Namespace::new(name).unwrap();
            connect(&server.end("eth0"), &switch.end(name)).unwrap();
            server.add_address("eth0", format!("{addr}/24").parse().unwrap()).unwrap();
            server.add_route(&Route::default_via([192, 168, 200, 1].into())).unwrap();
            serve_tcp(&server, name);
            serve_udp(&server, name);
            ports.push(name.into());
            servers.push(server);
        }
        let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
        switch.add_bridge("br0", &ports).unwrap();
        Self { client, director, _switch: switch, servers }
    }

    fn start(&self, workers: usize) -> Running {
        self.start_with(workers, &[])
    }

    fn start_with(&self, workers: usize, addresses: &[&str]) -> Running {
        let own = |text: &&str| {
            let prefix: Prefix = text.parse().unwrap();
            OwnAddress { addr: prefix.addr(), prefix, interface: "in".into() }
        };
        let config = Config {
            tun: None,
            interfaces: vec!["out".into(), "in".into()],
            addresses: addresses.iter().map(own).collect(),
            adopt: addresses.is_empty(),
            workers,
            cores: Vec::new(),
            ring: RingConfig { bytes: 4 << 20, ..RingConfig::default() },
            max_connections: 1 << 16,
            patience: Patience::default(),
            control: "/nonexistent".into(),
        };
        let stop = Arc::new(AtomicBool::new(false));
        let (handler, started) = mpsc::channel();
        let stopped = Arc::clone(&stop);
        let keep = move || {
            let mut daemon = Daemon::start(&config).unwrap();
            handler.send(Arc::clone(daemon.handler())).unwrap();
            while !stopped.load(Ordering::Relaxed) {
                daemon.keep_house(Duration::from_millis(5)).unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        let thread = Some(self.director.spawn(keep).unwrap());
        Running { handler: started.recv().unwrap(), stop, thread }
    }

    /// What the service says to one new connection, within a time.
    fn ask_tcp(&self, patience: Duration) -> std::io::Result<String> {
        let to: SocketAddr = "12.0.0.1:80".parse().unwrap();
        let ask = || {
            let mut stream = TcpStream::connect_timeout(&to, patience)?;
            stream.set_read_timeout(Some(patience))?;
            stream.write_all(b"x")?;
            let mut name = String::new();
            stream.read_to_string(&mut name)?;
            Ok(name)
        };
        self.client.run(ask).unwrap()
    }

    fn ask_udp(&self) -> std::io::Result<String> {
        let ask = || {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect("12.0.0.1:53")?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.send(b"who")?;
            let mut name = [0; 16];
            let len = socket.recv(&mut name)?;
            Ok(String::from_utf8_lossy(&name[..len]).into_owned())
        };
        self.client.run(ask).unwrap()
    }

    fn distribution(&self, requests: usize) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for _ in 0..requests {
            let name = self.ask_tcp(PATIENCE).unwrap();
            *counts.entry(name).or_insert(0) += 1;
        }
        counts
    }
}

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

/// Answers each connection with a name, once a byte has come.
fn serve_tcp(server: &Namespace, name: &'static str) {
    let listener = server.run(|| TcpListener::bind("0.0.0.0:80")).unwrap().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            // A client that went away is no concern of the server's.
            let _gone = stream.read(&mut [0]).and_then(|_| stream.write_all(name.as_bytes()));
        }
    });
}

fn serve_udp(server: &Namespace, name: &'static str) {
    let socket = server.run(|| UdpSocket::bind("0.0.0.0:53")).unwrap().unwrap();
    std::thread::spawn(move || {
        while let Ok((_, from)) = socket.recv_from(&mut [0; 16]) {
            let _gone = socket.send_to(name.as_bytes(), from);
        }
    });
}

fn even(requests: usize) -> BTreeMap<String, usize> {
    SERVERS.iter().map(|(name, _)| ((*name).to_owned(), requests / 2)).collect()
}

#[test]
fn clients_are_balanced_with_the_kernels_addresses() {
    sandbox::run("daemon::tests::clients_are_balanced_with_the_kernels_addresses", || {
        let lab = Lab::new(true);
        let daemon = lab.start(1);
        daemon.balance(Protocol::Tcp, 80);
        daemon.balance(Protocol::Udp, 53);
        assert_eq!(lab.distribution(20), even(20));
        let names: std::collections::BTreeSet<String> =
            (0..4).map(|_| lab.ask_udp().unwrap()).collect();
        assert_eq!(names.len(), 2);
        // The host's own services go on.
        let ssh = lab.director.run(|| TcpListener::bind("0.0.0.0:22")).unwrap().unwrap();
        let to: SocketAddr = "12.0.0.1:22".parse().unwrap();
        let connect = || TcpStream::connect_timeout(&to, PATIENCE);
        assert!(lab.client.run(connect).unwrap().is_ok());
        drop(ssh);
        let mut connections = 0;
        daemon.handler.host().connections(&mut |_| {
            connections += 1;
            ControlFlow::Continue(())
        });
        assert_eq!(connections, 24);
        assert!(daemon.handler.host().worker_counters()[0].1.verdicts.forwarded > 100);
        let mut transport = daemon.transport();
        let counters = Director::new(&mut transport).counters().unwrap();
        let value = |group: &str, name: &str| {
            let found = counters.iter().find(|each| each.group == group && each.name == name);
            found.unwrap_or_else(|| panic!("no {name} of {group} in {counters:?}")).value
        };
        assert!(value("packets", "forwarded") > 100);
        assert!(value("packets", "passed") > 0, "of the connection to port 22");
        assert_eq!(value("dropped", "table-full"), 0);
        assert_eq!(value("worker", "connections"), 24);
        for interface in ["interface out", "interface in"] {
            assert_eq!(value(interface, "ring-drops"), 0);
            assert!(value(interface, "received") > 50 && value(interface, "sent") > 50);
        }
        assert_eq!(value("link", "bad-arp"), 0);
    });
}

#[test]
fn clients_are_balanced_without_any_address_or_route() {
    sandbox::run("daemon::tests::clients_are_balanced_without_any_address_or_route", || {
        let lab = Lab::new(false);
        let daemon = lab.start(1);
        daemon.balance(Protocol::Tcp, 80);
        let first = lab.ask_tcp(PATIENCE).unwrap();
        let rest = lab.distribution(19);
        assert_eq!(rest.get(&first), Some(&9), "{rest:?}");
    });
}

#[test]
fn a_configured_gateway_is_answered_for_and_asked_with() {
    sandbox::run("daemon::tests::a_configured_gateway_is_answered_for_and_asked_with", || {
        let lab = Lab::new(false);
        let daemon = lab.start_with(1, &["192.168.200.1/24"]);
        daemon.balance(Protocol::Tcp, 80);
        assert_eq!(lab.distribution(10), even(10));
        let ping = || {
            // The gateway is a host: its closed ports refuse.
            let to: SocketAddr = "192.168.200.1:81".parse().unwrap();
            TcpStream::connect_timeout(&to, PATIENCE).unwrap_err().kind()
        };
        let refused = lab.servers[0].run(ping).unwrap();
        assert_eq!(refused, io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_host_that_forwards_packets_serves_as_well() {
    sandbox::run("daemon::tests::a_host_that_forwards_packets_serves_as_well", || {
        let lab = Lab::new(true);
        lab.director.set_sysctl("net.ipv4.ip_forward", "1").unwrap();
        lab.client.add_route(&Route::default_via([12, 0, 0, 1].into())).unwrap();
        let daemon = lab.start(1);
        daemon.balance(Protocol::Tcp, 80);
        assert_eq!(lab.distribution(20), even(20));
        // The client would have reset what came to it untranslated.
        let snmp = lab.client.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp"));
        let snmp = snmp.unwrap().unwrap();
        let mut tcp = snmp.lines().filter(|line| line.starts_with("Tcp:"));
        let names = tcp.next().unwrap().split(' ');
        let values = tcp.next().unwrap().split(' ');
        let resets = names.zip(values).find(|(name, _)| *name == "OutRsts").unwrap().1;
        assert_eq!(resets, "0");
    });
}

#[test]
fn two_workers_keep_connections_whole() {
    sandbox::run("daemon::tests::two_workers_keep_connections_whole", || {
        let lab = Lab::new(true);
        let daemon = lab.start(2);
        daemon.balance(Protocol::Tcp, 80);
        assert_eq!(lab.distribution(40), even(40));
        let counters = daemon.handler.host().worker_counters();
        assert!(counters.iter().all(|(_, each)| each.connections > 5), "{counters:?}");
    });
}

/// Balances what rules mark, at one of the kernel's addresses and at one that nobody has.
fn balance_marks(with_kernel_addresses: bool, workers: usize, rule: &str) {
    let lab = Lab::new(with_kernel_addresses);
    let daemon = lab.start(workers);
    let mut transport = daemon.transport();
    let mut director = Director::new(&mut transport);
    assert_eq!(director.edit_marks(rule).unwrap(), None);
    let key = ServiceKey::Mark { mark: 7, family: Family::V4 };
    director.add_service(&ServiceSpec { scheduler: "rr".into(), ..ServiceSpec::new(key) }).unwrap();
    for (_, server) in SERVERS {
        director.add_real(&key, &masqueraded(server, 0)).unwrap();
    }
    assert_eq!(lab.distribution(20), even(20));
    let counters = daemon.handler.host().worker_counters();
    assert!(counters.iter().all(|(_, each)| each.connections > 2), "{counters:?}");
}

const MARK_WEB: &str = "-A PREROUTING -i out -d 12.0.0.1 -p tcp --dport 80:81 -j MARK --set-mark 7";

#[test]
fn marked_packets_are_balanced_with_the_kernels_addresses() {
    sandbox::run("daemon::tests::marked_packets_are_balanced_with_the_kernels_addresses", || {
        balance_marks(true, 2, MARK_WEB);
    });
}

#[test]
fn marked_packets_are_balanced_at_an_address_that_nobody_has() {
    sandbox::run(
        "daemon::tests::marked_packets_are_balanced_at_an_address_that_nobody_has",
        || {
            balance_marks(false, 1, MARK_WEB);
        },
    );
}

#[test]
fn a_mark_without_a_destination_is_for_every_address_of_the_director() {
    let name = "daemon::tests::a_mark_without_a_destination_is_for_every_address_of_the_director";
    sandbox::run(name, || {
        balance_marks(true, 2, "-A PREROUTING -p tcp --dport 80 -j MARK --set-mark 7");
    });
}

#[test]
fn opposites_and_flags_mark_packets_too() {
    sandbox::run("daemon::tests::opposites_and_flags_mark_packets_too", || {
        let rule = "-A PREROUTING ! -i lo ! -s 12.0.0.200 -p tcp -m multiport --dports 80,443 --syn \
                    -m mark --mark 0 -j MARK --or-mark 7";
        balance_marks(true, 2, rule);
    });
}

#[test]
fn a_service_without_servers_is_refused_by_icmp_and_not_by_a_reset() {
    let name = "daemon::tests::a_service_without_servers_is_refused_by_icmp_and_not_by_a_reset";
    sandbox::run(name, || {
        let lab = Lab::new(true);
        let key = ServiceKey::Address { protocol: Protocol::Tcp, addr: addr("12.0.0.1"), port: 80 };
        let daemon = lab.start(1);
        Director::new(&mut daemon.transport()).add_service(&ServiceSpec::new(key)).unwrap();
        let error = lab.ask_tcp(PATIENCE).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        assert_eq!(
            daemon.handler.host().worker_counters()[0].1.verdicts.replied,
            1,
            "port unreachable, from the director"
        );
    });
}

#[test]
fn an_interface_that_vanishes_and_returns_serves_again() {
    sandbox::run("daemon::tests::an_interface_that_vanishes_and_returns_serves_again", || {
        let lab = Lab::new(true);
        let daemon = lab.start(1);
        daemon.balance(Protocol::Tcp, 80);
        assert_eq!(lab.distribution(4), even(4));
        lab.director.remove_link("out").unwrap();
        std::thread::sleep(Duration::from_millis(200));
        connect(&lab.client.end("eth0"), &lab.director.end("out")).unwrap();
        lab.client.add_address("eth0", "12.0.0.12/24".parse().unwrap()).unwrap();
        lab.director.add_address("out", "12.0.0.1/24".parse().unwrap()).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while lab.ask_tcp(Duration::from_secs(1)).is_err() {
            assert!(Instant::now() < deadline, "not served again");
        }
        assert_eq!(lab.distribution(4), even(4));
    });
}

#[test]
fn a_host_is_as_it_was_when_the_daemon_ends() {
    sandbox::run("daemon::tests::a_host_is_as_it_was_when_the_daemon_ends", || {
        let lab = Lab::new(true);
        let daemon = lab.start(1);
        daemon.balance(Protocol::Tcp, 80);
        assert_eq!(lab.distribution(2), even(2));
        drop(daemon);
        let error = lab.ask_tcp(PATIENCE).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "the kernel's own reset");
        drop(lab.servers);
    });
}

#[test]
fn a_program_at_a_services_port_hears_none_of_its_clients() {
    sandbox::run("daemon::tests::a_program_at_a_services_port_hears_none_of_its_clients", || {
        let lab = Lab::new(true);
        let to: SocketAddr = "12.0.0.1:80".parse().unwrap();
        let web = lab.director.run(|| TcpListener::bind(to)).unwrap().unwrap();
        web.set_nonblocking(true).unwrap();
        let daemon = lab.start(1);
        daemon.balance(Protocol::Tcp, 80);
        assert_eq!(lab.distribution(4), even(4));
        let nobody = web.accept().unwrap_err();
        assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
        drop(web);
        // A guard socket has the port from then on.
        let deadline = Instant::now() + PATIENCE;
        while lab.director.run(|| TcpListener::bind(to)).unwrap().is_ok() {
            assert!(Instant::now() < deadline, "the port stays free");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(lab.distribution(4), even(4));
    });
}
