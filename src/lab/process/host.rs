//! A host's process: it is what keeps the host's namespaces alive, and runs its programs.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddrV4;
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::sethostname;
use serde::{Deserialize, Serialize};

use super::etc;
use super::isolate::mount_virtual;
use super::{CONTROL_SOCKET, HOST_DIRECTORY, HOST_PROGRAMS, channel, host_path, take_name};
use crate::lab::services::dnat::DestinationNat;
use crate::lab::services::{ftp, mysql, nfs};
use crate::lab::topology::{Content, Program};
use crate::lab::web::{self, Site, WebServer};

/// What the supervisor wants of a host.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Start these programs; answered with [`Report::Ready`].
    Start(Vec<Program>),
    /// Run this command; answered with [`Report::Output`].
    Run(Vec<String>),
}

/// What a host tells the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// All programs run; what they said.
    Ready(Vec<String>),
    /// How a command ended: its exit status (128 and the signal, if one killed it) and its output.
    Output { status: i32, stdout: String, stderr: String },
    /// The host cannot go on.
    Failed(String),
}

/// Is the process of the host `name`, until the supervisor is gone.
pub fn be_host(name: &str) -> ExitCode {
    let Ok(channel) = channel::inherited() else {
        eprintln!("ulvs lab host is started by the lab itself; start a lab with: ulvs lab nat");
        return ExitCode::from(2);
    };
    match settle(name).and_then(|()| serve(&channel)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If it cannot be told, the supervisor sees the end of this process.
            let _ = channel::send(&channel, &Report::Failed(error.to_string()));
            ExitCode::FAILURE
        }
    }
}

/// Gives the host a name and file systems of its own.
fn settle(name: &str) -> io::Result<()> {
    take_name();
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)?;
    sethostname(name)?;
    mount_virtual("tmpfs", "/run")?;
    // Shows the host's own interfaces; a container may not allow it, and little needs it.
    let _ = mount_virtual("sysfs", "/sys");
    fs::create_dir_all(HOST_PROGRAMS)?;
    fs::create_dir_all(Path::new(CONTROL_SOCKET).with_file_name(""))?;
    let program = std::env::current_exe()?;
    for name in ["ulvs", "ipvsadm"] {
        symlink(&program, Path::new(HOST_PROGRAMS).join(name))?;
    }
    Ok(())
}

/// Does what the supervisor orders.
fn serve(channel: &UnixStream) -> io::Result<()> {
    let mut orders = channel::Incoming::new(channel.try_clone()?);
    let mut running = Running::default();
    while let Some(order) = orders.next()? {
        let report = match order {
            Order::Start(programs) => Report::Ready(running.start_all(&programs, channel)?),
            Order::Run(command) => run(&command),
        };
        channel::send(channel, &report)?;
    }
    Ok(())
}

/// The programs that live in this process.
#[derive(Default)]
struct Running {
    webs: Vec<WebServer>,
    translations: Vec<DestinationNat>,
}

impl Running {
    fn start_all(&mut self, programs: &[Program], channel: &UnixStream) -> io::Result<Vec<String>> {
        let mut said = Vec::new();
        for program in programs {
            match program {
                Program::Director { interfaces } => {
                    said.extend(start_director(interfaces, channel)?)
                }
                Program::Decap { virtual_address, kind, from } => {
                    let (vip, from) = (virtual_address.to_string(), from.to_string());
                    let words = ["--vip", &vip, "--type", kind, "--from", &from];
                    said.extend(start("decap", &words, channel)?);
                }
                Program::Storage { listen, files } => {
                    nfs::serve(*listen, files)?;
                    let paths: Vec<&str> = files.iter().map(|(path, _)| path.as_str()).collect();
                    said.push(format!("serves {} by NFS", paths.join(" and ")));
                }
                Program::Files { listen } => ftp::serve(*listen, &hostname()?)?,
                Program::Database { listen } => mysql::serve(*listen, &hostname()?)?,
                Program::Translate { translations } => {
                    self.translations.push(DestinationNat::start(translations)?);
                    said.extend(translations.iter().map(in_words_of_iptables));
                }
                Program::Web { listen, page } => {
                    let page = content(page, &mut said)?;
                    let site = Site::new(&hostname()?).page("/", "text/html; charset=utf-8", page);
                    self.webs.push(WebServer::start(web::listen(*listen, 1)?, site)?);
                }
            }
        }
        Ok(said)
    }
}

fn in_words_of_iptables((from, to): &(SocketAddrV4, SocketAddrV4)) -> String {
    format!(
        "translates as if told: iptables -t nat -A PREROUTING -d {} -p tcp --dport {} -j DNAT \
         --to-destination {to}",
        from.ip(),
        from.port()
    )
}

