//! How the steps of a scenario administer the director: the ipvsadm personality over the control
//! protocol, without a socket between them.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::ControlFlow;
use std::sync::Arc;

use clap::Parser;
use nix::errno::Errno;

use super::host::DirectorHost;
use super::settings::HostSettings;
use super::topology::Link;
use crate::control::advice::Route;
use crate::control::client::{Director, Failure, InProcess};
use crate::control::handler::{Handler, Host};
use crate::control::ipvsadm::names::Names;
use crate::control::ipvsadm::{Console, run};
use crate::control::marks::{self, MarkCommand};
use crate::control::netlink::connection::ConnectionView;
use crate::control::{RunningSync, SyncDaemon, SyncDaemons, SyncRequest, SyncRole};
use crate::control::{proc, sysctl};
use crate::engine::Moment;
use crate::engine::conn::{Connection, TemplateView};
use crate::engine::service::{Protocol, ServiceTable};
use crate::engine::settings::REGISTRY;
use crate::packet::Addr;

/// What a command said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Exit code.
    pub code: i32,
}

impl Output {
    /// A command that only said what went wrong.
    pub fn failed(code: i32, why: &str) -> Self {
        Self { stdout: String::new(), stderr: format!("{why}\n"), code }
    }
}

/// The chains of the mangle table that no rule of a scenario is in.
const OTHER_CHAINS: &str =
    "-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n-P POSTROUTING ACCEPT\n";
/// The exit code of iptables for what it does not understand.
const IPTABLES_FAILED: i32 = 2;

/// The administrator's side of the director.
#[derive(Debug)]
pub struct Administration {
    services: Arc<ServiceTable>,
    host_settings: HostSettings,
    sync: SyncDaemons,
    /// Files that shell commands wrote.
    pub files: HashMap<String, String>,
    /// Whether FTP's helper was asked for. It is there all the same, but not shown before.
    pub shows_ftp: bool,
}

impl Administration {
    /// The administration of `services`.
    pub fn new(services: Arc<ServiceTable>) -> Self {
        Self {
            services,
            host_settings: HostSettings::default(),
            sync: SyncDaemons::default(),
            files: HashMap::new(),
            shows_ftp: false,
        }
    }

    /// Runs iptables, as far as it marks packets.
    pub fn iptables(&self, words: &[&str]) -> Output {
        let failed = |why: String| Output::failed(IPTABLES_FAILED, &format!("iptables: {why}"));
        let commands = match marks::parse_mark(words, &mut LabNames) {
            Ok(commands) => commands,
            Err(why) => return failed(why),
        };
        match commands.as_slice() {
            [MarkCommand::List(listing)] => {
                let mut stdout = "-P PREROUTING ACCEPT\n".to_owned();
                if !words.contains(&"PREROUTING") {
                    stdout += OTHER_CHAINS;
                }
                stdout += &listing.lines(&marks::list(&self.services));
                Output { stdout, ..Output::default() }
            }
            commands => commands
                .iter()
                .try_for_each(|command| marks::edit(&self.services, &marks::words(command)))
                .map_or_else(failed, |()| Output::default()),
        }
    }

    /// Runs ipvsadm.
    pub fn ipvsadm(
        &self,
        arguments: &[String],
        stdin: &str,
        host: &DirectorHost,
        now: Moment,
    ) -> Output {
        let handler = self.handler(host, now);
        let mut transport = InProcess { handler: &handler, now };
        with_console(stdin, |console| run(arguments, console, &mut transport, &mut LabNames))
    }

    /// The synchronisation daemons that run.
    pub fn sync_daemons(&self) -> Vec<RunningSync> {
        self.sync.running()
    }

    /// Runs sysctl, as far as it is about IPVS.
    pub fn sysctl(
        &self,
        arguments: &[String],
        stdin: &str,
        host: &DirectorHost,
        now: Moment,
    ) -> Output {
        let handler = self.handler(host, now);
        let mut transport = InProcess { handler: &handler, now };
        let words = std::iter::once("sysctl").chain(arguments.iter().map(String::as_str));
        let options = match sysctl::Options::try_parse_from(words) {
            Ok(options) => options,
            Err(error) => return Output::failed(1, error.to_string().trim_end()),
        };
        let not_found = || io::Error::from_raw_os_error(nix::libc::ENOENT);
        let mut open = |name: &str| self.files.get(name).cloned().ok_or_else(not_found);
        with_console(stdin, |console| sysctl::run(&options, console, &mut transport, &mut open))
    }

