//! One object for each host object, counted exactly, whoever looks at it and however often.

use std::{
    collections::{HashMap, HashSet},
    fs,
    sync::Mutex,
};

use ferryfs::passthrough::config::{Config, InodeFileHandles};

use crate::support::{
    Client, Errno, ROOT, Share, Stop, directories, host, in_handle_mode, is_root, needs_root, skipped, supports_handles,
};

type Mode = (&'static str, fn(&mut Config));
/// Ways to hold inodes: all by descriptor, all by file handle.
const MODES: [Mode; 2] =
    [("descriptors", |config| config.inode_file_handles = InodeFileHandles::Never), ("handles", in_handle_mode)];

fn by_every_mode(test: impl Fn(&str, fn(&mut Config))) {
    for (mode, change) in MODES {
        if mode == "handles" && !is_root() && skipped("file handles need root") {
            continue;
        }
        test(mode, change);
    }
}

#[test]
fn hard_links_are_one_inode_and_each_lookup_of_either_counts() {
    by_every_mode(|mode, change| {
        let share = Share::with(change);
        fs::write(share.host("a"), "").unwrap();
        fs::hard_link(share.host("a"), share.host("b")).unwrap();
        let client = share.client();
        let node = client.lookup(ROOT, "a").unwrap().nodeid;
        for name in ["b", "a", "b", "b"] {
            assert_eq!(client.lookup(ROOT, name).unwrap().nodeid, node, "{mode}");
        }
        assert_eq!(client.link(node, ROOT, "c").unwrap().nodeid, node, "{mode}");
        client.forget(node, 5);
        assert_eq!(share.known_inodes(), 1, "{mode}");
        assert_eq!(client.getattr(node).unwrap().nlink, 3, "{mode}");
        client.forget(node, 1);
        assert_eq!((share.known_inodes(), share.held_descriptors()), (0, 0), "{mode}");
        assert_eq!(client.getattr(node).unwrap_err(), Errno::ESTALE, "{mode}");
    });
}

#[test]
fn every_way_to_make_an_object_counts_one_reference() {
    let share = Share::new();
    let client = share.client();
    let (file, open) = client.create(ROOT, "file", libc::O_RDWR, 0o644).unwrap();
    let (unnamed, unnamed_open) = client.tmpfile(ROOT, libc::O_RDWR, 0o644).unwrap();
    let nodes = [
        file.nodeid,
        unnamed.nodeid,
        client.mkdir(ROOT, "dir", 0o755).unwrap().nodeid,
        client.mknod(ROOT, "node", libc::S_IFREG | 0o644, 0).unwrap().nodeid,
        client.mknod(ROOT, "fifo", libc::S_IFIFO | 0o644, 0).unwrap().nodeid,
        client.symlink(ROOT, "symlink", "target").unwrap().nodeid,
    ];
    assert_eq!(nodes.iter().collect::<HashSet<_>>().len(), nodes.len());
    assert_eq!((share.known_inodes(), share.held_descriptors()), (6, 6));
    client.release(file.nodeid, open.fh).unwrap();
    client.release(unnamed.nodeid, unnamed_open.fh).unwrap();
    client.batch_forget(&nodes.map(|node| (node, 1)));
    assert_eq!((share.known_inodes(), share.held_descriptors()), (0, 0));
}

#[test]
fn a_guest_that_forgets_more_than_it_has_harms_nobody() {
    let share = Share::new();
    fs::write(share.host("a"), "").unwrap();
    let client = share.client();
    let node = client.lookup(ROOT, "a").unwrap().nodeid;
    client.forget(node, u64::MAX);
    client.forget(node, 1);
    client.forget(ROOT, u64::MAX);
    client.batch_forget(&[(node, 0), (u64::MAX, u64::MAX), (0, 1)]);
    assert_eq!(share.known_inodes(), 0);
    assert!(client.getattr(ROOT).is_ok());
    assert_ne!(client.lookup(ROOT, "a").unwrap().nodeid, node, "a number is never used again");
}

#[test]
fn an_inode_that_is_forgotten_while_it_is_open_serves_its_handle() {
    let share = Share::new();
    let client = share.client();
    let (entry, open) = client.create(ROOT, "a", libc::O_RDWR, 0o644).unwrap();
    client.forget(entry.nodeid, 1);
    assert_eq!(client.write(entry.nodeid, open.fh, 0, b"data").unwrap(), 4);
    assert_eq!(client.attributes(entry.nodeid, Some(open.fh)).unwrap().size, 4);
    client.release(entry.nodeid, open.fh).unwrap();
    assert_eq!((share.known_inodes(), share.held_descriptors()), (0, 0));
}

#[test]
fn counts_are_exact_when_many_threads_look_up_and_forget_the_same_names() {
    const NAMES: usize = 4;
    by_every_mode(|mode, change| {
        let share = Share::with(change);
        for name in 0..NAMES {
            fs::create_dir(share.host(&name.to_string())).unwrap();
            fs::write(share.host(&format!("{name}/f")), "").unwrap();
        }
        let seed = fastrand::u64(..);
        eprintln!("seed {seed}");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let client = share.client();
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed ^ thread);
                    let mut held: HashMap<u64, u64> = HashMap::new();
                    for _ in 0..1500 {
                        let dir = client.lookup(ROOT, &random.usize(..NAMES).to_string()).unwrap().nodeid;
                        *held.entry(dir).or_default() += 1;
                        // The directory is referenced by this very thread, so it must be there.
                        let file = client.lookup(dir, "f").unwrap().nodeid;
                        *held.entry(file).or_default() += 1;
                        if random.u8(..) < 100 {
                            let gone: Vec<_> = held.drain().collect();
                            for (node, _) in &gone {
                                client.getattr(*node).unwrap();
                            }
                            client.batch_forget(&gone);
                        }
                    }
                    client.batch_forget(&held.into_iter().collect::<Vec<_>>());
                });
            }
        });
        assert_eq!((share.known_inodes(), share.held_descriptors()), (0, 0), "{mode}");
    });
}

