//! Changing attributes of pinned and of open objects, without reading the object.

use std::os::fd::BorrowedFd;

use fuse_abi::Errno;
use rustix::fs::{AtFlags, Gid, Uid};

use super::{Result, SelfFds, errno, objects::SelfPath, permission_bits};
use crate::host::unix::SetTime;
use std::os::fd::AsRawFd;

/// Sets permission bits.
///
/// # Errors
/// The host's.
pub fn set_permissions(fds: &SelfFds, object: BorrowedFd<'_>, mode: u32) -> Result<()> {
    // fchmod refuses O_PATH descriptors, and fchmodat2 needs Linux 6.6.
    let path = SelfPath::new("", object.as_raw_fd());
    rustix::fs::chmodat(fds.dir(), path.as_c_str(), permission_bits(mode), AtFlags::empty()).map_err(errno)
}

/// Sets owner and group; what is `None` stays.
///
/// # Errors
/// The host's; `EPERM` for an owner that this process's user namespace does not have, as one may not be given away to.
pub fn set_owner(object: BorrowedFd<'_>, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    match rustix::fs::chownat(object, c"", uid, gid, AtFlags::EMPTY_PATH) {
        // The flags are right, so only the numbers can be invalid.
        Err(rustix::io::Errno::INVAL) => Err(Errno::EPERM),
        done => done.map_err(errno),
    }
}

/// Sets access and modification time.
///
/// # Errors
/// The host's.
pub fn set_times(object: BorrowedFd<'_>, atime: SetTime, mtime: SetTime) -> Result<()> {
    rustix::fs::utimensat(object, c"", &SetTime::pair(atime, mtime), AtFlags::EMPTY_PATH).map_err(errno)
}
