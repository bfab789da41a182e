//! The control protocol beside messages captured between ipvsadm 1.31 and Linux 6.1, under hostile
//! bytes, and over its socket.

mod control;

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use control::{TestHost, handler};
use nix::errno::Errno;
use proptest::prelude::*;
use socket2::{Domain, SockAddr, Socket, Type};
use ulvs::control::client::{Director, Failure, InProcess, Transport};
use ulvs::control::handler::Handler;
use ulvs::control::netlink::connection::ConnectionView;
use ulvs::control::netlink::counter::CounterView;
use ulvs::control::netlink::ipvs::{self, Daemon, Dest, Service, Side};
use ulvs::control::netlink::{Attributes, Writer, frames};
use ulvs::control::server::Server;
use ulvs::control::socket::SocketTransport;
use ulvs::engine::Moment;
use ulvs::engine::service::{Protocol, RealSpec, ServiceKey, ServiceSpec, ServiceTable};
use ulvs::packet::{Addr, Endpoint};

/// A captured request and the datagrams that answered it.
struct Exchange {
    command: String,
    request: Vec<u8>,
    replies: Vec<Vec<u8>>,
}

fn captured() -> Vec<Exchange> {
    let text = include_str!("golden/netlink/ipvsadm.txt");
    let mut exchanges: Vec<Exchange> = Vec::new();
    let mut command = "";
    for line in text.lines() {
        match line.split_once(' ') {
            Some(("$", text)) => command = text.strip_prefix("ipvsadm ").unwrap_or(text),
            Some((">", hex)) => exchanges.push(Exchange {
                command: command.into(),
                request: bytes(hex),
                replies: Vec::new(),
            }),
            Some(("<", hex)) => exchanges.last_mut().unwrap().replies.push(bytes(hex)),
            _ => {}
        }
    }
    exchanges
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn ask(handler: &Handler<TestHost>, request: &[u8]) -> Vec<Vec<u8>> {
    let mut replies = Vec::new();
    handler.handle(request, Moment::default(), &mut |reply| {
        replies.push(reply);
        ControlFlow::Continue(())
    });
    replies
}

/// Messages without the remarks of ours, which the kernel has not.
fn plain_messages<'a>(datagrams: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<Vec<u8>> {
    const ERROR: u16 = 2;
    const HAS_REMARK: u8 = 0x02;
    let mut messages = Vec::new();
    for frame in datagrams.into_iter().flat_map(|datagram| frames(datagram)) {
        let mut message = frame.whole.to_vec();
        if frame.header.message_type == ERROR && message[7] & HAS_REMARK != 0 {
            let quoted = u32::from_ne_bytes(message[20..24].try_into().unwrap()) as usize;
            message.truncate(20 + quoted);
            let length = (message.len() as u32).to_ne_bytes();
            message[..4].copy_from_slice(&length);
            message[7] &= !HAS_REMARK;
        }
        messages.push(message);
    }
    messages
}

#[test]
fn every_captured_request_is_answered_as_by_the_kernel() {
    let handler = handler();
    for Exchange { command, request, replies } in captured() {
        let mut expected = plain_messages(&replies);
        let mut answered = plain_messages(&ask(&handler, &request));
        // ipvsadm did not read every acknowledgement.
        answered.truncate(expected.len());
        // The kernel dumps services in the order of its hash table.
        if expected.len() > 2 {
            expected.sort();
            answered.sort();
        }
        assert_eq!(answered, expected, "{command}");
    }
}

#[test]
fn every_captured_message_survives_parsing_and_writing() {
    let mut count = 0;
    for Exchange { command, request, replies } in captured() {
        let sides = [(vec![request], Side::Client), (replies, Side::Director)];
        for (datagrams, side) in sides {
            for frame in datagrams.iter().flat_map(|datagram| frames(datagram)) {
                if frame.header.message_type == ipvs::FAMILY.id {
                    assert_eq!(rewritten(&frame, side), frame.whole, "{command}");
                    count += 1;
                }
            }
        }
    }
    assert!(count > 50, "there are captured messages, not {count}");
}

