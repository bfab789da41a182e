//! The forwarders that are compared. Each has a file that starts it in the director's namespace
//! and knows nothing of loads beyond the ports in [`Network`].

mod haproxy;
mod nft;
mod nginx;
mod process;
mod routing;
mod ulvs;

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

pub use process::Program;

use super::load::Load;
use super::network::{DIRECTOR_OUTSIDE, Network, SERVERS};

/// What can forward between the client and the servers.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Contender {
    /// The kernel routes; nothing is balanced or translated. What the path can carry at all.
    Routing,
    /// The kernel's NAT, as nftables rules.
    Nft,
    /// HAProxy in mode tcp.
    Haproxy,
    /// nginx's stream proxy.
    Nginx,
    /// This program.
    Ulvs,
    /// This program behind a TUN device.
    UlvsTun,
}

impl Contender {
    /// All contenders, in the order of reports.
    pub const ALL: [Contender; 6] = [
        Contender::Routing,
        Contender::Nft,
        Contender::Haproxy,
        Contender::Nginx,
        Contender::Ulvs,
        Contender::UlvsTun,
    ];

    /// The name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Contender::Routing => "routing",
            Contender::Nft => "nft",
            Contender::Haproxy => "haproxy",
            Contender::Nginx => "nginx",
            Contender::Ulvs => "ulvs",
            Contender::UlvsTun => "ulvs-tun",
        }
    }

    /// What it is, for reports.
    pub fn title(self) -> &'static str {
        match self {
            Contender::Routing => "plain routing",
            Contender::Nft => "nft DNAT",
            Contender::Haproxy => "HAProxy (tcp)",
            Contender::Nginx => "nginx stream",
            Contender::Ulvs => "ulvs (NAT)",
            Contender::UlvsTun => "ulvs (NAT, TUN)",
        }
    }

    /// Why it cannot carry a load at all, if it cannot.
    pub fn declines(self, load: Load) -> Option<&'static str> {
        match (self, load) {
            (Contender::Haproxy, Load::Packets) => Some("HAProxy balances no UDP"),
            _ => None,
        }
    }

    /// Whose address the servers are to see.
    pub fn source(self) -> Source {
        match self {
            Contender::Routing | Contender::Nft | Contender::Ulvs | Contender::UlvsTun => {
                Source::Client
            }
            Contender::Haproxy | Contender::Nginx => Source::Director,
        }
    }

    /// The addresses that the client talks to.
    pub fn targets(self) -> &'static [Ipv4Addr] {
        match self {
            Contender::Routing => &SERVERS,
            Contender::Nft
            | Contender::Haproxy
            | Contender::Nginx
            | Contender::Ulvs
            | Contender::UlvsTun => &[DIRECTOR_OUTSIDE],
        }
    }

    /// Starts it in the director's namespace. It ends when the returned value is dropped.
    pub fn start(self, network: &Network, launch: &Launch) -> Result<Forwarder, Refusal> {
        match self {
            Contender::Routing => routing::start(network),
            Contender::Nft => nft::start(network),
            Contender::Haproxy => haproxy::start(network, launch),
            Contender::Nginx => nginx::start(network, launch),
            Contender::Ulvs => ulvs::start(network, launch),
            Contender::UlvsTun => ulvs::start_over_tun(network, launch),
        }
    }
}

/// What contenders need to know to start.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Threads or processes; their own choice if none.
    pub workers: Option<u16>,
    /// The `ulvs` program.
    pub program: PathBuf,
    /// An empty directory for what has to be a file.
    pub directory: PathBuf,
}

/// Whose address the servers see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The client's: packets are forwarded.
    Client,
    /// The director's: it is a proxy.
    Director,
}

/// A contender at work.
#[derive(Debug)]
pub struct Forwarder {
    /// The program's own word on its version.
    pub version: String,
    /// The program, unless the kernel forwards.
    program: Option<Program>,
}

impl Forwarder {
    /// Makes sure that it is still running.
    ///
    /// **Errors** — it has ended, with the last it said.
    pub fn check(&mut self) -> io::Result<()> {
        self.program.as_mut().map_or(Ok(()), Program::check)
    }
}

/// Why a contender does not take part.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is not on this machine.
    #[error("{0}")]
    Absent(String),
    /// It did not start.
    #[error("{0}")]
    Failed(String),
}

impl Refusal {
    fn not_installed() -> Self {
        Refusal::Absent("not installed, skipped".to_owned())
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Refusal::Failed(error.to_string())
    }
}

impl From<crate::lab::net::Error> for Refusal {
    fn from(error: crate::lab::net::Error) -> Self {
        Refusal::Failed(error.to_string())
    }
}
