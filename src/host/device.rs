//! The kernel's side of a device of the director's own: how it is set up, what is routed to it.
//!
//! All of it belongs to the device and vanishes with it.

use std::io;
use std::net::IpAddr;

use nix::net::if_::if_nametoindex;
use rtnetlink::packet_route::address::{AddressHeaderFlags, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InetDevConf, LinkAttribute,
};
use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::{
    AddressMessageBuilder, Handle, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder,
};

use super::dump;
use crate::packet::{Addr, Family};

/// A device of the director's own, as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    name: String,
    index: u32,
}

/// How packets to an address get to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lead {
    /// A host route: for addresses that routers send here.
    Route,
    /// A host route for the host's own programs, which talk from this address.
    RouteFrom(Addr),
    /// The address itself: for those in a network that the host is in, where it is asked for by ARP.
    Address,
}

/// What the kernel does with the packets that come from a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Routes them on: they come from the director.
    Routed,
    /// Takes those for addresses of the device as its own.
    Delivered,
    /// Takes those for any address of the host as its own, whoever they come from.
    Door,
}

impl Device {
    /// Takes a device that was just made, and sets it up.
    ///
    /// **Errors** — name the device and what failed.
    pub fn set_up(name: &str, mtu_bytes: u32, purpose: Use) -> io::Result<Self> {
        let found = if_nametoindex(name).map_err(io::Error::from);
        let device = found.map(|index| Self { name: name.into(), index });
        let device = device.map_err(|error| failed(name, "find", &error))?;
        let mut settings = InetDevConf::default();
        // Clients are not where the device is, and yet their packets come from it.
        settings.rp_filter = LOOSE;
        if purpose == Use::Routed {
            // The kernel forwards by the setting of the interface that packets come by.
            settings.forwarding = 1;
        }
        if matches!(purpose, Use::Routed | Use::Door) {
            // The director sends from addresses of this host.
            settings.accept_local = 1;
        }
        if purpose == Use::Door {
            // Clients on this host may use its loopback addresses, and servers as well.
            settings.route_localnet = 1;
        }
        let families = vec![
            AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(settings)]),
            // Nobody is at the other end to be asked or told anything.
            AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]),
        ];
        device.set("set up", |link| {
            link.mtu(mtu_bytes)
                .txqueuelen(QUEUE_PACKETS)
                .arp(false)
                .append_extra_attribute(LinkAttribute::AfSpecUnspec(families))
        })?;
        // From an interface without addresses the kernel believes no source, by whatever filter.
        device.add_address(DUMMY)?;
        // Only now, for it would have made up an address first.
        device.set("start", LinkMessageBuilder::up)?;
        Ok(device)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The kernel's number for it.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Sets the largest packet that is routed to it.
    pub fn set_mtu(&self, mtu_bytes: u32) -> io::Result<()> {
        self.set("set the MTU of", |link| link.mtu(mtu_bytes))
    }

    /// Leads an address here.
    pub fn lead(&self, addr: Addr, how: Lead) -> io::Result<()> {
        let what = format!("route {addr} to");
        match how {
            Lead::Route | Lead::RouteFrom(_) => {
                let route = self.route(addr, how);
                let route = route.map_err(|error| failed(&self.name, &what, &error))?;
                self.talk(&what, async move |handle| handle.route().add(route).execute().await)
            }
            Lead::Address => self.add_address(addr),
        }
    }

    /// Leads it here no longer.
    pub fn leave(&self, addr: Addr, how: Lead) -> io::Result<()> {
        let what = format!("no longer route {addr} to");
        match how {
            Lead::Route | Lead::RouteFrom(_) => {
                let route = self.route(addr, how);
                let route = route.map_err(|error| failed(&self.name, &what, &error))?;
                self.talk(&what, async move |handle| handle.route().del(route).execute().await)
            }
            Lead::Address => {
                let message = self.address(addr);
                self.talk(&what, async move |handle| handle.address().del(message).execute().await)
            }
        }
    }

    fn add_address(&self, addr: Addr) -> io::Result<()> {
        let (what, addr, index) = (format!("add {addr} to"), IpAddr::from(addr), self.index);
        self.talk(&what, async move |handle| {
            let len = if addr.is_ipv4() { 32 } else { 128 };
            let mut add = handle.address().add(index, addr, len);
            let header = &mut add.message_mut().header;
            // Not to be chosen as the source of the host's own packets.
            header.scope = AddressScope::Host;
            if addr.is_ipv6() {
                header.flags |= AddressHeaderFlags::Nodad;
            }
            add.execute().await
        })
    }

    fn route(&self, addr: Addr, how: Lead) -> io::Result<RouteMessage> {
        let len = if addr.family() == Family::V4 { 32 } else { 128 };
        let route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(addr.into(), len)
            .map_err(io::Error::other)?
            .output_interface(self.index)
            .protocol(RouteProtocol::Other(PROTOCOL));
        let route = match how {
            Lead::RouteFrom(source) => {
                route.pref_source(source.into()).map_err(io::Error::other)?
            }
            Lead::Route | Lead::Address => route,
        };
        let is_v4 = addr.family() == Family::V4;
        Ok(if is_v4 { route.scope(RouteScope::Link) } else { route }.build())
    }

    fn address(&self, addr: Addr) -> AddressMessage {
        match addr.into() {
            IpAddr::V4(addr) => AddressMessageBuilder::<std::net::Ipv4Addr>::new()
                .index(self.index)
                .address(addr, 32)
                .build(),
            IpAddr::V6(addr) => AddressMessageBuilder::<std::net::Ipv6Addr>::new()
                .index(self.index)
                .address(addr, 128)
                .build(),
        }
    }

    fn set(
        &self,
        what: &str,
        edit: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
    ) -> io::Result<()> {
        let message = edit(LinkUnspec::new_with_index(self.index)).build();
        self.talk(what, async move |handle| handle.link().set(message).execute().await)
    }

    fn talk(
        &self,
        what: &str,
        talk: impl AsyncFnOnce(Handle) -> Result<(), rtnetlink::Error>,
    ) -> io::Result<()> {
        let done = dump::runtime()?.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection()?;
            let driver = tokio::spawn(connection);
            let done = talk(handle).await.map_err(dump::into_io);
            driver.abort();
            done
        });
        done.map_err(|error| failed(&self.name, what, &error))
    }
}

fn failed(name: &str, what: &str, error: &io::Error) -> io::Error {
    let hint = match error.raw_os_error() {
        Some(libc::EPERM) => " (needs CAP_NET_ADMIN in this network namespace)",
        Some(libc::EEXIST) => " (another program has routed it elsewhere)",
        _ => "",
    };
    io::Error::new(error.kind(), format!("{what} device {name}: {error}{hint}"))
}

/// `rp_filter`: a source is believed if any interface leads to it. The larger of an interface's value
/// and that of `all` counts, so this is what counts whatever `all` says.
const LOOSE: i32 = 2;

/// An address that no host has. **Source** — RFC 7600 §4.8.
const DUMMY: Addr = Addr::v4(0xc000_0008);

/// Packets that may wait in each queue. The kernel's 500 are lost in one burst of small packets.
const QUEUE_PACKETS: u32 = 4096;

/// How `ip route` tells our routes from others (`proto 117`, a `u`).
const PROTOCOL: u8 = b'u';
