//! The family `ULVS`: what the kernel tells in other ways than netlink.
//!
//! | command | direction | meaning |
//! |---|---|---|
//! | `GET_CONNECTION` (1), a dump | request | list the connections |
//! | `NEW_CONNECTION` (2) | reply | one connection |
//! | `EDIT_SNAT` (3) | request | change the rules of source NAT, in the words of iptables |
//! | `GET_SNAT` (4), a dump | request | list those rules |
//! | `NEW_SNAT` (5) | reply | one rule |
//! | `GET_COUNTERS` (6), a dump | request | list what the director counts |
//! | `NEW_COUNTER` (7) | reply | one counter |
//! | `EDIT_MARKS` (8) | request | change the rules of firewall marks, in the words of iptables |
//! | `GET_MARKS` (9), a dump | request | list those rules |
//! | `NEW_MARK` (10) | reply | one rule |
//! | `EDIT_SETTING` (11) | request | change a setting of `net.ipv4.vs` |
//! | `GET_SETTINGS` (12), a dump | request | list those settings |
//! | `NEW_SETTING` (13) | reply | one setting |
//!
//! | attribute | value |
//! |---|---|
//! | 1 | protocol number, one byte; 0 for the template of a marked service |
//! | 2, 3 | client's address (4 or 16 bytes) and port (network order) |
//! | 4, 5 | virtual address and port |
//! | 6, 7 | real server's address and port |
//! | 8 | name of the state, a string |
//! | 9 | seconds to expiry, 32 bits in host order |
//! | 10 | flags, 32 bits: 1 for a persistence template |
//! | 11, 12 | name and data of the persistence engine, if there is one |
//! | 13 | a rule, or a command about one, in the words of iptables, a string |
//! | 14 | number of the worker that counts, 32 bits in host order; absent if all share the counter |
//! | 15, 16 | group and name of a counter, strings |
//! | 17 | its value, 64 bits in host order; an empty 18 may stand before it to align it |
//! | 19, 20 | by full NAT, the address and port from which the real server sees the client come |
//! | 21, 22 | name of a setting below `net.ipv4.vs` and its value, strings |

use std::borrow::Cow;
use std::net::IpAddr;

use nix::errno::Errno;

use super::attr::{Attributes, Writer};
use super::{GenericFamily, setting};
use crate::engine::conn::tcp::TcpState;
use crate::engine::conn::{ExpectedView, State, TemplateView};
use crate::packet::{Addr, Endpoint};

/// The family.
pub const FAMILY: GenericFamily = GenericFamily {
    name: "ULVS",
    id: 0x1d,
    version: 1,
    max_attribute: setting::LAST as u32,
    operations: &[
        (GET_CONNECTION, 1 | 4 | 8),
        (EDIT_SNAT, 1 | 2 | 8),
        (GET_SNAT, 1 | 4 | 8),
        (GET_COUNTERS, 1 | 4 | 8),
        (EDIT_MARKS, 1 | 2 | 8),
        (GET_MARKS, 1 | 4 | 8),
        (EDIT_SETTING, 1 | 2 | 8),
        (GET_SETTINGS, 1 | 4 | 8),
    ],
};

/// Lists connections.
pub const GET_CONNECTION: u8 = 1;
/// A connection.
pub const NEW_CONNECTION: u8 = 2;

/// Changes the rules of source NAT.
pub const EDIT_SNAT: u8 = 3;
/// Lists the rules of source NAT.
pub const GET_SNAT: u8 = 4;
/// A rule of source NAT.
pub const NEW_SNAT: u8 = 5;
/// Lists counters.
pub const GET_COUNTERS: u8 = 6;
/// A counter.
pub const NEW_COUNTER: u8 = 7;
/// Changes the rules of firewall marks.
pub const EDIT_MARKS: u8 = 8;
/// Lists the rules of firewall marks.
pub const GET_MARKS: u8 = 9;
/// A rule of firewall marks.
pub const NEW_MARK: u8 = 10;
/// Changes a setting.
pub const EDIT_SETTING: u8 = 11;
/// Lists the settings.
pub const GET_SETTINGS: u8 = 12;
/// A setting.
pub const NEW_SETTING: u8 = 13;
/// The attribute of a rule.
pub const RULE: u16 = 13;
/// Bytes of a rule's text at most.
pub const MAX_RULE: usize = 1024;

