//! End to end with clients and real servers on the director's own host: a real director process, and
//! the kernel's own sockets on every side.

mod bed;

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread::JoinHandle;

use bed::capture::Capture;
use bed::{Bed, Director, PATIENCE, ROUND_ROBIN, service};
use etherparse::PacketBuilder;
use ulvs::driver::Sender;
use ulvs::driver::af_packet::{AfPacket, AfPacketConfig};
use ulvs::lab::net::sandbox;
use ulvs::lab::services::ftp;
use ulvs::lab::topology::{ipv6, nat};
use ulvs::lab::web::{self, Site, WebServer};
use ulvs::packet::PacketBuf;

/// Runs a test that needs a device of the director's own.
fn run(name: &str, body: impl FnOnce()) {
    sandbox::run(name, || match std::fs::File::options().read(true).write(true).open(TUN_NODE) {
        Ok(_) => body(),
        Err(error) => println!("skipped: {name}: {TUN_NODE} cannot be opened ({error})"),
    });
}

const TUN_NODE: &str = "/dev/net/tun";

/// The director over packet sockets, and over a TUN device.
const DRIVERS: [&[&str]; 2] = [&[], &["--tun"]];

/// A web server on a host.
fn serve(bed: &Bed, host: &str, at: impl Into<SocketAddr>) -> WebServer {
    let at = at.into();
    let listeners = bed.host(host).run(|| web::listen(at, 1)).unwrap().unwrap();
    let page = format!("this is {host} at {at}\n");
    WebServer::start(listeners, Site::new("local").page("/", "text/html", page)).unwrap()
}

/// What the page of the service says to a client on some host.
fn page(bed: &Bed, host: &str, at: impl Into<SocketAddr>) -> io::Result<web::Answer> {
    let at = at.into();
    bed.host(host).run(|| web::get(at, "/", PATIENCE)).unwrap()
}

/// An echo server over UDP that answers one datagram.
fn echo_once(bed: &Bed, at: SocketAddr) -> JoinHandle<SocketAddr> {
    let socket = bed.host("director").run(|| UdpSocket::bind(at)).unwrap().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    std::thread::spawn(move || {
        let mut datagram = [0; 2000];
        let (len, from) = socket.recv_from(&mut datagram).unwrap();
        socket.send_to(&datagram[..len], from).unwrap();
        from
    })
}

#[test]
fn the_director_is_a_server_by_nat_among_others() {
    run("the_director_is_a_server_by_nat_among_others", || {
        for options in DRIVERS {
            let bed = Bed::with_director_options(options);
            let _web = serve(&bed, "director", (nat::OUTSIDE, 8080));
            bed.configure(&ROUND_ROBIN);
            bed.ipvsadm("-a -t 12.0.0.1:80 -r 12.0.0.1:8080 -m");
            let servers = bed.servers(6);
            assert_eq!(servers[..3], servers[3..], "{servers:?}");
            for name in ["real1", "real2", "local"] {
                assert!(servers.iter().any(|server| server == name), "{servers:?}");
            }
            let listing = bed.ipvsadm("-Lnc");
            assert!(listing.contains("12.0.0.1:80        12.0.0.1:8080"), "{listing}");
            // Who comes without the service is none of the director's business.
            let direct = page(&bed, "client", (nat::OUTSIDE, 8080)).unwrap();
            assert_eq!(direct.server, "local");
        }
    });
}

#[test]
fn a_hundred_mebibytes_arrive_unharmed_at_a_server_on_the_director() {
    run("a_hundred_mebibytes_arrive_unharmed_at_a_server_on_the_director", || {
        for options in [&["--workers", "2"][..], &["--tun", "--workers", "2"]] {
            let bed = Bed::with_director_options(options);
            let _web = serve(&bed, "director", (nat::INSIDE, 8080));
            bed.configure(&[
                "-A -t 12.0.0.1:80 -s rr",
                "-a -t 12.0.0.1:80 -r 192.168.200.1:8080 -m",
            ]);
            bed.transfer_both_ways();
        }
    });
}

