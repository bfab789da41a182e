//! The ipvsadm personality beside recorded transcripts of ipvsadm 1.31 on Linux 6.1.

mod control;

use std::collections::HashMap;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use control::{TestHost, handler};
use ulvs::control::client::InProcess;
use ulvs::control::handler::Handler;
use ulvs::control::ipvsadm::names::Names;
use ulvs::control::ipvsadm::{Console, run};
use ulvs::control::netlink::connection::ConnectionView;
use ulvs::control::rules;
use ulvs::control::server::Server;
use ulvs::engine::Moment;
use ulvs::engine::service::{Protocol, ServiceTable};
use ulvs::packet::Endpoint;

/// What a command wrote and how it ended.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    stdout: String,
    stderr: String,
    status: i32,
}

fn ipvsadm(handler: &Handler<TestHost>, line: &str, stdin: &str, hints: bool) -> Outcome {
    let args: Vec<String> = line.split_whitespace().map(String::from).collect();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut console =
        Console { stdin: &mut stdin.as_bytes(), stdout: &mut stdout, stderr: &mut stderr, hints };
    let mut transport = InProcess { handler, now: Moment::default() };
    let status = run(&args, &mut console, &mut transport, &mut TestNames);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Outcome { stdout: text(stdout), stderr: text(stderr), status }
}

/// Plays the steps of a transcript and writes a transcript of it.
fn play(transcript: &str) -> String {
    let handler = handler();
    let mut files = HashMap::new();
    let mut played = String::new();
    let lines: Vec<&str> = transcript.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            played += &format!("{line}\n");
            continue;
        }
        let Some(step) = line.strip_prefix("$ ").filter(|step| !step.starts_with(' ')) else {
            continue;
        };
        let stdin = lines[at + 1..].iter().map_while(|line| line.strip_prefix("$   "));
        let stdin: String = stdin.map(|line| format!("{line}\n")).collect();
        let outcome = match step.split_once(' ').unwrap_or((step, "")) {
            ("ipvsadm", args) => ipvsadm(&handler, args, &stdin, false),
            ("table", "") => ipvsadm(&handler, "-Ln", "", false),
            ("sh", script) => shell(&handler, script, &mut files),
            _ => panic!("the test cannot play `{step}`"),
        };
        played += &format!("$ {step}\n");
        stdin.lines().for_each(|line| played += &format!("$   {line}\n"));
        played += &rendered(&outcome);
    }
    played
}

/// As much of a shell as the transcripts use: commands with redirections, separated by `;`.
fn shell(
    handler: &Handler<TestHost>,
    script: &str,
    files: &mut HashMap<String, String>,
) -> Outcome {
    let mut whole = Outcome::default();
    for command in script.split(';') {
        let command = command.trim().strip_prefix("ipvsadm").expect("only ipvsadm is understood");
        let (args, from) = command.split_once('<').unwrap_or((command, ""));
        let (args, to) = args.split_once('>').unwrap_or((args, ""));
        let stdin = files.get(from.trim()).cloned().unwrap_or_default();
        let mut outcome = ipvsadm(handler, args, &stdin, false);
        if !to.is_empty() {
            files.insert(to.trim().into(), std::mem::take(&mut outcome.stdout));
        }
        whole.stdout += &outcome.stdout;
        whole.stderr += &outcome.stderr;
        whole.status = outcome.status;
    }
    whole
}

fn rendered(outcome: &Outcome) -> String {
    let mut text = String::new();
    for line in outcome.stdout.lines() {
        text += &format!("  {line}\n");
    }
    for line in outcome.stderr.lines() {
        text += &format!("! {line}\n");
    }
    if outcome.status != 0 {
        text += &format!("? {}\n", outcome.status);
    }
    text
}

/// The transcripts that hold nothing but commands.
const TRANSCRIPTS: [&str; 29] = [
    "addresses",
    "grammar",
    "options_by_command",
    "order_of_checks",
    "servers",
    "add_server_errors",
    "add_server_options",
    "add_service_errors",
    "add_service_long_options",
    "add_service_short_options",
    "clear",
    "daemon_commands",
    "daemon_options",
    "delete_server",
    "delete_service",
    "edit_server",
    "help",
    "list_nosort",
    "list_one_service",
    "list_rate",
    "list_sorted",
    "option_conflicts",
    "restore",
    "same_service_other_family_and_protocol",
    "save_and_restore",
    "sched_flags",
    "timeouts",
    "timeouts_limits",
    "version",
];

