//! One connection or template, as it is told.

use crate::packet::Endpoint;

/// Flags of an entry.
///
/// **Source** — `IP_VS_CONN_F_*` of linux/ip_vs.h.
pub mod flag {
    use crate::engine::service::ForwardingMethod;

    /// The bits of the forwarding method, with its values.
    pub const METHOD: u32 = 0x0007;
    /// NAT.
    pub const MASQUERADE: u32 = 0;
    /// The director itself.
    pub const LOCAL: u32 = 1;
    /// A tunnel.
    pub const TUNNEL: u32 = 2;
    /// Direct routing.
    pub const DIRECT: u32 = 3;
    /// Past all servers.
    pub const BYPASS: u32 = 4;
    /// It was heard of another director.
    pub const HEARD: u32 = 0x0020;
    /// It is in the hash table, which is nobody else's affair.
    pub const HASHED: u32 = 0x0040;
    /// No packet of the server has been seen, and none is expected.
    pub const ONE_WAY: u32 = 0x0080;
    /// It counts as inactive with its server.
    pub const INACTIVE: u32 = 0x0100;
    /// Sequence numbers are shifted, one way or both.
    pub const SEQUENCE: u32 = 0x0600;
    /// The client's port is not known yet.
    pub const NO_CLIENT_PORT: u32 = 0x0800;
    /// It is a template.
    pub const TEMPLATE: u32 = 0x1000;
    /// The kernel's connection tracking follows it.
    pub const TRACKED: u32 = 0x1_0000;
    /// What a backup takes over.
    pub const TAKEN: u32 = METHOD | ONE_WAY | INACTIVE | SEQUENCE | NO_CLIENT_PORT | TEMPLATE;

    /// The flags that come with a forwarding method. Full NAT, which is not told, has none.
    pub fn of_method(method: ForwardingMethod) -> u32 {
        match method {
            ForwardingMethod::Masquerade | ForwardingMethod::FullNat => MASQUERADE,
            ForwardingMethod::Local => LOCAL | ONE_WAY,
            ForwardingMethod::Tunnel => TUNNEL | ONE_WAY,
            ForwardingMethod::Direct => DIRECT | ONE_WAY,
            ForwardingMethod::Bypass => BYPASS,
        }
    }

    /// The forwarding method that flags tell, if there is one of that number.
    pub fn method(flags: u32) -> Option<ForwardingMethod> {
        match flags & METHOD {
            MASQUERADE => Some(ForwardingMethod::Masquerade),
            LOCAL => Some(ForwardingMethod::Local),
            TUNNEL => Some(ForwardingMethod::Tunnel),
            DIRECT => Some(ForwardingMethod::Direct),
            BYPASS => Some(ForwardingMethod::Bypass),
            _ => None,
        }
    }
}

/// Bytes that tell how sequence numbers are shifted: first number, shift, shift before, both ways.
pub const SEQUENCE_LEN: usize = 24;

/// How sequence numbers of a connection are shifted, as another director told. Kept to be told on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Which ways: bits of [`flag::SEQUENCE`].
    pub ways: u32,
    /// The shifts as they travel.
    pub shifts: [u8; SEQUENCE_LEN],
}

/// What a persistence engine knows of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Engine<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// What tells the template from others of its client.
    pub data: &'a [u8],
}

/// One connection or template, as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// IP protocol number.
    pub protocol: u8,
    /// The client; of a template its network, port 0.
    pub client: Endpoint,
    /// What the client talks to.
    pub virtual_endpoint: Endpoint,
    /// The server.
    pub real_endpoint: Endpoint,
    /// Bits of [`flag`].
    pub flags: u32,
    /// The number of its state among those of its protocol.
    pub state: u16,
    /// The firewall mark of its first packet, or 0.
    pub mark: u32,
    /// Seconds it lives without another packet; 0 for what its state has.
    pub timeout_s: u32,
    /// How its sequence numbers are shifted. Announced by `flags`, too.
    pub shifts: Option<[u8; SEQUENCE_LEN]>,
    /// What its persistence engine knows.
    pub engine: Option<Engine<'a>>,
}

impl Entry<'_> {
    /// Whether it is a template.
    pub fn is_template(&self) -> bool {
        self.flags & flag::TEMPLATE != 0
    }
}
