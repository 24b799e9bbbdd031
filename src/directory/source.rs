//! What the streams ask of the host: the seam where tests put errors and changes between two calls.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use fuse_abi::Errno;

use crate::host::{DirectoryState, Entry, directory};

/// A directory opened for reading, whose position nobody else moves.
pub(super) trait Source: Send + Sync {
    fn descriptor(&self) -> BorrowedFd<'_>;

    fn state(&self) -> Result<DirectoryState, Errno> {
        directory::state(self.descriptor())
    }

    /// Everything from the start to the end; an error comes after the entries before it.
    fn scan(&self, each: &mut dyn FnMut(&Entry<'_>) -> Result<(), Errno>) -> Result<(), Errno> {
        directory::scan(self.descriptor(), each)
    }

    #[cfg(target_os = "linux")]
    fn seek(&self, position: u64) -> Result<(), Errno> {
        directory::seek(self.descriptor(), position)
    }

    /// Appends entries to the room in `block`; none at the end.
    #[cfg(target_os = "linux")]
    fn read_block(&self, block: &mut Vec<u8>) -> Result<(), Errno> {
        directory::read_block(self.descriptor(), block)
    }
}

impl Source for OwnedFd {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}