#[test]
fn the_client_sees_the_services_address_only() {
    run("the_client_sees_the_services_address_only", || {
        for options in DRIVERS {
            let bed = Bed::with_director_options(options);
            let _web = serve(&bed, "director", (nat::OUTSIDE, 8080));
            bed.configure(&[
                "-A -t 12.0.0.1:80 -s rr",
                "-a -t 12.0.0.1:80 -r 12.0.0.1:8080 -m",
                "-A -u 12.0.0.1:53 -s rr",
                "-a -u 12.0.0.1:53 -r 12.0.0.1:5353 -m",
            ]);
            let capture = Capture::start(bed.host("client"), "eth0");
            assert_eq!(bed.servers(2), ["local", "local"]);
            // Nobody listens: the host's own error is the service's.
            let socket = bed.host("client").run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.connect((nat::OUTSIDE, 53)).unwrap();
            socket.send(b"anybody there?").unwrap();
            let refused = socket.recv(&mut [0; 64]).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{refused}");
            let seen = capture.stop();
            let strangers = seen.iter().filter(|seen| {
                !seen.is_housekeeping()
                    && (seen.from().port != 80 && seen.icmp() != Some(3) || seen.is_reset())
            });
            assert_eq!(strangers.count(), 0, "{seen:?}");
            assert!(seen.iter().all(|seen| {
                seen.is_housekeeping() || seen.source() == IpAddr::V4(nat::OUTSIDE)
            }));
        }
    });
}

#[test]
fn datagrams_go_to_a_server_on_the_director_and_back() {
    run("datagrams_go_to_a_server_on_the_director_and_back", || {
        for options in DRIVERS {
            let bed = Bed::with_director_options(options);
            bed.configure(&["-A -u 12.0.0.1:53 -s rr", "-a -u 12.0.0.1:53 -r 12.0.0.1:5353 -m"]);
            let server = echo_once(&bed, (nat::OUTSIDE, 5353).into());
            let client = bed.host("client").run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.connect((nat::OUTSIDE, 53)).unwrap();
            client.send(b"question").unwrap();
            let mut answer = [0; 64];
            let len = client.recv(&mut answer).unwrap();
            assert_eq!(&answer[..len], b"question");
            assert_eq!(server.join().unwrap().ip(), IpAddr::V4(nat::CLIENT));
        }
    });
}

#[test]
fn a_program_at_the_services_own_port_is_one_of_its_servers() {
    run("a_program_at_the_services_own_port_is_one_of_its_servers", || {
        for options in DRIVERS {
            let bed = Bed::with_director_options(options);
            // By every method that leaves the packet as it is, and by NAT to the same address.
            for server in ["12.0.0.1:80 -m", "12.0.0.1:80 -g", "127.0.0.1:80 -g", "12.0.0.1 -i"] {
                bed.configure(&["-C", "-A -t 12.0.0.1:80 -s rr"]);
                bed.configure(&["-a -t 12.0.0.1:80 -r 192.168.200.110:80 -m"]);
                bed.ipvsadm(&format!("-a -t 12.0.0.1:80 -r {server}"));
                let web = serve(&bed, "director", (nat::OUTSIDE, 80));
                let capture = Capture::start(bed.host("client"), "eth0");
                let servers = bed.servers(4);
                assert_eq!(servers[..2], servers[2..], "{server}: {servers:?}");
                assert!(servers.contains(&"local".to_owned()), "{server}: {servers:?}");
                assert!(servers.contains(&"real1".to_owned()), "{server}: {servers:?}");
                let seen = capture.stop();
                assert!(seen.iter().all(|seen| !seen.is_reset()), "{server}: {seen:?}");
                drop(web);
            }
        }
    });
}

