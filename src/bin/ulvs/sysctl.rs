//! `ulvs sysctl`: the settings of IPVS.

use std::io::{self, Write as _};
use std::process::ExitCode;

use ulvs::control::ipvsadm::Console;
use ulvs::control::socket::{SocketTransport, default_path};
use ulvs::control::sysctl;

/// Arguments of `ulvs sysctl`.
pub type Args = sysctl::Options;

/// Runs the command. Statuses are those of sysctl(8).
pub fn run(args: &Args) -> ExitCode {
    let mut transport = SocketTransport::new(default_path());
    let (mut stdin, mut stdout) = (io::stdin().lock(), io::stdout().lock());
    let mut stderr = io::stderr().lock();
    let mut console =
        Console { stdin: &mut stdin, stdout: &mut stdout, stderr: &mut stderr, hints: true };
    let mut open = |name: &str| std::fs::read_to_string(name);
    let status = sysctl::run(args, &mut console, &mut transport, &mut open);
    if stdout.flush().is_err() {
        return ExitCode::FAILURE;
    }
    u8::try_from(status).map_or(ExitCode::FAILURE, ExitCode::from)
}
