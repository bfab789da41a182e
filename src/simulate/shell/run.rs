//! What a line says is done.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::calculate::calculate;
use super::parse::{Joint, List, Node, Part, Redirection, Simple, Stream, Target, Word};
use super::programs::{self, Job};
use super::{Kind, NOT_FOUND, Output, SYNTAX, System, run_as};

/// A shell at work.
pub struct Shell<'a> {
    kind: Kind,
    system: &'a mut dyn System,
    variables: HashMap<String, String>,
    /// The folder that it is in; empty for one of its own.
    folder: String,
    /// The exit code of the last command.
    last: i32,
    /// Whether `exit` was called.
    over: bool,
    /// What `read` has not read yet, by the loops around it.
    unread: Vec<String>,
}

/// Rounds that a loop without words may take.
const MAX_ROUNDS: usize = 10_000;
/// Words that a word may become.
const MAX_WORDS: usize = 100_000;

impl<'a> Shell<'a> {
    /// A shell in a folder of its own.
    pub fn new(kind: Kind, system: &'a mut dyn System) -> Self {
        Self {
            kind,
            system,
            variables: HashMap::new(),
            folder: String::new(),
            last: 0,
            over: false,
            unread: Vec::new(),
        }
    }

    /// Runs commands that read `stdin`.
    pub fn run(&mut self, list: &List, stdin: &str) -> Output {
        let mut all = Output::default();
        for (joint, node) in list {
            let goes_on = match joint {
                Joint::Then => true,
                Joint::And => self.last == 0,
                Joint::Or => self.last != 0,
            };
            if goes_on && !self.over {
                let output = self.node(node, stdin);
                self.last = output.code;
                all.stdout += &output.stdout;
                all.stderr += &output.stderr;
            }
        }
        all.code = self.last;
        all
    }

    fn node(&mut self, node: &Node, stdin: &str) -> Output {
        match node {
            Node::Simple(simple) => self.simple(simple, stdin),
            Node::Pipe(nodes) => {
                let mut passed = Output { stdout: stdin.to_owned(), ..Output::default() };
                for node in nodes {
                    let output = self.apart(|shell| shell.node(node, &passed.stdout));
                    passed.stdout = output.stdout;
                    passed.stderr += &output.stderr;
                    passed.code = output.code;
                }
                passed
            }
            Node::Not(node) => {
                let output = self.node(node, stdin);
                Output { code: i32::from(output.code == 0), ..output }
            }
            Node::For { name, words, body } => {
                let mut all = Output::default();
                for word in words.iter().flat_map(|word| self.expand(word)).collect::<Vec<_>>() {
                    self.variables.insert(name.clone(), word);
                    let output = self.run(body, stdin);
                    all.stdout += &output.stdout;
                    all.stderr += &output.stderr;
                    all.code = output.code;
                }
                all
            }
            Node::If { condition, then, otherwise } => {
                let mut all = self.run(condition, stdin);
                let chosen = if all.code == 0 { then } else { otherwise };
                self.last = 0;
                let output = self.run(chosen, stdin);
                all.stdout += &output.stdout;
                all.stderr += &output.stderr;
                all.code = output.code;
                all
            }
            Node::While { condition, until, body, redirections } => {
                match self.input(redirections, stdin) {
                    Ok(stdin) => {
                        let output = self.repeat(condition, *until, body, &stdin);
                        self.redirect(output, redirections)
                    }
                    Err(failed) => failed,
                }
            }
            Node::Group(list, redirections) => match self.input(redirections, stdin) {
                Ok(stdin) => {
                    let output = self.run(list, &stdin);
                    self.redirect(output, redirections)
                }
                Err(failed) => failed,
            },
            Node::Subshell(list, redirections) => match self.input(redirections, stdin) {
                Ok(stdin) => {
                    let output = self.apart(|shell| shell.run(list, &stdin));
                    self.redirect(output, redirections)
                }
                Err(failed) => failed,
            },
        }
    }

    /// Does something in a shell of its own: what it changes of this one is forgotten.
    fn apart(&mut self, run: impl FnOnce(&mut Self) -> Output) -> Output {
        let (variables, folder) = (self.variables.clone(), self.folder.clone());
        let output = run(self);
        (self.variables, self.folder, self.over) = (variables, folder, false);
        output
    }

    fn repeat(&mut self, condition: &List, until: bool, body: &List, stdin: &str) -> Output {
        self.unread.push(stdin.to_owned());
        let mut all = Output::default();
        for _ in 0..MAX_ROUNDS {
            let asked = self.run(condition, stdin);
            all.stdout += &asked.stdout;
            all.stderr += &asked.stderr;
            if self.over || (asked.code == 0) == until {
                break;
            }
            let done = self.run(body, stdin);
            all.stdout += &done.stdout;
            all.stderr += &done.stderr;
            all.code = done.code;
            if self.over {
                break;
            }
        }
        self.unread.pop();
        all
    }

