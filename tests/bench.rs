//! A whole benchmark in namespaces, as short as it can be. Nothing here depends on speed.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use ulvs::bench::report::{Report, Sample, Standing};
use ulvs::bench::{Contender, Launch, Load, Observer, Plan, Timing, run};
use ulvs::lab::net::sandbox;

/// Counts what it is told.
#[derive(Default)]
struct Heard {
    prepared: usize,
    left_out: Vec<String>,
    measured: u64,
}

impl Observer for Heard {
    fn preparing(&mut self, _: Contender) {
        self.prepared += 1;
    }

    fn left_out(&mut self, contender: Contender, reason: &str) {
        self.left_out.push(format!("{}: {reason}", contender.name()));
    }

    fn measuring(&mut self, _: u32, _: Load, _: Contender) {}

    fn measured(&mut self, _: Load, _: Contender, _: &Sample) {
        self.measured += 1;
    }
}

fn plan(contenders: &[Contender], loads: &[Load]) -> Plan {
    Plan {
        contenders: contenders.to_vec(),
        loads: loads.to_vec(),
        rounds: 1,
        timing: Timing { warm_up: Duration::from_millis(50), measured: Duration::from_millis(300) },
        launch: Launch {
            workers: None,
            program: PathBuf::from(env!("CARGO_BIN_EXE_ulvs")),
            directory: env::temp_dir(),
        },
    }
}

fn benchmark(plan: &Plan) -> (Report, Heard) {
    let mut heard = Heard::default();
    let report = run(plan, &mut heard).unwrap();
    (report, heard)
}

#[test]
fn routing_carries_every_load_without_failures() {
    sandbox::run("routing_carries_every_load_without_failures", || {
        let plan = plan(&[Contender::Routing], &Load::ALL);
        let (report, heard) = benchmark(&plan);
        assert!(report.is_sound(), "{}", report.to_table());
        for load in Load::ALL {
            let median = report.median(Contender::Routing, load);
            assert!(median.is_some_and(|rate| rate > 0.0), "{load:?}: {median:?}");
            assert_eq!(report.ratio(load, Contender::Routing, Contender::Routing), Some(1.0));
        }
        assert_eq!((heard.prepared, heard.measured), (1, plan.steps()));
        assert!(heard.left_out.is_empty());
    });
}

#[test]
fn nft_and_proxies_are_verified_or_say_why_not() {
    sandbox::run("nft_and_proxies_are_verified_or_say_why_not", || {
        let contenders = [Contender::Nft, Contender::Haproxy, Contender::Nginx];
        let (report, heard) = benchmark(&plan(&contenders, &[Load::Upload, Load::Connections]));
        for entry in &report.entries {
            match &entry.standing {
                Standing::Measured { version } => assert!(!version.is_empty()),
                Standing::Skipped { reason } => {
                    println!("skipped: {}: {reason}", entry.contender.name());
                    assert!(heard.left_out.iter().any(|line| line.contains(reason)));
                }
                Standing::Failed { reason } => panic!("{}: {reason}", entry.contender.name()),
            }
        }
        assert!(report.is_sound(), "{}", report.to_table());
    });
}

#[test]
fn a_director_that_does_not_start_is_reported_as_failed() {
    sandbox::run("a_director_that_does_not_start_is_reported_as_failed", || {
        let mut plan = plan(&[Contender::Ulvs], &[Load::Upload]);
        plan.launch.program = PathBuf::from("/bin/false");
        let (report, heard) = benchmark(&plan);
        let Standing::Failed { reason } = &report.entries[0].standing else {
            panic!("{:?}", report.entries[0]);
        };
        assert!(reason.contains("false ended (exit status: 1)"), "{reason}");
        assert!(!report.is_sound());
        assert_eq!((heard.left_out.len(), heard.measured), (1, 0));
    });
}
