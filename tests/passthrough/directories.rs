//! Listings: what was acknowledged shows, what is listed is referenced exactly once, and what vanished harms nobody.

use std::{collections::HashSet, fs, time::Duration};

use ferryfs::{coherence::policy::CacheMode, directory::StreamKind};
use fuse_abi::{EntryOut, OpenOutFlags, dirent_size, direntplus_size};

use crate::support::{Client, Entry, Errno, ROOT, Result, Share, Stop, disk_directory, memory_directory};

const STREAMS: [StreamKind; 2] = [StreamKind::Getdents, StreamKind::Snapshot];

/// A share of each kind of stream on each kind of file system.
fn by_every_stream(test: impl Fn(&str, Share)) {
    by_every_stream_in(CacheMode::default(), test);
}

fn by_every_stream_in(cache: CacheMode, test: impl Fn(&str, Share)) {
    for kind in STREAMS {
        for directory in [Some(disk_directory()), memory_directory()].into_iter().flatten() {
            let what = format!("{kind:?} on {}", directory.path().display());
            test(&what, Share::of(directory, |config| (config.dir_stream, config.cache) = (Some(kind), cache)));
        }
    }
}

type Change = (&'static str, fn(&Client, u64) -> Result<()>, &'static [&'static str]);

/// Each acknowledged change of a directory with `file` and `dir` in it, and the names that are there then.
const CHANGES: [Change; 15] = [
    ("create", |c, d| c.create(d, "new", libc::O_RDWR, 0o600).map(drop), &["dir", "file", "new"]),
    ("mknod", |c, d| c.mknod(d, "new", libc::S_IFREG | 0o600, 0).map(drop), &["dir", "file", "new"]),
    ("mkdir", |c, d| c.mkdir(d, "new", 0o700).map(drop), &["dir", "file", "new"]),
    ("symlink", |c, d| c.symlink(d, "new", "x").map(drop), &["dir", "file", "new"]),
    ("link", |c, d| c.link(c.lookup(d, "file")?.nodeid, d, "new").map(drop), &["dir", "file", "new"]),
    ("unlink", |c, d| c.unlink(d, "file"), &["dir"]),
    ("rmdir", |c, d| c.rmdir(d, "dir"), &["file"]),
    ("rename within", |c, d| c.rename((d, "file"), (d, "new")), &["dir", "new"]),
    (
        "rename over",
        |c, d| {
            c.mknod(d, "other", libc::S_IFREG | 0o600, 0)?;
            c.rename((d, "file"), (d, "other"))
        },
        &["dir", "other"],
    ),
    ("rename out", |c, d| c.rename((d, "file"), (ROOT, "out")), &["dir"]),
    (
        "rename in",
        |c, d| {
            c.mknod(ROOT, "outer", libc::S_IFREG | 0o600, 0)?;
            c.rename((ROOT, "outer"), (d, "new"))
        },
        &["dir", "file", "new"],
    ),
    ("rename without replacing", |c, d| c.rename2((d, "file"), (d, "new"), 1), &["dir", "new"]),
    (
        "exchange",
        |c, d| {
            c.mknod(d, "third", libc::S_IFREG | 0o600, 0)?;
            c.rename2((d, "file"), (d, "dir"), 2)
        },
        &["dir", "file", "third"],
    ),
    (
        "tmpfile and link",
        |c, d| {
            let (entry, _) = c.tmpfile(d, libc::O_RDWR, 0o600)?;
            c.link(entry.nodeid, d, "new").map(drop)
        },
        &["dir", "file", "new"],
    ),
    (
        "create, unlink and create",
        |c, d| {
            c.create(d, "new", libc::O_RDWR, 0o600)?;
            c.unlink(d, "new")?;
            c.create(d, "newer", libc::O_RDWR, 0o600).map(drop)
        },
        &["dir", "file", "newer"],
    ),
];

#[test]
fn a_rewound_handle_shows_each_kind_of_acknowledged_change() {
    by_every_stream(|stream, share| {
        for (what, change, expected) in CHANGES {
            fs::create_dir_all(share.host(what).join("dir")).unwrap();
            fs::write(share.host(what).join("file"), "").unwrap();
            let client = share.client();
            let node = client.lookup(ROOT, what).unwrap().nodeid;
            let (idle, used) = (client.opendir(node).unwrap().fh, client.opendir(node).unwrap().fh);
            assert_eq!(client.names(node, used).unwrap(), ["dir", "file"], "{stream}, {what}");
            change(&client, node).unwrap_or_else(|errno| panic!("{stream}, {what}: {errno}"));
            for handle in [used, idle, client.opendir(node).unwrap().fh] {
                assert_eq!(client.names(node, handle).unwrap(), expected, "{stream}, {what}");
            }
            for name in ["out", "outer"] {
                let _ = fs::remove_file(share.host(name));
            }
        }
    });
}

#[test]
fn a_rewound_handle_shows_what_another_queue_was_told_is_done() {
    by_every_stream(|stream, share| {
        fs::create_dir(share.host("dir")).unwrap();
        let (reader, writer) = (share.client(), share.client());
        let node = reader.walk("dir").unwrap();
        let handle = reader.opendir(node).unwrap().fh;
        for round in 0..200 {
            let name = format!("n{round}");
            writer.mknod(node, &name, libc::S_IFREG | 0o600, 0).unwrap();
            assert!(reader.names(node, handle).unwrap().contains(&name), "{stream}, {round}");
            writer.unlink(node, &name).unwrap();
            assert!(!reader.names(node, handle).unwrap().contains(&name), "{stream}, {round}");
        }
    });
}

#[test]
fn a_removed_directory_is_missing_to_those_who_have_it_open() {
    by_every_stream(|stream, share| {
        for by_guest in [true, false] {
            fs::create_dir(share.host("dir")).unwrap();
            let client = share.client();
            let node = client.walk("dir").unwrap();
            let (read, unread) = (client.opendir(node).unwrap().fh, client.opendir(node).unwrap().fh);
            client.names(node, read).unwrap();
            if by_guest {
                client.rmdir(ROOT, "dir").unwrap()
            } else {
                fs::remove_dir(share.host("dir")).unwrap()
            }
            for handle in [read, unread] {
                assert_eq!(client.readdir(node, handle, 0, 4096).unwrap_err(), Errno::ENOENT, "{stream}, {by_guest}");
            }
            assert_eq!(client.create(node, "x", libc::O_RDWR, 0o600).unwrap_err(), Errno::ENOENT, "{stream}");
            assert_eq!(client.mkdir(node, "x", 0o700).unwrap_err(), Errno::ENOENT, "{stream}");
            assert_eq!(client.getattr(node).unwrap().mode & libc::S_IFMT, libc::S_IFDIR, "{stream}");
            client.releasedir(node, read).unwrap();
            client.releasedir(node, unread).unwrap();
        }
    });
}

/// Reads a whole directory with lookups, in replies of `size` bytes, and gives back what came.
fn scan_plus(client: &Client, node: u64, handle: u64, size: u32) -> Vec<(EntryOut, Entry)> {
    let (mut all, mut offset) = (Vec::new(), 0);
    loop {
        let page = client.readdirplus(node, handle, offset, size).unwrap();
        let Some((_, last)) = page.last() else { return all };
        offset = last.next;
        all.extend(page);
    }
}

#[test]
fn a_listing_with_lookups_hands_out_exactly_the_references_it_shows() {
    by_every_stream(|stream, share| {
        for number in 0..120 {
            fs::write(share.host(&format!("file-{number}")), vec![b'x'; number]).unwrap();
        }
        fs::create_dir(share.host("dir")).unwrap();
        let client = share.client();
        let handle = client.opendir(ROOT).unwrap().fh;
        // From replies with room for one entry to one with room for all; full replies must not leak a lookup.
        for size in [200, 333, 1000, 4096, 65_536] {
            let all = scan_plus(&client, ROOT, handle, size);
            let names: HashSet<_> = all.iter().map(|(_, entry)| &entry.name).collect();
            assert_eq!((names.len(), all.len()), (123, 123), "{stream}, {size}");
            for (node, entry) in &all {
                if entry.name == "." || entry.name == ".." {
                    assert_eq!(node.nodeid, 0, "{stream}: dots carry no reference");
                } else {
                    let found = client.lookup(ROOT, &entry.name).unwrap();
                    assert_eq!((node.nodeid, node.attr), (found.nodeid, found.attr), "{stream}, {}", entry.name);
                    assert_eq!((entry.ino, entry.kind), (node.attr.ino, node.attr.mode >> 12), "{stream}");
                    client.forget(found.nodeid, 1);
                }
            }
            let given: Vec<_> =
                all.iter().filter(|(node, _)| node.nodeid != 0).map(|(node, _)| (node.nodeid, 1)).collect();
            client.batch_forget(&given);
            assert_eq!((share.known_inodes(), share.held_descriptors()), (0, 0), "{stream}, {size}");
        }
    });
}

#[test]
fn a_reply_is_filled_to_the_last_entry_that_fits_and_no_further() {
    by_every_stream(|stream, share| {
        for number in 100..140 {
            fs::write(share.host(&number.to_string()), "").unwrap();
        }
        let client = share.client();
        let handle = client.opendir(ROOT).unwrap().fh;
        let plain = |name: &str| dirent_size(name.len()).unwrap();
        let plus = |name: &str| direntplus_size(name.len()).unwrap();
        for size in [600, 1024, 1025, 1031, 1032] {
            let page = client.readdir(ROOT, handle, 0, size).unwrap();
            let used: usize = page.iter().map(|entry| plain(&entry.name)).sum();
            assert!(used <= size as usize && used + plain("100") > size as usize, "{stream}: {used} of {size}");
            let page = client.readdirplus(ROOT, handle, 0, size).unwrap();
            let used: usize = page.iter().map(|(_, entry)| plus(&entry.name)).sum();
            assert!(used <= size as usize && used + plus("100") > size as usize, "{stream}: {used} of {size}");
            let given: Vec<_> = page.iter().map(|(node, _)| (node.nodeid, 1)).filter(|(node, _)| *node != 0).collect();
            client.batch_forget(&given);
            assert_eq!(share.known_inodes(), 0, "{stream}");
        }
    });
}

#[test]
fn children_that_vanish_during_a_listing_are_left_out_or_come_without_a_reference() {
    by_every_stream(|stream, share| {
        fs::create_dir(share.host("dir")).unwrap();
        for number in 0..60 {
            fs::write(share.host(&format!("dir/{number}")), "").unwrap();
        }
        fs::write(share.host("dir/stays"), "").unwrap();
        let client = share.client();
        let node = client.walk("dir").unwrap();
        let handle = client.opendir(node).unwrap().fh;
        // Read ahead or not, the first reply knows names of which nothing is left afterwards.
        let first = client.readdirplus(node, handle, 0, 400).unwrap();
        for number in 0..60 {
            fs::remove_file(share.host(&format!("dir/{number}"))).unwrap();
        }
        let mut all = first.clone();
        let mut offset = first.last().unwrap().1.next;
        loop {
            let page = client.readdirplus(node, handle, offset, 400).unwrap();
            let Some((_, last)) = page.last() else { break };
            offset = last.next;
            for (node, entry) in &page {
                assert!(node.nodeid == 0 || entry.name == "stays", "{stream}: {}", entry.name);
            }
            all.extend(page);
        }
        assert!(all.iter().any(|(node, entry)| entry.name == "stays" && node.nodeid != 0), "{stream}");
        let given: Vec<_> = all.iter().map(|(node, _)| (node.nodeid, 1)).filter(|(node, _)| *node != 0).collect();
        client.batch_forget(&given);
        assert_eq!(share.known_inodes(), 1, "{stream}: the directory");
    });
}

#[test]
fn a_listing_with_lookups_in_a_race_with_removal_never_fails_and_never_leaks() {
    for kind in STREAMS {
        let share = Share::in_memory(|config| config.dir_stream = Some(kind));
        for number in 0..20 {
            fs::write(share.host(&format!("stays-{number}")), "").unwrap();
        }
        let (client, stop) = (share.client(), Stop::default());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut number = 0_u64;
                while !stop.is_asked() {
                    let (new, old) = (number % 50, (number + 25) % 50);
                    let _ = fs::write(share.host(&format!("comes-and-goes-{new}")), "");
                    let _ = fs::remove_file(share.host(&format!("comes-and-goes-{old}")));
                    number += 1;
                }
            });
            let _stop = stop.at_the_end();
            for round in 0..150 {
                let handle = client.opendir(ROOT).unwrap().fh;
                let all = scan_plus(&client, ROOT, handle, 700);
                let stays = all.iter().filter(|(_, entry)| entry.name.starts_with("stays")).count();
                assert_eq!(stays, 20, "{kind:?}, round {round}");
                let given: Vec<_> =
                    all.iter().map(|(node, _)| (node.nodeid, 1)).filter(|(node, _)| *node != 0).collect();
                client.batch_forget(&given);
                client.releasedir(ROOT, handle).unwrap();
            }
        });
        assert_eq!((share.known_inodes(), share.held_descriptors()), (0, 0), "{kind:?}");
    }
}

