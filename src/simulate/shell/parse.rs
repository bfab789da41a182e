//! From a line to what it says.

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A program or a function of the shell.
    Simple(Simple),
    /// Commands that feed each other.
    Pipe(Vec<Node>),
    /// The other way round.
    Not(Box<Node>),
    /// A loop over words.
    For { name: String, words: Vec<Word>, body: List },
    /// A choice.
    If { condition: List, then: List, otherwise: List },
    /// A loop as long as a command succeeds, or as long as it fails.
    While { condition: List, until: bool, body: List, redirections: Vec<Redirection> },
    /// Commands in braces.
    Group(List, Vec<Redirection>),
    /// Commands in parentheses, a shell of their own.
    Subshell(List, Vec<Redirection>),
}

/// Commands in order, each with what decides whether it runs.
pub type List = Vec<(Joint, Node)>;

/// What stands between two commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joint {
    /// `;`, or nothing before the first.
    Then,
    /// `&&`
    And,
    /// `||`
    Or,
}

/// A command of words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Simple {
    /// `NAME=VALUE` before the command.
    pub assignments: Vec<(String, Word)>,
    /// The command and its arguments.
    pub words: Vec<Word>,
    /// Where it reads and writes.
    pub redirections: Vec<Redirection>,
}

/// `<`, `>` and the like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirection {
    /// What is redirected.
    pub stream: Stream,
    /// Where to.
    pub target: Target,
}

/// What can be redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Input,
    Output,
    Error,
}

/// Where something is redirected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    File(Word),
    /// At the end of a file.
    Append(Word),
    /// Where the other one of output and error goes.
    Other,
}

/// A word before it is expanded.
pub type Word = Vec<Part>;

/// A part of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// As it is; patterns work where it is not quoted.
    Text { text: String, quoted: bool },
    /// `$name`, `$?` and the like.
    Variable { name: String, quoted: bool },
    /// `$(…)`
    Command { list: List, quoted: bool },
    /// `$((…))`
    Number(String),
}

type Parsed<T> = Result<T, String>;

/// Reads a line.
///
/// **Errors** — what is wrong with it, in the words of the shell.
pub fn parse(line: &str) -> Parsed<List> {
    let mut reader = Reader { letters: line.chars().collect(), at: 0, depth: 0 };
    let list = reader.list(&[])?;
    match reader.peek() {
        None => Ok(list),
        Some(letter) => Err(format!("\"{letter}\" unexpected")),
    }
}

/// Commands within commands, at most.
const MAX_DEPTH: usize = 16;
const RESERVED: [&str; 7] = ["do", "done", "then", "else", "fi", "}", "in"];

struct Reader {
    letters: Vec<char>,
    at: usize,
    depth: usize,
}

impl Reader {
    fn peek(&self) -> Option<char> {
        self.letters.get(self.at).copied()
    }

    fn ahead(&self, text: &str) -> bool {
        text.chars()
            .enumerate()
            .all(|(index, letter)| self.letters.get(self.at + index) == Some(&letter))
    }

    fn take(&mut self, text: &str) -> bool {
        let found = self.ahead(text);
        if found {
            self.at += text.chars().count();
        }
        found
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(|letter| letter == ' ' || letter == '\t') {
            self.at += 1;
        }
        if self.peek() == Some('#') && (self.at == 0 || self.letters[self.at - 1].is_whitespace()) {
            while self.peek().is_some_and(|letter| letter != '\n') {
                self.at += 1;
            }
        }
    }

    /// A word of letters ahead, as reserved words are.
    fn plain_word(&self) -> String {
        let rest = &self.letters[self.at..];
        let end =
            rest.iter().position(|letter| letter.is_whitespace() || ";&|()<>".contains(*letter));
        rest[..end.unwrap_or(rest.len())].iter().collect()
    }

    fn keyword(&mut self, word: &str) -> Parsed<()> {
        self.skip_blanks();
        if self.plain_word() == word {
            self.at += word.len();
            return Ok(());
        }
        let found = self.plain_word();
        let found = if found.is_empty() { "end of file".into() } else { format!("\"{found}\"") };
        Err(format!("{found} unexpected (expecting \"{word}\")"))
    }

