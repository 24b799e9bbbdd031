//! What waits does not hold up what does not, and nothing is lost on its way through the pool.

use std::fs;

use ferryfs_guest::{Client, Daemon, Desc, Error, Queue, Request, skipped};
use fuse_abi::{Errno, FsyncIn, GetattrIn, Opcode, OpenIn, ROOT_ID, ReadIn};
use rustix::process::Signal;
use zerocopy::IntoBytes;

use crate::gate::Gate;
use crate::lease::Lease;
use crate::support::{HANG, O_RDWR, Share, expect_service, in_every_sandbox, is_root, options, wait_for};

/// A client with a fast file and a gated one open.
struct Bench {
    client: Client,
    slow: u64,
    fh: u64,
}

impl Bench {
    fn new(share: &mut Share) -> Self {
        let mut client = share.client_with(&options());
        let slow = client.lookup(ROOT_ID, "slow").unwrap().nodeid;
        let fh = client.open(slow, O_RDWR).unwrap().fh;
        Self { client, slow, fh }
    }

    /// Sends what waits at the gate; returns its number.
    fn read(&mut self) -> u64 {
        let body = ReadIn { fh: self.fh, size: 100, ..ReadIn::default() };
        self.client.submit(&Request::new(Opcode::Read, self.slow, &[body.as_bytes()], 100)).unwrap()
    }

    fn fsync(&mut self) -> u64 {
        let body = FsyncIn { fh: self.fh, ..FsyncIn::default() };
        self.client.submit(&Request::new(Opcode::Fsync, self.slow, &[body.as_bytes()], 0)).unwrap()
    }

    /// Sends what never waits, on no storage: it names an inode that nobody knows.
    fn ask_of_nothing(&mut self) -> u64 {
        let body = GetattrIn::default();
        self.client.submit(&Request::new(Opcode::Getattr, u64::MAX, &[body.as_bytes()], 104)).unwrap()
    }

    /// That this is answered while others wait.
    #[track_caller]
    fn expect_not_held_up(&mut self) {
        let sent = self.ask_of_nothing();
        let done = self.client.complete().unwrap();
        assert!(matches!(done.check(), Err(Error::Errno(Errno::ESTALE))));
        assert_eq!(done.unique(), sent);
    }

    /// Takes the next answer, which must be good; returns its number.
    fn complete(&mut self) -> u64 {
        let done = self.client.complete().unwrap();
        done.check().unwrap();
        done.unique()
    }

    /// The used index: how much the device has handed back.
    fn used(&mut self) -> u16 {
        self.client.lane().ring().used_index().unwrap()
    }
}

/// Runs a test on a share that is the gated file system itself.
fn gated(args: &[&str], test: impl Fn(&mut Share, &Gate)) {
    if !is_root() || !std::path::Path::new("/dev/fuse").exists() {
        return skipped("needs root and /dev/fuse");
    }
    for sandbox in ["none", "namespace"] {
        let mut gate = None;
        let mut share = Share::prepared(&[args, &["--sandbox", sandbox]].concat(), |dir| gate = Some(Gate::mount(dir)));
        let gate = gate.unwrap();
        test(&mut share, &gate);
        gate.set_open(true);
        share.expect_alive();
        let directory = share.end();
        drop((gate, directory));
    }
}

#[test]
fn a_request_that_waits_does_not_hold_up_those_behind_it() {
    gated(&[], |share, gate| {
        let mut bench = Bench::new(share);
        for _ in 0..10 {
            let waiting = [bench.read(), bench.fsync(), bench.read()];
            gate.wait_for(3);
            for _ in 0..20 {
                bench.expect_not_held_up();
            }
            assert_eq!(gate.waiting(), 3);
            gate.let_pass(3);
            let mut answered = [0; 3].map(|_| bench.complete());
            answered.sort_unstable();
            assert_eq!(answered, waiting);
        }
    });
}

#[test]
fn more_requests_than_threads_can_wait() {
    gated(&["--thread-pool-size=2"], |share, gate| {
        let mut bench = Bench::new(share);
        let mut waiting: Vec<u64> = (0..20).map(|_| bench.read()).collect();
        gate.wait_for(2);
        bench.expect_not_held_up();
        gate.set_open(true);
        while !waiting.is_empty() {
            let answered = bench.complete();
            let at = waiting.iter().position(|unique| *unique == answered).expect("answered once");
            waiting.remove(at);
        }
    });
}

