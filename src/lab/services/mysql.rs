//! A stand-in for a database: as much of MySQL's protocol as it takes to ask a server who it is,
//! for any client of MySQL or MariaDB and for the lab's own.
//!
//! It lets everybody in and knows one question, `select @@hostname`. The crates that speak the
//! whole protocol bring some thirty others.
//!
//! **Source** — MySQL's documentation of its client/server protocol, version 4.1: packets of a
//! 3-byte length and a sequence number, handshake version 10, text result sets.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::sessions;

/// Starts a server on a thread of its own, which lives as long as the process. When this returns,
/// it is listening.
pub fn serve(listen: SocketAddr, hostname: &str) -> io::Result<()> {
    let hostname = hostname.to_owned();
    sessions::serve(listen, "mysql", move |stream| {
        // How a session ends is its client's concern.
        let _ = Session { stream, sequence: 0 }.answer_all(&hostname);
    })
}

/// Asks the server at `address` for its name, over a connection of its own.
pub fn ask_name(address: SocketAddr, patience: Duration) -> io::Result<String> {
    let stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    Session { stream, sequence: 0 }.ask_name()
}

/// A session that says nothing for so long ends.
const IDLE: Duration = Duration::from_secs(600);
/// The largest packet that is read.
const MOST_BYTES: usize = 64 << 10;

const PLUGIN: &[u8] = b"mysql_native_password\0";
/// What a client proves its password with; nobody looks at the proof.
const SCRAMBLE: [u8; 20] = *b"anything-will-do-now";
/// Long passwords, database at login, protocol 4.1, transactions, 20-byte scramble, plugins.
const CAPABILITIES: u32 = 1 | 1 << 3 | 1 << 9 | 1 << 13 | 1 << 15 | 1 << 19;
/// The number of `utf8mb4_general_ci`.
const CHARSET: u8 = 45;
/// Every statement is a transaction.
const STATUS: [u8; 2] = 2u16.to_le_bytes();

const QUIT: u8 = 1;
const USE: u8 = 2;
const QUERY: u8 = 3;
const PING: u8 = 14;
const OK: u8 = 0;
const SWITCH: u8 = 0xfe;
const END: u8 = 0xfe;
const ERROR: u8 = 0xff;

struct Session {
    stream: TcpStream,
    /// The number of the next packet.
    sequence: u8,
}

impl Session {
    fn answer_all(&mut self, hostname: &str) -> io::Result<()> {
        self.stream.set_read_timeout(Some(IDLE))?;
        self.stream.set_write_timeout(Some(IDLE))?;
        self.stream.set_nodelay(true)?;
        self.greet()?;
        loop {
            self.sequence = 0;
            let command = self.read()?;
            match command.split_first() {
                Some((&QUIT, _)) | None => return Ok(()),
                Some((&(PING | USE), _)) => self.succeed()?,
                Some((&QUERY, text)) => self.query(&String::from_utf8_lossy(text), hostname)?,
                Some(_) => self.fail(1047, "08S01", "this stand-in does not know the command")?,
            }
        }
    }

    fn greet(&mut self) -> io::Result<()> {
        let [low, high] = [CAPABILITIES as u16, (CAPABILITIES >> 16) as u16];
        let (first, second) = SCRAMBLE.split_at(8);
        self.write(&[
            &[10],
            b"8.0.0-ulvs-lab\0",
            &1u32.to_le_bytes(),
            first,
            &[0],
            &low.to_le_bytes(),
            &[CHARSET],
            &STATUS,
            &high.to_le_bytes(),
            &[SCRAMBLE.len() as u8 + 1],
            &[0; 10],
            second,
            &[0],
            PLUGIN,
        ])?;
        self.read()?;
        // Newer clients begin with another plugin, whatever the greeting says.
        self.write(&[&[SWITCH], PLUGIN, &SCRAMBLE, &[0]])?;
        self.read()?;
        self.succeed()
    }

    fn query(&mut self, text: &str, hostname: &str) -> io::Result<()> {
        let text = text.to_ascii_lowercase();
        if text.contains("@@hostname") {
            self.one_value("@@hostname", hostname)
        } else if text.contains("@@version_comment") {
            self.one_value("@@version_comment", "a stand-in, of a lab of ulvs")
        } else if text.starts_with("set ") {
            self.succeed()
        } else {
            self.fail(1064, "42000", "this stand-in only knows: select @@hostname")
        }
    }

    /// A table of one column and one row.
    fn one_value(&mut self, name: &str, value: &str) -> io::Result<()> {
        let variable_text = 0xfd;
        let definition = [&[0x0c, CHARSET, 0][..], &255u32.to_le_bytes(), &[variable_text]];
        self.write(&[&[1]])?;
        self.write(&[&string("def"), &[0; 3], &string(name), &[0], &definition.concat(), &[0; 5]])?;
        self.write(&[&[END, 0, 0], &STATUS])?;
        self.write(&[&string(value)])?;
        self.write(&[&[END, 0, 0], &STATUS])
    }

