//! Full NAT that tells servers who their clients are, and ports that are used again.

use super::*;
use crate::engine::local::Locals;
use crate::engine::service::ClientAddress;
use crate::packet::headers::protocol::TCP;
use crate::packet::options::{self, kind};
use crate::packet::{SegmentKind, Segmentation};
use etherparse::TcpOptionElement as Tcp;

const INSIDE: &str = "192.168.200.1";
/// The first numbers of the client's and of the server's stream, with the SYN before them.
const CLIENT_ISN: u32 = u32::MAX - 20;
const SERVER_ISN: u32 = 7000;
const PROXY_LEN: usize = 28;

/// A connection through one server that is told of its clients.
struct Talk {
    lab: Fixture,
    local: u16,
    mtu: usize,
    segmentation: Segmentation,
}

struct Said<'a> {
    sequence: u32,
    acknowledged: u32,
    flags: u8,
    options: &'a [Tcp],
    payload: &'a [u8],
}

impl Said<'static> {
    fn ack(sequence: u32, acknowledged: u32) -> Self {
        Self { sequence, acknowledged, flags: ACK, options: &[], payload: b"" }
    }
}

/// What arrived: the numbers, the options' bytes and the payload.
#[derive(Debug)]
struct Heard {
    sequence: u32,
    acknowledged: u32,
    options: Vec<u8>,
    payload: Vec<u8>,
}

fn segment(from: (&str, u16), to: (&str, u16), said: &Said<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let ip = PacketBuilder::ipv4(octets(from.0), octets(to.0), 64);
    let tcp = ip.tcp(from.1, to.1, said.sequence, 1024).options(said.options).unwrap();
    tcp.write(&mut bytes, said.payload).unwrap();
    set_word(&mut bytes, 6, 0x4000);
    set_word(&mut bytes, 10, 0);
    let header = Sum::of(&bytes[..20]).checksum();
    set_word(&mut bytes, 10, header);
    bytes[28..32].copy_from_slice(&said.acknowledged.to_be_bytes());
    bytes[33] = said.flags;
    set_word(&mut bytes, 36, 0);
    let pseudo = Sum::pseudo_header(addr(from.0), addr(to.0), TCP, bytes.len() - 20);
    let checksum = pseudo.plus(Sum::of(&bytes[20..])).checksum();
    set_word(&mut bytes, 36, checksum);
    bytes
}

fn heard(bytes: &[u8]) -> Heard {
    assert!(checksum_is_right(bytes));
    let headers = Headers::parse(bytes).unwrap();
    assert_eq!(headers.len, bytes.len());
    let tcp = &bytes[headers.transport..];
    let len = options::header_len(tcp).unwrap();
    let number = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().unwrap());
    let (options, payload) = (tcp[20..len].to_vec(), tcp[len..].to_vec());
    Heard { sequence: number(4), acknowledged: number(8), options, payload }
}

impl Talk {
    fn new(how: ClientAddress) -> Self {
        let mut lab = Fixture::empty();
        for (protocol, port) in [(Protocol::Tcp, 80), (Protocol::Udp, 53)] {
            if protocol == Protocol::Udp && how == ClientAddress::Toa {
                continue;
            }
            let key = key(protocol, port);
            lab.services.add_service(ServiceSpec::new(key), lab.now).unwrap();
            let real = RealSpec {
                method: ForwardingMethod::FullNat,
                client_address: how,
                ..RealSpec::new(addr(ACCP), 8080)
            };
            lab.services.add_real(&key, &real).unwrap();
        }
        lab.director.refresh();
        Self { lab, local: 0, mtu: 1500, segmentation: Segmentation::default() }
    }

    /// Opens the connection up to the server's answer; returns what the server and the client got.
    fn open(&mut self, options: &[Tcp]) -> (Heard, Heard) {
        let (acknowledged, payload) = (0, &b""[..]);
        let syn = Said { sequence: CLIENT_ISN, acknowledged, flags: SYN, options, payload };
        let opening = self.judge(&segment((CLIENT, 1000), (VIP, 80), &syn));
        self.local = Headers::parse(&opening).unwrap().source.port;
        let opening = heard(&opening);
        let acknowledged = opening.sequence.wrapping_add(1);
        let flags = SYN_ACK;
        let answer = Said { sequence: SERVER_ISN, acknowledged, flags, options, payload };
        (opening, self.server_says(&answer))
    }

