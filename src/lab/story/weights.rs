//! The story of the weights lab: equal turns, then two to one, then none.

use super::pages::web_at;
use super::{Scene, Story, Told};
use crate::lab::topology::{Topology, weights};

/// NAT with weights.
pub(super) struct Weights;

const EQUAL: [&str; 4] = [
    "ipvsadm -C",
    "ipvsadm -A -t 192.168.1.109:80 -s rr",
    "ipvsadm -a -t 192.168.1.109:80 -r 192.168.0.112:80 -m",
    "ipvsadm -a -t 192.168.1.109:80 -r 192.168.0.113:80 -m",
];

/// A service that is in use gets another scheduler, and its servers get weights.
const TWO_TO_ONE: [&str; 3] = [
    "ipvsadm -E -t 192.168.1.109:80 -s wrr",
    "ipvsadm -e -t 192.168.1.109:80 -r 192.168.0.112:80 -m -w 1",
    "ipvsadm -e -t 192.168.1.109:80 -r 192.168.0.113:80 -m -w 2",
];

/// No new connections for a server that is to be repaired.
const QUIET: &str = "ipvsadm -e -t 192.168.1.109:80 -r 192.168.0.112:80 -m -w 0";

impl Story for Weights {
    fn topology(&self) -> Topology {
        weights::topology()
    }

    fn tell(&self, scene: &mut Scene<'_>) -> Told {
        let service = web_at(weights::OUTSIDE);
        scene.heading("The director starts, and gives both servers equal turns")?;
        scene.show_director()?;
        scene.typed_all("director", &EQUAL)?;
        let equal = scene.fetch("client", service, scene.requests(4))?;

        scene.heading("The second server is twice as strong: weight 2")?;
        scene.typed_all("director", &TWO_TO_ONE)?;
        scene.remark("The service went on all the time. The client tries it:")?;
        let first = scene.fetch_more("client", service, 1)?;
        let weighted = scene.fetch("client", service, scene.requests(6))?;
        scene.remark("wrr goes in rounds: of three pages, two are rs2's and one is rs1's.")?;
        let listing = scene.typed("director", "ipvsadm -Ln")?;

        scene.heading("The first server is to be repaired: weight 0")?;
        scene.typed("director", QUIET)?;
        scene.remark("It keeps the connections that it has, and gets no new ones.")?;
        let rest = scene.fetch("client", service, scene.requests(3))?;

        let all = [&equal[..], &first, &weighted, &rest].concat();
        scene.promise_answers("requests", &all);
        scene.promise_turns("rr", &equal, &["real2", "real1"]);
        scene.promise_turns("wrr with weights 1 and 2", &weighted, &["real1", "real2", "real2"]);
        scene.promise_server("weight 0 for real1", &rest, "real2");
        scene.promise_server_listed(&listing, "192.168.0.112:80", "Masq", 1);
        scene.promise_server_listed(&listing, "192.168.0.113:80", "Masq", 2);
        Ok(())
    }

    fn invitation(&self) -> Vec<(&'static str, String)> {
        vec![
            ("client", format!("curl -s http://{}/", weights::OUTSIDE)),
            ("director", "ipvsadm -Ln --stats".to_owned()),
            ("director", QUIET.replace("-w 0", "-w 1")),
        ]
    }
}
