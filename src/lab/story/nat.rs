//! The story of the NAT lab: round robin over two real servers, and the way out for them.

use std::error::Error;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::{Story, Voice, draw};
use crate::lab::process::{Lab, LabHost, Plan, typed_program};
use crate::lab::services::ping::{self, EchoWatch};
use crate::lab::topology::{Topology, nat};
use crate::lab::web;

/// NAT with round robin.
pub(super) struct Nat;

/// What the administrator types, as in every textbook.
const BALANCE: [&str; 4] = [
    "ipvsadm -C",
    "ipvsadm -A -t 12.0.0.1:80 -s rr",
    "ipvsadm -a -t 12.0.0.1:80 -r 192.168.200.110:80 -m",
    "ipvsadm -a -t 12.0.0.1:80 -r 192.168.200.120:80 -m",
];

/// The way out; the words are those of the iptables line.
const WAY_OUT: &str = "ulvs snat -t nat -A POSTROUTING -o out -s 192.168.200.0/24 \
                       -j SNAT --to-source 12.0.0.1";

/// The pages in the order in which round robin takes their servers: the one added last is first.
const TURNS: [(&str, Ipv4Addr); 2] =
    [("this is benet web", nat::BENET), ("this is accp web", nat::ACCP)];

const PATIENCE: Duration = Duration::from_secs(3);

type Told<T = ()> = Result<T, Box<dyn Error>>;

impl Story for Nat {
    fn topology(&self) -> Topology {
        nat::topology()
    }

    fn tell(&self, lab: &Lab, plan: &Plan) -> Told<bool> {
        let mut voice = Voice::new(plan.colour);
        introduce(lab, &voice)?;
        configure(lab, &voice)?;
        let answers = fetch_pages(lab, &voice, plan.requests)?;
        let director = lab.host("director");
        voice.heading("What the director says now")?;
        let listing = typed(director, &voice, "ipvsadm -Ln")?;
        let connections = typed(director, &voice, "ipvsadm -Lnc")?;
        let out = go_out(lab, &voice)?;
        voice.heading("Verdict")?;
        judge_balance(&mut voice, &answers)?;
        judge_tables(&mut voice, &listing, &connections, &answers)?;
        judge_way_out(&mut voice, &out)?;
        if plan.keep {
            invite(&voice)?;
        }
        Ok(voice.all_well())
    }
}

fn introduce(lab: &Lab, voice: &Voice) -> Told {
    let topology = lab.topology();
    voice.heading(&format!("Lab {}: {}", topology.name, topology.title))?;
    voice.line("")?;
    for line in draw(topology) {
        voice.line(&line)?;
    }
    voice.line("")?;
    voice.remark("Each box is a network namespace of this machine; the links are real (veth).")?;
    for host in ["storage", "real1", "real2"] {
        for said in &lab.host(host).said {
            voice.remark(&format!("{host} {said}"))?;
        }
    }
    Ok(())
}

fn configure(lab: &Lab, voice: &Voice) -> Told {
    voice.heading("The director starts, and is told what to do")?;
    let director = lab.host("director");
    voice.command("director", "ulvs run --interface out --interface in")?;
    for line in &director.said {
        voice.remark(line)?;
    }
    for command in BALANCE.into_iter().chain([WAY_OUT]) {
        typed(director, voice, command)?;
    }
    Ok(())
}

/// Runs a command as it is shown. Returns what it said.
fn typed(host: &LabHost, voice: &Voice, command: &str) -> Told<String> {
    voice.command(host.namespace().name(), command)?;
    let words: Vec<&str> = command.split_ascii_whitespace().collect();
    let output = host.run(&words)?;
    voice.output(&output.stdout)?;
    voice.output(&output.stderr)?;
    if output.status != 0 {
        return Err(format!("`{command}` failed with exit status {}", output.status).into());
    }
    Ok(output.stdout)
}

/// The first line of each page, or why there was none.
type Pages = Vec<Result<String, String>>;

fn fetch_pages(lab: &Lab, voice: &Voice, count: usize) -> Told<Pages> {
    voice.heading(&format!("The client fetches http://{}/ {count} times", nat::OUTSIDE))?;
    let service = SocketAddr::new(nat::OUTSIDE.into(), 80);
    let client = lab.host("client").namespace();
    let mut pages = Pages::new();
    for turn in 1..=count {
        let page = client
            .run(|| web::get(service, "/", PATIENCE))?
            .map_err(|e| in_words(&e))
            .and_then(first_line);
        match &page {
            Ok(text) => voice.line(&format!("  {turn:>3}  {text:<20} {}", server_of(text)))?,
            Err(why) => voice.line(&format!("  {turn:>3}  no answer: {why}"))?,
        }
        pages.push(page);
    }
    Ok(pages)
}

fn first_line(answer: web::Answer) -> Result<String, String> {
    if answer.status != 200 {
        return Err(format!("{} answers with status {}", answer.server, answer.status));
    }
    let text = String::from_utf8_lossy(&answer.body);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn server_of(page: &str) -> String {
    let found = TURNS.into_iter().find(|(text, _)| *text == page);
    found.map_or_else(String::new, |(_, address)| format!("from {address}"))
}

/// An error as a reader understands it: the time limit of a socket is `EAGAIN` to the system.
fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("nothing came within {} s", PATIENCE.as_secs())
        }
        _ => error.to_string(),
    }
}

