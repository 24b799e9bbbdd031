//! The parts of requests on nodes and names: what the wire says, turned into types that hold only what is valid.

use fuse_abi::{
    AccessIn, BatchForgetIn, CreateIn, Errno, ForgetOne, GetattrFlags, GetattrIn, InitFlags, InitIn, MkdirIn, MknodIn,
    OpenIn, OpenInFlags, Rename2In, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFMT, S_IFREG, S_IFSOCK, SetattrIn,
    SetattrValid, StatxIn, Timestamp,
};
use zerocopy::FromBytes;

use super::request::{Cursor, Take};
use super::{
    AttributeChanges, HandleId, LookupName, Name, NewTime, NodeId, OpenFlags, RenameMode, SymlinkTarget, XattrName,
};

/// The largest position in a file, and the last byte of a lock on all of one.
pub(super) const OFFSET_MAX: u64 = i64::MAX.cast_unsigned();
const PERMISSIONS: u32 = 0o7777;

/// A position that a file can have.
pub(super) fn position(offset: u64) -> Result<u64, Errno> {
    if offset <= OFFSET_MAX { Ok(offset) } else { Err(Errno::EINVAL) }
}

/// A mode whose type is one of `types`, or is left out and means the first.
fn typed_mode(mode: u32, types: &[u32]) -> Result<u32, Errno> {
    match (mode & S_IFMT, types.first()) {
        (0, Some(default)) => Ok(default | (mode & PERMISSIONS)),
        (kind, _) if types.contains(&kind) => Ok(kind | (mode & PERMISSIONS)),
        _ => Err(Errno::EINVAL),
    }
}

macro_rules! take {
    ($($ty:ty = |$cursor:ident| $take:expr;)*) => {
        $(impl<'r> Take<'r> for $ty {
            fn take($cursor: &mut Cursor<'r>) -> Result<Self, Errno> {
                $take
            }
        })*
    };
}

take! {
    u64 = |cursor| cursor.fixed::<u64>();
    NodeId = |cursor| cursor.fixed::<u64>().map(NodeId);
    Name<'r> = |cursor| Name::new(cursor.string()?);
    LookupName<'r> = |cursor| LookupName::new(cursor.string()?);
    SymlinkTarget<'r> = |cursor| SymlinkTarget::new(cursor.string()?);
    XattrName<'r> = |cursor| XattrName::new(cursor.string()?);
}

/// Eight bytes that mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unused;

impl<'r> Take<'r> for Unused {
    fn take(cursor: &mut Cursor<'r>) -> Result<Self, Errno> {
        cursor.fixed::<u64>().map(|_| Self)
    }
}

/// The name that TMPFILE carries: the kernel has none to give and sends `/` or a number. Nothing may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TmpName;

impl<'r> Take<'r> for TmpName {
    fn take(cursor: &mut Cursor<'r>) -> Result<Self, Errno> {
        cursor.string().map(|_| Self)
    }
}

/// References to give back, node by node.
#[derive(Clone, Copy, Debug)]
pub struct Forgets<'r>(&'r [u8]);

impl Forgets<'_> {
    /// Each node with the references it loses.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, u64)> {
        let records = self.0.chunks_exact(size_of::<ForgetOne>());
        records
            .filter_map(|record| ForgetOne::read_from_bytes(record).ok())
            .map(|one| (NodeId(one.nodeid), one.nlookup))
    }
}

impl<'r> Take<'r> for Forgets<'r> {
    fn take(cursor: &mut Cursor<'r>) -> Result<Self, Errno> {
        let count = cursor.fixed::<BatchForgetIn>()?.count;
        let size = (count as usize).checked_mul(size_of::<ForgetOne>()).ok_or(Errno::EINVAL)?;
        cursor.bytes(size).map(Self)
    }
}

/// GETATTR: through which open file, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttributeSource(pub Option<HandleId>);

impl AttributeSource {
    fn new(flags: u32, fh: u64) -> Self {
        Self(GetattrFlags::from_bits_retain(flags).contains(GetattrFlags::FH).then_some(HandleId(fh)))
    }
}

