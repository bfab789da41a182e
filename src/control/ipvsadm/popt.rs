//! The grammar of popt, by which ipvsadm reads its arguments.
//!
//! Long options are never abbreviated; short ones may be bundled and may carry their argument
//! (`-t12.0.0.1:80`, `-t=12.0.0.1:80`); an optional argument is the next word unless that begins
//! with a dash; words that belong to no option are put aside.

/// Whether an option takes an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// None.
    None,
    /// Always one.
    Required,
    /// The next word, unless that is an option.
    Optional,
}

/// An option that is understood.
#[derive(Clone, Copy, Debug)]
pub struct Known<T> {
    /// Its long name.
    pub long: &'static str,
    /// Its letter.
    pub short: Option<char>,
    /// Its argument.
    pub argument: Argument,
    /// What it stands for.
    pub meaning: T,
}

/// Why an option was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misuse {
    /// Its argument is missing.
    MissingArgument,
    /// There is no such option.
    UnknownOption,
    /// It was given an argument that it does not take.
    UnwantedArgument,
}

impl Misuse {
    /// popt's words for it.
    pub fn text(self) -> &'static str {
        match self {
            Self::MissingArgument => "missing argument",
            Self::UnknownOption => "unknown option",
            Self::UnwantedArgument => "option does not take an argument",
        }
    }
}

/// Reads the options out of a list of words.
#[derive(Debug)]
pub struct Parser<'a, T: 'static> {
    known: &'static [Known<T>],
    words: &'a [String],
    next: usize,
    bundle: &'a str,
    options_are_over: bool,
    leftovers: Vec<&'a str>,
}

/// An option that was found, with its argument.
pub type Found<'a, T> = (T, Option<&'a str>);

impl<'a, T: Copy> Parser<'a, T> {
    /// A reader of `words`, which do not include the program's name.
    pub fn new(known: &'static [Known<T>], words: &'a [String]) -> Self {
        let leftovers = Vec::new();
        Self { known, words, next: 0, bundle: "", options_are_over: false, leftovers }
    }

    /// The next option, `None` after the last one.
    pub fn next(&mut self) -> Result<Option<Found<'a, T>>, Misuse> {
        while self.bundle.is_empty() {
            let Some(word) = self.words.get(self.next) else { return Ok(None) };
            self.next += 1;
            if self.options_are_over || word == "-" || !word.starts_with('-') {
                self.leftovers.push(word);
            } else if word == "--" {
                self.options_are_over = true;
            } else if let Some(long) = word.strip_prefix("--") {
                return self.long(long).map(Some);
            } else {
                self.bundle = &word[1..];
            }
        }
        self.short().map(Some)
    }

    /// The word that was read last, for messages about it.
    pub fn last_word(&self) -> &'a str {
        self.next.checked_sub(1).and_then(|last| self.words.get(last)).map_or("", String::as_str)
    }

    /// The words that belong to no option, after the last option was read.
    pub fn leftovers(&self) -> &[&'a str] {
        &self.leftovers
    }

    fn long(&mut self, text: &'a str) -> Result<Found<'a, T>, Misuse> {
        let (name, attached) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let known = self.known.iter().find(|known| known.long == name);
        self.with_argument(known.ok_or(Misuse::UnknownOption)?, attached)
    }

    fn short(&mut self) -> Result<Found<'a, T>, Misuse> {
        let mut letters = self.bundle.chars();
        let letter = letters.next();
        let rest = letters.as_str();
        let known = self.known.iter().find(|known| known.short.is_some() && known.short == letter);
        let known = known.ok_or(Misuse::UnknownOption)?;
        if known.argument == Argument::None && !rest.starts_with('=') {
            self.bundle = rest;
            return Ok((known.meaning, None));
        }
        self.bundle = "";
        let attached = (!rest.is_empty()).then(|| rest.strip_prefix('=').unwrap_or(rest));
        self.with_argument(known, attached)
    }

    fn with_argument(
        &mut self,
        known: &Known<T>,
        attached: Option<&'a str>,
    ) -> Result<Found<'a, T>, Misuse> {
        let argument = match known.argument {
            Argument::None if attached.is_some() => return Err(Misuse::UnwantedArgument),
            Argument::None => None,
            Argument::Required => {
                let argument = attached.or_else(|| self.take_word());
                Some(argument.ok_or(Misuse::MissingArgument)?)
            }
            Argument::Optional => attached.or_else(|| {
                let next = self.words.get(self.next)?;
                if next.starts_with('-') { None } else { self.take_word() }
            }),
        };
        Ok((known.meaning, argument))
    }

    fn take_word(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.next)?;
        self.next += 1;
        Some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Known<char>] = &[
        Known { long: "list", short: Some('L'), argument: Argument::None, meaning: 'L' },
        Known { long: "tcp", short: Some('t'), argument: Argument::Required, meaning: 't' },
        Known { long: "persistent", short: Some('p'), argument: Argument::Optional, meaning: 'p' },
    ];

    type Read = (Vec<(char, Option<String>)>, Result<(), Misuse>, Vec<String>);

    fn read(line: &str) -> Read {
        let words: Vec<String> = line.split(' ').map(String::from).collect();
        let mut parser = Parser::new(KNOWN, &words);
        let mut found = Vec::new();
        let end = loop {
            match parser.next() {
                Ok(Some((meaning, argument))) => found.push((meaning, argument.map(String::from))),
                Ok(None) => break Ok(()),
                Err(misuse) => break Err(misuse),
            }
        };
        let leftovers = parser.leftovers().iter().map(ToString::to_string).collect();
        (found, end, leftovers)
    }

    #[test]
    fn arguments_may_be_attached_in_every_way() {
        for line in ["-t x", "-tx", "-t=x", "--tcp x", "--tcp=x"] {
            assert_eq!(read(line).0, [('t', Some("x".into()))], "{line}");
        }
    }

    #[test]
    fn an_optional_argument_is_no_option() {
        assert_eq!(read("-p -L").0, [('p', None), ('L', None)]);
        assert_eq!(read("-p 5 -L").0, [('p', Some("5".into())), ('L', None)]);
        assert_eq!(read("-Lp5").0, [('L', None), ('p', Some("5".into()))]);
        assert_eq!(read("-p=").0, [('p', Some(String::new()))]);
    }

    #[test]
    fn what_is_no_option_is_put_aside() {
        assert_eq!(read("a -L - -- -t").2, ["a", "-", "-t"]);
    }

    #[test]
    fn misuse_is_told() {
        assert_eq!(read("-t").1, Err(Misuse::MissingArgument));
        assert_eq!(read("-x").1, Err(Misuse::UnknownOption));
        assert_eq!(read("--lis").1, Err(Misuse::UnknownOption));
        assert_eq!(read("-L=3").1, Err(Misuse::UnwantedArgument));
        assert_eq!(read("--list=").1, Err(Misuse::UnwantedArgument));
    }
}
