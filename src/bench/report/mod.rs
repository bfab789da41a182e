//! What a benchmark has found, and its forms: a table, JSON, a chart.

mod chart;
mod machine;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

pub use machine::Machine;

use super::contender::Contender;
use super::load::{Latency, Load, Measurement, Pressure};

/// Everything that a benchmark has found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Where it ran.
    pub machine: Machine,
    /// What was asked for.
    pub settings: Settings,
    /// The contenders, in the order of the plan.
    pub entries: Vec<Entry>,
}

/// How a benchmark was run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Measurements of each load with each contender.
    pub rounds: u32,
    /// Length of one measurement.
    pub seconds: f64,
    /// Time before it that did not count.
    pub warm_up_seconds: f64,
    /// Connections that the HTTP loads kept busy.
    pub concurrency: usize,
    /// Threads or processes of each contender; its own choice if none.
    pub workers: Option<u16>,
}

/// What was found of one contender.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Who it is.
    pub contender: Contender,
    /// Whether it took part.
    pub standing: Standing,
    /// What was measured, one for each load that it can carry.
    pub figures: Vec<Figure>,
}

/// Whether a contender took part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "standing", rename_all = "snake_case")]
pub enum Standing {
    /// It did.
    Measured {
        /// Its own word on its version.
        version: String,
    },
    /// It is not on this machine.
    Skipped {
        /// What is missing.
        reason: String,
    },
    /// It could not be started, or did not do what it should.
    Failed {
        /// What happened.
        reason: String,
    },
}

impl Standing {
    /// Why it did not take part, if it did not.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Standing::Measured { .. } => None,
            Standing::Skipped { reason } | Standing::Failed { reason } => Some(reason),
        }
    }
}

/// One load with one contender, over all rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The load.
    pub load: Load,
    /// The unit of the rates.
    pub unit: String,
    /// The median of the rounds that could be measured.
    pub median: Option<f64>,
    /// One sample for each round.
    pub samples: Vec<Sample>,
}

/// One load with one contender in one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Sample {
    /// It could be measured, though perhaps with failures.
    Measured(Measurement),
    /// It could not.
    Failed {
        /// What happened.
        reason: String,
    },
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sample::Failed { reason } => write!(f, "FAILED, {reason}"),
            Sample::Measured(Measurement { rate, failures, .. }) => {
                write!(f, "{}", plain(*rate))?;
                match failures.total() {
                    0 => Ok(()),
                    _ => write!(f, " ! {failures}"),
                }
            }
        }
    }
}

impl Entry {
    /// An entry for which nothing has been measured yet.
    pub fn new(contender: Contender, standing: Standing, loads: &[Load]) -> Self {
        let carried = loads.iter().filter(|load| contender.declines(**load).is_none());
        Self { contender, standing, figures: carried.map(|&load| Figure::new(load)).collect() }
    }

    /// Adds what a round has found.
    pub fn add(&mut self, load: Load, sample: Sample) {
        if let Some(figure) = self.figures.iter_mut().find(|figure| figure.load == load) {
            figure.samples.push(sample);
            figure.median = figure.median_of(|measurement| Some(measurement.rate));
        }
    }

    /// What was measured of a load.
    pub fn figure(&self, load: Load) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.load == load)
    }
}

impl Figure {
    fn new(load: Load) -> Self {
        Self { load, unit: load.unit().to_owned(), median: None, samples: Vec::new() }
    }

    fn measurements(&self) -> impl Iterator<Item = &Measurement> {
        self.samples.iter().filter_map(|sample| match sample {
            Sample::Measured(measurement) => Some(measurement),
            Sample::Failed { .. } => None,
        })
    }

    /// The median over the rounds of something that was measured in each.
    fn median_of(&self, value: impl Fn(&Measurement) -> Option<f64>) -> Option<f64> {
        median(self.measurements().filter_map(value).collect())
    }

    /// The median of one percentile over the rounds.
    fn latency_us(&self, percentile: impl Fn(&Latency) -> f64) -> Option<f64> {
        self.median_of(|measurement| measurement.latency.as_ref().map(&percentile))
    }

    /// The median over the rounds of how hard the director was pressed.
    fn pressure(&self, value: impl Fn(&Pressure) -> f64) -> Option<f64> {
        self.median_of(|measurement| measurement.pressure.as_ref().map(&value))
    }

    /// The lowest and highest rate.
    fn range(&self) -> Option<(f64, f64)> {
        let rates = self.measurements().map(|measurement| measurement.rate);
        rates.fold(None, |range, rate| {
            let (low, high) = range.unwrap_or((rate, rate));
            Some((rate.min(low), rate.max(high)))
        })
    }

    /// What went wrong, over all rounds. Empty is good.
    fn troubles(&self) -> Vec<String> {
        let reasons = self.samples.iter().filter_map(|sample| match sample {
            Sample::Failed { reason } => Some(reason.clone()),
            Sample::Measured(measurement) => {
                (measurement.failures.total() > 0).then(|| measurement.failures.to_string())
            }
        });
        reasons.collect()
    }
}

impl Report {
    /// The median of a load with a contender.
    pub fn median(&self, contender: Contender, load: Load) -> Option<f64> {
        let entry = self.entries.iter().find(|entry| entry.contender == contender)?;
        entry.figure(load)?.median
    }

    /// A median in units of another contender's.
    pub fn ratio(&self, load: Load, contender: Contender, to: Contender) -> Option<f64> {
        let base = self.median(to, load).filter(|base| *base > 0.0)?;
        Some(self.median(contender, load)? / base)
    }

    /// The loads that were measured, in order.
    fn loads(&self) -> Vec<Load> {
        let measured = |load: &Load| self.entries.iter().any(|entry| entry.figure(*load).is_some());
        Load::ALL.into_iter().filter(measured).collect()
    }

    /// Whether every contender that is on this machine has been measured without a failure.
    pub fn is_sound(&self) -> bool {
        self.entries.iter().all(|entry| {
            !matches!(entry.standing, Standing::Failed { .. })
                && entry.figures.iter().all(|figure| figure.troubles().is_empty())
        })
    }

    /// The report as JSON.
    ///
    /// **Errors** — none that are known.
    pub fn to_json(&self) -> io::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// The report as text for a terminal.
    pub fn to_table(&self) -> String {
        table::render(self)
    }

    /// The report as a picture.
    pub fn to_svg(&self) -> String {
        chart::render(self)
    }
}

/// The middle value, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// A rate with its unit as people write it.
fn human(value: f64, load: Load) -> String {
    let unit = match load {
        Load::Download | Load::Upload => "bit/s",
        Load::Connections | Load::Requests | Load::Packets => "/s",
    };
    plain(value) + unit
}

/// Three digits and a factor, ready for a unit.
fn plain(value: f64) -> String {
    let (scaled, prefix) = match value {
        v if v >= 999.5e6 => (v / 1e9, "G"),
        v if v >= 999.5e3 => (v / 1e6, "M"),
        v if v >= 999.5 => (v / 1e3, "k"),
        v => (v, ""),
    };
    let digits = match scaled {
        s if s >= 99.95 => 0,
        s if s >= 9.995 => 1,
        _ => 2,
    };
    format!("{scaled:.digits$} {prefix}")
}
