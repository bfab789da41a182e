//! An address with the length of its network.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::str::FromStr;

use super::Error;

/// An address and how many of its leading bits name the network, as in `12.0.0.12/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// Makes a prefix; a length beyond the address's own is an error.
    pub fn new(address: IpAddr, length: u8) -> Result<Self, Error> {
        if length > width(address) {
            let text = format!("{address}/{length}");
            return Err(invalid(&text, "the length is larger than the address"));
        }
        Ok(Prefix { address, length })
    }

    /// The address alone.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// The length of the network part, in bits.
    pub fn length(self) -> u8 {
        self.length
    }
}

impl FromStr for Prefix {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (address, length) = text.split_once('/').map_or((text, None), |(a, l)| (a, Some(l)));
        let Ok(address) = address.parse::<IpAddr>() else {
            return Err(invalid(text, "is not ADDRESS/LENGTH"));
        };
        let length = match length {
            None => width(address),
            Some(length) => length.parse().map_err(|_| invalid(text, "has no usable length"))?,
        };
        Prefix::new(address, length)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn invalid(text: &str, why: &'static str) -> Error {
    Error::new(format!("prefix '{text}'"), io::Error::new(io::ErrorKind::InvalidInput, why))
}
