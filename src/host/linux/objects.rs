//! Finding, pinning and opening host objects.

use std::{
    ffi::CStr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use fuse_abi::{Errno, Timestamp};
use rustix::{
    fs::{AtFlags, Mode, OFlags, ResolveFlags, Statx, StatxAttributes, StatxFlags, StatxTimestamp},
    mount::{OpenTreeFlags, open_tree},
};

use super::{Result, check, errno, permission_bits};
use crate::host::{Identity, Stat};

/// Pinned only: nothing can be read or written through it.
const PIN: OpenMode = OFlags::PATH;

/// How a file is opened, in the host's own numbers.
pub type OpenMode = OFlags;

const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME).union(StatxFlags::MNT_ID);

/// The attributes of an entry of `dir`, itself if it is a symbolic link.
///
/// # Errors
/// The host's.
pub fn stat_at(dir: BorrowedFd<'_>, name: &CStr) -> Result<Stat> {
    rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, WANTED)
        .map(|found| stat_of(&found))
        .map_err(errno)
}

/// The attributes of what a path beneath `root` leads to, itself if it is a symbolic link. In a process that is not
/// `contained` no symbolic link on the way is followed, and no step leads out.
///
/// # Errors
/// The host's; `ELOOP` and `EXDEV` for what is not followed.
pub fn stat_beneath(root: BorrowedFd<'_>, path: &CStr, contained: bool) -> Result<Stat> {
    if contained || !path.to_bytes().contains(&b'/') {
        return stat_at(root, path);
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let found = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve).map_err(errno)?;
    stat(found.as_fd())
}

/// The attributes of an open or pinned object.
///
/// # Errors
/// The host's.
pub fn stat(object: BorrowedFd<'_>) -> Result<Stat> {
    rustix::fs::statx(object, c"", AtFlags::EMPTY_PATH, WANTED).map(|found| stat_of(&found)).map_err(errno)
}

fn stat_of(found: &Statx) -> Stat {
    let time = |t: &StatxTimestamp| Timestamp { seconds: t.tv_sec, nanoseconds: t.tv_nsec };
    let known = StatxFlags::from_bits_retain(found.stx_mask);
    Stat {
        identity: Identity {
            dev: rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor),
            ino: found.stx_ino,
            mount: if known.contains(StatxFlags::MNT_ID) { found.stx_mnt_id } else { 0 },
        },
        mode: u32::from(found.stx_mode),
        nlink: found.stx_nlink,
        uid: found.stx_uid,
        gid: found.stx_gid,
        rdev: pack_device(found.stx_rdev_major, found.stx_rdev_minor),
        size: found.stx_size,
        blocks: found.stx_blocks,
        block_size: found.stx_blksize,
        atime: time(&found.stx_atime),
        mtime: time(&found.stx_mtime),
        ctime: time(&found.stx_ctime),
        btime: known.contains(StatxFlags::BTIME).then(|| time(&found.stx_btime)),
        attributes: (found.stx_attributes_mask.bits(), found.stx_attributes.bits()),
    }
}

/// Whether the object is where another file system is mounted.
#[must_use]
pub fn is_mount_root(found: &Stat) -> bool {
    let root = StatxAttributes::MOUNT_ROOT.bits();
    found.attributes.0 & found.attributes.1 & root != 0
}

/// A device number as FUSE packs it into 32 bits.
const fn pack_device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The device number that [`pack_device`] packed.
pub(super) fn unpack_device(packed: u32) -> rustix::fs::Dev {
    rustix::fs::makedev((packed & 0xfff00) >> 8, (packed & 0xff) | ((packed >> 12) & 0xfff00))
}

/// Pins an entry of `dir` without opening it: nothing is read, followed, blocked on or woken.
///
/// # Errors
/// The host's.
pub fn pin_at(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(errno)
}

/// Opens an entry of `dir` that must not exist yet.
///
/// # Errors
/// The host's; `EEXIST` where the name is taken by anything.
pub fn create_at(dir: BorrowedFd<'_>, name: &CStr, mode: OpenMode, permissions: u32) -> Result<OwnedFd> {
    let flags = mode | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, permission_bits(permissions)).map_err(errno)
}

/// Opens a file without a name in `dir`.
///
/// # Errors
/// The host's.
pub fn create_unnamed(dir: BorrowedFd<'_>, mode: OpenMode, permissions: u32) -> Result<OwnedFd> {
    let flags = mode | OFlags::TMPFILE | OFlags::CLOEXEC;
    rustix::fs::openat(dir, c".", flags, permission_bits(permissions)).map_err(errno)
}

/// This process's own descriptors as names, through which a pinned object is opened or named to calls that want a path.
#[derive(Debug)]
pub struct SelfFds {
    dir: OwnedFd,
    prefix: &'static str,
}

/// Room for a path such as `/proc/self/fd/2147483647` and its terminator.
const PATH_ROOM: usize = 32;

/// A path that names one of this process's descriptors.
#[derive(Debug)]
pub struct SelfPath {
    bytes: [u8; PATH_ROOM],
    len: usize,
}

