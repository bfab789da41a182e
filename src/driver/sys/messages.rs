//! Receiving many datagrams with one system call, each with what the kernel knows about it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use arrayvec::ArrayVec;

use crate::driver::BATCH;

/// A datagram that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Bytes of it that are there.
    pub len: usize,
    /// Whether some of it did not fit and is lost.
    pub is_cut_off: bool,
    /// Who sent it; unspecified if the kernel does not say.
    pub source: IpAddr,
    /// Type of service or traffic class, if the socket was told to tell.
    pub tos: u8,
    /// How long the datagrams are that were joined to this one, the last one perhaps shorter; 0 if
    /// it is one.
    pub joined_bytes: usize,
    /// How many datagrams the socket had lost before it, if the socket was told to tell.
    pub lost: Option<u32>,
}

/// Receives as many datagrams as have arrived and there is memory for, at most [`BATCH`], one into
/// each of `slots`. Never waits.
///
/// **Errors** — none has arrived (`WouldBlock`), or the socket is in trouble.
pub fn receive_messages<'a>(
    fd: BorrowedFd<'_>,
    slots: impl Iterator<Item = &'a mut [u8]>,
) -> io::Result<ArrayVec<Message, BATCH>> {
    let mut buffers: ArrayVec<libc::iovec, BATCH> = slots
        .take(BATCH)
        .map(|slot| libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() })
        .collect();
    let mut names = [Name([0; NAME_BYTES]); BATCH];
    let mut controls = [Control([0; CONTROL_BYTES]); BATCH];
    let mut headers: ArrayVec<libc::mmsghdr, BATCH> = buffers
        .iter_mut()
        .zip(&mut names)
        .zip(&mut controls)
        .map(|((buffer, name), control)| header(buffer, name, control))
        .collect();
    let count = headers.len() as libc::c_uint;
    let flags = libc::MSG_DONTWAIT;
    // SAFETY: each header points to one `iovec`, one name and one control buffer with their true
    // lengths; all of these, and the slots behind the `iovec`s, are borrowed mutably by this
    // function beyond the call.
    let received = unsafe {
        libc::recvmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), count, flags as _, ptr::null_mut())
    };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    Ok(headers.iter().zip(&names).take(received).map(|(header, name)| read(header, name)).collect())
}

fn header(buffer: &mut libc::iovec, name: &mut Name, control: &mut Control) -> libc::mmsghdr {
    // SAFETY: all fields are integers and pointers, for which zero is valid.
    let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
    header.msg_hdr.msg_iov = ptr::from_mut(buffer);
    header.msg_hdr.msg_iovlen = 1;
    header.msg_hdr.msg_name = name.0.as_mut_ptr().cast();
    header.msg_hdr.msg_namelen = NAME_BYTES as libc::socklen_t;
    header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
    header.msg_hdr.msg_controllen = CONTROL_BYTES as _;
    header
}

fn read(header: &libc::mmsghdr, name: &Name) -> Message {
    let mut message = Message {
        len: header.msg_len as usize,
        is_cut_off: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        source: source(name),
        tos: 0,
        joined_bytes: 0,
        lost: None,
    };
    // SAFETY: the kernel has set the control buffer's length to what it wrote there.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(&header.msg_hdr) };
    while !control.is_null() {
        // SAFETY: the macros return headers only that lie within the control buffer, aligned as
        // the buffer and all lengths are.
        let head = unsafe { *control };
        // SAFETY: as above; the data lie behind the header.
        let data = unsafe { libc::CMSG_DATA(control) };
        let len = head.cmsg_len.saturating_sub(CONTROL_HEADER_BYTES);
        let mut value = [0; 4];
        // SAFETY: the kernel wrote `len` bytes there, within the control buffer.
        unsafe { ptr::copy_nonoverlapping(data, value.as_mut_ptr(), len.min(value.len())) };
        let number = u32::from_ne_bytes(value);
        match (head.cmsg_level, head.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_TOS) => message.tos = value[0],
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => message.tos = number as u8,
            (libc::SOL_UDP, libc::UDP_GRO) => message.joined_bytes = number as usize,
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => message.lost = Some(number),
            _ => {}
        }
        // SAFETY: `control` is a header of this message.
        control = unsafe { libc::CMSG_NXTHDR(&header.msg_hdr, control) };
    }
    message
}

