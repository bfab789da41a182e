//! The story of the persistence lab: who came once stays with the same server, and for how long.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use super::pages::web_at;
use super::tables::{Entry, template};
use super::{Pages, Scene, Story, Told};
use crate::lab::topology::{Program, Topology, persistence};

/// NAT with persistence.
pub(super) struct Persistence;

const WEB: [&str; 4] = [
    "ipvsadm -C",
    "ipvsadm -A -t 10.1.1.35:80 -s rr -p 10",
    "ipvsadm -a -t 10.1.1.35:80 -r 192.168.122.128:80 -m",
    "ipvsadm -a -t 10.1.1.35:80 -r 192.168.122.129:80 -m",
];

const DATABASE: [&str; 3] = [
    "ipvsadm -A -t 10.1.1.35:3306 -s rr -p 10",
    "ipvsadm -a -t 10.1.1.35:3306 -r 192.168.122.128:3306 -m",
    "ipvsadm -a -t 10.1.1.35:3306 -r 192.168.122.129:3306 -m",
];

/// For how long a template lives after a client's last new connection, as the commands have it.
const LIFE_S: u32 = 10;
/// For how long a template is renewed that runs out while connections of its client exist.
const RENEWAL_S: u32 = 60;

impl Story for Persistence {
    fn topology(&self) -> Topology {
        persistence::topology()
    }

    fn tell(&self, scene: &mut Scene<'_>) -> Told {
        scene.heading("The director starts; clients are to stay with their servers (-p 10)")?;
        scene.show_director()?;
        scene.typed_all("director", &WEB)?;
        let count = scene.requests(4);
        let first = scene.fetch("client", web(), count)?;
        let second = scene.fetch("client2", web(), count)?;
        let made = show_templates(scene)?;
        let renewed = wait_for_renewal(scene)?;
        let later = scene.fetch("client", web(), 1)?;

        scene.promise_answers("requests", &[&first[..], &second, &later].concat());
        scene.promise_server("client's pages", &first, "real2");
        scene.promise_server("client2's pages", &second, "real1");
        promise_templates(scene, &made);
        promise_renewal(scene, renewed.as_ref());
        scene.promise_server("client's page after that", &later, "real2");
        databases(scene)
    }

    fn invitation(&self) -> Vec<(&'static str, String)> {
        vec![
            ("client", format!("curl -s http://{}/", persistence::OUTSIDE)),
            ("client2", format!("curl -s http://{}/", persistence::OUTSIDE)),
            ("client", format!("mysql -h {} -e 'select @@hostname'", persistence::OUTSIDE)),
            ("director", "ipvsadm -lnc".to_owned()),
            ("director", "ipvsadm -Ln --persistent-conn".to_owned()),
        ]
    }
}

fn web() -> SocketAddr {
    web_at(persistence::OUTSIDE)
}

fn database() -> SocketAddr {
    SocketAddr::new(persistence::OUTSIDE.into(), 3306)
}

/// Which client is bound to which server.
const BOUND: [(std::net::Ipv4Addr, &str); 2] =
    [(persistence::CLIENT, "192.168.122.129:80"), (persistence::CLIENT2, "192.168.122.128:80")];

/// Shows the table. Returns both clients' templates.
fn show_templates(scene: &Scene<'_>) -> Told<Vec<Option<Entry>>> {
    scene.heading("How the director remembers it")?;
    let listing = scene.typed("director", "ipvsadm -lnc")?;
    scene.remark(
        "The entries with port 0 are the templates: each binds a client, whatever its port, to a \
         server. Their state is ASSURED once a connection was established, NONE until then \
         (kernels before 4.19, and most textbooks, show NONE always).",
    )?;
    Ok(BOUND.iter().map(|(client, _)| template(&listing, (*client).into(), web())).collect())
}

fn promise_templates(scene: &mut Scene<'_>, templates: &[Option<Entry>]) {
    for ((client, server), found) in BOUND.iter().zip(templates) {
        let is_right = found.as_ref().is_some_and(|entry| {
            entry.server.to_string() == *server
                && entry.state == "ASSURED"
                && entry.expires_s <= LIFE_S
        });
        let text = format!("ipvsadm -lnc shows a template {client}:0 for {server}, up to 10 s");
        scene.promise(is_right, text);
    }
}

/// Waits until the first client's template has run out and was renewed. Returns it, if it was.
fn wait_for_renewal(scene: &Scene<'_>) -> Told<Option<Entry>> {
    scene.heading("What happens when the ten seconds are over?")?;
    scene.remark("The lab waits for it ...")?;
    let client = IpAddr::from(persistence::CLIENT);
    let deadline = Instant::now() + Duration::from_secs(2 * u64::from(LIFE_S));
    while Instant::now() < deadline {
        thread::sleep(Duration::from_millis(200));
        let listing = scene.host("director").run(&["ipvsadm", "-lnc"])?.stdout;
        if template(&listing, client, web()).is_none_or(|entry| entry.expires_s > LIFE_S) {
            break;
        }
    }
    let listing = scene.typed("director", "ipvsadm -lnc")?;
    scene.remark(
        "A template that runs out while connections of its client still exist (TIME_WAIT counts, \
         for two minutes) is renewed for 60 s; else it would be gone.",
    )?;
    Ok(template(&listing, client, web()))
}

fn promise_renewal(scene: &mut Scene<'_>, renewed: Option<&Entry>) {
    let is_right = renewed.is_some_and(|entry| (LIFE_S + 1..=RENEWAL_S).contains(&entry.expires_s));
    scene.promise(is_right, "the template was renewed for 60 s, as its connections still exist");
}

/// The same for a database, which is not up at first: persistence does not ask for that.
fn databases(scene: &mut Scene<'_>) -> Told {
    scene.heading("The same for MySQL, where nobody has started the databases yet")?;
    scene.typed_all("director", &DATABASE)?;
    let refused = scene.query("client", database(), 1)?;
    let listing = scene.typed("director", "ipvsadm -lnc")?;
    let bound = template(&listing, persistence::CLIENT.into(), database());
    scene.remark("Nothing was established, and still the client is bound: state NONE.")?;
    scene.remark("Now the databases are started, on real1 and on real2.")?;
    for host in ["real1", "real2"] {
        scene.host(host).start_programs(vec![Program::database()])?;
    }
    let count = scene.requests(2);
    let first = scene.query("client", database(), count)?;
    let second = scene.query("client2", database(), count)?;

    scene.promise(is_refused(&refused), "a database that is not up refuses, through the director");
    let is_right = bound.as_ref().is_some_and(|entry| entry.state == "NONE");
    scene.promise(is_right, "its client is bound all the same: a template in state NONE");
    scene.promise_answers("questions to databases", &[&first[..], &second].concat());
    scene.promise_server("client's database", &first, "real2");
    scene.promise_server("client2's database", &second, "real1");
    Ok(())
}

fn is_refused(answers: &Pages) -> bool {
    answers.iter().all(|answer| answer.as_ref().is_err_and(|why| why.contains("refused")))
}
