//! Plays packet scenarios through the director with a virtual clock, and writes down what happened.
//!
//! The scenario language, the network it plays in and the form of its transcripts are those with
//! which the Linux kernel's IPVS was recorded, so that the two can be compared line by line.

pub mod packet;
pub mod scenario;
pub mod topology;
pub mod transcript;
