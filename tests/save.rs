//! What `ipvsadm --save --full` prints, `ipvsadm --restore` takes back: nothing is lost.

mod control;

use std::net::{IpAddr, Ipv4Addr};

use control::{TestHost, handler};
use proptest::prelude::*;
use ulvs::control::client::{Director, InProcess};
use ulvs::control::handler::Handler;
use ulvs::control::ipvsadm::names::NoNames;
use ulvs::control::ipvsadm::{Console, run};
use ulvs::control::{SyncDaemon, rules};
use ulvs::engine::Moment;
use ulvs::engine::service::{
    ClientAddress, ForwardingMethod, Protocol, RealSpec, SchedulerFlags, ServiceKey, ServiceSpec,
    ServiceView, Timeouts, Tunnel, TunnelChecksum, TunnelKind,
};
use ulvs::packet::{Addr, Family};

/// Everything there is to save.
#[derive(Debug, PartialEq)]
struct Saved {
    services: Vec<ServiceView>,
    settings: Vec<(String, String)>,
    timeouts: Timeouts,
    marks: Vec<String>,
    snat: Vec<String>,
    daemons: Vec<SyncDaemon>,
}

fn saved(handler: &Handler<TestHost>) -> Saved {
    let mut transport = InProcess { handler, now: Moment::default() };
    let mut director = Director::new(&mut transport);
    let mut services = director.services().unwrap();
    for service in &mut services {
        service.reals = director.reals(&service.spec.key).unwrap();
    }
    let settings = director.settings().unwrap().into_iter();
    Saved {
        services,
        settings: settings.map(|setting| (setting.name, setting.value)).collect(),
        timeouts: director.timeouts().unwrap(),
        marks: director.mark_rules().unwrap(),
        snat: director.snat_rules().unwrap(),
        daemons: director.sync_daemons().unwrap(),
    }
}

/// Runs ipvsadm; returns its exit status, what it said and what it complained of.
fn run_ipvsadm(handler: &Handler<TestHost>, line: &str, stdin: &str) -> (i32, String, String) {
    let args: Vec<String> = line.split_whitespace().map(String::from).collect();
    let (mut said, mut complaints) = (Vec::new(), Vec::new());
    let (mut stdin, stdout, stderr) = (stdin.as_bytes(), &mut said, &mut complaints);
    let mut console = Console { stdin: &mut stdin, stdout, stderr, hints: false };
    let mut transport = InProcess { handler, now: Moment::default() };
    let status = run(&args, &mut console, &mut transport, &mut NoNames);
    (status, String::from_utf8(said).unwrap(), String::from_utf8(complaints).unwrap())
}

/// Runs ipvsadm, which has nothing to complain about.
fn ipvsadm(handler: &Handler<TestHost>, line: &str, stdin: &str) -> String {
    let (status, said, complaints) = run_ipvsadm(handler, line, stdin);
    assert_eq!((status, complaints.as_str()), (0, ""), "{line}\n{stdin}");
    said
}

fn virtual_addr() -> impl Strategy<Value = Addr> {
    let v4 = (1u8..4).prop_map(|last| IpAddr::from(Ipv4Addr::new(12, 0, 0, last)).into());
    prop_oneof![v4, (1u128..4).prop_map(|last| Addr::v6(0x2001_0db8 << 96 | last))]
}

fn key() -> impl Strategy<Value = ServiceKey> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)];
    let address = (protocol, virtual_addr(), 0u16..4)
        .prop_map(|(protocol, addr, port)| ServiceKey::Address { protocol, addr, port });
    let family = prop_oneof![Just(Family::V4), Just(Family::V6)];
    let marks = prop_oneof![1u32..4, (u32::MAX - 2)..=u32::MAX];
    prop_oneof![
        address,
        (marks, family).prop_map(|(mark, family)| ServiceKey::Mark { mark, family })
    ]
}

