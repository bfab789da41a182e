//! As much of generic netlink's controller as clients use: finding a family by its name.

use netlink_packet_generic::GenlMessage;
use netlink_packet_generic::constants::{CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME};
use netlink_packet_generic::ctrl::nlas::{GenlCtrlAttrs, OpAttrs};
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use nix::errno::Errno;

use super::GenericFamily;
use super::attr::{Attributes, Writer};
use super::frame::header;

/// Message type of the controller.
pub const ID: u16 = netlink_packet_generic::constants::GENL_ID_CTRL;
/// The command that asks for a family.
pub const GET_FAMILY: u8 = netlink_packet_generic::constants::CTRL_CMD_GETFAMILY;

/// Which of `families` a request asks for.
///
/// **Errors** — `ENOENT` if it is none of them, `EINVAL` if the request names none.
pub fn requested<'a>(
    attributes: &Attributes,
    families: &'a [GenericFamily],
) -> Result<&'a GenericFamily, Errno> {
    let id = attributes.u16(CTRL_ATTR_FAMILY_ID)?;
    let name = attributes.string(CTRL_ATTR_FAMILY_NAME, MAX_FAMILY_NAME)?;
    let matches = |family: &&GenericFamily| {
        id.is_none_or(|id| family.id == id) && name.as_ref().is_none_or(|name| family.name == name)
    };
    if id.is_none() && name.is_none() {
        return Err(Errno::EINVAL);
    }
    families.iter().find(matches).ok_or(Errno::ENOENT)
}

/// Describes a family, as the answer to `request_sequence`.
pub fn describe(family: &GenericFamily, flags: u16, sequence: u32, port: u32) -> Vec<u8> {
    let operation = |(command, flags): &(u8, u32)| {
        vec![OpAttrs::Id(u32::from(*command)), OpAttrs::Flags(*flags)]
    };
    let nlas = vec![
        GenlCtrlAttrs::FamilyName(family.name.into()),
        GenlCtrlAttrs::FamilyId(family.id),
        GenlCtrlAttrs::Version(u32::from(family.version)),
        GenlCtrlAttrs::HdrSize(0),
        GenlCtrlAttrs::MaxAttr(family.max_attribute),
        GenlCtrlAttrs::Ops(family.operations.iter().map(operation).collect()),
    ];
    let message = GenlMessage::from_payload(GenlCtrl { cmd: GenlCtrlCmd::NewFamily, nlas });
    let mut writer = Writer::new(header(ID, flags, sequence, port));
    writer.emit(&message);
    writer.finish()
}

/// Asks for a family by its name.
pub fn ask(name: &str, flags: u16, sequence: u32) -> Vec<u8> {
    // Version 1, as libnl asks; the kernel answers in version 2.
    let mut writer = Writer::generic(header(ID, flags, sequence, 0), GET_FAMILY, 1);
    writer.emit(&GenlCtrlAttrs::FamilyName(name.into()));
    writer.finish()
}

/// The number of the family in a description of it.
pub fn family_id(attributes: &Attributes) -> Option<u16> {
    attributes.u16(CTRL_ATTR_FAMILY_ID).ok()?
}

/// **Source** — `GENL_NAMSIZ` of linux/genetlink.h, less the NUL.
const MAX_FAMILY_NAME: usize = 15;
