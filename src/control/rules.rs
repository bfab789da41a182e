//! Files of rules: what `ipvsadm -S` prints, or a script of such commands.

use std::io;

use super::client::Transport;
use super::ipvsadm::names::Names;
use super::ipvsadm::{Console, run_line};

/// A line of a rules file that could not be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct RuleError {
    /// The file.
    pub file: String,
    /// The line, counted from 1; of a continued one the first.
    pub line: usize,
    /// What is wrong with it.
    pub message: String,
}

/// Applies the rules in `text`, which come from `file`.
///
/// Lines may begin with `ipvsadm` or its path, with or without `sudo`; what follows a `#` at the
/// start of a word is a comment; a backslash at the end continues a line; quotes are taken off.
///
/// **Errors** — at the first line that is refused. Those before it have been applied.
pub fn apply(
    file: &str,
    text: &str,
    transport: &mut dyn Transport,
    names: &mut dyn Names,
) -> Result<(), RuleError> {
    for (line, command) in commands(text) {
        let fail = |message: String| RuleError { file: file.into(), line, message };
        let words = command_words(&command).map_err(fail)?;
        if words.is_empty() {
            continue;
        }
        apply_line(&words, transport, names).map_err(fail)?;
    }
    Ok(())
}

fn apply_line(
    words: &[String],
    transport: &mut dyn Transport,
    names: &mut dyn Names,
) -> Result<(), String> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut console =
        Console { stdin: &mut io::empty(), stdout: &mut stdout, stderr: &mut stderr, hints: true };
    run_line(words, &mut console, transport, names).map_err(|_| {
        let said = String::from_utf8_lossy(&stderr);
        match said.trim_end() {
            // As of `-v` with other options, which ipvsadm fails without a word.
            "" => "this command of ipvsadm fails".into(),
            said => said.replace("\nhint: ", "; ").replace('\n', "; "),
        }
    })
}

/// The commands of a file with the numbers of their lines, continued lines joined.
fn commands(text: &str) -> Vec<(usize, String)> {
    let mut commands = Vec::new();
    let mut continued: Option<(usize, String)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let (first, mut command) = continued.take().unwrap_or((number, String::new()));
        match line.strip_suffix('\\') {
            Some(part) => {
                command.push_str(part);
                command.push(' ');
                continued = Some((first, command));
            }
            None => {
                command.push_str(line);
                commands.push((first, command));
            }
        }
    }
    commands.extend(continued);
    commands
}

/// The arguments of ipvsadm in a command.
fn command_words(command: &str) -> Result<Vec<String>, String> {
    let mut words = shlex::split(command).ok_or("a quote is not closed")?;
    if words.first().is_some_and(|word| word == "sudo") {
        words.remove(0);
    }
    match words.first() {
        Some(word) if is_ipvsadm(word) => {
            words.remove(0);
        }
        // What `ipvsadm -S --full` has beyond ipvsadm's own commands.
        Some(word) if ["ulvs", "sysctl", "mark", "snat"].contains(&word.as_str()) => {}
        Some(word) if !word.starts_with('-') => {
            return Err(format!("this is no command of ipvsadm: {word}"));
        }
        _ => {}
    }
    Ok(words)
}

fn is_ipvsadm(word: &str) -> bool {
    word.rsplit('/').next() == Some("ipvsadm")
}