impl SelfFds {
    /// Where /proc is mounted as usual.
    ///
    /// # Errors
    /// `ENOENT` where it is not.
    pub fn open() -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(c"/proc/self/fd", flags, Mode::empty()).map_err(errno)?;
        Ok(Self { dir, prefix: "/proc/self/fd/" })
    }

    /// Where /proc is out of reach, but `dir` is its `self/fd`, which this makes the working directory of the process:
    /// some calls take no directory beside the path.
    ///
    /// # Errors
    /// The host's.
    pub fn from_directory(dir: OwnedFd) -> Result<Self> {
        rustix::process::fchdir(&dir).map_err(errno)?;
        Ok(Self { dir, prefix: "" })
    }

    /// The path of a descriptor, for calls that take nothing but a path.
    #[must_use]
    pub fn path(&self, object: BorrowedFd<'_>) -> SelfPath {
        SelfPath::new(self.prefix, object.as_raw_fd())
    }

    /// Opens what `object` pins. The caller has made sure that it is a file or a directory.
    ///
    /// # Errors
    /// The host's.
    pub fn reopen(&self, object: BorrowedFd<'_>, mode: OpenMode) -> Result<OwnedFd> {
        let path = SelfPath::new("", object.as_raw_fd());
        rustix::fs::openat(&self.dir, path.as_c_str(), mode | OFlags::CLOEXEC, Mode::empty()).map_err(errno)
    }

    /// Pins once more what `object` has open or pins: without a walk through /proc, where the kernel allows it.
    ///
    /// # Errors
    /// The host's.
    pub fn pin_again(&self, object: BorrowedFd<'_>) -> Result<OwnedFd> {
        let flags = OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        // Linux 5.2 has the call, and some containers forbid it.
        open_tree(object, c"", flags).or_else(|_| self.reopen(object, PIN))
    }

    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl SelfPath {
    pub(super) fn new(prefix: &str, fd: RawFd) -> Self {
        use std::io::Write;
        let mut bytes = [0; PATH_ROOM];
        let mut rest = bytes.as_mut_slice();
        // Prefix and digits are shorter than the room, so the last byte stays 0 whatever is written.
        let _ = write!(rest, "{prefix}{fd}");
        let len = PATH_ROOM - rest.len();
        Self { bytes, len }
    }

    /// The path with its terminator.
    #[must_use]
    pub fn as_c_str(&self) -> &CStr {
        self.bytes.get(..=self.len).and_then(|bytes| CStr::from_bytes_with_nul(bytes).ok()).unwrap_or(c"")
    }
}

/// A name for an inode that costs no descriptor and outlives renames: what NFS servers use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileHandle(Stored);

/// Most file systems' handles fit beside their type and length into two words; a guest can make the server keep many.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stored {
    Inline { kind: u8, len: u8, bytes: [u8; INLINE] },
    Long(Box<(i32, Vec<u8>)>),
}

/// ext4, xfs and tmpfs take 8 and 12.
const INLINE: usize = 13;

impl Stored {
    fn new(kind: i32, from: &[u8]) -> Self {
        let mut bytes = [0; INLINE];
        match (bytes.get_mut(..from.len()), u8::try_from(from.len()), u8::try_from(kind)) {
            (Some(room), Ok(len), Ok(kind)) => {
                room.copy_from_slice(from);
                Self::Inline { kind, len, bytes }
            }
            _ => Self::Long(Box::new((kind, from.to_vec()))),
        }
    }

    fn parts(&self) -> (i32, &[u8]) {
        match self {
            Self::Inline { kind, len, bytes } => (i32::from(*kind), bytes.get(..usize::from(*len)).unwrap_or_default()),
            Self::Long(long) => (long.0, &long.1),
        }
    }
}

#[repr(C)]
struct RawHandle {
    len: libc::c_uint,
    kind: libc::c_int,
    bytes: [u8; libc::MAX_HANDLE_SZ as usize],
}

impl FileHandle {
    /// The handle of a pinned object.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where the file system has none.
    pub fn of(object: BorrowedFd<'_>) -> Result<Self> {
        Self::at(object, c"", libc::AT_EMPTY_PATH)
    }

    /// The handle of an entry of `dir`.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn of_entry(dir: BorrowedFd<'_>, name: &CStr) -> Result<Self> {
        Self::at(dir, name, 0)
    }

    fn at(dir: BorrowedFd<'_>, name: &CStr, flags: libc::c_int) -> Result<Self> {
        let mut raw = RawHandle { len: libc::MAX_HANDLE_SZ as _, kind: 0, bytes: [0; libc::MAX_HANDLE_SZ as usize] };
        let mut mount = 0;
        // SAFETY: the name ends in NUL, and the handle has the room that its length field says.
        check(unsafe {
            libc::name_to_handle_at(dir.as_raw_fd(), name.as_ptr(), (&raw mut raw).cast(), &raw mut mount, flags)
        } as isize)?;
        let bytes = raw.bytes.get(..raw.len as usize).ok_or(Errno::EOVERFLOW)?;
        Ok(Self(Stored::new(raw.kind, bytes)))
    }

    /// Opens the inode. `mount` is any open file or directory of its file system.
    ///
    /// # Errors
    /// `ESTALE` when it is gone; `EPERM` without CAP_DAC_READ_SEARCH.
    pub fn open(&self, mount: BorrowedFd<'_>, mode: OpenMode) -> Result<OwnedFd> {
        let (kind, bytes) = self.0.parts();
        let mut raw = RawHandle { len: bytes.len() as _, kind, bytes: [0; libc::MAX_HANDLE_SZ as usize] };
        raw.bytes.get_mut(..bytes.len()).ok_or(Errno::EOVERFLOW)?.copy_from_slice(bytes);
        let flags = (mode | OFlags::CLOEXEC).bits() as libc::c_int;
        // SAFETY: the handle has as many bytes as its length field says.
        let fd = check(unsafe { libc::open_by_handle_at(mount.as_raw_fd(), (&raw mut raw).cast(), flags) } as isize)?;
        // SAFETY: the kernel just made this descriptor for us.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
    }

    /// Pins the inode without opening it.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn pin(&self, mount: BorrowedFd<'_>) -> Result<OwnedFd> {
        self.open(mount, OFlags::PATH)
    }
}

/// Pins the parent of a directory.
///
/// # Errors
/// The host's.
pub fn pin_parent(dir: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, c"..", flags, Mode::empty()).map_err(errno)
}
