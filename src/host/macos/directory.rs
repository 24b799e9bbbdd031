//! Reading directories: `readdir`, and the state that tells whether one changed. macOS has no stable cookies to offer.

use std::{
    os::fd::{AsRawFd, BorrowedFd, IntoRawFd},
    ptr::NonNull,
    time::{SystemTime, UNIX_EPOCH},
};

use fuse_abi::Errno;
use rustix::fs::SeekFrom;

use super::{errno, guest_errno};
use crate::host::{DirectoryState, Entry, HostStamp};

/// The times of a directory and whether it was removed, with the wall clock read before them.
///
/// # Errors
/// The host's.
pub fn state(directory: BorrowedFd<'_>) -> Result<DirectoryState, Errno> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let found = rustix::fs::fstat(directory).map_err(errno)?;
    Ok(DirectoryState {
        stamp: HostStamp {
            mtime: (found.st_mtime, u32::try_from(found.st_mtime_nsec).unwrap_or(0)),
            ctime: (found.st_ctime, u32::try_from(found.st_ctime_nsec).unwrap_or(0)),
        },
        seen: (i64::try_from(clock.as_secs()).unwrap_or(i64::MAX), clock.subsec_nanos()),
        unlinked: found.st_nlink == 0,
    })
}

/// A stream of the C library over a descriptor of its own.
struct Stream(NonNull<libc::DIR>);

impl Stream {
    /// The duplicate shares its position with `directory`, which the caller has set.
    fn over(directory: BorrowedFd<'_>) -> Result<Self, Errno> {
        let own = rustix::io::fcntl_dupfd_cloexec(directory, 0).map_err(errno)?;
        // SAFETY: `own` is an open descriptor; the stream takes it over only when it is made.
        let stream = NonNull::new(unsafe { libc::fdopendir(own.as_raw_fd()) }).ok_or_else(last_error)?;
        let _taken_over = own.into_raw_fd();
        Ok(Self(stream))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: the stream is open and nobody else has it.
        unsafe { libc::closedir(self.0.as_ptr()) };
    }
}

fn last_error() -> Errno {
    guest_errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

/// Reads the whole directory from its start.
///
/// # Errors
/// The host's, after `each` saw the entries before it; `ENOENT` for a removed directory; or what `each` says.
pub fn scan(directory: BorrowedFd<'_>, each: &mut dyn FnMut(&Entry<'_>) -> Result<(), Errno>) -> Result<(), Errno> {
    // rewinddir would not tell whether it could.
    rustix::fs::seek(directory, SeekFrom::Start(0)).map_err(errno)?;
    let stream = Stream::over(directory)?;
    loop {
        // SAFETY: errno is this thread's; readdir leaves it alone at the end and sets it on an error.
        unsafe { *libc::__error() = 0 };
        // SAFETY: the stream is open and used by this thread only.
        let found = unsafe { libc::readdir(stream.0.as_ptr()) };
        if found.is_null() {
            // SAFETY: as above.
            let error = unsafe { *libc::__error() };
            // A removed directory reads as an empty one here.
            return if error != 0 {
                Err(guest_errno(error))
            } else if state(directory)?.unlinked {
                Err(Errno::ENOENT)
            } else {
                Ok(())
            };
        }
        // SAFETY: the record is valid until the next readdir. It is not read whole: it may be shorter than the type.
        let (ino, kind, length, name) = unsafe {
            ((*found).d_ino, (*found).d_type, usize::from((*found).d_namlen), (&raw const (*found).d_name).cast::<u8>())
        };
        // SAFETY: the record holds `d_namlen` bytes of name.
        let name = unsafe { std::slice::from_raw_parts(name, length) };
        // Some file systems leave records of removed entries behind, without an inode.
        if ino != 0 {
            each(&Entry { ino, next: 0, kind: u32::from(kind), name })?;
        }
    }
}
