//! What a scenario has set up so far, and the steps that it may take next.

use std::ops::RangeInclusive;

use super::dice::Dice;
use super::packets;

/// What the scenarios of a kind are made of.
pub struct Profile {
    /// How many services there are at the start.
    pub services: RangeInclusive<u64>,
    /// Schedulers, some perhaps named more than once.
    pub schedulers: &'static str,
    /// Forwarding methods.
    pub methods: &'static str,
    /// Protocols of services.
    pub protocols: &'static str,
    /// Highest weight of a server.
    pub weight: u64,
    /// Of a hundred scenarios, those over IPv6.
    pub ipv6: u64,
    /// Of a hundred services, those that are persistent.
    pub persistent: u64,
    /// Of a hundred services, those that schedule every packet (`-o`).
    pub one_packet: u64,
    /// Of a hundred services, those of a firewall mark.
    pub marked: u64,
    /// Of a hundred services, those of every port.
    pub port_zero: u64,
    /// Of a hundred servers, those with thresholds.
    pub thresholds: u64,
    /// Of a hundred scenarios, those whose connections time out soon.
    pub short_timeouts: u64,
    /// Settings, and the values that they are given.
    pub settings: &'static [(&'static str, &'static str)],
    /// How many steps there are after the start.
    pub steps: RangeInclusive<u64>,
    /// The steps, with how often each is taken.
    pub choices: &'static [(u32, Step)],
}

/// Something that a scenario does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// First packets, or handshakes, of new flows.
    NewFlows,
    /// New packets, handshakes, ends of flows that were begun.
    OldFlows,
    /// A packet with random flags and fields from a client.
    ClientPacket,
    /// A packet with random flags and fields from a server.
    ServerPacket,
    /// A server answers what it got last, in its own way.
    ServerReply,
    /// A client answers what it got last, in its own way.
    ClientReply,
    /// An ICMP error from a server about what it got last.
    ServerError,
    /// An ICMP error from a client about what it got last.
    ClientError,
    /// A packet in fragments, from a client or a server.
    Fragments,
    /// A packet that is not for a service.
    Stray,
    /// A new server.
    AddServer,
    /// A server's weight, method or thresholds change.
    EditServer,
    /// A server is removed.
    RemoveServer,
    /// A server that was removed returns.
    ReviveServer,
    /// A new service.
    AddService,
    /// A service's scheduler or persistence changes.
    EditService,
    /// A service is removed, and perhaps set up again.
    RemoveService,
    /// A setting of the kernel.
    Setting,
    /// Timeouts.
    Timeouts,
    /// Time passes.
    Sleep,
    /// A listing.
    List,
    /// A listing of the connections.
    Connections,
    /// Counters, which are summed up every two seconds only.
    Counters,
    /// Counters back to zero.
    Zero,
}

/// A virtual service of the scenario.
#[derive(Clone, Debug)]
pub struct Service {
    /// How ipvsadm names it: `-t 12.0.0.1:80`.
    pub name: String,
    /// `tcp` or `udp`.
    pub proto: String,
    /// Addresses and ports that belong to it.
    pub ends: Vec<(String, u16)>,
    /// Its servers.
    pub servers: Vec<Server>,
    /// Servers that were removed.
    removed: Vec<Server>,
    keeps_ports: bool,
}

/// A real server of a service.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its number in the network: `rs110`.
    pub number: u64,
    /// Its port, if it has one of its own.
    pub port: Option<u16>,
    method: String,
}

/// Flows that were begun.
#[derive(Clone, Debug)]
pub struct Flows {
    /// Where they go.
    pub service: usize,
    /// The protocol.
    pub proto: String,
    /// The client's address.
    pub client: String,
    /// First and last port of the client.
    pub ports: (u16, u16),
    /// The virtual address and port.
    pub target: (String, u16),
}

/// A scenario in the making.
pub struct World<'a> {
    /// Chance.
    pub dice: &'a mut Dice,
    /// What it is made of.
    pub profile: &'a Profile,
    /// Whether it is played over IPv6.
    pub ipv6: bool,
    /// Its services.
    pub services: Vec<Service>,
    /// Flows that were begun.
    pub flows: Vec<Flows>,
    lines: Vec<String>,
    next_port: u16,
    next_id: u16,
    sleeps: u32,
}

/// Sums of more sleeps than these come close to whole seconds.
const MOST_SLEEPS: u32 = 3;
/// Encapsulations of a server reached by a tunnel.
const TUNNELS: [&str; 8] = [
    "",
    "",
    " --tun-type gre",
    " --tun-type gre --tun-csum",
    " --tun-type gue --tun-port 6080",
    " --tun-type gue --tun-port 6080 --tun-nocsum",
    " --tun-type gue --tun-port 6080 --tun-csum",
    " --tun-type gue --tun-port 6080 --tun-remcsum",
];
const MARKED_PORTS: [u16; 3] = [80, 443, 8000];

