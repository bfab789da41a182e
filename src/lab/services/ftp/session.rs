//! One client's control connection at the server.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use super::data::{Agreed, read_extended, read_port, written};
use crate::lab::web::pattern;
use crate::lab::web::sum::Sum;

/// A session.
pub(super) struct Session<'a> {
    control: BufReader<TcpStream>,
    hostname: &'a str,
    own: IpAddr,
    client: IpAddr,
    agreed: Agreed,
    /// The last file that was given, and its sum.
    given: Option<(String, String)>,
}

/// A session that says nothing for so long ends.
const IDLE: Duration = Duration::from_secs(600);
/// The longest command.
const MOST_LINE_BYTES: u64 = 1024;
/// The longest file that can be read.
const MOST_FILE_BYTES: u64 = 1 << 30;

/// What can be read.
enum File {
    Text(String),
    Pattern(u64),
}

impl<'a> Session<'a> {
    pub(super) fn new(control: TcpStream, hostname: &'a str) -> io::Result<Self> {
        control.set_read_timeout(Some(IDLE))?;
        control.set_write_timeout(Some(IDLE))?;
        control.set_nodelay(true)?;
        // A socket that takes both families shows IPv4 addresses as IPv6 ones.
        let [own, client] =
            [control.local_addr()?, control.peer_addr()?].map(|a| a.ip().to_canonical());
        let control = BufReader::new(control);
        Ok(Session { control, hostname, own, client, agreed: Agreed::Nothing, given: None })
    }

    pub(super) fn answer_all(&mut self) -> io::Result<()> {
        self.say(format_args!("220 {} has files for everybody", self.hostname))?;
        while let Some(line) = self.read()? {
            let (command, argument) = line.split_once(' ').unwrap_or((&line, ""));
            let command = command.to_ascii_uppercase();
            if command == "QUIT" {
                return self.say(format_args!("221 Goodbye"));
            }
            self.answer(&command, argument)?;
        }
        Ok(())
    }

    fn answer(&mut self, command: &str, argument: &str) -> io::Result<()> {
        match command {
            "USER" => self.say(format_args!("331 Any password will do")),
            "PASS" => self.say(format_args!("230 Come in")),
            "SYST" => self.say(format_args!("215 UNIX Type: L8")),
            "FEAT" => self.say(format_args!(
                "211-Extensions:\r\n EPRT\r\n EPSV\r\n SIZE\r\n XSHA256\r\n211 End"
            )),
            "TYPE" | "MODE" | "STRU" | "NOOP" | "OPTS" => self.say(format_args!("200 As you like")),
            "PWD" => self.say(format_args!("257 \"/\" is where you are")),
            "CWD" | "CDUP" => self.say(format_args!("250 There is one directory only")),
            "PASV" => self.answer_passive(),
            "EPSV" => self.answer_extended_passive(argument),
            "PORT" => self.answer_active(read_port(argument)),
            "EPRT" => self.answer_active(read_extended(argument)),
            "LIST" | "NLST" => self.send(File::Text("hostname\r\n".to_owned())),
            "RETR" => match self.file(argument) {
                Some(file) => self.send(file),
                None => self.say(format_args!("550 There are hostname, and numbers of bytes")),
            },
            "STOR" => self.take(argument),
            "SIZE" => self.answer_size(argument),
            "XSHA256" => self.answer_sum(argument),
            _ => self.say(format_args!("502 {command} is not known here")),
        }
    }

