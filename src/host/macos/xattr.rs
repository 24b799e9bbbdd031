//! Extended attributes of pinned objects. macOS takes descriptors for these, whatever they were opened for.

use std::{
    ffi::CStr,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use fuse_abi::Errno;

use super::{
    Result, SelfFds, check,
    pins::{Ticket, on_object},
};

/// Where a call puts its answer: nowhere, if only the length is wanted.
fn place(buffer: &mut [u8]) -> *mut u8 {
    if buffer.is_empty() { ptr::null_mut() } else { buffer.as_mut_ptr() }
}

/// macOS gives attributes to files, directories and symbolic links, and refuses to speak of any on the rest.
fn has_none(object: BorrowedFd<'_>, error: Errno) -> bool {
    error == Errno::EPERM && Ticket::of(object).is_some_and(Ticket::is_special)
}

/// Reads an attribute. With an empty buffer says how long the value is.
///
/// # Errors
/// `ENODATA` without it, `ERANGE` when the buffer is too short, the host's.
pub fn get_xattr(_fds: &SelfFds, object: BorrowedFd<'_>, name: &CStr, value: &mut [u8]) -> Result<usize> {
    let (name, start, len) = (name.as_ptr(), place(value).cast(), value.len());
    on_object(
        object,
        // SAFETY: the name ends in NUL, and the buffer has the room that its length says or none is given.
        |fd| check(unsafe { libc::fgetxattr(fd.as_raw_fd(), name, start, len, 0, 0) }),
        // SAFETY: as above, and the path ends in NUL.
        |path| check(unsafe { libc::getxattr(path.as_ptr(), name, start, len, 0, libc::XATTR_NOFOLLOW) }),
    )
    .map_err(|error| if has_none(object, error) { Errno::ENODATA } else { error })
}

/// Lists the names of attributes, each with its terminator. With an empty buffer says how long the list is.
///
/// # Errors
/// As [`get_xattr`].
pub fn list_xattrs(_fds: &SelfFds, object: BorrowedFd<'_>, list: &mut [u8]) -> Result<usize> {
    let (start, len) = (place(list).cast(), list.len());
    on_object(
        object,
        // SAFETY: the buffer has the room that its length says, or none is given.
        |fd| check(unsafe { libc::flistxattr(fd.as_raw_fd(), start, len, 0) }),
        // SAFETY: as above, and the path ends in NUL.
        |path| check(unsafe { libc::listxattr(path.as_ptr(), start, len, libc::XATTR_NOFOLLOW) }),
    )
    .or_else(|error| if has_none(object, error) { Ok(0) } else { Err(error) })
}

/// Linux's XATTR_CREATE and XATTR_REPLACE, and what macOS calls so.
const FLAGS: [(u32, libc::c_int); 2] = [(1, libc::XATTR_CREATE), (2, libc::XATTR_REPLACE)];

/// Sets an attribute. `flags` are XATTR_CREATE and XATTR_REPLACE as Linux numbers them.
///
/// # Errors
/// The host's; `EINVAL` for other flags.
pub fn set_xattr(_fds: &SelfFds, object: BorrowedFd<'_>, name: &CStr, value: &[u8], flags: u32) -> Result<()> {
    let known = FLAGS.iter().fold(0, |known, (theirs, _)| known | theirs);
    if flags & !known != 0 {
        return Err(Errno::EINVAL);
    }
    let flags = FLAGS.iter().fold(0, |set, (theirs, ours)| if flags & theirs == 0 { set } else { set | ours });
    let (name, start, len) = (name.as_ptr(), value.as_ptr().cast(), value.len());
    on_object(
        object,
        // SAFETY: the name ends in NUL, and the value is as long as said.
        |fd| check(unsafe { libc::fsetxattr(fd.as_raw_fd(), name, start, len, 0, flags) } as isize),
        |path| {
            let flags = flags | libc::XATTR_NOFOLLOW;
            // SAFETY: as above, and the path ends in NUL.
            check(unsafe { libc::setxattr(path.as_ptr(), name, start, len, 0, flags) } as isize)
        },
    )
    .map(drop)
}

/// Removes an attribute.
///
/// # Errors
/// The host's.
pub fn remove_xattr(_fds: &SelfFds, object: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let name = name.as_ptr();
    on_object(
        object,
        // SAFETY: the name ends in NUL.
        |fd| check(unsafe { libc::fremovexattr(fd.as_raw_fd(), name, 0) } as isize),
        // SAFETY: as above, and the path ends in NUL.
        |path| check(unsafe { libc::removexattr(path.as_ptr(), name, libc::XATTR_NOFOLLOW) } as isize),
    )
    .map(drop)
}
