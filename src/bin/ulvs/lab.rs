//! `ulvs lab`: the textbook networks, in namespaces.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use ulvs::lab::process::{self, Plan, Visit};

use super::web;

/// Build a textbook network on this machine and try the director in it
///
/// Everything is made of namespaces: nothing on the machine changes, no privilege is needed where
/// unprivileged user namespaces are allowed, and all is gone afterwards.
#[derive(Debug, Args)]
pub(crate) struct Lab {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// NAT: a client, a director, two real servers behind it, and their storage
    Nat(Telling),
    /// NAT over IPv6: the same network, with neighbour discovery in place of ARP
    Ipv6(Telling),
    /// NAT with weights: rr, then wrr with weights 1 and 2, then weight 0
    Weights(Telling),
    /// NAT with persistence: clients that stay with their web and database servers
    Persistence(Telling),
    /// Firewall marks: web and database ports as one service, by direct routing
    Fwmark(Telling),
    /// Direct routing: real servers that answer the client themselves
    Dr(Dr),
    /// Direct routing behind a router that has the public address (DNAT)
    DrRouter(Telling),
    /// Tunnels: real servers in other networks that answer the client themselves
    Tun(Tun),
    /// Full NAT: real servers anywhere, which know nothing of a director with one interface
    Fullnat(Telling),
    /// FTP through NAT: passive and active data connections beside the control connection
    Ftp(Telling),
    Web(web::Serve),
    Fetch(web::Fetch),
    /// Open a shell on a host of a running lab
    Shell(Shell),
    /// Run a command on a host of a running lab; its exit status is passed on
    Exec(Exec),
    /// List the running labs and their hosts
    List,
    /// Be the first process of a lab
    #[command(hide = true)]
    Supervise,
    /// Be the process of a host
    #[command(hide = true)]
    Host {
        name: String,
    },
}

/// How a lab is to be told.
#[derive(Debug, Args)]
struct Telling {
    /// Leave the lab up until Enter or Ctrl-C
    #[arg(long)]
    keep: bool,
    /// How many pages a client fetches each time [default: as many as the textbook shows]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    requests: Option<u16>,
}

#[derive(Debug, Args)]
struct Dr {
    /// Which textbook's network, scheduler and commands
    #[arg(long, value_enum, default_value_t = Network::Routed)]
    network: Network,
    #[command(flatten)]
    telling: Telling,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Network {
    /// 192.168.0.x behind a router, rr and wrr
    #[value(name = "192.168.0")]
    Routed,
    /// 172.16.1.x with the client in the same segment, wlc, real servers given without a port
    #[value(name = "172.16.1")]
    Segment,
}

impl Network {
    fn story(self) -> &'static str {
        match self {
            Network::Routed => "dr",
            Network::Segment => "dr-172.16.1",
        }
    }
}

#[derive(Debug, Args)]
struct Tun {
    /// What the tunnels are made of
    #[arg(long = "type", value_enum, default_value_t = Kind::Ipip)]
    kind: Kind,
    #[command(flatten)]
    telling: Telling,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// IP in IP
    Ipip,
    /// Generic routing encapsulation
    Gre,
    /// Generic UDP encapsulation
    Gue,
}

impl Kind {
    fn story(self) -> &'static str {
        match self {
            Kind::Ipip => "tun",
            Kind::Gre => "tun-gre",
            Kind::Gue => "tun-gue",
        }
    }
}

#[derive(Debug, Args)]
struct Where {
    /// Which lab, if several are running (see `ulvs lab list`)
    #[arg(long, value_name = "PROCESS")]
    lab: Option<u32>,
    /// The host
    #[arg(value_name = "HOST")]
    host: String,
}

#[derive(Debug, Args)]
struct Shell {
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Args)]
struct Exec {
    #[command(flatten)]
    place: Where,
    /// The command and its arguments
    #[arg(
        value_name = "CMD",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<OsString>,
}

impl Lab {
    /// Does what was asked.
    pub(crate) fn run(self) -> ExitCode {
        match self.command {
            Command::Nat(telling) => telling.keep("nat"),
            Command::Ipv6(telling) => telling.keep("ipv6"),
            Command::Weights(telling) => telling.keep("weights"),
            Command::Persistence(telling) => telling.keep("persistence"),
            Command::Fwmark(telling) => telling.keep("fwmark"),
            Command::Dr(dr) => dr.telling.keep(dr.network.story()),
            Command::DrRouter(telling) => telling.keep("dr-router"),
            Command::Fullnat(telling) => telling.keep("fullnat"),
            Command::Ftp(telling) => telling.keep("ftp"),
            Command::Tun(tun) => tun.telling.keep(tun.kind.story()),
            Command::Web(serve) => serve.run(),
            Command::Fetch(fetch) => fetch.run(),
            Command::Shell(shell) => visit(shell.place, Vec::new()),
            Command::Exec(exec) => visit(exec.place, exec.command),
            Command::List => process::list(),
            Command::Supervise => process::supervise(),
            Command::Host { name } => process::be_host(&name),
        }
    }
}

fn visit(place: Where, command: Vec<OsString>) -> ExitCode {
    process::visit(&Visit { host: place.host, lab: place.lab, command })
}

impl Telling {
    /// Runs the lab of that name.
    fn keep(&self, story: &str) -> ExitCode {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        process::keep(&Plan {
            story: story.to_owned(),
            requests: self.requests.map(usize::from),
            keep: self.keep,
            colour: io::stdout().is_terminal() && !no_colour,
        })
    }
}
