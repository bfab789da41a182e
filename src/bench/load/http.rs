//! The HTTP client under the connection and request loads.
//!
//! One thread, one epoll instance, as lean as wrk: the request is prebuilt, a response is parsed
//! once in a buffer that the connection keeps, and nothing is allocated per request. Every
//! response's status and length are checked.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::{
    CONCURRENCY, Failure, Failures, Latency, Measurement, Phase, Timing, Window, per_second,
};

/// What is fetched, and from where.
#[derive(Clone, Debug)]
pub struct Page {
    /// Addresses that are asked in turn.
    pub addresses: Vec<SocketAddr>,
    /// Path with its leading slash.
    pub path: String,
}

/// What becomes of a connection after its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reuse {
    /// It carries the next request.
    KeepAlive,
    /// It is closed. The server closes first and the client waits for that, so the TIME_WAIT
    /// stays with the server, the client's ports are free at once, and no reset is sent.
    Close,
}

/// Keeps [`CONCURRENCY`] connections busy with requests for `page`.
///
/// **Errors** — only if the event loop cannot be made, or no connection could be started at all;
/// what goes wrong with single connections is counted in the measurement.
pub(super) fn run(page: &Page, timing: Timing, reuse: Reuse) -> io::Result<Measurement> {
    Generator::new(page, reuse)?.run(timing)
}

struct Generator<'a> {
    addresses: &'a [SocketAddr],
    request: Vec<u8>,
    reuse: Reuse,
    poll: Poll,
    clients: Vec<Client>,
    started: usize,
    tally: Tally,
}

struct Tally {
    completed: u64,
    failures: Failures,
    latencies: Histogram<u64>,
}

struct Client {
    stream: Option<TcpStream>,
    connected: bool,
    state: State,
    response: Response,
    begun: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The request has been sent up to this byte.
    Sending(usize),
    Receiving,
    /// The response is complete; the server is to close.
    Closing,
}

/// What a step of a client came to.
enum Step {
    /// Nothing more can be done before the next event.
    Waits,
    /// One request has been served.
    Served,
}

impl<'a> Generator<'a> {
    fn new(page: &'a Page, reuse: Reuse) -> io::Result<Self> {
        let first = page.addresses.first().ok_or_else(|| {
            io::Error::new(ErrorKind::InvalidInput, "a load needs an address to ask")
        })?;
        let connection = match reuse {
            Reuse::KeepAlive => "keep-alive",
            Reuse::Close => "close",
        };
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {first}\r\nConnection: {connection}\r\n\r\n",
            page.path
        );
        Ok(Self {
            addresses: &page.addresses,
            request: request.into_bytes(),
            reuse,
            poll: Poll::new()?,
            clients: (0..CONCURRENCY).map(|_| Client::idle()).collect(),
            started: 0,
            tally: Tally::new()?,
        })
    }

    fn run(mut self, timing: Timing) -> io::Result<Measurement> {
        let mut events = Events::with_capacity(CONCURRENCY);
        let mut now = Instant::now();
        let mut window = Window::begin(timing, now);
        loop {
            match window.phase(now) {
                Phase::WarmUp | Phase::Measured => {}
                Phase::Opens => self.tally.reset(),
                Phase::Over => break,
            }
            if self.tally.is_hopeless() {
                break;
            }
            self.start_idle_clients(now);
            match self.poll.poll(&mut events, Some(window.patience(now).min(RETRY))) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                polled => polled?,
            }
            for event in &events {
                self.handle(event);
            }
            now = Instant::now();
        }
        self.count_stalled(now);
        Ok(self.tally.measurement(window.elapsed(now)))
    }

    fn start_idle_clients(&mut self, now: Instant) {
        for index in 0..self.clients.len() {
            if self.clients[index].stream.is_none() {
                self.start(index, now);
            }
        }
    }

    fn start(&mut self, index: usize, now: Instant) {
        let address = self.addresses[self.started % self.addresses.len()];
        self.started = self.started.wrapping_add(1);
        let interest = Interest::READABLE | Interest::WRITABLE;
        let client = &mut self.clients[index];
        client.begin(now);
        client.connected = false;
        client.stream = TcpStream::connect(address)
            .and_then(|mut stream| {
                let registry = self.poll.registry();
                registry.register(&mut stream, Token(index), interest)?;
                Ok(stream)
            })
            .inspect_err(|_| self.tally.failures.connect += 1)
            .ok();
    }

    fn handle(&mut self, event: &Event) {
        let index = event.token().0;
        loop {
            let client = &mut self.clients[index];
            match client.advance(&self.request, self.reuse) {
                Ok(Step::Waits) => return,
                Ok(Step::Served) => {
                    let now = Instant::now();
                    self.tally.serve(now.saturating_duration_since(client.begun));
                    match self.reuse {
                        // Sends the next request in this same step; its response is another event.
                        Reuse::KeepAlive => client.begin(now),
                        Reuse::Close => return self.restart(index, now),
                    }
                }
                Err(failure) => {
                    self.tally.failures += failure;
                    client.stream = None;
                    return;
                }
            }
        }
    }

    /// Replaces a connection that has served. Dropping the old stream takes it out of epoll.
    fn restart(&mut self, index: usize, now: Instant) {
        self.clients[index].stream = None;
        self.start(index, now);
    }

    fn count_stalled(&mut self, now: Instant) {
        let stalled = |client: &&Client| {
            client.stream.is_some() && now.saturating_duration_since(client.begun) > STALL
        };
        self.tally.failures.stalled = self.clients.iter().filter(stalled).count() as u64;
    }
}