#[test]
fn full_nat_reaches_servers_on_the_director_at_loopback_too() {
    run("full_nat_reaches_servers_on_the_director_at_loopback_too", || {
        for options in DRIVERS {
            let bed = Bed::with_director_options(options);
            let _webs = [
                serve(&bed, "director", (nat::OUTSIDE, 8080)),
                serve(&bed, "director", (Ipv4Addr::LOCALHOST, 8081)),
            ];
            bed.configure(&[
                "-A -t 12.0.0.1:80 -s rr",
                "-a -t 12.0.0.1:80 -r 12.0.0.1:8080 --fullnat",
                "-a -t 12.0.0.1:80 -r 127.0.0.1:8081 --fullnat",
            ]);
            let pages: Vec<_> =
                (0..2).map(|_| String::from_utf8(bed.fetch().unwrap().body).unwrap()).collect();
            assert!(pages.iter().any(|page| page.contains("12.0.0.1:8080")), "{pages:?}");
            assert!(pages.iter().any(|page| page.contains("127.0.0.1:8081")), "{pages:?}");
        }
    });
}

#[test]
fn the_directors_own_clients_use_its_services() {
    run("the_directors_own_clients_use_its_services", || {
        for options in [&[][..], &["--workers", "2"], &["--tun"], &["--tun", "--workers", "2"]] {
            let bed = Bed::with_director_options(options);
            let _web = serve(&bed, "director", (nat::INSIDE, 8080));
            bed.configure(&ROUND_ROBIN);
            let served = |count: usize| -> Vec<String> {
                (0..count).map(|_| page(&bed, "director", service()).unwrap().server).collect()
            };
            assert_eq!(served(4), ["real2", "real1", "real2", "real1"], "{options:?}");
            bed.ipvsadm("-a -t 12.0.0.1:80 -r 192.168.200.1:8080 -m");
            let servers = served(3);
            for name in ["real1", "real2", "local"] {
                assert!(servers.iter().any(|server| server == name), "{options:?} {servers:?}");
            }
            // A health check is none of the service's clients.
            assert_eq!(page(&bed, "director", (nat::ACCP, 80)).unwrap().server, "real1");
            let client = bed.host("director");
            client.run(|| web::download(service(), 20 << 20, PATIENCE)).unwrap().unwrap();
            client.run(|| web::upload(service(), 20 << 20, PATIENCE)).unwrap().unwrap();
        }
    });
}

#[test]
fn data_of_ftp_comes_to_the_directors_own_clients() {
    run("data_of_ftp_comes_to_the_directors_own_clients", || {
        for options in [&[][..], &["--workers", "2"], &["--tun"], &["--tun", "--workers", "2"]] {
            let bed = Bed::with_director_options(options);
            for (name, addr) in [("real1", nat::ACCP), ("real2", nat::BENET)] {
                bed.host(name).run(|| ftp::serve((addr, 21).into(), name)).unwrap().unwrap();
            }
            bed.configure(&[
                "-A -t 12.0.0.1:21 -s rr",
                "-a -t 12.0.0.1:21 -r 192.168.200.110:21 -m",
                "-a -t 12.0.0.1:21 -r 192.168.200.120:21 -m",
            ]);
            let session = || -> io::Result<()> {
                let mut client = ftp::Client::connect((nat::OUTSIDE, 21).into(), PATIENCE)?;
                for data in [ftp::Data::Passive, ftp::Data::ExtendedPassive, ftp::Data::Active] {
                    let got = client.download(3 << 20, data)?;
                    assert_eq!(got.sha256, got.server_sha256, "{options:?} {data:?}");
                    let given = client.upload(3 << 20, data)?;
                    assert_eq!(given.sha256, given.server_sha256, "{options:?} {data:?}");
                }
                client.quit()
            };
            for host in ["director", "client", "director"] {
                let done = bed.host(host).run(session).unwrap();
                assert!(done.is_ok(), "{options:?} {host}: {done:?}");
            }
            // So it does from a server that is asked directly.
            let direct = || -> io::Result<String> {
                let mut client = ftp::Client::connect((nat::ACCP, 21).into(), PATIENCE)?;
                client.name(ftp::Data::Passive)
            };
            assert_eq!(bed.host("director").run(direct).unwrap().unwrap(), "real1");
            // The host's programs reach each other at that address as before.
            let _web = serve(&bed, "director", (nat::OUTSIDE, 8080));
            assert_eq!(page(&bed, "director", (nat::OUTSIDE, 8080)).unwrap().server, "local");
            let refused = bed.connect("director", (nat::OUTSIDE, 8081)).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        }
    });
}

