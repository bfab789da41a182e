//! In containers of a real engine, with the privileges that it gives by default: README's commands,
//! the life of a container, less than the default privileges, and other forwarding methods.

mod container {
    pub mod engine;
    pub mod image;
}

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;

use container::engine::{Engine, Process, succeeded, wait};
use container::image;
use ulvs::lab::net::{self, Namespace};
use ulvs::lab::web;

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
const MIB: u64 = 1 << 20;

/// Two web servers and a director with README's rules, on a network of the engine's.
struct Lab {
    engine: Engine,
    rules: String,
}

const WEB: &str = "--network lvs --no-healthcheck ulvs lab web";
const FETCH: &str = "run --rm --network lvs --no-healthcheck ulvs lab fetch";

impl Lab {
    /// The servers, and what a director needs.
    fn new() -> Option<Self> {
        let engine = Engine::start()?;
        let project = image::build(&engine);
        engine.docker("network create --subnet 172.30.0.0/24 lvs");
        for web in ["web1", "web2"] {
            engine.docker(&format!("run -d --name {web} --hostname {web} {WEB}"));
            engine.wait_for(web, "serves");
        }
        let rules = project.join("examples/container/rules");
        let rules = format!("{}:/etc/ulvs/rules:ro", rules.display());
        Some(Self { engine, rules })
    }

    /// Starts the director and waits until it is ready.
    fn director(&self, options: &str, image: &str) {
        let (engine, rules) = (&self.engine, &self.rules);
        let lb = "run -d --name lb --hostname lb --network lvs";
        engine.docker(&format!("{lb} {options} -v {rules} {image} run --rules /etc/ulvs/rules"));
        engine.wait_for("lb", "ulvs: ready");
    }

    /// Who answers a client in a container, one after the other.
    fn assert_balanced(&self) {
        assert_eq!(self.engine.docker(&format!("{FETCH} -n 4 http://lb/")), IN_TURN);
    }
}

const IN_TURN: &str = "this is web2\nthis is web1\nthis is web2\nthis is web1\n";

/// The first shell block below a heading of README.
fn commands(heading: &str) -> String {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let (_, section) = readme.split_once(&format!("\n{heading}\n")).expect(heading);
    let (_, block) = section.split_once("\n```sh\n").expect("a block of commands");
    block.split_once("\n```").expect("the end of the block").0.to_owned()
}

/// The address of a container on its only network.
fn address(engine: &Engine, container: &str) -> IpAddr {
    let template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    engine.inspect(container, template).parse().unwrap()
}

/// Who answers a host, one after the other.
fn servers(host: &Namespace, service: SocketAddr, count: usize) -> Vec<String> {
    let fetch = || (0..count).map(|_| web::get(service, "/", PATIENCE).unwrap().server).collect();
    host.run(fetch).unwrap()
}

/// Has bytes go both ways.
fn transfer(host: &Namespace, service: SocketAddr, length: u64) {
    let transfer = || {
        web::download(service, length, PATIENCE).unwrap();
        web::upload(service, length, PATIENCE).unwrap();
    };
    host.run(transfer).unwrap();
}

/// The kernel of a director's container has refused nothing.
fn assert_kernel_is_silent(director: &Process) {
    let read = || fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let text = director.network.run(read).unwrap();
    let mut lines = text.lines();
    let mut counters = BTreeMap::new();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let group = names.split(' ').next().unwrap();
        let each = names.split(' ').zip(values.split(' ')).skip(1);
        counters.extend(each.map(|(name, value)| (format!("{group}{name}"), value)));
    }
    for silent in ["Tcp:OutRsts", "Icmp:OutDestUnreachs"] {
        assert_eq!(counters[silent], "0", "{silent}");
    }
}

