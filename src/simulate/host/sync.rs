//! The synchronisation daemons of the director's host.

use super::{DirectorHost, Emission};
use crate::control::{RunningSync, SyncRole};
use crate::packet::PacketBuf;
use crate::simulate::packet::{Packet, Payload, Proto, Sum};
use crate::simulate::topology::{DIRECTOR, Host, Link, MULTICAST};

/// Where messages come from; transcripts do not show it.
const SOURCE_PORT: u16 = 40_000;

impl DirectorHost {
    /// Takes note of the daemons that run.
    pub fn set_sync(&mut self, daemons: Vec<RunningSync>) {
        self.sync = daemons;
    }

    /// Multicasts what the director has to tell others.
    pub(super) fn send_sync(&mut self) {
        while let Some(message) = self.director.poll_sync() {
            let mut daemons = self.sync.iter();
            let master = daemons.find(|running| running.daemon.role == SyncRole::Master);
            let link = master.and_then(|running| Link::from_name(&running.daemon.interface));
            let Some((RunningSync { daemon, .. }, link)) = master.zip(link) else { continue };
            let group = daemon.group;
            let Some(source) = link.address(DIRECTOR, group.is_ipv6()) else { continue };
            let mut packet = Packet::new(source, group, Proto::Udp);
            let port = daemon.port.wrapping_add(message.port_offset.into());
            packet.ports = Some((SOURCE_PORT, port));
            packet.fields.ttl = daemon.ttl;
            packet.fields.id = self.next_id;
            packet.fields.payload = Payload::Data(message.bytes.clone());
            self.director.recycle_sync(message.bytes);
            self.multicast(link, packet.build());
        }
    }

    /// Sends a packet to whoever listens on a link, in fragments if it wants it.
    fn multicast(&mut self, link: Link, mut bytes: Vec<u8>) {
        let host = Host { link, number: MULTICAST };
        let end = bytes.len();
        let mut packet = PacketBuf::new(&mut bytes, 0, end);
        let (mtu, emitted) = (self.routes.link_mtu(link), &mut self.emitted);
        // What cannot be cut is lost.
        let _ = self.cutter.cut(&mut packet, mtu, &[], |fragments| {
            let sent = fragments.packets().map(|piece| piece.bytes().to_vec());
            emitted.extend(sent.map(|bytes| Emission { host, bytes }));
        });
    }

    /// Hears a message of another director, if the packet is one.
    pub(super) fn hear_sync(&mut self, packet: &Packet, link: Option<Link>) {
        let mut daemons = self.sync.iter();
        let backup = daemons.find(|running| running.daemon.role == SyncRole::Backup);
        let Some(RunningSync { daemon, ports, .. }) = backup else { return };
        let port = packet.ports.map(|(_, port)| port);
        let offset = port.and_then(|port| port.checked_sub(daemon.port));
        let is_for_it = packet.proto == Proto::Udp
            && packet.fields.frag.is_none()
            && packet.dst == daemon.group
            && offset.is_some_and(|offset| offset < (*ports).into())
            && link.is_some_and(|link| link.name() == daemon.interface);
        let message = packet.fields.payload.bytes();
        let is_whole = packet.fields.sum != Sum::Bad && message.len() <= daemon.max_len.into();
        if is_for_it && is_whole {
            // What is refused is counted by nobody here.
            let (routes, now) = (&self.routes, self.now);
            let _ = self.director.handle_sync(&message, daemon.id, |_| true, routes, now);
        }
    }
}
