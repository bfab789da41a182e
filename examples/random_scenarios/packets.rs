//! Single packets: of clients, of servers, and of neither.

use super::world::{Flows, World};

/// Flags that TCP segments have, those that change states more often.
const FLAGS: &str = "S S SA A A A PA F FA FA R RA 0 SF FR SR P U SE FSRPAUEC";
/// Chunks of SCTP packets.
const CHUNKS: &str = "INIT INIT INIT_ACK COOKIE_ECHO COOKIE_ECHO+DATA COOKIE_ACK COOKIE_ACK+SACK DATA DATA SACK \
    HEARTBEAT HEARTBEAT_ACK SHUTDOWN SHUTDOWN SHUTDOWN_ACK SHUTDOWN_COMPLETE ERROR ABORT COOKIE_ECHO+ABORT";
/// ICMP errors over IPv4; the first three are translated.
const ERRORS: &str = "3/3 3/4 11/0 3/1 3/0 4/0 5/1 12/0 11/1 3/13";
const ERRORS6: &str = "1/4 2/0 3/0 1/0 4/1 1/1 3/1";

/// A packet of a flow that was begun, or of a new one, from its client.
pub fn from_client(world: &mut World) {
    let Some(flows) = world.some_flows() else { return };
    let (client, server) = (client_end(world, &flows), flows.target.clone());
    let target = world.endpoint(&server.0, server.1);
    let packet = transport(world, &flows.proto);
    world.line(format!("send out {client} > {target} {packet}"));
}

/// A packet of a flow from one of the servers of its service, perhaps not the right one.
pub fn from_server(world: &mut World) {
    let Some(flows) = world.some_flows() else { return };
    let servers = &world.services[flows.service].servers;
    if servers.is_empty() {
        return;
    }
    let server = servers[world.dice.index(servers.len())].clone();
    let port = server.port.unwrap_or(flows.target.1);
    let source = world.endpoint(&world.server_address(server.number), port);
    let client = client_end(world, &flows);
    let packet = transport(world, &flows.proto);
    world.line(format!("send in {source} > {client} {packet}"));
}

fn client_end(world: &mut World, flows: &Flows) -> String {
    let port = world.dice.number(flows.ports.0.into(), flows.ports.1.into()) as u16;
    world.endpoint(&flows.client, port)
}

/// A server answers what it got last.
pub fn server_reply(world: &mut World) {
    let Some((number, proto)) = some_server(world) else { return };
    let kind = kind(world, &proto);
    let fields = fields(world);
    world.line(format!("reply rs{number}{kind}{fields}"));
}

/// A client answers what it got last.
pub fn client_reply(world: &mut World) {
    let Some(flows) = world.some_flows() else { return };
    let kind = kind(world, &flows.proto);
    let fields = fields(world);
    let host = host(&flows.client);
    world.line(format!("reply {host}{kind}{fields}"));
}

/// A server complains about what it got last.
pub fn server_error(world: &mut World) {
    // The kernel drops ICMPv6 errors whose checksum is complete, as it sums them up without the
    // pseudo-header; ulvs does not.
    if world.ipv6 {
        return;
    }
    let Some((number, _)) = some_server(world) else { return };
    error(world, &format!("rs{number}"));
}

/// A client, or a router before it, complains about what it got last.
pub fn client_error(world: &mut World) {
    let Some(flows) = world.some_flows() else { return };
    error(world, &host(&flows.client));
}

fn error(world: &mut World, host: &str) {
    let kind = world.dice.word(if world.ipv6 { ERRORS6 } else { ERRORS });
    let mut text = format!("error {host} {kind}");
    if kind == "5/1" {
        text += " gw=192.168.200.1";
    }
    if kind == "3/4" || kind == "2/0" {
        text += &format!(" mtu={}", world.dice.number(500, 1499));
    }
    if world.dice.chance(40) {
        let bytes = "20 24 27 28 30 36 40 41 48 56 60 68 100";
        let short = "40 44 47 48 52 60 61 68 100";
        text += &format!(" quote={}", world.dice.word(if world.ipv6 { short } else { bytes }));
    }
    world.line(text);
}

fn some_server(world: &mut World) -> Option<(u64, String)> {
    let flows = world.some_flows()?;
    let servers = &world.services[flows.service].servers;
    if servers.is_empty() {
        return None;
    }
    Some((servers[world.dice.index(servers.len())].number, flows.proto))
}

/// The name of the host that has a client's address, which is the router for those far away.
fn host(address: &str) -> String {
    let near = address.strip_prefix("12.0.0.").or_else(|| address.strip_prefix("2001:db8:12::"));
    near.map_or_else(|| "gw".to_string(), |number| format!("c{number}"))
}

