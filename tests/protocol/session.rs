//! INIT and DESTROY: versions, flags, sizes, and what many threads see of them.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use ferryfs::protocol::Operation::*;
use ferryfs::protocol::{Agreement, Context, FileSystem, HandleId, LookupName, NodeId, Served, Server, Wishes};
use fuse_abi::{AttrOut, EntryOut, Errno, InitFlags};

use crate::guest::{bytes, init, message, request, send, send_cut, started, unstarted};
use crate::recorder::Recorder;

/// INIT of this version with these flags, as long as that version sends it.
fn offer(major: u32, minor: u32, flags: InitFlags) -> Vec<u8> {
    let (low, high) = flags.split();
    let mut body: Vec<u8> = [major, minor, 0x2_0000, low, high].iter().flat_map(|word| word.to_ne_bytes()).collect();
    body.resize(64, 0);
    body.truncate(match minor {
        0..6 => 8,
        6..36 => 16,
        _ => 64,
    });
    message(Init.number(), 0, &body)
}

fn word(body: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(body[at..at + 4].try_into().unwrap())
}

fn half(body: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes(body[at..at + 2].try_into().unwrap())
}

/// The flags of both words of a reply.
fn flags(body: &[u8]) -> InitFlags {
    InitFlags::join(word(body, 12), word(body, 32))
}

fn with_wishes(change: impl FnOnce(&mut Wishes)) -> Server<Recorder> {
    let mut fs = Recorder::default();
    change(&mut fs.wishes);
    Server::new(fs, Default::default())
}

#[test]
fn the_lower_minor_is_in_force_and_older_ones_get_the_reply_they_know() {
    for (minor, in_force, len) in [
        (0, 0, 8),
        (4, 4, 8),
        (5, 5, 24),
        (22, 22, 24),
        (23, 23, 64),
        (27, 27, 64),
        (46, 46, 64),
        (47, 46, 64),
        (900, 46, 64),
    ] {
        let server = unstarted(false);
        let answer = send(&server, &offer(7, minor, InitFlags::ASYNC_READ));
        assert_eq!(answer.body().len(), len, "7.{minor}");
        assert_eq!((word(answer.body(), 0), word(answer.body(), 4)), (7, in_force), "7.{minor}");
        assert_eq!(server.agreement().unwrap().minor, in_force, "7.{minor}");
        assert_eq!(server.file_system().take_calls(), [format!("begin 7.{in_force}")]);
    }
}

#[test]
fn another_major_version_begins_no_session() {
    let server = unstarted(false);
    let newer = send(&server, &offer(8, 0, InitFlags::all()));
    assert_eq!(newer.body(), bytes("07000000 2e000000 00*56"), "only our version; the client sends INIT again");
    assert_eq!(send(&server, &offer(6, 99, InitFlags::all())).error(), Errno::EPROTO.get());
    assert!(server.agreement().is_none());
    assert!(server.file_system().take_calls().is_empty());
    assert_eq!(send(&server, &request(Statfs, "")).error(), Errno::EIO.get());
    assert_eq!(send(&server, &init()).error(), 0);
}

#[test]
fn an_older_client_sends_and_gets_shorter_structs() {
    let server = unstarted(false);
    send(&server, &offer(7, 8, InitFlags::empty()));
    server.file_system().take_calls();
    assert_eq!(send(&server, &request(Lookup, "'a' 00")).body().len(), 120);
    assert_eq!(send(&server, &request(Getattr, "")).body().len(), 96);
    assert_eq!(send(&server, &request(Mknod, "a4810000 00*4 'n' 00")).body().len(), 120);
    assert_eq!(send(&server, &request(Create, "42000000 a4810000 'n' 00")).body().len(), 136);
    // WRITE has 24 bytes before its data.
    let write = request(Write, "7700000000000000 00*8 05000000 00*4 'hello'");
    assert_eq!(server.head_len(&write[..40], write.len()), 64);
    assert_eq!(send(&server, &write).body(), bytes("05000000 00*4"));
    assert!(server.file_system().take_calls().last().unwrap().ends_with(" hello"));
    let server = unstarted(false);
    send(&server, &offer(7, 3, InitFlags::empty()));
    assert_eq!(send(&server, &request(Statfs, "")).body().len(), 48);
}

