//! Bulk TCP: what a byte costs, or rather a super-frame.
//!
//! One connection; the receiver counts. Blocks are as large as iperf3's, and are really copied
//! to the reader, so that the figures can be compared: `iperf3 -c ADDRESS` for the upload,
//! `iperf3 -R -c ADDRESS` for the download.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{Failure, Failures, Measurement, Phase, Timing, Window, per_second};

/// Receives from the counterpart at `address` and counts what comes.
///
/// **Errors** — the connection could not be made.
pub fn download(address: SocketAddr, timing: Timing) -> io::Result<Measurement> {
    let mut stream = ask(address, Request::Download)?;
    let mut buffer = vec![0; BLOCK_BYTES];
    let mut received = 0;
    transfer(timing, move |failures| {
        match stream.read(&mut buffer) {
            Ok(0) => *failures += Failure::Length,
            Ok(bytes) => received += bytes as u64,
            Err(error) => *failures += failure_of(&error),
        }
        received
    })
}

/// Sends to the counterpart at `address`, whose `meter` counts what arrives, and checks at the
/// end that everything did.
///
/// **Errors** — the connection could not be made.
pub fn upload(address: SocketAddr, meter: &Meter, timing: Timing) -> io::Result<Measurement> {
    let before = meter.received_bytes();
    let mut stream = ask(address, Request::Upload)?;
    let buffer = vec![0x5a; BLOCK_BYTES];
    let mut sent = 0;
    let mut measurement = transfer(timing, |failures| {
        match stream.write(&buffer) {
            Ok(bytes) => sent += bytes as u64,
            Err(error) => *failures += failure_of(&error),
        }
        meter.received_bytes()
    })?;
    drop(stream);
    if measurement.failures.total() == 0 && !arrives(meter, before + sent) {
        measurement.failures += Failure::Length;
    }
    Ok(measurement)
}

/// Waits until everything that was sent has arrived; false if it does not.
fn arrives(meter: &Meter, all_bytes: u64) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while meter.received_bytes() < all_bytes && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    meter.received_bytes() == all_bytes
}

/// The two ends of a connection as the server sees them, which tells whether and how the
/// director in between has rewritten it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Who the server talks to.
    pub peer: SocketAddr,
    /// Who the server is.
    pub local: SocketAddr,
}

/// Asks the counterpart at `address` how it sees the connection.
///
/// **Errors** — no connection, or no sensible answer within seconds.
pub fn ends(address: SocketAddr) -> io::Result<Ends> {
    let mut answer = String::new();
    ask(address, Request::Ends)?.take(MAX_ENDS_BYTES).read_to_string(&mut answer)?;
    let mut parts = answer.split_whitespace().map(str::parse);
    match (parts.next(), parts.next()) {
        (Some(Ok(peer)), Some(Ok(local))) => Ok(Ends { peer, local }),
        _ => Err(io::Error::new(
            ErrorKind::InvalidData,
            format!("{address} answered {answer:?} instead of the connection's two ends"),
        )),
    }
}

/// Counts the bytes that a [`Counterpart`] has received.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<AtomicU64>);

