//! Listings: records of a fixed part, a name, and zeros up to a multiple of eight bytes.

use crate::EntryOut;
use crate::wire::{constants, structs};

structs! {
    /// The fixed part of a record of READDIR; `namelen` bytes of the name follow.
    Dirent = fuse_dirent {
        ino: u64, "The inode number that callers see.";
        off: u64, "Where a listing goes on after this record.";
        namelen: u32, "Bytes of the name.";
        r#type: u32, "The type, see [`dirent_type`].";
    }

    /// The fixed part of a record of READDIRPLUS; `dirent.namelen` bytes of the name follow.
    Direntplus = fuse_direntplus {
        entry_out: EntryOut, "What a lookup of the name would have replied; with node 0 it takes no reference.";
        dirent: Dirent, "The record itself.";
    }
}

constants! {
    NAME_OFFSET: usize = size_of::<Dirent>(), FUSE_NAME_OFFSET, "Where the name begins in a record of READDIR.";
    NAME_OFFSET_DIRENTPLUS: usize = size_of::<Direntplus>(), FUSE_NAME_OFFSET_DIRENTPLUS,
        "Where the name begins in a record of READDIRPLUS.";
}

/// `len` rounded up to the multiple of eight that records are aligned to; `None` when that is beyond a `usize`.
#[must_use]
pub const fn rec_align(len: usize) -> Option<usize> {
    len.checked_next_multiple_of(size_of::<u64>())
}

/// Bytes of a record of READDIR with a name of `namelen` bytes.
#[must_use]
pub const fn dirent_size(namelen: usize) -> Option<usize> {
    record_size(NAME_OFFSET, namelen)
}

/// Bytes of a record of READDIRPLUS with a name of `namelen` bytes.
#[must_use]
pub const fn direntplus_size(namelen: usize) -> Option<usize> {
    record_size(NAME_OFFSET_DIRENTPLUS, namelen)
}

const fn record_size(fixed: usize, namelen: usize) -> Option<usize> {
    match fixed.checked_add(namelen) {
        Some(len) => rec_align(len),
        None => None,
    }
}

/// The type in a record, from the mode in attributes.
#[must_use]
pub const fn dirent_type(mode: u32) -> u32 {
    (mode & S_IFMT) >> 12
}

/// The part of a mode that is the type, the same on every client.
pub const S_IFMT: u32 = 0o170_000;
/// The type of a pipe.
pub const S_IFIFO: u32 = 0o010_000;
/// The type of a character device.
pub const S_IFCHR: u32 = 0o020_000;
/// The type of a directory.
pub const S_IFDIR: u32 = 0o040_000;
/// The type of a block device.
pub const S_IFBLK: u32 = 0o060_000;
/// The type of a regular file.
pub const S_IFREG: u32 = 0o100_000;
/// The type of a symbolic link.
pub const S_IFLNK: u32 = 0o120_000;
/// The type of a socket.
pub const S_IFSOCK: u32 = 0o140_000;
