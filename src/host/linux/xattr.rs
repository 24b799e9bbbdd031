//! Extended attributes of pinned objects, named by their path in /proc because the calls refuse O_PATH descriptors.

use std::{ffi::CStr, os::fd::BorrowedFd};

use rustix::fs::XattrFlags;

use super::{Result, SelfFds, errno};

/// Reads an attribute. With an empty buffer says how long the value is.
///
/// # Errors
/// `ENODATA` without it, `ERANGE` when the buffer is too short, the host's.
pub fn get_xattr(fds: &SelfFds, object: BorrowedFd<'_>, name: &CStr, value: &mut [u8]) -> Result<usize> {
    let path = fds.path(object);
    // rustix answers an empty buffer with 0.
    if value.is_empty() {
        rustix::fs::getxattr_query(path.as_c_str(), name)
    } else {
        rustix::fs::getxattr(path.as_c_str(), name, value)
    }
    .map_err(errno)
}

/// Lists the names of attributes, each with its terminator. With an empty buffer says how long the list is.
///
/// # Errors
/// As [`get_xattr`].
pub fn list_xattrs(fds: &SelfFds, object: BorrowedFd<'_>, list: &mut [u8]) -> Result<usize> {
    let path = fds.path(object);
    // As above.
    if list.is_empty() {
        rustix::fs::listxattr_query(path.as_c_str())
    } else {
        rustix::fs::listxattr(path.as_c_str(), list)
    }
    .map_err(errno)
}

/// Sets an attribute. `flags` are XATTR_CREATE and XATTR_REPLACE.
///
/// # Errors
/// The host's.
pub fn set_xattr(fds: &SelfFds, object: BorrowedFd<'_>, name: &CStr, value: &[u8], flags: u32) -> Result<()> {
    rustix::fs::setxattr(fds.path(object).as_c_str(), name, value, XattrFlags::from_bits_retain(flags)).map_err(errno)
}

/// Removes an attribute.
///
/// # Errors
/// The host's.
pub fn remove_xattr(fds: &SelfFds, object: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    rustix::fs::removexattr(fds.path(object).as_c_str(), name).map_err(errno)
}
