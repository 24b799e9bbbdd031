//! How snapshots are shared, renewed, numbered and let go.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    sync::{Arc, Barrier},
};

use fuse_abi::Errno;

use super::{
    fixture::{Fixture, How, Place, Seen, distinct, names, read, read_to_end},
    injected::{Injected, Plan, open, set},
};
use crate::{
    directory::{
        Directory,
        snapshot::{Budget, Stream},
    },
    host::{DirectoryState, HostStamp},
};

fn fixture(count: usize) -> Fixture {
    Fixture::with_names(How::Snapshot, Place::Tmpfs, count)
}

/// Times that stand still, as if the host's clock had not ticked, looked at so many seconds later.
fn state(looked_at_after: i64) -> DirectoryState {
    let stamp = HostStamp { mtime: (1_000, 5), ctime: (1_000, 5) };
    DirectoryState { stamp, seen: (1_000 + looked_at_after, 5), unlinked: false }
}

fn plan_with<'a>(state: DirectoryState) -> Arc<Plan<'a>> {
    let plan = Plan::default();
    set(&plan.state, Some(state));
    Arc::new(plan)
}

fn cookies(entries: &[Seen]) -> BTreeMap<String, u64> {
    entries.iter().map(|entry| (entry.name.clone(), entry.next)).collect()
}

#[test]
fn an_inode_without_a_handle_costs_few_bytes() {
    assert!(size_of::<Directory>() <= 40, "{}", size_of::<Directory>());
}

#[test]
fn handles_at_one_generation_share_one_reading() {
    let fixture = fixture(50);
    let plan = plan_with(state(60));
    let [one, two] = [open(&fixture, &plan), open(&fixture, &plan)];
    let first = read_to_end(&*one, 0, 7).unwrap();
    assert_eq!(read_to_end(&*two, 0, 9).unwrap(), first);
    assert_eq!(read_to_end(&*one, 0, 11).unwrap(), first);
    assert_eq!(one.started_with(), two.started_with());
    assert_eq!(plan.scans(), 1);
    fixture.create("new");
    assert_eq!(read_to_end(&*two, 0, 9).unwrap().len(), 53);
    assert_eq!(read_to_end(&*one, 0, 9).unwrap().len(), 53);
    assert_eq!(plan.scans(), 1, "one more for both");
}

#[test]
fn one_thread_reads_while_the_others_wait() {
    let fixture = fixture(300);
    let (plan, barrier) = (plan_with(state(60)), Barrier::new(8));
    let streams: Vec<_> = (0..8).map(|_| open(&fixture, &plan)).collect();
    std::thread::scope(|scope| {
        for stream in &streams {
            scope.spawn(|| {
                barrier.wait();
                assert_eq!(read(&**stream, 0, 400).unwrap().len(), 302);
            });
        }
    });
    assert_eq!(plan.scans(), 1);
}

#[test]
fn a_reader_in_mid_scan_keeps_its_own_until_it_rewinds() {
    let fixture = fixture(20);
    let [reader, other] = [fixture.open(), fixture.open()];
    let mut all = read(&*reader, 0, 5).unwrap();
    let before = fixture.names();
    (0..20).for_each(|number| fixture.unlink(&format!("name{number:03}")));
    fixture.create("new");
    assert_eq!(read_to_end(&*other, 0, 5).unwrap().len(), 3);
    all.extend(read_to_end(&*reader, all[4].next, 5).unwrap());
    assert_eq!(distinct(&all), before);
    assert_eq!(distinct(&read_to_end(&*reader, 0, 5).unwrap()), fixture.names());
}

#[test]
fn times_too_young_prove_nothing_and_old_ones_do() {
    for (looked_at_after, scans) in [(0, 4), (60, 1)] {
        let fixture = fixture(5);
        let plan = plan_with(state(looked_at_after));
        let stream = open(&fixture, &plan);
        for turn in 0..4 {
            // On the host, within the tick: neither the generation nor the times move.
            if looked_at_after == 0 {
                File::create(fixture.path(&format!("host{turn}"))).unwrap();
            }
            assert_eq!(distinct(&read_to_end(&*stream, 0, 3).unwrap()), fixture.names());
        }
        assert_eq!(plan.scans(), scans);
    }
}