    fn client_says(&mut self, said: &Said<'_>) -> Heard {
        heard(&self.judge(&segment((CLIENT, 1000), (VIP, 80), said)))
    }

    fn server_says(&mut self, said: &Said<'_>) -> Heard {
        heard(&self.judge(&segment((ACCP, 8080), (INSIDE, self.local), said)))
    }

    /// What a packet becomes that arrives with a driver's headroom.
    fn judge(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.judge_with(bytes, 128)
    }

    fn judge_with(&mut self, bytes: &[u8], headroom: usize) -> Vec<u8> {
        let mut storage = [vec![0xa5; headroom], bytes.to_vec()].concat();
        let end = storage.len();
        let mut packet = PacketBuf::new(&mut storage, headroom, end);
        packet.offload.segmentation = self.segmentation;
        let network = Lab { owner: Owner::Kernel, mtu: self.mtu };
        let verdict = self.lab.director.handle_packet(&mut packet, &network, self.lab.now);
        assert!(matches!(verdict, Verdict::Forward(_)), "{verdict:?}");
        self.segmentation = packet.offload.segmentation;
        packet.bytes().to_vec()
    }

    fn next_client(&self, offset: u32) -> u32 {
        CLIENT_ISN.wrapping_add(1).wrapping_add(offset)
    }
}

const FIRST_BY_SERVER: u32 = SERVER_ISN + 1;

fn payload(sequence: u32, acknowledged: u32, payload: &[u8]) -> Said<'_> {
    Said { sequence, acknowledged, flags: ACK, options: &[], payload }
}

fn is_header(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0c\0\0\x0c\x0c\0\0\x01\x03\xe8\0\x50")
}

#[test]
fn the_option_comes_with_what_follows_the_handshake() {
    let mut talk = Talk::new(ClientAddress::Toa);
    let (opening, answer) = talk.open(&[Tcp::MaximumSegmentSize(1460)]);
    assert_eq!(opening.options, [2, 4, 5, 180]);
    assert_eq!(answer.options, [2, 4, 0x05, 0xac], "the client leaves room for 8 bytes");
    let option = [254, 8, 3, 232, 12, 0, 0, 12];
    let first = talk.client_says(&Said::ack(talk.next_client(0), FIRST_BY_SERVER));
    assert_eq!(first.options, option);
    assert_eq!(first.sequence, talk.next_client(0));
    let request = talk.client_says(&payload(talk.next_client(0), FIRST_BY_SERVER, b"GET /"));
    assert_eq!((&request.options[..], &request.payload[..]), (&option[..], &b"GET /"[..]));
    let heard = talk.server_says(&Said::ack(FIRST_BY_SERVER, talk.next_client(5)));
    assert_eq!(heard.acknowledged, talk.next_client(5));
    let more = talk.client_says(&payload(talk.next_client(5), FIRST_BY_SERVER, b"more"));
    assert!(more.options.is_empty(), "the server has heard it");
    assert_eq!(talk.lab.director.full_nat().untold, 0);
}

#[test]
fn an_option_without_room_is_counted_and_the_packet_passes() {
    let mut talk = Talk::new(ClientAddress::Toa);
    talk.open(&[]);
    let says = |talk: &mut Talk, options: &[Tcp], payload: &[u8]| {
        let (sequence, acknowledged) = (talk.next_client(0), FIRST_BY_SERVER);
        let said = Said { sequence, acknowledged, flags: ACK, options, payload };
        options::find(
            &{
                let bytes = talk.judge(&segment((CLIENT, 1000), (VIP, 80), &said));
                bytes[20..].to_vec()
            },
            kind::ADDRESS,
        )
        .is_some()
    };
    assert!(!says(&mut talk, &[const { Tcp::Noop }; 36], b""), "the header is full");
    assert!(!says(&mut talk, &[], &[7; 1460]), "the packet is");
    assert!(says(&mut talk, &[], &[7; 1452]));
    assert_eq!(talk.lab.director.full_nat().untold, 2);
    talk.segmentation =
        Segmentation { kind: SegmentKind::TcpV4, size_bytes: 1460, ..Default::default() };
    assert!(says(&mut talk, &[], &[7; 9000]), "a super-frame is cut smaller");
    assert_eq!(talk.segmentation.size_bytes, 1452);
}

