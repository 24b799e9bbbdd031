//! GETATTR, STATX, SETATTR, ACCESS, STATFS: what an inode is, and changing it.

use std::{
    os::fd::AsFd,
    sync::{Arc, atomic::Ordering},
};

use fuse_abi::{Attr, AttrOut, Errno, Kstatfs, Statx, StatxOut};

use super::{
    Passthrough,
    files::{leased, unleased},
    inodes::Inode,
    on_demand::{given_out, opens_no_files},
    unopened::Need,
};
use crate::{
    coherence::walks::Asked,
    host::{self, Kind, OpenMode, SetTime, Stat},
    protocol::{AttributeChanges, Context, HandleId, NewTime, NodeId, Result},
};

/// The fields that STATX always has: the basic ones.
const STATX_BASIC: u32 = 0x7ff;
const STATX_BTIME: u32 = 0x800;
/// Marks of a file that mean the same in a guest; where the host mounts something is not among them.
const SHARED_MARKS: u64 = 0x4 | 0x10 | 0x20 | 0x40 | 0x800 | 0x10_0000;

impl Passthrough {
    /// An inode and what is true of it, through an open file if one is named.
    pub(super) fn stat_node(&self, cx: &Context, node: NodeId, handle: Option<HandleId>) -> Result<(Arc<Inode>, Stat)> {
        if let Some(handle) = handle {
            let file = self.file(node, handle)?;
            if file.inode.is_remote {
                cx.leave_to_block()?;
            }
            let found = host::stat(file.fd.as_fd())?;
            return Ok((Arc::clone(&file.inode), found));
        }
        let inode = self.inode(cx, node)?;
        let found = host::stat(self.fd(&inode)?.as_fd())?;
        Ok((inode, found))
    }

    /// As [`stat_node`](Self::stat_node) for a guest that asks: if it asks by a path that leads elsewhere now, it is sent
    /// to look again.
    pub(super) fn asked(&self, cx: &Context, node: NodeId, handle: Option<HandleId>) -> Result<(Arc<Inode>, Stat)> {
        let handle = given_out(cx, handle);
        if handle.is_none() {
            let inode = self.inode(cx, node)?;
            if inode.is_followed() && inode.handles.load(Ordering::Relaxed) == 0 {
                let (found, leads_here) = self.follow_names(&inode)?;
                let asked = if inode.kind == Kind::Directory { Asked::Directory } else { Asked::Attributes };
                self.judge_path(cx, asked, &inode, leads_here)?;
                return Ok((inode, found));
            }
        }
        self.stat_node(cx, node, handle)
    }

    pub(super) fn attr_out(&self, cx: &Context, inode: &Inode, found: &Stat) -> AttrOut {
        let timeout = self.tell(cx, inode, found);
        AttrOut {
            attr_valid: timeout.as_secs(),
            attr_valid_nsec: timeout.subsec_nanos(),
            attr: self.attr(found),
            ..AttrOut::default()
        }
    }

    pub(super) fn attr(&self, found: &Stat) -> Attr {
        Attr {
            ino: found.identity.ino,
            size: found.size,
            blocks: found.blocks,
            // Seconds before the epoch travel as the client will read them: as a signed number again.
            atime: found.atime.seconds as u64,
            mtime: found.mtime.seconds as u64,
            ctime: found.ctime.seconds as u64,
            atimensec: found.atime.nanoseconds,
            mtimensec: found.mtime.nanoseconds,
            ctimensec: found.ctime.nanoseconds,
            mode: found.mode,
            nlink: found.nlink,
            uid: self.config.uid_map.to_guest(found.uid),
            gid: self.config.gid_map.to_guest(found.gid),
            rdev: found.rdev,
            blksize: found.block_size,
            flags: 0,
        }
    }

    pub(super) fn statx_out(&self, cx: &Context, inode: &Inode, found: &Stat) -> StatxOut {
        let timeout = self.tell(cx, inode, found);
        let (known, marks) = found.attributes;
        let mut stat = Statx {
            mask: STATX_BASIC,
            blksize: found.block_size,
            attributes: marks & SHARED_MARKS,
            attributes_mask: known & SHARED_MARKS,
            nlink: found.nlink,
            uid: self.config.uid_map.to_guest(found.uid),
            gid: self.config.gid_map.to_guest(found.gid),
            // Type and permissions are the low 16 bits.
            mode: (found.mode & 0xffff) as u16,
            ino: found.identity.ino,
            size: found.size,
            blocks: found.blocks,
            atime: found.atime.into(),
            mtime: found.mtime.into(),
            ctime: found.ctime.into(),
            rdev_major: (found.rdev & 0xfff00) >> 8,
            rdev_minor: (found.rdev & 0xff) | ((found.rdev >> 12) & 0xfff00),
            ..Statx::default()
        };
        if let Some(btime) = found.btime {
            stat.mask |= STATX_BTIME;
            stat.btime = btime.into();
        }
        StatxOut { attr_valid: timeout.as_secs(), attr_valid_nsec: timeout.subsec_nanos(), stat, ..StatxOut::default() }
    }