#[test]
fn times_that_moved_renew_the_listing_and_the_generation() {
    let fixture = fixture(5);
    let plan = plan_with(state(60));
    let stream = open(&fixture, &plan);
    read_to_end(&*stream, 0, 3).unwrap();
    let before = stream.started_with();
    for moved in [
        HostStamp { mtime: (1_001, 5), ctime: (1_000, 5) },
        HostStamp { mtime: (1_001, 5), ctime: (1_000, 6) },
        HostStamp { mtime: (900, 5), ctime: (1_000, 6) },
    ] {
        plan.calls();
        set(&plan.state, Some(DirectoryState { stamp: moved, ..state(60) }));
        read_to_end(&*stream, 0, 3).unwrap();
        assert_eq!(plan.scans(), 1, "{moved:?}");
    }
    assert_ne!(stream.started_with(), before);
    plan.calls();
    set(&plan.state, Some(DirectoryState { unlinked: true, ..get_state(&plan) }));
    read_to_end(&*stream, 0, 3).unwrap();
    assert_eq!(plan.scans(), 1, "what lost its last name is looked at again");
}

fn get_state(plan: &Plan<'_>) -> DirectoryState {
    plan.state.lock().unwrap().unwrap()
}

/// The other half of the overlayfs case: the listing that just missed the change must not serve the next reader. The
/// times stand still here, so that the generation alone can tell.
#[test]
fn a_listing_that_missed_a_change_is_not_published_as_current() {
    let fixture = fixture(5);
    let plan = plan_with(state(60));
    let [one, two] = [open(&fixture, &plan), open(&fixture, &plan)];
    set(&plan.after_block, Some(Box::new(|| fixture.create("missed"))));
    assert!(!names(&read_to_end(&*one, 0, 100).unwrap()).contains(&"missed"));
    assert!(names(&read_to_end(&*two, 0, 100).unwrap()).contains(&"missed"));
    assert!(names(&read_to_end(&*one, 0, 100).unwrap()).contains(&"missed"));
}

#[test]
fn names_that_stay_keep_their_cookies_and_new_ones_come_after_all() {
    let fixture = fixture(10);
    let stream = fixture.open();
    let mut old = cookies(&read_to_end(&*stream, 0, 4).unwrap());
    let mut highest = *old.values().max().unwrap();
    for turn in 0..10 {
        fixture.unlink(&format!("name{turn:03}"));
        fixture.create(&format!("new{turn:03}"));
        let listed = read_to_end(&*stream, 0, 4).unwrap();
        assert!(listed.is_sorted_by_key(|entry| entry.next));
        let new = cookies(&listed);
        for (name, cookie) in &new {
            match old.get(name) {
                Some(before) => assert_eq!(cookie, before, "{name} was renumbered"),
                None => assert!(*cookie > highest, "{name} reuses a cookie"),
            }
        }
        highest = *new.values().max().unwrap();
        old = new;
        // A name that was away in one listing is a new one in the next.
        fixture.create(&format!("name{turn:03}"));
        let back = cookies(&read_to_end(&*stream, 0, 4).unwrap());
        assert!(back[&format!("name{turn:03}")] > highest);
        fixture.unlink(&format!("name{turn:03}"));
    }
}

#[test]
fn a_name_that_the_host_lists_twice_comes_once() {
    let fixture = fixture(10);
    let plan = Arc::new(Plan::default());
    let stream = open(&fixture, &plan);
    let plain = read_to_end(&*stream, 0, 4).unwrap();
    set(&plan.twice, Some("name004".to_owned()));
    fixture.directory.generation().bump();
    for stream in [&*stream, &*open(&fixture, &plan)] {
        let all = read_to_end(stream, 0, 4).unwrap();
        assert_eq!(cookies(&all), cookies(&plain));
        let [before, after] = [&plain, &all].map(|all| all.iter().find(|entry| entry.name == "name004").unwrap().ino);
        assert_eq!(after, before + 1_000, "the later of the two counts");
    }
}

