//! Data of open files: straight between the host's page cache and the memory that segments describe.

use std::os::fd::{AsRawFd, BorrowedFd};

use fuse_abi::Errno;
use vm_memory::VolatileSlice;

use super::{Result, check, errno};
use crate::host::{
    Space,
    unix::{Storage, Vector, position},
};

/// Reads at `offset` into the segments, and stops at the end of the file. With `cached_only` it gives up instead of
/// waiting for a disk: `EAGAIN` when nothing was in memory, `EOPNOTSUPP` where the file system cannot tell.
///
/// # Errors
/// The host's.
pub fn read_at<'m>(
    file: BorrowedFd<'_>,
    segments: impl Iterator<Item = VolatileSlice<'m>>,
    offset: u64,
    cached_only: bool,
) -> Result<usize> {
    let (vector, offset) = (Vector::new(segments), position(offset)?);
    let (fd, count) = (file.as_raw_fd(), vector.count());
    // SAFETY: each entry describes memory that its segment keeps mapped and lets others change at any time.
    check(unsafe {
        if cached_only {
            libc::preadv2(fd, vector.as_ptr(), count, offset, libc::RWF_NOWAIT)
        } else {
            libc::preadv(fd, vector.as_ptr(), count, offset)
        }
    })
}

/// Writes the segments at `offset`. With `not_at_end` even through a descriptor that appends, which otherwise takes
/// every write to the end of the file.
///
/// # Errors
/// The host's; `EOPNOTSUPP` or `EINVAL` for `not_at_end` before Linux 6.9.
pub fn write_at<'m>(
    file: BorrowedFd<'_>,
    segments: impl Iterator<Item = VolatileSlice<'m>>,
    offset: u64,
    not_at_end: bool,
) -> Result<usize> {
    const RWF_NOAPPEND: libc::c_int = 0x20;
    let (vector, offset) = (Vector::new(segments), position(offset)?);
    let (fd, count) = (file.as_raw_fd(), vector.count());
    // SAFETY: each entry describes memory that its segment keeps mapped.
    check(unsafe {
        if not_at_end {
            libc::pwritev2(fd, vector.as_ptr(), count, offset, RWF_NOAPPEND)
        } else {
            libc::pwritev(fd, vector.as_ptr(), count, offset)
        }
    })
}

/// Brings a file to the disk.
///
/// # Errors
/// The host's.
pub fn sync_file(file: BorrowedFd<'_>, data_only: bool) -> Result<()> {
    if data_only { rustix::fs::fdatasync(file) } else { rustix::fs::fsync(file) }.map_err(errno)
}

/// Brings the whole file system of an open file to the disk.
///
/// # Errors
/// The host's.
pub fn sync_file_system(file: BorrowedFd<'_>) -> Result<()> {
    rustix::fs::syncfs(file).map_err(errno)
}

/// Allocates, punches, zeroes, collapses or inserts space, as Linux's `FALLOC_FL_*` bits say.
///
/// # Errors
/// The host's.
pub fn allocate(file: BorrowedFd<'_>, mode: u32, offset: u64, len: u64) -> Result<()> {
    let mode = libc::c_int::try_from(mode).map_err(|_| Errno::EOPNOTSUPP)?;
    // SAFETY: the call takes no memory.
    check(unsafe { libc::fallocate(file.as_raw_fd(), mode, position(offset)?, position(len)?) } as isize).map(drop)
}

/// Copies between open files; says how much.
///
/// # Errors
/// The host's.
pub fn copy_range(from: (BorrowedFd<'_>, u64), to: (BorrowedFd<'_>, u64), len: u64) -> Result<u64> {
    let (mut from_offset, mut to_offset) = (from.1, to.1);
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    rustix::fs::copy_file_range(from.0, Some(&mut from_offset), to.0, Some(&mut to_offset), len)
        .map(|copied| copied as u64)
        .map_err(errno)
}

