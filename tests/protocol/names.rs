//! Names are refused once, in the parser, in every operation that carries one.

use ferryfs::protocol::Operation::{self, *};
use fuse_abi::Errno;

use crate::guest::{bytes, message, send, started};

/// Where each operation has names: what stands before and after each, in the notation of [`bytes`].
const PLACES: &[(Operation, &str, &str)] = &[
    (Lookup, "", ""),
    (Symlink, "", "'target' 00"),
    (Mknod, "a4810000 00*12", ""),
    (Mkdir, "ed010000 00*4", ""),
    (Unlink, "", ""),
    (Rmdir, "", ""),
    (Rename, "2b00000000000000", "'new' 00"),
    (Rename, "2b00000000000000 'old' 00", ""),
    (Link, "0700000000000000", ""),
    (Create, "42000000 a4810000 00*8", ""),
    (Rename2, "2b00000000000000 00*8", "'new' 00"),
    (Rename2, "2b00000000000000 00*8 'old' 00", ""),
];

const XATTR_PLACES: &[(Operation, &str, &str)] =
    &[(Setxattr, "05000000 00*12", "'value'"), (Getxattr, "40000000 00*4", ""), (Removexattr, "", "")];

fn answer(operation: Operation, parts: [&[u8]; 3]) -> (i32, Vec<String>) {
    let server = started();
    let error = send(&server, &message(operation.number(), 0, &parts.concat())).error();
    (error, server.file_system().take_calls())
}

#[test]
fn a_name_that_is_not_one_component_is_refused_wherever_it_stands() {
    let long = [b"x".repeat(256).as_slice(), b"\0"].concat();
    let bad: &[(&[u8], Errno)] = &[
        (b"\0", Errno::EINVAL),
        (b".\0", Errno::EINVAL),
        (b"..\0", Errno::EINVAL),
        (b"/\0", Errno::EINVAL),
        (b"a/b\0", Errno::EINVAL),
        (b"../x\0", Errno::EINVAL),
        (b"/etc/passwd\0", Errno::EINVAL),
        (b"x/\0", Errno::EINVAL),
        (&long, Errno::ENAMETOOLONG),
    ];
    for (operation, before, after) in PLACES {
        for (name, errno) in bad {
            if *operation == Lookup && [&b".\0"[..], b"..\0"].contains(name) {
                continue;
            }
            let (error, calls) = answer(*operation, [&bytes(before), name, &bytes(after)]);
            assert_eq!(error, errno.get(), "{operation:?} {}", name.escape_ascii());
            assert!(calls.is_empty(), "{operation:?} {}: {calls:?}", name.escape_ascii());
        }
    }
}

#[test]
fn the_longest_name_is_taken_wherever_it_stands() {
    let name = [b"x".repeat(255).as_slice(), b"\0"].concat();
    for (operation, before, after) in PLACES.iter().chain(XATTR_PLACES) {
        let (error, calls) = answer(*operation, [&bytes(before), &name, &bytes(after)]);
        assert_eq!((error, calls.len()), (0, 1), "{operation:?}");
    }
}

#[test]
fn a_name_without_its_terminator_is_refused() {
    for (operation, before, after) in PLACES.iter().chain(XATTR_PLACES) {
        if !after.is_empty() {
            continue; // What follows would end it.
        }
        let (error, calls) = answer(*operation, [&bytes(before), b"name", b""]);
        assert_eq!((error, calls.len()), (Errno::EINVAL.get(), 0), "{operation:?}");
    }
}

#[test]
fn bytes_behind_the_last_terminator_are_refused() {
    for (operation, before, after) in PLACES.iter().chain(&XATTR_PLACES[1..]) {
        for tail in [&b"\0"[..], b"tail", b"hidden\0"] {
            let (error, calls) = answer(*operation, [&bytes(before), b"name\0", &[&bytes(after), tail].concat()]);
            assert_eq!((error, calls.len()), (Errno::EINVAL.get(), 0), "{operation:?} {}", tail.escape_ascii());
        }
    }
}

#[test]
fn lookup_alone_takes_the_dots() {
    assert_eq!(answer(Lookup, [b".\0", b"", b""]), (0, vec!["lookup 42 Dot".to_owned()]));
    assert_eq!(answer(Lookup, [b"..\0", b"", b""]), (0, vec!["lookup 42 DotDot".to_owned()]));
}

#[test]
fn a_link_target_is_any_text_that_fits() {
    let symlink = |target: &[u8]| answer(Symlink, [b"l\0", target, b"\0"]).0;
    for target in [&b"."[..], b"..", b"/etc/passwd", b"../../..", &b"x".repeat(4095)] {
        assert_eq!(symlink(target), 0);
    }
    assert_eq!(symlink(b""), Errno::ENOENT.get());
    assert_eq!(symlink(&b"x".repeat(4096)), Errno::ENAMETOOLONG.get());
    assert_eq!(answer(Symlink, [b"l\0", b"unended", b""]).0, Errno::EINVAL.get());
    assert_eq!(answer(Symlink, [b"l\0", b"", b""]).0, Errno::EINVAL.get());
}

#[test]
fn an_attribute_name_is_bounded_as_linux_bounds_it() {
    let long = [b"x".repeat(256).as_slice(), b"\0"].concat();
    for (operation, before, after) in XATTR_PLACES {
        for name in [&b"\0"[..], &long] {
            let (error, calls) = answer(*operation, [&bytes(before), name, &bytes(after)]);
            assert_eq!((error, calls.len()), (Errno::ERANGE.get(), 0), "{operation:?}");
        }
    }
}

#[test]
fn the_name_of_a_temporary_file_is_not_looked_at() {
    for name in [&b"/\0"[..], b"#123\0", b"..\0", b"\0", b"a/b\0"] {
        let (error, calls) = answer(Tmpfile, [&bytes("02804100 a4810000 00*8"), name, b""]);
        assert_eq!((error, calls.len()), (0, 1), "{}", name.escape_ascii());
        assert!(calls[0].starts_with("tmpfile 42 ReadWrite mode 100644"), "{calls:?}");
    }
    assert_eq!(answer(Tmpfile, [&bytes("02804100 a4810000 00*8"), b"unended", b""]).0, Errno::EINVAL.get());
}
