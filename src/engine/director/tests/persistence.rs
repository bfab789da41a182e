//! Persistent services and one-packet scheduling, with one director and with several.

use super::*;

fn persistent(key: ServiceKey) -> ServiceSpec {
    let persistence_timeout_s = Some(60);
    ServiceSpec { scheduler: "rr".into(), persistence_timeout_s, ..ServiceSpec::new(key) }
}

/// `director` picks up edits and judges a packet; returns the server that gets it.
fn server(director: &mut Director, mut bytes: Vec<u8>, now: Moment) -> Result<Addr, Verdict> {
    director.refresh();
    let len = bytes.len();
    let mut packet = PacketBuf::new(&mut bytes, 0, len);
    match director.handle_packet(&mut packet, &LAB, now) {
        Verdict::Forward(hop) => Ok(hop.to),
        other => Err(other),
    }
}

impl Fixture {
    fn persist(&mut self, protocol: Protocol, port: u16) {
        let key = key(protocol, port);
        self.services.add_service(persistent(key), self.now).unwrap();
        for server in [ACCP, BENET] {
            self.services.add_real(&key, &masqueraded(server, port)).unwrap();
        }
        self.director.refresh();
    }

    fn server(&mut self, bytes: Vec<u8>) -> Result<Addr, Verdict> {
        server(&mut self.director, bytes, self.now)
    }

    fn template(&self) -> Option<(&'static str, u32)> {
        let (page, _) = self.services.templates().page(0, 10, self.now);
        assert!(page.len() < 2, "{page:?}");
        page.first().map(|view| (view.state(), view.remaining_ms))
    }
}

#[test]
fn directors_that_share_services_share_the_templates() {
    let services = Arc::new(ServiceTable::new(4));
    let (now, web) = (Moment::from_ms(1_000_000), key(Protocol::Tcp, 80));
    services.add_service(persistent(web), now).unwrap();
    for server in [ACCP, BENET] {
        services.add_real(&web, &masqueraded(server, 80)).unwrap();
    }
    let director = |worker| {
        Director::new(Arc::clone(&services), DirectorConfig::new(worker, worker as u64), now)
    };
    let clients = ["12.0.0.2", "12.0.0.3", "12.0.0.4"];
    let barrier = std::sync::Barrier::new(4);
    let syns = |worker: usize| {
        let mut director = director(worker);
        barrier.wait();
        let send = |step: usize| {
            let (client, port) =
                (clients[(worker + step) % 3], (1024 + worker * 1000 + step) as u16);
            let syn = tcp((client, port), (VIP, 80), SYN);
            (client, server(&mut director, syn, now).unwrap())
        };
        let servers: Vec<_> = (0..300).map(send).collect();
        director.clear_connections();
        servers
    };
    let all: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|worker| {
                scope.spawn({
                    let syns = &syns;
                    move || syns(worker)
                })
            })
            .collect();
        threads.into_iter().flat_map(|each| each.join().unwrap()).collect()
    });
    for client in clients {
        let mut servers = all.iter().filter(|(from, _)| *from == client).map(|(_, to)| *to);
        let first = servers.next().unwrap();
        assert!(servers.all(|server| server == first), "{client} went to several servers");
    }
    assert_eq!(services.templates().len(), 3);
    let view = services.view(&web).unwrap();
    let (persistent, active) = view.reals.iter().fold((0, 0), |(persistent, active), real| {
        (persistent + real.persistent, active + real.active)
    });
    assert_eq!((persistent, active), (3, 0), "connections end without their templates");
}

#[test]
fn a_template_lives_as_long_as_its_connections_and_is_assured_by_an_answer() {
    let mut lab = Fixture::empty();
    lab.persist(Protocol::Udp, 53);
    assert_eq!(lab.server(udp((CLIENT, 1), (VIP, 53), 1)), Ok(addr(BENET)));
    assert_eq!(lab.template(), Some(("NONE", 60_000)));
    lab.send(&mut udp((BENET, 53), (CLIENT, 1), 1));
    assert_eq!(lab.template(), Some(("ASSURED", 60_000)));
    lab.sleep(299);
    lab.services.handle_timeout(lab.now);
    assert_eq!(lab.template(), Some(("ASSURED", 60_000)), "held by the connection");
    lab.sleep(62);
    assert_eq!(lab.director.connections().len(), 0);
    lab.services.handle_timeout(lab.now);
    assert_eq!(lab.template(), None);
    assert_eq!(lab.server(udp((CLIENT, 2), (VIP, 53), 1)), Ok(addr(ACCP)), "scheduled anew");
}

