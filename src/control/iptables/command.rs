//! What can be done about rules.

/// A command about rules of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<R> {
    /// `-A`: add a rule at the end.
    Append(R),
    /// `-I`: add a rule before the one of a number, which is 1 for the first.
    Insert(R, usize),
    /// `-D`: remove a rule.
    Delete(R),
    /// `-D` with a number: remove the rule of that number.
    DeleteAt(usize),
    /// `-R`: put a rule in place of the one of a number.
    Replace(R, usize),
    /// `-C`: find out whether there is such a rule.
    Check(R),
    /// `-F`: remove all rules.
    Flush,
    /// `-P ... ACCEPT`, `-Z` and `-X`, which change nothing here: what no rule takes goes on anyway,
    /// and there are neither counters nor further chains.
    Idle,
    /// `-S` or `-L`: list the rules.
    List(Listing),
}

/// Which rules are listed, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Whether each has its number (`--line-numbers`).
    pub numbered: bool,
    /// The number of the only one that is wanted.
    pub only: Option<usize>,
}

impl Listing {
    /// Those of the rules that are wanted, a line each.
    pub fn lines(self, rules: &[String]) -> String {
        let wanted = (1..).zip(rules);
        let wanted = wanted.filter(|(number, _)| self.only.is_none_or(|only| only == *number));
        let lines = wanted.map(|(number, rule)| match self.numbered {
            true => format!("{number:<4} {rule}\n"),
            false => format!("{rule}\n"),
        });
        lines.collect()
    }
}

impl<R> Command<R> {
    /// Carries the command out on rules; `is_same` finds the one to delete. Returns whether they are
    /// others than before.
    ///
    /// **Errors** — if there is none to delete, or none that was asked about.
    pub fn apply(
        self,
        rules: &mut Vec<R>,
        is_same: impl Fn(&R, &R) -> bool,
    ) -> Result<bool, String> {
        match self {
            Self::Append(rule) => rules.push(rule),
            Self::Insert(rule, number) => {
                let at = number - 1;
                if at > rules.len() {
                    return Err("Index of insertion too big.".into());
                }
                rules.insert(at, rule);
            }
            Self::DeleteAt(number) => {
                if number > rules.len() {
                    return Err("Index of deletion too big.".into());
                }
                rules.remove(number - 1);
            }
            Self::Replace(rule, number) => {
                *rules.get_mut(number - 1).ok_or("Index of replacement too big.")? = rule;
            }
            Self::Delete(rule) => {
                let at = rules.iter().position(|known| is_same(known, &rule));
                rules.remove(at.ok_or("there is no such rule; `-S' lists the rules")?);
            }
            Self::Check(rule) => {
                let is_there = rules.iter().any(|known| is_same(known, &rule));
                let missing = "Bad rule (does a matching rule exist in that chain?).";
                return if is_there { Ok(false) } else { Err(missing.into()) };
            }
            Self::Flush => rules.clear(),
            Self::Idle | Self::List(_) => return Ok(false),
        }
        Ok(true)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Append,
    Insert,
    Delete,
    Replace,
    Check,
    Flush,
    Policy,
    Zero,
    /// Whatever is about chains of one's own.
    Chains,
    List,
}

impl Verb {
    /// The one that a word stands for.
    pub(super) fn named(word: &str) -> Option<Self> {
        Some(match word {
            "-A" | "--append" => Self::Append,
            "-I" | "--insert" => Self::Insert,
            "-R" | "--replace" => Self::Replace,
            "-D" | "--delete" => Self::Delete,
            "-C" | "--check" => Self::Check,
            "-P" | "--policy" => Self::Policy,
            "-Z" | "--zero" => Self::Zero,
            "-F" | "--flush" => Self::Flush,
            "-S" | "--list-rules" | "-L" | "--list" => Self::List,
            "-N" | "--new-chain" | "-X" | "--delete-chain" | "-E" | "--rename-chain" => {
                Self::Chains
            }
            listing if is_short_listing(listing) => Self::List,
            _ => return None,
        })
    }

    pub(super) fn needs_chain(self) -> bool {
        match self {
            Self::Append
            | Self::Insert
            | Self::Delete
            | Self::Replace
            | Self::Check
            | Self::Policy => true,
            Self::Flush | Self::Zero | Self::Chains | Self::List => false,
        }
    }
}

/// Whether a word is `-L` or `-S` with other letters before it, as in `-nvL`.
fn is_short_listing(word: &str) -> bool {
    let letters = word.strip_prefix('-').and_then(|word| word.strip_suffix(['L', 'S']));
    letters.is_some_and(|letters| letters.chars().all(|letter| "nvx".contains(letter)))
}
