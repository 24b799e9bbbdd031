//! Serving a client that opens nothing (`--no-open`): requests name an inode, and what they need is opened for them.
//!
//! What clients do, read in Linux 6.1 to 7.1 (`fs/fuse/file.c`, `dir.c`, `readdir.c`):
//! - The first OPEN and the first OPENDIR that are answered `ENOSYS` are the last. From then on an open succeeds in the
//!   client, with handle 0 and the flags KEEP_CACHE, for a directory also CACHE_DIR.
//! - O_TRUNC becomes a SETATTR of size 0, unless ATOMIC_O_TRUNC was agreed on: then it would be lost, so it is not.
//! - CREATE and TMPFILE are sent as ever, and their handle is used as long as the file is open. Whether RELEASE follows
//!   depends on the version, so they are answered with handle 0 too.
//! - FLUSH is sent until it is answered `ENOSYS`.
//! - READ, WRITE, FSYNC, FALLOCATE, LSEEK, COPY_FILE_RANGE, IOCTL, READDIR, READDIRPLUS and FSYNCDIR come with handle 0;
//!   GETATTR of an open file and a truncation through one name handle 0 as well.
//! - WRITE tells O_APPEND, O_SYNC and O_DSYNC of the descriptor; what the cache writes back tells none.
//! - The client checks permissions by itself (`default_permissions`), so that nothing is left to OPEN to decide.

use std::{os::fd::OwnedFd, sync::Arc};

use fuse_abi::{Errno, InitFlags, OpenOut, OpenOutFlags};

use super::{
    Passthrough,
    inodes::Inode,
    opened::{OpenDirectory, OpenFile, mode_of},
    place::InodeFd,
    unopened::{Kept, Need},
};
use crate::{
    directory::{self, StreamKind},
    host::{self, Kind, OpenMode, Permit},
    protocol::{Access, Context, Failure, HandleId, Name, NodeId, OpenFlags, Result},
};

/// Whether this client opens no files.
pub(super) const fn opens_no_files(cx: &Context) -> bool {
    cx.agreed.contains(InitFlags::NO_OPEN_SUPPORT)
}

/// Whether this client opens no directories.
pub(super) const fn opens_no_directories(cx: &Context) -> bool {
    cx.agreed.contains(InitFlags::NO_OPENDIR_SUPPORT)
}

/// The handle that tells something: one that the server gave out.
pub(super) fn given_out(cx: &Context, handle: Option<HandleId>) -> Option<HandleId> {
    handle.filter(|_| !opens_no_files(cx))
}

impl Passthrough {
    /// The open file that a request is about: by its handle, or by its inode where nothing is opened.
    pub(super) fn file_for(&self, cx: &Context, node: NodeId, handle: HandleId, need: Need) -> Result<Arc<OpenFile>> {
        if !opens_no_files(cx) {
            return Ok(self.file(node, handle)?);
        }
        if let Some(file) = self.unopened.file(node, need) {
            return Ok(file);
        }
        let inode = self.inode(cx, node)?;
        if inode.kind == Kind::Directory {
            return Err(Errno::EISDIR.into());
        }
        let permit = self.make_room(node)?;
        let (fd, flags) = self.open_needed(cx, &inode, need)?;
        let storage = self.storage_of(&inode, &fd);
        let file = OpenFile::new(Arc::new(fd), inode, storage, flags);
        Ok(self.keep_file(Arc::new(file), permit))
    }

    /// Opens a file for what it is needed for, and for more where that comes for free.
    fn open_needed(&self, cx: &Context, inode: &Inode, need: Need) -> Result<(OwnedFd, OpenFlags)> {
        let open = |access| {
            let flags = OpenFlags::of(access, need == Need::Append);
            self.open_freely(cx, inode, mode_of(flags)).map(|fd| (fd, flags))
        };
        match need {
            Need::Read | Need::Any => open(Access::Read),
            // A server without privileges may be allowed the one and not the other.
            Need::Write | Need::Append => match open(Access::ReadWrite) {
                Err(Failure::Errno(Errno::EACCES)) => open(Access::Write),
                opened => opened,
            },
        }
    }

    fn keep_file(&self, file: Arc<OpenFile>, permit: Permit) -> Arc<OpenFile> {
        let node = file.inode.id;
        let kept = self.unopened.keep(node, Kept::File(Arc::clone(&file)), permit);
        self.let_go_if_forgotten(node);
        if let Kept::File(kept) = kept { kept } else { file }
    }

