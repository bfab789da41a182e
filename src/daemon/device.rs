//! The TUN device in the place of interfaces: what is routed and diverted to it, as services and host
//! change.

use std::collections::BTreeMap;
use std::io;

use crate::driver::tun::{Tun, TunConfig};
use crate::engine::service::{ForwardingMethod, Snapshot};
use crate::guard::{Diversions, Diverted, Problem, Untracking};
use crate::host::{Device, Lead, Use};
use crate::link::{DEVICE, HostView};
use crate::packet::{Addr, Family};
use crate::worker::Request;

use super::leads::{Leads, Led};
use super::ports::Addressed;

/// The device, and what leads to it.
pub(super) struct Outlet {
    device: Device,
    queues: usize,
    udp_segmentation: bool,
    /// The interfaces to divert from; all if empty.
    interfaces: Vec<String>,
    diversions: Diversions,
    untracking: Untracking,
    leads: Leads,
    mtu_bytes: u32,
    /// What is wrong and was said.
    told: Vec<Problem>,
}

impl Outlet {
    /// Makes the device, with a queue for each worker. The workers are to be sent the requests.
    ///
    /// **Errors** — say what failed and what is needed; nothing stays.
    pub fn open(
        name: &str,
        interfaces: Vec<String>,
        workers: usize,
    ) -> io::Result<(Self, Vec<Addressed>)> {
        let tun = Tun::open(&TunConfig { name: name.into(), queues: workers, link_address: None })?;
        let device = Device::set_up(&tun.name, FIRST_MTU, Use::Routed)?;
        Diversions::probe(device.index()).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!(
                    "replies of real servers cannot be diverted to {}: {error} (needs nftables with \
                     `fwd', the kernel's CONFIG_NFT_FWD_NETDEV)",
                    tun.name
                ),
            )
        })?;
        let queues = tun.queues.len();
        let requests = tun.queues.into_iter().enumerate().map(|(worker, (receiver, sender))| {
            let (receiver, sender) = (Box::new(receiver), Box::new(sender));
            Addressed::new(worker, Request::Attach { port: DEVICE, receiver, sender })
        });
        let outlet = Self {
            device,
            queues,
            udp_segmentation: tun.udp_segmentation,
            interfaces,
            diversions: Diversions::default(),
            untracking: Untracking::default(),
            leads: Leads::default(),
            mtu_bytes: FIRST_MTU,
            told: Vec::new(),
        };
        Ok((outlet, requests.collect()))
    }

    /// The kernel's number for the device.
    pub fn index(&self) -> u32 {
        self.device.index()
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        self.device.name()
    }

    /// Leads the director's addresses and what real servers send to the device, and nothing else.
    /// Returns the problems that are new.
    ///
    /// **Errors** — the device is gone.
    pub fn follow(
        &mut self,
        services: &Snapshot,
        host: &HostView,
        addresses: impl Iterator<Item = Addr>,
    ) -> io::Result<Vec<Problem>> {
        let index = self.device.index();
        if host.interface(self.name()).is_none_or(|found| found.index != index) {
            let problem = format!("TUN device {} was removed", self.name());
            return Err(io::Error::new(io::ErrorKind::NotFound, problem));
        }
        self.follow_mtu(host);
        let mut problems = unserved(services, host);
        let wanted: BTreeMap<Addr, Lead> =
            addresses.filter_map(|addr| Some((addr, lead(addr, host)?))).collect();
        // Before the kernel invites packets.
        let diverted = Diverted::new(services, host, wanted.keys().copied(), index);
        let diverted = diverted.by(host, &self.interfaces);
        if let Err(Some(error)) = self.untracking.update(diverted.untracked()) {
            // Only firewalls with states and rules that masquerade would notice.
            tracing::warn!("forwarded packets are not kept from connection tracking: {error}");
        }
        if let Err(error) = self.diversions.update(diverted) {
            problems.push(Problem::Diverting { reason: error.to_string() });
        }
        problems.extend(self.follow_leads(wanted));
        let before = std::mem::replace(&mut self.told, problems.clone());
        problems.retain(|problem| !before.contains(problem));
        Ok(problems)
    }

    /// Says what it is.
    pub fn report(&self) {
        let queues = if self.queues == 1 { "queue" } else { "queues" };
        let offloads = if self.udp_segmentation { "TCP and UDP" } else { "TCP" };
        tracing::info!(
            "TUN device {}: {} {queues}, checksum and {offloads} segmentation offloads",
            self.name(),
            self.queues
        );
        tracing::info!(
            "beside the kernel: virtual addresses are routed to {} or diverted there by nftables, as \
             is what masqueraded servers send; all of it vanishes with the device",
            self.name()
        );
    }

    fn follow_leads(&mut self, wanted: BTreeMap<Addr, Lead>) -> Vec<Problem> {
        let mut problems = Vec::new();
        for Led { addr, how, done } in self.leads.follow(&self.device, wanted) {
            match done {
                Ok(()) => self.tell(addr, how),
                Err(error) => problems.push(Problem::Leading { addr, reason: error.to_string() }),
            }
        }
        problems
    }

    fn tell(&self, addr: Addr, how: Lead) {
        let name = self.name();
        match how {
            Lead::Route | Lead::RouteFrom(_) => tracing::info!("{addr} is routed to {name}"),
            Lead::Address => tracing::info!(
                "{addr} is an address of {name}, so that this host answers ARP for it"
            ),
        }
    }

    /// Lets the device take what any interface can, so that the director sees what is too large.
    fn follow_mtu(&mut self, host: &HostView) {
        let others = host
            .interfaces
            .iter()
            .filter(|each| each.index != self.device.index() && each.name != "lo" && each.up);
        let largest = others.map(|each| each.mtu_bytes).max().unwrap_or(FIRST_MTU);
        let wanted = largest.clamp(FIRST_MTU, LARGEST_MTU);
        if wanted != self.mtu_bytes {
            match self.device.set_mtu(wanted) {
                Ok(()) => self.mtu_bytes = wanted,
                Err(error) => tracing::warn!("{error}"),
            }
        }
    }
}

