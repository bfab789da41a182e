//! The few commands of sed that one-liners use: `s/…/…/`, `p` and `d`, of all lines or some.

use regex_lite::Regex;

/// What is done to each line.
pub struct Script {
    commands: Vec<Command>,
    /// Whether only what is printed explicitly is shown (`-n`).
    quiet: bool,
}

struct Command {
    of: Lines,
    act: Act,
}

enum Lines {
    All,
    Numbers(usize, usize),
    Last,
    Matching(Regex),
}

enum Act {
    Replace { what: Regex, with: String, all: bool },
    Print,
    Delete,
}

impl Script {
    /// Reads a script; `None` if it says anything else.
    pub fn parse(text: &str, extended: bool, quiet: bool) -> Option<Self> {
        let mut commands = Vec::new();
        let mut rest = text.trim_start_matches(BETWEEN);
        while !rest.is_empty() {
            let (command, left) = command(rest, extended)?;
            commands.push(command);
            rest = left.trim_start_matches(BETWEEN);
        }
        Some(Self { commands, quiet })
    }

    /// Does it to a text.
    pub fn run(&self, text: &str) -> String {
        let mut out = String::new();
        let lines: Vec<&str> = text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let is_last = index + 1 == lines.len();
            let mut line = (*line).to_owned();
            let mut deleted = false;
            for Command { of, act } in &self.commands {
                if deleted || !of.hold(index + 1, is_last, &line) {
                    continue;
                }
                match act {
                    Act::Replace { what, with, all } => {
                        let most = if *all { 0 } else { 1 };
                        line = what.replacen(&line, most, with.as_str()).into_owned();
                    }
                    Act::Print => out += &format!("{line}\n"),
                    Act::Delete => deleted = true,
                }
            }
            if !self.quiet && !deleted {
                out += &format!("{line}\n");
            }
        }
        out
    }
}

impl Lines {
    fn hold(&self, number: usize, is_last: bool, line: &str) -> bool {
        match self {
            Self::All => true,
            Self::Numbers(first, last) => (*first..=*last).contains(&number),
            Self::Last => is_last,
            Self::Matching(pattern) => pattern.is_match(line),
        }
    }
}

/// What stands between commands.
const BETWEEN: [char; 3] = [';', '\n', ' '];

/// Reads a command, and returns it with the rest of the text.
fn command(text: &str, extended: bool) -> Option<(Command, &str)> {
    let (of, rest) = lines(text, extended)?;
    let rest = rest.trim_start();
    let kind = rest.chars().next()?;
    let rest = &rest[kind.len_utf8()..];
    let (act, rest) = match kind {
        'p' => (Act::Print, rest),
        'd' => (Act::Delete, rest),
        's' => {
            let sign = rest.chars().next()?;
            let (what, rest) = until(&rest[sign.len_utf8()..], sign)?;
            let (with, rest) = until(rest, sign)?;
            let (all, rest) = rest.strip_prefix('g').map_or((false, rest), |rest| (true, rest));
            let with = replacement_of(&with);
            (Act::Replace { what: pattern(&what, extended)?, with, all }, rest)
        }
        _ => return None,
    };
    rest.is_empty().then_some(()).or_else(|| rest.starts_with(BETWEEN).then_some(()))?;
    Some((Command { of, act }, rest))
}

fn lines(text: &str, extended: bool) -> Option<(Lines, &str)> {
    if let Some(rest) = text.strip_prefix('/') {
        let end = rest.find('/')?;
        return Some((Lines::Matching(pattern(&rest[..end], extended)?), &rest[end + 1..]));
    }
    if let Some(rest) = text.strip_prefix('$') {
        return Some((Lines::Last, rest));
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 {
        return Some((Lines::All, text));
    }
    let first = text[..digits].parse().ok()?;
    let rest = &text[digits..];
    if let Some(rest) = rest.strip_prefix(",$") {
        return Some((Lines::Numbers(first, usize::MAX), rest));
    }
    let Some(second) = rest.strip_prefix(',') else {
        return Some((Lines::Numbers(first, first), rest));
    };
    let digits = second.bytes().take_while(u8::is_ascii_digit).count();
    Some((Lines::Numbers(first, second[..digits].parse().ok()?), &second[digits..]))
}

/// The text up to an unescaped sign, and what follows that.
fn until(text: &str, sign: char) -> Option<(String, &str)> {
    let mut part = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => {
                let (_, next) = letters.next()?;
                if next != sign {
                    part.push('\\');
                }
                part.push(next);
            }
            letter if letter == sign => return Some((part, &text[at + sign.len_utf8()..])),
            letter => part.push(letter),
        }
    }
    None
}

/// From sed's `\1` and `&` to the form of the regular expressions here.
fn replacement_of(text: &str) -> String {
    let mut out = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some(digit) if digit.is_ascii_digit() => out += &format!("${{{digit}}}"),
                Some('n') => out.push('\n'),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            '&' => out += "${0}",
            '$' => out += "$$",
            letter => out.push(letter),
        }
    }
    out
}

/// A regular expression in sed's and grep's notation, in which without `-E` braces, parentheses and
/// the like mean something only behind a backslash.
pub fn pattern(text: &str, extended: bool) -> Option<Regex> {
    if extended {
        return Regex::new(text).ok();
    }
    let mut out = String::new();
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next()? {
                special @ ('(' | ')' | '{' | '}' | '+' | '?' | '|') => out.push(special),
                other => {
                    out.push('\\');
                    out.push(other);
                }
            },
            '(' | ')' | '{' | '}' | '+' | '?' | '|' => {
                out.push('\\');
                out.push(letter);
            }
            '*' if out.is_empty() => out += "\\*",
            letter => out.push(letter),
        }
    }
    Regex::new(&out).ok()
}
