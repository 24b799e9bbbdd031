//! A request and its reply for every operation, byte for byte, written from the layout of the kernel's header.

use ferryfs::protocol::Operation::{self, *};
use ferryfs::protocol::{Dropped, Served};
use fuse_abi::Errno;

use crate::guest::{bytes, init, message, send, started, unstarted};

/// One request: its body, what the file system must be asked, and the body of the reply.
pub struct Golden {
    pub operation: Operation,
    /// Units of eight bytes of extensions at the end.
    pub extensions: u16,
    pub request: &'static str,
    pub call: &'static str,
    pub reply: &'static str,
}

const fn row(operation: Operation, request: &'static str, call: &'static str, reply: &'static str) -> Golden {
    Golden { operation, extensions: 0, request, call, reply }
}

const fn row_ext(operation: Operation, ext: u16, req: &'static str, call: &'static str, reply: &'static str) -> Golden {
    Golden { operation, extensions: ext, request: req, call, reply }
}

// struct fuse_attr: ino size blocks atime mtime ctime, their nsec, mode nlink uid gid rdev blksize flags.
macro_rules! attr {
    () => {
        "0a00000000000000 3412000000000000 0300000000000000 0100000000000000 0200000000000000 0300000000000000
         04000000 05000000 06000000 a4810000 01000000 e8030000 e9030000 00000000 00100000 00000000"
    };
}
// struct fuse_entry_out: nodeid generation entry_valid attr_valid, their nsec, attr.
macro_rules! entry {
    () => {
        concat!("2b00000000000000 0100000000000000 0500000000000000 0600000000000000 07000000 08000000 ", attr!())
    };
}
// struct fuse_attr_out: attr_valid attr_valid_nsec dummy attr.
macro_rules! attr_out {
    () => {
        concat!("0600000000000000 08000000 00000000 ", attr!())
    };
}
// struct fuse_open_out: fh open_flags backing_id.
macro_rules! open {
    () => {
        "7700000000000000 02000000 00000000"
    };
}
// 24 bytes that most requests on open files begin with: fh, and a position or a number.
macro_rules! fh {
    () => {
        "7700000000000000 "
    };
}
// struct fuse_lk_in: fh owner, struct fuse_file_lock (start end type pid), lk_flags padding.
macro_rules! lock {
    ($kind:literal, $flags:literal) => {
        concat!(
            "7700000000000000 0500000000000000 1000000000000000 1f00000000000000 ",
            $kind,
            "000000 4d000000 ",
            $flags,
            "000000 00*4"
        )
    };
}
macro_rules! locked {
    ($kind:literal, $flock:literal, $wait:literal) => {
        concat!(
            "42 LockArgs { handle: HandleId(119), owner: 5, lock: FileLock { start: 16, end: 31, type: ",
            $kind,
            ", pid: 77 }, flock: ",
            $flock,
            ", wait: ",
            $wait,
            " }"
        )
    };
}
// A security label `security.selinux` = `ctx` (fuse_secctx_header, fuse_secctx, name, value, padding) and the group 5
// (fuse_ext_header, fuse_supp_groups, padding).
macro_rules! labelled {
    () => {
        "28000000 01000000 03000000 00000000 'security.selinux' 00 'ctx' 00*4 10000000 20000000 01000000 05000000"
    };
}
const LABEL: &str = "group Some(5) label Some(\"security.selinux=ctx\")";

