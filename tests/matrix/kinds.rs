//! Kinds of services: how each is set up, and what its clients do.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::AddAssign;
use std::thread;

use socket2::{Domain, SockRef, Socket, Type};

use crate::bed::PATIENCE;
use crate::raw::{AH, ESP, Raw, SCTP, ipsec, sctp};
use crate::world::{Driver, Family, Owned, Real, World};

/// A kind of service.
pub struct Kind {
    pub name: &'static str,
    pub is_for: fn(&World) -> bool,
    pub configure: fn(&World),
    pub traffic: fn(&World) -> Expected,
}

/// What clients get to see that is nobody's fault.
#[derive(Default)]
pub struct Expected {
    /// ICMP errors of servers.
    pub errors: usize,
}

impl AddAssign for Expected {
    fn add_assign(&mut self, other: Self) {
        self.errors += other.errors;
    }
}

pub const FULL_NAT_PORT: u16 = 83;
pub const DIRECT_PORT: u16 = 84;

pub const ALL: [Kind; 10] = [
    Kind { name: "TCP", is_for: always, configure: |w| masquerade(w, "-t", 80), traffic: tcp },
    Kind { name: "UDP", is_for: always, configure: |w| masquerade(w, "-u", 53), traffic: udp },
    Kind {
        name: "fragments",
        is_for: always,
        configure: |w| masquerade(w, "-u", 54),
        traffic: in_fragments,
    },
    Kind {
        name: "SCTP",
        is_for: always,
        configure: |w| masquerade(w, "--sctp-service", 3868),
        traffic: stream_control,
    },
    Kind { name: "IPsec", is_for: always, configure: |w| masquerade(w, "-u", 500), traffic: keys },
    Kind { name: "FTP", is_for: always, configure: |w| masquerade(w, "-t", 21), traffic: ftp },
    Kind { name: "mark", is_for: always, configure: mark, traffic: marked },
    Kind { name: "full NAT", is_for: always, configure: full_nat, traffic: through_local_ports },
    Kind { name: "all ports", is_for: may_guard_all, configure: all_ports, traffic: any_port },
    Kind { name: "direct", is_for: has_link_addresses, configure: direct, traffic: directly },
];

fn always(_: &World) -> bool {
    true
}

/// No socket holds all ports.
fn may_guard_all(world: &World) -> bool {
    world.means.may_make_rules || world.means.owned != Owned::All
}

/// A server has to have the virtual address without telling.
fn has_link_addresses(world: &World) -> bool {
    world.means.driver == Driver::Packet && world.family == Family::V4
}

fn masquerade(world: &World, option: &str, port: u16) {
    let of = if port == 21 { Real::Ftp } else { Real::Ordinary };
    balance(world, option, SocketAddr::new(world.service(), port), of, "-m");
}

fn balance(world: &World, option: &str, service: SocketAddr, of: Real, method: &str) {
    let real = SocketAddr::new(world.real(of), service.port());
    let persistent = if service.port() == 0 { "-p" } else { "" };
    world.ulvs(&format!("ipvsadm -A {option} {service} -s rr {persistent}"));
    world.ulvs(&format!("ipvsadm -a {option} {service} -r {real} {method}"));
}

fn mark(world: &World) {
    let (at, real) = (world.service(), world.real(Real::Marked));
    let family = if world.family == Family::V6 { "-6" } else { "" };
    let mark = "-j MARK --set-mark 10";
    world.ulvs(&format!("mark -t mangle -A PREROUTING -p tcp -d {at} --dport 82 {mark}"));
    world.ulvs(&format!("ipvsadm -A -f 10 {family} -s rr"));
    world.ulvs(&format!("ipvsadm -a -f 10 {family} -r {} -m", SocketAddr::new(real, 0)));
}

fn full_nat(world: &World) {
    let service = SocketAddr::new(world.service(), FULL_NAT_PORT);
    balance(world, "-t", service, Real::FullNat, "--fullnat");
    world.ulvs(&format!("ipvsadm -E -t {service} -s rr --local-address {}", world.local()));
}

fn all_ports(world: &World) {
    balance(world, "-t", SocketAddr::new(world.whole(), 0), Real::Whole, "-m");
}

fn direct(world: &World) {
    balance(world, "-t", SocketAddr::new(world.direct(), DIRECT_PORT), Real::Ordinary, "-g");
}

