//! Good packets and messages, which hostile ones are made of.

use std::sync::OnceLock;

use super::build::*;
use super::director::{
    CLIENT, CLIENT6, INSIDE, LOCAL, OUTSIDE, OUTSIDE6, REAL, REAL6, TUNNELLED, VIP, VIP6,
};
use super::script::unhex;
use super::wire::{CLIENT_MAC, IN_MAC, OUT_MAC, REAL_MAC};

fn at(addr: &str, port: u16) -> String {
    if addr.contains(':') { format!("[{addr}]:{port}") } else { format!("{addr}:{port}") }
}

/// From the client's port 1000 to a port of the virtual address of its family.
fn request(v6: bool, port: u16) -> Ends {
    let (client, vip) = if v6 { (CLIENT6, VIP6) } else { (CLIENT, VIP) };
    ends(&at(client, 1000), &at(vip, port))
}

/// From a port of the real server to the client's port 1000.
fn answer(v6: bool, port: u16) -> Ends {
    let (client, real) = if v6 { (CLIENT6, REAL6) } else { (CLIENT, REAL) };
    ends(&at(real, port), &at(client, 1000))
}

fn syn(ends: Ends) -> Vec<u8> {
    let options = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
    tcp(ends, Segment { sequence: 99, flags: SYN, options: &options, ..Segment::default() })
}

fn says(ends: Ends, payload: &[u8]) -> Vec<u8> {
    let options = [1, 1, 5, 10, 0, 0, 0, 100, 0, 0, 0, 120];
    let segment =
        Segment { sequence: 100, acknowledged: 200, flags: ACK, options: &options, payload };
    tcp(ends, segment)
}

/// An error about a packet, from a router to whoever sent it or to `to`.
fn error(v6: bool, to: &str, kind: u8, code: u8, mtu: u16, quoted: &[u8]) -> Vec<u8> {
    let router = if v6 { "2001:db8:9::9" } else { "192.0.2.99" };
    let [high, low] = mtu.to_be_bytes();
    icmp(ends(&at(router, 0), &at(to, 0)), kind, code, [0, 0, high, low], quoted)
}

/// What a tunnel carries, behind the outer IP header, with its protocol.
fn wrapped(inner: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let gre = [&[0, 0, 8, 0][..], inner].concat();
    let mut summed = [&[0x80, 0, 8, 0, 0, 0, 0, 0][..], inner].concat();
    let sum = checksum(&[&summed]);
    summed[4..6].copy_from_slice(&sum.to_be_bytes());
    let keyed = [&[0xb0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2][..], inner].concat();
    let gue = |header: &[u8]| [header, inner].concat();
    vec![
        (4, inner.to_vec()),
        (47, gre),
        (47, summed),
        (47, keyed),
        (17, gue(&[0, 4, 0, 0])),
        (17, gue(&[2, 4, 1, 0, 0, 0, 0, 0x20, 0, 20, 0, 36])),
        (17, gue(&[])),
    ]
}

/// A GUE datagram with its UDP header.
fn in_udp(gue: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x9c, 0x40, 0x17, 0xc0, 0, 0, 0, 0];
    let len = (8 + gue.len()) as u16;
    bytes[4..6].copy_from_slice(&len.to_be_bytes());
    bytes.extend(gue);
    bytes
}

/// IP packets for [`director`](super::director).
pub fn packets() -> &'static [Vec<u8>] {
    static PACKETS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    PACKETS.get_or_init(|| {
        let mut all = Vec::new();
        for v6 in [false, true] {
            add_segments(&mut all, v6);
            add_datagrams(&mut all, v6);
            add_errors(&mut all, v6);
        }
        add_associations(&mut all);
        add_tunnel_errors(&mut all);
        add_oddities(&mut all);
        add_messages(&mut all);
        all
    })
}

