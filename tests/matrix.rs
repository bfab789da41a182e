//! Every means of living beside the kernel × every kind of service × a host that forwards or does
//! not: captures, and the kernel's own counters, show that it neither answers nor rejects nor
//! forwards nor redirects what belongs to a virtual service; and that nothing is left after
//! `kill -9`.
//!
//! Everybody is on one link, a one-arm director, which is where a kernel has most to say: it would
//! answer at its own addresses, forward what servers reply, and tell them that they need not have
//! come to it.

mod bed;
#[path = "matrix/kinds.rs"]
mod kinds;
#[path = "matrix/raw.rs"]
mod raw;
#[path = "matrix/world.rs"]
mod world;

use std::fs::OpenOptions;
use std::net::{IpAddr, SocketAddr};

use bed::capture::{Capture, Seen};
use bed::traces;
use ulvs::lab::net::sandbox;
use world::{Driver, Means, World};

/// Has traffic of every kind that the world can have, under the eyes of everybody.
fn watch(means: Means) {
    let device = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    if let (Driver::Tun, Err(error)) = (means.driver, device) {
        return println!("skipped: /dev/net/tun cannot be opened ({error})");
    }
    for family in world::FAMILIES {
        let mut world = World::new(means, family);
        let before = traces::of(world.host("director"));
        world.start_director();
        for kind in kinds::ALL.iter().filter(|kind| (kind.is_for)(&world)) {
            (kind.configure)(&world);
        }
        let counted = world.counters();
        let captures = ["client", "real"].map(|host| Capture::start(world.host(host), "eth0"));
        let mut expected = kinds::Expected::default();
        for kind in kinds::ALL.iter().filter(|kind| (kind.is_for)(&world)) {
            println!("{means:?} {family:?} {}", kind.name);
            expected += (kind.traffic)(&world);
        }
        let [client, real] = captures.map(Capture::stop);
        judge_client(&world, &client, &expected);
        judge_real(&world, &real);
        assert_eq!(world.counters(), counted, "{means:?} {family:?}: what the kernel did");
        if !means.may_make_rules {
            // No socket holds all ports.
            let hint = world
                .refusal(&format!("ipvsadm -A -t {} -s rr -p", SocketAddr::new(world.whole(), 0)));
            assert!(hint.contains("give ulvs CAP_NET_ADMIN"), "{hint}");
        }
        (means.says)(&world.log());
        world.kill_director();
        assert_eq!(traces::of(world.host("director")), before, "as it was before");
    }
}

/// Nobody but services speaks to the client, and nobody refuses or redirects it.
fn judge_client(world: &World, seen: &[Seen], expected: &kinds::Expected) {
    let spoken: Vec<_> = seen.iter().filter(|seen| !seen.is_housekeeping()).collect();
    for seen in &spoken {
        assert!(world.virtuals().contains(&seen.source()), "{world:?}: {seen:?}");
        assert!(!seen.is_reset(), "{world:?}: {seen:?}");
    }
    let errors: Vec<u8> = spoken.iter().filter_map(|seen| seen.icmp()).collect();
    assert_eq!(
        errors,
        vec![world.unreachable(); expected.errors],
        "{world:?}: only the server's own"
    );
}

/// The server hears clients, and the director's local address where that stands in for them.
fn judge_real(world: &World, seen: &[Seen]) {
    for seen in seen.iter().filter(|seen| !seen.is_housekeeping()) {
        let port = seen.headers.destination.port;
        let to = IpAddr::from(seen.headers.destination.addr);
        let (sender, is_meant) = match port {
            kinds::FULL_NAT_PORT => (world.local(), world.is_real(to)),
            kinds::DIRECT_PORT => (world.near_client(), to == world.direct()),
            _ => (world.client(), world.is_real(to)),
        };
        assert!(seen.source() == sender && is_meant, "{world:?}: {seen:?}");
        assert_eq!(seen.icmp(), None, "{world:?}: {seen:?}");
    }
}

#[test]
fn own_link_addresses() {
    let means = Means { owned: world::Owned::Nothing, ..Means::PLAIN };
    sandbox::run("own_link_addresses", || watch(means));
}

/// The servers' gateway is the kernel, which forwards; the virtual addresses are not its.
#[test]
fn own_link_addresses_on_a_router() {
    let means = Means {
        owned: world::Owned::Gateway,
        forwards: true,
        says: |log| assert!(log.contains("answering") && log.contains(RULES), "{log}"),
        ..Means::PLAIN
    };
    sandbox::run("own_link_addresses_on_a_router", || watch(means));
}

#[test]
fn guard_sockets_with_the_privileges_of_a_container() {
    let name = "guard_sockets_with_the_privileges_of_a_container";
    sandbox::run(name, || {
        if std::process::Command::new("setpriv").arg("--version").output().is_err() {
            return println!("skipped: setpriv is not installed");
        }
        watch(Means {
            may_make_rules: false,
            says: |log| {
                assert!(log.contains("guard sockets hold") && !log.contains(RULES), "{log}")
            },
            ..Means::PLAIN
        });
    });
}

#[test]
fn guard_sockets_and_rules() {
    sandbox::run("guard_sockets_and_rules", || {
        watch(Means {
            says: |log| assert!(log.contains("guard sockets hold") && log.contains(RULES), "{log}"),
            ..Means::PLAIN
        });
    });
}

#[test]
fn guard_sockets_and_rules_on_a_router() {
    sandbox::run("guard_sockets_and_rules_on_a_router", || {
        watch(Means {
            forwards: true,
            says: |log| assert!(log.contains("guard sockets hold") && log.contains(RULES), "{log}"),
            ..Means::PLAIN
        });
    });
}

const THROUGH_A_DEVICE: Means = Means {
    driver: Driver::Tun,
    says: |log| assert!(log.contains("diverted there by nftables"), "{log}"),
    ..Means::PLAIN
};

#[test]
fn a_device() {
    sandbox::run("a_device", || watch(THROUGH_A_DEVICE));
}

#[test]
fn a_device_on_a_router() {
    sandbox::run("a_device_on_a_router", || {
        watch(Means { forwards: true, ..THROUGH_A_DEVICE });
    });
}

#[test]
fn a_device_for_addresses_that_the_kernel_does_not_have() {
    sandbox::run("a_device_for_addresses_that_the_kernel_does_not_have", || {
        watch(Means { owned: world::Owned::Gateway, forwards: true, ..THROUGH_A_DEVICE });
    });
}

const RULES: &str = "guard rules (nftables) are in force";