    pub(super) fn change_attributes(&self, cx: &Context, node: NodeId, changes: &AttributeChanges) -> Result<AttrOut> {
        let inode = self.inode(cx, node)?;
        if changes.handle.is_none() {
            self.require_path(cx, Asked::Change, &inode)?;
            self.walks.ended(cx.pid);
        }
        if self.takes_pokes() && super::events::is_poke(changes) {
            // The guest's own kernel tells whoever watches there.
            let (inode, found) = self.stat_node(cx, node, None)?;
            return Ok(self.attr_out(cx, &inode, &found));
        }
        let fd = self.fd(&inode)?;
        self.as_server()?;
        if changes.uid.is_some() || changes.gid.is_some() {
            let uid = changes.uid.map(|uid| self.config.uid_map.to_host(uid)).transpose()?;
            let gid = changes.gid.map(|gid| self.config.gid_map.to_host(gid)).transpose()?;
            host::set_owner(fd.as_fd(), uid, gid)?;
            self.drop_mapped_capability(&inode)?;
        }
        if let Some(mode) = changes.mode {
            host::set_permissions(&self.fds, fd.as_fd(), mode)?;
        }
        if let Some(size) = changes.size {
            self.set_size(cx, &inode, changes, size)?;
        }
        if changes.atime.is_some() || changes.mtime.is_some() {
            self.as_server()?;
            host::set_times(fd.as_fd(), set_time(changes.atime), set_time(changes.mtime))?;
        }
        let (inode, found) = self.stat_node(cx, node, given_out(cx, changes.handle))?;
        Ok(self.attr_out(cx, &inode, &found))
    }

    fn set_size(&self, cx: &Context, inode: &Inode, changes: &AttributeChanges, size: u64) -> Result<()> {
        match inode.kind {
            Kind::File => {}
            Kind::Directory => return Err(Errno::EISDIR.into()),
            Kind::Symlink | Kind::Special => return Err(Errno::EINVAL.into()),
        }
        let file = if opens_no_files(cx) {
            // Most truncations are O_TRUNC, and a WRITE follows.
            Some(self.file_for(cx, inode.id, HandleId(0), Need::Write)?)
        } else {
            changes.handle.map(|handle| self.file(inode.id, handle)).transpose()?
        };
        match file.filter(|file| file.writable) {
            Some(file) => {
                self.keep_suid(cx, changes.kill_suidgid)?;
                host::set_size(file.fd.as_fd(), size)?;
            }
            None => {
                let opened = self.open_inode(inode, unleased(cx, OpenMode::WRONLY)).map_err(leased(cx))?;
                self.keep_suid(cx, changes.kill_suidgid)?;
                host::set_size(opened.as_fd(), size)?;
            }
        }
        inode.changed_content();
        Ok(self.drop_mapped_capability(inode)?)
    }

    /// What the bits of a mode allow the caller. Clients that check by themselves never ask.
    pub(super) fn check_access(&self, cx: &Context, node: NodeId, mask: u32) -> Result<()> {
        const ALL: u32 = 0o7;
        let (inode, found) = self.stat_node(cx, node, None)?;
        let (owner, group) = (self.config.uid_map.to_guest(found.uid), self.config.gid_map.to_guest(found.gid));
        let wanted = mask & ALL;
        let granted = if cx.uid == 0 {
            // The superuser reads and writes anything, and executes what anybody may.
            if inode.kind == Kind::Directory || found.mode & 0o111 != 0 { ALL } else { 0o6 }
        } else if cx.uid == owner {
            (found.mode >> 6) & ALL
        } else if cx.gid == group {
            (found.mode >> 3) & ALL
        } else {
            found.mode & ALL
        };
        if wanted & !granted == 0 { Ok(()) } else { Err(Errno::EACCES.into()) }
    }

    pub(super) fn space(&self, cx: &Context, node: NodeId) -> Result<Kstatfs> {
        let space = host::space(self.fd(&*self.inode(cx, node)?)?.as_fd())?;
        Ok(Kstatfs {
            blocks: space.blocks,
            bfree: space.free,
            bavail: space.available,
            files: space.files,
            ffree: space.files_free,
            bsize: space.block_size,
            namelen: space.name_max,
            frsize: space.fragment_size,
            ..Kstatfs::default()
        })
    }
}

fn set_time(time: Option<NewTime>) -> SetTime {
    match time {
        None => SetTime::Keep,
        Some(NewTime::Now) => SetTime::Now,
        Some(NewTime::At(time)) => SetTime::At(time),
    }
}