    /// Commands up to one of `ends`, a closing parenthesis or the end.
    fn list(&mut self, ends: &[&str]) -> Parsed<List> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("commands are nested too deeply".into());
        }
        let mut list = Vec::new();
        let mut joint = Joint::Then;
        loop {
            self.skip_blanks();
            let word = self.plain_word();
            if self.peek().is_none_or(|letter| letter == ')') || ends.contains(&word.as_str()) {
                if joint != Joint::Then {
                    return Err("end of file unexpected".into());
                }
                break;
            }
            list.push((joint, self.pipe()?));
            self.skip_blanks();
            joint = if self.take("&&") {
                Joint::And
            } else if self.take("||") {
                Joint::Or
            } else if self.take(";") || self.take("\n") {
                Joint::Then
            } else if self.peek() == Some('&') {
                return Err("the simulator runs nothing in the background".into());
            } else {
                break;
            };
        }
        self.depth -= 1;
        Ok(list)
    }

    fn pipe(&mut self) -> Parsed<Node> {
        if self.plain_word() == "!" {
            self.at += 1;
            self.skip_blanks();
            return Ok(Node::Not(Box::new(self.pipe()?)));
        }
        let mut commands = vec![self.command()?];
        loop {
            self.skip_blanks();
            if self.ahead("||") || !self.take("|") {
                break;
            }
            self.skip_blanks();
            commands.push(self.command()?);
        }
        Ok(if commands.len() == 1 { commands.remove(0) } else { Node::Pipe(commands) })
    }

    fn command(&mut self) -> Parsed<Node> {
        match self.plain_word().as_str() {
            "for" => self.each(),
            "if" => self.choice(),
            "while" => self.repeat("while"),
            "until" => self.repeat("until"),
            "{" => {
                self.at += 1;
                let list = self.list(&["}"])?;
                self.keyword("}")?;
                Ok(Node::Group(list, self.redirections()?))
            }
            _ if self.take("(") => {
                let list = self.list(&[])?;
                if !self.take(")") {
                    return Err("end of file unexpected (expecting \")\")".into());
                }
                Ok(Node::Subshell(list, self.redirections()?))
            }
            word if RESERVED.contains(&word) => Err(format!("\"{word}\" unexpected")),
            _ => self.simple(),
        }
    }

    fn each(&mut self) -> Parsed<Node> {
        self.keyword("for")?;
        self.skip_blanks();
        let name = self.plain_word();
        self.at += name.chars().count();
        self.keyword("in")?;
        let mut words = Vec::new();
        self.skip_blanks();
        while self.peek().is_some_and(|letter| letter != ';' && letter != '\n') {
            words.push(self.word()?);
            self.skip_blanks();
        }
        self.at += 1;
        self.keyword("do")?;
        let body = self.list(&["done"])?;
        self.keyword("done")?;
        Ok(Node::For { name, words, body })
    }

    fn repeat(&mut self, kind: &str) -> Parsed<Node> {
        self.keyword(kind)?;
        let condition = self.list(&["do"])?;
        self.keyword("do")?;
        let body = self.list(&["done"])?;
        self.keyword("done")?;
        let (until, redirections) = (kind == "until", self.redirections()?);
        Ok(Node::While { condition, until, body, redirections })
    }

    fn choice(&mut self) -> Parsed<Node> {
        self.keyword("if")?;
        let condition = self.list(&["then"])?;
        self.keyword("then")?;
        let then = self.list(&["else", "fi"])?;
        let mut otherwise = List::new();
        if self.plain_word() == "else" {
            self.at += "else".len();
            otherwise = self.list(&["fi"])?;
        }
        self.keyword("fi")?;
        Ok(Node::If { condition, then, otherwise })
    }

    fn redirections(&mut self) -> Parsed<Vec<Redirection>> {
        let mut all = Vec::new();
        while let Some(redirection) = self.redirection()? {
            all.push(redirection);
        }
        Ok(all)
    }

    fn redirection(&mut self) -> Parsed<Option<Redirection>> {
        self.skip_blanks();
        let stream = if self.take("2>") {
            Stream::Error
        } else if self.take("1>") || self.take(">") {
            Stream::Output
        } else if self.take("<") {
            Stream::Input
        } else {
            return Ok(None);
        };
        if self.take("&1") || self.take("&2") {
            return Ok(Some(Redirection { stream, target: Target::Other }));
        }
        let appends = stream != Stream::Input && self.take(">");
        self.skip_blanks();
        let file = self.word()?;
        let target = if appends { Target::Append(file) } else { Target::File(file) };
        Ok(Some(Redirection { stream, target }))
    }

    fn simple(&mut self) -> Parsed<Node> {
        let mut simple = Simple::default();
        loop {
            if let Some(redirection) = self.redirection()? {
                simple.redirections.push(redirection);
                continue;
            }
            if self.peek().is_none_or(|letter| ";&|()\n".contains(letter)) {
                break;
            }
            let word = self.word()?;
            match assignment(&word).filter(|_| simple.words.is_empty()) {
                Some(assignment) => simple.assignments.push(assignment),
                None => simple.words.push(word),
            }
        }
        if simple == Simple::default() {
            let found = self.peek().map_or("end of file".into(), |letter| format!("\"{letter}\""));
            return Err(format!("{found} unexpected"));
        }
        Ok(Node::Simple(simple))
    }

    fn word(&mut self) -> Parsed<Word> {
        let mut word = Word::new();
        while let Some(letter) = self.peek() {
            match letter {
                '\'' => {
                    self.at += 1;
                    let text = self.until('\'')?;
                    word.push(Part::Text { text, quoted: true });
                }
                '"' => {
                    self.at += 1;
                    word.push(Part::Text { text: String::new(), quoted: true });
                    while self.peek() != Some('"') {
                        let part = self.part(true)?;
                        word.push(part);
                    }
                    self.at += 1;
                }
                ' ' | '\t' | '\n' | ';' | '&' | '|' | '<' | '>' | '(' | ')' => break,
                _ => word.push(self.part(false)?),
            }
        }
        if word.is_empty() { Err("word unexpected".into()) } else { Ok(word) }
    }

    fn until(&mut self, end: char) -> Parsed<String> {
        let rest = &self.letters[self.at..];
        let length = rest.iter().position(|letter| *letter == end);
        let length = length.ok_or("Unterminated quoted string")?;
        let text = rest[..length].iter().collect();
        self.at += length + 1;
        Ok(text)
    }

    fn part(&mut self, quoted: bool) -> Parsed<Part> {
        let letter = self.peek().ok_or("Unterminated quoted string")?;
        self.at += 1;
        let text = match letter {
            '$' => return self.dollar(quoted),
            '`' => {
                let inner = self.until('`')?;
                return Ok(Part::Command { list: parse(&inner)?, quoted });
            }
            '\\' => {
                let next = self.peek().ok_or("Unterminated quoted string")?;
                self.at += 1;
                let keeps = quoted && !"$`\"\\".contains(next);
                let text = if keeps { format!("\\{next}") } else { next.to_string() };
                return Ok(Part::Text { text, quoted: true });
            }
            letter => letter.to_string(),
        };
        Ok(Part::Text { text, quoted })
    }

    fn dollar(&mut self, quoted: bool) -> Parsed<Part> {
        if self.take("((") {
            let start = self.at;
            while !self.ahead("))") {
                self.peek().ok_or("missing '))'")?;
                self.at += 1;
            }
            let text = self.letters[start..self.at].iter().collect();
            self.at += 2;
            return Ok(Part::Number(text));
        }
        if self.take("(") {
            let list = self.list(&[])?;
            return if self.take(")") {
                Ok(Part::Command { list, quoted })
            } else {
                Err("end of file unexpected (expecting \")\")".into())
            };
        }
        if self.take("{") {
            return Ok(Part::Variable { name: self.until('}')?, quoted });
        }
        if self.peek().is_some_and(|letter| "?#@*".contains(letter)) {
            self.at += 1;
            return Ok(Part::Variable { name: self.letters[self.at - 1].to_string(), quoted });
        }
        let rest = &self.letters[self.at..];
        let length = rest.iter().take_while(|letter| is_name_letter(**letter)).count();
        if length == 0 {
            return Ok(Part::Text { text: "$".into(), quoted });
        }
        let name = rest[..length].iter().collect();
        self.at += length;
        Ok(Part::Variable { name, quoted })
    }
}

fn is_name_letter(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// `NAME=VALUE`, if a word is one.
fn assignment(word: &Word) -> Option<(String, Word)> {
    let mut name = String::new();
    for (index, part) in word.iter().enumerate() {
        let Part::Text { text, quoted: false } = part else { return None };
        if text == "=" {
            let begins_well = name.starts_with(|letter: char| !letter.is_ascii_digit());
            return begins_well.then(|| (name, word[index + 1..].to_vec()));
        }
        if !text.chars().all(is_name_letter) {
            return None;
        }
        name += text;
    }
    None
}
