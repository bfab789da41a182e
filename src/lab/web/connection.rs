//! One client's connection: from bytes to answers.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

use mio::net::TcpStream;

use super::pattern;
use super::proxy::{self, Told};
use super::request::{self, Parsed};
use super::response::{self, Purpose, Stream, Upload};
use super::site::Site;

/// What becomes of a connection after it was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It waits for readiness.
    Wait,
    /// It has more to do at once, but others come first.
    Again,
    /// It is over.
    Close,
}

/// What all connections of a thread work with, one after the other.
#[derive(Debug)]
pub(super) struct Desk<'a> {
    pub(super) site: &'a Site,
    pub(super) input: Box<[u8]>,
    pub(super) output: Vec<u8>,
    pub(super) requests: &'a AtomicU64,
}

impl<'a> Desk<'a> {
    pub(super) fn new(site: &'a Site, requests: &'a AtomicU64) -> Self {
        Desk {
            site,
            input: vec![0; INPUT_BYTES].into_boxed_slice(),
            output: Vec::with_capacity(2 * BACKLOG_BYTES),
            requests,
        }
    }
}

/// Read at once at most.
const INPUT_BYTES: usize = 128 * 1024;
/// With more than this waiting to be sent no further request is answered.
const BACKLOG_BYTES: usize = 64 * 1024;
/// How often input that nobody wants is read before the connection is closed over it.
const LINGER_READS: u32 = 64;
/// Reads and writes before other connections come first.
const TURNS: usize = 32;

/// A connection and what is unfinished on it. Nothing unfinished, no memory.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    client: SocketAddr,
    /// Whether nothing was read yet, so that a PROXY header may come.
    fresh: bool,
    /// Input that is not yet answered, at most [`INPUT_BYTES`].
    unread: Vec<u8>,
    /// Whether `unread` may hold a whole request.
    held_back: bool,
    unsent: Vec<u8>,
    body: Stream,
    upload: Option<Upload>,
    stage: Stage,
    /// The sweep in which it last did something.
    pub(super) active: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// No further request is answered; it ends when everything is sent.
    Ending,
    /// As before, and input that nobody will read is waited out, since closing over it would
    /// reset the connection and with that take the answer away from the client.
    EndingEarly,
    /// Waiting for the client's end, for so many more reads.
    Lingering(u32),
}

impl Connection {
    pub(super) fn new(stream: TcpStream, client: SocketAddr, active: u64) -> Self {
        Connection {
            stream,
            client,
            fresh: true,
            unread: Vec::new(),
            held_back: false,
            unsent: Vec::new(),
            body: Stream::default(),
            upload: None,
            stage: Stage::Open,
            active,
        }
    }

    /// Does everything that can be done now.
    pub(super) fn serve(&mut self, desk: &mut Desk<'_>) -> Fate {
        for _ in 0..TURNS {
            match self.turn(desk) {
                Ok(None) => {}
                Ok(Some(fate)) => return fate,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Fate::Wait,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Fate::Close,
            }
        }
        Fate::Again
    }

    /// Sends what waits, then reads and answers once.
    fn turn(&mut self, desk: &mut Desk<'_>) -> io::Result<Option<Fate>> {
        if !self.flush()? {
            return Ok(None);
        }
        match self.stage {
            Stage::Ending => return Ok(Some(Fate::Close)),
            Stage::EndingEarly => {
                self.stream.shutdown(Shutdown::Write)?;
                self.stage = Stage::Lingering(LINGER_READS);
                return Ok(None);
            }
            Stage::Lingering(0) => return Ok(Some(Fate::Close)),
            Stage::Lingering(reads) => {
                self.stage = Stage::Lingering(reads - 1);
                return Ok((self.stream.read(&mut desk.input)? == 0).then_some(Fate::Close));
            }
            Stage::Open => {}
        }
        let Some((length, drained)) = self.take_input(desk)? else { return Ok(Some(Fate::Close)) };
        self.answer_all(desk, length);
        self.send_output(desk)?;
        let idle = drained && !self.held_back && self.stage == Stage::Open && self.all_sent();
        Ok(idle.then_some(Fate::Wait))
    }

    /// Brings unfinished and new input to the desk. Nothing at the client's end of stream.
    /// Returns how much there is, and whether that was all.
    fn take_input(&mut self, desk: &mut Desk<'_>) -> io::Result<Option<(usize, bool)>> {
        let kept = self.unread.len();
        let space = desk.input.len();
        desk.input[..kept].copy_from_slice(&self.unread);
        if self.held_back {
            self.unread.clear();
            return Ok(Some((kept, false)));
        }
        let read = self.stream.read(&mut desk.input[kept..])?;
        if read == 0 {
            return Ok(None);
        }
        self.unread = Vec::new();
        // With edge-triggered readiness a short read says that nothing more is there.
        Ok(Some((kept + read, kept + read < space)))
    }