#[test]
fn without_a_pool_a_queue_waits_and_answers_what_came_before() {
    gated(&["--thread-pool-size=0", "--num-request-queues=2"], |share, gate| {
        let mut bench = Bench::new(share);
        // One batch: what comes before the request that waits is announced before it waits.
        let body = GetattrIn::default();
        let read = ReadIn { fh: bench.fh, size: 100, ..ReadIn::default() };
        let parts = [
            (Opcode::Getattr, body.as_bytes(), 104),
            (Opcode::Read, read.as_bytes(), 100),
            (Opcode::Getattr, body.as_bytes(), 104),
        ];
        let mut sent = Vec::new();
        bench.client.lane().ring().arm().unwrap();
        for (opcode, body, reply) in parts {
            let header = bench.client.header(opcode.number(), bench.slow, body.len());
            let lane = bench.client.lane();
            let slot = lane.take().unwrap();
            let len = lane.fill(&slot, header.as_bytes(), &[body]).unwrap();
            lane.stage(slot, header.unique, len, 16 + reply, &ferryfs_guest::Cuts::LINUX).unwrap();
            sent.push(header.unique);
        }
        bench.client.lane().flush().unwrap();
        gate.wait_for(1);
        assert_eq!(bench.complete(), sent[0], "the call came although the batch is not done");
        assert_eq!(bench.used(), bench.client.lane().ring().next_used(), "nothing else is done");
        gate.let_pass(1);
        assert_eq!([bench.complete(), bench.complete()], sent[1..]);
    });
}

#[test]
fn a_queue_stops_only_when_what_waits_is_answered() {
    gated(&["--thread-pool-size=2"], |share, gate| {
        let mut bench = Bench::new(share);
        let index = bench.client.front.index(Queue::Request(0));
        for _ in 0..5 {
            for _ in 0..6 {
                bench.read();
            }
            gate.wait_for(2);
            // Served after those before it were taken.
            bench.expect_not_held_up();
            // The daemon hears this while six requests are on their way, four of them not even begun.
            let asked = [index, 0];
            let request = ferryfs_guest::front_end::FrontendReq::GET_VRING_BASE.into();
            bench.client.front.connection().send(request, 0, asked.as_bytes(), &[]).unwrap();
            for passed in 1..=6 {
                assert!(bench.used().wrapping_sub(bench.client.lane().ring().next_used()) < 6);
                gate.let_pass(1);
                let base = bench.client.lane().ring().next_used().wrapping_add(passed);
                wait_for("one to pass", || (bench.used() == base).then_some(()));
            }
            let answer = bench.client.front.connection().receive().unwrap();
            let [_, base] = answer.body_as::<[u32; 2]>().unwrap();
            assert_eq!(base, u32::from(bench.used()), "all were handed back before the answer");
            for _ in 0..6 {
                bench.complete();
            }
            bench.client.front.attach(index, bench.client.queues[0].ring(), base as u16).unwrap();
            bench.expect_not_held_up();
        }
    });
}

#[test]
fn a_reset_waits_for_what_waits() {
    gated(&[], |share, gate| {
        let mut bench = Bench::new(share);
        for _ in 0..4 {
            bench.read();
        }
        gate.wait_for(4);
        let request = ferryfs_guest::front_end::FrontendReq::RESET_DEVICE.into();
        bench.client.front.connection().send(request, ferryfs_guest::message::NEED_REPLY, &[], &[]).unwrap();
        gate.let_pass(3);
        gate.wait_for(1);
        let taken_back = bench.client.lane().ring().next_used();
        wait_for("three answers", || (bench.used() == taken_back.wrapping_add(3)).then_some(()));
        gate.let_pass(1);
        assert_eq!(bench.client.front.connection().receive().unwrap().body_as::<u64>().unwrap(), 0);
        for _ in 0..4 {
            bench.complete();
        }
    });
}

#[test]
fn a_front_end_that_leaves_is_not_followed_before_its_requests_have_ended() {
    gated(&["--persist"], |share, gate| {
        let mut bench = Bench::new(share);
        for _ in 0..5 {
            bench.read();
        }
        gate.wait_for(5);
        drop(bench);
        let stream = share.daemon.connect().unwrap();
        gate.set_open(true);
        let mut client = Client::connect(stream, &options()).unwrap();
        client.init().unwrap();
        assert_eq!(gate.waiting(), 0);
        expect_service(&mut client, "a front end that left in the middle");
        gate.set_open(false);
    });
}

/// Whether the daemon still has a thread that takes requests.
fn takes_requests(daemon: &Daemon) -> bool {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.serving_pid())).into_iter().flatten().flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.into_iter().any(|name| name.starts_with("queue "))
}

