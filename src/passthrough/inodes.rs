//! The objects a guest knows: one for each host object, counted exactly, each with a way back to the host.

use std::{
    hash::BuildHasher,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
};

use fuse_abi::Errno;
use hashbrown::{DefaultHashBuilder, hash_table::Entry};

use super::{
    knowledge::Known,
    place::Place,
    population::Population,
    sharded::{Sharded, take},
};
use crate::{
    directory::Directory,
    host::{Identity, Kind, Stat},
    protocol::NodeId,
};

/// One object of the host, as long as the guest refers to it.
#[derive(Debug)]
pub(super) struct Inode {
    pub(super) id: NodeId,
    pub(super) identity: Identity,
    pub(super) kind: Kind,
    /// Whether its storage is another machine or process: whatever is asked of it may wait.
    pub(super) is_remote: bool,
    references: AtomicU64,
    /// The hash of the (parent, name) it was last found by: see [`InodeTable::expects`].
    hint: AtomicU64,
    pub(super) place: Place,
    /// Most inodes are files of which no more is kept.
    more: Option<Box<More>>,
    /// How many handles of it the guest has open, where that matters.
    pub(super) handles: AtomicU32,
    /// Whether it is a directory that is watched on the host: one of the numbers below.
    watched: AtomicU8,
    /// How many names in a row were looked up in this directory and not found, up to [`MANY`].
    misses: AtomicU8,
}

/// What is kept of directories, and of all inodes where what the guest knows is kept.
#[derive(Debug, Default)]
struct More {
    directory: OnceLock<Arc<Directory>>,
    known: Option<Mutex<Known>>,
}

impl More {
    fn of(kind: Kind, keeps_known: bool) -> Option<Box<Self>> {
        let wanted = keeps_known || kind == Kind::Directory;
        wanted.then(|| Box::new(Self { known: keeps_known.then(Mutex::default), ..Self::default() }))
    }
}

const UNWATCHED: u8 = 0;
const WATCHED: u8 = 1;
/// The host does not let it be watched, and is not asked again.
const UNWATCHABLE: u8 = 2;
/// After so many misses another one is likely.
const MANY: u8 = 64;

impl Inode {
    /// What is shared by all who have this directory open.
    ///
    /// # Errors
    /// `ENOTDIR` for anything else.
    pub(super) fn directory(&self) -> Result<&Arc<Directory>, Errno> {
        let more = self.more.as_ref().filter(|_| self.kind == Kind::Directory).ok_or(Errno::ENOTDIR)?;
        Ok(more.directory.get_or_init(Arc::default))
    }

    /// Whether the guest hears of what changes in this directory.
    pub(super) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Acquire) == WATCHED
    }

    /// Whether to try to watch it.
    pub(super) fn may_be_watched(&self) -> bool {
        self.kind == Kind::Directory && self.watched.load(Ordering::Acquire) == UNWATCHED
    }

    /// It is watched from now on, or can never be.
    pub(super) fn set_watched(&self, can_be: bool) {
        self.watched.store(if can_be { WATCHED } else { UNWATCHABLE }, Ordering::Release);
    }

    /// It is watched no longer. Says whether it was.
    pub(super) fn unwatch(&self) -> bool {
        self.watched.swap(UNWATCHED, Ordering::AcqRel) == WATCHED
    }

    /// Whether an unknown name in this directory is likely to be missing.
    pub(super) fn is_searched_in_vain(&self) -> bool {
        self.misses.load(Ordering::Relaxed) == MANY
    }

    /// Takes note of whether an unknown name in this directory was found. A guess needs no exact count.
    pub(super) fn note_search(&self, found: bool) {
        let before = self.misses.load(Ordering::Relaxed);
        let now = if found { 0 } else { before.saturating_add(1).min(MANY) };
        // Written only where it changes: all who look something up in this directory read it.
        if now != before {
            self.misses.store(now, Ordering::Relaxed);
        }
    }

    /// Takes note that the directory may have changed. While nobody ever read it there is nothing to tell.
    pub(super) fn changed(&self) {
        if let Some(directory) = self.more.as_ref().and_then(|more| more.directory.get()) {
            directory.generation().bump();
        }
    }

    /// As [`changed`](Self::changed), by the guest: it drops by itself what it knew of the directory.
    pub(super) fn changed_by_guest(&self) {
        self.changed();
        if self.is_watched()
            && let Some(mut known) = self.known()
        {
            known.record.changed_entries();
        }
    }

    /// What the guest knows of it, where that is kept.
    pub(super) fn known(&self) -> Option<MutexGuard<'_, Known>> {
        let known = self.more.as_ref()?.known.as_ref()?;
        Some(known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether what the guest knows of it is kept.
    pub(super) fn is_followed(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.known.is_some())
    }
}

/// All inodes a guest knows, by number and by what they are on the host.
#[derive(Debug)]
pub(super) struct InodeTable {
    next: AtomicU64,
    root: Arc<Inode>,
    by_id: Sharded<Arc<Inode>>,
    by_identity: Sharded<Arc<Inode>>,
    /// Hashes of (parent, name) that led to an inode of this table, and to which.
    expected: Sharded<(u64, NodeId)>,
    population: Population,
    /// Whether what the guest knows of each inode is kept.
    keeps_known: bool,
    hasher: DefaultHashBuilder,
}

