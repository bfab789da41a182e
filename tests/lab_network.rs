//! The NAT topology without a director: its storage, its web servers and its links.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use ulvs::lab::Network;
use ulvs::lab::net::{Route, sandbox};
use ulvs::lab::services::nfs;
use ulvs::lab::topology::{Program, nat};
use ulvs::lab::web::{self, Site, WebServer};

const STORAGE: &str = "192.168.200.130:2049";

/// Starts the storage's NFS server.
fn start_storage(network: &Network) {
    let topology = nat::topology();
    let [Program::Storage { listen, files }] =
        topology.host("storage").unwrap().programs.as_slice()
    else {
        panic!("the storage runs one program");
    };
    network.host("storage").unwrap().run(|| nfs::serve(*listen, files)).unwrap().unwrap();
}

fn fetch_file(network: &Network, host: &str, path: &str) -> std::io::Result<Vec<u8>> {
    let server: SocketAddr = STORAGE.parse().unwrap();
    network.host(host).unwrap().run(|| nfs::fetch(server, path)).unwrap()
}

#[test]
fn pages_reach_the_real_servers_over_nfs() {
    sandbox::run("pages_reach_the_real_servers_over_nfs", || {
        let network = Network::build(&nat::topology()).unwrap();
        start_storage(&network);
        let accp = fetch_file(&network, "real1", "/opt/accp/index.html").unwrap();
        assert_eq!(accp, b"this is accp web\n");
        let benet = fetch_file(&network, "real2", "/opt/benet/index.html").unwrap();
        assert_eq!(benet, b"this is benet web\n");
    });
}

#[test]
fn a_file_that_the_storage_lacks_is_named() {
    sandbox::run("a_file_that_the_storage_lacks_is_named", || {
        let network = Network::build(&nat::topology()).unwrap();
        start_storage(&network);
        for path in ["/opt/accp/no.html", "/opt/no/index.html"] {
            let error = fetch_file(&network, "real1", path).unwrap_err().to_string();
            assert!(error.contains(&format!("nfs://{STORAGE}{path}")), "{error}");
            assert!(error.contains("NOENT"), "{error}");
        }
    });
}

#[test]
fn a_file_of_many_reads_arrives_whole() {
    sandbox::run("a_file_of_many_reads_arrives_whole", || {
        let network = Network::build(&nat::topology()).unwrap();
        let large: String = ('a'..='z').cycle().take(1_000_003).collect();
        let files = vec![("/large".to_owned(), large.clone())];
        let storage = network.host("storage").unwrap();
        storage.run(|| nfs::serve(STORAGE.parse().unwrap(), &files)).unwrap().unwrap();
        assert_eq!(fetch_file(&network, "real1", "/large").unwrap(), large.as_bytes());
    });
}

#[test]
fn the_client_reaches_a_real_server_when_the_kernel_routes() {
    sandbox::run("the_client_reaches_a_real_server_when_the_kernel_routes", || {
        let network = Network::build(&nat::topology()).unwrap();
        let address: SocketAddr = (nat::ACCP, 80).into();
        let listeners =
            network.host("real1").unwrap().run(|| web::listen(address, 1)).unwrap().unwrap();
        let site = Site::new("real1").page("/", "text/html", "this is accp web\n");
        let _server = WebServer::start(listeners, site).unwrap();
        network.host("director").unwrap().set_sysctl("net.ipv4.ip_forward", "1").unwrap();
        let client = network.host("client").unwrap();
        client.add_route(&Route::default_via(nat::OUTSIDE.into())).unwrap();

        let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(20));
        let mut stream = client.run(connect).unwrap().unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("\r\n\r\nthis is accp web\n"), "{answer}");
    });
}

#[test]
fn an_unknown_host_is_refused_with_the_names_of_all() {
    sandbox::run("an_unknown_host_is_refused_with_the_names_of_all", || {
        let network = Network::build(&nat::topology()).unwrap();
        let error = network.host("real9").unwrap_err().to_string();
        assert!(error.contains("real9"), "{error}");
        assert!(error.contains("client, director, switch, real1, real2, storage"), "{error}");
    });
}
