//! The story of the full NAT lab: servers anywhere, which take the director for their client unless
//! they are told better.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::pages::{PATIENCE, in_words, web_at};
use super::{Pages, Scene, Story, Told};
use crate::host;
use crate::lab::services::watch::LinkWatch;
use crate::lab::topology::Topology;
use crate::lab::topology::fullnat::{CLIENT, FAR, FAR_PORT, NEAR, VIRTUAL, topology};
use crate::lab::web;
use crate::packet::headers::protocol;
use crate::packet::{Headers, options};

/// Full NAT with a pool of local addresses.
pub(super) struct FullNat;

const BALANCE: [&str; 4] = [
    "ipvsadm -C",
    "ipvsadm -A -t 172.16.1.100:80 -s rr --local-address 172.16.1.210,172.16.1.211",
    "ipvsadm -a -t 172.16.1.100:80 -r 192.168.10.11:80 --fullnat",
    "ipvsadm -a -t 172.16.1.100:80 -r 10.20.0.12:8080 --fullnat",
];

const TELL: [&str; 2] = [
    "ipvsadm -e -t 172.16.1.100:80 -r 192.168.10.11:80 --fullnat --client-address proxy-v2",
    "ipvsadm -e -t 172.16.1.100:80 -r 10.20.0.12:8080 --fullnat --client-address toa",
];

/// The pool that the commands give the service.
const LOCALS: [Ipv4Addr; 2] = [Ipv4Addr::new(172, 16, 1, 210), Ipv4Addr::new(172, 16, 1, 211)];

const REALS: [&str; 2] = ["real1", "real2"];

impl Story for FullNat {
    fn topology(&self) -> Topology {
        topology()
    }

    fn tell(&self, scene: &mut Scene<'_>) -> Told {
        show_ignorance(scene)?;
        scene.heading("The director starts, and is told what to do")?;
        scene.show_director()?;
        scene.typed_all("director", &BALANCE)?;
        scene.remark(
            "--local-address gives the service addresses to talk to servers from. Nobody has them \
             so far; the director answers for them, as for the virtual address.",
        )?;
        let pages = fetch(scene, scene.requests(6))?;
        let (listing, locals) = show_tables(scene)?;
        scene.promise_answers("requests", &pages);
        scene.promise_turns("rr", &pages, &["real2", "real1"]);
        for server in [format!("{NEAR}:80"), format!("{FAR}:{FAR_PORT}")] {
            scene.promise_server_listed(&listing, &server, "FullNat", 1);
        }
        let all_listed = LOCALS.iter().all(|local| locals.contains(&local.to_string()));
        scene.promise(all_listed, "ipvsadm --get-laddr shows both local addresses");
        introduce(scene)?;
        scene.transfer(web_at(VIRTUAL))?;
        scene.heading("What the director has counted")?;
        scene.typed("director", "ipvsadm -Ln --stats")?;
        scene.remark("Both directions go through the director, over its only interface.")?;
        Ok(())
    }

    fn invitation(&self) -> Vec<(&'static str, String)> {
        vec![
            ("client", format!("curl -s http://{VIRTUAL}/whoami")),
            ("director", "ipvsadm -Lnc".to_owned()),
            ("director", format!("ipvsadm --get-laddr -t {VIRTUAL}:80")),
            ("real1", "ip route".to_owned()),
            ("real2", "tcpdump -ni eth0 port 8080".to_owned()),
        ]
    }
}

/// Shows that the real servers' kernels have nothing to do with the service.
fn show_ignorance(scene: &mut Scene<'_>) -> Told {
    scene.heading("The real servers know nothing of a director")?;
    let mut are_ignorant = true;
    for name in REALS {
        let view = scene.host(name).namespace().run(host::look)??;
        let default = view.routes.iter().find(|route| route.prefix.is_empty());
        let gateway = default.and_then(|route| route.gateway).map(IpAddr::from);
        let via = gateway.map_or_else(|| "none".to_owned(), |via| via.to_string());
        scene.line(format_args!("  {}, gateway {via}", scene.place(name)))?;
        let mut of_router =
            scene.lab().topology().ports("router").flat_map(|(own, _)| &own.addresses);
        let is_router = of_router.any(|prefix| Some(prefix.address()) == gateway);
        are_ignorant &= is_router && !view.owns(VIRTUAL.into());
    }
    scene.remark(
        "They are in networks of their own and do not have the virtual address; their gateway is the \
         router, not the director.",
    )?;
    scene.promise(
        are_ignorant,
        "real1 and real2 have the router as gateway, and not the virtual address",
    );
    Ok(())
}

