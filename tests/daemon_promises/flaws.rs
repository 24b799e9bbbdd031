//! What is wrong in the reference daemon (virtiofsd 1.14.0), each a test of ours. `FERRYFS_TEST_PEER` names that daemon:
//! then one more test shows that each of them can be seen there, so that these tests can fail.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ferryfs_guest::{Client, Options, Request, expect_errno, skipped};
use fuse_abi::{
    CopyFileRangeIn, CreateIn, EntryOut, Errno, InHeader, MkdirIn, Opcode, ROOT_ID, ReadIn, StatxIn, WriteIn,
};
use zerocopy::IntoBytes;

use crate::support::{O_RDWR, Share, expect_service, in_every_sandbox, options};

/// A flaw: its name, the daemon's options, and what must hold.
type Flaw = (&'static str, &'static [&'static str], fn(&mut Share));

/// A test for each, and the table of all.
macro_rules! flaws {
    ($($name:ident($args:expr) $test:expr;)+) => {
        $(#[test]
        fn $name() {
            in_every_sandbox($args, $test);
        })+
        const FLAWS: &[Flaw] = &[$((stringify!($name), $args, $test)),+];
    };
}

flaws! {
    a_request_that_cannot_be_decoded_does_not_end_the_process(&[]) |share| {
        let mut client = client(share);
        let header = InHeader { len: 1 << 20, ..client.header(Opcode::Getattr.number(), ROOT_ID, 16) };
        let bytes = [header.as_bytes(), &[0; 16]].concat();
        let reply = client.raw_bytes(header.unique, &bytes, 120, &ferryfs_guest::Cuts::LINUX).unwrap();
        assert!(reply.is_sound() && reply.errno().is_some());
        expect_service(&mut client, "a request that cannot be decoded");
    };

    a_read_of_10_bytes_into_a_page_gives_10(&[]) |share| {
        fs::write(share.path().join("file"), vec![7; 4096]).unwrap();
        let mut client = client(share);
        let node = client.lookup(ROOT_ID, "file").unwrap().nodeid;
        let fh = client.open(node, 0).unwrap().fh;
        let body = ReadIn { fh, size: 10, ..ReadIn::default() };
        let reply = client.raw(Opcode::Read, node, body.as_bytes(), 4096).unwrap();
        assert!(reply.is_sound() && reply.errno().is_none() && reply.body == [7; 10], "{:?}", reply.header);
    };

    a_write_of_10_bytes_out_of_a_page_is_refused(&[]) |share| {
        let mut client = client(share);
        let (file, open) = client.create(ROOT_ID, "file", 0o644, O_RDWR).unwrap();
        let body = WriteIn { fh: open.fh, size: 10, ..WriteIn::default() };
        let parts = [body.as_bytes(), &[7; 4096]];
        let reply = client.call(&Request::new(Opcode::Write, file.nodeid, &parts, 8)).unwrap();
        assert_eq!((reply.is_sound(), reply.errno()), (true, Some(Errno::EINVAL)));
        assert_eq!(fs::metadata(share.path().join("file")).unwrap().len(), 0);
    };

    with_writeback_what_create_opened_for_writing_can_be_read(&["--writeback"]) |share| {
        let mut client = client(share);
        let (file, open) = client.create(ROOT_ID, "file", 0o644, libc::O_WRONLY as u32).unwrap();
        client.write(file.nodeid, open.fh, 0, b"data").unwrap();
        assert_eq!(client.read(file.nodeid, open.fh, 0, 10).unwrap(), b"data");
    };

    mkdir_of_a_path_makes_nothing_outside(&["--sandbox=none"]) |share| {
        let mut client = client(share);
        let body = [MkdirIn { mode: 0o755, umask: 0 }.as_bytes(), b"../made\0"].concat();
        let reply = client.raw(Opcode::Mkdir, ROOT_ID, &body, 128).unwrap();
        assert!(!share.outside().join("made").exists());
        assert_eq!(reply.errno(), Some(Errno::EINVAL));
    };

    a_child_that_vanishes_does_not_fail_a_listing_with_attributes(&[]) |share| {
        let dir = share.path().join("dir");
        fs::create_dir(&dir).unwrap();
        let mut client = client(share);
        let node = client.lookup(ROOT_ID, "dir").unwrap().nodeid;
        let fh = client.opendir(node).unwrap().fh;
        // Behind the dots, so that the child is the first entry of the reply.
        let path = dir.join("child");
        fs::write(&path, b"").unwrap();
        let offset = client.readdir(node, fh, 0, 4096).unwrap().iter().rfind(|entry| entry.is_dot()).unwrap().off;
        let ended = AtomicBool::new(false);
        let failed = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    fs::remove_file(&path).unwrap();
                    fs::write(&path, b"").unwrap();
                }
            });
            let failed = (0..10_000).find_map(|_| client.readdirplus(node, fh, offset, 4096).err());
            ended.store(true, Ordering::Relaxed);
            failed
        });
        assert!(failed.is_none(), "{failed:?}");
    };

    statx_copies_and_unnamed_files_are_served(&[]) |share| {
        fs::write(share.path().join("file"), vec![7; 10_000]).unwrap();
        let mut client = client(share);
        let file = client.lookup(ROOT_ID, "file").unwrap().nodeid;
        let fh = client.open(file, O_RDWR).unwrap().fh;
        let statx = StatxIn { sx_mask: 0xfff, ..StatxIn::default() };
        let copy = CopyFileRangeIn {
            fh_in: fh, nodeid_out: file, fh_out: fh, off_out: 10_000, len: 10_000, ..CopyFileRangeIn::default()
        };
        let create = [CreateIn { flags: O_RDWR, mode: 0o100_644, ..CreateIn::default() }.as_bytes(), b"x\0"].concat();
        for (opcode, node, body) in [
            (Opcode::Statx, file, statx.as_bytes()),
            (Opcode::CopyFileRange64, file, copy.as_bytes()),
            (Opcode::Tmpfile, ROOT_ID, &create),
        ] {
            let reply = client.raw(opcode, node, body, 1000).unwrap();
            assert_eq!(reply.errno(), None, "{opcode}");
        }
        assert_eq!(fs::metadata(share.path().join("file")).unwrap().len(), 20_000);
    };

    there_is_more_than_one_request_queue(&["--num-request-queues=2"]) |share| {
        let mut client = share.client_with(&Options { request_queues: 2, limit: limit(), ..options() });
        client.queue = 1;
        expect_service(&mut client, "the first queue");
    };

    a_lookup_without_room_for_its_reply_takes_no_reference(&["--inode-file-handles=never"]) |share| {
        let mut client = client(share);
        (0..50).for_each(|n| fs::write(share.path().join(n.to_string()), b"").unwrap());
        let before = share.daemon.open_files().unwrap();
        for n in 0..50 {
            let room = size_of::<EntryOut>() as u32 - 1;
            let reply = client.raw(Opcode::Lookup, ROOT_ID, format!("{n}\0").as_bytes(), room).unwrap();
            assert!(reply.is_sound() && reply.errno().is_some());
        }
        assert_eq!(share.daemon.open_files().unwrap(), before);
        expect_errno(client.lookup(ROOT_ID, "missing"), Errno::ENOENT);
    };
}

