//! Values that requests cannot have, and lengths that disagree.

use ferryfs::protocol::Operation::{self, *};
use ferryfs::protocol::{Dropped, MAX_HEAD, Payload, Served, Server};
use fuse_abi::{Errno, InitFlags};

use crate::golden::GOLDEN;
use crate::guest::{bytes, init, message, request, send, send_cut, started};
use crate::recorder::Recorder;

const FH: &str = "7700000000000000";
const BEYOND: &str = "0000000000000080";
const MOST: &str = "ffffffffffffff7f";

#[track_caller]
fn refused(operation: Operation, body: &str, errno: Errno) {
    let server = started();
    let answer = send(&server, &request(operation, body));
    let calls = server.file_system().take_calls();
    if operation.has_reply() {
        assert_eq!(answer.error(), errno.get(), "{operation:?} {body}");
    } else {
        assert_eq!(answer.served, Served::Dropped(Dropped::Refused(errno)), "{operation:?} {body}");
    }
    assert!(calls.is_empty(), "{operation:?} {body}: {calls:?}");
}

#[track_caller]
fn accepted(operation: Operation, body: &str) -> String {
    let server = started();
    assert_eq!(send(&server, &request(operation, body)).error(), 0, "{operation:?} {body}");
    server.file_system().take_calls().concat()
}

#[test]
fn a_request_cut_short_or_lengthened_by_a_byte_is_refused() {
    for golden in GOLDEN {
        let body = bytes(golden.request);
        let longer = [&body[..], b"x"].concat();
        let shorter = body.split_last().map(|(_, rest)| rest.to_vec());
        for wrong in [Some(longer), shorter].into_iter().flatten() {
            let server = started();
            let answer = send(&server, &message(golden.operation.number(), golden.extensions, &wrong));
            if golden.operation.has_reply() {
                assert_ne!(answer.error(), 0, "{}", golden.operation.name());
            } else {
                assert!(matches!(answer.served, Served::Dropped(Dropped::Refused(_))), "{}", golden.operation.name());
            }
            let calls = server.file_system().take_calls();
            assert!(calls.is_empty(), "{}: {calls:?}", golden.operation.name());
        }
    }
}

#[test]
fn a_header_that_counts_other_bytes_than_there_are_is_refused() {
    for golden in GOLDEN {
        let right = message(golden.operation.number(), golden.extensions, &bytes(golden.request));
        for wrong in [0, 1, 39, 40, right.len() as u32 - 1, right.len() as u32 + 1, u32::MAX] {
            if wrong as usize == right.len() {
                continue;
            }
            let mut lying = right.clone();
            lying[..4].copy_from_slice(&wrong.to_ne_bytes());
            let server = started();
            let answer = send(&server, &lying);
            match golden.operation.has_reply() {
                true => assert_eq!(answer.error(), Errno::EINVAL.get(), "{} {wrong}", golden.operation.name()),
                false => assert_eq!(answer.served, Served::Dropped(Dropped::Refused(Errno::EINVAL))),
            }
            assert!(server.file_system().take_calls().is_empty());
        }
    }
}

#[test]
fn less_than_a_header_cannot_be_answered() {
    let server = started();
    let whole = message(Statfs.number(), 0, &[]);
    for len in 0..40 {
        assert_eq!(send(&server, &whole[..len]).served, Served::Dropped(Dropped::NoHeader), "{len}");
    }
}

#[test]
fn a_write_whose_size_is_not_that_of_its_data_is_einval_and_writes_nothing() {
    let write = |size: u32, data: usize| {
        let mut body = bytes(&format!("{FH} 00*8"));
        body.extend(size.to_ne_bytes());
        body.extend(bytes("00*20"));
        body.extend(vec![b'w'; data]);
        let server = started();
        let answer = send(&server, &message(Write.number(), 0, &body));
        (answer.error(), server.file_system().take_calls().len())
    };
    for (size, data) in [(10, 4096), (4096, 10), (0, 1), (1, 0), (u32::MAX, 4096), (4095, 4096), (4097, 4096)] {
        assert_eq!(write(size, data), (Errno::EINVAL.get(), 0), "{size} {data}");
    }
    for size in [0, 1, 10, 4096, 200_000] {
        assert_eq!(write(size, size as usize), (0, 1), "{size}");
    }
}

