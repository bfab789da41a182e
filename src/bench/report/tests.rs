//! The forms of a report that is not measured but made up, so that every figure is known.

use super::*;
use crate::bench::load::Failures;

fn measurement(rate: f64) -> Measurement {
    Measurement { rate, seconds: 2.0, failures: Failures::default(), latency: None, pressure: None }
}

fn entry(contender: Contender, rates: &[(Load, [f64; 3])]) -> Entry {
    let loads: Vec<_> = rates.iter().map(|(load, _)| *load).collect();
    let version = format!("{} 1.0", contender.name());
    let mut entry = Entry::new(contender, Standing::Measured { version }, &loads);
    for (load, samples) in rates {
        for &rate in samples {
            let mut measurement = measurement(rate);
            if *load == Load::Requests {
                let us = (1e9 / rate).round();
                let [p50_us, p90_us, p99_us, p999_us, max_us] =
                    [1.0, 2.0, 3.0, 4.0, 5.0].map(|n| n * us);
                measurement.latency = Some(Latency { p50_us, p90_us, p99_us, p999_us, max_us });
            }
            entry.add(*load, Sample::Measured(measurement));
        }
    }
    entry
}

fn report() -> Report {
    let skipped = Standing::Skipped { reason: "not installed, skipped".to_owned() };
    Report {
        machine: Machine {
            processor: "Example <CPU> & Co".to_owned(),
            cores: 2,
            kernel: "6.1.0".to_owned(),
            architecture: "x86_64".to_owned(),
            virtualized: true,
            ulvs: "0.1.0".to_owned(),
            debug_build: false,
        },
        settings: Settings {
            rounds: 3,
            seconds: 2.0,
            warm_up_seconds: 0.5,
            concurrency: 64,
            workers: None,
        },
        entries: vec![
            entry(
                Contender::Routing,
                &[(Load::Download, [16.1e9, 16.4e9, 17e9]), (Load::Requests, [100e3, 101e3, 99e3])],
            ),
            entry(
                Contender::Nft,
                &[(Load::Download, [13e9, 14e9, 12e9]), (Load::Requests, [80e3, 80e3, 80e3])],
            ),
            Entry::new(Contender::Haproxy, skipped, &[]),
            entry(
                Contender::Ulvs,
                &[(Load::Download, [14e9, 15e9, 14.7e9]), (Load::Requests, [90e3, 70e3, 100e3])],
            ),
        ],
    }
}

#[test]
fn the_median_is_the_middle_and_of_even_counts_the_mean() {
    assert_eq!(median(vec![]), None);
    assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
}

#[test]
fn ratios_are_of_medians() {
    let ratio = report().ratio(Load::Download, Contender::Ulvs, Contender::Nft).unwrap();
    assert!((ratio - 14.7 / 13.0).abs() < 1e-9);
    assert_eq!(report().ratio(Load::Download, Contender::Ulvs, Contender::Haproxy), None);
}

#[test]
fn the_table_has_medians_ratios_and_who_is_missing() {
    let expected = "\
ulvs 0.1.0 on Example <CPU> & Co, 2 cores shared by client, director and servers, \
virtual machine, Linux 6.1.0 x86_64
medians of 3 rounds, 2 s each after 0.5 s of warm-up

 load                         contender            median        lowest       highest   x routing   x nft
──────────────────────────────────────────────────────────────────────────────────────────────────────────────
 bulk TCP, server to client   plain routing   16.4 Gbit/s   16.1 Gbit/s   17.0 Gbit/s        1.00    1.26
                              nft DNAT        13.0 Gbit/s   12.0 Gbit/s   14.0 Gbit/s        0.79    1.00
                              ulvs (NAT)      14.7 Gbit/s   14.0 Gbit/s   15.0 Gbit/s        0.90    1.13

 keep-alive requests          plain routing       100 k/s      99.0 k/s       101 k/s        1.00    1.25
                              nft DNAT           80.0 k/s      80.0 k/s      80.0 k/s        0.80    1.00
                              ulvs (NAT)         90.0 k/s      70.0 k/s       100 k/s        0.90    1.12

 latency, us           contender         p50     p90     p99   p99.9   longest
───────────────────────────────────────────────────────────────────────────────
 keep-alive requests   plain routing   10000   20000   30000   40000     50000
                       nft DNAT        12500   25000   37500   50000     62500
                       ulvs (NAT)      11111   22222   33333   44444     55555

routing: routing 1.0
nft: nft 1.0
haproxy: not installed, skipped
ulvs: ulvs 1.0
latency: of a closed loop of 64 connections, each of which waits for its response; \
a stall delays the requests behind it uncounted
";
    assert_eq!(report().to_table(), expected);
}

#[test]
fn json_comes_back_as_it_went() {
    let json = report().to_json().unwrap();
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["entries"][0]["figures"][0]["median"], 16.4e9);
    assert_eq!(value["entries"][0]["figures"][0]["unit"], "bit/s");
    assert_eq!(value["entries"][2]["standing"]["reason"], "not installed, skipped");
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report());
}

#[test]
fn failures_are_marked_wherever_the_figure_is_shown() {
    let mut report = report();
    assert!(report.is_sound());
    let failures = Failures { broken: 7, ..Failures::default() };
    let doubtful = Measurement { failures, ..measurement(9e9) };
    report.entries[3].add(Load::Download, Sample::Measured(doubtful));
    report.entries[1].add(Load::Requests, Sample::Failed { reason: "it ended".to_owned() });
    assert!(!report.is_sound());
    let table = report.to_table();
    assert!(table.contains("! download with ulvs: 7 broken off"), "{table}");
    assert!(table.contains("! requests with nft: it ended"), "{table}");
    assert!(report.to_svg().contains("(with failures)"));
}

#[test]
fn a_contender_that_failed_makes_the_report_unsound() {
    let mut report = report();
    report.entries[2].standing = Standing::Failed { reason: "no page".to_owned() };
    assert!(!report.is_sound());
    assert!(report.to_table().contains("haproxy: FAILED, no page"));
}

#[test]
fn the_chart_has_a_bar_for_every_figure_in_proportion() {
    let svg = report().to_svg();
    assert!(svg.starts_with("<svg"));
    assert!(svg.contains("Example &lt;CPU&gt; &amp; Co"), "{svg}");
    let widths: Vec<f64> = svg
        .lines()
        .filter(|line| line.contains("<rect") && line.contains("rx="))
        .filter_map(|line| line.split(" width=\"").nth(1)?.split('"').next()?.parse().ok())
        .collect();
    let [routing, nft, ulvs] = widths[..3] else { panic!("{svg}") };
    // Three each for the two loads and the latency.
    assert_eq!(widths.len(), 9);
    assert!((nft / routing - 13.0 / 16.4).abs() < 0.01);
    assert!((ulvs / routing - 14.7 / 16.4).abs() < 0.01);
    assert!(svg.contains("14.7 Gbit/s  ×0.90"));
}

#[test]
fn rates_are_written_with_three_digits() {
    for (value, load, expected) in [
        (16.41e9, Load::Download, "16.4 Gbit/s"),
        (999.6e6, Load::Upload, "1.00 Gbit/s"),
        (101_234.0, Load::Requests, "101 k/s"),
        (8_765.0, Load::Connections, "8.77 k/s"),
        (1.234e6, Load::Packets, "1.23 M/s"),
        (12.0, Load::Packets, "12.0 /s"),
        (0.0, Load::Packets, "0.00 /s"),
    ] {
        assert_eq!(human(value, load), expected);
    }
}
