//! Making, removing and moving names: always one component, relative to an open directory.

use std::{ffi::CStr, os::fd::BorrowedFd};

use fuse_abi::Errno;
use rustix::fs::{AtFlags, FileType, RenameFlags};

use super::{Result, SelfFds, errno, objects::SelfPath, objects::unpack_device, permission_bits};
use crate::host::unix::RenameHow;
use std::os::fd::AsRawFd;

/// Makes a directory.
///
/// # Errors
/// The host's.
pub fn make_directory(dir: BorrowedFd<'_>, name: &CStr, permissions: u32) -> Result<()> {
    rustix::fs::mkdirat(dir, name, permission_bits(permissions)).map_err(errno)
}

/// Makes a file, FIFO, socket or device node, as the type bits of `mode` say.
///
/// # Errors
/// The host's.
pub fn make_node(dir: BorrowedFd<'_>, name: &CStr, mode: u32, device: u32) -> Result<()> {
    let kind = FileType::from_raw_mode(mode);
    rustix::fs::mknodat(dir, name, kind, permission_bits(mode), unpack_device(device)).map_err(errno)
}

/// Gives a pinned object another name.
///
/// # Errors
/// The host's.
pub fn make_link(fds: &SelfFds, object: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    // By way of /proc: AT_EMPTY_PATH would need CAP_DAC_READ_SEARCH.
    let path = SelfPath::new("", object.as_raw_fd());
    rustix::fs::linkat(fds.dir(), path.as_c_str(), dir, name, AtFlags::SYMLINK_FOLLOW).map_err(errno)
}

/// Moves a name.
///
/// # Errors
/// The host's; `EINVAL` for what the file system cannot do.
pub fn rename(from: (BorrowedFd<'_>, &CStr), to: (BorrowedFd<'_>, &CStr), how: RenameHow) -> Result<()> {
    let mut flags = RenameFlags::empty();
    flags.set(RenameFlags::NOREPLACE, how.no_replace);
    flags.set(RenameFlags::EXCHANGE, how.exchange);
    flags.set(RenameFlags::WHITEOUT, how.whiteout);
    rustix::fs::renameat_with(from.0, from.1, to.0, to.1, flags).map_err(errno)
}

/// Reads where a pinned symbolic link points. Says how much of `buffer` it took.
///
/// # Errors
/// The host's.
pub fn read_link(object: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
    let len = buffer.len();
    // SAFETY: the buffer has the room that its length says, and "" ends in NUL.
    let read =
        super::check(unsafe { libc::readlinkat(object.as_raw_fd(), c"".as_ptr(), buffer.as_mut_ptr().cast(), len) })?;
    if read > len { Err(Errno::EIO) } else { Ok(read) }
}