fn service() -> impl Strategy<Value = ServiceSpec> {
    let scheduler = prop_oneof![Just("rr"), Just("wlc"), Just("sh"), Just("mh")];
    let persistence = proptest::option::of(1u32..2_678_400);
    let flags = any::<(bool, bool, bool)>();
    let locals = proptest::collection::btree_set(1u8..9, 0..3);
    (key(), scheduler, flags, persistence, 0u32..=32, any::<bool>(), locals).prop_map(
        |(key, scheduler, (fallback, port, third), persistence, bits, one_packet, locals)| {
            let is_open = matches!(key, ServiceKey::Address { port: 0, .. });
            let may_be_short = match key {
                ServiceKey::Address { protocol, .. } => protocol == Protocol::Udp,
                ServiceKey::Mark { .. } => true,
            };
            let netmask = match key.family() {
                Family::V4 => u32::MAX.checked_shl(32 - bits).unwrap_or(0),
                Family::V6 => bits.max(1),
            };
            ServiceSpec {
                scheduler: scheduler.into(),
                scheduler_flags: SchedulerFlags { fallback, port, third },
                persistence_timeout_s: persistence.or(is_open.then_some(300)),
                netmask,
                one_packet: one_packet && may_be_short,
                local_addresses: locals.iter().map(|last| server(&key, *last)).collect(),
                ..ServiceSpec::new(key)
            }
        },
    )
}

fn tunnel() -> impl Strategy<Value = Tunnel> {
    let checksum = prop_oneof![
        Just(TunnelChecksum::Off),
        Just(TunnelChecksum::On),
        Just(TunnelChecksum::Remote)
    ];
    let gue = (1u16.., checksum).prop_map(|(port, checksum)| Tunnel {
        kind: TunnelKind::Gue,
        port,
        checksum,
    });
    let gre = any::<bool>().prop_map(|sums| Tunnel {
        kind: TunnelKind::Gre,
        port: 0,
        checksum: if sums { TunnelChecksum::On } else { TunnelChecksum::Off },
    });
    prop_oneof![Just(Tunnel::default()), gue, gre]
}

/// A server by the last byte of its address; `fit` makes it go with its service.
fn real() -> impl Strategy<Value = (u8, RealSpec)> {
    let method = prop_oneof![
        Just(ForwardingMethod::Masquerade),
        Just(ForwardingMethod::Direct),
        Just(ForwardingMethod::Tunnel),
        Just(ForwardingMethod::FullNat)
    ];
    let thresholds = (0u32..1000, 0u32..1000);
    let telling = prop_oneof![
        Just(ClientAddress::Untold),
        Just(ClientAddress::Toa),
        Just(ClientAddress::ProxyV2)
    ];
    (1u8..200, any::<u16>(), method, 0i32..=i32::MAX, thresholds, tunnel(), telling).prop_map(
        |(last, port, method, weight, (one, other), tunnel, telling)| {
            let is_tunnel = method == ForwardingMethod::Tunnel;
            let is_full_nat = method == ForwardingMethod::FullNat;
            let spec = RealSpec {
                method,
                weight,
                upper_threshold: one.max(other),
                lower_threshold: one.min(other),
                tunnel: if is_tunnel { tunnel } else { Tunnel::default() },
                client_address: if is_full_nat { telling } else { ClientAddress::Untold },
                ..RealSpec::new(Addr::UNSPECIFIED, port)
            };
            (last, spec)
        },
    )
}

fn fit((last, spec): &(u8, RealSpec), key: &ServiceKey) -> RealSpec {
    // Only what translates can change the port.
    let may_map = matches!(spec.method, ForwardingMethod::Masquerade | ForwardingMethod::FullNat);
    let port = match key {
        ServiceKey::Address { port, .. } if !may_map => *port,
        _ => spec.port,
    };
    RealSpec { addr: server(key, *last), port, ..spec.clone() }
}

/// An address among those of the servers, of a service's family.
fn server(key: &ServiceKey, last: u8) -> Addr {
    match key.family() {
        Family::V4 => IpAddr::from(Ipv4Addr::new(192, 168, 200, last)).into(),
        Family::V6 => Addr::v6(0x2001_0db8_0200 << 80 | u128::from(last)),
    }
}

