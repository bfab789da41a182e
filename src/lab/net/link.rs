//! Interfaces: pairs, bridges, addresses, routes, offloads.

use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};

use futures_util::TryStreamExt;
use nix::net::if_::if_nametoindex;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::error::During;
use super::{Error, Namespace, Prefix, Route};
use crate::lab::sys::ethtool;

/// One end of a link that is to be made.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Where it is.
    pub namespace: &'a Namespace,
    /// Its name there.
    pub interface: &'a str,
    /// Its hardware address; the kernel invents one otherwise.
    pub mac: Option<[u8; 6]>,
}

impl<'a> End<'a> {
    /// The same end with a given hardware address.
    pub fn with_mac(self, mac: [u8; 6]) -> End<'a> {
        End { mac: Some(mac), ..self }
    }

    fn name(&self) -> String {
        format!("{} in {}", self.interface, self.namespace.name())
    }
}

/// What an interface can do for the kernel's stack, as `ethtool -K` switches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// `rx`
    ReceiveChecksum,
    /// `tx`
    TransmitChecksum,
    /// `sg`
    ScatterGather,
    /// `tso`
    TcpSegmentation,
    /// `gso`
    GenericSegmentation,
    /// `gro`
    GenericReceive,
}

impl Offload {
    /// All of them, in an order in which they can be switched off.
    pub const ALL: [Offload; 6] = [
        Offload::TcpSegmentation,
        Offload::GenericSegmentation,
        Offload::GenericReceive,
        Offload::ScatterGather,
        Offload::TransmitChecksum,
        Offload::ReceiveChecksum,
    ];
}

/// What has gone over an interface since it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that came in.
    pub received_bytes: u64,
    /// Bytes that went out.
    pub sent_bytes: u64,
}

/// Connects two namespaces by a veth pair, and sets both ends up.
pub fn connect(one: &End<'_>, other: &End<'_>) -> Result<(), Error> {
    let mut peer = described(LinkMessageBuilder::<LinkUnspec>::default(), other);
    peer = peer.setns_by_fd(other.namespace.as_fd().as_raw_fd());
    let veth = described(LinkVeth::new(one.interface, other.interface), one)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())))
        .build();
    one.namespace.netlink(
        || format!("link {} with {}", one.name(), other.name()),
        async move |handle| handle.link().add(veth).execute().await,
    )?;
    one.namespace.set_up(one.interface)?;
    other.namespace.set_up(other.interface)
}

fn described<T>(message: LinkMessageBuilder<T>, end: &End<'_>) -> LinkMessageBuilder<T> {
    let message = message.name(end.interface);
    match end.mac {
        Some(mac) => message.address(mac.to_vec()),
        None => message,
    }
}

impl Namespace {
    /// Makes a bridge over interfaces of this namespace, and sets it up.
    pub fn add_bridge(&self, bridge: &str, ports: &[&str]) -> Result<(), Error> {
        let message = LinkBridge::new(bridge).build();
        self.netlink(
            || format!("add bridge {bridge}"),
            async move |handle| handle.link().add(message).execute().await,
        )?;
        ports.iter().try_for_each(|port| self.add_port(bridge, port))
    }

    /// Puts an interface into a bridge.
    pub fn add_port(&self, bridge: &str, port: &str) -> Result<(), Error> {
        let bridge_index = self.index(bridge)?;
        self.change(port, "put into the bridge", |link| link.controller(bridge_index))
    }

    /// Sets an interface up.
    pub fn set_up(&self, interface: &str) -> Result<(), Error> {
        self.change(interface, "set up", LinkMessageBuilder::up)
    }

    /// Sets an interface down.
    pub fn set_down(&self, interface: &str) -> Result<(), Error> {
        self.change(interface, "set down", LinkMessageBuilder::down)
    }

    /// Sets the largest packet of an interface.
    ///
    /// **Units** — bytes, without the Ethernet header.
    pub fn set_mtu(&self, interface: &str, mtu_bytes: u32) -> Result<(), Error> {
        self.change(interface, "set the MTU", |link| link.mtu(mtu_bytes))
    }

    /// Sets the hardware address of an interface.
    pub fn set_mac(&self, interface: &str, mac: [u8; 6]) -> Result<(), Error> {
        self.change(interface, "set the address", |link| link.address(mac.to_vec()))
    }