/// What a listing shows of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionView {
    /// IP protocol number; 0 for the template of a marked service.
    pub protocol: u8,
    /// The client.
    pub client: Endpoint,
    /// The virtual address and port; for a template of a marked service `0.0.0.MARK`.
    pub service: Endpoint,
    /// The real server.
    pub real: Endpoint,
    /// Name of the state, as in `ESTABLISHED`.
    pub state: Cow<'static, str>,
    /// Seconds until it expires.
    pub expires_s: u32,
    /// Whether it is a persistence template.
    pub is_template: bool,
    /// Whether another director told of it.
    pub is_heard: bool,
    /// Name and data of the persistence engine that made it.
    pub persistence_engine: Option<(Cow<'static, str>, Vec<u8>)>,
    /// By full NAT, from where the real server sees the client come.
    pub local: Option<Endpoint>,
}

impl ConnectionView {
    /// How a persistence template is listed, `expires_s` seconds before it expires.
    pub fn of_template(template: &TemplateView, expires_s: u32) -> Self {
        Self {
            protocol: template.key.protocol,
            client: template.key.client,
            service: template.key.virtual_endpoint,
            real: template.key.real_endpoint,
            state: template.state().into(),
            expires_s,
            is_template: true,
            is_heard: template.is_heard,
            persistence_engine: template.call.as_ref().map(|call| ("sip".into(), call.to_vec())),
            local: None,
        }
    }

    /// How a connection is listed that a control connection announced.
    pub fn of_expected(expected: &ExpectedView, expires_s: u32) -> Self {
        Self {
            protocol: expected.key.protocol,
            client: expected.key.client,
            service: expected.key.virtual_endpoint,
            real: expected.key.real_endpoint,
            state: State::Tcp(TcpState::Listen).name().into(),
            expires_s,
            local: None,
            is_template: false,
            is_heard: false,
            persistence_engine: None,
        }
    }

    /// Reads the attributes of a connection.
    pub fn parse(from: &Attributes) -> Result<Self, Errno> {
        let engine = from.string(11, MAX_TEXT)?;
        let data = from.bytes(12).unwrap_or_default().to_vec();
        let flags = from.u32(10)?.unwrap_or(0);
        Ok(Self {
            protocol: from.u8(1)?.ok_or(Errno::EPROTO)?,
            client: endpoint(from, 2)?,
            service: endpoint(from, 4)?,
            real: endpoint(from, 6)?,
            state: from.string(8, MAX_TEXT)?.ok_or(Errno::EPROTO)?.into(),
            expires_s: from.u32(9)?.ok_or(Errno::EPROTO)?,
            is_template: flags & TEMPLATE != 0,
            is_heard: flags & HEARD != 0,
            persistence_engine: engine.map(|name| (name.into(), data)),
            local: from.bytes(LOCAL_END).map(|_| endpoint(from, LOCAL_END)).transpose()?,
        })
    }

    /// Appends the attributes of the connection.
    pub fn emit(&self, to: &mut Writer) {
        to.u8(1, self.protocol);
        emit_endpoint(to, 2, self.client);
        emit_endpoint(to, 4, self.service);
        emit_endpoint(to, 6, self.real);
        to.string(8, clipped(&self.state));
        to.u32(9, self.expires_s);
        let template = if self.is_template { TEMPLATE } else { 0 };
        to.u32(10, template | if self.is_heard { HEARD } else { 0 });
        if let Some((name, data)) = &self.persistence_engine {
            to.string(11, clipped(name));
            to.bytes(12, &data[..data.len().min(MAX_TEXT)]);
        }
        self.local.inspect(|local| emit_endpoint(to, LOCAL_END, *local));
    }
}

fn endpoint(from: &Attributes, kind: u16) -> Result<Endpoint, Errno> {
    let addr: IpAddr = match from.bytes(kind).ok_or(Errno::EPROTO)? {
        &[a, b, c, d] => [a, b, c, d].into(),
        bytes => <[u8; 16]>::try_from(bytes).map_err(|_| Errno::ERANGE)?.into(),
    };
    let port = from.be16(kind + 1)?.ok_or(Errno::EPROTO)?;
    Ok(Endpoint::new(Addr::from(addr), port))
}

fn emit_endpoint(to: &mut Writer, kind: u16, endpoint: Endpoint) {
    match IpAddr::from(endpoint.addr) {
        IpAddr::V4(addr) => to.bytes(kind, &addr.octets()),
        IpAddr::V6(addr) => to.bytes(kind, &addr.octets()),
    }
    to.be16(kind + 1, endpoint.port);
}

fn clipped(text: &str) -> &str {
    let end = (0..=text.len().min(MAX_TEXT)).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

const LOCAL_END: u16 = 19;
const TEMPLATE: u32 = 1;
const HEARD: u32 = 2;
/// **Source** — `IP_VS_PEDATA_MAXLEN` of linux/ip_vs.h.
const MAX_TEXT: usize = 255;
