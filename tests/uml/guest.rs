//! A virtual machine: Debian's User-Mode Linux, which runs the programs of its host from the host's own
//! files, read-only.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use ulvs::lab::net::Namespace;

/// The guest's interface, and the host's end of it, in the namespace that the guest runs in.
pub const LINK: &str = "vec0";
pub const INTERFACE: &str = "guest";

/// A guest that runs. It is gone with its first process, which dies with the thread that booted it.
pub struct Guest {
    process: Child,
    console: Receiver<String>,
    directory: PathBuf,
}

impl Guest {
    /// Boots, and does what is asked for.
    pub fn boot(host: &Namespace, commands: &[String]) -> Self {
        let name = format!("ulvs-test-{}-guest", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        let init = directory.join("init");
        fs::write(&init, INIT).unwrap();
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).unwrap();
        let path = directory.to_str().expect("its name is text");
        // A process namespace of its own, so that no part of it outlives the first process.
        let mut command = host.command("unshare");
        command.args(["--pid", "--fork", "--kill-child", "linux.uml", "mem=192M", "quiet", "ro"]);
        command.args([
            "rootfstype=hostfs",
            "rootflags=/",
            "con0=fd:0,fd:1",
            "con=null",
            "umid=guest",
        ]);
        command.arg(format!("init={path}/init")).arg(format!("uml_dir={path}/"));
        command.arg(format!("{LINK}:transport=tap,ifname={INTERFACE}"));
        command.env("TMPDIR", path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let process = command.stderr(Stdio::null()).spawn().unwrap();
        let mut guest = Self { console: mpsc::channel().1, process, directory };
        guest.console = guest.listen();
        guest.wait_for("guest: ready");
        commands.iter().for_each(|each| guest.does(each));
        guest
    }

    /// Has its shell run a command, which must succeed.
    pub fn does(&mut self, command: &str) {
        let input = self.process.stdin.as_mut().expect("it is a pipe");
        writeln!(input, "{command}").unwrap();
        self.wait_for("guest: done");
    }

    /// Reads what it says, all the time.
    fn listen(&mut self) -> Receiver<String> {
        let output = self.process.stdout.take().expect("it is a pipe");
        let (send, console) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        console
    }

    fn wait_for(&mut self, word: &str) {
        let mut said = String::new();
        loop {
            let line = self.console.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|error| panic!("the guest: {error} after:\n{said}"));
            assert_ne!(line, "guest: failed", "{said}");
            if line == word {
                return;
            }
            said += &line;
            said.push('\n');
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// For a boot on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(180);

/// The guest's first process: a shell that does what it is told. The words that end a command's
/// output are put together so that the terminal's echo of the script does not contain them.
const INIT: &str = r#"#!/bin/sh
export PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /run
mkdir -p /run/kernel/lib/modules
ln -s "/usr/lib/uml/modules/$(uname -r)" /run/kernel/lib/modules/
modprobe() { command modprobe -d /run/kernel "$@"; }
ip link set lo up
echo "guest: ready"
while read -r line; do
    if eval "$line"; then echo "guest: done"; else echo "guest: failed"; fi
done
"#;
