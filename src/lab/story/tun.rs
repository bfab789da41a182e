//! The story of the tunnel lab.

use std::net::IpAddr;

use super::direct::Direct;
use super::pages::web_at;
use super::{Pages, Scene, Story, Told};
use crate::lab::services::watch::LinkWatch;
use crate::lab::topology::Topology;
use crate::lab::topology::tun::{DIRECTOR, FAR, NEAR, VIRTUAL, topology};
use crate::simulate::packet::{Packet, dissect};

/// Tunnels of one kind.
pub(super) struct Tun {
    /// What `ipvsadm --tun-type` and `ulvs decap --type` call it.
    kind: &'static str,
    /// What people call such packets.
    words: &'static str,
    /// The options of a real server of that kind.
    options: &'static str,
    /// What `ipvsadm --tun-info` says of it.
    info: &'static str,
    /// What makes a real server's kernel unpack it.
    by_kernel: &'static str,
}

impl Tun {
    /// IP in IP.
    pub(super) const IPIP: Self = Self {
        kind: "ipip",
        words: "IP in IP",
        options: "-i",
        info: "ipip",
        by_kernel: "modprobe ipip; ip address add 172.16.1.100/32 dev tunl0; ip link set tunl0 up; \
                    sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.tunl0.rp_filter=0",
    };
    /// Generic routing encapsulation.
    pub(super) const GRE: Self = Self {
        kind: "gre",
        words: "GRE (generic routing encapsulation)",
        options: "-i --tun-type gre",
        info: "gre:-c",
        by_kernel: "modprobe ip_gre; ip address add 172.16.1.100/32 dev gre0; ip link set gre0 up; \
                    sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.gre0.rp_filter=0",
    };
    /// Generic UDP encapsulation.
    pub(super) const GUE: Self = Self {
        kind: "gue",
        words: "GUE (generic UDP encapsulation)",
        options: "-i --tun-type gue --tun-port 6080",
        info: "gue:6080:-c",
        by_kernel: "modprobe -a fou ipip; ip fou add port 6080 gue; ip address add 172.16.1.100/32 dev \
                    tunl0; ip link set tunl0 up; sysctl -w net.ipv4.conf.all.rp_filter=0 \
                    net.ipv4.conf.tunl0.rp_filter=0",
    };
}

const REALS: [(&str, std::net::Ipv4Addr); 2] = [("real1", NEAR), ("real2", FAR)];

impl Story for Tun {
    fn topology(&self) -> Topology {
        topology(self.kind)
    }

    fn tell(&self, scene: &mut Scene<'_>) -> Told {
        self.show_ends(scene)?;
        scene.heading("The director starts, and is told what to do")?;
        scene.show_director()?;
        scene.typed("director", "ipvsadm -C")?;
        scene.typed("director", &format!("ipvsadm -A -t {VIRTUAL}:80 -s rr"))?;
        for (_, real) in REALS {
            let options = self.options;
            scene.typed("director", &format!("ipvsadm -a -t {VIRTUAL}:80 -r {real} {options}"))?;
        }
        let pages = fetch(scene, scene.requests(6))?;
        scene.promise_answers("requests", &pages);
        scene.promise_turns("rr", &pages, &["real2", "real1"]);
        scene.heading("What the director says now")?;
        scene.typed("director", "ipvsadm -Lnc")?;
        direct().transfer(scene)?;
        scene.heading("What the director has counted")?;
        let listing = scene.typed("director", "ipvsadm -Ln --tun-info")?;
        for (_, real) in REALS {
            let line = format!("-> {real}:80 Tunnel {} 1", self.info);
            let words: Vec<&str> = line.split(' ').collect();
            let has =
                |line: &str| line.split_ascii_whitespace().take(words.len()).eq(words.clone());
            let text = format!("ipvsadm --tun-info shows {real}:80 with Tunnel {}", self.info);
            scene.promise(listing.lines().any(has), text);
        }
        scene.typed("director", "ipvsadm -Ln --stats")?;
        scene.remark(
            "Nothing comes back through the director. OutPkts counts what it said itself: ICMP \
             errors that tell the client what fits into a tunnel (path MTU discovery).",
        )?;
        Ok(())
    }