    /// What a file below `/proc/net` holds; `None` if there is none of that name.
    pub fn proc_file(&self, name: &str, host: &DirectorHost, now: Moment) -> Option<String> {
        let handler = self.handler(host, now);
        let mut transport = InProcess { handler: &handler, now };
        let mut director = Director::new(&mut transport);
        let content = proc::content(name, &mut director, self.services.grand_total()).ok()??;
        let is_hidden = name == "ip_vs_app" && !self.shows_ftp;
        let title = content.split_inclusive('\n').next().unwrap_or_default();
        Some(if is_hidden { title.to_owned() } else { content })
    }

    /// The names of the settings of IPVS, sorted.
    pub fn setting_names(&self, host: &DirectorHost, now: Moment) -> Vec<String> {
        let handler = self.handler(host, now);
        let mut transport = InProcess { handler: &handler, now };
        let settings = Director::new(&mut transport).settings().unwrap_or_default();
        let mut names: Vec<String> = settings.into_iter().map(|setting| setting.name).collect();
        names.sort();
        names
    }

    /// The value of a kernel setting.
    ///
    /// **Errors** — why there is none, in the words of the C library.
    pub fn setting(
        &mut self,
        name: &str,
        host: &DirectorHost,
        now: Moment,
    ) -> Result<String, &'static str> {
        let name = &name.replace('/', ".");
        if let Some(value) = self.host_settings.value(name) {
            return Ok(value.clone());
        }
        let handler = self.handler(host, now);
        let mut transport = InProcess { handler: &handler, now };
        let settings = Director::new(&mut transport).settings().unwrap_or_default();
        let below = name.strip_prefix(IPVS_SETTINGS);
        let found = settings.into_iter().find(|setting| below == Some(&setting.name));
        found.map(|setting| setting.value).ok_or_else(|| self.why_missing(name).desc())
    }

    fn why_missing(&self, name: &str) -> Errno {
        let ipvs = REGISTRY.iter().map(|setting| format!("{IPVS_SETTINGS}{}", setting.name));
        self.host_settings.why_missing(name, ipvs)
    }

    /// Changes a kernel setting.
    ///
    /// **Errors** — why it did not change, in the words of the C library.
    pub fn set(
        &mut self,
        name: &str,
        value: &str,
        host: &DirectorHost,
        now: Moment,
    ) -> Result<(), &'static str> {
        let name = &name.replace('/', ".");
        if let Some(known) = self.host_settings.value(name) {
            *known = value.to_owned();
            return Ok(());
        }
        let below = name.strip_prefix(IPVS_SETTINGS).unwrap_or_default();
        let handler = self.handler(host, now);
        let mut transport = InProcess { handler: &handler, now };
        match Director::new(&mut transport).set_setting(below, value) {
            Ok(_) => Ok(()),
            Err(Failure::Refused { errno: Errno::ENOENT, .. }) => {
                Err(self.why_missing(name).desc())
            }
            Err(Failure::Refused { errno, .. }) => Err(errno.desc()),
            Err(Failure::Transport(_)) => Err(Errno::EIO.desc()),
        }
    }

    fn handler<'a>(&'a self, host: &'a DirectorHost, now: Moment) -> Handler<Seat<'a>> {
        Handler::new(
            Arc::clone(&self.services),
            Seat { host, services: &self.services, sync: &self.sync, now },
        )
    }
}

/// Runs a command that reads `stdin`, and returns what it said.
fn with_console(stdin: &str, run: impl FnOnce(&mut Console) -> i32) -> Output {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut console = Console {
        stdin: &mut stdin.as_bytes(),
        stdout: &mut stdout,
        stderr: &mut stderr,
        hints: false,
    };
    let code = run(&mut console);
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Output { stdout: text(stdout), stderr: text(stderr), code }
}

/// **Source** — Linux's loopback device.
const LOOPBACK_MTU: u32 = 65_536;
const IPVS_SETTINGS: &str = "net.ipv4.vs.";

/// What the control protocol asks of the director's host.
struct Seat<'a> {
    host: &'a DirectorHost,
    services: &'a ServiceTable,
    sync: &'a SyncDaemons,
    now: Moment,
}

