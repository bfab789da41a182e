//! Hostile input: damaged, contradictory and absurd packets, frames, messages and texts, from a
//! corpus of files, from generators, and in floods.
//!
//! Beside not panicking, what is attacked keeps its word: every packet has one verdict that is
//! counted, what leaves is well-formed and no longer than it may be, memory stays bounded, and
//! connections that nobody attacks, configuration and clock jumps work on. `shared` says how. The same
//! scripts are what the fuzz targets below tests/fuzz play.

mod floods;
mod shared;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use shared::script::{Script, Target};
use shared::{judge, play, stock};

fn corpus() -> Vec<(PathBuf, Script)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/corpus");
    let mut paths: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let script = Script::read(&text);
        let script = script.unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        assert!(text.starts_with("# "), "{}: a file begins with what is wrong", path.display());
        (path, script)
    };
    paths.into_iter().map(read).collect()
}

#[test]
fn the_corpus_is_survived() {
    let corpus = corpus();
    for (path, script) in &corpus {
        if let Err(panic) = catch_unwind(|| play_in_manners(script)) {
            eprintln!("{}", path.display());
            resume_unwind(panic);
        }
    }
    for (target, name) in Target::ALL {
        let count = corpus.iter().filter(|(_, script)| script.target == target).count();
        assert!(count > 0, "there is a file for {name}");
    }
}

/// Plays a file; what a worker does alone also with a second one.
fn play_in_manners(script: &Script) {
    play(script);
    if script.target == Target::Wire {
        play(&Script { manner: script.manner | 4, ..script.clone() });
    }
}

/// What is good passes: else the hostile would only ever be refused at the door.
#[test]
fn what_hostile_packets_are_made_of_is_good() {
    for bytes in stock(Target::Director) {
        let is_good = match bytes[0] >> 4 {
            4 | 6 => ulvs::packet::Headers::parse(bytes).is_ok(),
            _ => ulvs::engine::sync::message::read(bytes, 5)
                .is_ok_and(|mut entries| entries.all(|entry| entry.is_ok())),
        };
        assert!(is_good, "{bytes:02x?}");
    }
}

/// Else nothing that leaves could ever be wrong.
#[test]
fn the_judge_sees_a_single_flipped_bit() {
    let of_ip = stock(Target::Director).iter().filter(|bytes| matches!(bytes[0] >> 4, 4 | 6));
    let mut summed = 0;
    for bytes in of_ip {
        let seen = judge::see(bytes).unwrap();
        assert!(judge::see(&bytes[..bytes.len() - 1]).is_err(), "it is shorter than it says");
        if seen.is_v4 {
            let mut damaged = bytes.clone();
            damaged[8] ^= 1;
            assert!(judge::see(&damaged).is_err(), "the header's checksum is wrong");
        }
        if judge::checksum_is_right(bytes, seen).is_some() {
            assert_eq!(judge::checksum_is_right(bytes, seen), Some(true), "{bytes:02x?}");
            let mut damaged = bytes.clone();
            *damaged.last_mut().unwrap() ^= 1;
            assert_eq!(judge::checksum_is_right(&damaged, seen), Some(false));
            summed += 1;
        }
    }
    assert!(summed > 100, "{summed} have a checksum");
}

#[test]
fn files_and_a_fuzzers_bytes_say_the_same() {
    for (path, script) in corpus() {
        let again = Script::read(&script.write()).unwrap();
        assert_eq!(again, script, "{}", path.display());
        let decoded = Script::decode(script.target, stock(script.target), &script.encode());
        assert_eq!(decoded.steps.len(), script.steps.len(), "{}", path.display());
    }
}

/// Writes the corpus as files for the fuzzer to begin with, one folder per target:
/// `cargo test --test hostile -- --ignored seeds`.
#[test]
#[ignore = "writes files below tests/fuzz/corpus"]
fn seeds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    for (path, script) in corpus() {
        let folder = folder.join(script.target.name());
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(path.file_stem().unwrap()), script.encode()).unwrap();
    }
    for (target, name) in Target::ALL {
        fs::create_dir_all(folder.join(name)).unwrap();
        for number in 0..stock(target).len() {
            // Nothing altered, in its most likely manner, and by each way.
            for way in 0..4 {
                let bytes = [0, 0, 3, way, number as u8, 0];
                fs::write(folder.join(name).join(format!("stock-{number}-{way}")), bytes).unwrap();
            }
        }
    }
}

