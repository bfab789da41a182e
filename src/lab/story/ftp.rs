//! The story of the FTP lab: the two ends agree on data connections within the control connection,
//! and the director has to listen, since the server does not know the address that its client does.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use super::pages::{PATIENCE, Page, in_words, times};
use super::transfer::{TRANSFER_BYTES, Way};
use super::{Scene, Story, Told};
use crate::lab::services::ftp::{Client, Data};
use crate::lab::services::watch::LinkWatch;
use crate::lab::topology::Topology;
use crate::lab::topology::ftp::{CLIENT, VIRTUAL, topology};
use crate::packet::headers::protocol;
use crate::packet::{Endpoint, Headers, options};

/// FTP by NAT.
pub(super) struct Ftp;

const BALANCE: [&str; 4] = [
    "ipvsadm -C",
    "ipvsadm -A -t 12.0.0.100:21 -s rr",
    "ipvsadm -a -t 12.0.0.100:21 -r 192.168.200.110:21 -m",
    "ipvsadm -a -t 12.0.0.100:21 -r 192.168.200.120:21 -m",
];

const SERVICE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(VIRTUAL), 21);

impl Story for Ftp {
    fn topology(&self) -> Topology {
        topology()
    }

    fn tell(&self, scene: &mut Scene<'_>) -> Told {
        scene.heading("The director starts, and is told what to do")?;
        scene.show_director()?;
        scene.typed_all("director", &BALANCE)?;
        scene.remark(
            "Port 21 is all there is to say: the director listens to what is agreed on there.",
        )?;
        let count = scene.requests(4);
        scene.heading(format_args!(
            "The client fetches ftp://{VIRTUAL}/hostname {}",
            times(count)
        ))?;
        let names = scene.ask("client", count, || {
            let server = name(Data::ExtendedPassive).map_err(|error| in_words(&error))?;
            Ok(Page { text: server.clone(), server })
        })?;
        scene.promise_answers("requests", &names);
        scene.promise_turns("round robin", &names, &["real2", "real1"]);
        passive(scene)?;
        extended(scene)?;
        active(scene)?;
        show_tables(scene)?;
        transfer(scene, "passive", Data::Passive)?;
        transfer(scene, "active", Data::Active)
    }

    fn invitation(&self) -> Vec<(&'static str, String)> {
        vec![
            ("client", format!("curl -s ftp://{VIRTUAL}/hostname")),
            ("client", format!("curl -v --disable-eprt --ftp-port - ftp://{VIRTUAL}/hostname")),
            ("client", format!("curl -o /dev/null ftp://{VIRTUAL}/104857600")),
            ("director", "ipvsadm -Lnc".to_owned()),
            ("real1", "tcpdump -Ani eth0 port 21".to_owned()),
        ]
    }
}

/// Asks a server for its name, in a session of its own.
fn name(data: Data) -> io::Result<String> {
    let mut client = Client::connect(SERVICE, PATIENCE)?;
    let name = client.name(data)?;
    client.quit()?;
    Ok(name)
}

/// The server names an address that means nothing to the client; the director names its own.
fn passive(scene: &mut Scene<'_>) -> Told {
    scene.heading("Passive: the server says where the client is to connect to")?;
    let session = watch(scene, "--disable-epsv", Data::Passive)?;
    let (said, heard) = (session.of_server("227 "), session.to_client("227 "));
    session.show(scene, &[("server", "says", &said), ("client", "hears", &heard)])?;
    let opened = session.at_server.iter().find(|segment| segment.opens && segment.to.port != 21);
    let opened = opened.map(|segment| segment.ends());
    session.show(scene, &[("server", "sees it come", &opened)])?;
    scene.remark(
        "The director has changed the address within the packet, and lets the connection in that it \
         announces.",
    )?;
    let names = |line: &Option<String>, address: Ipv4Addr| {
        let written = address.octets().map(|octet| octet.to_string()).join(",");
        line.as_ref().is_some_and(|line| line.contains(&format!("({written},")))
    };
    let own = scene.lab().topology().address(&session.name);
    let is_own = own.is_some_and(|own| match own {
        std::net::IpAddr::V4(own) => names(&said, own),
        std::net::IpAddr::V6(_) => false,
    });
    scene.promise(is_own, "passive: the server names its own address");
    scene.promise(names(&heard, VIRTUAL), format_args!("passive: the client hears {VIRTUAL}"));
    scene.promise(opened.is_some(), "passive: the client connects, and the server is reached");
    Ok(())
}

