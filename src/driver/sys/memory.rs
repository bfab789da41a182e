//! Memory that a ring lives in: shared with the kernel, or ordinary.

#[cfg(test)]
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};

/// A zeroed piece of memory that is released when dropped.
///
/// **Shape** — aligned to a page at least; its address never changes.
#[derive(Debug)]
pub struct Memory {
    base: NonNull<u8>,
    len: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Mapped,
    #[cfg(test)]
    Ordinary(Layout),
}

impl Memory {
    /// Maps the first `len` bytes of what `fd` shares, to read and write.
    pub fn map(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe {
            libc::mmap(ptr::null_mut(), len, access, libc::MAP_SHARED, fd.as_raw_fd(), 0)
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).expect("mmap does not return null on success");
        Ok(Self { base, len, kind: Kind::Mapped })
    }

    /// Takes ordinary memory, for rings without a socket.
    ///
    /// **Panics** if `len` is 0 or cannot be had.
    #[cfg(test)]
    pub fn ordinary(len: usize) -> Self {
        assert!(len > 0, "a ring needs memory");
        let layout =
            Layout::from_size_align(len, PAGE).expect("a ring's size fits the address space");
        // SAFETY: the layout's size is not zero, which was just checked.
        let base = unsafe { alloc_zeroed(layout) };
        let base = NonNull::new(base).unwrap_or_else(|| handle_alloc_error(layout));
        Self { base, len, kind: Kind::Ordinary(layout) }
    }

    /// Where it begins.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> usize {
        self.len
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        match self.kind {
            Kind::Mapped => {
                // SAFETY: this mapping was made by `map` with this length; whoever borrows from it
                // borrows from its owner, so nothing points into it any more.
                unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
            }
            #[cfg(test)]
            Kind::Ordinary(layout) => {
                // SAFETY: `ordinary` allocated it with this very layout, and nothing borrows it.
                unsafe { dealloc(self.base.as_ptr(), layout) };
            }
        }
    }
}

// SAFETY: the memory is owned by this value alone; the pointer is as good in any thread.
unsafe impl Send for Memory {}

#[cfg(test)]
const PAGE: usize = 4096;
