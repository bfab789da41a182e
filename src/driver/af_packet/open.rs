//! Opening interfaces: one pair of halves per worker.

use std::io;

use nix::net::if_::if_nametoindex;
use socket2::SockRef;

use super::config::{AfPacketConfig, RESERVE_BYTES, SHORT_FRAME_BYTES};
use super::receiver::{AfPacketReceiver, Inlet};
use super::sender::AfPacketSender;
use crate::driver::ReceiverCounters;
use crate::driver::bpf::{JUMP_GREATER, LOAD_LENGTH, RETURN, instruction};
use crate::driver::sys::{Fanout, Geometry, PacketSocket, SlotRing};

/// An interface opened for one worker.
#[derive(Debug)]
pub struct AfPacket {
    /// Receives from it.
    pub receiver: AfPacketReceiver,
    /// Sends on it.
    pub sender: AfPacketSender,
}

/// An interface opened for several workers, among which the kernel distributes its frames.
#[derive(Debug)]
pub struct AfPacketGroup {
    /// A pair of halves for each worker, in order.
    pub workers: Vec<AfPacket>,
    /// Changes the distribution.
    pub steering: Steering,
}

/// A classic BPF program that answers for each frame, modulo the number of workers, which of them
/// is to receive it.
///
/// **Shape** — its loads count from the network header, behind any VLAN tag; the Ethernet header
/// is at `SKF_LL_OFF`.
pub type Program = [libc::sock_filter];

/// Changes how the kernel distributes an interface's frames.
///
/// **Shape** — keeps the first worker's receiving sockets open.
#[derive(Debug)]
pub struct Steering {
    sockets: [PacketSocket; 2],
    interface: String,
}

impl AfPacket {
    /// Opens the interface of this name for one worker.
    ///
    /// **Errors** — name the interface and what failed; nothing stays open.
    pub fn open(interface: &str, config: &AfPacketConfig) -> io::Result<Self> {
        let port = Port::find(interface, config)?;
        let receiver = port.receiver()?;
        for (inlet, length) in [(&receiver.short, Length::Short), (&receiver.long, Length::Long)] {
            port.admit(&inlet.socket, length)?;
            port.bind(&inlet.socket, ALL_PROTOCOLS)?;
        }
        port.finish(receiver)
    }

    /// Opens the interface of this name for several workers, with the program that distributes
    /// its frames among them.
    ///
    /// **Errors** — name the interface and what failed; nothing stays open.
    pub fn open_group(
        interface: &str,
        config: &AfPacketConfig,
        workers: usize,
        program: &Program,
    ) -> io::Result<AfPacketGroup> {
        let port = Port::find(interface, config)?;
        let receivers = port.join_groups(workers)?;
        let first = receivers.first().ok_or_else(|| port.invalid("no workers to open it for"))?;
        let clone = |inlet: &Inlet| {
            inlet.socket.try_clone().map_err(|e| port.failed("duplicate socket", e))
        };
        let sockets = [clone(&first.short)?, clone(&first.long)?];
        let steering = Steering { sockets, interface: interface.to_owned() };
        steering.set(program)?;
        for receiver in &receivers {
            port.admit(&receiver.short.socket, Length::Short)?;
            port.admit(&receiver.long.socket, Length::Long)?;
        }
        let workers =
            receivers.into_iter().map(|half| port.finish(half)).collect::<Result<_, _>>()?;
        Ok(AfPacketGroup { workers, steering })
    }
}

impl Steering {
    /// Replaces the program. Frames are distributed by the old one until it returns.
    pub fn set(&self, program: &Program) -> io::Result<()> {
        for socket in &self.sockets {
            socket
                .set_fanout_program(program)
                .map_err(|error| failed(&self.interface, "set distribution program", &error))?;
        }
        Ok(())
    }
}

/// An interface that was found, and how to open it.
struct Port<'a> {
    interface: &'a str,
    index: u32,
    config: &'a AfPacketConfig,
}

/// Which frames a socket is for.
#[derive(Clone, Copy)]
enum Length {
    Short,
    Long,
}

impl<'a> Port<'a> {
    fn find(interface: &'a str, config: &'a AfPacketConfig) -> io::Result<Self> {
        let index = if_nametoindex(interface)
            .map_err(|e| failed(interface, "find interface", &e.into()))?;
        let port = Self { interface, index, config };
        port.require_ethernet()?;
        Ok(port)
    }

    fn require_ethernet(&self) -> io::Result<()> {
        let socket = self.socket()?;
        self.bind(&socket, 0)?;
        let bound = socket.bound().map_err(|e| self.failed("ask for link type", e))?;
        match bound.link_type {
            libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => Ok(()),
            other => Err(self.invalid(&format!("is of link type {other}, not Ethernet"))),
        }
    }

    fn socket(&self) -> io::Result<PacketSocket> {
        PacketSocket::new().map_err(|e| self.failed("open packet socket", e))
    }

    fn bind(&self, socket: &PacketSocket, protocol: u16) -> io::Result<()> {
        socket.bind(self.index, protocol).map_err(|e| self.failed("bind packet socket", e))
    }

    /// Makes both rings, with sockets that are not bound yet.
    fn receiver(&self) -> io::Result<AfPacketReceiver> {
        let ring = self.config.ring;
        Ok(AfPacketReceiver {
            short: self.inlet(ring.short())?,
            long: self.inlet(ring.long())?,
            index: self.index,
            counters: ReceiverCounters::default(),
        })
    }