/// How an address is to be led to the device; not at all if it is the kernel's own.
fn lead(addr: Addr, host: &HostView) -> Option<Lead> {
    if host.owns(addr) {
        return None;
    }
    // By ARP only: neighbour discovery answers for addresses of the link that it is asked on.
    let mut networks = host.addresses.iter().map(|own| own.prefix);
    let asked_for = addr.family() == Family::V4 && networks.any(|network| network.contains(addr));
    Some(if asked_for { Lead::Address } else { Lead::Route })
}

/// Servers that cannot be served by a device without link headers, or not on this host.
fn unserved(services: &Snapshot, host: &HostView) -> Vec<Problem> {
    let mut problems = Vec::new();
    for service in services.services() {
        let mut needs_v6 = false;
        for real in service.pool().reals().iter() {
            needs_v6 |= real.addr().family() == Family::V6;
            if real.method() == ForwardingMethod::Direct && !host.owns(real.addr()) {
                problems.push(Problem::NeedsLinkHeader { server: real.addr() });
            }
        }
        if needs_v6 && !host.forwards_v6 {
            problems.push(Problem::ForwardingV6);
        }
    }
    problems
}

/// The kernel's own for a new device.
const FIRST_MTU: u32 = 1500;
/// The kernel's limit for a device without link headers.
const LARGEST_MTU: u32 = 65_535;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::KernelAddress;
    use crate::packet::Prefix;

    #[test]
    fn an_address_is_led_here_unless_it_is_the_kernels() {
        let [own, near, far] = [0x0a00_0001, 0x0a00_0005, 0xc000_0201].map(Addr::v4);
        let prefix = Prefix::new(own, 24).unwrap();
        let host = HostView {
            addresses: vec![KernelAddress { interface: 2, addr: own, prefix }],
            ..HostView::default()
        };
        assert_eq!(lead(own, &host), None);
        assert_eq!(lead(near, &host), Some(Lead::Address));
        assert_eq!(lead(far, &host), Some(Lead::Route));
    }
}
