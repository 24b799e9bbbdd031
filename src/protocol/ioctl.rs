//! The ioctls that mean the same on every file system: inode flags, and XFS's extended form of them.

use fuse_abi::{Errno, IoctlFlags, IoctlIn};
use zerocopy::FromBytes;

use super::request::{Cursor, Take};
use super::{ExtendedFlags, HandleId, Ioctl};

// The numbers contain the size of the C type, which is `long` although an `int` is meant.
const GETFLAGS_32: u32 = 0x8004_6601;
const GETFLAGS_64: u32 = 0x8008_6601;
const SETFLAGS_32: u32 = 0x4004_6602;
const SETFLAGS_64: u32 = 0x4008_6602;
const FSGETXATTR: u32 = 0x801c_581f;
const FSSETXATTR: u32 = 0x401c_5820;

/// IOCTL: one of those served, with its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoctlCall {
    /// The open file or directory.
    pub handle: HandleId,
    /// The call.
    pub request: Ioctl,
}

impl IoctlCall {
    /// Whether a read-only file system refuses it.
    #[must_use]
    pub const fn changes(&self) -> bool {
        matches!(self.request, Ioctl::SetFlags(_) | Ioctl::SetExtended(_))
    }
}

impl<'r> Take<'r> for IoctlCall {
    fn take(cursor: &mut Cursor<'r>) -> Result<Self, Errno> {
        let raw: IoctlIn = cursor.fixed()?;
        let data = cursor.rest();
        if raw.in_size as usize != data.len() {
            return Err(Errno::EINVAL);
        }
        // An unrestricted call names the caller's memory by address; only character devices make them.
        if IoctlFlags::from_bits_retain(raw.flags).contains(IoctlFlags::UNRESTRICTED) {
            return Err(Errno::ENOTTY);
        }
        let room = |size: usize| if raw.out_size as usize >= size { Ok(()) } else { Err(Errno::EINVAL) };
        let request = match raw.cmd {
            GETFLAGS_32 | GETFLAGS_64 => room(size_of::<u32>()).map(|()| Ioctl::GetFlags)?,
            SETFLAGS_32 | SETFLAGS_64 => Ioctl::SetFlags(first(data)?),
            FSGETXATTR => room(size_of::<ExtendedFlags>()).map(|()| Ioctl::GetExtended)?,
            FSSETXATTR => Ioctl::SetExtended(first(data)?),
            _ => return Err(Errno::ENOTTY),
        };
        Ok(Self { handle: HandleId(raw.fh), request })
    }
}

/// The value that the data begins with: a client may send as many bytes as the call's number says.
fn first<T: FromBytes>(data: &[u8]) -> Result<T, Errno> {
    T::read_from_prefix(data).map(|(value, _)| value).map_err(|_| Errno::EINVAL)
}