    /// Answers the requests in the first `length` bytes of the desk and keeps the rest.
    fn answer_all(&mut self, desk: &mut Desk<'_>, length: usize) {
        self.held_back = false;
        let input = std::mem::take(&mut desk.input);
        let mut rest = &input[..length];
        while !rest.is_empty() && self.stage == Stage::Open {
            if desk.output.len() > BACKLOG_BYTES || self.body.remaining_bytes > 0 {
                self.held_back = true;
                break;
            }
            let used = self.step(desk, rest);
            if used == 0 {
                break;
            }
            rest = &rest[used..];
        }
        match self.stage {
            Stage::Open => self.unread.extend_from_slice(rest),
            Stage::Ending if !rest.is_empty() => self.stage = Stage::EndingEarly,
            Stage::Ending | Stage::EndingEarly | Stage::Lingering(_) => {}
        }
        desk.input = input;
    }

    /// Takes one request, or one piece of a body, from `input`. Returns how long it was.
    fn step(&mut self, desk: &mut Desk<'_>, input: &[u8]) -> usize {
        if let Some(mut upload) = self.upload.take() {
            let used = take_body(&mut upload, input);
            self.continue_upload(desk, upload);
            return used;
        }
        if self.fresh {
            match proxy::parse(input) {
                Told::Partial => return 0,
                Told::Nothing => self.fresh = false,
                Told::Client(client, used) => {
                    self.fresh = false;
                    self.client = client.unwrap_or(self.client);
                    return used;
                }
            }
        }
        match request::parse(input) {
            Parsed::Partial => 0,
            Parsed::Refused(status) => {
                response::refusal(&mut desk.output, status, desk.site);
                self.stage = Stage::EndingEarly;
                0
            }
            Parsed::Complete(request, used) => {
                desk.requests.fetch_add(1, Ordering::Relaxed);
                self.answer(desk, &request);
                used
            }
        }
    }

    fn answer(&mut self, desk: &mut Desk<'_>, request: &request::Request<'_>) {
        if let Some(upload) = response::upload(request) {
            if request.expects_continue && request.body_bytes > 0 {
                desk.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            return self.continue_upload(desk, upload);
        }
        self.body = response::answer(&mut desk.output, request, desk.site, self.client);
        self.continue_upload(desk, response::receive(request, Purpose::Ignore));
    }

    /// Goes on with a body, or finishes its request.
    fn continue_upload(&mut self, desk: &mut Desk<'_>, upload: Upload) {
        if upload.remaining_bytes > 0 {
            self.upload = Some(upload);
            return;
        }
        response::receipt(&mut desk.output, &upload, desk.site);
        if !upload.keep_alive {
            self.stage = Stage::Ending;
        }
    }

    /// Writes the desk's output and keeps what the socket does not take.
    fn send_output(&mut self, desk: &mut Desk<'_>) -> io::Result<()> {
        let result = write_all(&mut self.stream, &desk.output);
        let (sent, result) = match result {
            Ok(()) => (desk.output.len(), Ok(())),
            Err((sent, error)) => (sent, Err(error)),
        };
        self.unsent.extend_from_slice(&desk.output[sent..]);
        desk.output.clear();
        result
    }

    fn all_sent(&self) -> bool {
        self.unsent.is_empty() && self.body.remaining_bytes == 0
    }

    /// Sends what waits, at most one piece of a long body. Returns whether that was all.
    fn flush(&mut self) -> io::Result<bool> {
        if !self.unsent.is_empty() {
            if let Err((sent, error)) = write_all(&mut self.stream, &self.unsent) {
                self.unsent.drain(..sent);
                return Err(error);
            }
            self.unsent = Vec::new();
        }
        if self.body.remaining_bytes > 0 {
            let piece = pattern::at(self.body.offset, self.body.remaining_bytes);
            let sent = self.stream.write(piece)? as u64;
            self.body.offset += sent;
            self.body.remaining_bytes -= sent;
        }
        Ok(self.body.remaining_bytes == 0)
    }
}

fn take_body(upload: &mut Upload, input: &[u8]) -> usize {
    let length = input.len().min(usize::try_from(upload.remaining_bytes).unwrap_or(usize::MAX));
    match &mut upload.purpose {
        Purpose::Verify(difference) if difference.is_none() => {
            *difference = pattern::first_difference(upload.received_bytes, &input[..length]);
        }
        Purpose::Digest(sum) => sum.add(&input[..length]),
        Purpose::Ignore | Purpose::Count | Purpose::Verify(_) => {}
    }
    upload.received_bytes += length as u64;
    upload.remaining_bytes -= length as u64;
    length
}

/// Writes until everything is written; on error, says how much was.
fn write_all(stream: &mut TcpStream, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(0) => return Err((sent, io::ErrorKind::WriteZero.into())),
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((sent, error)),
        }
    }
    Ok(())
}