impl InodeTable {
    /// A table that knows only the root of the share.
    pub(super) fn new(root: OwnedFd, found: &Stat, is_remote: bool, keeps_known: bool) -> Self {
        let root = Arc::new(Inode {
            id: NodeId::ROOT,
            identity: found.identity,
            kind: found.kind(),
            is_remote,
            references: AtomicU64::new(1),
            hint: AtomicU64::new(0),
            place: Place::root(root),
            more: More::of(found.kind(), keeps_known),
            handles: AtomicU32::new(0),
            watched: AtomicU8::new(UNWATCHED),
            misses: AtomicU8::new(0),
        });
        let table = Self {
            next: AtomicU64::new(NodeId::ROOT.0.wrapping_add(1)),
            root,
            by_id: Sharded::new(),
            by_identity: Sharded::new(),
            expected: Sharded::new(),
            population: Population::default(),
            keeps_known,
            hasher: DefaultHashBuilder::default(),
        };
        table.index_root();
        table
    }

    fn index_root(&self) {
        let hash = self.hasher.hash_one(self.root.identity);
        self.by_identity.write(hash).insert_unique(hash, Arc::clone(&self.root), |inode| self.hash_identity(inode));
    }

    pub(super) fn root(&self) -> &Arc<Inode> {
        &self.root
    }

    /// The inode of this number.
    pub(super) fn get(&self, id: NodeId) -> Result<Arc<Inode>, Errno> {
        if id == NodeId::ROOT {
            return Ok(Arc::clone(&self.root));
        }
        let hash = self.hasher.hash_one(id);
        self.by_id.read(hash).find(hash, |inode| inode.id == id).cloned().ok_or(Errno::ESTALE)
    }

    /// The inode of this host object, with one reference more, if the guest knows it.
    pub(super) fn find(&self, identity: &Identity) -> Option<Arc<Inode>> {
        let hash = self.hasher.hash_one(identity);
        let shard = self.by_identity.read(hash);
        let inode = shard.find(hash, |inode| inode.identity == *identity)?;
        // Under the lock: an inode whose last reference goes is taken out under the write lock.
        inode.references.fetch_add(1, Ordering::Relaxed);
        Some(Arc::clone(inode))
    }

    /// The inode of this host object, if the guest knows it.
    pub(super) fn peek(&self, identity: &Identity) -> Option<Arc<Inode>> {
        let hash = self.hasher.hash_one(identity);
        self.by_identity.read(hash).find(hash, |inode| inode.identity == *identity).cloned()
    }

    /// All inodes, a few at a time.
    pub(super) fn each(&self, mut each: impl FnMut(Arc<Inode>)) {
        each(Arc::clone(&self.root));
        self.by_id.each_shard(|shard| shard.into_iter().for_each(&mut each));
    }

    /// The inode of the host object that `place` holds, with one reference more: the one there is, or a new one.
    pub(super) fn insert(&self, found: &Stat, place: Place, is_remote: bool) -> Arc<Inode> {
        let hash = self.hasher.hash_one(found.identity);
        let mut shard = self.by_identity.write(hash);
        let entry = shard.entry(hash, |inode| inode.identity == found.identity, |inode| self.hash_identity(inode));
        let inode = match entry {
            Entry::Occupied(there) if there.get().place.same_object(&place) => {
                there.get().references.fetch_add(1, Ordering::Relaxed);
                return Arc::clone(there.get());
            }
            // The number was used again on the host, after an inode that only a file handle stood for had gone.
            Entry::Occupied(mut reused) => {
                let inode = self.build(found, place, is_remote);
                *reused.get_mut() = Arc::clone(&inode);
                inode
            }
            Entry::Vacant(vacant) => {
                let inode = self.build(found, place, is_remote);
                vacant.insert(Arc::clone(&inode));
                inode
            }
        };
        self.population.born();
        let id_hash = self.hasher.hash_one(inode.id);
        self.by_id.write(id_hash).insert_unique(id_hash, Arc::clone(&inode), |inode| self.hasher.hash_one(inode.id));
        inode
    }

    fn build(&self, found: &Stat, place: Place, is_remote: bool) -> Arc<Inode> {
        Arc::new(Inode {
            id: NodeId(self.next.fetch_add(1, Ordering::Relaxed)),
            identity: found.identity,
            kind: found.kind(),
            is_remote,
            references: AtomicU64::new(1),
            hint: AtomicU64::new(0),
            place,
            more: More::of(found.kind(), self.keeps_known),
            handles: AtomicU32::new(0),
            watched: AtomicU8::new(UNWATCHED),
            misses: AtomicU8::new(0),
        })
    }

