//! The isolation that `--sandbox` chooses, and what is opened before the host goes out of view.
//!
//! With a sandbox the process is divided: one part stays outside, waits, and cleans up (the warden), the other serves
//! with the share as its root directory. It gets everything it needs of the host as descriptors.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use log::debug;

use super::error::Error;
use super::idmap::IdMaps;
use super::options::IsolationOptions;
use super::values::SandboxMode;
use crate::host::linux::process::namespaces::{self, Child, Namespaces, Side};
use crate::host::linux::process::{identity, mounts};

/// The directory to share, opened where the user named it.
#[derive(Debug)]
pub struct Share {
    directory: OwnedFd,
    path: PathBuf,
}

/// Descriptors opened while they still could be, for a process that sees only the share.
#[derive(Debug)]
pub struct Preopened {
    /// The root of the share, opened as a place.
    pub shared_dir: OwnedFd,
    /// `/proc/self/fd`; where the kernel allows, `..` does not lead out of it.
    pub proc_self_fd: OwnedFd,
    /// `/proc/self/mountinfo`, which shows the mounts as the serving process sees them.
    pub mountinfo: OwnedFd,
    /// How that file calls the root of the share: `/` in a sandbox.
    pub shared_dir_in_mountinfo: PathBuf,
}

/// Which part of the process this is.
#[derive(Debug)]
pub enum Part {
    /// There is only one: no sandbox was asked for.
    Whole,
    /// The part that will serve.
    Inside(Inside),
    /// The part that waits for the child, and hears through the pipe that it is ready.
    Outside(Child, OwnedFd),
}

/// The part of the process that will serve, before it has changed anything.
#[derive(Debug)]
pub struct Inside {
    go: OwnedFd,
    announce: OwnedFd,
    maps: Option<IdMaps>,
}