#[test]
fn a_write_is_taken_wherever_its_segments_are_cut() {
    let whole = request(Write, &format!("{FH} 00*8 05000000 00*20 'hello'"));
    for at in 0..whole.len() {
        let server = started();
        let answer = send_cut(&server, &whole, 24, &[at, 2, 0, 1], true);
        assert_eq!(answer.body(), bytes("05000000 00*4"));
        assert!(server.file_system().take_calls().concat().ends_with(" hello"));
    }
}

#[test]
fn only_a_write_may_be_longer_than_the_longest_head() {
    let body = [bytes("'link' 00"), vec![b'x'; MAX_HEAD], vec![0]].concat();
    let server = started();
    assert_eq!(send(&server, &message(Symlink.number(), 0, &body)).error(), Errno::E2BIG.get());
    // The longest that Linux sends fits: a name, a target, a label of 64 KiB and a group.
    let mut body = [vec![b'n'; 255], vec![0], vec![b't'; 4095], vec![0]].concat();
    let names = body.len();
    let label = 8 + 8 + 256 + 65536;
    body.extend((label as u32).to_ne_bytes());
    body.extend(bytes("01000000 00000100 00*4"));
    body.extend([vec![b'l'; 255], vec![0], vec![b'v'; 65536]].concat());
    body.extend(bytes("10000000 20000000 01000000 05000000"));
    let units = (body.len() - names) / 8;
    assert_eq!(send(&server, &message(Symlink.number(), units as u16, &body)).error(), 0);
}

#[test]
fn positions_beyond_a_signed_number_are_refused() {
    for (operation, body) in [
        (Read, format!("{FH} {BEYOND} 0a000000 00*20")),
        (Write, format!("{FH} {BEYOND} 01000000 00*20 'w'")),
        (Readdir, format!("{FH} {BEYOND} 00010000 00*20")),
        (Readdirplus, format!("{FH} {BEYOND} 00010000 00*20")),
        (Fallocate, format!("{FH} {BEYOND} 0100000000000000 00*8")),
        (Fallocate, format!("{FH} 00*8 {BEYOND} 00*8")),
        (Fallocate, format!("{FH} 00*8 00*8 00*8")),
        (Lseek, format!("{FH} {BEYOND} 00000000 00*4")),
        (Lseek, format!("{FH} 00*8 05000000 00*4")),
        (CopyFileRange, format!("{FH} {BEYOND} 2b00000000000000 {FH} 00*8 0100000000000000 00*8")),
        (CopyFileRange, format!("{FH} 00*8 2b00000000000000 {FH} {BEYOND} 0100000000000000 00*8")),
        (CopyFileRange64, format!("{FH} 00*8 2b00000000000000 {FH} 00*8 {BEYOND} 00*8")),
        // A flag that no version has.
        (CopyFileRange64, format!("{FH} 00*8 2b00000000000000 {FH} 00*8 0100000000000000 0100000000000000")),
        // valid = SIZE
        (Setattr, format!("08000000 00*4 00*8 {BEYOND} 00*64")),
    ] {
        refused(operation, &body, Errno::EINVAL);
    }
    refused(Lseek, &format!("{FH} {BEYOND} 03000000 00*4"), Errno::ENXIO);
    refused(Lseek, &format!("{FH} {BEYOND} 04000000 00*4"), Errno::ENXIO);
    refused(Fallocate, &format!("{FH} {MOST} 0100000000000000 00*8"), Errno::EFBIG);
    accepted(Read, &format!("{FH} {MOST} 0a000000 00*20"));
}