#[test]
fn a_closed_connection_of_a_persistent_client_is_not_reused() {
    let mut lab = Fixture::empty();
    lab.persist(Protocol::Tcp, 80);
    assert_eq!(lab.server(tcp((CLIENT, 1), (VIP, 80), SYN)), Ok(addr(BENET)));
    lab.send(&mut tcp((BENET, 80), (CLIENT, 1), RST));
    assert_eq!(lab.states(), ["CLOSE"]);
    assert_eq!(lab.server(tcp((CLIENT, 1), (VIP, 80), SYN)), Ok(addr(BENET)));
    assert_eq!(lab.states(), ["SYN_RECV"]);
    let view = lab.services.view(&key(Protocol::Tcp, 80)).unwrap();
    assert_eq!(view.totals.connections, 1);
}

#[test]
fn a_service_on_port_zero_needs_persistence_and_keeps_ports() {
    let mut lab = Fixture::empty();
    lab.persist(Protocol::Tcp, 0);
    let mut syn = tcp((CLIENT, 1), (VIP, 443), SYN);
    assert!(matches!(lab.send(&mut syn), Verdict::Forward(_)));
    assert_eq!(ends(&syn).1, "192.168.200.120:443");
    let spec = ServiceSpec { persistence_timeout_s: None, ..persistent(key(Protocol::Tcp, 0)) };
    lab.services.edit_service(spec, lab.now).unwrap();
    let refused = lab.server(tcp((CLIENT, 2), (VIP, 443), SYN));
    assert_eq!(refused, Err(Verdict::Reply), "the port is unreachable");
}

#[test]
fn a_persistent_ftp_service_takes_its_data_connections_too() {
    let mut lab = Fixture::empty();
    lab.persist(Protocol::Tcp, 21);
    for port in [21, 20, 1024, 65_535] {
        let mut syn = tcp((CLIENT, 1), (VIP, port), SYN);
        assert!(matches!(lab.send(&mut syn), Verdict::Forward(_)), "port {port}");
        assert_eq!(ends(&syn).1, format!("192.168.200.120:{port}"));
    }
    assert_eq!(lab.server(tcp((CLIENT, 1), (VIP, 80), SYN)), Err(Verdict::Pass));
    assert_eq!(lab.server(tcp((CLIENT, 20), (VIP, 21), SYN)), Err(Verdict::Pass));
    let spec = ServiceSpec { persistence_timeout_s: None, ..persistent(key(Protocol::Tcp, 21)) };
    lab.services.edit_service(spec, lab.now).unwrap();
    assert_eq!(lab.server(tcp((CLIENT, 2), (VIP, 1024), SYN)), Err(Verdict::Pass));
    assert_eq!(lab.server(tcp((CLIENT, 2), (VIP, 21), SYN)), Ok(addr(ACCP)));
}

#[test]
fn one_packet_connections_leave_no_trace_but_the_counters() {
    let mut lab = Fixture::new();
    let known = udp((CLIENT, 1), (VIP, 53), 1);
    assert_eq!(lab.server(known.clone()), Ok(addr(BENET)));
    let dns = key(Protocol::Udp, 53);
    let spec = ServiceSpec { scheduler: "rr".into(), one_packet: true, ..ServiceSpec::new(dns) };
    lab.services.edit_service(spec, lab.now).unwrap();
    for expected in [ACCP, BENET, ACCP] {
        assert_eq!(lab.server(udp((CLIENT, 2), (VIP, 53), 1)), Ok(addr(expected)));
    }
    let mut answer = udp((ACCP, 53), (CLIENT, 2), 1);
    assert_eq!((lab.send(&mut answer), ends(&answer).0), (Verdict::Pass, format!("{ACCP}:53")));
    assert_eq!(lab.server(known), Ok(addr(BENET)), "a connection from before goes on");
    assert_eq!(lab.director.connections().len(), 1);
    let view = lab.services.view(&dns).unwrap();
    assert_eq!((view.totals.connections, view.totals.in_packets), (4, 5));
    let load: Vec<_> = view.reals.iter().map(|real| (real.active, real.inactive)).collect();
    assert_eq!(load.iter().map(|(active, inactive)| active + inactive).sum::<u32>(), 1);
}