    fn invitation(&self) -> Vec<(&'static str, String)> {
        vec![
            ("client", format!("curl -s http://{VIRTUAL}/")),
            ("client", format!("ip route get {VIRTUAL}")),
            ("director", "ipvsadm -Ln --tun-info".to_owned()),
            ("real1", "ip address show dev decap0".to_owned()),
            ("real1", "tcpdump -ni eth0".to_owned()),
        ]
    }
}

impl Tun {
    /// Shows the far ends of the tunnels, as their kernels have them.
    fn show_ends(&self, scene: &mut Scene<'_>) -> Told {
        scene.heading(format_args!("The real servers have {VIRTUAL} and unpack {}", self.words))?;
        let mut all_have_it = true;
        for (host, _) in REALS {
            let kind = self.kind;
            scene.command(
                host,
                format_args!("ulvs decap --vip {VIRTUAL} --type {kind} --from {DIRECTOR}"),
            )?;
            scene.host(host).said.iter().try_for_each(|line| scene.remark(line))?;
            let addresses = scene.host(host).namespace().addresses(DEVICE)?;
            all_have_it &= addresses.iter().any(|own| own.address() == IpAddr::V4(VIRTUAL));
        }
        scene.remark(format_args!(
            "The lab has started that. A kernel with the modules does it by a device of its own: {}",
            self.by_kernel
        ))?;
        scene.promise(all_have_it, format_args!("real1 and real2 have {VIRTUAL} on {DEVICE}"));
        Ok(())
    }
}

fn direct() -> Direct {
    Direct { address: VIRTUAL, service: web_at(VIRTUAL), outside: ("client", "eth0") }
}

/// Has the client fetch pages, and shows what travels over the links.
fn fetch(scene: &mut Scene<'_>, count: usize) -> Told<Pages> {
    let watch = |host: &str| scene.host(host).namespace().run(|| LinkWatch::open("eth0"));
    let mut at_director = watch("director")??;
    let mut at_reals = Vec::new();
    for (host, _) in REALS {
        at_reals.push(watch(host)??);
    }
    let pages = scene.fetch("client", direct().service, count)?;
    let virtual_address = IpAddr::V4(VIRTUAL);
    let arrivals = at_director.arrivals()?;
    let requests = arrivals.iter().filter(|each| each.destination == virtual_address).count();
    let strays = arrivals.iter().filter(|each| each.source == virtual_address).count();
    scene.line(format_args!(
        "  to the director came {requests} packets for {VIRTUAL}, and {strays} from {VIRTUAL}"
    ))?;
    let mut all_wrapped = true;
    for ((host, _), watch) in REALS.into_iter().zip(&mut at_reals) {
        let packets: Vec<Packet> = watch.packets()?.iter().filter_map(|b| dissect(b)).collect();
        let wrapped = packets.iter().filter(|packet| is_wrapped(packet)).count();
        let bare = packets.iter().filter(|packet| packet.dst == virtual_address).count();
        all_wrapped &= bare == 0 && (wrapped > 0 || count < REALS.len());
        scene
            .line(format_args!("  to {host} came {wrapped} packets in tunnels; the first one:"))?;
        if let Some(first) = packets.iter().find(|packet| is_wrapped(packet)) {
            scene.line(format_args!("      {}", brief(first)))?;
        }
    }
    scene.promise(requests > 0, "requests go to the director");
    scene.promise(all_wrapped, "to the real servers they go in tunnels, and no other way");
    let answered = pages.iter().any(Result::is_ok);
    scene.promise(
        answered && strays == 0,
        "replies go from the real servers to the client, not through the director",
    );
    Ok(pages)
}

/// Whether a packet has another for the virtual address inside.
fn is_wrapped(packet: &Packet) -> bool {
    let inner = packet.inner.as_ref();
    packet.src == IpAddr::V4(DIRECTOR)
        && inner.is_some_and(|inner| inner.dst == IpAddr::V4(VIRTUAL))
}

/// Who sends a packet to whom, and what is inside: everything before the first field.
fn brief(packet: &Packet) -> String {
    let text = packet.to_string();
    let (outer, inner) = text.split_once('{').unwrap_or((&text, ""));
    let [outer, inner] = [outer, inner].map(|part| {
        let names = part.split(' ').take_while(|word| !word.contains('=') && *word != "df");
        names.collect::<Vec<_>>().join(" ")
    });
    format!("{outer} {{{inner}}}")
}

/// The first device of `ulvs decap`.
const DEVICE: &str = "decap0";
