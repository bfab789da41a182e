//! The server and the client with each other, and the server with what no client says.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
const EVERY: [Data; 3] = [Data::Passive, Data::ExtendedPassive, Data::Active];

fn start(at: &str) -> SocketAddr {
    let free = TcpListener::bind(at).unwrap().local_addr().unwrap();
    serve(free, "real1").unwrap();
    free
}

#[test]
fn files_go_both_ways_in_every_mode() {
    let server = start("127.0.0.1:0");
    let mut client = Client::connect(server, PATIENCE).unwrap();
    for data in EVERY {
        assert_eq!(client.name(data).unwrap(), "real1");
        for done in [client.download(3_000_000, data), client.upload(3_000_000, data)] {
            let done = done.unwrap();
            assert_eq!((done.server.as_str(), &done.sha256), ("real1", &done.server_sha256));
            assert_eq!(done.sha256, crate::lab::web::pattern::sha256(3_000_000));
        }
    }
    client.quit().unwrap();
}

#[test]
fn files_go_over_ipv6() {
    if TcpListener::bind("[::1]:0").is_err() {
        println!("skipped: there is no IPv6");
        return;
    }
    let mut client = Client::connect(start("[::1]:0"), PATIENCE).unwrap();
    for data in [Data::ExtendedPassive, Data::Active] {
        let done = client.upload(100_000, data).unwrap();
        assert_eq!(done.sha256, done.server_sha256);
    }
    assert!(client.name(Data::Passive).is_err());
}

/// Says lines to a server. Returns its answers, the greeting first.
fn talk(lines: &[&str]) -> Vec<String> {
    let mut stream = TcpStream::connect(start("127.0.0.1:0")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    for line in lines {
        stream.write_all(format!("{line}\r\n").as_bytes()).unwrap();
    }
    stream.write_all(b"QUIT\r\n").unwrap();
    BufReader::new(stream).lines().map(Result::unwrap).collect()
}

#[test]
fn data_goes_to_nobody_else() {
    let said = talk(&["PORT 192,0,2,1,4,0", "EPRT |1|192.0.2.1|1024|", "RETR hostname"]);
    assert!(said[1].starts_with("500 ") && said[2].starts_with("500 "), "{said:?}");
    assert!(said[3].starts_with("425 "), "{said:?}");
}

#[test]
fn nonsense_is_refused_in_words() {
    let said = talk(&[
        "PORT 1,2,3",
        "PORT 1,2,3,4,5,6,7",
        "PORT 256,0,0,1,1,1",
        "EPRT",
        "EPRT |3|127.0.0.1|1024|",
        "RETR ../etc/passwd",
        "RETR 99999999999999999999",
        "RETR +5",
        "DELE hostname",
        "\u{fffd}",
    ]);
    let codes: Vec<&str> = said[1..].iter().map(|line| &line[..3]).collect();
    let expected = ["501"; 5].iter().chain(&["550"; 3]).chain(&["502", "502", "221"]);
    assert!(codes.iter().eq(expected), "{said:?}");
    // Without an end it is no command.
    let mut stream = TcpStream::connect(start("127.0.0.1:0")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&[b'A'; 2000]).unwrap();
    assert_eq!(BufReader::new(stream).lines().map_while(Result::ok).count(), 1);
}
