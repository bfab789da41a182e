//! `ulvs lab web` and `ulvs lab fetch`: a web server that says who it is, and a client that shows who
//! answers, for trying a balancer where nothing else is installed.

use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use ulvs::lab::web::{self, Site, WebServer};

/// Serve a page that says who served it, until SIGTERM or SIGINT
///
/// `/whoami` says who the client is, as the server sees it; `/bytes/N` is N bytes long.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Address and port
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:80")]
    listen: SocketAddr,
    /// What it calls itself [default: the name of the host]
    #[arg(long)]
    name: Option<String>,
}

/// Fetch pages, each over a connection of its own, and show them
///
/// As long as nobody listens there yet it tries again, for ten seconds.
#[derive(Debug, Args)]
pub(crate) struct Fetch {
    /// How many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1)]
    count: u32,
    /// Have `ulvs lab web` send that many bytes instead, and send it as many; each is compared
    #[arg(long, value_name = "N", conflicts_with = "count")]
    bytes: Option<u64>,
    /// Where from: http://HOST[:PORT][/PATH]
    #[arg(value_parser = parse_url)]
    url: Url,
}

/// Where a page is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Url {
    /// Host and port.
    authority: String,
    path: String,
}

impl Serve {
    pub(crate) fn run(self) -> ExitCode {
        report(self.serve())
    }

    fn serve(self) -> io::Result<()> {
        // Before anybody can know that it runs, so that it can be ended from the first moment on.
        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        super::orphans::adopt()?;
        let name = self.name.map_or_else(hostname, Ok)?;
        let site = Site::new(&name).page("/", "text/plain", format!("this is {name}\n"));
        let listeners = web::listen(self.listen, 1).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen at {}: {error}", self.listen))
        })?;
        let server = WebServer::start(listeners, site)?;
        eprintln!("ulvs: {name} serves at http://{}/", server.address());
        signals.forever().next();
        Ok(())
    }
}

impl Fetch {
    pub(crate) fn run(self) -> ExitCode {
        report(self.fetch())
    }

    fn fetch(&self) -> io::Result<()> {
        let Url { authority, path } = &self.url;
        let nobody = |why: &str| io::Error::other(format!("{authority}: {why}"));
        let mut addresses =
            authority.to_socket_addrs().map_err(|error| nobody(&error.to_string()))?;
        let address = addresses.next().ok_or_else(|| nobody("it has no address"))?;
        let failed = |error| io::Error::other(format!("http://{authority}{path}: {error}"));
        match self.bytes {
            Some(length) => transfer(address, length).map_err(failed),
            None => (0..self.count).try_for_each(|_| show(address, path).map_err(failed)),
        }
    }
}

/// Tries again while nobody listens there.
fn patiently<T>(attempt: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Err(error)
                if error.kind() == io::ErrorKind::ConnectionRefused
                    && start.elapsed() < PATIENCE =>
            {
                std::thread::sleep(Duration::from_millis(100));
            }
            done => return done,
        }
    }
}

/// Shows a page.
fn show(address: SocketAddr, path: &str) -> io::Result<()> {
    let answer = patiently(|| web::get(address, path, PATIENCE))?;
    io::stdout().write_all(&answer.body)?;
    match answer.status {
        200 => Ok(()),
        status => Err(io::Error::other(format!("status {status}"))),
    }
}

/// Has bytes sent, and sends as many.
fn transfer(address: SocketAddr, length: u64) -> io::Result<()> {
    let tell = |done: &str, time: Duration| {
        let rate = length as f64 * 8.0 / 1e9 / time.as_secs_f64().max(1e-9);
        println!("{length} bytes {done} in {:.3} s, {rate:.2} Gbit/s", time.as_secs_f64());
    };
    tell("received", patiently(|| web::download(address, length, PATIENCE))?);
    tell("sent", patiently(|| web::upload(address, length, PATIENCE))?);
    Ok(())
}

/// Longer than a handshake takes whose first segments get lost.
const PATIENCE: Duration = Duration::from_secs(10);

fn hostname() -> io::Result<String> {
    Ok(nix::unistd::gethostname()?.to_string_lossy().into_owned())
}

fn report(done: io::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ulvs: error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse_url(text: &str) -> Result<Url, String> {
    let rest = text.strip_prefix("http://").unwrap_or(text);
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.is_empty() || authority.contains(char::is_whitespace) {
        return Err("expected http://HOST[:PORT][/PATH]".into());
    }
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| is_port(port));
    let authority = if has_port { authority.to_owned() } else { format!("{authority}:80") };
    let path = if path.is_empty() { "/" } else { path };
    Ok(Url { authority, path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_a_port_and_a_path() {
        for (text, authority, path) in [
            ("http://lb/", "lb:80", "/"),
            ("lb", "lb:80", "/"),
            ("http://192.0.2.1:8080/whoami", "192.0.2.1:8080", "/whoami"),
            ("http://[2001:db8::1]", "[2001:db8::1]:80", "/"),
            ("http://[2001:db8::1]:81/a/b", "[2001:db8::1]:81", "/a/b"),
        ] {
            let url = Url { authority: authority.into(), path: path.into() };
            assert_eq!(parse_url(text).unwrap(), url, "{text}");
        }
        for wrong in ["", "http://", "/whoami", "http://a b/"] {
            assert!(parse_url(wrong).is_err(), "{wrong}");
        }
    }
}