#[test]
fn a_directory_serves_fsync_and_refuses_what_is_for_files() {
    let share = Share::new();
    let client = share.client();
    let dir = client.mkdir(ROOT, "dir", 0o755).unwrap().nodeid;
    let handle = client.opendir(dir).unwrap().fh;
    client.fsyncdir(dir, handle).unwrap();
    assert_eq!(client.open(dir, libc::O_RDONLY).unwrap_err(), Errno::EISDIR);
    assert_eq!(client.create(ROOT, "dir", libc::O_RDWR, 0o600).unwrap_err(), Errno::EISDIR);
    assert_eq!(client.read(dir, handle, 0, 1).unwrap_err(), Errno::EBADF);
    assert_eq!(client.unlink(ROOT, "dir").unwrap_err(), Errno::EISDIR);
    assert_eq!(client.readlink(dir).unwrap_err(), Errno::EINVAL);
    assert!([Errno::EPERM, Errno::EISDIR].contains(&client.link(dir, ROOT, "x").unwrap_err()));
    client.create(dir, "file", libc::O_RDWR, 0o600).unwrap();
    assert_eq!(client.rmdir(ROOT, "dir").unwrap_err(), Errno::ENOTEMPTY);
    assert_eq!(client.rmdir(dir, "file").unwrap_err(), Errno::ENOTDIR);
}

