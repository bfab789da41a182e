//! Labs as a reader sees them: what is built, typed, answered, and whether that is right.

mod drawing;
mod nat;
mod voice;

pub use drawing::draw;
pub use voice::Voice;

use std::error::Error;

use super::process::{Lab, Plan};
use super::topology::Topology;

/// A lab with its script.
pub trait Story {
    /// What the lab consists of.
    fn topology(&self) -> Topology;

    /// Goes through the script on a running lab. Returns whether everything was as promised.
    fn tell(&self, lab: &Lab, plan: &Plan) -> Result<bool, Box<dyn Error>>;
}

/// The story of that name.
pub fn find(name: &str) -> Result<Box<dyn Story>, String> {
    match name {
        "nat" => Ok(Box::new(nat::Nat)),
        other => Err(format!("there is no lab '{other}'; there is: nat")),
    }
}
