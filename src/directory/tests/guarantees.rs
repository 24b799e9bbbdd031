//! Every guarantee of the module, by name, for both streams, opened or not.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    ops::ControlFlow,
    os::unix::fs::symlink,
};

use fuse_abi::Errno;

use super::fixture::{Fixture, How, Place, Seen, distinct, names, read, read_to_end, suite};

suite! {
    a_listing_has_every_name_once_and_the_dots,
    an_empty_directory_lists_its_dots_and_ends,
    types_and_inode_numbers_are_the_hosts,
    odd_names_come_as_they_are,
    ten_names_seven_read_three_created_gives_no_duplicate,
    a_refused_entry_comes_first_at_the_next_read,
    a_cookie_goes_on_right_after_its_entry_in_any_order,
    cookies_stay_good_after_the_end,
    cookies_fit_the_guests_signed_offset,
    an_entry_that_exists_throughout_comes_once_while_others_come_and_go,
    a_name_replaced_by_rename_comes_once,
    offset_zero_shows_what_was_acknowledged_between_open_and_the_first_read,
    a_rewound_directory_shows_each_kind_of_change,
    a_rewound_directory_shows_a_host_change_within_the_same_tick,
    a_removed_directory_is_enoent_at_every_offset,
    a_directory_removed_on_the_host_is_enoent_after_a_rewind,
    an_offset_never_handed_out_gets_an_answer,
    two_users_of_one_handle_do_not_disturb_each_other,
    threads_may_read_one_handle_at_once,
    an_unchanged_directory_lists_the_same_cookies_again;
    started_with_is_older_than_any_change_made_after_the_scan_began,
}

fn a_listing_has_every_name_once_and_the_dots(how: How, place: Place) {
    let fixture = Fixture::with_names(how, place, 900);
    // More than a block of them, in replies from one entry to more than a block.
    for room in [1, 2, 7, 100, 899, 5_000] {
        let all = read_to_end(&*fixture.open(), 0, room).unwrap();
        assert_eq!(distinct(&all), fixture.names(), "{room} entries a reply");
    }
}

fn an_empty_directory_lists_its_dots_and_ends(how: How, place: Place) {
    let stream = Fixture::new(how, place).open();
    assert_eq!(stream.started_with(), None);
    // The fixture is gone by now, and with it the directory.
    assert_eq!(read(&*stream, 0, 9), Err(Errno::ENOENT));

    let fixture = Fixture::new(how, place);
    let all = read_to_end(&*fixture.open(), 0, 10).unwrap();
    assert_eq!(distinct(&all), BTreeSet::from([".".to_owned(), "..".to_owned()]));
}

fn types_and_inode_numbers_are_the_hosts(how: How, place: Place) {
    use std::os::unix::fs::MetadataExt;
    let fixture = Fixture::new(how, place);
    fixture.create("file");
    fs::create_dir(fixture.path("folder")).unwrap();
    symlink("nowhere", fixture.path("symlink")).unwrap();
    let all = read_to_end(&*fixture.open(), 0, 10).unwrap();
    for (name, number) in [("file", 8), ("folder", 4), ("symlink", 10)] {
        let entry = all.iter().find(|entry| entry.name == name).unwrap();
        let ino = fs::symlink_metadata(fixture.path(name)).unwrap().ino();
        assert_eq!((entry.kind, entry.ino), (number, ino), "{name}");
    }
}

fn odd_names_come_as_they_are(how: How, place: Place) {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let fixture = Fixture::new(how, place);
    let longest = [b'x'; 255];
    let odd: [&[u8]; 5] = [&longest, b"\xff\xfe", b"a\nb", b" ", b"..."];
    for name in odd {
        File::create(fixture.path("").join(OsStr::from_bytes(name))).unwrap();
    }
    let mut found = BTreeSet::new();
    let stream = fixture.open();
    let all = |entry: &crate::directory::Entry<'_>| {
        found.insert(entry.name.to_vec());
        ControlFlow::Continue(())
    };
    let mut all = all;
    stream.read(0, &mut all).unwrap();
    assert!(odd.iter().all(|&name| found.contains(name)));
    assert_eq!(found.len(), odd.len() + 2);
}

fn ten_names_seven_read_three_created_gives_no_duplicate(how: How, place: Place) {
    let fixture = Fixture::with_names(how, place, 10);
    let stream = fixture.open();
    let mut all = read(&*stream, 0, 7).unwrap();
    assert_eq!(all.len(), 7);
    fixture.create_many("later", 3);
    all.extend(read_to_end(&*stream, all[6].next, 7).unwrap());
    let all = distinct(&all);
    assert!((0..10).all(|number| all.contains(&format!("name{number:03}"))));
}

