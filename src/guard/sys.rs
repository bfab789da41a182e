//! Socket options that no crate in use knows, one safe function each.

#![allow(unsafe_code)]

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::packet::Family;

/// Requires every TCP segment, whoever sends it, to be signed with a key that nobody has.
///
/// **Source** — tcp(7), linux/tcp.h: `TCP_MD5SIG_EXT` with a prefix of no bits.
pub fn require_signature(fd: BorrowedFd<'_>, family: Family, key: &[u8; 16]) -> io::Result<()> {
    let mut option = [0; SIGNATURE_LEN];
    let family = match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    // struct tcp_md5sig: an address of 128 bytes, flags, prefix length, key length, interface, key.
    option[..2].copy_from_slice(&(family as u16).to_ne_bytes());
    option[128] = FLAG_PREFIX;
    option[130..132].copy_from_slice(&(key.len() as u16).to_ne_bytes());
    option[136..152].copy_from_slice(key);
    set(fd, libc::IPPROTO_TCP, MD5SIG_EXT, &option)
}

/// Requires every packet to have passed no router since its sender gave it the largest time to
/// live there is, which few senders do.
///
/// **Source** — ip(7) `IP_MINTTL`, ipv6(7) `IPV6_MINHOPCOUNT`.
pub fn require_largest_ttl(fd: BorrowedFd<'_>, family: Family) -> io::Result<()> {
    let largest = (c_int::from(u8::MAX)).to_ne_bytes();
    match family {
        Family::V4 => set(fd, libc::IPPROTO_IP, libc::IP_MINTTL, &largest),
        Family::V6 => set(fd, libc::IPPROTO_IPV6, MIN_HOP_COUNT, &largest),
    }
}

fn set(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: &[u8]) -> io::Result<()> {
    let (pointer, len) = (value.as_ptr().cast(), value.len() as libc::socklen_t);
    // SAFETY: pointer and length are those of a slice that outlives the call and is only read.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, pointer, len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

const MD5SIG_EXT: c_int = 32;
const FLAG_PREFIX: u8 = 1;
const SIGNATURE_LEN: usize = 128 + 8 + 80;
const MIN_HOP_COUNT: c_int = 73;
