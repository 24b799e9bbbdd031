//! The parts of requests on open files and extended attributes: reading, writing, locks, ranges.

use fuse_abi::{
    CopyFileRangeIn, Errno, FallocateIn, FileLock, FlushIn, FsyncFlags, FsyncIn, GetxattrIn, InitFlags, LkFlags, LkIn,
    LseekIn, ReadIn, ReleaseFlags, ReleaseIn, SetxattrFlags, SetxattrIn, SetxattrInCompat, WriteFlags, WriteIn,
};

use super::arguments::{OFFSET_MAX, position};
use super::request::{Cursor, Take};
use super::{CopyRange, HandleId, LockArgs, NodeId, OpenFlags, ReadArgs, Whence, WriteArgs, XattrName};

/// The longest value that Linux lets an extended attribute have.
const XATTR_SIZE_MAX: usize = 65536;

impl<'r> Take<'r> for ReadArgs {
    fn take(cursor: &mut Cursor<'r>) -> Result<Self, Errno> {
        let raw: ReadIn = cursor.fixed()?;
        Ok(Self { handle: HandleId(raw.fh), offset: position(raw.offset)?, size: raw.size })
    }
}

/// READDIR and READDIRPLUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The open directory.
    pub handle: HandleId,
    /// 0 or a cookie; no file system's is negative.
    pub offset: u64,
    /// The most bytes wanted.
    pub size: u32,
}

impl<'r> Take<'r> for Listing {
    fn take(cursor: &mut Cursor<'r>) -> Result<Self, Errno> {
        let ReadArgs { handle, offset, size } = ReadArgs::take(cursor)?;
        Ok(Self { handle, offset, size })
    }
}

/// WRITE, but for its data, whose length was found to be what the request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writing(pub WriteArgs);

impl<'r> Take<'r> for Writing {
    fn take(cursor: &mut Cursor<'r>) -> Result<Self, Errno> {
        let raw: WriteIn = cursor.fixed()?;
        if raw.size as usize != cursor.payload {
            return Err(Errno::EINVAL);
        }
        let flags = WriteFlags::from_bits_retain(raw.write_flags);
        Ok(Self(WriteArgs {
            handle: HandleId(raw.fh),
            offset: position(raw.offset)?,
            from_cache: flags.contains(WriteFlags::CACHE),
            kill_suidgid: flags.contains(WriteFlags::KILL_SUIDGID),
            flags: OpenFlags::of_descriptor(raw.flags, cursor.terms.arch),
        }))
    }
}

/// FLUSH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flushing {
    /// The open file.
    pub handle: HandleId,
    /// Whose POSIX locks end.
    pub lock_owner: u64,
}

impl<'r> Take<'r> for Flushing {
    fn take(cursor: &mut Cursor<'r>) -> Result<Self, Errno> {
        let raw: FlushIn = cursor.fixed()?;
        Ok(Self { handle: HandleId(raw.fh), lock_owner: raw.lock_owner })
    }
}

/// RELEASE and RELEASEDIR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Releasing {
    /// The open file or directory.
    pub handle: HandleId,
    /// Whose `flock` lock ends, if it had one.
    pub flock_owner: Option<u64>,
}

impl<'r> Take<'r> for Releasing {
    fn take(cursor: &mut Cursor<'r>) -> Result<Self, Errno> {
        let raw: ReleaseIn = cursor.fixed()?;
        let unlock = ReleaseFlags::from_bits_retain(raw.release_flags).contains(ReleaseFlags::FLOCK_UNLOCK);
        Ok(Self { handle: HandleId(raw.fh), flock_owner: unlock.then_some(raw.lock_owner) })
    }
}

/// FSYNC and FSYNCDIR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syncing {
    /// The open file or directory.
    pub handle: HandleId,
    /// Only data, and what is needed to reach it.
    pub data_only: bool,
}

impl<'r> Take<'r> for Syncing {
    fn take(cursor: &mut Cursor<'r>) -> Result<Self, Errno> {
        let raw: FsyncIn = cursor.fixed()?;
        let data_only = FsyncFlags::from_bits_retain(raw.fsync_flags).contains(FsyncFlags::FDATASYNC);
        Ok(Self { handle: HandleId(raw.fh), data_only })
    }
}

/// SETXATTR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewXattr<'r> {
    /// The attribute.
    pub name: XattrName<'r>,
    /// Its value.
    pub value: &'r [u8],
    /// XATTR_CREATE and XATTR_REPLACE.
    pub flags: u32,
    /// Setting the access control list clears setgid.
    pub kill_sgid: bool,
}

