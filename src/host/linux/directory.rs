//! Reading directories: `getdents64`, and the state that tells whether one changed.

use std::{
    os::fd::{AsRawFd, BorrowedFd},
    time::{SystemTime, UNIX_EPOCH},
};

use fuse_abi::Errno;
use rustix::fs::SeekFrom;

use super::errno;
use crate::host::{DirectoryState, Entry, HostStamp};

/// What one call of a whole scan reads at most.
const SCAN_BLOCK: usize = 64 * 1024;
/// The fixed part of a `linux_dirent64`: inode, offset, length of the record, type.
const HEADER: usize = 19;

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

/// Sets where the next read goes on: at 0, or at a cookie that an entry carried.
///
/// # Errors
/// `EINVAL` for what is no position at all; else the host's.
pub fn seek(directory: BorrowedFd<'_>, position: u64) -> Result<(), Errno> {
    // Beyond i64 rustix would hand the kernel a negative number, which some file systems take.
    i64::try_from(position).map_err(|_| Errno::EINVAL)?;
    rustix::fs::seek(directory, SeekFrom::Start(position)).map(|_| ()).map_err(errno)
}

/// Appends what one `getdents64` gives to the room that is left in `block`. Nothing appended means the end.
///
/// # Errors
/// The host's; `EINVAL` when the room is too small for the next entry.
pub fn read_block(directory: BorrowedFd<'_>, block: &mut Vec<u8>) -> Result<(), Errno> {
    let room = block.spare_capacity_mut();
    loop {
        // SAFETY: the kernel writes at most `room.len()` bytes into `room`, which is ours for the call.
        let read = unsafe { libc::syscall(libc::SYS_getdents64, directory.as_raw_fd(), room.as_mut_ptr(), room.len()) };
        match usize::try_from(read) {
            Ok(read) => {
                let filled = block.len() + read;
                // SAFETY: the kernel has initialised `read` bytes after the old length, within the capacity.
                unsafe { block.set_len(filled) };
                return Ok(());
            }
            Err(_) => {
                let error = Errno::from_linux(std::io::Error::last_os_error().raw_os_error().unwrap_or(0));
                // A signal to this process is no news to the guest.
                if error != Errno::EINTR {
                    return Err(error);
                }
            }
        }
    }
}

/// The first entry of what `read_block` gave, and what follows it. `None`: these bytes are no entry.
#[must_use]
pub fn first_entry(block: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let (ino, rest) = block.split_first_chunk::<8>()?;
    let (next, rest) = rest.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (kind, _) = rest.split_first()?;
    let (record, following) = block.split_at_checked(usize::from(u16::from_ne_bytes(*length)))?;
    let name = record.get(HEADER..)?;
    let end = name.iter().position(|&byte| byte == 0)?;
    let entry = Entry {
        ino: u64::from_ne_bytes(*ino),
        next: u64::from_ne_bytes(*next),
        kind: u32::from(*kind),
        name: name.get(..end)?,
    };
    Some((entry, following))
}

/// Reads the whole directory from its start.
///
/// # Errors
/// The host's, after `each` saw the entries before it; or what `each` says.
pub fn scan(directory: BorrowedFd<'_>, each: &mut dyn FnMut(&Entry<'_>) -> Result<(), Errno>) -> Result<(), Errno> {
    seek(directory, 0)?;
    let mut block = Vec::with_capacity(SCAN_BLOCK);
    loop {
        block.clear();
        read_block(directory, &mut block)?;
        if block.is_empty() {
            return Ok(());
        }
        let mut rest = block.as_slice();
        while !rest.is_empty() {
            let (entry, following) = first_entry(rest).ok_or(Errno::EIO)?;
            each(&entry)?;
            rest = following;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_entry_are_refused_without_panic() {
        let mut record = [0_u8; 24];
        record[16..18].copy_from_slice(&24_u16.to_ne_bytes());
        record[18] = 8;
        record[19] = b'x';
        let (entry, rest) = first_entry(&record).unwrap();
        assert_eq!((entry.kind, entry.name, rest.len()), (8, &b"x"[..], 0));
        for length in 0..24 {
            assert!(first_entry(&record[..length]).is_none(), "cut to {length}");
        }
        for length in [0_u16, 1, 18, 19, 25, u16::MAX] {
            let mut broken = record;
            broken[16..18].copy_from_slice(&length.to_ne_bytes());
            assert!(first_entry(&broken).is_none(), "record length {length}");
        }
        let mut endless = record;
        endless[19..].fill(b'x');
        assert!(first_entry(&endless).is_none(), "a name without an end");
    }
}
