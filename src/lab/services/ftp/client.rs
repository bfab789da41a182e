//! The client, as suppaftp has it, with sums of what it moves.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use suppaftp::types::{FileType, Mode};
use suppaftp::{FtpError, FtpStream, Status};

use crate::lab::web::sum::Sum;
use crate::lab::web::{Transfer, pattern};

/// Who opens data connections, and in which words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// The client, by `PASV`.
    Passive,
    /// The client, by `EPSV`.
    ExtendedPassive,
    /// The server, by `PORT`, or over IPv6 by `EPRT`.
    Active,
}

/// A client that is logged in.
pub struct Client {
    control: FtpStream,
}

impl Client {
    /// Connects and logs in. Nothing may take longer than `patience`, but for waiting for the bytes of
    /// active data connections.
    pub fn connect(address: SocketAddr, patience: Duration) -> io::Result<Self> {
        let stream = connect(address, patience)?;
        let control = FtpStream::connect_with_stream(stream).map_err(in_io)?;
        let mut control = control.active_mode(patience).passive_stream_builder(move |to| {
            connect(to, patience).map_err(FtpError::ConnectionError)
        });
        control.login("anonymous", "lab@").map_err(in_io)?;
        control.transfer_type(FileType::Binary).map_err(in_io)?;
        Ok(Client { control })
    }

    /// Asks for the server's name over a data connection.
    pub fn name(&mut self, data: Data) -> io::Result<String> {
        self.set_mode(data);
        let bytes = self.control.retr_as_buffer("hostname").map_err(in_io)?.into_inner();
        Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    }

    /// Fetches `length` bytes of the [`pattern`], and asks for their sum.
    pub fn download(&mut self, length: u64, data: Data) -> io::Result<Transfer> {
        let server = self.name(data)?;
        let start = Instant::now();
        let name = length.to_string();
        let mut sum = Sum::default();
        let count = self.control.retr(&name, |data| {
            let mut buffer = vec![0; BUFFER_BYTES];
            let mut count = 0;
            loop {
                match data.read(&mut buffer).map_err(FtpError::ConnectionError)? {
                    0 => return Ok(count),
                    read => {
                        sum.add(&buffer[..read]);
                        count += read as u64;
                    }
                }
            }
        });
        if count.map_err(in_io)? != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let time = start.elapsed();
        Ok(Transfer { server, time, sha256: sum.text(), server_sha256: self.sum_of(&name)? })
    }

    /// Gives the server `length` bytes of the [`pattern`], and asks for their sum.
    pub fn upload(&mut self, length: u64, data: Data) -> io::Result<Transfer> {
        let server = self.name(data)?;
        let start = Instant::now();
        let mut stream = self.control.put_with_stream("given").map_err(in_io)?;
        let mut sent = 0;
        while sent < length {
            let piece = pattern::at(sent, length - sent);
            stream.write_all(piece)?;
            sent += piece.len() as u64;
        }
        stream.finish().map_err(in_io)?;
        let time = start.elapsed();
        let (sha256, server_sha256) = (pattern::sha256(length), self.sum_of("given")?);
        Ok(Transfer { server, time, sha256, server_sha256 })
    }

    /// Ends the session.
    pub fn quit(mut self) -> io::Result<()> {
        self.control.quit().map_err(in_io)
    }

    fn sum_of(&mut self, name: &str) -> io::Result<String> {
        let command = format!("XSHA256 {name}");
        let said = self.control.custom_command(command, &[Status::RequestedFileActionOk]);
        let body = said.map_err(in_io)?.body;
        let text = String::from_utf8_lossy(&body).into_owned();
        let sum = text.split_ascii_whitespace().next_back();
        sum.map(str::to_owned).ok_or_else(|| io::Error::other("the server says no sum"))
    }

    fn set_mode(&mut self, data: Data) {
        self.control.set_mode(match data {
            Data::Passive => Mode::Passive,
            Data::ExtendedPassive => Mode::ExtendedPassive,
            Data::Active => Mode::Active,
        });
    }
}

const BUFFER_BYTES: usize = 256 << 10;

fn connect(to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    Ok(stream)
}

fn in_io(error: FtpError) -> io::Error {
    match error {
        FtpError::ConnectionError(error) => error,
        other => io::Error::other(other.to_string()),
    }
}