/// Has the client fetch pages, and shows whom the servers take for their client.
fn fetch(scene: &mut Scene<'_>, count: usize) -> Told<Pages> {
    let mut watches = Vec::new();
    for name in REALS {
        watches.push(scene.host(name).namespace().run(|| LinkWatch::open("eth0"))??);
    }
    let pages = scene.fetch("client", web_at(VIRTUAL), count)?;
    let (mut local, mut foreign) = (0, 0);
    for (name, watch) in REALS.into_iter().zip(&mut watches) {
        let arrivals = watch.arrivals()?;
        let from = |address: Ipv4Addr| {
            arrivals.iter().filter(|each| each.source == IpAddr::V4(address)).count()
        };
        let (of_client, of_locals) = (from(CLIENT), LOCALS.map(from));
        local += of_locals.iter().sum::<usize>();
        foreign += of_client;
        let [first, second] = of_locals;
        scene.line(format_args!(
            "  to {name} came {first} packets from {}, {second} from {}, and {of_client} from {CLIENT}",
            LOCALS[0], LOCALS[1]
        ))?;
    }
    let text = "the servers see the local addresses, never the client's";
    scene.promise(local > 0 && foreign == 0, text);
    Ok(pages)
}

/// Returns what `ipvsadm -Ln` and `ipvsadm --get-laddr` say.
fn show_tables(scene: &mut Scene<'_>) -> Told<(String, String)> {
    scene.heading("What the director says now")?;
    let listing = scene.typed("director", "ipvsadm -Ln")?;
    let connections = scene.typed("director", "ipvsadm -Lnc")?;
    scene.remark(
        "The last column is what the server sees in the place of the client: a local address, and a \
         port that is free there.",
    )?;
    let locals = scene.typed("director", &format!("ipvsadm --get-laddr -t {VIRTUAL}:80"))?;
    let of_client = |line: &&str| line.contains(&format!(" {CLIENT}:"));
    let entries: Vec<&str> = connections.lines().filter(of_client).collect();
    let has_local = |line: &str| {
        let seen = line.split_ascii_whitespace().last().and_then(|word| word.parse().ok());
        seen.is_some_and(|seen: SocketAddr| LOCALS.iter().any(|each| seen.ip() == *each))
    };
    scene.promise(
        !entries.is_empty() && entries.iter().all(|line| has_local(line)),
        format_args!("ipvsadm -Lnc lists {} connections, each with a local address", entries.len()),
    );
    Ok((listing, locals))
}

/// Has the servers told who their client is, each in a way of its own.
fn introduce(scene: &mut Scene<'_>) -> Told {
    scene.heading("Whom do the servers take for their client?")?;
    let before = ask_both(scene)?;
    scene.heading("They can be told: real1 by PROXY protocol, real2 by a TCP option (TOA)")?;
    scene.typed_all("director", &TELL)?;
    let mut watch = scene.host("real2").namespace().run(|| LinkWatch::open("eth0"))??;
    let after = ask_both(scene)?;
    let packets = watch.packets()?;
    let told = packets.iter().find_map(|packet| address_option(packet));
    match told {
        Some(client) => {
            scene.line(format_args!("  in the packets to real2: option 254, {client}"))?
        }
        None => scene.line("  in the packets to real2: no option 254")?,
    }
    scene.remark(
        "real1's web server reads the header that the director puts in front of the request, as \
         nginx does with `listen 80 proxy_protocol`. To read the option, real2's kernel would need \
         the module toa; so its web server still sees a local address.",
    )?;
    let is_local = |seen: &Option<SocketAddr>| {
        seen.is_some_and(|seen| LOCALS.iter().any(|each| seen.ip() == *each))
    };
    let is_client = |seen: Option<SocketAddr>| seen.is_some_and(|seen| seen.ip() == CLIENT);
    scene.promise(before.iter().all(is_local), "untold, both servers take a local address for it");
    scene.promise(is_client(after[0]), format_args!("with proxy-v2, real1 knows {CLIENT}"));
    scene.promise(is_client(told), format_args!("with toa, packets to real2 name {CLIENT}"));
    Ok(())
}

/// Has the client ask both servers who it is. Returns what real1 and real2 say.
fn ask_both(scene: &Scene<'_>) -> Told<[Option<SocketAddr>; 2]> {
    let mut said = [None; 2];
    for _ in REALS {
        scene.command("client", format_args!("curl -s http://{VIRTUAL}/whoami"))?;
        let ask = || web::get(web_at(VIRTUAL), "/whoami", PATIENCE);
        match scene.host("client").namespace().run(ask)? {
            Ok(answer) => {
                let text = String::from_utf8_lossy(&answer.body).trim_end().to_owned();
                scene.line(format_args!("  {text}"))?;
                let who = REALS.iter().position(|name| answer.server == *name);
                if let Some(who) = who {
                    said[who] = named(&text);
                }
            }
            Err(error) => scene.line(format_args!("  no answer: {}", in_words(&error)))?,
        }
    }
    Ok(said)
}

/// The address in `you are ADDRESS, this is SERVER`.
fn named(text: &str) -> Option<SocketAddr> {
    text.strip_prefix("you are ")?.split(',').next()?.parse().ok()
}

/// The client that a TCP segment's option names.
fn address_option(packet: &[u8]) -> Option<SocketAddr> {
    let headers =
        Headers::parse(packet).ok().filter(|headers| headers.protocol == protocol::TCP)?;
    let segment = packet.get(headers.transport..)?;
    let found = options::find(segment, options::kind::ADDRESS)?;
    let [_, _, port_high, port_low, a, b, c, d] = *segment.get(found.at..found.at + found.len)?
    else {
        return None;
    };
    Some((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([port_high, port_low])).into())
}