#[test]
fn a_daemon_told_to_end_answers_what_it_has_taken() {
    gated(&["--thread-pool-size=2"], |share, gate| {
        let mut bench = Bench::new(share);
        let mut taken: Vec<u64> = (0..3).map(|_| bench.read()).collect();
        gate.wait_for(2);
        // Served after those before it were taken.
        bench.expect_not_held_up();
        share.daemon.signal(Signal::TERM).unwrap();
        wait_for("an end of taking", || (!takes_requests(&share.daemon)).then_some(()));
        // One that comes too late.
        bench.ask_of_nothing();
        gate.set_open(true);
        let mut answered = [0; 3].map(|_| bench.complete());
        answered.sort_unstable();
        taken.sort_unstable();
        assert_eq!(answered[..], taken[..]);
        let status = share.daemon.wait_exit(HANG).unwrap();
        assert!(status.success(), "{status}: {}", share.daemon.log());
        assert_eq!(bench.used(), bench.client.lane().ring().next_used(), "nothing else was answered");
    });
}

/// A client, the node of a file on which somebody of the host has a lease, and the number of an OPEN that waits for it.
fn open_leased(share: &mut Share) -> (Client, Lease, u64) {
    let path = share.path().join("leased");
    fs::write(&path, "data").unwrap();
    let mut client = share.client();
    let node = client.lookup(ROOT_ID, "leased").unwrap().nodeid;
    let lease = Lease::take(&path);
    let body = OpenIn { flags: O_RDWR, ..OpenIn::default() };
    let open = client.submit(&Request::new(Opcode::Open, node, &[body.as_bytes()], 16)).unwrap();
    for _ in 0..10 {
        let body = GetattrIn::default();
        let sent = client.submit(&Request::new(Opcode::Getattr, node, &[body.as_bytes()], 104)).unwrap();
        assert_eq!(client.complete().unwrap().unique(), sent, "answered while the other waits");
    }
    (client, lease, open)
}

#[test]
fn an_open_that_waits_for_a_lease_of_the_host_does_not_hold_up_the_queue() {
    in_every_sandbox(&[], |share| {
        let (mut client, lease, open) = open_leased(share);
        drop(lease);
        let done = client.complete().unwrap();
        done.check().unwrap();
        assert_eq!(done.unique(), open);
    });
}

#[test]
fn a_request_that_goes_on_waiting_does_not_put_off_the_end_for_long() {
    in_every_sandbox(&[], |share| {
        let (_client, _lease, _) = open_leased(share);
        share.daemon.signal(Signal::TERM).unwrap();
        let status = share.daemon.wait_exit(HANG).unwrap();
        assert!(status.success(), "{status}: {}", share.daemon.log());
        assert!(share.daemon.log().contains("unanswered"), "{}", share.daemon.log());
    });
}

#[test]
fn what_another_machine_has_to_be_asked_for_does_not_hold_up_the_queue() {
    gated(&[], |share, gate| {
        gate.set_open(true);
        let mut bench = Bench::new(share);
        let fleeting = bench.client.lookup(ROOT_ID, "fleeting").unwrap().nodeid;
        let hall = bench.client.lookup(ROOT_ID, "hall").unwrap().nodeid;
        let fh = bench.client.opendir(hall).unwrap().fh;
        gate.set_open(false);
        let listing = ReadIn { fh, size: 4096, ..ReadIn::default() };
        for (what, opcode, node, body, reply) in [
            ("LOOKUP", Opcode::Lookup, ROOT_ID, b"late\0".as_slice(), 128),
            ("GETATTR", Opcode::Getattr, fleeting, GetattrIn::default().as_bytes(), 104),
            ("READDIR", Opcode::Readdir, hall, listing.as_bytes(), 4096),
        ] {
            let waiting = bench.client.submit(&Request::new(opcode, node, &[body], reply)).unwrap();
            gate.wait_for(1);
            for _ in 0..5 {
                bench.expect_not_held_up();
            }
            gate.set_open(true);
            assert_eq!(bench.complete(), waiting, "{what}");
            gate.set_open(false);
        }
    });
}