#[test]
fn the_commands_of_readme_work_as_they_are_typed() {
    let Some(engine) = Engine::start() else {
        return;
    };
    let project = image::prepare(&engine);
    let lines = commands("### As an image");
    let (build, lines) = lines.split_once("docker build").expect("the image is built");
    assert!(build.contains("cargo rustc") && build.contains("crt-static"), "{build}");
    let mut shell = engine.command("sh");
    shell.args(["-ec", &format!("docker build{lines}")]).current_dir(project);
    let said = succeeded(lines, shell.output().unwrap());
    assert!(said.contains(IN_TURN), "{said}");
    let listing = engine.docker("exec lb ipvsadm -Ln");
    let [lb, web1, web2] = ["lb", "web1", "web2"].map(|name| address(&engine, name));
    assert!(listing.contains(&format!("TCP  {lb}:80 rr\n")), "{listing}");
    for web in [web1, web2] {
        let line = format!("  -> {web}:80 ");
        let line = listing.lines().find(|found| found.starts_with(&line)).expect(&listing);
        assert!(line.contains("FullNat"), "{listing}");
    }
    // The servers see the director, and the host is a client like others.
    let seen = engine.docker(&format!("{FETCH} http://lb/whoami"));
    assert!(seen.starts_with(&format!("you are {lb}:")), "{seen}");
    let service = SocketAddr::new(lb, 80);
    assert_eq!(servers(&engine.host, service, 4), ["web1", "web2", "web1", "web2"]);
    // Each server once in each direction.
    let moved = engine.docker(&format!("{FETCH} --bytes {} http://lb/", 100 * MIB));
    assert_eq!(moved.matches("104857600 bytes").count(), 2, "{moved}");
    transfer(&engine.host, service, 100 * MIB);
    let log = engine.log("lb");
    assert!(log.contains("guard sockets hold the ports of 1 service"), "{log}");
    assert!(log.contains("no guard rules (they need CAP_NET_ADMIN)"), "{log}");
    assert_kernel_is_silent(&engine.process("lb"));
    wait(|| match engine.inspect("lb", "{{.State.Health.Status}}") {
        health if health == "healthy" => Ok(()),
        health => Err(format!("the director is {health}")),
    });
}

#[test]
fn a_container_ends_at_once_and_starts_again() {
    let Some(lab) = Lab::new() else { return };
    let engine = &lab.engine;
    lab.director("-p 8080:80", "ulvs");
    lab.assert_balanced();
    // A published port, from the host itself and from beyond it.
    assert_eq!(servers(&engine.host, ([127, 0, 0, 1], 8080).into(), 2), ["web2", "web1"]);
    let outside = Namespace::new("outside").unwrap();
    net::connect(&engine.host.end("outside"), &outside.end("eth0")).unwrap();
    for (host, interface, address) in
        [(&engine.host, "outside", "192.0.2.1/24"), (&outside, "eth0", "192.0.2.2/24")]
    {
        host.add_address(interface, address.parse().unwrap()).unwrap();
        host.set_up(interface).unwrap();
    }
    let published = ([192, 0, 2, 1], 8080).into();
    assert_eq!(servers(&outside, published, 2), ["web2", "web1"]);
    transfer(&outside, published, 20 * MIB);
    // Had it not followed the signal, it would be killed in the end: status 137.
    engine.docker("stop --time 120 lb");
    assert_eq!(engine.inspect("lb", "{{.State.ExitCode}}"), "0");
    assert!(engine.log("lb").contains("ending: "), "{}", engine.log("lb"));
    for again in ["start lb", "restart --time 120 lb"] {
        starts_again(engine, again);
        lab.assert_balanced();
    }
    engine.docker("kill lb");
    starts_again(engine, "start lb");
    lab.assert_balanced();
    engine.docker("kill --signal INT lb");
    engine.docker("wait lb");
    assert_eq!(engine.inspect("lb", "{{.State.ExitCode}}"), "0");
    // The servers are first processes as well.
    engine.docker("stop --time 120 web1 web2");
    assert_eq!(engine.inspect("web1", "{{.State.ExitCode}}"), "0");
}

/// Has the engine start the director again, and waits until it is ready.
fn starts_again(engine: &Engine, command: &str) {
    let ready = || engine.log("lb").matches("ulvs: ready").count();
    let before = ready();
    engine.docker(command);
    wait(|| if ready() > before { Ok(()) } else { Err(engine.log("lb")) });
}

