//! The `ulvs simulate` command: what it prints, and how it refuses.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

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
