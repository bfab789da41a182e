//! Full NAT end to end: a one-arm director, real servers behind a router that know nothing of it.

#[allow(dead_code, reason = "the NAT topology's part")]
mod bed;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;

use bed::{Director, PATIENCE};
use ulvs::driver::Receiver;
use ulvs::driver::af_packet::{AfPacket, AfPacketConfig};
use ulvs::lab::Network;
use ulvs::lab::net::{Namespace, Route, sandbox};
use ulvs::lab::topology::fullnat::{CLIENT, DIRECTOR, FAR, FAR_PORT, NEAR, VIRTUAL, topology};
use ulvs::lab::web::{self, Site, WebServer};
use ulvs::packet::{Headers, PacketBuf, options};

const MIB: u64 = 1 << 20;
const ONE_ARM: [&str; 2] = ["--interface", "eth0"];

/// The lab's network with web servers, and a director that knows no service yet.
struct Lab {
    network: Network,
    director: Director,
    _webs: [WebServer; 2],
}

impl Lab {
    fn new(options: &[&str]) -> Self {
        Self::with(|director| Director::start(director, &[&ONE_ARM[..], options].concat()))
    }

    fn with(start: impl FnOnce(&Namespace) -> Director) -> Self {
        let network = Network::build(&topology()).unwrap();
        let webs = [("real1", 80), ("real2", FAR_PORT)].map(|(host, port)| {
            let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
            let inside = network.host(host).unwrap();
            let listeners = inside.run(|| web::listen(listen, 1)).unwrap().unwrap();
            WebServer::start(listeners, Site::new(host).page("/", "text/plain", "")).unwrap()
        });
        let director = start(network.host("director").unwrap());
        Lab { network, director, _webs: webs }
    }

    fn host(&self, name: &str) -> &Namespace {
        self.network.host(name).unwrap()
    }

    fn ulvs(&self, line: &str) -> String {
        self.director.ulvs(self.host("director"), line)
    }

    /// A service at `addr` with both servers.
    fn balance(&self, addr: Ipv4Addr, options: &str) {
        self.ulvs(&format!("ipvsadm -A -t {addr}:80 -s rr {options}"));
        self.ulvs(&format!("ipvsadm -a -t {addr}:80 -r {NEAR}:80 --fullnat"));
        self.ulvs(&format!("ipvsadm -a -t {addr}:80 -r {FAR}:{FAR_PORT} --fullnat"));
    }

    /// Which servers answer the client, one after the other.
    fn servers(&self, at: Ipv4Addr, count: usize) -> Vec<String> {
        let fetch = || web::get((at, 80).into(), "/", PATIENCE).unwrap().server;
        (0..count).map(|_| self.host("client").run(fetch).unwrap()).collect()
    }

    fn transfer_both_ways(&self, at: Ipv4Addr) {
        let (client, at) = (self.host("client"), SocketAddr::from((at, 80)));
        for _ in 0..2 {
            client.run(|| web::download(at, 100 * MIB, PATIENCE)).unwrap().unwrap();
        }
        for _ in 0..2 {
            client.run(|| web::upload(at, 100 * MIB, PATIENCE)).unwrap().unwrap();
        }
    }

    /// The director's kernel has neither reset nor rejected anything.
    fn assert_kernel_is_silent(&self) {
        let read = || std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
        let counters = self.host("director").run(read).unwrap();
        for (group, name) in [("Tcp:", "OutRsts"), ("Icmp:", "OutDestUnreachs")] {
            let mut lines = counters.lines().filter(|line| line.starts_with(group));
            let [mut names, values] = [(); 2].map(|()| lines.next().unwrap().split(' '));
            let value = names.position(|each| each == name).and_then(|at| values.clone().nth(at));
            assert_eq!(value, Some("0"), "{group} {name}");
        }
    }

    /// A server on a real server's host, reached through a service at `addr`, and whom it sees.
    fn peer(&self, addr: Ipv4Addr) -> (TcpStream, SocketAddr) {
        let listen = SocketAddr::from((NEAR, 7000));
        let listener = self.host("real1").run(|| TcpListener::bind(listen)).unwrap().unwrap();
        let to = SocketAddr::from((addr, 7000));
        let connect = || TcpStream::connect_timeout(&to, PATIENCE).unwrap();
        let stream = self.host("client").run(connect).unwrap();
        (stream, listener.accept().unwrap().1)
    }
}

const IN_TURN: [&str; 4] = ["real2", "real1", "real2", "real1"];

