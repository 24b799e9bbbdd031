//! Tables that many threads read and write without waiting for each other.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashbrown::HashTable;

/// A table this much larger than what is in it gives room back.
const ROOMY: usize = 8;
/// But not one as small as this.
const SMALL: usize = 64;

const SHARDS: usize = 64;

/// Each shard on a cache line of its own: neighbours do not slow each other down.
#[derive(Debug)]
#[repr(align(64))]
struct Shard<T>(RwLock<HashTable<T>>);

/// A hash table cut into shards, each with its own lock. It stores what it is given and hashes nothing itself.
#[derive(Debug)]
pub(super) struct Sharded<T> {
    shards: Box<[Shard<T>]>,
}

impl<T> Sharded<T> {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard(RwLock::new(HashTable::new()))).collect() }
    }

    pub(super) fn read(&self, hash: u64) -> RwLockReadGuard<'_, HashTable<T>> {
        self.shard(hash).read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self, hash: u64) -> RwLockWriteGuard<'_, HashTable<T>> {
        self.shard(hash).write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Empties every shard, and says how much was in them. It is dropped after its lock is given back.
    pub(super) fn clear(&self) -> usize {
        let empty = |shard: &Shard<T>| std::mem::take(&mut *shard.0.write().unwrap_or_else(PoisonError::into_inner));
        self.shards.iter().map(|shard| empty(shard).len()).sum()
    }

    /// Hands over what is in each shard, with no lock held.
    pub(super) fn each_shard(&self, mut each: impl FnMut(Vec<T>))
    where
        T: Clone,
    {
        for shard in &self.shards {
            let entries = shard.0.read().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
            each(entries);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.0.read().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    // The table inside a shard uses the lowest and the highest bits of a hash; the middle ones choose the shard.
    #[allow(clippy::indexing_slicing, reason = "the index is reduced to the number of shards, which is fixed")]
    fn shard(&self, hash: u64) -> &RwLock<HashTable<T>> {
        &self.shards[(hash >> 40) as usize % SHARDS].0
    }
}

/// Takes an entry out of a shard, which gives back room that has become far too much.
pub(super) fn take<T>(
    shard: &mut HashTable<T>,
    hash: u64,
    is_it: impl FnMut(&T) -> bool,
    hash_of: impl Fn(&T) -> u64,
) -> Option<T> {
    let (taken, _) = shard.find_entry(hash, is_it).ok()?.remove();
    if shard.capacity() > SMALL && shard.len() < shard.capacity() / ROOMY {
        // Twice what is there: neither the next entry nor the next to go makes it move again.
        shard.shrink_to(shard.len().saturating_mul(2), hash_of);
    }
    Some(taken)
}