fn rewritten(frame: &ulvs::control::netlink::Frame, side: Side) -> Vec<u8> {
    let attributes = Attributes::parse(&frame.payload[4..]);
    let mut writer = Writer::generic(frame.header, frame.payload[0], frame.payload[1]);
    if frame.payload[0] == ipvs::command::SET_INFO {
        ipvs::Info::parse(&attributes).unwrap().emit(&mut writer);
        return writer.finish();
    }
    if frame.payload[0] == ipvs::command::SET_CONFIG {
        ipvs::emit_timeouts(&mut writer, ipvs::parse_timeouts(&attributes).unwrap());
        return writer.finish();
    }
    if let Some(nested) = attributes.nested(ipvs::attribute::SERVICE) {
        Service::parse(&nested).unwrap().emit(&mut writer, side);
    }
    if let Some(nested) = attributes.nested(ipvs::attribute::DEST) {
        Dest::parse(&nested).unwrap().emit(&mut writer, side);
    }
    if let Some(nested) = attributes.nested(ipvs::attribute::DAEMON) {
        Daemon::parse(&nested).unwrap().emit(&mut writer, side);
    }
    writer.finish()
}

/// A handler whose table the captured commands have filled.
fn filled() -> Handler<TestHost> {
    let handler = handler();
    let edits = captured().into_iter().take_while(|exchange| !exchange.command.starts_with("-Z"));
    for exchange in edits {
        ask(&handler, &exchange.request);
    }
    handler
}

#[test]
fn cut_and_twisted_requests_never_hurt() {
    let handler = filled();
    for Exchange { request, .. } in captured() {
        for end in 0..request.len() {
            let mut cut = request[..end].to_vec();
            ask(&handler, &cut);
            if let Some(length) = cut.first_chunk_mut::<4>() {
                *length = (end as u32).to_ne_bytes();
            }
            ask(&handler, &cut);
        }
        for at in 0..request.len() {
            for bit in 0..8 {
                let mut twisted = request.clone();
                twisted[at] ^= 1 << bit;
                ask(&handler, &twisted);
            }
        }
    }
}

#[test]
fn settings_are_told_and_changed_and_refusals_say_why() {
    let table = Arc::new(ServiceTable::new(1));
    let handler = Handler::new(Arc::clone(&table), TestHost::default());
    let mut transport = InProcess { handler: &handler, now: Moment::default() };
    let mut director = Director::new(&mut transport);
    let settings = director.settings().unwrap();
    assert!(settings.is_sorted_by_key(|setting| setting.name.clone()));
    assert!(settings.iter().any(|setting| setting.name == "am_droprate" && setting.value == "10"));
    assert_eq!(director.set_setting("sloppy_tcp", "0x1").unwrap(), None);
    assert_eq!(table.snapshot().settings.sloppy_tcp, 1);
    let remark = director.set_setting("snat_reroute", "0").unwrap();
    assert!(remark.unwrap().contains("no effect"));
    let long = "1".repeat(70_000);
    for (name, value, errno) in [
        ("no_such", "1", Errno::ENOENT),
        ("drop_entry", "4", Errno::EINVAL),
        ("drop_entry", "", Errno::EINVAL),
        ("drop_entry", &long, Errno::EINVAL),
        ("debug_level", "1", Errno::EACCES),
    ] {
        let epoch = table.epoch();
        match director.set_setting(name, value) {
            Err(Failure::Refused { errno: found, .. }) => assert_eq!(found, errno, "{name}"),
            other => panic!("{name}={value}: {other:?}"),
        }
        assert_eq!(table.epoch(), epoch, "a refused edit changes nothing");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn random_attributes_are_refused_or_taken_but_never_hurt(
        kind in prop_oneof![Just(0x10_u16), Just(0x1c), Just(0x1d), any::<u16>()],
        flags in prop_oneof![Just(5_u16), Just(0x305), any::<u16>()],
        command in 0..20_u8,
        body in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut request = vec![0; 16];
        request[4..6].copy_from_slice(&kind.to_ne_bytes());
        request[6..8].copy_from_slice(&flags.to_ne_bytes());
        request.extend([command, 1, 0, 0]);
        request.extend(body);
        let length = request.len() as u32;
        request[..4].copy_from_slice(&length.to_ne_bytes());
        for reply in ask(&handler(), &request) {
            let told: usize = frames(&reply).map(|f| f.whole.len().next_multiple_of(4)).sum();
            prop_assert_eq!(told, reply.len().next_multiple_of(4));
        }
    }

    #[test]
    fn random_replies_are_no_danger_to_a_client(
        replies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..4),
    ) {
        struct Babbler(Vec<Vec<u8>>);
        impl Transport for Babbler {
            fn request(&mut self, _: &[u8], reply: &mut dyn FnMut(&[u8])) -> io::Result<()> {
                self.0.iter().for_each(|datagram| reply(datagram));
                Ok(())
            }
        }
        let mut babbler = Babbler(replies);
        prop_assert!(Director::new(&mut babbler).services().is_err());
    }
}

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

