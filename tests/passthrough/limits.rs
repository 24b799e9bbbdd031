//! Descriptors are bounded: at the limit a guest is refused what needs one, and nothing else.

use std::{fs, path::Path};

use ferryfs::passthrough::config::{Config, InodeFileHandles};
use fuse_abi::{CopyFileRangeIn, SetattrIn, SetattrValid};

use crate::support::{
    Client, Errno, ROOT, Result, Share, host, in_handle_mode, needs_root, passthrough, skipped, supports_handles,
};

const BUDGET: usize = 8;

fn small(config: &mut Config) {
    config.inode_file_handles = InodeFileHandles::Never;
    config.descriptor_budget = BUDGET;
}

/// A share whose guest holds as many inodes as it may, and the node of the first.
fn full_share(change: impl FnOnce(&mut Config)) -> (Share, Client, u64) {
    let share = Share::with(change);
    for number in 0..=BUDGET {
        fs::write(share.host(&number.to_string()), "").unwrap();
    }
    let client = share.client();
    let nodes: Vec<_> = (0..BUDGET).map(|number| client.lookup(ROOT, &number.to_string()).unwrap().nodeid).collect();
    (share, client, nodes[0])
}

fn names(path: &Path) -> usize {
    fs::read_dir(path).unwrap().count()
}

