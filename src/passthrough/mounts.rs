//! The mounts of the share, each with something open on it: what a file handle needs to be opened again.

use std::{
    collections::VecDeque,
    os::fd::{BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    host::{self, Identity, OpenMode, SelfFds, Stat, Storage},
    protocol::NodeId,
};

/// A mount: the device tells mounts apart where the host has no mount numbers.
type MountKey = (u64, u64);

/// The mounts seen so far. There are few, and they are asked for beyond the descriptor budget only.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    /// The share's own, if inodes there can be kept by file handle at all.
    root: Option<(MountKey, Arc<OwnedFd>)>,
    /// The others, as long as an inode needs them: the host can unmount what the guest has forgotten.
    others: Mutex<Vec<(MountKey, Weak<OwnedFd>)>>,
    storages: RwLock<Vec<(u64, Storage)>>,
    any_remote: AtomicBool,
}

const fn key(found: &Identity) -> MountKey {
    (found.mount, found.dev)
}

impl Mounts {
    /// Knows the mount of the share's root.
    pub(super) fn of_share(fds: &SelfFds, root: BorrowedFd<'_>, found: &Stat) -> Self {
        let dir = fds.reopen(root, OpenMode::RDONLY | OpenMode::DIRECTORY).ok();
        Self { root: dir.map(|dir| (key(&found.identity), Arc::new(dir))), ..Self::default() }
    }

    /// The mount of an object, by something open on it.
    pub(super) fn of(&self, object: &Stat) -> Option<Arc<OwnedFd>> {
        let wanted = key(&object.identity);
        if let Some((root, dir)) = &self.root
            && *root == wanted
        {
            return Some(Arc::clone(dir));
        }
        lock(&self.others).iter().find(|(mount, _)| *mount == wanted).and_then(|(_, open)| open.upgrade())
    }

    /// Takes note that `open` is on the mount of an object, unless another thread was faster.
    pub(super) fn learn(&self, object: &Stat, open: OwnedFd) -> Arc<OwnedFd> {
        let wanted = key(&object.identity);
        let mut others = lock(&self.others);
        others.retain(|(_, known)| known.strong_count() != 0);
        if let Some(known) = others.iter().find(|(mount, _)| *mount == wanted).and_then(|(_, known)| known.upgrade()) {
            return known;
        }
        let open = Arc::new(open);
        others.push((wanted, Arc::downgrade(&open)));
        open
    }

    /// What kind of storage a device is, asked of the host once.
    pub(super) fn storage(&self, identity: &Identity, object: BorrowedFd<'_>) -> Storage {
        let known = self.storages.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, storage)) = known.iter().find(|(dev, _)| *dev == identity.dev) {
            return *storage;
        }
        drop(known);
        // One that does not say is treated as a disk, and asked again next time.
        let Ok(storage) = host::storage(object) else { return Storage::Disk };
        if storage == Storage::Remote {
            self.any_remote.store(true, Ordering::Relaxed);
        }
        self.storages.write().unwrap_or_else(PoisonError::into_inner).push((identity.dev, storage));
        storage
    }
}

impl Mounts {
    /// Whether any storage that was asked about is another machine or process.
    pub(super) fn any_remote(&self) -> bool {
        self.any_remote.load(Ordering::Relaxed)
    }
}

/// Directories that only a file handle stands for, and that keep a descriptor because they were in use lately.
#[derive(Debug)]
pub(super) struct KeptDirectories {
    most: usize,
    kept: RwLock<VecDeque<(NodeId, Arc<OwnedFd>)>>,
}

/// More than this would take longer to search than to open.
pub(super) const KEPT_MAX: usize = 128;

impl KeptDirectories {
    pub(super) fn new(most: usize) -> Self {
        Self { most, kept: RwLock::default() }
    }

    pub(super) fn get(&self, id: NodeId) -> Option<Arc<OwnedFd>> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(node, _)| *node == id).map(|(_, fd)| Arc::clone(fd))
    }

    /// Adds one, and lets the oldest go when there are too many.
    pub(super) fn keep(&self, id: NodeId, fd: &Arc<OwnedFd>) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if kept.iter().any(|(node, _)| *node == id) {
            return;
        }
        kept.push_back((id, Arc::clone(fd)));
        let oldest = if kept.len() > self.most { kept.pop_front() } else { None };
        // Closed with no lock held, like all that is dropped here.
        drop(kept);
        drop(oldest);
    }

    /// The guest has forgotten it.
    pub(super) fn let_go(&self, id: NodeId) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        let gone = kept.iter().position(|(node, _)| *node == id).and_then(|index| kept.remove(index));
        drop(kept);
        drop(gone);
    }

    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut *self.kept.write().unwrap_or_else(PoisonError::into_inner));
        drop(all);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
