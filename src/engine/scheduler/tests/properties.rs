//! What holds for every scheduler, whatever happens to its servers.

use std::collections::HashMap;

use proptest::prelude::*;

use super::{Service, client};
use crate::engine::scheduler::{Flow, REGISTRY, Tunables};
use crate::engine::scheduler::{Options, Overhead};
use crate::engine::service::{Activity, SchedulerFlags};
use crate::engine::time::Moment;
use crate::packet::{Addr, Endpoint};

/// Something that happens to a service. Indexes are taken modulo the number of servers.
#[derive(Clone, Debug)]
enum Event {
    Add { weight: i32 },
    Remove(usize),
    Weigh { index: usize, weight: i32 },
    Limit { index: usize, upper: u32 },
    Open { client: u32, destination: u32, is_active: bool },
    Close(usize),
    Flags { fallback: bool, port: bool },
    Wait { minutes: u64 },
}

fn weight() -> impl Strategy<Value = i32> {
    prop_oneof![Just(0), 1..5i32, 1..1000i32, Just(i32::MAX), Just(i32::MAX - 1)]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => weight().prop_map(|weight| Event::Add { weight }),
        1 => any::<usize>().prop_map(Event::Remove),
        2 => (any::<usize>(), weight()).prop_map(|(index, weight)| Event::Weigh { index, weight }),
        1 => (any::<usize>(), 0..4u32).prop_map(|(index, upper)| Event::Limit { index, upper }),
        8 => (0..50u32, 0..20u32, any::<bool>()).prop_map(|(client, destination, is_active)| {
            Event::Open { client, destination, is_active }
        }),
        2 => any::<usize>().prop_map(Event::Close),
        1 => (any::<bool>(), any::<bool>())
            .prop_map(|(fallback, port)| Event::Flags { fallback, port }),
        1 => (0..3000u64).prop_map(|minutes| Event::Wait { minutes }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn only_servers_that_can_are_picked(events in prop::collection::vec(event(), 1..80)) {
        for (name, _) in REGISTRY {
            Model::new(name).play(&events);
        }
    }

    #[test]
    fn wrr_gives_every_server_its_weight_in_a_cycle(
        weights in prop::collection::vec(0..20i32, 1..8),
    ) {
        let mut service = Service::new("wrr", &weights);
        let total: i32 = weights.iter().sum();
        let divisor = weights.iter().fold(0, |a, b| gcd(a, *b)).max(1);
        let picks = service.picks((total / divisor) as usize);
        for (letter, weight) in ('A'..).zip(&weights) {
            let times = picks.chars().filter(|picked| *picked == letter).count();
            prop_assert_eq!(times as i32, weight / divisor, "{} in {}", letter, picks);
        }
    }

    #[test]
    fn rr_gives_all_servers_the_same(count in 1..20usize, rounds in 1..5usize) {
        let mut service = Service::new("rr", &vec![1; count]);
        let picks = service.picks(count * rounds);
        for letter in ('A'..).take(count) {
            prop_assert_eq!(picks.matches(letter).count(), rounds);
        }
    }

    #[test]
    fn mh_is_balanced_and_a_removed_server_moves_few_others(
        count in 2..12usize, removed in any::<prop::sample::Index>(),
    ) {
        let mut service = Service::new("mh", &vec![1; count]);
        let places = places(&service);
        let (least, most) = (places.iter().min().unwrap(), places.iter().max().unwrap());
        prop_assert!(most - least <= 1, "{:?}", places);

        let before = map(&mut service);
        let letter = service.letter(removed.index(count));
        service.remove(letter);
        let after = map(&mut service);
        let kept = before.iter().filter(|(_, server)| **server != letter);
        let moved = kept.filter(|(client, server)| after[*client] != **server).count();
        // The paper measures a few percent; naive hashing moves most.
        prop_assert!(moved * 4 < before.len(), "{} of {} moved", moved, before.len());
    }
}

/// A service with the connections of its servers, and the rules that always hold.
struct Model {
    name: &'static str,
    service: Service,
    open: Vec<(std::sync::Arc<crate::engine::service::RealServer>, Activity)>,
    now: Moment,
}

impl Model {
    fn new(name: &'static str) -> Self {
        Self { name, service: Service::new(name, &[]), open: Vec::new(), now: Moment::default() }
    }

    fn play(&mut self, events: &[Event]) {
        for event in events {
            self.handle(event);
        }
    }

    fn handle(&mut self, event: &Event) {
        let count = self.service.reals.len();
        match *event {
            Event::Add { weight } => self.service.try_add(weight).unwrap(),
            Event::Flags { fallback, port } => self.set_flags(fallback, port),
            Event::Wait { minutes } => self.wait(minutes),
            Event::Open { client, destination, is_active } => {
                self.open(client, destination, is_active);
            }
            Event::Close(index) if !self.open.is_empty() => {
                let (real, activity) = self.open.swap_remove(index % self.open.len());
                real.unbind_connection(activity);
            }
            Event::Remove(index) if count > 0 => {
                self.service.remove_at(index % count);
            }
            Event::Weigh { index, weight } if count > 0 => {
                self.service.edit_at(index % count, |spec| spec.weight = weight);
            }
            Event::Limit { index, upper } if count > 0 => {
                self.service.edit_at(index % count, |spec| spec.upper_threshold = upper);
            }
            Event::Close(_) | Event::Remove(_) | Event::Weigh { .. } | Event::Limit { .. } => {}
        }
    }

    fn set_flags(&mut self, fallback: bool, port: bool) {
        let flags = SchedulerFlags { fallback, port, third: false };
        let overhead = if port { Overhead::WithTotal } else { Overhead::Classic };
        let tunables = Tunables { overhead, lblcr_expiration_ms: 90_000, ..Tunables::default() };
        self.service.scheduler.configure(&Options { flags, tunables });
    }

    fn wait(&mut self, minutes: u64) {
        self.now = Moment::from_ms(self.now.as_ms() + minutes * 60_000);
        let next = self.service.scheduler.handle_timeout(self.now);
        assert!(next.is_none_or(|next| next > self.now), "{}", self.name);
    }

    fn open(&mut self, client: u32, destination: u32, is_active: bool) {
        let endpoint = |addr| Endpoint::new(Addr::v4(addr), 1024 + client as u16);
        let flow = Flow {
            client: endpoint(0x0a01_0000 + client),
            destination: endpoint(0xc633_6400 + destination),
        };
        let Service { scheduler, reals, random, .. } = &mut self.service;
        let explanation = scheduler.explain(reals, &flow, self.now);
        assert_eq!(explanation.figures.len(), reals.len(), "{}", self.name);
        let Some(index) = scheduler.pick(reals, &flow, self.now, random) else {
            assert!(self.may_refuse(), "{} refused, though some server can", self.name);
            return;
        };
        let real = &reals[index];
        assert!(real.weight() > 0, "{} picked a server of weight 0", self.name);
        let may_be_overloaded = self.name == "lblc";
        assert!(!real.is_overloaded() || may_be_overloaded, "{} overloads", self.name);
        let activity = if is_active { Activity::Active } else { Activity::Inactive };
        real.bind_connection(activity);
        self.open.push((real.clone(), activity));
    }

    /// Hashing refuses the clients of a server that cannot, and ovf may be full.
    fn may_refuse(&self) -> bool {
        let can = |real: &std::sync::Arc<crate::engine::service::RealServer>| {
            real.weight() > 0 && !real.is_overloaded()
        };
        ["sh", "dh", "mh", "ovf", "none"].contains(&self.name)
            || !self.service.reals.iter().any(can)
    }
}

/// Places of the table each server has, in the order of the list.
fn places(service: &Service) -> Vec<usize> {
    let figures = service.explain(&client(1)).figures;
    figures.iter().map(|figure| figure.split(' ').next().unwrap().parse().unwrap()).collect()
}

/// The server of each of a thousand clients.
fn map(service: &mut Service) -> HashMap<u32, char> {
    (0..1000).map(|n| (n, service.pick_letter(&client(0x0a01_0000 + n)))).collect()
}

fn gcd(a: i32, b: i32) -> i32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
