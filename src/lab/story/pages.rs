//! A client that fetches pages or asks databases, and which servers the answers came from.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Scene, Told};
use crate::lab::services::mysql;
use crate::lab::web;

/// How long anything may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// What one request brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its first line.
    pub text: String,
    /// The host that served it.
    pub server: String,
}

/// What each request brought, or why it brought nothing.
pub type Pages = Vec<Result<Page, String>>;

impl Scene<'_> {
    /// Has a client fetch the first page of a service, and shows who answered.
    pub fn fetch(&self, client: &str, service: SocketAddr, count: usize) -> Told<Pages> {
        let who = if client == "client" { "The client" } else { client };
        self.heading(format_args!("{who} fetches {} {}", url(service), times(count)))?;
        self.fetch_more(client, service, count)
    }

    /// The same without a heading.
    pub fn fetch_more(&self, client: &str, service: SocketAddr, count: usize) -> Told<Pages> {
        self.ask(client, count, || {
            web::get(service, "/", PATIENCE).map_err(|error| in_words(&error)).and_then(page)
        })
    }

    /// Has a client ask a database for the name of the server, and shows who answered.
    pub fn query(&self, client: &str, service: SocketAddr, count: usize) -> Told<Pages> {
        self.command(client, format_args!("mysql -h {} -e 'select @@hostname'", service.ip()))?;
        self.ask(client, count, || {
            let server = mysql::ask_name(service, PATIENCE).map_err(|error| in_words(&error))?;
            Ok(Page { text: server.clone(), server })
        })
    }

    /// Has a client make requests, one after the other, and shows who answered.
    pub(super) fn ask(
        &self,
        client: &str,
        count: usize,
        request: impl Fn() -> Result<Page, String> + Sync,
    ) -> Told<Pages> {
        let namespace = self.host(client).namespace();
        let mut pages = Pages::new();
        for turn in 1..=count {
            let page = namespace.run(&request)?;
            match &page {
                Ok(Page { text, server }) => {
                    self.line(format_args!("  {turn:>3}  {text:<20} from {}", self.place(server)))?
                }
                Err(why) => self.line(format_args!("  {turn:>3}  no answer: {why}"))?,
            }
            pages.push(page);
        }
        Ok(pages)
    }

    /// A host by name and address.
    pub fn place(&self, host: &str) -> String {
        let address = self.lab().topology().address(host);
        address.map_or_else(|| host.to_owned(), |address| format!("{address} ({host})"))
    }

    /// Promises that every request was answered.
    pub fn promise_answers(&mut self, requests: &str, pages: &Pages) {
        let (answered, all) = (pages.iter().filter(|page| page.is_ok()).count(), pages.len());
        self.promise(answered == all, format_args!("{answered} of {all} {requests} were answered"));
    }

    /// Promises that servers answered in this order, again and again.
    pub fn promise_turns(&mut self, what: &str, pages: &Pages, order: &[&str]) {
        let in_turn = pages.iter().zip(order.iter().cycle());
        let kept = in_turn.into_iter().all(|(page, server)| is_from(page, server));
        self.promise(kept, format_args!("{what}: {}, and so on", order.join(", ")));
    }

    /// Promises that one server answered every time.
    pub fn promise_server(&mut self, what: &str, pages: &Pages, server: &str) {
        let kept = pages.iter().all(|page| is_from(page, server));
        self.promise(kept, format_args!("{what}: always {server}"));
    }
}

fn is_from(page: &Result<Page, String>, server: &str) -> bool {
    page.as_ref().is_ok_and(|page| page.server == server)
}

fn page(answer: web::Answer) -> Result<Page, String> {
    if answer.status != 200 {
        return Err(format!("{} answers with status {}", answer.server, answer.status));
    }
    let text = String::from_utf8_lossy(&answer.body);
    let text = text.lines().next().unwrap_or_default().to_owned();
    Ok(Page { text, server: answer.server })
}

/// A service as people type it into a browser.
fn url(service: SocketAddr) -> String {
    match service {
        SocketAddr::V4(v4) if v4.port() == 80 => format!("http://{}/", v4.ip()),
        SocketAddr::V6(v6) if v6.port() == 80 => format!("http://[{}]/", v6.ip()),
        other => format!("http://{other}/"),
    }
}

pub(super) fn times(count: usize) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// An error as a reader understands it: the time limit of a socket is `EAGAIN` to the system.
pub(super) fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("nothing came within {} s", PATIENCE.as_secs())
        }
        _ => error.to_string(),
    }
}

/// The web service at an address.
pub(super) fn web_at(address: impl Into<IpAddr>) -> SocketAddr {
    SocketAddr::new(address.into(), 80)
}
