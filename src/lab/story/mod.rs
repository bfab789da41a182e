//! Labs as a reader sees them: what is built, typed, answered, and whether that is right.
//!
//! To add a lab:
//!
//! 1. its network, as a [`Topology`] in a file of `lab/topology`;
//! 2. its script, as a [`Story`] in a file here, and a line in `LABS`;
//! 3. its name and what it shows, as a variant of `Command` in `bin/ulvs/lab.rs`, and in README;
//! 4. a test in `tests/lab/stories.rs`, which says in its own words what the reader has to see.
//!
//! A story is told on a [`Scene`], which runs commands as it shows them, and collects what was
//! promised. A promise is something that was seen to be so, by other means than the director's own
//! word where there are any. The beginning, the verdict and the invitation are the same for all.

mod direct;
mod dr;
mod drawing;
mod ftp;
mod fullnat;
mod fwmark;
mod ipv6;
mod nat;
mod pages;
mod persistence;
mod scene;
mod tables;
mod transfer;
mod tun;
mod voice;
mod weights;

pub use drawing::draw;
pub use pages::{Page, Pages};
pub use scene::Scene;
pub use voice::Voice;

use std::error::Error;

use super::process::{Lab, Plan};
use super::topology::Topology;

/// What telling comes to: an error ends the lab, a promise that was not kept does not.
pub type Told<T = ()> = Result<T, Box<dyn Error>>;

/// A lab with its script.
pub trait Story {
    /// What the lab consists of.
    fn topology(&self) -> Topology;

    /// Goes through the script on a running lab.
    fn tell(&self, scene: &mut Scene<'_>) -> Told;

    /// What a reader can try while the lab stays up: hosts, and commands on them.
    fn invitation(&self) -> Vec<(&'static str, String)>;
}

/// All labs, by the names that `ulvs lab` knows them by.
const LABS: [(&str, &dyn Story); 13] = [
    ("nat", &nat::Nat),
    ("ipv6", &ipv6::Ipv6),
    ("weights", &weights::Weights),
    ("persistence", &persistence::Persistence),
    ("fwmark", &fwmark::Fwmark),
    ("dr", &dr::Tutorial),
    ("dr-172.16.1", &dr::Segment),
    ("dr-router", &dr::Router),
    ("tun", &tun::Tun::IPIP),
    ("tun-gre", &tun::Tun::GRE),
    ("tun-gue", &tun::Tun::GUE),
    ("fullnat", &fullnat::FullNat),
    ("ftp", &ftp::Ftp),
];

/// The story of that name.
pub fn find(name: &str) -> Result<&'static dyn Story, String> {
    let found = LABS.into_iter().find(|(known, _)| *known == name);
    found.map(|(_, story)| story).ok_or_else(|| {
        let known = LABS.map(|(known, _)| known).join(", ");
        format!("there is no lab '{name}'; there are: {known}")
    })
}

/// Tells a story from its drawing to its verdict. Returns whether all promises were kept.
pub fn tell(story: &dyn Story, lab: &Lab, plan: &Plan) -> Told<bool> {
    let mut scene = Scene::new(lab, plan);
    scene.introduce()?;
    story.tell(&mut scene)?;
    let all_well = scene.verdict()?;
    if plan.keep {
        scene.invite(&story.invitation())?;
    }
    Ok(all_well)
}
