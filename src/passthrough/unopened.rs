//! What is open for a client that opens nothing: descriptors by inode and purpose, as many as the budget allows.
//!
//! Nothing says when one is no longer needed. So each stays until its inode is forgotten or another needs its place:
//! then those go first that nobody used since they were last passed over.

use std::{
    collections::VecDeque,
    hash::BuildHasher,
    os::fd::OwnedFd,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use fuse_abi::Errno;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::opened::{OpenDirectory, OpenFile};
use crate::{
    host::{Budget, Permit},
    protocol::NodeId,
};

/// For what a descriptor is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Read,
    Write,
    /// Writing at the end of the file, wherever it is by then.
    Append,
    /// To name the file and nothing else.
    Any,
}

/// What is kept of an inode.
#[derive(Clone)]
pub(super) enum Kept {
    File(Arc<OpenFile>),
    Directory(Arc<OpenDirectory>),
    /// Holds an inode that lost its last name; stays as long as the client knows it.
    Last {
        _pin: Arc<OwnedFd>,
    },
}

impl Kept {
    fn file(&self, need: Need) -> Option<&Arc<OpenFile>> {
        let Self::File(file) = self else { return None };
        let serves = match need {
            Need::Read => file.readable,
            Need::Write => file.writable && !file.appends,
            Need::Append => file.writable && file.appends,
            Need::Any => true,
        };
        serves.then_some(file)
    }

    const fn directory(&self) -> Option<&Arc<OpenDirectory>> {
        if let Self::Directory(directory) = self { Some(directory) } else { None }
    }

    /// Whether `other` serves all that this does.
    fn is_served_by(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(mine), Self::File(theirs)) => {
                (mine.readable, mine.writable, mine.appends) == (theirs.readable, theirs.writable, theirs.appends)
            }
            (Self::Directory(_), Self::Directory(_)) | (Self::Last { .. }, Self::Last { .. }) => true,
            _ => false,
        }
    }
}

struct Slot {
    node: NodeId,
    /// Tells the slots of one inode apart.
    serial: u64,
    kept: Kept,
    /// Since it was last passed over.
    used: AtomicBool,
    _permit: Permit,
}

#[derive(Default)]
struct Shard {
    slots: HashTable<Slot>,
    /// By node and serial, the next to go first. Some may be gone already.
    order: VecDeque<(NodeId, u64)>,
}

/// Each shard on a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Aligned(RwLock<Shard>);

const SHARDS: usize = 64;
/// How many that are gone already the order of a shard may hold beside those that are not.
const SLACK: usize = 16;

pub(super) struct Unopened {
    shards: Box<[Aligned]>,
    hasher: DefaultHashBuilder,
    next: AtomicU64,
    budget: Arc<Budget>,
    /// Some inode is held by its file handle, and ends with its last name.
    handles_in_use: AtomicBool,
}