#[test]
fn a_truncated_listing_serves_nobody_else_and_loses_no_cookie() {
    let fixture = fixture(30);
    let plan = plan_with(state(60));
    let [one, two] = [open(&fixture, &plan), open(&fixture, &plan)];
    let whole = read_to_end(&*one, 0, 100).unwrap();
    set(&plan.bad_name, Some((whole[12].name.clone(), Errno::EIO)));
    fixture.create("new");
    // tmpfs lists the newest name first: here it comes last, after the names that already had a cookie.
    let cut = read(&*one, 0, 100).unwrap();
    assert_eq!((&cut[..12], cut[12].name.as_str(), cut.len()), (&whole[..12], "new", 13));
    assert_eq!(one.started_with(), None, "nothing is marked complete");
    assert_eq!(read(&*one, cut[12].next, 100), Err(Errno::EIO));
    plan.calls();
    assert_eq!(read(&*two, 0, 100).unwrap(), cut);
    assert_eq!(plan.scans(), 1, "read anew, and not taken from the other");
    set(&plan.bad_name, None);
    let healed = read_to_end(&*two, 0, 100).unwrap();
    assert_eq!(healed[..whole.len()], whole, "beyond the error too, each has its old cookie");
    assert_eq!(healed[whole.len()..], cut[12..]);
    assert_eq!(read_to_end(&*one, 0, 100).unwrap(), healed);
}

#[test]
fn the_memory_of_snapshots_is_bounded_and_comes_back() {
    let fixture = fixture(2_000);
    let budget: &'static Budget = Box::leak(Box::new(Budget::new(200_000)));
    let plan = Arc::new(Plan::default());
    let open = || Stream::new(Injected::new(&fixture, &plan), Arc::clone(&fixture.directory), budget);
    // 2,002 entries of 24 bytes and a name: one or two listings fit, not three, and each handle holds another.
    let mut streams = Vec::new();
    let refused = loop {
        let stream = open();
        fixture.create(&format!("new{}", streams.len()));
        match read(&stream, 0, 5) {
            Ok(_) => streams.push(stream),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, Errno::ENFILE);
    assert!((2..5).contains(&streams.len()), "{} handles", streams.len());
    assert!(budget.used() <= 200_000);
    // Those that have one read on; and when one is let go, the next can rewind.
    let first = read(&streams[0], 0, 0);
    assert!(first == Err(Errno::ENFILE) || first == Ok(Vec::new()));
    streams.pop();
    streams.pop();
    assert_eq!(distinct(&read_to_end(&open(), 0, 100).unwrap()), fixture.names());
    drop(streams);
    assert_eq!(budget.used(), 0, "all of it came back");
}

#[test]
fn the_last_handle_lets_the_snapshot_go() {
    let fixture = fixture(100);
    let budget: &'static Budget = Box::leak(Box::new(Budget::new(1 << 20)));
    let plan = Arc::new(Plan::default());
    let open = || Stream::new(Injected::new(&fixture, &plan), Arc::clone(&fixture.directory), budget);
    let [one, two] = [open(), open()];
    read(&one, 0, 5).unwrap();
    drop(one);
    assert!(budget.used() > 0, "kept for the handle that is still open");
    drop(two);
    assert_eq!(budget.used(), 0);
}

#[test]
fn two_rewinds_of_one_handle_at_once_never_lead_back() {
    let fixture = fixture(20);
    let stream = fixture.open();
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (stream, fixture) = (&stream, &fixture);
            scope.spawn(move || {
                for turn in 0..300 {
                    let name = format!("of{thread}-{turn}");
                    fixture.create(&name);
                    // Another thread's rewind may come between the two reads, but never an older listing.
                    let some = read(&**stream, 0, 10).unwrap();
                    let rest = read_to_end(&**stream, some[9].next, 10).unwrap();
                    let all: BTreeSet<_> = names(&some).into_iter().chain(names(&rest)).collect();
                    assert!(all.contains(name.as_str()), "{name} was created before");
                    fixture.unlink(&name);
                }
            });
        }
    });
}
