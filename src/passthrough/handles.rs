//! What guests have open: numbers to objects, bounded by a budget.

use std::{
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use fuse_abi::Errno;
use hashbrown::DefaultHashBuilder;

use super::sharded::Sharded;
use crate::{
    host::{Budget, Permit},
    protocol::HandleId,
};

/// Open objects of one sort. Numbers are never used twice.
#[derive(Debug)]
pub(super) struct Handles<T> {
    next: AtomicU64,
    table: Sharded<Slot<T>>,
    hasher: DefaultHashBuilder,
    budget: Arc<Budget>,
}

#[derive(Debug)]
struct Slot<T> {
    id: u64,
    object: Arc<T>,
    _permit: Permit,
}

impl<T> Handles<T> {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self { next: AtomicU64::new(1), table: Sharded::new(), hasher: DefaultHashBuilder::default(), budget }
    }

    /// Leave to open one more. Ask before opening.
    pub(super) fn permit(&self) -> Result<Permit, Errno> {
        self.budget.take().ok_or(Errno::ENFILE)
    }

    pub(super) fn insert(&self, object: Arc<T>, permit: Permit) -> HandleId {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let hash = self.hash(id);
        let slot = Slot { id, object, _permit: permit };
        self.table.write(hash).insert_unique(hash, slot, |slot| self.hash(slot.id));
        HandleId(id)
    }

    pub(super) fn get(&self, handle: HandleId) -> Result<Arc<T>, Errno> {
        let hash = self.hash(handle.0);
        let shard = self.table.read(hash);
        shard.find(hash, |slot| slot.id == handle.0).map(|slot| Arc::clone(&slot.object)).ok_or(Errno::EBADF)
    }

    /// Takes a handle out if it is what `belongs` accepts.
    pub(super) fn remove(&self, handle: HandleId, belongs: impl FnOnce(&T) -> bool) -> Result<Arc<T>, Errno> {
        let hash = self.hash(handle.0);
        let mut shard = self.table.write(hash);
        let entry = shard.find_entry(hash, |slot| slot.id == handle.0).map_err(|_| Errno::EBADF)?;
        if !belongs(&entry.get().object) {
            return Err(Errno::EBADF);
        }
        Ok(entry.remove().0.object)
    }

    pub(super) fn clear(&self) {
        self.table.clear();
    }

    fn hash(&self, id: u64) -> u64 {
        self.hasher.hash_one(id)
    }
}
