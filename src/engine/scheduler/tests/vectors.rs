//! Picks worked out beforehand, scheduler by scheduler.

use super::{Service, client, destination, flow};
use crate::engine::scheduler::{Flow, Options, Tunables, hash};
use crate::engine::service::{Activity, ConfigError, SchedulerFlags};
use crate::engine::time::Moment;
use crate::packet::Addr;

/// Clients of the hash vectors.
const CLIENTS: [u32; 5] = [0x0a00_0001, 0x0a00_0002, 0xc000_0201, 0xc000_02c8, 0xcb00_714d];

#[test]
fn hash_buckets_are_those_of_the_kernel() {
    let buckets = |port, bits| CLIENTS.map(|addr| hash::bucket(addr + port, bits));
    assert_eq!(buckets(0, 8), [39, 137, 50, 53, 57]);
    assert_eq!(buckets(0, 10), [159, 550, 203, 214, 230]);
    assert_eq!(buckets(40000, 8), [203, 45, 214, 217, 221]);
}

#[test]
fn ipv6_addresses_fold_to_the_exclusive_or_of_their_words() {
    let addr = Addr::v6(0x2001_0db8_0000_0001_0000_0200_0000_0110);
    assert_eq!(hash::fold(addr), 0x2001_0db8 ^ 1 ^ 0x200 ^ 0x110);
}

#[test]
fn wrr_follows_the_vectors() {
    for (weights, expected) in [
        (&[3, 2, 1][..], "CBAABACBAABA"),
        (&[4, 2][..], "BAABAA"),
        (&[100, 100, 50][..], "CBABACBABA"),
        (&[4, 3, 2][..], "CBAABACBACBAABACBA"),
    ] {
        let mut service = Service::new("wrr", weights);
        assert_eq!(service.picks(expected.len()), expected, "weights {weights:?}");
    }
}

#[test]
fn wrr_of_extreme_weights_does_not_take_forever() {
    let mut service = Service::new("wrr", &[1, i32::MAX]);
    service.overload('B');
    assert_eq!(service.picks(3), "AAA");
    service.overload('A');
    assert_eq!(service.picks(3), "---");
}

#[test]
fn rr_goes_on_where_it_was_when_servers_come_and_go() {
    let mut service = Service::new("rr", &[1, 1, 1]);
    assert_eq!(service.picks(2), "CB");
    service.remove('B');
    assert_eq!(service.picks(2), "AC", "after the server before the removed one");
    service.remove('C');
    assert_eq!(service.picks(2), "AA");
    service.remove('A');
    assert_eq!(service.picks(1), "-");
}

#[test]
fn wlc_prefers_the_first_of_equals() {
    assert_eq!(Service::new("wlc", &[1, 2, 3]).opens(12), "CBACBCCBACBC");
    assert_eq!(Service::new("wlc", &[100, 100]).opens(6), "BABABA");
}

#[test]
fn lc_weighs_an_active_connection_like_256_inactive_ones() {
    for (inactive, expected) in [(256, "B"), (255, "A")] {
        let mut service = Service::new("lc", &[1, 1]);
        (0..inactive).for_each(|_| service.bind('A', Activity::Inactive));
        service.bind('B', Activity::Active);
        assert_eq!(service.picks(1), expected, "{inactive} inactive");
    }
}

#[test]
fn udp_has_consequences_for_those_who_look_at_active_connections_only() {
    for (scheduler, expected) in [("sed", "BBBB"), ("nq", "CCCC"), ("ovf", "BBBB")] {
        let mut service = Service::new(scheduler, &[1, 3, 2]);
        let opened: String = (0..4).map(|_| service.open(Activity::Inactive)).collect();
        assert_eq!(opened, expected, "{scheduler}");
    }
}

#[test]
fn sh_deals_buckets_by_weight_and_dh_does_not() {
    let mut by_source = Service::new("sh", &[3, 2, 1]);
    let mut by_destination = Service::new("dh", &[3, 2, 1]);
    let picks = |service: &mut Service, flow: fn(u32) -> Flow| -> String {
        CLIENTS.map(|addr| service.pick_letter(&flow(addr))).iter().collect()
    };
    assert_eq!(picks(&mut by_source, client), "AABAA");
    assert_eq!(picks(&mut by_destination, destination), "CAAAC");
}

#[test]
fn mh_maps_clients_as_the_kernel_does() {
    let mut service = Service::new("mh", &[3, 2, 1]);
    let clients = [(0x0a00_0001, 'C', 3711), (0xc000_0201, 'C', 2891), (0xcb00_714d, 'B', 2731)];
    for (addr, server, place) in clients {
        let explanation = service.explain(&client(addr));
        let falls = format!("falls on place {place} of 4093");
        assert!(explanation.note.ends_with(&falls), "{}", explanation.note);
        let other = |figure: &&String| figure.contains("this one too");
        assert_eq!(explanation.figures.iter().filter(other).count(), 1);
        assert_eq!(service.pick_letter(&client(addr)), server);
    }
    let figures = service.explain(&client(1)).figures;
    let places = figures.iter().map(|figure| figure.split(' ').next().unwrap());
    assert_eq!(places.collect::<Vec<_>>(), ["683", "1364", "2046"]);
}

