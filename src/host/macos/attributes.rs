//! Changing attributes of pinned and of open objects, without reading the object.

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, CWD, Gid, Uid};

use super::{Result, SelfFds, errno, permission_bits, pins::on_object};
use crate::host::unix::SetTime;

/// Sets permission bits.
///
/// # Errors
/// The host's.
pub fn set_permissions(_fds: &SelfFds, object: BorrowedFd<'_>, mode: u32) -> Result<()> {
    let mode = permission_bits(mode);
    on_object(
        object,
        |fd| rustix::fs::fchmod(fd, mode).map_err(errno),
        |path| rustix::fs::chmodat(CWD, path, mode, AtFlags::SYMLINK_NOFOLLOW).map_err(errno),
    )
}

/// Sets owner and group; what is `None` stays.
///
/// # Errors
/// The host's.
pub fn set_owner(object: BorrowedFd<'_>, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    on_object(
        object,
        |fd| rustix::fs::fchown(fd, uid, gid).map_err(errno),
        |path| rustix::fs::chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(errno),
    )
}

/// Sets access and modification time.
///
/// # Errors
/// The host's.
pub fn set_times(object: BorrowedFd<'_>, atime: SetTime, mtime: SetTime) -> Result<()> {
    let times = SetTime::pair(atime, mtime);
    on_object(
        object,
        |fd| rustix::fs::futimens(fd, &times).map_err(errno),
        |path| rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(errno),
    )
}
