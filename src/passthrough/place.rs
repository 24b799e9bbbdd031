//! How an inode finds its host object again: by a descriptor it holds, by the file that CREATE opened, or by a handle.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use fuse_abi::Errno;

use crate::host::{FileHandle, OpenMode, Permit, SelfFds};

/// Where the host object of an inode is.
#[derive(Debug)]
pub(super) enum Place {
    /// A descriptor that pins it: its number cannot be used again.
    Pinned {
        /// The descriptor.
        pin: OwnedFd,
        /// Leave to hold it; the root needs none.
        _permit: Option<Permit>,
    },
    /// The file that CREATE opened serves until it is released, which spares CREATE a system call.
    Created(Box<Created>),
    /// A file handle: no descriptor, and no guarantee that the object still exists.
    Handle(ByHandle),
}

#[derive(Debug)]
pub(super) struct Created {
    pin: OnceLock<OwnedFd>,
    file: Mutex<Option<Arc<OwnedFd>>>,
    _permit: Permit,
}

#[derive(Debug)]
pub(super) struct ByHandle {
    handle: FileHandle,
    /// Any open file of the same file system.
    mount: Arc<OwnedFd>,
}

impl Place {
    pub(super) const fn root(pin: OwnedFd) -> Self {
        Self::Pinned { pin, _permit: None }
    }

    pub(super) const fn pinned(pin: OwnedFd, permit: Permit) -> Self {
        Self::Pinned { pin, _permit: Some(permit) }
    }

    pub(super) fn created(file: Arc<OwnedFd>, permit: Permit) -> Self {
        Self::Created(Box::new(Created { pin: OnceLock::new(), file: Mutex::new(Some(file)), _permit: permit }))
    }

    pub(super) fn handle(handle: FileHandle, mount: Arc<OwnedFd>) -> Self {
        Self::Handle(ByHandle { handle, mount })
    }

    /// A descriptor to name the object by. It may be pinned only, and not readable.
    pub(super) fn fd(&self) -> Result<InodeFd<'_>, Errno> {
        match self {
            Self::Pinned { pin, .. } => Ok(InodeFd::Held(pin.as_fd())),
            Self::Created(created) => created.fd(),
            Self::Handle(by_handle) => {
                by_handle.handle.pin(by_handle.mount.as_fd()).map(|fd| InodeFd::Shared(Arc::new(fd)))
            }
        }
    }

    /// Opens the object. The caller has made sure that it is a file or a directory.
    pub(super) fn open(&self, fds: &SelfFds, mode: OpenMode) -> Result<OwnedFd, Errno> {
        match self {
            Self::Handle(by_handle) => by_handle.handle.open(by_handle.mount.as_fd(), mode),
            _ => fds.reopen(self.fd()?.as_fd(), mode),
        }
    }

    /// Whether a descriptor has to be opened each time one is needed.
    pub(super) const fn holds_none(&self) -> bool {
        matches!(self, Self::Handle(_))
    }

    /// The file that CREATE opened is released: from here on a descriptor that pins it serves.
    pub(super) fn file_released(&self, fds: &SelfFds, file: &Arc<OwnedFd>) -> Result<(), Errno> {
        let Self::Created(created) = self else { return Ok(()) };
        let mut held = lock(&created.file);
        if !held.as_ref().is_some_and(|held| Arc::ptr_eq(held, file)) {
            return Ok(());
        }
        let pin = fds.pin_again(file.as_fd())?;
        // Set once: only the file itself comes here, and only the first time.
        let _ = created.pin.set(pin);
        held.take();
        Ok(())
    }

    /// Whether this is the object that `pin` pins, given that identities are equal.
    pub(super) fn is(&self, pin: BorrowedFd<'_>) -> bool {
        match self {
            Self::Handle(mine) => FileHandle::of(pin).is_ok_and(|handle| handle == mine.handle),
            // A pinned object keeps its number.
            _ => true,
        }
    }

    /// Whether both stand for the same object, given that identities are equal.
    pub(super) fn same_object(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Handle(mine), Self::Handle(theirs)) => mine.handle == theirs.handle,
            (handle @ Self::Handle(_), pinned) | (pinned, handle @ Self::Handle(_)) => {
                pinned.fd().is_ok_and(|fd| handle.is(fd.as_fd()))
            }
            _ => true,
        }
    }

    /// Whether this is still the object at that name, given that identities are equal.
    pub(super) fn is_entry(&self, dir: BorrowedFd<'_>, name: &std::ffi::CStr) -> bool {
        match self {
            Self::Handle(mine) => FileHandle::of_entry(dir, name).is_ok_and(|handle| handle == mine.handle),
            _ => true,
        }
    }
}

impl Created {
    fn fd(&self) -> Result<InodeFd<'_>, Errno> {
        if let Some(pin) = self.pin.get() {
            return Ok(InodeFd::Held(pin.as_fd()));
        }
        if let Some(file) = lock(&self.file).clone() {
            return Ok(InodeFd::Shared(file));
        }
        // Released in between: the pin was set before the file was let go.
        self.pin.get().map(|pin| InodeFd::Held(pin.as_fd())).ok_or(Errno::ESTALE)
    }
}

/// A descriptor of an inode: its own, or one opened for this request.
#[derive(Debug)]
pub(super) enum InodeFd<'i> {
    Held(BorrowedFd<'i>),
    Shared(Arc<OwnedFd>),
}

impl AsFd for InodeFd<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Held(held) => *held,
            Self::Shared(shared) => shared.as_fd(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
