//! The image of examples/container, of one program that needs no libraries.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::engine::{Engine, succeeded};

/// Puts the example with the program in it where README's commands expect it, below a directory of
/// the engine's. Returns that directory.
pub fn prepare(engine: &Engine) -> PathBuf {
    let project = engine.path("project");
    let (from, to) = (source(), project.join("examples/container"));
    fs::create_dir_all(to.join("bin")).unwrap();
    for file in ["Dockerfile", "compose.yaml", "rules", "rules-direct"] {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
    symlink(fs::read_link(from.join("bin/ipvsadm")).unwrap(), to.join("bin/ipvsadm")).unwrap();
    fs::copy(program(), to.join("bin/ulvs")).unwrap();
    project
}

/// The same, and builds the image by the name of `ulvs`.
pub fn build(engine: &Engine) -> PathBuf {
    let project = prepare(engine);
    engine.docker(&format!("build -t ulvs {}/examples/container", project.display()));
    project
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/container")
}

/// The static program: what `ULVS_STATIC` names, else it is built, which takes a while at first.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| match std::env::var_os("ULVS_STATIC") {
        Some(path) => path.into(),
        None => {
            let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("static");
            let mut cargo = Command::new(env!("CARGO"));
            cargo.current_dir(env!("CARGO_MANIFEST_DIR")).arg("rustc").arg("--target-dir");
            cargo.arg(&target).args(["--quiet", "--bin", "ulvs", "--"]);
            cargo.args(["-C", "target-feature=+crt-static", "-C", "strip=debuginfo"]);
            succeeded("cargo rustc", cargo.output().unwrap());
            target.join("debug/ulvs")
        }
    })
}
