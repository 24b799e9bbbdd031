//! Descriptors that hold an object without reading it.
//!
//! macOS has none that merely pins: opening a FIFO waits or wakes whoever waits, opening a device may do anything,
//! opening a socket fails, and even a descriptor for events alone asks for the right to read. So a pin is
//! - a descriptor for events, where that opens: it survives renames and removal, and cannot be taken for another object;
//! - otherwise a [`Ticket`]: a descriptor of no object at all, which carries the number of one. Calls go by path then,
//!   and an object that is gone is `ESTALE`.

use std::{
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use fuse_abi::Errno;
use rustix::{
    fs::AtFlags,
    io::FdFlags,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType},
};

use super::{
    FileHandle, OpenMode, Result, errno,
    open::{PIN_FLAGS, open},
    paths::{NumberPath, TRIES},
    stat::stat_of,
};
use crate::host::{Identity, Kind, Stat, TYPE_MASK};

/// Pins an entry of `dir` without reading it: nothing is followed, blocked on or woken.
///
/// # Errors
/// The host's; `EOPNOTSUPP` for what cannot be opened on a volume that finds nothing by number.
pub fn pin_at(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    for _ in 0..TRIES {
        let found = super::stat_at(dir, name)?;
        if let Some(pin) = pin_as(&found, Some(dir), name)? {
            return Ok(pin);
        }
    }
    Err(Errno::ESTALE)
}

/// Pins what an absolute path leads to, if it is the object that is meant.
pub(super) fn pin_path(path: &CStr, meant: Identity) -> Result<OwnedFd> {
    for _ in 0..TRIES {
        let found = stat_path(path)?;
        if found.identity != meant {
            continue;
        }
        match pin_as(&found, None, path)? {
            Some(pin) if super::stat(pin.as_fd())?.identity == meant => return Ok(pin),
            _ => {}
        }
    }
    Err(Errno::ESTALE)
}

/// Pins the parent of a directory.
///
/// # Errors
/// The host's.
pub fn pin_parent(dir: BorrowedFd<'_>) -> Result<OwnedFd> {
    pin_at(dir, c"..")
}

/// The attributes of what an absolute path leads to, itself if it is a symbolic link.
pub(super) fn stat_path(path: &CStr) -> Result<Stat> {
    rustix::fs::statat(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW).map(|found| stat_of(&found)).map_err(errno)
}

/// Pins what was found at that name, or nothing if it became something that must not be opened.
fn pin_as(found: &Stat, dir: Option<BorrowedFd<'_>>, name: &CStr) -> Result<Option<OwnedFd>> {
    // A directory may be searched by those who may not list it.
    let (readable, searchable) = (libc::O_RDONLY, libc::O_SEARCH);
    let ways: &[libc::c_int] = match found.kind() {
        Kind::Special => &[],
        Kind::Directory => &[readable | libc::O_DIRECTORY, searchable],
        Kind::File | Kind::Symlink => &[readable],
    };
    for way in ways {
        match open(dir, name, PIN_FLAGS | way, 0) {
            Ok(pin) => {
                let opened = rustix::fs::fstat(&pin).map_err(errno)?;
                return Ok(if Kind::of(opened.st_mode.into()) == Kind::Special { None } else { Some(pin) });
            }
            Err(Errno::EACCES | Errno::EPERM) => {}
            // It was replaced since it was looked at.
            Err(Errno::EOPNOTSUPP | Errno::ENXIO | Errno::ENOTDIR) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ticket::of_object(found)?.issue().map(Some)
}

/// What stands for an object that cannot be opened: it travels in a descriptor, so that a pin is always one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket(FileHandle);

/// Tells a ticket from whatever else might be read from a socket.
const MARK: u64 = u64::from_be_bytes(*b"ferrypin");
/// Mark, device, inode.
const TICKET_LEN: usize = 24;

impl Ticket {
    fn of_object(found: &Stat) -> Result<Self> {
        let ticket = Self(FileHandle(found.identity));
        // One that leads nowhere would only fail later.
        ticket.stat().map_or(Err(Errno::EOPNOTSUPP), |_| Ok(ticket))
    }

    /// Writes the ticket into one end of a pair of sockets and keeps the other: it can be looked at, never used up.
    fn issue(self) -> Result<OwnedFd> {
        let made = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::empty(), None);
        let (kept, filled) = made.map_err(errno)?;
        rustix::io::fcntl_setfd(&kept, FdFlags::CLOEXEC).map_err(errno)?;
        let sent = rustix::net::send(&filled, &self.to_bytes(), SendFlags::empty()).map_err(errno)?;
        if sent == TICKET_LEN { Ok(kept) } else { Err(Errno::EIO) }
    }

    /// The ticket that `pin` is, unless it is a descriptor of an object.
    pub(super) fn of(pin: BorrowedFd<'_>) -> Option<Self> {
        let mut bytes = [0_u8; TICKET_LEN];
        let look = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let (read, _) = rustix::net::recv(pin, &mut bytes, look).ok()?;
        if read == TICKET_LEN { Self::from_bytes(&bytes) } else { None }
    }

    /// As [`of`](Self::of), without a call where what `fstat` said of `pin` tells already.
    pub(super) fn behind(pin: BorrowedFd<'_>, found: &rustix::fs::Stat) -> Option<Self> {
        // No pin and no open file is a socket, because no socket of a file system opens.
        if u32::from(found.st_mode) & TYPE_MASK == 0o140_000 { Self::of(pin) } else { None }
    }

    fn to_bytes(self) -> [u8; TICKET_LEN] {
        let mut bytes = [0; TICKET_LEN];
        let fields = [MARK, self.0.0.dev, self.0.0.ino];
        for (place, field) in bytes.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_ne_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; TICKET_LEN]) -> Option<Self> {
        let mut fields = [0; 3];
        for (field, place) in fields.iter_mut().zip(bytes.chunks_exact(8)) {
            *field = u64::from_ne_bytes(place.try_into().ok()?);
        }
        let [mark, dev, ino] = fields;
        (mark == MARK).then_some(Self(FileHandle(Identity { dev, ino, mount: 0 })))
    }

    /// The object's attributes.
    pub(super) fn stat(self) -> Result<Stat> {
        self.0.stat()
    }

    /// Opens the object, if it is a file or a directory after all and may be.
    pub(super) fn open(self, mode: OpenMode) -> Result<OwnedFd> {
        self.0.reach(mode)
    }

    /// Hands the object's path to `call`, having made sure that it leads to the object.
    pub(super) fn by_path<T>(self, call: impl FnOnce(&CStr) -> Result<T>) -> Result<T> {
        self.0.stat()?;
        call(NumberPath::new(self.0.0).as_c_str())
    }

    /// Whether it stands for a FIFO, socket or device.
    pub(super) fn is_special(self) -> bool {
        self.stat().is_ok_and(|found| found.kind() == Kind::Special)
    }
}

/// Does something to a pinned or open object: by its descriptor, or by path if the pin is a ticket.
///
/// Every call on a file fails on a ticket's socket, so that only a failure costs a second look.
pub(super) fn on_object<T>(
    object: BorrowedFd<'_>,
    by_descriptor: impl FnOnce(BorrowedFd<'_>) -> Result<T>,
    by_path: impl FnOnce(&CStr) -> Result<T>,
) -> Result<T> {
    by_descriptor(object).or_else(|error| match Ticket::of(object) {
        Some(ticket) => ticket.by_path(by_path),
        None => Err(error),
    })
}
