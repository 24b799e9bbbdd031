//! A guest that opens nothing (`--no-open`): requests come with handle 0, and mean what they would mean with a handle.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    os::unix::fs::MetadataExt,
};

use ferryfs::{directory::StreamKind, passthrough::config::Config};
use fuse_abi::{CopyFileRangeIn, OpenOutFlags, SetattrIn, SetattrValid, WriteFlags};

use crate::support::{
    Client, Errno, InitFlags, OFFER, ROOT, Share, directories, host, in_handle_mode, is_root, needs_root, skipped,
    supports_handles, unasked,
};

/// The handle of whoever has none.
const NONE: u64 = 0;

/// Descriptors of this process that lead into the share, but for the server's own of the root.
fn descriptors(share: &Share) -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    links.filter(|target| target.starts_with(share.path()) && target != share.path()).count()
}

fn file_of(client: &Client, share: &Share, name: &str, content: &[u8]) -> u64 {
    fs::write(share.host(name), content).unwrap();
    client.lookup(ROOT, name).unwrap().nodeid
}

#[test]
fn opens_are_enosys_for_a_guest_that_can_do_without_and_for_no_other() {
    for (offer, file, directory) in [
        (OFFER, true, true),
        (OFFER - InitFlags::NO_OPEN_SUPPORT, false, true),
        (OFFER - InitFlags::NO_OPENDIR_SUPPORT, true, false),
        (OFFER - InitFlags::NO_OPEN_SUPPORT - InitFlags::NO_OPENDIR_SUPPORT, false, false),
    ] {
        let share = Share::on_terms(offer, unasked);
        let client = share.client();
        let node = file_of(&client, &share, "file", b"data");
        let opened = client.open(node, libc::O_RDWR);
        assert_eq!(opened.as_ref().err(), file.then_some(&Errno::ENOSYS), "{offer:?}");
        let handle = opened.map_or(NONE, |open| open.fh);
        assert_eq!(client.read(node, handle, 0, 9).unwrap(), b"data");
        client.release(node, handle).unwrap();
        let opened = client.opendir(ROOT);
        assert_eq!(opened.as_ref().err(), directory.then_some(&Errno::ENOSYS), "{offer:?}");
        let handle = opened.map_or(NONE, |open| open.fh);
        assert_eq!(client.names(ROOT, handle).unwrap(), ["file"]);
        client.releasedir(ROOT, handle).unwrap();
    }
}

#[test]
fn o_trunc_is_left_to_the_guest_and_without_no_open_nothing_changes() {
    for (no_open, granted) in [(true, false), (false, true)] {
        let share = Share::with(|config| {
            unasked(config);
            config.no_open = no_open;
        });
        share.client().init(OFFER).unwrap();
        let flags = share.server.agreement().unwrap().flags;
        assert_eq!(flags.contains(InitFlags::ATOMIC_O_TRUNC), granted);
        assert_eq!(flags.contains(InitFlags::NO_OPEN_SUPPORT | InitFlags::NO_OPENDIR_SUPPORT), no_open);
    }
}

