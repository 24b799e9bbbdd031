//! From a name to an inode: the one way by which a guest comes to know an object.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use fuse_abi::{EntryOut, Errno};

use super::{
    Passthrough,
    config::InodeFileHandles,
    inodes::Inode,
    place::{InodeFd, Place},
};
use crate::{
    coherence::walks::Asked,
    host::{self, FileHandle, Kind, OpenMode, Permit, Stat, Storage},
    protocol::{Context, Failure, LookupName, Name, NodeId, Result},
};

/// How many steps up a lookup of `..` checks that it is still inside the share.
const DEEPEST: usize = 4096;

impl Passthrough {
    /// The inode of that number, for a thread that may wait where its storage makes it wait.
    pub(super) fn inode(&self, cx: &Context, node: NodeId) -> Result<Arc<Inode>> {
        let inode = self.inodes.get(node)?;
        if inode.is_remote {
            cx.leave_to_block()?;
        }
        Ok(inode)
    }

    pub(super) fn lookup_entry(&self, cx: &Context, parent: NodeId, name: LookupName<'_>) -> Result<EntryOut> {
        let dir = self.inode(cx, parent)?;
        let (inode, found) = match name {
            LookupName::Name(name) if self.leads_away(cx, &dir, name) => return Err(Failure::WouldBlock),
            LookupName::Name(name) => match self.freely(cx, || self.find_child(&dir, name)) {
                Err(Failure::Errno(errno @ (Errno::ENOENT | Errno::ENOTDIR))) => {
                    let hidden = self.is_hidden(&dir, name)?;
                    if self.walks.send_back(cx.pid, Asked::Name, dir.id.0, hidden) {
                        return Err(Errno::ESTALE.into());
                    }
                    self.walks.found(cx.pid, dir.id.0, None);
                    return self.missing(cx, &dir, name).ok_or(errno.into());
                }
                found => {
                    let (inode, found) = found?;
                    self.walks.send_back(cx.pid, Asked::Name, dir.id.0, false);
                    self.walks.found(cx.pid, dir.id.0, Some(inode.id.0));
                    (inode, found)
                }
            },
            LookupName::Dot => self.again(&dir)?,
            LookupName::DotDot => self.find_parent(&dir)?,
        };
        Ok(self.entry(cx, &dir, &inode, &found))
    }

    /// Whether remote storage is known to be mounted under this name, and this thread must not wait for it.
    pub(super) fn leads_away(&self, cx: &Context, dir: &Inode, name: Name<'_>) -> bool {
        if cx.may_block || !self.mounts.any_remote() {
            return false;
        }
        let expected = self.inodes.expected(self.inodes.hint(dir, name.as_bytes()));
        expected.is_some_and(|inode| inode.is_remote)
    }

    /// The child of that name, with one reference more.
    ///
    /// One system call when it is known or missing, two when it is new; three when it is new after many that were missing.
    pub(super) fn find_child(&self, dir: &Inode, name: Name<'_>) -> host::Result<(Arc<Inode>, Stat)> {
        self.follow(dir);
        let hint = self.inodes.hint(dir, name.as_bytes());
        if !self.inodes.expects(hint) {
            if dir.is_searched_in_vain() {
                // To look costs less than to fail to open.
                host::stat_at(self.dir_fd(dir)?.as_fd(), name.as_c_str())?;
            }
            let found = self.find_new_child(dir, name, &mut None);
            dir.note_search(found.is_ok());
            return found;
        }
        let dir_fd = self.dir_fd(dir)?;
        let found = host::stat_at(dir_fd.as_fd(), name.as_c_str()).inspect_err(|errno| {
            if *errno == Errno::ENOENT {
                self.unlearn_name(dir, name);
            }
        })?;
        match self.find_known(&found, |place| place.is_entry(dir_fd.as_fd(), name.as_c_str())) {
            Some(inode) => {
                self.learn_name(hint, dir, name, &inode);
                Ok((inode, found))
            }
            None => self.find_new_child(dir, name, &mut None),
        }
    }

    /// As [`find_child`](Self::find_child), for one that is not expected to be known; `spare` is leave to hold it, and is
    /// taken only where it is used.
    pub(super) fn find_new_child(
        &self,
        dir: &Inode,
        name: Name<'_>,
        spare: &mut Option<Permit>,
    ) -> host::Result<(Arc<Inode>, Stat)> {
        let pin = host::pin_at(self.dir_fd(dir)?.as_fd(), name.as_c_str())?;
        let found = host::stat(pin.as_fd())?;
        let inode = self.take_in(pin, &found, Some(dir), spare)?;
        self.learn_name(self.inodes.hint(dir, name.as_bytes()), dir, name, &inode);
        Ok((inode, found))
    }