/// The same in the words that curl and most others try first, which name a port only.
fn extended(scene: &mut Scene<'_>) -> Told {
    scene.heading("Extended passive: the server says the port only")?;
    let session = watch(scene, "", Data::ExtendedPassive)?;
    let (said, heard) = (session.of_server("229 "), session.to_client("229 "));
    session.show(scene, &[("server", "says", &said), ("client", "hears", &heard)])?;
    let is_served = said.is_some() && heard.is_some() && !session.name.is_empty();
    scene.promise(is_served, "extended passive: the data connection reaches the server");
    Ok(())
}

/// The server connects to the client, which must not see anybody else come than whom it talks to.
fn active(scene: &mut Scene<'_>) -> Told {
    scene.heading("Active: the client says where the server is to connect to")?;
    let session = watch(scene, "--disable-eprt --ftp-port -", Data::Active)?;
    let asked = session.at_server.iter().find_map(|segment| segment.line("PORT "));
    let opens = |segment: &&Segment| segment.opens && segment.to.addr == CLIENT.into();
    let ends = |segments: &[Segment]| segments.iter().find(opens).map(Segment::ends);
    let (from, seen) = (ends(&session.of_server), ends(&session.at_client));
    session.show(
        scene,
        &[
            ("client", "says", &asked),
            ("server", "connects", &from),
            ("client", "sees it come", &seen),
        ],
    )?;
    let is_virtual = seen.is_some_and(|seen| seen.starts_with(&format!("{VIRTUAL}:20 ")));
    scene.promise(
        is_virtual,
        format_args!("active: the server's connection comes from {VIRTUAL}:20"),
    );
    Ok(())
}

/// What went over the links while a session lasted.
struct Session {
    /// The server's name, as the client got it.
    name: String,
    /// What came to the director from the servers.
    of_server: Vec<Segment>,
    /// What came to the servers.
    at_server: Vec<Segment>,
    /// What came to the client.
    at_client: Vec<Segment>,
}

/// A TCP segment.
struct Segment {
    from: Endpoint,
    to: Endpoint,
    /// Whether it asks for a connection.
    opens: bool,
    text: String,
}

/// Has the client fetch the server's name, and watches it.
fn watch(scene: &Scene<'_>, options: &str, data: Data) -> Told<Session> {
    let open = |host: &str, interface: &'static str| {
        scene.host(host).namespace().run(|| LinkWatch::open(interface))
    };
    let (mut director, mut client) = (open("director", "in")??, open("client", "eth0")??);
    let mut servers = [open("real1", "eth0")??, open("real2", "eth0")??];
    let options = if options.is_empty() { String::new() } else { format!("{options} ") };
    scene.command("client", format_args!("curl -s {options}ftp://{VIRTUAL}/hostname"))?;
    let name = match scene.host("client").namespace().run(|| name(data))? {
        Ok(name) => name,
        Err(error) => {
            scene.line(format_args!("  it failed: {}", in_words(&error)))?;
            String::new()
        }
    };
    scene.line(&name)?;
    let mut at_server = segments(&mut servers[0])?;
    at_server.extend(segments(&mut servers[1])?);
    Ok(Session {
        name,
        of_server: segments(&mut director)?,
        at_server,
        at_client: segments(&mut client)?,
    })
}

