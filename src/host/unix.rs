//! What Linux and macOS do alike: calls that both have with one meaning, and the types that both take.

use std::{
    ffi::CStr,
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use fuse_abi::{Errno, Timestamp};
use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use vm_memory::VolatileSlice;

use super::{Result, system};

/// The errno of a call that `rustix` made.
pub(super) fn errno(error: rustix::io::Errno) -> Errno {
    system::guest_errno(error.raw_os_error())
}

/// The value of a call that `libc` made, or its errno, read at once.
pub(super) fn check(value: isize) -> Result<usize> {
    usize::try_from(value).map_err(|_| system::guest_errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)))
}

/// The permission bits of a guest's mode.
pub(super) fn permission_bits(mode: u32) -> Mode {
    Mode::from_raw_mode((mode & 0o7777) as rustix::fs::RawMode)
}

/// As whom to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actor {
    /// Owner of what is created.
    pub uid: u32,
    /// Group of what is created.
    pub gid: u32,
    /// One more group.
    pub group: Option<u32>,
    /// Whether setuid and setgid bits survive a write or a creation by the superuser. Never true for others.
    pub keeps_suid: bool,
    /// Whether a plain user may pass over permission bits, as the guest's kernel decided that it may.
    pub overrides: bool,
    /// What is masked from the permission bits of what is created, where no default ACL says otherwise.
    pub umask: u32,
}

impl Actor {
    /// The server itself.
    pub const SERVER: Self = Self { uid: 0, gid: 0, group: None, keeps_suid: true, overrides: true, umask: 0 };
}

/// Opens a directory by any path: the root of a share.
///
/// # Errors
/// The host's.
pub fn open_directory(path: &CStr) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(errno)
}

/// Makes a symbolic link.
///
/// # Errors
/// The host's.
pub fn make_symlink(target: &CStr, dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    rustix::fs::symlinkat(target, dir, name).map_err(errno)
}

/// Removes a name that is not a directory's.
///
/// # Errors
/// The host's.
pub fn remove_file(dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    rustix::fs::unlinkat(dir, name, AtFlags::empty()).map_err(errno)
}

/// Removes an empty directory.
///
/// # Errors
/// The host's.
pub fn remove_directory(dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR).map_err(errno)
}

/// What a rename does with what is in its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RenameHow {
    /// Fail if the new name exists.
    pub no_replace: bool,
    /// Swap both.
    pub exchange: bool,
    /// Leave a whiteout at the old name.
    pub whiteout: bool,
}

/// A timestamp to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// Leave it.
    Keep,
    /// The present.
    Now,
    /// A moment.
    At(Timestamp),
}

impl SetTime {
    fn spec(self) -> Timespec {
        match self {
            Self::Keep => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            Self::Now => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
            Self::At(time) => Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanoseconds) },
        }
    }

    /// Access and modification time as the calls take them.
    pub(super) fn pair(atime: Self, mtime: Self) -> Timestamps {
        Timestamps { last_access: atime.spec(), last_modification: mtime.spec() }
    }
}

/// Sets the size of an open file.
///
/// # Errors
/// The host's.
pub fn set_size(file: BorrowedFd<'_>, size: u64) -> Result<()> {
    rustix::fs::ftruncate(file, size).map_err(errno)
}

/// Adds bytes to the end of a file that was opened to be appended to.
///
/// # Errors
/// The host's; `EIO` where it took a part only.
pub fn append(file: BorrowedFd<'_>, bytes: &[u8]) -> Result<()> {
    let written = rustix::io::write(file, bytes).map_err(errno)?;
    if written == bytes.len() { Ok(()) } else { Err(Errno::EIO) }
}

/// The kernel takes this many segments a call.
const SEGMENTS_MAX: usize = 1024;

/// A vector for one call, on the stack: no call allocates.
pub(super) struct Vector {
    entries: [MaybeUninit<libc::iovec>; SEGMENTS_MAX],
    count: usize,
}

impl Vector {
    pub(super) fn new<'m>(segments: impl Iterator<Item = VolatileSlice<'m>>) -> Self {
        let mut vector = Self { entries: [const { MaybeUninit::uninit() }; SEGMENTS_MAX], count: 0 };
        for (entry, segment) in vector.entries.iter_mut().zip(segments) {
            let address = segment.ptr_guard_mut().as_ptr();
            entry.write(libc::iovec { iov_base: address.cast(), iov_len: segment.len() });
            vector.count += 1;
        }
        vector
    }

    pub(super) fn as_ptr(&self) -> *const libc::iovec {
        self.entries.as_ptr().cast()
    }

    pub(super) const fn count(&self) -> libc::c_int {
        self.count as libc::c_int
    }
}

/// An offset or a length as the calls take it.
pub(super) fn position(offset: u64) -> Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| Errno::EINVAL)
}

/// How [`seek`] finds a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// From the start.
    Start,
    /// From where the descriptor stands.
    Current,
    /// From the end.
    End,
    /// The next data.
    Data,
    /// The next hole.
    Hole,
}

/// Finds a position in an open file.
///
/// # Errors
/// The host's.
pub fn seek(file: BorrowedFd<'_>, offset: i64, from: Seek) -> Result<u64> {
    // The last two have each other's numbers on the other system.
    let whence = match from {
        Seek::Start => libc::SEEK_SET,
        Seek::Current => libc::SEEK_CUR,
        Seek::End => libc::SEEK_END,
        Seek::Data => libc::SEEK_DATA,
        Seek::Hole => libc::SEEK_HOLE,
    };
    // SAFETY: the call takes no memory.
    let found = unsafe { libc::lseek(file.as_raw_fd(), offset, whence) };
    check(found as isize).map(|position| position as u64)
}

/// What kind of storage lies behind a file, as far as waiting for it is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Memory: nothing waits.
    Memory,
    /// A local disk.
    Disk,
    /// Another machine or another process: anything can wait.
    Remote,
}

/// Gives memory that was freed back to the system, where the allocator keeps it by itself.
pub fn give_back_memory() {
    // SAFETY: it touches nothing but memory that is free.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::malloc_trim(0);
    }
}
