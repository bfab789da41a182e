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
        for part in text.split(['\n']).flat_map(split_commands) {
            commands.push(command(&part, extended)?);
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

/// Commands are parted by semicolons, except in what is matched and put in its place.
fn split_commands(text: &str) -> Vec<String> {
    if text.contains("s/") || text.contains('/') {
        return vec![text.trim().to_owned()];
    }
    text.split(';').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

fn command(text: &str, extended: bool) -> Option<Command> {
    let (of, rest) = lines(text, extended)?;
    let act = match rest.trim() {
        "p" => Act::Print,
        "d" => Act::Delete,
        replacement => {
            let rest = replacement.strip_prefix('s')?;
            let sign = rest.chars().next()?;
            let parts = split_unescaped(&rest[sign.len_utf8()..], sign);
            let [what, with, flags] = parts.as_slice() else { return None };
            let known = flags.is_empty() || flags == "g";
            let with = replacement_of(with);
            known.then_some(())?;
            Act::Replace { what: pattern(what, extended)?, with, all: flags == "g" }
        }
    };
    Some(Command { of, act })
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

fn split_unescaped(text: &str, sign: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        let part = parts.last_mut().expect("there is one from the start");
        match letter {
            '\\' => {
                let next = letters.next().unwrap_or('\\');
                if next != sign {
                    part.push('\\');
                }
                part.push(next);
            }
            letter if letter == sign => parts.push(String::new()),
            letter => part.push(letter),
        }
    }
    parts
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
