//! The front end and the client against a real vhost-user-fs daemon: FERRYFS_TEST_DAEMON, or what is on the path.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use ferryfs_guest::front_end::{FrontendReq, ProtocolFeatures, virtio};
use ferryfs_guest::lane::REPLY_LEAD;
use ferryfs_guest::{Caller, Client, Cuts, Daemon, Error, Options, Request, expect_errno, find_daemon, skipped};
use fuse_abi::{Errno, GetattrIn, InHeader, Opcode, ROOT_ID, ReadIn};
use tempfile::TempDir;
use zerocopy::IntoBytes;

const O_RDWR: u32 = 2;

struct Share {
    daemon: Daemon,
    dir: TempDir,
}

/// A daemon with a new directory; none on this machine is said aloud, and the test ends there.
fn share(args: &[&str]) -> Option<Share> {
    let Some(program) = find_daemon() else {
        skipped("no vhost-user-fs daemon; set FERRYFS_TEST_DAEMON or put one on the path");
        return None;
    };
    let dir = TempDir::with_prefix("ferryfs-guest-").unwrap();
    let daemon = Daemon::share(&program, dir.path(), args).unwrap();
    Some(Share { daemon, dir })
}

impl Share {
    fn client(&mut self, options: &Options) -> Client {
        let mut client = Client::connect(self.daemon.connect().unwrap(), options).unwrap();
        client.init().unwrap();
        client
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

#[test]
fn files_are_made_read_listed_and_removed() {
    let Some(mut share) = share(&[]) else { return };
    let mut client = share.client(&Options::default());
    let dir = client.mkdir(ROOT_ID, "dir", 0o755).unwrap();
    let (file, open) = client.create(dir.nodeid, "file", 0o644, O_RDWR).unwrap();
    let data: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    assert_eq!(client.write(file.nodeid, open.fh, 0, &data).unwrap(), 300_000);
    assert_eq!(client.read(file.nodeid, open.fh, 0, 1 << 20).unwrap(), data);
    assert_eq!(client.read(file.nodeid, open.fh, 299_999, 4096).unwrap(), data[299_999..]);
    assert_eq!(client.getattr(file.nodeid).unwrap().size, 300_000);
    assert_eq!(fs::read(share.path().join("dir/file")).unwrap(), data);
    client.release(file.nodeid, open.fh).unwrap();
    let names: Vec<_> = client.list(dir.nodeid, 4096).unwrap().iter().map(|entry| entry.name()).collect();
    assert!(names.contains(&"file".to_owned()), "{names:?}");
    let fh = client.opendir(dir.nodeid).unwrap().fh;
    let plus = client.readdirplus(dir.nodeid, fh, 0, 4096).unwrap();
    client.releasedir(dir.nodeid, fh).unwrap();
    let (entry, _) = plus.iter().find(|(_, entry)| entry.name == b"file").unwrap();
    assert_eq!((entry.nodeid, entry.attr.size), (file.nodeid, 300_000));
    client.unlink(dir.nodeid, "file").unwrap();
    expect_errno(client.lookup(dir.nodeid, "file"), Errno::ENOENT);
    expect_errno(client.unlink(ROOT_ID, "dir"), Errno::EISDIR);
    client.forget(file.nodeid, 2).unwrap();
    client.rmdir(ROOT_ID, "dir").unwrap();
    assert_eq!(fs::read_dir(share.path()).unwrap().count(), 0);
    // The reference daemon answers DESTROY without a reply; that the chain comes back is what counts here.
    let reply = client.raw(Opcode::Destroy, 0, &[], 0).unwrap();
    assert!(reply.used == 0 || reply.is_sound(), "{reply:?}");
}

#[test]
fn a_request_may_be_cut_anywhere() {
    let Some(mut share) = share(&[]) else { return };
    fs::write(share.path().join("name"), b"x").unwrap();
    let mut client = share.client(&Options::default());
    let wanted = client.lookup(ROOT_ID, "name").unwrap();
    for request in [&[][..], &[1], &[39, 41], &[8, 16, 24, 32, 40, 44]] {
        for reply in [&[][..], &[1], &[16], &[15, 17, 100]] {
            let cuts = Cuts { request, reply, pages: false };
            let size = size_of_val(&wanted) as u32;
            let request = Request { cuts, ..Request::new(Opcode::Lookup, ROOT_ID, &[b"name\0"], size) };
            let reply = client.call(&request).unwrap();
            assert!(reply.is_sound() && reply.errno().is_none(), "{cuts:?}: {reply:?}");
            assert_eq!(&reply.body[..8], wanted.nodeid.as_bytes(), "{cuts:?}");
        }
    }
}

#[test]
fn a_thousand_requests_at_depth_32_are_each_answered_once() {
    for features in [0, virtio::EVENT_IDX, virtio::INDIRECT_DESC, virtio::EVENT_IDX | virtio::INDIRECT_DESC] {
        let Some(mut share) = share(&[]) else { return };
        let base = virtio::VERSION_1 | virtio::PROTOCOL_FEATURES;
        let mut client = share.client(&Options { virtio: base | features, queue_size: 256, ..Options::default() });
        let (mut open, mut done) = (std::collections::HashSet::new(), 0);
        let start = Instant::now();
        while done < 1000 {
            while open.len() < 32 && done + open.len() < 1000 {
                let body = GetattrIn::default();
                let unique = client.submit(&Request::new(Opcode::Getattr, ROOT_ID, &[body.as_bytes()], 104)).unwrap();
                assert!(open.insert(unique));
            }
            let completion = client.complete().unwrap();
            completion.check().unwrap();
            assert_eq!(completion.used(), REPLY_LEAD + 104);
            assert!(open.remove(&completion.unique()));
            done += 1;
        }
        let rate = 1000.0 / start.elapsed().as_secs_f64();
        eprintln!("features {features:#x}: 1000 getattr at depth 32, {rate:.0} a second");
    }
}

#[test]
fn a_stopped_queue_goes_on_where_it_was() {
    let Some(mut share) = share(&[]) else { return };
    let mut client = share.client(&Options::default());
    let index = client.front.index(ferryfs_guest::Queue::Request(0));
    for round in 0..20 {
        for _ in 0..=round {
            client.getattr(ROOT_ID).unwrap();
        }
        let base = client.front.stop(index).unwrap();
        assert_eq!(base, client.lane().ring().next_avail(), "nothing was left to take");
        client.front.attach(index, client.queues[0].ring(), base).unwrap();
    }
}

#[test]
fn a_guest_reboots_and_finds_the_device_as_new() {
    let Some(mut share) = share(&[]) else { return };
    let mut client = share.client(&Options::default());
    fs::create_dir(share.path().join("dir")).unwrap();
    for _ in 0..5 {
        let node = client.lookup(ROOT_ID, "dir").unwrap().nodeid;
        client.getattr(node).unwrap();
        assert!(client.reset().unwrap().is_empty());
        client.init().unwrap();
    }
}

#[test]
fn every_queue_answers_a_thread_of_its_own() {
    let Some(mut share) = share(&[]) else { return };
    let offered = share.client(&Options::default()).front.queue_num().unwrap() - 1;
    // A daemon may take one connection only: another one for the queues.
    let Some(mut share) = self::share(&[]) else { return };
    let options = Options { request_queues: offered.min(4) as u16, ..Options::default() };
    let mut client = share.client(&options);
    let limit = client.limit();
    let queues = std::mem::take(&mut client.queues);
    eprintln!("{} request queues", queues.len());
    std::thread::scope(|scope| {
        for mut lane in queues {
            scope.spawn(move || {
                for round in 0..200u64 {
                    for n in 0..32 {
                        let unique = round * 64 + 2 * n + 2;
                        let body = GetattrIn::default();
                        let header = InHeader {
                            len: (size_of::<InHeader>() + size_of::<GetattrIn>()) as u32,
                            opcode: Opcode::Getattr.number(),
                            unique,
                            nodeid: ROOT_ID,
                            ..InHeader::default()
                        };
                        lane.send(unique, header.as_bytes(), &[body.as_bytes()], 120, &Cuts::LINUX).unwrap();
                    }
                    (0..32).for_each(|_| lane.complete(limit).unwrap().check().unwrap());
                }
            });
        }
    });
}

#[test]
fn pages_that_the_daemon_writes_are_logged() {
    let Some(mut share) = share(&[]) else { return };
    let mut client = share.client(&Options::default());
    let wanted = client.front.protocol().contains(ProtocolFeatures::LOG_SHMFD);
    if !wanted || client.front.virtio_offered() & virtio::LOG_ALL == 0 {
        skipped("the daemon does not log");
        return;
    }
    fs::write(share.path().join("file"), [7; 65536]).unwrap();
    let node = client.lookup(ROOT_ID, "file").unwrap().nodeid;
    let fh = client.open(node, 0).unwrap().fh;
    let log = client.front.start_log().unwrap();
    let index = client.front.index(ferryfs_guest::Queue::Request(0));
    client.front.set_vring_addr(index, client.queues[0].ring()).unwrap();
    let body = ReadIn { fh, size: 65536, ..ReadIn::default() };
    client.submit(&Request::new(Opcode::Read, node, &[body.as_bytes()], 65536)).unwrap();
    let completion = client.complete().unwrap();
    completion.check().unwrap();
    let first = completion.reply_at();
    for page in 0..=16 {
        assert!(log.is_dirty(first + page * 4096).unwrap(), "page {page} of the reply");
    }
    assert!(!log.is_dirty(first + 17 * 4096).unwrap());
    drop(completion);
    let used = client.lane().ring().layout().used;
    assert!(log.is_dirty(used).unwrap(), "the used ring");
    // A worker that goes to rest writes to the ring once more; after a stop it writes nothing.
    client.front.stop(index).unwrap();
    log.clear().unwrap();
    client.front.queue_num().unwrap();
    assert_eq!(log.count().unwrap(), 0);
}

#[test]
fn memory_is_added_used_and_removed() {
    let Some(mut share) = share(&[]) else { return };
    let options = Options { memory: vec![(0, 1 << 30), (0x1_0000_0000, 1 << 20)], ..Options::default() };
    let mut client = share.client(&options);
    assert_eq!(client.front.memory().regions().len(), 2);
    if !client.front.protocol().contains(ProtocolFeatures::CONFIGURE_MEM_SLOTS) {
        skipped("in part: the daemon has no memory slots");
        return;
    }
    for _ in 0..10 {
        client.front.add_region(0x2_0000_0000, 2 << 20).unwrap();
        client.getattr(ROOT_ID).unwrap();
        client.front.remove_region(0x2_0000_0000).unwrap();
        client.getattr(ROOT_ID).unwrap();
    }
    client.front.send_memory_table().unwrap();
    client.getattr(ROOT_ID).unwrap();
}

#[test]
fn the_device_says_what_it_is() {
    let Some(mut share) = share(&["--tag", "some-tag"]) else { return };
    let client = share.client(&Options::default());
    assert!(client.front.queue_num().unwrap() >= 2);
    let config = client.front.config().unwrap();
    assert!(config.tag.starts_with(b"some-tag\0") && config.num_request_queues >= 1, "{config:?}");
}

#[test]
fn any_bytes_can_be_sent_to_the_control_socket() {
    let Some(mut share) = share(&[]) else { return };
    let mut client = share.client(&Options::default());
    let bad = client.front.set(FrontendReq::SET_VRING_NUM, [9999u32, 1].as_bytes(), &[]);
    assert!(matches!(bad, Err(Error::Refused { .. } | Error::Closed)), "{bad:?}");
    // Whatever the daemon makes of this, it must answer it, refuse it or hang up: not hang.
    client.front.connection().send_bytes(&[0xff; 64], &[]).ok();
    let after = client.front.get_features();
    eprintln!("after 64 bytes of garbage: {after:?}");
    assert!(!matches!(after, Err(Error::Timeout { .. })));
}

#[test]
fn a_daemon_is_observed_by_its_pid() {
    let Some(mut share) = share(&[]) else { return };
    let mut client = share.client(&Options::default());
    fs::write(share.path().join("f"), b"").unwrap();
    let before = share.daemon.open_files().unwrap();
    let node = client.lookup(ROOT_ID, "f").unwrap().nodeid;
    let handles: Vec<u64> = (0..10).map(|_| client.open(node, O_RDWR).unwrap().fh).collect();
    assert!(share.daemon.open_files().unwrap() >= before + 10);
    handles.into_iter().for_each(|fh| client.release(node, fh).unwrap());
    assert!(share.daemon.kilobytes("VmRSS").unwrap() <= share.daemon.kilobytes("VmHWM").unwrap());
    assert!(share.daemon.cpu_time().unwrap() > Duration::ZERO);
    let other = Caller { uid: 12345, gid: 12345, pid: 1 };
    let made = client.as_caller(other, |client| client.create(ROOT_ID, "theirs", 0o600, O_RDWR));
    // The folder belongs to root with mode 0700 here; a client with default_permissions would not even ask.
    eprintln!("create as another user: {:?}", made.map(|(entry, _)| entry.attr.uid).map_err(|e| e.errno()));
    let pid = share.daemon.pid();
    drop(client);
    drop(share);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}
