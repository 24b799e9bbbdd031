//! Making, moving and removing names.

use std::{os::fd::AsFd, sync::Arc};

use fuse_abi::{EntryOut, Errno};

use super::{Passthrough, inodes::Inode};
use crate::{
    coherence::walks::Asked,
    host::{self, Kind, RenameHow, Stat},
    protocol::{Context, Creation, Failure, Name, NodeId, RenameMode, Result, SecurityContext, SymlinkTarget},
};

/// The longest target that READLINK gives back.
const TARGET_ROOM: usize = 4096;

impl Passthrough {
    pub(super) fn make_symlink(
        &self,
        cx: &Context,
        parent: NodeId,
        name: Name<'_>,
        target: SymlinkTarget<'_>,
        new: &Creation<'_>,
    ) -> Result<EntryOut> {
        self.make(cx, (parent, name), Kind::Symlink, new, |dir| {
            host::make_symlink(target.as_c_str(), dir, name.as_c_str())
        })
    }

    pub(super) fn make_node(
        &self,
        cx: &Context,
        parent: NodeId,
        name: Name<'_>,
        rdev: u32,
        new: &Creation<'_>,
    ) -> Result<EntryOut> {
        self.make(cx, (parent, name), Kind::File, new, |dir| host::make_node(dir, name.as_c_str(), new.mode, rdev))
    }

    pub(super) fn make_directory(
        &self,
        cx: &Context,
        parent: NodeId,
        name: Name<'_>,
        new: &Creation<'_>,
    ) -> Result<EntryOut> {
        self.make(cx, (parent, name), Kind::Directory, new, |dir| host::make_directory(dir, name.as_c_str(), new.mode))
    }

