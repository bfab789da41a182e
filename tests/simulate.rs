//! The `ulvs simulate` command: what it prints, and how it refuses.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ulvs::simulate::scenario::parse_scenario;
use ulvs::simulate::{Manner, play_in};

fn ulvs() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ulvs"));
    command.arg("simulate");
    command
}

/// A file that is gone when the test ends.
struct Scenario(PathBuf);

impl Scenario {
    fn new(name: &str, text: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("{name}-{}.scn", std::process::id()));
        fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for Scenario {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn assert_refused(output: &Output, why: &str) {
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stderr), format!("ulvs: {why}\n"));
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn transcripts_follow_one_another() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ipvs");
    let scenarios = ["nat/basic", "sched/rr_textbook"].map(|name| corpus.join(name));
    let output =
        ulvs().args(scenarios.iter().map(|path| path.with_extension("scn"))).output().unwrap();
    let expected = scenarios.map(|path| fs::read_to_string(path.with_extension("ipvs")).unwrap());
    assert_eq!(text(&output.stdout), expected.concat());
    assert!(output.status.success());
}

#[test]
fn a_scenario_may_come_from_standard_input() {
    let mut child = ulvs().arg("-").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"sleep 86400\nconns\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let listing = "  IPVS connection entries\n  pro expire state       source             virtual            destination\n";
    assert_eq!(text(&output.stdout), format!("$ sleep 86400\n$ conns\n{listing}"));
}

#[test]
fn nothing_is_played_if_any_file_is_bad() {
    let good = Scenario::new("good", "conns\n");
    let bad = Scenario::new("bad", "conns\nsend out 12.0.0.2 > 12.0.0.1 quic\n");
    let output = ulvs().args([&good.0, &bad.0]).output().unwrap();
    assert_refused(&output, &format!("{}: line 2: unknown protocol 'quic'", bad.0.display()));
    let missing = Path::new("/no/such/file.scn");
    let output = ulvs().args([&good.0, missing]).output().unwrap();
    let why = "cannot read the scenario: No such file or directory (os error 2)";
    assert_refused(&output, &format!("{}: {why}", missing.display()));
}

#[test]
fn a_step_that_turns_out_impossible_is_named() {
    let send = "send out 12.0.0.2:1 > 12.0.0.1:9 udp len=4\nreply c2 S\n";
    let scenario = Scenario::new(
        "impossible",
        &send.replace("reply c2 S", "send out 12.0.0.2 > 12.0.0.1 icmp 8/0\nreply c2 SA"),
    );
    let output = ulvs().arg(&scenario.0).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let why = "line 3: icmp wants TYPE/CODE, not 'SA'";
    assert_eq!(text(&output.stderr), format!("ulvs: {}: {why}\n", scenario.0.display()));
}

#[test]
fn explanations_tell_why() {
    let scenario = Scenario::new(
        "explained",
        "\
ipvsadm -A -t 12.0.0.1:80 -s wlc
ipvsadm -a -t 12.0.0.1:80 -r 192.168.200.110:8080 -m -w 3
ipvsadm -a -t 12.0.0.1:80 -r 192.168.200.120 -g -w 2
open tcp 12.0.0.2:1000 12.0.0.1:80
send out 12.0.0.3:1000 > 12.0.0.1:80 tcp S
reply rs110
error rs110 3/3
ipvsadm -E -t 12.0.0.1:80 -s sh -p 60
open tcp 12.0.0.3:1001-1002 12.0.0.1:80
ipvsadm -d -t 12.0.0.1:80 -r 192.168.200.110:8080
send out 12.0.0.3:1000 > 12.0.0.1:80 tcp A
",
    );
    let output = ulvs().arg("--explain").arg(&scenario.0).output().unwrap();
    assert_eq!(text(&output.stderr), "");
    let told = text(&output.stdout);
    let expected = EXPLAINED.trim_start();
    assert!(told.ends_with(expected), "{told}\nshould end with\n{expected}");
}

const EXPLAINED: &str = "
$ open tcp 12.0.0.2:1000 12.0.0.1:80
  | 12.0.0.2:1000 > 12.0.0.1:80 tcp S seq=1000 ttl=64
  |   service     TCP 12.0.0.1:80
  |   wlc         the fewest connections for the weight, active ones counting 256 times; of equals the first
  |               -> 192.168.200.120:80    (256 × 0 + 0) / 2 = 0
  |                  192.168.200.110:8080  (256 × 0 + 0) / 3 = 0
  |   connection  12.0.0.2:1000 -> 12.0.0.1:80 -> 192.168.200.120:80, direct routing, a new one
  |   state       NONE -> SYN_RECV, for 60 s
  |   sent to     rs120, link address 02:00:00:02:01:20
  |   rewritten   TTL 64 -> 63
  rs120
$ send out 12.0.0.3:1000 > 12.0.0.1:80 tcp S
  |   service     TCP 12.0.0.1:80
  |   wlc         the fewest connections for the weight, active ones counting 256 times; of equals the first
  |                  192.168.200.120:80    (256 × 1 + 0) / 2 = 128
  |               -> 192.168.200.110:8080  (256 × 0 + 0) / 3 = 0
  |   connection  12.0.0.3:1000 -> 12.0.0.1:80 -> 192.168.200.110:8080, NAT, a new one
  |   state       NONE -> SYN_RECV, for 60 s
  |   sent to     rs110, link address 02:00:00:02:01:10
  |   rewritten   destination 12.0.0.1:80 -> 192.168.200.110:8080, TTL 64 -> 63
  in rs110: 12.0.0.3:1000 > 192.168.200.110:8080 tcp S ttl=63
