//! A raw AF_PACKET socket and its options.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use super::memory::Memory;
use super::ring::Geometry;

/// A socket of family AF_PACKET and type SOCK_RAW; it neither blocks nor survives exec.
///
/// **Source** — packet(7), linux/if_packet.h.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
}

/// What a receive ring has counted since it was asked last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Frames that came, dropped ones included.
    pub packets: u32,
    /// Frames dropped because the ring was full.
    pub drops: u32,
}

/// What a socket is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The interface's index; `None` once it has vanished.
    pub index: Option<u32>,
    /// `ARPHRD_ETHER` or another of that kind.
    pub link_type: u16,
}

/// Which group of sockets to join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fanout {
    /// A new one, whose number the kernel chooses.
    New,
    /// The one with this number.
    Join(u16),
}

impl PacketSocket {
    /// Makes a socket that receives nothing until it is bound to a protocol.
    pub fn new() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: takes integers only.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and nobody else owns it.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Makes another descriptor for the same socket.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()? })
    }

    /// Binds to the interface with this index. Protocol 0 sends only; `ETH_P_ALL` receives all.
    pub fn bind(&self, index: u32, protocol: u16) -> io::Result<()> {
        // SAFETY: all fields are integers, for which zero is valid.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol.to_be();
        address.sll_ifindex = index as c_int;
        let len = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the address is a `sockaddr_ll` of the given length and is only read.
        check(unsafe { libc::bind(self.fd.as_raw_fd(), ptr::from_ref(&address).cast(), len) })
    }

    /// Asks what it is bound to now.
    pub fn bound(&self) -> io::Result<Bound> {
        // SAFETY: all fields are integers, for which zero is valid.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        let mut len = size_of_val(&address) as libc::socklen_t;
        let target = ptr::from_mut(&mut address).cast();
        // SAFETY: target and length describe the writable address, all of whose fields are
        // integers.
        check(unsafe { libc::getsockname(self.fd.as_raw_fd(), target, &mut len) })?;
        let index = u32::try_from(address.sll_ifindex).ok();
        Ok(Bound { index, link_type: address.sll_hatype })
    }

    /// Chooses the second ring version. Before [`map_ring`](Self::map_ring).
    pub fn use_version_2(&self) -> io::Result<()> {
        self.set(libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V2 as c_int))
    }

    /// Puts a `virtio_net_hdr` in front of every frame, in and out. Before any ring.
    pub fn use_vnet_header(&self) -> io::Result<()> {
        self.set(libc::PACKET_VNET_HDR, &(1 as c_int))
    }

    /// Leaves this many bytes free in front of every frame in the ring. Before the ring.
    pub fn reserve(&self, bytes: u32) -> io::Result<()> {
        self.set(libc::PACKET_RESERVE, &bytes)
    }

    /// Stops the host's own outgoing frames from being received.
    pub fn ignore_outgoing(&self) -> io::Result<()> {
        self.set(libc::PACKET_IGNORE_OUTGOING, &(1 as c_int))
    }

    /// Makes a receive ring and maps its memory.
    pub fn map_ring(&self, geometry: &Geometry) -> io::Result<Memory> {
        let (Ok(block), Ok(blocks), Ok(slot), Ok(slots)) = (
            geometry.block_bytes.try_into(),
            geometry.blocks.try_into(),
            geometry.slot_bytes.try_into(),
            geometry.slots().try_into(),
        ) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        let request = libc::tpacket_req {
            tp_block_size: block,
            tp_block_nr: blocks,
            tp_frame_size: slot,
            tp_frame_nr: slots,
        };
        self.set(libc::PACKET_RX_RING, &request)?;
        Memory::map(self.fd.as_fd(), geometry.bytes())
    }

    /// Asks the device to receive unicast frames for `mac` as well.
    pub fn add_unicast(&self, index: u32, mac: [u8; 6]) -> io::Result<()> {
        let mut address = [0; 8];
        address[..6].copy_from_slice(&mac);
        self.add_membership(index, libc::PACKET_MR_UNICAST, 6, address)
    }

    /// Asks the device to receive every frame on its link.
    pub fn make_promiscuous(&self, index: u32) -> io::Result<()> {
        self.add_membership(index, libc::PACKET_MR_PROMISC, 0, [0; 8])
    }

    /// Asks the device to receive frames for the group `mac` as well.
    pub fn join_group(&self, index: u32, mac: [u8; 6]) -> io::Result<()> {
        self.set(libc::PACKET_ADD_MEMBERSHIP, &group_request(index, mac))
    }

    /// Takes that back.
    pub fn leave_group(&self, index: u32, mac: [u8; 6]) -> io::Result<()> {
        self.set(libc::PACKET_DROP_MEMBERSHIP, &group_request(index, mac))
    }

    /// Asks the device to receive frames for all groups.
    pub fn join_all_groups(&self, index: u32) -> io::Result<()> {
        self.add_membership(index, libc::PACKET_MR_ALLMULTI, 0, [0; 8])
    }

    fn add_membership(&self, index: u32, kind: c_int, len: u16, mac: [u8; 8]) -> io::Result<()> {
        self.set(libc::PACKET_ADD_MEMBERSHIP, &membership(index, kind, len, mac))
    }

    /// Joins a group of sockets among which a program distributes what an interface receives, and
    /// returns the group's number. After binding.
    pub fn join_fanout(&self, group: Fanout) -> io::Result<u16> {
        let kind = libc::PACKET_FANOUT_CBPF | libc::PACKET_FANOUT_FLAG_IGNORE_OUTGOING;
        let (kind, id) = match group {
            Fanout::New => (kind | libc::PACKET_FANOUT_FLAG_UNIQUEID, 0),
            Fanout::Join(id) => (kind, id),
        };
        self.set(libc::PACKET_FANOUT, &(u32::from(id) | kind << 16))?;
        let joined: u32 = self.get(libc::PACKET_FANOUT)?;
        Ok(joined as u16)
    }

    /// Sets the program of the group this socket is in.
    pub fn set_fanout_program(&self, program: &[libc::sock_filter]) -> io::Result<()> {
        let Ok(len) = u16::try_from(program.len()) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
        self.set(libc::PACKET_FANOUT_DATA, &program)
    }

    /// Reads what the ring has counted and sets it back to zero.
    pub fn take_statistics(&self) -> io::Result<Statistics> {
        let [packets, drops] = self.get::<[u32; 2]>(libc::PACKET_STATISTICS)?;
        Ok(Statistics { packets, drops })
    }

    fn set<T: Plain>(&self, name: c_int, value: &T) -> io::Result<()> {
        let len = size_of::<T>() as libc::socklen_t;
        let value = ptr::from_ref(value).cast();
        // SAFETY: value and length describe one readable `T`, and the kernel only reads it; what
        // a `T` points to (a program) is borrowed by the caller.
        check(unsafe { libc::setsockopt(self.fd.as_raw_fd(), libc::SOL_PACKET, name, value, len) })
    }

    fn get<T: Plain + Default>(&self, name: c_int) -> io::Result<T> {
        let mut value = T::default();
        let mut len = size_of::<T>() as libc::socklen_t;
        let target = ptr::from_mut(&mut value).cast();
        // SAFETY: target and length describe one writable `T` made of integers, of which any
        // number of bytes may be overwritten.
        check(unsafe {
            libc::getsockopt(self.fd.as_raw_fd(), libc::SOL_PACKET, name, target, &mut len)
        })?;
        Ok(value)
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn group_request(index: u32, mac: [u8; 6]) -> libc::packet_mreq {
    let mut address = [0; 8];
    address[..6].copy_from_slice(&mac);
    membership(index, libc::PACKET_MR_MULTICAST, 6, address)
}

fn membership(index: u32, kind: c_int, len: u16, mac: [u8; 8]) -> libc::packet_mreq {
    libc::packet_mreq {
        mr_ifindex: index as c_int,
        mr_type: kind as u16,
        mr_alen: len,
        mr_address: mac,
    }
}

/// Option values that the kernel reads or writes as they lie in memory.
trait Plain {}

impl Plain for c_int {}
impl Plain for u32 {}
impl Plain for [u32; 2] {}
impl Plain for libc::tpacket_req {}
impl Plain for libc::packet_mreq {}
impl Plain for libc::sock_fprog {}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
