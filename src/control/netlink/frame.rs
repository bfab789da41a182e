//! Netlink framing: messages within a datagram, acknowledgements, errors and ends of dumps.

use netlink_packet_core::{
    DoneMessage, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_MULTIPART, NLMSG_DONE, NLMSG_ERROR,
    NetlinkBuffer, NetlinkHeader,
};
use netlink_packet_core::{ErrorBuffer, Parseable};
use nix::errno::Errno;

use super::attr::{Attributes, Writer};

/// One netlink message within a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Its header.
    pub header: NetlinkHeader,
    /// What follows the header.
    pub payload: &'a [u8],
    /// Header and payload.
    pub whole: &'a [u8],
}

/// How a request ended, as told by its last message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Why it was refused; `None` if it was done.
    pub error: Option<Errno>,
    /// What the director has to say to the person about it.
    pub text: Option<String>,
}

/// The messages of a datagram, up to the first malformed one.
pub fn frames(datagram: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let buffer = NetlinkBuffer::new_checked(rest).ok()?;
        let header = NetlinkHeader::parse(&buffer).ok()?;
        let (whole, _) = rest.split_at_checked(header.length as usize)?;
        let payload = buffer.payload();
        let next = whole.len().next_multiple_of(4).min(rest.len());
        rest = &rest[next..];
        Some(Frame { header, payload, whole })
    })
}

/// A header of ours, without its length.
pub fn header(message_type: u16, flags: u16, sequence: u32, port: u32) -> NetlinkHeader {
    let mut header = NetlinkHeader::default();
    header.message_type = message_type;
    header.flags = flags;
    header.sequence_number = sequence;
    header.port_number = port;
    header
}

/// The answer that a request was done, with a remark for the person if there is one.
///
/// **Shape** — only the header of the request is quoted, as Linux does for successes.
pub fn acknowledge(request: &Frame, remark: Option<&str>) -> Vec<u8> {
    let quoted = &request.whole[..REQUEST_HEADER];
    report(request, 0, quoted, NLM_F_CAPPED, remark)
}

/// The answer that a request was refused. Quotes the whole request.
pub fn refuse(request: &Frame, errno: Errno, hint: Option<&str>) -> Vec<u8> {
    report(request, -(errno as i32), request.whole, 0, hint)
}

/// The end of a dump.
pub fn done(request: &NetlinkHeader) -> Vec<u8> {
    let (sequence, port) = (request.sequence_number, request.port_number);
    let mut writer = Writer::new(header(NLMSG_DONE, NLM_F_MULTIPART, sequence, port));
    writer.emit(&DoneMessage::default());
    writer.finish()
}

fn report(request: &Frame, code: i32, quoted: &[u8], flags: u16, text: Option<&str>) -> Vec<u8> {
    let flags = if text.is_some() { flags | NLM_F_ACK_TLVS } else { flags };
    let (sequence, port) = (request.header.sequence_number, request.header.port_number);
    let mut writer = Writer::new(header(NLMSG_ERROR, flags, sequence, port));
    writer.raw(&code.to_ne_bytes());
    writer.raw(quoted);
    if let Some(text) = text {
        writer.string(NLMSGERR_ATTR_MSG, text);
    }
    writer.finish()
}

impl Frame<'_> {
    /// What this message says about how the request ended, if it is such a message.
    pub fn outcome(&self) -> Option<Outcome> {
        match self.header.message_type {
            NLMSG_DONE => {
                let code = self.payload.first_chunk().copied().map_or(0, i32::from_ne_bytes);
                Some(Outcome { error: errno(code), text: None })
            }
            NLMSG_ERROR => Some(self.reported()),
            _ => None,
        }
    }

    fn reported(&self) -> Outcome {
        let Ok(buffer) = ErrorBuffer::new_checked(self.payload) else {
            return Outcome { error: Some(Errno::EPROTO), text: None };
        };
        let error = buffer.code().and_then(|code| errno(code.get()));
        Outcome { error, text: self.remark() }
    }

    fn remark(&self) -> Option<String> {
        if self.header.flags & NLM_F_ACK_TLVS == 0 {
            return None;
        }
        let quoted_length =
            self.payload.get(4..8)?.first_chunk().copied().map(u32::from_ne_bytes)?;
        let capped = self.header.flags & NLM_F_CAPPED != 0;
        let quoted = if capped { REQUEST_HEADER } else { quoted_length as usize };
        let attributes = self.payload.get(4 + quoted.checked_next_multiple_of(4)?..)?;
        let text = Attributes::parse(attributes).string(NLMSGERR_ATTR_MSG, MAX_TEXT).ok()?;
        text.filter(|text| !text.is_empty())
    }
}

fn errno(code: i32) -> Option<Errno> {
    (code != 0).then(|| Errno::from_raw(code.wrapping_neg()))
}

/// **Source** — `NLMSG_HDRLEN` of linux/netlink.h.
const REQUEST_HEADER: usize = 16;
/// **Source** — linux/netlink.h.
const NLMSGERR_ATTR_MSG: u16 = 1;
/// Longer remarks are ignored: they do not come from us.
const MAX_TEXT: usize = 4096;