$ reply rs110
  in rs110 sends 192.168.200.110:8080 > 12.0.0.3:1000 tcp SA seq=5000 ack=1 ttl=64
  |   connection  12.0.0.3:1000 -> 12.0.0.1:80 -> 192.168.200.110:8080, NAT, from its server
  |   state       SYN_RECV, for 60 s
  |   sent to     c3, link address 02:00:00:01:00:03
  |   rewritten   source 192.168.200.110:8080 -> 12.0.0.1:80, TTL 64 -> 63
  out c3: 12.0.0.1:80 > 12.0.0.3:1000 tcp SA seq=5000 ack=1 ttl=63
$ error rs110 3/3
  in rs110 sends 192.168.200.110 > 12.0.0.3 icmp 3/3 ttl=64 {12.0.0.3:1000 > 192.168.200.110:8080 tcp S ttl=63}
  |   about       12.0.0.3:1000 -> 12.0.0.1:80 -> 192.168.200.110:8080, NAT; goes to its client
  |   sent to     c3, link address 02:00:00:01:00:03
  |   rewritten   source 192.168.200.110 -> 12.0.0.1, quoted destination 192.168.200.110:8080 -> 12.0.0.1:80, TTL 64 -> 63
  out c3: 12.0.0.1 > 12.0.0.3 icmp 3/3 ttl=63 {12.0.0.3:1000 > 12.0.0.1:80 tcp S sum=bad ttl=63}
$ ipvsadm -E -t 12.0.0.1:80 -s sh -p 60
$ open tcp 12.0.0.3:1001-1002 12.0.0.1:80
  | 12.0.0.3:1001 > 12.0.0.1:80 tcp S seq=1000 ttl=64
  |   service     TCP 12.0.0.1:80
  |   sh          the client's address decides
  |               12.0.0.3 falls into bucket 121 of 256
  |               -> 192.168.200.120:80    103 buckets, this one too
  |                  192.168.200.110:8080  153 buckets
  |   persistence 12.0.0.3 is bound to 192.168.200.120:80, until 60 s after its last new connection
  |   connection  12.0.0.3:1001 -> 12.0.0.1:80 -> 192.168.200.120:80, direct routing, a new one
  |   state       NONE -> SYN_RECV, for 60 s
  |   sent to     rs120, link address 02:00:00:02:01:20
  |   rewritten   TTL 64 -> 63
  | 12.0.0.3:1002 > 12.0.0.1:80 tcp S seq=1000 ttl=64
  |   service     TCP 12.0.0.1:80
  |   persistence 12.0.0.3 is bound to 192.168.200.120:80, so that no scheduler is asked
  |   connection  12.0.0.3:1002 -> 12.0.0.1:80 -> 192.168.200.120:80, direct routing, a new one
  |   state       NONE -> SYN_RECV, for 60 s
  |   sent to     rs120, link address 02:00:00:02:01:20
  |   rewritten   TTL 64 -> 63
  rs120 rs120
$ ipvsadm -d -t 12.0.0.1:80 -r 192.168.200.110:8080
$ send out 12.0.0.3:1000 > 12.0.0.1:80 tcp A
  |   connection  12.0.0.3:1000 -> 12.0.0.1:80 -> 192.168.200.110:8080, NAT, from its client
  |   dropped     server-removed: The connection's real server was removed from its service.
  nothing
";

#[test]
fn the_picture_in_the_docs_is_what_is_drawn() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.svg", std::process::id()));
    let output = ulvs().arg("--plot").arg(&path).output().unwrap();
    assert_eq!(text(&output.stderr), "");
    let drawn = fs::read_to_string(&path);
    let _ = fs::remove_file(&path);
    let committed =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/engine/scheduler/schedulers.svg");
    // Not assert_eq, which would print both.
    let same = drawn.unwrap() == fs::read_to_string(&committed).unwrap();
    assert!(same, "draw it anew: ulvs simulate --plot {}", committed.display());
}

/// The recorded scenarios, but for those of schedulers alone: who listens must not change what is
/// heard.
#[test]
fn explaining_changes_nothing_else() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ipvs");
    let folders = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path());
    let files = folders.filter(|folder| !folder.display().to_string().contains("sched"));
    let files = files.flat_map(|folder| fs::read_dir(folder).unwrap());
    let mut explained = 0;
    for path in files.map(|entry| entry.unwrap().path()) {
        if path.extension().is_none_or(|extension| extension != "scn") {
            continue;
        }
        let steps = parse_scenario(&fs::read_to_string(&path).unwrap()).unwrap();
        let transcript = |explain| {
            let mut written = Vec::new();
            // Some steps are beyond the simulator; the transcript up to them is compared.
            let _ = play_in(Manner { explain }, &steps, &mut written);
            String::from_utf8(written).unwrap()
        };
        let (plain, full) = (transcript(false), transcript(true));
        let rest = full.lines().filter(|line| !line.starts_with("  |"));
        let rest: String = rest.map(|line| format!("{line}\n")).collect();
        assert_eq!(rest, plain, "{}", path.display());
        explained += usize::from(full.len() > plain.len());
    }
    assert!(explained > 150, "only {explained} scenarios have anything to explain");
}
