//! The processes of a lab as users run it, and what is left when parts of it are killed.

use std::io::Write;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Lab, assert_all_gone, find, needs_namespaces, run, ulvs};

/// A lab that is soon told.
const NAT: [&str; 3] = ["nat", "--requests", "2"];

fn listed(id: &str) -> bool {
    let output = run(ulvs().args(["lab", "list"]));
    String::from_utf8_lossy(&output.stdout).contains(&format!("process {id})"))
}

/// Starts a lab, kills the part of it whose command line has `victim` in it, and looks.
fn kill_and_look(victim: Option<&str>, expected: &str) {
    let mut lab = Lab::start(&NAT);
    let processes = lab.processes();
    assert_eq!(processes.len(), 8, "supervisor, six hosts, a director: {processes:?}");
    let id = lab.id();
    assert!(listed(&id));
    let target = victim.map_or(lab.keeper.id() as i32, |what| find(&processes, what));
    kill(Pid::from_raw(target), Signal::SIGKILL).unwrap();
    let (status, complaint) = lab.end();
    assert!(!status.success());
    assert!(complaint.contains(expected), "{complaint}");
    assert_all_gone(&processes);
    assert!(!listed(&id));
}

#[test]
fn nothing_is_left_of_a_killed_keeper() {
    needs_namespaces!();
    kill_and_look(None, "");
}

#[test]
fn nothing_is_left_of_a_killed_supervisor() {
    needs_namespaces!();
    kill_and_look(Some("lab supervise"), "the supervisor was killed by signal 9");
}

#[test]
fn a_killed_host_ends_the_lab_with_its_name() {
    needs_namespaces!();
    kill_and_look(
        Some("lab host real1"),
        "host real1 failed: its process ended (signal: 9 (SIGKILL))",
    );
}

#[test]
fn a_killed_director_ends_the_lab_with_its_last_words() {
    needs_namespaces!();
    kill_and_look(
        Some(" run --control"),
        "host director failed: `ulvs run` ended: signal: 9 (SIGKILL)",
    );
}

#[test]
fn an_interrupted_lab_is_taken_down() {
    needs_namespaces!();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut lab = Lab::start(&NAT);
        let processes = lab.processes();
        kill(Pid::from_raw(lab.keeper.id() as i32), signal).unwrap();
        let (status, complaint) = lab.end();
        assert_eq!(status.code(), Some(130));
        assert!(complaint.contains("interrupted"), "{complaint}");
        assert_all_gone(&processes);
    }
}

#[test]
fn enter_ends_a_kept_lab_with_its_verdict() {
    needs_namespaces!();
    let mut lab = Lab::start(&NAT);
    let processes = lab.processes();
    lab.keeper.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    let (status, complaint) = lab.end();
    assert_eq!((status.code(), complaint.as_str()), (Some(0), ""), "{}", lab.said);
    assert_all_gone(&processes);
}

#[test]
fn a_lab_whose_terminal_goes_away_is_taken_down() {
    needs_namespaces!();
    let mut lab = Lab::start(&NAT);
    let processes = lab.processes();
    drop(lab.keeper.stdin.take());
    let (status, _) = lab.end();
    assert_eq!(status.code(), Some(0));
    assert_all_gone(&processes);
}

#[test]
fn commands_on_hosts_pass_their_exit_status_on() {
    needs_namespaces!();
    let lab = Lab::start(&NAT);
    let code = |host: &str, command: &[&str]| lab.exec(host, command).status.code();
    assert_eq!(code("client", &["true"]), Some(0));
    assert_eq!(code("real2", &["sh", "-c", "exit 7"]), Some(7));
    assert_eq!(code("real1", &["sh", "-c", "kill -9 $$"]), Some(137));
    assert_eq!(code("switch", &["/no/such/program"]), Some(127));
    let hostname = lab.exec("storage", &["cat", "/proc/sys/kernel/hostname"]);
    assert_eq!(hostname.stdout, b"storage\n");
    let unknown = lab.exec("real9", &["true"]);
    assert_eq!(unknown.status.code(), Some(125));
    let complaint = String::from_utf8_lossy(&unknown.stderr);
    assert!(complaint.contains("client, director, switch, real1, real2, storage"), "{complaint}");
}

#[test]
fn ipvsadm_works_as_typed_on_the_director() {
    needs_namespaces!();
    let lab = Lab::start(&NAT);
    let listing = lab.exec("director", &["ipvsadm", "-Ln"]);
    let text = String::from_utf8_lossy(&listing.stdout);
    assert!(text.contains("TCP  12.0.0.1:80 rr"), "{text}");
    let wrong = lab.exec("director", &["ipvsadm", "-A"]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn entering_without_a_lab_says_how_to_start_one() {
    let output = run(ulvs().args(["lab", "exec", "--lab", "1", "client", "true"]));
    assert_eq!(output.status.code(), Some(125));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(complaint.contains("no lab"), "{complaint}");
}