#[test]
fn servers_anywhere_answer_through_a_one_arm_director() {
    sandbox::run("servers_anywhere_answer_through_a_one_arm_director", || {
        let lab = Lab::new(&[]);
        lab.balance(VIRTUAL, "");
        assert_eq!(lab.servers(VIRTUAL, 4), IN_TURN);
        let listing = lab.ulvs("ipvsadm -Ln");
        let real = format!("{:<28} FullNat 1      0          2", format!("{FAR}:{FAR_PORT}"));
        assert!(listing.contains(&real), "{listing}");
        let connections = lab.ulvs("ipvsadm -Lnc");
        let from = |line: &&str| line.contains(&format!("{NEAR}:80   {DIRECTOR}:"));
        assert_eq!(connections.lines().filter(from).count(), 2, "{connections}");
        lab.transfer_both_ways(VIRTUAL);
        lab.assert_kernel_is_silent();
    });
}

#[test]
fn it_balances_its_own_address_too() {
    sandbox::run("it_balances_its_own_address_too", || {
        let lab = Lab::new(&["--workers", "2"]);
        lab.balance(DIRECTOR, "");
        assert_eq!(lab.servers(DIRECTOR, 40), IN_TURN.repeat(10));
        lab.transfer_both_ways(DIRECTOR);
        lab.assert_kernel_is_silent();
        let own: SocketAddr = (DIRECTOR, 22).into();
        let ssh = lab.host("director").run(|| TcpListener::bind(own)).unwrap().unwrap();
        let connect = move || TcpStream::connect_timeout(&own, PATIENCE).map(drop);
        lab.host("client").run(connect).unwrap().unwrap();
        ssh.accept().unwrap();
        // The host's own programs reach the real servers as before.
        let near = SocketAddr::from((NEAR, 80));
        let check = || web::get(near, "/", PATIENCE).unwrap().server;
        assert_eq!(lab.host("director").run(check).unwrap(), "real1");
    });
}

#[test]
fn local_addresses_that_nobody_has_are_the_directors() {
    sandbox::run("local_addresses_that_nobody_has_are_the_directors", || {
        let lab = Lab::new(&[]);
        let locals = [Ipv4Addr::new(172, 16, 1, 210), Ipv4Addr::new(172, 16, 1, 211)];
        lab.balance(VIRTUAL, "--local-address 172.16.1.210,172.16.1.211");
        assert_eq!(lab.servers(VIRTUAL, 4), IN_TURN);
        lab.transfer_both_ways(VIRTUAL);
        lab.ulvs(&format!("ipvsadm -A -t {VIRTUAL}:7000 --local-address {}", locals[0]));
        lab.ulvs(&format!("ipvsadm --add-laddr -t {VIRTUAL}:7000 --local-address {}", locals[1]));
        lab.ulvs(&format!("ipvsadm --del-laddr -t {VIRTUAL}:7000 --local-address {}", locals[0]));
        lab.ulvs(&format!("ipvsadm -a -t {VIRTUAL}:7000 -r {NEAR} --fullnat"));
        let (_stream, peer) = lab.peer(VIRTUAL);
        assert_eq!(peer.ip(), IpAddr::V4(locals[1]));
        let listed = lab.ulvs(&format!("ipvsadm --get-laddr -t {VIRTUAL}:7000"));
        assert!(listed.contains("172.16.1.211                    1\n"), "{listed}");
        let saved = lab.ulvs("ipvsadm -Sn");
        assert!(saved.contains(":7000 -s wlc --local-address 172.16.1.211\n"), "{saved}");
        assert!(saved.contains(&format!("-r {NEAR}:7000 --fullnat -w 1\n")), "{saved}");
    });
}

#[test]
fn it_works_behind_a_tun_device() {
    sandbox::run("it_works_behind_a_tun_device", || {
        if let Err(error) = std::fs::File::open("/dev/net/tun") {
            return println!("skipped: /dev/net/tun cannot be opened ({error})");
        }
        let options = ["--tun", "--workers", "2"];
        let lab = Lab::with(|director| Director::start(director, &options));
        // Virtual and local addresses that are the kernel's, that neighbours ask for, that neither
        // has: the router has to know where those are.
        let elsewhere = Ipv4Addr::new(203, 0, 113, 7);
        let route = Route {
            destination: "203.0.113.0/24".parse().unwrap(),
            via: Some(DIRECTOR.into()),
            interface: None,
        };
        lab.host("router").add_route(&route).unwrap();
        for (addr, options) in [
            (DIRECTOR, ""),
            (VIRTUAL, "--local-address 172.16.1.210,172.16.1.211"),
            (elsewhere, "--local-address 203.0.113.8"),
        ] {
            lab.balance(addr, options);
            assert_eq!(lab.servers(addr, 20), IN_TURN.repeat(5), "{addr}");
        }
        lab.transfer_both_ways(DIRECTOR);
        lab.transfer_both_ways(elsewhere);
        lab.assert_kernel_is_silent();
    });
}

