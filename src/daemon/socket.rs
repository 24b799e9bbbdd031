//! The socket on which the front end connects, and the locked pid file beside it.
//!
//! The lock decides who owns a socket's path; virtiofsd keeps the same file with the same lock, so the two do not take
//! a path from each other.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use log::debug;
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::error::Error;
use super::options::Listen;
use crate::host::linux::process::{descriptors, identity};

/// What the daemon left in the file system: the socket and its locked pid file. Removed when this is dropped.
#[derive(Debug)]
pub struct SocketFiles(Arc<Files>);

#[derive(Debug)]
struct Files {
    socket: PathBuf,
    pid_file: PathBuf,
    /// The socket's device and inode: what another made at this path since is not ours to remove.
    identity: (u64, u64),
    /// Holds the lock for as long as it is open.
    _lock: File,
    removed: Once,
}

impl SocketFiles {
    /// Takes both away, for a thread that ends the process without returning.
    pub fn remover(&self) -> impl Fn() + Send + use<> {
        let files = Arc::clone(&self.0);
        move || files.remove()
    }

    /// Leaves both to another process.
    pub fn disown(self) {
        self.0.removed.call_once(|| {});
    }
}

impl Drop for SocketFiles {
    fn drop(&mut self) {
        self.0.remove();
    }
}

impl Files {
    fn remove(&self) {
        self.removed.call_once(|| {
            if identify(&self.socket).is_ok_and(|found| found == self.identity) {
                remove_file(&self.socket);
            }
            // While it is still locked: another daemon that opened it notices that it is gone.
            remove_file(&self.pid_file);
        });
    }
}

/// The device and inode of what is at this path, asked in a way that the filter of every thread allows.
fn identify(path: &Path) -> io::Result<(u64, u64)> {
    let found = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok((found.st_dev, found.st_ino))
}

fn remove_file(path: &Path) {
    if let Err(error) = rustix::fs::unlinkat(CWD, path, AtFlags::empty()) {
        debug!("cannot remove '{}': {error}", path.display());
    }
}

/// Where the front end will connect, before anything was created.
#[derive(Debug)]
pub enum Endpoint {
    /// A socket that was inherited and listens.
    Inherited(UnixListener),
    /// A socket to create at this path, for its owner and for the members of the group if one is named.
    Path(PathBuf, Option<String>),
}

impl Endpoint {
    /// Takes over the inherited descriptor, if it is to be one. To be called before anything opens descriptors.
    pub fn find(listen: &Listen) -> Result<Self, Error> {
        let number = match listen {
            Listen::Path { socket, group } => return Ok(Self::Path(socket.clone(), group.clone())),
            Listen::Descriptor(number) => *number,
        };
        match descriptors::adopt_listening_socket(number) {
            Ok(Some(socket)) => Ok(Self::Inherited(socket.into())),
            Ok(None) => Err(Error::Failed(format!("descriptor {number} (--fd) is not a Unix socket that listens"))),
            Err(error) => Err(Error::system(format!("no descriptor {number} (--fd)"), error, "pass an open one")),
        }
    }

    /// The inherited descriptor.
    pub fn inherited(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Inherited(listener) => Some(listener.as_fd()),
            Self::Path(..) => None,
        }
    }

    /// The socket, and what was left in the file system to have it.
    pub fn open(self) -> Result<(UnixListener, Option<SocketFiles>), Error> {
        match self {
            Self::Inherited(listener) => Ok((listener, None)),
            Self::Path(path, group) => create(&path, group.as_deref()).map(|(listener, files)| (listener, Some(files))),
        }
    }
}

fn create(path: &Path, group: Option<&str>) -> Result<(UnixListener, SocketFiles), Error> {
    let group = group.map(find_group).transpose()?;
    let (pid_file, lock) = lock_pid_file(path)?;
    match clear_the_way(path).and_then(|()| bind(path, group)) {
        Ok((listener, identity)) => {
            let files = Files { socket: path.into(), pid_file, identity, _lock: lock, removed: Once::new() };
            Ok((listener, SocketFiles(Arc::new(files))))
        }
        Err(error) => {
            remove_file(&pid_file);
            Err(error)
        }
    }
}