#[test]
fn a_coherent_guest_keeps_the_listing_of_a_directory_from_the_first_time_it_was_read() {
    by_every_stream_in(CacheMode::Coherent, |stream, share| {
        fs::create_dir(share.host("dir")).unwrap();
        fs::write(share.host("dir/file"), "").unwrap();
        settle(&share.host("dir"));
        let client = share.client();
        let node = client.walk("dir").unwrap();
        // Whether the guest may keep what it has, and what it would read otherwise.
        let list = || {
            let open = client.opendir(node).unwrap();
            let names = client.names(node, open.fh).unwrap();
            client.releasedir(node, open.fh).unwrap();
            (open.open_flags & OpenOutFlags::KEEP_CACHE.bits() != 0, names)
        };
        let one = vec!["file".to_owned()];
        assert_eq!([(); 3].map(|()| list()), [(false, one.clone()), (true, one.clone()), (true, one)], "{stream}");
        fs::write(share.host("dir/more"), "").unwrap();
        settle(&share.host("dir"));
        let two = vec!["file".to_owned(), "more".to_owned()];
        assert_eq!([(); 2].map(|()| list()), [(false, two.clone()), (true, two)], "{stream}: the host changed it");
        client.mknod(node, "own", libc::S_IFREG | 0o600, 0).unwrap();
        settle(&share.host("dir"));
        assert_eq!([(); 2].map(|()| list().0), [false, true], "{stream}: the guest changed it");
    });
}