/// How full the file system of a pinned object is.
///
/// # Errors
/// The host's.
pub fn space(object: BorrowedFd<'_>) -> Result<Space> {
    let found = rustix::fs::fstatfs(object).map_err(errno)?;
    let narrow = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
    Ok(Space {
        blocks: found.f_blocks,
        free: found.f_bfree,
        available: found.f_bavail,
        files: found.f_files,
        files_free: found.f_ffree,
        block_size: narrow(found.f_bsize),
        fragment_size: narrow(found.f_frsize),
        name_max: narrow(found.f_namelen),
    })
}

/// What kind of storage lies behind a pinned object.
///
/// # Errors
/// The host's.
pub fn storage(object: BorrowedFd<'_>) -> Result<Storage> {
    const MEMORY: [i64; 4] = [libc::TMPFS_MAGIC, 0x8584_58f6, 0x0102_1994, 0x9584_58f6];
    const NFS: i64 = 0x6969;
    const FUSE: i64 = 0x6573_5546;
    const NINE_P: i64 = 0x0102_1997;
    const CIFS: i64 = 0xff53_4d42;
    const SMB2: i64 = 0xfe53_4d42;
    const CEPH: i64 = 0x00c3_6400;
    const AFS: i64 = 0x6b41_4653;
    let magic = rustix::fs::fstatfs(object).map_err(errno)?.f_type;
    Ok(match magic {
        _ if MEMORY.contains(&magic) => Storage::Memory,
        NFS | FUSE | NINE_P | CIFS | SMB2 | CEPH | AFS => Storage::Remote,
        _ => Storage::Disk,
    })
}

/// The inode flags of FS_IOC_GETFLAGS.
///
/// # Errors
/// `ENOTTY` where the file system has none, the host's.
pub fn inode_flags(file: BorrowedFd<'_>) -> Result<u32> {
    let mut flags: libc::c_int = 0;
    // SAFETY: the call writes one int, whatever its number says.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) } as isize)?;
    Ok(flags as u32)
}

/// Sets the inode flags of FS_IOC_SETFLAGS.
///
/// # Errors
/// The host's.
pub fn set_inode_flags(file: BorrowedFd<'_>, flags: u32) -> Result<()> {
    let flags = flags as libc::c_int;
    // SAFETY: the call reads one int, whatever its number says.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_SETFLAGS, &raw const flags) } as isize).map(drop)
}

/// The size of `struct fsxattr`.
const EXTENDED_LEN: usize = 28;

const fn ioctl_number(direction: u32, kind: u8, number: u8, size: usize) -> libc::c_ulong {
    ((direction << 30) | ((size as u32) << 16) | ((kind as u32) << 8) | number as u32) as libc::c_ulong
}

const GET_EXTENDED: libc::c_ulong = ioctl_number(2, b'X', 31, EXTENDED_LEN);
const SET_EXTENDED: libc::c_ulong = ioctl_number(1, b'X', 32, EXTENDED_LEN);

/// The extended inode attributes of FS_IOC_FSGETXATTR.
///
/// # Errors
/// `ENOTTY` where the file system has none, the host's.
pub fn extended_flags(file: BorrowedFd<'_>) -> Result<[u8; EXTENDED_LEN]> {
    let mut flags = [0_u8; EXTENDED_LEN];
    // SAFETY: the call writes as many bytes as its number says.
    check(unsafe { libc::ioctl(file.as_raw_fd(), GET_EXTENDED as _, flags.as_mut_ptr()) } as isize)?;
    Ok(flags)
}

/// Sets the extended inode attributes of FS_IOC_FSSETXATTR.
///
/// # Errors
/// The host's.
pub fn set_extended_flags(file: BorrowedFd<'_>, flags: &[u8; EXTENDED_LEN]) -> Result<()> {
    // SAFETY: the call reads as many bytes as its number says.
    check(unsafe { libc::ioctl(file.as_raw_fd(), SET_EXTENDED as _, flags.as_ptr()) } as isize).map(drop)
}
