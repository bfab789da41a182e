//! HAProxy in mode tcp, otherwise as it comes.

use super::super::network::{BULK_PORT, DIRECTOR_OUTSIDE, Network, PAGE_PORT, SERVERS};
use super::process::{self, Program};
use super::{Forwarder, Launch, Refusal};

pub(super) fn start(network: &Network, launch: &Launch) -> Result<Forwarder, Refusal> {
    let haproxy = process::find("haproxy").ok_or_else(Refusal::not_installed)?;
    let mut command = network.director.command(&haproxy);
    // -db: in the foreground, one process.
    command.args(["-db", "-f", "/dev/stdin"]);
    let version = process::first_line(&haproxy, "-v")?;
    Ok(Forwarder {
        // Without the link to the project's site.
        version: version.split(" - ").next().unwrap_or_default().to_owned(),
        program: Some(Program::start(command, &config(launch.workers))?),
    })
}

fn config(workers: Option<u16>) -> String {
    let threads = workers.map_or_else(String::new, |count| format!("nbthread {count}"));
    let listen = |name: &str, port: u16| {
        let [first, second] = SERVERS;
        format!(
            "listen {name}\n    bind {DIRECTOR_OUTSIDE}:{port}\n    balance roundrobin\n    \
             server one {first}:{port}\n    server two {second}:{port}\n"
        )
    };
    format!(
        "global\n    maxconn 4096\n    {threads}\n\
         defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 60s\n    \
         timeout server 60s\n{}{}",
        listen("page", PAGE_PORT),
        listen("bulk", BULK_PORT)
    )
}