impl<'r> Take<'r> for AttributeSource {
    fn take(cursor: &mut Cursor<'r>) -> Result<Self, Errno> {
        let raw: GetattrIn = cursor.fixed()?;
        Ok(Self::new(raw.getattr_flags, raw.fh))
    }
}

/// STATX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatxArgs {
    /// Through which open file, if any.
    pub source: AttributeSource,
    /// `AT_STATX_*`.
    pub flags: u32,
    /// `STATX_*` that are wanted.
    pub mask: u32,
}

impl<'r> Take<'r> for StatxArgs {
    fn take(cursor: &mut Cursor<'r>) -> Result<Self, Errno> {
        let raw: StatxIn = cursor.fixed()?;
        Ok(Self { source: AttributeSource::new(raw.getattr_flags, raw.fh), flags: raw.sx_flags, mask: raw.sx_mask })
    }
}

fn timestamp(seconds: u64, nanoseconds: u32) -> Result<Timestamp, Errno> {
    if nanoseconds < 1_000_000_000 {
        Ok(Timestamp { seconds: seconds.cast_signed(), nanoseconds })
    } else {
        Err(Errno::EINVAL)
    }
}

impl<'r> Take<'r> for AttributeChanges {
    fn take(cursor: &mut Cursor<'r>) -> Result<Self, Errno> {
        let raw: SetattrIn = cursor.fixed()?;
        // Bits that newer clients add describe the caller; what they would set is not among our fields.
        let valid = SetattrValid::from_bits_retain(raw.valid);
        let new_time = |now, given, seconds, nanoseconds| match (valid.contains(now), valid.contains(given)) {
            (true, _) => Ok(Some(NewTime::Now)),
            (false, true) => timestamp(seconds, nanoseconds).map(|time| Some(NewTime::At(time))),
            (false, false) => Ok(None),
        };
        Ok(Self {
            handle: valid.contains(SetattrValid::FH).then_some(HandleId(raw.fh)),
            mode: valid.contains(SetattrValid::MODE).then_some(raw.mode & PERMISSIONS),
            uid: valid.contains(SetattrValid::UID).then_some(raw.uid),
            gid: valid.contains(SetattrValid::GID).then_some(raw.gid),
            size: valid.contains(SetattrValid::SIZE).then(|| position(raw.size)).transpose()?,
            atime: new_time(SetattrValid::ATIME_NOW, SetattrValid::ATIME, raw.atime, raw.atimensec)?,
            mtime: new_time(SetattrValid::MTIME_NOW, SetattrValid::MTIME, raw.mtime, raw.mtimensec)?,
            ctime: valid.contains(SetattrValid::CTIME).then(|| timestamp(raw.ctime, raw.ctimensec)).transpose()?,
            kill_suidgid: valid.contains(SetattrValid::KILL_SUIDGID),
        })
    }
}

/// MKNOD, but for its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewNode {
    /// Type, a regular file where none was given, and permission bits.
    pub mode: u32,
    /// The caller's umask.
    pub umask: u32,
    /// The device of a device node.
    pub rdev: u32,
}

impl<'r> Take<'r> for NewNode {
    fn take(cursor: &mut Cursor<'r>) -> Result<Self, Errno> {
        let raw: MknodIn = cursor.fixed()?;
        let mode = typed_mode(raw.mode, &[S_IFREG, S_IFIFO, S_IFCHR, S_IFBLK, S_IFSOCK])?;
        Ok(Self { mode, umask: raw.umask & PERMISSIONS, rdev: raw.rdev })
    }
}

/// MKDIR, but for its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewDirectory {
    /// Type and permission bits.
    pub mode: u32,
    /// The caller's umask.
    pub umask: u32,
}

impl<'r> Take<'r> for NewDirectory {
    fn take(cursor: &mut Cursor<'r>) -> Result<Self, Errno> {
        let raw: MkdirIn = cursor.fixed()?;
        Ok(Self { mode: typed_mode(raw.mode, &[S_IFDIR])?, umask: raw.umask & PERMISSIONS })
    }
}

/// CREATE and TMPFILE, but for the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// How it is opened.
    pub flags: OpenFlags,
    /// Type and permission bits.
    pub mode: u32,
    /// The caller's umask.
    pub umask: u32,
    /// Truncating what is there drops setuid and setgid bits.
    pub kill_suidgid: bool,
}