fn add_segments(all: &mut Vec<Vec<u8>>, v6: bool) {
    for port in [80, 21, 81, 82, 83, 84, 85, 86, 87, 89] {
        all.push(syn(request(v6, port)));
        all.push(says(request(v6, port), b"GET / HTTP/1.1\r\n\r\n"));
    }
    for port in [80, 21] {
        let segment = Segment {
            sequence: 199,
            acknowledged: 100,
            flags: SYN | ACK,
            options: &[2, 4, 5, 180],
            ..Segment::default()
        };
        all.push(tcp(answer(v6, port), segment));
        all.push(says(answer(v6, port), b"HTTP/1.1 200 OK\r\n\r\nhello"));
    }
    for flags in [RST, FIN | ACK] {
        all.push(tcp(request(v6, 80), Segment { sequence: 120, flags, ..Segment::default() }));
    }
    let control = request(v6, 21);
    let (host, family) = if v6 { (CLIENT6, 2) } else { (CLIENT, 1) };
    for text in ["PORT 12,0,0,12,8,1\r\n", "PASV\r\n", "EPSV\r\n", "EPSV ALL\r\n"] {
        all.push(says(control, text.as_bytes()));
    }
    all.push(says(control, format!("EPRT |{family}|{host}|2049|\r\n").as_bytes()));
    let server = answer(v6, 21);
    all.push(says(server, b"227 Entering Passive Mode (192,168,200,110,4,1).\r\n"));
    all.push(says(server, b"229 Entering Extended Passive Mode (|||1025|)\r\n"));
    // From a local endpoint's view: answers to connections by full NAT.
    let (real, local) = if v6 { (REAL6, "2001:db8:2::9") } else { (REAL, LOCAL) };
    for port in 40_000..40_004 {
        let ends = ends(&at(real, 8080), &at(local, port));
        let segment = Segment {
            sequence: 199,
            acknowledged: 128,
            flags: SYN | ACK,
            options: &[1, 1, 4, 2],
            ..Segment::default()
        };
        all.push(tcp(ends, segment));
        all.push(says(ends, b"hello"));
    }
}

fn add_datagrams(all: &mut Vec<Vec<u8>>, v6: bool) {
    for port in [53, 54, 82, 88, 500] {
        all.push(udp(request(v6, port), b"question"));
    }
    all.push(udp(answer(v6, 53), b"answer"));
    let call = b"INVITE sip:a@b SIP/2.0\r\nVia: x\r\nCall-ID: 7@here\r\nCSeq: 1 INVITE\r\n\r\n";
    all.push(udp(request(v6, 5060), call));
    let (client, vip) = if v6 { (CLIENT6, VIP6) } else { (CLIENT, VIP) };
    let (ping, pong) = if v6 { (128, 129) } else { (8, 0) };
    let (there, ports) = (ends(&at(client, 0), &at(vip, 0)), [0, 7, 0, 1]);
    all.push(icmp(there, ping, 0, ports, b"ping"));
    all.push(icmp(there.turned(), pong, 0, ports, b"ping"));
    let outward =
        if v6 { ends(&at(REAL6, 0), &at(CLIENT6, 0)) } else { ends(&at(REAL, 0), &at(CLIENT, 0)) };
    all.push(icmp(outward, ping, 0, ports, b"ping"));
    for protocol in [50, 51] {
        let mut header = vec![17, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];
        header.extend([0xa5; 20]);
        all.push(ip(request(v6, 0), protocol, &header));
    }
    let long: Vec<u8> = (0..100).collect();
    let long = udp(request(v6, 53), &long);
    match v6 {
        false => all.extend(fragments(&long, &[40, 40])),
        true => all.extend(fragments_v6(&long, 7, &[40, 40])),
    }
}

fn add_errors(all: &mut Vec<Vec<u8>>, v6: bool) {
    let (client, vip) = if v6 { (CLIENT6, VIP6) } else { (CLIENT, VIP) };
    let (unreachable, exceeded) = if v6 { (1, 3) } else { (3, 11) };
    let (too_big, code) = if v6 { (2, 0) } else { (3, 4) };
    let (real, port) = if v6 { (REAL6, 8080) } else { (REAL, 8080) };
    let to_server = says(ends(&at(client, 1000), &at(real, port)), b"GET / HTTP/1.1\r\n\r\n");
    let to_client = says(ends(&at(vip, 80), &at(client, 1000)), b"HTTP/1.1 200 OK\r\n\r\nhello");
    all.push(error(v6, client, unreachable, 1, 0, &to_server));
    all.push(error(v6, vip, exceeded, 0, 0, &to_client));
    all.push(error(v6, vip, too_big, code, 1200, &to_client));
    let ping =
        icmp(ends(&at(vip, 0), &at(client, 0)), if v6 { 128 } else { 8 }, 0, [0, 7, 0, 1], b"ping");
    all.push(error(v6, vip, unreachable, 1, 0, &ping));
    let nested = error(v6, client, unreachable, 1, 0, &to_server);
    all.push(error(v6, vip, unreachable, 1, 0, &nested));
}

