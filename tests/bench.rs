//! A whole benchmark in namespaces, as short as it can be. Nothing here depends on speed.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ulvs::bench::load::{self, Measurement};
use ulvs::bench::network::{BULK_PORT, Network, PAGE_PORT, SERVERS};
use ulvs::bench::report::{Report, Sample, Standing};
use ulvs::bench::{Contender, Launch, Load, Observer, Plan, Timing, run};
use ulvs::lab::net::sandbox;

/// Counts what it is told.
#[derive(Default)]
struct Heard {
    prepared: usize,
    left_out: Vec<String>,
    measured: u64,
}

impl Observer for Heard {
    fn preparing(&mut self, _: Contender) {
        self.prepared += 1;
    }

    fn left_out(&mut self, contender: Contender, reason: &str) {
        self.left_out.push(format!("{}: {reason}", contender.name()));
    }

    fn measuring(&mut self, _: u32, _: Load, _: Contender) {}

    fn measured(&mut self, _: Load, _: Contender, _: &Sample) {
        self.measured += 1;
    }
}

fn plan(contenders: &[Contender], loads: &[Load]) -> Plan {
    Plan {
        contenders: contenders.to_vec(),
        loads: loads.to_vec(),
        rounds: 1,
        timing: Timing { warm_up: Duration::from_millis(50), measured: Duration::from_millis(300) },
        launch: launch(),
    }
}

fn launch() -> Launch {
    Launch {
        workers: None,
        program: PathBuf::from(env!("CARGO_BIN_EXE_ulvs")),
        directory: env::temp_dir(),
    }
}

fn benchmark(plan: &Plan) -> (Report, Heard) {
    let mut heard = Heard::default();
    let report = run(plan, &mut heard).unwrap();
    (report, heard)
}

#[test]
fn routing_carries_every_load_without_failures() {
    sandbox::run("routing_carries_every_load_without_failures", || {
        let plan = plan(&[Contender::Routing], &Load::ALL);
        let (report, heard) = benchmark(&plan);
        assert!(report.is_sound(), "{}", report.to_table());
        for load in Load::ALL {
            let median = report.median(Contender::Routing, load);
            assert!(median.is_some_and(|rate| rate > 0.0), "{load:?}: {median:?}");
            assert_eq!(report.ratio(load, Contender::Routing, Contender::Routing), Some(1.0));
        }
        assert_eq!((heard.prepared, heard.measured), (1, plan.steps()));
        assert!(heard.left_out.is_empty());
    });
}

#[test]
fn nft_and_proxies_are_verified_or_say_why_not() {
    sandbox::run("nft_and_proxies_are_verified_or_say_why_not", || {
        let contenders = [Contender::Nft, Contender::Haproxy, Contender::Nginx];
        let (report, heard) = benchmark(&plan(&contenders, &[Load::Upload, Load::Connections]));
        for entry in &report.entries {
            match &entry.standing {
                Standing::Measured { version } => assert!(!version.is_empty()),
                Standing::Skipped { reason } => {
                    println!("skipped: {}: {reason}", entry.contender.name());
                    assert!(heard.left_out.iter().any(|line| line.contains(reason)));
                }
                Standing::Failed { reason } => panic!("{}: {reason}", entry.contender.name()),
            }
        }
        assert!(report.is_sound(), "{}", report.to_table());
    });
}

#[test]
fn a_director_that_does_not_start_is_reported_as_failed() {
    sandbox::run("a_director_that_does_not_start_is_reported_as_failed", || {
        let mut plan = plan(&[Contender::Ulvs], &[Load::Upload]);
        plan.launch.program = PathBuf::from("/bin/false");
        let (report, heard) = benchmark(&plan);
        let Standing::Failed { reason } = &report.entries[0].standing else {
            panic!("{:?}", report.entries[0]);
        };
        assert!(reason.contains("false ended (exit status: 1)"), "{reason}");
        assert!(!report.is_sound());
        assert_eq!((heard.left_out.len(), heard.measured), (1, 0));
    });
}

#[test]
fn a_killed_benchmark_leaves_no_process() {
    let mark = format!("ULVS_TEST_MARK=bench-{}", std::process::id());
    let (name, value) = mark.split_once('=').unwrap();
    let mut benchmark = Command::new(env!("CARGO_BIN_EXE_ulvs"))
        .args(["bench", "--only", "routing,haproxy,nginx", "--load", "upload", "--seconds", "60"])
        .env(name, value)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map(Ended)
        .unwrap();
    // The first line says that the work begins; then come the contenders.
    let mut lines = BufReader::new(benchmark.0.stderr.take().unwrap()).lines();
    let Some(Ok(first)) = lines.next() else {
        return println!("skipped: the benchmark has nothing to say");
    };
    thread::sleep(Duration::from_secs(1));
    println!("{first}; {} processes when it was killed", marked(&mark));
    drop(benchmark);
    let deadline = Instant::now() + Duration::from_secs(10);
    while marked(&mark) > 0 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(marked(&mark), 0);
}

