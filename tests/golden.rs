//! Plays every recorded scenario and compares byte for byte with what the kernel's IPVS did.
//!
//! `tests/golden/ipvs/GROUP/NAME.scn` is a scenario, `NAME.ipvs` its transcript. A difference is
//! allowed only where `tests/golden/known-differences` lists `GROUP/NAME` with a reason; a listed
//! scenario without a difference fails the test too, so that the list can only shrink.
//!
//! `cargo test --test golden -- nat/ttl sched` plays the scenarios whose names contain one of these
//! words, and shows every difference, known or not.

use std::collections::BTreeMap;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ulvs::simulate::play;
use ulvs::simulate::scenario::parse_scenario;

/// Differences that are shown when nothing was asked for in particular.
const SHOWN: usize = 3;
/// Lines of either side that are shown from the first difference on.
const CONTEXT: usize = 8;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let words: Vec<String> =
        arguments.into_iter().filter(|argument| !argument.starts_with('-')).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let known = read_known(&folder.join("known-differences"));
    let all = scenarios(&folder.join("ipvs"));
    let mut faults: Vec<String> = known
        .keys()
        .filter(|name| !all.contains_key(*name))
        .map(|name| {
            format!("{name} is listed as a known difference, but there is no such scenario")
        })
        .collect();
    let chosen = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word));
    let mut summary: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for (name, path) in all.iter().filter(|(name, _)| chosen(name)) {
        let difference = difference(path);
        let counts = summary.entry(name.split('/').next().unwrap_or_default()).or_default();
        counts[2] += 1;
        match (&difference, known.get(name)) {
            (None, None) => counts[0] += 1,
            (Some(_), Some(_)) => counts[1] += 1,
            (None, Some(_)) => {
                faults.push(format!("{name} is a known difference no more: strike it off the list"))
            }
            (Some(difference), None) => faults.push(format!("{name} differs\n{difference}")),
        }
        if let (Some(difference), Some(reason), false) =
            (&difference, known.get(name), words.is_empty())
        {
            println!("{name} differs, as is known: {reason}\n{difference}");
        }
    }
    report(&summary, &faults, if words.is_empty() { SHOWN } else { usize::MAX })
}

fn report(summary: &BTreeMap<&str, [usize; 3]>, faults: &[String], shown: usize) -> ExitCode {
    println!("{:<10} {:>6} {:>6} {:>6}", "group", "equal", "known", "total");
    let mut all = [0; 3];
    for (group, counts) in summary {
        println!("{group:<10} {:>6} {:>6} {:>6}", counts[0], counts[1], counts[2]);
        all.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    println!("{:<10} {:>6} {:>6} {:>6}", "all", all[0], all[1], all[2]);
    for fault in faults.iter().take(shown) {
        println!("\n{fault}");
    }
    if faults.len() > shown {
        println!("\nand {} more:", faults.len() - shown);
        faults
            .iter()
            .skip(shown)
            .for_each(|fault| println!("  {}", fault.lines().next().unwrap_or("")));
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The listed names with their reasons.
fn read_known(path: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(path).expect("the list of known differences can be read");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, reason) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            assert!(!reason.trim().is_empty(), "{name} is listed without a reason");
            (name.to_string(), reason.trim().to_string())
        })
        .collect()
}

/// Every scenario by `GROUP/NAME`.
fn scenarios(folder: &Path) -> BTreeMap<String, PathBuf> {
    let entries = |folder: &Path| {
        fs::read_dir(folder)
            .expect("the corpus can be read")
            .map(|entry| entry.expect("an entry").path())
    };
    let groups = entries(folder).filter(|path| path.is_dir());
    let files = groups.flat_map(|group| entries(&group).collect::<Vec<_>>());
    let scenarios =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "scn"));
    scenarios
        .map(|path| {
            let name = path.strip_prefix(folder).expect("a path in the folder").with_extension("");
            (name.display().to_string(), path)
        })
        .collect()
}

/// What is different between what a scenario should print and what it prints, if anything.
fn difference(path: &Path) -> Option<String> {
    let expected =
        fs::read_to_string(path.with_extension("ipvs")).expect("its transcript can be read");
    let played = catch_unwind(|| transcript(path));
    let found = match played {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Some(format!("    {error}\n")),
        Err(_) => return Some("    it panicked\n".into()),
    };
    (found != expected).then(|| side_by_side(&expected, &found))
}

fn transcript(path: &Path) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let steps = parse_scenario(&text).map_err(|error| error.to_string())?;
    let mut written = Vec::new();
    play(&steps, &mut written).map_err(|error| error.to_string())?;
    String::from_utf8(written).map_err(|error| error.to_string())
}

/// The step of the first difference, and from there on what was expected and what was found.
fn side_by_side(expected: &str, found: &str) -> String {
    let (expected, found): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
    let same =
        expected.iter().zip(&found).take_while(|(expected, found)| expected == found).count();
    let step = expected[..same].iter().rposition(|line| line.starts_with("$ ")).unwrap_or(same);
    let mut text = String::new();
    let mut add = |sign: &str, lines: &[&str]| {
        lines.iter().take(CONTEXT).for_each(|line| text += &format!("    {sign} {line}\n"));
    };
    add(" ", &expected[step..same]);
    add("-", &expected[same..]);
    add("+", &found[same..]);
    text
}