fn add_associations(all: &mut Vec<Vec<u8>>) {
    let init = [1, 0, 0, 20, 0, 0, 0, 9, 0, 0, 0x10, 0, 0, 1, 0, 1, 0, 0, 0, 5];
    let mut init_ack = init;
    init_ack[0] = 2;
    let data = [0, 3, 0, 20, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
    let (client, server) = (request(false, 3868), answer(false, 3868));
    all.push(sctp(client, &init));
    all.push(sctp(server, &init_ack));
    for kind in [6u8, 7, 8, 10, 11, 14] {
        all.push(sctp(client, &[kind, 0, 0, 4]));
        all.push(sctp(server, &[kind, 0, 0, 4, 3, 0, 0, 4]));
    }
    all.push(sctp(client, &data));
}

/// Errors about what went through a tunnel.
fn add_tunnel_errors(all: &mut Vec<Vec<u8>>) {
    let inner = says(request(false, 82), b"GET / HTTP/1.1\r\n\r\n");
    for (protocol, payload) in wrapped(&inner) {
        let payload = if protocol == UDP { in_udp(&payload) } else { payload };
        for real in TUNNELLED {
            let outer = ip(ends(&at(INSIDE, 0), &at(real, 0)), protocol, &payload);
            all.push(error(false, INSIDE, 3, 4, 1000, &outer));
            all.push(error(false, INSIDE, 3, 1, 0, &outer));
        }
    }
}

fn add_oddities(all: &mut Vec<Vec<u8>>) {
    // A call that a server begins, and what FTP announced.
    all.push(syn(ends(&at(REAL, 2000), &at(OUTSIDE, 80))));
    all.push(syn(ends(&at(REAL6, 2000), &at(OUTSIDE6, 80))));
    all.push(syn(ends(&at(REAL, 20), &at(CLIENT, 2049))));
    all.push(syn(ends(&at(CLIENT, 3000), &at(VIP, 1025))));
    all.push(says(ends(&at(OUTSIDE, 80), &at(VIP, 61_000)), b"answer"));
    // Services by mark, and for all ports.
    all.push(udp(ends(&at(CLIENT, 1000), &at("12.0.0.4", 99)), b"marked"));
    all.push(syn(ends(&at(CLIENT, 1000), &at("12.0.0.3", 4321))));
    // IPv4 options, and IPv6 with a header of options and one of fragments.
    let mut options = syn(request(false, 80));
    options.splice(20..20, [0x94, 4, 0, 0, 7, 7, 4, 1, 2, 3, 4, 1]);
    options[0] = 0x48;
    let len = (options.len() as u16).to_be_bytes();
    options[2..4].copy_from_slice(&len);
    all.push(mended(options));
    let mut extended = syn(request(true, 80));
    extended.splice(40..40, [44, 0, 1, 4, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 9]);
    extended[6] = 60;
    let len = (extended.len() as u16 - 40).to_be_bytes();
    extended[4..6].copy_from_slice(&len);
    all.push(mended(extended));
    // Longer than any link takes.
    all.push(says(request(false, 80), &[b'x'; 3000]));
    all.push(says(request(true, 82), &[b'x'; 3000]));
    all.push(udp(answer(false, 53), &[b'x'; 2000]));
}

/// Messages of another director: a connection and a template of each kind, in both versions.
fn add_messages(all: &mut Vec<Vec<u8>>) {
    let v4 = |addr: &str| addr.parse::<std::net::Ipv4Addr>().unwrap().octets().to_vec();
    let v6 = |addr: &str| addr.parse::<std::net::Ipv6Addr>().unwrap().octets().to_vec();
    let ports = [3, 232, 0, 80, 31, 144];
    for (v6_kind, protocol, flags, state) in
        [(0, 6, 0u32, 1u16), (0, 17, 0x20, 0), (0, 6, 0x1000, 0), (1, 6, 0x600, 1), (1, 6, 2, 1)]
    {
        let ends = match v6_kind {
            0 => [v4(CLIENT), v4(VIP), v4(REAL)].concat(),
            _ => [v6(CLIENT6), v6(VIP6), v6(REAL6)].concat(),
        };
        let mut options = Vec::new();
        if flags & 0x600 != 0 {
            options.extend([1, 24]);
            options.extend([0, 0, 0, 1].repeat(6));
        }
        if flags & 0x1000 != 0 {
            options.extend(b"\x02\x06call-1\x03\x03sip");
        }
        let mut entry = vec![v6_kind, protocol, 0, (24 + ends.len() + options.len()) as u8];
        entry.extend(flags.to_be_bytes());
        entry.extend(state.to_be_bytes());
        entry.extend(ports);
        entry.extend([0, 0, 0, 10, 0, 0, 0, 60]);
        entry.extend(ends);
        entry.extend(options);
        let mut message = vec![0, 5, 0, (8 + entry.len()) as u8, 1, 1, 0, 0];
        message.extend(entry);
        all.push(message);
    }
    let mut old = vec![1, 5, 0, 28, 0, 6];
    old.extend(ports);
    old.extend([v4(CLIENT), v4(VIP), v4(REAL)].concat());
    old.extend([0, 0, 0, 1]);
    all.push(old);
}

/// Frames for [`wire`](super::wire).
pub fn frames() -> &'static [Vec<u8>] {
    static FRAMES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    FRAMES.get_or_init(|| {
        let header =
            |to: [u8; 6], from: [u8; 6], kind: u16| [&to[..], &from, &kind.to_be_bytes()].concat();
        let mut all: Vec<Vec<u8>> = Vec::new();
        let of_ip = packets().iter().filter(|packet| matches!(packet[0] >> 4, 4 | 6));
        for (number, packet) in of_ip.enumerate() {
            let kind = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
            let (to, from) =
                if number % 2 == 0 { (OUT_MAC, CLIENT_MAC) } else { (IN_MAC, REAL_MAC) };
            all.push([header(to, from, kind), packet.clone()].concat());
        }
        let ip = syn(request(false, 80));
        let tagged = [header(OUT_MAC, CLIENT_MAC, 0x8100), vec![0, 7, 8, 0], ip.clone()].concat();
        let twice =
            [header(OUT_MAC, CLIENT_MAC, 0x88a8), vec![0, 7, 0x81, 0, 0, 8, 8, 0], ip].concat();
        all.extend([tagged, twice]);
        for (operation, target) in
            [(1, VIP), (1, INSIDE), (2, REAL), (2, VIP), (1, "192.168.200.254")]
        {
            let mut arp = vec![0, 1, 8, 0, 6, 4, 0, operation];
            arp.extend(REAL_MAC);
            arp.extend(REAL.parse::<std::net::Ipv4Addr>().unwrap().octets());
            arp.extend([0; 6]);
            arp.extend(target.parse::<std::net::Ipv4Addr>().unwrap().octets());
            all.push([header([0xff; 6], REAL_MAC, 0x0806), arp].concat());
        }
        for (kind, option) in [(135, 1), (136, 2), (133, 1), (134, 1), (137, 2)] {
            let mut payload = VIP6.parse::<std::net::Ipv6Addr>().unwrap().octets().to_vec();
            payload.extend([option, 1]);
            payload.extend(REAL_MAC);
            let ends = ends(&at(REAL6, 0), &at(VIP6, 0));
            let mut packet = icmp(ends, kind, 0, [0x60, 0, 0, 0], &payload);
            packet[7] = 255;
            all.push([header(IN_MAC, REAL_MAC, 0x86dd), packet].concat());
        }
        for kind in [130, 131, 132, 143] {
            let ends = ends("[fe80::1]:0", "[ff02::1]:0");
            let mut packet = icmp(ends, kind, 0, [0; 4], &[0; 20]);
            packet[7] = 1;
            packet.splice(40..40, [58, 0, 5, 2, 0, 0, 1, 0]);
            packet[6] = 0;
            let len = (packet.len() as u16 - 40).to_be_bytes();
            packet[4..6].copy_from_slice(&len);
            all.push([header([0x33, 0x33, 0, 0, 0, 1], REAL_MAC, 0x86dd), mended(packet)].concat());
        }
        all
    })
}

