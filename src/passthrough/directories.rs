//! Open directories and their listings.

use std::{
    ops::ControlFlow,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use fuse_abi::{EntryOut, Errno, OpenOut, OpenOutFlags};

use super::{Passthrough, inodes::Inode, on_demand::opens_no_directories, opened::OpenDirectory};
use crate::{
    coherence::walks::Asked,
    directory::{self, Entry, StreamKind},
    host::{self, Kind, OpenMode, Storage},
    protocol::{Context, DirectoryReply, Failure, HandleId, Name, NodeId, ReadDirArgs, Result},
};

impl Passthrough {
    /// The open directory of that handle, if it is one of that inode's.
    pub(super) fn directory(&self, node: NodeId, handle: HandleId) -> host::Result<Arc<OpenDirectory>> {
        self.directories.get(handle).and_then(|dir| if dir.inode.id == node { Ok(dir) } else { Err(Errno::EBADF) })
    }

    pub(super) fn open_directory(&self, cx: &Context, node: NodeId) -> Result<OpenOut> {
        if opens_no_directories(cx) {
            return Err(Errno::ENOSYS.into());
        }
        let inode = self.inode(cx, node)?;
        if inode.kind != Kind::Directory {
            return Err(Errno::ENOTDIR.into());
        }
        let permit = self.directories.permit()?;
        let granted = self.judge_opendir(cx, &inode)?;
        self.follow(&inode);
        let shared = Arc::clone(inode.directory()?);
        let before = shared.generation().read();
        let fd = self.freely(cx, || self.open_inode(&inode, OpenMode::RDONLY | OpenMode::DIRECTORY))?;
        let stream = directory::open(self.stream_kind(&inode, fd.as_fd()), fd, shared, before);
        let handle = self.directories.insert(Arc::new(OpenDirectory::new(inode, stream)), permit);
        Ok(OpenOut { fh: handle.0, open_flags: granted.bits(), ..OpenOut::default() })
    }

    /// What an OPENDIR is granted: decided by the cache mode alone, or for a coherent guest by what it knows.
    fn judge_opendir(&self, cx: &Context, inode: &Inode) -> Result<OpenOutFlags> {
        if !inode.is_followed() {
            return Ok(self.grants.directory);
        }
        let (_, seen) = self.look(inode)?;
        self.judge_path(cx, Asked::Open, inode, seen.leads_here)?;
        let valid = u32::try_from(self.grants.attributes.as_millis()).unwrap_or(u32::MAX);
        let (now, asker) = (self.milliseconds(), || self.askers.will_ask(cx.pid));
        let keep = inode.known().is_some_and(|mut known| known.keeps_listing(&seen, now, valid, asker));
        if !self.is_proven(inode) {
            return Ok(self.grants.directory - OpenOutFlags::CACHE_DIR);
        }
        let keep = if keep { OpenOutFlags::KEEP_CACHE } else { OpenOutFlags::empty() };
        Ok(self.grants.directory | keep)
    }

    fn stream_kind(&self, inode: &Inode, fd: BorrowedFd<'_>) -> StreamKind {
        let kind = self.config.dir_stream;
        kind.unwrap_or_else(|| match self.mounts.storage(&inode.identity, fd) {
            Storage::Memory => StreamKind::Snapshot,
            Storage::Disk | Storage::Remote => StreamKind::default(),
        })
    }

    /// The directory that is listed, for a thread that may wait where reading it may make it wait.
    fn listed(&self, cx: &Context, node: NodeId, handle: HandleId) -> Result<Arc<OpenDirectory>> {
        let dir = self.directory_for(cx, node, handle)?;
        if dir.inode.is_remote {
            cx.leave_to_block()?;
        }
        Ok(dir)
    }

    pub(super) fn list(
        &self,
        cx: &Context,
        node: NodeId,
        args: &ReadDirArgs,
        reply: &mut DirectoryReply<'_, '_>,
    ) -> Result<()> {
        self.scan(cx, node, args, |dir, entry| {
            keep_going(reply.push(self.shown_ino(dir, entry), entry.next, entry.kind, entry.name))
        })?;
        Ok(())
    }

    /// Reads a directory from where the request says. Gives it back.
    fn scan(
        &self,
        cx: &Context,
        node: NodeId,
        args: &ReadDirArgs,
        mut each: impl FnMut(&Inode, &Entry<'_>) -> ControlFlow<()>,
    ) -> Result<Arc<OpenDirectory>> {
        let mut read = || {
            let dir = self.listed(cx, node, args.handle)?;
            let mut ended = true;
            dir.stream.read(args.offset, &mut |entry| {
                ended = false;
                each(&dir.inode, entry)
            })?;
            if ended {
                self.scan_ended(cx, node);
            }
            Ok(dir)
        };
        match read() {
            // Snapshots have used up their memory, and nobody else would give any back.
            Err(Failure::Errno(Errno::ENFILE)) if opens_no_directories(cx) => {
                self.unopened.let_directories_go();
                read()
            }
            done => done,
        }
    }

    pub(super) fn list_plus(
        &self,
        cx: &Context,
        node: NodeId,
        args: &ReadDirArgs,
        reply: &mut DirectoryReply<'_, '_>,
    ) -> Result<()> {
        let mut entries = 0_u32;
        let dir = self.scan(cx, node, args, |dir, entry| {
            // Asked first: a lookup that does not fit would have to be undone.
            if !reply.has_room_plus(entry.name) {
                return ControlFlow::Break(());
            }
            let node = self.entry_of(cx, dir, entry);
            let ino = self.shown_ino(dir, entry);
            let pushed = reply.push_plus(&node, ino, entry.next, entry.kind, entry.name);
            if !pushed && node.nodeid != 0 {
                self.forget_inode(NodeId(node.nodeid), 1);
            }
            entries = entries.saturating_add(u32::from(pushed));
            keep_going(pushed)
        })?;
        if let Some(mut known) = dir.inode.known() {
            known.habit.get_or_insert_default().listed(args.offset == 0, entries, self.milliseconds());
        }
        Ok(())
    }

    /// The lookup that goes with an entry. A child that has vanished, or cannot be looked up, goes without: the client
    /// then asks for it by name. Dots never carry a reference.
    fn entry_of(&self, cx: &Context, dir: &Inode, entry: &Entry<'_>) -> EntryOut {
        let mut terminated = [0; crate::protocol::NAME_MAX + 1];
        let name = terminated
            .get_mut(..entry.name.len())
            .map(|room| room.copy_from_slice(entry.name))
            .and_then(|()| std::ffi::CStr::from_bytes_until_nul(&terminated).ok())
            .and_then(|name| Name::new(name).ok());
        let Some(name) = name.filter(|name| !self.leads_away(cx, dir, *name)) else { return EntryOut::default() };
        match self.freely(cx, || self.find_child(dir, name)) {
            Ok((inode, found)) => self.entry(cx, dir, &inode, &found),
            Err(_) => EntryOut::default(),
        }
    }

    /// What lies above the share is none of the guest's business.
    fn shown_ino(&self, dir: &Inode, entry: &Entry<'_>) -> u64 {
        if entry.name == b".." && dir.id == NodeId::ROOT { dir.identity.ino } else { entry.ino }
    }

    pub(super) fn release_directory(&self, cx: &Context, node: NodeId, handle: HandleId) -> Result<()> {
        if opens_no_directories(cx) {
            return Ok(());
        }
        self.directories.remove(handle, |dir| dir.inode.id == node)?;
        Ok(())
    }

    pub(super) fn sync_directory(&self, cx: &Context, node: NodeId, handle: HandleId, data_only: bool) -> Result<()> {
        let dir = self.directory_for(cx, node, handle)?;
        let fd = dir.stream.descriptor();
        if self.mounts.storage(&dir.inode.identity, fd.as_fd()) != Storage::Memory {
            cx.leave_to_block()?;
        }
        Ok(host::sync_file(fd.as_fd(), data_only)?)
    }
}

const fn keep_going(taken: bool) -> ControlFlow<()> {
    if taken { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}