    /// Fills variables with the words of a line.
    fn read(&mut self, names: &[&str], stdin: &str) -> Output {
        let text = match self.unread.last_mut() {
            Some(text) => text,
            None => &mut stdin.to_owned(),
        };
        let is_whole = text.contains('\n');
        let (line, rest) = text.split_once('\n').unwrap_or((text, ""));
        let (line, rest) = (line.to_owned(), rest.to_owned());
        *text = rest;
        let mut left = line.trim();
        let mut names = names.iter().filter(|name| **name != "-r").peekable();
        while let Some(name) = names.next() {
            let is_last = names.peek().is_none();
            let (word, rest) = match left.split_once(char::is_whitespace) {
                Some((word, rest)) if !is_last => (word, rest.trim_start()),
                _ => (left, ""),
            };
            self.variables.insert((*name).to_owned(), word.to_owned());
            left = rest;
        }
        Output { code: i32::from(!is_whole), ..Output::default() }
    }

    fn simple(&mut self, simple: &Simple, stdin: &str) -> Output {
        let stdin = match self.input(&simple.redirections, stdin) {
            Ok(stdin) => stdin,
            Err(failed) => return failed,
        };
        let words: Vec<String> = simple.words.iter().flat_map(|word| self.expand(word)).collect();
        for (name, value) in &simple.assignments {
            let value = self.expand(value).join(" ");
            self.variables.insert(name.clone(), value);
        }
        if let Some(to) = self.peer(&simple.redirections) {
            return self.send(to, &words, &stdin);
        }
        let output = if words.is_empty() { Output::default() } else { self.call(&words, &stdin) };
        self.redirect(output, &simple.redirections)
    }

    /// Where a command's output is sent, if it is redirected to `/dev/udp`.
    fn peer(&mut self, redirections: &[Redirection]) -> Option<SocketAddr> {
        let last = redirections.iter().rev().find(|each| each.stream == Stream::Output)?;
        let Target::File(file) = &last.target else { return None };
        let name = self.expand(file).join(" ");
        let (host, port) = name.strip_prefix("/dev/udp/")?.rsplit_once('/')?;
        let to = SocketAddr::new(host.parse().ok()?, port.parse().ok()?);
        (self.kind == Kind::Bash).then_some(to)
    }

    /// Sends what a command writes: a datagram, or so many as `dd` has blocks.
    fn send(&mut self, to: SocketAddr, words: &[String], stdin: &str) -> Output {
        let is_dd = words.first().is_some_and(|name| name == "dd");
        if let Some((size, count)) = programs::blocks(words).filter(|_| is_dd) {
            self.system.send(to, &vec![0; size], count);
            return Output::default();
        }
        let mut output = self.call(words, stdin);
        let payload = std::mem::take(&mut output.stdout);
        if !payload.is_empty() {
            self.system.send(to, payload.as_bytes(), 1);
        }
        output
    }

    fn call(&mut self, words: &[String], stdin: &str) -> Output {
        let arguments: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        match (words[0].as_str(), arguments.as_slice()) {
            ("cd", [folder]) => {
                let folder = self.resolve(folder);
                if self.system.list(&folder).is_none() {
                    return Output::failed(2, &format!("sh: 1: cd: can't cd to {}", arguments[0]));
                }
                self.folder = folder;
                Output::default()
            }
            ("exit", rest) => {
                self.over = true;
                let code = rest.first().and_then(|code| code.parse().ok()).unwrap_or(self.last);
                Output { code, ..Output::default() }
            }
            ("read", names) => self.read(names, stdin),
            ("sh", ["-c", line, ..]) => run_as(Kind::Sh, line, stdin, self.system),
            ("bash", ["-c", line, ..]) => run_as(Kind::Bash, line, stdin, self.system),
            (name, _) => {
                let folder = self.folder.clone();
                let mut job =
                    Job { system: self.system, folder: &folder, stdin, arguments: &arguments };
                if let Some(output) = programs::run(name, &mut job) {
                    return output;
                }
                let output = self.system.run(words, stdin);
                output.unwrap_or_else(|| {
                    Output::failed(NOT_FOUND, &format!("sh: 1: {name}: not found"))
                })
            }
        }
    }

    fn resolve(&self, path: &str) -> String {
        programs::resolve(&self.folder, path)
    }