    /// The hardware address of an interface.
    pub fn mac(&self, interface: &str) -> Result<[u8; 6], Error> {
        let link = self.link(interface)?;
        let mac = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Address(address) => address.as_slice().try_into().ok(),
            _ => None,
        });
        let missing = || io::Error::new(io::ErrorKind::NotFound, "it has no hardware address");
        mac.ok_or_else(missing).during(|| format!("{}: {interface}", self.name()))
    }

    fn link(&self, interface: &str) -> Result<LinkMessage, Error> {
        let index = self.index(interface)?;
        let found = self.netlink(
            || format!("look at {interface}"),
            async move |handle| handle.link().get().match_index(index).execute().try_next().await,
        )?;
        let gone = || io::Error::new(io::ErrorKind::NotFound, "it is gone");
        found.ok_or_else(gone).during(|| format!("{}: {interface}", self.name()))
    }

    /// Removes an interface, and with a veth also its peer.
    pub fn remove_link(&self, interface: &str) -> Result<(), Error> {
        let index = self.index(interface)?;
        self.netlink(
            || format!("remove {interface}"),
            async move |handle| handle.link().del(index).execute().await,
        )
    }

    /// Gives an interface an address. IPv6 addresses are usable at once (no duplicate detection).
    pub fn add_address(&self, interface: &str, prefix: Prefix) -> Result<(), Error> {
        let index = self.index(interface)?;
        self.netlink(
            || format!("add address {prefix} to {interface}"),
            async move |handle| {
                let mut add = handle.address().add(index, prefix.address(), prefix.length());
                if prefix.address().is_ipv6() {
                    add.message_mut().header.flags |= AddressHeaderFlags::Nodad;
                }
                add.execute().await
            },
        )
    }

    /// The addresses of an interface.
    pub fn addresses(&self, interface: &str) -> Result<Vec<Prefix>, Error> {
        let index = self.index(interface)?;
        let found: Vec<AddressMessage> = self.netlink(
            || format!("list the addresses of {interface}"),
            async move |handle| {
                let request = handle.address().get().set_link_index_filter(index);
                request.execute().try_collect().await
            },
        )?;
        Ok(found.iter().filter_map(prefix_of).collect())
    }

    /// How many bytes an interface has received and sent, the Ethernet headers included.
    pub fn traffic(&self, interface: &str) -> Result<Traffic, Error> {
        let link = self.link(interface)?;
        let counted = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Stats64(counted) => Some(counted),
            _ => None,
        });
        let missing = || io::Error::new(io::ErrorKind::NotFound, "nothing is counted");
        let counted =
            counted.ok_or_else(missing).during(|| format!("{}: {interface}", self.name()))?;
        Ok(Traffic { received_bytes: counted.rx_bytes, sent_bytes: counted.tx_bytes })
    }

    /// Adds a route.
    pub fn add_route(&self, route: &Route) -> Result<(), Error> {
        let destination = route.destination;
        let what = || format!("add a route to {destination}");
        let invalid = |e| io::Error::new(io::ErrorKind::InvalidInput, e);
        let mut builder = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(destination.address(), destination.length())
            .map_err(invalid)
            .during(what)?;
        if let Some(gateway) = route.via {
            builder = builder.gateway(gateway).map_err(invalid).during(what)?;
        }
        if let Some(interface) = &route.interface {
            builder = builder.output_interface(self.index(interface)?);
        }
        let message = builder.build();
        self.netlink(what, async move |handle| handle.route().add(message).execute().await)
    }

    /// Switches an offload of an interface on or off.
    pub fn set_offload(&self, interface: &str, offload: Offload, on: bool) -> Result<(), Error> {
        self.run(|| {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            ethtool::set_offload(socket.as_fd(), interface, offload, on)
        })?
        .during(|| format!("{}: switch {offload:?} of {interface}", self.name()))
    }

    /// Switches all offloads of an interface off, so that each frame is one packet on the wire
    /// with finished checksums.
    pub fn disable_offloads(&self, interface: &str) -> Result<(), Error> {
        Offload::ALL.into_iter().try_for_each(|offload| self.set_offload(interface, offload, false))
    }

    /// The interfaces, in the kernel's order.
    pub fn interfaces(&self) -> Result<Vec<String>, Error> {
        let links: Vec<LinkMessage> = self.netlink(
            || "list the interfaces".to_owned(),
            async move |handle| handle.link().get().execute().try_collect().await,
        )?;
        Ok(links.iter().filter_map(name_of).collect())
    }

    /// The index of an interface in this namespace.
    pub fn index(&self, interface: &str) -> Result<u32, Error> {
        self.run(|| if_nametoindex(interface))?
            .during(|| format!("{}: no interface {interface}", self.name()))
    }

    fn change(
        &self,
        interface: &str,
        what: &str,
        edit: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
    ) -> Result<(), Error> {
        let message = edit(LinkUnspec::new_with_index(self.index(interface)?)).build();
        self.netlink(
            || format!("{what}: {interface}"),
            async move |handle| handle.link().set(message).execute().await,
        )
    }
}

fn prefix_of(message: &AddressMessage) -> Option<Prefix> {
    // On links of two ends `Address` is the far one.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let any = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    Prefix::new(local.or(any)?, message.header.prefix_len).ok()
}

fn name_of(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}
