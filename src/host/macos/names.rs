//! Making, removing and moving names: always one component, relative to an open directory.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsRawFd, BorrowedFd},
};

use fuse_abi::Errno;
use rustix::{
    fs::{AtFlags, CWD, Mode, RenameFlags},
    net::{AddressFamily, SocketAddrUnix, SocketType},
};

use super::{
    OpenMode, Result, SelfFds, check,
    credentials::Grant,
    errno,
    paths::TRIES,
    paths::with_path,
    pins::{Ticket, on_object},
    stat::{stat_of, unpack_device},
};
use crate::host::{
    TYPE_MASK,
    unix::{RenameHow, remove_file},
};

/// Makes a directory.
///
/// # Errors
/// The host's.
pub fn make_directory(dir: BorrowedFd<'_>, name: &CStr, permissions: u32) -> Result<()> {
    let grant = Grant::of(permissions);
    rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(grant.bits())).map_err(errno)?;
    restore(grant, dir, name);
    Ok(())
}

fn restore(grant: Grant, dir: BorrowedFd<'_>, name: &CStr) {
    grant.restore(|mode| rustix::fs::chmodat(dir, name, mode, AtFlags::SYMLINK_NOFOLLOW));
}

/// Makes a file, FIFO, socket or device node, as the type bits of `mode` say.
///
/// # Errors
/// The host's; `EPERM` for a device unless this process is the superuser's.
pub fn make_node(dir: BorrowedFd<'_>, name: &CStr, mode: u32, device: u32) -> Result<()> {
    let grant = Grant::of(mode);
    match mode & TYPE_MASK {
        0 | 0o100_000 => return super::create_at(dir, name, OpenMode::RDONLY, mode).map(drop),
        0o140_000 => make_socket(dir, name)?,
        0o010_000 => {
            // SAFETY: the name ends in NUL.
            check(unsafe { libc::mkfifoat(dir.as_raw_fd(), name.as_ptr(), grant.bits()) } as isize)?;
        }
        kind @ (0o020_000 | 0o060_000) => {
            let mode = grant.bits() | kind as libc::mode_t;
            // SAFETY: the name ends in NUL.
            check(unsafe { libc::mknodat(dir.as_raw_fd(), name.as_ptr(), mode, unpack_device(device)) } as isize)?;
        }
        _ => return Err(Errno::EINVAL),
    }
    restore(grant, dir, name);
    Ok(())
}

/// A socket gets its name by being bound to it, by path: a name of some 60 bytes fits, which sockets seldom exceed.
fn make_socket(dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let identity = stat_of(&rustix::fs::fstat(dir).map_err(errno)?).identity;
    with_path(dir, identity, |path| {
        let path = [path.to_bytes(), b"/", name.to_bytes()].concat();
        let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
        let address = SocketAddrUnix::new(path.as_c_str()).map_err(errno)?;
        let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).map_err(errno)?;
        rustix::net::bind(&socket, &address).map_err(|error| match error {
            rustix::io::Errno::ADDRINUSE => Errno::EEXIST,
            other => errno(other),
        })
    })?;
    // The directory may have been renamed while its path was walked.
    let made = super::stat_at(dir, name)?;
    if made.mode & TYPE_MASK == 0o140_000 { Ok(()) } else { Err(Errno::EIO) }
}

/// Gives a pinned object another name.
///
/// # Errors
/// The host's; `ESTALE` for an object that keeps moving.
pub fn make_link(_fds: &SelfFds, object: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let meant = super::stat(object)?.identity;
    let link = |path: &CStr| rustix::fs::linkat(CWD, path, dir, name, AtFlags::empty()).map_err(errno);
    for _ in 0..TRIES {
        match Ticket::of(object) {
            Some(ticket) => ticket.by_path(link)?,
            None => with_path(object, meant, link)?,
        }
        // The call takes a path, and a rename may have put another object there.
        if super::stat_at(dir, name)?.identity == meant {
            return Ok(());
        }
        remove_file(dir, name)?;
    }
    Err(Errno::ESTALE)
}

/// Moves a name.
///
/// # Errors
/// The host's; `EINVAL` for what the file system cannot do.
pub fn rename(from: (BorrowedFd<'_>, &CStr), to: (BorrowedFd<'_>, &CStr), how: RenameHow) -> Result<()> {
    if how.whiteout {
        return Err(Errno::EINVAL);
    }
    let mut flags = RenameFlags::empty();
    flags.set(RenameFlags::NOREPLACE, how.no_replace);
    flags.set(RenameFlags::EXCHANGE, how.exchange);
    match rustix::fs::renameat_with(from.0, from.1, to.0, to.1, flags).map_err(errno) {
        Err(Errno::EOPNOTSUPP) if !flags.is_empty() => Err(Errno::EINVAL),
        other => other,
    }
}

/// Reads where a pinned symbolic link points. Says how much of `buffer` it took.
///
/// # Errors
/// The host's.
pub fn read_link(object: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
    let (start, len) = (buffer.as_mut_ptr().cast(), buffer.len());
    let read = on_object(
        object,
        // SAFETY: the buffer has the room that its length says.
        |fd| check(unsafe { libc::freadlink(fd.as_raw_fd(), start, len) } as isize),
        // SAFETY: as above, and the path ends in NUL.
        |path| check(unsafe { libc::readlink(path.as_ptr(), start, len) } as isize),
    )?;
    if read > len { Err(Errno::EIO) } else { Ok(read) }
}
