//! The small shell in which scenarios run commands: enough of `sh` for what administrators write on
//! one line, and none of the host's own programs or files.
//!
//! Knows lists (`;`, `&&`, `||`, `!`), pipes, `for`, `while`, `if` and groups, quotes, variables, `$(…)`, `$((…))` and
//! patterns, redirections, `/dev/null` and, as bash, `/dev/udp/HOST/PORT`. Programs are those of [`programs`], which only work on
//! text, and what the [`System`] has besides.

mod calculate;
mod filters;
mod parse;
mod programs;
mod run;
mod sed;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;

use super::admin::Output;

/// What the shell is run in.
pub trait System {
    /// Runs a program that the shell does not have itself; `None` if there is none of that name.
    fn run(&mut self, words: &[String], stdin: &str) -> Option<Output>;

    /// The content of a file.
    ///
    /// **Errors** — why there is none, in the words of the C library.
    fn read(&mut self, path: &str) -> Result<String, &'static str>;

    /// Writes a file anew.
    ///
    /// **Errors** — why that cannot be done, in the words of the C library.
    fn write(&mut self, path: &str, text: &str) -> Result<(), &'static str>;

    /// The names in a folder, sorted; `None` if there is no such folder.
    fn list(&mut self, path: &str) -> Option<Vec<String>>;

    /// Lets time pass.
    fn sleep(&mut self, time: Duration);

    /// Sends the same datagram some times over.
    fn send(&mut self, to: SocketAddr, payload: &[u8], times: usize);
}

/// Which shell it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The plain one.
    Sh,
    /// The one that also knows `/dev/udp/HOST/PORT`.
    Bash,
}

/// Runs a command line.
pub fn run(line: &str, stdin: &str, system: &mut dyn System) -> Output {
    run_as(Kind::Sh, line, stdin, system)
}

fn run_as(kind: Kind, line: &str, stdin: &str, system: &mut dyn System) -> Output {
    match parse::parse(line) {
        Ok(list) => run::Shell::new(kind, system).run(&list, stdin),
        Err(why) => Output::failed(SYNTAX, &format!("sh: 1: Syntax error: {why}")),
    }
}

/// The exit code of a shell for what it cannot read.
const SYNTAX: i32 = 2;
/// The exit code of a shell for what it does not find.
const NOT_FOUND: i32 = 127;