#[test]
fn the_privileges_of_a_plain_container_are_enough() {
    sandbox::run("the_privileges_of_a_plain_container_are_enough", || {
        if Command::new("setpriv").arg("--version").output().is_err() {
            return println!("skipped: setpriv is not installed");
        }
        let mut lab = Lab::with(|director| {
            let granted = "-all,+net_raw,+net_bind_service";
            let mut command = director.command("setpriv");
            command.args(["--bounding-set", granted, "--inh-caps", granted]);
            command.arg(env!("CARGO_BIN_EXE_ulvs"));
            Director::start_by(command, &ONE_ARM)
        });
        lab.balance(DIRECTOR, "");
        assert_eq!(lab.servers(DIRECTOR, 4), IN_TURN);
        lab.transfer_both_ways(DIRECTOR);
        lab.assert_kernel_is_silent();
        assert!(lab.director.log().contains("local ports for full NAT"), "{}", lab.director.log());
        lab.director.kill();
        lab.director = Director::start(lab.host("director"), &ONE_ARM);
        lab.balance(DIRECTOR, "");
        assert_eq!(lab.servers(DIRECTOR, 4), IN_TURN, "its successor serves");
    });
}

#[test]
fn udp_goes_both_ways() {
    sandbox::run("udp_goes_both_ways", || {
        let lab = Lab::new(&[]);
        lab.ulvs(&format!("ipvsadm -A -u {DIRECTOR}:53"));
        lab.ulvs(&format!("ipvsadm -a -u {DIRECTOR}:53 -r {NEAR}:5353 --fullnat"));
        let bind = |host: &str, address: SocketAddr| {
            let socket = lab.host(host).run(|| UdpSocket::bind(address)).unwrap().unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        };
        let (server, client) =
            (bind("real1", (NEAR, 5353).into()), bind("client", (CLIENT, 0).into()));
        let mut datagram = [0; 64];
        for _ in 0..3 {
            client.send_to(b"question", (DIRECTOR, 53)).unwrap();
            let (length, from) = server.recv_from(&mut datagram).unwrap();
            assert_eq!((&datagram[..length], from.ip()), (&b"question"[..], IpAddr::V4(DIRECTOR)));
            server.send_to(b"answer", from).unwrap();
            let (length, from) = client.recv_from(&mut datagram).unwrap();
            assert_eq!((&datagram[..length], from), (&b"answer"[..], (DIRECTOR, 53).into()));
        }
        lab.assert_kernel_is_silent();
    });
}

#[test]
fn a_closed_port_is_refused_to_the_client() {
    sandbox::run("a_closed_port_is_refused_to_the_client", || {
        let lab = Lab::new(&[]);
        lab.ulvs(&format!("ipvsadm -A -t {DIRECTOR}:81"));
        lab.ulvs(&format!("ipvsadm -a -t {DIRECTOR}:81 -r {NEAR}:81 --fullnat"));
        lab.ulvs(&format!("ipvsadm -A -u {DIRECTOR}:81"));
        lab.ulvs(&format!("ipvsadm -a -u {DIRECTOR}:81 -r {NEAR}:81 --fullnat"));
        let to = SocketAddr::from((DIRECTOR, 81));
        let connect = || TcpStream::connect_timeout(&to, PATIENCE).map(drop);
        let refused = lab.host("client").run(connect).unwrap().unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        // The error about a datagram comes back to who sent it.
        let ask = || {
            let socket = UdpSocket::bind((CLIENT, 0)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.connect(to).unwrap();
            socket.send(b"question").unwrap();
            socket.recv(&mut [0; 16]).unwrap_err().kind()
        };
        let refused = lab.host("client").run(ask).unwrap();
        assert_eq!(refused, std::io::ErrorKind::ConnectionRefused);
    });
}

/// A server of `how` on the first real server, reached by the client: both ends, and what the server
/// sees before anybody has said anything.
fn told(lab: &Lab, how: &str) -> (TcpStream, TcpStream) {
    lab.ulvs(&format!("ipvsadm -A -t {DIRECTOR}:7000"));
    let server = format!("-t {DIRECTOR}:7000 -r {NEAR}:7000 --fullnat --client-address {how}");
    lab.ulvs(&format!("ipvsadm -a {server}"));
    let listen = SocketAddr::from((NEAR, 7000));
    let listener = lab.host("real1").run(|| TcpListener::bind(listen)).unwrap().unwrap();
    let to = SocketAddr::from((DIRECTOR, 7000));
    let connect = || TcpStream::connect_timeout(&to, PATIENCE).unwrap();
    let near = lab.host("client").run(connect).unwrap();
    let far = listener.accept().unwrap().0;
    for stream in [&near, &far] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
    }
    (near, far)
}

