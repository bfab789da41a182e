//! Labs as users run them.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::unistd::geteuid;

const PATIENCE: Duration = Duration::from_secs(30);

/// Says why and returns if this system lets nobody make namespaces here.
macro_rules! needs_namespaces {
    () => {
        if let Err(why) = crate::support::can_isolate() {
            println!("skipped: {why}");
            return;
        }
    };
}

pub(crate) use needs_namespaces;

pub fn can_isolate() -> Result<(), String> {
    let status = Command::new("/proc/self/exe").arg("--list").stdout(Stdio::null()).status();
    status.map_err(|error| error.to_string())?;
    if geteuid().is_root() {
        return Ok(());
    }
    let limit = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    if limit.trim() == "0" { Err("user.max_user_namespaces is 0".to_owned()) } else { Ok(()) }
}

pub fn ulvs() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ulvs"))
}

pub fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

/// A lab that stays up.
pub struct Lab {
    pub keeper: Child,
    pub said: String,
}

impl Lab {
    /// Starts a lab and waits until its story is told.
    pub fn start(arguments: &[&str]) -> Self {
        let mut command = ulvs();
        command.arg("lab").args(arguments).arg("--keep");
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

    pub fn id(&self) -> String {
        self.keeper.id().to_string()
    }

    pub fn exec(&self, host: &str, command: &[&str]) -> Output {
        run(ulvs().args(["lab", "exec", "--lab", &self.id(), host, "--"]).args(command))
    }

    /// The processes of the lab: those below the keeper, by what they are.
    pub fn processes(&self) -> HashMap<String, i32> {
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
    pub fn end(&mut self) -> (ExitStatus, String) {
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

pub fn find(processes: &HashMap<String, i32>, what: &str) -> i32 {
    let found = processes.iter().find(|(command, _)| command.contains(what));
    *found.unwrap_or_else(|| panic!("no '{what}' in {processes:?}")).1
}

/// Waits until none of the processes is left.
pub fn assert_all_gone(processes: &HashMap<String, i32>) {
    let deadline = Instant::now() + PATIENCE;
    let left = || processes.iter().filter(|(command, id)| command_line(**id) == **command).count();
    while left() > 0 {
        assert!(Instant::now() < deadline, "{} of {processes:?} are left", left());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A copy of the program where everybody can read it.
pub struct OwnCopy(pub PathBuf);

impl OwnCopy {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ulvs-copy-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::copy(env!("CARGO_BIN_EXE_ulvs"), &path).unwrap();
        OwnCopy(path)
    }
}

impl Drop for OwnCopy {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
