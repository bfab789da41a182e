//! The story of the NAT lab: round robin over two real servers, and the way out for them.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::pages::{PATIENCE, in_words, web_at};
use super::{Pages, Scene, Story, Told};
use crate::lab::services::ping::{self, EchoWatch};
use crate::lab::topology::{Topology, nat};

/// NAT with round robin.
pub(super) struct Nat;

/// What the administrator types, as in every textbook; the words of the last line, the way out for
/// the real servers, are those of iptables.
const BALANCE: [&str; 5] = [
    "ipvsadm -C",
    "ipvsadm -A -t 12.0.0.1:80 -s rr",
    "ipvsadm -a -t 12.0.0.1:80 -r 192.168.200.110:80 -m",
    "ipvsadm -a -t 12.0.0.1:80 -r 192.168.200.120:80 -m",
    "ulvs snat -t nat -A POSTROUTING -o out -s 192.168.200.0/24 -j SNAT --to-source 12.0.0.1",
];

/// The order in which round robin takes the servers: the one added last is first.
const TURNS: [&str; 2] = ["real2", "real1"];

impl Story for Nat {
    fn topology(&self) -> Topology {
        nat::topology()
    }

    fn tell(&self, scene: &mut Scene<'_>) -> Told {
        scene.heading("The director starts, and is told what to do")?;
        scene.show_director()?;
        scene.typed_all("director", &BALANCE)?;
        scene.remark(
            "Textbooks type iptables in place of ulvs snat; on this director that means the same.",
        )?;
        let pages = scene.fetch("client", web_at(nat::OUTSIDE), scene.requests(6))?;
        scene.heading("What the director says now")?;
        let listing = scene.typed("director", "ipvsadm -Ln")?;
        let connections = scene.typed("director", "ipvsadm -Lnc")?;
        scene.promise_answers("requests", &pages);
        scene.promise_turns("round robin", &pages, &TURNS);
        for server in [nat::BENET, nat::ACCP] {
            scene.promise_server_listed(&listing, &format!("{server}:80"), "Masq", 1);
        }
        promise_connections(scene, &connections, &pages);
        let out = go_out(scene)?;
        promise_way_out(scene, &out);
        Ok(())
    }

    fn invitation(&self) -> Vec<(&'static str, String)> {
        vec![
            ("client", format!("curl -s http://{}/whoami", nat::OUTSIDE)),
            ("director", "ipvsadm -Lnc".to_owned()),
            ("director", "sh -c 'ipvsadm --save > /etc/sysconfig/ipvsadm'".to_owned()),
            ("real1", "tcpdump -ni eth0".to_owned()),
        ]
    }
}

/// From where the client saw a real server come.
struct WayOut {
    pings: Vec<Result<Duration, String>>,
    ping_sources: Vec<IpAddr>,
    tcp_source: Result<IpAddr, String>,
}

const PINGS: u16 = 3;

fn go_out(scene: &Scene<'_>) -> Told<WayOut> {
    scene.heading("A real server goes out through the director")?;
    let (client, real) = (scene.host("client").namespace(), scene.host("real1").namespace());
    let mut watch = client.run(|| EchoWatch::open(nat::CLIENT))??;
    scene.command("real1", format_args!("ping -c {PINGS} {}", nat::CLIENT))?;
    let mut pings = Vec::new();
    for sequence in 1..=PINGS {
        let answer = real.run(|| ping::ping(nat::CLIENT, sequence, PATIENCE))?;
        let answer = answer.map_err(|error| in_words(&error));
        match &answer {
            Ok(time) => {
                let time_ms = time.as_secs_f64() * 1e3;
                scene.line(format_args!("  answer {sequence} in {time_ms:.2} ms"))?
            }
            Err(why) => scene.line(format_args!("  no answer {sequence}: {why}"))?,
        }
        pings.push(answer);
    }
    let ping_sources = watch.sources()?;
    let tcp_source = connect_out(scene)?.map_err(|error| in_words(&error));
    let seen = match &tcp_source {
        Ok(address) => format!("arrives from {address}"),
        Err(why) => format!("does not arrive: {why}"),
    };
    let (from, to) = (nat::ACCP, nat::CLIENT);
    scene.line(format_args!("  a TCP connection from {from} to {to}:8080 {seen}"))?;
    Ok(WayOut { pings, ping_sources, tcp_source })
}

fn connect_out(scene: &Scene<'_>) -> Told<io::Result<IpAddr>> {
    let (client, real) = (scene.host("client").namespace(), scene.host("real1").namespace());
    let address = SocketAddr::new(nat::CLIENT.into(), 8080);
    let listener = client.run(|| TcpListener::bind(address))??;
    let stream = real.run(|| TcpStream::connect_timeout(&address, PATIENCE))?;
    Ok(stream.and_then(|_open| listener.accept()).map(|(_, peer)| peer.ip()))
}

/// The table must show each request as one connection.
fn promise_connections(scene: &mut Scene<'_>, connections: &str, pages: &Pages) {
    let client = format!("{}:", nat::CLIENT);
    let entries = connections.lines().filter(|line| line.contains(&client)).count();
    let text = format!("ipvsadm -Lnc lists {entries} connections of {}", nat::CLIENT);
    scene.promise(entries >= pages.len(), text);
}

fn promise_way_out(scene: &mut Scene<'_>, out: &WayOut) {
    let answered = out.pings.iter().filter(|answer| answer.is_ok()).count();
    let all = out.pings.len();
    let text = format!("{} gets {answered} of {all} pings answered", nat::ACCP);
    scene.promise(answered == all, text);
    let translated =
        !out.ping_sources.is_empty() && out.ping_sources.iter().all(|s| *s == nat::OUTSIDE);
    scene.promise(translated, format_args!("its pings arrive from {}", nat::OUTSIDE));
    let translated = out.tcp_source == Ok(IpAddr::V4(nat::OUTSIDE));
    scene.promise(translated, format_args!("its TCP connection arrives from {}", nat::OUTSIDE));
}
