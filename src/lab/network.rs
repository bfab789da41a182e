//! A topology as namespaces and links.

use std::io;

use super::net::{self, Error, Namespace};
use super::topology::{Host, Link, Topology};

/// The namespaces of a topology, connected, with addresses and routes; nothing runs in them.
#[derive(Debug)]
pub struct Network {
    hosts: Vec<Namespace>,
}

impl Network {
    /// Builds a topology.
    ///
    /// **Errors** — what the kernel refused; what had been made until then is gone.
    pub fn build(topology: &Topology) -> Result<Self, Error> {
        let hosts = topology.hosts.iter().map(|host| Namespace::new(host.name));
        let network = Network { hosts: hosts.collect::<Result<_, _>>()? };
        topology.links.iter().try_for_each(|link| network.connect(link))?;
        topology.hosts.iter().try_for_each(|host| network.furnish(topology, host))?;
        Ok(network)
    }

    /// The namespace of a host.
    pub fn host(&self, name: &str) -> Result<&Namespace, Error> {
        let found = self.hosts.iter().find(|host| host.name() == name);
        found.ok_or_else(|| {
            let names: Vec<&str> = self.hosts.iter().map(Namespace::name).collect();
            let known = format!("the hosts are {}", names.join(", "));
            Error::new(format!("host {name}"), io::Error::new(io::ErrorKind::NotFound, known))
        })
    }

    fn connect(&self, link: &Link) -> Result<(), Error> {
        let [one, other] = &link.ends;
        let (near, far) = (self.host(one.host)?, self.host(other.host)?);
        net::connect(&near.end(one.interface), &far.end(other.interface))?;
        for port in &link.ends {
            for address in &port.addresses {
                self.host(port.host)?.add_address(port.interface, *address)?;
            }
        }
        Ok(())
    }

    fn furnish(&self, topology: &Topology, host: &Host) -> Result<(), Error> {
        let namespace = self.host(host.name)?;
        if host.bridge {
            let ports: Vec<&str> =
                topology.ports(host.name).map(|(near, _)| near.interface).collect();
            namespace.add_bridge("br0", &ports)?;
        }
        // Lets programs on the host ping without privileges; it cannot be had in a container whose
        // /proc/sys is read-only, and its root can ping without it.
        let _ = namespace.set_sysctl("net.ipv4.ping_group_range", "0 0");
        host.sysctls.iter().try_for_each(|(key, value)| namespace.set_sysctl(key, value))?;
        // After the parameters, some of which are about how addresses are announced.
        for (interface, address) in &host.addresses {
            namespace.add_address(interface, *address)?;
        }
        host.routes.iter().try_for_each(|route| namespace.add_route(route))
    }
}