impl Host for Seat<'_> {
    fn connections(&self, each: &mut dyn FnMut(ConnectionView) -> ControlFlow<()>) {
        let (templates, _) = self.services.templates().page(0, usize::MAX, self.now);
        for template in &templates {
            if each(template_view(template)).is_break() {
                return;
            }
        }
        for expected in self.services.expectations().list(self.now) {
            let expires_s = expected.remaining_ms.saturating_sub(1) / 1000;
            if each(ConnectionView::of_expected(&expected, expires_s)).is_break() {
                return;
            }
        }
        for connection in self.host.director().connections().iter() {
            if !connection.is_outbound() && each(view(connection, self.now)).is_break() {
                return;
            }
        }
    }

    fn start_sync(&self, request: SyncRequest) -> Result<Option<String>, Errno> {
        let link = Link::ALL.into_iter().find(|link| link.name() == request.interface);
        let mtu = match request.interface.as_str() {
            "lo" => Some(LOOPBACK_MTU),
            _ => link.map(|link| self.host.routes.link_mtu(link) as u32),
        };
        self.sync.start(request, mtu, self.services, self.now, |_| Ok(()))?;
        Ok(None)
    }

    fn stop_sync(&self, role: SyncRole) -> Result<(), Errno> {
        self.sync.stop(role, self.services)
    }

    fn sync_daemons(&self) -> Vec<SyncDaemon> {
        self.sync.list()
    }

    fn route(&self, addr: Addr) -> Route {
        match IpAddr::from(addr) {
            IpAddr::V4(addr) if self.host.routes.is_broadcast(addr) => Route::Broadcast,
            _ => Route::Unknown,
        }
    }
}

fn view(connection: &Connection, now: Moment) -> ConnectionView {
    // A listing comes a moment after the packets before it, so no second of a timer is whole.
    let remaining_ms = connection.remaining_ms(now).saturating_sub(1);
    ConnectionView {
        protocol: connection.key().protocol,
        client: connection.client(),
        service: connection.virtual_endpoint(),
        real: connection.real_endpoint(),
        state: connection.state().name().into(),
        expires_s: remaining_ms / 1000,
        is_template: false,
        is_heard: connection.is_heard(),
        persistence_engine: None,
        local: connection.local_endpoint(),
    }
}

fn template_view(template: &TemplateView) -> ConnectionView {
    ConnectionView::of_template(template, template.remaining_ms.saturating_sub(1) / 1000)
}

/// The names that are known in the oracle's network.
struct LabNames;

const HOSTS: [(&str, &str); 4] = [
    ("localhost", "127.0.0.1"),
    ("shop.example", "12.0.0.1"),
    ("www1.example", "192.168.200.110"),
    ("six.example", "2001:db8:12::1"),
];
const SERVICES: [(&str, u16, Protocol); 5] = [
    ("ftp", 21, Protocol::Tcp),
    ("domain", 53, Protocol::Tcp),
    ("domain", 53, Protocol::Udp),
    ("http", 80, Protocol::Tcp),
    ("https", 443, Protocol::Tcp),
];
/// Other names of the same services, which are understood but not shown.
const ALIASES: [(&str, &str); 1] = [("www", "http")];

impl Names for LabNames {
    fn address(&mut self, host: &str) -> Option<Ipv4Addr> {
        let (_, addr) = HOSTS.iter().find(|(name, _)| name.eq_ignore_ascii_case(host))?;
        addr.parse().ok()
    }

    fn port(&mut self, service: &str, protocol: Protocol) -> Option<u16> {
        let alias = ALIASES.iter().find(|(alias, _)| *alias == service);
        let wanted = alias.map_or(service, |(_, name)| name);
        let mut services = SERVICES.iter();
        let found = services.find(|(name, _, each)| *name == wanted && *each == protocol)?;
        Some(found.1)
    }

    fn host(&mut self, addr: IpAddr) -> Option<String> {
        let text = addr.to_string();
        let (name, _) = HOSTS.iter().find(|(_, each)| *each == text)?;
        Some((*name).to_string())
    }

    fn service(&mut self, port: u16, protocol: Protocol) -> Option<String> {
        let mut services = SERVICES.iter();
        let (name, ..) = services.find(|(_, each, of)| *each == port && *of == protocol)?;
        Some((*name).to_string())
    }
}
