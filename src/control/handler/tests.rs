use hashbrown::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::*;
use crate::control::client::{Director, Failure, InProcess};
use crate::engine::service::{Protocol, RealSpec, ServiceSpec};

/// A world in which edits take a while, and may have a problem.
#[derive(Default)]
struct Slow {
    /// Edits that are under way, and as many as there were at most.
    under_way: AtomicUsize,
    most: AtomicUsize,
    problem: Option<&'static str>,
}

impl Slow {
    fn take_a_while(&self) {
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        (0..100).for_each(|_| thread::yield_now());
        self.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Host for Slow {
    fn connections(&self, _each: &mut dyn FnMut(ConnectionView) -> ControlFlow<()>) {}

    fn hold_ports(
        &self,
        _addr: Addr,
        ports: RangeInclusive<u16>,
    ) -> Result<RangeInclusive<u16>, String> {
        self.take_a_while();
        Ok(ports)
    }

    fn settle(&self) -> Result<(), String> {
        self.take_a_while();
        self.problem.map_or(Ok(()), |problem| Err(problem.to_owned()))
    }
}

fn handler(host: Slow) -> Handler<Slow> {
    Handler::new(Arc::new(ServiceTable::new(1)), host)
}

fn key(port: u16) -> ServiceKey {
    ServiceKey::Address { protocol: Protocol::Tcp, addr: Addr::v4(0x0c00_0001), port }
}

#[test]
fn edits_of_several_clients_are_all_kept() {
    let handler = handler(Slow::default());
    let rule = |client: u8, number: u8| {
        format!("-A POSTROUTING -s 10.0.{client}.{number} -j SNAT --to-source 12.0.0.1")
    };
    thread::scope(|scope| {
        for client in 0..4 {
            let handler = &handler;
            scope.spawn(move || {
                let mut transport = InProcess { handler, now: Moment::default() };
                let mut director = Director::new(&mut transport);
                for number in 0..16 {
                    director.edit_snat(&rule(client, number)).unwrap();
                    let port = 1000 + 16 * u16::from(client) + u16::from(number);
                    director.add_service(&ServiceSpec::new(key(port))).unwrap();
                }
            });
        }
    });
    let snapshot = handler.table.snapshot();
    let sources: HashSet<_> = snapshot.snat.iter().map(|rule| rule.source).collect();
    assert_eq!((sources.len(), snapshot.snat.len(), snapshot.services().count()), (64, 64, 64));
    assert_eq!(handler.host.most.load(Ordering::SeqCst), 1);
}

#[test]
fn what_is_added_is_taken_back_and_what_is_changed_has_a_remark() {
    let handler = handler(Slow { problem: Some("no"), ..Slow::default() });
    let spec = ServiceSpec::new(key(80));
    let real = RealSpec::new(Addr::v4(0x0a00_0001), 80);
    let (table, now) = (&handler.table, Moment::default());
    let mut transport = InProcess { handler: &handler, now };
    let mut director = Director::new(&mut transport);
    let refused = |result| match result {
        Err(Failure::Refused { errno, hint }) => (errno, hint),
        other => panic!("{other:?}"),
    };
    let busy = (Errno::EBUSY, Some("no".to_owned()));
    assert_eq!(refused(director.add_service(&spec)), busy);
    assert_eq!(table.snapshot().services().count(), 0);
    table.add_service(spec.clone(), now).unwrap();
    assert_eq!(refused(director.add_real(&key(80), &real)), busy);
    assert_eq!(table.view(&key(80)).unwrap().reals, []);
    table.add_real(&key(80), &real).unwrap();
    let remark = Some("no".to_owned());
    assert_eq!(director.edit_service(&spec).unwrap(), remark);
    assert_eq!(director.edit_real(&key(80), &real).unwrap(), remark);
    let rule = "-A POSTROUTING -j SNAT --to-source 12.0.0.1";
    assert_eq!(director.edit_snat(rule).unwrap(), remark);
    assert_eq!(director.delete_real(&key(80), &real).unwrap(), None);
}

#[test]
fn rules_that_were_changed_meanwhile_are_not_replaced() {
    let table = ServiceTable::new(1);
    let hold = |_, ports| Ok(ports);
    let seen = table.snapshot().snat.clone();
    snat::edit(&table, "-A POSTROUTING -j SNAT --to-source 12.0.0.1", hold).unwrap();
    assert!(!table.replace_snat(&seen, Vec::new()));
    let mut rules = table.snapshot().snat.clone();
    let old = rules.clone();
    rules[0].ports = 61_000..=61_099;
    assert!(table.replace_snat(&old, rules.clone()));
    assert_eq!(table.snapshot().snat, rules);
}
