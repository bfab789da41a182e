//! nginx as a stream proxy, for TCP and UDP.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::network::{
    BULK_PORT, DIRECTOR_OUTSIDE, Network, PACKET_PORT, PAGE_PORT, SERVERS,
};
use super::process::{self, Program};
use super::{Forwarder, Launch, Refusal};

pub(super) fn start(network: &Network, launch: &Launch) -> Result<Forwarder, Refusal> {
    let nginx = process::find("nginx").ok_or_else(Refusal::not_installed)?;
    let load_module = stream_module(&build_options(&nginx)?)?;
    let mut command = network.director.command(&nginx);
    command.args(["-e", "stderr", "-c", "/dev/stdin"]);
    let config = config(&load_module, launch.workers);
    Ok(Forwarder {
        version: process::first_line(&nginx, "-v")?.replace("nginx version: ", ""),
        program: Some(Program::start(command, &config)?),
    })
}

fn build_options(nginx: &Path) -> io::Result<String> {
    let output = Command::new(nginx).arg("-V").output()?;
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The directive that loads the stream module, empty if it is built in.
fn stream_module(options: &str) -> Result<String, Refusal> {
    let mut options = options.split_whitespace();
    let is_static = options.clone().any(|option| option == "--with-stream");
    if is_static {
        return Ok(String::new());
    }
    let directory = options
        .find_map(|option| option.strip_prefix("--modules-path="))
        .unwrap_or("/usr/lib/nginx/modules");
    let module = PathBuf::from(directory).join("ngx_stream_module.so");
    match module.is_file() {
        true => Ok(format!("load_module {};", module.display())),
        false => Err(Refusal::Absent(
            "its stream module is not installed (Debian: libnginx-mod-stream), skipped".to_owned(),
        )),
    }
}

/// **Shape** — the pid file is standard output, which leads to memory: nginx insists on writing
/// one and must not leave it behind. `user root` keeps it from changing to a user that a user
/// namespace may not have.
fn config(load_module: &str, workers: Option<u16>) -> String {
    let workers = workers.map_or_else(|| "auto".to_owned(), |count| count.to_string());
    let proxy = |name: &str, port: u16, protocol: &str| {
        let [first, second] = SERVERS;
        format!(
            "upstream {name} {{ server {first}:{port}; server {second}:{port}; }}\n\
             server {{ listen {DIRECTOR_OUTSIDE}:{port} {protocol}; proxy_pass {name}; }}\n"
        )
    };
    format!(
        "{load_module}\ndaemon off;\nuser root;\nworker_processes {workers};\n\
         pid /proc/self/fd/1;\nerror_log stderr;\nevents {{ worker_connections 4096; }}\n\
         stream {{\n{}{}{}}}\n",
        proxy("page", PAGE_PORT, ""),
        proxy("bulk", BULK_PORT, ""),
        proxy("packets", PACKET_PORT, "udp")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_stream_module_is_told_apart_from_a_built_in_one() {
        let built_in = "configure arguments: --with-threads --with-stream --with-debug";
        assert_eq!(stream_module(built_in).unwrap(), "");
        let missing = "configure arguments: --modules-path=/nonexistent --with-stream=dynamic";
        assert!(matches!(stream_module(missing), Err(Refusal::Absent(_))));
    }
}