#[test]
fn every_request_on_a_file_is_served_without_a_handle() {
    for directory in directories() {
        let share = Share::of(directory, unasked);
        let client = share.client();
        let (node, other) = (file_of(&client, &share, "file", b"data"), file_of(&client, &share, "other", b""));
        assert_eq!(client.read(node, NONE, 0, 9).unwrap(), b"data");
        assert_eq!(client.write(node, NONE, 4, b"more").unwrap(), 4);
        assert_eq!(client.read(node, NONE, 2, 9).unwrap(), b"tamore");
        assert_eq!(client.attributes(node, Some(NONE)).unwrap().size, 8);
        assert_eq!(client.truncate(node, Some(NONE), 6, false).unwrap().size, 6);
        assert_eq!(client.truncate(node, None, 5, false).unwrap().size, 5);
        client.fsync(node, NONE).unwrap();
        client.fallocate(node, NONE, 0, 0, 4096).unwrap();
        assert_eq!(client.lseek(node, NONE, 0, libc::SEEK_DATA).unwrap(), 0);
        let range = CopyFileRangeIn { nodeid_out: other, len: 5, ..CopyFileRangeIn::default() };
        assert_eq!(client.copy(range, node).unwrap(), 5);
        assert_eq!(fs::read(share.host("other")).unwrap(), b"datam");
        // FS_IOC_GETFLAGS, which not every file system has.
        let flags = client.ioctl(node, NONE, 0x8008_6601, &[], 4);
        assert!(matches!(flags, Ok(_) | Err(Errno::ENOTTY)), "{flags:?}");
        assert_eq!(client.flush(node, NONE), Err(Errno::ENOSYS), "so that it is not asked again");
        client.fsyncdir(ROOT, NONE).unwrap();
        let set = SetattrIn { mode: 0o600, ..SetattrIn::default() };
        client.setattr(node, SetattrValid::MODE | SetattrValid::FH, set).unwrap();
        client.release(node, NONE).unwrap();
        assert_eq!(client.read(node, NONE, 0, 4).unwrap(), b"data", "no release says that it is the last");
        client.batch_forget(&[(node, 1), (other, 1)]);
        assert_eq!((share.known_inodes(), share.held_descriptors(), descriptors(&share)), (0, 0, 0));
    }
}

#[test]
fn what_is_created_is_used_without_a_handle_and_released_by_nobody() {
    let share = Share::with(unasked);
    let client = share.client();
    for (name, flags) in [("both", libc::O_RDWR), ("write", libc::O_WRONLY), ("read", libc::O_RDONLY)] {
        let (entry, open) = client.create(ROOT, name, flags, 0o644).unwrap();
        assert_eq!((open.fh, open.open_flags), (NONE, OpenOutFlags::KEEP_CACHE.bits()));
        // Others may open the file otherwise than its creator did.
        assert_eq!(client.write(entry.nodeid, NONE, 0, b"data").unwrap(), 4, "{name}");
        assert_eq!(client.read(entry.nodeid, NONE, 0, 9).unwrap(), b"data", "{name}");
        client.forget(entry.nodeid, 1);
    }
    let (entry, open) = client.tmpfile(ROOT, libc::O_RDWR, 0o644).unwrap();
    assert_eq!(open.fh, NONE);
    client.write(entry.nodeid, NONE, 0, b"data").unwrap();
    client.link(entry.nodeid, ROOT, "linked").unwrap();
    assert_eq!(fs::read(share.host("linked")).unwrap(), b"data");
    client.forget(entry.nodeid, 2);
    assert_eq!((share.known_inodes(), share.held_descriptors(), descriptors(&share)), (0, 0, 0));
}

#[test]
fn an_appending_write_goes_to_the_end_and_any_other_where_it_says() {
    for writeback in [false, true] {
        let share = Share::with(|config| {
            unasked(config);
            config.writeback = writeback;
        });
        let client = share.client();
        let (entry, _) = client.create(ROOT, "log", libc::O_WRONLY | libc::O_APPEND, 0o644).unwrap();
        let node = entry.nodeid;
        client.write_opened(node, libc::O_WRONLY | libc::O_APPEND, 0, b"one").unwrap();
        client.write_opened(node, libc::O_WRONLY | libc::O_APPEND, if writeback { 3 } else { 0 }, b"two").unwrap();
        client.write_opened(node, libc::O_WRONLY, 0, b"O").unwrap();
        assert_eq!(client.write_with(node, NONE, 3, b"T", WriteFlags::CACHE).unwrap(), 1);
        assert_eq!(fs::read(share.host("log")).unwrap(), b"OneTwo", "writeback: {writeback}");
    }
}

