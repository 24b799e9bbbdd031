//! A reply holds what was asked for and no more, wherever its memory lies.

use ferryfs::protocol::Operation::*;
use ferryfs::protocol::{Dropped, Served};
use fuse_abi::Errno;
use std::sync::atomic::Ordering;

use crate::golden::GOLDEN;
use crate::guest::{UNTOUCHED, bytes, init, message, request, send, send_cut, started, unstarted};

const FH: &str = "7700000000000000";

/// A READ of `size` bytes.
fn read(size: u32) -> Vec<u8> {
    let mut body = bytes(&format!("{FH} 00*8"));
    body.extend(size.to_ne_bytes());
    body.extend([0; 20]);
    message(Read.number(), 0, &body)
}

#[test]
fn a_read_of_10_bytes_into_4_kib_writes_10_bytes() {
    for cuts in [&[][..], &[16], &[16, 4], &[3, 20]] {
        let answer = send_cut(&started(), &read(10), 16 + 4096, cuts, true);
        assert_eq!(answer.served, Served::Reply(26));
        assert_eq!(answer.body(), b"DDDDDDDDDD");
        assert!(answer.memory[26..].iter().all(|byte| *byte == UNTOUCHED), "{cuts:?}");
    }
}

#[test]
fn a_read_of_more_than_its_memory_is_refused_and_not_cut_short() {
    for (size, room) in [(11, 10), (4097, 4096), (u32::MAX, 4096), (u32::MAX - 15, 0), (1, 0)] {
        let server = started();
        let answer = send_cut(&server, &read(size), 16 + room, &[], true);
        assert_eq!(answer.error(), Errno::EINVAL.get(), "{size} {room}");
        assert!(server.file_system().take_calls().is_empty());
        assert!(answer.memory[16..].iter().all(|byte| *byte == UNTOUCHED));
    }
    assert_eq!(send_cut(&started(), &read(0), 16, &[], true).served, Served::Reply(16));
    assert_eq!(send_cut(&started(), &read(4096), 16 + 4096, &[], true).served, Served::Reply(4112));
}

#[test]
fn listings_and_attributes_get_no_more_room_than_they_name() {
    for (operation, body) in [
        (Readdir, format!("{FH} 00*8 11100000 00*20")),
        (Readdirplus, format!("{FH} 00*8 11100000 00*20")),
        (Getxattr, "11100000 00*4 'user.a' 00".to_owned()),
        (Listxattr, "11100000 00*4".to_owned()),
    ] {
        let server = started();
        let answer = send_cut(&server, &request(operation, &body), 16 + 4096, &[], true);
        assert_eq!(answer.error(), Errno::EINVAL.get(), "{operation:?} of 4113 bytes into 4096");
        assert!(server.file_system().take_calls().is_empty());
    }
    // Room for the first of two entries, named by the request, in memory for more.
    let answer = send_cut(&started(), &request(Readdir, &format!("{FH} 00*8 2f000000 00*20")), 4096, &[], true);
    assert_eq!(answer.body().len(), 32);
}

#[test]
fn every_reply_fits_its_memory_to_the_byte_or_is_an_error_before_anything_is_done() {
    for golden in GOLDEN.iter().filter(|golden| golden.operation.has_reply()) {
        let sized_by_request =
            matches!(golden.operation, Read | Readlink | Readdir | Readdirplus | Getxattr | Listxattr);
        let whole = message(golden.operation.number(), golden.extensions, &bytes(golden.request));
        let reply = bytes(golden.reply);
        let full = 16 + reply.len();
        if !sized_by_request {
            assert_eq!(send_cut(&started(), &whole, full, &[], true).body(), reply, "{}", golden.operation.name());
            let fixed = 16 + golden.operation.reply_size(46);
            for room in 16..fixed {
                let server = started();
                let answer = send_cut(&server, &whole, room, &[], true);
                assert_eq!(answer.error(), Errno::EINVAL.get(), "{} {room}", golden.operation.name());
                assert!(server.file_system().take_calls().is_empty(), "{} {room}", golden.operation.name());
            }
        }
    }
}

#[test]
fn without_room_for_a_header_nothing_is_written_and_nothing_is_done() {
    for golden in GOLDEN {
        let whole = message(golden.operation.number(), golden.extensions, &bytes(golden.request));
        for room in 0..16 {
            let server = started();
            let answer = send_cut(&server, &whole, room, &[5], true);
            if golden.operation.has_reply() {
                assert_eq!(answer.served, Served::Dropped(Dropped::NoRoom), "{}", golden.operation.name());
                assert!(server.file_system().take_calls().is_empty());
            } else {
                assert_eq!(answer.served, Served::Silent, "{}", golden.operation.name());
            }
        }
    }
}

#[test]
fn what_has_no_reply_uses_no_memory_even_where_there_is_some() {
    for operation in [Forget, BatchForget, Interrupt] {
        let golden = GOLDEN.iter().find(|golden| golden.operation == operation).unwrap();
        let answer = send(&started(), &request(operation, golden.request));
        assert_eq!(answer.served, Served::Silent);
        assert!(answer.memory.iter().all(|byte| *byte == UNTOUCHED));
    }
}

#[test]
fn a_reply_is_the_same_however_its_memory_is_cut() {
    for golden in GOLDEN.iter().filter(|golden| golden.operation.has_reply()) {
        let whole = message(golden.operation.number(), golden.extensions, &bytes(golden.request));
        let expected = send_cut(&started(), &whole, 4112, &[], true);
        for cuts in [&[1; 200][..], &[0, 7, 0, 9, 1, 500], &[15], &[17, 3, 0]] {
            assert_eq!(send_cut(&started(), &whole, 4112, cuts, true), expected, "{}", golden.operation.name());
        }
    }
}

#[test]
fn what_would_block_leaves_no_trace_and_is_served_again() {
    let server = started();
    server.file_system().blocks.store(true, Ordering::Relaxed);
    let refused = send_cut(&server, &read(10), 64, &[], false);
    assert_eq!(refused.served, Served::WouldBlock);
    assert!(refused.memory.iter().all(|byte| *byte == UNTOUCHED));
    assert!(server.file_system().take_calls().is_empty());
    assert_eq!(send_cut(&server, &read(10), 64, &[], true).body(), b"DDDDDDDDDD");
}

#[test]
fn a_method_that_is_left_out_answers_enosys() {
    struct Bare;
    impl ferryfs::protocol::FileSystem for Bare {
        fn wishes(&self) -> ferryfs::protocol::Wishes {
            unstarted(false).file_system().wishes
        }
    }
    let server = ferryfs::protocol::Server::new(Bare, Default::default());
    assert_eq!(send(&server, &init()).error(), 0);
    for golden in GOLDEN.iter().filter(|golden| golden.operation.has_reply()) {
        let answer = send(&server, &message(golden.operation.number(), golden.extensions, &bytes(golden.request)));
        assert_eq!(answer.error(), Errno::ENOSYS.get(), "{}", golden.operation.name());
    }
}
