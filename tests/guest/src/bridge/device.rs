//! The kernel's side of the bridge: /dev/fuse, the mount made with it, and clones of the descriptor for more threads.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{CWD, OFlags};
use rustix::ioctl::{Opcode, Setter, ioctl, opcode};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use crate::error::{Error, Result};

/// `FUSE_DEV_IOC_CLONE`.
const CLONE: Opcode = opcode::read::<u32>(229, 0);

/// An open /dev/fuse, never blocking.
#[derive(Debug)]
pub struct Device(File);

impl Device {
    /// Opens the device; it belongs to no mount yet.
    pub fn open() -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(OFlags::NONBLOCK.bits() as i32);
        options.open("/dev/fuse").map(Self).map_err(Error::io("open /dev/fuse"))
    }

    /// Another descriptor of the same connection, with its own list of requests being processed.
    #[allow(unsafe_code)]
    pub fn try_clone(&self) -> Result<Self> {
        let clone = Self::open()?;
        // SAFETY: the call reads one u32, which the setter owns, and the pointer it gets lives until it returns.
        let done = unsafe { ioctl(&clone.0, Setter::<CLONE, RawFd>::new(self.0.as_raw_fd())) };
        done.map(|()| clone).map_err(Error::io("clone /dev/fuse"))
    }

    /// Mounts the connection. The kernel sends INIT, and everybody who looks in waits until it is answered.
    pub fn mount(&self, mountpoint: &Path, source: &str, extra: &[(String, Option<String>)]) -> Result<()> {
        let fail = Error::io::<rustix::io::Errno>;
        let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC).map_err(fail("fsopen"))?;
        let fd = self.0.as_raw_fd().to_string();
        let strings = [("source", source), ("fd", &fd), ("rootmode", "40000"), ("user_id", "0"), ("group_id", "0")];
        for (key, value) in strings {
            fsconfig_set_string(&context, key, value).map_err(fail("set a mount option"))?;
        }
        for key in ["default_permissions", "allow_other"] {
            fsconfig_set_flag(&context, key).map_err(fail("set a mount option"))?;
        }
        for (key, value) in extra {
            let set = match value {
                Some(value) => fsconfig_set_string(&context, key, value),
                None => fsconfig_set_flag(&context, key),
            };
            set.map_err(fail("set an extra mount option"))?;
        }
        fsconfig_create(&context).map_err(fail("create the mount"))?;
        // Conformance suites test setuid and device files through the mount: it gets neither nosuid nor nodev.
        let mount =
            fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map_err(fail("fsmount"))?;
        move_mount(mount.as_fd(), "", CWD, mountpoint, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(fail("move the mount to its place"))
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Unmounts; busy is an error.
pub fn unmount_plain(mountpoint: &Path) -> io::Result<()> {
    unmount(mountpoint, UnmountFlags::NOFOLLOW).map_err(Into::into)
}

/// Ends the connection, fails whoever waits for it, and takes the mount out of sight.
pub fn abort(mountpoint: &Path) -> io::Result<()> {
    let flags = UnmountFlags::FORCE | UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    unmount(mountpoint, flags).map_err(Into::into)
}
