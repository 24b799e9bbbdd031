//! Guest memory: memfd regions at guest addresses, mapped here and handed to the daemon. Knows nothing of rings or FUSE.
//!
//! All access goes through `vm-memory`, which does it volatile: the daemon may write the same bytes at any time.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap, VolatileSlice};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::error::{Error, Result};

/// Where "user space" of the pretended VMM begins; never equal to a guest address, so that mixing the two is found.
pub const USER_BASE: u64 = 0x7000_0000_0000;

/// The page size that payloads are aligned to.
pub const PAGE: u64 = 4096;

/// One region of guest memory, backed by a memfd of its own.
#[derive(Clone, Debug)]
pub struct Region {
    guest: u64,
    size: u64,
    file: Arc<File>,
}

impl Region {
    /// First guest address.
    #[must_use]
    pub fn guest(&self) -> u64 {
        self.guest
    }

    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The address in the pretended VMM, which ring addresses are given in.
    #[must_use]
    pub fn user(&self) -> u64 {
        USER_BASE + self.guest
    }

    /// The memfd.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A set of regions. Cloning shares the memory; [`Memory::with`] and [`Memory::without`] make another set over it.
#[derive(Clone)]
pub struct Memory {
    map: GuestMemoryMmap<()>,
    regions: Vec<Region>,
}

impl Memory {
    /// Memory of the given (guest address, size) ranges, in ascending order; gaps are allowed.
    pub fn new(layout: &[(u64, u64)]) -> Result<Self> {
        let empty = Self { map: GuestMemoryMmap::new(), regions: Vec::new() };
        layout.iter().try_fold(empty, |memory, &(guest, size)| memory.with(guest, size))
    }

    /// This memory and one more region of zeros.
    pub fn with(&self, guest: u64, size: u64) -> Result<Self> {
        let fd = memfd_create("guest", MemfdFlags::CLOEXEC).map_err(Error::io("memfd_create"))?;
        ftruncate(&fd, size).map_err(Error::io("size a memfd"))?;
        let file = Arc::new(File::from(fd));
        let mapping = GuestRegionMmap::from_range(
            GuestAddress(guest),
            usize::try_from(size).map_err(|e| Error::Layout(e.to_string()))?,
            Some(FileOffset::from_arc(file.clone(), 0)),
        )
        .map_err(|e| Error::Layout(e.to_string()))?;
        let map = self.map.insert_region(Arc::new(mapping)).map_err(|e| Error::Layout(e.to_string()))?;
        let mut regions = self.regions.clone();
        regions.push(Region { guest, size, file });
        Ok(Self { map, regions })
    }

    /// This memory but for the region that begins at `guest`.
    pub fn without(&self, guest: u64) -> Result<Self> {
        let region = self.region(guest)?;
        let (map, _) =
            self.map.remove_region(GuestAddress(guest), region.size).map_err(|e| Error::Layout(e.to_string()))?;
        let regions = self.regions.iter().filter(|r| r.guest != guest).cloned().collect();
        Ok(Self { map, regions })
    }

    /// The regions, in the order they were added.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// The region that begins at `guest`.
    pub fn region(&self, guest: u64) -> Result<&Region> {
        let found = self.regions.iter().find(|r| r.guest == guest);
        found.ok_or_else(|| Error::Layout(format!("no region begins at {guest:#x}")))
    }

    /// The map itself, for a device in this process.
    #[must_use]
    pub fn map(&self) -> &GuestMemoryMmap<()> {
        &self.map
    }

    /// Copies bytes in.
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        Ok(self.map.write_slice(bytes, GuestAddress(at))?)
    }

    /// Copies bytes out.
    pub fn read(&self, at: u64, bytes: &mut [u8]) -> Result<()> {
        Ok(self.map.read_slice(bytes, GuestAddress(at))?)
    }

    /// Copies a struct in.
    pub fn put<T: IntoBytes + Immutable>(&self, at: u64, value: &T) -> Result<()> {
        self.write(at, value.as_bytes())
    }

    /// Copies a struct out.
    pub fn get<T: FromBytes + IntoBytes>(&self, at: u64) -> Result<T> {
        let mut value = T::new_zeroed();
        self.read(at, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Sets `len` bytes to `value`.
    pub fn fill(&self, at: u64, len: usize, value: u8) -> Result<()> {
        self.write(at, &vec![value; len])
    }

    /// Stores an index that the other side reads: release order.
    pub fn store(&self, at: u64, value: u16) -> Result<()> {
        Ok(self.map.store(value, GuestAddress(at), Ordering::Release)?)
    }

    /// Loads an index that the other side writes: acquire order.
    pub fn load(&self, at: u64) -> Result<u16> {
        Ok(self.map.load(GuestAddress(at), Ordering::Acquire)?)
    }

    /// A range as one volatile slice, to read a descriptor straight into it or write one straight from it.
    pub fn slice(&self, at: u64, len: usize) -> Result<VolatileSlice<'_>> {
        Ok(GuestMemoryBackend::get_slice(&self.map, GuestAddress(at), len)?)
    }
}

/// Hands out ranges of guest memory, and takes none back.
#[derive(Clone, Debug)]
pub struct Arena {
    next: u64,
    end: u64,
}

impl Arena {
    /// An arena over `start..start + len`.
    #[must_use]
    pub fn new(start: u64, len: u64) -> Self {
        Self { next: start, end: start + len }
    }

    /// The next free range of `len` bytes at a multiple of `align` (a power of two).
    pub fn take(&mut self, len: u64, align: u64) -> Result<u64> {
        let at = self.next.next_multiple_of(align);
        match at.checked_add(len) {
            Some(end) if end <= self.end => {
                self.next = end;
                Ok(at)
            }
            _ => Err(Error::Layout(format!("{len} bytes do not fit, {} are left", self.end - self.next))),
        }
    }
}