fn a_refused_entry_comes_first_at_the_next_read(how: How, place: Place) {
    let fixture = Fixture::with_names(how, place, 50);
    let whole = read_to_end(&*fixture.open(), 0, 100).unwrap();
    let stream = fixture.open();
    // Replies without room for a single entry leave the position alone, wherever they come.
    let mut cookie = 0;
    for entry in &whole {
        assert_eq!(read(&*stream, cookie, 0), Ok(Vec::new()));
        assert_eq!(read(&*stream, cookie, 1), Ok(vec![entry.clone()]));
        cookie = entry.next;
    }
    assert_eq!(read(&*stream, cookie, 1), Ok(Vec::new()));
}

/// Checks that each read from a cookie of `whole` gives what follows it there.
fn goes_on_after(stream: &dyn crate::directory::DirStream, whole: &[Seen], index: usize, room: usize) {
    let got = read(stream, whole[index].next, room).unwrap();
    let rest = &whole[index + 1..];
    let expected = &rest[..room.min(rest.len())];
    // A short read is allowed, an empty one only at the end.
    assert!(expected.starts_with(&got) && got.is_empty() == expected.is_empty(), "after {:?}", whole[index]);
}

fn a_cookie_goes_on_right_after_its_entry_in_any_order(how: How, place: Place) {
    let fixture = Fixture::with_names(how, place, 900);
    let stream = fixture.open();
    let whole = read_to_end(&*stream, 0, 13).unwrap();
    for index in (0..whole.len()).rev() {
        goes_on_after(&*stream, &whole, index, 3);
    }
    for step in [1, 89, 401, 640] {
        for turn in 0..whole.len() {
            goes_on_after(&*stream, &whole, turn * step % whole.len(), 5);
        }
    }
}

fn cookies_stay_good_after_the_end(how: How, place: Place) {
    let fixture = Fixture::with_names(how, place, 40);
    let stream = fixture.open();
    let whole = read_to_end(&*stream, 0, 9).unwrap();
    let last = whole.last().unwrap().next;
    for index in [0, 20, whole.len() - 2, whole.len() - 1] {
        assert_eq!(read(&*stream, last, 5), Ok(Vec::new()));
        let rest = read_to_end(&*stream, whole[index].next, 4).unwrap();
        assert_eq!(rest, whole[index + 1..]);
    }
    // An unlinked neighbour changes nothing about where the others are.
    fixture.unlink(&whole.iter().find(|entry| entry.name.starts_with("name")).unwrap().name);
    let rest = read_to_end(&*stream, whole[20].next, 4).unwrap();
    let (expected, found) = (distinct(&whole[21..]), distinct(&rest));
    assert!(expected.intersection(&fixture.names()).all(|name| found.contains(name)));
}

fn cookies_fit_the_guests_signed_offset(how: How, place: Place) {
    let fixture = Fixture::with_names(how, place, 100);
    for entry in read_to_end(&*fixture.open(), 0, 9).unwrap() {
        assert!(entry.next > 0 && i64::try_from(entry.next).is_ok(), "{entry:?}");
    }
}

fn an_entry_that_exists_throughout_comes_once_while_others_come_and_go(how: How, place: Place) {
    let fixture = Fixture::with_names(how, place, 30);
    fixture.create_many("old", 30);
    let stream = fixture.open();
    let (mut all, mut cookie) = (Vec::new(), 0);
    for turn in 0.. {
        let some = read(&*stream, cookie, 2).unwrap();
        let Some(last) = some.last() else { break };
        cookie = last.next;
        all.extend(some);
        if turn < 30 {
            fixture.create(&format!("new{turn:03}"));
            fixture.rename(&format!("old{turn:03}"), &format!("renamed{turn:03}"));
            if turn % 2 == 1 {
                fixture.unlink(&format!("new{:03}", turn - 1));
            }
        }
    }
    let all = distinct(&all);
    assert!((0..30).all(|number| all.contains(&format!("name{number:03}"))));
}