#[test]
fn the_header_comes_first_and_numbers_go_on_behind_it() {
    let mut talk = Talk::new(ClientAddress::ProxyV2);
    let (opening, answer) = talk.open(&[]);
    assert_eq!((opening.sequence, answer.acknowledged), (CLIENT_ISN, talk.next_client(0)));
    let first = talk.client_says(&Said::ack(talk.next_client(0), FIRST_BY_SERVER));
    assert!(is_header(&first.payload), "{:?}", first.payload);
    assert_eq!((first.sequence, first.payload.len()), (talk.next_client(0), PROXY_LEN));
    let request = talk.client_says(&payload(talk.next_client(0), FIRST_BY_SERVER, b"GET /"));
    assert_eq!((request.sequence, &request.payload[..]), (talk.next_client(28), &b"GET /"[..]));
    // The header was lost: the server acknowledges nothing, the client sends once more.
    let heard = talk.server_says(&Said {
        options: &[Tcp::SelectiveAcknowledgement(
            (talk.next_client(28), talk.next_client(33)),
            [None; 3],
        )],
        ..Said::ack(FIRST_BY_SERVER, talk.next_client(0))
    });
    assert_eq!(heard.acknowledged, talk.next_client(0));
    let blocks = [talk.next_client(0), talk.next_client(5)].map(u32::to_be_bytes).concat();
    assert_eq!(heard.options[2..10], blocks);
    let again = talk.client_says(&payload(talk.next_client(0), FIRST_BY_SERVER, b"GET /"));
    assert!(is_header(&again.payload) && again.payload.ends_with(b"GET /"));
    assert_eq!(again.sequence, talk.next_client(0));
    let heard = talk.server_says(&payload(FIRST_BY_SERVER, talk.next_client(33), b"page"));
    assert_eq!((heard.acknowledged, &heard.payload[..]), (talk.next_client(5), &b"page"[..]));
    let last = talk.client_says(&Said::ack(talk.next_client(5), FIRST_BY_SERVER + 4));
    assert_eq!((last.sequence, last.acknowledged), (talk.next_client(33), FIRST_BY_SERVER + 4));
    assert!(last.payload.is_empty());
}

#[test]
fn a_header_without_room_goes_alone() {
    let mut talk = Talk::new(ClientAddress::ProxyV2);
    talk.open(&[]);
    let full = [7; 1460];
    let first = payload(talk.next_client(0), FIRST_BY_SERVER, &full);
    let first = talk.client_says(&first);
    assert_eq!((first.sequence, first.payload.len()), (talk.next_client(28), 1460));
    let output = talk.lab.director.poll_output().unwrap();
    assert_eq!(output.to, addr(ACCP));
    assert_eq!(ends(&output.bytes), (format!("{INSIDE}:{}", talk.local), format!("{ACCP}:8080")));
    let alone = heard(&output.bytes);
    assert!(is_header(&alone.payload) && alone.payload.len() == PROXY_LEN);
    assert_eq!((alone.sequence, alone.acknowledged), (talk.next_client(0), FIRST_BY_SERVER));

    let mut talk = Talk::new(ClientAddress::ProxyV2);
    talk.open(&[]);
    let said = Said::ack(talk.next_client(0), FIRST_BY_SERVER);
    let bytes = segment((CLIENT, 1000), (VIP, 80), &said);
    let bare = heard(&talk.judge_with(&bytes, 0));
    assert!(bare.payload.is_empty() && bare.sequence == talk.next_client(28));
    let output = talk.lab.director.poll_output().unwrap();
    assert!(is_header(&heard(&output.bytes).payload), "without headroom, too");
}