/// Plays what a fuzzer's bytes mean; of what fails, prints the file for the corpus.
fn play_bytes(target: Target, bytes: &[u8]) -> Result<(), TestCaseError> {
    let script = Script::decode(target, stock(target), bytes);
    catch_unwind(AssertUnwindSafe(|| play(&script))).map_err(|panic| {
        let why = panic.downcast_ref::<String>().cloned();
        let why = why.or_else(|| panic.downcast_ref::<&str>().map(|why| (*why).to_owned()));
        TestCaseError::fail(format!("{}\n{}", why.unwrap_or_default(), script.write()))
    })
}

/// Bytes of scripts: mostly good packets with something altered.
fn scripts() -> impl Strategy<Value = Vec<u8>> {
    let altered = (
        prop::sample::select(vec![3u8, 0x0b, 0x0b, 0x13, 0x1b, 0x23, 0x2b, 0x43, 0x4b]),
        any::<u8>(),
        prop_oneof![3 => Just([0; 10]), 1 => any::<[u8; 10]>(), 2 => plausible_header()],
        any::<u8>(),
        prop::collection::vec((any::<u16>(), any::<u8>()), 0..4),
        prop::collection::vec(any::<u8>(), 0..12),
        any::<u16>(),
    );
    let altered = altered.prop_map(|(op, way, header, which, edits, new, at)| {
        let mut bytes = vec![op, way];
        if op & 0x10 != 0 {
            bytes.extend(header);
        }
        bytes.extend([which, edits.len() as u8]);
        for (at, value) in edits {
            bytes.extend(at.to_le_bytes());
            bytes.push(value);
        }
        if op & 0x40 != 0 {
            bytes.extend(at.to_le_bytes());
            bytes.push(new.len() as u8);
            bytes.extend(new);
        }
        if op & 0x20 != 0 {
            bytes.extend(at.to_le_bytes());
        }
        bytes
    });
    let step = prop_oneof![
        12 => altered,
        1 => any::<u8>().prop_map(|which| vec![1, which]),
        1 => (0u8..40).prop_map(|exponent| vec![2, exponent]),
    ];
    (any::<u16>(), prop::collection::vec(step, 1..24)).prop_map(|(manner, steps)| {
        let mut bytes = manner.to_le_bytes().to_vec();
        steps.iter().for_each(|step| bytes.extend(step));
        bytes
    })
}

/// Headers of super-frames that may well go with a packet.
fn plausible_header() -> impl Strategy<Value = [u8; 10]> {
    let kind = prop::sample::select(vec![0u8, 1, 3, 4, 5]);
    let start = prop::sample::select(vec![20u8, 34, 40, 54, 60]);
    let offset = prop::sample::select(vec![6u8, 16, 2, 8]);
    (any::<bool>(), kind, 1u16..1500, start, offset).prop_map(
        |(unfinished, kind, size, start, offset)| {
            let [low, high] = size.to_le_bytes();
            [u8::from(unfinished), kind, 54, 0, low, high, start, 0, offset, 0]
        },
    )
}

/// So many cases, unless `PROPTEST_CASES` says otherwise.
fn cases(cases: u32) -> ProptestConfig {
    let given = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => given,
        None => ProptestConfig { cases, ..given },
    }
}

proptest! {
    #![proptest_config(cases(160))]

    #[test]
    fn the_director_survives_altered_packets(bytes in scripts()) {
        play_bytes(Target::Director, &bytes)?;
    }

    #[test]
    fn a_worker_survives_altered_frames(bytes in scripts()) {
        play_bytes(Target::Wire, &bytes)?;
    }

    #[test]
    fn the_handler_survives_altered_messages(bytes in scripts()) {
        play_bytes(Target::Control, &bytes)?;
    }

    #[test]
    fn readers_of_texts_survive_altered_ones(bytes in scripts()) {
        play_bytes(Target::Words, &bytes)?;
    }

    #[test]
    fn the_end_of_a_tunnel_survives_altered_packets(bytes in scripts()) {
        play_bytes(Target::Tunnel, &bytes)?;
    }

}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn any_bytes_at_all_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for (target, _) in Target::ALL {
            play_bytes(target, &bytes)?;
        }
    }
}
