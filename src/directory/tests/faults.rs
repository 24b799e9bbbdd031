//! Errors and changes in the middle of a read, for both streams.

use std::sync::Arc;

use fuse_abi::Errno;

use super::{
    fixture::{Fixture, How, Place, Seen, distinct, names, read, read_to_end, suite},
    injected::{Plan, open, set},
};
use crate::directory::DirStream;

suite! {
    ;
    an_error_in_mid_read_comes_after_the_entries_before_it,
    an_error_at_the_first_entry_is_told_at_once,
    a_rewind_that_cannot_seek_is_an_error_and_no_stale_listing,
    a_change_after_the_entries_were_read_is_not_taken_for_read,
    a_change_before_the_entries_are_read_shows_and_counts_as_news,
}

/// Reads until the end or an error, and says which.
fn read_until_error(stream: &dyn DirStream, cookie: u64, room: usize) -> (Vec<Seen>, Option<Errno>) {
    let (mut all, mut cookie) = (Vec::<Seen>::new(), cookie);
    loop {
        match read(stream, cookie, room) {
            Ok(some) if some.is_empty() => return (all, None),
            Ok(some) => all.extend(some),
            Err(error) => return (all, Some(error)),
        }
        cookie = all.last().map_or(0, |last| last.next);
    }
}

fn an_error_in_mid_read_comes_after_the_entries_before_it(how: How, place: Place) {
    // The error in the first block, and after some blocks.
    for (count, bad) in [(20, 12), (2_500, 1_900)] {
        let fixture = Fixture::with_names(how, place, count);
        let whole = read_to_end(&*fixture.open(), 0, 100).unwrap();
        for room in [3, 1_000, 10_000] {
            let plan = Arc::new(Plan::default());
            let stream = open(&fixture, &plan);
            set(&plan.bad_name, Some((whole[bad].name.clone(), Errno::EIO)));
            let expected = (whole[..bad].to_vec(), Some(Errno::EIO));
            assert_eq!(read_until_error(&*stream, 0, room), expected, "{room} a reply");
            assert_eq!(read(&*stream, whole[bad - 1].next, room), Err(Errno::EIO), "asked again");
            assert_eq!(read_until_error(&*stream, whole[bad - 3].next, room).0, whole[bad - 2..bad], "gone back");
            assert_eq!(read_until_error(&*stream, 0, room), expected, "rewound");
            set(&plan.bad_name, None);
            assert_eq!(names(&read_to_end(&*stream, 0, room).unwrap()), names(&whole), "after it healed");
        }
    }
}

fn an_error_at_the_first_entry_is_told_at_once(how: How, place: Place) {
    let fixture = Fixture::with_names(how, place, 5);
    let first = read(&*fixture.open(), 0, 1).unwrap().remove(0).name;
    let plan = Arc::new(Plan::default());
    let stream = open(&fixture, &plan);
    set(&plan.bad_name, Some((first, Errno::EIO)));
    for _ in 0..2 {
        assert_eq!(read(&*stream, 0, 9), Err(Errno::EIO));
        assert_eq!(stream.started_with(), None);
    }
    set(&plan.bad_name, None);
    assert_eq!(distinct(&read_to_end(&*stream, 0, 3).unwrap()), fixture.names());
}

fn a_rewind_that_cannot_seek_is_an_error_and_no_stale_listing(how: How, place: Place) {
    let fixture = Fixture::with_names(how, place, 5);
    let plan = Arc::new(Plan::default());
    let stream = open(&fixture, &plan);
    read(&*stream, 0, 3).unwrap();
    fixture.create("new");
    set(&plan.bad_seek, Some(Errno::EIO));
    assert_eq!(read(&*stream, 0, 9), Err(Errno::EIO));
    assert_eq!(read(&*stream, 0, 9), Err(Errno::EIO));
    set(&plan.bad_seek, None);
    assert_eq!(distinct(&read_to_end(&*stream, 0, 3).unwrap()), fixture.names());
}

/// overlayfs once read the version of a directory after its entries, and so published an old listing as the new one.
/// Here the generation must be taken first: a change between the two readings belongs to the next listing.
fn a_change_after_the_entries_were_read_is_not_taken_for_read(how: How, place: Place) {
    let fixture = Fixture::with_names(how, place, 5);
    let plan = Arc::new(Plan::default());
    let stream = open(&fixture, &plan);
    set(&plan.after_block, Some(Box::new(|| fixture.create("missed"))));
    let all = read(&*stream, 0, 100).unwrap();
    assert!(!names(&all).contains(&"missed"), "the change was meant to come too late");
    assert_ne!(stream.started_with(), Some(fixture.directory.generation().read()), "the guest would keep this listing");
    assert_eq!(distinct(&read_to_end(&*stream, 0, 3).unwrap()), fixture.names());
}

fn a_change_before_the_entries_are_read_shows_and_counts_as_news(how: How, place: Place) {
    let fixture = Fixture::with_names(how, place, 5);
    let plan = Arc::new(Plan::default());
    let stream = open(&fixture, &plan);
    set(&plan.before_block, Some(Box::new(|| fixture.create("early"))));
    read(&*stream, 0, 100).unwrap();
    // Whether it shows is the file system's to say; that it is not proved to be there, is ours.
    assert_ne!(stream.started_with(), Some(fixture.directory.generation().read()));
    assert!(names(&read(&*stream, 0, 100).unwrap()).contains(&"early"));
}
