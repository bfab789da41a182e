use super::*;
use crate::engine::ftp;
use crate::engine::service::{Protocol, RealSpec, ServiceKey, ServiceSpec};
use crate::engine::time::Moment;
use crate::packet::Addr;

const CLIENT: Addr = Addr::v4(0x0c00_0002);
const VIRTUAL: Addr = Addr::v4(0x0c00_0001);

fn service(port: u16) -> ServiceSpec {
    let protocol = Protocol::Tcp;
    ServiceSpec::new(ServiceKey::Address { protocol, addr: VIRTUAL, port })
}

fn key(service: &ServiceSpec, client: Addr, port: u16) -> TemplateKey {
    TemplateKey::new(service, Protocol::Tcp, client, Endpoint::new(VIRTUAL, port))
}

fn real() -> Arc<RealServer> {
    Arc::new(RealServer::new(&RealSpec::new(Addr::v4(0xc0a8_c86e), 80), 1))
}

fn at(seconds: u64) -> Moment {
    Moment::from_ms(5_000_000 + seconds * 1000)
}

#[test]
fn keys_follow_the_services_port_and_netmask() {
    let other = Addr::v4(0x0c00_00ff);
    let mut web = service(80);
    assert_ne!(key(&web, CLIENT, 80), key(&web, other, 80));
    web.netmask = 0xffff_ff00;
    assert_eq!(key(&web, CLIENT, 80), key(&web, other, 80));
    assert_eq!(key(&web, CLIENT, 80).virtual_endpoint.port, 80);
    for port in [0, ftp::CONTROL_PORT] {
        let every = service(port);
        assert_eq!(key(&every, CLIENT, 21), key(&every, CLIENT, 2000));
    }
    let mut six = service(80);
    let client = Addr::v6(0x2001_0db8_00aa_0000_0000_0000_0000_0001);
    six.netmask = 64;
    assert_eq!(key(&six, client, 80).client, Addr::v6(client.bits() >> 64 << 64));
    six.netmask = 0;
    assert_eq!(key(&six, client, 80).client, Addr::UNSPECIFIED);
}

#[test]
fn an_idle_template_expires_and_a_held_one_gets_minutes() {
    let (mut table, real) = (TemplateTable::default(), real());
    let key = key(&service(80), CLIENT, 80);
    let held = table.insert(key.clone(), Arc::clone(&real), 80, 3, at(0)).unwrap();
    table.expire(at(4), u32::MAX);
    let (page, _) = table.page(0, 10, at(4));
    // Its timer runs from when it was looked at, here a second late.
    assert_eq!((page.len(), page[0].remaining_ms), (1, 60_000));
    drop(held);
    assert_eq!(real.persistent(), 1);
    assert!(table.find(&key, false, at(63)).is_some(), "its time begins anew");
    table.expire(at(122), u32::MAX);
    assert_eq!(table.len(), 1);
    table.expire(at(124), u32::MAX);
    assert_eq!((table.len(), real.persistent()), (0, 0));
    assert!(table.find(&key, false, at(124)).is_none());
}

#[test]
fn a_template_is_not_followed_after_its_time_even_before_its_timer_ran() {
    let (mut table, real) = (TemplateTable::default(), real());
    let key = key(&service(80), CLIENT, 80);
    table.insert(key.clone(), Arc::clone(&real), 80, 3, at(0)).unwrap();
    assert!(table.page(0, 10, at(3)).0.is_empty());
    assert!(table.find(&key, false, at(3)).is_none());
    assert_eq!((table.len(), real.persistent()), (0, 0));
}

#[test]
fn a_retired_template_makes_room_for_the_next() {
    let (mut table, gone, next) = (TemplateTable::default(), real(), real());
    let key = key(&service(80), CLIENT, 80);
    table.insert(key.clone(), Arc::clone(&gone), 80, 60, at(0)).unwrap();
    gone.set_available(false);
    assert!(table.find(&key, false, at(1)).is_none());
    table.insert(key.clone(), Arc::clone(&next), 80, 60, at(1)).unwrap();
    gone.set_available(true);
    let found = table.find(&key, false, at(2)).unwrap();
    assert!(Arc::ptr_eq(found.real(), &next));
    let (page, _) = table.page(0, 10, at(2));
    let ports: Vec<_> = page.iter().map(|view| view.key.virtual_endpoint.port).collect();
    assert_eq!(ports, [RETIRED_PORT, 80]);
    table.expire(at(62), u32::MAX);
    drop(found);
    assert_eq!((gone.persistent(), next.persistent()), (0, 1));
    assert!(table.find(&key, false, at(61)).is_some());
}

#[test]
fn a_full_table_takes_no_more_and_pages_are_whole() {
    let (mut table, real, web) = (TemplateTable::with_limit(5), real(), service(80));
    let mut clients = (0..6).map(|client| {
        let key = key(&web, Addr::v4(client), 80);
        table.insert(key, Arc::clone(&real), 80, 60, at(0)).is_some()
    });
    assert_eq!(clients.by_ref().filter(|taken| *taken).count(), 5);
    let (first, next) = table.page(0, 3, at(0));
    let (second, end) = table.page(next.unwrap(), 3, at(0));
    assert_eq!((first.len(), second.len(), end), (3, 2, None));
}
