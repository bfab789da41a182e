use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::*;

fn server() -> WebServer {
    let site = Site::new("real1").page("/", "text/html", "this is accp web\n").page(
        "/large",
        "text/plain",
        vec![b'x'; 300_000],
    );
    WebServer::start(listen("127.0.0.1:0".parse().unwrap(), 1).unwrap(), site).unwrap()
}

fn connect(server: &WebServer) -> TcpStream {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// Sends `request` and returns all that comes until the server ends the connection.
fn ask(server: &WebServer, request: &[u8]) -> String {
    let mut stream = connect(server);
    stream.write_all(request).unwrap();
    rest(&mut stream)
}

/// All that comes until the server ends the connection.
fn rest(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").into_bytes()
}

#[test]
fn a_page_is_served_with_its_length_and_type() {
    let answer = ask(&server(), &get("/"));
    assert_eq!(
        answer,
        "HTTP/1.1 200 OK\r\nServer: real1\r\nContent-Type: text/html\r\nContent-Length: 17\r\n\
         Connection: close\r\n\r\nthis is accp web\n"
    );
}

#[test]
fn query_and_absolute_form_name_the_same_page() {
    let server = server();
    assert!(ask(&server, &get("/?q=1")).ends_with("this is accp web\n"));
    assert!(ask(&server, &get("http://12.0.0.1/")).ends_with("this is accp web\n"));
    assert!(ask(&server, &get("http://12.0.0.1")).ends_with("this is accp web\n"));
}

#[test]
fn head_sends_the_length_without_the_body() {
    let server = server();
    let answer = ask(&server, b"HEAD /large HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert!(answer.contains("Content-Length: 300000\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[test]
fn unknown_pages_and_methods_are_refused_and_the_connection_goes_on() {
    let server = server();
    let answer = ask(
        &server,
        b"GET /no HTTP/1.1\r\n\r\nDELETE / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nConnection: close\r\n\r\n",
    );
    let statuses: Vec<&str> = answer.lines().filter(|l| l.starts_with("HTTP/1.1 ")).collect();
    assert_eq!(
        statuses,
        ["HTTP/1.1 404 Not Found", "HTTP/1.1 405 Method Not Allowed", "HTTP/1.1 200 OK"]
    );
    assert_eq!(server.requests(), 3);
}

#[test]
fn old_clients_are_told_whether_the_connection_stays() {
    let server = server();
    assert!(ask(&server, b"GET / HTTP/1.0\r\n\r\n").contains("Connection: close\r\n"));
    let kept = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n";
    let answer = ask(&server, kept);
    assert!(answer.contains("Connection: keep-alive\r\n"), "{answer}");
    assert_eq!(answer.matches("this is accp web").count(), 2);
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let server = server();
    let mut stream = connect(&server);
    stream.set_nodelay(true).unwrap();
    for byte in get("/") {
        stream.write_all(&[byte]).unwrap();
    }
    let answer = rest(&mut stream);
    assert!(answer.ends_with("this is accp web\n"), "{answer}");
}

#[test]
fn a_thousand_pipelined_requests_are_answered_in_order() {
    let server = server();
    let mut stream = connect(&server);
    let mut requests = Vec::new();
    for turn in 0..1000 {
        let path = if turn % 10 == 0 { "/large" } else { "/" };
        requests.extend_from_slice(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes());
    }
    requests.extend_from_slice(&get("/bytes/5"));
    let mut sender = stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || sender.write_all(&requests).unwrap());
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    sending.join().unwrap();
    let text = String::from_utf8_lossy(&answer);
    assert_eq!(text.matches("this is accp web\n").count(), 900);
    assert_eq!(text.matches("Content-Length: 300000\r\n").count(), 100);
    assert!(answer.ends_with(pattern::at(0, 5)));
    assert!(text.starts_with("HTTP/1.1 200 OK\r\nServer: real1\r\nContent-Type: text/plain"));
}

#[test]
fn downloads_of_any_size_consist_of_the_pattern() {
    let server = server();
    for length in [0u64, 1, 16_384, 16_385, 65_521, 70_000, 50_000_000] {
        let mut stream = connect(&server);
        stream.write_all(&get(&format!("/bytes/{length}"))).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let start = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        assert_eq!(answer.len() - start, length as usize);
        assert_eq!(pattern::first_difference(0, &answer[start..]), None);
    }
}

fn upload(server: &WebServer, path: &str, body: &[u8]) -> String {
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    let mut stream = connect(server);
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    rest(&mut stream)
}

fn pattern_of(length: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(length);
    while body.len() < length {
        body.extend_from_slice(pattern::at(body.len() as u64, (length - body.len()) as u64));
    }
    body
}

#[test]
fn uploads_are_counted_and_compared() {
    let server = server();
    let mut body = pattern_of(3_000_000);
    assert!(upload(&server, "/sink", &body).ends_with("\r\n\r\n3000000 bytes\n"));
    assert!(upload(&server, "/verify", &body).ends_with("\r\n\r\n3000000 bytes are right\n"));
    body[2_222_222] ^= 1;
    let answer = upload(&server, "/verify", &body);
    assert!(answer.starts_with("HTTP/1.1 422 "), "{answer}");
    assert!(answer.ends_with("byte 2222222 of 3000000 is wrong\n"), "{answer}");
    assert!(upload(&server, "/sink", b"").ends_with("\r\n\r\n0 bytes\n"));
}

#[test]
fn a_body_that_nobody_wants_is_skipped() {
    let server = server();
    let answer = ask(
        &server,
        b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(answer.matches("this is accp web").count(), 2, "{answer}");
}

#[test]
fn a_client_that_waits_for_permission_gets_it() {
    let server = server();
    let mut stream = connect(&server);
    let head = b"PUT /sink HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\nConnection: close\r\n\r\n";
    stream.write_all(head).unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"abc").unwrap();
    let answer = rest(&mut stream);
    assert!(answer.ends_with("3 bytes\n"), "{answer}");
}

#[test]
fn hostile_requests_are_refused() {
    let server = server();
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100));
    let cases: [(&[u8], &str); 8] = [
        (b"\0\0\0\0\r\n\r\n", "400"),
        (b"GET\r\n\r\n", "400"),
        (b"GET / HTTP/3.0\r\n\r\n", "505"),
        (long.as_bytes(), "431"),
        (many.as_bytes(), "431"),
        (b"POST /sink HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "411"),
        (b"POST /sink HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "400"),
        (b"POST /sink HTTP/1.1\r\nContent-Length: +1\r\n\r\na", "400"),
    ];
    for (request, status) in cases {
        let mut stream = connect(&server);
        stream.write_all(request).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let answer = rest(&mut stream);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
    }
    assert!(ask(&server, &get("/")).ends_with("this is accp web\n"));
}

#[test]
fn many_connections_are_served_at_once() {
    let server = server();
    let mut streams: Vec<TcpStream> = (0..300).map(|_| connect(&server)).collect();
    for stream in &mut streams {
        stream.write_all(&get("/whoami")).unwrap();
    }
    for stream in &mut streams {
        let answer = rest(stream);
        let own = stream.local_addr().unwrap();
        assert!(answer.ends_with(&format!("you are {own}, this is real1\n")), "{answer}");
    }
}

#[test]
fn a_proxy_header_says_who_the_client_is_also_in_pieces() {
    let server = server();
    let header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0c\0\0\x0c\x0c\0\0\x01\x12\x34\0\x50";
    let bytes = [&header[..], &get("/whoami")].concat();
    for cut in [1, 12, 20, header.len(), header.len() + 3] {
        let mut stream = connect(&server);
        stream.set_nodelay(true).unwrap();
        for piece in [&bytes[..cut], &bytes[cut..]] {
            stream.write_all(piece).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
        let answer = rest(&mut stream);
        assert!(answer.ends_with("you are 12.0.0.12:4660, this is real1\n"), "{cut}: {answer}");
    }
}

#[test]
fn several_listeners_share_one_address() {
    let listeners = listen("127.0.0.1:0".parse().unwrap(), 3).unwrap();
    let server = WebServer::start(listeners, Site::new("x").page("/", "text/plain", "x")).unwrap();
    for _ in 0..50 {
        assert!(ask(&server, &get("/")).ends_with("\r\n\r\nx"));
    }
    assert_eq!(server.requests(), 50);
}

#[test]
fn a_dropped_server_frees_its_address() {
    let server = server();
    let address = server.address();
    drop(server);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn sums_are_those_of_the_bytes() {
    let server = server();
    let patience = Duration::from_secs(10);
    // printf abc | sha256sum
    let of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let answer = ask(
        &server,
        b"POST /sha256 HTTP/1.1\r\nContent-Length: 3\r\n\
        Connection: close\r\n\r\nabc",
    );
    assert!(answer.ends_with(&format!("\r\n\r\n{of_abc}\n")), "{answer}");
    let up = upload_summed(server.address(), 3_000_001, patience).unwrap();
    let down = download_summed(server.address(), 3_000_001, patience).unwrap();
    assert_eq!((&up.sha256, &up.server), (&up.server_sha256, &"real1".to_owned()));
    assert_eq!(down.sha256, down.server_sha256);
    assert_eq!(up.sha256, down.sha256);
    let shorter = download_summed(server.address(), 3_000_000, patience).unwrap();
    assert_ne!(shorter.sha256, down.sha256);
    assert!(ask(&server, &get("/sha256/999999999999")).starts_with("HTTP/1.1 422 "));
}
