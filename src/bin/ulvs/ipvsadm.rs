//! `ulvs ipvsadm`, and the same when the binary is called `ipvsadm`.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::path::Path;
use std::process::ExitCode;

use ulvs::control::ipvsadm::Console;
use ulvs::control::ipvsadm::names::SystemNames;
use ulvs::control::socket::{SocketTransport, default_path};

/// The arguments of `ulvs ipvsadm`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Options of ipvsadm(8); `ulvs ipvsadm -h` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

/// Runs ipvsadm.
pub fn run(args: &Args) -> ExitCode {
    exit_code(run_on(&args.options, &mut io::stdin().lock()))
}

/// Runs ipvsadm or one of its scripts if that is what the program was called as or asked for.
pub fn by_name(mut words: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let program = words.next()?;
    let mut options: Vec<String> = words.map(|word| word.to_string_lossy().into()).collect();
    let name = Path::new(&program).file_name()?.to_str()?;
    let status = match (name, options.first().map(String::as_str)) {
        ("ipvsadm-restore", _) => restore(),
        ("ipvsadm-save", _) => {
            options.insert(0, "-S".into());
            run_on(&options, &mut io::empty())
        }
        ("ipvsadm", _) => run_on(&options, &mut io::stdin().lock()),
        (_, Some("ipvsadm")) => run_on(&options[1..], &mut io::stdin().lock()),
        _ => return None,
    };
    Some(exit_code(status))
}

/// `ipvsadm-restore`: clears the table, then restores what is on standard input, comments aside.
fn restore() -> i32 {
    let mut rules = String::new();
    if let Err(error) = io::stdin().lock().read_to_string(&mut rules) {
        eprintln!("ipvsadm-restore: cannot read the rules: {error}");
        return 1;
    }
    let rules: Vec<_> = rules.lines().filter(|line| !line.starts_with('#')).collect();
    match run_on(&["-C".into()], &mut io::empty()) {
        0 => run_on(&["-R".into()], &mut BufReader::new(rules.join("\n").as_bytes())),
        status => status,
    }
}

fn run_on(args: &[String], stdin: &mut dyn BufRead) -> i32 {
    let mut transport = SocketTransport::new(default_path());
    let mut stdout = io::stdout().lock();
    let mut stderr = io::stderr().lock();
    let mut console = Console { stdin, stdout: &mut stdout, stderr: &mut stderr, hints: true };
    let status = ulvs::control::ipvsadm::run(
        args,
        &mut console,
        &mut transport,
        &mut SystemNames::default(),
    );
    if stdout.flush().is_err() { 1 } else { status }
}

fn exit_code(status: i32) -> ExitCode {
    u8::try_from(status).map_or(ExitCode::FAILURE, ExitCode::from)
}