/// Every operation that is served, but for INIT and DESTROY.
pub const GOLDEN: &[Golden] = &[
    row(Lookup, "'a.txt' 00", "lookup 42 a.txt", entry!()),
    row(Forget, "0300000000000000", "forget 42 3", ""),
    row(Getattr, "00000000 00000000 0000000000000000", "getattr 42 None", attr_out!()),
    row(Getattr, "01000000 00000000 7700000000000000", "getattr 42 Some(119)", attr_out!()),
    row(
        Setattr,
        // valid = MODE|UID|GID|SIZE|ATIME|MTIME|FH|CTIME|KILL_SUIDGID
        "7f0c0000 00000000 7700000000000000 0010000000000000 0000000000000000 ffffffffffffffff 0200000000000000
         0300000000000000 04000000 05000000 06000000 ed810000 00000000 e8030000 e9030000 00000000",
        "setattr 42 AttributeChanges { handle: Some(HandleId(119)), mode: Some(493), uid: Some(1000), gid: Some(1001), \
         size: Some(4096), atime: Some(At(Timestamp { seconds: -1, nanoseconds: 4 })), \
         mtime: Some(At(Timestamp { seconds: 2, nanoseconds: 5 })), \
         ctime: Some(Timestamp { seconds: 3, nanoseconds: 6 }), kill_suidgid: true }",
        attr_out!(),
    ),
    row(
        Setattr,
        // valid = ATIME|MTIME|ATIME_NOW|MTIME_NOW|LOCKOWNER
        "b0030000 00*84",
        "setattr 42 AttributeChanges { handle: None, mode: None, uid: None, gid: None, size: None, \
         atime: Some(Now), mtime: Some(Now), ctime: None, kill_suidgid: false }",
        attr_out!(),
    ),
    row(Readlink, "", "readlink 42 room 4095", "'target'"),
    row(
        Symlink,
        "'link' 00 '../any/where' 00",
        "symlink 42 link -> ../any/where mode 120777 umask 0 group None label None",
        entry!(),
    ),
    row(
        Mknod,
        "a0110000 03010000 12000000 00000000 'pipe' 00",
        "mknod 42 pipe 0x103 mode 10640 umask 22 group None label None",
        entry!(),
    ),
    row(Mkdir, "ed010000 12000000 'dir' 00", "mkdir 42 dir mode 40755 umask 22 group None label None", entry!()),
    row(Unlink, "'a.txt' 00", "unlink 42 a.txt", ""),
    row(Rmdir, "'dir' 00", "rmdir 42 dir", ""),
    row(Rename, "2b00000000000000 'old' 00 'new' 00", "rename 42 old -> 43 new Replace", ""),
    row(Link, "0700000000000000 'hard' 00", "link 7 at 42 hard", entry!()),
    row(Open, "01820000 01000000", "open 42 Write truncate kill true", open!()),
    row(
        Read,
        concat!(fh!(), "0010000000000000 0a000000 00000000 0000000000000000 00000000 00000000"),
        "read 42 ReadArgs { handle: HandleId(119), offset: 4096, size: 10 }",
        "44*10",
    ),
    row(
        Write,
        concat!(fh!(), "0010000000000000 05000000 05000000 0000000000000000 00000000 00000000 'hello'"),
        "write 42 WriteArgs { handle: HandleId(119), offset: 4096, from_cache: true, kill_suidgid: true, flags: OpenFlags { access: Read, options: Options(0x0) } } hello",
        "05000000 00000000",
    ),
    row(
        Statfs,
        "",
        "statfs 42",
        "6400000000000000 3200000000000000 2800000000000000 1e00000000000000 1400000000000000
         00100000 ff000000 00100000 00000000 00*24",
    ),
    row(Release, concat!(fh!(), "02000000 02000000 0500000000000000"), "release 42 119 Some(5)", ""),
    row(Release, concat!(fh!(), "02000000 01000000 0500000000000000"), "release 42 119 None", ""),
    row(Fsync, concat!(fh!(), "01000000 00000000"), "fsync 42 119 true", ""),
    row(
        Setxattr,
        "05000000 01000000 01000000 00000000 'user.a' 00 'value'",
        "setxattr 42 user.a=value 1 kill true",
        "",
    ),
    row(Getxattr, "40000000 00000000 'user.a' 00", "getxattr 42 user.a 64 room 64", "'value'"),
    row(Getxattr, "00000000 00000000 'user.a' 00", "getxattr 42 user.a 0 room 0", "05000000 00000000"),
    row(Listxattr, "40000000 00000000", "listxattr 42 64 room 64", "'user.a' 00 'user.b' 00"),
    row(Listxattr, "00000000 00000000", "listxattr 42 0 room 0", "0e000000 00000000"),
    row(Removexattr, "'user.a' 00", "removexattr 42 user.a", ""),
    row(Flush, concat!(fh!(), "00000000 00000000 0500000000000000"), "flush 42 119 5", ""),
    row(Opendir, "00000100 00000000", "opendir 42 Read", open!()),
    row(
        Readdir,
        concat!(fh!(), "0300000000000000 00100000 00000000 0000000000000000 00000000 00000000"),
        "readdir 42 ReadDirArgs { handle: HandleId(119), offset: 3 }",
        "0a00000000000000 0100000000000000 05000000 08000000 'a.txt' 00*3
         0b00000000000000 0200000000000000 09000000 04000000 'directory' 00*7",
    ),
    row(Releasedir, concat!(fh!(), "00000100 00000000 0000000000000000"), "releasedir 42 119", ""),
    row(Fsyncdir, concat!(fh!(), "00000000 00000000"), "fsyncdir 42 119 false", ""),
    row(
        Getlk,
        lock!("00", "00"),
        concat!("getlk ", locked!("0", "false", "false")),
        "0100000000000000 0200000000000000 01000000 63000000",
    ),
    row(Setlk, lock!("01", "01"), concat!("setlk ", locked!("1", "true", "false")), ""),
    row(Setlkw, lock!("02", "00"), concat!("setlk ", locked!("2", "false", "true")), ""),
    row(Access, "05000000 00000000", "access 42 5", ""),
    row(
        Create,
        "c2800000 a4810000 12000000 00000000 'a.txt' 00",
        "create 42 a.txt ReadWrite exclusive kill false mode 100644 umask 22 group None label None",
        concat!(entry!(), " ", open!()),
    ),
    row_ext(
        Create,
        7,
        concat!("41820000 a4810000 12000000 01000000 'a.txt' 00 ", labelled!()),
        "create 42 a.txt Write truncate kill true mode 100644 umask 22 group Some(5) label \
         Some(\"security.selinux=ctx\")",
        concat!(entry!(), " ", open!()),
    ),
    row(Interrupt, "0900000000000000", "interrupt 9", ""),
    row(
        Ioctl,
        concat!(fh!(), "00000000 01660880 0000000000000000 00000000 04000000"),
        "ioctl 42 119 GetFlags",
        "00000000 00000000 00000000 00000000 80000000",
    ),
    row(
        Ioctl,
        concat!(fh!(), "00000000 02660840 0000000000000000 04000000 00000000 10000000"),
        "ioctl 42 119 SetFlags(16)",
        "00000000 00000000 00000000 00000000",
    ),
    row(
        Ioctl,
        concat!(fh!(), "10000000 1f581c80 0000000000000000 00000000 1c000000"),
        "ioctl 42 119 GetExtended",
        "00000000 00000000 00000000 00000000 09*28",
    ),
    row(
        Ioctl,
        concat!(fh!(), "00000000 20581c40 0000000000000000 1c000000 00000000 01*28"),
        "ioctl 42 119 SetExtended([1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, \
         1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1])",
        "00000000 00000000 00000000 00000000",
    ),
    row(
        BatchForget,
        "02000000 00000000 2a00000000000000 0100000000000000 2b00000000000000 0500000000000000",
        "forget 42 1\nforget 43 5",
        "",
    ),
    row(
        Fallocate,
        concat!(fh!(), "0010000000000000 0020000000000000 03000000 00000000"),
        "fallocate 42 119 0x3 4096 8192",
        "",
    ),
    row(
        Readdirplus,
        concat!(fh!(), "0000000000000000 00100000 00000000 0000000000000000 00000000 00000000"),
        "readdirplus 42 ReadDirArgs { handle: HandleId(119), offset: 0 }",
        concat!(entry!(), " 0a00000000000000 0100000000000000 05000000 08000000 'a.txt' 00*3"),
    ),
    row(Rename2, "2b00000000000000 02000000 00000000 'a' 00 'b' 00", "rename 42 a -> 43 b Exchange", ""),
    row(Lseek, concat!(fh!(), "0010000000000000 03000000 00000000"), "lseek 42 119 4096 Data", "0030000000000000"),
    row(
        CopyFileRange,
        concat!(fh!(), "0100000000000000 2b00000000000000 7800000000000000 0200000000000000 0040000000000000 00*8"),
        "copy_file_range CopyRange { from: (NodeId(42), HandleId(119)), from_offset: 1, \
         to: (NodeId(43), HandleId(120)), to_offset: 2, len: 16384 }",
        "00400000 00000000",
    ),
    row(
        CopyFileRange64,
        concat!(fh!(), "0100000000000000 2b00000000000000 7800000000000000 0200000000000000 0000000002000000 00*8"),
        "copy_file_range CopyRange { from: (NodeId(42), HandleId(119)), from_offset: 1, \
         to: (NodeId(43), HandleId(120)), to_offset: 2, len: 8589934592 }",
        "0000000002000000",
    ),
    row(Syncfs, "00*8", "syncfs 42", ""),
    row(
        Tmpfile,
        "02804100 a4810000 12000000 00000000 '/' 00",
        "tmpfile 42 ReadWrite mode 100644 umask 22 group None label None",
        concat!(entry!(), " ", open!()),
    ),
    row(
        Statx,
        "01000000 00000000 7700000000000000 00200000 ff070000",
        "statx 42 Some(119) 0x2000 0x7ff",
        // fuse_statx_out: attr_valid attr_valid_nsec flags spare, then fuse_statx.
        "0600000000000000 08000000 00000000 00*16
         ff070000 00100000 0000000000000000 01000000 00000000 00000000 a481 0000
         0a00000000000000 00*24 00*64 00*16 00*112",
    ),
];