#[test]
fn every_recorded_command_does_what_ipvsadm_did() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ipvs/cli");
    let mut different = Vec::new();
    for name in TRANSCRIPTS {
        let recorded = std::fs::read_to_string(folder.join(name).with_extension("ipvs")).unwrap();
        let played = play(&recorded);
        let pairs = recorded.lines().zip(played.lines());
        if let Some((number, (expected, found))) =
            (1..).zip(pairs).find(|(_, (expected, found))| expected != found)
        {
            different.push(format!("{name}:{number}\n  recorded: {expected}\n  played:   {found}"));
        } else if recorded.lines().count() != played.lines().count() {
            different.push(format!("{name}: not as long as recorded"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// Runs a line with hints on.
fn hinted(handler: &Handler<TestHost>, line: &str) -> Outcome {
    ipvsadm(handler, line, "", true)
}

fn set_up(handler: &Handler<TestHost>, lines: &[&str]) {
    for line in lines {
        assert_eq!(ipvsadm(handler, line, "", false), Outcome::default(), "{line}");
    }
}

#[test]
fn another_port_is_another_server_and_that_is_told() {
    let handler = handler();
    set_up(&handler, &["-A -t 12.0.0.1:80 -s rr", "-a -t 12.0.0.1:80 -r 192.168.200.110:80 -m"]);
    for line in [
        "-e -t 12.0.0.1:80 -r 192.168.200.110:8080 -m",
        "-d -t 12.0.0.1:80 -r 192.168.200.110:8080",
    ] {
        let outcome = hinted(&handler, line);
        assert_eq!(outcome.status, 255);
        let (message, hint) = outcome.stderr.split_once('\n').unwrap();
        assert_eq!(message, "No such destination");
        assert!(hint.starts_with("hint: the port is part of a real server's identity"), "{hint}");
        assert!(hint.contains("192.168.200.110:80,"), "{hint}");
    }
}

#[test]
fn a_mistyped_network_is_told_but_the_server_is_added() {
    let handler = handler();
    set_up(&handler, &["-A -t 12.0.0.1:80 -s rr"]);
    let outcome = hinted(&handler, "-a -t 12.0.0.1:80 -r 129.168.200.110:80 -m");
    assert_eq!((outcome.status, outcome.stdout.as_str()), (0, ""));
    let expected = "hint: 129.168.200.110 is in no network of the director, only the default route \
                    through out leads there; did you mean 192.168.200.110?\n";
    assert_eq!(outcome.stderr, expected);
    assert!(hinted(&handler, "-Ln").stdout.contains("-> 129.168.200.110:80"));
}

#[test]
fn other_beginners_mistakes_have_hints_too() {
    let handler = handler();
    set_up(&handler, &["-A -t 12.0.0.1:80 -s rr"]);
    let hints = [
        (
            "-a -u 12.0.0.1:80 -r 192.168.200.110 -m",
            "-u 12.0.0.1:80 does not exist, but -t 12.0.0.1:80",
        ),
        ("-a -f 9 -r 192.168.200.110 -m", "add the service first, with -A"),
        ("-d -t 12.0.0.1:80 -r 192.168.200.110", "this service has no real servers"),
        ("-A -t 12.0.0.1:81 -s roundrobin", "there is no scheduler roundrobin; there are dh fo"),
    ];
    for (line, expected) in hints {
        let outcome = hinted(&handler, line);
        assert_eq!(outcome.status, 255, "{line}");
        assert!(outcome.stderr.contains(&format!("\nhint: {expected}")), "{line}: {outcome:?}");
    }
    let said = hinted(&handler, "-A -u 12.0.0.1:53 -O").stderr;
    assert_eq!(said, "-O: unknown option\nhint: one-packet scheduling is -o, or --ops\n");
    let said = hinted(&handler, "-a -t [2001:db8::1]:80 -r [2001:db8::2]").stderr;
    assert!(said.contains("\nhint: brackets are for IPv6 addresses with a port"), "{said}");
}

#[test]
fn a_refused_command_changes_nothing() {
    let handler = handler();
    set_up(
        &handler,
        &[
            "-A -t 12.0.0.1:80 -s wrr -p 60 -M 255.255.255.0",
            "-a -t 12.0.0.1:80 -r 192.168.200.110:8080 -m -w 3 -x 10 -y 5",
            "-A -u 12.0.0.1:53 -s sh -b sh-port -o",
            "-A -f 7 -s rr",
            "--set 100 50 25",
        ],
    );
    let lists = ["-Sn", "-Ln --thresholds", "-Ln --tun-info", "-L --timeout", "-L --daemon"];
    let state = || lists.map(|list| hinted(&handler, list).stdout);
    let before = state();
    let transcripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ipvs/cli");
    let mut refused = vec![
        String::from("-E -t 12.0.0.1:80 -s nosuch -p 30"),
        String::from("-E -t 12.0.0.1:80 -s rr --pe nosuch"),
        String::from("-e -t 12.0.0.1:80 -r 192.168.200.110:8080 -m -x 1 -y 2 -w 9"),
        String::from("-a -t 12.0.0.1:80 -r 192.168.200.111 -y 2"),
        String::from("-a -t 12.0.0.1:80 -r 224.0.0.1 -m"),
        String::from("-A -t 12.0.0.1:81 -s nosuch"),
    ];
    // Everything that was refused for its words must be refused here, and leave no trace.
    for name in TRANSCRIPTS {
        let text = std::fs::read_to_string(transcripts.join(name).with_extension("ipvs")).unwrap();
        let lines: Vec<_> = text.lines().collect();
        for pair in lines.windows(3) {
            if let [step, error, "? 2" | "? 255"] = pair
                && let Some(line) = step.strip_prefix("$ ipvsadm ")
                && error.starts_with("! ")
                && !["already", "No such", "No daemon", "not defined"]
                    .iter()
                    .any(|w| error.contains(w))
            {
                refused.push(line.into());
            }
        }
    }
    assert!(refused.len() > 100, "{}", refused.len());
    for line in &refused {
        let outcome = hinted(&handler, line);
        assert!(outcome.status != 0 && !outcome.stderr.is_empty(), "{line}: {outcome:?}");
        assert_eq!(state(), before, "{line}");
    }
}

#[test]
fn rules_files_are_scripts_or_saved_tables() {
    let handler = handler();
    let mut transport = InProcess { handler: &handler, now: Moment::default() };
    let script = "#!/bin/sh\n\
                  # The textbook's first lab.\n\
                  ipvsadm -C\n\
                  \n\
                  /sbin/ipvsadm -A -t 12.0.0.1:80 -s rr   # round robin\n\
                  sudo ipvsadm -a -t '12.0.0.1:80' \\\n   -r 192.168.200.110:80 -m\n\
                  -a -t 12.0.0.1:80 -r www1.example:8080 -m -w 2\n";
    rules::apply("lab.sh", script, &mut transport, &mut TestNames).unwrap();
    let saved = ipvsadm(&handler, "-Sn", "", false).stdout;
    let expected = "-A -t 12.0.0.1:80 -s rr\n\
                    -a -t 12.0.0.1:80 -r 192.168.200.110:80 -m -w 1\n\
                    -a -t 12.0.0.1:80 -r 192.168.200.110:8080 -m -w 2\n";
    assert_eq!(saved, expected);
    set_up(&handler, &["-C"]);
    rules::apply("saved", &saved, &mut transport, &mut TestNames).unwrap();
    assert_eq!(ipvsadm(&handler, "-Sn", "", false).stdout, expected);
}

#[test]
fn errors_in_rules_files_name_the_line() {
    let wrong = [
        (
            "-A -t 12.0.0.1:80\n\n-a -t 12.0.0.2:80 -r 192.168.200.110\n",
            "r:3: Service not defined; -t 12.0.0.2:80 does not exist; -A adds it",
        ),
        ("-A -t \\\n12.0.0.1:x\n", "r:1: illegal virtual server address[:port] specified"),
        ("systemctl start nginx\n", "r:1: this is no command of ipvsadm: systemctl"),
        ("ipvsadm -A -t '12.0.0.1:80\n", "r:1: a quote is not closed"),
        ("-Q\n", "r:1: Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
        ("ipvsadm -R\n", "r:1: Try `ipvsadm -h' or 'ipvsadm --help' for more information."),
    ];
    for (text, expected) in wrong {
        let handler = handler();
        let mut transport = InProcess { handler: &handler, now: Moment::default() };
        let error = rules::apply("r", text, &mut transport, &mut TestNames).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn without_a_director_the_command_says_how_to_start_one() {
    let nowhere = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-director.sock");
    let output = Command::new(env!("CARGO_BIN_EXE_ulvs"))
        .args(["ipvsadm", "-Ln"])
        .env("ULVS_CONTROL", &nowhere)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], "Can't initialize ipvs: No such file or directory");
    assert!(lines[1].starts_with("Are you sure that IP Virtual Server is built in"), "{said}");
    assert!(lines[2].starts_with("hint: no director answers at /"), "{said}");
    assert!(lines[2].contains("no-director.sock; start one with `ulvs run`"), "{said}");
}

#[test]
fn the_binary_is_ipvsadm_when_it_is_called_so() {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("names-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let socket = folder.join("control.sock");
    let server = Server::start(&socket, Arc::new(handler()), Moment::default).unwrap();
    let call = |name: &str, args: &[&str], stdin: &str| {
        let link = folder.join(name);
        let _ = std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_ulvs"), &link);
        let mut child = Command::new(link)
            .args(args)
            .env("ULVS_CONTROL", &socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let rules =
        "# Saved rules.\n-A -t 192.0.2.1:80 -s rr\n-a -t 192.0.2.1:80 -r 192.0.2.2:80 -m -w 1\n";
    assert_eq!(call("ipvsadm", &["-A", "-t", "192.0.2.9:80"], ""), (Some(0), String::new()));
    assert_eq!(call("ipvsadm-restore", &[], rules), (Some(0), String::new()));
    let (status, saved) = call("ipvsadm-save", &["-n"], "");
    assert_eq!((status, saved.as_str()), (Some(0), rules.split_once('\n').unwrap().1));
    let version = call("ipvsadm", &["--version"], "").1;
    assert!(version.starts_with("ipvsadm v1.31"), "{version}");
    drop(server);
    std::fs::remove_dir_all(&folder).unwrap();
}

const EVERYTHING: [&str; 14] = [
    "-A -t 12.0.0.1:80 -s wrr -p 100 -M 255.255.255.0",
    "-a -t 12.0.0.1:80 -r 192.168.200.110 -m -w 3 -x 10 -y 5",
    "-A -t 12.0.0.1:81 -s rr -M 255.255.0.0 -b flag-1,flag-3",
    "-A -t 12.0.0.1:82 -s sh -b sh-port,flag-3",
    "-A -t 12.0.0.1:90 -s rr --local-address 192.168.200.9,192.168.200.10",
    "-a -t 12.0.0.1:90 -r 192.168.200.110:8080 --fullnat --client-address proxy-v2",
    "-A -u 12.0.0.1:5060 -s rr -p 60 --pe sip -o",
    "-A -f 4294967295 -s wlc",
    "-a -f 4294967295 -r 192.168.200.130 -i --tun-type gue --tun-port 6080 --tun-remcsum -x 7",
    "-A -f 7 -6 -s rr -p 60",
    "-A -t [2001:db8:12::1]:80 -s rr -p 60 -M 64",
    "-a -t [2001:db8:12::1]:80 -r [2001:db8:200::110]:8080 -m",
    "--set 100 50 25",
    "--start-daemon backup --mcast-interface in --syncid 9 --mcast-ttl 3",
];

#[test]
fn the_full_form_loses_nothing() {
    let first = handler();
    set_up(&first, &EVERYTHING);
    let saved = ipvsadm(&first, "--save --full", "", false).stdout;
    assert!(saved.starts_with("--set 100 50 25\n"), "{saved}");
    assert!(saved.contains("-r 192.168.200.110:80 -m -w 3 -x 10 -y 5\n"), "{saved}");
    assert!(saved.contains("-A -f 4294967295 "), "{saved}");
    let second = handler();
    assert_eq!(ipvsadm(&second, "-R", &saved, false), Outcome::default());
    assert_eq!(ipvsadm(&second, "-S --full", "", false).stdout, saved);
    for list in ["-Ln", "-Ln --thresholds", "-Ln --tun-info", "-L --timeout", "-L --daemon"] {
        let [one, other] = [&first, &second].map(|each| ipvsadm(each, list, "", false));
        assert_eq!(one, other);
    }
}

#[test]
fn listings_for_programs_are_json() {
    let handler = handler();
    set_up(&handler, &EVERYTHING);
    let json = |line: &str| -> serde_json::Value {
        let outcome = ipvsadm(&handler, line, "", false);
        assert_eq!(outcome.status, 0, "{outcome:?}");
        serde_json::from_str(&outcome.stdout).unwrap()
    };
    let listed = json("-L --json");
    let services = listed["services"].as_array().unwrap();
    assert_eq!(services.len(), 8);
    let full = services.iter().find(|service| service["port"] == 90).unwrap();
    assert_eq!(full["local_addresses"], serde_json::json!(["192.168.200.9", "192.168.200.10"]));
    assert_eq!(full["servers"][0]["forwarding_method"], "fullnat");
    assert_eq!(full["servers"][0]["client_address"], "proxy-v2");
    let web = services.iter().find(|service| service["port"] == 80).unwrap();
    assert_eq!(web["protocol"], "tcp");
    assert_eq!(web["netmask"], "255.255.255.0");
    assert_eq!(web["servers"][0]["upper_threshold"], 10);
    assert_eq!(web["servers"][0]["totals"]["in_bytes"], 0);
    let marked = &json("-L --json -f 4294967295")["services"][0];
    assert_eq!(marked["fwmark"], 4294967295_u32);
    assert_eq!(marked["servers"][0]["tunnel"]["checksum"], "remote");
    assert_eq!(json("-Lc --json")["connections"], serde_json::json!([]));
    assert_eq!(json("-L --timeout --json")["timeouts"]["udp_s"], 25);
    assert_eq!(json("-L --daemon --json")["daemons"][0]["interface"], "in");
}

#[test]
fn local_addresses_come_and_go_and_other_edits_leave_them() {
    let handler = handler();
    set_up(&handler, &["-A -t 12.0.0.1:80", "-a -t 12.0.0.1:80 -r 192.168.200.110:8080 --fullnat"]);
    let saved = || ipvsadm(&handler, "-Sn", "", false).stdout.lines().next().unwrap().to_owned();
    set_up(&handler, &["--add-laddr -t 12.0.0.1:80 --local-address 192.168.200.9 --ifname in"]);
    assert_eq!(saved(), "-A -t 12.0.0.1:80 -s wlc --local-address 192.168.200.9");
    set_up(&handler, &["-E -t 12.0.0.1:80 -s rr"]);
    assert_eq!(saved(), "-A -t 12.0.0.1:80 -s rr --local-address 192.168.200.9");
    set_up(&handler, &["-E -t 12.0.0.1:80 -s rr --local-address 192.168.200.7,192.168.200.8"]);
    set_up(&handler, &["--del-laddr -t 12.0.0.1:80 --local-address 192.168.200.7"]);
    let listed = "Prot VirtualAddress:Port        LocalAddress                    Conns\n\
                  TCP  12.0.0.1:80                192.168.200.8                   0\n";
    assert_eq!(ipvsadm(&handler, "--get-laddr", "", false).stdout, listed);
    for (line, complaint) in [
        ("--del-laddr -t 12.0.0.1:80 --local-address 192.168.200.7", "No such local address\n"),
        (
            "--add-laddr -t 12.0.0.1:80 --local-address 192.168.200.8",
            "Local address already exists\n",
        ),
        ("--add-laddr -t 12.0.0.1:81 --local-address 192.168.200.8", "No such service\n"),
        ("--add-laddr -t 12.0.0.1:80 --local-address x", "illegal local address specified\n"),
        (
            "--add-laddr -t 12.0.0.1:80",
            "You need to supply the 'local-address' option for the 'add-laddr' command\n",
        ),
        (
            "-a -t 12.0.0.1:80 -r 192.168.200.9 -m --client-address toa",
            "The client-address option is only for --fullnat servers\n",
        ),
        (
            "-a -u 12.0.0.1:80 -r 192.168.200.9 --fullnat --client-address toa",
            "TOA is a TCP option, not for UDP virtual services\n",
        ),
        (
            "-a -t 12.0.0.1:80 -r 192.168.200.9 --fullnat --client-address x",
            "illegal client-address specified\n",
        ),
        (
            "-a -t 12.0.0.1:80 -r 192.168.200.9 --fullnat --local-address 192.168.200.8",
            "Illegal 'local-address' option with the 'add-server' command\n",
        ),
    ] {
        assert_eq!(ipvsadm(&handler, line, "", false).stderr, complaint, "{line}");
    }
    let invalid = ipvsadm(&handler, "-A -t 12.0.0.1:82 --local-address 2001:db8::1", "", false);
    assert!(invalid.stderr.starts_with("Invalid operation."), "{invalid:?}");
    set_up(&handler, &["--del-laddr -t 12.0.0.1:80 --local-address 192.168.200.8"]);
    assert_eq!(saved(), "-A -t 12.0.0.1:80 -s rr");
}

#[test]
fn a_persistence_engines_data_cannot_control_a_terminal() {
    let connection = ConnectionView {
        protocol: 17,
        client: Endpoint::new(Ipv4Addr::new(12, 0, 0, 2).into(), 0),
        service: Endpoint::new(Ipv4Addr::new(12, 0, 0, 1).into(), 5060),
        real: Endpoint::new(Ipv4Addr::new(192, 168, 200, 120).into(), 5060),
        state: "NONE".into(),
        expires_s: 3661,
        is_template: true,
        is_heard: true,
        persistence_engine: Some(("sip".into(), b"\x1b[2Jcall\xff".to_vec())),
        local: None,
    };
    let host = TestHost { connections: vec![connection], ..TestHost::default() };
    let handler = Handler::new(Arc::new(ServiceTable::new(1)), host);
    let listed = ipvsadm(&handler, "-Lnc --persistent-conn", "", false).stdout;
    let expected = "UDP 61:01  NONE        12.0.0.2:0         12.0.0.1:5060      \
                    192.168.200.120:5060 sip                ?[2Jcall\u{fffd}";
    assert_eq!(listed.lines().nth(2), Some(expected));
}

/// The names that the recorded scenarios know.
#[derive(Debug)]
pub struct TestNames;

const HOSTS: [(&str, &str); 4] = [
    ("localhost", "127.0.0.1"),
    ("shop.example", "12.0.0.1"),
    ("www1.example", "192.168.200.110"),
    ("six.example", "2001:db8:12::1"),
];
const SERVICES: [(&str, u16, Protocol); 6] = [
    ("ftp", 21, Protocol::Tcp),
    ("domain", 53, Protocol::Tcp),
    ("domain", 53, Protocol::Udp),
    ("http", 80, Protocol::Tcp),
    ("www", 80, Protocol::Tcp),
    ("https", 443, Protocol::Tcp),
];

impl Names for TestNames {
    fn address(&mut self, host: &str) -> Option<Ipv4Addr> {
        let (_, addr) = HOSTS.iter().find(|(name, _)| name.eq_ignore_ascii_case(host))?;
        addr.parse().ok()
    }

    fn port(&mut self, service: &str, protocol: Protocol) -> Option<u16> {
        let found = SERVICES.iter().find(|(name, _, of)| *name == service && *of == protocol);
        found.map(|(_, port, _)| *port)
    }

    fn host(&mut self, addr: IpAddr) -> Option<String> {
        let found = HOSTS.iter().find(|(_, known)| known.parse() == Ok(addr));
        found.map(|(name, _)| (*name).into())
    }

    fn service(&mut self, port: u16, protocol: Protocol) -> Option<String> {
        let found = SERVICES.iter().find(|(_, known, of)| *known == port && *of == protocol);
        found.map(|(name, ..)| (*name).into())
    }
}
