//! Asking the kernel, and turning its answers into plain data.

use std::io;
use std::net::IpAddr;
use std::ops::BitOr;

use futures_util::TryStreamExt;
use pnet_base::MacAddr;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType, RouteVia,
};
use rtnetlink::{Handle, RouteMessageBuilder};

use crate::link::{HostView, Interface, KernelAddress, KernelNeighbour, KernelRoute};
use crate::packet::{Addr, Prefix};

/// Parts of the view that have to be asked for again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dirty(u8);

impl Dirty {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self(0b1111);
    pub const NEIGHBOURS: Self = Self(0b0001);
    pub const ROUTES: Self = Self(0b0010);
    pub const ADDRESSES: Self = Self(0b0100);
    const LINKS: Self = Self(0b1000);

    fn has(self, part: Self) -> bool {
        self.0 & part.0 != 0
    }
}

impl BitOr for Dirty {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A runtime for one thread that talks netlink.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()
}

/// Asks for the dirty parts of a view, and for the settings.
pub async fn refresh(handle: &Handle, dirty: Dirty, view: &mut HostView) -> io::Result<()> {
    if dirty.has(Dirty::LINKS) {
        let links: Vec<LinkMessage> = collect(handle.link().get().execute()).await?;
        view.interfaces = links.iter().map(interface).collect();
    }
    refresh_settings(view);
    if dirty.has(Dirty::ADDRESSES) {
        let addresses: Vec<AddressMessage> = collect(handle.address().get().execute()).await?;
        view.addresses = addresses.iter().filter_map(address).collect();
        let addresses = std::mem::take(&mut view.addresses).into_iter();
        view.addresses = addresses.filter(|own| !view.is_directors(own.interface)).collect();
    }
    if dirty.has(Dirty::ROUTES) {
        let v4 = RouteMessageBuilder::<std::net::Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<std::net::Ipv6Addr>::new().build();
        let mut routes: Vec<RouteMessage> = collect(handle.route().get(v4).execute()).await?;
        routes.extend(collect(handle.route().get(v6).execute()).await?);
        view.routes = routes.iter().flat_map(unicast_routes).collect();
        let is_own = |route: &&RouteMessage| {
            route
                .attributes
                .iter()
                .any(|each| matches!(each, RouteAttribute::Oif(index) if view.is_directors(*index)))
        };
        let locals = routes.iter().filter(|route| !is_own(route)).filter_map(local_prefix);
        view.locals = locals.collect();
    }
    if dirty.has(Dirty::NEIGHBOURS) {
        let known: Vec<NeighbourMessage> = collect(handle.neighbours().get().execute()).await?;
        view.neighbours = known.iter().filter_map(neighbour).collect();
        view.neighbours.sort_unstable_by_key(|known| (known.interface, known.addr));
    }
    Ok(())
}

/// Looks at the settings that are no part of route netlink.
fn refresh_settings(view: &mut HostView) {
    view.forwards_v4 = is_set("net/ipv4/ip_forward");
    let interfaces = view.interfaces.iter().map(|interface| interface.name.as_str());
    // Since Linux 6.17 an interface can be told to forward by itself.
    view.forwards_v6 = is_set("net/ipv6/conf/all/forwarding")
        || interfaces
            .into_iter()
            .any(|name| is_set(&format!("net/ipv6/conf/{name}/force_forwarding")));
}

fn is_set(setting: &str) -> bool {
    std::fs::read_to_string(format!("/proc/sys/{setting}")).is_ok_and(|text| text.trim() != "0")
}

async fn collect<T>(
    stream: impl futures_util::Stream<Item = Result<T, rtnetlink::Error>>,
) -> io::Result<Vec<T>> {
    stream.try_collect().await.map_err(into_io)
}

/// Keeps the kernel's error number, by which callers tell errors apart.
pub fn into_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

fn interface(message: &LinkMessage) -> Interface {
    let flags = message.header.flags;
    let mut interface = Interface {
        index: message.header.index,
        up: flags.contains(LinkFlags::Up),
        running: flags.contains(LinkFlags::Running),
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        ..Interface::default()
    };
    let (mut lower, mut number) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::Address(bytes) => interface.mac = mac(bytes),
            LinkAttribute::Mtu(mtu) => interface.mtu_bytes = *mtu,
            LinkAttribute::Controller(index) => interface.master = Some(*index),
            LinkAttribute::Link(index) => lower = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                interface.kind = infos.iter().find_map(kind);
                number = infos.iter().find_map(vlan_number);
            }
            _ => {}
        }
    }
    interface.vlan = lower.zip(number);
    interface
}

fn kind(info: &LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}