    /// Keeps the file that CREATE or TMPFILE opened for the requests that follow.
    pub(super) fn created_unopened(&self, file: OpenFile, granted: OpenOutFlags, permit: Permit) -> OpenOut {
        self.keep_file(Arc::new(file), permit);
        OpenOut { open_flags: granted.bits(), ..OpenOut::default() }
    }

    /// The directory that a request is about: by its handle, or by its inode where nothing is opened.
    pub(super) fn directory_for(&self, cx: &Context, node: NodeId, handle: HandleId) -> Result<Arc<OpenDirectory>> {
        if !opens_no_directories(cx) {
            return Ok(self.directory(node, handle)?);
        }
        if let Some(directory) = self.unopened.directory(node) {
            return Ok(directory);
        }
        let inode = self.inode(cx, node)?;
        if inode.kind != Kind::Directory {
            return Err(Errno::ENOTDIR.into());
        }
        let permit = self.make_room(node)?;
        let shared = Arc::clone(inode.directory()?);
        let before = shared.generation().read();
        let fd = self.freely(cx, || self.open_inode(&inode, OpenMode::RDONLY | OpenMode::DIRECTORY))?;
        let kind = self.config.dir_stream.unwrap_or(StreamKind::Snapshot);
        let stream = directory::open_for_all(kind, fd, shared, before);
        let directory = Arc::new(OpenDirectory::new(inode, stream));
        let kept = self.unopened.keep(node, Kept::Directory(Arc::clone(&directory)), permit);
        self.let_go_if_forgotten(node);
        Ok(if let Kept::Directory(kept) = kept { kept } else { directory })
    }

    /// What the end of one scan leaves: nobody says when the last one has ended, and another can have it opened again.
    pub(super) fn scan_ended(&self, cx: &Context, node: NodeId) {
        if opens_no_directories(cx) {
            self.unopened.let_go_directory(node);
        }
    }

    /// Leave to open one more file or directory.
    pub(super) fn room_for(&self, cx: &Context, node: NodeId) -> Result<Permit> {
        if opens_no_files(cx) { self.make_room(node) } else { Ok(self.files.permit()?) }
    }

    fn make_room(&self, node: NodeId) -> Result<Permit> {
        let (permit, gone) = self.unopened.permit(node)?;
        for kept in gone {
            if let Kept::File(file) = kept {
                // As at a release: for lack of descriptors the inode goes on by this one.
                let _ = file.inode.place.file_released(&self.fds, &file.fd);
            }
        }
        Ok(permit)
    }

    /// A request that was under way while its inode was forgotten leaves nothing behind.
    fn let_go_if_forgotten(&self, node: NodeId) {
        if self.inodes.get(node).is_err() {
            self.unopened.let_go(node);
        }
    }

    /// FLUSH of a file that was never opened. Nothing has to be brought back where the storage is local: the client is
    /// told to stop asking.
    pub(super) fn flush_unopened(&self, cx: &Context, node: NodeId) -> Result<()> {
        if !self.inode(cx, node)?.is_remote {
            return Err(Errno::ENOSYS.into());
        }
        for need in [Need::Write, Need::Append] {
            if let Some(file) = self.unopened.file(node, need) {
                file.bring_back()?;
            }
        }
        Ok(())
    }

    /// A name is about to be removed, and with it perhaps a file that the client has open. An inode that only a file
    /// handle stands for would be gone: from here on a descriptor holds it, until it is forgotten.
    pub(super) fn hold_last_name(&self, cx: &Context, dir: &Inode, name: Name<'_>) -> Result<()> {
        if !opens_no_files(cx) || !self.unopened.file_handles_in_use() {
            return Ok(());
        }
        // What keeps it from being found keeps it from being removed, and the removal says so.
        let Ok((inode, found)) = self.freely(cx, || self.find_child(dir, name)) else { return Ok(()) };
        let held = self.hold_if_last(&inode, &found);
        self.forget_inode(inode.id, 1);
        held
    }

    fn hold_if_last(&self, inode: &Inode, found: &host::Stat) -> Result<()> {
        if inode.kind != Kind::File || found.nlink != 1 || !inode.place.holds_none() {
            return Ok(());
        }
        let permit = self.make_room(inode.id)?;
        if let InodeFd::Shared(pin) = self.fd(inode)? {
            self.unopened.keep(inode.id, Kept::Last { _pin: pin }, permit);
        }
        Ok(())
    }
}
