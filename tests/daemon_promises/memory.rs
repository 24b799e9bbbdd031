//! Guest memory: read once, written only where a reply lies, and logged while it is migrated.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use ferryfs_guest::front_end::{ProtocolFeatures, virtio};
use ferryfs_guest::memory::{Memory, PAGE};
use ferryfs_guest::{Client, Cuts, Options, Queue};
use fuse_abi::{InHeader, MkdirIn, Opcode, ROOT_ID, ReadIn, WriteIn};
use zerocopy::IntoBytes;

use crate::support::{O_RDWR, expect_service, in_every_sandbox, options};

/// How often a request is served while it changes, at least.
const ROUNDS: u32 = 1500;

/// Serves `request` again and again while a second thread sets its byte `at` to one and to another value. `look` sees
/// every reply's errno, and says when it has seen enough.
fn while_flipping(client: &mut Client, request: &[u8], at: usize, values: [u8; 2], mut look: impl FnMut(i32) -> bool) {
    let limit = client.limit();
    let slot = client.lane().take().unwrap();
    let len = client.lane().fill(&slot, request, &[]).unwrap();
    let (start, memory) = (client.lane().request_at(&slot), client.lane().memory().clone());
    client.lane().give_back(slot);
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                values.iter().for_each(|value| memory.write(start + at as u64, &[*value]).unwrap());
            }
        });
        // Whatever happens, the other thread must end.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let (mut rounds, mut enough) = (0, false);
            while rounds < ROUNDS || !enough {
                rounds += 1;
                // The slot given back last is the one taken next.
                let slot = client.lane().take().unwrap();
                assert_eq!(client.lane().request_at(&slot), start);
                client.lane().submit(slot, 2, len, 4096, &Cuts::NONE).unwrap();
                let done = client.lane().complete(limit).unwrap();
                let (used, header) = (done.used(), done.header());
                drop(done);
                assert!(used == 0 || used == header.len, "{used} for {header:?}");
                enough = look(header.error);
            }
        }));
        ended.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[test]
fn a_name_that_changes_while_it_is_read_is_checked_as_it_is_used() {
    in_every_sandbox(&["--num-request-queues=1"], |share| {
        let mut client = share.client();
        let mkdir = MkdirIn { mode: 0o755, umask: 0 };
        let name = b"..%made\0";
        let header = client.header(Opcode::Mkdir.number(), ROOT_ID, size_of_val(&mkdir) + name.len());
        let request = [header.as_bytes(), mkdir.as_bytes(), name].concat();
        let at = size_of::<InHeader>() + size_of::<MkdirIn>() + 2;
        let (mut made, mut refused) = (0, 0);
        let path = share.path();
        while_flipping(&mut client, &request, at, [b'%', b'/'], |error| {
            match -error {
                0 => made += 1,
                libc::EINVAL => refused += 1,
                error => panic!("errno {error}"),
            }
            if error == 0 {
                fs::remove_dir(path.join("..%made")).expect("made under the name that was checked");
            }
            made > 0 && refused > 0
        });
        assert!(!share.outside().join("made").exists());
        expect_service(&mut client, "names that change");
    });
}

#[test]
fn a_header_that_changes_while_it_is_read_harms_nobody() {
    in_every_sandbox(&["--num-request-queues=1"], |share| {
        let mut client = share.client();
        let (file, open) = client.create(ROOT_ID, "file", 0o644, O_RDWR).unwrap();
        let write = WriteIn { fh: open.fh, size: 100, ..WriteIn::default() };
        let header = client.header(Opcode::Write.number(), file.nodeid, size_of_val(&write) + 100);
        let writing = [header.as_bytes(), write.as_bytes(), &[1; 100]].concat();
        let read = ReadIn { fh: open.fh, size: 100, ..ReadIn::default() };
        let header = client.header(Opcode::Read.number(), file.nodeid, size_of_val(&read));
        let reading = [header.as_bytes(), read.as_bytes()].concat();
        let body = size_of::<InHeader>();
        // (request, byte, values): length, opcode, extensions, size.
        let cases: [(&[u8], usize, [u8; 2]); 7] = [
            (&writing, 0, [writing[0], 0]),
            (&writing, 3, [0, 0xff]),
            (&writing, 4, [Opcode::Write.number() as u8, Opcode::Read.number() as u8]),
            (&writing, 36, [0, 9]),
            (&writing, body + 16, [100, 0xff]),
            (&reading, body + 17, [0, 0x7f]),
            (&reading, body + 19, [0, 0xff]),
        ];
        for (request, at, values) in cases {
            while_flipping(&mut client, request, at, values, |_| true);
            expect_service(&mut client, "a header that changes");
        }
        let len = fs::metadata(share.path().join("file")).unwrap().len();
        assert_eq!(len, 100, "only whole and right requests wrote");
    });
}

#[test]
fn data_that_changes_is_written_as_some_of_it_was_and_nothing_else() {
    in_every_sandbox(&["--num-request-queues=1"], |share| {
        let mut client = share.client();
        let (file, open) = client.create(ROOT_ID, "file", 0o644, O_RDWR).unwrap();
        let write = WriteIn { fh: open.fh, size: 5000, ..WriteIn::default() };
        let header = client.header(Opcode::Write.number(), file.nodeid, size_of_val(&write) + 5000);
        let request = [header.as_bytes(), write.as_bytes(), &[1; 5000]].concat();
        let path = share.path().join("file");
        while_flipping(&mut client, &request, 80 + 2500, [2, 3], |error| error == 0);
        let data = fs::read(path).unwrap();
        assert!(data.len() == 5000 && [2, 3].contains(&data[2500]));
        assert!(data.iter().enumerate().all(|(at, byte)| at == 2500 || *byte == 1));
    });
}

