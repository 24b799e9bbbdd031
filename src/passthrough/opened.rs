//! What a guest has open: one opened file or directory, whatever is done through it and however long it is kept.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use fuse_abi::Errno;

use super::inodes::Inode;
use crate::{
    directory::DirStream,
    host::{self, OpenMode, Storage},
    protocol::{Access, Body, Failure, OpenFlags, Result},
};

/// A read that stops short at a multiple of this may have met a page that is not in memory; elsewhere only the end of
/// the file stops it.
const PAGE: u64 = 4096;

/// A file that a guest has open.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) fd: Arc<OwnedFd>,
    pub(super) inode: Arc<Inode>,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// Written to since the last FLUSH.
    pub(super) dirty: AtomicBool,
    pub(super) appends: bool,
    /// Its reads and writes wait for the storage by intent: O_DIRECT, O_SYNC and O_DSYNC.
    pub(super) direct: bool,
    pub(super) synchronous: bool,
    pub(super) storage: Storage,
    /// Whether to ask which reads would wait. Not in memory, where none do and tmpfs does not know; and cleared when
    /// another file system turns out not to know.
    tells_cached: AtomicBool,
}

impl OpenFile {
    pub(super) fn new(fd: Arc<OwnedFd>, inode: Arc<Inode>, storage: Storage, flags: OpenFlags) -> Self {
        inode.handles.fetch_add(1, Ordering::Relaxed);
        Self {
            storage,
            fd,
            inode,
            readable: flags.access() != Access::Write,
            writable: flags.access().writes(),
            dirty: AtomicBool::new(flags.truncate()),
            appends: flags.append(),
            direct: flags.direct(),
            synchronous: flags.sync() || flags.data_sync(),
            tells_cached: AtomicBool::new(storage != Storage::Memory),
        }
    }

    /// File systems of other machines write back and report errors at close, so one is closed.
    pub(super) fn bring_back(&self) -> Result<()> {
        drop(self.fd.try_clone().map_err(|_| Errno::EIO)?);
        Ok(())
    }

    /// Takes note that the guest changed the content through this handle.
    pub(super) fn changed(&self) {
        if self.inode.is_followed() {
            self.dirty.store(true, Ordering::Relaxed);
            self.inode.written_to();
        }
    }

    /// Reads what is in memory. Anything else wants a thread that may wait.
    pub(super) fn read_cached(&self, offset: u64, body: &mut Body<'_>) -> Result<()> {
        if !self.tells_cached.load(Ordering::Relaxed) {
            let count = host::read_at(self.fd.as_fd(), body.unfilled(), offset, false)?;
            body.filled(count);
            return Ok(());
        }
        let mut position = offset;
        loop {
            match host::read_at(self.fd.as_fd(), body.unfilled(), position, true) {
                Ok(count) => {
                    body.filled(count);
                    position = position.saturating_add(count as u64);
                    if count == 0 || body.room() == 0 || !position.is_multiple_of(PAGE) {
                        return Ok(());
                    }
                }
                Err(Errno::EAGAIN) => return Err(Failure::WouldBlock),
                Err(Errno::EOPNOTSUPP) => {
                    self.tells_cached.store(false, Ordering::Relaxed);
                    return self.read_cached(offset, body);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.inode.handles.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How the host opens a file with these flags.
pub(super) fn mode_of(flags: OpenFlags) -> OpenMode {
    let mut mode = match flags.access() {
        Access::Read => OpenMode::RDONLY,
        Access::Write => OpenMode::WRONLY,
        Access::ReadWrite => OpenMode::RDWR,
    };
    for (set, flag) in [
        (flags.append(), OpenMode::APPEND),
        (flags.truncate(), OpenMode::TRUNC),
        (flags.direct(), OpenMode::DIRECT),
        (flags.sync(), OpenMode::SYNC),
        (flags.data_sync(), OpenMode::DSYNC),
        (flags.no_atime(), OpenMode::NOATIME),
    ] {
        mode.set(flag, set);
    }
    mode
}

/// A directory that a guest has open.
pub(super) struct OpenDirectory {
    pub(super) inode: Arc<Inode>,
    pub(super) stream: Box<dyn DirStream>,
}

impl OpenDirectory {
    pub(super) fn new(inode: Arc<Inode>, stream: Box<dyn DirStream>) -> Self {
        inode.handles.fetch_add(1, Ordering::Relaxed);
        Self { inode, stream }
    }
}

impl Drop for OpenDirectory {
    fn drop(&mut self) {
        self.inode.handles.fetch_sub(1, Ordering::Relaxed);
    }
}