fn web() -> ServiceKey {
    ServiceKey::Address { protocol: Protocol::Tcp, addr: addr("12.0.0.1"), port: 80 }
}

#[test]
fn connections_come_through_as_they_are() {
    let connections = vec![
        ConnectionView {
            protocol: 6,
            client: Endpoint::new(addr("12.0.0.2"), 1000),
            service: Endpoint::new(addr("12.0.0.1"), 80),
            real: Endpoint::new(addr("192.168.200.110"), 8080),
            state: "ESTABLISHED".into(),
            expires_s: 900,
            is_template: false,
            is_heard: false,
            persistence_engine: None,
            local: Some(Endpoint::new(addr("192.168.200.1"), 61_512)),
        },
        ConnectionView {
            protocol: 17,
            client: Endpoint::new(addr("2001:db8::2"), 0),
            service: Endpoint::new(addr("2001:db8::1"), 5060),
            real: Endpoint::new(addr("192.168.200.120"), 5060),
            state: "NONE".into(),
            expires_s: 60,
            is_template: true,
            is_heard: true,
            persistence_engine: Some(("sip".into(), b"call1@c".to_vec())),
            local: None,
        },
    ];
    let many: Vec<_> = connections.into_iter().cycle().take(5000).collect();
    let host = TestHost { connections: many.clone(), ..TestHost::default() };
    let handler = Handler::new(Arc::new(ServiceTable::new(1)), host);
    let mut transport = InProcess { handler: &handler, now: Moment::default() };
    let mut listed = Vec::new();
    Director::new(&mut transport).connections(&mut |one| listed.push(one)).unwrap();
    assert_eq!(listed, many);
}

#[test]
fn counters_come_through_as_they_are() {
    let counter = |number: u32| CounterView {
        worker: number.checked_sub(1),
        group: format!("interface eth{number}"),
        name: "ring-drops".into(),
        value: u64::MAX - u64::from(number),
    };
    let counters: Vec<_> = (0..2000).map(counter).collect();
    let host = TestHost { counters: counters.clone(), ..TestHost::default() };
    let handler = Handler::new(Arc::new(ServiceTable::new(1)), host);
    let mut transport = InProcess { handler: &handler, now: Moment::default() };
    assert_eq!(Director::new(&mut transport).counters().unwrap(), counters);
}

#[test]
fn a_listener_who_leaves_is_told_no_more() {
    let host = TestHost::default();
    let handler = Handler::new(Arc::new(ServiceTable::new(1)), host);
    let dump = captured().into_iter().find(|one| one.command == "-Ln").unwrap().request;
    let twice = [dump.clone(), dump].concat();
    let mut told = 0;
    handler.handle(&twice, Moment::default(), &mut |_| {
        told += 1;
        ControlFlow::Break(())
    });
    assert_eq!(told, 1);
}

/// A folder of this test's own, gone when it ends.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("control-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("run/control.sock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn serve(folder: &Folder) -> io::Result<Server> {
    Server::start(&folder.socket(), Arc::new(filled()), Moment::default)
}

#[test]
fn the_socket_carries_edits_and_listings() {
    let folder = Folder::new();
    let server = serve(&folder).unwrap();
    let mode = fs::symlink_metadata(server.path()).unwrap();
    assert!(mode.file_type().is_socket());
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);

    let mut transport = SocketTransport::new(folder.socket());
    let mut director = Director::new(&mut transport);
    let before = director.services().unwrap().len();
    let key = ServiceKey::Address { protocol: Protocol::Tcp, addr: addr("12.0.0.9"), port: 443 };
    director.add_service(&ServiceSpec::new(key)).unwrap();
    director.add_real(&key, &RealSpec::new(addr("192.168.200.110"), 443)).unwrap();
    assert_eq!(director.services().unwrap().len(), before + 1);
    assert_eq!(director.reals(&key).unwrap().len(), 1);
    let refused = director.add_service(&ServiceSpec::new(key)).unwrap_err();
    assert!(matches!(refused, Failure::Refused { errno: Errno::EEXIST, .. }));

    drop(server);
    assert!(!folder.socket().exists(), "a director that ends takes its socket along");
    assert!(matches!(director.services(), Err(Failure::Transport(_))));
}

