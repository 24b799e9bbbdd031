//! What the front end says on the control socket, right and wrong.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use ferryfs_guest::front_end::{FrontendReq, ProtocolFeatures, virtio};
use ferryfs_guest::message::{NEED_REPLY, VERSION};
use ferryfs_guest::{Client, Error, FrontEnd, Options, Queue};
use fuse_abi::ROOT_ID;
use zerocopy::IntoBytes;

use crate::support::{Share, expect_service, in_every_sandbox, options};

#[test]
fn the_device_tells_its_tag_and_its_queues() {
    for queues in [1, 3, 64] {
        let args = ["--tag", "the-tag", &format!("--num-request-queues={queues}")];
        in_every_sandbox(&args, |share| {
            let client = share.client();
            assert_eq!(client.front.queue_num().unwrap(), queues + 1);
            let config = client.front.config().unwrap();
            let mut tag = [0; 36];
            tag[..7].copy_from_slice(b"the-tag");
            assert_eq!((config.tag, u64::from(config.num_request_queues)), (tag, queues));
        });
    }
}

#[test]
fn without_a_tag_there_is_no_config_space() {
    // QEMU 7.1 to 8.0 crash where it is offered.
    in_every_sandbox(&[], |share| {
        let client = share.client();
        assert!(!client.front.protocol_offered().contains(ProtocolFeatures::CONFIG));
        assert!(client.front.protocol_offered().contains(ProtocolFeatures::MQ | ProtocolFeatures::REPLY_ACK));
        let wanted =
            virtio::VERSION_1 | virtio::EVENT_IDX | virtio::INDIRECT_DESC | virtio::RING_RESET | virtio::LOG_ALL;
        assert_eq!(client.front.virtio_offered() & wanted, wanted);
        assert_eq!(client.front.virtio_offered() & virtio::NOTIFICATION, 0);
    });
}

#[test]
fn every_queue_of_the_largest_device_serves() {
    in_every_sandbox(&["--num-request-queues=64"], |share| {
        let options = Options { request_queues: 64, queue_size: 16, memory: vec![(0, 1 << 30)], ..options() };
        let size = ferryfs_guest::LaneSize { slots: 4, request: 1 << 16, reply: 1 << 16, indirect: true };
        let mut client = Client::connect_with(share.daemon.connect().unwrap(), &options, size).unwrap();
        client.init().unwrap();
        for queue in 0..64 {
            client.queue = queue;
            expect_service(&mut client, "its turn");
        }
    });
}