#[test]
fn an_object_that_many_threads_meet_at_once_is_one_inode() {
    by_every_mode(|mode, change| {
        let share = Share::with(change);
        fs::write(share.host("a"), "").unwrap();
        fs::hard_link(share.host("a"), share.host("b")).unwrap();
        for round in 0..200 {
            let barrier = std::sync::Barrier::new(3);
            let seen = Mutex::new(Vec::new());
            std::thread::scope(|scope| {
                for name in ["a", "b", "a"] {
                    let client = share.client();
                    let (barrier, seen) = (&barrier, &seen);
                    scope.spawn(move || {
                        barrier.wait();
                        let node = client.lookup(ROOT, name).unwrap().nodeid;
                        seen.lock().unwrap().push(node);
                    });
                }
            });
            let seen = seen.into_inner().unwrap();
            assert!(seen.iter().all(|node| *node == seen[0]), "{mode}, round {round}: {seen:?}");
            share.client().forget(seen[0], 3);
            assert_eq!(share.known_inodes(), 0);
        }
    });
}

/// Creates files until one has the inode number `wanted`.
fn reuse_number(share: &Share, wanted: u64) -> Option<String> {
    (0..500).find_map(|attempt| {
        let name = format!("new-{attempt}");
        fs::write(share.host(&name), "new").unwrap();
        if host::inode(&share.host(&name)) == wanted {
            return Some(name);
        }
        fs::remove_file(share.host(&name)).unwrap();
        None
    })
}

