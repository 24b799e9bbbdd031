//! Every operation once, in each isolation, as root and as a plain user: the filter of system calls ends the process at
//! one it lacks, and what a plain user cannot do is answered as a local file system would.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use ferryfs_guest::{Caller, Client, Daemon, Error, Result, skipped};
use fuse_abi::{
    AccessIn, CopyFileRangeIn, CreateIn, Errno, FallocateIn, FlushIn, FsyncIn, GetattrIn, IoctlIn, LseekIn, MknodIn,
    Opcode, ROOT_ID, Rename2In, SetattrIn, SetattrValid, StatxIn, WriteIn,
};
use tempfile::TempDir;
use zerocopy::IntoBytes;

use crate::support::{O_RDWR, expect_service, is_root, options};

/// The user who stands for any without privileges.
const NOBODY: u32 = 65534;
/// Somebody else.
const OTHER: u32 = 12345;

/// A client, with a file of 20,000 bytes open and a directory.
struct Bench {
    client: Client,
    file: u64,
    fh: u64,
    dir: u64,
    names: u32,
}

impl Bench {
    fn new(daemon: &mut Daemon) -> Self {
        let mut client = Client::connect(
            daemon.connect().unwrap(),
            &ferryfs_guest::Options { memory: vec![(0, 1 << 28)], ..options() },
        )
        .unwrap();
        client.init().unwrap();
        let file = client.lookup(ROOT_ID, "file").unwrap().nodeid;
        let dir = client.lookup(ROOT_ID, "dir").unwrap().nodeid;
        let fh = client.open(file, O_RDWR).unwrap().fh;
        Self { client, file, fh, dir, names: 0 }
    }

    /// A name that was not used before.
    fn name(&mut self) -> String {
        self.names += 1;
        format!("name{}", self.names)
    }

    fn setattr(&mut self, valid: SetattrValid, change: SetattrIn) -> Result<()> {
        self.client.setattr(self.file, &SetattrIn { valid: valid.bits(), ..change }).map(drop)
    }

    fn mknod(&mut self, mode: u32, rdev: u32) -> Result<()> {
        let (body, name) = (MknodIn { mode, rdev, ..MknodIn::default() }, self.name());
        self.any(Opcode::Mknod, ROOT_ID, &[body.as_bytes(), name.as_bytes(), b"\0"])
    }

    fn fallocate(&mut self, mode: i32, offset: u64, length: u64) -> Result<()> {
        let body = FallocateIn { fh: self.fh, offset, length, mode: mode as u32, padding: 0 };
        self.any(Opcode::Fallocate, self.file, &[body.as_bytes()])
    }

    fn rename2(&mut self, flags: u32) -> Result<()> {
        let (from, to) = (self.name(), self.name());
        self.client.mkdir(ROOT_ID, &from, 0o755)?;
        if flags == libc::RENAME_EXCHANGE {
            self.client.mkdir(ROOT_ID, &to, 0o755)?;
        }
        let body = Rename2In { newdir: self.dir, flags, padding: 0 };
        if flags == libc::RENAME_EXCHANGE {
            return self.client.rename(ROOT_ID, from, ROOT_ID, to, flags);
        }
        self.any(Opcode::Rename2, ROOT_ID, &[body.as_bytes(), from.as_bytes(), b"\0", to.as_bytes(), b"\0"])
    }

    fn copy(&mut self, opcode: Opcode) -> Result<()> {
        let (node, fh) = (self.file, self.fh);
        let body = CopyFileRangeIn {
            fh_in: fh,
            nodeid_out: node,
            fh_out: fh,
            off_out: 40_960,
            len: 4096,
            ..Default::default()
        };
        self.any(opcode, node, &[body.as_bytes()])
    }

    fn ioctl(&mut self, cmd: u32, data: &[u8], out: u32) -> Result<()> {
        let body = IoctlIn { fh: self.fh, cmd, in_size: data.len() as u32, out_size: out, ..IoctlIn::default() };
        self.any(Opcode::Ioctl, self.file, &[body.as_bytes(), data])
    }

    fn setxattr(&mut self, name: &str, value: &[u8]) -> Result<()> {
        let body = fuse_abi::SetxattrIn { size: value.len() as u32, ..Default::default() };
        self.any(Opcode::Setxattr, self.file, &[body.as_bytes(), name.as_bytes(), b"\0", value])
    }

