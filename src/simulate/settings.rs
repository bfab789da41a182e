//! Settings of the director's host beside those of IPVS, which the simulator takes for granted.

use std::collections::BTreeMap;

use nix::errno::Errno;

/// The host's settings by name.
#[derive(Clone, Debug)]
pub struct HostSettings(BTreeMap<&'static str, String>);

/// Every one with its value in the network in which scenarios were recorded.
const ALL: &[(&str, &str)] = &[
    ("net.ipv4.conf.all.forwarding", "1"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.conf.default.send_redirects", "0"),
    ("net.ipv4.conf.in.rp_filter", "0"),
    ("net.ipv4.conf.in.send_redirects", "0"),
    ("net.ipv4.conf.out.rp_filter", "0"),
    ("net.ipv4.conf.out.send_redirects", "0"),
    ("net.ipv4.icmp_ratelimit", "0"),
    ("net.ipv4.icmp_ratemask", "0"),
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv4.tcp_timestamps", "0"),
    ("net.ipv6.conf.all.forwarding", "1"),
    ("net.ipv6.icmp.ratelimit", "0"),
];

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

    /// Why there is no setting of this name, where `ipvs` are the names of those of IPVS: it is a
    /// folder of settings, or goes on below one, or is unknown.
    pub fn why_missing(&self, name: &str, ipvs: impl Iterator<Item = String>) -> Errno {
        let folder = format!("{}.", name.trim_end_matches('.'));
        let known = self.0.keys().map(|name| (*name).to_owned());
        for setting in known.chain(ipvs) {
            if setting.starts_with(&folder) {
                return Errno::EISDIR;
            }
            if name.strip_prefix(&setting).is_some_and(|rest| rest.starts_with('.')) {
                return Errno::ENOTDIR;
            }
        }
        Errno::ENOENT
    }
}
