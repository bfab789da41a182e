//! What a client asks for.

/// A parsed request head.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    /// Without query and without scheme and host.
    pub(super) path: &'a str,
    /// Whether the connection stays open after the answer.
    pub(super) keep_alive: bool,
    /// Whether the client is of HTTP/1.0, which has to be told that the connection stays open.
    pub(super) old: bool,
    /// The length of the body that follows.
    pub(super) body_bytes: u64,
    /// Whether the client waits for permission to send the body.
    pub(super) expects_continue: bool,
}

/// What the bytes so far are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed<'a> {
    /// A request, and how many bytes its head takes.
    Complete(Request<'a>, usize),
    /// The beginning of one.
    Partial,
    /// Nothing that can be answered otherwise than with this status.
    Refused(u16),
}

/// The largest request head that is accepted.
pub(super) const MAX_HEAD_BYTES: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;

/// Parses the request head that `bytes` begin with.
pub(super) fn parse(bytes: &[u8]) -> Parsed<'_> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD_BYTES => {
            match interpret(&head) {
                Ok(request) => Parsed::Complete(request, length),
                Err(status) => Parsed::Refused(status),
            }
        }
        Ok(httparse::Status::Complete(_)) => Parsed::Refused(431),
        Ok(httparse::Status::Partial) if bytes.len() >= MAX_HEAD_BYTES => Parsed::Refused(431),
        Ok(httparse::Status::Partial) => Parsed::Partial,
        Err(httparse::Error::TooManyHeaders) => Parsed::Refused(431),
        Err(httparse::Error::Version) => Parsed::Refused(505),
        Err(_) => Parsed::Refused(400),
    }
}

fn interpret<'a>(head: &httparse::Request<'_, 'a>) -> Result<Request<'a>, u16> {
    let (Some(method), Some(target), Some(version)) = (head.method, head.path, head.version) else {
        return Err(400);
    };
    let mut request = Request {
        method,
        path: path_of(target),
        keep_alive: version == 1,
        old: version == 0,
        body_bytes: 0,
        expects_continue: false,
    };
    let mut length: Option<u64> = None;
    for header in head.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            let stated = number(header.value).ok_or(400u16)?;
            // Two different lengths are how requests are smuggled.
            if length.is_some_and(|before| before != stated) {
                return Err(400);
            }
            length = Some(stated);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(411);
        } else if header.name.eq_ignore_ascii_case("connection") {
            if has_word(header.value, "close") {
                request.keep_alive = false;
            } else if has_word(header.value, "keep-alive") {
                request.keep_alive = true;
            }
        } else if header.name.eq_ignore_ascii_case("expect") {
            request.expects_continue = has_word(header.value, "100-continue");
        }
    }
    request.body_bytes = length.unwrap_or(0);
    Ok(request)
}

/// Only digits: `parse` alone would also take a sign.
fn number(value: &[u8]) -> Option<u64> {
    if !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn has_word(value: &[u8], word: &str) -> bool {
    value.split(|b| *b == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}

fn path_of(target: &str) -> &str {
    let target = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => target,
    };
    target.split(['?', '#']).next().unwrap_or(target)
}