#[test]
fn an_old_inode_never_turns_into_a_new_file_that_got_its_number() {
    by_every_mode(|mode, change| {
        for directory in directories() {
            let what = format!("{mode}, {}", directory.path().display());
            if mode == "handles" && !supports_handles(directory.path()) && skipped("no file handles here") {
                continue;
            }
            let share = Share::of(directory, change);
            fs::write(share.host("old"), "old").unwrap();
            let client = share.client();
            let old = client.lookup(ROOT, "old").unwrap();
            fs::remove_file(share.host("old")).unwrap();
            let Some(name) = reuse_number(&share, old.attr.ino) else {
                // A descriptor pins the number, and tmpfs gives none twice.
                let expected = if mode == "handles" { Err(Errno::ESTALE) } else { Ok(0) };
                assert_eq!(client.getattr(old.nodeid).map(|attr| attr.nlink), expected, "{what}");
                continue;
            };
            assert_eq!(client.getattr(old.nodeid).unwrap_err(), Errno::ESTALE, "{what}");
            assert_eq!(client.open(old.nodeid, libc::O_RDONLY).unwrap_err(), Errno::ESTALE, "{what}");
            assert_eq!(client.link(old.nodeid, ROOT, "x").unwrap_err(), Errno::ESTALE, "{what}");
            let new = client.lookup(ROOT, &name).unwrap();
            assert_ne!(new.nodeid, old.nodeid, "{what}");
            assert_eq!(new.attr.ino, old.attr.ino, "{what}");
            assert_eq!(client.getattr(old.nodeid).unwrap_err(), Errno::ESTALE, "{what}");
            assert_eq!(client.getattr(new.nodeid).unwrap().size, 3, "{what}");
            // Both are counted apart: forgetting the old one leaves the new one.
            client.forget(old.nodeid, 1);
            assert_eq!(client.lookup(ROOT, &name).unwrap().nodeid, new.nodeid, "{what}");
            client.forget(new.nodeid, 2);
            assert_eq!(share.known_inodes(), 0, "{what}");
        }
    });
}

#[test]
fn the_same_name_made_anew_on_the_host_is_a_new_inode() {
    by_every_mode(|mode, change| {
        for directory in directories() {
            let share = Share::of(directory, change);
            let client = share.client();
            let mut seen = HashSet::new();
            for round in 0..50 {
                fs::write(share.host("name"), "").unwrap();
                let node = client.lookup(ROOT, "name").unwrap().nodeid;
                assert!(seen.insert(node), "{mode}, {}, round {round}", share.path().display());
                fs::remove_file(share.host("name")).unwrap();
            }
            assert_eq!(client.lookup(ROOT, "name").unwrap_err(), Errno::ENOENT);
            client.batch_forget(&seen.iter().map(|node| (*node, 1)).collect::<Vec<_>>());
            assert_eq!((share.known_inodes(), share.held_descriptors()), (0, 0));
        }
    });
}

#[test]
fn an_inode_follows_its_object_when_guest_or_host_moves_it() {
    by_every_mode(|mode, change| {
        let share = Share::with(change);
        fs::create_dir_all(share.host("dir/sub")).unwrap();
        fs::write(share.host("dir/sub/file"), "data").unwrap();
        let client = share.client();
        let dir = client.walk("dir").unwrap();
        let sub = client.lookup(dir, "sub").unwrap().nodeid;
        let file = client.lookup(sub, "file").unwrap().nodeid;
        client.rename((dir, "sub"), (ROOT, "moved")).unwrap();
        fs::rename(share.host("moved/file"), share.host("elsewhere")).unwrap();
        assert_eq!(client.lookup(ROOT, "moved").unwrap().nodeid, sub, "{mode}");
        assert_eq!(client.lookup(ROOT, "elsewhere").unwrap().nodeid, file, "{mode}");
        let handle = client.open(file, libc::O_RDONLY).unwrap().fh;
        assert_eq!(client.read(file, handle, 0, 9).unwrap(), b"data", "{mode}");
        assert_eq!(client.create(sub, "new", libc::O_RDWR, 0o600).map(drop), Ok(()), "{mode}");
        assert!(share.host("moved/new").exists(), "{mode}");
    });
}

