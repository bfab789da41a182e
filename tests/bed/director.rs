//! A director process for end-to-end tests.

use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use ulvs::lab::net::Namespace;

use super::PATIENCE;

/// A director process; it dies with the test.
pub struct Director {
    process: Child,
    directory: Directory,
}

#[allow(dead_code, reason = "each test program uses its part of the director")]
impl Director {
    /// Starts `ulvs run` with these options, on the interfaces of the NAT topology unless they say
    /// otherwise, and waits until it announces that it is ready.
    pub fn start(host: &Namespace, options: &[&str]) -> Self {
        Self::start_by(host.command(env!("CARGO_BIN_EXE_ulvs")), options)
    }

    /// The same by a command that runs the program it is given.
    pub fn start_by(mut command: Command, options: &[&str]) -> Self {
        let directory = Directory::new();
        let notify = directory.path().join("notify");
        let readiness = UnixDatagram::bind(&notify).unwrap();
        readiness.set_read_timeout(Some(PATIENCE)).unwrap();
        let log = File::create(directory.path().join("log")).unwrap();
        command.args(["run", "--control"]).arg(directory.path().join("control")).args(options);
        let says = |option: &&str| option.starts_with("--tun") || *option == "--interface";
        if !options.iter().any(says) {
            command.args(["--interface", "out", "--interface", "in"]);
        }
        command.env("NOTIFY_SOCKET", &notify).stdin(Stdio::null()).stdout(Stdio::null());
        let process = command.stderr(log).spawn().unwrap();
        let director = Director { process, directory };
        let mut message = [0; 256];
        let length = readiness.recv(&mut message).expect("the director announces that it is ready");
        let message = String::from_utf8_lossy(&message[..length]).into_owned();
        assert!(message.contains("READY=1"), "{message}");
        director
    }

    pub fn control(&self) -> PathBuf {
        self.directory.path().join("control")
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Runs a command of ulvs as the administrator of the director's host.
    pub fn run(&self, host: &Namespace, line: &str) -> Output {
        let mut command = host.command(env!("CARGO_BIN_EXE_ulvs"));
        command.args(line.split_ascii_whitespace()).env("ULVS_CONTROL", self.control());
        command.output().unwrap()
    }

    /// Runs a command that must succeed. Returns what it printed.
    pub fn ulvs(&self, host: &Namespace, line: &str) -> String {
        let output = self.run(host, line);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ulvs {line}: {}: {complaint}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Kills it as the kernel's memory guard would, and waits until it is gone.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub fn is_alive(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }
}

impl Drop for Director {
    fn drop(&mut self) {
        // It may have been killed before.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("the director said:\n{}", self.log());
        }
    }
}

/// A directory for sockets, which is removed at the end; what a killed test left is removed by the
/// next one.
struct Directory(PathBuf);

static NEXT: AtomicU32 = AtomicU32::new(0);
const PREFIX: &str = "ulvs-test-";

impl Directory {
    fn new() -> Self {
        remove_abandoned();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
        Directory(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn remove_abandoned() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let process = rest.split('-').next().unwrap_or_default();
        if !process.is_empty() && !Path::new("/proc").join(process).exists() {
            // Another user's cannot be removed, and another test may be removing it too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
