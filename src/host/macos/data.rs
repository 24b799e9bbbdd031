//! Data of open files: straight between the host's page cache and the memory that segments describe.

use std::os::fd::{AsRawFd, BorrowedFd};

use fuse_abi::Errno;
use rustix::fs::{OFlags, StatFs};
use vm_memory::VolatileSlice;

use super::{Result, allocation::Plan, check, errno, pins::on_object, stat::stat_of};
use crate::host::{
    Space,
    unix::{Storage, Vector, position},
};

/// Reads at `offset` into the segments, and stops at the end of the file. Nothing here tells whether a read would wait
/// for a disk: `cached_only` is always `EOPNOTSUPP`.
///
/// # Errors
/// The host's.
pub fn read_at<'m>(
    file: BorrowedFd<'_>,
    segments: impl Iterator<Item = VolatileSlice<'m>>,
    offset: u64,
    cached_only: bool,
) -> Result<usize> {
    if cached_only {
        return Err(Errno::EOPNOTSUPP);
    }
    let (vector, offset) = (Vector::new(segments), position(offset)?);
    // SAFETY: each entry describes memory that its segment keeps mapped and lets others change at any time.
    check(unsafe { libc::preadv(file.as_raw_fd(), vector.as_ptr(), vector.count(), offset) })
}

/// Writes the segments at `offset`. With `not_at_end` even through a descriptor that appends, which otherwise takes
/// every write to the end of the file.
///
/// # Errors
/// The host's.
pub fn write_at<'m>(
    file: BorrowedFd<'_>,
    segments: impl Iterator<Item = VolatileSlice<'m>>,
    offset: u64,
    not_at_end: bool,
) -> Result<usize> {
    let (vector, offset) = (Vector::new(segments), position(offset)?);
    // A write that names a position ignores O_APPEND here, unlike on Linux.
    let append = !not_at_end && rustix::fs::fcntl_getfl(file).map_err(errno)?.contains(OFlags::APPEND);
    // SAFETY: each entry describes memory that its segment keeps mapped.
    check(unsafe {
        if append {
            libc::writev(file.as_raw_fd(), vector.as_ptr(), vector.count())
        } else {
            libc::pwritev(file.as_raw_fd(), vector.as_ptr(), vector.count(), offset)
        }
    })
}

/// Brings a file to the disk: through the disk's own cache, which `fsync` does not do here. No cheaper call keeps the
/// promise of fdatasync, so `data_only` changes nothing.
///
/// # Errors
/// The host's.
pub fn sync_file(file: BorrowedFd<'_>, _data_only: bool) -> Result<()> {
    match rustix::fs::fcntl_fullfsync(file).map_err(errno) {
        // A volume without the call: a network share.
        Err(Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::EINVAL) => rustix::fs::fsync(file).map_err(errno),
        other => other,
    }
}

/// Brings the whole file system of an open file to the disk.
///
/// # Errors
/// The host's.
pub fn sync_file_system(file: BorrowedFd<'_>) -> Result<()> {
    unsafe extern "C" {
        fn fsync_volume_np(fd: libc::c_int, flags: libc::c_int) -> libc::c_int;
    }
    const FULL: libc::c_int = 0x01;
    const WAIT: libc::c_int = 0x02;
    // SAFETY: the call takes no memory.
    let synced = unsafe { fsync_volume_np(file.as_raw_fd(), FULL | WAIT) };
    // It returns its error, by some versions; by others -1.
    match synced {
        0 => Ok(()),
        error if error > 0 => Err(super::guest_errno(error)),
        _ => check(-1).map(drop),
    }
}