#[test]
fn a_file_without_a_name_lives_on_as_long_as_the_guest_knows_it() {
    for directory in directories() {
        let handles = supports_handles(directory.path()) && is_root();
        for by_handle in [false, true] {
            if by_handle && !handles && skipped("no file handles here") {
                continue;
            }
            let share = Share::at(directory.path(), |config| {
                unasked(config);
                // Room for one file, so that none stays open by chance.
                config.handle_budget = 2;
                if by_handle {
                    in_handle_mode(config);
                }
            });
            let client = share.client();
            for replaced in [false, true] {
                let (node, other) =
                    (file_of(&client, &share, "file", b"data"), file_of(&client, &share, "other", b"x"));
                if replaced {
                    client.rename((ROOT, "other"), (ROOT, "file")).unwrap();
                } else {
                    client.unlink(ROOT, "file").unwrap();
                }
                let what = format!("{}, by handle: {by_handle}, replaced: {replaced}", directory.path().display());
                for _ in 0..3 {
                    assert_eq!(client.read(other, NONE, 0, 9).unwrap(), b"x", "{what}");
                    assert_eq!(client.read(node, NONE, 0, 9).unwrap(), b"data", "{what}");
                    assert_eq!(client.write(node, NONE, 0, b"data").unwrap(), 4, "{what}");
                }
                assert_eq!(client.attributes(node, Some(NONE)).unwrap().nlink, 0, "{what}");
                client.batch_forget(&[(node, 1), (other, 1)]);
                assert_eq!((share.known_inodes(), share.held_descriptors(), descriptors(&share)), (0, 0, 0), "{what}");
            }
        }
    }
}

#[test]
fn a_file_that_another_user_owns_is_read_and_written_as_the_guest_has_allowed() {
    if needs_root() {
        return;
    }
    let share = Share::with(unasked);
    let node = file_of(&share.client(), &share, "file", b"data");
    // The guest has checked: an open before a chmod, a group that the request does not tell.
    host::chmod(&share.host("file"), 0o000);
    for (uid, gid) in [(0, 0), (1000, 1000), (2000, 2000)] {
        let client = share.client().as_user(uid, gid);
        assert_eq!(client.read(node, NONE, 0, 9).unwrap(), b"data", "{uid}");
        assert_eq!(client.write(node, NONE, 0, b"d").unwrap(), 1, "{uid}");
        assert_eq!(client.truncate(node, None, 4, false).unwrap().size, 4, "{uid}");
    }
    let found = fs::metadata(share.host("file")).unwrap();
    assert_eq!((found.uid(), found.mode() & 0o777), (0, 0));
}

#[test]
fn a_server_that_is_allowed_only_half_does_that_half() {
    if needs_root() {
        return;
    }
    let share = Share::with(unasked);
    host::chown(share.path(), 1000, 1000);
    for (mode, reads, writes) in [(0o200, false, true), (0o400, true, false), (0o600, true, true)] {
        let name = format!("{mode:o}");
        fs::write(share.host(&name), b"data").unwrap();
        host::chown(&share.host(&name), 1000, 1000);
        host::chmod(&share.host(&name), mode);
        let path = share.path().to_owned();
        host::as_user(1000, 1000, &[], move || {
            let share = Share::at(&path, unasked);
            let client = Client::here(&share.server).as_user(1000, 1000);
            let node = client.lookup(ROOT, &name).unwrap().nodeid;
            assert_eq!(client.write(node, NONE, 0, b"DATA").is_ok(), writes, "{name}");
            assert_eq!(client.read(node, NONE, 0, 9).is_ok(), reads, "{name}");
        });
    }
}

#[test]
fn no_request_opens_what_is_no_file() {
    let share = Share::with(unasked);
    let client = share.client();
    host::fifo(&share.host("fifo")).unwrap();
    std::os::unix::fs::symlink("x", share.host("link")).unwrap();
    fs::create_dir(share.host("dir")).unwrap();
    for (name, errno) in [("fifo", Errno::ENXIO), ("link", Errno::ELOOP), ("dir", Errno::EISDIR)] {
        let node = client.lookup(ROOT, name).unwrap().nodeid;
        assert_eq!(client.read(node, NONE, 0, 9), Err(errno), "{name}");
        assert_eq!(client.write(node, NONE, 0, b"x"), Err(errno), "{name}");
        assert_eq!(client.fallocate(node, NONE, 0, 0, 1), Err(errno), "{name}");
        if name != "dir" {
            assert_eq!(client.readdir(node, NONE, 0, 4096), Err(Errno::ENOTDIR), "{name}");
        }
    }
    assert_eq!(client.read(u64::MAX, NONE, 0, 9), Err(Errno::ESTALE));
    assert_eq!(client.readdir(u64::MAX, NONE, 0, 4096), Err(Errno::ESTALE));
    assert_eq!(client.read(ROOT, 7, 0, 9), Err(Errno::EISDIR), "a handle means nothing");
}