#[test]
fn the_first_datagram_carries_the_header() {
    let mut talk = Talk::new(ClientAddress::ProxyV2);
    let datagram = talk.judge(&udp((CLIENT, 1000), (VIP, 53), 10));
    assert!(checksum_is_right(&datagram));
    assert_eq!(datagram[28 + 12..28 + 16], [0x21, 0x12, 0, 12]);
    assert_eq!((datagram.len(), &datagram[56..]), (28 + 28 + 10, &[7; 10][..]));
    assert_eq!(talk.judge(&udp((CLIENT, 1000), (VIP, 53), 10)).len(), 38, "the second does not");
}

#[test]
fn errors_speak_of_what_the_client_sent() {
    let mut talk = Talk::new(ClientAddress::ProxyV2);
    talk.open(&[]);
    let first = payload(talk.next_client(0), FIRST_BY_SERVER, b"GET /");
    let sent = talk.judge(&segment((CLIENT, 1000), (VIP, 80), &first));
    let mut error = Vec::new();
    let ip = PacketBuilder::ipv4(octets("10.9.9.9"), octets(INSIDE), 64);
    ip.icmpv4_raw(3, 4, [0, 0, 0x05, 0x14]).write(&mut error, &sent[..28]).unwrap();
    let error = talk.judge(&error);
    assert!(checksum_is_right(&error));
    assert_eq!(word(&error, 26), 1300 - 28, "the header has to fit, too");
    assert_eq!(error[28 + 24..28 + 28], talk.next_client(0).to_be_bytes());
}

#[test]
fn a_port_used_again_goes_on_where_it_was() {
    let mut talk = Talk::new(ClientAddress::Untold);
    let ports = [((addr(INSIDE), TCP), [40_000].into_iter().collect())].into_iter().collect();
    talk.lab.services.set_locals(Locals { ports, ..Locals::default() });
    talk.lab.director.refresh();
    talk.open(&[]);
    talk.client_says(&Said::ack(talk.next_client(0), FIRST_BY_SERVER));
    let fin = Said { flags: FIN_ACK, ..payload(talk.next_client(0), FIRST_BY_SERVER, b"bye") };
    talk.client_says(&fin);
    let end = talk.next_client(4);
    talk.server_says(&Said { flags: FIN_ACK, ..Said::ack(FIRST_BY_SERVER, end) });
    assert_eq!(talk.lab.states(), ["TIME_WAIT"]);

    let options = &[Tcp::Timestamp(1, 2), Tcp::MaximumSegmentSize(1460)][..];
    let syn = Said { sequence: 5, acknowledged: 0, flags: SYN, options, payload: b"" };
    let opening = talk.judge(&segment((CLIENT, 1001), (VIP, 80), &syn));
    assert_eq!(Headers::parse(&opening).unwrap().source.port, 40_000);
    let opening = heard(&opening);
    assert_eq!(opening.sequence, end.wrapping_add(65_537), "the server takes it for a later one");
    assert_eq!(opening.options[..10], [1; 10], "the server compares no clocks of two clients");
    let answer = Said { flags: SYN_ACK, ..Said::ack(99, opening.sequence.wrapping_add(1)) };
    assert_eq!(talk.server_says(&answer).acknowledged, 6);
    assert_eq!(talk.lab.director.full_nat().reused, 1);
}

#[test]
fn only_servers_that_can_are_told() {
    let services = ServiceTable::new(1);
    let udp = key(Protocol::Udp, 53);
    services.add_service(ServiceSpec::new(udp), Moment::from_ms(0)).unwrap();
    let real = |method, client_address| RealSpec {
        method,
        client_address,
        ..RealSpec::new(addr(ACCP), 53)
    };
    for (method, how) in [
        (ForwardingMethod::Masquerade, ClientAddress::ProxyV2),
        (ForwardingMethod::FullNat, ClientAddress::Toa),
    ] {
        assert_eq!(services.add_real(&udp, &real(method, how)), Err(ConfigError::Invalid));
    }
    services.add_real(&udp, &real(ForwardingMethod::FullNat, ClientAddress::ProxyV2)).unwrap();
}
