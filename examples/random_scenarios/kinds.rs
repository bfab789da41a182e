//! The kinds of scenarios, and what each is made of.

use clap::builder::PossibleValuesParser;

use super::commands;
use super::dice::Dice;
use super::world::Step::{
    AddServer, AddService, ClientError, ClientPacket, ClientReply, Connections, Counters,
    EditServer, EditService, Fragments, List, NewFlows, OldFlows, RemoveServer, RemoveService,
    ReviveServer, ServerError, ServerPacket, ServerReply, Setting, Sleep, Stray, Timeouts, Zero,
};
use super::world::{Profile, World};

/// A kind of scenarios.
pub struct Kind {
    /// Its name, and that of its folder.
    pub name: &'static str,
    about: &'static str,
    content: Content,
}

enum Content {
    /// Services, flows and packets.
    Played(Profile),
    /// Commands only.
    Commands,
}

/// The names of all kinds, for the command line.
pub fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(ALL.iter().map(|kind| kind.name))
}

impl Kind {
    /// The scenario of a seed.
    pub fn scenario(&self, dice: &mut Dice, seed: u64) -> String {
        let lines = match &self.content {
            Content::Played(profile) => World::new(dice, profile).play(),
            Content::Commands => commands::lines(dice),
        };
        format!("# Random {} (seed {seed}).\n{}\n", self.about, lines.join("\n"))
    }
}

const EVERY_SCHEDULER: &str = "rr wrr lc wlc lblc lblcr dh sh sed nq fo ovf mh";

const BASE: Profile = Profile {
    services: 1..=2,
    schedulers: EVERY_SCHEDULER,
    methods: "-m -m -g",
    protocols: "tcp tcp tcp udp",
    weight: 8,
    ipv6: 20,
    persistent: 10,
    one_packet: 10,
    marked: 15,
    port_zero: 5,
    thresholds: 15,
    short_timeouts: 30,
    settings: &[],
    steps: 10..=25,
    choices: &[(1, NewFlows)],
};