#[test]
fn a_create_gives_the_file_it_opened_however_often_the_name_is_replaced() {
    let share = Share::new();
    let client = share.client();
    let (name, done) = (share.host("name"), Stop::default());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.is_asked() {
                fs::write(share.host("other"), "other").unwrap();
                let _ = fs::rename(share.host("other"), &name);
                let _ = fs::remove_file(&name);
            }
        });
        let _stop = done.at_the_end();
        for round in 0..2000 {
            let flags = if round % 2 == 0 { libc::O_EXCL } else { 0 };
            let (entry, open) = match client.create(ROOT, "name", libc::O_RDWR | flags, 0o600) {
                Ok(made) => made,
                Err(errno) => {
                    assert!(flags != 0 && errno == Errno::EEXIST, "round {round}: {errno}");
                    continue;
                }
            };
            let (node, handle) = (entry.nodeid, open.fh);
            let open = client.attributes(node, Some(handle)).unwrap();
            let named = client.getattr(node).unwrap();
            assert_eq!((open.ino, named.ino), (entry.attr.ino, entry.attr.ino), "round {round}");
            let data = client.read(node, handle, 0, 10).unwrap();
            assert!(data.is_empty() || flags == 0 && data == b"other", "round {round}: {data:?}");
            client.release(node, handle).unwrap();
            client.forget(node, 1);
        }
    });
    assert_eq!((share.known_inodes(), share.held_descriptors()), (0, 0));
}

#[test]
fn what_is_made_while_others_remove_it_is_never_reported_missing() {
    let share = Share::new();
    let (client, remover) = (share.client(), share.client());
    let done = Stop::default();
    type Make = (&'static str, fn(&Client) -> Result<u64, Errno>);
    let makes: [Make; 3] = [
        ("dir", |client| client.mkdir(ROOT, "dir", 0o700).map(|entry| entry.nodeid)),
        ("node", |client| client.mknod(ROOT, "node", libc::S_IFREG | 0o600, 0).map(|entry| entry.nodeid)),
        ("link", |client| client.symlink(ROOT, "link", "x").map(|entry| entry.nodeid)),
    ];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.is_asked() {
                let _ = remover.rmdir(ROOT, "dir");
                let _ = remover.unlink(ROOT, "node");
                let _ = remover.unlink(ROOT, "link");
            }
        });
        let _stop = done.at_the_end();
        for _ in 0..1500 {
            for (name, make) in makes {
                match make(&client) {
                    Ok(node) => client.forget(node, 1),
                    // ESTALE makes the client try again; ENOENT would reach a program that only made something.
                    Err(errno) => assert!([Errno::EEXIST, Errno::ESTALE].contains(&errno), "{name}: {errno}"),
                }
            }
        }
    });
    assert_eq!((share.known_inodes(), share.held_descriptors()), (0, 0));
}

#[test]
fn what_a_guest_has_goes_with_its_session_and_the_next_one_starts_afresh() {
    for explicitly in [true, false] {
        let share = Share::new();
        fs::create_dir(share.host("dir")).unwrap();
        let client = share.client();
        let dir = client.lookup(ROOT, "dir").unwrap().nodeid;
        let listing = client.opendir(dir).unwrap().fh;
        let (file, open) = client.create(dir, "file", libc::O_RDWR, 0o644).unwrap();
        client.write(file.nodeid, open.fh, 0, b"data").unwrap();
        if explicitly {
            client.destroy().unwrap()
        } else {
            share.server.end_session()
        }
        assert_eq!((share.known_inodes(), share.held_descriptors()), (0, 0));
        assert_eq!(open_descriptors_below(share.path()), 0, "only the root and /proc stay open");
        assert_eq!(client.getattr(ROOT).unwrap_err(), Errno::EIO, "nothing is served before INIT");
        client.init(crate::support::OFFER).unwrap();
        for errno in [
            client.getattr(dir).unwrap_err(),
            client.getattr(file.nodeid).unwrap_err(),
            client.lookup(dir, "file").unwrap_err(),
        ] {
            assert_eq!(errno, Errno::ESTALE);
        }
        assert_eq!(client.read(file.nodeid, open.fh, 0, 4).unwrap_err(), Errno::EBADF);
        assert_eq!(client.readdir(dir, listing, 0, 4096).unwrap_err(), Errno::EBADF);
        let again = client.walk("dir/file").unwrap();
        assert!(again != file.nodeid && again != dir);
        assert_eq!(client.getattr(again).unwrap().size, 4);
    }
}

