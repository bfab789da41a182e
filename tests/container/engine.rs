//! A container engine of the test's own: dockerd in network, process and mount namespaces that end
//! with it, whatever happens to the test. Only directories of control groups have to be removed by
//! hand; what a killed test left of them is removed by the next one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use ulvs::lab::net::Namespace;

/// How long anything may take: an engine on a machine that has other things to do.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A running engine.
pub struct Engine {
    /// The network namespace of its bridges.
    pub host: Namespace,
    daemon: Child,
    /// Names its directory and its control groups.
    name: String,
}

/// A container's first process.
pub struct Process {
    /// Its number, as the test sees it.
    pub id: u32,
    pub network: Namespace,
}

impl Engine {
    /// Starts one. `None`, having said why, where there is none to be started.
    pub fn start() -> Option<Self> {
        for program in ["docker", "dockerd", "unshare"] {
            if Command::new(program).arg("--version").output().is_err() {
                println!("skipped: {program} is not installed");
                return None;
            }
        }
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: a container engine needs root");
            return None;
        }
        remove_abandoned();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        fs::create_dir_all(directory(&name).join("root")).unwrap();
        let host = Namespace::new("engine").unwrap();
        let log = fs::File::create(directory(&name).join("log")).unwrap();
        let mut command = host.command("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-ec", DAEMON, "dockerd"]).arg(directory(&name)).arg(&name);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut engine = Self { host, daemon: command.spawn().unwrap(), name };
        let start = Instant::now();
        while !engine.run(&["version"]).status.success() {
            if engine.daemon.try_wait().unwrap().is_some() || start.elapsed() > PATIENCE {
                let log = fs::read_to_string(engine.path("log")).unwrap_or_default();
                println!("skipped: dockerd does not start here:\n{log}");
                return None;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(engine)
    }

    /// A place for files of the test; everybody sees them.
    pub fn path(&self, name: &str) -> PathBuf {
        directory(&self.name).join(name)
    }

    /// A program that talks to this engine.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("DOCKER_HOST", format!("unix://{}", self.path("socket").display()));
        // Neither contexts nor credentials of whoever runs the tests.
        command.env("DOCKER_CONFIG", self.path("config")).stdin(Stdio::null());
        command
    }

    /// What came of a docker command.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command("docker").args(arguments).output().unwrap()
    }

    /// Runs a docker command that must succeed. Returns what it printed.
    pub fn docker(&self, line: &str) -> String {
        let arguments: Vec<_> = line.split_ascii_whitespace().collect();
        succeeded(line, self.run(&arguments))
    }

    /// What a container has said.
    pub fn log(&self, container: &str) -> String {
        let Output { stdout, stderr, .. } = self.run(&["logs", container]);
        String::from_utf8([stdout, stderr].concat()).unwrap()
    }

    /// Waits until a container has said something.
    pub fn wait_for(&self, container: &str, words: &str) {
        wait(|| match self.log(container).contains(words) {
            true => Ok(()),
            false => Err(format!("{container} did not say `{words}':\n{}", self.log(container))),
        });
    }

    /// Something that the engine knows of a container, as a template of Go's.
    pub fn inspect(&self, container: &str, template: &str) -> String {
        let said = self.run(&["inspect", "--format", template, container]);
        succeeded("docker inspect", said).trim().to_owned()
    }

    /// The first process of a container that runs.
    pub fn process(&self, container: &str) -> Process {
        // The engine's own number for it is one of the engine's process namespace.
        let id = self.inspect(container, "{{.Id}}");
        let is_first = |process: &u32| {
            let read = |file| fs::read_to_string(format!("/proc/{process}/{file}"));
            let status = read("status").unwrap_or_default();
            let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            let innermost = numbers.and_then(|numbers| numbers.split_ascii_whitespace().last());
            innermost == Some("1") && read("cgroup").is_ok_and(|groups| groups.contains(&id))
        };
        let id = processes().find(is_first).expect("a container that runs has a first process");
        let network = fs::File::open(format!("/proc/{id}/ns/net")).unwrap();
        let enter = || {
            setns(network, CloneFlags::CLONE_NEWNET).unwrap();
            Namespace::current(container).unwrap()
        };
        let network = std::thread::scope(|scope| scope.spawn(enter).join().unwrap());
        Process { id, network }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let containers = String::from_utf8(self.run(&["ps", "-aq"]).stdout).unwrap();
            for container in containers.lines() {
                eprintln!("container {container} said:\n{}", self.log(container));
            }
        }
        // Its namespaces end with it, and with those everything that it started.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        remove(&self.name);
    }
}

/// Runs until `attempt` succeeds, and fails as it does when that takes too long.
pub fn wait<T>(attempt: impl Fn() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(problem) => assert!(start.elapsed() < PATIENCE, "{problem}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What a command printed that must succeed.
pub fn succeeded(line: &str, output: Output) -> String {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {}: {complaint}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Starts the daemon on file systems of its own, given its directory and its control groups' name;
/// with its firewall rules where it can make them, in the network namespace that it is in.
const DAEMON: &str = r#"
    mount -t tmpfs tmpfs /run
    mount -t tmpfs tmpfs "$1/root"
    iptables -t nat -S >/dev/null 2>&1 || firewall="--iptables=false --ip6tables=false"
    exec dockerd $firewall --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/$2" \
        --data-root "$1/root/data" --exec-root "$1/root/exec" \
        --pidfile "$1/root/pid" --host "unix://$1/socket"
"#;

const PREFIX: &str = "ulvs-engine-";
const GROUPS: &str = "/sys/fs/cgroup";

fn directory(name: &str) -> PathBuf {
    std::env::temp_dir().join(name)
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Removes what there is of an engine that has ended.
fn remove(name: &str) {
    let _ = fs::remove_dir_all(directory(name));
    for group in hierarchies().map(|hierarchy| hierarchy.join(name)).filter(|path| path.exists()) {
        // The last processes may still be ending.
        let start = Instant::now();
        while !remove_groups(&group) && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Where a control group can be: at the top, or in a hierarchy of version 1.
fn hierarchies() -> impl Iterator<Item = PathBuf> {
    let below = fs::read_dir(GROUPS).into_iter().flatten().flatten().map(|entry| entry.path());
    std::iter::once(GROUPS.into()).chain(below.filter(|path| path.is_dir()))
}

/// Removes a control group with those in it. Whether it is gone.
fn remove_groups(group: &Path) -> bool {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    fs::remove_dir(group).is_ok() || !group.exists()
}

fn remove_abandoned() {
    for place in hierarchies().chain([std::env::temp_dir()]) {
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            let process = rest.split('-').next().unwrap_or_default();
            if !process.is_empty() && !Path::new("/proc").join(process).exists() {
                remove(&name);
            }
        }
    }
}
