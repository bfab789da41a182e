//! What a director could leave behind on its host.

use std::fs;

use ulvs::lab::net::Namespace;

/// All of it, sockets included.
pub fn of(host: &Namespace) -> Vec<String> {
    let mut traces = beside_sockets(host);
    for table in ["tcp", "tcp6", "udp", "udp6", "raw", "raw6", "packet"] {
        traces.push(format!("{table}: {:?}", sockets(&read(host, table))));
    }
    traces
}

/// Interfaces, addresses, routes and rules for them, parameters, and firewall rules where `nft` can
/// show them.
pub fn beside_sockets(host: &Namespace) -> Vec<String> {
    let mut traces = host.interfaces().unwrap();
    for file in ["fib_trie", "route", "if_inet6"] {
        traces.push(without_link_local(&read(host, file)));
    }
    for key in ["ip_forward", "conf.all.arp_ignore", "conf.all.rp_filter", "conf.default.rp_filter"]
    {
        traces.push(host.sysctl(&format!("net.ipv4.{key}")).unwrap());
    }
    traces.extend(shown(host, "nft", &["list", "ruleset"]));
    for family in ["-4", "-6"] {
        traces.extend(shown(host, "ip", &[family, "rule"]));
        let routes = shown(host, "ip", &[family, "route", "show", "table", "all"]);
        traces.extend(routes.map(|text| without_link_local(&text)));
    }
    traces
}

/// What a program says on a host, if it is installed.
pub fn shown(host: &Namespace, program: &str, arguments: &[&str]) -> Option<String> {
    let output = host.command(program).args(arguments).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn read(host: &Namespace, file: &str) -> String {
    let path = format!("/proc/thread-self/net/{file}");
    host.run(|| fs::read_to_string(path)).unwrap().unwrap_or_default()
}

/// The sockets in a table of the kernel by their addresses, but for TCP connections that only the
/// kernel remembers.
fn sockets(table: &str) -> Vec<String> {
    let lines = table.lines().skip(1).map(|line| line.split_ascii_whitespace().collect());
    let lines = lines.filter(|fields: &Vec<_>| fields.get(3) != Some(&TIME_WAIT));
    lines.map(|fields| fields.into_iter().skip(1).take(2).collect::<Vec<_>>().join(" ")).collect()
}

/// The kernel takes its time over link-local addresses.
fn without_link_local(text: &str) -> String {
    text.lines().filter(|line| !line.contains("fe80")).collect::<Vec<_>>().join("\n")
}

const TIME_WAIT: &str = "06";
