//! Scripts: what is thrown at a target, step by step.
//!
//! A script is a readable file of the corpus ([`Script::read`]), or the bytes that a fuzzer came up
//! with ([`Script::decode`]); what a fuzzer finds is printed as such a file ([`Script::write`]).

use std::fmt::Write as _;

use super::build::mended;

/// What scripts are played against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The engine: IP packets.
    Director,
    /// A worker with its link layer: frames.
    Wire,
    /// The control socket's handler: netlink messages.
    Control,
    /// What users write: rules, marks, settings, scenarios.
    Words,
    /// The real server's end of tunnels.
    Tunnel,
}

impl Target {
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Director, "director"),
        (Self::Wire, "wire"),
        (Self::Control, "control"),
        (Self::Words, "words"),
        (Self::Tunnel, "tunnel"),
    ];

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(target, _)| *target == self).unwrap().1
    }
}

/// Steps for a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    pub target: Target,
    /// Which of its manners the target has; each says what the bits mean to it.
    pub manner: u16,
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Bytes arrive.
    Bytes {
        /// By which way: a port of a worker, a kind of tunnel, a parser.
        way: u8,
        /// With this `struct virtio_net_hdr`, if any.
        virtio: Option<[u8; 10]>,
        bytes: Vec<u8>,
    },
    /// So many milliseconds pass.
    Wait(u64),
    /// The administrator does something: a number of an edit that the target knows.
    Edit(u8),
}

/// Nothing waits longer than two days.
const LONGEST_WAIT_MS: u64 = 2 * 86_400_000;
/// As many steps as are played of what a fuzzer came up with.
const MOST_STEPS: usize = 256;
/// The longest packet that there can be.
const MOST_BYTES: usize = 65_535 + 18;

impl Script {
    /// Reads a file of the corpus.
    ///
    /// ```text
    /// # What is wrong with it.
    /// target director 0x3
    /// packet            # the rest of the line, and what is indented below it, are its bytes
    ///   4500 001c 0001  # in hexadecimal, with comments,
    ///   "PORT 1\r\n"    # as text,
    ///   00*40           # or repeated
    /// packet mended way=1 virtio=01010000000000000000
    /// wait 1000
    /// edit 3
    /// ```
    ///
    /// `mended` makes the checksums right; `way` and `virtio` say how it comes.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut script = Self { target: Target::Director, manner: 0, steps: Vec::new() };
        let mut open: Option<Draft> = None;
        for (number, line) in (1..).zip(text.lines()) {
            let fail = |why: &str| format!("line {number}: {why}: {line}");
            let words = words_of(line).ok_or_else(|| fail("a quote is not closed"))?;
            if line.starts_with(' ') {
                let draft = open.as_mut().ok_or_else(|| fail("there is no packet above"))?;
                words.iter().try_for_each(|word| draft.add(word)).map_err(|why| fail(&why))?;
                continue;
            }
            let Some((first, rest)) = words.split_first() else { continue };
            script.steps.extend(open.take().map(Draft::step));
            let number = || rest.first().and_then(|word| number_of(word));
            match first.as_str() {
                "target" => {
                    let name = rest.first().ok_or_else(|| fail("which?"))?;
                    let found = Target::ALL.iter().find(|(_, known)| known == name);
                    script.target = found.ok_or_else(|| fail("there is no such target"))?.0;
                    script.manner =
                        rest.get(1).and_then(|word| number_of(word)).unwrap_or(0) as u16;
                }
                "packet" => {
                    let mut draft = Draft::default();
                    rest.iter().try_for_each(|word| draft.add(word)).map_err(|why| fail(&why))?;
                    open = Some(draft);
                }
                "wait" => {
                    let ms = number().ok_or_else(|| fail("how many milliseconds?"))?;
                    script.steps.push(Step::Wait(ms.min(LONGEST_WAIT_MS)));
                }
                "edit" => {
                    let which = number().ok_or_else(|| fail("which?"))?;
                    script.steps.push(Step::Edit(which as u8));
                }
                _ => return Err(fail("there is no such step")),
            }
        }
        script.steps.extend(open.take().map(Draft::step));
        if script.steps.is_empty() { Err("there are no steps".into()) } else { Ok(script) }
    }

    /// Writes it as a file of the corpus.
    pub fn write(&self) -> String {
        let mut text = format!("target {} {:#x}\n", self.target.name(), self.manner);
        for step in &self.steps {
            match step {
                Step::Wait(ms) => writeln!(text, "wait {ms}"),
                Step::Edit(which) => writeln!(text, "edit {which}"),
                Step::Bytes { way, virtio, bytes } => {
                    text.push_str("packet");
                    if *way != 0 {
                        let _ = write!(text, " way={way}");
                    }
                    if let Some(header) = virtio {
                        let _ = write!(text, " virtio={}", hex(header));
                    }
                    let rows = bytes.chunks(16).map(|row| {
                        let groups: Vec<_> = row.chunks(4).map(hex).collect();
                        format!("\n  {}", groups.join(" "))
                    });
                    writeln!(text, "{}", rows.collect::<String>())
                }
            }
            .expect("text takes everything");
        }
        text
    }

    /// Reads what a fuzzer came up with: any bytes are a script.
    pub fn decode(target: Target, stock: &[Vec<u8>], bytes: &[u8]) -> Self {
        let mut source = Source(bytes);
        let manner = u16::from_le_bytes([source.byte(), source.byte()]);
        let mut steps = Vec::new();
        while !source.0.is_empty() && steps.len() < MOST_STEPS {
            steps.push(source.step(stock));
        }
        Self { target, manner, steps }
    }

    /// The bytes from which [`decode`](Self::decode) reads this script, for a fuzzer to begin with.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.manner.to_le_bytes().to_vec();
        for step in &self.steps {
            match step {
                Step::Wait(ms) => {
                    let exponent = 64 - ms.leading_zeros().min(63);
                    out.extend([op::WAIT, exponent as u8]);
                }
                Step::Edit(which) => out.extend([op::EDIT, *which]),
                Step::Bytes { way, virtio, bytes } => {
                    let flags = if virtio.is_some() { op::VIRTIO } else { 0 };
                    out.extend([op::RAW | flags, *way]);
                    out.extend(virtio.iter().flatten());
                    out.extend((bytes.len() as u16).to_le_bytes());
                    out.extend(bytes);
                }
            }
        }
        out
    }
}

