//! The HTTP generators against servers on loopback that count what they serve.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::*;

const TIMING: Timing =
    Timing { warm_up: Duration::from_millis(50), measured: Duration::from_millis(200) };

const PAGE: &str = "HTTP/1.1 200 OK\r\nServer: test\r\ncontent-length: 5\r\n\r\nhello";

/// Answers every request with `answer`; counts requests.
fn serve(answer: &'static str) -> (Page, Arc<AtomicU64>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let served = Arc::<AtomicU64>::default();
    let counter = served.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let counter = counter.clone();
            thread::spawn(move || serve_one(&stream, answer, &counter));
        }
    });
    let page = Page { addresses: vec![address], path: "/".to_owned() };
    (page, served)
}

fn serve_one(mut stream: &TcpStream, answer: &str, served: &AtomicU64) {
    let mut close = false;
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        close |= line == "Connection: close";
        if line.is_empty() {
            served.fetch_add(1, Ordering::Relaxed);
            if stream.write_all(answer.as_bytes()).is_err() || close {
                return;
            }
        }
    }
}

fn counted(measurement: &Measurement) -> u64 {
    (measurement.rate * measurement.seconds).round() as u64
}

#[test]
fn requests_are_counted_as_the_server_counts_them() {
    let (page, served) = serve(PAGE);
    let timing = Timing { warm_up: Duration::ZERO, ..TIMING };
    let measurement = run(&page, timing, Reuse::KeepAlive).unwrap();
    let served = served.load(Ordering::Relaxed);
    assert_eq!(measurement.failures, Failures::default());
    assert!(counted(&measurement) > 0);
    // The last request of each connection may have been served after the end.
    let missing = served.abs_diff(counted(&measurement));
    assert!(missing <= CONCURRENCY as u64, "{served} {measurement:?}");
    let latency = measurement.latency.unwrap();
    assert!(latency.p50_us > 0.0);
    assert!(latency.p50_us <= latency.p99_us && latency.p99_us <= latency.max_us);
}

#[test]
fn each_new_connection_is_one_request() {
    let (page, served) = serve(PAGE);
    let timing = Timing { warm_up: Duration::ZERO, ..TIMING };
    let measurement = run(&page, timing, Reuse::Close).unwrap();
    let served = served.load(Ordering::Relaxed);
    assert_eq!(measurement.failures, Failures::default());
    assert!(counted(&measurement) > 0);
    let missing = served.abs_diff(counted(&measurement));
    assert!(missing <= CONCURRENCY as u64, "{served} {measurement:?}");
}

#[test]
fn the_warm_up_does_not_count() {
    let (page, served) = serve(PAGE);
    let timing =
        Timing { warm_up: Duration::from_millis(200), measured: Duration::from_millis(50) };
    let measurement = run(&page, timing, Reuse::KeepAlive).unwrap();
    assert!(counted(&measurement) < served.load(Ordering::Relaxed) / 2 + CONCURRENCY as u64);
}

#[test]
fn an_error_page_is_a_failure_and_no_request() {
    let (page, _) = serve("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
    let measurement = run(&page, TIMING, Reuse::KeepAlive).unwrap();
    assert!(measurement.failures.status > 0);
    assert_eq!(counted(&measurement), 0);
    assert_eq!(measurement.latency, None);
}

#[test]
fn a_body_longer_than_announced_is_a_failure() {
    let (page, _) = serve("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhello");
    let measurement = run(&page, TIMING, Reuse::Close).unwrap();
    assert!(measurement.failures.length > 0);
    assert_eq!(counted(&measurement), 0);
}

#[test]
fn a_body_cut_short_is_a_failure() {
    let (page, _) = serve("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello");
    let measurement = run(&page, TIMING, Reuse::Close).unwrap();
    assert!(measurement.failures.broken > 0);
    assert_eq!(counted(&measurement), 0);
}

#[test]
fn a_closed_port_ends_the_run_early() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let page = Page { addresses: vec![listener.local_addr().unwrap()], path: "/".to_owned() };
    drop(listener);
    let timing = Timing { warm_up: Duration::ZERO, measured: Duration::from_secs(60) };
    let before = Instant::now();
    let measurement = run(&page, timing, Reuse::KeepAlive).unwrap();
    assert!(measurement.failures.connect >= HOPELESS);
    assert!(before.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_server_that_never_answers_is_stalled() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let page = Page { addresses: vec![listener.local_addr().unwrap()], path: "/".to_owned() };
    let timing = Timing { warm_up: Duration::ZERO, measured: STALL + Duration::from_millis(100) };
    let measurement = run(&page, timing, Reuse::KeepAlive).unwrap();
    assert_eq!(measurement.failures.stalled, CONCURRENCY as u64);
}

#[test]
fn a_response_in_single_bytes_is_whole_at_its_last() {
    let mut response = Response::new();
    for (index, byte) in PAGE.bytes().enumerate() {
        response.space()[0] = byte;
        assert_eq!(response.accept(1), Ok(index + 1 == PAGE.len()));
    }
}

#[test]
fn a_body_larger_than_the_buffer_is_counted_through() {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1 << 20);
    let mut response = Response::new();
    response.space()[..head.len()].copy_from_slice(head.as_bytes());
    assert_eq!(response.accept(head.len()), Ok(false));
    let mut missing = 1 << 20;
    while missing > 0 {
        let part = response.space().len().min(missing);
        missing -= part;
        assert_eq!(response.accept(part), Ok(missing == 0));
    }
}

#[test]
fn a_head_without_end_or_length_is_refused() {
    let endless = [b'a'; RESPONSE_BUFFER];
    let mut response = Response::new();
    response.space().copy_from_slice(&endless);
    assert_eq!(response.accept(endless.len()), Err(Failure::Status));
    for (head, failure) in [
        ("SSH-2.0-OpenSSH\r\n\r\n", Failure::Status),
        ("HTTP/1.1 404 Not Found\r\n\r\n", Failure::Status),
        ("HTTP/1.1 200 OK\r\n\r\n", Failure::Length),
        ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", Failure::Length),
    ] {
        let mut response = Response::new();
        response.space()[..head.len()].copy_from_slice(head.as_bytes());
        assert_eq!(response.accept(head.len()), Err(failure), "{head:?}");
    }
}
