//! The programs that the shell has itself: those that work on text.

use std::time::Duration;

use super::{Output, System, filters};

/// A program that is to run.
pub struct Job<'a> {
    /// Where its files are.
    pub system: &'a mut dyn System,
    /// The folder that it is run in.
    pub folder: &'a str,
    /// What it reads.
    pub stdin: &'a str,
    /// Its arguments.
    pub arguments: &'a [&'a str],
}

/// Runs a program; `None` if there is none of that name.
pub fn run(name: &str, job: &mut Job) -> Option<Output> {
    Some(match name {
        "true" | ":" => Output::default(),
        "false" => code(1),
        "echo" => echo(job.arguments),
        "printf" => said(printf(job.arguments)),
        "[" | "test" => test(job),
        "sleep" => sleep(job),
        "seq" => said(sequence(job.arguments)),
        "ls" => ls(job),
        _ => return filters::run(name, job),
    })
}

/// Bytes of a datagram, at most, and datagrams of one command.
const LONGEST_DATAGRAM: usize = 65_507;
const MOST_DATAGRAMS: usize = 100_000;

/// Size and number of the blocks of zeros that `dd` is asked for, if it is to say nothing else.
pub fn blocks(words: &[String]) -> Option<(usize, usize)> {
    let value = |name: &str| words.iter().find_map(|word| word.strip_prefix(name));
    let (size, count) = (value("bs=")?.parse().ok()?, value("count=")?.parse().ok()?);
    let known = value("if=") == Some("/dev/zero") && value("status=") == Some("none");
    (known && size <= LONGEST_DATAGRAM && count <= MOST_DATAGRAMS).then_some((size, count))
}

/// A path as seen from a folder. The folder of a scenario's own files has an empty name.
pub fn resolve(folder: &str, path: &str) -> String {
    let path = path.strip_prefix("./").unwrap_or(path);
    let whole = match path {
        "." => folder.to_owned(),
        _ if path.starts_with('/') || folder.is_empty() => path.to_owned(),
        _ => format!("{folder}/{path}"),
    };
    if whole.len() > 1 { whole.trim_end_matches('/').to_owned() } else { whole }
}

/// Whether a name is like a pattern with `*` and `?`.
pub fn matches(pattern: &str, name: &str) -> bool {
    match (pattern.chars().next(), name.chars().next()) {
        (None, None) => true,
        (Some('*'), _) => {
            let rest = &pattern[1..];
            matches(rest, name) || !name.is_empty() && matches(pattern, tail_of(name))
        }
        (Some('?'), Some(_)) => matches(&pattern[1..], tail_of(name)),
        (Some(one), Some(other)) => one == other && matches(tail_of(pattern), tail_of(name)),
        _ => false,
    }
}

fn tail_of(text: &str) -> &str {
    text.chars().next().map_or("", |first| &text[first.len_utf8()..])
}

fn said(stdout: String) -> Output {
    Output { stdout, ..Output::default() }
}

fn code(code: i32) -> Output {
    Output { code, ..Output::default() }
}

pub(super) fn unknown(program: &str, arguments: &[&str]) -> Output {
    let arguments = arguments.join(" ");
    Output::failed(2, &format!("sh: the simulator cannot run '{program} {arguments}'"))
}

impl Job<'_> {
    /// What the named files hold together, or standard input; with what could not be read.
    pub(super) fn text(&mut self, program: &str, files: &[&str]) -> Output {
        if files.is_empty() {
            return said(self.stdin.to_owned());
        }
        let mut all = Output::default();
        for file in files {
            match self.file(file) {
                Ok(text) => all.stdout += &text,
                Err(why) => {
                    all.stderr += &format!("{program}: {file}: {why}\n");
                    all.code = 1;
                }
            }
        }
        all
    }

    pub(super) fn file(&mut self, file: &str) -> Result<String, &'static str> {
        match file {
            "-" => Ok(self.stdin.to_owned()),
            "/dev/null" => Ok(String::new()),
            _ => self.system.read(&resolve(self.folder, file)),
        }
    }
}

