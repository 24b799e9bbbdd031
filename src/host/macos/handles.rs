//! Names for inodes that cost no descriptor and outlive renames.

use std::{
    ffi::CStr,
    os::fd::{BorrowedFd, OwnedFd},
};

use fuse_abi::Errno;

use super::{
    OpenMode, Result,
    objects::open_path,
    paths::NumberPath,
    pins::{pin_path, stat_path},
};
use crate::host::{Identity, Kind, Stat};

/// The number of an inode. APFS gives none twice, and HFS+ not before 2^32 files were made: it needs no proof of age.
///
/// The time of birth would be none either, because setting an earlier modification time moves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHandle(pub(super) Identity);

impl FileHandle {
    /// The handle of a pinned object.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where the volume finds nothing by number, or not this object because it has no name.
    pub fn of(object: BorrowedFd<'_>) -> Result<Self> {
        let handle = Self(super::stat(object)?.identity);
        handle.stat().map_or(Err(Errno::EOPNOTSUPP), |_| Ok(handle))
    }

    /// The handle of an entry of `dir`: to compare, and to open where [`of`](Self::of) works.
    ///
    /// # Errors
    /// The host's.
    pub fn of_entry(dir: BorrowedFd<'_>, name: &CStr) -> Result<Self> {
        super::stat_at(dir, name).map(|found| Self(found.identity))
    }

    /// Opens the inode, which is a file or a directory. Needs no `mount` here.
    ///
    /// # Errors
    /// `ESTALE` when it is gone, the host's.
    pub fn open(&self, _mount: BorrowedFd<'_>, mode: OpenMode) -> Result<OwnedFd> {
        self.reach(mode)
    }

    /// Pins the inode without opening it.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn pin(&self, mount: BorrowedFd<'_>) -> Result<OwnedFd> {
        self.open(mount, super::PIN)
    }

    pub(super) fn reach(&self, mode: OpenMode) -> Result<OwnedFd> {
        let found = self.stat()?;
        let path = NumberPath::new(self.0);
        let reached = if mode.contains(super::PIN) {
            pin_path(path.as_c_str(), self.0)
        } else if found.kind() == Kind::Special {
            Err(Errno::ENXIO)
        } else {
            open_path(path.as_c_str(), self.0, mode)
        };
        reached.map_err(gone)
    }

    /// The inode's attributes, if it is still there.
    pub(super) fn stat(&self) -> Result<Stat> {
        let found = stat_path(NumberPath::new(self.0).as_c_str()).map_err(gone)?;
        if found.identity == self.0 { Ok(found) } else { Err(Errno::ESTALE) }
    }
}

/// A number that leads nowhere is an inode that is gone.
fn gone(error: Errno) -> Errno {
    if error == Errno::ENOENT { Errno::ESTALE } else { error }
}
