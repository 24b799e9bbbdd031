//! How a file is opened, and the one call that opens.

use std::{
    ffi::CStr,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use bitflags::bitflags;

use super::{Result, check, errno};

bitflags! {
    /// How a file is opened. Numbered for this table alone: some of it takes more than a flag here.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct OpenMode: u32 {
        /// For reading.
        const RDONLY = 0;
        /// For writing.
        const WRONLY = 1;
        /// For both.
        const RDWR = 1 << 1;
        /// Every write goes to the end.
        const APPEND = 1 << 2;
        /// Nothing of the old content stays.
        const TRUNC = 1 << 3;
        /// Past the system's cache.
        const DIRECT = 1 << 4;
        /// A write returns when it and its attributes are on the disk.
        const SYNC = 1 << 5;
        /// A write returns when it is on the disk.
        const DSYNC = 1 << 6;
        /// Reading moves no time. macOS has no such descriptors: the flag changes nothing.
        const NOATIME = 1 << 7;
        /// Only if it is a directory.
        const DIRECTORY = 1 << 8;
        /// Never waits.
        const NONBLOCK = 1 << 9;
        /// Pinned only.
        const PINNED = 1 << 10;
    }
}

/// Pinned only: nothing can be read or written through it.
pub const PIN: OpenMode = OpenMode::PINNED;

/// A pin does not keep a volume from being unmounted, and opens a symbolic link itself.
pub(super) const PIN_FLAGS: libc::c_int = libc::O_EVTONLY | libc::O_SYMLINK | libc::O_NONBLOCK | libc::O_CLOEXEC;

impl OpenMode {
    /// The flags of the call, without those that must wait until it is certain which object was opened.
    pub(super) fn flags(self) -> libc::c_int {
        let access = if self.contains(Self::RDWR) {
            libc::O_RDWR
        } else if self.contains(Self::WRONLY) {
            libc::O_WRONLY
        } else {
            libc::O_RDONLY
        };
        [
            (Self::APPEND, libc::O_APPEND),
            (Self::SYNC, libc::O_SYNC),
            (Self::DSYNC, libc::O_DSYNC),
            (Self::DIRECTORY, libc::O_DIRECTORY),
            (Self::NONBLOCK, libc::O_NONBLOCK),
        ]
        .into_iter()
        .filter(|(option, _)| self.contains(*option))
        .fold(access | libc::O_CLOEXEC | libc::O_NOCTTY, |flags, (_, flag)| flags | flag)
    }

    /// Does to a descriptor of the right object what the call must not do to a wrong one.
    pub(super) fn finish(self, file: OwnedFd) -> Result<OwnedFd> {
        if self.contains(Self::TRUNC) {
            rustix::fs::ftruncate(&file, 0).map_err(errno)?;
        }
        if self.contains(Self::DIRECT) {
            rustix::fs::fcntl_nocache(&file, true).map_err(errno)?;
        }
        Ok(file)
    }
}

/// Opens `name`, which is one component, or absolute where no directory is given.
pub(super) fn open(
    dir: Option<BorrowedFd<'_>>,
    name: &CStr,
    flags: libc::c_int,
    permissions: libc::mode_t,
) -> Result<OwnedFd> {
    let dir = dir.map_or(libc::AT_FDCWD, |dir| dir.as_raw_fd());
    // SAFETY: the name ends in NUL.
    let fd = check(unsafe { libc::openat(dir, name.as_ptr(), flags, libc::c_uint::from(permissions)) } as isize)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
