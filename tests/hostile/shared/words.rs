//! What users write, damaged: rules files, `ulvs mark`, `ulvs snat`, settings, scenarios. The way of a
//! step says which; for altered ones it hardly ever fits, which is what should be survived.

use std::sync::Arc;

use ulvs::control::client::{Director as Administrator, InProcess};
use ulvs::control::handler::Handler;
use ulvs::control::ipvsadm::names::NoNames;
use ulvs::control::rules;
use ulvs::engine::Moment;
use ulvs::engine::service::ServiceTable;
use ulvs::simulate::play as play_steps;
use ulvs::simulate::scenario::parse_scenario;

use super::director::Alone;
use super::script::{Script, Step};

const NOW: Moment = Moment::from_ms(1 << 20);
/// Scenarios are played if they are short, and sleep for less than this altogether.
const MOST_STEPS: usize = 12;
const LONGEST_SLEEP_S: f64 = 3600.0;

pub fn play(script: &Script) {
    let table = Arc::new(ServiceTable::new(1));
    let handler = Handler::new(Arc::clone(&table), Alone);
    for step in &script.steps {
        let Step::Bytes { way, bytes, .. } = step else { continue };
        let text = String::from_utf8_lossy(bytes);
        let mut transport = InProcess { handler: &handler, now: NOW };
        let before = table.epoch();
        let refused = match way % 5 {
            0 => {
                let refused = rules::apply("rules", &text, &mut transport, &mut NoNames).err();
                refused
                    .filter(|error| {
                        assert!(error.line >= 1 && !error.message.is_empty(), "{error:?}");
                        text.lines().count() == 1
                    })
                    .map(drop)
            }
            1 => Administrator::new(&mut transport).edit_marks(&text).err().map(drop),
            2 => Administrator::new(&mut transport).edit_snat(&text).err().map(drop),
            3 => set(&text, &mut transport).then_some(()),
            _ => {
                simulate(&text);
                None
            }
        };
        if refused.is_some() {
            assert_eq!(table.epoch(), before, "what is refused changes nothing: {text}");
        }
    }
    let mut transport = InProcess { handler: &handler, now: NOW };
    let _ = rules::apply("rules", "-D -t 203.0.113.7:99", &mut transport, &mut NoNames);
    rules::apply("rules", "-A -t 203.0.113.7:99 -s sh", &mut transport, &mut NoNames).unwrap();
}

/// Sets what `NAME=VALUE` says; returns whether that was refused.
fn set(text: &str, transport: &mut InProcess<'_, Alone>) -> bool {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    Administrator::new(transport).set_setting(name.trim(), value).is_err()
}

fn simulate(text: &str) {
    match parse_scenario(text) {
        Ok(steps) => {
            let slept: f64 = text
                .split_whitespace()
                .filter_map(|word| word.parse::<f64>().ok())
                .filter(|number| *number > 0.0)
                .sum();
            if steps.len() <= MOST_STEPS && slept < LONGEST_SLEEP_S * 10.0 {
                let _ = play_steps(&steps, Vec::new());
            }
        }
        Err(error) => assert!(error.line >= 1 && !error.why.is_empty(), "{error:?}"),
    }
}