fn mark_rule() -> impl Strategy<Value = String> {
    prop_oneof![
        (1u8..9, 1u16.., any::<(u32, u32)>()).prop_map(|(last, port, (value, mask))| format!(
            "-A PREROUTING -d 12.0.0.{last} -p tcp --dport {port} -j MARK --set-xmark {value}/{mask}"
        )),
        (1u16..5000).prop_map(|port| format!(
            "-A PREROUTING -i out -p udp -m multiport --dports {port},{}:{} -j MARK --set-mark 7",
            port + 1,
            port + 9
        )),
    ]
}

fn snat_rule() -> impl Strategy<Value = String> {
    (1u8..9, 8u8..=32, any::<bool>()).prop_map(|(last, bits, ports)| {
        let ports = if ports { ":61000-61512" } else { "" };
        format!("-A POSTROUTING -s 192.168.{last}.0/{bits} -o out -j SNAT --to-source 12.0.0.{last}{ports}")
    })
}

fn settings() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let number = (0i32..100).prop_map(|number| number.to_string());
    let one = prop_oneof![
        number.clone().prop_map(|value| ("expire_nodest_conn", value)),
        number.clone().prop_map(|value| ("amemthresh", value)),
        number.prop_map(|value| ("lblcr_expiration", value)),
        (0i32..4).prop_map(|mode| ("secure_tcp", mode.to_string())),
        (1i32..9, 10i32..99).prop_map(|(a, b)| ("sync_threshold", format!("{a} {b}"))),
    ];
    proptest::collection::vec(one, 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]
    #[test]
    fn what_is_saved_in_full_is_restored_in_full(
        services in proptest::collection::vec((service(), proptest::collection::vec(real(), 0..5)), 0..6),
        settings in settings(),
        marks in proptest::collection::vec(mark_rule(), 0..4),
        snat in proptest::collection::vec(snat_rule(), 0..4),
        timeouts in (1u32..100_000, 1u32..1000, 1u32..1000),
        daemon in proptest::option::of(any::<u8>()),
    ) {
        let first = handler();
        let mut transport = InProcess { handler: &first, now: Moment::default() };
        let mut director = Director::new(&mut transport);
        for (spec, reals) in &services {
            // The same service or server may have been drawn twice.
            let _ = director.add_service(spec);
            for real in reals {
                let _ = director.add_real(&spec.key, &fit(real, &spec.key));
            }
        }
        for (name, value) in &settings {
            director.set_setting(name, value).unwrap();
        }
        marks.iter().for_each(|rule| drop(director.edit_marks(rule).unwrap()));
        snat.iter().for_each(|rule| drop(director.edit_snat(rule).unwrap()));
        let (tcp_s, tcp_fin_s, udp_s) = timeouts;
        director.set_timeouts(Timeouts { tcp_s, tcp_fin_s, udp_s }).unwrap();
        if let Some(id) = daemon {
            ipvsadm(&first, &format!("--start-daemon backup --mcast-interface in --syncid {id}"), "");
        }
        let text = ipvsadm(&first, "--save --full", "");
        let second = handler();
        ipvsadm(&second, "--restore", &text);
        prop_assert_eq!(saved(&first), saved(&second));
        prop_assert_eq!(ipvsadm(&second, "-S --full", ""), text.clone());
        // A file of rules takes it as well.
        let third = handler();
        let mut transport = InProcess { handler: &third, now: Moment::default() };
        let applied = rules::apply("saved", &text, &mut transport, &mut NoNames);
        prop_assert!(applied.is_ok(), "{applied:?}");
        prop_assert_eq!(saved(&first), saved(&third));
    }
}

