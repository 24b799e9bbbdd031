//! The event file: paths that the host changed, a line each, for a helper in a guest that no kernel tells.
//!
//! It is a file of the share like any other. The helper sets each path's modification time to [`POKE`], which its own kernel
//! tells to whoever watches the path, and which changes nothing here.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
};

use fuse_abi::{Errno, Timestamp};

use crate::{
    host::{self, Kind, OpenMode, SelfFds},
    protocol::{AttributeChanges, Name, NewTime},
};

/// A time that nobody means: 2242-03-16T12:56:31Z.
pub(super) const POKE: Timestamp = Timestamp { seconds: (1 << 33) - 1, nanoseconds: 0 };
/// The file begins anew when it is this long.
const LONGEST: u64 = 1 << 20;

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happened {
    Came,
    Changed,
    Went,
}

/// The file, open to be appended to.
#[derive(Debug)]
pub(super) struct EventFile {
    name: Box<[u8]>,
    file: OwnedFd,
    len: AtomicU64,
}

impl EventFile {
    /// Opens or makes the file in the root of the share.
    ///
    /// # Errors
    /// `EINVAL` for what is no name or no file; the host's.
    pub(super) fn open(root: BorrowedFd<'_>, fds: &SelfFds, name: &std::ffi::CStr) -> host::Result<Self> {
        let name = Name::new(name).map_err(|_| Errno::EINVAL)?;
        let mode = OpenMode::WRONLY | OpenMode::APPEND;
        let file = match host::create_at(root, name.as_c_str(), mode, 0o644) {
            Err(Errno::EEXIST) => {
                let pin = host::pin_at(root, name.as_c_str())?;
                if host::stat(pin.as_fd())?.kind() != Kind::File {
                    return Err(Errno::EINVAL);
                }
                fds.reopen(pin.as_fd(), mode)?
            }
            made => made?,
        };
        let len = host::stat(file.as_fd())?.size.into();
        Ok(Self { name: name.as_bytes().into(), file, len })
    }

    /// Whether this is the file's own name in the root.
    pub(super) fn is(&self, name: &[u8]) -> bool {
        *self.name == *name
    }

    /// Adds a line. A path that a line cannot hold is left out.
    pub(super) fn tell(&self, what: Happened, path: &[u8]) {
        if path.contains(&b'\n') {
            return;
        }
        let kind: &[u8] = match what {
            Happened::Came => b"+ ",
            Happened::Changed => b"! ",
            Happened::Went => b"- ",
        };
        let line = [kind, path, b"\n"].concat();
        if self.len.load(Ordering::Relaxed) >= LONGEST && host::set_size(self.file.as_fd(), 0).is_ok() {
            self.len.store(0, Ordering::Relaxed);
        }
        match host::append(self.file.as_fd(), &line) {
            Ok(()) => drop(self.len.fetch_add(line.len() as u64, Ordering::Relaxed)),
            Err(errno) => log::debug!("a line of the event file is lost: {errno}"),
        }
    }
}

/// Whether a change of attributes is a helper's poke, and nothing else.
pub(super) fn is_poke(changes: &AttributeChanges) -> bool {
    let poke = AttributeChanges { mtime: Some(NewTime::At(POKE)), ctime: changes.ctime, ..AttributeChanges::default() };
    let asked = AttributeChanges { handle: None, kill_suidgid: false, ..*changes };
    asked == poke
}