impl Meter {
    /// Bytes received so far.
    pub fn received_bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// The server's side of the bulk loads. It stops when dropped.
#[derive(Debug)]
pub struct Counterpart {
    listener: Arc<TcpListener>,
    meter: Meter,
    thread: Option<JoinHandle<()>>,
}

impl Counterpart {
    /// Listens on all IPv4 addresses of the calling thread's namespace and serves from a thread.
    ///
    /// **Errors** — the port is taken or not allowed.
    pub fn start(port: u16) -> io::Result<Self> {
        let listener = Arc::new(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?);
        let meter = Meter::default();
        let (accepting, counting) = (listener.clone(), meter.clone());
        let thread = thread::spawn(move || serve(&accepting, &counting));
        Ok(Self { listener, meter, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// What it has received.
    pub fn meter(&self) -> Meter {
        self.meter.clone()
    }
}

impl Drop for Counterpart {
    fn drop(&mut self) {
        // Makes `accept` fail, for good. Connections end with their clients or their patience.
        let _ = socket2::SockRef::from(&*self.listener).shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Serves each connection in a thread of its own until the listener is shut down.
fn serve(listener: &TcpListener, meter: &Meter) {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                let meter = meter.clone();
                // A connection that breaks is the client's finding, not ours.
                thread::spawn(move || serve_one(stream, &meter));
            }
            Err(error) if error.kind() == ErrorKind::InvalidInput => return,
            // Out of descriptors, or a connection that broke in the queue.
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// What a client can ask of the counterpart, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Download,
    Upload,
    Ends,
}

impl Request {
    fn byte(self) -> u8 {
        match self {
            Request::Download => b'D',
            Request::Upload => b'U',
            Request::Ends => b'E',
        }
    }

    fn of(byte: u8) -> Option<Self> {
        [Request::Download, Request::Upload, Request::Ends]
            .into_iter()
            .find(|request| request.byte() == byte)
    }
}

fn ask(address: SocketAddr, request: Request) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    set_patience(&stream)?;
    stream.write_all(&[request.byte()])?;
    Ok(stream)
}

fn set_patience(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

/// Repeats `step` for the time of the measurement or until it reports a failure. It returns how
/// many bytes the receiver has.
fn transfer(timing: Timing, mut step: impl FnMut(&mut Failures) -> u64) -> io::Result<Measurement> {
    let mut failures = Failures::default();
    let mut now = Instant::now();
    let mut window = Window::begin(timing, now);
    let (mut at_start, mut bytes) = (0, 0);
    while failures.total() == 0 {
        match window.phase(now) {
            Phase::WarmUp | Phase::Measured => {}
            Phase::Opens => at_start = bytes,
            Phase::Over => break,
        }
        bytes = step(&mut failures);
        now = Instant::now();
    }
    let elapsed = window.elapsed(now);
    Ok(Measurement {
        rate: per_second((bytes - at_start) * 8, elapsed),
        seconds: elapsed.as_secs_f64(),
        failures,
        latency: None,
        pressure: None,
    })
}

fn failure_of(error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Failure::Stalled,
        _ => Failure::Broken,
    }
}

fn serve_one(mut stream: TcpStream, meter: &Meter) -> io::Result<()> {
    set_patience(&stream)?;
    let mut first = [0];
    stream.read_exact(&mut first)?;
    match Request::of(first[0]) {
        Some(Request::Download) => loop {
            stream.write_all(&BLOCK)?;
        },
        Some(Request::Upload) => receive_upload(stream, meter),
        Some(Request::Ends) => {
            let (peer, local) = (stream.peer_addr()?, stream.local_addr()?);
            write!(stream, "{peer} {local}")
        }
        None => Ok(()),
    }
}

fn receive_upload(mut stream: TcpStream, meter: &Meter) -> io::Result<()> {
    let mut buffer = vec![0; BLOCK_BYTES];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            bytes => meter.add(bytes),
        }
    }
}

/// Bytes per read and write: iperf3's default for TCP.
const BLOCK_BYTES: usize = 128 * 1024;

static BLOCK: [u8; BLOCK_BYTES] = [0xa5; BLOCK_BYTES];

/// How long a transfer may stand still.
const PATIENCE: Duration = Duration::from_secs(2);

/// Two socket addresses and a blank.
const MAX_ENDS_BYTES: u64 = 128;

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing =
        Timing { warm_up: Duration::from_millis(20), measured: Duration::from_millis(100) };

    fn counterpart() -> (Counterpart, SocketAddr) {
        let counterpart = Counterpart::start(0).unwrap();
        let port = counterpart.address().unwrap().port();
        (counterpart, (Ipv4Addr::LOCALHOST, port).into())
    }

    #[test]
    fn a_download_is_counted_without_failures() {
        let (counterpart, address) = counterpart();
        let measurement = download(address, TIMING).unwrap();
        assert_eq!(measurement.failures, Failures::default());
        assert!(measurement.rate > 0.0);
        assert!((0.1..1.0).contains(&measurement.seconds));
        assert_eq!(counterpart.meter().received_bytes(), 0);
    }

    #[test]
    fn an_upload_is_counted_where_it_arrives() {
        let (counterpart, address) = counterpart();
        let meter = counterpart.meter();
        let measurement = upload(address, &meter, TIMING).unwrap();
        assert_eq!(measurement.failures, Failures::default());
        let counted_bits = measurement.rate * measurement.seconds;
        assert!(counted_bits > 0.0);
        // The warm-up and what was in flight at the end arrived too, but were not counted.
        assert!(counted_bits <= meter.received_bytes() as f64 * 8.0 + 1.0);
    }

    #[test]
    fn an_upload_that_does_not_arrive_whole_is_a_failure() {
        let (_counterpart, address) = counterpart();
        let elsewhere = Meter::default();
        let measurement = upload(address, &elsewhere, TIMING).unwrap();
        assert_eq!(measurement.failures.length, 1);
    }

    #[test]
    fn a_peer_that_hangs_up_in_mid_download_is_a_failure() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0]).unwrap();
            stream.write_all(b"that was all").unwrap();
        });
        let measurement = download(address, TIMING).unwrap();
        assert_eq!(measurement.failures.length, 1);
    }

    #[test]
    fn the_counterpart_tells_how_it_sees_a_connection() {
        let (_counterpart, address) = counterpart();
        let seen = ends(address).unwrap();
        assert_eq!(seen.local, address);
        assert_eq!(seen.peer.ip(), Ipv4Addr::LOCALHOST);
    }

    #[test]
    fn a_dropped_counterpart_has_freed_its_port() {
        let (counterpart, address) = counterpart();
        ends(address).unwrap();
        drop(counterpart);
        assert!(ends(address).is_err());
    }
}
