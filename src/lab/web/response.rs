//! Answers, as bytes.

use std::io::Write;
use std::net::SocketAddr;

use super::pattern;
use super::request::Request;
use super::site::Site;
use super::sum::Sum;

/// A body that is made while it is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) offset: u64,
    pub(super) remaining_bytes: u64,
}

/// What is done with the body of a request.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) received_bytes: u64,
    pub(super) remaining_bytes: u64,
    pub(super) purpose: Purpose,
    pub(super) keep_alive: bool,
    old: bool,
}

/// Why a body is received.
#[derive(Debug)]
pub(super) enum Purpose {
    /// Nobody wants it; the answer is already given.
    Ignore,
    /// To be counted.
    Count,
    /// To be compared with the pattern; with the first difference.
    Verify(Option<u64>),
    /// To be summed up.
    Digest(Box<Sum>),
}

/// A body of up to this size is sent together with its head.
const INLINE_BYTES: u64 = 16 * 1024;

/// Appends the answer to a request without a wanted body; what is too long to be appended is
/// returned.
pub(super) fn answer(
    out: &mut Vec<u8>,
    request: &Request<'_>,
    site: &Site,
    client: SocketAddr,
) -> Stream {
    let to = Reply::to(request, site);
    if !matches!(request.method, "GET" | "HEAD") {
        to.text(out, 405, format_args!("only GET, HEAD, POST and PUT are served here\n"));
    } else if let Some(page) = site.find(request.path) {
        to.head(out, 200, &page.content_type, page.body.len() as u64);
        to.body(out, &page.body);
    } else if request.path == "/whoami" {
        to.text(out, 200, format_args!("you are {client}, this is {}\n", site.name()));
    } else if let Some(length) = number_behind("/bytes/", request.path) {
        return to.pattern(out, length);
    } else if let Some(length) = number_behind("/sha256/", request.path) {
        to.digest(out, length);
    } else {
        to.text(out, 404, format_args!("{} has no such page\n", site.name()));
    }
    Stream::default()
}

/// Appends the answer to an upload that is complete.
pub(super) fn receipt(out: &mut Vec<u8>, upload: &Upload, site: &Site) {
    let to = Reply { site, with_body: true, keep_alive: upload.keep_alive, old: upload.old };
    let received = upload.received_bytes;
    match &upload.purpose {
        Purpose::Ignore => {}
        Purpose::Count => to.text(out, 200, format_args!("{received} bytes\n")),
        Purpose::Verify(None) => to.text(out, 200, format_args!("{received} bytes are right\n")),
        Purpose::Verify(Some(offset)) => {
            to.text(out, 422, format_args!("byte {offset} of {received} is wrong\n"));
        }
        Purpose::Digest(sum) => to.text(out, 200, format_args!("{}\n", sum.text())),
    }
}

/// Appends a refusal, after which the connection ends.
pub(super) fn refusal(out: &mut Vec<u8>, status: u16, site: &Site) {
    let to = Reply { site, with_body: true, keep_alive: false, old: false };
    to.text(out, status, format_args!("{}\n", reason(status)));
}

/// What is to be done with the body that follows `request`, if it is wanted.
pub(super) fn upload(request: &Request<'_>) -> Option<Upload> {
    let purpose = match (request.method, request.path) {
        ("POST" | "PUT", "/sink") => Purpose::Count,
        ("POST" | "PUT", "/verify") => Purpose::Verify(None),
        ("POST" | "PUT", "/sha256") => Purpose::Digest(Box::default()),
        _ => return None,
    };
    Some(receive(request, purpose))
}

/// The state before the first byte of the body.
pub(super) fn receive(request: &Request<'_>, purpose: Purpose) -> Upload {
    Upload {
        received_bytes: 0,
        remaining_bytes: request.body_bytes,
        purpose,
        keep_alive: request.keep_alive,
        old: request.old,
    }
}

fn number_behind(prefix: &str, path: &str) -> Option<u64> {
    let digits = path.strip_prefix(prefix)?;
    if digits.starts_with('+') { None } else { digits.parse().ok() }
}

/// To whom an answer goes, and how.
struct Reply<'a> {
    site: &'a Site,
    with_body: bool,
    keep_alive: bool,
    old: bool,
}

impl<'a> Reply<'a> {
    fn to(request: &Request<'_>, site: &'a Site) -> Self {
        let with_body = request.method != "HEAD";
        Reply { site, with_body, keep_alive: request.keep_alive, old: request.old }
    }

    fn head(&self, out: &mut Vec<u8>, status: u16, content_type: &str, length: u64) {
        let connection = match (self.keep_alive, self.old) {
            (false, _) => "Connection: close\r\n",
            (true, true) => "Connection: keep-alive\r\n",
            (true, false) => "",
        };
        let allow = if status == 405 { "Allow: GET, HEAD, POST, PUT\r\n" } else { "" };
        let (reason, server) = (reason(status), self.site.name());
        append(
            out,
            format_args!(
                "HTTP/1.1 {status} {reason}\r\nServer: {server}\r\nContent-Type: {content_type}\r\n\
                 Content-Length: {length}\r\n{allow}{connection}\r\n"
            ),
        );
    }

    fn body(&self, out: &mut Vec<u8>, body: &[u8]) {
        if self.with_body {
            out.extend_from_slice(body);
        }
    }

    fn text(&self, out: &mut Vec<u8>, status: u16, text: std::fmt::Arguments<'_>) {
        let length = Counter::of(text);
        self.head(out, status, "text/plain; charset=utf-8", length);
        if self.with_body {
            append(out, text);
        }
    }

    fn pattern(&self, out: &mut Vec<u8>, length: u64) -> Stream {
        self.head(out, 200, "application/octet-stream", length);
        if !self.with_body {
            return Stream::default();
        }
        if length > INLINE_BYTES {
            return Stream { offset: 0, remaining_bytes: length };
        }
        out.extend_from_slice(pattern::at(0, length));
        Stream::default()
    }

    fn digest(&self, out: &mut Vec<u8>, length: u64) {
        if length > MOST_SUMMED_BYTES {
            return self.text(out, 422, format_args!("that is too much to sum up at once\n"));
        }
        let sum = pattern::sha256(length);
        self.text(out, 200, format_args!("{sum}\n"));
    }
}

/// Other clients wait while so much is summed up: not long.
const MOST_SUMMED_BYTES: u64 = 256 << 20;

/// Counts what is written to it.
struct Counter(u64);

impl Counter {
    fn of(text: std::fmt::Arguments<'_>) -> u64 {
        let mut counter = Counter(0);
        // Counting cannot fail.
        let _ = std::fmt::write(&mut counter, text);
        counter.0
    }
}

impl std::fmt::Write for Counter {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0 += text.len() as u64;
        Ok(())
    }
}

fn append(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a vector takes everything");
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        404 => "Not Found",
        405 => "Method Not Allowed",
        411 => "Length Required",
        422 => "Unprocessable Content",
        431 => "Request Header Fields Too Large",
        505 => "HTTP Version Not Supported",
        _ => "Bad Request",
    }
}
