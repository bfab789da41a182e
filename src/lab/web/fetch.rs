//! A client that fetches a page, as a browser does it once.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::pattern;
use super::sum::Sum;

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

/// A long transfer and what both ends made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The name of the host at the other end.
    pub server: String,
    /// How long it took.
    pub time: Duration,
    /// The SHA-256 of what this end sent or received, in hexadecimal.
    pub sha256: String,
    /// The same of what the other end received or sent, as that end says itself.
    pub server_sha256: String,
}

/// Downloads `length` bytes and compares each with the [`pattern`]. Returns how long it took.
pub fn download(address: SocketAddr, length: u64, patience: Duration) -> io::Result<Duration> {
    let start = Instant::now();
    let mut stream = request(address, "GET", &format!("/bytes/{length}"), 0, patience)?;
    let mut received = 0;
    receive(&mut stream, length, |bytes| {
        if let Some(offset) = pattern::first_difference(received, bytes) {
            return Err(io::Error::other(format!("byte {offset} of {length} is wrong")));
        }
        received += bytes.len() as u64;
        Ok(())
    })?;
    let behind = stream.read(&mut [0; 1])?;
    expect_length(length + behind as u64, length)?;
    Ok(start.elapsed())
}

/// Downloads `length` bytes, and then asks for their sum over the same connection.
pub fn download_summed(
    address: SocketAddr,
    length: u64,
    patience: Duration,
) -> io::Result<Transfer> {
    let start = Instant::now();
    let mut stream = connect(address, patience)?;
    write_head(&mut stream, "GET", &format!("/bytes/{length}"), 0, "keep-alive")?;
    let mut sum = Sum::default();
    let head = receive(&mut stream, length, |bytes| {
        sum.add(bytes);
        Ok(())
    })?;
    let time = start.elapsed();
    write_head(&mut stream, "GET", &format!("/sha256/{length}"), 0, "close")?;
    let (_, said) = read_answer(&mut stream)?;
    Ok(Transfer { server: head.server, time, sha256: sum.text(), server_sha256: text_of(&said) })
}

/// Uploads `length` bytes of the [`pattern`], which the server compares. Returns how long it took.
pub fn upload(address: SocketAddr, length: u64, patience: Duration) -> io::Result<Duration> {
    let start = Instant::now();
    send(address, "/verify", length, patience)?;
    Ok(start.elapsed())
}

/// Uploads `length` bytes, which the server sums up.
pub fn upload_summed(address: SocketAddr, length: u64, patience: Duration) -> io::Result<Transfer> {
    let start = Instant::now();
    let (head, body) = send(address, "/sha256", length, patience)?;
    let time = start.elapsed();
    let sha256 = pattern::sha256(length);
    Ok(Transfer { server: head.server, time, sha256, server_sha256: text_of(&body) })
}

/// Passes the bytes of a download on as they come, until there are as many as asked for.
fn receive(
    stream: &mut TcpStream,
    length: u64,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<Head> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let (head, fill, body) = read_head(stream, &mut buffer)?;
    expect_status(&head, &buffer[body..fill])?;
    take(&buffer[body..fill])?;
    let mut count = (fill - body) as u64;
    while count < length {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        take(&buffer[..read])?;
        count += read as u64;
    }
    expect_length(count, length)?;
    Ok(head)
}

/// Sends a body of the pattern. Returns what the server said to it.
fn send(
    address: SocketAddr,
    path: &str,
    length: u64,
    patience: Duration,
) -> io::Result<(Head, Vec<u8>)> {
    let mut stream = request(address, "POST", path, length, patience)?;
    let mut sent = 0;
    while sent < length {
        let piece = pattern::at(sent, length - sent);
        stream.write_all(piece)?;
        sent += piece.len() as u64;
    }
    read_answer(&mut stream)
}

/// Reads a short answer to its end.
fn read_answer(stream: &mut TcpStream) -> io::Result<(Head, Vec<u8>)> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let (head, fill, body) = read_head(stream, &mut buffer)?;
    expect_status(&head, &buffer[body..fill])?;
    let mut said = buffer[body..fill].to_vec();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut said)?;
    Ok((head, said))
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
    let mut stream = connect(address, patience)?;
    write_head(&mut stream, method, path, body_bytes, "close")?;
    Ok(stream)
}

fn connect(address: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    Ok(stream)
}

fn write_head(
    stream: &mut TcpStream,
    method: &str,
    path: &str,
    body_bytes: u64,
    connection: &str,
) -> io::Result<()> {
    let host = stream.peer_addr()?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {body_bytes}\r\n\
         Connection: {connection}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())
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

fn expect_status(head: &Head, body: &[u8]) -> io::Result<()> {
    if head.status == 200 {
        return Ok(());
    }
    Err(io::Error::other(format!("the server says {}: {}", head.status, text_of(body))))
}

fn expect_length(count: u64, length: u64) -> io::Result<()> {
    if count == length {
        return Ok(());
    }
    Err(io::Error::other(format!("{count} of {length} bytes came")))
}

fn text_of(body: &[u8]) -> String {
    String::from_utf8_lossy(body).trim_end().to_owned()
}