/// A packet that comes in pieces, some of them perhaps late, twice or never.
pub fn in_fragments(world: &mut World) {
    let Some(flows) = world.some_flows() else { return };
    if flows.proto == "sctp" {
        return;
    }
    let mut client = client_end(world, &flows);
    let mut target = world.endpoint(&flows.target.0, flows.target.1);
    let mut link = "out";
    let servers = &world.services[flows.service].servers;
    if !servers.is_empty() && world.dice.chance(30) {
        let server = servers[world.dice.index(servers.len())].clone();
        let port = server.port.unwrap_or(flows.target.1);
        target = world.endpoint(&world.server_address(server.number), port);
        std::mem::swap(&mut client, &mut target);
        link = "in";
    }
    let size = *world.dice.one(&[64_u64, 256, 800, 1200, 1448]);
    let bytes = world.dice.number(size, size * 3);
    let pieces = bytes.div_ceil(size) + 1;
    let order = if world.dice.chance(60) {
        let count = world.dice.number(1, pieces + 1);
        // The last piece may not be there: a number is only safe below it.
        let order: Vec<String> =
            (0..count).map(|_| world.dice.number(1, pieces - 1).to_string()).collect();
        format!(" order={}", order.join(","))
    } else {
        String::new()
    };
    let kind = if flows.proto == "tcp" { " A" } else { "" };
    let id = world.next_identification();
    let odd = world.dice.word("ttl=64 ttl=64 ttl=64 ttl=2 tos=3 tos=184");
    let proto = &flows.proto;
    world.line(format!(
        "fragments {link} {size}{order} {client} > {target} {proto}{kind} len={bytes} id={id} {odd}"
    ));
}

/// A packet that no service waits for, or that is not TCP nor UDP.
pub fn stray(world: &mut World) {
    let client = world.client();
    let number = world.dice.number(1, 6);
    let target = world.virtual_address(number);
    let fields = fields(world);
    let port = *world.dice.one(&[22_u16, 80, 443, 1023, 20, 21]);
    let (from, to) = (world.endpoint(&client, 5000), world.endpoint(&target, port));
    let icmp = if world.ipv6 { "icmp6 128/0" } else { "icmp 8/0" };
    let line = match world.dice.number(0, 5) {
        0 => format!("{client} > {target} {icmp} ident=7 seq=1{fields}"),
        1 => format!("{client} > {target} p99{fields}"),
        2 => format!("{from} > {to} udp{fields}"),
        3 => format!(
            "{client} > {} {icmp} ident=8 seq=2{fields}",
            world.server_address(number + 110)
        ),
        _ => format!("{from} > {to} tcp {}{fields}", world.dice.word(FLAGS)),
    };
    world.line(format!("send out {line}"));
}

fn transport(world: &mut World, proto: &str) -> String {
    let kind = kind(world, proto);
    let kind = match (proto, kind.as_str()) {
        ("tcp", "") => " A",
        ("sctp", "") => " DATA",
        (_, kind) => kind,
    };
    // The payload of an SCTP packet is its chunks.
    let fields = if proto == "sctp" { String::new() } else { fields(world) };
    format!("{proto}{kind}{fields}")
}

fn kind(world: &mut World, proto: &str) -> String {
    if proto == "tcp" && world.dice.chance(85) {
        format!(" {}", world.dice.word(FLAGS))
    } else if proto == "sctp" && world.dice.chance(85) {
        format!(" {}", world.dice.word(CHUNKS))
    } else {
        String::new()
    }
}

/// What is unusual about a packet; mostly nothing.
fn fields(world: &mut World) -> String {
    let mut text = String::new();
    let dice = &mut *world.dice;
    if dice.chance(25) {
        text += &format!(" len={}", dice.word("1 2 3 7 20 100 541 1000"));
    }
    if dice.chance(5) {
        text += &format!(" sum={}", dice.word("bad none"));
    }
    if dice.chance(15) {
        text += &format!(" ttl={}", dice.word("1 2 3 63 128 255 0"));
    }
    if dice.chance(10) {
        text += &format!(" tos={}", dice.word("1 2 3 4 16 255 184"));
    }
    if dice.chance(15) && !world.ipv6 {
        text += " df";
    }
    if dice.chance(10) && !world.ipv6 {
        text += &format!(" id={}", dice.word("0 2 4660 65535"));
    }
    if dice.chance(4) && !world.ipv6 {
        text += &format!(" ipopts={}", dice.word("01010101 94040000 0101010101010100"));
    }
    if dice.chance(2) && !world.ipv6 {
        text += " ipsum=bad";
    }
    text
}