    /// The inode that is known for `found`, unless its number was used again for another object.
    fn find_known(&self, found: &Stat, same: impl FnOnce(&Place) -> bool) -> Option<Arc<Inode>> {
        let inode = self.inodes.find(&found.identity)?;
        if same(&inode.place) {
            return Some(inode);
        }
        self.forget_inode(inode.id, 1);
        None
    }

    /// Gives back references, and with the last one what is kept of the inode.
    pub(super) fn forget_inode(&self, id: NodeId, count: u64) {
        let Some(gone) = self.inodes.forget(id, count) else { return };
        self.unfollow(&gone);
        if gone.kind == Kind::Directory && gone.place.holds_none() {
            self.kept.let_go(id);
        }
        if self.config.no_open {
            self.unopened.let_go(id);
        }
        drop(gone);
        self.give_back_memory();
    }

    /// Gives the system back the memory of many inodes that have gone.
    pub(super) fn give_back_memory(&self) {
        if self.inodes.has_ebbed() {
            host::give_back_memory();
        }
    }

    /// Makes a pinned object known, with one reference more. `dir` is where it was found.
    pub(super) fn take_in(
        &self,
        pin: OwnedFd,
        found: &Stat,
        dir: Option<&Inode>,
        spare: &mut Option<Permit>,
    ) -> host::Result<Arc<Inode>> {
        if let Some(inode) = self.find_known(found, |place| place.is(pin.as_fd())) {
            return Ok(inode);
        }
        let is_remote = self.is_remote(found, pin.as_fd(), dir);
        let place = self.place(pin, found, dir, spare.take())?;
        Ok(self.inodes.insert(found, place, is_remote))
    }

    /// Whether an object found in `dir` is another machine's or process's: like the directory, unless something else is
    /// mounted there.
    pub(super) fn is_remote(&self, found: &Stat, object: BorrowedFd<'_>, dir: Option<&Inode>) -> bool {
        match dir {
            Some(dir) if dir.identity.dev == found.identity.dev => dir.is_remote,
            _ => self.mounts.storage(&found.identity, object) == Storage::Remote,
        }
    }

    /// Leave to hold one more inode by descriptor, or none where file handles go on. Asked before something is made, so
    /// that nothing is made that could not be told of.
    pub(super) fn reserve(&self) -> host::Result<Option<Permit>> {
        match self.config.inode_file_handles {
            InodeFileHandles::Mandatory => Ok(None),
            InodeFileHandles::Prefer => Ok(self.descriptors.take()),
            InodeFileHandles::Never => self.descriptors.take().map(Some).ok_or(Errno::ENFILE),
        }
    }

    /// Decides how an inode holds its object: by descriptor within the budget, by file handle beyond it.
    fn place(&self, pin: OwnedFd, found: &Stat, dir: Option<&Inode>, spare: Option<Permit>) -> host::Result<Place> {
        let spare = if spare.is_some() { spare } else { self.reserve()? };
        if let Some(permit) = spare {
            return Ok(Place::pinned(pin, permit));
        }
        // What cannot be kept without a descriptor is refused as what there is no descriptor for, if there ever is one.
        let refuse =
            |errno| if self.config.inode_file_handles == InodeFileHandles::Mandatory { errno } else { Errno::ENFILE };
        let handle = FileHandle::of(pin.as_fd()).map_err(refuse)?;
        let mount = self.mount_of(&pin, found, dir).map_err(refuse)?;
        self.unopened.note_file_handle();
        Ok(Place::handle(handle, mount))
    }

    /// Something open on an object's mount: the directory it was found in, or itself where it is what is mounted there.
    fn mount_of(&self, pin: &OwnedFd, found: &Stat, dir: Option<&Inode>) -> host::Result<Arc<OwnedFd>> {
        if let Some(mount) = self.mounts.of(found) {
            return Ok(mount);
        }
        self.as_server()?;
        let open = match dir.filter(|dir| dir.identity.shares_mount(&found.identity)) {
            Some(dir) => self.open_inode(dir, OpenMode::RDONLY | OpenMode::DIRECTORY)?,
            None if matches!(found.kind(), Kind::Directory | Kind::File) => {
                self.fds.reopen(pin.as_fd(), OpenMode::RDONLY)?
            }
            None => return Err(Errno::EOPNOTSUPP),
        };
        Ok(self.mounts.learn(found, open))
    }