    /// Gives back references. With the last one the inode goes, and with it its descriptor; it is given to the caller.
    pub(super) fn forget(&self, id: NodeId, count: u64) -> Option<Arc<Inode>> {
        let inode = self.get(id).ok().filter(|_| id != NodeId::ROOT)?;
        // A guest that gives back more than it has gets no more than gone.
        let before =
            inode.references.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |now| Some(now.saturating_sub(count)));
        (before.is_ok_and(|before| before <= count) && self.remove_unreferenced(&inode)).then_some(inode)
    }

    /// Says whether it is gone now.
    fn remove_unreferenced(&self, inode: &Arc<Inode>) -> bool {
        let hash = self.hasher.hash_one(inode.identity);
        let mut shard = self.by_identity.write(hash);
        // A lookup may have come between; it counted under the read lock.
        if inode.references.load(Ordering::Acquire) != 0 {
            return false;
        }
        take(&mut shard, hash, |other| Arc::ptr_eq(other, inode), |inode| self.hash_identity(inode));
        let id_hash = self.hasher.hash_one(inode.id);
        let mut by_id = self.by_id.write(id_hash);
        if take(&mut by_id, id_hash, |other| other.id == inode.id, |inode| self.hasher.hash_one(inode.id)).is_some() {
            self.population.died(1);
        }
        drop(by_id);
        drop(shard);
        // The caller's is the last pointer: the descriptor is closed with no lock held.
        self.unexpect_all(inode);
        true
    }

    /// Forgets everything but the root.
    pub(super) fn clear(&self) {
        self.population.died(self.by_id.clear());
        self.by_identity.clear();
        self.expected.clear();
        self.index_root();
    }

    /// How many inodes the guest knows, beside the root.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether most of many inodes have gone since this was last asked.
    pub(super) fn has_ebbed(&self) -> bool {
        self.population.has_ebbed()
    }

    fn hash_identity(&self, inode: &Inode) -> u64 {
        self.hasher.hash_one(inode.identity)
    }
}

/// A name in a directory, hashed: a guess at whether a lookup will find an inode that is known already. A wrong guess
/// costs a system call and nothing else.
#[derive(Clone, Copy, Debug)]
pub(super) struct NameHint(u64);

impl NameHint {
    pub(super) const fn as_u64(self) -> u64 {
        self.0
    }
}

impl InodeTable {
    pub(super) fn hint(&self, parent: &Inode, name: &[u8]) -> NameHint {
        self.hint_of(parent.id, name)
    }

    fn hint_of(&self, parent: NodeId, name: &[u8]) -> NameHint {
        // 0 stands for no hint.
        NameHint(self.hasher.hash_one((parent, name)).max(1))
    }

    /// Whether a known inode was last found under this name.
    pub(super) fn expects(&self, hint: NameHint) -> bool {
        self.expected.read(hint.0).find(hint.0, |(known, _)| *known == hint.0).is_some()
    }

    /// The inode that was last found under this name.
    pub(super) fn expected(&self, hint: NameHint) -> Option<Arc<Inode>> {
        let (_, node) = *self.expected.read(hint.0).find(hint.0, |(known, _)| *known == hint.0)?;
        self.get(node).ok()
    }

    /// Takes note that `inode` was found under this name. Gives back which inode was expected there before.
    pub(super) fn expect(&self, hint: NameHint, inode: &Inode) -> Option<NodeId> {
        let old = inode.hint.swap(hint.0, Ordering::Relaxed);
        // Where names are kept each of them is expected; elsewhere the last one, which costs less.
        if old != hint.0 && !self.keeps_known {
            self.unexpect_of(NameHint(old), inode.id);
        }
        if self.expected.read(hint.0).find(hint.0, |known| *known == (hint.0, inode.id)).is_some() {
            return Some(inode.id);
        }
        let mut shard = self.expected.write(hint.0);
        match shard.find_mut(hint.0, |(known, _)| *known == hint.0) {
            Some((_, node)) => Some(std::mem::replace(node, inode.id)),
            None => {
                shard.insert_unique(hint.0, (hint.0, inode.id), |(known, _)| *known);
                None
            }
        }
    }

    /// Expects an inode that is gone under no name.
    fn unexpect_all(&self, inode: &Inode) {
        let names: Vec<NameHint> = match inode.known() {
            Some(known) => known.names().map(|(parent, name)| self.hint_of(parent, name)).collect(),
            None => {
                return self.unexpect_of(NameHint(inode.hint.load(Ordering::Relaxed)), inode.id);
            }
        };
        names.into_iter().for_each(|hint| self.unexpect_of(hint, inode.id));
    }

    /// Expects this inode under this name no more; another that has taken the name stays expected.
    fn unexpect_of(&self, hint: NameHint, node: NodeId) {
        take(&mut self.expected.write(hint.0), hint.0, |known| *known == (hint.0, node), |(known, _)| *known);
    }

    /// Expects nothing under this name any more. Gives back what was expected.
    pub(super) fn unexpect(&self, hint: NameHint) -> Option<NodeId> {
        let shard = &mut self.expected.write(hint.0);
        take(shard, hint.0, |(known, _)| *known == hint.0, |(known, _)| *known).map(|(_, node)| node)
    }
}