#[test]
fn an_init_without_a_destroy_ends_the_session_before_it() {
    let share = Share::new();
    let client = share.client();
    let (file, open) = client.create(ROOT, "file", libc::O_RDWR, 0o644).unwrap();
    client.init(crate::support::OFFER).unwrap();
    assert_eq!((share.known_inodes(), share.held_descriptors()), (0, 0));
    assert_eq!(client.getattr(file.nodeid).unwrap_err(), Errno::ESTALE);
    assert_eq!(client.release(file.nodeid, open.fh).unwrap_err(), Errno::EBADF);
}

/// How many descriptors of this process lead to something beneath a directory.
fn open_descriptors_below(path: &std::path::Path) -> usize {
    let below = fs::canonicalize(path).unwrap();
    let open = fs::read_dir("/proc/self/fd").unwrap();
    let targets = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| target.starts_with(&below) && *target != below).count()
}

#[test]
fn objects_beneath_a_mount_are_told_apart_from_those_it_hides() {
    if needs_root() {
        return;
    }
    by_every_mode(|mode, change| {
        host::in_private_mounts(|directory| {
            let share = Share::at(directory, change);
            fs::create_dir_all(share.host("dir/hidden")).unwrap();
            let client = share.client();
            let hidden = client.lookup(ROOT, "dir").unwrap();
            host::mount_tmpfs(&share.host("dir"));
            fs::write(share.host("dir/file"), "12345").unwrap();
            let root = client.lookup(ROOT, "dir").unwrap();
            assert_ne!(root.nodeid, hidden.nodeid, "{mode}");
            assert_eq!(root.attr.flags, fuse_abi::AttrFlags::SUBMOUNT.bits(), "{mode}");
            assert_eq!(hidden.attr.flags, 0, "{mode}");
            let file = client.lookup(root.nodeid, "file").unwrap();
            assert_eq!((file.attr.flags, file.attr.size), (0, 5), "{mode}");
            assert_eq!(client.lookup(root.nodeid, "..").unwrap().nodeid, ROOT, "{mode}");
            assert_eq!(client.lookup(hidden.nodeid, "hidden").map(|_| ()), Ok(()), "{mode}");
            // Each is asked of its own file system.
            assert_eq!(client.statfs(root.nodeid).unwrap().blocks * 4096, 1 << 20, "{mode}");
            assert_ne!(client.statfs(ROOT).unwrap().blocks * 4096, 1 << 20, "{mode}");
            client.syncfs(root.nodeid).unwrap();
            let handle = client.open(file.nodeid, libc::O_RDWR).unwrap().fh;
            assert_eq!(client.write(file.nodeid, handle, 5, b"6").unwrap(), 1, "{mode}");
            client.release(file.nodeid, handle).unwrap();
            assert_eq!(client.link(file.nodeid, ROOT, "x").unwrap_err(), Errno::EXDEV, "{mode}");
            assert_eq!(client.rename((root.nodeid, "file"), (ROOT, "x")).unwrap_err(), Errno::EXDEV, "{mode}");
        });
    });
}