#[test]
fn a_mount_of_another_machine_in_a_local_share_does_not_hold_up_the_queue() {
    if !is_root() || !std::path::Path::new("/dev/fuse").exists() {
        return skipped("needs root and /dev/fuse");
    }
    for sandbox in ["none", "namespace"] {
        let mut gate = None;
        let mut share = Share::prepared(&["--sandbox", sandbox], |dir| {
            fs::create_dir(dir.join("far")).unwrap();
            gate = Some(Gate::mount_fleeting(&dir.join("far")));
        });
        let gate = gate.unwrap();
        let mut client = share.client();
        client.lookup(ROOT_ID, "far").unwrap();
        let dir = client.opendir(ROOT_ID).unwrap().fh;
        gate.set_open(false);
        let waiting = client.submit(&Request::new(Opcode::Lookup, ROOT_ID, &[b"far\0"], 128)).unwrap();
        gate.wait_for(1);
        for _ in 0..5 {
            expect_service(&mut client, "a lookup that waits");
            // The name is listed; what is behind it is left to a lookup of its own.
            let entries = client.readdirplus(ROOT_ID, dir, 0, 4096).unwrap();
            let (far, _) = entries.iter().find(|(_, entry)| entry.name == b"far").unwrap();
            assert_eq!(far.nodeid, 0);
        }
        gate.set_open(true);
        let done = client.complete().unwrap();
        done.check().unwrap();
        assert_eq!(done.unique(), waiting);
        share.expect_alive();
        drop(done);
        drop(client);
        let directory = share.end();
        drop((gate, directory));
    }
}

#[test]
fn a_guest_that_reuses_descriptors_too_early_does_not_fill_the_daemon() {
    gated(&["--thread-pool-size=1"], |share, gate| {
        let mut bench = Bench::new(share);
        // One FSYNC offered a hundred thousand times, while the first waits and none is taken back.
        let fsync = FsyncIn { fh: bench.fh, ..FsyncIn::default() };
        let header = bench.client.header(Opcode::Fsync.number(), bench.slow, size_of_val(&fsync));
        let lane = bench.client.lane();
        let slot = lane.take().unwrap();
        let len = lane.fill(&slot, header.as_bytes(), &[fsync.as_bytes()]).unwrap();
        let chain = [Desc::readable(lane.request_at(&slot), len), Desc::writable(lane.reply_at(&slot), 16)];
        lane.give_back(slot);
        let ring = lane.ring();
        let head = ring.reserve(2).unwrap();
        ring.set(head, Desc { flags: ferryfs_guest::ring::NEXT, next: head ^ 1, ..chain[0] }).unwrap();
        ring.set(head ^ 1, chain[1]).unwrap();
        ring.stage(head).unwrap();
        ring.publish().unwrap();
        ring.kick().unwrap();
        gate.wait_for(1);
        let (size, before) = (ring.layout().size, share.daemon.kilobytes("VmRSS").unwrap());
        for _ in 0..100_000 / u32::from(size) {
            (0..size).for_each(|_| ring.stage(head).unwrap());
            ring.publish().unwrap();
            ring.kick().unwrap();
            // The daemon takes what it wants before there is more.
            std::thread::yield_now();
        }
        assert_eq!(gate.waiting(), 1);
        let grown = share.daemon.kilobytes("VmRSS").unwrap().saturating_sub(before);
        assert!(grown < 4 << 10, "{grown} KiB");
        gate.set_open(true);
        // The books of this driver are wrong from here on; those of the next session are not.
        bench.client.reset().unwrap();
        bench.client.init().unwrap();
        expect_service(&mut bench.client, "descriptors in flight twice");
        gate.set_open(false);
    });
}

#[test]
fn a_read_that_misses_the_cache_is_whole() {
    // Cold, in part cold, and warm: from the pool or not, each byte is right.
    in_every_sandbox(&[], |share| {
        let data: Vec<u8> = (0..300_000_u32).map(|n| (n % 241) as u8).collect();
        let path = share.path().join("file");
        fs::write(&path, &data).unwrap();
        let mut client = share.client();
        let node = client.lookup(ROOT_ID, "file").unwrap().nodeid;
        let fh = client.open(node, 0).unwrap().fh;
        for (offset, cold) in [(0, 0..0), (0, 0..300_000), (100, 8192..16_384), (200_000, 250_000..300_000)] {
            let file = fs::File::open(&path).unwrap();
            rustix::fs::fsync(&file).unwrap();
            let len = std::num::NonZeroU64::new(cold.end - cold.start);
            rustix::fs::fadvise(&file, cold.start, len, rustix::fs::Advice::DontNeed).unwrap();
            let read = client.read(node, fh, offset, 60_000).unwrap();
            assert_eq!(read, data[offset as usize..][..60_000], "{offset}");
        }
    });
}