#[test]
fn only_what_both_have_is_agreed_on() {
    let server =
        with_wishes(|wishes| wishes.flags = InitFlags::ASYNC_READ | InitFlags::POSIX_ACL | InitFlags::SECURITY_CTX);
    let answer = send(&server, &offer(7, 46, InitFlags::all()));
    let agreed = InitFlags::ASYNC_READ
        | InitFlags::POSIX_ACL
        | InitFlags::SECURITY_CTX
        // Decided by the protocol itself.
        | InitFlags::MAX_PAGES
        | InitFlags::BIG_WRITES;
    assert_eq!(flags(answer.body()), agreed | InitFlags::INIT_EXT);
    assert_eq!(server.agreement(), Some(Agreement { minor: 46, flags: agreed }));

    let server = unstarted(false);
    let answer = send(&server, &offer(7, 46, InitFlags::DONT_MASK | InitFlags::SPLICE_READ));
    assert_eq!(flags(answer.body()), InitFlags::DONT_MASK | InitFlags::SPLICE_READ);
}

#[test]
fn the_upper_flags_count_only_for_a_client_that_knows_them() {
    let server = unstarted(false);
    // flags2 is full, INIT_EXT is not offered.
    let answer = send(&server, &offer(7, 46, InitFlags::all() - InitFlags::INIT_EXT));
    assert_eq!(word(answer.body(), 32), 0);
    assert!(!flags(answer.body()).contains(InitFlags::INIT_EXT));
    assert!(!server.agreement().unwrap().flags.contains(InitFlags::SECURITY_CTX));
}

#[test]
fn idmapped_mounts_are_never_agreed_on_without_access_control_lists() {
    for (offered, wished) in [
        (InitFlags::all() - InitFlags::POSIX_ACL, InitFlags::all()),
        (InitFlags::all(), InitFlags::all() - InitFlags::POSIX_ACL),
    ] {
        let server = with_wishes(|wishes| wishes.flags = wished);
        let answer = send(&server, &offer(7, 46, offered));
        assert!(!flags(answer.body()).contains(InitFlags::ALLOW_IDMAP));
    }
    let answer = send(&unstarted(false), &offer(7, 46, InitFlags::all()));
    assert!(flags(answer.body()).contains(InitFlags::ALLOW_IDMAP | InitFlags::POSIX_ACL));
}

#[test]
fn sizes_follow_from_the_largest_write() {
    for (max_write, offered, written, pages) in [
        (1 << 20, InitFlags::MAX_PAGES, 1 << 20, 256),
        (4097, InitFlags::MAX_PAGES, 4097, 2),
        (1, InitFlags::MAX_PAGES, 1, 1),
        (u32::MAX, InitFlags::MAX_PAGES, u32::MAX, u16::MAX),
        // Without MAX_PAGES a client has 32 pages.
        (1 << 20, InitFlags::empty(), 128 << 10, 0),
        (4096, InitFlags::empty(), 4096, 0),
    ] {
        let server = with_wishes(|wishes| wishes.max_write = max_write);
        let answer = send(&server, &offer(7, 46, offered));
        assert_eq!((word(answer.body(), 20), half(answer.body(), 28)), (written, pages), "{max_write}");
    }
    let server = with_wishes(|wishes| {
        wishes.max_readahead = 4096;
        wishes.max_background = 16;
        wishes.time_gran = 0;
    });
    let answer = send(&server, &offer(7, 46, InitFlags::empty()));
    assert_eq!(word(answer.body(), 8), 4096, "read-ahead");
    assert_eq!((half(answer.body(), 16), half(answer.body(), 18)), (16, 12), "background and congestion");
    assert_eq!(word(answer.body(), 24), 1, "granularity");
    assert_eq!(word(answer.body(), 36), 0, "no stacking without passthrough");
}

#[test]
fn before_init_everything_is_eio() {
    let server = unstarted(false);
    for golden in crate::golden::GOLDEN {
        let answer = send(&server, &message(golden.operation.number(), golden.extensions, &bytes(golden.request)));
        if golden.operation.has_reply() {
            assert_eq!(answer.error(), Errno::EIO.get(), "{}", golden.operation.name());
        } else {
            assert!(matches!(answer.served, Served::Dropped(_)));
        }
    }
    assert!(server.file_system().take_calls().is_empty());
}

#[test]
fn a_second_init_ends_the_old_session_first() {
    let server = started();
    assert_eq!(send(&server, &offer(7, 31, InitFlags::empty())).error(), 0);
    assert_eq!(server.file_system().take_calls(), ["end", "begin 7.31"]);
    server.end_session();
    server.end_session();
    assert_eq!(server.file_system().take_calls(), ["end"]);
}

