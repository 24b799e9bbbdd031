//! Security labels and supplementary groups behind the names of requests that create.

use ferryfs::protocol::Operation::{self, *};
use ferryfs::protocol::Server;
use fuse_abi::{Errno, InitFlags};

use crate::guest::{bytes, init, message, request, send, started, unstarted};
use crate::recorder::Recorder;

/// What carries extensions, with what stands before them.
const CREATORS: &[(Operation, &str)] = &[
    (Symlink, "'name' 00 'target' 00"),
    (Mknod, "a4810000 00*12 'name' 00"),
    (Mkdir, "ed010000 00*4 'name' 00"),
    (Create, "42000000 a4810000 00*8 'name' 00"),
    (Tmpfile, "02804100 a4810000 00*8 '/' 00"),
];

const LABEL: &str = "28000000 01000000 03000000 00000000 'security.selinux' 00 'ctx' 00*4";
const NO_LABEL: &str = "08000000 00000000";
const GROUP: &str = "10000000 20000000 01000000 05000000";

/// Sends a MKDIR with these extensions, counted in the header in units of eight bytes.
fn mkdir(server: &Server<Recorder>, extensions: &str) -> (i32, String) {
    let tail = bytes(extensions);
    let body = [bytes("ed010000 00*4 'name' 00"), tail.clone()].concat();
    let error = send(server, &message(Mkdir.number(), (tail.len() / 8) as u16, &body)).error();
    (error, server.file_system().take_calls().concat())
}

#[test]
fn every_request_that_creates_may_carry_a_label_and_a_group() {
    let server = started();
    for (operation, before) in CREATORS {
        let body = bytes(&format!("{before} {LABEL} {GROUP}"));
        assert_eq!(send(&server, &message(operation.number(), 7, &body)).error(), 0, "{operation:?}");
        let calls = server.file_system().take_calls().concat();
        assert!(calls.ends_with("group Some(5) label Some(\"security.selinux=ctx\")"), "{operation:?}: {calls}");
    }
}

#[test]
fn extensions_come_in_any_order_and_may_be_missing() {
    let server = started();
    for (extensions, found) in [
        ("", "group None label None"),
        (NO_LABEL, "group None label None"),
        (&format!("{NO_LABEL} {GROUP}"), "group Some(5) label None"),
        (&format!("{GROUP} {LABEL}"), "group Some(5) label Some(\"security.selinux=ctx\")"),
        (LABEL, "group None label Some(\"security.selinux=ctx\")"),
    ] {
        let (error, calls) = mkdir(&server, extensions);
        assert_eq!(error, 0, "{extensions}");
        assert!(calls.ends_with(found), "{extensions}: {calls}");
    }
}

#[test]
fn malformed_extensions_are_refused_and_nothing_is_created() {
    let server = started();
    let invalid = Errno::EINVAL;
    for (extensions, errno) in [
        // Sizes: none, shorter than the header, not a multiple of eight, beyond the end.
        ("00*8", invalid),
        ("04000000 20000000", invalid),
        ("0c000000 20000000 01000000 05000000", invalid),
        (
            "14000000 20000000 01000000 05000000 00*4 24000000 01000000 03000000 00*4 'security.selinux' 00 'ctx'",
            invalid,
        ),
        ("18000000 20000000 01000000 05000000", invalid),
        ("ffffffff 20000000 01000000 05000000", invalid),
        // A group list that is empty, longer than one, longer than its record.
        ("10000000 20000000 00000000 05000000", invalid),
        ("18000000 20000000 02000000 05000000 06000000 00*4", invalid),
        ("10000000 20000000 ffffffff 05000000", invalid),
        ("08000000 20000000", invalid),
        // Twice the same, and what nobody knows.
        (&format!("{GROUP} {GROUP}"), invalid),
        (&format!("{LABEL} {LABEL}"), invalid),
        (&format!("{NO_LABEL} {LABEL}"), invalid),
        ("10000000 21000000 01000000 05000000", invalid),
        ("10000000 ffffffff 01000000 05000000", invalid),
        // Labels: more than one, a name without end or empty, a value beyond the record, a gap, bytes for none.
        ("10000000 02000000 00*8", Errno::EOPNOTSUPP),
        ("10000000 1f000000 00*8", Errno::EOPNOTSUPP),
        ("20000000 01000000 03000000 00000000 'security.selinux'", invalid),
        ("18000000 01000000 03000000 00000000 00 'ctxctxc'", invalid),
        ("20000000 01000000 06000000 00000000 'security.aa' 00 'ctxx'", invalid),
        ("20000000 01000000 ffffffff 00000000 'security.aa' 00 'ctxx'", invalid),
        ("28000000 01000000 04000000 00000000 'security.aa' 00 'ctxx' 00*8", invalid),
        ("08000000 01000000", invalid),
        ("10000000 00000000 00*8", invalid),
    ] {
        let (error, calls) = mkdir(&server, extensions);
        assert_eq!(error, errno.get(), "{extensions}");
        assert_eq!(calls, "", "{extensions}");
    }
}

#[test]
fn the_header_cannot_count_more_extensions_than_there_are_bytes() {
    let server = started();
    let body = bytes(&format!("ed010000 00*4 'name' 00 {GROUP}"));
    for units in [3, 4, 5, 0x7fff, 0xffff] {
        assert_eq!(send(&server, &message(Mkdir.number(), units, &body)).error(), Errno::EINVAL.get(), "{units}");
    }
    assert_eq!(send(&server, &message(Statfs.number(), 1, &[])).error(), Errno::EINVAL.get());
    // An operation that creates nothing carries none.
    let body = bytes(&format!("'name' 00 {GROUP}"));
    assert_eq!(send(&server, &message(Unlink.number(), 2, &body)).error(), Errno::EINVAL.get());
    assert!(server.file_system().take_calls().is_empty());
}

#[test]
fn a_label_that_the_header_does_not_count_is_read_as_versions_7_36_and_7_37_send_it() {
    let server = started();
    for (operation, before) in CREATORS {
        assert_eq!(send(&server, &request(*operation, &format!("{before} {LABEL}"))).error(), 0, "{operation:?}");
        let calls = server.file_system().take_calls().concat();
        assert!(calls.ends_with("label Some(\"security.selinux=ctx\")"), "{operation:?}: {calls}");
    }
}

#[test]
fn what_was_not_agreed_on_is_refused() {
    for (missing, extensions) in [(InitFlags::SECURITY_CTX, LABEL), (InitFlags::CREATE_SUPP_GROUP, GROUP)] {
        let mut fs = Recorder::default();
        fs.wishes.flags.remove(missing);
        let server = Server::new(fs, Default::default());
        assert_eq!(send(&server, &init()).error(), 0);
        server.file_system().take_calls();
        assert_eq!(mkdir(&server, extensions), (Errno::EINVAL.get(), String::new()), "{missing:?}");
    }
    assert_eq!(mkdir(&unstarted(false), GROUP).0, Errno::EIO.get());
}
