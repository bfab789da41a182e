//! How a story is printed.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

/// Prints a story, in colour if the reader's terminal has it.
#[derive(Debug)]
pub struct Voice {
    colour: bool,
}

impl Voice {
    /// A voice for standard output.
    pub fn new(colour: bool) -> Self {
        Voice { colour }
    }

    /// A line that begins a part.
    pub fn heading(&self, text: &str) -> io::Result<()> {
        let bold = Style::new().bold();
        self.line(&format!("\n{}", self.styled(bold, text)))
    }

    /// A line as it is.
    pub fn line(&self, text: &str) -> io::Result<()> {
        writeln!(io::stdout(), "{text}")
    }

    /// A command as it is typed on a host.
    pub fn command(&self, host: &str, command: &str) -> io::Result<()> {
        let prompt = self.styled(AnsiColor::Green.on_default(), &format!("{host}#"));
        self.line(&format!("{prompt} {command}"))
    }

    /// What a command said.
    pub fn output(&self, text: &str) -> io::Result<()> {
        write!(io::stdout(), "{text}")
    }

    /// A remark of the lab's own, in as many lines as it needs.
    pub fn remark(&self, text: &str) -> io::Result<()> {
        let dimmed = Style::new().dimmed();
        wrap(text).iter().try_for_each(|line| self.line(&self.styled(dimmed, line)))
    }

    /// Something that was promised, and whether it is so.
    pub fn check(&self, is_so: bool, promise: &str) -> io::Result<()> {
        let (colour, mark) =
            if is_so { (AnsiColor::Green, "  ok  ") } else { (AnsiColor::Red, "  NO  ") };
        self.line(&format!("{}{promise}", self.styled(colour.on_default().bold(), mark)))
    }

    fn styled(&self, style: Style, text: &str) -> String {
        if self.colour { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}

/// Columns that a story takes.
const WIDTH: usize = 100;

/// Cuts a text between words into lines that fit; the further ones are indented.
fn wrap(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { continue };
        if line.chars().count() + 1 + word.chars().count() > WIDTH && !line.trim().is_empty() {
            lines.push(format!("  {word}"));
        } else if line.is_empty() {
            line.push_str(word);
        } else {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_words() {
        assert_eq!(wrap("short"), ["short"]);
        let words = vec!["word"; 50].join(" ");
        let lines = wrap(&words);
        assert!(lines.iter().all(|line| line.len() <= WIDTH), "{lines:?}");
        assert_eq!(lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" "), words);
        assert_eq!(wrap(&"x".repeat(150)), ["x".repeat(150)]);
    }
}