/// Processes that have inherited an environment variable.
fn marked(mark: &str) -> usize {
    let has_mark = |process: &fs::DirEntry| {
        let environment = fs::read(process.path().join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    fs::read_dir("/proc").unwrap().flatten().filter(has_mark).count()
}

#[test]
fn wrong_arguments_are_refused_before_anything_is_built() {
    for (arguments, complaint) in [
        (["--seconds", "0"], "between 0.1 and 3600 seconds"),
        (["--seconds", "soon"], "\"soon\" is no number of seconds"),
        (["--rounds", "0"], "0 is not in 1..=1000"),
        (["--only", "ipvs"], "possible values: routing, nft, haproxy, nginx, ulvs"),
        (["--json", "/nonexistent/bench.json"], "cannot write /nonexistent/bench.json"),
    ] {
        let program = env!("CARGO_BIN_EXE_ulvs");
        let output = Command::new(program).arg("bench").args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).replace("\n", " ");
        assert!(!output.status.success());
        assert!(said.contains(complaint), "{said}");
        assert!(output.stdout.is_empty());
    }
}

/// Prints what wrk and iperf3 measure over the same path beside what the generators here do.
/// Figures depend on what else the machine does, so there is nothing to assert:
/// `cargo test --release --test bench -- --ignored --nocapture`.
#[test]
#[ignore = "prints a comparison that a person has to judge"]
fn generators_beside_wrk_and_iperf3() {
    sandbox::run("generators_beside_wrk_and_iperf3", || {
        for contender in Contender::ALL {
            let network = Network::new().unwrap();
            match contender.start(&network, &launch()) {
                Ok(_forwarder) => compare(contender, &network),
                Err(refusal) => println!("{}: {refusal}", contender.name()),
            }
        }
    });
}

fn compare(contender: Contender, network: &Network) {
    thread::sleep(Duration::from_millis(500));
    let timing = Timing { warm_up: Duration::from_millis(500), measured: Duration::from_secs(3) };
    let target = contender.targets()[0];
    let url = format!("http://{target}/");
    let page = load::Page { addresses: vec![(target, PAGE_PORT).into()], path: "/".to_owned() };
    let ours = |what: &str, work: &(dyn Fn() -> std::io::Result<Measurement> + Sync)| {
        let found = network.client.run(work).unwrap().unwrap();
        let us = found.latency.map(|latency| (latency.p50_us, latency.p99_us));
        println!("{} {what}: {:.0} {us:?} {}", contender.name(), found.rate, found.failures);
    };
    let wrk = |extra: &[&str]| {
        let wanted = ["50%", "99%", "Requests/sec"];
        let arguments = [&["-t1", "-c64", "-d3", "--latency"], extra, &[&url]].concat();
        println!("  wrk:  {}", tool(network, "wrk", &arguments, &wanted));
    };
    ours("requests", &|| load::requests::run(&page, timing));
    wrk(&[]);
    ours("connections", &|| load::connections::run(&page, timing));
    wrk(&["-H", "Connection: close"]);
    if contender == Contender::Routing {
        compare_bulk(network, timing);
    }
}

fn compare_bulk(network: &Network, timing: Timing) {
    let server = SERVERS[0].to_string();
    let mut iperf_server = network.server.command("iperf3");
    iperf_server.args(["-s", "-p", "5301"]).stdout(Stdio::null());
    let _iperf_server = iperf_server.spawn().map(Ended);
    let iperf = |extra: &[&str]| {
        let base = ["-c", &server, "-p", "5301", "-t", "3", "-O", "1", "-f", "m"];
        println!("  {}", tool(network, "iperf3", &[&base, extra].concat(), &["receiver"]));
    };
    let address = (SERVERS[0], BULK_PORT).into();
    let meter = network.bulk().meter();
    let upload = network.client.run(|| load::bulk::upload(address, &meter, timing));
    println!("upload: {:.0} Mbit/s", upload.unwrap().unwrap().rate / 1e6);
    iperf(&[]);
    let download = network.client.run(|| load::bulk::download(address, timing));
    println!("download: {:.0} Mbit/s", download.unwrap().unwrap().rate / 1e6);
    iperf(&["-R"]);
}

/// The lines of a tool's output that have the figures.
fn tool(network: &Network, program: &str, arguments: &[&str], wanted: &[&str]) -> String {
    let Ok(output) = network.client.command(program).args(arguments).output() else {
        return format!("skipped: {program} is not installed");
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let has_figure = |line: &&str| wanted.iter().any(|wanted| line.contains(wanted));
    let lines: Vec<_> = said.lines().filter(has_figure).map(str::trim).collect();
    lines.join(", ")
}

/// A program that is ended with this.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