/// In a directory that fits a block: beyond that `getdents` is as good as the host, which tmpfs is not here.
fn a_name_replaced_by_rename_comes_once(how: How, place: Place) {
    let fixture = Fixture::with_names(how, place, 20);
    let stream = fixture.open();
    let (mut all, mut cookie) = (Vec::new(), 0);
    for turn in 0..20 {
        let some = read(&*stream, cookie, 1).unwrap();
        cookie = some[0].next;
        all.extend(some);
        // As an editor saves a file: the name is there at every moment.
        let new = fixture.elsewhere("new");
        File::create(&new).unwrap();
        fixture.change(|| fs::rename(&new, fixture.path(&format!("name{turn:03}"))));
    }
    all.extend(read_to_end(&*stream, cookie, 3).unwrap());
    assert_eq!(distinct(&all), fixture.names());
}

fn offset_zero_shows_what_was_acknowledged_between_open_and_the_first_read(how: How, place: Place) {
    let fixture = Fixture::with_names(how, place, 3);
    let stream = fixture.open();
    fixture.create("late");
    fixture.unlink("name001");
    assert_eq!(distinct(&read_to_end(&*stream, 0, 2).unwrap()), fixture.names());
}

fn a_rewound_directory_shows_each_kind_of_change(how: How, place: Place) {
    type Change = fn(&Fixture);
    let changes: [(&str, Change); 12] = [
        ("create", |f| f.create("created")),
        ("unlink", |f| f.unlink("name000")),
        ("mkdir", |f| f.change(|| fs::create_dir(f.path("folder")))),
        ("rmdir", |f| f.change(|| fs::remove_dir(f.path("folder")))),
        ("symlink", |f| f.change(|| symlink("name001", f.path("symlink")))),
        ("link", |f| f.change(|| fs::hard_link(f.path("name001"), f.path("link")))),
        ("rename", |f| f.rename("name002", "renamed")),
        ("rename onto another", |f| f.rename("renamed", "name003")),
        ("rename to another directory", |f| f.change(|| fs::rename(f.path("name004"), f.elsewhere("moved")))),
        ("rename from another directory", |f| f.change(|| fs::rename(f.elsewhere("moved"), f.path("back")))),
        ("unlink and create again", |f| {
            f.unlink("name005");
            f.create("name005");
        }),
        ("two renames that swap", |f| {
            f.rename("name006", "aside");
            f.rename("name007", "name006");
            f.rename("aside", "name007");
        }),
    ];
    let fixture = Fixture::with_names(how, place, 10);
    let stream = fixture.open();
    assert_eq!(distinct(&read_to_end(&*stream, 0, 4).unwrap()), fixture.names());
    for (what, change) in changes {
        // Rewound in mid-scan and after the end.
        for stop in [5, 100] {
            read(&*stream, 0, stop).unwrap();
            if stop == 5 {
                change(&fixture);
            }
            let all = read_to_end(&*stream, 0, 4).unwrap();
            assert_eq!(distinct(&all), fixture.names(), "{what}");
        }
        let inodes = |all: Vec<Seen>| all.into_iter().map(|entry| (entry.name, entry.ino)).collect::<BTreeSet<_>>();
        let (old, new) = (read_to_end(&*stream, 0, 4).unwrap(), read_to_end(&*fixture.open(), 0, 4).unwrap());
        assert_eq!(inodes(old), inodes(new), "{what}: the inode numbers");
    }
}

fn a_rewound_directory_shows_a_host_change_within_the_same_tick(how: How, place: Place) {
    let fixture = Fixture::with_names(how, place, 5);
    let stream = fixture.open();
    // Hundreds of changes within a few ticks, none of which bumps the generation.
    for turn in 0..400 {
        let name = fixture.path(&format!("host{turn:03}"));
        File::create(&name).unwrap();
        let all = read_to_end(&*stream, 0, 100).unwrap();
        assert!(names(&all).contains(&format!("host{turn:03}").as_str()), "created in turn {turn}");
        fs::remove_file(&name).unwrap();
        let all = read_to_end(&*stream, 0, 100).unwrap();
        assert_eq!(all.len(), 7, "removed in turn {turn}");
    }
}

fn a_removed_directory_is_enoent_at_every_offset(how: How, place: Place) {
    let fixture = Fixture::with_names(how, place, 5);
    let stream = fixture.open();
    let some = read(&*stream, 0, 3).unwrap();
    (0..5).for_each(|number| fixture.unlink(&format!("name{number:03}")));
    fs::remove_dir(fixture.path("")).unwrap();
    fixture.directory.generation().mark_dead();
    for cookie in [some[0].next, some[2].next, 0, 12345] {
        assert_eq!(read(&*stream, cookie, 3), Err(Errno::ENOENT), "at {cookie}");
    }
}

