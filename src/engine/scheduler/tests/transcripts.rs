//! Transcripts of the kernel's own IPVS, as far as they tell which server a scheduler picks.
//!
//! Plays the commands and flows on a service table, with connections reduced to what schedulers
//! see of them: a server, and whether they are active. Nothing expires, so transcripts in which
//! connections do are left to the simulator.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Dice;
use crate::engine::scheduler::Flow;
use crate::engine::service::{
    Activity, ForwardingMethod, Protocol, RealServer, RealSpec, SchedulerFlags, ServiceKey,
    ServiceSpec, ServiceTable,
};
use crate::engine::time::Moment;
use crate::packet::{Addr, Endpoint, Family};

#[test]
fn picks_are_those_of_the_kernel() {
    let mut played = 0;
    for path in transcripts(&["sched", "sched_random", "threshold"]) {
        let name = path.file_name().unwrap().to_string_lossy();
        if !LEFT_TO_THE_SIMULATOR.contains(&&*name) {
            Player::default().play(&path);
            played += 1;
        }
    }
    assert!(played >= 170, "only {played} transcripts were found");
}

/// Transcripts in which commands are wrong, or connections expire.
const LEFT_TO_THE_SIMULATOR: [&str; 5] = [
    "bad_arguments.ipvs",
    "lower_releases.ipvs",
    "overload_by_edit.ipvs",
    "release_with_lower.ipvs",
    "release_without_lower.ipvs",
];

fn transcripts(groups: &[&str]) -> Vec<PathBuf> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ipvs");
    let folders = groups.iter().map(|group| std::fs::read_dir(golden.join(group)).unwrap());
    let files = folders.flatten().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = files.filter(|path| path.extension().unwrap() == "ipvs").collect();
    found.sort();
    found
}

struct Player {
    table: ServiceTable,
    now: Moment,
    random: Dice,
    connections: HashMap<Tuple, Connection>,
    /// Destinations that get a mark: network, its mask, the mark.
    marks: Vec<(u32, u32, u32)>,
    place: String,
}

type Tuple = (Protocol, Endpoint, Endpoint);

struct Connection {
    real: Arc<RealServer>,
    is_established: bool,
    activity: Activity,
}

impl Default for Player {
    fn default() -> Self {
        Self {
            table: ServiceTable::new(1),
            now: Moment::default(),
            random: Dice::default(),
            connections: HashMap::new(),
            marks: Vec::new(),
            place: String::new(),
        }
    }
}

impl Player {
    fn play(&mut self, path: &Path) {
        let text = std::fs::read_to_string(path).unwrap();
        let mut lines = text.lines().enumerate().peekable();
        while let Some((number, line)) = lines.next() {
            let Some(step) = line.strip_prefix("$ ") else { continue };
            let mut results = Vec::new();
            while let Some((_, line)) = lines.next_if(|(_, line)| !line.starts_with(['$', '#'])) {
                results.push(line.trim());
            }
            self.place = format!("{}:{}: {step}", path.display(), number + 1);
            self.step(step, &results);
        }
    }

    fn step(&mut self, step: &str, results: &[&str]) {
        let words: Vec<_> = step.split(' ').collect();
        match words[0] {
            "ipvsadm" => self.ipvsadm(&words[1..]),
            "mark" => self.mark(words[2], words[3]),
            "sysctl" => self.sysctl(words[1]),
            "sleep" => self.sleep(words[1]),
            "open" => self.flows(&["open", words[1], words[2], words[3]], results),
            "handshake" => self.flows(&words, results),
            "close" | "reset" => self.flows(&[words[0], words[2], words[3], words[4]], &[]),
            "table" => self.compare_table(results),
            "vip" | "conns" | "send" => {}
            _ => panic!("{}: not a step that this test knows", self.place),
        }
    }

    fn ipvsadm(&mut self, words: &[&str]) {
        let options = Options::parse(words);
        let outcome = match words[0] {
            "-A" => self.table.add_service(options.service(), self.now),
            "-E" => self.table.edit_service(options.service(), self.now),
            "-a" => self.table.add_real(&options.key, &options.real()),
            "-e" => self.table.edit_real(&options.key, &options.real()),
            "-d" => {
                let real = options.real();
                self.table.delete_real(&options.key, real.addr, real.port)
            }
            "-C" => {
                self.table.flush();
                Ok(())
            }
            _ => Ok(()),
        };
        assert_eq!(outcome, Ok(()), "{}", self.place);
    }

