//! The examples do what they say.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use etherparse::{IpNumber, PacketBuilder, PacketBuilderStep, SlicedPacket, TransportSlice};
use ulvs::driver::Sender;
use ulvs::driver::pcap::{LinkType, PcapReceiver, PcapSender};
use ulvs::packet::PacketBuf;

#[allow(dead_code, reason = "its main is for the command line")]
#[path = "../examples/replay.rs"]
mod replay;

#[path = "../examples/embed.rs"]
mod embed;

const CLIENT: [u8; 4] = [12, 0, 0, 12];
const VIP: [u8; 4] = [12, 0, 0, 1];
const RULES: &str = "\
-A -t 12.0.0.1:80 -s rr
-a -t 12.0.0.1:80 -r 192.168.200.110:8080 -m
-a -t 12.0.0.1:80 -r 192.168.200.120:8080 -m
-A -u 12.0.0.1:53 -s rr
";

/// Files of one test, gone when it ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = format!("replay-{name}-{}", std::process::id());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(folder);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("rules"), RULES).unwrap();
        Self(path)
    }

    /// Writes a capture whose packets come at these milliseconds.
    fn capture(&self, link: LinkType, frames: &[(u64, Vec<u8>)]) {
        let mut sender = PcapSender::new(Vec::new(), link).unwrap();
        for (ms, frame) in frames {
            sender.set_time(Duration::from_secs(1_700_000_000) + Duration::from_millis(*ms));
            let mut bytes = frame.clone();
            let end = bytes.len();
            sender.send(&mut [&mut PacketBuf::new(&mut bytes, 0, end)]);
        }
        fs::write(self.0.join("in.pcap"), sender.finish().unwrap()).unwrap();
    }

    /// Runs the example: what it printed, or why it failed.
    fn replay(&self, input: &str, output: &str) -> Result<String, String> {
        let path = |name: &str| self.0.join(name).display().to_string();
        let (rules, input, output) = (path("rules"), path(input), path(output));
        let words = ["replay", "--rules", &rules, "--address", "12.0.0.9", &input, &output];
        let arguments = replay::Arguments::try_parse_from(words).unwrap();
        let mut lines = Vec::new();
        replay::replay(&arguments, &mut lines).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(lines).unwrap())
    }

    fn output(&self) -> Vec<(Duration, Vec<u8>)> {
        let file = fs::read(self.0.join("out.pcap")).unwrap();
        let mut receiver = PcapReceiver::new(&file[..]).unwrap();
        assert_eq!(receiver.link_type(), LinkType::RawIp);
        let look = |time, packet: &mut PacketBuf<'_>| (time, packet.bytes().to_vec());
        std::iter::from_fn(|| receiver.receive_one(look).unwrap()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn frame() -> PacketBuilderStep<etherparse::Ethernet2Header> {
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
}

fn request(flags: u8) -> Vec<u8> {
    let ip = frame().ipv4(CLIENT, VIP, 64);
    let tcp = ip.tcp(40_000, 80, 1000, 1024);
    let tcp = if flags == b'S' { tcp.syn() } else { tcp.ack(1) };
    written(|bytes| tcp.write(bytes, b"").unwrap())
}

fn reply() -> Vec<u8> {
    let tcp = frame().ipv4([192, 168, 200, 120], CLIENT, 64).tcp(8080, 40_000, 5000, 1024);
    written(|bytes| tcp.syn().ack(1001).write(bytes, b"").unwrap())
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes);
    bytes
}

/// Addresses and ports of a TCP segment whose checksum is right.
fn ends(packet: &[u8]) -> ([u8; 4], u16, [u8; 4], u16) {
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("this is not TCP") };
    let (from, to) = (packet[12..16].try_into().unwrap(), packet[16..20].try_into().unwrap());
    assert_eq!(tcp.checksum(), tcp.calc_checksum_ipv4(from, to).unwrap());
    (from, tcp.source_port(), to, tcp.destination_port())
}