/// Options of single letters, and what else there is; `with_value` are those that take a value.
pub fn options<'a>(arguments: &[&'a str], with_value: &str) -> (Vec<(char, String)>, Vec<&'a str>) {
    let (mut options, mut rest) = (Vec::new(), Vec::new());
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if *word == "--" {
            rest.extend(words);
            break;
        }
        let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
            rest.push(*word);
            continue;
        };
        for (at, letter) in letters.char_indices() {
            if with_value.contains(letter) {
                let value = &letters[at + letter.len_utf8()..];
                let value = if value.is_empty() { words.next().copied() } else { Some(value) };
                options.push((letter, value.unwrap_or_default().to_owned()));
                break;
            }
            options.push((letter, String::new()));
        }
    }
    (options, rest)
}

fn echo(arguments: &[&str]) -> Output {
    match arguments {
        ["-n", rest @ ..] => said(rest.join(" ")),
        all => said(format!("{}\n", all.join(" "))),
    }
}

fn printf(arguments: &[&str]) -> String {
    let arguments = arguments.strip_prefix(&["--"]).unwrap_or(arguments);
    let Some((format, mut values)) = arguments.split_first() else { return String::new() };
    let mut out = String::new();
    loop {
        let before = values.len();
        let mut letters = format.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '\\' => match letters.next() {
                    Some('n') => out.push('\n'),
                    Some('t') => out.push('\t'),
                    Some(other) => out.push(other),
                    None => out.push('\\'),
                },
                '%' => match letters.next() {
                    Some('s' | 'd') => {
                        if let Some((value, rest)) = values.split_first() {
                            out += value;
                            values = rest;
                        }
                    }
                    Some(other) => out.push(other),
                    None => out.push('%'),
                },
                letter => out.push(letter),
            }
        }
        if values.is_empty() || values.len() == before {
            return out;
        }
    }
}

fn test(job: &mut Job) -> Output {
    let mut words = job.arguments;
    if let [rest @ .., "]"] = words {
        words = rest;
    }
    let (negated, words) = match words {
        ["!", rest @ ..] => (true, rest),
        all => (false, all),
    };
    let holds = match words {
        [] => false,
        [one] => !one.is_empty(),
        ["-n", text] => !text.is_empty(),
        ["-z", text] => text.is_empty(),
        ["-e" | "-f" | "-r" | "-s", file] => job.file(file).is_ok(),
        ["-d", folder] => job.system.list(&resolve(job.folder, folder)).is_some(),
        [one, "=" | "==", other] => one == other,
        [one, "!=", other] => one != other,
        [one, comparison, other] => {
            let number = |text: &str| text.parse::<i64>().ok();
            let (Some(one), Some(other)) = (number(one), number(other)) else { return code(2) };
            match *comparison {
                "-eq" => one == other,
                "-ne" => one != other,
                "-lt" => one < other,
                "-le" => one <= other,
                "-gt" => one > other,
                "-ge" => one >= other,
                _ => return code(2),
            }
        }
        _ => return code(2),
    };
    code(i32::from(holds == negated))
}

/// Nobody waits longer for a command.
const LONGEST_SLEEP_S: f64 = 20.0;

fn sleep(job: &mut Job) -> Output {
    let seconds: Option<f64> = job.arguments.first().and_then(|time| time.parse().ok());
    match seconds.filter(|seconds| (0.0..=LONGEST_SLEEP_S).contains(seconds)) {
        Some(seconds) => {
            job.system.sleep(Duration::from_secs_f64(seconds));
            Output::default()
        }
        None => unknown("sleep", job.arguments),
    }
}

/// Lines that `seq` writes, at most.
const LONGEST_SEQUENCE: usize = 100_000;

fn sequence(arguments: &[&str]) -> String {
    let numbers: Vec<i64> = arguments.iter().filter_map(|number| number.parse().ok()).collect();
    let (first, step, last) = match *numbers.as_slice() {
        [last] => (1, 1, last),
        [first, last] => (first, 1, last),
        [first, step, last] if step > 0 => (first, step, last),
        _ => return String::new(),
    };
    let all = (first..=last).step_by(step as usize).take(LONGEST_SEQUENCE);
    all.map(|number| format!("{number}\n")).collect()
}

fn ls(job: &mut Job) -> Output {
    let (_, folders) = options(job.arguments, "");
    let folder = folders.first().copied().unwrap_or(".");
    match job.system.list(&resolve(job.folder, folder)) {
        Some(names) => said(names.iter().map(|name| format!("{name}\n")).collect()),
        None if job.file(folder).is_ok() => said(format!("{folder}\n")),
        None => {
            Output::failed(2, &format!("ls: cannot access '{folder}': No such file or directory"))
        }
    }
}