impl<'a> World<'a> {
    /// A world with services and servers.
    pub fn new(dice: &'a mut Dice, profile: &'a Profile) -> Self {
        let ipv6 = dice.chance(profile.ipv6);
        let (services, flows, lines) = (Vec::new(), Vec::new(), Vec::new());
        let mut world = Self {
            dice,
            profile,
            ipv6,
            services,
            flows,
            lines,
            next_port: 1000,
            next_id: 100,
            sleeps: 0,
        };
        let vips = [world.virtual_address(1), world.virtual_address(6)];
        world.line(format!("vip {}-{}", vips[0], vips[1]));
        if world.dice.chance(profile.short_timeouts) {
            world.set_timeouts();
        }
        for _ in 0..world.dice.number(*profile.services.start(), *profile.services.end()) {
            world.add_service();
        }
        world
    }

    /// Plays on, and returns the lines of the whole scenario.
    pub fn play(mut self) -> Vec<String> {
        let steps = &self.profile.steps;
        for _ in 0..self.dice.number(*steps.start(), *steps.end()) {
            let step = self.dice.weighted(self.profile.choices);
            self.take(step);
        }
        self.line("conns");
        self.line("table");
        self.lines
    }

    /// Adds a line.
    pub fn line(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::NewFlows => self.new_flows(),
            Step::OldFlows => self.old_flows(),
            Step::ClientPacket => packets::from_client(self),
            Step::ServerPacket => packets::from_server(self),
            Step::ServerReply => packets::server_reply(self),
            Step::ClientReply => packets::client_reply(self),
            Step::ServerError => packets::server_error(self),
            Step::ClientError => packets::client_error(self),
            Step::Fragments => packets::in_fragments(self),
            Step::Stray => packets::stray(self),
            Step::AddServer => self.on_service(Self::add_server),
            Step::EditServer => self.on_service(Self::edit_server),
            Step::RemoveServer => self.on_service(Self::remove_server),
            Step::ReviveServer => self.on_service(Self::revive_server),
            Step::AddService => self.add_service(),
            Step::EditService => self.on_service(Self::edit_service),
            Step::RemoveService => self.on_service(Self::remove_service),
            Step::Setting => self.set(),
            Step::Timeouts => self.set_timeouts(),
            Step::Sleep => {
                let time = self.dice.word("1.1 1.1 2.1 2.1 3.1");
                self.sleep(&time);
            }
            Step::List => self.list(),
            Step::Connections => self.line("conns"),
            Step::Counters => {
                if self.sleep("2.1") {
                    self.line("stats");
                }
            }
            Step::Zero => self.zero(),
        }
    }

    fn on_service(&mut self, change: fn(&mut Self, usize)) {
        if !self.services.is_empty() {
            let index = self.dice.index(self.services.len());
            change(self, index);
        }
    }

    // --- time and settings ---

    fn sleep(&mut self, time: &str) -> bool {
        let allowed = self.sleeps < MOST_SLEEPS;
        if allowed {
            self.sleeps += 1;
            self.line(format!("sleep {time}"));
        }
        allowed
    }

    fn set(&mut self) {
        if !self.profile.settings.is_empty() {
            let (name, values) = *self.dice.one(self.profile.settings);
            let value = self.dice.word(values);
            self.line(format!("sysctl net.ipv4.vs.{name}={value}"));
        }
    }

    fn set_timeouts(&mut self) {
        let times: Vec<String> = (0..3).map(|_| self.dice.word("0 2 4 2 4 60")).collect();
        self.line(format!("ipvsadm --set {}", times.join(" ")));
    }

    fn list(&mut self) {
        let what = "-Ln|-Ln --thresholds|-Ln --persistent-conn|-Sn|-Ln --nosort|-Lnc --persistent-conn|-Ln --tun-info";
        let listings: Vec<&str> = what.split('|').collect();
        let mut listing = *self.dice.one(&listings);
        // The kernel's order of services follows a hash that differs from boot to boot.
        if listing.ends_with("--nosort") && self.services.len() > 1 {
            listing = "-Ln";
        }
        self.line(format!("ipvsadm {listing}"));
    }

    fn zero(&mut self) {
        let one = self.dice.chance(50).then(|| self.services.first().map(|each| each.name.clone()));
        match one.flatten() {
            Some(name) => self.line(format!("ipvsadm -Z {name}")),
            None => self.line("ipvsadm -Z"),
        }
    }

    // --- addresses ---

    /// The director's own virtual addresses on `out`, from 1 on.
    pub fn virtual_address(&self, number: u64) -> String {
        if self.ipv6 {
            format!("2001:db8:12::10{number}")
        } else {
            format!("12.0.0.{}", 100 + number)
        }
    }

    /// The address of a host on `in`.
    pub fn server_address(&self, number: u64) -> String {
        let prefix = if self.ipv6 { "2001:db8:200::" } else { "192.168.200." };
        format!("{prefix}{number}")
    }

    /// A client, near or far.
    pub fn client(&mut self) -> String {
        let number = self.dice.number(2, 40);
        match (self.ipv6, self.dice.chance(70)) {
            (false, true) => format!("12.0.0.{number}"),
            (true, true) => format!("2001:db8:12::{number}"),
            (false, false) => format!("10.{}.{}.{number}", self.dice.number(0, 3), number % 3),
            (true, false) => format!("2001:db8:a{}::{number}", self.dice.number(0, 3)),
        }
    }

    /// An endpoint as it is written.
    pub fn endpoint(&self, address: &str, port: u16) -> String {
        if self.ipv6 { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
    }

    /// An IP identification that no packet had so far.
    pub fn next_identification(&mut self) -> u16 {
        self.next_id += 1;
        self.next_id
    }

    // --- services ---

    fn add_service(&mut self) {
        let proto = self.dice.word(self.profile.protocols);
        let service = if self.dice.chance(self.profile.marked) {
            self.marked_service(proto)
        } else {
            self.service_at_address(proto)
        };
        if self.services.iter().any(|each| each.name == service.name) {
            return;
        }
        let options = self.service_options(&service);
        self.line(format!("ipvsadm -A {}{options}", service.name));
        self.services.push(service);
        let index = self.services.len() - 1;
        (0..self.dice.number(1, 4)).for_each(|_| self.add_server(index));
    }

    fn marked_service(&mut self, proto: String) -> Service {
        let number = self.dice.number(1, 2);
        let address = self.virtual_address(number);
        let ports: Vec<u16> = MARKED_PORTS[..self.dice.number(1, 3) as usize].to_vec();
        for port in &ports {
            self.line(format!("mark {proto} {} {number}", self.endpoint(&address, *port)));
        }
        let ends = ports.into_iter().map(|port| (address.clone(), port)).collect();
        let name = format!("-f {number}{}", if self.ipv6 { " -6" } else { "" });
        Service { name, proto, ends, servers: vec![], removed: vec![], keeps_ports: true }
    }

    fn service_at_address(&mut self, proto: String) -> Service {
        let number = self.dice.number(1, 3);
        let address = self.virtual_address(number);
        let keeps_ports = self.dice.chance(self.profile.port_zero);
        let port = if keeps_ports { 0 } else { *self.dice.one(&[80, 80, 443, 53]) };
        let ports = if keeps_ports { vec![80, 443, 7000] } else { vec![port] };
        let ends = ports.into_iter().map(|port| (address.clone(), port)).collect();
        let option = match proto.as_str() {
            "udp" => "-u",
            "sctp" => "--sctp-service",
            _ => "-t",
        };
        let name = format!("{option} {}", self.endpoint(&address, port));
        Service { name, proto, ends, servers: vec![], removed: vec![], keeps_ports }
    }

    fn service_options(&mut self, service: &Service) -> String {
        let scheduler = self.dice.word(self.profile.schedulers);
        let mut options = format!(" -s {scheduler}");
        if scheduler == "sh" || scheduler == "mh" {
            let flags = ["", " -b #-port", " -b #-fallback", " -b #-port,#-fallback"];
            options += &self.dice.one(&flags).replace('#', &scheduler);
        }
        let must_persist = service.keeps_ports && service.name.ends_with(":0");
        if self.dice.chance(self.profile.persistent) || must_persist && self.dice.chance(90) {
            options += &self.persistence();
        }
        if service.proto == "udp" && self.dice.chance(self.profile.one_packet) {
            options += " -o";
        }
        options
    }

    fn persistence(&mut self) -> String {
        let timeout = self.dice.word("1 3 3 60 300");
        let mask = match (self.dice.chance(40), self.ipv6) {
            (false, _) => String::new(),
            (true, true) => format!(" -M {}", self.dice.word("64 112 124 48")),
            (true, false) => {
                let masks = "255.255.255.0 255.255.0.0 255.255.255.240 255.0.0.0";
                format!(" -M {}", self.dice.word(masks))
            }
        };
        format!(" -p {timeout}{mask}")
    }

    fn edit_service(&mut self, index: usize) {
        let service = self.services[index].clone();
        let options = self.service_options(&service);
        self.line(format!("ipvsadm -E {}{options}", service.name));
    }

    fn remove_service(&mut self, index: usize) {
        let service = self.services.remove(index);
        self.line(format!("ipvsadm -D {}", service.name));
        self.flows.retain(|flows| flows.service != index);
        self.flows.iter_mut().filter(|flows| flows.service > index).for_each(|f| f.service -= 1);
        if self.dice.chance(60) {
            let options = self.service_options(&service);
            self.line(format!("ipvsadm -A {}{options}", service.name));
            let servers = service.servers.clone();
            self.services.push(Service { servers: Vec::new(), ..service });
            let index = self.services.len() - 1;
            servers.into_iter().for_each(|server| self.put_server(index, server));
        }
    }

    // --- servers ---

    fn add_server(&mut self, index: usize) {
        let ports = [None, None, Some(8080), Some(8081)];
        let port = if self.services[index].keeps_ports { None } else { *self.dice.one(&ports) };
        let method = self.dice.word(self.profile.methods);
        let server = Server { number: self.dice.number(101, 140), port, method };
        self.put_server(index, server);
    }

    fn put_server(&mut self, index: usize, server: Server) {
        let taken = &mut self.services[index].servers.iter();
        if taken.any(|each| each.number == server.number && each.port == server.port) {
            return;
        }
        let options = self.server_options(&server);
        let service = self.services[index].name.clone();
        self.line(format!("ipvsadm -a {service} -r {}{options}", self.server_name(&server)));
        self.services[index].servers.push(server);
    }

    fn server_name(&self, server: &Server) -> String {
        let address = self.server_address(server.number);
        match server.port {
            Some(port) => self.endpoint(&address, port),
            None => address,
        }
    }

    fn server_options(&mut self, server: &Server) -> String {
        let weight =
            if self.dice.chance(12) { 0 } else { self.dice.number(1, self.profile.weight) };
        let mut options = format!(" {} -w {weight}", server.method);
        if server.method == "-i" {
            options += *self.dice.one(&TUNNELS);
        }
        if self.dice.chance(self.profile.thresholds) {
            let upper = self.dice.number(1, 7);
            options += &format!(" -x {upper}");
            if self.dice.chance(50) {
                options += &format!(" -y {}", self.dice.number(1, upper));
            }
        }
        options
    }

    fn edit_server(&mut self, index: usize) {
        if self.services[index].servers.is_empty() {
            return;
        }
        let count = self.services[index].servers.len();
        let mut server = self.services[index].servers[self.dice.index(count)].clone();
        if self.dice.chance(20) {
            server.method = self.dice.word(self.profile.methods);
        }
        let options = self.server_options(&server);
        let service = self.services[index].name.clone();
        self.line(format!("ipvsadm -e {service} -r {}{options}", self.server_name(&server)));
    }

    fn remove_server(&mut self, index: usize) {
        if self.services[index].servers.is_empty() {
            return;
        }
        let which = self.dice.index(self.services[index].servers.len());
        let server = self.services[index].servers.remove(which);
        let service = self.services[index].name.clone();
        self.line(format!("ipvsadm -d {service} -r {}", self.server_name(&server)));
        self.services[index].removed.push(server);
    }

    fn revive_server(&mut self, index: usize) {
        if let Some(server) = self.services[index].removed.pop() {
            self.put_server(index, server);
        }
    }

    // --- flows ---

    fn new_flows(&mut self) {
        if self.services.is_empty() {
            return;
        }
        let service = self.dice.index(self.services.len());
        let target = self.dice.one(&self.services[service].ends).clone();
        let proto = self.services[service].proto.clone();
        let count = self.dice.number(1, 6) as u16;
        let ports = (self.next_port, self.next_port + count - 1);
        self.next_port += 20;
        let flows = Flows { service, proto, client: self.client(), ports, target };
        let act = self.dice.word("open handshake handshake");
        self.line(format!("{act} {}", self.describe(&flows)));
        self.flows.push(flows);
    }

    fn old_flows(&mut self) {
        let Some(flows) = self.some_flows() else { return };
        let acts =
            ["open", "handshake", "close client", "close server", "reset client", "reset server"];
        let acts = if flows.proto == "udp" { &acts[..2] } else { &acts[..] };
        let act = *self.dice.one(acts);
        self.line(format!("{act} {}", self.describe(&flows)));
    }

    /// Flows that were begun.
    pub fn some_flows(&mut self) -> Option<Flows> {
        let count = self.flows.len();
        (count > 0).then(|| self.flows[self.dice.index(count)].clone())
    }

    fn describe(&self, flows: &Flows) -> String {
        let ports = match flows.ports {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        let client = if self.ipv6 { format!("[{}]", flows.client) } else { flows.client.clone() };
        let target = self.endpoint(&flows.target.0, flows.target.1);
        format!("{} {client}:{ports} {target}", flows.proto)
    }
}
