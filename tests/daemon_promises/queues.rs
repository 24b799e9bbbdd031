//! Queues: several at once, of every size and feature, stopped, started, reset and moved under load.

use std::fs;
use std::time::Duration;

use ferryfs_guest::front_end::virtio;
use ferryfs_guest::ring::Layout;
use ferryfs_guest::{Client, Options, Queue, Request};
use fuse_abi::{GetattrIn, Opcode, ROOT_ID};
use zerocopy::IntoBytes;

use crate::load::{Load, Target};
use crate::support::{O_RDWR, expect_service, in_every_sandbox, options, wait_for};

const FOUR: [&str; 1] = ["--num-request-queues=4"];

fn four_queues() -> Options {
    Options { request_queues: 4, ..options() }
}

/// A file for each queue, with what [`Load`] reads of it.
fn targets(client: &mut Client, count: usize) -> Vec<Target> {
    let make = |n| {
        let (entry, open) = client.create(ROOT_ID, format!("file{n}"), 0o644, O_RDWR).unwrap();
        Target { node: entry.nodeid, fh: open.fh }
    };
    (0..count).map(make).collect()
}

fn getattr(client: &mut Client) {
    let body = GetattrIn::default();
    client.submit(&Request::new(Opcode::Getattr, ROOT_ID, &[body.as_bytes()], 104)).unwrap();
}

#[test]
fn every_size_of_ring_serves_with_every_feature() {
    in_every_sandbox(&["--persist"], |share| {
        let base = virtio::VERSION_1 | virtio::PROTOCOL_FEATURES;
        for size in [8, 16, 32, 128, 512, 1024] {
            for more in [0, virtio::EVENT_IDX, virtio::INDIRECT_DESC, virtio::EVENT_IDX | virtio::INDIRECT_DESC] {
                let options = Options { virtio: base | more, queue_size: size, ..options() };
                let mut client = share.client_with(&options);
                assert_eq!(client.front.virtio(), base | more);
                // More than once around the ring.
                let depth = client.lane().size().slots.min(size);
                for _ in 0..1 + 2 * size / depth {
                    (0..depth).for_each(|_| getattr(&mut client));
                    (0..depth).for_each(|_| client.complete().unwrap().check().unwrap());
                }
                client.forget(ROOT_ID, 0).unwrap();
            }
        }
    });
}

#[test]
fn a_ring_without_a_kick_is_looked_at_all_the_same() {
    in_every_sandbox(&["--persist"], |share| {
        for more in [0, virtio::EVENT_IDX] {
            let virtio = virtio::VERSION_1 | virtio::PROTOCOL_FEATURES | more;
            let mut client = share.client_with(&Options { virtio, ..options() });
            let index = client.front.index(Queue::Request(0));
            client.front.remove_kick(index).unwrap();
            for _ in 0..50 {
                expect_service(&mut client, "its kick was taken away");
            }
            let base = client.front.stop(index).unwrap();
            client.front.attach(index, client.queues[0].ring(), base).unwrap();
            expect_service(&mut client, "it was given a kick again");
        }
    });
}

#[test]
fn without_protocol_features_a_ring_needs_no_message_to_be_enabled() {
    in_every_sandbox(&["--persist"], |share| {
        let mut client = share.client_with(&Options { virtio: virtio::VERSION_1, ..options() });
        expect_service(&mut client, "a front end of the old kind");
    });
}

/// Posts a batch at once; returns how often the device called when all of it is done.
fn calls_for(client: &mut Client, batch: usize, armed: bool) -> u64 {
    let limit = client.limit();
    let ring = client.lane().ring();
    ring.drain_call();
    if armed {
        ring.arm().unwrap()
    } else {
        ring.disarm().unwrap()
    }
    let body = GetattrIn::default();
    for _ in 0..batch {
        let header = client.header(Opcode::Getattr.number(), ROOT_ID, size_of_val(&body));
        let lane = client.lane();
        let slot = lane.take().unwrap();
        let len = lane.fill(&slot, header.as_bytes(), &[body.as_bytes()]).unwrap();
        lane.stage(slot, header.unique, len, 120, &ferryfs_guest::Cuts::LINUX).unwrap();
    }
    client.lane().flush().unwrap();
    let until = client.lane().ring().next_avail();
    wait_for("the batch", || (client.lane().ring().used_index().unwrap() == until).then_some(()));
    if armed {
        // The device may still be on its way to it.
        assert!(client.lane().ring().wait_call(limit).unwrap_or(false), "the device must call");
    }
    // Whatever is announced after its hand-over is announced before the ring is stopped.
    let index = client.front.index(Queue::Request(0));
    let base = client.front.stop(index).unwrap();
    let calls = client.lane().ring().drain_call() + u64::from(armed);
    client.front.attach(index, client.queues[0].ring(), base).unwrap();
    client.queues[0].ring().drain_call();
    while client.lane().try_complete().unwrap().is_some() {}
    calls
}

