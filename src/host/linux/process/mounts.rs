//! What the process sees of the file system, as cut down by a sandbox.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_change, move_mount, open_tree, unmount,
};

/// Opens a directory as a place, not for reading.
pub fn open_place(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The same place, if what is in it is within reach of this process's user.
pub fn enterable(place: OwnedFd) -> io::Result<OwnedFd> {
    rustix::fs::openat(&place, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    Ok(place)
}

/// Opens a file of a directory for reading.
pub fn open_beneath(directory: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Keeps mounts made here from showing elsewhere, while those made elsewhere still show here.
pub fn follow_without_leading() -> io::Result<()> {
    Ok(mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?)
}

/// A directory as the root of a mount that hangs nowhere: `..` does not lead out of it.
pub fn detached(path: &Path) -> io::Result<OwnedFd> {
    Ok(open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?)
}

/// Mounts `path` and what is mounted beneath it a second time, over itself, and returns that mount's root.
pub fn mount_over_itself(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, path, flags)?;
    move_mount(&tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(tree)
}

/// Forbids device nodes and setuid programs on a mount and all beneath it, and changes too when `read_only`.
pub fn harden(tree: BorrowedFd<'_>, read_only: bool) -> io::Result<()> {
    let read_only = if read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOSUID | read_only,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is a C string and `attributes` is as long as is said; both outlive the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes the root of a mount the root directory and lets go of the whole old view.
pub fn pivot_into(tree: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::fchdir(tree)?;
    // With "." for both, the old root comes to lie on top of the new one, where it can be taken off.
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

/// Makes a directory the root directory.
pub fn chroot_into(directory: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::fchdir(directory)?;
    rustix::process::chroot(".")?;
    Ok(rustix::process::chdir("/")?)
}

/// Whether two descriptors stand for the same file.
pub fn is_same_file(one: impl AsFd, other: impl AsFd) -> io::Result<bool> {
    let (one, other) = (rustix::fs::fstat(one)?, rustix::fs::fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}