#[test]
fn every_operation_is_read_and_answered_as_the_header_lays_it_out() {
    let server = started();
    for golden in GOLDEN {
        let name = golden.operation.name();
        let answer = send(&server, &message(golden.operation.number(), golden.extensions, &bytes(golden.request)));
        assert_eq!(server.file_system().take_calls().join("\n"), golden.call, "{name}");
        if golden.operation.has_reply() {
            assert_eq!(answer.body(), bytes(golden.reply), "{name}");
        } else {
            assert_eq!(answer.served, Served::Silent, "{name}");
        }
    }
}

#[test]
fn no_operation_lacks_a_golden_request() {
    for operation in Operation::ALL {
        let tested = GOLDEN.iter().any(|golden| golden.operation == *operation);
        let elsewhere =
            [Init, Destroy].contains(operation) || UNSERVED.iter().any(|(number, _)| *number == operation.number());
        assert_ne!(tested, elsewhere, "{}", operation.name());
    }
}

#[test]
fn a_whole_reply_begins_with_its_length_no_error_and_the_number_of_the_request() {
    let answer = send(&started(), &message(46, 0, &bytes("7700000000000000 0010000000000000 03000000 00000000")));
    assert_eq!(answer.memory[..24], bytes("18000000 00000000 8877665544332211 0030000000000000"));
    let answer = send(&started(), &message(46, 0, &bytes("7700000000000000 0010000000000000 09000000 00000000")));
    assert_eq!(answer.memory[..16], bytes("10000000 eaffffff 8877665544332211"), "-EINVAL");
}