#[test]
fn a_guest_is_called_when_it_asks_and_not_otherwise() {
    in_every_sandbox(&["--persist"], |share| {
        for event_idx in [0, virtio::EVENT_IDX] {
            let base = virtio::VERSION_1 | virtio::PROTOCOL_FEATURES | virtio::INDIRECT_DESC;
            let mut client = share.client_with(&Options { virtio: base | event_idx, ..options() });
            for batch in [1, 7, 32] {
                assert_eq!(calls_for(&mut client, batch, false), 0, "asked for none, {event_idx:#x}");
                let calls = calls_for(&mut client, batch, true);
                if event_idx == 0 {
                    assert!((1..=batch as u64).contains(&calls), "{calls} for {batch}");
                } else {
                    assert_eq!(calls, 1, "one call for one event, batch {batch}");
                }
            }
        }
    });
}

#[test]
fn nothing_that_was_handed_back_before_a_stop_goes_unannounced() {
    in_every_sandbox(&["--persist"], |share| {
        for event_idx in [0, virtio::EVENT_IDX] {
            let base = virtio::VERSION_1 | virtio::PROTOCOL_FEATURES;
            let mut client = share.client_with(&Options { virtio: base | event_idx, ..options() });
            let index = client.front.index(Queue::Request(0));
            for round in 0..200 {
                client.lane().ring().arm().unwrap();
                getattr(&mut client);
                let base = client.front.stop(index).unwrap();
                let done = client.lane().ring().used_index().unwrap();
                assert_eq!(base, done, "what was taken is handed back");
                let called = client.lane().ring().wait_call(Duration::ZERO).unwrap();
                if done == client.lane().ring().next_avail() {
                    assert!(called, "round {round}: the guest was not told");
                }
                client.front.attach(index, client.queues[0].ring(), base).unwrap();
                client.complete().unwrap().check().unwrap();
            }
        }
    });
}

#[test]
fn each_queue_serves_its_own_thread() {
    in_every_sandbox(&FOUR, |share| {
        let mut client = share.client_with(&four_queues());
        assert_eq!(client.front.queue_num().unwrap(), 5);
        let targets = targets(&mut client, 4);
        let load = Load::start(&mut client, &targets);
        load.progress(4000);
        client.queues = load.finish();
        for (n, target) in targets.iter().enumerate() {
            let at_host = fs::read(share.path().join(format!("file{n}"))).unwrap();
            client.queue = 3 - n;
            let read = client.read(target.node, target.fh, 0, 60_000).unwrap();
            assert_eq!(read, at_host[..read.len()], "seen from another queue");
        }
    });
}

#[test]
fn a_queue_that_is_stopped_under_load_has_nothing_in_flight() {
    in_every_sandbox(&FOUR, |share| {
        let mut client = share.client_with(&four_queues());
        let targets = targets(&mut client, 4);
        let load = Load::start(&mut client, &targets);
        for round in 0..60 {
            load.progress(50);
            let n = round % 4;
            let index = client.front.index(Queue::Request(n as u16));
            let base = client.front.stop(index).unwrap();
            let used = || client.front.memory().load(load.ends[n].layout.used + 2).unwrap();
            assert_eq!(used(), base, "what was taken was handed back before the answer");
            // The other queues go on, and on this one nothing happens.
            let others = load.answered.load(std::sync::atomic::Ordering::Relaxed);
            wait_for("the other queues", || {
                (load.answered.load(std::sync::atomic::Ordering::Relaxed) > others + 100).then_some(())
            });
            assert_eq!(used(), base, "nothing completes on a queue that is stopped");
            client.front.attach_ends(index, &load.ends[n], base).unwrap();
        }
        // All that was posted is answered in the end, across every stop.
        client.queues = load.finish();
        expect_service(&mut client, "stops");
    });
}

