//! Reading directories so that a guest sees each entry once, whatever happens meanwhile.
//!
//! [`Directory`] is what an inode object keeps of a directory, and [`open`] makes the stream of one handle over it.
//! There are two kinds of stream with the same promises: `Getdents` passes the kernel's cookies on, `Snapshot` reads
//! whole directories and numbers them itself. This module knows nothing of requests, replies or inode tables.
//!
//! What both promise:
//! - An entry that exists throughout a scan is returned once, and none twice.
//! - A cookie goes on right after its entry, also backwards and after the end, until the next rewind.
//! - Offset 0 shows every change that was acknowledged before it was asked for.
//! - An error comes at the position where it happened, after the entries before it.
//! - A removed directory is `ENOENT`. A cookie never handed out is `EINVAL`, the end, or what the kernel says, at once.

mod dir_gen;
#[cfg(target_os = "linux")]
mod getdents;
mod snapshot;
mod source;
#[cfg(test)]
mod tests;

use std::{
    ops::ControlFlow,
    os::fd::{BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU32},
};

use fuse_abi::Errno;

pub use self::{
    dir_gen::{DirGen, Generation},
    snapshot::limit_snapshot_memory,
};
pub use crate::host::{Entry, HostStamp, Moment};

/// What the inode object of a directory keeps, shared by its open handles. 40 bytes while none is open.
#[derive(Debug, Default)]
pub struct Directory {
    generation: DirGen,
    /// How many snapshot streams are open: the last one lets the snapshot go.
    streams: AtomicU32,
    /// The latest snapshot, for the handles that come next and to number the one after it.
    latest: Mutex<Option<Arc<snapshot::Snapshot>>>,
}

impl Directory {
    /// For a new inode object.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Its generation.
    #[must_use]
    pub const fn generation(&self) -> &DirGen {
        &self.generation
    }
}

/// How directories are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "daemon", derive(clap::ValueEnum))]
pub enum StreamKind {
    /// With the kernel's own cookies.
    #[cfg(target_os = "linux")]
    Getdents,
    /// Whole, into snapshots that number the entries.
    Snapshot,
}

impl Default for StreamKind {
    fn default() -> Self {
        #[cfg(target_os = "linux")]
        return Self::Getdents;
        #[cfg(not(target_os = "linux"))]
        return Self::Snapshot;
    }
}

/// One open handle of a directory. Any thread may read at any time; reads of one handle that need the host take turns.
pub trait DirStream: Send + Sync {
    /// Hands the entries after `cookie` to `emit`, until it breaks: then it did **not** take that entry, which comes
    /// first at the next read. Nothing emitted means the end. A read may stop before the end without being told to, but
    /// not before it emitted something. `emit` must not read from the same stream.
    ///
    /// # Errors
    /// `ENOENT` for a removed directory; `EINVAL` for a cookie that cannot be one; `ENFILE` where snapshots have used
    /// up their memory; the host's. Never after an entry was emitted: the next read at that place gives the error.
    fn read(&self, cookie: u64, emit: &mut dyn FnMut(&Entry<'_>) -> ControlFlow<()>) -> Result<(), Errno>;

    /// The generation that the last scan from offset 0 started with: what the guest kept of it is true while the
    /// directory's generation is still this. `None` before the first scan, or when it failed.
    fn started_with(&self) -> Option<Generation>;

    /// The descriptor, for what does not move its position (fsync, fstat).
    fn descriptor(&self) -> BorrowedFd<'_>;
}

/// The stream of a handle that was just opened. `before` is the generation taken **before** the descriptor was opened:
/// btrfs, and tmpfs of some kernels, fix at open what the first scan shows, so that a change after it asks for a seek.
///
/// A change made on the host between open and first scan shows in that scan as it would to a local process; from the
/// first rewind on it always shows.
#[must_use]
pub fn open(kind: StreamKind, descriptor: OwnedFd, shared: Arc<Directory>, before: Generation) -> Box<dyn DirStream> {
    // Snapshots seek before every scan.
    #[cfg(not(target_os = "linux"))]
    let _ = before;
    match kind {
        #[cfg(target_os = "linux")]
        StreamKind::Getdents => Box::new(getdents::Getdents::new(descriptor, shared, before)),
        StreamKind::Snapshot => Box::new(snapshot::Stream::new(descriptor, shared, &snapshot::BUDGET)),
    }
}

/// The stream of all who read a directory that nobody has opened: any number of scans at once, none of which says when
/// it begins or ends. The stream may be dropped and made again in mid-scan.
///
/// With the kernel's cookies that is as exact as the host's are beyond the descriptor that gave them out: on ext4 and xfs,
/// and not on tmpfs or overlayfs, which renumbers. Snapshots number entries by their names, which holds anywhere.
#[must_use]
pub fn open_for_all(
    kind: StreamKind,
    descriptor: OwnedFd,
    shared: Arc<Directory>,
    before: Generation,
) -> Box<dyn DirStream> {
    if kind == StreamKind::Snapshot {
        return Box::new(snapshot::Stream::by_name(descriptor, shared, &snapshot::BUDGET));
    }
    open(kind, descriptor, shared, before)
}

/// A lock whose holder panicked is taken all the same: what these guard is replaced as a whole, never half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
