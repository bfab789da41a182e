//! Network namespaces and what is in them, for hosts of a lab and for tests.
//!
//! ```no_run
//! use ulvs::lab::net::{self, Namespace};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Namespace::new("client")?;
//! let server = Namespace::new("server")?;
//! net::connect(&client.end("eth0"), &server.end("eth0"))?;
//! client.add_address("eth0", "12.0.0.12/24".parse()?)?;
//! server.add_address("eth0", "12.0.0.1/24".parse()?)?;
//! let listener = server.run(|| std::net::TcpListener::bind("12.0.0.1:80"))??;
//! let stream = client.run(|| std::net::TcpStream::connect("12.0.0.1:80"))??;
//! # drop((listener, stream));
//! # Ok(()) }
//! ```
//!
//! **Shape** — a [`Namespace`] is a descriptor: it has no name on the machine. When the last
//! descriptor, thread, socket and process in it are gone, the kernel removes it and its links.

mod error;
mod link;
mod namespace;
mod netlink;
mod prefix;
mod route;
pub mod sandbox;
mod sysctl;

pub use error::Error;
pub use link::{End, Offload, Traffic, connect};
pub use namespace::Namespace;
pub use prefix::Prefix;
pub use route::Route;

#[cfg(test)]
mod tests;
