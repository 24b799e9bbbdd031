//! Paths of objects that are known by number or by descriptor, for calls that take nothing but a path.
//!
//! No path is proof: the kernel turns a number into a path and walks it, and a rename may come between. So whoever uses
//! one looks at what it reached before acting on it, wherever the call allows that.

use std::{
    ffi::{CStr, CString},
    io::Write,
    os::fd::BorrowedFd,
};

use fuse_abi::Errno;

use super::{Result, errno};
use crate::host::Identity;

/// Tries to reach an object by its path while somebody keeps renaming it.
pub(super) const TRIES: usize = 4;

/// Room for `/.vol/`, a device, an inode and a terminator.
const ROOM: usize = 48;

/// The path by which macOS finds an object by its number, on volumes that offer it: APFS and HFS+ do.
pub(super) struct NumberPath {
    bytes: [u8; ROOM],
    len: usize,
}

impl NumberPath {
    pub(super) fn new(object: Identity) -> Self {
        let mut bytes = [0; ROOM];
        let mut rest = bytes.as_mut_slice();
        // Both numbers at their longest are shorter than the room, so the last byte stays 0.
        let _ = write!(rest, "/.vol/{}/{}", object.dev, object.ino);
        let len = ROOM - rest.len();
        Self { bytes, len }
    }

    pub(super) fn as_c_str(&self) -> &CStr {
        self.bytes.get(..=self.len).and_then(|bytes| CStr::from_bytes_with_nul(bytes).ok()).unwrap_or(c"")
    }
}

/// Where the object of a descriptor has a name at this moment: on any volume, but not for one without a name.
pub(super) fn path_of(object: BorrowedFd<'_>) -> Result<CString> {
    rustix::fs::getpath(object).map_err(errno)
}

/// Tries `call` with the path by number, and with the path of the descriptor where the volume knows no numbers.
pub(super) fn with_path<T>(
    object: BorrowedFd<'_>,
    identity: Identity,
    mut call: impl FnMut(&CStr) -> Result<T>,
) -> Result<T> {
    match call(NumberPath::new(identity).as_c_str()) {
        Err(Errno::ENOENT) => call(&path_of(object)?),
        other => other,
    }
}
