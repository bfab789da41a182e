//! Where a story is told: a running lab, the reader, and what was promised so far.

use std::fmt::Display;
use std::io;

use super::{Told, Voice, draw};
use crate::lab::process::{Lab, LabHost, Plan, typed_program};
use crate::lab::topology::Program;

/// A running lab on which a story is told.
#[derive(Debug)]
pub struct Scene<'a> {
    lab: &'a Lab,
    plan: &'a Plan,
    voice: Voice,
    promises: Vec<Promise>,
}

/// What the lab has to show, and whether it did.
#[derive(Debug)]
struct Promise {
    is_kept: bool,
    text: String,
}

impl<'a> Scene<'a> {
    /// A story's beginning, with nothing said yet.
    pub fn new(lab: &'a Lab, plan: &'a Plan) -> Self {
        Scene { lab, plan, voice: Voice::new(plan.colour), promises: Vec::new() }
    }

    /// The lab.
    pub fn lab(&self) -> &'a Lab {
        self.lab
    }

    /// A host of the lab.
    pub fn host(&self, name: &str) -> &'a LabHost {
        self.lab.host(name)
    }

    /// How many requests the client makes: what the user said, or else what the story says.
    pub fn requests(&self, of_the_story: usize) -> usize {
        self.plan.requests.unwrap_or(of_the_story)
    }

    /// A line that begins a part.
    pub fn heading(&self, text: impl Display) -> io::Result<()> {
        self.voice.heading(&text.to_string())
    }

    /// A line as it is.
    pub fn line(&self, text: impl Display) -> io::Result<()> {
        self.voice.line(&text.to_string())
    }

    /// A remark of the lab's own, in as many lines as it needs.
    pub fn remark(&self, text: impl Display) -> io::Result<()> {
        self.voice.remark(&text.to_string())
    }

    /// Shows a command that the lab carries out without starting a program for it.
    pub fn command(&self, host: &str, command: impl Display) -> io::Result<()> {
        self.voice.command(host, &command.to_string())
    }

    /// Runs a command on a host as it is shown. Returns what it said.
    ///
    /// **Errors** — also when its exit status is not 0: a story cannot go on after that.
    pub fn typed(&self, host: &str, command: &str) -> Told<String> {
        self.voice.command(host, command)?;
        let words: Vec<&str> = command.split_ascii_whitespace().collect();
        let output = self.host(host).run(&words)?;
        self.voice.output(&output.stdout)?;
        self.voice.output(&output.stderr)?;
        if output.status != 0 {
            return Err(format!("`{command}` failed with exit status {}", output.status).into());
        }
        Ok(output.stdout)
    }

    /// Runs commands on a host, one after the other.
    pub fn typed_all(&self, host: &str, commands: &[&str]) -> Told {
        commands.iter().try_for_each(|command| self.typed(host, command).map(drop))
    }

    /// Shows how the director started; it runs since the lab does.
    pub fn show_director(&self) -> Told {
        let director = self.lab.topology().host("director");
        let program = director.and_then(|host| host.programs.first());
        if let Some(Program::Director { interfaces }) = program {
            let interfaces: Vec<String> =
                interfaces.iter().map(|name| format!(" --interface {name}")).collect();
            self.command("director", format!("ulvs run{}", interfaces.concat()))?;
        }
        let said = &self.host("director").said;
        Ok(said.iter().try_for_each(|line| self.remark(line))?)
    }

    /// Notes what was promised, for the verdict.
    pub fn promise(&mut self, is_kept: bool, text: impl Display) {
        self.promises.push(Promise { is_kept, text: text.to_string() });
    }

    /// Shows what the lab consists of and what its hosts said, but for those that run ulvs, whose turn
    /// comes later.
    pub(super) fn introduce(&self) -> Told {
        let topology = self.lab.topology();
        self.heading(format_args!("Lab {}: {}", topology.name, topology.title))?;
        self.line("")?;
        draw(topology).iter().try_for_each(|line| self.line(line))?;
        self.line("")?;
        self.remark("Each box is a network namespace of this machine; the links are real (veth).")?;
        let is_ulvs =
            |program: &Program| matches!(program, Program::Director { .. } | Program::Decap { .. });
        for host in topology.hosts.iter().filter(|host| !host.programs.iter().any(is_ulvs)) {
            for said in &self.host(host.name).said {
                self.remark(format_args!("{} {said}", host.name))?;
            }
        }
        Ok(())
    }

    /// Shows which promises were kept. Returns whether all were.
    pub(super) fn verdict(&self) -> io::Result<bool> {
        self.heading("Verdict")?;
        for promise in &self.promises {
            self.voice.check(promise.is_kept, &promise.text)?;
        }
        Ok(self.promises.iter().all(|promise| promise.is_kept))
    }

    /// Shows how to get into the lab while it stays up.
    pub(super) fn invite(&self, commands: &[(&str, String)]) -> io::Result<()> {
        let ulvs = typed_program();
        self.heading("The lab stays up. From another terminal:")?;
        self.line(format_args!("  {ulvs} lab shell client"))?;
        for (host, command) in commands {
            self.line(format_args!("  {ulvs} lab exec {host} -- {command}"))?;
        }
        self.line("Enter or Ctrl-C ends it.")
    }
}
