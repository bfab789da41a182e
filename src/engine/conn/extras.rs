//! What only few connections have, apart from the record that all have.

use std::sync::Arc;

use super::expected::Family;
use super::local::LocalEnd;
use super::template::Template;
use crate::engine::ftp::Mode;
use crate::engine::network::Hold;
use crate::engine::rewrite::sequence::Shift;
use crate::engine::sync::Sequence;
use crate::engine::sync::due::Told;
use crate::packet::Endpoint;

/// What only few connections have.
#[derive(Debug, Default)]
pub struct Extras {
    /// What binds the client to the server, if the service is persistent.
    pub template: Option<Arc<Template>>,
    /// The director's own end, by full NAT.
    pub local: Option<LocalEnd>,
    /// What has been said, if it is a control connection of FTP.
    pub ftp: Option<FtpControl>,
    /// The control connection that announced it.
    pub family: Option<Family>,
    /// The firewall mark of its first packet, or 0.
    pub mark: u32,
    /// When it was told to other directors last.
    pub told: Told,
    /// How its sequence numbers are shifted, as another director told.
    pub sequence: Option<Box<Sequence>>,
    /// What keeps the host's own stack away from its virtual endpoint.
    pub hold: Option<Arc<dyn Hold>>,
}

/// What has been said on a control connection of FTP.
#[derive(Debug, Default)]
pub struct FtpControl {
    /// What the client asked for last, as long as it is not answered.
    pub asked: Option<Mode>,
    /// The last answer.
    pub answered: Option<Answered>,
    /// How far what the server says is shifted.
    pub shift: Shift,
    /// What ties the connections that it announced to it.
    pub family: Family,
}

/// An answer that named an address.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// The sequence number of its segment, as the server counts.
    pub sequence: u32,
    /// What it answered.
    pub mode: Mode,
    /// The address that the client was told.
    pub told: Endpoint,
}

impl Extras {
    /// The extras of a connection that needs any.
    pub fn new(
        template: Option<Arc<Template>>,
        local: Option<LocalEnd>,
        mark: u32,
        sequence: Option<Sequence>,
    ) -> Option<Box<Self>> {
        let needed = template.is_some() || local.is_some() || mark != 0 || sequence.is_some();
        let sequence = sequence.map(Box::new);
        needed.then(|| Box::new(Self { template, local, mark, sequence, ..Self::default() }))
    }
}