/// A web server's page. Says where it came from, if that is worth saying.
fn content(page: &Content, said: &mut Vec<String>) -> io::Result<Vec<u8>> {
    match page {
        Content::Text(text) => Ok(text.clone().into_bytes()),
        Content::Stored { storage, file } => {
            let page = nfs::fetch(*storage, file)?;
            let (from, bytes) = (storage.ip(), page.len());
            said.push(format!("got {file} by NFS from {from} ({bytes} bytes)"));
            Ok(page)
        }
    }
}

/// Starts `ulvs run` on these interfaces, on a host where what textbooks have typed works.
fn start_director(interfaces: &[String], channel: &UnixStream) -> io::Result<Vec<String>> {
    symlink(std::env::current_exe()?, Path::new(HOST_PROGRAMS).join("iptables"))?;
    // A container may not allow it; then there is only nowhere to save rules.
    let _ = etc::cover();
    let mut words = vec!["--control", CONTROL_SOCKET];
    for interface in interfaces {
        words.extend(["--interface", interface]);
    }
    start("run", &words, channel)
}

/// Starts a command of ulvs, waits until it announces that it is ready, and watches it. Returns what
/// it said until then.
fn start(name: &str, words: &[&str], channel: &UnixStream) -> io::Result<Vec<String>> {
    let notify = format!("{HOST_DIRECTORY}/notify.sock");
    let readiness = UnixDatagram::bind(&notify)?;
    let mut command = Command::new(Path::new(HOST_PROGRAMS).join("ulvs"));
    command.arg(name).args(words);
    command.env("NOTIFY_SOCKET", &notify).env("PATH", host_path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut program =
        Started { name: name.to_owned(), child: command.spawn()?, said: Said::default() };
    program.listen()?;
    program.await_readiness(&readiness)?;
    // It says so on its standard error as well, which may take longer.
    for _ in 0..READY_TRIES {
        if lock(&program.said).iter().any(|line| line.contains("ready")) {
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    let so_far = Vec::from(lock(&program.said).clone());
    let channel = channel.try_clone()?;
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        let end = program.child.wait();
        let end = end.map_or_else(|error| error.to_string(), |end| end.to_string());
        thread::sleep(Duration::from_millis(50));
        let _ = channel::send(&channel, &Report::Failed(program.ended(&end)));
        std::process::exit(1);
    })?;
    Ok(so_far)
}

/// A command of ulvs that was started.
struct Started {
    name: String,
    child: Child,
    said: Said,
}

impl Started {
    fn listen(&mut self) -> io::Result<()> {
        let Some(stderr) = self.child.stderr.take() else { return Ok(()) };
        let kept = Arc::clone(&self.said);
        thread::Builder::new().name("log".to_owned()).spawn(move || {
            // Bytes, since a line that is not UTF-8 must not end the reading: the writer would
            // block.
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let mut kept = lock(&kept);
                if kept.len() == LINES_KEPT {
                    kept.pop_front();
                }
                kept.push_back(String::from_utf8_lossy(&line).into_owned());
            }
        })?;
        Ok(())
    }

    fn await_readiness(&mut self, readiness: &UnixDatagram) -> io::Result<()> {
        readiness.set_read_timeout(Some(Duration::from_millis(100)))?;
        let mut message = [0; 4096];
        for _ in 0..READY_TRIES {
            if let Ok(length) = readiness.recv(&mut message)
                && message[..length].split(|b| *b == b'\n').any(|line| line == b"READY=1")
            {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                thread::sleep(Duration::from_millis(50));
                return Err(io::Error::other(self.ended(&status.to_string())));
            }
        }
        Err(io::Error::other(self.ended("not ready after 15 s")))
    }

    fn ended(&self, how: &str) -> String {
        let mut text = format!("`ulvs {}` ended: {how}", self.name);
        for line in lock(&self.said).iter() {
            text.push_str("\n  ");
            text.push_str(line);
        }
        text
    }
}

/// The last lines that a program said.
type Said = Arc<Mutex<VecDeque<String>>>;

/// So many of them are kept.
const LINES_KEPT: usize = 50;

/// Tenths of a second that a program may take to start.
const READY_TRIES: u32 = 150;

fn lock(said: &Said) -> std::sync::MutexGuard<'_, VecDeque<String>> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(command: &[String]) -> Report {
    let Some((program, arguments)) = command.split_first() else {
        return Report::Failed("an empty command cannot be run".to_owned());
    };
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", host_path())
        .env("ULVS_CONTROL", CONTROL_SOCKET)
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) => Report::Output {
            status: super::enter::exit_code(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        },
        Err(error) => Report::Output {
            status: 127,
            stdout: String::new(),
            stderr: format!("{program}: {error}\n"),
        },
    }
}

fn hostname() -> io::Result<String> {
    Ok(nix::unistd::gethostname()?.to_string_lossy().into_owned())
}
