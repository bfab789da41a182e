//! A client, a director and a real server on one link.

use std::fmt;
use std::fs;
use std::net::IpAddr;

use ulvs::lab::Network;
use ulvs::lab::net::{Namespace, Prefix, Route};
use ulvs::lab::topology::{Host, Topology, port, switched};

use crate::bed::Director;

/// How the director lives beside its kernel.
#[derive(Clone, Copy)]
pub struct Means {
    pub driver: Driver,
    pub owned: Owned,
    /// Whether the kernel is a router.
    pub forwards: bool,
    /// Whether the director has CAP_NET_ADMIN.
    pub may_make_rules: bool,
    /// Looks at what the director said.
    pub says: fn(&str),
}

impl Means {
    pub const PLAIN: Self = Self {
        driver: Driver::Packet,
        owned: Owned::All,
        forwards: false,
        may_make_rules: true,
        says: |log| {
            assert!(log.contains("answering") && !log.contains("guard sockets hold"), "{log}")
        },
    };
}

impl Means {
    /// The director's address for servers.
    fn inside(self) -> u8 {
        if self.owned == Owned::Gateway { GATEWAY } else { SERVICE }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    Packet,
    Tun,
}

/// What the director's kernel has of the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owned {
    /// None: they are the director's own.
    Nothing,
    /// The servers' gateway, which is no virtual address.
    Gateway,
    /// The virtual addresses.
    All,
}

/// The server's addresses, by their last part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Real {
    Ordinary = 110,
    Ftp = 111,
    Marked = 112,
    Whole = 113,
    FullNat = 114,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

pub struct World {
    pub means: Means,
    pub family: Family,
    network: Network,
    director: Option<Director>,
}

impl World {
    /// The network; the director has yet to be started.
    pub fn new(means: Means, family: Family) -> Self {
        let at = |last: u8| family.prefix(last);
        let of_director: Vec<String> = match means.owned {
            Owned::Nothing => Vec::new(),
            Owned::Gateway => vec![at(GATEWAY)],
            Owned::All => VIRTUALS.map(at).to_vec(),
        };
        let of_director: Vec<&str> = of_director.iter().map(String::as_str).collect();
        let of_real = REALS.map(|of| at(of as u8));
        let quiet = format!("{}/{}", family.addr(DIRECT), family.bits());
        let mut real = Host::new("real", "server").quiet_address(&quiet);
        // As if the client were far away: all that the server says goes to the director.
        real.routes.push(Route {
            destination: Prefix::new(family.addr(CLIENT), family.bits()).unwrap(),
            via: Some(family.addr(means.inside())),
            interface: Some("eth0".to_owned()),
        });
        // It would believe a redirect.
        let mut client =
            Host::new("client", "client").sysctl("net.ipv4.conf.all.accept_redirects", "1");
        if means.driver == Driver::Tun && means.owned == Owned::Gateway && family == Family::V6 {
            // No neighbour finds them by asking.
            client.routes.extend(VIRTUALS.map(|last| Route {
                destination: Prefix::new(family.addr(last), family.bits()).unwrap(),
                via: Some(family.addr(GATEWAY)),
                interface: Some("eth0".to_owned()),
            }));
        }
        let mut director = Host::new("director", "director")
            .sysctl("net.ipv4.conf.all.send_redirects", "1")
            .sysctl("net.ipv4.conf.default.send_redirects", "1")
            .sysctl("net.ipv4.ip_forward", if means.forwards { "1" } else { "0" });
        // Without it nothing of IPv6 comes through a device.
        if means.forwards || means.driver == Driver::Tun {
            director = director.sysctl("net.ipv6.conf.all.forwarding", "1");
        }
        let topology = Topology {
            name: "one-arm",
            title: "everybody on one link",
            hosts: vec![
                client,
                director,
                Host::switch("switch"),
                real.sysctl("net.ipv4.conf.all.accept_redirects", "1"),
            ],
            links: switched(
                "switch",
                vec![
                    port("client", "eth0", &[&at(CLIENT), &at(NEAR_CLIENT)]),
                    port("director", "eth0", &of_director),
                    port("real", "eth0", &of_real.each_ref().map(String::as_str)),
                ],
            ),
        };
        Self { means, family, network: Network::build(&topology).unwrap(), director: None }
    }

    pub fn start_director(&mut self) {
        let own = format!("{}@eth0", self.family.prefix(SERVICE));
        let mut options = vec!["--interface", "eth0"];
        if self.means.owned == Owned::Nothing {
            options.extend(["--address", &own]);
        }
        if self.means.driver == Driver::Tun {
            options.push("--tun");
        }
        let host = self.network.host("director").unwrap();
        self.director = Some(match self.means.may_make_rules {
            true => Director::start(host, &options),
            false => {
                let granted = "-all,+net_raw,+net_bind_service";
                let mut command = host.command("setpriv");
                command.args(["--bounding-set", granted, "--inh-caps", granted]);
                command.arg(env!("CARGO_BIN_EXE_ulvs"));
                Director::start_by(command, &options)
            }
        });
    }

    pub fn kill_director(&mut self) {
        self.director.as_mut().unwrap().kill();
    }

    pub fn log(&self) -> String {
        self.director.as_ref().unwrap().log()
    }