impl Share {
    /// Opens the directory at `path`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let directory = mounts::open_place(path).and_then(mounts::enterable).map_err(|error| {
            let mend = match error.raw_os_error() {
                Some(libc::ENOENT) => "create it or correct --shared-dir",
                Some(libc::ENOTDIR) => "--shared-dir takes a directory",
                Some(libc::EACCES) => "run as a user who may enter it",
                _ => "",
            };
            Error::system(format!("cannot share '{}'", path.display()), error, mend)
        })?;
        // The name may lead through this process's own descriptors, which another process does not have.
        let path = std::fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd()))
            .or_else(|_| path.canonicalize())
            .map_err(|error| Error::system("cannot find the shared directory's path", error, "is /proc mounted?"))?;
        Ok(Self { directory, path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Share {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// Refuses what the user who runs the daemon cannot have.
pub fn check(options: &IsolationOptions) -> Result<(), Error> {
    let root = identity::user() == 0;
    let maps = !options.uid_map.is_empty() || !options.gid_map.is_empty();
    if !root && options.sandbox == SandboxMode::Chroot {
        return Err(Error::Usage("--sandbox chroot needs root: use --sandbox namespace".into()));
    }
    if maps && (root || options.sandbox != SandboxMode::Namespace) {
        let text = "--uid-map and --gid-map are for --sandbox namespace run by a user who is not root: leave them out";
        return Err(Error::Usage(text.into()));
    }
    Ok(())
}

/// Divides the process as the sandbox needs it. To be called while it has one thread.
pub fn divide(options: &IsolationOptions) -> Result<Part, Error> {
    leave_groups()?;
    let namespaces = match (options.sandbox, identity::user()) {
        (SandboxMode::None, _) => return Ok(Part::Whole),
        (SandboxMode::Chroot, _) => Namespaces::None,
        (SandboxMode::Namespace, 0) => Namespaces::System,
        (SandboxMode::Namespace, _) => Namespaces::User,
    };
    let maps = (namespaces == Namespaces::User).then(|| IdMaps::new(&options.uid_map, &options.gid_map));
    let failed = |error| Error::system("cannot make a pipe", error, "");
    let (go, permit) = namespaces::pipe().map_err(failed)?;
    let (ready, announce) = namespaces::pipe().map_err(failed)?;
    match namespaces::divide(namespaces).map_err(no_namespaces)? {
        Side::Inside => Ok(Part::Inside(Inside { go, announce, maps })),
        Side::Outside(child) => {
            if let Some(maps) = maps {
                maps.write(child.number())?;
            }
            // Should the child be gone already, its end is seen by whoever waits for it.
            let _ = rustix::io::write(&permit, &[1]);
            Ok(Part::Outside(child, ready))
        }
    }
}

/// Enters the sandbox; returns what was opened, and the pipe through which the warden is told.
pub fn enter(
    inside: Inside,
    share: Share,
    options: &IsolationOptions,
    read_only: bool,
) -> Result<(Preopened, OwnedFd), Error> {
    await_permission(&inside.go);
    // First the view: the user who named the share may enter its path, the namespace's root perhaps not.
    let preopened = match options.sandbox {
        SandboxMode::Chroot => view_by_chroot(share)?,
        _ => view_by_pivot(share, read_only)?,
    };
    take_identity(inside.maps.as_ref())?;
    Ok((preopened, inside.announce))
}

fn leave_groups() -> Result<(), Error> {
    match identity::leave_groups().map_err(|error| Error::system("cannot leave supplementary groups", error, ""))? {
        0 => {}
        left => debug!("{left} supplementary groups stay, as this user may not leave them"),
    }
    Ok(())
}

fn no_namespaces(error: io::Error) -> Error {
    let mend = match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EUSERS) => "raise user.max_user_namespaces, or use --sandbox none",
        Some(libc::EPERM | libc::EACCES) if identity::user() == 0 => {
            "root lacks CAP_SYS_ADMIN here (a container?): use --sandbox chroot or none"
        }
        Some(libc::EPERM | libc::EACCES) => "this system gives users no namespaces: use --sandbox none",
        Some(libc::ENOSYS) => "this system has no clone3: use --sandbox none",
        _ => "use --sandbox none",
    };
    Error::system("cannot make a sandbox of namespaces", error, mend)
}

/// Waits until the warden has written the id maps. When it ended instead it has said why, so this ends in silence.
fn await_permission(go: &OwnedFd) {
    let mut byte = [0];
    if !matches!(rustix::io::retry_on_intr(|| rustix::io::read(go, &mut byte)), Ok(1)) {
        std::process::exit(1);
    }
}

fn take_identity(maps: Option<&IdMaps>) -> Result<(), Error> {
    let failed = |error| Error::system("cannot become root of the user namespace", error, "check --uid-map, --gid-map");
    if let Some(maps) = maps {
        if maps.have_root_group() {
            identity::become_root_group().map_err(failed)?;
        }
        if maps.have_root_user() {
            identity::become_root_user().map_err(failed)?;
        }
        leave_groups()?;
    }
    namespaces::end_with_parent().map_err(|error| Error::system("cannot tie the process to its parent", error, ""))
}

/// The share becomes the root directory of a mount namespace in which nothing else is left.
fn view_by_pivot(share: Share, read_only: bool) -> Result<Preopened, Error> {
    let failed =
        |step: &'static str| move |error| Error::system(format!("cannot build the sandbox: {step}"), error, "");
    mounts::follow_without_leading().map_err(failed("separating its mounts"))?;
    let (own_proc, proc_self_fd) = open_proc()?;
    let tree = mounts::mount_over_itself(share.path()).map_err(failed("mounting the shared directory"))?;
    if !mounts::is_same_file(&tree, &share).map_err(failed("checking the shared directory"))? {
        let text = format!("'{}' was replaced while the daemon started: start it again", share.path().display());
        return Err(Error::Failed(text));
    }
    // It belongs to the mounts of the host, so it must not live on in here.
    drop(share);
    if let Err(error) = mounts::harden(tree.as_fd(), read_only) {
        debug!("the sandbox's mounts keep their flags: {error}");
    }
    mounts::pivot_into(tree.as_fd()).map_err(|error| {
        let mend = "where the root directory is an initramfs, use --sandbox chroot";
        Error::system("cannot build the sandbox: leaving the host's view", error, mend)
    })?;
    let mountinfo = mounts::open_beneath(own_proc.as_fd(), "mountinfo").map_err(failed("opening mountinfo"))?;
    Ok(Preopened { shared_dir: tree, proc_self_fd, mountinfo, shared_dir_in_mountinfo: "/".into() })
}

/// The share becomes the root directory; the rest of the host stays mounted out of sight.
fn view_by_chroot(share: Share) -> Result<Preopened, Error> {
    let (own_proc, proc_self_fd) = open_proc()?;
    mounts::chroot_into(share.as_fd()).map_err(|e| Error::system("cannot chroot into the share", e, ""))?;
    // Opened after the change, it shows the mounts as seen from the new root.
    let mountinfo = mounts::open_beneath(own_proc.as_fd(), "mountinfo")
        .map_err(|error| Error::system("cannot open mountinfo", error, ""))?;
    Ok(Preopened { shared_dir: share.directory, proc_self_fd, mountinfo, shared_dir_in_mountinfo: "/".into() })
}

/// What a process without a sandbox uses in place of one.
pub fn view_as_it_is(share: Share) -> Result<Preopened, Error> {
    let (own_proc, proc_self_fd) = open_proc()?;
    let mountinfo = mounts::open_beneath(own_proc.as_fd(), "mountinfo")
        .map_err(|error| Error::system("cannot open mountinfo", error, ""))?;
    Ok(Preopened { shared_dir: share.directory, proc_self_fd, mountinfo, shared_dir_in_mountinfo: share.path })
}

/// Opens `/proc/self`, which must not be kept, and `/proc/self/fd`, which is.
fn open_proc() -> Result<(OwnedFd, OwnedFd), Error> {
    let failed = |error| Error::system("cannot open /proc/self", error, "mount proc on /proc");
    let own_proc = mounts::open_place(Path::new("/proc/self")).map_err(failed)?;
    let path = Path::new("/proc/self/fd");
    // A mount of its own needs CAP_SYS_ADMIN; without a sandbox there may be none, and nothing to keep apart either.
    let proc_self_fd = mounts::detached(path).or_else(|_| mounts::open_place(path)).map_err(failed)?;
    Ok((own_proc, proc_self_fd))
}
