//! What every story of direct routing shows: real servers that keep quiet about the virtual
//! address, and replies that do not come back through the director.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use pnet_base::MacAddr;

use super::pages::PATIENCE;
use super::transfer::{TRANSFER_BYTES, Way};
use super::{Pages, Scene, Told};
use crate::lab::net::{Namespace, Traffic};
use crate::lab::services::watch::{Arrival, LinkWatch};
use crate::lab::topology::QUIET;
use crate::link::own_mac;

/// A virtual service by direct routing, with `director`, `real1` and `real2` in one segment.
pub(super) struct Direct {
    /// The virtual address.
    pub(super) address: Ipv4Addr,
    /// What the client connects to.
    pub(super) service: SocketAddr,
    /// The host of the segment that replies go to, and its interface there.
    pub(super) outside: (&'static str, &'static str),
}

const REALS: [&str; 2] = ["real1", "real2"];
/// The director's and the real servers' interface.
const INTERFACE: &str = "eth0";

impl Direct {
    /// Shows how the real servers are set up, as their kernels have it.
    pub(super) fn show_quiet(&self, scene: &mut Scene<'_>) -> Told {
        let address = self.address;
        scene.heading(format_args!(
            "The real servers have the address {address} too, and keep quiet about it"
        ))?;
        let mut all_quiet = true;
        for host in REALS {
            let namespace = scene.host(host).namespace();
            let on_lo = namespace.addresses("lo")?;
            let mine = on_lo.iter().find(|prefix| prefix.address() == IpAddr::V4(address));
            let mut said = mine.map_or_else(|| "not on lo".to_owned(), |mine| format!("lo {mine}"));
            all_quiet &= mine.is_some();
            for (key, wanted) in QUIET {
                let name = key.rsplit('.').next().unwrap_or(key);
                let value = in_force(namespace, name)?;
                said.push_str(&format!(", {name} {value}"));
                all_quiet &= value.to_string() == wanted;
            }
            if let Some(gateway) = gateway(scene, host) {
                said.push_str(&format!(", gateway {gateway}"));
            }
            scene.line(format_args!("  {host}: {said}"))?;
        }
        let settings = QUIET.map(|(key, value)| format!("{key}={value}")).join(" ");
        scene.remark(format_args!(
            "The lab has set that. By hand: ip address add {address}/32 dev lo; sysctl -w {settings}"
        ))?;
        let text = format!("real1 and real2 have {address} on lo, arp_ignore 1, arp_announce 2");
        scene.promise(all_quiet, text);
        Ok(())
    }

    /// Has somebody on the segment ask who has the virtual address.
    pub(super) fn show_answers(&self, scene: &mut Scene<'_>) -> Told {
        let ((host, interface), address) = (self.outside, self.address);
        let namespace = scene.host(host).namespace();
        let own_addresses = namespace.addresses(interface)?;
        let own = own_addresses.iter().find_map(|prefix| match prefix.address() {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        });
        let own = own.ok_or_else(|| format!("{host} has no address on {interface}"))?;
        let mac = namespace.mac(interface)?.into();
        let mut watch = namespace.run(|| LinkWatch::open(interface))??;
        let answers = watch.who_has(address, (mac, own), PATIENCE)?;
        scene.heading(format_args!("The {host} asks its segment: who has {address}?"))?;
        if answers.is_empty() {
            scene.line("  nobody answers")?;
        }
        let mut names = Vec::new();
        for mac in answers {
            let name = owner(scene, mac)?;
            scene.line(format_args!("  {mac} answers: {name}"))?;
            names.push(name);
        }
        let text = format!("only the director answers for {address}");
        scene.promise(
            !names.is_empty() && names.iter().all(|name| name.starts_with("director")),
            text,
        );
        Ok(())
    }

    /// Has the client fetch pages, and shows which way the packets took.
    pub(super) fn fetch(&self, scene: &mut Scene<'_>, count: usize) -> Told<Pages> {
        let (host, interface) = self.outside;
        let outside = scene.host(host).namespace();
        let director = scene.host("director").namespace();
        let mut at_director = director.run(|| LinkWatch::open(INTERFACE))??;
        let mut at_outside = outside.run(|| LinkWatch::open(interface))??;
        let pages = scene.fetch("client", self.service, count)?;
        let (in_between, replies) = (at_director.arrivals()?, at_outside.arrivals()?);
        self.show_ways(scene, &in_between, &replies)?;
        Ok(pages)
    }