    /// The next command, without the end of its line.
    fn read(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        Read::by_ref(&mut self.control).take(MOST_LINE_BYTES).read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Ok(None);
        }
        Ok(Some(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()))
    }

    /// A line in one piece: some NAT helpers look into single packets.
    fn say(&self, line: std::fmt::Arguments<'_>) -> io::Result<()> {
        self.control.get_ref().write_all(format!("{line}\r\n").as_bytes())
    }

    fn answer_passive(&mut self) -> io::Result<()> {
        let IpAddr::V4(own) = self.own else {
            return self.say(format_args!("522 Use EPSV over IPv6"));
        };
        match self.agreed.listen(self.own) {
            Ok(at) => {
                let at = written(own, at.port());
                self.say(format_args!("227 Entering Passive Mode ({at})"))
            }
            Err(error) => self.say(format_args!("425 {error}")),
        }
    }

    fn answer_extended_passive(&mut self, argument: &str) -> io::Result<()> {
        if argument.eq_ignore_ascii_case("ALL") {
            return self.say(format_args!("200 As you like"));
        }
        match self.agreed.listen(self.own) {
            Ok(at) => {
                let port = at.port();
                self.say(format_args!("229 Entering Extended Passive Mode (|||{port}|)"))
            }
            Err(error) => self.say(format_args!("425 {error}")),
        }
    }

    fn answer_active(&mut self, to: Option<SocketAddr>) -> io::Result<()> {
        match to {
            // Elsewhere somebody else would be bothered.
            Some(to) if to.ip() == self.client => {
                self.agreed = Agreed::Active(to);
                self.say(format_args!("200 Will connect to {to}"))
            }
            Some(to) => self.say(format_args!("500 {to} is not where you are: {}", self.client)),
            None => self.say(format_args!("501 That is no address")),
        }
    }

    fn file(&self, name: &str) -> Option<File> {
        let name = name.trim_start_matches('/');
        if name == "hostname" {
            return Some(File::Text(format!("{}\n", self.hostname)));
        }
        let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
        let length = name.parse().ok().filter(|length| is_number && *length <= MOST_FILE_BYTES)?;
        Some(File::Pattern(length))
    }

    fn send(&mut self, file: File) -> io::Result<()> {
        self.transfer(|data| match file {
            File::Text(text) => data.write_all(text.as_bytes()),
            File::Pattern(length) => {
                let mut sent = 0;
                while sent < length {
                    let piece = pattern::at(sent, length - sent);
                    data.write_all(piece)?;
                    sent += piece.len() as u64;
                }
                Ok(())
            }
        })
    }

    fn take(&mut self, name: &str) -> io::Result<()> {
        let mut sum = Sum::default();
        let mut buffer = vec![0; 256 << 10];
        self.given = None;
        let mut given = None;
        self.transfer(|data| {
            loop {
                match data.read(&mut buffer)? {
                    0 => break,
                    read => sum.add(&buffer[..read]),
                }
            }
            given = Some((name.to_owned(), sum.text()));
            Ok(())
        })?;
        self.given = given;
        Ok(())
    }

    /// Opens the data connection, does the work over it and closes it, and says so.
    fn transfer(&mut self, work: impl FnOnce(&mut TcpStream) -> io::Result<()>) -> io::Result<()> {
        let agreed = std::mem::take(&mut self.agreed);
        let mut data = match agreed.open(self.own, self.client) {
            Ok(data) => data,
            Err(error) => return self.say(format_args!("425 No data connection: {error}")),
        };
        self.say(format_args!("150 Here it comes"))?;
        let done = work(&mut data);
        drop(data);
        match done {
            Ok(()) => self.say(format_args!("226 That was all")),
            Err(error) => self.say(format_args!("426 {error}")),
        }
    }

    fn answer_size(&mut self, name: &str) -> io::Result<()> {
        match self.file(name) {
            Some(File::Text(text)) => self.say(format_args!("213 {}", text.len())),
            Some(File::Pattern(length)) => self.say(format_args!("213 {length}")),
            None => self.say(format_args!("550 There is no such file")),
        }
    }

    fn answer_sum(&mut self, name: &str) -> io::Result<()> {
        let given = self.given.take_if(|(given, _)| given == name).map(|(_, sum)| sum);
        let sum = given.or_else(|| match self.file(name)? {
            File::Text(text) => {
                let mut sum = Sum::default();
                sum.add(text.as_bytes());
                Some(sum.text())
            }
            File::Pattern(length) => Some(pattern::sha256(length)),
        });
        match sum {
            Some(sum) => self.say(format_args!("250 {sum}")),
            None => self.say(format_args!("550 There is no such file")),
        }
    }
}