fn tcp(world: &World) -> Expected {
    let service = SocketAddr::new(world.service(), 80);
    let listener = listen(world, world.real(Real::Ordinary), 80);
    let peer = converse(world, service, &listener);
    assert_eq!(peer, world.client());
    // One that the client breaks off.
    let mut broken = connect(world, service);
    broken.write_all(b"GET / HTT").unwrap();
    let mut taken = listener.accept().unwrap().0;
    SockRef::from(&broken).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(broken);
    let mut rest = Vec::new();
    assert_eq!(taken.read_to_end(&mut rest).unwrap_err().kind(), ErrorKind::ConnectionReset);
    Expected::default()
}

fn udp(world: &World) -> Expected {
    let (client, server) = ask(world, 0, 53, 100);
    drop(server);
    client.send(b"anybody").unwrap();
    assert_eq!(client.recv(&mut [0; 64]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    Expected { errors: 1 }
}

fn in_fragments(world: &World) -> Expected {
    ask(world, 0, 54, 4000);
    Expected::default()
}

/// A question from a port, and its answer, of so many bytes each.
fn ask(world: &World, from: u16, port: u16, len: usize) -> (UdpSocket, UdpSocket) {
    let bind = |host: &str, addr: IpAddr, port: u16| {
        let bind = || UdpSocket::bind(SocketAddr::new(addr, port)).unwrap();
        let socket = world.host(host).run(bind).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let (client, server) =
        (bind("client", world.client(), from), bind("real", world.real(Real::Ordinary), port));
    client.connect(SocketAddr::new(world.service(), port)).unwrap();
    let (question, answer, mut heard) = (vec![b'?'; len], vec![b'!'; len], vec![0; len + 1]);
    client.send(&question).unwrap();
    let (heard_len, from) = server.recv_from(&mut heard).unwrap();
    assert_eq!(heard[..heard_len], question);
    server.send_to(&answer, from).unwrap();
    let heard_len = client.recv(&mut heard).unwrap();
    assert_eq!(heard[..heard_len], answer);
    (client, server)
}

fn stream_control(world: &World) -> Expected {
    let mut client = Raw::open(world.host("client"), world.client(), SCTP);
    let mut server = Raw::open(world.host("real"), world.real(Real::Ordinary), SCTP);
    let (init, init_ack) = (sctp(5000, 3868, 0, 1), sctp(3868, 5000, 1, 2));
    client.send(world.service(), &init);
    assert_eq!(server.receive(), init);
    server.send(world.client(), &init_ack);
    assert_eq!(client.receive(), init_ack);
    Expected::default()
}

/// An exchange of keys, and then what is protected by them.
fn keys(world: &World) -> Expected {
    let _exchange = ask(world, 500, 500, 100);
    // With IPv6, AH is one of the headers that are skipped.
    let protocols = if world.family == Family::V4 { &[ESP, AH][..] } else { &[ESP] };
    for &protocol in protocols {
        let mut client = Raw::open(world.host("client"), world.client(), protocol);
        let mut server = Raw::open(world.host("real"), world.real(Real::Ordinary), protocol);
        let (there, back) = (ipsec(protocol, 0x1111), ipsec(protocol, 0x2222));
        client.send(world.service(), &there);
        assert_eq!(server.receive(), there, "protocol {protocol}");
        server.send(world.client(), &back);
        assert_eq!(client.receive(), back, "protocol {protocol}");
    }
    Expected::default()
}

/// Passive and active data connections.
fn ftp(world: &World) -> Expected {
    let control = listen(world, world.real(Real::Ftp), 21);
    let mut client = connect(world, SocketAddr::new(world.service(), 21));
    let (mut server, _) = control.accept().unwrap();
    // Passive.
    let data = listen(world, world.real(Real::Ftp), 0);
    let port = data.local_addr().unwrap().port();
    let (request, answer) = passive_words(world.real(Real::Ftp), port);
    say(&mut client, request);
    assert_eq!(hear(&mut server), request);
    say(&mut server, &answer);
    let told = told_endpoint(&hear(&mut client), world.service());
    assert_eq!(told, SocketAddr::new(world.service(), port));
    assert_eq!(converse(world, told, &data), world.client());
    // Active.
    let waiting =
        world.host("client").run(|| TcpListener::bind((world.client(), 0))).unwrap().unwrap();
    let request = active_words(waiting.local_addr().unwrap());
    say(&mut client, &request);
    assert_eq!(hear(&mut server), request);
    let to = waiting.local_addr().unwrap();
    let mut begun = dial(world, "real", SocketAddr::new(world.real(Real::Ftp), 20), to);
    let (mut taken, seen) = waiting.accept().unwrap();
    assert_eq!(seen, SocketAddr::new(world.service(), 20));
    exchange(&mut begun, &mut taken);
    Expected::default()
}

fn passive_words(addr: IpAddr, port: u16) -> (&'static str, String) {
    match addr {
        IpAddr::V4(addr) => {
            let [a, b, c, d] = addr.octets();
            let numbers = format!("{a},{b},{c},{d},{},{}", port >> 8, port & 0xff);
            ("PASV\r\n", format!("227 Entering Passive Mode ({numbers}).\r\n"))
        }
        IpAddr::V6(_) => {
            ("EPSV\r\n", format!("229 Entering Extended Passive Mode (|||{port}|)\r\n"))
        }
    }
}

fn active_words(at: SocketAddr) -> String {
    let port = at.port();
    match at.ip() {
        IpAddr::V4(addr) => {
            let [a, b, c, d] = addr.octets();
            format!("PORT {a},{b},{c},{d},{},{}\r\n", port >> 8, port & 0xff)
        }
        IpAddr::V6(addr) => format!("EPRT |2|{addr}|{port}|\r\n"),
    }
}

/// What an answer to PASV or EPSV at `control` names.
fn told_endpoint(answer: &str, control: IpAddr) -> SocketAddr {
    let inner = answer.split(['(', ')']).nth(1).unwrap();
    if let Some(port) = inner.strip_prefix("|||") {
        return SocketAddr::new(control, port.trim_end_matches('|').parse().unwrap());
    }
    let numbers: Vec<u8> = inner.split(',').map(|number| number.parse().unwrap()).collect();
    let [a, b, c, d, high, low] = numbers.try_into().unwrap();
    SocketAddr::new(IpAddr::from([a, b, c, d]), u16::from_be_bytes([high, low]))
}

fn marked(world: &World) -> Expected {
    let listener = listen(world, world.real(Real::Marked), 82);
    assert_eq!(converse(world, SocketAddr::new(world.service(), 82), &listener), world.client());
    Expected::default()
}

fn through_local_ports(world: &World) -> Expected {
    let listener = listen(world, world.real(Real::FullNat), FULL_NAT_PORT);
    let service = SocketAddr::new(world.service(), FULL_NAT_PORT);
    assert_eq!(converse(world, service, &listener), world.local());
    Expected::default()
}

fn any_port(world: &World) -> Expected {
    let listener = listen(world, world.real(Real::Whole), 7000);
    assert_eq!(converse(world, SocketAddr::new(world.whole(), 7000), &listener), world.client());
    Expected::default()
}

fn directly(world: &World) -> Expected {
    let listener = listen(world, world.direct(), DIRECT_PORT);
    let service = SocketAddr::new(world.direct(), DIRECT_PORT);
    let mut client = dial(world, "client", SocketAddr::new(world.near_client(), 0), service);
    let (mut server, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip(), world.near_client());
    exchange(&mut client, &mut server);
    Expected::default()
}

fn listen(world: &World, addr: IpAddr, port: u16) -> TcpListener {
    world.host("real").run(|| TcpListener::bind((addr, port))).unwrap().unwrap()
}

fn connect(world: &World, to: SocketAddr) -> TcpStream {
    dial(world, "client", SocketAddr::new(world.client(), 0), to)
}

fn dial(world: &World, host: &str, from: SocketAddr, to: SocketAddr) -> TcpStream {
    let connect = || {
        let socket = Socket::new(Domain::for_address(from), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&from.into())?;
        socket.connect_timeout(&to.into(), PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        std::io::Result::Ok(TcpStream::from(socket))
    };
    let stream = world.host(host).run(connect).unwrap();
    stream.unwrap_or_else(|error| panic!("{world:?} {from} to {to}: {error}"))
}

/// A whole connection; returns whom the server saw.
fn converse(world: &World, to: SocketAddr, listener: &TcpListener) -> IpAddr {
    let mut client = connect(world, to);
    let (mut server, peer) = listener.accept().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    exchange(&mut client, &mut server);
    peer.ip()
}

/// Both say much, and then no more.
fn exchange(one: &mut TcpStream, other: &mut TcpStream) {
    let (there, back) = ([b'a'; 200_000], [b'b'; 200_000]);
    thread::scope(|scope| {
        scope.spawn(|| tell_and_hear(one, &there, &back));
        tell_and_hear(other, &back, &there);
    });
}

fn tell_and_hear(stream: &mut TcpStream, own: &[u8], others: &[u8]) {
    let mut heard = Vec::new();
    let mut writer = stream.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            writer.write_all(own).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        stream.read_to_end(&mut heard).unwrap();
    });
    assert!(heard == others, "what was said arrives");
}

fn say(stream: &mut TcpStream, words: &str) {
    stream.write_all(words.as_bytes()).unwrap();
}

fn hear(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}
