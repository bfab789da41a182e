//! The form of a transcript: what each line starts with tells what it is.

use std::io::{self, Write};

use super::scenario::Step;

/// Writes a transcript line by line.
///
/// | line starts with | meaning |
/// |---|---|
/// | `#`, or empty | copied from the scenario |
/// | `$ ` | a step, as written; `$   ` its standard input |
/// | two spaces | what came of it: standard output, or packets |
/// | `! ` | standard error, or an error of the step |
/// | `? N` | exit code N, if not zero |
/// | `  \|` | why, if that was asked for |
#[derive(Debug)]
pub struct Transcript<W> {
    writer: W,
}

impl<W: Write> Transcript<W> {
    /// A transcript on `writer`.
    pub fn new(writer: W) -> Self {
        Self { writer }
    }

    /// Copies a comment or an empty line.
    pub fn note(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.writer, "{text}")
    }

    /// Writes a step as it was written in the scenario, with its input.
    pub fn step(&mut self, step: &Step) -> io::Result<()> {
        writeln!(self.writer, "$ {}", step.text)?;
        step.stdin.iter().try_for_each(|line| writeln!(self.writer, "$   {line}"))
    }

    /// Writes a line of what came of a step.
    pub fn result(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.writer, "  {text}")
    }

    /// Writes a line that explains what came of a step.
    pub fn explanation(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.writer, "  | {text}")
    }

    /// Writes a line about what went wrong.
    pub fn failure(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.writer, "! {text}")
    }

    /// Writes an exit code, unless it is 0.
    pub fn exit_code(&mut self, code: i32) -> io::Result<()> {
        if code == 0 { Ok(()) } else { writeln!(self.writer, "? {code}") }
    }

    /// The writer, after the last line.
    pub fn into_inner(self) -> W {
        self.writer
    }
}