#[test]
fn mh_keeps_the_table_of_a_server_whose_weight_becomes_zero() {
    let mut service = Service::new("mh", &[1, 1, 1]);
    let clients = || (0..500).map(|n| client(0x0a01_0000 + n));
    let before: Vec<_> = clients().map(|flow| service.pick_letter(&flow)).collect();
    service.edit('B', |spec| spec.weight = 0);
    let after: Vec<_> = clients().map(|flow| service.pick_letter(&flow)).collect();
    for (before, after) in before.into_iter().zip(after) {
        assert_eq!(after, if before == 'B' { '-' } else { before });
    }
}

#[test]
fn mh_with_more_servers_than_places_is_refused() {
    let mut service = Service::new("mh", &[1; 4093]);
    assert_eq!(service.try_add(1), Err(ConfigError::Invalid));
    assert_eq!(service.reals.len(), 4093);
    assert_ne!(service.picks(1), "-");
}

#[test]
fn flags_can_change_without_a_new_start() {
    let mut service = Service::new("sh", &[1, 1]);
    service.edit('B', |spec| spec.weight = 0);
    let refused = |service: &mut Service| {
        (0..50).filter(|n| service.pick_letter(&client(0x0a01_0000 + n)) == '-').count()
    };
    assert!(refused(&mut service) > 10);
    let flags = SchedulerFlags { fallback: true, ..SchedulerFlags::default() };
    service.scheduler.configure(&Options { flags, ..Options::default() });
    assert_eq!(refused(&mut service), 0);
}

#[test]
fn fo_takes_the_heaviest_and_of_equals_the_first() {
    let mut service = Service::new("fo", &[1, 9, 9]);
    assert_eq!(service.picks(2), "CC");
    service.overload('C');
    assert_eq!(service.picks(1), "B");
    service.edit('B', |spec| spec.weight = 0);
    assert_eq!(service.picks(1), "A");
}

#[test]
fn ovf_lets_a_server_have_one_connection_more_than_weight() {
    let mut service = Service::new("ovf", &[1, 4, 2]);
    assert_eq!(service.opens(10), "BBBBBCCCAA");
    assert_eq!(service.picks(1), "-");
}

#[test]
fn twos_draws_by_weight_and_takes_the_less_loaded() {
    let mut service = Service::new("twos", &[1, 3]);
    // The list is B (3), A (1): 0 to 3 draw B, 4 draws A.
    service.random.script = vec![4, 3, 3, 4];
    assert_eq!(service.picks(2), "AB", "of equals the first drawn");
    service.bind('B', Activity::Active);
    service.random.script = vec![4, 3, 3, 4, 0, 3];
    assert_eq!(service.picks(3), "AAB");
}

#[test]
fn lblc_forgets_an_idle_address_with_the_thirtieth_tick() {
    let mut service = Service::new("lblc", &[1, 1]);
    let tunables = Tunables { lblc_expiration_ms: 1000, ..Tunables::default() };
    service.scheduler.configure(&Options { tunables, ..Options::default() });
    assert_eq!(service.opens(1), "B");
    let minutes = |n: u64| Moment::from_ms(n * 60_000);
    assert_eq!(service.scheduler.handle_timeout(minutes(29)), Some(minutes(30)));
    assert!(service.explain(&flow()).note.contains("is with"));
    assert_eq!(service.scheduler.handle_timeout(minutes(30)), Some(minutes(31)));
    assert!(service.explain(&flow()).note.contains("is new"));
}

#[test]
fn lblc_memory_is_bounded_and_makes_room_for_new_addresses() {
    let mut service = Service::new("lblc", &[1, 1]);
    let known = |service: &Service| {
        let flows = (0..40_000).map(|n| destination(0x0a00_0000 + n));
        flows.filter(|flow| !service.explain(flow).note.contains("is new")).count()
    };
    for n in 0..40_000 {
        assert_ne!(service.pick_letter(&destination(0x0a00_0000 + n)), '-');
    }
    assert_eq!(known(&service), 24_576);
    // The first five sweeps find nothing idle for six minutes.
    service.scheduler.handle_timeout(Moment::from_ms(5 * 60_000));
    assert_eq!(known(&service), 24_576);
    service.scheduler.handle_timeout(Moment::from_ms(6 * 60_000));
    let left = known(&service);
    assert!((16_384 - 100..=16_384).contains(&left), "{left} left");
}

#[test]
fn removed_servers_are_let_go_with_their_service() {
    for scheduler in ["lblc", "lblcr"] {
        let mut service = Service::new(scheduler, &[1]);
        assert_eq!(service.opens(1), "A");
        let real = service.reals[0].clone();
        service.remove('A');
        service.scheduler.forget();
        assert_eq!(std::sync::Arc::strong_count(&real), 1, "{scheduler}");
    }
}

#[test]
fn a_returning_server_gets_its_addresses_back_from_lblc() {
    let mut service = Service::new("lblc", &[5, 5]);
    assert_eq!(service.opens(1), "B");
    let real = service.remove('B');
    service.add(real);
    service.bind('B', Activity::Active);
    assert_eq!(service.picks(1), "B", "although A has fewer connections");
}
