//! Two directors side by side: when the one in charge dies, the other goes on with its connections.

#[allow(dead_code, reason = "the NAT topology's part")]
mod bed;

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use bed::{Director, PATIENCE};
use ulvs::lab::Network;
use ulvs::lab::net::{Namespace, sandbox};
use ulvs::lab::topology::{Host, Topology, port, switched};

const VIRTUAL: Ipv4Addr = Ipv4Addr::new(12, 0, 0, 1);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 200, 1);
const ECHO_PORT: u16 = 7;

/// The survivor asks twice a minute whether the addresses are still the other's, then clients and
/// servers have to send again what was lost meanwhile.
const TAKEOVER: Duration = Duration::from_secs(180);

const RULES: [&str; 3] = [
    "-A -t 12.0.0.1:7 -s rr",
    "-a -t 12.0.0.1:7 -r 192.168.200.110:7 -m",
    "-a -t 12.0.0.1:7 -r 192.168.200.120:7 -m",
];

/// A client, two directors and two real servers. The addresses that clients and servers know the
/// director by are nobody's in particular.
fn topology() -> Topology {
    let director = |name| Host::new(name, "ulvs run").sysctl("net.ipv4.ip_forward", "0");
    let server = |name| Host::new(name, "echo").gateway(GATEWAY);
    let mut links = switched(
        "outside",
        vec![
            port("client", "eth0", &["12.0.0.12/24"]),
            port("first", "out", &["12.0.0.2/24"]),
            port("second", "out", &["12.0.0.3/24"]),
        ],
    );
    links.extend(switched(
        "inside",
        vec![
            port("first", "in", &["192.168.200.2/24"]),
            port("second", "in", &["192.168.200.3/24"]),
            port("real1", "eth0", &["192.168.200.110/24"]),
            port("real2", "eth0", &["192.168.200.120/24"]),
        ],
    ));
    Topology {
        name: "failover",
        title: "two directors",
        hosts: vec![
            Host::new("client", "client"),
            Host::switch("outside"),
            Host::switch("inside"),
            director("first"),
            director("second"),
            server("real1"),
            server("real2"),
        ],
        links,
    }
}

/// Answers every line with its own name and the line.
fn echo(host: &Namespace) {
    let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, ECHO_PORT));
    let listener = host.run(|| TcpListener::bind(listen)).unwrap().unwrap();
    let name = host.name().to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let name = name.clone();
            std::thread::spawn(move || {
                let mut writer = stream.try_clone().unwrap();
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if writer.write_all(format!("{name} {line}\n").as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// A connection of the client.
struct Talk(BufReader<TcpStream>);

impl Talk {
    fn begin(client: &Namespace) -> Self {
        let to = SocketAddr::from((VIRTUAL, ECHO_PORT));
        let stream = client.run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap().unwrap();
        stream.set_read_timeout(Some(TAKEOVER)).unwrap();
        Self(BufReader::new(stream))
    }

    /// Says a line; returns who answers it.
    fn say(&mut self, line: &str) -> String {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        self.0.read_line(&mut answer).unwrap();
        let (server, echoed) = answer.trim_end().split_once(' ').unwrap();
        assert_eq!(echoed, line);
        server.to_owned()
    }
}

/// The connections that a director lists, without their times.
fn connections(director: &Director, host: &Namespace) -> Vec<String> {
    let listing = director.ulvs(host, "ipvsadm -Lnc");
    let rows = listing.lines().filter(|line| line.starts_with("TCP"));
    let mut rows: Vec<String> = rows
        .map(|row| {
            let words: Vec<&str> = row.split_whitespace().collect();
            [&words[..1], &words[2..]].concat().join(" ")
        })
        .collect();
    rows.sort();
    rows
}

/// Waits until a condition holds.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < TAKEOVER, "{what} in vain");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn counter(director: &Director, host: &Namespace, name: &str) -> u64 {
    let stats = director.ulvs(host, "stats --json");
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    let mut counters = stats["counters"].as_array().unwrap().iter();
    let known = counters.find(|each| each["group"] == "sync" && each["name"] == name);
    known.unwrap()["total"].as_u64().unwrap()
}

fn keeps_connections(options: &[&str], settings: &[&str], daemon: &str) {
    let network = Network::build(&topology()).unwrap();
    let host = |name| network.host(name).unwrap();
    ["real1", "real2"].into_iter().for_each(|name| echo(host(name)));
    let gateway = format!("{GATEWAY}/24@in");
    let options = [&["--address", &gateway], options].concat();
    let start = |name: &'static str, role: &str| {
        let director = Director::start(host(name), &options);
        RULES.iter().for_each(|rule| drop(director.ulvs(host(name), &format!("ipvsadm {rule}"))));
        let set = |setting: &&str| drop(director.ulvs(host(name), &format!("sysctl {setting}")));
        settings.iter().for_each(set);
        let daemon = format!("ipvsadm --start-daemon {role} --mcast-interface in {daemon}");
        director.ulvs(host(name), &daemon);
        director
    };
    let mut first = start("first", "master");
    let mut talks: Vec<Talk> = (0..6).map(|_| Talk::begin(host("client"))).collect();
    // Only now, so that it finds the addresses taken.
    let second = start("second", "backup");
    let before: Vec<String> = talks.iter_mut().map(|talk| talk.say("before")).collect();
    assert_eq!(before, ["real2", "real1", "real2", "real1", "real2", "real1"]);
    let known = connections(&first, host("first"));
    assert_eq!(known.len(), 6, "{known:?}");
    wait_until("the backup waits for the connections", || {
        connections(&second, host("second")) == known
    });
    assert_eq!(counter(&first, host("first"), "told"), 6);
    assert_eq!(counter(&second, host("second"), "heard"), 6);
    first.kill();
    let after: Vec<String> = talks.iter_mut().map(|talk| talk.say("after")).collect();
    assert_eq!(before, after);
    assert_eq!(connections(&second, host("second")), known);
    Talk::begin(host("client")).say("anew");
}

#[test]
fn established_connections_survive_their_director() {
    sandbox::run("established_connections_survive_their_director", || {
        keeps_connections(&[], &[], "--syncid 7");
    });
}

#[test]
fn they_do_so_with_workers_ports_and_an_ipv6_group_too() {
    sandbox::run("they_do_so_with_workers_ports_and_an_ipv6_group_too", || {
        let settings = ["net.ipv4.vs.sync_ports=4", "net.ipv4.vs.sync_sock_size=65536"];
        let daemon = "--mcast-group ff02::81 --mcast-port 9000";
        keeps_connections(&["--workers", "2"], &settings, daemon);
    });
}
