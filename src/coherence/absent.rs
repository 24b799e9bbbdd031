//! Names that a guest was told are missing, and may believe so: when one is made, it has to hear of it.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use hashbrown::HashTable;

/// More than this are not remembered, and so not granted.
const NAMES_MAX: usize = 1 << 16;
const SHARDS: usize = 16;

/// Hashes of (directory, name).
#[derive(Debug, Default)]
pub struct Absences {
    count: AtomicUsize,
    shards: [Mutex<HashTable<u64>>; SHARDS],
}

impl Absences {
    /// The guest is about to be told that this name is missing. Says whether it may keep that.
    pub fn grant(&self, name: u64) -> bool {
        let mut shard = self.shard(name);
        if shard.find(name, |known| *known == name).is_some() {
            return true;
        }
        if self.count.load(Ordering::Relaxed) >= NAMES_MAX {
            return false;
        }
        shard.insert_unique(name, name, |known| *known);
        self.count.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Whether the guest may believe this name to be missing. It is about to learn better.
    pub fn take(&self, name: u64) -> bool {
        if self.is_empty() {
            return false;
        }
        let mut shard = self.shard(name);
        let Ok(entry) = shard.find_entry(name, |known| *known == name) else { return false };
        entry.remove();
        self.count.fetch_sub(1, Ordering::Relaxed);
        true
    }

    /// Whether the guest believes of no name that it is missing.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// The guest believes nothing any more.
    pub fn clear(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            self.count.fetch_sub(shard.len(), Ordering::Relaxed);
            shard.clear();
        }
    }

    #[allow(clippy::indexing_slicing, reason = "the index is reduced to the number of shards, which is fixed")]
    fn shard(&self, name: u64) -> MutexGuard<'_, HashTable<u64>> {
        // Other bits than those by which the table finds a place.
        self.shards[(name >> 40) as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_granted_is_taken_once_and_there_is_an_end_to_granting() {
        let absences = Absences::default();
        assert!(absences.grant(7) && absences.grant(7));
        assert_eq!([absences.take(7), absences.take(7)], [true, false]);
        let granted = (0..200_000_u64).filter(|n| absences.grant(n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).count();
        assert_eq!(granted, NAMES_MAX);
        absences.clear();
        assert!(absences.is_empty() && absences.grant(1));
    }
}