#[test]
fn own_clients_find_an_address_that_only_the_director_has() {
    run("own_clients_find_an_address_that_only_the_director_has", || {
        for options in DRIVERS {
            let bed = Bed::with_director_options(options);
            bed.configure(&[
                "-A -t 12.0.0.30:80 -s rr",
                "-a -t 12.0.0.30:80 -r 192.168.200.110:80 -m",
            ]);
            let to: SocketAddr = ([12, 0, 0, 30], 80).into();
            assert_eq!(page(&bed, "client", to).unwrap().server, "real1");
            // The route is there a moment after the address.
            let begun = std::time::Instant::now();
            let served = loop {
                let quick = std::time::Duration::from_secs(2);
                let got = bed.host("director").run(|| web::get(to, "/", quick)).unwrap();
                match got {
                    Ok(answer) => break answer.server,
                    Err(error) if begun.elapsed() > PATIENCE => panic!("{options:?}: {error}"),
                    Err(_) => {}
                }
            };
            assert_eq!(served, "real1");
        }
    });
}

#[test]
fn a_killed_director_leaves_nothing_behind_in_its_host() {
    run("a_killed_director_leaves_nothing_behind_in_its_host", || {
        for options in DRIVERS {
            let mut bed = Bed::with_director_options(options);
            bed.director.kill();
            let before = bed.traces();
            bed.director = Director::start(bed.host("director"), options);
            let _web = serve(&bed, "director", (nat::OUTSIDE, 8080));
            bed.configure(&ROUND_ROBIN);
            bed.configure(&["-a -t 12.0.0.1:80 -r 12.0.0.1:8080 -m", "-A -t 12.0.0.30:80 -s rr"]);
            bed.servers(3);
            page(&bed, "director", service()).unwrap();
            let during = bed.traces();
            assert!(during.contains(&"ulvs-lo0".to_owned()), "{during:?}");
            bed.director.kill();
            assert_eq!(bed.traces(), before);
            // The host is as it was: its program answers, and the service's port is free.
            assert_eq!(page(&bed, "client", (nat::OUTSIDE, 8080)).unwrap().server, "local");
            let _own = serve(&bed, "director", (nat::OUTSIDE, 80));
            assert_eq!(page(&bed, "client", service()).unwrap().server, "local");
        }
    });
}

#[test]
fn other_programs_of_the_host_are_left_alone() {
    run("other_programs_of_the_host_are_left_alone", || {
        for options in DRIVERS {
            let bed = Bed::with_director_options(options);
            let _web = serve(&bed, "director", (nat::OUTSIDE, 8080));
            bed.configure(&ROUND_ROBIN);
            bed.ipvsadm("-a -t 12.0.0.1:80 -r 12.0.0.1:8080 -m");
            for (host, to) in [
                ("client", (nat::OUTSIDE, 22)),
                ("director", (nat::OUTSIDE, 22)),
                ("director", (Ipv4Addr::LOCALHOST, 22)),
            ] {
                let listener = bed.host("director").run(|| TcpListener::bind(to)).unwrap().unwrap();
                let mut near: TcpStream = bed.connect(host, to).unwrap();
                let (mut far, _) = listener.accept().unwrap();
                far.write_all(b"SSH-2.0-test\r\n").unwrap();
                let mut heard = [0; 14];
                near.read_exact(&mut heard).unwrap();
            }
            let refused = bed.connect("director", (nat::OUTSIDE, 81)).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        }
    });
}

