//! A read-only share refuses what would change it, by the table and in one place.

use ferryfs::protocol::Operation::{self, *};
use ferryfs::protocol::Served;
use fuse_abi::Errno;

use crate::golden::GOLDEN;
use crate::guest::{bytes, init, message, request, send, unstarted};

#[test]
fn every_operation_that_changes_anything_is_erofs_and_no_other() {
    const CHANGES: &[Operation] = &[
        Setattr,
        Symlink,
        Mknod,
        Mkdir,
        Unlink,
        Rmdir,
        Rename,
        Link,
        Open,
        Write,
        Setxattr,
        Removexattr,
        Create,
        Fallocate,
        Rename2,
        CopyFileRange,
        CopyFileRange64,
        Tmpfile,
    ];
    let server = unstarted(true);
    assert_eq!(send(&server, &init()).error(), 0);
    server.file_system().take_calls();
    for golden in GOLDEN {
        let answer = send(&server, &message(golden.operation.number(), golden.extensions, &bytes(golden.request)));
        let refused = CHANGES.contains(&golden.operation) || golden.call.contains(" Set");
        let calls = server.file_system().take_calls();
        assert_eq!(calls.is_empty(), refused, "{}: {calls:?}", golden.operation.name());
        if golden.operation.has_reply() {
            assert_eq!(answer.error(), if refused { Errno::EROFS.get() } else { 0 }, "{}", golden.operation.name());
        } else {
            assert_eq!(answer.served, Served::Silent);
        }
    }
}

#[test]
fn an_open_is_judged_by_its_flags_and_access_by_its_mask() {
    let server = unstarted(true);
    assert_eq!(send(&server, &init()).error(), 0);
    for (operation, body, refused) in [
        (Open, "00000000 00*4", false),
        (Open, "00800000 00*4", false), // O_LARGEFILE
        (Open, "01000000 00*4", true),
        (Open, "02000000 00*4", true),
        (Open, "00020000 00*4", true), // O_TRUNC
        (Opendir, "00000100 00*4", false),
        (Access, "00000000 00*4", false),
        (Access, "05000000 00*4", false),
        (Access, "02000000 00*4", true),
        (Access, "07000000 00*4", true),
    ] {
        let expected = if refused { Errno::EROFS.get() } else { 0 };
        assert_eq!(send(&server, &request(operation, body)).error(), expected, "{operation:?} {body}");
    }
}