    fn mark(&mut self, prefix: &str, mark: &str) {
        let (network, length) = prefix.split_once('/').unwrap();
        let mask = u32::MAX << (32 - length.parse::<u32>().unwrap());
        self.marks.push((addr(network).v4_bits(), mask, mark.parse().unwrap()));
    }

    fn sysctl(&mut self, setting: &str) {
        let Some((name, value)) = setting.split_once('=') else { return };
        let name = name.strip_prefix("net.ipv4.vs.").unwrap();
        self.table.set_setting(name, value).unwrap();
    }

    fn sleep(&mut self, seconds: &str) {
        self.now = self.now + Duration::from_secs_f64(seconds.parse().unwrap());
        self.table.handle_timeout(self.now);
    }

    /// Plays flows; without `results` the words are not compared.
    fn flows(&mut self, words: &[&str], results: &[&str]) {
        let protocol = if words[1] == "udp" { Protocol::Udp } else { Protocol::Tcp };
        let mut expected = results.iter().flat_map(|line| line.split(' '));
        for client in endpoints(words[2]) {
            for destination in endpoints(words[3]) {
                let word = self.flow(words[0], protocol, Flow { client, destination });
                if let Some(expected) = expected.next() {
                    self.compare(&word, expected, client, destination);
                }
            }
        }
        assert_eq!(expected.next(), None, "{}: a flow too few", self.place);
    }

    fn flow(&mut self, verb: &str, protocol: Protocol, flow: Flow) -> Option<Arc<RealServer>> {
        let tuple = (protocol, flow.client, flow.destination);
        let opens = ["open", "handshake"].contains(&verb);
        if opens && !self.connections.contains_key(&tuple) {
            let real = self.schedule(protocol, &flow)?;
            let activity = match protocol {
                Protocol::Tcp => Activity::Active,
                Protocol::Udp | Protocol::Sctp => Activity::Inactive,
            };
            real.bind_connection(activity);
            let connection = Connection { real, is_established: false, activity };
            self.connections.insert(tuple, connection);
        }
        let connection = self.connections.get_mut(&tuple)?;
        if connection.real.is_available() {
            connection.advance(verb);
        }
        Some(Arc::clone(&connection.real))
    }

    fn schedule(&mut self, protocol: Protocol, flow: &Flow) -> Option<Arc<RealServer>> {
        let Endpoint { addr, port } = flow.destination;
        let snapshot = self.table.snapshot();
        let marked = |(network, mask, _): &&(_, u32, _)| addr.v4_bits() & mask == *network;
        let mark = self.marks.iter().find(marked).map(|(_, _, mark)| *mark);
        let by_mark =
            mark.and_then(|mark| snapshot.service(&ServiceKey::Mark { mark, family: Family::V4 }));
        let service = by_mark.or_else(|| snapshot.lookup(protocol, addr, port));
        let service = service.unwrap_or_else(|| panic!("{}: no service", self.place));
        service.pool().schedule(flow, self.now, &mut self.random)
    }

    fn compare(
        &self,
        real: &Option<Arc<RealServer>>,
        expected: &str,
        client: Endpoint,
        destination: Endpoint,
    ) {
        let said = match real {
            None => "!3/3".into(),
            Some(real) if !real.is_available() => "-".into(),
            Some(real) => {
                let host = real.addr().v4_bits() & 0xff;
                let same_port = real.port() == destination.port
                    || real.method() != ForwardingMethod::Masquerade;
                if same_port { format!("rs{host}") } else { format!("rs{host}:{}", real.port()) }
            }
        };
        let is_equal = if real.is_none() { expected.contains("!3/3") } else { said == expected };
        assert!(is_equal, "{}: {client} -> {destination}: {said}, not {expected}", self.place);
    }