#[test]
fn over_ipv6_servers_and_clients_on_the_director_are_served() {
    run("over_ipv6_servers_and_clients_on_the_director_are_served", || {
        for options in DRIVERS {
            let servers = [ipv6::ACCP.into(), ipv6::BENET.into()];
            let vip: SocketAddr = (ipv6::OUTSIDE, 80).into();
            let bed = Bed::over(&ipv6::topology(), servers, vip, options);
            let forwarding = "net.ipv6.conf.all.forwarding";
            bed.host("director").set_sysctl(forwarding, "1").unwrap();
            let _web = serve(&bed, "director", (ipv6::OUTSIDE, 8080));
            let (at, own, far) = (format!("[{}]:80", ipv6::OUTSIDE), ipv6::OUTSIDE, ipv6::ACCP);
            bed.configure(&[
                &format!("-A -t {at} -s rr"),
                &format!("-a -t {at} -r [{far}]:80 -m"),
                &format!("-a -t {at} -r [{own}]:8080 -m"),
            ]);
            assert_eq!(bed.servers(4), ["local", "real1", "local", "real1"], "{options:?}");
            for host in ["client", "director"] {
                let served = |_| page(&bed, host, vip).unwrap().server;
                let servers: Vec<_> = (0..2).map(served).collect();
                assert!(servers.contains(&"local".to_owned()), "{options:?} {servers:?}");
                assert!(servers.contains(&"real1".to_owned()), "{options:?} {servers:?}");
            }
            bed.transfer(20 << 20);
        }
    });
}

#[test]
fn without_the_privilege_such_servers_are_refused_and_others_served() {
    run("without_the_privilege_such_servers_are_refused_and_others_served", || {
        if Command::new("setpriv").arg("--version").output().is_err() {
            return println!("skipped: setpriv is not installed");
        }
        let mut bed = Bed::new();
        bed.director.kill();
        let granted = "-all,+net_raw,+net_bind_service";
        let mut command = bed.host("director").command("setpriv");
        command.args(["--bounding-set", granted, "--inh-caps", granted]);
        command.arg(env!("CARGO_BIN_EXE_ulvs"));
        bed.director = Director::start_by(command, &[]);
        bed.configure(&ROUND_ROBIN);
        for server in ["12.0.0.1:8080 -m", "12.0.0.1:80 -g", "192.168.200.1 -i"] {
            let line = format!("ipvsadm -a -t 12.0.0.1:80 -r {server}");
            let output = bed.director.run(bed.host("director"), &line);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success(), "{server}");
            assert!(said.contains("is this host itself"), "{said}");
            assert!(said.contains("CAP_NET_ADMIN"), "{said}");
        }
        // Nor can a program be kept from the packets of a service at its own port.
        let at = (nat::OUTSIDE, 81);
        let _listener = bed.host("director").run(|| TcpListener::bind(at)).unwrap().unwrap();
        let output = bed.director.run(bed.host("director"), "ipvsadm -A -t 12.0.0.1:81 -s rr");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("stop it"), "{said}");
        let listing = bed.ipvsadm("-Ln");
        assert_eq!(listing.matches("->").count(), 3, "{listing}");
        assert_eq!(bed.servers(2), ["real2", "real1"]);
    });
}

#[test]
fn a_marked_service_has_servers_on_the_director() {
    run("a_marked_service_has_servers_on_the_director", || {
        for options in DRIVERS {
            let bed = Bed::with_director_options(options);
            bed.ulvs("mark -A PREROUTING -p tcp -d 12.0.0.1 --dport 80 -j MARK --set-mark 7");
            for server in ["192.168.200.1 -m", "127.0.0.1 -g"] {
                bed.configure(&["-C", "-A -f 7 -s rr"]);
                bed.configure(&["-a -f 7 -r 192.168.200.110 -m"]);
                bed.ipvsadm(&format!("-a -f 7 -r {server}"));
                let at = if server.ends_with("-m") { nat::INSIDE } else { nat::OUTSIDE };
                let _web = serve(&bed, "director", (at, 80));
                let servers = bed.servers(4);
                assert_eq!(servers[..2], servers[2..], "{server}: {servers:?}");
                assert!(servers.contains(&"local".to_owned()), "{server}: {servers:?}");
                assert!(servers.contains(&"real1".to_owned()), "{server}: {servers:?}");
            }
        }
    });
}

