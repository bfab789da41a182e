//! The lab as a user runs it, and what is left when parts of it are killed.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

const PATIENCE: Duration = Duration::from_secs(30);

/// Says why and returns if this system lets nobody make namespaces here.
macro_rules! needs_namespaces {
    () => {
        if let Err(why) = can_isolate() {
            println!("skipped: {why}");
            return;
        }
    };
}

fn can_isolate() -> Result<(), String> {
    let status = Command::new("/proc/self/exe").arg("--list").stdout(Stdio::null()).status();
    status.map_err(|error| error.to_string())?;
    if geteuid().is_root() {
        return Ok(());
    }
    let limit = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    if limit.trim() == "0" { Err("user.max_user_namespaces is 0".to_owned()) } else { Ok(()) }
}

fn ulvs() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ulvs"))
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

/// A lab that stays up.
struct Lab {
    keeper: Child,
    said: String,
}

impl Lab {
    fn start() -> Self {
        let mut command = ulvs();
        command.args(["lab", "nat", "--keep", "--requests", "2"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut keeper = command.spawn().unwrap();
        let mut output = BufReader::new(keeper.stdout.take().unwrap());
        let mut said = String::new();
        while !said.contains("Enter or Ctrl-C ends it.") {
            if output.read_line(&mut said).unwrap() == 0 {
                let mut complaint = String::new();
                keeper.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
                panic!("the lab ended early:\n{said}\n{complaint}");
            }
        }
        Lab { keeper, said }
    }

    fn id(&self) -> String {
        self.keeper.id().to_string()
    }

    fn exec(&self, host: &str, command: &[&str]) -> Output {
        run(ulvs().args(["lab", "exec", "--lab", &self.id(), host, "--"]).args(command))
    }

    /// The processes of the lab: those below the keeper, by what they are.
    fn processes(&self) -> HashMap<String, i32> {
        let mut found = HashMap::new();
        let mut parents = vec![self.keeper.id() as i32];
        while let Some(parent) = parents.pop() {
            for child in children(parent) {
                found.insert(command_line(child), child);
                parents.push(child);
            }
        }
        found
    }

    /// Waits for the keeper's end. Returns how it ended and what it complained about.
    fn end(&mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.keeper.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the lab does not end");
            std::thread::sleep(Duration::from_millis(10));
        };
        let mut complaint = String::new();
        self.keeper.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
        (status, complaint)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

fn children(parent: i32) -> Vec<i32> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(process) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        if after_name.split_whitespace().nth(1) == Some(parent.to_string().as_str()) {
            children.push(process);
        }
    }
    children
}

fn command_line(process: i32) -> String {
    let bytes = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim_end().to_owned()
}

fn find(processes: &HashMap<String, i32>, what: &str) -> i32 {
    let found = processes.iter().find(|(command, _)| command.contains(what));
    *found.unwrap_or_else(|| panic!("no '{what}' in {processes:?}")).1
}

/// Waits until none of the processes is left.
fn assert_all_gone(processes: &HashMap<String, i32>) {
    let deadline = Instant::now() + PATIENCE;
    let left = || processes.iter().filter(|(command, id)| command_line(**id) == **command).count();
    while left() > 0 {
        assert!(Instant::now() < deadline, "{} of {processes:?} are left", left());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn listed(id: &str) -> bool {
    let output = run(ulvs().args(["lab", "list"]));
    String::from_utf8_lossy(&output.stdout).contains(&format!("process {id})"))
}

/// Starts a lab, kills the part of it whose command line has `victim` in it, and looks.
fn kill_and_look(victim: Option<&str>, expected: &str) {
    let mut lab = Lab::start();
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
        let mut lab = Lab::start();
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
    let mut lab = Lab::start();
    let processes = lab.processes();
    lab.keeper.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    let (status, complaint) = lab.end();
    assert_eq!((status.code(), complaint.as_str()), (Some(0), ""), "{}", lab.said);
    assert_all_gone(&processes);
}

#[test]
fn a_lab_whose_terminal_goes_away_is_taken_down() {
    needs_namespaces!();
    let mut lab = Lab::start();
    let processes = lab.processes();
    drop(lab.keeper.stdin.take());
    let (status, _) = lab.end();
    assert_eq!(status.code(), Some(0));
    assert_all_gone(&processes);
}

#[test]
fn commands_on_hosts_pass_their_exit_status_on() {
    needs_namespaces!();
    let lab = Lab::start();
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
    let lab = Lab::start();
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

#[test]
fn the_lab_keeps_its_promises() {
    needs_namespaces!();
    let output = run(ulvs().args(["lab", "nat"]));
    assert_promises_kept(&output);
}

#[test]
fn an_unprivileged_user_without_a_home_can_run_the_lab() {
    needs_namespaces!();
    if !geteuid().is_root() {
        println!("skipped: the other tests run unprivileged already");
        return;
    }
    // The user may not be allowed to look where this was built.
    let program = OwnCopy::new();
    let mut command = Command::new(&program.0);
    command.args(["lab", "nat"]).uid(65534).gid(65534).env_remove("HOME").current_dir("/");
    assert_promises_kept(&run(&mut command));
}

fn assert_promises_kept(output: &Output) {
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}\n{complaint}");
    assert!(said.contains("director# ipvsadm -A -t 12.0.0.1:80 -s rr"), "{said}");
    assert_eq!(said.matches("  this is benet web ").count(), 3, "{said}");
    assert_eq!(said.matches("  this is accp web ").count(), 3, "{said}");
    assert!(!said.contains("  NO  "), "{said}");
    assert!(said.lines().all(|line| line.chars().count() <= 100), "{said}");
    assert!(!said.contains('\x1b'), "no colours where there is no terminal: {said}");
}

/// A copy of the program where everybody can read it.
struct OwnCopy(PathBuf);

impl OwnCopy {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("ulvs-copy-{}", std::process::id()));
        fs::copy(env!("CARGO_BIN_EXE_ulvs"), &path).unwrap();
        OwnCopy(path)
    }
}

impl Drop for OwnCopy {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