fn few(budget: usize) -> impl Fn(&mut Config) {
    move |config| {
        unasked(config);
        config.handle_budget = budget;
    }
}

#[test]
fn descriptors_stay_within_the_budget_however_many_files_are_read_at_once() {
    const BUDGET: usize = 40;
    let share = Share::in_memory(|config| {
        few(BUDGET)(config);
        // None for inodes where file handles can stand for them.
        config.descriptor_budget = 2000;
    });
    for dir in 0..20 {
        fs::create_dir(share.host(&format!("{dir}"))).unwrap();
        (0..50).for_each(|n| fs::write(share.host(&format!("{dir}/{n}")), format!("{dir} {n}")).unwrap());
    }
    let inodes = 1020;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (client, share) = (share.client(), &share);
            scope.spawn(move || {
                for step in 0..1000 {
                    let number = (step * 7 + thread * 250) % 1000;
                    let (dir, name) = (number / 50, number % 50);
                    let parent = client.walk(&format!("{dir}")).unwrap();
                    let node = client.lookup(parent, &format!("{name}")).unwrap().nodeid;
                    assert_eq!(client.read(node, NONE, 0, 99).unwrap(), format!("{dir} {name}").as_bytes());
                    if step % 10 == 0 {
                        client.readdir(parent, NONE, 0, 200).unwrap();
                        // A request under way holds its own: one each thread beyond what is kept.
                        assert!(descriptors(share) <= inodes + BUDGET + 4, "{}", descriptors(share));
                    }
                }
            });
        }
    });
    assert!(descriptors(&share) <= share.held_descriptors() + BUDGET);
    share.client().destroy().unwrap();
    assert_eq!(descriptors(&share), 0);
}

#[test]
fn with_no_room_at_all_a_request_is_enfile_and_a_forget_makes_room() {
    let share = Share::with(few(0));
    let node = file_of(&share.client(), &share, "file", b"data");
    assert_eq!(share.client().read(node, NONE, 0, 9), Err(Errno::ENFILE));
    assert_eq!(share.client().create(ROOT, "new", libc::O_RDWR, 0o600).unwrap_err(), Errno::ENFILE);
    assert!(!share.host("new").exists());
    let share = Share::with(few(1));
    let client = share.client();
    let nodes: Vec<u64> = ["a", "b", "c"].map(|name| file_of(&client, &share, name, name.as_bytes())).into();
    for _ in 0..3 {
        for (node, name) in nodes.iter().zip(["a", "b", "c"]) {
            assert_eq!(client.read(*node, NONE, 0, 9).unwrap(), name.as_bytes(), "the others give way");
            assert_eq!(client.names(ROOT, NONE).unwrap(), ["a", "b", "c"], "and so they do for a listing");
        }
    }
}

#[test]
fn what_was_created_gives_way_and_is_found_again() {
    let share = Share::with(few(1));
    let client = share.client();
    let nodes: Vec<u64> = (0..5)
        .map(|n| client.create(ROOT, &format!("{n}"), libc::O_RDWR, 0o644).unwrap().0.nodeid)
        .inspect(|node| assert_eq!(client.write(*node, NONE, 0, b"data").unwrap(), 4))
        .collect();
    for node in &nodes {
        assert_eq!(client.read(*node, NONE, 0, 9).unwrap(), b"data");
        assert_eq!(client.getattr(*node).unwrap().size, 4);
    }
    assert_eq!(share.held_descriptors(), 5);
    client.batch_forget(&nodes.iter().map(|node| (*node, 1)).collect::<Vec<_>>());
    assert_eq!((share.known_inodes(), share.held_descriptors(), descriptors(&share)), (0, 0, 0));
}