#[test]
fn a_capture_is_replayed_with_a_verdict_for_each_packet() {
    let folder = Folder::new("verdicts");
    let dns = frame().ipv4(CLIENT, VIP, 64).udp(5353, 53);
    let ping = frame().ipv4(CLIENT, [12, 0, 0, 9], 64).icmpv4_echo_request(7, 1);
    let tagged = frame().single_vlan(7.try_into().unwrap()).ipv4(CLIENT, [12, 0, 0, 2], 64);
    let mut broken = request(b'A');
    broken[24] ^= 1;
    folder.capture(
        LinkType::Ethernet,
        &[
            (0, request(b'S')),
            (1, reply()),
            (2, request(b'A')),
            (3, written(|bytes| dns.write(bytes, b"who?").unwrap())),
            (4, written(|bytes| ping.write(bytes, b"").unwrap())),
            (5, written(|bytes| tagged.write(bytes, IpNumber(89), &[0; 4]).unwrap())),
            (6, broken),
            (7, [&[0xff; 6][..], &[2; 6], &[8, 6], &[0; 46]].concat()),
            // An established connection lives for 15 minutes.
            (900_001, request(b'A')),
            (1_800_100, request(b'A')),
        ],
    );
    let lines = folder.replay("in.pcap", "out.pcap").unwrap();
    let expected = "
     1     0.000000  12.0.0.12:40000 > 12.0.0.1:80 tcp S                   forward to 192.168.200.120: 12.0.0.12:40000 > 192.168.200.120:8080 tcp S
     2     0.001000  192.168.200.120:8080 > 12.0.0.12:40000 tcp SA         forward to 12.0.0.12: 12.0.0.1:80 > 12.0.0.12:40000 tcp SA
     3     0.002000  12.0.0.12:40000 > 12.0.0.1:80 tcp A                   forward to 192.168.200.120: 12.0.0.12:40000 > 192.168.200.120:8080 tcp A
     4     0.003000  12.0.0.12:5353 > 12.0.0.1:53 udp                      reply 12.0.0.1 > 12.0.0.12 icmp 3/3
     5     0.004000  12.0.0.12 > 12.0.0.9 icmp 8/0                         reply 12.0.0.9 > 12.0.0.12 icmp 0/0
     6     0.005000  12.0.0.12 > 12.0.0.2 p89                              pass
     7     0.006000  12.0.0.12:40000 > 12.0.0.1:80 tcp A                   drop: bad-checksum
     8     0.007000  ARP                                                   pass
     9   900.001000  12.0.0.12:40000 > 12.0.0.1:80 tcp A                   forward to 192.168.200.120: 12.0.0.12:40000 > 192.168.200.120:8080 tcp A
    10  1800.100000  12.0.0.12:40000 > 12.0.0.1:80 tcp A                   pass
10 packets: 4 forwarded, 2 answered, 3 passed, 1 dropped (bad-checksum)
";
    assert_eq!(lines, expected.trim_start_matches('\n'));
    let output = folder.output();
    let server = [192, 168, 200, 120];
    assert_eq!(output.len(), 6);
    assert_eq!(ends(&output[0].1), (CLIENT, 40_000, server, 8080));
    assert_eq!(ends(&output[1].1), (VIP, 80, CLIENT, 40_000));
    assert_eq!(output[1].0, Duration::from_millis(1_700_000_000_001));
    assert_eq!((output[3].1[9], output[3].1[20]), (1, 3), "an ICMP error");
}

#[test]
fn a_capture_of_bare_ip_packets_is_understood() {
    let folder = Folder::new("raw");
    folder.capture(LinkType::RawIp, &[(0, request(b'S')[14..].to_vec()), (1, vec![0x45])]);
    let lines = folder.replay("in.pcap", "out.pcap").unwrap();
    assert!(lines.contains("forward to 192.168.200.120"), "{lines}");
    assert!(lines.contains("drop: truncated"), "{lines}");
    assert_eq!(folder.output().len(), 1);
}

#[test]
fn errors_name_the_file_and_destroy_nothing() {
    let folder = Folder::new("errors");
    let path = |name: &str| folder.0.join(name).display().to_string();
    let fails = |input: &str, output: &str, why: &str| {
        let error = folder.replay(input, output).unwrap_err();
        assert!(error.starts_with(why), "{error} is not {why}");
    };
    fails("in.pcap", "out.pcap", &format!("{}: No such file", path("in.pcap")));
    fails("rules", "out.pcap", &format!("{}: capture file", path("rules")));
    assert!(!folder.0.join("out.pcap").exists());
    folder.capture(LinkType::Ethernet, &[(0, request(b'S'))]);
    let before = fs::read(path("in.pcap")).unwrap();
    fails("in.pcap", "in.pcap", &format!("{}: this is the input as well", path("in.pcap")));
    assert_eq!(fs::read(path("in.pcap")).unwrap(), before);
    fails("in.pcap", "no/out.pcap", &format!("{}: No such file", path("no/out.pcap")));
    fs::write(path("rules"), "-A -t 12.0.0.1:80\n-a -t 12.0.0.2:80 -r 192.0.2.1 -m\n").unwrap();
    fails("in.pcap", "out.pcap", &format!("{}:2: ", path("rules")));
    fails("in.pcap", "out.pcap", &format!("{}:2: ", path("rules")));
}

#[test]
fn embed_runs() {
    embed::main().unwrap();
}