#[test]
fn a_directory_mounted_twice_is_two_objects() {
    if needs_root() {
        return;
    }
    by_every_mode(|mode, change| {
        host::in_private_mounts(|directory| {
            let share = Share::at(directory, change);
            for name in ["dir", "one", "two"] {
                fs::create_dir(share.host(name)).unwrap();
            }
            fs::write(share.host("dir/file"), "").unwrap();
            host::mount_bind(&share.host("dir"), &share.host("one"));
            host::mount_bind(&share.host("dir"), &share.host("two"));
            let client = share.client();
            let dirs: Vec<_> = ["dir", "one", "two"].map(|name| client.lookup(ROOT, name).unwrap()).into();
            let nodes: HashSet<_> = dirs.iter().map(|dir| dir.nodeid).collect();
            assert_eq!(nodes.len(), 3, "{mode}");
            assert_eq!(dirs.iter().map(|dir| dir.attr.ino).collect::<HashSet<_>>().len(), 1, "{mode}");
            let files: HashSet<_> = dirs.iter().map(|dir| client.lookup(dir.nodeid, "file").unwrap().nodeid).collect();
            assert_eq!(files.len(), 3, "{mode}");
            for dir in &dirs {
                assert_eq!(client.lookup(dir.nodeid, "..").unwrap().nodeid, ROOT, "{mode}");
            }
        });
    });
}

#[test]
fn submounts_are_announced_only_where_that_was_agreed_on() {
    if needs_root() {
        return;
    }
    host::in_private_mounts(|directory| {
        let share = Share::at(directory, |config| config.announce_submounts = false);
        fs::create_dir(share.host("dir")).unwrap();
        host::mount_tmpfs(&share.host("dir"));
        assert_eq!(share.client().lookup(ROOT, "dir").unwrap().attr.flags, 0);
    });
    host::in_private_mounts(|directory| {
        let share = Share::at_on_terms(directory, crate::support::OFFER - fuse_abi::InitFlags::SUBMOUNTS, |_| {});
        fs::create_dir(share.host("dir")).unwrap();
        host::mount_tmpfs(&share.host("dir"));
        assert_eq!(share.client().lookup(ROOT, "dir").unwrap().attr.flags, 0);
    });
}

#[test]
fn the_host_can_unmount_what_the_guest_has_forgotten() {
    if needs_root() {
        return;
    }
    by_every_mode(|mode, change| {
        host::in_private_mounts(|directory| {
            let share = Share::at(directory, change);
            fs::create_dir(share.host("dir")).unwrap();
            host::mount_tmpfs(&share.host("dir"));
            fs::create_dir(share.host("dir/sub")).unwrap();
            let client = share.client();
            let dir = client.lookup(ROOT, "dir").unwrap().nodeid;
            let sub = client.lookup(dir, "sub").unwrap().nodeid;
            let (entry, open) = client.create(sub, "file", libc::O_RDWR, 0o600).unwrap();
            client.release(entry.nodeid, open.fh).unwrap();
            client.forget(entry.nodeid, 1);
            client.batch_forget(&[(dir, 1), (sub, 1)]);
            assert_eq!(share.known_inodes(), 0, "{mode}");
            host::unmount(&share.host("dir")).unwrap_or_else(|error| panic!("{mode}: {error}"));
        });
    });
}

#[test]
fn a_mount_made_or_taken_away_shows_at_the_next_lookup() {
    if needs_root() {
        return;
    }
    host::in_private_mounts(|directory| {
        let share = Share::at(directory, |_| {});
        fs::create_dir(share.host("dir")).unwrap();
        let client = share.client();
        let below = client.lookup(ROOT, "dir").unwrap().nodeid;
        host::mount_tmpfs(&share.host("dir"));
        let above = client.lookup(ROOT, "dir").unwrap().nodeid;
        client.forget(above, 1);
        host::unmount(&share.host("dir")).unwrap();
        assert_eq!(client.lookup(ROOT, "dir").unwrap().nodeid, below);
    });
}