/// Something a front end may say that cannot be.
type Nonsense = (&'static str, fn(&mut FrontEnd) -> Result<(), Error>);

fn state(index: u32, value: u32) -> [u32; 2] {
    [index, value]
}

const NONSENSE: &[Nonsense] = &[
    ("a queue that is not there", |f| f.set(FrontendReq::SET_VRING_NUM, state(99, 128).as_bytes(), &[])),
    ("a ring of no descriptors", |f| f.set(FrontendReq::SET_VRING_NUM, state(1, 0).as_bytes(), &[])),
    ("a ring of three", |f| f.set(FrontendReq::SET_VRING_NUM, state(1, 3).as_bytes(), &[])),
    ("a ring of 2048", |f| f.set(FrontendReq::SET_VRING_NUM, state(1, 2048).as_bytes(), &[])),
    ("a ring of 65536", |f| f.set(FrontendReq::SET_VRING_NUM, state(1, 1 << 16).as_bytes(), &[])),
    ("a base of a queue that is not there", |f| f.set(FrontendReq::SET_VRING_BASE, state(99, 0).as_bytes(), &[])),
    ("an enabled queue that is not there", |f| f.set(FrontendReq::SET_VRING_ENABLE, state(99, 1).as_bytes(), &[])),
    ("a queue that is enabled twice over", |f| f.set(FrontendReq::SET_VRING_ENABLE, state(1, 2).as_bytes(), &[])),
    ("a stop of a queue that is not there", |f| f.stop(99).map(drop)),
    ("a kick for a queue that is not there", |f| {
        f.set(FrontendReq::SET_VRING_KICK, 77_u64.as_bytes(), &[null()?.as_fd()])
    }),
    ("features that nobody offered", |f| f.set(FrontendReq::SET_FEATURES, (1_u64 << 50).as_bytes(), &[])),
    ("a ring outside of memory", |f| {
        let address: [u64; 5] = [1, 0, u64::MAX - 15, 0x7000_0000_0000, 0x7000_0000_0000];
        f.set(FrontendReq::SET_VRING_ADDR, address.as_bytes(), &[])
    }),
    ("a ring that is not aligned", |f| {
        let at = 0x7000_0000_1001_u64;
        f.set(FrontendReq::SET_VRING_ADDR, [1, at, at, at, 0].as_bytes(), &[])
    }),
    ("memory beyond the end of its file", |f| {
        let place: [u64; 5] = [0, 1 << 40, 1 << 40, 1 << 40, 0];
        f.set(FrontendReq::ADD_MEM_REG, place.as_bytes(), &[null()?.as_fd()])
    }),
    ("memory over other memory", |f| {
        let place = [0, 4096, 4096, 1 << 40, 0_u64];
        let region = f.memory().regions()[0].clone();
        f.set(FrontendReq::ADD_MEM_REG, place.as_bytes(), &[region.fd()])
    }),
    ("memory that was never there", |f| {
        f.set(FrontendReq::REM_MEM_REG, [0, 1 << 40, 4096, 1 << 40, 0_u64].as_bytes(), &[])
    }),
    ("a table of no memory", |f| f.set(FrontendReq::SET_MEM_TABLE, [0_u64].as_bytes(), &[])),
    ("a table without its files", |f| f.set(FrontendReq::SET_MEM_TABLE, [1_u64, 0, 4096, 1 << 40, 0].as_bytes(), &[])),
    ("a log without its file", |f| f.set(FrontendReq::SET_LOG_BASE, [4096_u64, 0].as_bytes(), &[])),
    ("a log beyond the end of its file", |f| {
        f.set(FrontendReq::SET_LOG_BASE, [u64::MAX, 4096].as_bytes(), &[null()?.as_fd()])
    }),
    ("requests in flight", |f| f.set(FrontendReq::GET_INFLIGHT_FD, [0_u64, 0, 0].as_bytes(), &[])),
    ("a device state", |f| f.set(FrontendReq::CHECK_DEVICE_STATE, &[], &[])),
    ("a message that does not exist", |f| say(f, 9999, VERSION, &[])),
    ("a message of no number", |f| say(f, 0, VERSION, &[])),
    ("a version that does not exist", |f| say(f, 1, 3, &[])),
    ("a reply", |f| say(f, 1, VERSION | 4, &[])),
    ("a body too long", |f| say(f, 2, VERSION, &[1; 4096])),
    ("a body too short", |f| say(f, FrontendReq::SET_VRING_ADDR.into(), VERSION | NEED_REPLY, &[1; 8])),
    ("a size without a body", |f| f.connection().send_bytes([1, 1, u32::MAX].as_bytes(), &[])),
    ("half a header", |f| f.connection().send_bytes(&[1; 5], &[])),
    ("noise", |f| f.connection().send_bytes(&[0xa5; 3000], &[])),
    ("thirty descriptors", |f| {
        let null = null()?;
        f.connection().send_bytes([1, 1, 0_u32].as_bytes(), &[null.as_fd(); 30])
    }),
];

fn null() -> Result<OwnedFd, Error> {
    File::open("/dev/null").map(Into::into).map_err(Error::io("open /dev/null"))
}

fn say(front: &mut FrontEnd, request: u32, flags: u32, body: &[u8]) -> Result<(), Error> {
    let header = [request, flags, body.len() as u32];
    front.connection().send_bytes(&[header.as_bytes(), body].concat(), &[])
}

/// That the next front end is served as if nothing had been said.
fn expect_next(share: &mut Share, after: &str, open: &mut Option<usize>) {
    let mut client = share.client();
    expect_service(&mut client, after);
    let now = share.daemon.open_files().unwrap();
    assert_eq!(*open.get_or_insert(now), now, "descriptors after {after}");
}

#[test]
fn nonsense_ends_the_connection_at_most_and_never_the_daemon() {
    in_every_sandbox(&["--persist"], |share| {
        let mut open = None;
        expect_next(share, "nothing", &mut open);
        for (what, say) in NONSENSE {
            let mut client = share.client();
            let outcome = say(&mut client.front);
            // It is refused, or the connection ends, or what was said means nothing; it is never waited for in vain.
            assert!(!matches!(outcome, Err(Error::Timeout { .. })), "{what}: {outcome:?}");
            drop(client);
            expect_next(share, what, &mut open);
        }
    });
}

#[test]
fn nonsense_is_refused_where_the_front_end_asked() {
    in_every_sandbox(&["--persist"], |share| {
        for (what, say) in NONSENSE.iter().take_while(|(what, _)| *what != "requests in flight") {
            let mut client = share.client();
            let outcome = say(&mut client.front);
            assert!(matches!(outcome, Err(Error::Refused { .. } | Error::Closed)), "{what}: {outcome:?}");
        }
    });
}

#[test]
fn a_daemon_that_does_not_persist_ends_with_a_reason() {
    in_every_sandbox_ending(|share| {
        let client = share.client();
        client.front.set(FrontendReq::SET_VRING_NUM, state(99, 128).as_bytes(), &[]).unwrap_err();
        drop(client);
        let status = share.daemon.wait_exit(crate::support::HANG).unwrap();
        assert_eq!(status.code(), Some(1));
        assert!(share.daemon.log().contains("the front end cannot be served"), "{}", share.daemon.log());
    });
}

fn in_every_sandbox_ending(test: impl Fn(&mut Share)) {
    for sandbox in ["none", "namespace"] {
        if crate::support::can_have(sandbox) {
            test(&mut Share::new(&["--sandbox", sandbox]));
        }
    }
}

#[test]
fn a_kick_that_is_no_eventfd_stops_no_other_queue() {
    in_every_sandbox(&["--num-request-queues=2", "--persist"], |share| {
        let (pipe, writer) = rustix::pipe::pipe().unwrap();
        let (socket, peer) = std::os::unix::net::UnixStream::pair().unwrap();
        drop((writer, peer));
        // A pipe and a socket that hung up: always ready, never read.
        for fd in [pipe.as_fd(), socket.as_fd()] {
            let mut client = share.client_with(&Options { request_queues: 2, ..options() });
            let index = client.front.index(Queue::Request(1));
            client.front.stop(index).unwrap();
            client.front.set(FrontendReq::SET_VRING_KICK, u64::from(index).as_bytes(), &[fd]).unwrap();
            expect_service(&mut client, "an odd kick");
            crate::idle::expect_idle(&share.daemon);
        }
    });
}

#[test]
fn a_ring_without_a_call_is_polled_by_its_driver() {
    in_every_sandbox(&[], |share| {
        let mut client = share.client();
        client.front.remove_call(client.front.index(Queue::Request(0))).unwrap();
        let body = fuse_abi::GetattrIn::default();
        let request = ferryfs_guest::Request::new(fuse_abi::Opcode::Getattr, ROOT_ID, &[], 104);
        let parts = [body.as_bytes()];
        client.submit(&ferryfs_guest::Request { body: &parts, ..request }).unwrap();
        let limit = client.limit();
        client.lane().spin(limit).unwrap().check().unwrap();
    });
}
