//! Finding and opening host objects.

use std::{
    ffi::CStr,
    os::fd::{BorrowedFd, OwnedFd},
};

use fuse_abi::Errno;
use rustix::fs::AtFlags;

use super::{
    OpenMode, PIN, Result,
    credentials::Grant,
    errno,
    open::open,
    paths::{TRIES, with_path},
    pins::{Ticket, pin_path},
    stat::stat_of,
};
use crate::host::{Identity, Stat};

/// The attributes of an entry of `dir`, itself if it is a symbolic link.
///
/// # Errors
/// The host's.
pub fn stat_at(dir: BorrowedFd<'_>, name: &CStr) -> Result<Stat> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(stat_of(&found)),
        // A directory that could not be opened, not even for searching, is held by a ticket.
        Err(_) if Ticket::of(dir).is_some() => Err(Errno::EACCES),
        Err(error) => Err(errno(error)),
    }
}

/// The attributes of what a path beneath `root` leads to, itself if it is a symbolic link. No symbolic link on the way is
/// followed. A step up cannot be in the path: it is made of names that were checked.
///
/// # Errors
/// The host's; `ELOOP` for what is not followed.
pub fn stat_beneath(root: BorrowedFd<'_>, path: &CStr, _contained: bool) -> Result<Stat> {
    const NOFOLLOW_ANY: AtFlags = AtFlags::from_bits_retain(0x0800);
    rustix::fs::statat(root, path, NOFOLLOW_ANY | AtFlags::SYMLINK_NOFOLLOW).map(|found| stat_of(&found)).map_err(errno)
}

/// The attributes of an open or pinned object.
///
/// # Errors
/// The host's; `ESTALE` for an object that could not be opened when it was pinned, and is gone.
pub fn stat(object: BorrowedFd<'_>) -> Result<Stat> {
    let found = rustix::fs::fstat(object).map_err(errno)?;
    match Ticket::behind(object, &found) {
        Some(ticket) => ticket.stat(),
        None => Ok(stat_of(&found)),
    }
}

/// Opens an entry of `dir` that must not exist yet.
///
/// # Errors
/// The host's; `EEXIST` where the name is taken by anything.
pub fn create_at(dir: BorrowedFd<'_>, name: &CStr, mode: OpenMode, permissions: u32) -> Result<OwnedFd> {
    let grant = Grant::of(permissions);
    let flags = mode.flags() | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    let file = open(Some(dir), name, flags, grant.bits())?;
    grant.restore(|wanted| rustix::fs::fchmod(&file, wanted));
    mode.difference(OpenMode::TRUNC).finish(file)
}

/// Opens a file without a name in `dir`: nothing here does.
///
/// # Errors
/// `EOPNOTSUPP`.
pub fn create_unnamed(_dir: BorrowedFd<'_>, _mode: OpenMode, _permissions: u32) -> Result<OwnedFd> {
    Err(Errno::EOPNOTSUPP)
}

/// What pinned objects are opened through. macOS opens them by path, and needs nothing held ready for that.
#[derive(Debug)]
pub struct SelfFds(());

impl SelfFds {
    /// Always there.
    ///
    /// # Errors
    /// None.
    pub fn open() -> Result<Self> {
        Ok(Self(()))
    }

    /// As [`open`](Self::open): no directory of descriptors is of use here.
    ///
    /// # Errors
    /// None.
    pub fn from_directory(_dir: OwnedFd) -> Result<Self> {
        Self::open()
    }

    /// Opens what `object` pins or has open. The caller has made sure that it is a file or a directory.
    ///
    /// # Errors
    /// The host's; `ENOENT` for an object without a name, `ESTALE` for one that keeps moving.
    pub fn reopen(&self, object: BorrowedFd<'_>, mode: OpenMode) -> Result<OwnedFd> {
        let found = rustix::fs::fstat(object).map_err(errno)?;
        if let Some(ticket) = Ticket::behind(object, &found) {
            return ticket.open(mode);
        }
        let identity = stat_of(&found).identity;
        with_path(object, identity, |path| open_path(path, identity, mode))
    }

    /// Pins once more what `object` has open or pins.
    ///
    /// # Errors
    /// The host's.
    pub fn pin_again(&self, object: BorrowedFd<'_>) -> Result<OwnedFd> {
        let found = rustix::fs::fstat(object).map_err(errno)?;
        if let Some(ticket) = Ticket::behind(object, &found) {
            return ticket.open(PIN);
        }
        let identity = stat_of(&found).identity;
        let pinned = with_path(object, identity, |path| pin_path(path, identity));
        // An object without a name stays pinned by another descriptor of the same opening.
        pinned.or_else(|_| rustix::io::fcntl_dupfd_cloexec(object, 0).map_err(errno))
    }
}

/// Opens the file or directory at an absolute path, if it is the one that is meant.
pub(super) fn open_path(path: &CStr, meant: Identity, mode: OpenMode) -> Result<OwnedFd> {
    // What a rename may have put there neither blocks, nor becomes a terminal, nor is reached through a link; it is
    // not cut either, because that waits for `finish`.
    let careful = mode.flags() | libc::O_NONBLOCK | libc::O_NOFOLLOW_ANY;
    for _ in 0..TRIES {
        let file = open(None, path, careful, 0)?;
        if stat_of(&rustix::fs::fstat(&file).map_err(errno)?).identity != meant {
            continue;
        }
        if !mode.contains(OpenMode::NONBLOCK) {
            let flags = rustix::fs::fcntl_getfl(&file).map_err(errno)?;
            rustix::fs::fcntl_setfl(&file, flags.difference(rustix::fs::OFlags::NONBLOCK)).map_err(errno)?;
        }
        return mode.finish(file);
    }
    Err(Errno::ESTALE)
}