    fn show_ways(
        &self,
        scene: &mut Scene<'_>,
        at_director: &[Arrival],
        at_outside: &[Arrival],
    ) -> Told {
        let address = IpAddr::V4(self.address);
        let requests = at_director.iter().filter(|packet| packet.destination == address).count();
        let strays = at_director.iter().filter(|packet| packet.source == address).count();
        let replies: Vec<_> = at_outside.iter().filter(|packet| packet.source == address).collect();
        let mut directly = 0;
        let mut shares = Vec::new();
        for real in REALS {
            let mac: MacAddr = scene.host(real).namespace().mac(INTERFACE)?.into();
            let share = replies.iter().filter(|packet| packet.from == mac).count();
            directly += share;
            shares.push(format!("{share} from {real} itself"));
        }
        scene.line(format_args!(
            "  to the director came {requests} packets for {address}, and {strays} from {address}"
        ))?;
        let (host, count) = (self.outside.0, replies.len());
        let shares = shares.join(", ");
        scene
            .line(format_args!("  to the {host} came {count} packets from {address}: {shares}"))?;
        scene.promise(requests > 0, "requests go to the director");
        scene.promise(
            directly > 0 && directly == replies.len() && strays == 0,
            "replies go from the real servers to the client, not through the director",
        );
        Ok(())
    }

    /// Has the client move 100 MiB each way, sums taken at both ends.
    pub(super) fn transfer(&self, scene: &mut Scene<'_>) -> Told {
        scene.heading("100 MiB each way")?;
        let (sums, director) = self.measure(scene, Way::Down)?;
        scene.promise_whole(Way::Down, sums);
        let bypassed = director.received_bytes < TRANSFER_BYTES / 5;
        let text = format!("of those, the director saw {}", amount(director.received_bytes));
        scene.promise(bypassed, text);
        let (sums, _) = self.measure(scene, Way::Up)?;
        scene.promise_whole(Way::Up, sums);
        scene.remark(
            "The way up leads through the director. On the way down it sees nothing but the \
             client's acknowledgements.",
        )?;
        Ok(())
    }

    /// Returns whether the sums are equal, and what went over the director's link.
    fn measure(&self, scene: &Scene<'_>, way: Way) -> Told<(bool, Traffic)> {
        let director = scene.host("director").namespace();
        let before = director.traffic(INTERFACE)?;
        let is_whole = scene.carry(self.service, way, || {
            let passed = since(director, before)?;
            Ok(format!("; to the director came {}", amount(passed.received_bytes)))
        })?;
        Ok((is_whole, since(director, before)?))
    }
}

/// Whose link address this is.
fn owner(scene: &Scene<'_>, mac: MacAddr) -> Told<String> {
    for host in ["director", "real1", "real2"] {
        let of_host: MacAddr = scene.host(host).namespace().mac(INTERFACE)?.into();
        if mac == of_host {
            return Ok(host.to_owned());
        }
        if host == "director" && mac == own_mac(of_host) {
            return Ok("director (ulvs itself; its kernel does not know the address)".to_owned());
        }
    }
    Ok("somebody else".to_owned())
}

fn since(host: &Namespace, before: Traffic) -> Told<Traffic> {
    let now = host.traffic(INTERFACE)?;
    Ok(Traffic {
        received_bytes: now.received_bytes - before.received_bytes,
        sent_bytes: now.sent_bytes - before.sent_bytes,
    })
}

/// The value of an ARP parameter on the interface: the larger one of its own and that of `all`.
///
/// **Source** — ip-sysctl.txt of the kernel's documentation, arp_ignore and arp_announce.
fn in_force(namespace: &Namespace, name: &str) -> Told<u32> {
    let mut largest = 0;
    for scope in ["all", INTERFACE] {
        let value = namespace.sysctl(&format!("net.ipv4.conf.{scope}.{name}"))?;
        largest = largest.max(value.parse()?);
    }
    Ok(largest)
}

/// The gateway of a host, of which the lab says that it is not the director.
fn gateway(scene: &Scene<'_>, host: &str) -> Option<IpAddr> {
    let host = scene.lab().topology().host(host)?;
    host.routes.iter().find(|route| route.destination.length() == 0)?.via
}

fn amount(bytes: u64) -> String {
    let kibibytes = bytes as f64 / 1024.0;
    match kibibytes < 1024.0 {
        true => format!("{kibibytes:.0} KiB"),
        false => format!("{:.1} MiB", kibibytes / 1024.0),
    }
}
