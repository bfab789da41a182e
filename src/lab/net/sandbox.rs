//! For tests that make namespaces: a process of its own for each, in a user namespace where the
//! privilege is missing.

use std::env;
use std::process::Command;

use super::Namespace;
use crate::lab::sys::spawn;

/// Set in the environment of a test that already runs in a process of its own.
const MARK: &str = "ULVS_IN_SANDBOX";

/// Runs the body of the test `name` in a process of its own, by running this test program once more
/// for that test only; in a user namespace unless it may make namespaces anyway. If the system allows
/// neither it says `skipped:` and returns.
///
/// Other tests do not get in the way there: a process that they have just started, and that has not
/// become another program yet, keeps open whatever is open in theirs, listeners that were closed
/// included.
///
/// **Panics** — if the test fails there.
pub fn run(name: &str, body: impl FnOnce()) {
    let is_inside = env::var_os(MARK).is_some();
    match Namespace::new("probe") {
        Ok(_) if is_inside => body(),
        Ok(_) => rerun(name, |_| {}),
        Err(error) if is_inside => {
            println!("skipped: {name}: user namespaces give no privileges here ({error})");
        }
        Err(_) => rerun(name, spawn::enter_user_namespace),
    }
}

fn rerun(name: &str, prepare: impl FnOnce(&mut Command)) {
    let program = env::current_exe().expect("the test program has a path");
    let mut command = Command::new(program);
    command.args([name, "--exact", "--nocapture", "--include-ignored"]).env(MARK, "1");
    prepare(&mut command);
    spawn::die_with_parent(&mut command);
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => return println!("skipped: {name}: no process of its own here ({error})"),
    };
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} failed in a process of its own: {}", output.status);
    assert!(said.contains("1 passed"), "this program has no test of the name {name}");
}
