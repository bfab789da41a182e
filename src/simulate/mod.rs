//! Plays packet scenarios through the director with a virtual clock, and writes down what happened.
//!
//! The scenario language, the network it plays in and the form of its transcripts are those with
//! which the Linux kernel's IPVS was recorded, so that the two can be compared line by line.

mod admin;
mod explain;
mod host;
mod lab;
pub mod packet;
mod player;
pub mod plot;
pub mod scenario;
mod settings;
mod shell;
mod sync;
pub mod topology;
pub mod transcript;

pub use player::{Manner, PlayError, play, play_in};
