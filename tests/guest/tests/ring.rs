//! The ring and the lane against a device side that others wrote (`virtio-queue`), in this process.

use std::time::Duration;

use ferryfs_guest::memory::{Arena, Memory, PAGE};
use ferryfs_guest::ring::{INDIRECT, Layout, NEXT, WRITE};
use ferryfs_guest::{Cuts, Desc, Error, Lane, LaneSize, NullDevice, Ring};
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;

const LIMIT: Duration = Duration::from_secs(20);

fn ring(size: u16, event_idx: bool) -> (Ring, Arena) {
    let memory = Memory::new(&[(0, 64 << 20)]).unwrap();
    let mut arena = Arena::new(PAGE, (64 << 20) - PAGE);
    let layout = Layout::take(&mut arena, size).unwrap();
    (Ring::new(memory, layout, event_idx).unwrap(), arena)
}

fn device(ring: &Ring, event_idx: bool) -> Queue {
    let layout = ring.layout();
    let mut queue = Queue::new(layout.size).unwrap();
    queue.try_set_desc_table_address(GuestAddress(layout.desc)).unwrap();
    queue.try_set_avail_ring_address(GuestAddress(layout.avail)).unwrap();
    queue.try_set_used_ring_address(GuestAddress(layout.used)).unwrap();
    queue.set_event_idx(event_idx);
    queue.set_ready(true);
    queue
}

fn seen(queue: &mut Queue, ring: &Ring) -> Option<(u16, Vec<Desc>)> {
    let chain = queue.pop_descriptor_chain(ring.memory().map())?;
    let head = chain.head_index();
    let flags = |d: &virtio_queue::desc::split::Descriptor| if d.is_write_only() { WRITE } else { 0 };
    Some((head, chain.map(|d| Desc { addr: d.addr().0, len: d.len(), flags: flags(&d), next: 0 }).collect()))
}

#[test]
fn a_device_sees_the_chain_that_was_posted() {
    let (mut ring, _) = ring(8, false);
    let mut queue = device(&ring, false);
    let chain = [Desc::readable(0x1000, 40), Desc::readable(0x2000, 7), Desc::writable(0x3000, 16)];
    for _ in 0..100 {
        let head = ring.post(&chain).unwrap();
        assert_eq!(seen(&mut queue, &ring), Some((head, chain.to_vec())));
        queue.add_used(ring.memory().map(), head, 16).unwrap();
        let used = ring.pop().unwrap().unwrap();
        assert_eq!((used.head, used.len), (head, 16));
    }
    assert_eq!(ring.free(), 8);
}

#[test]
fn an_indirect_table_is_followed() {
    let (mut ring, mut arena) = ring(4, false);
    let mut queue = device(&ring, false);
    let table = arena.take(PAGE, PAGE).unwrap();
    let mut chain: Vec<Desc> = (0..200).map(|n| Desc::readable(0x10_0000 + n * 64, 64)).collect();
    chain.push(Desc::writable(0x20_0000, 16));
    ring.add_indirect(table, &mut chain).unwrap();
    ring.publish().unwrap();
    let (_, descs) = seen(&mut queue, &ring).unwrap();
    assert_eq!(descs.len(), 201);
    assert_eq!((descs[200].addr, descs[200].flags, ring.free()), (0x20_0000, WRITE, 3));
}

#[test]
fn raw_chains_reach_the_table_as_they_are() {
    let (mut ring, _) = ring(8, false);
    let looped =
        [Desc { addr: 1, len: 2, flags: NEXT, next: 1 }, Desc { addr: u64::MAX, len: 0, flags: NEXT | WRITE, next: 0 }];
    let head = ring.post_raw(&looped).unwrap();
    let at = |index: u16| ring.memory().get::<Desc>(ring.layout().desc + 16 * u64::from(index)).unwrap();
    let second = at(head).next;
    assert_eq!(at(second), Desc { addr: u64::MAX, len: 0, flags: NEXT | WRITE, next: head });
    let head = ring.post_raw(&[Desc { addr: 0, len: 5, flags: INDIRECT | NEXT, next: 9999 }]).unwrap();
    let at = ring.memory().get::<Desc>(ring.layout().desc + 16 * u64::from(head)).unwrap();
    assert_eq!((at.flags, at.next, at.len), (INDIRECT | NEXT, 9999, 5));
}

