use std::io::ErrorKind;
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use super::*;
use crate::engine::Moment;
use crate::engine::service::{ServiceSpec, ServiceTable};
use crate::host::look;
use crate::lab::net::{Namespace, connect, sandbox};

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

/// A director at 12.0.0.1 and a client at 12.0.0.12.
fn pair() -> (Namespace, Namespace) {
    let director = Namespace::new("director").unwrap();
    let client = Namespace::new("client").unwrap();
    connect(&director.end("out"), &client.end("eth0")).unwrap();
    director.add_address("out", "12.0.0.1/24".parse().unwrap()).unwrap();
    client.add_address("eth0", "12.0.0.12/24".parse().unwrap()).unwrap();
    (director, client)
}

fn services(keys: &[(Protocol, &str, u16)]) -> ServiceTable {
    let table = ServiceTable::new(1);
    for (protocol, at, port) in keys {
        let key = ServiceKey::Address { protocol: *protocol, addr: addr(at), port: *port };
        let mut spec = ServiceSpec::new(key);
        spec.persistence_timeout_s = (*port == 0).then_some(300);
        table.add_service(spec, Moment::default()).unwrap();
    }
    table
}

fn update(guard: &mut Guard, director: &Namespace, table: &ServiceTable) -> Vec<Problem> {
    director.run(|| guard.update(&table.snapshot(), &look().unwrap())).unwrap()
}

/// What becomes of a connection attempt within a quarter of a second.
fn attempt(client: &Namespace, at: &str) -> Result<(), ErrorKind> {
    let to = at.parse().unwrap();
    let connect = || TcpStream::connect_timeout(&to, Duration::from_millis(250));
    client.run(connect).unwrap().map(drop).map_err(|error| error.kind())
}

fn ask(client: &Namespace, at: &str) -> ErrorKind {
    let ask = || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(at)?;
        socket.set_read_timeout(Some(Duration::from_millis(250)))?;
        socket.send(b"hello")?;
        socket.recv(&mut [0; 8])
    };
    client.run(ask).unwrap().unwrap_err().kind()
}

#[test]
fn the_kernel_is_silent_on_guarded_ports_and_only_there() {
    sandbox::run("guard::tests::the_kernel_is_silent_on_guarded_ports_and_only_there", || {
        let (director, client) = pair();
        assert_eq!(attempt(&client, "12.0.0.1:80"), Err(ErrorKind::ConnectionRefused));
        assert_eq!(ask(&client, "12.0.0.1:53"), ErrorKind::ConnectionRefused);
        let ssh = director.run(|| TcpListener::bind("0.0.0.0:22")).unwrap().unwrap();
        let table = services(&[
            (Protocol::Tcp, "12.0.0.1", 80),
            (Protocol::Udp, "12.0.0.1", 53),
            (Protocol::Tcp, "12.0.0.99", 80),
        ]);
        let mut guard = Guard::new();
        assert_eq!(update(&mut guard, &director, &table), []);
        assert_eq!(guard.held(), 2, "12.0.0.99 is not the kernel's");
        assert_eq!(attempt(&client, "12.0.0.1:80"), Err(ErrorKind::TimedOut));
        assert_eq!(ask(&client, "12.0.0.1:53"), ErrorKind::WouldBlock);
        assert_eq!(attempt(&client, "12.0.0.1:22"), Ok(()));
        assert_eq!(attempt(&client, "12.0.0.1:81"), Err(ErrorKind::ConnectionRefused));
        drop(ssh);
        // What no service needs any more is as it was.
        table.flush();
        assert_eq!(update(&mut guard, &director, &table), []);
        assert_eq!(attempt(&client, "12.0.0.1:80"), Err(ErrorKind::ConnectionRefused));
    });
}

#[test]
fn a_port_in_use_is_reported_once_and_taken_when_it_is_free() {
    sandbox::run("guard::tests::a_port_in_use_is_reported_once_and_taken_when_it_is_free", || {
        let (director, client) = pair();
        let daemon = director.run(|| TcpListener::bind("0.0.0.0:80")).unwrap().unwrap();
        let table = services(&[(Protocol::Tcp, "12.0.0.1", 80)]);
        let mut guard = Guard::new();
        let problems = update(&mut guard, &director, &table);
        let [Problem::InUse { guarded, holder: Some(holder) }] = &problems[..] else {
            panic!("{problems:?}")
        };
        assert_eq!(guarded.to_string(), "TCP 12.0.0.1:80");
        assert!(holder.contains(&std::process::id().to_string()), "{holder}");
        assert_eq!(update(&mut guard, &director, &table), []);
        drop(daemon);
        assert_eq!(update(&mut guard, &director, &table), []);
        assert_eq!(attempt(&client, "12.0.0.1:80"), Err(ErrorKind::TimedOut));
    });
}

#[test]
fn a_service_of_all_ports_is_reported_once() {
    sandbox::run("guard::tests::a_service_of_all_ports_is_reported_once", || {
        let (director, _client) = pair();
        let table = services(&[(Protocol::Tcp, "12.0.0.1", 0)]);
        let mut guard = Guard::new();
        let problems = update(&mut guard, &director, &table);
        assert!(matches!(problems[..], [Problem::Unguardable { .. }]), "{problems:?}");
        assert_eq!(update(&mut guard, &director, &table), []);
    });
}

#[test]
fn a_range_of_ports_is_held_for_connections_that_begin_here() {
    sandbox::run("guard::tests::a_range_of_ports_is_held_for_connections_that_begin_here", || {
        let (director, client) = pair();
        let mut guard = Guard::new();
        let hold = |guard: &mut Guard, range| {
            director.run(|| guard.hold_ports(addr("12.0.0.1"), range)).unwrap().unwrap()
        };
        assert_eq!(hold(&mut guard, 61_000..=61_019), 61_000..=61_019);
        assert_eq!(attempt(&client, "12.0.0.1:61019"), Err(ErrorKind::TimedOut));
        assert_eq!(ask(&client, "12.0.0.1:61000"), ErrorKind::WouldBlock);
        assert_eq!(attempt(&client, "12.0.0.1:61020"), Err(ErrorKind::ConnectionRefused));
        // As far as it goes.
        let _taken = director.run(|| UdpSocket::bind("12.0.0.1:62003")).unwrap().unwrap();
        guard.keep_ports_of(&HashSet::new());
        assert_eq!(attempt(&client, "12.0.0.1:61019"), Err(ErrorKind::ConnectionRefused));
        assert_eq!(hold(&mut guard, 62_000..=62_009), 62_000..=62_002);
    });
}