/// Requests for [`control`](super::control): those that were recorded of ipvsadm.
pub fn requests() -> &'static [Vec<u8>] {
    static REQUESTS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    REQUESTS.get_or_init(|| {
        let text = include_str!("../../golden/netlink/ipvsadm.txt");
        let requests = text.lines().filter_map(|line| line.strip_prefix("> "));
        requests.map(|hex| unhex(hex).expect("recorded requests are hexadecimal")).collect()
    })
}

/// Texts for [`words`](super::words); the first byte says whose.
pub fn texts() -> &'static [Vec<u8>] {
    static TEXTS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    TEXTS.get_or_init(|| {
        [
            "-A -t 12.0.0.1:80 -s wrr -p 300 -M 255.255.255.0\n-a -t 12.0.0.1:80 -r 192.168.200.110:80 -m -w 3 -x 9 -y 2\n",
            "ipvsadm -A -f 10 -s sh -b sh-fallback,sh-port\nipvsadm -a -f 10 -r 192.0.2.1 -i --tun-type gue --tun-port 6080 --tun-remcsum\n",
            "-A -u [2001:db8::1]:53 -o -s mh -b mh-port # comment\n--set 900 120 300 \\\n\n-Ln --stats\n-Z\n-C\n",
            "-t mangle -A PREROUTING -p tcp -s 10.0.0.0/8 -d 192.168.122.2 -m multiport --dports 80,443,1000:2000 -i eth+ -j MARK --set-xmark 0xa/0xff",
            "-A PREROUTING ! -s 10.0.0.1 -p tcp ! --dport 22 --tcp-flags SYN,ACK SYN -m mark ! --mark 1/3 -m comment --comment x -j MARK --or-mark 4",
            "-t nat -I POSTROUTING 1 -o eth0 -s 192.168.200.0/24 ! -d 10.0.0.0/8 -j SNAT --to-source 12.0.0.1:61000-65095",
            "-w net.ipv4.vs.drop_entry=3 net.ipv4.vs.sync_threshold='3 50'",
            "$ ipvsadm -A -t 12.0.0.1:80 -s rr\n$ ipvsadm -a -t 12.0.0.1:80 -r 192.168.200.110:80 -m\nhandshake tcp 12.0.0.2:1000 12.0.0.1:80\nsend out 12.0.0.2:1000 > 12.0.0.1:80 tcp PA seq=2 len=100\nsleep 5\nconns\n",
            "ipvsadm -A -u 12.0.0.1:53 -s rr\nsend out 12.0.0.2:1000 > 12.0.0.1:53 udp len=3000 frag=576\nreply rs110\nicmp rs110 3/3\nstats\n",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    })
}

/// What tunnels carry, for [`tunnel`](super::tunnel).
pub fn payloads() -> &'static [Vec<u8>] {
    static PAYLOADS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    PAYLOADS.get_or_init(|| {
        let mut all = Vec::new();
        let inner = says(request(false, 80), b"GET / HTTP/1.1\r\n\r\n");
        let nested = wrapped(&inner).into_iter().map(|(protocol, payload)| {
            let payload = if protocol == UDP { in_udp(&payload) } else { payload };
            ip(request(false, 80), protocol, &payload)
        });
        let mut inners: Vec<_> = nested.collect();
        inners.extend([
            inner,
            says(request(true, 80), b"GET"),
            udp(request(true, 53), b"question"),
        ]);
        for inner in inners {
            let is_v6 = inner[0] >> 4 == 6;
            all.extend(wrapped(&inner).into_iter().map(|(protocol, mut payload)| {
                match (is_v6, protocol) {
                    (true, 47) => payload[2..4].copy_from_slice(&[0x86, 0xdd]),
                    (true, 17) if payload[0] >> 4 == 0 => payload[1] = 41,
                    _ => {}
                }
                payload
            }));
        }
        all
    })
}