#[test]
fn a_chain_answered_twice_or_never_posted_is_found() {
    let (mut ring, _) = ring(8, false);
    let mut queue = device(&ring, false);
    let head = ring.post(&[Desc::readable(0x1000, 1)]).unwrap();
    let map = ring.memory().map().clone();
    queue.add_used(&map, head, 0).unwrap();
    queue.add_used(&map, head, 0).unwrap();
    assert!(ring.pop().unwrap().is_some());
    assert!(matches!(ring.pop(), Err(Error::NotInFlight(id)) if id == u32::from(head)));
    queue.add_used(&map, 5, 0).unwrap();
    assert!(matches!(ring.pop(), Err(Error::NotInFlight(5))));
}

#[test]
fn a_full_ring_says_so_and_recovers() {
    let (mut ring, _) = ring(4, false);
    let mut queue = device(&ring, false);
    let pair = [Desc::readable(0x1000, 1), Desc::writable(0x2000, 1)];
    ring.post(&pair).unwrap();
    let second = ring.post(&pair).unwrap();
    assert!(matches!(ring.post(&pair), Err(Error::Full)));
    assert_eq!(ring.in_flight(), 2);
    // Out of order, as a device may.
    queue.add_used(ring.memory().map(), second, 1).unwrap();
    assert_eq!(ring.pop().unwrap().unwrap().head, second);
    assert_eq!(ring.post(&pair).unwrap(), second);
}

#[test]
fn a_kick_is_sent_only_when_the_device_wants_one() {
    for event_idx in [false, true] {
        let (mut ring, _) = ring(16, event_idx);
        let mut queue = device(&ring, event_idx);
        let map = ring.memory().map().clone();
        let one = [Desc::readable(0x1000, 1)];
        let publish = |ring: &mut Ring| {
            ring.add(&one).unwrap();
            ring.publish().unwrap();
            ring.notify().unwrap()
        };
        queue.enable_notification(&map).unwrap();
        assert!(publish(&mut ring), "event_idx {event_idx}: the device sleeps");
        queue.disable_notification(&map).unwrap();
        while seen(&mut queue, &ring).is_some() {}
        assert!(!publish(&mut ring), "event_idx {event_idx}: the device is awake");
        assert!(queue.enable_notification(&map).unwrap(), "event_idx {event_idx}: it must look once more");
        while seen(&mut queue, &ring).is_some() {}
        queue.enable_notification(&map).unwrap();
        assert!(publish(&mut ring), "event_idx {event_idx}: it sleeps again");
    }
}

#[test]
fn a_call_is_asked_for_once_and_not_when_disarmed() {
    let (mut ring, _) = ring(16, true);
    let mut queue = device(&ring, true);
    let map = ring.memory().map().clone();
    let mut answer = |ring: &mut Ring| {
        let head = ring.post(&[Desc::readable(0x1000, 1)]).unwrap();
        queue.add_used(&map, head, 0).unwrap();
        let wanted = queue.needs_notification(&map).unwrap();
        ring.pop().unwrap().unwrap();
        wanted
    };
    ring.arm().unwrap();
    assert!(answer(&mut ring));
    assert!(!answer(&mut ring), "armed for the entry before");
    ring.disarm().unwrap();
    assert!((0..100).all(|_| !answer(&mut ring)));
    ring.arm().unwrap();
    assert!(answer(&mut ring));
}