/// While the reference daemon is tested, which may die and leave us waiting.
static IMPATIENT: AtomicBool = AtomicBool::new(false);

fn limit() -> Duration {
    if IMPATIENT.load(Ordering::Relaxed) { Duration::from_secs(3) } else { options().limit }
}

fn client(share: &mut Share) -> Client {
    share.client_with(&Options { limit: limit(), ..options() })
}

#[test]
fn each_flaw_can_be_seen_in_the_reference_daemon() {
    let Some(peer) = std::env::var_os("FERRYFS_TEST_PEER") else {
        return skipped("FERRYFS_TEST_PEER names no virtiofsd");
    };
    IMPATIENT.store(true, Ordering::Relaxed);
    let ours_alone = ["--num-request-queues=2"];
    let unseen: Vec<_> = FLAWS
        .iter()
        .filter(|(_, args, test)| {
            // An option that it does not know is no flaw of its own: it is left out.
            let args: Vec<_> = args.iter().filter(|arg| !ours_alone.contains(arg)).copied().collect();
            let mut share = Share::of(Path::new(&peer), &args);
            catch_unwind(AssertUnwindSafe(|| test(&mut share))).is_ok()
        })
        .map(|(name, ..)| *name)
        .collect();
    assert!(unseen.is_empty(), "not seen in {}: {unseen:?}", peer.display());
}
