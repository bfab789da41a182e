//! The ethtool ioctl, for switching offloads.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::super::net::Offload;

/// An `ethtool_value` of the kernel: a command and its argument.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// Switches one offload of `interface` on or off; `socket` says in which namespace.
pub(crate) fn set_offload(
    socket: BorrowedFd<'_>,
    interface: &str,
    offload: Offload,
    on: bool,
) -> io::Result<()> {
    let mut value = EthtoolValue { command: set_command(offload), data: u32::from(on) };
    let mut request = libc::ifreq {
        ifr_name: interface_name(interface)?,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: (&raw mut value).cast() },
    };
    // SAFETY: SIOCETHTOOL reads and writes the ifreq and the ethtool_value that it points to; both
    // are on this stack frame, laid out as the kernel's, and the set commands write 8 bytes at most.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The set command of `linux/ethtool.h`.
fn set_command(offload: Offload) -> u32 {
    match offload {
        Offload::ReceiveChecksum => 0x15,
        Offload::TransmitChecksum => 0x17,
        Offload::ScatterGather => 0x19,
        Offload::TcpSegmentation => 0x1f,
        Offload::GenericSegmentation => 0x24,
        Offload::GenericReceive => 0x2c,
    }
}

/// The name as the kernel wants it: zero-terminated in 16 bytes.
fn interface_name(interface: &str) -> io::Result<[libc::c_char; libc::IFNAMSIZ]> {
    let mut name = [0; libc::IFNAMSIZ];
    if interface.len() >= name.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "interface name is too long"));
    }
    for (to, from) in name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(name)
}
