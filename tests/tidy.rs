//! The house rules that a compiler does not know, read off the source itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What the inner modules may import of this crate. Those that are not named here are the outer
/// ones, which put the inner ones together.
const IMPORTS: [(&str, &[&str]); 9] = [
    ("packet", &[]),
    ("engine", &["packet"]),
    ("driver", &["packet"]),
    ("link", &["packet", "engine", "driver"]),
    ("worker", &["packet", "engine", "driver", "link"]),
    ("control", &["packet", "engine"]),
    ("host", &["packet", "link"]),
    ("guard", &["packet", "engine", "link", "host"]),
    ("simulate", &["packet", "engine", "control"]),
];

/// Modules that do no I/O: bytes and the time go in, verdicts come out.
const WITHOUT_IO: [&str; 2] = ["packet", "engine"];

/// What those must not name.
const IO: [&str; 21] = [
    "std::env",
    "std::fs",
    "std::io",
    "std::net::Tcp",
    "std::net::Udp",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "Instant::now",
    "SystemTime::now",
    "eprintln!",
    "println!",
    "libc::",
    "mio::",
    "nix::",
    "rustix::",
    "socket2::",
    "tokio::",
    "tracing::",
];

/// The places where `unsafe` is allowed.
const UNSAFE: [&str; 3] = ["src/driver/sys/", "src/guard/sys.rs", "src/lab/sys/"];

/// Lines of a module that are not tests, at most. Five hundred are meant; these are the limit.
const MOST_LINES: usize = 700;

/// A source file without its tests and comments.
struct Source {
    /// Its path from the package on.
    path: String,
    /// Its lines with their numbers.
    lines: Vec<(usize, String)>,
}

impl Source {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let path = path.strip_prefix(root()).unwrap().display().to_string();
        let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
        let code = code.replace("#[cfg(test)]", "");
        let lines = (1..).zip(code.lines()).map(|(number, line)| (number, bare(line)));
        Self { path, lines: lines.filter(|(_, line)| !line.trim().is_empty()).collect() }
    }

    /// The lines that contain a word, each with its place.
    fn naming(&self, word: &str) -> Vec<String> {
        let lines = self.lines.iter().filter(|(_, line)| names(line, word));
        lines.map(|(number, line)| format!("{}:{number}: {}", self.path, line.trim())).collect()
    }
}

/// A line without its comment.
fn bare(line: &str) -> String {
    let is_comment = |at: &usize| !line[..*at].ends_with(':');
    let comment = line.match_indices("//").map(|(at, _)| at).find(is_comment);
    line[..comment.unwrap_or(line.len())].to_owned()
}

/// Whether a line contains `word`, and not as the end of a longer one.
fn names(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(is_part))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All source files below a folder, without those of tests.
fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            // Tests beside their module, and what fuzz targets were built into.
            let is_none = path.file_stem().is_some_and(|stem| stem == "tests" || stem == "target");
            match (path.is_dir(), path.extension()) {
                _ if is_none => {}
                (true, _) => folders.push(path),
                (false, Some(extension)) if extension == "rs" => found.push(Source::read(&path)),
                _ => {}
            }
        }
    }
    assert!(!found.is_empty(), "there is nothing in {folder}");
    found
}

/// The modules of this crate that a line names.
fn modules(line: &str) -> impl Iterator<Item = &str> {
    let paths = line.split("crate::").skip(1);
    paths.filter_map(|path| path.split(|c: char| !c.is_alphanumeric() && c != '_').next())
}

fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn imports_follow_the_diagram() {
    let mut complaints = Vec::new();
    for (module, allowed) in IMPORTS {
        for Source { path, lines } in sources(&format!("src/{module}")) {
            for (number, line) in lines {
                assert!(!line.contains("crate::{"), "{path}:{number}: name one module a line");
                let foreign = modules(&line).filter(|each| *each != module);
                let forbidden = foreign.filter(|each| !allowed.contains(each));
                complaints.extend(
                    forbidden.map(|each| format!("{path}:{number}: {module} imports {each}")),
                );
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn packet_and_engine_do_no_io() {
    let mut complaints = Vec::new();
    for source in WITHOUT_IO.iter().flat_map(|module| sources(&format!("src/{module}"))) {
        complaints.extend(IO.iter().flat_map(|word| source.naming(word)));
    }
    assert_none(&complaints);
}

#[test]
fn unsafe_stays_where_system_calls_are() {
    let mut complaints = Vec::new();
    let all = ["src", "examples", "benches", "tests"].map(sources);
    for source in all.iter().flatten().filter(|source| source.path != file!()) {
        if !UNSAFE.iter().any(|place| source.path.starts_with(place)) {
            let words = ["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe_code"];
            complaints.extend(words.iter().flat_map(|word| source.naming(word)));
        }
    }
    assert_none(&complaints);
}

#[test]
fn modules_stay_readable_in_one_go() {
    let long = sources("src").into_iter().filter(|source| source.lines.len() > MOST_LINES);
    let complaints = long.map(|source| format!("{}: {} lines", source.path, source.lines.len()));
    assert_none(&complaints.collect::<Vec<_>>());
}

#[test]
fn the_readme_accounts_for_every_dependency() {
    let Ok(readme) = fs::read_to_string(root().join("README.md")) else {
        eprintln!("skipped: there is no README.md yet");
        return;
    };
    let named: Vec<&str> = first_columns(&readme).flat_map(quoted).collect();
    let missing = dependencies().into_iter().filter(|name| !named.contains(&name.as_str()));
    let complaints = missing.map(|name| format!("README.md: no table says why `{name}' is used"));
    assert_none(&complaints.collect::<Vec<_>>());
}

/// The first columns of all tables.
fn first_columns(markdown: &str) -> impl Iterator<Item = &str> {
    let rows = markdown.lines().filter_map(|line| line.trim().strip_prefix('|'));
    rows.filter_map(|row| row.split('|').next())
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The names of what Cargo.toml asks for.
fn dependencies() -> Vec<String> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut sections: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut section = "";
    for line in manifest.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((name, _)) = line.split_once(" = ") {
            sections.entry(section).or_default().push(name.trim().to_owned());
        }
    }
    let names = ["dependencies", "dev-dependencies"].map(|section| sections.remove(section));
    let names: Vec<String> = names.into_iter().flatten().flatten().collect();
    assert!(names.iter().any(|name| name == "etherparse"), "Cargo.toml is read: {names:?}");
    names
}

/// The rules above would hold for an empty crate as well.
#[test]
fn what_is_forbidden_is_found() {
    assert_eq!(
        modules("use crate::driver::{A, B}; crate::link").collect::<Vec<_>>(),
        ["driver", "link"]
    );
    assert!(names("    std::thread::spawn(f)", "std::thread"));
    assert!(names("let now = Instant::now();", "Instant::now"));
    assert!(!names("let now = LaterInstant::now();", "Instant::now"));
    assert_eq!(bare("let url = \"http://x\"; // std::fs"), "let url = \"http://x\"; ");
    let place = sources("src/driver/sys").into_iter().find(|each| each.path.ends_with("ring.rs"));
    assert!(!place.unwrap().naming("unsafe {").is_empty());
    assert_eq!(
        first_columns("| `a`, `b` | `c` |\n").flat_map(quoted).collect::<Vec<_>>(),
        ["a", "b"]
    );
}