    pub fn host(&self, name: &str) -> &Namespace {
        self.network.host(name).unwrap()
    }

    /// Runs a command of ulvs as the administrator of the director's host.
    pub fn ulvs(&self, line: &str) {
        self.director.as_ref().unwrap().ulvs(self.host("director"), line);
    }

    /// What is said about one that is refused.
    pub fn refusal(&self, line: &str) -> String {
        let output = self.director.as_ref().unwrap().run(self.host("director"), line);
        assert!(!output.status.success(), "{line}");
        String::from_utf8(output.stderr).unwrap()
    }

    pub fn client(&self) -> IpAddr {
        self.family.addr(CLIENT)
    }

    /// Another address of the client, to which servers go straight.
    pub fn near_client(&self) -> IpAddr {
        self.family.addr(NEAR_CLIENT)
    }

    /// An address of the server. Guard rules for what shares one with it must not hide that a
    /// service lacks its own.
    pub fn real(&self, of: Real) -> IpAddr {
        self.family.addr(of as u8)
    }

    pub fn is_real(&self, addr: IpAddr) -> bool {
        REALS.iter().any(|of| self.real(*of) == addr)
    }

    /// Where most services are.
    pub fn service(&self) -> IpAddr {
        self.family.addr(SERVICE)
    }

    /// Where there is a service of all ports.
    pub fn whole(&self) -> IpAddr {
        self.family.addr(WHOLE)
    }

    /// What real servers have as well.
    pub fn direct(&self) -> IpAddr {
        self.family.addr(DIRECT)
    }

    /// The director's address for full NAT.
    pub fn local(&self) -> IpAddr {
        self.family.addr(self.means.inside())
    }

    pub fn virtuals(&self) -> [IpAddr; 3] {
        VIRTUALS.map(|last| self.family.addr(last))
    }

    /// The ICMP error that says that nobody is at a port.
    pub fn unreachable(&self) -> u8 {
        match self.family {
            Family::V4 => 3,
            Family::V6 => 1,
        }
    }

    /// What the director's kernel counts of refusals, and of packets that it forwards, which are
    /// none but where it is to forward the director's.
    pub fn counters(&self) -> Vec<(String, u64)> {
        let read = |file: &str| fs::read_to_string(format!("/proc/thread-self/net/{file}"));
        let read = || (read("snmp").unwrap(), read("snmp6").unwrap());
        let (v4, v6) = self.host("director").run(read).unwrap();
        let forwards = ["Ip ForwDatagrams", "Ip6OutForwDatagrams"];
        let watched = |name: &str| {
            REFUSALS.contains(&name)
                || self.means.driver == Driver::Packet && forwards.contains(&name)
        };
        let all = counters_v4(&v4).into_iter().chain(counters_v6(&v6));
        all.filter(|(name, _)| watched(name)).collect()
    }
}

/// Lines in pairs, of names and of values.
fn counters_v4(text: &str) -> Vec<(String, u64)> {
    let lines: Vec<_> = text.lines().collect();
    let mut all = Vec::new();
    for pair in lines.chunks_exact(2) {
        let (group, names) = pair[0].split_once(": ").unwrap();
        let values = pair[1].split(' ').skip(1);
        for (name, value) in names.split(' ').zip(values) {
            // One of them can be negative.
            all.push((format!("{group} {name}"), value.parse().unwrap_or_default()));
        }
    }
    all
}

fn counters_v6(text: &str) -> Vec<(String, u64)> {
    let words = text.lines().filter_map(|line| line.split_once(char::is_whitespace));
    words.map(|(name, value)| (name.to_owned(), value.trim().parse().unwrap())).collect()
}

impl Family {
    pub fn addr(self, last: u8) -> IpAddr {
        match self {
            Family::V4 => format!("192.0.2.{last}").parse().unwrap(),
            Family::V6 => format!("2001:db8:5::{last}").parse().unwrap(),
        }
    }

    /// The bits of an address.
    pub fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    fn prefix(self, last: u8) -> String {
        let len = self.bits() / 2 + if self == Family::V4 { 8 } else { 0 };
        format!("{}/{len}", self.addr(last))
    }
}

impl fmt::Debug for Means {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { driver, owned, forwards, may_make_rules, .. } = self;
        write!(f, "{driver:?} owned={owned:?} forwards={forwards} rules={may_make_rules}")
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.means, self.family)
    }
}

const SERVICE: u8 = 1;
const WHOLE: u8 = 2;
const DIRECT: u8 = 3;
const VIRTUALS: [u8; 3] = [SERVICE, WHOLE, DIRECT];
const GATEWAY: u8 = 9;
const CLIENT: u8 = 12;
const NEAR_CLIENT: u8 = 13;
const REALS: [Real; 5] = [Real::Ordinary, Real::Ftp, Real::Marked, Real::Whole, Real::FullNat];
const REFUSALS: [&str; 8] = [
    "Tcp OutRsts",
    "Icmp OutDestUnreachs",
    "Icmp OutTimeExcds",
    "Icmp OutRedirects",
    "Icmp6OutDestUnreachs",
    "Icmp6OutTimeExcds",
    "Icmp6OutParmProblems",
    "Icmp6OutRedirects",
];
