//! The supervisor: first process of the lab's process namespace. It builds the network, starts
//! the hosts, tells the story, and ends everything when a host ends.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::host::{Order, Report};
use super::keeper::{Plan, ToKeeper};
use super::registry::HostDescription;
use super::{THIS_PROGRAM, channel, isolate, take_name};
use crate::lab::net::Namespace;
use crate::lab::network::Network;
use crate::lab::story;
use crate::lab::topology::{Host, Program, Topology};

/// A running lab, as its story sees it.
#[derive(Debug)]
pub struct Lab {
    topology: Topology,
    hosts: Vec<LabHost>,
}

/// A running host.
#[derive(Debug)]
pub struct LabHost {
    namespace: Namespace,
    process: OwnedFd,
    orders: UnixStream,
    reports: Mutex<Receiver<Report>>,
    /// What its programs said when they started.
    pub said: Vec<String>,
}

/// How a command on a host ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Exit status; 128 and the signal, if one killed it.
    pub status: i32,
    /// What it said.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

/// Is the supervisor of a lab: does what the keeper planned.
pub fn supervise() -> ExitCode {
    let Ok(keeper) = channel::inherited() else {
        eprintln!("ulvs lab supervise is started by the lab itself; start one with: ulvs lab nat");
        return ExitCode::from(2);
    };
    match lead(&keeper) {
        Ok(code) => code,
        Err(error) => {
            // Who closed the pipe that this writes to has seen enough.
            let pipe = error.downcast_ref::<io::Error>().map(io::Error::kind);
            if pipe != Some(io::ErrorKind::BrokenPipe) {
                complain(&error.to_string());
            }
            ExitCode::FAILURE
        }
    }
}

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

fn lead(keeper: &UnixStream) -> Result<ExitCode> {
    take_name();
    let mut from_keeper = channel::Incoming::new(keeper.try_clone()?);
    let Some(plan) = from_keeper.next::<Plan>()? else { return Ok(ExitCode::FAILURE) };
    isolate::settle_supervisor()?;
    let story = story::find(&plan.story)?;
    let lab = Lab::start(story.topology())?;
    lab.announce(keeper)?;
    let verdict = story::tell(story, &lab, &plan)?;
    if plan.keep {
        channel::send(keeper, &ToKeeper::Kept)?;
        // Until the keeper says or is gone, which is the same.
        while from_keeper.next::<()>()?.is_some() {}
    }
    Ok(if verdict { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Lab {
    /// Builds the network and starts the hosts: storage first, then those that need it.
    fn start(topology: Topology) -> Result<Lab> {
        let network = Network::build(&topology)?;
        let hosts = topology.hosts.iter().map(|host| LabHost::start(network.host(host.name)?));
        let mut lab = Lab { hosts: hosts.collect::<Result<_>>()?, topology };
        let mut order: Vec<usize> = (0..lab.topology.hosts.len()).collect();
        order.sort_by_key(|index| rank(&lab.topology.hosts[*index]));
        for index in order {
            let programs = lab.topology.hosts[index].programs.clone();
            let host = &mut lab.hosts[index];
            host.said = host.start_programs(programs)?;
        }
        Ok(lab)
    }

    /// What it consists of.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// A host.
    ///
    /// **Panics** — if the topology has none of that name: the story and the topology are written
    /// together.
    pub fn host(&self, name: &str) -> &LabHost {
        let found = self.hosts.iter().find(|host| host.namespace.name() == name);
        found.unwrap_or_else(|| panic!("topology {} has no host {name}", self.topology.name))
    }

    fn announce(&self, keeper: &UnixStream) -> io::Result<()> {
        let describe = |host: &Host| HostDescription {
            name: host.name.to_owned(),
            address: self.topology.address(host.name).map_or_else(String::new, |a| a.to_string()),
            director: host.programs.iter().any(|p| matches!(p, Program::Director { .. })),
        };
        let hosts = self.topology.hosts.iter().map(describe).collect();
        let processes: Vec<_> = self.hosts.iter().map(|host| host.process.as_fd()).collect();
        channel::send_with_descriptors(keeper, &ToKeeper::Up(hosts), &processes)
    }
}

/// The place of a host in the order of starting.
fn rank(host: &Host) -> usize {
    let of = |program: &Program| match program {
        Program::Storage { .. } | Program::Translate { .. } => 0,
        Program::Web { .. }
        | Program::Files { .. }
        | Program::Database { .. }
        | Program::Decap { .. } => 1,
        Program::Director { .. } => 2,
    };
    host.programs.iter().map(of).max().unwrap_or(0)
}

impl LabHost {
    fn start(namespace: &Namespace) -> Result<LabHost> {
        let (orders, theirs) = UnixStream::pair()?;
        let mut command = namespace.command_detached(THIS_PROGRAM);
        command
            .arg0("ulvs")
            .args(["lab", "host", namespace.name()])
            .stdin(Stdio::from(OwnedFd::from(theirs)));
        // Ctrl-C at the terminal is the keeper's to hear.
        command.process_group(0);
        let child = command.spawn()?;
        // The command holds their end of the channel, whose closing tells of the host's end.
        drop(command);
        let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        let (sender, reports) = mpsc::channel();
        watch(namespace.name().to_owned(), child, orders.try_clone()?, sender)?;
        let namespace = namespace.clone();
        Ok(LabHost { namespace, process, orders, reports: Mutex::new(reports), said: Vec::new() })
    }

    /// Its network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Runs a command on it.
    pub fn run(&self, command: &[&str]) -> io::Result<Output> {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        match self.request(&Order::Run(command))? {
            Report::Output { status, stdout, stderr } => Ok(Output { status, stdout, stderr }),
            other => Err(unexpected(&other)),
        }
    }

    /// Starts programs on it, besides those that run already. Returns what they said.
    pub fn start_programs(&self, programs: Vec<Program>) -> io::Result<Vec<String>> {
        match self.request(&Order::Start(programs))? {
            Report::Ready(said) => Ok(said),
            other => Err(unexpected(&other)),
        }
    }

    fn request(&self, order: &Order) -> io::Result<Report> {
        let reports = self.reports.lock().map_err(|_| io::Error::other("a host's thread died"))?;
        let answer = match channel::send(&self.orders, order) {
            Ok(()) => reports.recv().ok(),
            Err(_) => None,
        };
        answer.ok_or_else(|| {
            // The watcher knows better why, and ends this process when it has said so.
            thread::sleep(Duration::from_secs(5));
            io::Error::other(format!("host {} does not answer", self.namespace.name()))
        })
    }
}

/// Passes a host's reports on, and ends the lab when the host cannot go on or ends.
fn watch(name: String, mut child: Child, from: UnixStream, to: Sender<Report>) -> io::Result<()> {
    thread::Builder::new().name(name.clone()).spawn(move || {
        let mut reports = channel::Incoming::new(from);
        let why = loop {
            match reports.next() {
                Ok(Some(Report::Failed(why))) => break why,
                // Nobody waits for it only while this process ends.
                Ok(Some(report)) => drop(to.send(report)),
                Ok(None) | Err(_) => {
                    break match child.wait() {
                        Ok(status) => format!("its process ended ({status})"),
                        Err(error) => format!("its process is lost ({error})"),
                    };
                }
            }
        };
        complain(&format!("host {name} failed: {why}"));
        std::process::exit(1);
    })?;
    Ok(())
}

fn complain(why: &str) {
    eprintln!("\nulvs lab: {why}\nulvs lab: the lab has been taken down.");
}

fn unexpected(report: &Report) -> io::Error {
    io::Error::other(format!("a host answered with {report:?}"))
}