    fn compare_table(&self, results: &[&str]) {
        let views = self.table.views();
        let reals = views.iter().flat_map(|view| &view.reals);
        let mut ours: Vec<_> = reals
            .map(|real| {
                let at = Endpoint::new(real.spec.addr, real.spec.port);
                format!("{at} {} {} {}", real.spec.weight, real.active, real.inactive)
            })
            .collect();
        let rows = results.iter().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let rows = rows.filter(|words| words[0] == "->" && words[1] != "RemoteAddress:Port");
        let mut theirs: Vec<_> = rows
            .map(|words| format!("{} {} {} {}", words[1], words[3], words[4], words[5]))
            .collect();
        ours.sort();
        theirs.sort();
        assert_eq!(ours, theirs, "{}", self.place);
    }
}

impl Connection {
    fn advance(&mut self, verb: &str) {
        match verb {
            "handshake" => self.is_established = true,
            // A reset does not end a connection in SYN_RECV.
            "close" | "reset" if self.is_established && self.activity == Activity::Active => {
                self.activity = Activity::Inactive;
                self.real.move_connection(Activity::Inactive);
            }
            _ => {}
        }
    }
}

/// The options of an ipvsadm line.
struct Options<'a> {
    key: ServiceKey,
    port: u16,
    values: HashMap<&'a str, &'a str>,
    method: ForwardingMethod,
}

impl<'a> Options<'a> {
    fn parse(words: &[&'a str]) -> Self {
        let values: HashMap<_, _> = words.windows(2).map(|pair| (pair[0], pair[1])).collect();
        let (key, port) = match (values.get("-t"), values.get("-u"), values.get("-f")) {
            (Some(at), _, _) => by_address(Protocol::Tcp, at),
            (_, Some(at), _) => by_address(Protocol::Udp, at),
            (_, _, Some(mark)) => {
                (ServiceKey::Mark { mark: mark.parse().unwrap(), family: Family::V4 }, 0)
            }
            _ => (ServiceKey::Mark { mark: u32::MAX, family: Family::V4 }, 0),
        };
        let is_nat = words.contains(&"-m");
        let method = if is_nat { ForwardingMethod::Masquerade } else { ForwardingMethod::Direct };
        Self { key, port, values, method }
    }

    fn service(&self) -> ServiceSpec {
        let mut spec = ServiceSpec::new(self.key);
        if let Some(name) = self.values.get("-s") {
            spec.scheduler = (*name).into();
        }
        let flags = self.values.get("-b").unwrap_or(&"");
        spec.scheduler_flags = SchedulerFlags {
            fallback: flags.contains("fallback") || flags.contains("flag-1"),
            port: flags.contains("port") || flags.contains("flag-2"),
            third: false,
        };
        spec
    }

    fn real(&self) -> RealSpec {
        let (host, port) = match self.values["-r"].split_once(':') {
            Some((host, port)) => (host, port.parse().unwrap()),
            None => (self.values["-r"], self.port),
        };
        let number = |option| self.values.get(option).map(|value| value.parse().unwrap());
        RealSpec {
            method: self.method,
            weight: number("-w").map_or(1, |weight: u32| weight as i32),
            upper_threshold: number("-x").unwrap_or(0),
            lower_threshold: number("-y").unwrap_or(0),
            ..RealSpec::new(addr(host), port)
        }
    }
}

fn by_address(protocol: Protocol, at: &str) -> (ServiceKey, u16) {
    let (host, port) = at.split_once(':').unwrap();
    let port = port.parse().unwrap();
    (ServiceKey::Address { protocol, addr: addr(host), port }, port)
}

/// `ADDRESS:PORT` with ranges and lists in both parts, ports turning fastest.
fn endpoints(text: &str) -> Vec<Endpoint> {
    let (hosts, ports) = text.split_once(':').unwrap();
    let hosts = ranges(hosts, |host| addr(host).v4_bits());
    let ports = ranges(ports, |port| port.parse().unwrap());
    let pairs = hosts.iter().flat_map(|host| ports.iter().map(move |port| (host, port)));
    pairs.map(|(host, port)| Endpoint::new(Addr::v4(*host), *port as u16)).collect()
}

fn ranges(text: &str, parse: impl Fn(&str) -> u32) -> Vec<u32> {
    let parts = text.split(',').map(|part| part.split_once('-').unwrap_or((part, part)));
    parts.flat_map(|(first, last)| parse(first)..=parse(last)).collect()
}

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}
