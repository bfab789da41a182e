//! A setting of `net.ipv4.vs`, as the family `ULVS` carries it.

use nix::errno::Errno;

use super::attr::{Attributes, Writer};

/// A setting with its value, or with the value that it is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingView {
    /// Its name below `net.ipv4.vs`.
    pub name: String,
    /// Its value as text.
    pub value: String,
}

impl SettingView {
    /// Reads the attributes of a setting.
    ///
    /// **Errors** — `EINVAL` if one is missing, `ERANGE` if a text is too long.
    pub fn parse(from: &Attributes) -> Result<Self, Errno> {
        Ok(Self {
            name: from.string(NAME, MAX_TEXT)?.ok_or(Errno::EINVAL)?,
            value: from.string(VALUE, MAX_TEXT)?.ok_or(Errno::EINVAL)?,
        })
    }

    /// Appends the attributes of the setting.
    pub fn emit(&self, to: &mut Writer) {
        to.string(NAME, &self.name);
        to.string(VALUE, &self.value);
    }
}

const NAME: u16 = 21;
const VALUE: u16 = 22;
/// The highest attribute of the family.
pub(super) const LAST: u16 = VALUE;
/// Bytes of a name or a value at most.
pub const MAX_TEXT: usize = 255;
