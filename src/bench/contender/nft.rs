//! The kernel's DNAT by nftables, connections dealt to the servers in turn.

use super::super::network::{
    BULK_PORT, DIRECTOR_OUTSIDE, Network, PACKET_PORT, PAGE_PORT, SERVERS,
};
use super::{Forwarder, Refusal, process, routing};

pub(super) fn start(network: &Network) -> Result<Forwarder, Refusal> {
    let nft = process::find("nft").ok_or_else(Refusal::not_installed)?;
    network.director.set_sysctl("net.ipv4.ip_forward", "1")?;
    process::run(network.director.command(&nft).args(["-f", "-"]), &ruleset())?;
    let version = process::first_line(&nft, "--version")?;
    Ok(Forwarder { version: format!("{version}, {}", routing::kernel()), program: None })
}

fn ruleset() -> String {
    let [first, second] = SERVERS;
    let turn = format!("numgen inc mod 2 map {{ 0 : {first}, 1 : {second} }}");
    format!(
        "table ip ulvs_bench {{
            chain prerouting {{
                type nat hook prerouting priority dstnat;
                ip daddr {DIRECTOR_OUTSIDE} tcp dport {{ {PAGE_PORT}, {BULK_PORT} }} dnat to {turn}
                ip daddr {DIRECTOR_OUTSIDE} udp dport {PACKET_PORT} dnat to {turn}
            }}
        }}"
    )
}