impl Unopened {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Aligned::default()).collect(),
            hasher: DefaultHashBuilder::default(),
            next: AtomicU64::new(0),
            budget,
            handles_in_use: AtomicBool::new(false),
        }
    }

    pub(super) fn file(&self, node: NodeId, need: Need) -> Option<Arc<OpenFile>> {
        self.find(node, |kept| kept.file(need))
    }

    pub(super) fn directory(&self, node: NodeId) -> Option<Arc<OpenDirectory>> {
        self.find(node, Kept::directory)
    }

    fn find<T>(&self, node: NodeId, wanted: impl Fn(&Kept) -> Option<&Arc<T>>) -> Option<Arc<T>> {
        let hash = self.hasher.hash_one(node);
        let shard = self.read(hash);
        let slot = shard.slots.find(hash, |slot| slot.node == node && wanted(&slot.kept).is_some())?;
        // Looked at first: the usual answer is "yes", and then the cache line stays shared.
        if !slot.used.load(Ordering::Relaxed) {
            slot.used.store(true, Ordering::Relaxed);
        }
        wanted(&slot.kept).cloned()
    }

    /// Leave to hold one more, and what had to go for it. Ask before opening.
    pub(super) fn permit(&self, node: NodeId) -> Result<(Permit, Vec<Kept>), Errno> {
        let mut gone = Vec::new();
        loop {
            if let Some(permit) = self.budget.take() {
                return Ok((permit, gone));
            }
            gone.push(self.let_one_go(self.hasher.hash_one(node)).ok_or(Errno::ENFILE)?);
        }
    }

    /// Keeps something open. Gives back what is kept: another thread may have been faster.
    pub(super) fn keep(&self, node: NodeId, kept: Kept, permit: Permit) -> Kept {
        let hash = self.hasher.hash_one(node);
        let mut shard = self.write(hash);
        if let Some(there) = shard.slots.find(hash, |slot| slot.node == node && kept.is_served_by(&slot.kept)) {
            return there.kept.clone();
        }
        let serial = self.next.fetch_add(1, Ordering::Relaxed);
        if !matches!(kept, Kept::Last { .. }) {
            shard.remember(node, serial, |node| self.hasher.hash_one(node));
        }
        let slot = Slot { node, serial, kept: kept.clone(), used: AtomicBool::new(false), _permit: permit };
        shard.slots.insert_unique(hash, slot, |slot| self.hasher.hash_one(slot.node));
        kept
    }

    /// Takes out all that is kept of an inode.
    pub(super) fn let_go(&self, node: NodeId) {
        self.let_go_if(node, |_| true);
    }

    /// Takes out the stream of a directory: whoever reads on gets another.
    pub(super) fn let_go_directory(&self, node: NodeId) {
        self.let_go_if(node, |kept| kept.directory().is_some());
    }

    fn let_go_if(&self, node: NodeId, condition: impl Fn(&Kept) -> bool) {
        let hash = self.hasher.hash_one(node);
        loop {
            let mut shard = self.write(hash);
            let found = shard.slots.find_entry(hash, |slot| slot.node == node && condition(&slot.kept));
            let Ok(gone) = found.map(|entry| entry.remove().0) else { return };
            // Closed with no lock held, like all that goes from here.
            drop(shard);
            drop(gone);
        }
    }

    /// Takes out the streams of all directories, for the memory that they hold.
    pub(super) fn let_directories_go(&self) {
        for shard in &self.shards {
            let mut shard = shard.0.write().unwrap_or_else(PoisonError::into_inner);
            let gone: Vec<Slot> = shard.slots.extract_if(|slot| slot.kept.directory().is_some()).collect();
            drop(shard);
            drop(gone);
        }
    }

    pub(super) fn clear(&self) {
        for shard in &self.shards {
            let old = std::mem::take(&mut *shard.0.write().unwrap_or_else(PoisonError::into_inner));
            drop(old);
        }
        self.handles_in_use.store(false, Ordering::Relaxed);
    }

    /// Takes note that an inode is held by its file handle.
    pub(super) fn note_file_handle(&self) {
        self.handles_in_use.store(true, Ordering::Relaxed);
    }

    pub(super) fn file_handles_in_use(&self) -> bool {
        self.handles_in_use.load(Ordering::Relaxed)
    }

    /// Takes out what was not used for longest, about: begins where the new one would be, which is anywhere.
    fn let_one_go(&self, hash: u64) -> Option<Kept> {
        (0..SHARDS as u64).find_map(|step| {
            let mut shard = self.write(hash.wrapping_add(step << SHARD_SHIFT));
            shard.let_one_go(|node| self.hasher.hash_one(node))
        })
    }

    fn read(&self, hash: u64) -> RwLockReadGuard<'_, Shard> {
        self.shard(hash).read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, hash: u64) -> RwLockWriteGuard<'_, Shard> {
        self.shard(hash).write().unwrap_or_else(PoisonError::into_inner)
    }

    // As in `Sharded`: the table inside uses the lowest and the highest bits.
    #[allow(clippy::indexing_slicing, reason = "the index is reduced to the number of shards, which is fixed")]
    fn shard(&self, hash: u64) -> &RwLock<Shard> {
        &self.shards[(hash >> SHARD_SHIFT) as usize % SHARDS].0
    }
}

const SHARD_SHIFT: u32 = 40;

impl Shard {
    fn remember(&mut self, node: NodeId, serial: u64, hash: impl Fn(NodeId) -> u64) {
        if self.order.len() > 2 * self.slots.len() + SLACK {
            let Self { slots, order } = self;
            order.retain(|(node, serial)| slots.find(hash(*node), |slot| slot.serial == *serial).is_some());
        }
        self.order.push_back((node, serial));
    }

    fn let_one_go(&mut self, hash: impl Fn(NodeId) -> u64) -> Option<Kept> {
        while let Some((node, serial)) = self.order.pop_front() {
            let Ok(found) = self.slots.find_entry(hash(node), |slot| slot.serial == serial) else { continue };
            if found.get().used.swap(false, Ordering::Relaxed) {
                self.order.push_back((node, serial));
                continue;
            }
            return Some(found.remove().0.kept);
        }
        None
    }
}
