//! Data connections: how the two ends agree on one, and how the server opens it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Where the next data connection comes from or goes to.
#[derive(Debug, Default)]
pub(super) enum Agreed {
    /// Nothing is agreed.
    #[default]
    Nothing,
    /// The client connects to this.
    Passive(TcpListener),
    /// The server connects to this.
    Active(SocketAddr),
}

impl Agreed {
    /// Has the client connect to a port that is free at `own`, which is returned.
    pub(super) fn listen(&mut self, own: IpAddr) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind((own, 0))?;
        // It is for accept(2) as well.
        SockRef::from(&listener).set_read_timeout(Some(PATIENCE))?;
        let address = listener.local_addr()?;
        *self = Agreed::Passive(listener);
        Ok(address)
    }

    /// Opens the data connection of a client at `client`, who talks to the server at `own`.
    ///
    /// **Errors** — also when somebody else comes than the client, or nobody.
    pub(super) fn open(self, own: IpAddr, client: IpAddr) -> io::Result<TcpStream> {
        let stream = match self {
            Agreed::Nothing => return Err(io::Error::other("no data connection was agreed on")),
            Agreed::Passive(listener) => {
                let (stream, from) = listener.accept()?;
                if from.ip() != client {
                    return Err(io::Error::other("somebody else came"));
                }
                stream
            }
            Agreed::Active(to) => connect(own, to)?,
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

/// A data connection on which nothing happens for so long is given up.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Connects from the port for data, as RFC 959 §3.2 has it, if this process may have it.
fn connect(own: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let open = |port: u16| {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        // Connections that are over keep it for a minute.
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(own, port).into())?;
        io::Result::Ok(socket)
    };
    let socket = match open(DATA_PORT) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => open(0)?,
        other => other?,
    };
    socket.connect_timeout(&to.into(), PATIENCE)?;
    Ok(socket.into())
}

const DATA_PORT: u16 = 20;

/// An address as `PORT` and the answer to `PASV` have it: `h1,h2,h3,h4,p1,p2`.
pub(super) fn written(address: Ipv4Addr, port: u16) -> String {
    let ([a, b, c, d], [high, low]) = (address.octets(), port.to_be_bytes());
    format!("{a},{b},{c},{d},{high},{low}")
}

/// The address that `PORT` is given.
pub(super) fn read_port(text: &str) -> Option<SocketAddr> {
    let numbers: Option<Vec<u8>> = text.split(',').map(|number| number.parse().ok()).collect();
    let [a, b, c, d, high, low] = numbers?.try_into().ok()?;
    Some((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])).into())
}

/// The address that `EPRT` is given: `|1|ADDRESS|PORT|`, where 1 is IPv4 and 2 is IPv6.
pub(super) fn read_extended(text: &str) -> Option<SocketAddr> {
    let delimiter = text.chars().next()?;
    let mut words = text.split(delimiter).skip(1);
    let (family, address, port) = (words.next()?, words.next()?, words.next()?);
    let address: IpAddr = address.parse().ok()?;
    let is_right = family == if address.is_ipv4() { "1" } else { "2" };
    is_right.then_some(SocketAddr::new(address, port.parse().ok()?))
}
