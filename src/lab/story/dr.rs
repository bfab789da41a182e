//! The stories of the direct routing labs.

use std::net::SocketAddr;

use super::direct::Direct;
use super::pages::web_at;
use super::{Scene, Story, Told};
use crate::lab::topology::Topology;
use crate::lab::topology::dr::{router, segment, tutorial};

/// Direct routing, with a router between the client and the director.
pub(super) struct Tutorial;

/// Direct routing with everybody in one segment.
pub(super) struct Segment;

/// Direct routing behind a router that has the public address.
pub(super) struct Router;

impl Story for Tutorial {
    fn topology(&self) -> Topology {
        tutorial::topology()
    }

    fn tell(&self, scene: &mut Scene<'_>) -> Told {
        let direct = Direct {
            address: tutorial::VIRTUAL,
            service: web_at(tutorial::VIRTUAL),
            outside: ("router", "in"),
        };
        begin(scene, &direct, &EQUAL)?;
        let equal = direct.fetch(scene, scene.requests(6))?;
        show_tables(scene)?;
        scene.heading("The first server is twice as strong: weight 2")?;
        scene.typed_all("director", &TWO_TO_ONE)?;
        let weighted = scene.fetch("client", direct.service, scene.requests(6))?;
        scene.promise_answers("requests", &[&equal[..], &weighted].concat());
        scene.promise_turns("rr", &equal, &["real2", "real1"]);
        scene.promise_turns("wrr with weights 2 and 1", &weighted, &["real2", "real1", "real1"]);
        end(scene, &direct, ["192.168.0.112:80", "192.168.0.113:80"], [2, 1])
    }

    fn invitation(&self) -> Vec<(&'static str, String)> {
        invitation(web_at(tutorial::VIRTUAL))
    }
}

const EQUAL: [&str; 4] = [
    "ipvsadm -C",
    "ipvsadm -A -t 192.168.0.110:80 -s rr",
    "ipvsadm -a -t 192.168.0.110:80 -r 192.168.0.112:80 -g -w 1",
    "ipvsadm -a -t 192.168.0.110:80 -r 192.168.0.113:80 -g -w 1",
];

const TWO_TO_ONE: [&str; 3] = [
    "ipvsadm -E -t 192.168.0.110:80 -s wrr",
    "ipvsadm -e -t 192.168.0.110:80 -r 192.168.0.112:80 -g -w 2",
    "ipvsadm -e -t 192.168.0.110:80 -r 192.168.0.113:80 -g -w 1",
];

impl Story for Segment {
    fn topology(&self) -> Topology {
        segment::topology()
    }

    fn tell(&self, scene: &mut Scene<'_>) -> Told {
        let direct = Direct {
            address: segment::VIRTUAL,
            service: web_at(segment::VIRTUAL),
            outside: ("client", "eth0"),
        };
        begin(scene, &direct, &LEAST_CONNECTIONS)?;
        let pages = direct.fetch(scene, scene.requests(6))?;
        show_tables(scene)?;
        scene.promise_answers("requests", &pages);
        scene.promise_turns("wlc, equal weights and loads", &pages, &["real2", "real1"]);
        end(scene, &direct, ["172.16.1.10:80", "172.16.1.20:80"], [2, 2])
    }

    fn invitation(&self) -> Vec<(&'static str, String)> {
        invitation(web_at(segment::VIRTUAL))
    }
}

const LEAST_CONNECTIONS: [&str; 4] = [
    "ipvsadm -C",
    "ipvsadm -A -t 172.16.1.100:80 -s wlc",
    "ipvsadm -a -t 172.16.1.100:80 -r 172.16.1.10 -w 2 -g",
    "ipvsadm -a -t 172.16.1.100:80 -r 172.16.1.20 -w 2 -g",
];

impl Story for Router {
    fn topology(&self) -> Topology {
        router::topology()
    }

    fn tell(&self, scene: &mut Scene<'_>) -> Told {
        let direct = Direct {
            address: router::VIRTUAL,
            service: web_at(router::PUBLIC),
            outside: ("router", "in"),
        };
        begin(scene, &direct, &BEHIND)?;
        let pages = direct.fetch(scene, scene.requests(6))?;
        scene.remark(format_args!(
            "The client knows {} only. The router sends its connections to {}, and gives the \
             real servers' replies their public address back.",
            router::PUBLIC,
            router::VIRTUAL
        ))?;
        show_tables(scene)?;
        scene.promise_answers("requests", &pages);
        scene.promise_turns("rr", &pages, &["real2", "real1"]);
        end(scene, &direct, ["192.168.122.128:80", "192.168.122.129:80"], [1, 1])
    }

    fn invitation(&self) -> Vec<(&'static str, String)> {
        invitation(web_at(router::PUBLIC))
    }
}

const BEHIND: [&str; 4] = [
    "ipvsadm -C",
    "ipvsadm -A -t 192.168.122.2:80 -s rr",
    "ipvsadm -a -t 192.168.122.2:80 -r 192.168.122.128 -g",
    "ipvsadm -a -t 192.168.122.2:80 -r 192.168.122.129 -g",
];

fn begin(scene: &mut Scene<'_>, direct: &Direct, commands: &[&str]) -> Told {
    direct.show_quiet(scene)?;
    scene.heading("The director starts, and is told what to do")?;
    scene.show_director()?;
    scene.typed_all("director", commands)?;
    direct.show_answers(scene)
}

fn show_tables(scene: &Scene<'_>) -> Told {
    scene.heading("What the director says now")?;
    scene.typed("director", "ipvsadm -Lnc")?;
    scene.remark(
        "It sees the client's packets only, so a connection that the client has closed is in \
         FIN_WAIT.",
    )?;
    Ok(())
}

fn end(scene: &mut Scene<'_>, direct: &Direct, servers: [&str; 2], weights: [u32; 2]) -> Told {
    direct.transfer(scene)?;
    scene.heading("What the director has counted")?;
    let listing = scene.typed("director", "ipvsadm -Ln")?;
    scene.typed("director", "ipvsadm -Ln --stats")?;
    scene.remark("OutPkts and OutBytes stay 0: nothing comes back through the director.")?;
    for (server, weight) in servers.into_iter().zip(weights) {
        scene.promise_server_listed(&listing, server, "Route", weight);
    }
    Ok(())
}

fn invitation(service: SocketAddr) -> Vec<(&'static str, String)> {
    vec![
        ("client", format!("curl -s http://{}/", service.ip())),
        ("director", "ipvsadm -Ln --stats".to_owned()),
        ("real1", "ip address show dev lo".to_owned()),
        ("real1", "tcpdump -eni eth0 port 80".to_owned()),
    ]
}
