//! Settings of the director's host beside those of IPVS, which the simulator takes for granted.

use std::collections::BTreeMap;

/// The host's settings by name.
#[derive(Clone, Debug)]
pub struct HostSettings(BTreeMap<&'static str, String>);

/// Every one with its value in the network in which scenarios were recorded.
const ALL: [(&str, &str); 2] =
    [("net.ipv4.conf.all.send_redirects", "0"), ("net.ipv4.conf.out.send_redirects", "0")];

impl Default for HostSettings {
    fn default() -> Self {
        Self(ALL.iter().map(|(name, value)| (*name, (*value).to_owned())).collect())
    }
}

impl HostSettings {
    /// The value of a setting, to be looked at or changed; `None` if there is none of that name.
    pub fn value(&mut self, name: &str) -> Option<&mut String> {
        self.0.get_mut(name)
    }
}