/// A share of each kind of stream on each kind of file system whose own cookies hold.
fn by_every_stream(test: impl Fn(&str, Share)) {
    for kind in [None, Some(StreamKind::Snapshot), Some(StreamKind::Getdents)] {
        for directory in directories() {
            if kind == Some(StreamKind::Getdents) && directory.path().starts_with("/dev/shm") {
                continue;
            }
            let what = format!("{kind:?} on {}", directory.path().display());
            test(
                &what,
                Share::of(directory, |config| {
                    // Fewer than are used at once, but for what requests under way hold.
                    few(6)(config);
                    config.dir_stream = kind;
                }),
            );
        }
    }
}

#[test]
fn users_at_several_places_of_one_directory_each_see_every_entry_once() {
    by_every_stream(|stream, share| {
        let stays: BTreeSet<String> = (0..300).map(|n| format!("stays-{n:03}")).collect();
        stays.iter().for_each(|name| fs::write(share.host(name), "").unwrap());
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4_u32)
                .map(|thread| {
                    let (client, stays) = (share.client(), &stays);
                    scope.spawn(move || {
                        for round in 0..6 {
                            // Others come and go meanwhile.
                            let own = format!("own-{thread}-{round}");
                            client.create(ROOT, &own, libc::O_RDWR, 0o600).unwrap();
                            let size = [300, 1000, 4096][(round % 3) as usize];
                            let seen = scan(&client, size);
                            let distinct: HashSet<_> = seen.iter().collect();
                            assert_eq!(distinct.len(), seen.len(), "{stream}: a name came twice");
                            assert!(seen.contains(&own), "{stream}: what was acknowledged before is there");
                            let kept = seen.iter().filter(|name| name.starts_with("stays")).count();
                            assert_eq!(kept, stays.len(), "{stream}: what stays is there");
                            client.unlink(ROOT, &own).unwrap();
                        }
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        assert_eq!(share.client().names(ROOT, NONE).unwrap(), Vec::from_iter(stays), "{stream}");
    });
}

/// All names in a directory, in replies of that size; every second one comes with lookups.
fn scan(client: &Client, size: u32) -> Vec<String> {
    let (mut names, mut offset) = (Vec::new(), 0);
    for turn in 0.. {
        let entries = if turn % 2 == 0 {
            client.readdir(ROOT, NONE, offset, size).unwrap()
        } else {
            let page = client.readdirplus(ROOT, NONE, offset, size).unwrap();
            page.iter().filter(|(node, _)| node.nodeid != 0).for_each(|(node, _)| client.forget(node.nodeid, 1));
            page.into_iter().map(|(_, entry)| entry).collect()
        };
        let Some(last) = entries.last() else { break };
        offset = last.next;
        names.extend(entries.into_iter().map(|entry| entry.name));
    }
    names
}

#[test]
fn a_cookie_goes_on_after_its_entry_whoever_listed_the_directory_since() {
    by_every_stream(|stream, share| {
        (0..100).for_each(|n| fs::write(share.host(&format!("{n:02}")), "").unwrap());
        fs::create_dir(share.host("elsewhere")).unwrap();
        let client = share.client();
        let elsewhere = client.walk("elsewhere").unwrap();
        let whole = client.readdir(ROOT, NONE, 0, 65536).unwrap();
        assert_eq!(whole.len(), 103, "{stream}");
        for (index, entry) in whole.iter().enumerate().rev() {
            // Takes the place of what was open, and rewinds.
            client.names(elsewhere, NONE).unwrap();
            client.readdir(ROOT, NONE, 0, 200).unwrap();
            let rest = client.readdir(ROOT, NONE, entry.next, 65536).unwrap();
            assert_eq!(rest, whole[index + 1..], "{stream}: after {index}");
        }
    });
}

#[test]
fn a_directory_that_was_removed_is_missing_and_nothing_of_it_stays_open() {
    by_every_stream(|stream, share| {
        fs::create_dir(share.host("dir")).unwrap();
        let client = share.client();
        let node = client.walk("dir").unwrap();
        client.readdir(node, NONE, 0, 4096).unwrap();
        client.rmdir(ROOT, "dir").unwrap();
        assert_eq!(client.readdir(node, NONE, 0, 4096), Err(Errno::ENOENT), "{stream}");
        client.forget(node, 1);
        assert_eq!(descriptors(&share), 0, "{stream}");
    });
}
