//! The story of the IPv6 lab: the NAT lab with other addresses, neighbour discovery, a gateway's
//! answer to ping, and bytes that arrive as they were sent.

use std::net::{IpAddr, Ipv6Addr};

use pnet_base::MacAddr;

use super::pages::{PATIENCE, in_words, web_at};
use super::{Scene, Story, Told};
use crate::host;
use crate::lab::services::ping;
use crate::lab::topology::{Topology, ipv6};

/// NAT over IPv6.
pub(super) struct Ipv6;

const BALANCE: [&str; 4] = [
    "ipvsadm -C",
    "ipvsadm -A -t [2001:db8:12::1]:80 -s rr",
    "ipvsadm -a -t [2001:db8:12::1]:80 -r [2001:db8:200::110]:80 -m",
    "ipvsadm -a -t [2001:db8:12::1]:80 -r [2001:db8:200::120]:80 -m",
];

/// Who is beside the director, which of its addresses they use, and on which of its interfaces.
const SIDES: [(&str, Ipv6Addr, &str); 2] =
    [("client", ipv6::OUTSIDE, "out"), ("real1", ipv6::INSIDE, "in")];

impl Story for Ipv6 {
    fn topology(&self) -> Topology {
        ipv6::topology()
    }

    fn tell(&self, scene: &mut Scene<'_>) -> Told {
        scene.heading("The director starts, and is told what to do")?;
        scene.show_director()?;
        scene.typed_all("director", &BALANCE)?;
        let pages = scene.fetch("client", web_at(ipv6::OUTSIDE), scene.requests(6))?;
        scene.heading("What the director says now")?;
        let listing = scene.typed("director", "ipvsadm -Ln")?;
        let connections = scene.typed("director", "ipvsadm -Lnc")?;
        scene.promise_answers("requests", &pages);
        scene.promise_turns("round robin", &pages, &["real2", "real1"]);
        for server in [ipv6::BENET, ipv6::ACCP] {
            scene.promise_server_listed(&listing, &format!("[{server}]:80"), "Masq", 1);
        }
        let client = format!("[{}]:", ipv6::CLIENT);
        let entries = connections.lines().filter(|line| line.contains(&client)).count();
        let text = format!("ipvsadm -Lnc lists {entries} connections of {}", ipv6::CLIENT);
        scene.promise(entries >= pages.len(), text);
        show_neighbours(scene)?;
        reach(scene)?;
        scene.transfer(web_at(ipv6::OUTSIDE))
    }

    fn invitation(&self) -> Vec<(&'static str, String)> {
        vec![
            ("client", format!("curl -s http://[{}]/whoami", ipv6::OUTSIDE)),
            ("director", "ipvsadm -Lnc".to_owned()),
            ("real1", "ip -6 neigh".to_owned()),
        ]
    }
}

/// Shows which link addresses the hosts beside the director have found for it.
fn show_neighbours(scene: &mut Scene<'_>) -> Told {
    scene.heading("How they found the director: neighbour discovery")?;
    for (host, target, interface) in SIDES {
        scene.command(host, format_args!("ip -6 neighbour show {target}"))?;
        let own: MacAddr = scene.host("director").namespace().mac(interface)?.into();
        let view = scene.host(host).namespace().run(host::look)??;
        let target = IpAddr::from(target);
        let found = view.neighbours.iter().find(|each| IpAddr::from(each.addr) == target);
        match found {
            Some(each) => {
                scene.line(format_args!("  {target} dev eth0 lladdr {} (director)", each.mac))?
            }
            None => scene.line("  nothing")?,
        }
        let text = format!("{host} has found {target} at the director's link address");
        scene.promise(found.is_some_and(|each| each.mac == own), text);
    }
    Ok(())
}

/// The addresses that the director and its host have answer to ping, on both sides.
fn reach(scene: &mut Scene<'_>) -> Told {
    scene.heading("Both sides ping the director")?;
    for (host, target, _) in SIDES {
        scene.command(host, format_args!("ping -c 1 {target}"))?;
        let namespace = scene.host(host).namespace();
        let answer = namespace.run(|| ping::ping(target, 1, PATIENCE))?;
        match &answer {
            Ok(time) => {
                let time_ms = time.as_secs_f64() * 1e3;
                scene.line(format_args!("  answer in {time_ms:.2} ms"))?;
            }
            Err(error) => scene.line(format_args!("  no answer: {}", in_words(error)))?,
        }
        scene.promise(answer.is_ok(), format_args!("{target} answers {host}'s ping"));
    }
    Ok(())
}
