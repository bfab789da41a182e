//! What a scheduler tells people about a choice.

use super::Reals;
use super::load::is_eligible;
use crate::engine::service::RealServer;

/// What a scheduler looks at for one flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// How the scheduler chooses, in a few words.
    pub rule: &'static str,
    /// What holds for this choice as a whole, such as the bucket a client falls into; may be empty.
    pub note: String,
    /// One text per server in the order of the list: its figure, or why it is out of the question.
    pub figures: Vec<String>,
}

impl Explanation {
    /// An explanation with a figure for every server that may take connections.
    pub(super) fn new(
        rule: &'static str,
        note: impl Into<String>,
        reals: &Reals,
        figure: impl Fn(usize, &RealServer) -> String,
    ) -> Self {
        let each = reals.iter().enumerate().map(|(index, real)| match refusal(real) {
            Some(reason) => reason.into(),
            None => figure(index, real),
        });
        Self { rule, note: note.into(), figures: each.collect() }
    }
}

fn refusal(real: &RealServer) -> Option<&'static str> {
    match is_eligible(real) {
        true => None,
        false if real.weight() <= 0 => Some("weight 0"),
        false => Some("overloaded"),
    }
}
