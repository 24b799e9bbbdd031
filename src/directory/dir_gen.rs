//! The generation of a directory: a number that moves whenever its entries may have changed.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::host::HostStamp;

/// Where every generation comes from, so that no two directories and no two lives of one ever share a value.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Marks the generation of a directory that was removed; the counter never gets this far.
const DEAD: u64 = 1 << 63;

/// A number that nobody had before. What the caller saw before is seen by whoever draws a higher one.
pub(super) fn draw() -> u64 {
    NEXT.fetch_add(1, Ordering::AcqRel)
}

/// What a directory's generation was at one time. Two that are equal are of one directory, unchanged between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Generation(u64);

impl Generation {
    /// The number, for what is compared as a whole.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

/// Moves whenever the entries of one directory may have changed.
///
/// Bump **after** every system call that may have changed the directory and **before** its reply. Take the generation
/// **before** the first system call that reads it, and stamp what was read with that value.
#[derive(Debug)]
pub struct DirGen {
    value: AtomicU64,
    /// The stamp last seen on the host, hashed to one word: an inode pays 8 bytes for it, not 32. 0: none yet.
    seen: AtomicU64,
}

impl DirGen {
    /// A generation of its own, for a new inode object.
    #[must_use]
    pub fn new() -> Self {
        Self { value: AtomicU64::new(draw()), seen: AtomicU64::new(0) }
    }

    /// The directory may have changed.
    pub fn bump(&self) {
        // The higher of two racing bumps stays; both are later than what any reader took before them.
        self.value.fetch_max(draw(), Ordering::AcqRel);
    }

    /// The generation now: to be taken before the first system call whose result it shall stamp.
    #[must_use]
    pub fn read(&self) -> Generation {
        Generation(self.value.load(Ordering::Acquire))
    }

    /// The directory was removed: from now on reading it is `ENOENT`.
    pub fn mark_dead(&self) {
        self.value.fetch_max(draw() | DEAD, Ordering::AcqRel);
    }

    /// Whether the directory was removed.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.value.load(Ordering::Acquire) & DEAD != 0
    }

    /// The host's stamp was just read: bumps if it is not the one seen before. The first one seen bumps too, since
    /// nothing tells what came before it; on a new object, whose generation nobody took yet, that costs nothing. Says
    /// whether it did.
    pub fn observe(&self, stamp: HostStamp) -> bool {
        let mut hasher = DefaultHasher::new();
        stamp.hash(&mut hasher);
        let seen = hasher.finish() | 1;
        // Looked at first: the usual answer is "as before", and then the cache line stays shared.
        let moved = self.seen.load(Ordering::Acquire) != seen && self.seen.swap(seen, Ordering::AcqRel) != seen;
        if moved {
            self.bump();
        }
        moved
    }
}

impl Default for DirGen {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(nanos: u32) -> HostStamp {
        HostStamp { mtime: (1, nanos), ctime: (1, nanos) }
    }

    #[test]
    fn a_recreated_object_never_repeats_a_generation() {
        let mut seen = std::collections::HashSet::new();
        for _ in 0..100 {
            let directory = DirGen::new();
            for _ in 0..10 {
                assert!(seen.insert(directory.read()));
                directory.bump();
            }
            directory.mark_dead();
            assert!(seen.insert(directory.read()));
        }
    }

    #[test]
    fn racing_bumps_all_show() {
        let directory = DirGen::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let before = directory.read();
                        directory.bump();
                        assert_ne!(directory.read(), before);
                    }
                });
            }
        });
    }

    #[test]
    fn a_dead_directory_stays_dead() {
        let directory = DirGen::new();
        assert!(!directory.is_dead());
        directory.mark_dead();
        directory.bump();
        directory.observe(stamp(1));
        assert!(directory.is_dead());
    }

    #[test]
    fn only_a_stamp_that_moved_bumps() {
        let directory = DirGen::new();
        for (nanos, moves) in [(1, true), (1, false), (2, true), (2, false), (1, true)] {
            let before = directory.read();
            assert_eq!(directory.observe(stamp(nanos)), moves, "stamp {nanos}");
            assert_eq!(directory.read() != before, moves, "stamp {nanos}");
        }
    }
}
