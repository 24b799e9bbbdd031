//! FIFOs, sockets and device nodes of the host: shown, never opened.

use std::{fs, os::unix::net::UnixListener};

use crate::support::{Errno, ROOT, Share, Stop, host, is_root, skipped};

/// A share with one object of each kind that must not be opened, and their names.
fn share() -> (Share, Vec<&'static str>) {
    let share = Share::with(|config| config.xattr = true);
    host::fifo(&share.host("fifo")).unwrap();
    drop(UnixListener::bind(share.host("socket")).unwrap());
    let mut names = vec!["fifo", "socket"];
    // /dev/null and a block device that does not exist.
    for (name, kind, major, minor) in [("null", libc::S_IFCHR, 1, 3), ("block", libc::S_IFBLK, 250, 7)] {
        match host::device(&share.host(name), kind | 0o666, major, minor) {
            Ok(()) => names.push(name),
            Err(error) => {
                skipped(&format!("no {name} device: {error}"));
            }
        }
    }
    (share, names)
}

#[test]
fn opening_one_fails_at_once_in_every_mode() {
    let (share, names) = share();
    let client = share.client();
    for name in names {
        let node = client.lookup(ROOT, name).unwrap().nodeid;
        for flags in [libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR, libc::O_RDWR | libc::O_TRUNC, libc::O_NONBLOCK] {
            assert_eq!(client.open(node, flags).unwrap_err(), Errno::ENXIO, "{name} {flags:o}");
        }
        assert_eq!(client.opendir(node).unwrap_err(), Errno::ENOTDIR, "{name}");
        assert_eq!(client.truncate(node, None, 0, false).unwrap_err(), Errno::EINVAL, "{name}");
        assert_eq!(client.syncfs(node).unwrap_err(), Errno::ENXIO, "{name}");
    }
}

#[test]
fn creating_a_file_where_one_lies_fails_with_and_without_o_excl() {
    let (share, names) = share();
    let client = share.client();
    for name in names {
        for (flags, expected) in [
            (libc::O_RDWR, Errno::ENXIO),
            (libc::O_RDONLY, Errno::ENXIO),
            (libc::O_WRONLY | libc::O_TRUNC, Errno::ENXIO),
            (libc::O_RDWR | libc::O_EXCL, Errno::EEXIST),
        ] {
            assert_eq!(client.create(ROOT, name, flags, 0o644).unwrap_err(), expected, "{name} {flags:o}");
        }
    }
    assert_eq!(share.known_inodes(), 0, "a create that failed leaves no reference");
}

#[test]
fn a_fifo_with_a_reader_is_not_reached_either() {
    let (share, _) = share();
    // Opened for both: a reader that does not wait for a writer.
    let reader = fs::File::options().read(true).write(true).open(share.host("fifo")).unwrap();
    let client = share.client();
    let node = client.lookup(ROOT, "fifo").unwrap().nodeid;
    assert_eq!(client.open(node, libc::O_WRONLY | libc::O_NONBLOCK).unwrap_err(), Errno::ENXIO);
    assert_eq!(client.create(ROOT, "fifo", libc::O_WRONLY, 0o600).unwrap_err(), Errno::ENXIO);
    drop(reader);
}

#[test]
fn what_does_not_open_them_works() {
    let (share, names) = share();
    let client = share.client();
    for name in names {
        let node = client.lookup(ROOT, name).unwrap().nodeid;
        let before = client.getattr(node).unwrap();
        assert_eq!(client.chmod(node, 0o640).unwrap().mode, before.mode & libc::S_IFMT | 0o640);
        assert_eq!(host::mode(&share.host(name)), 0o640);
        if is_root() {
            assert_eq!(client.chown(node, Some(7), Some(8)).unwrap().gid, 8);
        }
        assert_eq!(client.link(node, ROOT, "more").unwrap().nodeid, node);
        client.rename((ROOT, "more"), (ROOT, "moved")).unwrap();
        client.unlink(ROOT, "moved").unwrap();
        assert_eq!(client.getattr(node).unwrap().nlink, 1);
        assert_eq!(client.statfs(node).unwrap().namelen, 255);
        assert!(client.listxattr(node).unwrap().iter().all(|name| name.starts_with("security.")));
    }
}

#[test]
fn a_guest_makes_them_with_their_type_and_number() {
    let share = Share::new();
    let client = share.client();
    type Made = (&'static str, u32, u32, u32);
    let made: [Made; 4] = [
        ("fifo", libc::S_IFIFO, 0, 0),
        ("socket", libc::S_IFSOCK, 0, 0),
        // 1:3, and the largest numbers that FUSE carries: 12 bits and 20 bits.
        ("null", libc::S_IFCHR, 0x103, 0x103),
        ("big", libc::S_IFBLK, 0xffff_ffff, 0xffff_ffff),
    ];
    for (name, kind, rdev, shown) in made {
        match client.mknod(ROOT, name, kind | 0o604, rdev) {
            Ok(entry) => {
                assert_eq!((entry.attr.mode, entry.attr.rdev), (kind | 0o604, shown), "{name}");
                let more = client.statx(entry.nodeid).unwrap();
                assert_eq!(
                    (more.rdev_major, more.rdev_minor),
                    ((rdev >> 8) & 0xfff, rdev & 0xff | rdev >> 12 & 0xfff00)
                );
            }
            Err(errno) => {
                skipped(&format!("{name}: {errno}"));
            }
        }
    }
}

#[test]
fn a_file_swapped_for_a_fifo_between_lookup_and_open_is_still_the_file() {
    let share = Share::new();
    fs::write(share.host("file"), "data").unwrap();
    let client = share.client();
    let node = client.lookup(ROOT, "file").unwrap().nodeid;
    fs::remove_file(share.host("file")).unwrap();
    host::fifo(&share.host("file")).unwrap();
    let handle = client.open(node, libc::O_RDONLY).unwrap().fh;
    assert_eq!(client.read(node, handle, 0, 10).unwrap(), b"data");
    assert_ne!(client.lookup(ROOT, "file").unwrap().nodeid, node);
}

#[test]
fn a_create_that_meets_a_fifo_in_a_race_never_hangs() {
    let share = Share::new();
    let client = share.client();
    let path = share.host("name");
    let (mut made, mut refused) = (0, 0);
    let stop = Stop::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.is_asked() {
                // Either call may find that the other side was faster.
                let _ = host::fifo(&path);
                let _ = fs::remove_file(&path);
            }
        });
        let _stop = stop.at_the_end();
        // Until there was a race often enough, whoever the scheduler favours.
        while made < 200 || refused < 200 {
            match client.create(ROOT, "name", libc::O_WRONLY, 0o600) {
                Ok((entry, open)) => {
                    assert_eq!(entry.attr.mode & libc::S_IFMT, libc::S_IFREG);
                    client.release(entry.nodeid, open.fh).unwrap();
                    client.forget(entry.nodeid, 1);
                    made += 1;
                }
                Err(errno) => {
                    assert_eq!(errno, Errno::ENXIO, "the name is there or it is made");
                    refused += 1;
                }
            }
        }
    });
    assert_eq!(share.known_inodes(), 0);
}
