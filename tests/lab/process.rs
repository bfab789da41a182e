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
fn rules_are_saved_where_textbooks_save_them_and_the_machine_has_none() {
    needs_namespaces!();
    let saved = || std::fs::read("/etc/sysconfig/ipvsadm").ok();
    let before = saved();
    let lab = Lab::start(&NAT);
    let shell = |script: &str| {
        let output = lab.exec("director", &["sh", "-c", script]);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {complaint}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let listing = shell("ipvsadm -Ln");
    shell("ipvsadm --save > /etc/sysconfig/ipvsadm");
    assert!(shell("cat /etc/sysconfig/ipvsadm").contains("-A -t 12.0.0.1:http -s rr\n"));
    assert_eq!(saved(), before);
    shell("ipvsadm -C; ipvsadm --restore < /etc/sysconfig/ipvsadm");
    assert_eq!(shell("ipvsadm -Ln").lines().count(), listing.lines().count());
    assert_eq!(shell("cat /etc/passwd"), std::fs::read_to_string("/etc/passwd").unwrap());
}

#[test]
fn iptables_works_as_typed_on_the_director() {
    needs_namespaces!();
    let lab = Lab::start(&NAT);
    let typed = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let output = lab.exec("director", &words);
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    let rule = "-s 192.168.200.0/24 -j SNAT --to-source 12.0.0.1";
    assert_eq!(typed("iptables -t nat -F"), (Some(0), String::new()));
    assert_eq!(typed(&format!("iptables -t nat -A POSTROUTING -o out {rule}")).0, Some(0));
    let (status, said) = typed(&format!("iptables -t nat -A POSTROUTING -o ens36 {rule}"));
    assert_eq!(status, Some(0));
    assert!(
        said.starts_with("hint: there is no interface ens36 here for now; there are "),
        "{said}"
    );
    let (_, listed) = typed("ulvs snat -S");
    assert_eq!(listed.lines().count(), 3, "{listed}");
    let mark = "-A PREROUTING -p tcp -d 12.0.0.1 --dport 80 -j MARK --set-mark 10";
    assert_eq!(typed(&format!("iptables -t mangle {mark}")).0, Some(0));
    assert!(typed("ulvs mark -S").1.contains("--dport 80"), "{}", typed("ulvs mark -S").1);
    let (status, said) = typed("iptables -L");
    assert!(status == Some(2) && said.contains("/usr/sbin/iptables"), "{said}");
}

#[test]
fn entering_without_a_lab_says_how_to_start_one() {
    let output = run(ulvs().args(["lab", "exec", "--lab", "1", "client", "true"]));
    assert_eq!(output.status.code(), Some(125));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(complaint.contains("no lab"), "{complaint}");
}
