//! A client that fetches a page, as a browser does it once.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::pattern;

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The `Server` header: the name of the host that answered.
    pub server: String,
    /// The page.
    pub body: Vec<u8>,
}

/// Fetches a page over a connection of its own.
///
/// **Errors** — also when connecting, or nothing for `patience`, takes too long, when the answer
/// is no HTTP, ends early, or is longer than 16 MiB.
pub fn get(address: SocketAddr, path: &str, patience: Duration) -> io::Result<Answer> {
    let mut stream = request(address, "GET", path, 0, patience)?;
    let mut bytes = Vec::new();
    let limit = MAX_ANSWER_BYTES + 1;
    Read::by_ref(&mut stream).take(limit).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == limit {
        return Err(io::Error::other("the answer is longer than 16 MiB"));
    }
    let (head, body) = parse_head(&bytes)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let body = &bytes[body..];
    if head.length_bytes.is_some_and(|length| length != body.len() as u64) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Answer { status: head.status, server: head.server, body: body.to_vec() })
}

/// Downloads `length` bytes and compares each with the [`pattern`]. Returns how long it took.
pub fn download(address: SocketAddr, length: u64, patience: Duration) -> io::Result<Duration> {
    let start = Instant::now();
    let mut stream = request(address, "GET", &format!("/bytes/{length}"), 0, patience)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let (head, mut fill, body) = read_head(&mut stream, &mut buffer)?;
    expect_status(&head, 200)?;
    buffer.copy_within(body..fill, 0);
    fill -= body;
    let mut received = 0;
    loop {
        if let Some(offset) = pattern::first_difference(received, &buffer[..fill]) {
            return Err(io::Error::other(format!("byte {offset} of {length} is wrong")));
        }
        received += fill as u64;
        fill = stream.read(&mut buffer)?;
        if fill == 0 {
            break;
        }
    }
    if received != length {
        return Err(io::Error::other(format!("{received} of {length} bytes came")));
    }
    Ok(start.elapsed())
}

/// Uploads `length` bytes of the [`pattern`], which the server compares. Returns how long it took.
pub fn upload(address: SocketAddr, length: u64, patience: Duration) -> io::Result<Duration> {
    let start = Instant::now();
    let mut stream = request(address, "POST", "/verify", length, patience)?;
    let mut sent = 0;
    while sent < length {
        let piece = pattern::at(sent, length - sent);
        stream.write_all(piece)?;
        sent += piece.len() as u64;
    }
    let mut buffer = vec![0; BUFFER_BYTES];
    let (head, fill, body) = read_head(&mut stream, &mut buffer)?;
    if head.status != 200 {
        let why = String::from_utf8_lossy(&buffer[body..fill]).into_owned();
        return Err(io::Error::other(format!("the server says {}: {why}", head.status)));
    }
    Ok(start.elapsed())
}

const MAX_ANSWER_BYTES: u64 = 16 << 20;
const BUFFER_BYTES: usize = 256 << 10;

struct Head {
    status: u16,
    server: String,
    length_bytes: Option<u64>,
}

fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    body_bytes: u64,
    patience: Duration,
) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {body_bytes}\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    Ok(stream)
}

/// Reads until the head is complete. Returns it, how full the buffer is, and where the body begins.
fn read_head(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<(Head, usize, usize)> {
    let mut fill = 0;
    loop {
        let read = stream.read(&mut buffer[fill..])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        fill += read;
        if let Some((head, body)) = parse_head(&buffer[..fill])? {
            return Ok((head, fill, body));
        }
    }
}

fn parse_head(bytes: &[u8]) -> io::Result<Option<(Head, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(body) = response.parse(bytes).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let header = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| std::str::from_utf8(header.value).ok())
    };
    let head = Head {
        status: response.code.unwrap_or(0),
        server: header("server").unwrap_or_default().to_owned(),
        length_bytes: header("content-length").and_then(|text| text.parse().ok()),
    };
    Ok(Some((head, body)))
}

fn expect_status(head: &Head, status: u16) -> io::Result<()> {
    if head.status == status {
        return Ok(());
    }
    Err(io::Error::other(format!("the server says {}", head.status)))
}