#[test]
fn a_dead_directors_socket_is_replaced_and_a_live_ones_is_not() {
    let folder = Folder::new();
    fs::create_dir_all(folder.socket().parent().unwrap()).unwrap();
    let dead = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    dead.bind(&SockAddr::unix(folder.socket()).unwrap()).unwrap();
    drop(dead);

    let first = serve(&folder).unwrap();
    let refused = serve(&folder).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    assert!(refused.to_string().contains("another director listens there already"), "{refused}");
    let mut transport = SocketTransport::new(folder.socket());
    Director::new(&mut transport).info().expect("the first director is still there");
    drop(first);
}

#[test]
fn where_everybody_may_write_the_directory_must_be_the_directors_own() {
    let folder = Folder::new();
    let set_mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode(&folder.0, 0o1777);
    drop(serve(&folder).unwrap());
    let run = folder.0.join("run");
    let refused = || serve(&folder).unwrap_err().to_string();
    set_mode(&run, 0o777);
    assert!(refused().contains("must belong to the director's user"), "{}", refused());
    set_mode(&run, 0o700);
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&run, Some(65534), None).unwrap();
        assert!(refused().contains("must belong to the director's user"), "{}", refused());
    }
    // Nor is somebody's link to elsewhere followed.
    fs::remove_dir_all(&run).unwrap();
    fs::create_dir(folder.0.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", &run).unwrap();
    assert!(refused().contains("must belong to the director's user"), "{}", refused());
    fs::remove_file(&run).unwrap();
    drop(serve(&folder).unwrap());
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let folder = Folder::new();
    fs::create_dir_all(folder.socket().parent().unwrap()).unwrap();
    fs::write(folder.socket(), "precious").unwrap();
    let refused = serve(&folder).unwrap_err();
    assert!(refused.to_string().contains("no socket"), "{refused}");
    assert_eq!(fs::read_to_string(folder.socket()).unwrap(), "precious");
}

#[test]
fn clients_that_misbehave_harm_only_themselves() {
    let folder = Folder::new();
    let server = serve(&folder).unwrap();
    let connect = || {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        socket.connect(&SockAddr::unix(folder.socket()).unwrap()).unwrap();
        socket
    };
    // One asks on and on without reading, one talks nonsense, and a hundred say nothing.
    let deaf = connect();
    deaf.set_nonblocking(true).unwrap();
    let dump = captured().into_iter().find(|one| one.command == "-Ln").unwrap().request;
    while deaf.send(&dump.repeat(100)).is_ok() {}
    let babbler = connect();
    babbler.send(&[0xff; 1000]).unwrap();
    let silent: Vec<_> = (0..100).map(|_| connect()).collect();

    let start = Instant::now();
    let mut transport = SocketTransport::new(folder.socket());
    let reals = Director::new(&mut transport).reals(&web()).unwrap();
    assert!(!reals.is_empty());
    assert!(start.elapsed() < Duration::from_secs(6), "others have to wait");

    // The first of the silent ones had to make room.
    let mut first = &silent[0];
    first.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(first.read(&mut [0; 16]).unwrap(), 0);
    let start = Instant::now();
    drop(server);
    assert!(start.elapsed() < Duration::from_secs(5), "the director cannot end");
}

#[test]
fn the_errors_of_the_kernel_come_with_hints() {
    let handler = filled();
    let mut transport = InProcess { handler: &handler, now: Moment::default() };
    let mut director = Director::new(&mut transport);
    let hint = |failure: Failure| match failure {
        Failure::Refused { hint, .. } => hint.unwrap_or_default(),
        Failure::Transport(error) => panic!("{error}"),
    };
    let other_port = RealSpec::new(addr("192.168.200.110"), 80);
    let said = hint(director.edit_real(&web(), &other_port).unwrap_err());
    assert!(said.contains("at 192.168.200.110 this service has 192.168.200.110:8080"), "{said}");
    let typo = RealSpec::new(addr("129.168.200.110"), 80);
    let remark = director.add_real(&web(), &typo).unwrap().unwrap();
    assert!(remark.contains("did you mean 192.168.200.110?"), "{remark}");
    let found: HashMap<_, _> = director
        .reals(&web())
        .unwrap()
        .into_iter()
        .map(|real| (real.spec.addr, real.spec.port))
        .collect();
    assert_eq!(found.get(&addr("129.168.200.110")), Some(&80), "a remark is no refusal");
}