fn vlan_number(info: &LinkInfo) -> Option<u16> {
    let LinkInfo::Data(InfoData::Vlan(vlan)) = info else { return None };
    vlan.iter().find_map(|each| match each {
        InfoVlan::Id(number) => Some(*number),
        _ => None,
    })
}

fn mac(bytes: &[u8]) -> Option<MacAddr> {
    <[u8; 6]>::try_from(bytes).ok().map(MacAddr::from)
}

fn address(message: &AddressMessage) -> Option<KernelAddress> {
    // On a point-to-point link `Address` is the peer and `Local` is ours.
    let local = message.attributes.iter().find_map(|each| match each {
        AddressAttribute::Local(addr) => Some(*addr),
        _ => None,
    });
    let network = message.attributes.iter().find_map(|each| match each {
        AddressAttribute::Address(addr) => Some(*addr),
        _ => None,
    });
    let network = network.or(local)?;
    Some(KernelAddress {
        interface: message.header.index,
        addr: local.unwrap_or(network).into(),
        prefix: Prefix::new(network.into(), message.header.prefix_len)?,
    })
}

/// The routes of the main table that lead to single hosts, one for each next hop.
fn unicast_routes(message: &RouteMessage) -> Vec<KernelRoute> {
    let header = &message.header;
    let ours = header.kind == RouteType::Unicast && table(message) == MAIN_TABLE;
    let Some(prefix) = destination(message).filter(|_| ours) else { return Vec::new() };
    let metric = message.attributes.iter().find_map(|each| match each {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    let metric = metric.unwrap_or(0);
    let route = |interface, gateway| KernelRoute { prefix, interface, gateway, metric };
    let mut routes = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => routes.push(route(*index, gateway(&message.attributes))),
            RouteAttribute::MultiPath(hops) => routes.extend(
                hops.iter().map(|hop| route(hop.interface_index, gateway(&hop.attributes))),
            ),
            _ => {}
        }
    }
    routes
}

/// The addresses that the kernel takes as its own.
fn local_prefix(message: &RouteMessage) -> Option<Prefix> {
    (message.header.kind == RouteType::Local).then(|| destination(message)).flatten()
}

fn destination(message: &RouteMessage) -> Option<Prefix> {
    let named = message.attributes.iter().find_map(|each| match each {
        RouteAttribute::Destination(addr) => Some(addr),
        _ => None,
    });
    let addr = match (named, message.header.address_family) {
        (Some(addr), _) => route_addr(addr)?,
        (None, AddressFamily::Inet) => Addr::v4(0),
        (None, AddressFamily::Inet6) => Addr::v6(0),
        (None, _) => return None,
    };
    Prefix::new(addr, message.header.destination_prefix_length)
}

fn gateway(attributes: &[RouteAttribute]) -> Option<Addr> {
    attributes.iter().find_map(|each| match each {
        RouteAttribute::Gateway(addr) => route_addr(addr),
        // Of another family than the destination.
        RouteAttribute::Via(RouteVia::Inet(addr)) => Some(IpAddr::V4(*addr).into()),
        RouteAttribute::Via(RouteVia::Inet6(addr)) => Some(IpAddr::V6(*addr).into()),
        _ => None,
    })
}

fn route_addr(addr: &RouteAddress) -> Option<Addr> {
    match addr {
        RouteAddress::Inet(addr) => Some(IpAddr::V4(*addr).into()),
        RouteAddress::Inet6(addr) => Some(IpAddr::V6(*addr).into()),
        _ => None,
    }
}

fn table(message: &RouteMessage) -> u32 {
    let wide = message.attributes.iter().find_map(|each| match each {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    wide.unwrap_or(u32::from(message.header.table))
}

fn neighbour(message: &NeighbourMessage) -> Option<KernelNeighbour> {
    let permanent = match message.header.state {
        NeighbourState::Permanent => true,
        NeighbourState::Reachable
        | NeighbourState::Stale
        | NeighbourState::Delay
        | NeighbourState::Probe => false,
        // NOARP entries are for broadcast, multicast and links without addresses.
        _ => return None,
    };
    let addr = message.attributes.iter().find_map(|each| match each {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(addr)) => Some(Addr::from(*addr)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(addr)) => Some(Addr::from(*addr)),
        _ => None,
    });
    let mac = message.attributes.iter().find_map(|each| match each {
        NeighbourAttribute::LinkLayerAddress(bytes) => mac(bytes),
        _ => None,
    });
    Some(KernelNeighbour { interface: message.header.ifindex, addr: addr?, mac: mac?, permanent })
}

const MAIN_TABLE: u32 = RouteHeader::RT_TABLE_MAIN as u32;
