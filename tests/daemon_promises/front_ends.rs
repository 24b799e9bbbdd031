//! Front ends that are wrong, and the ones that come after them.

use std::os::fd::AsFd;

use ferryfs_guest::front_end::FrontendReq;
use ferryfs_guest::{Error, Queue};
use fuse_abi::{GetattrIn, Opcode, ROOT_ID};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use zerocopy::IntoBytes;

use crate::support::{Share, expect_service, in_every_sandbox, wait_for};

#[test]
fn a_call_descriptor_that_blocks_holds_nobody_up() {
    in_every_sandbox(&["--persist"], |share: &mut Share| {
        let mut client = share.client();
        let full = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        let index = client.front.index(Queue::Request(0));
        client.front.set(FrontendReq::SET_VRING_CALL, u64::from(index).as_bytes(), &[full.as_fd()]).unwrap();
        for _ in 0..2 {
            let body = GetattrIn::default();
            let header = client.header(Opcode::Getattr.number(), ROOT_ID, size_of_val(&body));
            client.lane().ring().arm().unwrap();
            let cuts = ferryfs_guest::Cuts::LINUX;
            client.lane().send(header.unique, header.as_bytes(), &[body.as_bytes()], 120, &cuts).unwrap();
            wait_for("a reply without a call", || {
                client.lane().try_complete().unwrap().map(|reply| reply.check().unwrap())
            });
        }
        drop(client);
        let mut next = share.client();
        expect_service(&mut next, "a front end whose call descriptor blocks");
    });
}

#[test]
fn memory_that_its_file_does_not_have_is_refused() {
    in_every_sandbox(&["--persist"], |share: &mut Share| {
        let small = memfd_create("small", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&small, 0x1000).unwrap();
        let (guest, user) = (1 << 40, 1 << 46);
        for (size, offset) in [(0x2000u64, 0u64), (0x1000, 0x1000), (1 << 40, 0)] {
            let one = [guest, size, user, offset];
            let table = [[1u32, 0].as_bytes(), one.as_bytes()].concat();
            let region = [[0u64].as_bytes(), one.as_bytes()].concat();
            for (request, body) in [(FrontendReq::SET_MEM_TABLE, table), (FrontendReq::ADD_MEM_REG, region)] {
                let client = share.client();
                let outcome = client.front.set(request, &body, &[small.as_fd()]);
                assert!(matches!(outcome, Err(Error::Refused { .. })), "{request:?} of {size:#x}: {outcome:?}");
            }
        }
        // There is no polite way to refuse a log.
        let mut client = share.client();
        let (request, log) = (FrontendReq::SET_LOG_BASE.into(), [0x2000u64, 0]);
        let outcome = client.front.connection().call(request, 0, log.as_bytes(), &[small.as_fd()]);
        assert!(outcome.is_err(), "{outcome:?}");
        drop(client);
        expect_service(&mut share.client(), "a log that was refused");
    });
}
