//! The story of the firewall mark lab: two ports that are one service.

use std::net::SocketAddr;

use super::direct::Direct;
use super::pages::web_at;
use super::{Scene, Story, Told};
use crate::lab::topology::{Topology, fwmark};

/// Direct routing by firewall mark.
pub(super) struct Fwmark;

/// The words of the first two are those of the textbook's iptables.
const MARKED: [&str; 7] = [
    "ulvs mark -t mangle -A PREROUTING -p tcp -d 192.168.122.2 --dport 80 -j MARK --set-mark 10",
    "ulvs mark -t mangle -A PREROUTING -p tcp -d 192.168.122.2 --dport 3306 -j MARK --set-mark 10",
    "ulvs mark -S",
    "ipvsadm -C",
    "ipvsadm -A -f 10 -s rr",
    "ipvsadm -a -f 10 -r 192.168.122.128 -g",
    "ipvsadm -a -f 10 -r 192.168.122.129 -g",
];

/// Who came to one of the ports goes to the same server at the other.
const PERSISTENT: &str = "ipvsadm -E -f 10 -s rr -p 60";

impl Story for Fwmark {
    fn topology(&self) -> Topology {
        fwmark::topology()
    }

    fn tell(&self, scene: &mut Scene<'_>) -> Told {
        let direct = Direct {
            address: fwmark::VIRTUAL,
            service: web_at(fwmark::VIRTUAL),
            outside: ("client", "eth0"),
        };
        let database = SocketAddr::new(fwmark::VIRTUAL.into(), 3306);
        direct.show_quiet(scene)?;
        scene
            .heading("The director starts; ports 80 and 3306 get the mark 10, and it a service")?;
        scene.show_director()?;
        scene.typed_all("director", &MARKED)?;
        let listing = scene.typed("director", "ipvsadm -Ln")?;
        direct.show_answers(scene)?;

        let count = scene.requests(3);
        let mut turns = direct.fetch(scene, count)?;
        scene.heading("The database's port takes the next turn: the mark is one service")?;
        turns.extend(scene.query("client", database, count)?);

        scene.heading("Ports that belong together should reach the same server: persistence")?;
        scene.typed("director", PERSISTENT)?;
        let mut bound = scene.fetch_more("client", direct.service, scene.requests(2))?;
        bound.extend(scene.query("client", database, scene.requests(2))?);
        let persistent = scene.typed("director", "ipvsadm -Ln")?;
        let connections = scene.typed("director", "ipvsadm -Lnc")?;
        scene.remark(
            "The template of a mark is for protocol IP, and has the mark in the place of the \
             virtual address: 10 is 0.0.0.10.",
        )?;

        scene.promise_line("ipvsadm -Ln", &listing, "FWM 10 rr");
        for server in ["192.168.122.128:0", "192.168.122.129:0"] {
            scene.promise_server_listed(&listing, server, "Route", 1);
        }
        scene.promise_answers("requests", &[&turns[..], &bound].concat());
        scene.promise_turns("rr over both ports", &turns, &["real2", "real1"]);
        scene.promise_line("ipvsadm -Ln", &persistent, "FWM 10 rr persistent 60");
        let first = bound.first().and_then(|page| page.as_ref().ok());
        let server = first.map_or_else(String::new, |page| page.server.clone());
        scene.promise_server("with -p 60, both ports", &bound, &server);
        let has_template = connections.lines().any(|line| line.contains(" 0.0.0.10:0 "));
        scene.promise(has_template, "ipvsadm -Lnc shows the template of mark 10");
        Ok(())
    }

    fn invitation(&self) -> Vec<(&'static str, String)> {
        vec![
            ("client", format!("curl -s http://{}/", fwmark::VIRTUAL)),
            ("client", format!("mysql -h {} -e 'select @@hostname'", fwmark::VIRTUAL)),
            ("director", "ulvs mark -S".to_owned()),
            ("director", "ipvsadm -Ln".to_owned()),
        ]
    }
}