    fn input(&mut self, redirections: &[Redirection], stdin: &str) -> Result<String, Output> {
        let mut text = stdin.to_owned();
        for redirection in redirections {
            if let (Stream::Input, Target::File(file)) = (redirection.stream, &redirection.target) {
                let name = self.expand(file).join(" ");
                let read = match name.as_str() {
                    "/dev/null" => Ok(String::new()),
                    _ => self.system.read(&self.resolve(&name)),
                };
                text = read.map_err(|_| {
                    Output::failed(SYNTAX, &format!("sh: 1: cannot open {name}: No such file"))
                })?;
            }
        }
        Ok(text)
    }

    fn redirect(&mut self, mut output: Output, redirections: &[Redirection]) -> Output {
        for Redirection { stream, target } in redirections {
            let (file, appends) = match (stream, target) {
                (Stream::Input, _) => continue,
                (Stream::Error, Target::Other) => {
                    output.stdout += &std::mem::take(&mut output.stderr);
                    continue;
                }
                (Stream::Output, Target::Other) => {
                    output.stderr += &std::mem::take(&mut output.stdout);
                    continue;
                }
                (_, Target::File(file)) => (file, false),
                (_, Target::Append(file)) => (file, true),
            };
            let name = self.expand(file).join(" ");
            let text = match stream {
                Stream::Error => std::mem::take(&mut output.stderr),
                _ => std::mem::take(&mut output.stdout),
            };
            let path = self.resolve(&name);
            let before =
                if appends { self.system.read(&path).unwrap_or_default() } else { String::new() };
            if let Err(why) = self.system.write(&path, &(before + &text)) {
                let (why, code) = match why {
                    "No such file or directory" | "Not a directory" => {
                        (format!("cannot create {name}: Directory nonexistent"), SYNTAX)
                    }
                    "Is a directory" | "Permission denied" => {
                        (format!("cannot create {name}: {why}"), SYNTAX)
                    }
                    _ => ("echo: echo: I/O error".to_owned(), 1),
                };
                output.stderr += &format!("sh: 1: {why}\n");
                output.code = code;
            }
        }
        output
    }

    /// The words that a word becomes.
    fn expand(&mut self, word: &Word) -> Vec<String> {
        let mut words: Vec<(String, bool)> = Vec::new();
        let mut current: Option<String> = None;
        let mut pattern = false;
        for part in word {
            let (text, quoted) = match part {
                Part::Text { text, quoted } => {
                    pattern |= !quoted && text.contains(['*', '?']);
                    current.get_or_insert_default().push_str(text);
                    continue;
                }
                Part::Variable { name, quoted } => (self.variable(name), *quoted),
                Part::Command { list, quoted } => {
                    let output = self.run(list, "");
                    (output.stdout.trim_end_matches('\n').to_owned(), *quoted)
                }
                Part::Number(text) => (self.number(text), true),
            };
            if quoted {
                current.get_or_insert_default().push_str(&text);
                continue;
            }
            let mut fields = text.split_whitespace();
            if text.starts_with(char::is_whitespace) {
                words.extend(current.take().map(|word| (word, false)));
            }
            if let Some(first) = fields.next() {
                current.get_or_insert_default().push_str(first);
            }
            for field in fields {
                words.extend(current.replace(field.to_owned()).map(|word| (word, false)));
            }
        }
        words.extend(current.map(|word| (word, pattern)));
        words.truncate(MAX_WORDS);
        words.into_iter().flat_map(|(word, pattern)| self.glob(word, pattern)).collect()
    }

    fn variable(&self, name: &str) -> String {
        match name {
            "?" => self.last.to_string(),
            "#" => "0".into(),
            _ => self.variables.get(name).cloned().unwrap_or_default(),
        }
    }

    fn number(&self, text: &str) -> String {
        let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let mut filled = String::new();
        for token in text.replace('$', "").split_inclusive(|letter| !is_name(letter)) {
            let end = token.find(|letter| !is_name(letter)).unwrap_or(token.len());
            let (name, rest) = token.split_at(end);
            let is_variable = name.starts_with(|letter: char| !letter.is_ascii_digit());
            let value = if is_variable { self.variable(name) } else { name.to_owned() };
            filled += if is_variable && value.is_empty() { "0" } else { &value };
            filled += rest;
        }
        calculate(&filled).unwrap_or_default().to_string()
    }

    /// The files that a pattern stands for, or the pattern itself if there are none.
    fn glob(&mut self, word: String, pattern: bool) -> Vec<String> {
        if !pattern {
            return vec![word];
        }
        let (folder, name) = match word.rsplit_once('/') {
            Some((folder, name)) => (format!("{folder}/"), name),
            None => (String::new(), word.as_str()),
        };
        let path = self.resolve(if folder.is_empty() { "." } else { &folder });
        let names = self.system.list(&path).unwrap_or_default();
        let found: Vec<String> = names
            .into_iter()
            .filter(|each| programs::matches(name, each))
            .map(|each| format!("{folder}{each}"))
            .collect();
        if found.is_empty() { vec![word] } else { found }
    }
}