/// Allocates, punches or zeroes space, as Linux's `FALLOC_FL_*` bits say. Space that was reserved may still run out:
/// APFS writes anew what it changes.
///
/// # Errors
/// The host's; `EOPNOTSUPP` for the other bits, and where the volume cannot.
pub fn allocate(file: BorrowedFd<'_>, mode: u32, offset: u64, len: u64) -> Result<()> {
    let found = stat_of(&rustix::fs::fstat(file).map_err(errno)?);
    let block = u64::from(rustix::fs::fstatfs(file).map_err(errno)?.f_bsize);
    let plan = Plan::new(mode, offset, len, found.size, block)?;
    if let Some(end) = plan.reserve {
        reserve(file, end.saturating_sub(found.size.max(found.blocks.saturating_mul(512))))?;
    }
    if !plan.punch.is_empty() {
        let mut hole = libc::fpunchhole_t {
            fp_flags: 0,
            reserved: 0,
            fp_offset: position(plan.punch.start)?,
            fp_length: position(plan.punch.end.saturating_sub(plan.punch.start))?,
        };
        // SAFETY: the argument is what this command takes.
        check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_PUNCHHOLE, &raw mut hole) } as isize)?;
    }
    for edge in plan.zero {
        write_zeros(file, edge.start, edge.end)?;
    }
    match plan.grow {
        Some(size) => crate::host::unix::set_size(file, size),
        None => Ok(()),
    }
}

/// Reserves that many bytes behind what the file has on the disk.
fn reserve(file: BorrowedFd<'_>, bytes: u64) -> Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    let mut wish = libc::fstore_t {
        fst_flags: libc::F_ALLOCATEALL,
        fst_posmode: libc::F_PEOFPOSMODE,
        fst_offset: 0,
        fst_length: position(bytes)?,
        fst_bytesalloc: 0,
    };
    // SAFETY: the argument is what this command takes.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_PREALLOCATE, &raw mut wish) } as isize).map(drop)
}

/// Overwrites a range. Holes are punched in whole blocks, so it is short, but where the range lies within one block.
fn write_zeros(file: BorrowedFd<'_>, mut from: u64, to: u64) -> Result<()> {
    static ZEROS: [u8; 4096] = [0; 4096];
    while from < to {
        let len = usize::try_from(to.saturating_sub(from)).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
        let written = rustix::io::pwrite(file, ZEROS.get(..len).unwrap_or(&ZEROS), from).map_err(errno)?;
        if written == 0 {
            return Err(Errno::EIO);
        }
        from = from.saturating_add(written as u64);
    }
    Ok(())
}