#[test]
fn nanoseconds_are_below_a_second_where_they_count() {
    for (valid, at) in [("10", 56), ("20", 60), ("0004", 64)] {
        let mut body = bytes(&format!("{valid} 00*{}", 88 - valid.len() / 2));
        body[at..at + 4].copy_from_slice(&1_000_000_000_u32.to_ne_bytes());
        let server = started();
        let wrong = send(&server, &message(Setattr.number(), 0, &body));
        assert_eq!((wrong.error(), server.file_system().take_calls().len()), (Errno::EINVAL.get(), 0), "{valid}");
        body[at..at + 4].copy_from_slice(&999_999_999_u32.to_ne_bytes());
        assert_eq!(send(&server, &message(Setattr.number(), 0, &body)).error(), 0, "{valid}");
        // The same field means nothing when the flag is not set.
        body[at..at + 4].copy_from_slice(&u32::MAX.to_ne_bytes());
        body[..4].fill(0);
        assert_eq!(send(&server, &message(Setattr.number(), 0, &body)).error(), 0, "{valid}");
    }
}

#[test]
fn flags_that_change_the_meaning_are_refused_and_others_passed_over() {
    for flags in ["03", "06", "07", "08", "ff"] {
        refused(Rename2, &format!("2b00000000000000 {flags}000000 00*4 'a' 00 'b' 00"), Errno::EINVAL);
    }
    for (flags, mode) in [
        ("00", "Replace"),
        ("01", "NoReplace"),
        ("02", "Exchange"),
        ("04", "Whiteout { no_replace: false }"),
        ("05", "Whiteout { no_replace: true }"),
    ] {
        let calls = accepted(Rename2, &format!("2b00000000000000 {flags}000000 00*4 'a' 00 'b' 00"));
        assert!(calls.ends_with(mode), "{calls}");
    }
    refused(Open, "03000000 00*4", Errno::EINVAL);
    refused(Access, "08000000 00*4", Errno::EINVAL);
    assert_eq!(accepted(Fsync, &format!("{FH} ffffffff 00*4")), "fsync 42 119 true");
    assert_eq!(accepted(Getattr, "feffffff 00*4 7700000000000000"), "getattr 42 None");
    // SETATTR with every bit that no version knows.
    assert!(accepted(Setattr, "00f0ffff 00*84").ends_with("ctime: None, kill_suidgid: false }"));
}

#[test]
fn a_created_object_has_the_type_of_its_operation() {
    for (operation, before, good, bad) in [
        (Mknod, "", &["a4010000", "a4810000", "a4110000", "a4210000", "a4610000", "a4c10000"][..], "a4410000"),
        (Mknod, "", &[], "a4a10000"),
        (Mkdir, "", &["ed010000", "ed410000"], "ed810000"),
        (Create, "42000000", &["a4010000", "a4810000"], "a4410000"),
        (Tmpfile, "42000000", &["a4010000", "a4810000"], "a4110000"),
    ] {
        let rest = if operation == Mknod { "00*12" } else { "00*8" };
        let rest = if operation == Mkdir { "00*4" } else { rest };
        for mode in good {
            accepted(operation, &format!("{before} {mode} {rest} 'n' 00"));
        }
        refused(operation, &format!("{before} {bad} {rest} 'n' 00"), Errno::EINVAL);
    }
    assert!(accepted(Mknod, "a4010000 00*12 'n' 00").contains("mode 100644"), "no type means a regular file");
}

#[test]
fn locks_are_ranges_of_a_known_type() {
    let lock = |start: &str, end: &str, kind: &str| format!("{FH} 00*8 {start} {end} {kind}000000 00*4 00*8");
    for operation in [Getlk, Setlk, Setlkw] {
        accepted(operation, &lock("00*8", MOST, "02"));
        accepted(operation, &lock(MOST, MOST, "00"));
        refused(operation, &lock("00*8", BEYOND, "00"), Errno::EINVAL);
        refused(operation, &lock("0100000000000000", "00*8", "00"), Errno::EINVAL);
        refused(operation, &lock("00*8", MOST, "03"), Errno::EINVAL);
    }
}

