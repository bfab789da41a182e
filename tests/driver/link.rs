//! Links that go down, come back or vanish.

use std::time::{Duration, Instant};

use ulvs::driver::af_packet::{AfPacket, AfPacketConfig};
use ulvs::driver::{Receiver, Sender, wait};
use ulvs::lab::net::{self, sandbox};

use super::support::*;

#[test]
fn a_link_that_goes_down_and_up_is_survived() {
    sandbox::run("link::a_link_that_goes_down_and_up_is_survived", || {
        let (director, peer) = hosts();
        let config = AfPacketConfig::default();
        let (mut near, mut far) = (open(&director, &config), open(&peer, &config));
        director.set_down("eth0").unwrap();
        let woken = wait(&near.receiver.readiness(), Some(Duration::from_secs(10)));
        assert!(woken.unwrap().trouble);
        assert!(!near.receiver.is_gone());
        assert_sleeps(&near.receiver);
        send(&mut near.sender, &frame(DIRECTOR_MAC, PEER_MAC, 1, 60), 64);
        assert_eq!(near.sender.counters().link_down, 1);
        director.set_up("eth0").unwrap();
        send(&mut near.sender, &frame(DIRECTOR_MAC, PEER_MAC, 2, 60), 64);
        send(&mut far.sender, &frame(PEER_MAC, DIRECTOR_MAC, 3, 60), 64);
        let marks = |frames: Vec<Vec<u8>>| frames.iter().map(|frame| frame[59]).collect::<Vec<_>>();
        assert_eq!(marks(receive_all(&mut far.receiver)), [2]);
        assert_eq!(marks(receive_all(&mut near.receiver)), [3]);
    });
}

#[test]
fn a_group_keeps_its_order_when_the_link_comes_back() {
    sandbox::run("link::a_group_keeps_its_order_when_the_link_comes_back", || {
        let (director, peer) = hosts();
        let config = AfPacketConfig::default();
        let open_group = || AfPacket::open_group("eth0", &config, 3, &by_source());
        let mut group = director.run(open_group).unwrap().unwrap();
        let mut far = open(&peer, &config);
        director.set_down("eth0").unwrap();
        director.set_up("eth0").unwrap();
        for number in 0..3 {
            let mut mac = PEER_MAC;
            mac[5] = number;
            // The kernel takes a moment until a link that is up again carries frames.
            let heard = (0..100).find_map(|_| {
                send(&mut far.sender, &frame(mac, DIRECTOR_MAC, 1, 60), 64);
                std::thread::sleep(Duration::from_millis(10));
                let mut counts =
                    group.workers.iter_mut().map(|w| receive_all(&mut w.receiver).len());
                counts.position(|count| count > 0)
            });
            assert_eq!(heard, Some(usize::from(number)));
        }
    });
}

#[test]
fn a_vanished_interface_is_reported_and_can_be_opened_again() {
    sandbox::run("link::a_vanished_interface_is_reported_and_can_be_opened_again", || {
        let (director, peer) = hosts();
        let config = AfPacketConfig::default();
        let mut near = open(&director, &config);
        director.remove_link("eth0").unwrap();
        let woken = wait(&near.receiver.readiness(), Some(Duration::from_secs(10)));
        assert!(woken.unwrap().trouble);
        assert!(near.receiver.is_gone());
        assert_sleeps(&near.receiver);
        assert_eq!(near.receiver.receive(&mut |_| panic!("nothing can come")).unwrap(), 0);
        send(&mut near.sender, &frame(DIRECTOR_MAC, PEER_MAC, 1, 60), 64);
        assert_eq!(near.sender.counters().link_down, 1);
        let error = director.run(|| AfPacket::open("eth0", &config)).unwrap().unwrap_err();
        assert!(error.to_string().starts_with("interface eth0: find interface: "), "{error}");

        net::connect(&director.end("eth0"), &peer.end("eth0")).unwrap();
        let (mut near, mut far) = (open(&director, &config), open(&peer, &config));
        send(&mut far.sender, &frame(PEER_MAC, DIRECTOR_MAC, 1, 60), 64);
        assert_eq!(receive_all(&mut near.receiver).len(), 1);
    });
}

fn assert_sleeps(receiver: &dyn Receiver) {
    let start = Instant::now();
    let woken = wait(&receiver.readiness(), Some(Duration::from_millis(20))).unwrap();
    assert_eq!(woken, Default::default(), "an error that was read wakes the worker again");
    assert!(start.elapsed() >= Duration::from_millis(20));
}

#[test]
fn loopback_can_be_opened_and_what_is_no_ethernet_cannot() {
    sandbox::run("link::loopback_can_be_opened_and_what_is_no_ethernet_cannot", || {
        let (director, _peer) = hosts();
        let config = AfPacketConfig::default();
        director.run(|| AfPacket::open("lo", &config)).unwrap().unwrap();
        let error = director.run(|| AfPacket::open("eth1", &config)).unwrap().unwrap_err();
        assert!(error.to_string().contains("eth1"), "{error}");
    });
}

/// Set for the program that has lost all privileges but one.
const ALONE: &str = "ULVS_TEST_NET_RAW_ALONE";

#[test]
fn the_privilege_of_a_plain_container_is_enough() {
    let name = "link::the_privilege_of_a_plain_container_is_enough";
    if std::env::var_os(ALONE).is_some() {
        let config = AfPacketConfig { virtual_mac: Some([2; 6]), ..Default::default() };
        AfPacket::open("eth0", &config).unwrap();
        AfPacket::open_group("eth0", &config, 2, &by_source()).unwrap();
        return;
    }
    sandbox::run(name, || {
        let (director, _peer) = hosts();
        let program = std::env::current_exe().unwrap();
        let output = director
            .command("setpriv")
            .args(["--bounding-set", "-all,+net_raw", "--inh-caps", "-all,+net_raw"])
            .arg(program)
            .args([name, "--exact"])
            .env(ALONE, "1")
            .output();
        let Ok(output) = output else { return println!("skipped: setpriv is not installed") };
        assert!(output.status.success(), "{output:?}");
    });
}