/// The pages of all memory that differ from `before`.
fn changed(memory: &Memory, before: &[u8]) -> Vec<u64> {
    let mut now = vec![0; before.len()];
    memory.read(0, &mut now).unwrap();
    let pages = now.chunks(PAGE as usize).zip(before.chunks(PAGE as usize)).enumerate();
    pages.filter(|(_, (now, before))| now != before).map(|(page, _)| page as u64 * PAGE).collect()
}

#[test]
fn every_page_that_a_reply_changes_is_logged_and_so_is_the_used_ring() {
    in_every_sandbox(&["--xattr", "--persist"], |share| {
        fs::write(share.path().join("file"), vec![7; 200_000]).unwrap();
        (0..100).for_each(|n| fs::write(share.path().join(format!("name{n}")), b"").unwrap());
        for more in [0, virtio::EVENT_IDX] {
            const SIZE: u64 = 16 << 20;
            let virtio = virtio::VERSION_1 | virtio::PROTOCOL_FEATURES | virtio::INDIRECT_DESC | more;
            let mut client = small_client(share, &Options { virtio, memory: vec![(0, SIZE)], ..options() });
            assert!(client.front.protocol().contains(ProtocolFeatures::LOG_SHMFD));
            let node = client.lookup(ROOT_ID, "file").unwrap().nodeid;
            let (fh, dir) = (client.open(node, 0).unwrap().fh, client.opendir(ROOT_ID).unwrap().fh);
            let log = client.front.start_log().unwrap();
            let hiprio = client.front.index(Queue::Hiprio);
            client.front.set_vring_addr(hiprio, client.hiprio.ring()).unwrap();
            client.front.set_vring_addr(client.front.index(Queue::Request(0)), client.queues[0].ring()).unwrap();
            let memory = client.front.memory().clone();
            type Work = (&'static str, fn(&mut Client, u64, u64, u64));
            let work: [Work; 7] = [
                ("READ", |c, node, fh, _| drop(c.read(node, fh, 3, 60_000).unwrap())),
                ("GETATTR", |c, node, _, _| assert!(c.getattr(node).is_ok())),
                ("LOOKUP", |c, _, _, _| drop(c.lookup(ROOT_ID, "no-such-name").unwrap_err())),
                ("READDIR", |c, _, _, dir| drop(c.readdir(ROOT_ID, dir, 0, 30_000).unwrap())),
                ("READDIRPLUS", |c, _, _, dir| drop(c.readdirplus(ROOT_ID, dir, 0, 30_000).unwrap())),
                ("FSYNC", |c, node, fh, _| c.fsync(node, fh).unwrap()),
                ("FORGET", |c, node, _, _| c.forget(node, 0).unwrap()),
            ];
            for (name, work) in work {
                // Pages that only the daemon writes: everything behind the slots of requests is compared below.
                let mut before = vec![0; SIZE as usize];
                memory.read(0, &mut before).unwrap();
                log.clear().unwrap();
                work(&mut client, node, fh, dir);
                let own = own_pages(&mut client);
                for page in changed(&memory, &before) {
                    let logged = log.is_dirty(page).unwrap();
                    assert!(logged || own.contains(&page), "{name}: the page at {page:#x} changed unseen");
                }
                let lane = if name == "FORGET" { &mut client.hiprio } else { &mut client.queues[0] };
                let used = lane.ring().layout().used;
                assert!(log.is_dirty(used).unwrap(), "{name}: the used ring");
            }
            assert!(log.count().unwrap() < 100, "what was not written is not logged");
        }
    });
}

/// A client whose slots fit into little memory.
fn small_client(share: &mut crate::support::Share, options: &Options) -> Client {
    let size = ferryfs_guest::LaneSize { slots: 4, request: 1 << 16, reply: 1 << 16, indirect: true };
    let mut client = Client::connect_with(share.daemon.connect().unwrap(), options, size).unwrap();
    client.init().unwrap();
    client
}

/// The pages that the front end itself writes: requests and tables in slots, and the rings' driver areas.
fn own_pages(client: &mut Client) -> Vec<u64> {
    let mut own = Vec::new();
    for lane in client.queues.iter_mut().chain([&mut client.hiprio]) {
        let (request, reply) = (lane.request_capacity(), lane.reply_capacity());
        let slots: Vec<_> = std::iter::from_fn(|| lane.take()).collect();
        for slot in &slots {
            // A slot's table lies two pages before the page that its request begins in.
            let at = lane.request_at(slot) / PAGE * PAGE;
            own.extend((at - 2 * PAGE..at + u64::from(request)).step_by(PAGE as usize));
            assert!(!own.contains(&(lane.reply_at(slot) / PAGE * PAGE)) && reply > 0);
        }
        slots.into_iter().rev().for_each(|slot| lane.give_back(slot));
        let layout = lane.ring().layout();
        let driver = layout.desc / PAGE * PAGE..layout.avail + 6 + 2 * u64::from(layout.size);
        // The used ring shares a page with what the driver writes, and is looked at by itself.
        own.extend(driver.step_by(PAGE as usize));
    }
    own
}

#[test]
fn nothing_is_logged_before_the_log_begins_or_after_it_ends() {
    in_every_sandbox(&[], |share| {
        let mut client = share.client();
        let log = client.front.start_log().unwrap();
        client.front.set_vring_addr(client.front.index(Queue::Request(0)), client.queues[0].ring()).unwrap();
        expect_service(&mut client, "the log began");
        assert!(log.count().unwrap() > 0);
        client.front.set_features(client.front.virtio() & !virtio::LOG_ALL).unwrap();
        log.clear().unwrap();
        expect_service(&mut client, "the log ended");
        assert_eq!(log.count().unwrap(), 0);
    });
}
