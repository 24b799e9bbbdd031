//! CREATE and TMPFILE: files that are made and opened in one step.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use fuse_abi::{EntryOut, Errno, OpenOut};

use super::{Passthrough, inodes::Inode, namespace::noted, opened::mode_of, place::Place};
use crate::{
    coherence::walks::Asked,
    host::{self, Kind, Permit},
    protocol::{Context, Creation, Failure, Name, NodeId, OpenFlags, Result},
};

/// How often a CREATE tries when others make and remove the same name under its hands.
const RACES: usize = 64;

/// A file that was opened, with the reply's part about its inode.
type Made = (Arc<Inode>, Arc<OwnedFd>, EntryOut);

impl Passthrough {
    pub(super) fn create_file(
        &self,
        cx: &Context,
        parent: NodeId,
        name: Name<'_>,
        flags: OpenFlags,
        kill_suidgid: bool,
        new: &Creation<'_>,
    ) -> Result<(EntryOut, OpenOut)> {
        let dir = self.inode(cx, parent)?;
        self.require_directory(cx, Asked::Change, &dir)?;
        let permit = self.room_for(cx, parent)?;
        let host_flags = self.host_flags(flags);
        for _ in 0..RACES {
            match self.create_new(cx, &dir, name, host_flags, new) {
                Ok((inode, fd, entry)) => {
                    return Ok((entry, self.opened(cx, (fd, inode), host_flags, self.grants.file, permit)));
                }
                Err(Failure::Errno(Errno::EEXIST)) if !flags.exclusive() => {}
                Err(failure) => return Err(failure),
            }
            // Somebody was faster.
            match self.open_existing(cx, &dir, name, host_flags, kill_suidgid, new) {
                Ok((inode, fd, entry)) => {
                    return Ok((entry, self.opened(cx, (fd, inode), host_flags, self.grants.file, permit)));
                }
                // And faster again: it is gone.
                Err(Failure::Errno(Errno::ENOENT)) => {}
                Err(failure) => return Err(failure),
            }
        }
        Err(Errno::ESTALE.into())
    }

    /// Makes a file of that name, if there is nothing, and opens it.
    fn create_new(
        &self,
        cx: &Context,
        dir: &Inode,
        name: Name<'_>,
        flags: OpenFlags,
        new: &Creation<'_>,
    ) -> Result<Made> {
        let dir_fd = self.dir_fd(dir)?;
        let spare = self.reserve()?;
        let call = || host::create_at(dir_fd.as_fd(), name.as_c_str(), mode_of(flags), new.mode);
        let fd = noted(dir, self.creating(cx, new, call))?;
        self.walks.ended(cx.pid);
        let made = self.take_in_created(cx, dir, fd, spare, new);
        match &made {
            Ok((inode, ..)) => self.learn_name(self.inodes.hint(dir, name.as_bytes()), dir, name, inode),
            Err(_) => self.take_back(dir, name, Kind::File),
        }
        made
    }

    /// Opens what a CREATE met: if it is a file, and never if it is anything else.
    ///
    /// With the caller's own rights: the client saw no file, so it has not asked whether the caller may open this one.
    /// Where the host says no, ESTALE makes the client look again and decide.
    fn open_existing(
        &self,
        cx: &Context,
        dir: &Inode,
        name: Name<'_>,
        flags: OpenFlags,
        kill_suidgid: bool,
        new: &Creation<'_>,
    ) -> Result<Made> {
        let (inode, mut found) = self.freely(cx, || self.find_child(dir, name))?;
        self.walks.found(cx.pid, dir.id.0, Some(inode.id.0));
        let opened = self.open_as_caller(cx, &inode, flags, kill_suidgid, new).and_then(|fd| {
            if flags.truncate() {
                inode.changed_content();
                self.drop_mapped_capability(&inode)?;
                found = host::stat(fd.as_fd())?;
                inode.written_to();
            }
            Ok(fd)
        });
        match opened {
            Ok(fd) => {
                let entry = self.entry(cx, dir, &inode, &found);
                Ok((inode, Arc::new(fd), entry))
            }
            Err(errno) => {
                self.forget_inode(inode.id, 1);
                Err(errno.into())
            }
        }
    }

    fn open_as_caller(
        &self,
        cx: &Context,
        inode: &Inode,
        flags: OpenFlags,
        kill_suidgid: bool,
        new: &Creation<'_>,
    ) -> host::Result<OwnedFd> {
        match inode.kind {
            Kind::File => {}
            Kind::Directory => return Err(Errno::EISDIR),
            Kind::Symlink => return Err(Errno::ELOOP),
            Kind::Special => return Err(Errno::ENXIO),
        }
        let fd = self.fd(inode)?;
        self.act_as_creator(cx, new, kill_suidgid)?;
        match self.fds.reopen(fd.as_fd(), mode_of(flags)) {
            Err(Errno::EACCES | Errno::EPERM) => Err(Errno::ESTALE),
            done => done,
        }
    }

    pub(super) fn create_unnamed(
        &self,
        cx: &Context,
        parent: NodeId,
        flags: OpenFlags,
        new: &Creation<'_>,
    ) -> Result<(EntryOut, OpenOut)> {
        let dir = self.inode(cx, parent)?;
        let dir_fd = self.dir_fd(&dir)?;
        let permit = self.room_for(cx, parent)?;
        let spare = self.reserve()?;
        let flags = self.host_flags(flags);
        // A file that may be linked later: O_EXCL would forbid that.
        let fd = self.creating(cx, new, || host::create_unnamed(dir_fd.as_fd(), mode_of(flags), new.mode))?;
        let (inode, fd, entry) = self.take_in_created(cx, &dir, fd, spare, new)?;
        Ok((entry, self.opened(cx, (fd, inode), flags, self.grants.file, permit)))
    }

    /// A file that was just made: its descriptor serves handle and inode at once.
    fn take_in_created(
        &self,
        cx: &Context,
        dir: &Inode,
        fd: OwnedFd,
        spare: Option<Permit>,
        new: &Creation<'_>,
    ) -> Result<Made> {
        let found = host::stat(fd.as_fd())?;
        let fd = Arc::new(fd);
        let inode = match spare {
            Some(spare) => {
                let is_remote = self.is_remote(&found, fd.as_fd(), Some(dir));
                self.inodes.insert(&found, Place::created(Arc::clone(&fd), spare), is_remote)
            }
            None => self.take_in(self.fds.pin_again(fd.as_fd())?, &found, Some(dir), &mut None)?,
        };
        if let Err(failure) = self.label(&inode, new.security) {
            self.forget_inode(inode.id, 1);
            return Err(failure);
        }
        let entry = self.entry(cx, dir, &inode, &found);
        Ok((inode, fd, entry))
    }
}