    /// Creates a file as somebody; it must be theirs.
    fn create_as(&mut self, uid: u32, gid: u32) -> Result<()> {
        let name = self.name();
        let (entry, open) = self
            .client
            .as_caller(Caller { uid, gid, pid: 1 }, |client| client.create(self.dir, name, 0o644, O_RDWR))?;
        assert_eq!((entry.attr.uid, entry.attr.gid), (uid, gid));
        self.client.release(entry.nodeid, open.fh)
    }

    /// Any operation, whatever its reply.
    fn any(&mut self, opcode: Opcode, node: u64, body: &[&[u8]]) -> Result<()> {
        let reply = self.client.call(&ferryfs_guest::Request::new(opcode, node, body, 8192))?;
        assert!(reply.is_sound(), "{opcode}: {reply:?}");
        reply.errno().map_or(Ok(()), |errno| Err(Error::Errno(errno)))
    }
}

/// What comes of an operation.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    Works,
    Fails(Errno),
    FailsWith(&'static [Errno]),
    /// As the file system of this machine has it.
    WorksOr(Errno),
}

use Outcome::{Fails, FailsWith, Works, WorksOr};

/// An operation, what root's daemon makes of it, and what a plain user's does.
type Row = (&'static str, Outcome, Outcome, fn(&mut Bench) -> Result<()>);

const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

const OPERATIONS: &[Row] = &[
    ("getattr", Works, Works, |b| {
        let body = GetattrIn { getattr_flags: 1, fh: b.fh, dummy: 0 };
        b.any(Opcode::Getattr, b.file, &[body.as_bytes()])
    }),
    ("statx", Works, Works, |b| {
        b.any(Opcode::Statx, b.file, &[StatxIn { sx_mask: 0xfff, ..StatxIn::default() }.as_bytes()])
    }),
    ("access", Works, Works, |b| b.any(Opcode::Access, b.file, &[AccessIn { mask: 6, padding: 0 }.as_bytes()])),
    ("statfs", Works, Works, |b| b.client.statfs(ROOT_ID).map(drop)),
    ("chmod", Works, Works, |b| b.setattr(SetattrValid::MODE, SetattrIn { mode: 0o100_640, ..Default::default() })),
    ("truncate", Works, Works, |b| b.setattr(SetattrValid::SIZE, SetattrIn { size: 19_000, ..Default::default() })),
    ("truncate by handle", Works, Works, |b| {
        let fh = b.fh;
        b.setattr(SetattrValid::SIZE | SetattrValid::FH, SetattrIn { size: 20_000, fh, ..Default::default() })
    }),
    ("utimens", Works, Works, |b| {
        b.setattr(SetattrValid::ATIME | SetattrValid::MTIME, SetattrIn { atime: 5, mtime: 6, ..Default::default() })
    }),
    ("utimens now", Works, Works, |b| {
        let both = SetattrValid::ATIME | SetattrValid::MTIME | SetattrValid::ATIME_NOW | SetattrValid::MTIME_NOW;
        b.setattr(both, SetattrIn::default())
    }),
    ("chown to another", Works, Fails(Errno::EPERM), |b| {
        b.setattr(SetattrValid::UID, SetattrIn { uid: OTHER, ..Default::default() })
    }),
    ("chgrp to another", Works, Fails(Errno::EPERM), |b| {
        b.setattr(SetattrValid::GID, SetattrIn { gid: OTHER, ..Default::default() })
    }),
    ("chown back", Works, Works, |b| {
        let all = SetattrValid::UID | SetattrValid::GID;
        b.setattr(all, SetattrIn { uid: NOBODY, gid: NOBODY, ..Default::default() })
    }),
    ("mkdir and rmdir", Works, Works, |b| {
        let name = b.name();
        b.client.mkdir(b.dir, &name, 0o755)?;
        b.client.rmdir(b.dir, &name)
    }),
    ("symlink and readlink", Works, Works, |b| {
        let name = b.name();
        let node = b.client.symlink(b.dir, name, "../over/there")?.nodeid;
        assert_eq!(b.client.readlink(node)?, b"../over/there");
        b.any(
            Opcode::Setattr,
            node,
            &[SetattrIn { valid: (SetattrValid::MTIME | SetattrValid::MTIME_NOW).bits(), ..SetattrIn::default() }
                .as_bytes()],
        )
    }),
    ("link and unlink", Works, Works, |b| {
        let name = b.name();
        b.client.link(b.file, b.dir, &name)?;
        b.client.unlink(b.dir, &name)
    }),
    ("mknod of a file", Works, Works, |b| b.mknod(libc::S_IFREG | 0o644, 0)),
    ("mknod of a fifo", Works, Works, |b| b.mknod(libc::S_IFIFO | 0o644, 0)),
    ("mknod of a socket", Works, Works, |b| b.mknod(libc::S_IFSOCK | 0o644, 0)),
    ("mknod of a device", Works, Fails(Errno::EPERM), |b| b.mknod(libc::S_IFCHR | 0o644, 0x103)),
    ("rename", Works, Works, |b| b.rename2(0)),
    ("rename without replacing", Works, Works, |b| b.rename2(libc::RENAME_NOREPLACE)),
    ("exchange", Works, Works, |b| b.rename2(libc::RENAME_EXCHANGE)),
    ("whiteout", Works, WorksOr(Errno::EPERM), |b| b.rename2(libc::RENAME_WHITEOUT)),
    ("create as the daemon's user", Works, Works, |b| {
        let name = b.name();
        let (entry, open) = b.client.create(b.dir, name, 0o600, O_RDWR)?;
        b.client.release(entry.nodeid, open.fh)
    }),
    ("create as another", Works, Fails(Errno::EPERM), |b| b.create_as(OTHER, OTHER)),
    ("create as another's group", Works, Fails(Errno::EPERM), |b| b.create_as(OTHER, OTHER + 1)),
    ("create and again, other flags", Works, Works, |b| {
        let name = b.name();
        for flags in [libc::O_WRONLY, libc::O_RDWR | libc::O_TRUNC, libc::O_RDONLY | libc::O_APPEND | libc::O_NOATIME] {
            let (entry, open) = b.client.create(b.dir, &name, 0o644, flags as u32)?;
            b.client.release(entry.nodeid, open.fh)?;
        }
        Ok(())
    }),
    ("an unnamed file, linked later", Works, Works, |b| {
        let body = CreateIn { flags: O_RDWR, mode: 0o100_644, ..CreateIn::default() };
        let reply = b.client.raw(Opcode::Tmpfile, b.dir, &[body.as_bytes(), b"x\0"].concat(), 8192)?;
        assert!(reply.is_sound());
        if let Some(errno) = reply.errno() {
            return Err(Error::Errno(errno));
        }
        let node = u64::from_ne_bytes(reply.body[..8].try_into().unwrap());
        let name = b.name();
        b.client.link(node, b.dir, name).map(drop)
    }),
    ("open, every way", Works, Works, |b| {
        use libc::{O_APPEND, O_DIRECT, O_DSYNC, O_NOATIME, O_NONBLOCK, O_RDWR, O_SYNC, O_TRUNC, O_WRONLY};
        for flags in [0, O_WRONLY, O_RDWR | O_APPEND, O_SYNC, O_DSYNC | O_RDWR, O_NONBLOCK, O_NOATIME, O_DIRECT] {
            let fh = b.client.open(b.file, flags as u32)?.fh;
            if ![O_WRONLY, O_DIRECT].contains(&flags) {
                b.client.read(b.file, fh, 0, 10)?;
            }
            b.client.release(b.file, fh)?;
        }
        let fh = b.client.open(b.file, (O_RDWR | O_TRUNC) as u32)?.fh;
        assert_eq!(b.client.write(b.file, fh, 0, &[7; 20_000])?, 20_000);
        b.client.release(b.file, fh)
    }),
    ("write that drops setuid", Works, Works, |b| {
        let body = WriteIn { fh: b.fh, size: 4, write_flags: 4, ..WriteIn::default() };
        b.any(Opcode::Write, b.file, &[body.as_bytes(), b"data"])
    }),
    ("synchronous write", Works, Works, |b| {
        let fh = b.client.open(b.file, (libc::O_RDWR | libc::O_SYNC) as u32)?.fh;
        b.client.write(b.file, fh, 0, b"data")?;
        b.client.release(b.file, fh)
    }),
    ("flush", Works, Works, |b| b.any(Opcode::Flush, b.file, &[FlushIn { fh: b.fh, ..FlushIn::default() }.as_bytes()])),
    ("fsync", Works, Works, |b| b.client.fsync(b.file, b.fh)),
    ("fdatasync", Works, Works, |b| {
        b.any(Opcode::Fsync, b.file, &[FsyncIn { fh: b.fh, fsync_flags: 1, padding: 0 }.as_bytes()])
    }),
    ("syncfs", Works, Works, |b| b.any(Opcode::Syncfs, ROOT_ID, &[&[0; 8]])),
    ("fallocate", Works, Works, |b| b.fallocate(0, 0, 65_536)),
    ("fallocate beyond the end", Works, Works, |b| b.fallocate(libc::FALLOC_FL_KEEP_SIZE, 0, 1 << 20)),
    ("punch a hole", Works, Works, |b| b.fallocate(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 8192, 4096)),
    ("zero a range", WorksOr(Errno::EOPNOTSUPP), WorksOr(Errno::EOPNOTSUPP), |b| {
        b.fallocate(libc::FALLOC_FL_ZERO_RANGE, 0, 4096)
    }),
    ("collapse a range", WorksOr(Errno::EOPNOTSUPP), WorksOr(Errno::EOPNOTSUPP), |b| {
        b.fallocate(libc::FALLOC_FL_COLLAPSE_RANGE, 0, 4096)
    }),
    ("seek for data and holes", Works, Works, |b| {
        for whence in [3, 4] {
            let body = LseekIn { fh: b.fh, whence, ..LseekIn::default() };
            b.any(Opcode::Lseek, b.file, &[body.as_bytes()])?;
        }
        Ok(())
    }),
    ("copy a range", Works, Works, |b| b.copy(Opcode::CopyFileRange)),
    ("copy a range, long", Works, Works, |b| b.copy(Opcode::CopyFileRange64)),
    ("get flags", WorksOr(Errno::ENOTTY), WorksOr(Errno::ENOTTY), |b| b.ioctl(0x8008_6601, &[], 8)),
    ("set flags", WorksOr(Errno::ENOTTY), WorksOr(Errno::ENOTTY), |b| {
        b.ioctl(0x4008_6602, &[0x80, 0, 8, 0, 0, 0, 0, 0], 0)
    }),
    ("make immutable", Fails(Errno::EPERM), Fails(Errno::EPERM), |b| {
        b.ioctl(0x4008_6602, &[0x10, 0, 8, 0, 0, 0, 0, 0], 0)
    }),
    ("get extended flags", WorksOr(Errno::ENOTTY), WorksOr(Errno::ENOTTY), |b| b.ioctl(0x801c_581f, &[], 28)),
    ("set extended flags", WorksOr(Errno::EOPNOTSUPP), WorksOr(Errno::EOPNOTSUPP), |b| {
        b.ioctl(0x401c_5820, &[0; 28], 0)
    }),
    ("another ioctl", Fails(Errno::ENOTTY), Fails(Errno::ENOTTY), |b| b.ioctl(0x5401, &[], 64)),
    ("set an attribute", Works, Works, |b| b.setxattr("user.some", b"value")),
    ("read and list attributes", Works, Works, |b| {
        assert_eq!(b.client.getxattr(b.file, "user.some", 100)?, b"value");
        b.any(Opcode::Listxattr, b.file, &[fuse_abi::GetxattrIn { size: 1000, padding: 0 }.as_bytes()])?;
        b.any(Opcode::Listxattr, b.file, &[fuse_abi::GetxattrIn::default().as_bytes()])
    }),
    ("remove an attribute", Works, Works, |b| b.any(Opcode::Removexattr, b.file, &[b"user.some\0"])),
    ("an attribute that is missing", Fails(Errno::ENODATA), Fails(Errno::ENODATA), |b| {
        b.client.getxattr(b.file, "user.some", 100).map(drop)
    }),
    // In a user namespace without a root the kernel says EINVAL.
    ("a file capability", Works, FailsWith(&[Errno::EPERM, Errno::EINVAL]), |b| {
        b.setxattr("security.capability", &CAPABILITY)
    }),
    ("a trusted attribute", Fails(Errno::EPERM), Fails(Errno::EPERM), |b| b.setxattr("trusted.some", b"value")),
    ("list a directory", Works, Works, |b| b.client.list(ROOT_ID, 4096).map(drop)),
    ("list with attributes", Works, Works, |b| {
        let fh = b.client.opendir(b.dir)?.fh;
        b.client.readdirplus(b.dir, fh, 0, 8192)?;
        b.any(Opcode::Fsyncdir, b.dir, &[FsyncIn { fh, ..FsyncIn::default() }.as_bytes()])?;
        b.client.releasedir(b.dir, fh)
    }),
    ("poll", Fails(Errno::ENOSYS), Fails(Errno::ENOSYS), |b| b.any(Opcode::Poll, b.file, &[&[0; 24]])),
    ("bmap", Fails(Errno::ENOSYS), Fails(Errno::ENOSYS), |b| b.any(Opcode::Bmap, b.file, &[&[0; 16]])),
    ("an operation of the host's user after another's", Works, Works, |b| {
        let _ = b.create_as(OTHER, OTHER);
        let name = b.name();
        b.client.mkdir(b.dir, name, 0o755).map(drop)
    }),
];

/// The share in a folder that everybody may enter, owned by the plain user.
fn place() -> TempDir {
    let folder = TempDir::with_prefix("ferryfs-operations-").unwrap();
    let share = folder.path().join("share");
    fs::create_dir_all(share.join("dir")).unwrap();
    fs::write(share.join("file"), vec![7; 20_000]).unwrap();
    let modes = [(folder.path().to_owned(), 0o755), (share.clone(), 0o755), (share.join("dir"), 0o777)];
    modes.iter().for_each(|(path, mode)| fs::set_permissions(path, fs::Permissions::from_mode(*mode)).unwrap());
    if is_root() {
        for path in [share.join("dir"), share.join("file"), share] {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
    folder
}

/// Makes the command start as the plain user, with the folder of its socket theirs.
fn as_plain_user(command: &mut Command) {
    if is_root() {
        use std::os::unix::process::CommandExt;
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let at = arguments.iter().position(|argument| argument == "--socket-path").unwrap();
        let folder = Path::new(&arguments[at + 1]).parent().unwrap().to_owned();
        chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
        command.uid(NOBODY).gid(NOBODY).current_dir("/");
    }
}

/// The program where a plain user can reach it.
fn reachable(folder: &Path) -> std::path::PathBuf {
    let copy = folder.join("program");
    // Copied by another process: one that a test starts meanwhile would inherit the file open for writing.
    assert!(Command::new("cp").arg(crate::support::program()).arg(&copy).status().unwrap().success());
    copy
}

fn start(folder: &Path, args: &[&str], plain: bool) -> Daemon {
    let share = folder.join("share");
    let args = [&["--xattr", "--shared-dir", share.to_str().unwrap()], args].concat();
    if plain {
        Daemon::start_with(&reachable(folder), &args, as_plain_user).unwrap()
    } else {
        Daemon::start(&crate::support::program(), &args).unwrap()
    }
}

fn expect_every_operation(args: &[&str], plain: bool) {
    let folder = place();
    let mut daemon = start(folder.path(), args, plain);
    let mut bench = Bench::new(&mut daemon);
    let mut wrong = Vec::new();
    for (name, for_root, for_plain, operation) in OPERATIONS {
        let wanted = if plain { *for_plain } else { *for_root };
        let outcome = operation(&mut bench);
        let right = match (&outcome, wanted) {
            (Ok(()), Works | WorksOr(_)) => true,
            (Err(Error::Errno(errno)), Fails(wanted) | WorksOr(wanted)) => *errno == wanted,
            (Err(Error::Errno(errno)), FailsWith(wanted)) => wanted.contains(errno),
            _ => false,
        };
        if !right {
            wrong.push(format!("{name}: {outcome:?}, not {wanted:?}"));
        }
        if let Some(status) = daemon.exited().unwrap() {
            panic!("{name} ended the daemon with {status}");
        }
    }
    assert!(wrong.is_empty(), "{args:?}: {wrong:#?}");
    expect_service(&mut bench.client, "every operation");
    let pid = daemon.serving_pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Seccomp:\t2") || args.contains(&"--seccomp=none"), "the filter is on");
}

#[test]
fn every_operation_passes_the_filter_as_root() {
    if !is_root() {
        return skipped("needs root");
    }
    for sandbox in ["--sandbox=none", "--sandbox=namespace", "--sandbox=chroot"] {
        for handles in ["--inode-file-handles=never", "--inode-file-handles=mandatory"] {
            expect_every_operation(&[sandbox, handles], false);
        }
    }
    expect_every_operation(&["--thread-pool-size=0", "--dir-stream=snapshot", "--writeback", "--cache=always"], false);
    expect_every_operation(&["--allow-direct-io", "--preserve-noatime", "--security-label", "--posix-acl"], false);
}

#[test]
fn every_operation_passes_the_filter_as_a_plain_user() {
    for sandbox in ["none", "namespace"] {
        if crate::support::can_have(sandbox) {
            expect_every_operation(&["--sandbox", sandbox], true);
            expect_every_operation(&["--sandbox", sandbox, "--thread-pool-size=0", "--dir-stream=snapshot"], true);
        }
    }
}

#[test]
fn a_plain_user_without_file_handles_gets_enfile_beyond_the_descriptors() {
    for sandbox in ["none", "namespace"] {
        if !crate::support::can_have(sandbox) {
            continue;
        }
        let folder = place();
        (0..200).for_each(|n| fs::write(folder.path().join(format!("share/{n}")), b"x").unwrap());
        let few = ["--rlimit-nofile=700", "--num-request-queues=1", "--thread-pool-size=1", "--sandbox", sandbox];
        let mut daemon = start(folder.path(), &few, true);
        let mut client = crate::support::connect(&mut daemon, &options());
        client.init().unwrap();
        let mut nodes = Vec::new();
        for n in 0..200 {
            match client.lookup(ROOT_ID, n.to_string()) {
                Ok(entry) => nodes.push(entry.nodeid),
                Err(error) => {
                    assert_eq!(error.errno(), Some(Errno::ENFILE), "{n}");
                    break;
                }
            }
        }
        assert!((30..200).contains(&nodes.len()), "{}", nodes.len());
        for node in &nodes {
            let fh = client.open(*node, 0).unwrap().fh;
            client.release(*node, fh).unwrap();
        }
        nodes.iter().for_each(|node| client.forget(*node, 1).unwrap());
        client.lookup(ROOT_ID, "199").unwrap();
    }
}

#[test]
fn file_handles_that_cannot_be_had_are_refused_at_the_start() {
    let folder = place();
    let args = ["--inode-file-handles=mandatory", "--sandbox=none", "--shared-dir"];
    let share = folder.path().join("share");
    let args = [&args[..], &[share.to_str().unwrap()]].concat();
    // The socket listens for a moment: it may be reached in it or not.
    let told = match Daemon::start_with(&reachable(folder.path()), &args, as_plain_user) {
        Ok(mut daemon) => {
            assert_eq!(daemon.wait_exit(crate::support::HANG).unwrap().code(), Some(1));
            daemon.log()
        }
        Err(error) => error.to_string(),
    };
    assert!(told.contains("cannot share the directory"), "{told}");
}

#[test]
fn a_file_belongs_to_whoever_made_it_and_setgid_directories_are_obeyed() {
    // CVE-2022-0358 through the daemon: who is not in the group does not keep the bit.
    if !is_root() {
        return skipped("needs root");
    }
    for sandbox in ["none", "namespace"] {
        let folder = place();
        let dir = folder.path().join("share/dir");
        chown(&dir, Some(0), Some(777)).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o2777)).unwrap();
        let mut daemon = start(folder.path(), &["--sandbox", sandbox], false);
        let mut bench = Bench::new(&mut daemon);
        let caller = Caller { uid: OTHER, gid: OTHER, pid: 1 };
        let made = bench.client.as_caller(caller, |client| client.create(bench.dir, "made", 0o2775, O_RDWR)).unwrap().0;
        assert_eq!((made.attr.uid, made.attr.gid, made.attr.mode & 0o7777), (OTHER, 777, 0o775));
        let sub = bench.client.as_caller(caller, |client| client.mkdir(bench.dir, "sub", 0o755)).unwrap();
        assert_eq!((sub.attr.uid, sub.attr.gid, sub.attr.mode & 0o7777), (OTHER, 777, 0o2755));
        assert_eq!(fs::metadata(dir.join("made")).unwrap().uid(), OTHER);
    }
}