/// The first byte of a step: a kind in the lower three bits, and flags.
mod op {
    pub const RAW: u8 = 0;
    pub const EDIT: u8 = 1;
    pub const WAIT: u8 = 2;
    pub const MENDED: u8 = 0x08;
    pub const VIRTIO: u8 = 0x10;
    pub const SHORTENED: u8 = 0x20;
    pub const GROWN: u8 = 0x40;
}

/// Bytes that steps are read from; zeroes follow.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()]))
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken.to_vec()
    }

    fn step(&mut self, stock: &[Vec<u8>]) -> Step {
        let op = self.byte();
        match op & 7 {
            op::EDIT => Step::Edit(self.byte()),
            op::WAIT => Step::Wait((1 << (self.byte() % 40)).min(LONGEST_WAIT_MS)),
            kind => {
                let way = self.byte();
                let virtio = (op & op::VIRTIO != 0).then(|| std::array::from_fn(|_| self.byte()));
                let mut bytes = match kind {
                    op::RAW => {
                        let len = self.word();
                        self.take(len.min(MOST_BYTES))
                    }
                    _ => self.altered(op, stock),
                };
                if op & op::MENDED != 0 {
                    bytes = mended(bytes);
                }
                Step::Bytes { way, virtio, bytes }
            }
        }
    }

    /// Something good with some bytes overwritten, perhaps shortened, perhaps longer.
    fn altered(&mut self, op: u8, stock: &[Vec<u8>]) -> Vec<u8> {
        let which = self.byte();
        let mut bytes = stock[usize::from(which) % stock.len()].clone();
        for _ in 0..self.byte() % 8 {
            let (at, value) = (self.word(), self.byte());
            let len = bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(at % len) {
                *byte = value;
            }
        }
        if op & op::GROWN != 0 {
            let (at, count) = (self.word() % (bytes.len() + 1), self.byte());
            let new = self.take(count.into());
            bytes.splice(at..at, new);
        }
        if op & op::SHORTENED != 0 {
            let len = self.word() % (bytes.len() + 1);
            bytes.truncate(len);
        }
        bytes
    }
}

/// A packet of a file that is being read.
#[derive(Default)]
struct Draft {
    way: u8,
    virtio: Option<[u8; 10]>,
    bytes: Vec<u8>,
    mended: bool,
}

impl Draft {
    fn add(&mut self, word: &str) -> Result<(), String> {
        if let Some(text) = word.strip_prefix('"') {
            self.bytes.extend(text.as_bytes());
        } else if word == "mended" {
            self.mended = true;
        } else if let Some(number) = word.strip_prefix("way=") {
            self.way = number.parse().map_err(|_| "no number".to_owned())?;
        } else if let Some(text) = word.strip_prefix("virtio=") {
            let header = unhex(text).and_then(|bytes| bytes.try_into().ok());
            self.virtio = Some(header.ok_or("ten bytes are needed")?);
        } else {
            let (text, count) = word.split_once('*').unwrap_or((word, "1"));
            let count = count.parse().map_err(|_| "no number".to_owned())?;
            let bytes = unhex(text).ok_or("this is not hexadecimal")?;
            self.bytes.extend(bytes.repeat(count));
        }
        Ok(())
    }

    fn step(self) -> Step {
        let bytes = if self.mended { mended(self.bytes) } else { self.bytes };
        Step::Bytes { way: self.way, virtio: self.virtio, bytes }
    }
}

/// The words of a line without its comment. Text keeps its first quote; `\r`, `\n`, `\\` and `\"`
/// stand for what they do in Rust.
fn words_of(line: &str) -> Option<Vec<String>> {
    let (mut words, mut chars) = (Vec::<String>::new(), line.chars().peekable());
    while let Some(first) = chars.next() {
        match first {
            '#' => break,
            ' ' | '\t' => {}
            '"' => {
                let mut word = String::from('"');
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => word.push(match chars.next()? {
                            'r' => '\r',
                            'n' => '\n',
                            't' => '\t',
                            '0' => '\0',
                            other => other,
                        }),
                        other => word.push(other),
                    }
                }
                words.push(word);
            }
            _ => {
                let mut word = String::from(first);
                while let Some(next) = chars.next_if(|next| !next.is_whitespace()) {
                    word.push(next);
                }
                words.push(word);
            }
        }
    }
    Some(words)
}

fn number_of(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => word.parse().ok(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let digits = (0..text.len()).step_by(2);
    digits.map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}