    fn inlet(&self, geometry: Option<Geometry>) -> io::Result<Inlet> {
        let geometry = geometry.ok_or_else(|| {
            self.invalid(&format!("cannot have receive rings of this size: {:?}", self.config.ring))
        })?;
        let socket = self.socket()?;
        self.prepare(&socket)?;
        let memory = socket.map_ring(&geometry).map_err(|e| {
            let step = format!("make receive ring of {} bytes", geometry.bytes());
            self.failed(&step, e)
        })?;
        Ok(Inlet { ring: SlotRing::new(memory, geometry), socket })
    }

    fn prepare(&self, socket: &PacketSocket) -> io::Result<()> {
        socket.use_version_2().map_err(|e| self.failed("choose ring version 2", e))?;
        socket.use_vnet_header().map_err(|e| self.failed("receive offload metadata", e))?;
        socket.reserve(RESERVE_BYTES).map_err(|e| self.failed("reserve headroom", e))?;
        socket.ignore_outgoing().map_err(|e| self.failed("ignore outgoing frames", e))
    }

    /// Lets a socket receive the frames that its ring is for.
    fn admit(&self, socket: &PacketSocket, length: Length) -> io::Result<()> {
        let (short, long) = match length {
            Length::Short => (WHOLE, NOTHING),
            Length::Long => (NOTHING, WHOLE),
        };
        let filter = [
            instruction(LOAD_LENGTH, 0, 0, 0),
            instruction(JUMP_GREATER, SHORT_FRAME_BYTES as u32, 0, 1),
            instruction(RETURN, long, 0, 0),
            instruction(RETURN, short, 0, 0),
        ];
        SockRef::from(socket)
            .attach_filter(&filter)
            .map_err(|e| self.failed("set socket filter", e))
    }

    fn join_groups(&self, workers: usize) -> io::Result<Vec<AfPacketReceiver>> {
        let mut groups = [Fanout::New; 2];
        let mut members = Vec::with_capacity(workers);
        // In the workers' order: the program's answer is the position in order of joining, and
        // the kernel restores the order of creation when a link comes up again.
        for _ in 0..workers {
            let member = self.receiver()?;
            for (inlet, group) in [&member.short, &member.long].into_iter().zip(&mut groups) {
                let joined = self.join_group(&inlet.socket, *group)?;
                *group = Fanout::Join(joined);
            }
            members.push(member);
        }
        Ok(members)
    }

    /// Makes a socket a member of a group that does not receive yet: until the group is complete,
    /// it would receive what is another's.
    fn join_group(&self, socket: &PacketSocket, group: Fanout) -> io::Result<u16> {
        SockRef::from(socket)
            .attach_filter(&[instruction(RETURN, NOTHING, 0, 0)])
            .map_err(|e| self.failed("close socket filter", e))?;
        self.bind(socket, ALL_PROTOCOLS)?;
        socket.join_fanout(group).map_err(|e| self.failed("join fanout group", e))
    }

    /// Adds what is the same for one worker and several.
    fn finish(&self, receiver: AfPacketReceiver) -> io::Result<AfPacket> {
        let socket = &receiver.short.socket;
        if let Some(mac) = self.config.virtual_mac {
            socket
                .add_unicast(self.index, mac)
                .or_else(|_| socket.make_promiscuous(self.index))
                .map_err(|e| self.failed("receive for the virtual MAC", e))?;
        }
        let sender = AfPacketSender::new(self.sending_socket()?);
        Ok(AfPacket { receiver, sender })
    }

    /// A socket of protocol 0: it never receives.
    ///
    /// It does not bypass the queueing discipline (`PACKET_QDISC_BYPASS`): that path drops every
    /// super-frame that the device cannot cut itself, and on a veth link, which has no queue, it
    /// saves next to nothing (2.40 instead of 2.46 µs for each 60-byte frame forwarded).
    fn sending_socket(&self) -> io::Result<PacketSocket> {
        let socket = self.socket()?;
        socket.use_vnet_header().map_err(|e| self.failed("send offload metadata", e))?;
        // As much as the system lets an ordinary user have; less is no reason to fail.
        let _ = SockRef::from(&socket).set_send_buffer_size(SEND_BUFFER_BYTES);
        self.bind(&socket, 0)?;
        Ok(socket)
    }

    fn failed(&self, operation: &str, error: io::Error) -> io::Error {
        failed(self.interface, operation, &error)
    }

    fn invalid(&self, problem: &str) -> io::Error {
        let problem = format!("interface {}: {problem}", self.interface);
        io::Error::new(io::ErrorKind::InvalidInput, problem)
    }
}

pub(super) fn failed(interface: &str, operation: &str, error: &io::Error) -> io::Error {
    let hint = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => " (needs CAP_NET_RAW in this network namespace)",
        Some(libc::ENOMEM) => " (choose a smaller ring)",
        _ => "",
    };
    io::Error::new(error.kind(), format!("interface {interface}: {operation}: {error}{hint}"))
}

const ALL_PROTOCOLS: u16 = libc::ETH_P_ALL as u16;

/// How much of a frame is received, by what a program returns.
const NOTHING: u32 = 0;
const WHOLE: u32 = u32::MAX;

/// Sixty super-frames on their way through a device.
const SEND_BUFFER_BYTES: usize = 4 << 20;