#[test]
fn the_first_process_leaves_no_zombies() {
    let Some(lab) = Lab::new() else { return };
    if Command::new("nsenter").arg("--version").output().is_err() {
        return println!("skipped: nsenter is not installed");
    }
    lab.director("", "ulvs");
    for container in ["lb", "web1"] {
        let first = lab.engine.process(container).id;
        // The shell ends first, and the container's first process inherits what it has started.
        let mut shell = Command::new("nsenter");
        shell.args([&format!("--pid=/proc/{first}/ns/pid"), "--", "sh", "-c", "sleep 1 &"]);
        assert!(shell.status().unwrap().success());
        wait(|| match children(first) {
            children if children.is_empty() => Ok(()),
            children => Err(format!("{container} has zombies: {children:?}")),
        });
    }
}

/// The children that a process has, and the states that they are in.
fn children(parent: u32) -> Vec<String> {
    let status = |process: std::io::Result<fs::DirEntry>| {
        let status = fs::read_to_string(process.unwrap().path().join("status")).ok()?;
        status.contains(&format!("\nPPid:\t{parent}\n")).then_some(status)
    };
    fs::read_dir("/proc").unwrap().filter_map(status).collect()
}

#[test]
fn less_than_the_default_privileges_is_enough() {
    let Some(lab) = Lab::new() else { return };
    let engine = &lab.engine;
    let least = "--read-only --cap-drop ALL --security-opt no-new-privileges";
    lab.director(&format!("{least} --cap-add NET_RAW --cap-add NET_BIND_SERVICE"), "ulvs");
    lab.assert_balanced();
    engine.docker("exec lb ipvsadm -Ln");
    engine.docker("rm --force lb");
    // Without the one that nothing works without, it says so.
    let refused = engine.run(&["run", "--name", "lb", "--cap-drop", "NET_RAW", "ulvs"]);
    let complaint = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("CAP_NET_RAW"), "{complaint}");
    engine.docker("rm --force lb");
    if Command::new("setcap").arg("-h").output().is_err() {
        return println!("skipped: setcap is not installed");
    }
    let mut shell = engine.command("sh");
    shell.args(["-ec", &commands("#### As an ordinary user")]);
    succeeded("README", shell.current_dir(engine.path("project")).output().unwrap());
    lab.director("--user 65534:65534 --read-only", "ulvs-user");
    assert_eq!(engine.inspect("lb", "{{.Config.User}}"), "65534:65534");
    let first = engine.process("lb").id;
    let status = fs::read_to_string(format!("/proc/{first}/status")).unwrap();
    assert!(status.contains("\nUid:\t65534\t65534\t65534\t65534\n"), "{status}");
    lab.assert_balanced();
    engine.docker("exec lb ipvsadm -Ln");
}

#[test]
fn other_methods_go_over_the_engines_network() {
    if !Path::new("/dev/net/tun").exists() {
        return println!("skipped: there is no /dev/net/tun");
    }
    let Some(engine) = Engine::start() else { return };
    let project = image::build(&engine);
    let mut shell = engine.command("sh");
    let lines = commands("#### Direct routing and tunnels");
    shell.args(["-ec", &lines]).current_dir(project);
    let said = succeeded(&lines, shell.output().unwrap());
    // By direct routing, and then through tunnels.
    assert_eq!(said.matches(IN_TURN).count(), 2, "{said}");
    // Servers see who their clients are, and answer them themselves.
    let seen = engine.docker(&format!("{FETCH} http://172.30.0.100/whoami"));
    assert!(seen.starts_with("you are 172.30.0.") && !seen.contains("172.30.0.10:"), "{seen}");
    let service = "172.30.0.100:80".parse().unwrap();
    for (method, name) in [("-g", "Route"), ("-i", "Tunnel"), ("-i --tun-type gre", "Tunnel")] {
        for web in ["172.30.0.11", "172.30.0.12"] {
            engine.docker(&format!("exec lb ipvsadm -e -t {service} -r {web} {method}"));
        }
        let listing = engine.docker("exec lb ipvsadm -Ln");
        assert_eq!(listing.matches(name).count(), 2, "{listing}");
        let mut answered = servers(&engine.host, service, 4);
        answered.sort();
        assert_eq!(answered, ["web1", "web1", "web2", "web2"], "{method}");
        for _ in 0..2 {
            transfer(&engine.host, service, 20 * MIB);
        }
    }
    assert_kernel_is_silent(&engine.process("lb"));
}