#[test]
fn memory_may_change_under_load() {
    in_every_sandbox(&FOUR, |share| {
        let mut client = share.client_with(&four_queues());
        let targets = targets(&mut client, 4);
        let load = Load::start(&mut client, &targets);
        let hot = 0x1_0000_0000;
        for round in 0..60 {
            load.progress(30);
            match round % 3 {
                0 => client.front.add_region(hot, 4 << 20).unwrap(),
                1 => client.front.send_memory_table().unwrap(),
                _ => client.front.remove_region(hot).unwrap(),
            }
        }
        client.queues = load.finish();
        expect_service(&mut client, "changes of memory");
        let slots = client.front.max_mem_slots().unwrap();
        assert!(slots >= 32, "{slots}");
    });
}

#[test]
fn as_many_memory_slots_as_promised_can_be_used_and_no_more() {
    in_every_sandbox(&["--persist"], |share| {
        let mut client = share.client();
        let slots = client.front.max_mem_slots().unwrap();
        let at = |n: u64| 0x1_0000_0000 + n * 8192;
        for n in 1..slots {
            client.front.add_region(at(n), 4096).unwrap();
        }
        expect_service(&mut client, "every slot");
        for n in 1..slots {
            client.front.remove_region(at(n)).unwrap();
        }
        expect_service(&mut client, "no slot");
    });
}

/// Every byte of a ring is as the driver left it.
fn untouched(client: &Client, rings: &[Layout]) -> bool {
    rings.iter().all(|ring| {
        let mut used = vec![0; 6 + 8 * usize::from(ring.size)];
        client.front.memory().read(ring.used, &mut used).unwrap();
        used.iter().all(|byte| *byte == 0)
    })
}

#[test]
fn a_device_that_is_reset_under_load_begins_anew() {
    in_every_sandbox(&FOUR, |share| {
        let mut client = share.client_with(&four_queues());
        let mut before = None;
        for _ in 0..8 {
            let targets = targets(&mut client, 4);
            let load = Load::start(&mut client, &targets);
            load.progress(300);
            let layouts: Vec<Layout> = load.ends.iter().map(|ends| ends.layout).collect();
            client.queues = load.break_off(|| client.front.reset_device().unwrap());
            // The old session's handles are gone with it.
            let open = share.daemon.open_files().unwrap();
            assert_eq!(*before.get_or_insert(open), open);
            assert!(untouched(&client, &layouts), "a reset device wrote to a ring");
            client.front.set_features(client.front.virtio()).unwrap();
            let hiprio = client.front.index(Queue::Hiprio);
            client.hiprio.abandon().unwrap();
            client.front.attach(hiprio, client.hiprio.ring(), 0).unwrap();
            for n in 0..4 {
                let index = client.front.index(Queue::Request(n));
                client.front.attach(index, client.queues[usize::from(n)].ring(), 0).unwrap();
            }
            let [stale, ..] = targets[..] else { unreachable!() };
            client.init().unwrap();
            let read = client.read(stale.node, stale.fh, 0, 10);
            assert!(read.is_err_and(|error| error.errno().is_some()), "a handle of the old session");
            expect_service(&mut client, "a reset");
        }
    });
}

#[test]
fn one_ring_can_be_reset_while_the_others_work() {
    // What a driver does with VIRTIO_F_RING_RESET, as a front end passes it on.
    in_every_sandbox(&FOUR, |share| {
        let mut client = share.client_with(&Options { virtio: options().virtio | virtio::RING_RESET, ..four_queues() });
        assert!(client.front.virtio() & virtio::RING_RESET != 0);
        let targets = targets(&mut client, 4);
        let mut reset = client.queues.remove(3);
        let index = client.front.index(Queue::Request(3));
        let load = Load::start(&mut client, &targets[..3]);
        for _ in 0..30 {
            load.progress(30);
            let body = GetattrIn::default();
            for n in 0..5 {
                let header = client.header(Opcode::Getattr.number(), ROOT_ID, size_of_val(&body));
                let cuts = ferryfs_guest::Cuts::LINUX;
                reset.send(header.unique, header.as_bytes(), &[body.as_bytes()], 120, &cuts).unwrap();
                if n % 2 == 0 {
                    reset.complete(crate::support::HANG).unwrap().check().unwrap();
                }
            }
            client.front.stop(index).unwrap();
            reset.abandon().unwrap();
            assert_eq!(reset.ring().used_index().unwrap(), 0);
            client.front.attach(index, reset.ring(), 0).unwrap();
        }
        client.queues = load.finish();
        expect_service(&mut client, "resets of a ring");
    });
}