    fn succeed(&mut self) -> io::Result<()> {
        self.write(&[&[OK, 0, 0], &STATUS, &[0, 0]])
    }

    fn fail(&mut self, code: u16, state: &str, why: &str) -> io::Result<()> {
        self.write(&[&[ERROR], &code.to_le_bytes(), b"#", state.as_bytes(), why.as_bytes()])
    }

    fn ask_name(&mut self) -> io::Result<String> {
        expect(self.read()?, 10)?;
        let capabilities = CAPABILITIES & !(1 << 3);
        self.write(&[
            &capabilities.to_le_bytes(),
            &(MOST_BYTES as u32).to_le_bytes(),
            &[CHARSET],
            &[0; 23],
            b"root\0",
            &[0],
            PLUGIN,
        ])?;
        let mut answer = self.read()?;
        if answer.first() == Some(&SWITCH) {
            // No password.
            self.write(&[])?;
            answer = self.read()?;
        }
        expect(answer, OK)?;
        self.sequence = 0;
        self.write(&[&[QUERY], b"select @@hostname"])?;
        expect(self.read()?, 1)?;
        let _definition = self.read()?;
        expect(self.read()?, END)?;
        let row = self.read()?;
        expect(self.read()?, END)?;
        self.sequence = 0;
        self.write(&[&[QUIT]])?;
        let name = row.split_first().filter(|(length, name)| usize::from(**length) == name.len());
        let (_, name) = name.ok_or_else(|| io::Error::other("the row is no name"))?;
        Ok(String::from_utf8_lossy(name).into_owned())
    }

    fn write(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let payload = parts.concat();
        let [a, b, c, _] = (payload.len() as u32).to_le_bytes();
        let packet = [&[a, b, c, self.sequence], payload.as_slice()].concat();
        self.sequence = self.sequence.wrapping_add(1);
        self.stream.write_all(&packet)
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head)?;
        let [a, b, c, sequence] = head;
        let length = u32::from_le_bytes([a, b, c, 0]) as usize;
        if length > MOST_BYTES {
            return Err(io::Error::other(format!("a packet of {length} bytes")));
        }
        self.sequence = sequence.wrapping_add(1);
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload)?;
        Ok(payload)
    }
}

/// A short text with its length.
fn string(text: &str) -> Vec<u8> {
    // Lengths from 251 on would be written otherwise.
    let text = &text.as_bytes()[..text.len().min(250)];
    [&[text.len() as u8], text].concat()
}

fn expect(packet: Vec<u8>, first: u8) -> io::Result<()> {
    match packet.split_first() {
        Some((&found, _)) if found == first => Ok(()),
        Some((&ERROR, rest)) => {
            let why = String::from_utf8_lossy(rest.get(8..).unwrap_or_default()).into_owned();
            Err(io::Error::other(format!("the database says: {why}")))
        }
        _ => Err(io::Error::other("the server does not speak MySQL's protocol")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn start() -> SocketAddr {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        serve(free, "real1").unwrap();
        free
    }

    #[test]
    fn a_server_says_its_name() {
        let server = start();
        for _ in 0..3 {
            assert_eq!(ask_name(server, PATIENCE).unwrap(), "real1");
        }
    }

    #[test]
    fn nonsense_ends_its_session_only() {
        let server = start();
        for nonsense in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[1, 0, 0, 0, 0xff], &[0; 3]]
        {
            let mut stream = TcpStream::connect(server).unwrap();
            stream.write_all(nonsense).unwrap();
        }
        assert_eq!(ask_name(server, PATIENCE).unwrap(), "real1");
    }

    #[test]
    fn other_questions_are_refused_in_words() {
        let mut session = Session { stream: TcpStream::connect(start()).unwrap(), sequence: 0 };
        session.read().unwrap();
        session.write(&[&[0; 40]]).unwrap();
        session.read().unwrap();
        session.write(&[]).unwrap();
        session.read().unwrap();
        session.sequence = 0;
        session.write(&[&[QUERY], b"drop table students"]).unwrap();
        let refusal = expect(session.read().unwrap(), OK).unwrap_err().to_string();
        assert!(refusal.contains("only knows: select @@hostname"), "{refusal}");
    }

    #[test]
    fn something_else_on_the_port_is_recognised() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let other = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"\x05\0\0\0hello").unwrap();
        });
        let error = ask_name(address, PATIENCE).unwrap_err().to_string();
        assert!(error.contains("does not speak MySQL"), "{error}");
        other.join().unwrap();
    }
}
