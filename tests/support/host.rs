//! What tests do on the host behind the server's back, and what they ask of it.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    fs::{self, File, Permissions},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt},
    },
    path::Path,
};

pub fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

pub fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

pub fn chown(path: &Path, uid: u32, gid: u32) {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).unwrap();
}

/// Permission bits.
pub fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// Owner and group.
pub fn owner(path: &Path) -> (u32, u32) {
    let found = fs::symlink_metadata(path).unwrap();
    (found.uid(), found.gid())
}

pub fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

pub fn fifo(path: &Path) -> io::Result<()> {
    let path = c_path(path);
    // SAFETY: the path ends in NUL.
    done(unsafe { libc::mkfifo(path.as_ptr(), 0o666) })
}

pub fn device(path: &Path, mode: u32, major: u32, minor: u32) -> io::Result<()> {
    let path = c_path(path);
    // SAFETY: the path ends in NUL.
    done(unsafe { libc::mknod(path.as_ptr(), mode, libc::makedev(major, minor)) })
}

pub fn set_xattr(path: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).map_err(Into::into)
}

pub fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 65536];
    let len = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).ok()?;
    value.truncate(len);
    Some(value)
}

/// A `security.capability` that grants nothing dangerous: CAP_NET_BIND_SERVICE, revision 2.
pub const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An access control list in the form that the attribute has: tags, permissions, ids.
pub fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

pub mod tag {
    pub const OWNER: u16 = 1;
    pub const USER: u16 = 2;
    pub const GROUP_OWNER: u16 = 4;
    pub const GROUP: u16 = 8;
    pub const MASK: u16 = 16;
    pub const OTHER: u16 = 32;
    pub const NOBODY: u32 = u32::MAX;
}

/// Brings a file to the disk and takes it out of memory.
pub fn drop_cache(path: &Path) {
    let file = File::open(path).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

/// Runs `work` in an empty directory where mounts are its own: they vanish with it, whatever happens.
pub fn in_private_mounts<R: Send>(work: impl FnOnce(&Path) -> R + Send) -> R {
    // Deleted from outside, where nothing is mounted in it.
    let directory = super::disk_directory();
    let name = std::thread::current().name().unwrap_or("private mounts").to_owned();
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name).spawn_scoped(scope, || {
            // SAFETY: gives this thread alone a mount namespace; no memory is concerned.
            done(unsafe { libc::unshare(libc::CLONE_NEWNS) }).unwrap();
            let flags = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
            rustix::mount::mount_change("/", flags).unwrap();
            work(directory.path())
        });
        match thread.unwrap().join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

pub fn mount_tmpfs(at: &Path) {
    let options = CString::new("size=1m,mode=0755").unwrap();
    rustix::mount::mount("tmpfs", at, "tmpfs", rustix::mount::MountFlags::empty(), options.as_c_str()).unwrap();
}

/// A file system that has no file handles. Says whether there is one here.
pub fn mount_ramfs(at: &Path) -> bool {
    rustix::mount::mount("ramfs", at, "ramfs", rustix::mount::MountFlags::empty(), None).is_ok()
}

pub fn mount_bind(from: &Path, at: &Path) {
    rustix::mount::mount_bind(from, at).unwrap();
}

pub fn unmount(at: &Path) -> io::Result<()> {
    rustix::mount::unmount(at, rustix::mount::UnmountFlags::empty()).map_err(Into::into)
}

/// Runs `work` on a thread that is this user through and through, as a process of theirs would be.
pub fn as_user<R: Send>(uid: u32, gid: u32, groups: &[u32], work: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: raw calls change this thread alone, and read as many groups as there are.
            unsafe {
                libc::unshare(libc::CLONE_FS);
                libc::umask(0);
                assert_eq!(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()), 0);
                assert_eq!(libc::syscall(libc::SYS_setresgid, gid, gid, gid), 0);
                assert_eq!(libc::syscall(libc::SYS_setresuid, uid, uid, uid), 0);
            }
            work()
        });
        match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
