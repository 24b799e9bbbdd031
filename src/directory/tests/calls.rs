//! What `getdents` asks of the host, call by call.

use std::sync::Arc;

use fuse_abi::Errno;

use super::{
    fixture::{Fixture, How, Place, read, read_to_end},
    injected::{Call, Injected, Plan, open, set},
};
use crate::directory::{
    DirStream,
    getdents::{BLOCK, Getdents},
};

fn fixture(count: usize) -> Fixture {
    Fixture::with_names(How::Getdents, Place::Tmpfs, count)
}

#[test]
fn reading_on_is_at_most_one_call_a_read_and_no_seek() {
    let fixture = fixture(3_000);
    for room in [1, 10, 128, 700, 10_000] {
        let plan = Arc::new(Plan::default());
        let stream = open(&fixture, &plan);
        let (mut cookie, mut total) = (0, 0);
        loop {
            let some = read(&*stream, cookie, room).unwrap();
            let calls = plan.calls();
            assert!(calls.is_empty() || calls == [Call::Block], "{calls:?} with {room} a reply");
            let Some(last) = some.last() else { break };
            cookie = last.next;
            total += some.len();
        }
        assert_eq!(total, 3_002, "{room} a reply");
        // At the end, again and again: one call each, still no seek.
        for _ in 0..3 {
            assert_eq!(read(&*stream, cookie, room), Ok(Vec::new()));
            assert_eq!(plan.calls(), [Call::Block]);
        }
    }
}

#[test]
fn a_small_directory_is_one_call_and_one_more_to_see_its_end() {
    let fixture = fixture(100);
    let plan = Arc::new(Plan::default());
    let stream = open(&fixture, &plan);
    read_to_end(&*stream, 0, 1_000).unwrap();
    assert_eq!(plan.calls(), [Call::Block, Call::Block]);
}

#[test]
fn going_back_within_the_last_reply_asks_nothing() {
    let fixture = fixture(3_000);
    let plan = Arc::new(Plan::default());
    let stream = open(&fixture, &plan);
    let (mut cookie, mut before) = (read(&*stream, 0, 10).unwrap()[4].next, Vec::new());
    // Replies that end within a block, and such as take the rest of one and the start of the next.
    for turn in 0..9 {
        let reply = read(&*stream, cookie, 300).unwrap();
        plan.calls();
        assert_eq!(read(&*stream, cookie, 2).unwrap(), reply[..2]);
        assert_eq!(plan.calls(), [], "turn {turn}, its start");
        for middle in [reply.len() / 2, 1, reply.len() - 2] {
            let again = read(&*stream, reply[middle].next, 1).unwrap();
            assert_eq!(again, reply[middle + 1..middle + 2]);
            assert_eq!(plan.calls(), [], "turn {turn}, after entry {middle}");
        }
        before.push((cookie, reply[0].clone()));
        cookie = reply.last().unwrap().next;
    }
    // What is no longer kept is read again, wherever it was.
    for (cookie, first) in before {
        assert_eq!(read(&*stream, cookie, 1).unwrap(), [first]);
    }
}

#[test]
fn an_error_that_the_host_tells_once_waits_for_the_entries_read_before_it() {
    let fixture = fixture(3_000);
    let whole = read_to_end(&*fixture.open(), 0, 10_000).unwrap();
    let block = read(&*fixture.open(), 0, 10_000).unwrap().len();
    let plan = Arc::new(Plan::default());
    let stream = open(&fixture, &plan);
    // The rest of one block is delivered, and the call for the next fails.
    let some = read(&*stream, 0, block - 5).unwrap();
    set(&plan.bad_name, Some((whole[block].name.clone(), Errno::EIO)));
    let rest = read(&*stream, some.last().unwrap().next, 100).unwrap();
    assert_eq!(rest, whole[block - 5..block]);
    set(&plan.bad_name, None);
    let cookie = rest[4].next;
    assert_eq!(read(&*stream, rest[1].next, 2).unwrap(), rest[2..4], "going back does not lose it");
    assert_eq!(read(&*stream, cookie, 100), Err(Errno::EIO));
    assert_eq!(read_to_end(&*stream, cookie, 100).unwrap(), whole[block..], "told once, too");
}

#[test]
fn an_error_that_waits_is_forgotten_by_who_goes_elsewhere() {
    let fixture = fixture(3_000);
    let whole = read_to_end(&*fixture.open(), 0, 10_000).unwrap();
    let block = read(&*fixture.open(), 0, 10_000).unwrap().len();
    let plan = Arc::new(Plan::default());
    let stream = open(&fixture, &plan);
    read(&*stream, 0, block - 5).unwrap();
    set(&plan.bad_name, Some((whole[block].name.clone(), Errno::EIO)));
    read(&*stream, whole[block - 6].next, 100).unwrap();
    set(&plan.bad_name, None);
    assert_eq!(read(&*stream, whole[2_500].next, 1).unwrap(), whole[2_501..2_502]);
    assert_eq!(read(&*stream, whole[block - 1].next, 1).unwrap(), whole[block..=block], "the host is asked again");
}

#[test]
fn going_elsewhere_is_one_seek_and_a_rewind_is_one_too() {
    let fixture = fixture(3_000);
    let plan = Arc::new(Plan::default());
    let stream = open(&fixture, &plan);
    let whole = read_to_end(&*stream, 0, 500).unwrap();
    plan.calls();
    for index in [5, 2_900, 1_000] {
        let cookie = whole[index].next;
        assert_eq!(read(&*stream, cookie, 1).unwrap(), whole[index + 1..index + 2]);
        assert_eq!(plan.calls(), [Call::Seek(cookie), Call::Block]);
    }
    for _ in 0..2 {
        read(&*stream, 0, 1).unwrap();
        assert_eq!(plan.calls(), [Call::Seek(0), Call::Block], "what was read ahead is not trusted at offset 0");
    }
}

#[test]
fn a_first_read_after_a_change_seeks_since_some_file_systems_fix_the_view_at_open() {
    let fixture = fixture(3);
    let plan = Arc::new(Plan::default());
    let stream = open(&fixture, &plan);
    fixture.create("new");
    read(&*stream, 0, 10).unwrap();
    assert_eq!(plan.calls(), [Call::Seek(0), Call::Block]);
}

#[test]
fn a_handle_holds_one_block_while_it_reads_and_nothing_after() {
    let fixture = fixture(3_000);
    let plan = Arc::new(Plan::default());
    let before = fixture.directory.generation().read();
    let stream = Getdents::new(Injected::new(&fixture, &plan), Arc::clone(&fixture.directory), before);
    for room in [1, 450, 10_000] {
        assert_eq!(stream.buffered(), 0);
        let mut cookie = 0;
        while let Some(last) = read(&stream, cookie, room).unwrap().pop() {
            assert_eq!(stream.buffered(), BLOCK);
            cookie = last.next;
        }
        assert_eq!(stream.buffered(), 0);
        assert!(stream.started_with().is_some());
    }
}