/// Every kind.
pub const ALL: &[Kind] = &[
    Kind {
        name: "servers",
        about: "weights, servers that come and go, and flows",
        content: Content::Played(Profile {
            protocols: "tcp tcp udp",
            thresholds: 25,
            choices: &[
                (30, NewFlows),
                (14, OldFlows),
                (6, AddServer),
                (8, EditServer),
                (5, RemoveServer),
                (4, ReviveServer),
                (3, EditService),
                (1, RemoveService),
                (2, List),
                (3, Sleep),
                (2, Connections),
            ],
            ..BASE
        }),
    },
    Kind {
        name: "persistence",
        about: "persistent clients",
        content: Content::Played(Profile {
            persistent: 85,
            port_zero: 25,
            marked: 25,
            weight: 3,
            settings: &[("expire_quiescent_template", "0 1 1"), ("expire_nodest_conn", "0 1")],
            choices: &[
                (30, NewFlows),
                (14, OldFlows),
                (3, ClientPacket),
                (3, ServerReply),
                (2, AddServer),
                (4, EditServer),
                (4, RemoveServer),
                (4, ReviveServer),
                (2, EditService),
                (2, RemoveService),
                (2, AddService),
                (2, Setting),
                (2, List),
                (6, Sleep),
                (6, Connections),
            ],
            ..BASE
        }),
    },
    Kind {
        name: "states",
        about: "segments of both sides, and the states that they lead to",
        content: Content::Played(Profile {
            services: 1..=1,
            schedulers: "rr",
            protocols: "tcp",
            persistent: 5,
            marked: 5,
            thresholds: 5,
            settings: &[
                ("secure_tcp", "0 3 3"),
                ("sloppy_tcp", "0 1"),
                ("conn_reuse_mode", "0 1 2 3"),
                ("expire_nodest_conn", "0 1"),
            ],
            choices: &[
                (8, NewFlows),
                (8, OldFlows),
                (25, ClientPacket),
                (20, ServerPacket),
                (10, ServerReply),
                (6, ClientReply),
                (1, EditServer),
                (4, Setting),
                (3, Sleep),
                (14, Connections),
                (1, Timeouts),
            ],
            ..BASE
        }),
    },
    Kind {
        name: "quiescing",
        about: "servers and services that are quiesced, removed and revived",
        content: Content::Played(Profile {
            schedulers: "rr wrr wlc sh",
            persistent: 25,
            settings: &[
                ("expire_nodest_conn", "0 1 1"),
                ("expire_quiescent_template", "0 1"),
                ("conn_reuse_mode", "0 1 2"),
            ],
            choices: &[
                (16, NewFlows),
                (18, OldFlows),
                (6, ClientPacket),
                (5, ServerPacket),
                (4, ServerReply),
                (3, AddServer),
                (8, EditServer),
                (8, RemoveServer),
                (8, ReviveServer),
                (2, EditService),
                (3, RemoveService),
                (1, AddService),
                (4, Setting),
                (4, Sleep),
                (7, Connections),
                (3, List),
            ],
            ..BASE
        }),
    },
    Kind {
        name: "packets",
        about: "packets with unusual headers, and answers to them",
        content: Content::Played(Profile {
            ipv6: 35,
            schedulers: "rr wlc",
            protocols: "tcp udp",
            settings: &[("sloppy_tcp", "0 1"), ("expire_nodest_conn", "0 1")],
            choices: &[
                (10, NewFlows),
                (4, OldFlows),
                (22, ClientPacket),
                (16, ServerPacket),
                (16, ServerReply),
                (10, ClientReply),
                (14, Stray),
                (1, EditServer),
                (1, RemoveServer),
                (1, Setting),
                (3, Connections),
            ],
            ..BASE
        }),
    },
    Kind {
        name: "errors",
        about: "ICMP errors of servers, clients and routers",
        content: Content::Played(Profile {
            schedulers: "rr",
            protocols: "tcp udp",
            ipv6: 30,
            settings: &[("expire_nodest_conn", "0 1")],
            choices: &[
                (14, NewFlows),
                (4, OldFlows),
                (8, ClientPacket),
                (8, ServerReply),
                (22, ServerError),
                (18, ClientError),
                (2, Stray),
                (2, RemoveServer),
                (1, ReviveServer),
                (4, Connections),
            ],
            ..BASE
        }),
    },
    Kind {
        name: "single",
        about: "one-packet scheduling",
        content: Content::Played(Profile {
            one_packet: 80,
            protocols: "udp",
            persistent: 20,
            choices: &[
                (20, NewFlows),
                (10, OldFlows),
                (8, ClientPacket),
                (8, ServerPacket),
                (8, ServerReply),
                (5, ServerError),
                (4, EditServer),
                (4, EditService),
                (2, RemoveServer),
                (2, ReviveServer),
                (6, Connections),
                (2, List),
                (2, Counters),
            ],
            ..BASE
        }),
    },
    Kind {
        name: "counters",
        about: "counters of services and servers",
        content: Content::Played(Profile {
            persistent: 20,
            settings: &[("expire_nodest_conn", "0 1"), ("sloppy_tcp", "0 1")],
            choices: &[
                (14, NewFlows),
                (10, OldFlows),
                (10, ClientPacket),
                (10, ServerReply),
                (6, ServerError),
                (4, EditServer),
                (4, RemoveServer),
                (4, ReviveServer),
                (2, RemoveService),
                (1, Setting),
                (2, Zero),
                (8, Counters),
            ],
            ..BASE
        }),
    },
    Kind {
        name: "marks",
        about: "services of firewall marks beside others",
        content: Content::Played(Profile {
            services: 2..=4,
            marked: 60,
            persistent: 40,
            port_zero: 20,
            choices: &[
                (24, NewFlows),
                (10, OldFlows),
                (8, ClientPacket),
                (6, ServerReply),
                (6, Stray),
                (4, EditServer),
                (3, RemoveServer),
                (3, ReviveServer),
                (3, RemoveService),
                (3, AddService),
                (3, Sleep),
                (6, Connections),
                (3, List),
            ],
            ..BASE
        }),
    },
    Kind {
        name: "everything",
        about: "mixture of everything",
        content: Content::Played(Profile {
            services: 1..=4,
            persistent: 30,
            one_packet: 20,
            marked: 20,
            port_zero: 15,
            thresholds: 20,
            steps: 20..=40,
            settings: &[
                ("expire_nodest_conn", "0 1"),
                ("expire_quiescent_template", "0 1"),
                ("conn_reuse_mode", "0 1 2"),
                ("sloppy_tcp", "0 1"),
                ("secure_tcp", "0 3"),
            ],
            choices: &[
                (14, NewFlows),
                (12, OldFlows),
                (12, ClientPacket),
                (8, ServerPacket),
                (8, ServerReply),
                (6, ClientReply),
                (6, ServerError),
                (4, ClientError),
                (4, Stray),
                (3, AddServer),
                (4, EditServer),
                (4, RemoveServer),
                (4, ReviveServer),
                (2, AddService),
                (2, EditService),
                (2, RemoveService),
                (3, Setting),
                (1, Timeouts),
                (4, Sleep),
                (3, List),
                (5, Connections),
                (1, Zero),
            ],
            ..BASE
        }),
    },
    Kind {
        name: "tunnels",
        about: "tunnels of every kind, and what goes wrong with them",
        content: Content::Played(Profile {
            schedulers: "rr wlc",
            methods: "-i -i -i -i -g -m",
            protocols: "tcp udp",
            ipv6: 35,
            settings: &[("pmtu_disc", "0 1"), ("sloppy_tcp", "0 1"), ("expire_nodest_conn", "0 1")],
            choices: &[
                (14, NewFlows),
                (6, OldFlows),
                (20, ClientPacket),
                (8, ServerPacket),
                (10, ServerError),
                (6, ClientError),
                (6, Fragments),
                (4, EditServer),
                (3, RemoveServer),
                (3, ReviveServer),
                (2, Setting),
                (3, List),
                (5, Connections),
            ],
            ..BASE
        }),
    },
    Kind {
        name: "fragments",
        about: "packets in fragments, and errors about them",
        content: Content::Played(Profile {
            schedulers: "rr",
            methods: "-m -m -g -i",
            protocols: "tcp udp",
            ipv6: 30,
            marked: 25,
            choices: &[
                (10, NewFlows),
                (4, OldFlows),
                (30, Fragments),
                (4, ClientPacket),
                (4, ServerError),
                (2, ClientError),
                (2, RemoveServer),
                (2, Counters),
                (4, Connections),
            ],
            ..BASE
        }),
    },
    Kind {
        name: "chunks",
        about: "chunks of SCTP, and the states that they lead to",
        content: Content::Played(Profile {
            services: 1..=1,
            schedulers: "rr",
            protocols: "sctp",
            methods: "-m -m -m -g -i",
            marked: 10,
            settings: &[
                ("sloppy_sctp", "0 1"),
                ("conn_reuse_mode", "0 1 2"),
                ("expire_nodest_conn", "0 1"),
            ],
            choices: &[
                (8, NewFlows),
                (8, OldFlows),
                (26, ClientPacket),
                (22, ServerPacket),
                (4, ServerReply),
                (2, ClientReply),
                (2, ServerError),
                (2, EditServer),
                (2, RemoveServer),
                (2, ReviveServer),
                (3, Setting),
                (3, Sleep),
                (14, Connections),
                (2, List),
            ],
            ..BASE
        }),
    },
    Kind { name: "commands", about: "command lines, sensible and not", content: Content::Commands },
];
