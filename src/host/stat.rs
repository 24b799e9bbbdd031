//! What a host says of one of its objects.

use fuse_abi::Timestamp;

/// What tells one object of the host from every other, as long as something holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The device of the file system.
    pub dev: u64,
    /// The inode number there.
    pub ino: u64,
    /// The mount through which it is seen: the same inode under two mounts is two objects.
    pub mount: u64,
}

impl Identity {
    /// Whether both are seen through one mount of one file system.
    #[must_use]
    pub const fn shares_mount(&self, other: &Self) -> bool {
        self.mount == other.mount && self.dev == other.dev
    }
}

/// The attributes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Which object it is.
    pub identity: Identity,
    /// Type and permission bits, numbered as Linux does.
    pub mode: u32,
    /// How many names it has.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What a device node stands for, packed as FUSE carries it.
    pub rdev: u32,
    /// Size in bytes.
    pub size: u64,
    /// Space taken, in units of 512 bytes.
    pub blocks: u64,
    /// The block size good for I/O.
    pub block_size: u32,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of anything.
    pub ctime: Timestamp,
    /// Birth, where the file system knows it.
    pub btime: Option<Timestamp>,
    /// What the file system marks it with, as `STATX_ATTR_*`: which bits count, and the bits.
    pub attributes: (u64, u64),
}

/// The type bits of a mode.
pub const TYPE_MASK: u32 = 0o170_000;

/// The types of objects, as Linux numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A plain file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A FIFO, socket or device node: never opened.
    Special,
}

impl Stat {
    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        Kind::of(self.mode)
    }
}

impl Kind {
    /// What an object with this mode is.
    #[must_use]
    pub const fn of(mode: u32) -> Self {
        match mode & TYPE_MASK {
            0o100_000 => Self::File,
            0o040_000 => Self::Directory,
            0o120_000 => Self::Symlink,
            _ => Self::Special,
        }
    }
}

/// How full a file system is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Size in units of `fragment_size`.
    pub blocks: u64,
    /// Free for the superuser.
    pub free: u64,
    /// Free for everybody.
    pub available: u64,
    /// Inodes.
    pub files: u64,
    /// Inodes free.
    pub files_free: u64,
    /// The block size good for I/O.
    pub block_size: u32,
    /// The unit of the block counts.
    pub fragment_size: u32,
    /// The longest name.
    pub name_max: u32,
}
