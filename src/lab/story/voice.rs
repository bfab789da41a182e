//! How a story is printed.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

/// Prints a story, in colour if the reader's terminal has it.
#[derive(Debug)]
pub struct Voice {
    colour: bool,
    all_well: bool,
}

impl Voice {
    /// A voice for standard output.
    pub fn new(colour: bool) -> Self {
        Voice { colour, all_well: true }
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

    /// A remark of the lab's own.
    pub fn remark(&self, text: &str) -> io::Result<()> {
        self.line(&self.styled(Style::new().dimmed(), text))
    }

    /// Something that was promised, and whether it is so.
    pub fn check(&mut self, is_so: bool, promise: &str) -> io::Result<()> {
        self.all_well &= is_so;
        let (colour, mark) =
            if is_so { (AnsiColor::Green, "  ok  ") } else { (AnsiColor::Red, "  NO  ") };
        self.line(&format!("{}{promise}", self.styled(colour.on_default().bold(), mark)))
    }

    /// Whether every promise was kept.
    pub fn all_well(&self) -> bool {
        self.all_well
    }

    fn styled(&self, style: Style, text: &str) -> String {
        if self.colour { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}
