//! The log of pages that the device wrote to: what a live migration copies again.

use std::{
    fs::File,
    sync::atomic::{AtomicU8, Ordering},
};

use vm_memory::{GuestAddress, MmapRegion, VolatileMemory};

use super::mapping::map;

/// The log counts pages of this size, whatever the guest's are.
const PAGE: u64 = 4096;

/// A bit for each page of the guest, in memory that the front end reads at the same time.
#[derive(Debug)]
pub(super) struct DirtyLog(MmapRegion);

impl DirtyLog {
    pub(super) fn new(file: File, offset: u64, size: u64) -> std::io::Result<Self> {
        map(file, offset, size).map(Self)
    }

    /// Notes that `len` bytes at `address` were written. Pages beyond the log are none the front end asked about.
    pub(super) fn mark(&self, address: GuestAddress, len: usize) {
        if len == 0 {
            return;
        }
        let first = address.0 / PAGE;
        let last = address.0.saturating_add(len as u64 - 1) / PAGE;
        for page in first..=last {
            let Ok(byte) = usize::try_from(page / 8) else { return };
            let Ok(bits) = self.0.get_atomic_ref::<AtomicU8>(byte) else { return };
            bits.fetch_or(1 << (page % 8), Ordering::Release);
        }
    }
}