impl<'r> Take<'r> for NewFile {
    fn take(cursor: &mut Cursor<'r>) -> Result<Self, Errno> {
        let raw: CreateIn = cursor.fixed()?;
        Ok(Self {
            flags: OpenFlags::new(raw.flags, cursor.terms.arch)?,
            mode: typed_mode(raw.mode, &[S_IFREG])?,
            umask: raw.umask & PERMISSIONS,
            kill_suidgid: kills(raw.open_flags),
        })
    }
}

fn kills(open_flags: u32) -> bool {
    OpenInFlags::from_bits_retain(open_flags).contains(OpenInFlags::KILL_SUIDGID)
}

/// OPEN and OPENDIR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// How it is opened.
    pub flags: OpenFlags,
    /// Truncating drops setuid and setgid bits.
    pub kill_suidgid: bool,
}

impl Opening {
    /// Whether a read-only file system refuses it.
    #[must_use]
    pub const fn changes(&self) -> bool {
        self.flags.changes()
    }
}

impl<'r> Take<'r> for Opening {
    fn take(cursor: &mut Cursor<'r>) -> Result<Self, Errno> {
        let raw: OpenIn = cursor.fixed()?;
        Ok(Self { flags: OpenFlags::new(raw.flags, cursor.terms.arch)?, kill_suidgid: kills(raw.open_flags) })
    }
}

/// RENAME2: where to, and what happens to what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenameTo {
    /// The new directory.
    pub directory: NodeId,
    /// What happens.
    pub mode: RenameMode,
}

impl<'r> Take<'r> for RenameTo {
    fn take(cursor: &mut Cursor<'r>) -> Result<Self, Errno> {
        const NO_REPLACE: u32 = 1;
        const EXCHANGE: u32 = 2;
        const WHITEOUT: u32 = 4;
        const WHITEOUT_NO_REPLACE: u32 = WHITEOUT | NO_REPLACE;
        let raw: Rename2In = cursor.fixed()?;
        let mode = match raw.flags {
            0 => RenameMode::Replace,
            NO_REPLACE => RenameMode::NoReplace,
            EXCHANGE => RenameMode::Exchange,
            WHITEOUT => RenameMode::Whiteout { no_replace: false },
            WHITEOUT_NO_REPLACE => RenameMode::Whiteout { no_replace: true },
            _ => return Err(Errno::EINVAL),
        };
        Ok(Self { directory: NodeId(raw.newdir), mode })
    }
}

/// What ACCESS asks to be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessMask(pub u32);

impl AccessMask {
    /// Whether a read-only file system refuses it: leave to write is asked for.
    #[must_use]
    pub const fn changes(&self) -> bool {
        self.0 & 0b010 != 0
    }
}

impl<'r> Take<'r> for AccessMask {
    fn take(cursor: &mut Cursor<'r>) -> Result<Self, Errno> {
        match cursor.fixed::<AccessIn>()?.mask {
            mask @ 0..=0b111 => Ok(Self(mask)),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// What a client offers at INIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its major version.
    pub major: u32,
    /// Its minor version.
    pub minor: u32,
    /// The most it reads ahead.
    pub max_readahead: u32,
    /// What it can.
    pub flags: InitFlags,
}

impl<'r> Take<'r> for Offer {
    fn take(cursor: &mut Cursor<'r>) -> Result<Self, Errno> {
        // The version comes first in every version; what follows is known for ours only, and may have grown.
        let bytes = cursor.rest();
        let raw: InitIn = fuse_abi::read_short(bytes, fuse_abi::COMPAT_INIT_IN_SIZE).ok_or(Errno::EINVAL)?;
        // From 7.36 it is longer still, but what is missing then means nothing without INIT_EXT.
        let least = InitIn::size_for_minor(raw.minor).min(fuse_abi::COMPAT_35_INIT_IN_SIZE);
        if raw.major == fuse_abi::KERNEL_VERSION && bytes.len() < least {
            return Err(Errno::EINVAL);
        }
        Ok(Self { major: raw.major, minor: raw.minor, max_readahead: raw.max_readahead, flags: raw.init_flags() })
    }
}