impl<'r> Take<'r> for NewXattr<'r> {
    fn take(cursor: &mut Cursor<'r>) -> Result<Self, Errno> {
        let raw = if cursor.terms.agreed.flags.contains(InitFlags::SETXATTR_EXT) {
            cursor.fixed::<SetxattrIn>()?
        } else {
            let SetxattrInCompat { size, flags } = cursor.fixed()?;
            SetxattrIn { size, flags, ..SetxattrIn::default() }
        };
        let name = XattrName::take(cursor)?;
        let value = cursor.rest();
        if raw.size as usize != value.len() {
            return Err(Errno::EINVAL);
        }
        if value.len() > XATTR_SIZE_MAX {
            return Err(Errno::E2BIG);
        }
        let kill_sgid = SetxattrFlags::from_bits_retain(raw.setxattr_flags).contains(SetxattrFlags::ACL_KILL_SGID);
        Ok(Self { name, value, flags: raw.flags, kill_sgid })
    }
}

/// How many bytes of an attribute or of a list GETXATTR and LISTXATTR take; 0 asks how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XattrSize(pub u32);

impl<'r> Take<'r> for XattrSize {
    fn take(cursor: &mut Cursor<'r>) -> Result<Self, Errno> {
        cursor.fixed::<GetxattrIn>().map(|raw| Self(raw.size))
    }
}

impl<'r> Take<'r> for LockArgs {
    fn take(cursor: &mut Cursor<'r>) -> Result<Self, Errno> {
        const UNLOCK: u32 = 2;
        let raw: LkIn = cursor.fixed()?;
        let FileLock { start, end, r#type, .. } = raw.lk;
        if start > end || end > OFFSET_MAX || r#type > UNLOCK {
            return Err(Errno::EINVAL);
        }
        let flock = LkFlags::from_bits_retain(raw.lk_flags).contains(LkFlags::FLOCK);
        // SETLKW alone waits; the dispatcher says so.
        Ok(Self { handle: HandleId(raw.fh), owner: raw.owner, lock: raw.lk, flock, wait: false })
    }
}

/// FALLOCATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// The open file.
    pub handle: HandleId,
    /// `FALLOC_FL_*`; the host knows which it takes.
    pub mode: u32,
    /// Where it begins.
    pub offset: u64,
    /// How many bytes, not 0.
    pub len: u64,
}

impl<'r> Take<'r> for Allocation {
    fn take(cursor: &mut Cursor<'r>) -> Result<Self, Errno> {
        let raw: FallocateIn = cursor.fixed()?;
        let (offset, len) = (position(raw.offset)?, position(raw.length)?);
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        if offset.saturating_add(len) > OFFSET_MAX {
            return Err(Errno::EFBIG);
        }
        Ok(Self { handle: HandleId(raw.fh), mode: raw.mode, offset, len })
    }
}

/// LSEEK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeking {
    /// The open file.
    pub handle: HandleId,
    /// Where to begin.
    pub offset: u64,
    /// What to find.
    pub whence: Whence,
}

impl<'r> Take<'r> for Seeking {
    fn take(cursor: &mut Cursor<'r>) -> Result<Self, Errno> {
        let raw: LseekIn = cursor.fixed()?;
        let whence = match raw.whence {
            0 => Whence::Start,
            1 => Whence::Current,
            2 => Whence::End,
            3 => Whence::Data,
            4 => Whence::Hole,
            _ => return Err(Errno::EINVAL),
        };
        let offset = position(raw.offset).map_err(|errno| match whence {
            // As Linux answers a negative offset: nothing is there.
            Whence::Data | Whence::Hole => Errno::ENXIO,
            _ => errno,
        })?;
        Ok(Self { handle: HandleId(raw.fh), offset, whence })
    }
}

impl<'r> Take<'r> for CopyRange {
    fn take(cursor: &mut Cursor<'r>) -> Result<Self, Errno> {
        let raw: CopyFileRangeIn = cursor.fixed()?;
        let (from_offset, to_offset, len) = (position(raw.off_in)?, position(raw.off_out)?, position(raw.len)?);
        if raw.flags != 0 {
            return Err(Errno::EINVAL);
        }
        Ok(Self {
            from: (cursor.node, HandleId(raw.fh_in)),
            from_offset,
            to: (NodeId(raw.nodeid_out), HandleId(raw.fh_out)),
            to_offset,
            len,
        })
    }
}