#[test]
fn a_listener_that_was_there_before_keeps_its_port() {
    run("a_listener_that_was_there_before_keeps_its_port", || {
        let bed = Bed::new();
        let _web = serve(&bed, "director", (Ipv4Addr::UNSPECIFIED, 80));
        bed.configure(&["-A -t 12.0.0.1:80 -s rr", "-a -t 12.0.0.1:80 -r 192.168.200.110:80 -m"]);
        // It hears nothing while it is none of the servers, as with IPVS.
        assert_eq!(bed.servers(2), ["real1", "real1"]);
        bed.configure(&["-a -t 12.0.0.1:80 -r 12.0.0.1:80 -g"]);
        let servers = bed.servers(4);
        assert_eq!(servers[..2], servers[2..], "{servers:?}");
        assert!(servers.contains(&"local".to_owned()), "{servers:?}");
        // Elsewhere it serves itself.
        assert_eq!(page(&bed, "real1", (nat::INSIDE, 80)).unwrap().server, "local");
    });
}

#[test]
fn outsiders_do_not_pass_for_the_directors_own_clients() {
    run("outsiders_do_not_pass_for_the_directors_own_clients", || {
        for options in DRIVERS {
            let bed = Bed::with_director_options(options);
            // Where kernels do not look at sources by themselves.
            let filter = "net.ipv4.conf.out.rp_filter";
            bed.host("director").set_sysctl(filter, "0").unwrap();
            let at: SocketAddr = (Ipv4Addr::LOCALHOST, 5353).into();
            let server = bed.host("director").run(|| UdpSocket::bind(at)).unwrap().unwrap();
            server.set_read_timeout(Some(PATIENCE)).unwrap();
            bed.configure(&["-A -u 12.0.0.1:53 -s rr", "-a -u 12.0.0.1:53 -r 127.0.0.1:5353 -m"]);
            let (from, to) =
                (bed.host("client").mac("eth0").unwrap(), bed.host("director").mac("out").unwrap());
            let forge = |source: Ipv4Addr| {
                let mut frame = Vec::new();
                let builder = PacketBuilder::ethernet2(from, to)
                    .ipv4(source.octets(), nat::OUTSIDE.octets(), 64)
                    .udp(1000, 53);
                builder.write(&mut frame, b"forged").unwrap();
                frame
            };
            let frames = [Ipv4Addr::LOCALHOST, nat::OUTSIDE, nat::INSIDE, nat::CLIENT].map(forge);
            bed.host("client").run(|| inject(&frames)).unwrap();
            // An honest client of the host is heard after them, and first.
            let client = bed.host("director").run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
            client.unwrap().send_to(b"honest", (nat::OUTSIDE, 53)).unwrap();
            let mut datagram = [0; 64];
            let len = server.recv(&mut datagram).unwrap();
            assert_eq!(&datagram[..len], b"honest", "{options:?}");
        }
    });
}

/// Sends frames as they are.
fn inject(frames: &[Vec<u8>]) {
    let mut sender = AfPacket::open("eth0", &AfPacketConfig::default()).unwrap().sender;
    for frame in frames {
        let headroom = 64;
        let mut storage = [&vec![0; headroom], &frame[..]].concat();
        let end = storage.len();
        sender.send(&mut [&mut PacketBuf::new(&mut storage, headroom, end)]);
    }
    assert_eq!(sender.counters().frames, frames.len() as u64);
}