fn find_group(name: &str) -> Result<u32, Error> {
    match identity::group_named(name) {
        Ok(Some(id)) => Ok(id),
        Ok(None) => Err(Error::Failed(format!("no group '{name}' on this system: correct --socket-group"))),
        Err(error) => Err(Error::system(format!("cannot look up the group '{name}'"), error, "")),
    }
}

/// Creates and locks `SOCKET.pid`, which holds the number of the process that was started.
fn lock_pid_file(socket: &Path) -> Result<(PathBuf, File), Error> {
    let mut name = OsString::from(socket);
    name.push(".pid");
    let path = PathBuf::from(name);
    let file = loop {
        let file = open_pid_file(&path).map_err(|error| cannot_create(socket, error))?;
        if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            return Err(match error {
                Errno::WOULDBLOCK => in_use(socket, &path),
                error => Error::system(format!("cannot lock '{}'", path.display()), error, ""),
            });
        }
        // Whoever held the lock may have removed the file meanwhile: then the lock is on one that nobody else finds.
        let locked = file.metadata().map(|found| (found.dev(), found.ino())).ok();
        let found = std::fs::metadata(&path).map(|found| (found.dev(), found.ino())).ok();
        if locked.is_some() && locked == found {
            break file;
        }
    };
    let write = |mut file: &File| {
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())
    };
    write(&file).map_err(|error| Error::system(format!("cannot write '{}'", path.display()), error, ""))?;
    Ok((path, file))
}

fn open_pid_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)
}

fn in_use(socket: &Path, pid_file: &Path) -> Error {
    let holder = std::fs::read_to_string(pid_file).unwrap_or_default();
    let (socket, holder) = (socket.display(), holder.trim());
    Error::Failed(format!("'{socket}' is in use by process {holder}: end it, or choose another --socket-path"))
}

fn cannot_create(socket: &Path, error: io::Error) -> Error {
    let mend = match error.raw_os_error() {
        Some(libc::ENOENT) => "create its directory or correct --socket-path",
        Some(libc::EACCES | libc::EPERM) => "choose a directory this user may write to",
        _ => "correct --socket-path",
    };
    Error::system(format!("cannot create the socket '{}'", socket.display()), error, mend)
}

/// Removes a socket that nobody listens on any more; anything else at this path is not ours to remove.
fn clear_the_way(path: &Path) -> Result<(), Error> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(cannot_create(path, error)),
        Ok(found) if !found.file_type().is_socket() => {
            let path = path.display();
            return Err(Error::Failed(format!("'{path}' exists and is no socket: remove it or correct --socket-path")));
        }
        Ok(_) => {}
    }
    if has_listener(path).map_err(|error| cannot_create(path, error.into()))? {
        let path = path.display();
        return Err(Error::Failed(format!("'{path}' is in use by another program: choose another --socket-path")));
    }
    debug!("replacing the stale socket '{}'", path.display());
    std::fs::remove_file(path).map_err(|error| cannot_create(path, error))
}

fn has_listener(path: &Path) -> Result<bool, Errno> {
    // Without waiting: a listener whose queue is full is one as well.
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let probe: OwnedFd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&probe, &SocketAddrUnix::new(path)?) {
        Ok(()) | Err(Errno::AGAIN) => Ok(true),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        // A listener of another kind.
        Err(Errno::PROTOTYPE) => Ok(true),
        Err(error) => Err(error),
    }
}

fn bind(path: &Path, group: Option<u32>) -> Result<(UnixListener, (u64, u64)), Error> {
    let hidden = if group.is_some() { Mode::RWXO } else { Mode::RWXG | Mode::RWXO };
    let before = rustix::process::umask(hidden);
    let bound = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = bound.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput => {
            Error::system("cannot create the socket", error, "choose a shorter --socket-path")
        }
        _ => cannot_create(path, error),
    })?;
    let identity = identify(path).map_err(|error| cannot_create(path, error))?;
    if let Some(group) = group {
        std::os::unix::fs::lchown(path, None, Some(group)).map_err(|error| {
            remove_file(path);
            Error::system("cannot give the socket to its group", error, "choose a group this user belongs to")
        })?;
    }
    Ok((listener, identity))
}