#[test]
fn init_agrees_on_what_both_have() {
    let server = unstarted(false);
    let answer = send(&server, &init());
    // All flags of 7.46 but those that no part of this crate serves; of the upper word, bits 0 to 10 likewise.
    let (flags, flags2) = (0x7bff_fffb_u32, 0x0000_01fd_u32);
    let mut body = bytes("07000000 2e000000 00000100");
    body.extend(flags.to_ne_bytes());
    // max_background 64, congestion 48, max_write 1 MiB, time_gran 1, max_pages 256, map_alignment 0
    body.extend(bytes("4000 3000 00001000 01000000 0001 0000"));
    body.extend(flags2.to_ne_bytes());
    body.extend(bytes("01000000 0000 00*22"));
    assert_eq!(answer.body(), body);
    assert_eq!(server.file_system().take_calls(), ["begin 7.46"]);
}

#[test]
fn destroy_ends_the_session() {
    let server = started();
    let destroy = message(38, 0, &[]);
    assert_eq!(send(&server, &destroy).body(), b"");
    assert_eq!(server.file_system().take_calls(), ["end"]);
    assert_eq!(send(&server, &message(17, 0, &[])).error(), Errno::EIO.get());
    // There is nothing to end twice.
    assert_eq!(send(&server, &destroy).body(), b"");
    assert!(server.file_system().take_calls().is_empty());
}

/// Operations that the table knows and nobody serves, with a body as the kernel sends it.
const UNSERVED: &[(u32, &str)] = &[
    (37, "0000000000000000 00100000 00000000"),
    (40, "7700000000000000 0100000000000000 01000000 01000000"),
    (41, "00*40"),
    (48, "7700000000000000 00*32"),
    (49, "01000000 00*16"),
    (4096, "07000000 2e000000 00000000 00000000"),
];

#[test]
fn what_is_not_served_is_enosys_and_so_is_what_no_protocol_has() {
    let server = started();
    for (number, body) in UNSERVED {
        let answer = send(&server, &message(*number, 0, &bytes(body)));
        if *number == 41 {
            assert_eq!(answer.served, Served::Dropped(Dropped::Refused(Errno::ENOSYS)));
        } else {
            assert_eq!(answer.error(), Errno::ENOSYS.get(), "{number}");
        }
    }
    for number in [0, 7, 19, 54, 4097, u32::MAX] {
        assert_eq!(send(&server, &message(number, 0, b"anything")).error(), Errno::ENOSYS.get(), "{number}");
    }
    assert!(server.file_system().take_calls().is_empty());
}

#[test]
fn the_file_system_learns_who_asks() {
    let server = started();
    send(&server, &message(1, 0, b"a\0"));
    let cx = server.file_system().context.lock().unwrap().unwrap();
    assert_eq!((cx.unique, cx.uid, cx.gid, cx.pid), (0x1122_3344_5566_7788, 1000, 1001, 77));
    assert_eq!(Some(cx.agreed), server.agreement().map(|agreed| agreed.flags));
    assert!(cx.may_block);
    assert!(GOLDEN.iter().any(|golden| golden.call.contains(LABEL)));
}
