//! What is odd about a host that is to unpack tunnels.

use std::fs;

use super::Kind;
use crate::link::{HostView, KernelAddress};
use crate::packet::{Addr, Family};

/// Something that a person should know.
pub type Advice = String;

/// What is odd about a host where `kinds` are to be unpacked for `virtuals`.
pub fn look_around(view: &HostView, kinds: &[Kind], virtuals: &[Addr]) -> Vec<Advice> {
    let tunnels = view.interfaces.iter().filter(|interface| interface.up).filter_map(|interface| {
        let kind = interface.kind.as_deref().and_then(kernel_kind)?;
        kinds.contains(&kind).then(|| {
            let (name, kind) = (&interface.name, kind.name());
            format!(
                "the kernel unpacks {kind} itself at {name}, so packets may come twice: take it down \
                 (ip link set {name} down) or leave {kind} out (--type)"
            )
        })
    });
    let asked = virtuals.iter().filter_map(|addr| about_arp(view, *addr));
    tunnels.chain(asked).collect()
}

/// The tunnels that one of the kernel's devices unpacks.
fn kernel_kind(kind: &str) -> Option<Kind> {
    match kind {
        "ipip" | "sit" | "ip6tnl" => Some(Kind::IpIp),
        "gre" | "ip6gre" => Some(Kind::Gre),
        _ => None,
    }
}

/// A host answers ARP for every address that it has, on any link: where the virtual address belongs
/// to a network that the host is in, clients there would find the host instead of the director.
fn about_arp(view: &HostView, addr: Addr) -> Option<Advice> {
    let near = |own: &&KernelAddress| own.prefix.contains(addr) && own.prefix.addr() != addr;
    let own = view.addresses.iter().filter(|_| addr.family() == Family::V4).find(near)?;
    let interface = view.interfaces.iter().find(|each| each.index == own.interface)?;
    let name = &interface.name;
    if answers_only_its_own("all") || answers_only_its_own(name) {
        return None;
    }
    Some(format!(
        "this host now answers ARP requests for {addr} on {name}, where others may look for the \
         director: sysctl net.ipv4.conf.{name}.arp_ignore=1 net.ipv4.conf.{name}.arp_announce=2"
    ))
}

fn answers_only_its_own(interface: &str) -> bool {
    let path = format!("/proc/sys/net/ipv4/conf/{interface}/arp_ignore");
    fs::read_to_string(path).is_ok_and(|text| text.trim() != "0")
}