fn a_directory_removed_on_the_host_is_enoent_after_a_rewind(how: How, place: Place) {
    let fixture = Fixture::new(how, place);
    let stream = fixture.open();
    read_to_end(&*stream, 0, 3).unwrap();
    fs::remove_dir(fixture.path("")).unwrap();
    for _ in 0..2 {
        assert_eq!(read(&*stream, 0, 3), Err(Errno::ENOENT));
        assert_eq!(stream.started_with(), None);
    }
}

fn an_offset_never_handed_out_gets_an_answer(how: How, place: Place) {
    let fixture = Fixture::with_names(how, place, 60);
    let stream = fixture.open();
    let everything = fixture.names();
    let big = [1, 2, 3, 1 << 31, 1 << 32, (1 << 62) + 7, i64::MAX as u64 - 1, i64::MAX as u64, 1 << 63, u64::MAX];
    for turn in 0..2 {
        for cookie in big.into_iter().chain((1..64).map(|shift| (1 << shift) - 1)) {
            match read_to_end(&*stream, cookie, 7) {
                Ok(some) => assert!(distinct(&some).is_subset(&everything), "at {cookie}"),
                Err(error) => assert!(error == Errno::EINVAL, "{error} at {cookie}"),
            }
        }
        // It does no harm to the handle either.
        let whole = read_to_end(&*stream, 0, 7).unwrap();
        assert_eq!(distinct(&whole), everything, "turn {turn}");
    }
    for cookie in [1 << 63, u64::MAX] {
        assert_eq!(read(&*stream, cookie, 7), Err(Errno::EINVAL));
    }
    // The first read of a handle may be anywhere: a file server in the guest opens anew for each.
    let whole = read_to_end(&*stream, 0, 7).unwrap();
    for index in [0, 30, 61] {
        assert_eq!(read_to_end(&*fixture.open(), whole[index].next, 7).unwrap(), whole[index + 1..]);
    }
}

fn two_users_of_one_handle_do_not_disturb_each_other(how: How, place: Place) {
    let fixture = Fixture::with_names(how, place, 40);
    let stream = fixture.open();
    let mut first = read(&*stream, 0, 15).unwrap();
    let stable: BTreeSet<String> = fixture.names().into_iter().filter(|name| name.as_str() < "name030").collect();
    for turn in 0..10 {
        fixture.create(&format!("new{turn}"));
        fixture.unlink(&format!("name{:03}", 30 + turn));
        // The second user rewinds, and reads a part or all of it.
        let second = read_to_end(&*stream, 0, 3).unwrap();
        assert_eq!(distinct(&second), fixture.names());
        let more = read(&*stream, first.last().unwrap().next, 2).unwrap();
        first.extend(more);
    }
    first.extend(read_to_end(&*stream, first.last().unwrap().next, 2).unwrap());
    assert!(stable.is_subset(&distinct(&first)), "the first user missed {:?}", stable.difference(&distinct(&first)));
}

fn threads_may_read_one_handle_at_once(how: How, place: Place) {
    let fixture = Fixture::with_names(how, place, 500);
    let stream = fixture.open();
    let whole = read_to_end(&*stream, 0, 11).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (stream, whole) = (&*stream, &whole);
            scope.spawn(move || {
                for turn in 0..1_500 {
                    goes_on_after(stream, whole, (thread * 131 + turn * (37 + thread)) % whole.len(), 1 + turn % 9);
                    if turn % 50 == thread {
                        assert_eq!(read(stream, 0, 4).unwrap(), whole[..4]);
                    }
                }
            });
        }
    });
}

fn started_with_is_older_than_any_change_made_after_the_scan_began(how: How, place: Place) {
    let fixture = Fixture::with_names(how, place, 5);
    let stream = fixture.open();
    assert_eq!(stream.started_with(), None);
    let first = read(&*stream, 0, 2).unwrap();
    let started = stream.started_with().unwrap();
    assert_eq!(started, fixture.directory.generation().read());
    fixture.create("new");
    read_to_end(&*stream, first[1].next, 2).unwrap();
    assert_eq!(stream.started_with(), Some(started), "reading on is not a new scan");
    assert_ne!(started, fixture.directory.generation().read());
    read(&*stream, 0, 2).unwrap();
    assert_eq!(stream.started_with(), Some(fixture.directory.generation().read()));
}

fn an_unchanged_directory_lists_the_same_cookies_again(how: How, place: Place) {
    let fixture = Fixture::with_names(how, place, 50);
    let whole = read_to_end(&*fixture.open(), 0, 10).unwrap();
    assert_eq!(read_to_end(&*fixture.open(), 0, 3).unwrap(), whole);
}
