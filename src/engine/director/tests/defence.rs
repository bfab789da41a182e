//! Connections that end before their time: for want of room, and with their server.

use super::*;

impl Fixture {
    fn set(&mut self, name: &str, value: &str) {
        self.services.set_setting(name, value).unwrap();
        self.director.refresh();
    }

    /// Lets the table and the director do what is due, for so many seconds.
    fn let_pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.services.handle_timeout(self.now);
            self.director.refresh();
            self.sleep(1);
        }
    }
}

fn established(lab: &mut Fixture, ports: std::ops::Range<u16>) {
    for port in ports {
        lab.send(&mut tcp((CLIENT, port), (VIP, 80), SYN));
        lab.send(&mut tcp((CLIENT, port), (VIP, 80), ACK));
    }
}

#[test]
fn drop_entry_takes_half_open_connections_and_spares_those_in_use() {
    let mut lab = Fixture::new();
    for port in 1000..1640 {
        lab.send(&mut tcp((CLIENT, port), (VIP, 80), SYN));
    }
    established(&mut lab, 2000..2100);
    lab.set("drop_entry", "3");
    lab.let_pass(1);
    let half_open = lab.states().iter().filter(|state| **state == "SYN_RECV").count();
    // One in 32 of 740 is looked at, and some of those are established.
    assert!((616..640).contains(&half_open), "{half_open} are left");
    assert_eq!(lab.director.dropped_connections(), 640 - half_open as u64);
    assert_eq!(lab.states().len() - half_open, 100);
    let (active, _) = lab.load(ACCP);
    assert!(active < 370, "dropped connections are counted out: {active}");
}

#[test]
fn drop_entry_takes_every_nth_of_the_idle_ones_with_n_packets() {
    let mut lab = Fixture::new();
    established(&mut lab, 1000..1200);
    for port in 2000..2200 {
        for _ in 0..9 {
            lab.send(&mut tcp((CLIENT, port), (VIP, 80), ACK | SYN));
        }
        lab.send(&mut tcp((CLIENT, port), (VIP, 80), ACK));
    }
    lab.let_pass(61);
    lab.set("drop_entry", "3");
    lab.let_pass(200);
    let busy = |conn: &&crate::engine::conn::Connection| conn.in_packets() > 8;
    assert_eq!(lab.director.connections().iter().filter(busy).count(), 200, "more than 8 packets");
    let idle = lab.director.connections().len() - 200;
    // Each was looked at about six times; every second look ends one.
    assert!(idle < 60, "{idle} of 200 are left");
}

#[test]
fn automatic_defences_act_when_the_table_is_nearly_full() {
    let services = Fixture::new().services;
    let now = Moment::from_ms(5);
    let config = DirectorConfig { max_connections: 64, ..DirectorConfig::new(0, 1) };
    let director = Director::new(Arc::clone(&services), config, now);
    let mut lab = Fixture { services, director, now };
    lab.set("amemthresh", "1");
    lab.set("drop_packet", "1");
    let opened = |lab: &mut Fixture, port| lab.send(&mut udp((CLIENT, port), (VIP, 53), 1));
    for port in 1000..1040 {
        assert!(matches!(opened(&mut lab, port), Verdict::Forward(_)));
    }
    lab.let_pass(2);
    // A page has room for 32 connections, and there is room for 24.
    assert_eq!(lab.services.snapshot().settings.drop_packet, 2);
    assert_eq!(opened(&mut lab, 2000), Verdict::Drop(DropReason::DropPacket));
    assert!(matches!(opened(&mut lab, 1001), Verdict::Forward(_)), "known connections are spared");
    lab.sleep(301);
    lab.let_pass(2);
    assert_eq!(lab.services.snapshot().settings.drop_packet, 1);
    assert!(matches!(opened(&mut lab, 2000), Verdict::Forward(_)));
}

#[test]
fn connections_and_templates_of_a_removed_server_end_little_by_little() {
    let mut lab = Fixture::empty();
    let web = key(Protocol::Tcp, 80);
    let spec = ServiceSpec {
        scheduler: "rr".into(),
        persistence_timeout_s: Some(600),
        ..ServiceSpec::new(web)
    };
    lab.services.add_service(spec, lab.now).unwrap();
    for server in [ACCP, BENET] {
        lab.services.add_real(&web, &masqueraded(server, 80)).unwrap();
    }
    lab.set("expire_nodest_conn", "1");
    for client in 2..42 {
        let client = format!("12.0.0.{client}");
        lab.send(&mut tcp((&client, 1000), (VIP, 80), SYN));
        lab.send(&mut tcp((&client, 1001), (VIP, 80), SYN));
    }
    lab.services.delete_real(&web, addr(BENET), 80).unwrap();
    lab.director.handle_timeout(lab.now, 30);
    assert!(lab.director.connections().len() > 40, "a small budget is kept");
    for _ in 0..3 {
        lab.director.handle_timeout(lab.now, 30);
    }
    let mut servers = lab.director.connections().iter().map(|conn| conn.real_endpoint().addr);
    assert!(servers.all(|server| server == addr(ACCP)));
    assert_eq!(lab.director.connections().len(), 40);
    assert_eq!(lab.services.templates().len(), 20);
    assert_eq!(lab.load(ACCP), (40, 0));
}

#[test]
fn a_dropped_connection_takes_its_unanswered_template_along() {
    let mut lab = Fixture::empty();
    let web = key(Protocol::Tcp, 80);
    let spec = ServiceSpec { persistence_timeout_s: Some(600), ..ServiceSpec::new(web) };
    lab.services.add_service(spec, lab.now).unwrap();
    lab.services.add_real(&web, &masqueraded(ACCP, 80)).unwrap();
    lab.director.refresh();
    let answered = "12.0.0.2";
    lab.send(&mut tcp((answered, 1000), (VIP, 80), SYN));
    lab.send(&mut tcp((ACCP, 80), (answered, 1000), SYN_ACK));
    lab.send(&mut tcp((answered, 1000), (VIP, 80), ACK));
    for port in 2000..2320 {
        lab.send(&mut tcp((answered, port), (VIP, 80), SYN));
        lab.send(&mut tcp((&format!("10.0.{}.{}", port / 256, port % 256), 1000), (VIP, 80), SYN));
    }
    lab.set("drop_entry", "3");
    lab.let_pass(1);
    let clients = lab.director.connections().iter().map(|conn| conn.client().addr);
    let (of_answered, of_others): (Vec<_>, Vec<_>) =
        clients.partition(|client| *client == addr(answered));
    let (of_answered, of_others) = (of_answered.len(), of_others.len());
    assert!(of_answered < 321 && of_others < 320, "{of_answered} and {of_others} are left");
    assert_eq!(lab.services.templates().len(), 1 + of_others, "the answered one is kept");
}
