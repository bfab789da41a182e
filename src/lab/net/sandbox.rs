//! For tests that make namespaces: a user namespace where the privilege is missing.

use std::env;
use std::process::Command;

use super::Namespace;
use crate::lab::sys::spawn;

/// Set in the environment of a test that already runs in a user namespace of its own.
const MARK: &str = "ULVS_IN_SANDBOX";

/// Runs the body of the test `name` where it may make namespaces: right here if it may already,
/// otherwise by running this test program once more in a user namespace, for that test only. If
/// the system allows neither it says `skipped:` and returns.
///
/// **Panics** — if the test fails there.
pub fn run(name: &str, body: impl FnOnce()) {
    match Namespace::new("probe") {
        Ok(_) => body(),
        Err(error) if env::var_os(MARK).is_some() => {
            println!("skipped: {name}: user namespaces give no privileges here ({error})");
        }
        Err(_) => rerun(name),
    }
}

fn rerun(name: &str) {
    let program = env::current_exe().expect("the test program has a path");
    let mut command = Command::new(program);
    command.args([name, "--exact", "--nocapture", "--include-ignored"]).env(MARK, "1");
    spawn::enter_user_namespace(&mut command);
    spawn::die_with_parent(&mut command);
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => return println!("skipped: {name}: no user namespace here ({error})"),
    };
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} failed in a user namespace: {}", output.status);
    assert!(said.contains("1 passed"), "this program has no test of the name {name}");
}
