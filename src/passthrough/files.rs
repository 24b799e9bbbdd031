//! Open files: opening, reading, writing, and what else is done through a handle.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, atomic::Ordering},
};

use fuse_abi::{Errno, OpenOut, OpenOutFlags};

use super::{
    Passthrough,
    inodes::Inode,
    on_demand::opens_no_files,
    opened::{OpenFile, mode_of},
    unopened::Need,
};
use crate::{
    coherence::{habit::Habit, walks::Asked},
    host::{self, Kind, OpenMode, Permit, Seek, Storage},
    protocol::{
        Access, Body, Context, CopyRange, Failure, HandleId, Ioctl, IoctlData, NodeId, OpenFlags, Payload, ReadArgs,
        Result, Whence, WriteArgs,
    },
};

impl Passthrough {
    /// The open file of that handle, if it is one of that inode's.
    pub(super) fn file(&self, node: NodeId, handle: HandleId) -> host::Result<Arc<OpenFile>> {
        self.files.get(handle).and_then(|file| if file.inode.id == node { Ok(file) } else { Err(Errno::EBADF) })
    }

    pub(super) fn open_file(
        &self,
        cx: &Context,
        node: NodeId,
        flags: OpenFlags,
        kill_suidgid: bool,
    ) -> Result<OpenOut> {
        if opens_no_files(cx) {
            return Err(Errno::ENOSYS.into());
        }
        let inode = self.inode(cx, node)?;
        if inode.kind == Kind::Directory {
            return Err(Errno::EISDIR.into());
        }
        let permit = self.files.permit()?;
        let granted = self.judge_open(cx, &inode)?;
        let flags = self.host_flags(flags);
        let fd = if flags.truncate() {
            inode.changed_content();
            self.keep_suid_at_open(cx, kill_suidgid)?;
            self.open_inode(&inode, unleased(cx, mode_of(flags))).map_err(leased(cx))?
        } else {
            self.open_freely(cx, &inode, mode_of(flags))?
        };
        if flags.truncate() {
            self.drop_mapped_capability(&inode)?;
            // Until its FLUSH: what the guest makes of it is its own work.
            inode.written_to();
        }
        Ok(self.opened(cx, (Arc::new(fd), inode), flags, granted, permit))
    }

    /// Opens what the guest has allowed to whoever asks.
    pub(super) fn open_freely(&self, cx: &Context, inode: &Inode, mode: OpenMode) -> Result<OwnedFd> {
        let mode = unleased(cx, mode);
        self.freely(cx, || self.open_inode(inode, mode)).map_err(|failure| match failure {
            Failure::Errno(errno) => leased(cx)(errno),
            Failure::WouldBlock => failure,
        })
    }

    /// What an OPEN is granted: decided by the cache mode alone, or for a coherent guest by what it knows.
    fn judge_open(&self, cx: &Context, inode: &Inode) -> Result<OpenOutFlags> {
        if !inode.is_followed() {
            return Ok(self.grants.file);
        }
        let (_, seen) = self.look(inode)?;
        let Some(mut known) = inode.known() else { return Ok(self.grants.file) };
        if self.walks.send_back(cx.pid, Asked::Open, inode.id.0, known.record.is_doubtful(&seen)) {
            return Err(Errno::ESTALE.into());
        }
        let keep = known.record.grant_open(&seen);
        drop(known);
        self.note_habit(inode, Habit::opened);
        let keep = if keep && self.is_proven(inode) { OpenOutFlags::KEEP_CACHE } else { OpenOutFlags::empty() };
        Ok(self.grants.file | keep)
    }

    pub(super) fn opened(
        &self,
        cx: &Context,
        (fd, inode): (Arc<OwnedFd>, Arc<Inode>),
        flags: OpenFlags,
        granted: OpenOutFlags,
        permit: Permit,
    ) -> OpenOut {
        let storage = self.storage_of(&inode, &fd);
        let file = OpenFile::new(fd, inode, storage, flags);
        if opens_no_files(cx) {
            return self.created_unopened(file, granted, permit);
        }
        let handle = self.files.insert(Arc::new(file), permit);
        // Nothing is to be brought back when such a handle closes, and locks are the guest's own.
        let granted = if flags.access() == Access::Read { granted | OpenOutFlags::NOFLUSH } else { granted };
        OpenOut { fh: handle.0, open_flags: granted.bits(), ..OpenOut::default() }
    }