#[test]
fn a_table_that_is_restored_twice_has_no_rule_twice() {
    let handler = handler();
    let rules =
        "mark -A PREROUTING -d 12.0.0.1 -m comment --comment \"the web\" -j MARK --set-mark 1
        mark -A PREROUTING -d 12.0.0.0/24 -j MARK --set-mark 2
        mark -A PREROUTING -d 12.0.0.0/24 -j MARK --set-mark 2
        snat -A POSTROUTING -s 192.168.200.0/24 -j SNAT --to-source 12.0.0.9\n";
    ipvsadm(&handler, "-R", rules);
    let text = ipvsadm(&handler, "-S --full", "");
    assert_eq!(
        (text.matches("mark -A").count(), text.matches("snat -A").count()),
        (3, 1),
        "{text}"
    );
    assert!(text.contains("--comment \"the web\""), "{text}");
    ipvsadm(&handler, "-R", &text);
    assert_eq!(ipvsadm(&handler, "-S --full", ""), text);
    // One has a part of the other's ports.
    let more = "snat -A POSTROUTING -j SNAT --to-source 12.0.0.8:61000-61100
        snat -A POSTROUTING -j SNAT --to-source 12.0.0.8\n";
    ipvsadm(&handler, "-R", more);
    ipvsadm(&handler, "-R", more);
    assert_eq!(ipvsadm(&handler, "-S --full", "").matches("12.0.0.8").count(), 2);
    ipvsadm(&handler, "-R", "snat -A POSTROUTING -j SNAT --to-source 12.0.0.9");
    assert_eq!(ipvsadm(&handler, "-S --full", "").matches("snat -A").count(), 4);
}

#[test]
fn what_is_wrong_in_a_saved_table_is_named() {
    let handler = handler();
    for (line, complaint) in [
        ("sysctl net.ipv4.vs.drop_entry=9", "sysctl: net.ipv4.vs.drop_entry: Invalid argument\n"),
        (
            "sysctl net.ipv4.ip_forward=1",
            "sysctl: `net.ipv4.ip_forward' is not below net.ipv4.vs\n",
        ),
        ("sysctl -a", "sysctl: `-a' is not NAME=VALUE\n"),
        ("mark -A PREROUTING -j MARK", "mark: the rule lacks `--set-mark NUMBER'\n"),
    ] {
        let (status, _, complaints) = run_ipvsadm(&handler, "-R", line);
        assert_eq!((status, complaints.as_str()), (255, complaint));
    }
    assert_eq!(saved(&handler), saved(&control::handler()), "nothing has changed");
}

#[test]
fn a_file_stops_at_the_line_that_is_refused_which_changes_nothing() {
    let good = "ulvs sysctl net.ipv4.vs.expire_nodest_conn=1\n-A -t 12.0.0.1:80 -s rr\n";
    let before = handler();
    rules::apply("good", good, &mut transport(&before), &mut NoNames).unwrap();
    for (line, complaint) in [
        ("sysctl net.ipv4.vs.sync_threshold=9 3", "sysctl: net.ipv4.vs.sync_threshold: Invalid"),
        ("mark -A PREROUTING -j MARK", "mark: the rule lacks `--set-mark NUMBER'"),
        ("snat -A POSTROUTING -j SNAT", "snat: "),
        ("-a -t 12.0.0.1:80 -r 192.168.200.110:80 -m -y 5", "Numerical result out of range"),
        ("-a -t 12.0.0.1:80 -r 192.168.200.110:80 --fullnat --client-address x", ""),
        ("-A -t 12.0.0.1:80 -s rr", "Service already exists"),
        ("iptables -F", "this is no command of ipvsadm: iptables"),
    ] {
        let handler = handler();
        let text = format!("{good}\n# what follows is refused\n{line}\n-C\n");
        let refused = rules::apply("my.rules", &text, &mut transport(&handler), &mut NoNames);
        let said = refused.expect_err(line).to_string();
        assert!(said.starts_with("my.rules:5: ") && said.contains(complaint), "{said}");
        assert_eq!(saved(&handler), saved(&before), "{line}");
    }
}

fn transport(handler: &Handler<TestHost>) -> InProcess<'_, TestHost> {
    InProcess { handler, now: Moment::default() }
}