/// Sends bytes that can be told apart, and reads as many; each end does both at once.
fn exchange(near: &TcpStream, far: &TcpStream, len: usize) {
    let byte = |at: usize| (at % 251 + at / 65_536) as u8;
    let send = |mut to: &TcpStream| {
        let all: Vec<u8> = (0..len).map(byte).collect();
        to.write_all(&all).unwrap();
    };
    let receive = |mut from: &TcpStream| {
        let mut all = vec![0; len];
        from.read_exact(&mut all).unwrap();
        let wrong = (0..len).find(|at| all[*at] != byte(*at));
        assert_eq!(wrong, None, "the first byte that is not what was sent");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| send(near));
        scope.spawn(|| send(far));
        scope.spawn(|| receive(near));
        receive(far);
    });
}

fn proxy_header(near: &TcpStream) -> Vec<u8> {
    let port = near.local_addr().unwrap().port().to_be_bytes();
    let fixed = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c";
    let ends = [CLIENT.octets(), DIRECTOR.octets()].concat();
    [&fixed[..], &ends, &port, &7000u16.to_be_bytes()].concat()
}

#[test]
fn a_proxy_header_tells_who_the_client_is_before_it_speaks() {
    sandbox::run("a_proxy_header_tells_who_the_client_is_before_it_speaks", || {
        let lab = Lab::new(&[]);
        let (near, far) = told(&lab, "proxy-v2");
        let mut header = [0; 28];
        (&far).read_exact(&mut header).unwrap();
        assert_eq!(header[..], proxy_header(&near));
        exchange(&near, &far, 100 << 20);
        lab.assert_kernel_is_silent();
    });
}

#[test]
fn a_proxy_header_survives_lost_packets() {
    sandbox::run("a_proxy_header_survives_lost_packets", || {
        let lab = Lab::new(&[]);
        let lossy = "add table ip lossy; \
                     add chain ip lossy way { type filter hook forward priority 0; }; \
                     add rule ip lossy way ip protocol tcp numgen random mod 100 < 3 drop";
        match lab.host("router").command("nft").arg(lossy).output() {
            Ok(output) => assert!(output.status.success(), "{output:?}"),
            Err(_) => return println!("skipped: nft is not installed"),
        }
        lab.ulvs(&format!("ipvsadm -A -t {DIRECTOR}:7000"));
        for connection in 0..4 {
            lab.ulvs(&format!("ipvsadm -D -t {DIRECTOR}:7000"));
            let (near, far) = told(&lab, "proxy-v2");
            // Either side may be the first to speak.
            if connection % 2 == 0 {
                (&near).write_all(b"client").unwrap();
            } else {
                (&far).write_all(b"server").unwrap();
            }
            let mut header = [0; 28];
            (&far).read_exact(&mut header).unwrap();
            assert_eq!(header[..], proxy_header(&near));
            let mut greeting = [0; 6];
            if connection % 2 == 0 {
                (&far).read_exact(&mut greeting).unwrap();
                assert_eq!(&greeting, b"client");
            } else {
                (&near).read_exact(&mut greeting).unwrap();
                assert_eq!(&greeting, b"server");
            }
            exchange(&near, &far, 64 << 10);
        }
    });
}

#[test]
fn a_tcp_option_tells_who_the_client_is() {
    sandbox::run("a_tcp_option_tells_who_the_client_is", || {
        let lab = Lab::new(&[]);
        let open = || AfPacket::open("eth0", &AfPacketConfig::default()).unwrap().receiver;
        let mut wire = lab.host("real1").run(open).unwrap();
        let (near, far) = told(&lab, "toa");
        exchange(&near, &far, 100 << 20);
        let port = near.local_addr().unwrap().port().to_be_bytes();
        let option = [&[254, 8][..], &port, &CLIENT.octets()].concat();
        let mut seen = 0;
        for _ in 0..10_000 {
            let mut look = |frames: &mut [PacketBuf<'_>]| {
                seen += frames.iter().filter(|frame| says(frame.bytes(), &option)).count();
            };
            if wire.receive(&mut look).unwrap() == 0 {
                break;
            }
        }
        assert!(seen > 0, "no segment had the option");
        let counters: serde_json::Value = serde_json::from_str(&lab.ulvs("stats --json")).unwrap();
        let counters = counters["counters"].as_array().unwrap();
        let untold = counters.iter().find(|each| each["name"] == "client-untold").unwrap();
        assert_eq!(untold["total"], 0, "{untold}");
        lab.assert_kernel_is_silent();
    });
}

/// Whether a frame is a TCP segment with this option.
fn says(frame: &[u8], option: &[u8]) -> bool {
    let Ok(headers) = Headers::parse(&frame[14..]) else { return false };
    let segment = &frame[14 + headers.transport..];
    let found = options::find(segment, options::kind::ADDRESS);
    headers.protocol == 6 && found.is_some_and(|found| segment[found.at..].starts_with(option))
}