/// From where the client saw a real server come.
struct WayOut {
    pings: Vec<Result<Duration, String>>,
    ping_sources: Vec<Ipv4Addr>,
    tcp_source: Result<IpAddr, String>,
}

const PINGS: u16 = 3;

fn go_out(lab: &Lab, voice: &Voice) -> Told<WayOut> {
    voice.heading("A real server goes out through the director")?;
    let (client, real) = (lab.host("client").namespace(), lab.host("real1").namespace());
    let mut watch = client.run(EchoWatch::open)??;
    voice.command("real1", &format!("ping -c {PINGS} {}", nat::CLIENT))?;
    let mut pings = Vec::new();
    for sequence in 1..=PINGS {
        let answer = real.run(|| ping::ping(nat::CLIENT, sequence, PATIENCE))?;
        let answer = answer.map_err(|error| in_words(&error));
        match &answer {
            Ok(time) => {
                voice.line(&format!("  answer {sequence} in {:.2} ms", time.as_secs_f64() * 1e3))?
            }
            Err(why) => voice.line(&format!("  no answer {sequence}: {why}"))?,
        }
        pings.push(answer);
    }
    let ping_sources = watch.sources()?;
    let tcp_source = connect_out(lab)?.map_err(|error| in_words(&error));
    let seen = match &tcp_source {
        Ok(address) => format!("arrives from {address}"),
        Err(why) => format!("does not arrive: {why}"),
    };
    let (from, to) = (nat::ACCP, nat::CLIENT);
    voice.line(&format!("  a TCP connection from {from} to {to}:8080 {seen}"))?;
    Ok(WayOut { pings, ping_sources, tcp_source })
}

fn connect_out(lab: &Lab) -> Told<io::Result<IpAddr>> {
    let (client, real) = (lab.host("client").namespace(), lab.host("real1").namespace());
    let address = SocketAddr::new(nat::CLIENT.into(), 8080);
    let listener = client.run(|| TcpListener::bind(address))??;
    let stream = real.run(|| TcpStream::connect_timeout(&address, PATIENCE))?;
    Ok(stream.and_then(|_open| listener.accept()).map(|(_, peer)| peer.ip()))
}

fn judge_balance(voice: &mut Voice, pages: &Pages) -> io::Result<()> {
    let answered = pages.iter().filter(|page| page.is_ok()).count();
    let (all, none_missing) = (pages.len(), answered == pages.len());
    voice.check(none_missing, &format!("{answered} of {all} requests were answered"))?;
    let in_turn = |(index, page): (usize, &Result<String, String>)| {
        page.as_ref().is_ok_and(|text| text == TURNS[index % TURNS.len()].0)
    };
    let strict = pages.iter().enumerate().all(in_turn);
    let [(_, first), (_, second)] = TURNS;
    voice.check(strict, &format!("round robin: {first} and {second} strictly in turn"))
}

/// The tables must show each server once, and each request as one connection.
fn judge_tables(
    voice: &mut Voice,
    listing: &str,
    connections: &str,
    pages: &Pages,
) -> io::Result<()> {
    for (_, address) in TURNS {
        let entry = format!("{address}:80");
        let listed = listing.lines().any(|line| line.contains(&entry) && line.contains("Masq"));
        voice.check(listed, &format!("ipvsadm -Ln lists {entry} with Masq"))?;
    }
    let client = format!("{}:", nat::CLIENT);
    let entries = connections.lines().filter(|line| line.contains(&client)).count();
    voice.check(
        entries >= pages.len(),
        &format!("ipvsadm -Lnc lists {entries} connections of {}", nat::CLIENT),
    )
}

fn judge_way_out(voice: &mut Voice, out: &WayOut) -> io::Result<()> {
    let answered = out.pings.iter().filter(|answer| answer.is_ok()).count();
    let all = answered == out.pings.len();
    voice.check(
        all,
        &format!("{} gets {answered} of {} pings answered", nat::ACCP, out.pings.len()),
    )?;
    let translated =
        !out.ping_sources.is_empty() && out.ping_sources.iter().all(|s| *s == nat::OUTSIDE);
    voice.check(translated, &format!("its pings arrive from {}", nat::OUTSIDE))?;
    let translated = out.tcp_source == Ok(IpAddr::V4(nat::OUTSIDE));
    voice.check(translated, &format!("its TCP connection arrives from {}", nat::OUTSIDE))
}

fn invite(voice: &Voice) -> io::Result<()> {
    let ulvs = typed_program();
    voice.heading("The lab stays up. From another terminal:")?;
    voice.line(&format!("  {ulvs} lab shell client"))?;
    voice.line(&format!("  {ulvs} lab exec client -- curl -s http://{}/whoami", nat::OUTSIDE))?;
    voice.line(&format!("  {ulvs} lab exec director -- ipvsadm -Lnc"))?;
    voice.line(&format!("  {ulvs} lab exec real1 -- tcpdump -ni eth0"))?;
    voice.line("Enter or Ctrl-C ends it.")
}
