//! How much memory all snapshots of the process may take: a guest that opens a large directory again after each change
//! of it would otherwise keep as many copies as it has handles.

use std::sync::atomic::{AtomicUsize, Ordering};

use fuse_abi::Errno;

/// What is taken from the budget at once.
const STEP: usize = 64 * 1024;

/// The budget of the process, 1 GiB unless told otherwise.
pub(in crate::directory) static BUDGET: Budget = Budget::new(1 << 30);

/// Sets how many bytes all snapshots of this process may take together. Beyond it a rewind is `ENFILE`, until handles
/// are released or rewound.
pub fn limit_snapshot_memory(bytes: usize) {
    BUDGET.limit.store(bytes, Ordering::Relaxed);
}

/// A number of bytes to share.
#[derive(Debug)]
pub(in crate::directory) struct Budget {
    limit: AtomicUsize,
    used: AtomicUsize,
}

impl Budget {
    pub(in crate::directory) const fn new(limit: usize) -> Self {
        Self { limit: AtomicUsize::new(limit), used: AtomicUsize::new(0) }
    }

    #[cfg(test)]
    pub(in crate::directory) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: &'static Budget,
    bytes: usize,
}

impl Share {
    pub(super) const fn new(budget: &'static Budget) -> Self {
        Self { budget, bytes: 0 }
    }

    /// Makes sure that the share covers `bytes`.
    pub(super) fn grow_to(&mut self, bytes: usize) -> Result<(), Errno> {
        if bytes <= self.bytes {
            return Ok(());
        }
        let more = (bytes - self.bytes).next_multiple_of(STEP);
        let limit = self.budget.limit.load(Ordering::Relaxed);
        self.budget
            .used
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(more).filter(|&total| total <= limit)
            })
            .map_err(|_| Errno::ENFILE)?;
        self.bytes += more;
        Ok(())
    }

    /// Gives back what is over `bytes`.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        let over = self.bytes.saturating_sub(bytes);
        self.budget.used.fetch_sub(over, Ordering::Relaxed);
        self.bytes -= over;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}