/// Copies between open files; says how much. macOS has no call for a part of a file, so the bytes pass through here.
///
/// # Errors
/// The host's; `EINVAL` for ranges of one file that overlap.
pub fn copy_range(from: (BorrowedFd<'_>, u64), to: (BorrowedFd<'_>, u64), len: u64) -> Result<u64> {
    const BUFFER: u64 = 256 << 10;
    // A caller asks again for the rest: no request takes longer than this.
    const MOST: u64 = 16 << 20;
    let identity = |file| rustix::fs::fstat(file).map(|found| stat_of(&found).identity).map_err(errno);
    if from.1.abs_diff(to.1) < len && identity(from.0)? == identity(to.0)? {
        return Err(Errno::EINVAL);
    }
    let len = len.min(MOST);
    let mut buffer = vec![0; len.min(BUFFER) as usize];
    let mut copied = 0_u64;
    while copied < len {
        let now = buffer.len().min(usize::try_from(len.saturating_sub(copied)).unwrap_or(usize::MAX));
        let part = buffer.get_mut(..now).unwrap_or_default();
        match copy_part(part, (from.0, from.1.saturating_add(copied)), (to.0, to.1.saturating_add(copied))) {
            Ok(0) => break,
            Ok(more) => copied = copied.saturating_add(more as u64),
            // What was copied is told first; the error comes with the next request if it stays.
            Err(_) if copied > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(copied)
}

fn copy_part(buffer: &mut [u8], from: (BorrowedFd<'_>, u64), to: (BorrowedFd<'_>, u64)) -> Result<usize> {
    let read = rustix::io::pread(from.0, &mut *buffer, from.1).map_err(errno)?;
    let bytes = buffer.get(..read).unwrap_or_default();
    if bytes.is_empty() { Ok(0) } else { rustix::io::pwrite(to.0, bytes, to.1).map_err(errno) }
}

fn file_system(object: BorrowedFd<'_>) -> Result<StatFs> {
    on_object(object, |fd| rustix::fs::fstatfs(fd).map_err(errno), |path| rustix::fs::statfs(path).map_err(errno))
}

/// How full the file system of a pinned object is.
///
/// # Errors
/// The host's.
pub fn space(object: BorrowedFd<'_>) -> Result<Space> {
    let found = file_system(object)?;
    Ok(Space {
        blocks: found.f_blocks,
        free: found.f_bfree,
        available: found.f_bavail,
        files: found.f_files,
        files_free: found.f_ffree,
        block_size: u32::try_from(found.f_iosize).unwrap_or(found.f_bsize),
        fragment_size: found.f_bsize,
        // What every volume format of macOS holds, counted as each of them counts.
        name_max: 255,
    })
}

/// What kind of storage lies behind a pinned object.
///
/// # Errors
/// The host's.
pub fn storage(object: BorrowedFd<'_>) -> Result<Storage> {
    let found = file_system(object)?;
    let kind = found.f_fstypename.map(|letter| letter as u8);
    Ok(if kind.starts_with(b"tmpfs\0") {
        Storage::Memory
    } else if found.f_flags & libc::MNT_LOCAL as u32 == 0 {
        Storage::Remote
    } else {
        Storage::Disk
    })
}

/// Linux's inode flags, and those of macOS: as an owner sets them, and as the superuser may have.
const INODE_FLAGS: [(u32, u32, u32); 3] = [
    (0x10, libc::UF_IMMUTABLE, libc::SF_IMMUTABLE),
    (0x20, libc::UF_APPEND, libc::SF_APPEND),
    (0x40, libc::UF_NODUMP, 0),
];

/// The inode flags of FS_IOC_GETFLAGS.
///
/// # Errors
/// The host's.
pub fn inode_flags(file: BorrowedFd<'_>) -> Result<u32> {
    let found = rustix::fs::fstat(file).map_err(errno)?.st_flags;
    Ok(INODE_FLAGS.iter().fold(
        0,
        |flags, (linux, own, superuser)| {
            if found & (own | superuser) == 0 { flags } else { flags | linux }
        },
    ))
}

/// Sets the inode flags of FS_IOC_SETFLAGS.
///
/// # Errors
/// `EOPNOTSUPP` for flags that macOS does not have, the host's.
pub fn set_inode_flags(file: BorrowedFd<'_>, flags: u32) -> Result<()> {
    let known = INODE_FLAGS.iter().fold(0, |known, (linux, ..)| known | linux);
    if flags & !known != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let found = rustix::fs::fstat(file).map_err(errno)?.st_flags;
    // A flag that is to go, goes in both its forms, where this process may.
    let wanted = INODE_FLAGS.iter().fold(found, |wanted, (linux, own, superuser)| match flags & linux {
        0 => wanted & !(own | superuser),
        _ if wanted & superuser != 0 => wanted,
        _ => wanted | own,
    });
    // SAFETY: the call takes no memory.
    check(unsafe { libc::fchflags(file.as_raw_fd(), wanted) } as isize).map(drop)
}

/// The size of `struct fsxattr`.
const EXTENDED_LEN: usize = 28;

/// The extended inode attributes of FS_IOC_FSGETXATTR: no volume here has them.
///
/// # Errors
/// `ENOTTY`.
pub fn extended_flags(_file: BorrowedFd<'_>) -> Result<[u8; EXTENDED_LEN]> {
    Err(Errno::ENOTTY)
}

/// Sets the extended inode attributes of FS_IOC_FSSETXATTR: no volume here has them.
///
/// # Errors
/// `ENOTTY`.
pub fn set_extended_flags(_file: BorrowedFd<'_>, _flags: &[u8; EXTENDED_LEN]) -> Result<()> {
    Err(Errno::ENOTTY)
}