/// The address in a `sockaddr_in` or `sockaddr_in6`.
fn source(name: &Name) -> IpAddr {
    let family = libc::c_int::from(u16::from_ne_bytes([name.0[0], name.0[1]]));
    match (family, name.0[4..8].first_chunk(), name.0[8..24].first_chunk()) {
        (libc::AF_INET, Some(octets), _) => IpAddr::V4(Ipv4Addr::from(*octets)),
        (libc::AF_INET6, _, Some(octets)) => IpAddr::V6(Ipv6Addr::from(*octets)),
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    }
}

/// Turns an option of a socket on.
pub fn turn_on(fd: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let len = size_of_val(&on) as libc::socklen_t;
    let value = ptr::from_ref(&on).cast();
    // SAFETY: `value` points to an integer of the stated length, which the kernel only reads.
    let done = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, value, len) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Memory for a `sockaddr_in6`, the longer of the two.
#[derive(Clone, Copy)]
#[repr(align(8))]
struct Name([u8; NAME_BYTES]);

/// Memory for what the kernel says beside the datagram.
#[derive(Clone, Copy)]
#[repr(align(8))]
struct Control([u8; CONTROL_BYTES]);

const NAME_BYTES: usize = size_of::<libc::sockaddr_in6>();
/// Room for all four that are read, of 24 bytes at most each.
const CONTROL_BYTES: usize = 128;
const CONTROL_HEADER_BYTES: usize = size_of::<libc::cmsghdr>();

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn datagrams_are_received_together_with_what_is_known_of_them() {
        for (own, family) in [("127.0.0.1:0", libc::IPPROTO_IP), ("[::1]:0", libc::IPPROTO_IPV6)] {
            let Ok(receiver) = UdpSocket::bind(own) else { continue };
            let sender = UdpSocket::bind(own).unwrap();
            let option =
                if family == libc::IPPROTO_IP { libc::IP_RECVTOS } else { libc::IPV6_RECVTCLASS };
            turn_on(receiver.as_fd(), family, option).unwrap();
            turn_on(receiver.as_fd(), libc::SOL_SOCKET, libc::SO_RXQ_OVFL).unwrap();
            let mut memory = [0; 4 * 8];
            let nothing = receive_messages(receiver.as_fd(), memory.chunks_mut(8)).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
            socket2::SockRef::from(&sender).set_tos_v4(0).ok();
            for payload in [&b"one"[..], b"eighteen", b"far too long"] {
                sender.send_to(payload, receiver.local_addr().unwrap()).unwrap();
            }
            let messages = receive_messages(receiver.as_fd(), memory.chunks_mut(8)).unwrap();
            let seen: Vec<_> = messages.iter().map(|each| (each.len, each.is_cut_off)).collect();
            assert_eq!(seen, [(3, false), (8, false), (8, true)]);
            assert!(messages.iter().all(|each| each.source == sender.local_addr().unwrap().ip()));
            assert_eq!((messages[0].tos, messages[0].joined_bytes), (0, 0));
            assert_eq!((&memory[..3], &memory[8..16]), (&b"one"[..], &b"eighteen"[..]));
        }
    }

    #[test]
    fn the_type_of_service_is_told() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        turn_on(receiver.as_fd(), libc::IPPROTO_IP, libc::IP_RECVTOS).unwrap();
        socket2::SockRef::from(&sender).set_tos_v4(0x2e << 2 | 3).unwrap();
        sender.send_to(b"x", receiver.local_addr().unwrap()).unwrap();
        let mut memory = [0; 8];
        let messages = receive_messages(receiver.as_fd(), memory.chunks_mut(8)).unwrap();
        assert_eq!(messages[0].tos, 0x2e << 2 | 3);
    }
}