    /// What a guest's flags become on the host.
    pub(super) fn host_flags(&self, flags: OpenFlags) -> OpenFlags {
        let mut flags = flags;
        if self.config.writeback {
            // The guest reads pages of files it only writes, and knows the end of a file better than the host.
            if flags.access() == Access::Write {
                flags = flags.with_access(Access::ReadWrite);
            }
            flags = flags.without_append();
        }
        if !self.config.allow_direct_io {
            flags = flags.without_direct();
        }
        if !self.config.preserve_noatime {
            flags = flags.without_no_atime();
        }
        flags
    }

    pub(super) fn read_file(&self, cx: &Context, node: NodeId, args: &ReadArgs, body: &mut Body<'_>) -> Result<()> {
        let file = self.file_for(cx, node, args.handle, Need::Read)?;
        if cx.may_block {
            let count = host::read_at(file.fd.as_fd(), body.unfilled(), args.offset, false)?;
            body.filled(count);
            return Ok(());
        }
        if file.direct || file.storage == Storage::Remote {
            cx.leave_to_block()?;
        }
        file.read_cached(args.offset, body)
    }

    pub(super) fn write_file(&self, cx: &Context, node: NodeId, args: &WriteArgs, payload: Payload<'_>) -> Result<u32> {
        let appends = args.flags.append() && !args.from_cache && !self.config.writeback;
        let need = if appends { Need::Append } else { Need::Write };
        let file = self.file_for(cx, node, args.handle, need)?;
        // Another descriptor of the guest's may have been opened otherwise than this file.
        let sync = opens_no_files(cx) && !file.synchronous && (args.flags.sync() || args.flags.data_sync());
        if sync || file.direct || file.synchronous || file.storage == Storage::Remote {
            cx.leave_to_block()?;
        }
        self.keep_suid(cx, args.kill_suidgid)?;
        let written = self.write_at(cx, &file, args, payload);
        file.changed();
        let count = written?;
        self.drop_mapped_capability(&file.inode)?;
        if sync {
            host::sync_file(file.fd.as_fd(), !args.flags.sync())?;
        }
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    fn write_at(&self, cx: &Context, file: &OpenFile, args: &WriteArgs, payload: Payload<'_>) -> host::Result<usize> {
        // What the guest's cache writes back belongs where it was read from, though the descriptor appends.
        let in_place = file.appends && args.from_cache;
        match host::write_at(file.fd.as_fd(), payload.segments(), args.offset, in_place) {
            Err(Errno::EOPNOTSUPP | Errno::EINVAL) if in_place => {
                self.as_server()?;
                let opened = self.open_inode(&file.inode, OpenMode::WRONLY)?;
                self.keep_suid(cx, args.kill_suidgid)?;
                host::write_at(opened.as_fd(), payload.segments(), args.offset, false)
            }
            done => done,
        }
    }

    pub(super) fn flush_file(&self, cx: &Context, node: NodeId, handle: HandleId) -> Result<()> {
        if opens_no_files(cx) {
            return self.flush_unopened(cx, node);
        }
        let file = self.file(node, handle)?;
        if file.storage == Storage::Remote {
            cx.leave_to_block()?;
            file.bring_back()?;
        }
        if file.dirty.swap(false, Ordering::Relaxed) && file.inode.is_followed() {
            let (_, seen) = self.look(&file.inode)?;
            if let Some(mut known) = file.inode.known() {
                known.record.written(seen.print);
            }
        }
        Ok(())
    }

    pub(super) fn release_file(&self, cx: &Context, node: NodeId, handle: HandleId) -> Result<()> {
        if opens_no_files(cx) {
            return Ok(());
        }
        if self.file(node, handle)?.storage == Storage::Remote {
            cx.leave_to_block()?;
        }
        let file = self.files.remove(handle, |file| file.inode.id == node)?;
        if file.dirty.load(Ordering::Relaxed)
            && let Some(mut known) = file.inode.known()
        {
            known.record.doubt();
        }
        // Without a pin of its own the inode goes on by this file: a release cannot fail, least of all for lack of
        // descriptors.
        let _ = file.inode.place.file_released(&self.fds, &file.fd);
        Ok(())
    }

    pub(super) fn sync_file(&self, cx: &Context, node: NodeId, handle: HandleId, data_only: bool) -> Result<()> {
        let file = self.file_for(cx, node, handle, Need::Any)?;
        if file.storage != Storage::Memory {
            cx.leave_to_block()?;
        }
        Ok(host::sync_file(file.fd.as_fd(), data_only)?)
    }

    /// Brings to the disk the file system that holds an inode: each submount is one of its own.
    pub(super) fn sync_all(&self, cx: &Context, node: NodeId) -> Result<()> {
        let inode = self.inode(cx, node)?;
        cx.leave_to_block()?;
        self.as_server()?;
        let opened = self.open_inode(&inode, OpenMode::RDONLY)?;
        Ok(host::sync_file_system(opened.as_fd())?)
    }

    pub(super) fn allocate(
        &self,
        cx: &Context,
        node: NodeId,
        handle: HandleId,
        mode: u32,
        range: (u64, u64),
    ) -> Result<()> {
        let file = self.file_for(cx, node, handle, Need::Write)?;
        cx.leave_to_block()?;
        self.keep_suid(cx, cx.uid != 0)?;
        host::allocate(file.fd.as_fd(), mode, range.0, range.1)?;
        file.changed();
        Ok(self.drop_mapped_capability(&file.inode)?)
    }

    pub(super) fn seek_file(
        &self,
        cx: &Context,
        node: NodeId,
        handle: HandleId,
        offset: u64,
        whence: Whence,
    ) -> Result<u64> {
        let file = self.file_for(cx, node, handle, Need::Read)?;
        if file.storage == Storage::Remote {
            cx.leave_to_block()?;
        }
        let from = match whence {
            Whence::Start => Seek::Start,
            Whence::Current => Seek::Current,
            Whence::End => Seek::End,
            Whence::Data => Seek::Data,
            Whence::Hole => Seek::Hole,
        };
        // The number is signed where it is counted from the end or the present position.
        Ok(host::seek(file.fd.as_fd(), offset as i64, from)?)
    }

    pub(super) fn copy_range(&self, cx: &Context, range: &CopyRange) -> Result<u64> {
        let from = self.file_for(cx, range.from.0, range.from.1, Need::Read)?;
        let to = self.file_for(cx, range.to.0, range.to.1, Need::Write)?;
        cx.leave_to_block()?;
        self.keep_suid(cx, cx.uid != 0)?;
        let copied =
            host::copy_range((from.fd.as_fd(), range.from_offset), (to.fd.as_fd(), range.to_offset), range.len)?;
        to.changed();
        self.drop_mapped_capability(&to.inode)?;
        Ok(copied)
    }

    pub(super) fn inode_ioctl(
        &self,
        cx: &Context,
        node: NodeId,
        handle: HandleId,
        request: &Ioctl,
    ) -> Result<IoctlData> {
        let inode = self.inode(cx, node)?;
        if inode.kind == Kind::Directory {
            let dir = self.directory_for(cx, node, handle)?;
            return self.ioctl_as(cx, dir.stream.descriptor(), request);
        }
        let file = self.file_for(cx, node, handle, Need::Any)?;
        self.ioctl_as(cx, file.fd.as_fd(), request)
    }

    fn ioctl_as(&self, cx: &Context, fd: BorrowedFd<'_>, request: &Ioctl) -> Result<IoctlData> {
        match request {
            Ioctl::GetFlags | Ioctl::GetExtended => self.as_server()?,
            // Clients before Linux 5.13 leave it to the server who may change them.
            Ioctl::SetFlags(_) | Ioctl::SetExtended(_) => self.as_caller(cx)?,
        }
        Ok(ioctl_on(fd, request)?)
    }

    pub(super) fn storage_of(&self, inode: &Inode, fd: &OwnedFd) -> Storage {
        self.mounts.storage(&inode.identity, fd.as_fd())
    }
}

/// How a thread that must not wait opens a file: a process of the host's that holds a lease on it, as file servers do, is
/// asked to give it up, and may take its time.
pub(super) fn unleased(cx: &Context, mode: OpenMode) -> OpenMode {
    if cx.may_block { mode } else { mode | OpenMode::NONBLOCK }
}

/// What such a thread makes of the answer.
pub(super) fn leased(cx: &Context) -> impl Fn(Errno) -> Failure {
    let may_block = cx.may_block;
    move |errno| if errno == Errno::EAGAIN && !may_block { Failure::WouldBlock } else { errno.into() }
}

fn ioctl_on(fd: BorrowedFd<'_>, request: &Ioctl) -> host::Result<IoctlData> {
    match request {
        Ioctl::GetFlags => host::inode_flags(fd).map(IoctlData::Flags),
        Ioctl::SetFlags(flags) => host::set_inode_flags(fd, *flags).map(|()| IoctlData::Nothing),
        Ioctl::GetExtended => host::extended_flags(fd).map(IoctlData::Extended),
        Ioctl::SetExtended(flags) => host::set_extended_flags(fd, flags).map(|()| IoctlData::Nothing),
    }
}
