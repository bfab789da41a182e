//! The ipvsadm personality beside recorded transcripts of ipvsadm 1.31 on Linux 6.1.

mod control;

use std::collections::HashMap;
use std::path::Path;

use control::{TestHost, TestNames, handler};
use ulvs::control::client::InProcess;
use ulvs::control::handler::Handler;
use ulvs::control::ipvsadm::{Console, run};
use ulvs::engine::Moment;

/// What a command wrote and how it ended.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    stdout: String,
    stderr: String,
    status: i32,
}

fn ipvsadm(handler: &Handler<TestHost>, line: &str, stdin: &str, hints: bool) -> Outcome {
    let args: Vec<String> = line.split_whitespace().map(String::from).collect();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut console =
        Console { stdin: &mut stdin.as_bytes(), stdout: &mut stdout, stderr: &mut stderr, hints };
    let mut transport = InProcess { handler, now: Moment::default() };
    let status = run(&args, &mut console, &mut transport, &mut TestNames);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Outcome { stdout: text(stdout), stderr: text(stderr), status }
}

/// Plays the steps of a transcript and writes a transcript of it.
fn play(transcript: &str) -> String {
    let handler = handler();
    let mut files = HashMap::new();
    let mut played = String::new();
    let lines: Vec<&str> = transcript.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            played += &format!("{line}\n");
            continue;
        }
        let Some(step) = line.strip_prefix("$ ").filter(|step| !step.starts_with(' ')) else {
            continue;
        };
        let stdin = lines[at + 1..].iter().map_while(|line| line.strip_prefix("$   "));
        let stdin: String = stdin.map(|line| format!("{line}\n")).collect();
        let outcome = match step.split_once(' ').unwrap_or((step, "")) {
            ("ipvsadm", args) => ipvsadm(&handler, args, &stdin, false),
            ("table", "") => ipvsadm(&handler, "-Ln", "", false),
            ("sh", script) => shell(&handler, script, &mut files),
            _ => panic!("the test cannot play `{step}`"),
        };
        played += &format!("$ {step}\n");
        stdin.lines().for_each(|line| played += &format!("$   {line}\n"));
        played += &rendered(&outcome);
    }
    played
}

/// As much of a shell as the transcripts use: commands with redirections, separated by `;`.
fn shell(
    handler: &Handler<TestHost>,
    script: &str,
    files: &mut HashMap<String, String>,
) -> Outcome {
    let mut whole = Outcome::default();
    for command in script.split(';') {
        let command = command.trim().strip_prefix("ipvsadm").expect("only ipvsadm is understood");
        let (args, from) = command.split_once('<').unwrap_or((command, ""));
        let (args, to) = args.split_once('>').unwrap_or((args, ""));
        let stdin = files.get(from.trim()).cloned().unwrap_or_default();
        let mut outcome = ipvsadm(handler, args, &stdin, false);
        if !to.is_empty() {
            files.insert(to.trim().into(), std::mem::take(&mut outcome.stdout));
        }
        whole.stdout += &outcome.stdout;
        whole.stderr += &outcome.stderr;
        whole.status = outcome.status;
    }
    whole
}

fn rendered(outcome: &Outcome) -> String {
    let mut text = String::new();
    for line in outcome.stdout.lines() {
        text += &format!("  {line}\n");
    }
    for line in outcome.stderr.lines() {
        text += &format!("! {line}\n");
    }
    if outcome.status != 0 {
        text += &format!("? {}\n", outcome.status);
    }
    text
}

/// The transcripts that hold nothing but commands.
const TRANSCRIPTS: [&str; 24] = [
    "add_server_errors",
    "add_server_options",
    "add_service_errors",
    "add_service_long_options",
    "add_service_short_options",
    "clear",
    "daemon_commands",
    "daemon_options",
    "delete_server",
    "delete_service",
    "edit_server",
    "help",
    "list_nosort",
    "list_one_service",
    "list_rate",
    "list_sorted",
    "option_conflicts",
    "restore",
    "same_service_other_family_and_protocol",
    "save_and_restore",
    "sched_flags",
    "timeouts",
    "timeouts_limits",
    "version",
];

#[test]
fn every_recorded_command_does_what_ipvsadm_did() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ipvs/cli");
    let mut different = Vec::new();
    for name in TRANSCRIPTS {
        let recorded = std::fs::read_to_string(folder.join(name).with_extension("ipvs")).unwrap();
        let played = play(&recorded);
        let pairs = recorded.lines().zip(played.lines());
        if let Some((number, (expected, found))) =
            (1..).zip(pairs).find(|(_, (expected, found))| expected != found)
        {
            different.push(format!("{name}:{number}\n  recorded: {expected}\n  played:   {found}"));
        } else if recorded.lines().count() != played.lines().count() {
            different.push(format!("{name}: not as long as recorded"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}
