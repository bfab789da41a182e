//! What the tests of hostile input and the fuzz targets (tests/fuzz) have in common.
//!
//! - [`script`]: what is thrown at something, as text (the corpus) and as bytes (from a fuzzer).
//! - [`build`], [`stock`]: good packets, which hostile ones are made of.
//! - [`judge`]: what every packet that leaves has to be like, by a reader of its own.
//! - [`director`], [`wire`], [`control`], [`words`], [`tunnel`]: what scripts are played against.

pub mod build;
pub mod control;
pub mod director;
pub mod judge;
pub mod script;
pub mod stock;
pub mod tunnel;
pub mod wire;
pub mod words;

use script::{Script, Target};

/// Plays a script against its target; panics with what is wrong.
pub fn play(script: &Script) {
    match script.target {
        Target::Director => {
            director::play(script);
        }
        Target::Wire => wire::play(script),
        Target::Control => control::play(script),
        Target::Words => words::play(script),
        Target::Tunnel => tunnel::play(script),
    }
}

/// The good packets or messages that a target's scripts may alter.
pub fn stock(target: Target) -> &'static [Vec<u8>] {
    match target {
        Target::Director => stock::packets(),
        Target::Wire => stock::frames(),
        Target::Control => stock::requests(),
        Target::Words => stock::texts(),
        Target::Tunnel => stock::payloads(),
    }
}

/// Plays what a fuzzer came up with. With `HOSTILE_PRINT` set, prints it as a file of the corpus first.
#[allow(dead_code, reason = "the fuzz targets' way in")]
pub fn play_bytes(target: Target, bytes: &[u8]) {
    let script = Script::decode(target, stock(target), bytes);
    if std::env::var_os("HOSTILE_PRINT").is_some() {
        print!("# \n{}", script.write());
    }
    play(&script);
}