impl Client {
    fn idle() -> Self {
        Self {
            stream: None,
            connected: false,
            state: State::Sending(0),
            response: Response::new(),
            begun: Instant::now(),
        }
    }

    fn begin(&mut self, now: Instant) {
        self.state = State::Sending(0);
        self.response.reset();
        self.begun = now;
    }

    /// Does what can be done without waiting.
    fn advance(&mut self, request: &[u8], reuse: Reuse) -> Result<Step, Failure> {
        match self.state {
            State::Sending(sent) => self.send(request, sent),
            State::Receiving => match (self.receive()?, reuse) {
                (false, _) => Ok(Step::Waits),
                (true, Reuse::KeepAlive) => Ok(Step::Served),
                (true, Reuse::Close) => {
                    self.state = State::Closing;
                    self.await_close()
                }
            },
            State::Closing => self.await_close(),
        }
    }

    /// Sends the rest of the request. The response is always another event, so nothing is read.
    fn send(&mut self, request: &[u8], mut sent: usize) -> Result<Step, Failure> {
        let refused = if self.connected { Failure::Broken } else { Failure::Connect };
        while sent < request.len() {
            match self.write(&request[sent..]) {
                Ok(written) => sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.state = State::Sending(sent);
                    return Ok(Step::Waits);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(refused),
            }
        }
        self.connected = true;
        self.state = State::Receiving;
        Ok(Step::Waits)
    }

    /// Reads until the response is complete (true) or nothing more is there (false).
    fn receive(&mut self) -> Result<bool, Failure> {
        loop {
            let Some(stream) = &mut self.stream else {
                return Ok(false);
            };
            match stream.read(self.response.space()) {
                Ok(0) => return Err(Failure::Broken),
                Ok(received) => {
                    if self.response.accept(received)? {
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Failure::Broken),
            }
        }
    }

    fn await_close(&mut self) -> Result<Step, Failure> {
        let Some(stream) = &mut self.stream else {
            return Ok(Step::Waits);
        };
        loop {
            match stream.read(self.response.space()) {
                Ok(0) => return Ok(Step::Served),
                Ok(_) => return Err(Failure::Length),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Step::Waits),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Failure::Broken),
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.stream {
            Some(stream) => stream.write(bytes),
            None => Err(ErrorKind::NotConnected.into()),
        }
    }
}

impl Tally {
    fn new() -> io::Result<Self> {
        let latencies = Histogram::new_with_bounds(1_000, LONGEST_NS, 3)
            .map_err(|error| io::Error::other(format!("latency histogram: {error}")))?;
        Ok(Self { completed: 0, failures: Failures::default(), latencies })
    }