#[test]
fn what_a_request_took_beside_a_destroy_is_given_back_when_the_client_leaves() {
    // The LOOKUP of one queue is under way while another says DESTROY: what it takes, it takes after the end.
    let server = Server::new(Overtaken::default(), Default::default());
    assert_eq!(send(&server, &init()).error(), 0);
    std::thread::scope(|scope| {
        let lookup = scope.spawn(|| send(&server, &request(Lookup, "'a' 00")).error());
        server.file_system().entered.wait();
        assert_eq!(send(&server, &message(Destroy.number(), 0, &[])).error(), 0);
        server.file_system().overtaken.wait();
        assert_eq!(lookup.join().unwrap(), 0);
    });
    server.end_session();
    assert_eq!(server.file_system().taken.load(Ordering::SeqCst), 0);
}

/// Has a LOOKUP that waits to be overtaken, and counts what is taken.
struct Overtaken {
    entered: Barrier,
    overtaken: Barrier,
    taken: AtomicU64,
}

impl Default for Overtaken {
    fn default() -> Self {
        Self { entered: Barrier::new(2), overtaken: Barrier::new(2), taken: AtomicU64::new(0) }
    }
}

impl FileSystem for Overtaken {
    fn wishes(&self) -> Wishes {
        unstarted(false).file_system().wishes
    }
    fn end(&self) {
        self.taken.store(0, Ordering::SeqCst);
    }
    fn lookup(&self, _: &Context, _: NodeId, _: LookupName<'_>) -> ferryfs::protocol::Result<EntryOut> {
        self.entered.wait();
        self.overtaken.wait();
        self.taken.fetch_add(1, Ordering::SeqCst);
        Ok(EntryOut::default())
    }
}

#[test]
fn an_init_that_cannot_be_answered_changes_nothing() {
    let server = started();
    for (whole, room) in [
        (init(), 16 + 63),
        (message(Init.number(), 0, &[7, 0, 0, 0]), 4096),
        (message(Init.number(), 0, &bytes("07000000 2e000000 00*7")), 4096),
        (offer(6, 0, InitFlags::empty()), 4096),
    ] {
        assert_ne!(send_cut(&server, &whole, room, &[], true).error(), 0);
        assert_eq!(server.agreement().map(|agreed| agreed.minor), Some(46));
    }
    assert!(server.file_system().take_calls().is_empty());
}

/// Checks that sessions begin and end in turn, and that each request sees one of them whole.
#[derive(Default)]
struct Turns {
    live: AtomicI64,
    begun: AtomicU64,
    torn: AtomicBool,
}

impl FileSystem for Turns {
    fn wishes(&self) -> Wishes {
        unstarted(false).file_system().wishes
    }
    fn begin(&self, _: &Agreement) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        // Whoever may come between does.
        std::thread::yield_now();
        if self.live.fetch_add(1, Ordering::SeqCst) != 0 {
            self.torn.store(true, Ordering::Relaxed);
        }
    }
    fn end(&self) {
        std::thread::yield_now();
        if self.live.fetch_sub(1, Ordering::SeqCst) != 1 {
            self.torn.store(true, Ordering::Relaxed);
        }
    }
    fn getattr(&self, cx: &Context, _: NodeId, _: Option<HandleId>) -> ferryfs::protocol::Result<AttrOut> {
        // The two clients below offer one of these each, never both and never none.
        if cx.agreed.contains(InitFlags::DONT_MASK) == cx.agreed.contains(InitFlags::ASYNC_READ) {
            self.torn.store(true, Ordering::Relaxed);
        }
        Ok(AttrOut::default())
    }
}

#[test]
fn sessions_that_begin_and_end_under_load_are_seen_whole_and_never_overlap() {
    let server = Server::new(Turns::default(), Default::default());
    let done = AtomicBool::new(false);
    let getattr = request(Getattr, "00*16");
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert!([0, Errno::EIO.get()].contains(&send(&server, &getattr).error()));
                }
            });
        }
        let clients = [InitFlags::DONT_MASK, InitFlags::ASYNC_READ].map(|flags| {
            let server = &server;
            scope.spawn(move || {
                for round in 0..2000 {
                    assert_eq!(send(server, &offer(7, 46, flags)).error(), 0);
                    if round % 3 == 0 {
                        send(server, &message(Destroy.number(), 0, &[]));
                    }
                }
            })
        });
        clients.into_iter().for_each(|client| client.join().unwrap());
        done.store(true, Ordering::Relaxed);
    });
    server.end_session();
    assert!(!server.file_system().torn.load(Ordering::Relaxed));
    assert_eq!(server.file_system().live.load(Ordering::Relaxed), 0);
    assert_eq!(server.file_system().begun.load(Ordering::Relaxed), 4000);
}