/// Waits until the time of the last change proves something.
fn settle(path: &std::path::Path) {
    let changed = fs::metadata(path).unwrap().modified().unwrap();
    while changed.elapsed().is_ok_and(|age| age < Duration::from_millis(50)) || changed.elapsed().is_err() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_coherent_guest_that_asks_for_each_entry_by_itself_is_given_the_listing_anew() {
    by_every_stream_in(CacheMode::Coherent, |stream, share| {
        fs::create_dir(share.host("dir")).unwrap();
        (0..10).for_each(|n| fs::write(share.host(&format!("dir/{n}")), "").unwrap());
        settle(&share.host("dir"));
        let client = share.client();
        let dir = client.walk("dir").unwrap();
        // Whether the guest keeps what it has; if not it lists again.
        let list = || {
            let open = client.opendir(dir).unwrap();
            let keeps = open.open_flags & OpenOutFlags::KEEP_CACHE.bits() != 0;
            if !keeps {
                client.readdirplus(dir, open.fh, 0, 1 << 16).unwrap();
            }
            client.releasedir(dir, open.fh).unwrap();
            keeps
        };
        let open_all = || {
            for n in 0..10 {
                let node = client.lookup(dir, &n.to_string()).unwrap().nodeid;
                let open = client.open(node, libc::O_RDONLY).unwrap();
                client.release(node, open.fh).unwrap();
            }
        };
        assert_eq!([(); 2].map(|()| list()), [false, true], "{stream}: nothing was asked");
        open_all();
        assert!(!list(), "{stream}: a client that has read them asks for their attributes next");
        assert!(list(), "{stream}: and has them now");
    });
}