#[test]
fn many_requests_in_flight_come_back_each_with_its_number() {
    for (event_idx, indirect) in [(false, false), (false, true), (true, false), (true, true)] {
        let (ring, mut arena) = ring(256, event_idx);
        let null = NullDevice::start(&ring, event_idx).unwrap();
        let size = LaneSize { slots: 32, request: 4096, reply: 4096, indirect };
        let mut lane = Lane::new(ring, &mut arena, size).unwrap();
        let (mut sent, mut done) = (0u64, 0u64);
        while done < 20_000 {
            while sent < 20_000 && lane.in_flight() < 32 {
                sent += 1;
                let header = [40u64 | 3 << 32, sent, 1, 0, 0];
                let bytes: Vec<u8> = header.iter().flat_map(|word| word.to_ne_bytes()).collect();
                lane.send(sent, &bytes, &[&[0; 16]], 120, &Cuts::LINUX).unwrap();
            }
            let completion = lane.complete(LIMIT).unwrap();
            completion.check().unwrap();
            assert_eq!((completion.used(), completion.header().unique), (16, completion.unique()));
            done += 1;
        }
        assert_eq!((lane.in_flight(), null.served()), (0, 20_000));
        null.stop().unwrap();
    }
}

#[test]
fn requests_are_cut_where_asked() {
    let (ring, mut arena) = ring(256, false);
    let mut queue = device(&ring, false);
    let size = LaneSize { slots: 2, request: 65536, reply: 65536, indirect: false };
    let mut lane = Lane::new(ring, &mut arena, size).unwrap();
    let mut lens = |request: u32, reply: u32, cuts: Cuts<'_>| {
        let slot = lane.take().unwrap();
        let (request_at, reply_at) = (lane.request_at(&slot), lane.reply_at(&slot));
        assert_eq!(((request_at + 80) % PAGE, (reply_at + 16) % PAGE), (0, 0), "payloads are page-aligned");
        lane.submit(slot, 1, request, reply, &cuts).unwrap();
        let (head, descs) = seen(&mut queue, lane.ring()).unwrap();
        queue.add_used(lane.memory().map(), head, 0).unwrap();
        lane.try_complete().unwrap().unwrap();
        let mut end = request_at;
        for desc in descs.iter().filter(|desc| desc.flags & WRITE == 0) {
            assert_eq!(desc.addr, end);
            end += u64::from(desc.len);
        }
        assert_eq!(end, request_at + u64::from(request));
        descs.iter().map(|desc| (desc.len, desc.flags & WRITE != 0)).collect::<Vec<_>>()
    };
    assert_eq!(lens(56, 120, Cuts::LINUX), [(40, false), (16, false), (16, true), (104, true)]);
    assert_eq!(lens(40, 16, Cuts::LINUX), [(40, false), (16, true)]);
    assert_eq!(lens(41, 0, Cuts::NONE), [(41, false)]);
    assert_eq!(lens(80, 16, Cuts { request: &[1, 2, 39, 79], reply: &[8], pages: false }).len(), 7);
    let pages = Cuts { pages: true, ..Cuts::LINUX_WRITE };
    assert_eq!(
        lens(80 + 8193, 16 + 4096, pages),
        [(40, false), (40, false), (4096, false), (4096, false), (1, false), (16, true), (4096, true)]
    );
}

#[test]
fn an_abandoned_lane_names_what_was_not_answered_and_starts_again() {
    let (ring, mut arena) = ring(16, true);
    let size = LaneSize { slots: 4, request: 4096, reply: 4096, indirect: true };
    let mut lane = Lane::new(ring, &mut arena, size).unwrap();
    for unique in [10, 20, 30] {
        lane.send(unique, &[0; 40], &[], 16, &Cuts::NONE).unwrap();
    }
    let mut open = lane.abandon().unwrap();
    open.sort_unstable();
    assert_eq!(open, [10, 20, 30]);
    assert_eq!((lane.in_flight(), lane.ring().free(), lane.ring().next_avail()), (0, 16, 0));
}

#[test]
fn memory_may_have_gaps_and_change() {
    let memory = Memory::new(&[(0, 8192), (0x1_0000_0000, 4096)]).unwrap();
    assert!(memory.write(8191, &[1, 2]).is_err());
    let more = memory.with(8192, 4096).unwrap();
    more.write(8191, &[1, 2]).unwrap();
    assert_eq!(memory.get::<[u8; 1]>(8191).unwrap(), [1], "regions are shared");
    let less = more.without(0).unwrap();
    assert!(less.get::<[u8; 1]>(8191).is_err());
    assert_eq!(less.get::<[u8; 1]>(8192).unwrap(), [2]);
}