impl Session {
    fn of_server(&self, beginning: &str) -> Option<String> {
        self.of_server.iter().find_map(|segment| segment.line(beginning))
    }

    fn to_client(&self, beginning: &str) -> Option<String> {
        self.at_client.iter().find_map(|segment| segment.line(beginning))
    }

    /// Shows who does what.
    fn show(&self, scene: &Scene<'_>, lines: &[(&str, &str, &Option<String>)]) -> io::Result<()> {
        for (who, does, what) in lines {
            let who = if *who == "server" { &self.name } else { "the client" };
            let what = what.as_deref().unwrap_or("(nothing)");
            scene.line(format_args!("  {:<24} {what}", format!("{who} {does}:")))?;
        }
        Ok(())
    }
}

impl Segment {
    /// The line with this beginning.
    fn line(&self, beginning: &str) -> Option<String> {
        self.text.lines().find(|line| line.starts_with(beginning)).map(str::to_owned)
    }

    fn ends(&self) -> String {
        format!("{} > {}", self.from, self.to)
    }
}

/// The TCP segments that have arrived.
fn segments(watch: &mut LinkWatch) -> io::Result<Vec<Segment>> {
    Ok(watch.packets()?.iter().filter_map(|packet| segment(packet)).collect())
}

fn segment(packet: &[u8]) -> Option<Segment> {
    let headers =
        Headers::parse(packet).ok().filter(|headers| headers.protocol == protocol::TCP)?;
    let segment = packet.get(headers.transport..headers.len)?;
    let payload = segment.get(options::header_len(segment)?..)?;
    Some(Segment {
        from: headers.source,
        to: headers.destination,
        opens: segment[13] & (SYN | ACK) == SYN,
        text: String::from_utf8_lossy(payload).into_owned(),
    })
}

const SYN: u8 = 2;
const ACK: u8 = 16;

fn show_tables(scene: &mut Scene<'_>) -> Told {
    scene.heading("What the director says now")?;
    let listing = scene.typed("director", "ipvsadm -Ln")?;
    let connections = scene.typed("director", "ipvsadm -Lnc")?;
    scene.remark(
        "Beside the control connections, to port 21, are the data connections: passive ones to a port \
         that the server chose, active ones from port 20. There is no service for them; they belong to \
         their control connection.",
    )?;
    for server in ["192.168.200.110:21", "192.168.200.120:21"] {
        scene.promise_server_listed(&listing, server, "Masq", 1);
    }
    let at = |line: &str| {
        let word = line.split_ascii_whitespace().nth(4)?;
        word.strip_prefix(&format!("{VIRTUAL}:"))?.parse::<u16>().ok()
    };
    let ports: Vec<u16> = connections.lines().filter_map(at).collect();
    let all_there = ports.contains(&21) && ports.contains(&20) && ports.iter().any(|p| *p > 1023);
    scene.promise(all_there, "ipvsadm -Lnc lists control, active and passive connections");
    Ok(())
}

/// Moves 100 MiB each way over data connections of a kind.
fn transfer(scene: &mut Scene<'_>, kind: &str, data: Data) -> Told {
    scene.heading(format_args!("100 MiB each way, {kind}"))?;
    for way in [Way::Down, Way::Up] {
        let done = scene.host("client").namespace().run(|| {
            let mut client = Client::connect(SERVICE, PATIENCE)?;
            let done = match way {
                Way::Down => client.download(TRANSFER_BYTES, data)?,
                Way::Up => client.upload(TRANSFER_BYTES, data)?,
            };
            client.quit()?;
            io::Result::Ok(done)
        })?;
        let is_whole = match done {
            Ok(done) => scene.show_transfer(way, &done, "")?,
            Err(error) => {
                scene.line(format_args!("  {}: it failed: {}", way.name(), in_words(&error)))?;
                false
            }
        };
        let text = format!("100 MiB {}, {kind}: the same SHA-256 at both ends", way.name());
        scene.promise(is_whole, text);
    }
    Ok(())
}
