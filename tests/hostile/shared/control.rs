//! The control socket's handler under hostile netlink messages.

use std::ops::ControlFlow;
use std::sync::Arc;

use ulvs::control::client::{Director as Administrator, InProcess};
use ulvs::control::handler::Handler;
use ulvs::control::ipvsadm::names::NoNames;
use ulvs::control::netlink::frames;
use ulvs::control::rules;
use ulvs::engine::Moment;
use ulvs::engine::service::{Protocol, ServiceKey, ServiceTable};
use ulvs::packet::Addr;

use super::director::Alone;
use super::script::{Script, Step};

const NOW: Moment = Moment::from_ms(1 << 20);
const CANARY_KEY: ServiceKey =
    ServiceKey::Address { protocol: Protocol::Tcp, addr: Addr::v4(0xcb00_7107), port: 99 };
const CANARY: [&str; 2] =
    ["-A -t 203.0.113.7:99 -s sh", "-a -t 203.0.113.7:99 -r 203.0.113.8:99 -m -w 7"];
/// The most datagrams that a request may be answered with here: there are few services.
const MOST_REPLIES: usize = 4096;

pub fn play(script: &Script) {
    let table = Arc::new(ServiceTable::new(1));
    let handler = Handler::new(Arc::clone(&table), Alone);
    apply(&handler, "-A -t 12.0.0.1:80 -s wlc\n-a -t 12.0.0.1:80 -r 192.168.200.110:80 -m")
        .unwrap();
    for step in &script.steps {
        let Step::Bytes { bytes, .. } = step else { continue };
        throw(&handler, &table, bytes);
        check_canary(&handler);
    }
}

fn throw(handler: &Handler<Alone>, table: &ServiceTable, datagram: &[u8]) {
    let before = (table.epoch(), table.views());
    let (mut count, mut refused, mut messages) = (0, 0, 0);
    handler.handle(datagram, NOW, &mut |reply| {
        count += 1;
        let mut read = 0;
        for frame in frames(&reply) {
            read += frame.whole.len();
            messages += 1;
            refused += usize::from(frame.outcome().is_some_and(|outcome| outcome.error.is_some()));
        }
        assert_eq!(read, reply.len(), "a reply is made of whole messages");
        assert!(count < MOST_REPLIES, "a request is answered without end");
        ControlFlow::Continue(())
    });
    // A datagram may hold several requests, of which some may be quiet about their success.
    let is_refused = messages == 1 && refused == 1 && frames(datagram).count() == 1;
    if is_refused {
        assert_eq!(before, (table.epoch(), table.views()), "a refused edit changes nothing");
    }
}

/// Whatever was edited, an administrator can go on.
fn check_canary(handler: &Handler<Alone>) {
    let _ = apply(handler, "-D -t 203.0.113.7:99");
    apply(handler, &CANARY.join("\n")).unwrap();
    let mut transport = InProcess { handler, now: NOW };
    let mut administrator = Administrator::new(&mut transport);
    let services = administrator.services().unwrap();
    let key = services.iter().map(|view| view.spec.key).find(|key| *key == CANARY_KEY);
    let key = key.expect("the service was added");
    let reals = administrator.reals(&key).unwrap();
    assert_eq!(reals.len(), 1);
    assert_eq!(reals[0].spec.weight, 7);
    apply(handler, "-D -t 203.0.113.7:99").unwrap();
}

fn apply(handler: &Handler<Alone>, text: &str) -> Result<(), rules::RuleError> {
    rules::apply("rules", text, &mut InProcess { handler, now: NOW }, &mut NoNames)
}
