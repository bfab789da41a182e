//! Kernel parameters of a namespace's network.

use std::fs;
use std::io;

use rtnetlink::LinkUnspec;
use rtnetlink::packet_core::DefaultNla;
use rtnetlink::packet_route::link::{AfSpecInet, AfSpecUnspec, LinkAttribute};

use super::error::During;
use super::{Error, Namespace};

impl Namespace {
    /// Sets a kernel parameter of the network, as in `net.ipv4.ip_forward`.
    ///
    /// In a container `/proc/sys` may be read-only. Then parameters of IPv4 interfaces are set over
    /// netlink, those of `all` on each interface that there is now.
    pub fn set_sysctl(&self, key: &str, value: &str) -> Result<(), Error> {
        let path = sysctl_path(key);
        let what = || format!("set sysctl {key}={value} in {}", self.name());
        let written = self.run(|| fs::write(&path, value))?;
        let is_read_only = |error: &io::Error| error.kind() == io::ErrorKind::ReadOnlyFilesystem;
        match (written, interface_parameter(key), value.parse()) {
            (Err(error), _, _) if is_read_only(&error) && self.sysctl(key)? == value => Ok(()),
            (Err(error), Some((scope, number)), Ok(value)) if is_read_only(&error) => {
                self.set_interface_parameter(scope, number, value)
            }
            (written, _, _) => written.during(what),
        }
    }

    /// Reads a kernel parameter of the network.
    pub fn sysctl(&self, key: &str) -> Result<String, Error> {
        let path = sysctl_path(key);
        let value = self
            .run(|| fs::read_to_string(&path))?
            .during(|| format!("read sysctl {key} in {}", self.name()))?;
        Ok(value.trim_end().to_owned())
    }

    pub(super) fn set_interface_parameter(
        &self,
        scope: &str,
        number: u16,
        value: u32,
    ) -> Result<(), Error> {
        let interfaces = if scope == "all" { self.interfaces()? } else { vec![scope.to_owned()] };
        for interface in interfaces {
            let nested = AfSpecInet::Other(DefaultNla::new(IFLA_INET_CONF, entry(number, value)));
            let attribute = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![nested])]);
            let message = LinkUnspec::new_with_index(self.index(&interface)?)
                .append_extra_attribute(attribute)
                .build();
            self.netlink(
                || format!("set parameter {number} of {interface} to {value}"),
                async move |handle| handle.link().set(message).execute().await,
            )?;
        }
        Ok(())
    }
}

/// **Shape** — dots separate, as for sysctl(8); a slash in the key stands for a dot in a name.
fn sysctl_path(key: &str) -> String {
    let path: String = key
        .chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect();
    format!("/proc/sys/{path}")
}

/// The interface, or `all`, that a parameter is about, and its number.
///
/// **Source** — linux/ip.h, `IPV4_DEVCONF_*`.
fn interface_parameter(key: &str) -> Option<(&str, u16)> {
    if key == "net.ipv4.ip_forward" {
        return Some(("all", FORWARDING));
    }
    let (scope, name) = key.strip_prefix("net.ipv4.conf.")?.rsplit_once('.')?;
    let number = match name {
        "forwarding" => FORWARDING,
        "rp_filter" => 8,
        "arp_announce" => 18,
        "arp_ignore" => 19,
        _ => return None,
    };
    Some((scope, number))
}

const FORWARDING: u16 = 1;
const IFLA_INET_CONF: u16 = 1;

/// One parameter as an attribute.
fn entry(number: u16, value: u32) -> Vec<u8> {
    let length = 8u16;
    [&length.to_ne_bytes()[..], &number.to_ne_bytes(), &value.to_ne_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::net::{connect, sandbox};

    #[test]
    fn parameters_of_interfaces_can_be_set_without_proc() {
        sandbox::run(
            "lab::net::sysctl::tests::parameters_of_interfaces_can_be_set_without_proc",
            || {
                let (near, far) = (Namespace::new("near").unwrap(), Namespace::new("far").unwrap());
                connect(&near.end("eth0"), &far.end("eth0")).unwrap();
                for (key, value) in [
                    ("net.ipv4.conf.eth0.forwarding", 1),
                    ("net.ipv4.conf.eth0.rp_filter", 2),
                    ("net.ipv4.conf.all.arp_announce", 2),
                    ("net.ipv4.conf.all.arp_ignore", 1),
                ] {
                    let (scope, number) = interface_parameter(key).unwrap();
                    near.set_interface_parameter(scope, number, value).unwrap();
                    let name = key.rsplit('.').next().unwrap();
                    let now = near.sysctl(&format!("net.ipv4.conf.eth0.{name}")).unwrap();
                    assert_eq!(now, value.to_string(), "{key}");
                }
                let loopback = near.sysctl("net.ipv4.conf.lo.arp_ignore").unwrap();
                assert_eq!(loopback, "1", "all are all");
            },
        );
    }

    #[test]
    fn other_parameters_are_left_alone() {
        assert_eq!(interface_parameter("net.ipv4.conf.a.b.arp_ignore"), Some(("a.b", 19)));
        for key in ["net.ipv4.ping_group_range", "net.ipv4.conf.eth0.tag", "net.ipv6.conf.all.mtu"]
        {
            assert_eq!(interface_parameter(key), None);
        }
    }
}