type Make = (&'static str, fn(&Client) -> Result<u64>);
/// Each way to get to know one more inode, and how to undo it on the host.
const MAKES: [Make; 6] = [
    ("lookup", |c| c.lookup(ROOT, "8").map(|entry| entry.nodeid)),
    ("mkdir", |c| c.mkdir(ROOT, "new", 0o755).map(|entry| entry.nodeid)),
    ("mknod", |c| c.mknod(ROOT, "new", libc::S_IFREG | 0o644, 0).map(|entry| entry.nodeid)),
    ("symlink", |c| c.symlink(ROOT, "new", "target").map(|entry| entry.nodeid)),
    ("create", |c| {
        let (entry, open) = c.create(ROOT, "new", libc::O_RDWR, 0o644)?;
        c.release(entry.nodeid, open.fh)?;
        Ok(entry.nodeid)
    }),
    ("tmpfile", |c| {
        let (entry, open) = c.tmpfile(ROOT, libc::O_RDWR, 0o644)?;
        c.release(entry.nodeid, open.fh)?;
        Ok(entry.nodeid)
    }),
];

#[test]
fn at_the_limit_one_more_inode_is_enfile_and_after_a_forget_it_is_not() {
    for (what, make) in MAKES {
        let (share, client, first) = full_share(small);
        assert_eq!(share.held_descriptors(), BUDGET);
        let before = names(share.path());
        for _ in 0..3 {
            assert_eq!(make(&client), Err(Errno::ENFILE), "{what}");
        }
        assert_eq!(names(share.path()), before, "{what}: what was refused was not made");
        client.forget(first, 1);
        let node = make(&client).unwrap_or_else(|errno| panic!("{what} after a forget: {errno}"));
        assert_eq!(make(&client).map(|_| ()).is_ok(), what == "lookup", "{what}: full again");
        assert!(client.getattr(node).is_ok());
        assert_eq!(share.held_descriptors(), BUDGET);
    }
}

#[test]
fn at_the_limit_all_that_needs_no_new_inode_works() {
    let (share, client, first) = full_share(|config| {
        small(config);
        config.xattr = true;
    });
    assert_eq!(client.lookup(ROOT, "0").unwrap().nodeid, first);
    let handle = client.open(first, libc::O_RDWR).unwrap().fh;
    assert_eq!(client.write(first, handle, 0, b"data").unwrap(), 4);
    assert_eq!(client.truncate(first, Some(handle), 2, false).unwrap().size, 2);
    client.setxattr(first, "user.x", b"1").unwrap();
    client.fsync(first, handle).unwrap();
    client.flush(first, handle).unwrap();
    client.release(first, handle).unwrap();
    assert_eq!(client.link(first, ROOT, "link").unwrap().nodeid, first);
    client.rename((ROOT, "link"), (ROOT, "moved")).unwrap();
    client.unlink(ROOT, "moved").unwrap();
    assert!(client.statfs(first).is_ok());
    assert_eq!(client.lookup(ROOT, "missing").unwrap_err(), Errno::ENOENT);
    let listing = client.opendir(ROOT).unwrap().fh;
    let entries = client.readdirplus(ROOT, listing, 0, 65536).unwrap();
    let (known, unknown): (Vec<_>, Vec<_>) = entries.iter().partition(|(node, _)| node.nodeid != 0);
    assert_eq!((known.len(), unknown.len()), (BUDGET, 3), "the dots and one more go without a lookup");
    client.releasedir(ROOT, listing).unwrap();
    assert_eq!(share.held_descriptors(), BUDGET);
}

#[test]
fn at_the_limit_one_more_open_file_is_enfile_and_after_a_release_it_is_not() {
    type Open = (&'static str, fn(&Client, u64) -> Result<()>);
    let opens: [Open; 5] = [
        ("open", |c, node| c.open(node, libc::O_RDONLY).map(drop)),
        ("opendir", |c, _| c.opendir(ROOT).map(drop)),
        ("create", |c, _| c.create(ROOT, "new", libc::O_RDWR, 0o644).map(drop)),
        ("create of what is there", |c, _| c.create(ROOT, "file", libc::O_RDWR, 0o644).map(drop)),
        ("tmpfile", |c, _| c.tmpfile(ROOT, libc::O_RDWR, 0o644).map(drop)),
    ];
    for (what, open) in opens {
        let share = Share::with(|config| config.handle_budget = 3);
        fs::write(share.host("file"), "data").unwrap();
        let client = share.client();
        let node = client.lookup(ROOT, "file").unwrap().nodeid;
        let first = client.open(node, libc::O_RDONLY).unwrap().fh;
        let dir = client.opendir(ROOT).unwrap().fh;
        client.open(node, libc::O_RDONLY).unwrap();
        for _ in 0..3 {
            assert_eq!(open(&client, node), Err(Errno::ENFILE), "{what}");
        }
        assert_eq!(names(share.path()), 1, "{what}: what was refused was not made");
        assert_eq!(client.read(node, first, 0, 9).unwrap(), b"data", "{what}");
        assert!(!client.readdir(ROOT, dir, 0, 4096).unwrap().is_empty(), "{what}");
        client.release(node, first).unwrap();
        assert_eq!(open(&client, node), Ok(()), "{what} after a release");
        assert_eq!(open(&client, node), Err(Errno::ENFILE), "{what}: full again");
        client.releasedir(ROOT, dir).unwrap();
        assert_eq!(client.open(node, libc::O_RDONLY).map(drop), Ok(()), "{what} after a releasedir");
    }
}

/// Everything a guest can do with a file and a directory, on inodes that nothing but a file handle stands for.
fn works_beyond_the_budget(share: &Share, user: &Client) {
    fs::create_dir(share.host("dir")).unwrap();
    host::chmod(&share.host("dir"), 0o777);
    fs::write(share.host("dir/file"), "data").unwrap();
    host::chmod(&share.host("dir/file"), 0o666);
    fs::write(share.host("dir/other"), "other").unwrap();
    std::os::unix::fs::symlink("target", share.host("dir/link")).unwrap();
    host::fifo(&share.host("dir/fifo")).unwrap();
    let held = share.held_descriptors();
    // The thread acts for a plain user from here on, as after any creation: what a file handle needs is the server's.
    let as_user = |name: &str| {
        let made = user.mkdir(ROOT, name, 0o755).unwrap().nodeid;
        user.forget(made, 1);
    };
    as_user("u1");
    let dir = user.lookup(ROOT, "dir").unwrap().nodeid;
    let file = user.lookup(dir, "file").unwrap().nodeid;
    let other = user.lookup(dir, "other").unwrap().nodeid;
    let link = user.lookup(dir, "link").unwrap().nodeid;
    let fifo = user.lookup(dir, "fifo").unwrap().nodeid;
    assert_eq!(user.lookup(dir, "file").unwrap().nodeid, file);
    type Step<'s> = (&'static str, Box<dyn Fn() -> Result<()> + 's>);
    let mut number = 0;
    let steps: Vec<Step<'_>> = vec![
        ("getattr", Box::new(|| user.getattr(file).map(|attr| assert_eq!(attr.size, 4)))),
        ("getattr of a directory", Box::new(|| user.getattr(dir).map(drop))),
        ("getattr of a fifo", Box::new(|| user.getattr(fifo).map(drop))),
        ("statx", Box::new(|| user.statx(file).map(drop))),
        ("readlink", Box::new(|| user.readlink(link).map(|target| assert_eq!(target, "target")))),
        ("access", Box::new(|| user.access(file, 4))),
        ("statfs", Box::new(|| user.statfs(file).map(drop))),
        ("setxattr", Box::new(|| user.setxattr(file, "user.x", b"1"))),
        ("getxattr", Box::new(|| user.getxattr(file, "user.x").map(|value| assert_eq!(value, b"1")))),
        ("listxattr", Box::new(|| user.listxattr(file).map(|names| assert_eq!(names, ["user.x"])))),
        ("removexattr", Box::new(|| user.removexattr(file, "user.x"))),
        ("chmod", Box::new(|| user.chmod(file, 0o646).map(drop))),
        ("chown", Box::new(|| user.chown(file, Some(1000), Some(1000)).map(drop))),
        ("truncate", Box::new(|| user.truncate(file, None, 4, false).map(drop))),
        ("utimes", Box::new(|| user.setattr(file, SetattrValid::MTIME_NOW, SetattrIn::default()).map(drop))),
        ("rename", Box::new(|| user.rename((dir, "other"), (ROOT, "other")))),
        ("rename back", Box::new(|| user.rename((ROOT, "other"), (dir, "other")))),
        ("link", Box::new(|| user.link(file, dir, "more").map(|entry| assert_eq!(entry.nodeid, file)))),
        ("unlink", Box::new(|| user.unlink(dir, "more"))),
        ("lookup", Box::new(|| user.lookup(dir, "file").map(|entry| assert_eq!(entry.nodeid, file)))),
        ("lookup of dot", Box::new(|| user.lookup(dir, ".").map(|entry| assert_eq!(entry.nodeid, dir)))),
        ("lookup of dot dot", Box::new(|| user.lookup(dir, "..").map(|entry| assert_eq!(entry.nodeid, ROOT)))),
        ("mkdir", Box::new(|| user.mkdir(dir, "sub", 0o755).map(drop))),
        ("rmdir", Box::new(|| user.rmdir(dir, "sub"))),
        ("mknod", Box::new(|| user.mknod(dir, "node", libc::S_IFREG | 0o600, 0).map(drop))),
        ("symlink", Box::new(|| user.symlink(dir, "symlink", "x").map(drop))),
        ("syncfs", Box::new(|| user.syncfs(dir))),
        (
            "open, read, write, fstat and release",
            Box::new(|| {
                let handle = user.open(file, libc::O_RDWR)?.fh;
                assert_eq!(user.read(file, handle, 0, 9)?, b"data");
                user.write(file, handle, 0, b"data")?;
                user.attributes(file, Some(handle))?;
                user.truncate(file, Some(handle), 4, false)?;
                let (fh_in, nodeid_out, fh_out) = (handle, file, handle);
                user.copy(
                    CopyFileRangeIn { fh_in, nodeid_out, fh_out, off_out: 2, len: 2, ..CopyFileRangeIn::default() },
                    file,
                )?;
                user.write(file, handle, 0, b"data")?;
                user.release(file, handle)
            }),
        ),
        (
            "create and release",
            Box::new(|| {
                let (entry, open) = user.create(dir, "created", libc::O_RDWR, 0o600)?;
                user.write(entry.nodeid, open.fh, 0, b"new")?;
                user.release(entry.nodeid, open.fh)?;
                assert_eq!(user.getattr(entry.nodeid)?.size, 3);
                user.unlink(dir, "created")
            }),
        ),
        (
            "tmpfile and link",
            Box::new(|| {
                let (entry, open) = user.tmpfile(dir, libc::O_RDWR, 0o600)?;
                user.link(entry.nodeid, dir, "named")?;
                user.release(entry.nodeid, open.fh)?;
                user.unlink(dir, "named")
            }),
        ),
        (
            "opendir, readdir, readdirplus, fsyncdir and releasedir",
            Box::new(|| {
                let handle = user.opendir(dir)?.fh;
                assert!(user.names(dir, handle)?.contains(&"file".into()));
                let plus = user.readdirplus(dir, handle, 0, 65536)?;
                assert!(plus.iter().any(|(node, entry)| entry.name == "file" && node.nodeid == file));
                user.fsyncdir(dir, handle)?;
                user.releasedir(dir, handle)
            }),
        ),
    ];
    for (what, step) in &steps {
        number += 1;
        as_user(&format!("again-{number}"));
        assert_eq!(step(), Ok(()), "{what}");
    }
    assert_eq!(user.getattr(other).unwrap().size, 5);
    assert_eq!(share.held_descriptors(), held, "no descriptor is held for any of it");
}

#[test]
fn beyond_the_budget_inodes_go_on_by_file_handle() {
    if needs_root() {
        return;
    }
    let share = Share::with(|config| {
        in_handle_mode(config);
        config.xattr = true;
    });
    host::chmod(share.path(), 0o777);
    works_beyond_the_budget(&share, &share.client().as_user(1000, 1000));
}

#[test]
fn where_file_handles_are_mandatory_no_inode_holds_a_descriptor() {
    if needs_root() {
        return;
    }
    let share = Share::with(|config| {
        config.inode_file_handles = InodeFileHandles::Mandatory;
        config.xattr = true;
    });
    host::chmod(share.path(), 0o777);
    works_beyond_the_budget(&share, &share.client().as_user(1000, 1000));
    assert_eq!(share.held_descriptors(), 0);
}

#[test]
fn where_file_handles_are_mandatory_a_file_system_without_them_is_not_served() {
    let mandatory = Config { inode_file_handles: InodeFileHandles::Mandatory, ..Config::default() };
    let proc = Path::new("/proc/self");
    if supports_handles(proc) {
        skipped("/proc has file handles here");
        return;
    }
    assert_eq!(passthrough(proc, mandatory).map(drop), Err(Errno::EOPNOTSUPP));
    assert_eq!(passthrough(proc, Config::default()).map(drop), Ok(()));
}

#[test]
fn an_inode_beyond_the_budget_lives_as_long_as_its_object() {
    if needs_root() {
        return;
    }
    let share = Share::with(in_handle_mode);
    for name in ["open", "idle", "named"] {
        fs::write(share.host(name), "data").unwrap();
        // The kernel's own writing back would hold the object beyond its last name.
        fs::File::open(share.host(name)).and_then(|file| file.sync_all()).unwrap();
    }
    fs::hard_link(share.host("named"), share.host("still")).unwrap();
    let client = share.client();
    let node = |name| client.lookup(ROOT, name).unwrap().nodeid;
    let (open, idle, named) = (node("open"), node("idle"), node("named"));
    let handle = client.open(open, libc::O_RDWR).unwrap().fh;
    for name in ["open", "idle", "named"] {
        client.unlink(ROOT, name).unwrap();
    }
    // Open: all that goes through the handle works, and the inode too while the host keeps it.
    assert_eq!(client.read(open, handle, 0, 9).unwrap(), b"data");
    assert_eq!(client.write(open, handle, 4, b"more").unwrap(), 4);
    assert_eq!(client.attributes(open, Some(handle)).unwrap().size, 8);
    assert_eq!(client.getattr(open).unwrap().nlink, 0);
    // Another name keeps the object, and the inode finds it.
    assert_eq!(client.getattr(named).unwrap().nlink, 1);
    // Not open and without a name: the object is gone.
    assert_eq!(client.getattr(idle).unwrap_err(), Errno::ESTALE);
    assert_eq!(client.open(idle, libc::O_RDONLY).unwrap_err(), Errno::ESTALE);
    client.fsync(open, handle).unwrap();
    client.release(open, handle).unwrap();
    assert_eq!(client.getattr(open).unwrap_err(), Errno::ESTALE);
    client.batch_forget(&[(open, 1), (idle, 1), (named, 1)]);
    assert_eq!(share.known_inodes(), 0);
}

#[test]
fn a_known_inode_keeps_its_number_when_the_budget_runs_out_or_frees_up() {
    if needs_root() {
        return;
    }
    let share = Share::with(|config| {
        config.inode_file_handles = InodeFileHandles::Prefer;
        config.descriptor_budget = 1;
    });
    for name in ["a", "b"] {
        fs::write(share.host(name), name).unwrap();
        fs::hard_link(share.host(name), share.host(&format!("{name}-too"))).unwrap();
    }
    let client = share.client();
    let pinned = client.lookup(ROOT, "a").unwrap().nodeid;
    let by_handle = client.lookup(ROOT, "b").unwrap().nodeid;
    assert_eq!(share.held_descriptors(), 1);
    assert_eq!(client.lookup(ROOT, "a-too").unwrap().nodeid, pinned);
    client.forget(pinned, 2);
    assert_eq!(share.held_descriptors(), 0);
    // Now there is room for a descriptor, but the object is known already.
    assert_eq!(client.lookup(ROOT, "b-too").unwrap().nodeid, by_handle);
    assert_eq!(client.lookup(ROOT, "b").unwrap().nodeid, by_handle);
    client.forget(by_handle, 3);
    assert_eq!((share.known_inodes(), share.held_descriptors()), (0, 0));
}

#[test]
fn many_directories_in_use_beyond_the_budget_hold_a_bounded_number_of_descriptors() {
    if needs_root() {
        return;
    }
    const DIRECTORIES: usize = 300;
    // The root is held beside the budget, once as an inode and once as what file handles of its mount are opened by.
    const ROOTS: usize = 2;
    for budget in [0, 3, 40, 400] {
        let share = Share::in_memory(|config| {
            config.inode_file_handles = InodeFileHandles::Prefer;
            config.descriptor_budget = budget;
        });
        let client = share.client();
        for number in 0..DIRECTORIES {
            let dir = client.mkdir(ROOT, &number.to_string(), 0o755).unwrap().nodeid;
            client.mkdir(dir, "sub", 0o755).unwrap();
        }
        let below = fs::canonicalize(share.path()).unwrap();
        let targets = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        let held = targets.filter(|target| target.starts_with(&below)).count();
        assert!(held <= budget + ROOTS, "{held} descriptors, {budget} allowed");
        assert_eq!(share.known_inodes(), 2 * DIRECTORIES);
    }
}

#[test]
fn what_cannot_be_kept_where_there_are_no_file_handles_is_not_left_behind() {
    if needs_root() {
        return;
    }
    host::in_private_mounts(|directory| {
        let below = directory.join("below");
        fs::create_dir(&below).unwrap();
        if !host::mount_ramfs(&below) || supports_handles(&below) {
            skipped("no file system without file handles can be mounted here");
            return;
        }
        // The directory itself and what it is mounted by; nothing in it has room.
        let share = Share::at(directory, |config| {
            config.inode_file_handles = InodeFileHandles::Prefer;
            config.descriptor_budget = 1;
        });
        let client = share.client();
        let below_node = client.lookup(ROOT, "below").unwrap().nodeid;
        assert_eq!(client.mkdir(below_node, "new", 0o755).unwrap_err(), Errno::ENFILE);
        assert_eq!(client.symlink(below_node, "new", "target").unwrap_err(), Errno::ENFILE);
        assert_eq!(client.mknod(below_node, "new", libc::S_IFIFO | 0o644, 0).unwrap_err(), Errno::ENFILE);
        assert_eq!(client.create(below_node, "new", libc::O_RDWR, 0o644).unwrap_err(), Errno::ENFILE);
        assert_eq!(names(&below), 0);
    });
}