    /// The same inode once more.
    fn again(&self, inode: &Arc<Inode>) -> Result<(Arc<Inode>, Stat)> {
        let found = host::stat(self.fd(inode)?.as_fd())?;
        if inode.id == NodeId::ROOT {
            return Ok((Arc::clone(inode), found));
        }
        // Counted only while it is still in the table: the guest may be forgetting it at this moment.
        let inode = self.inodes.find(&inode.identity).ok_or(Errno::ESTALE)?;
        Ok((inode, found))
    }

    fn find_parent(&self, dir: &Arc<Inode>) -> Result<(Arc<Inode>, Stat)> {
        let root = self.inodes.root();
        if dir.identity == root.identity {
            return self.again(root);
        }
        if dir.kind != Kind::Directory {
            return Err(Errno::ENOTDIR.into());
        }
        self.as_server()?;
        let pin = host::pin_parent(self.fd(dir)?.as_fd())?;
        let found = host::stat(pin.as_fd())?;
        if found.identity == root.identity {
            return self.again(root);
        }
        // The host may have moved the directory out of the share: then its parent is none of the guest's business.
        self.require_inside(&pin, &found)?;
        Ok((self.take_in(pin, &found, None, &mut None)?, found))
    }

    fn require_inside(&self, start: &OwnedFd, found: &Stat) -> host::Result<()> {
        let root = self.inodes.root().identity;
        let mut below = found.identity;
        let mut here = host::pin_parent(start.as_fd())?;
        for _ in 0..DEEPEST {
            let above = host::stat(here.as_fd())?.identity;
            if above == root {
                return Ok(());
            }
            if above == below {
                break;
            }
            below = above;
            here = host::pin_parent(here.as_fd())?;
        }
        Err(Errno::ESTALE)
    }

    /// A descriptor to name an inode's object by. It may be pinned only, and not readable.
    pub(super) fn fd<'i>(&self, inode: &'i Inode) -> host::Result<InodeFd<'i>> {
        if inode.kind == Kind::Directory
            && inode.place.holds_none()
            && let Some(kept) = self.kept.get(inode.id)
        {
            return Ok(InodeFd::Shared(kept));
        }
        match inode.place.fd() {
            // To open a file handle is a privilege, and this thread may act for a user who has none.
            Err(Errno::EPERM) => {
                self.as_server()?;
                inode.place.fd()
            }
            done => done,
        }
    }

    /// A descriptor of a directory, kept for the next request when there is none.
    pub(super) fn dir_fd<'i>(&self, dir: &'i Inode) -> host::Result<InodeFd<'i>> {
        if dir.kind != Kind::Directory {
            return Err(Errno::ENOTDIR);
        }
        let fd = self.fd(dir)?;
        if dir.place.holds_none()
            && let InodeFd::Shared(fd) = &fd
        {
            self.kept.keep(dir.id, fd);
        }
        Ok(fd)
    }

    /// Opens what an inode stands for. FIFOs, sockets and devices are never opened, whatever is asked.
    pub(super) fn open_inode(&self, inode: &Inode, mode: OpenMode) -> host::Result<OwnedFd> {
        match inode.kind {
            Kind::File | Kind::Directory => inode.place.open(&self.fds, mode),
            Kind::Symlink => Err(Errno::ELOOP),
            Kind::Special => Err(Errno::ENXIO),
        }
    }

    /// What a guest is told of an entry: its number, its attributes, and how long it may rely on them.
    pub(super) fn entry(&self, cx: &Context, dir: &Inode, inode: &Inode, found: &Stat) -> EntryOut {
        let mut attr = self.attr(found);
        if self.is_submount(cx, dir, inode) {
            attr.flags |= fuse_abi::AttrFlags::SUBMOUNT.bits();
        }
        let entry = if self.is_proven(inode) { self.name_grant(dir) } else { Duration::ZERO };
        let attributes = self.tell(cx, inode, found);
        EntryOut {
            nodeid: inode.id.0,
            generation: 0,
            entry_valid: entry.as_secs(),
            entry_valid_nsec: entry.subsec_nanos(),
            attr_valid: attributes.as_secs(),
            attr_valid_nsec: attributes.subsec_nanos(),
            attr,
        }
    }

    fn is_submount(&self, cx: &Context, dir: &Inode, inode: &Inode) -> bool {
        self.config.announce_submounts
            && cx.agreed.contains(fuse_abi::InitFlags::SUBMOUNTS)
            && inode.kind == Kind::Directory
            && inode.id != NodeId::ROOT
            && !dir.identity.shares_mount(&inode.identity)
    }
}