    /// Makes a name as the caller, and looks it up. What cannot be told of is not left behind: it is removed as what it
    /// was made as, a directory or anything else.
    fn make(
        &self,
        cx: &Context,
        (parent, name): (NodeId, Name<'_>),
        kind: Kind,
        new: &Creation<'_>,
        call: impl Fn(std::os::fd::BorrowedFd<'_>) -> host::Result<()>,
    ) -> Result<EntryOut> {
        let dir = self.inode(cx, parent)?;
        self.require_directory(cx, Asked::Change, &dir)?;
        self.walks.ended(cx.pid);
        let dir_fd = self.dir_fd(&dir)?;
        let mut spare = self.reserve()?;
        let made = self.creating(cx, new, || call(dir_fd.as_fd()));
        noted(&dir, made)?;
        let (inode, found) = match self.freely(cx, || self.find_new_child(&dir, name, &mut spare)) {
            // Made, and removed by others already. The client tries again; its caller must not hear that a name is missing.
            Err(Failure::Errno(Errno::ENOENT)) => return Err(Errno::ESTALE.into()),
            Err(failure) => {
                self.take_back(&dir, name, kind);
                return Err(failure);
            }
            Ok(found) => found,
        };
        if let Err(failure) = self.label(&inode, new.security) {
            self.forget_inode(inode.id, 1);
            self.take_back(&dir, name, kind);
            return Err(failure);
        }
        Ok(self.entry(cx, &dir, &inode, &found))
    }

    /// Gives a new object the security label that came with its creation.
    pub(super) fn label(&self, inode: &Inode, security: Option<SecurityContext<'_>>) -> Result<()> {
        let Some(security) = security.filter(|_| self.config.security_label.is_wanted()) else { return Ok(()) };
        let name = crate::protocol::XattrName::new(security.name)?;
        let name = self.config.xattr_map.to_host(name)?;
        self.as_server()?;
        let fd = self.fd(inode)?;
        Ok(host::set_xattr(&self.fds, fd.as_fd(), &name, security.value, 0)?)
    }

    /// Removes what could not be finished: a guest must not find an object without the label it asked for, nor one of
    /// which it was told that it was not made.
    pub(super) fn take_back(&self, dir: &Inode, name: Name<'_>, kind: Kind) {
        let Ok(dir_fd) = self.dir_fd(dir) else { return };
        let removed = match kind {
            Kind::Directory => host::remove_directory(dir_fd.as_fd(), name.as_c_str()),
            _ => host::remove_file(dir_fd.as_fd(), name.as_c_str()),
        };
        if let Err(errno) = removed {
            log::warn!("an object that could not be finished stays behind: {errno}");
        }
        dir.changed_by_guest();
    }

    pub(super) fn remove(&self, cx: &Context, parent: NodeId, name: Name<'_>, directory: bool) -> Result<()> {
        let dir = self.inode(cx, parent)?;
        self.require_directory(cx, Asked::Change, &dir)?;
        self.walks.ended(cx.pid);
        if !directory {
            self.hold_last_name(cx, &dir, name)?;
        }
        let dir_fd = self.dir_fd(&dir)?;
        let removed = self.freely(cx, || {
            if directory {
                host::remove_directory(dir_fd.as_fd(), name.as_c_str())
            } else {
                host::remove_file(dir_fd.as_fd(), name.as_c_str())
            }
        });
        noted(&dir, removed)?;
        self.unlearn_name(&dir, name);
        Ok(())
    }

    pub(super) fn move_name(
        &self,
        cx: &Context,
        from: (NodeId, Name<'_>),
        to: (NodeId, Name<'_>),
        mode: RenameMode,
    ) -> Result<()> {
        let how = match mode {
            RenameMode::Replace => RenameHow::default(),
            RenameMode::NoReplace => RenameHow { no_replace: true, ..RenameHow::default() },
            RenameMode::Exchange => RenameHow { exchange: true, ..RenameHow::default() },
            RenameMode::Whiteout { no_replace } => RenameHow { whiteout: true, no_replace, ..RenameHow::default() },
        };
        let (old, new) = (self.inode(cx, from.0)?, self.inode(cx, to.0)?);
        for dir in [&old, &new] {
            self.require_directory(cx, Asked::Change, dir)?;
        }
        self.walks.ended(cx.pid);
        if !how.no_replace && !how.exchange {
            self.hold_last_name(cx, &new, to.1)?;
        }
        let (old_fd, new_fd) = (self.dir_fd(&old)?, self.dir_fd(&new)?);
        let moved = self
            .freely(cx, || host::rename((old_fd.as_fd(), from.1.as_c_str()), (new_fd.as_fd(), to.1.as_c_str()), how));
        if !Arc::ptr_eq(&old, &new) {
            let _ = noted(&old, moved);
        }
        noted(&new, moved)?;
        self.move_known((&old, from.1), (&new, to.1), how.exchange);
        Ok(())
    }

    pub(super) fn make_link(&self, cx: &Context, node: NodeId, parent: NodeId, name: Name<'_>) -> Result<EntryOut> {
        let (inode, dir) = (self.inode(cx, node)?, self.inode(cx, parent)?);
        self.require_path(cx, Asked::Change, &inode)?;
        self.require_directory(cx, Asked::Change, &dir)?;
        self.walks.ended(cx.pid);
        let (fd, dir_fd) = (self.fd(&inode)?, self.dir_fd(&dir)?);
        // As the server: a user may link what is not theirs where the guest's kernel lets them.
        self.as_server()?;
        let made = host::make_link(&self.fds, fd.as_fd(), dir_fd.as_fd(), name.as_c_str());
        noted(&dir, made.map_err(Into::into))?;
        let found: Stat = host::stat(fd.as_fd())?;
        let inode = self.inodes.find(&inode.identity).ok_or(Errno::ESTALE)?;
        self.learn_name(self.inodes.hint(&dir, name.as_bytes()), &dir, name, &inode);
        Ok(self.entry(cx, &dir, &inode, &found))
    }

    pub(super) fn link_target(&self, cx: &Context, node: NodeId, body: &mut crate::protocol::Body<'_>) -> Result<()> {
        let inode = self.inode(cx, node)?;
        if inode.kind != Kind::Symlink {
            return Err(Errno::EINVAL.into());
        }
        self.require_path(cx, Asked::Link, &inode)?;
        if self.walks.circles(cx.pid) {
            return Err(Errno::ELOOP.into());
        }
        let mut target = [0; TARGET_ROOM];
        let len = host::read_link(self.fd(&inode)?.as_fd(), &mut target)?;
        let target = target.get(..len).ok_or(Errno::EIO)?;
        if body.put(target) { Ok(()) } else { Err(Errno::ENAMETOOLONG.into()) }
    }
}

/// Bumps a directory's generation after a call that may have changed it, and passes on how the call went.
pub(super) fn noted<T>(dir: &Inode, outcome: Result<T>) -> Result<T> {
    if !matches!(outcome, Err(Failure::Errno(errno)) if changed_nothing(errno)) {
        dir.changed_by_guest();
    }
    outcome
}

/// Whether a call that failed so certainly left the directory as it was.
const fn changed_nothing(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EPERM
            | Errno::ENOENT
            | Errno::EACCES
            | Errno::EBUSY
            | Errno::EEXIST
            | Errno::EXDEV
            | Errno::ENOTDIR
            | Errno::EISDIR
            | Errno::EINVAL
            | Errno::EMLINK
            | Errno::EROFS
            | Errno::ENAMETOOLONG
            | Errno::ENOTEMPTY
            | Errno::ELOOP
            | Errno::EOPNOTSUPP
            | Errno::EOVERFLOW
    )
}