    /// Forgets what was served during the warm-up. Failures stay: they are never harmless.
    fn reset(&mut self) {
        self.completed = 0;
        self.latencies.reset();
    }

    fn serve(&mut self, latency: Duration) {
        self.completed += 1;
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(LONGEST_NS);
        self.latencies.saturating_record(nanoseconds);
    }

    /// Whether going on would only hammer a path that does not work.
    fn is_hopeless(&self) -> bool {
        self.failures.total() > HOPELESS.max(self.completed)
    }

    fn measurement(self, elapsed: Duration) -> Measurement {
        let seconds = elapsed.as_secs_f64();
        Measurement {
            rate: per_second(self.completed, elapsed),
            seconds,
            failures: self.failures,
            latency: Latency::of(&self.latencies),
            pressure: None,
        }
    }
}

/// A response as far as it has come.
///
/// **Shape** — the head is collected in a buffer of fixed size; of the body only the length is
/// kept, so a body may be of any size.
struct Response {
    buffer: Box<[u8]>,
    filled: usize,
    /// Bytes of the body still to come, once the head is complete.
    missing: Option<u64>,
}

impl Response {
    fn new() -> Self {
        Self { buffer: vec![0; RESPONSE_BUFFER].into_boxed_slice(), filled: 0, missing: None }
    }

    fn reset(&mut self) {
        self.filled = 0;
        self.missing = None;
    }

    /// Where the next bytes go: never empty.
    fn space(&mut self) -> &mut [u8] {
        let start = if self.missing.is_some() { 0 } else { self.filled };
        &mut self.buffer[start..]
    }

    /// Takes `received` bytes that were put into [`space`](Self::space). True if they complete
    /// the response.
    fn accept(&mut self, received: usize) -> Result<bool, Failure> {
        let missing = match self.missing {
            Some(missing) => missing.checked_sub(received as u64),
            None => {
                self.filled += received;
                match read_head(&self.buffer[..self.filled])? {
                    Some(head) => {
                        head.content_bytes.checked_sub((self.filled - head.len_bytes) as u64)
                    }
                    None if self.filled == self.buffer.len() => return Err(Failure::Status),
                    None => return Ok(false),
                }
            }
        };
        self.missing = missing;
        missing.map(|left| left == 0).ok_or(Failure::Length)
    }
}

struct Head {
    len_bytes: usize,
    content_bytes: u64,
}

/// Reads a response's head; none if it is not complete yet.
fn read_head(bytes: &[u8]) -> Result<Option<Head>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let len_bytes = match response.parse(bytes) {
        Ok(httparse::Status::Complete(len_bytes)) => len_bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Failure::Status),
    };
    if response.code != Some(200) {
        return Err(Failure::Status);
    }
    let content_bytes = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok())
        .ok_or(Failure::Length)?;
    Ok(Some(Head { len_bytes, content_bytes }))
}

/// Room for a head; a longer one is counted as no HTTP.
const RESPONSE_BUFFER: usize = 16 * 1024;

/// Headers that a response may have.
const MAX_HEADERS: usize = 32;

/// The longest latency that the histogram tells apart: a minute.
const LONGEST_NS: u64 = 60_000_000_000;

/// Failures after which a run ends early unless more was served.
const HOPELESS: u64 = 1000;

/// How soon a connection that failed is tried again.
const RETRY: Duration = Duration::from_millis(10);

/// A connection without an answer for this long at the end of a run is stalled: longer than a
/// lost SYN's first retransmission.
const STALL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