#[test]
fn ioctls_are_the_four_that_every_file_system_has() {
    let call = |flags: &str, cmd: &str, in_size: &str, out_size: &str, data: &str| {
        format!("{FH} {flags}000000 {cmd} 00*8 {in_size}000000 {out_size}000000 {data}")
    };
    // 32-bit and 64-bit numbers; a client may send as many bytes as the number says.
    assert_eq!(accepted(Ioctl, &call("00", "01660480", "00", "04", "")), "ioctl 42 119 GetFlags");
    assert_eq!(accepted(Ioctl, &call("01", "01660880", "00", "08", "")), "ioctl 42 119 GetFlags");
    assert_eq!(accepted(Ioctl, &call("00", "02660440", "04", "00", "10000000")), "ioctl 42 119 SetFlags(16)");
    assert_eq!(accepted(Ioctl, &call("10", "02660840", "08", "00", "1000000000000000")), "ioctl 42 119 SetFlags(16)");
    for (body, errno) in [
        (call("00", "01760880", "00", "08", ""), Errno::ENOTTY), // FS_IOC_GETVERSION
        (call("00", "00*4", "00", "00", ""), Errno::ENOTTY),
        (call("02", "01660880", "00", "04", ""), Errno::ENOTTY), // unrestricted
        (call("00", "01660880", "00", "03", ""), Errno::EINVAL),
        (call("00", "02660840", "03", "00", "100000"), Errno::EINVAL),
        (call("00", "02660840", "04", "00", "1000000000"), Errno::EINVAL),
        (call("00", "1f581c80", "00", "1b", ""), Errno::EINVAL),
        (call("00", "20581c40", "1b", "00", "01*27"), Errno::EINVAL),
    ] {
        refused(Ioctl, &body, errno);
    }
}

#[test]
fn a_batch_of_forgets_holds_as_many_as_it_says() {
    let one = "2a00000000000000 0100000000000000";
    for (count, records) in [("02000000", one.to_owned()), ("00000000", one.to_owned()), ("ffffffff", one.repeat(3))] {
        refused(BatchForget, &format!("{count} 00*4 {records}"), Errno::EINVAL);
    }
    let server = started();
    assert_eq!(send(&server, &request(BatchForget, "00*8")).served, Served::Silent);
    assert!(server.file_system().take_calls().is_empty());
}

#[test]
fn a_batch_of_forgets_that_needs_no_copy_may_be_as_long_as_its_buffer() {
    let records = 20_000;
    let mut body = bytes("204e0000 00*4");
    (0..records).for_each(|_| body.extend(bytes("2a00000000000000 0100000000000000")));
    let whole = message(BatchForget.number(), 0, &body);
    let server = started();
    assert_eq!(server.head_len(&whole[..40], whole.len()), MAX_HEAD);
    assert_eq!(server.private_head_len(&whole[..40], whole.len()), whole.len());
    assert_eq!(server.serve(&whole, Payload::empty(), &[], false), Served::Silent);
    assert_eq!(server.file_system().take_calls().len(), records);
}

#[test]
fn a_value_is_as_long_as_setxattr_says_in_both_forms() {
    for (size, value) in [("04", "'value'"), ("06", "'value'"), ("00", "'v'"), ("01", "")] {
        refused(Setxattr, &format!("{size}000000 00*12 'user.a' 00 {value}"), Errno::EINVAL);
    }
    refused(Setxattr, "01000100 00*12 'user.a' 00 76*65537", Errno::E2BIG);
    accepted(Setxattr, "00000100 00*12 'user.a' 00 76*65536");
    assert_eq!(accepted(Setxattr, "00*16 'user.a' 00"), "setxattr 42 user.a= 0 kill false");

    let mut fs = Recorder::default();
    fs.wishes.flags.remove(InitFlags::SETXATTR_EXT);
    let server = Server::new(fs, Default::default());
    assert_eq!(send(&server, &init()).error(), 0);
    server.file_system().take_calls();
    assert_eq!(send(&server, &request(Setxattr, "05000000 02000000 'user.a' 00 'value'")).error(), 0);
    assert_eq!(server.file_system().take_calls(), ["setxattr 42 user.a=value 2 kill false"]);
}

#[test]
fn a_copy_counted_in_32_bits_is_no_longer_than_its_reply_can_say() {
    let server = started();
    let body = format!("{FH} 00*8 2b00000000000000 {FH} 00*8 {MOST} 00*8");
    assert_eq!(send(&server, &request(CopyFileRange, &body)).body(), bytes("00f0ffff 00*4"));
    assert_eq!(send(&server, &request(CopyFileRange64, &body)).body(), bytes(MOST));
}
