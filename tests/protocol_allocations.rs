//! Serving a request allocates nothing: the bytes are read where they lie and the reply is written in place.
//!
//! A binary of its own, because the allocator counts for all of it: for each thread what that one allocates.
#![allow(unsafe_code, reason = "a global allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ferryfs::protocol::*;
use fuse_abi::{AttrOut, EntryOut, InitFlags};
use vm_memory::VolatileSlice;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Trivial;

impl FileSystem for Trivial {
    fn wishes(&self) -> Wishes {
        Wishes {
            flags: InitFlags::empty(),
            max_write: 1 << 20,
            max_readahead: 0,
            max_background: 1,
            time_gran: 1,
            max_stack_depth: 0,
        }
    }
    fn lookup(&self, _: &Context, _: NodeId, _: LookupName<'_>) -> Result<EntryOut> {
        Ok(EntryOut { nodeid: 2, ..EntryOut::default() })
    }
    fn getattr(&self, _: &Context, _: NodeId, _: Option<HandleId>) -> Result<AttrOut> {
        Ok(AttrOut::default())
    }
    fn read(&self, _: &Context, _: NodeId, args: &ReadArgs, body: &mut Body<'_>) -> Result<()> {
        body.unfilled().for_each(|segment| segment.copy_from(&[7_u8; 64]));
        body.filled(args.size as usize);
        Ok(())
    }
    fn write(&self, _: &Context, _: NodeId, _: &WriteArgs, payload: Payload<'_>) -> Result<u32> {
        let mut data = [0_u8; 64];
        payload.segments().for_each(|segment| {
            segment.copy_to(&mut data);
        });
        Ok(payload.len() as u32)
    }
    fn readdir(&self, _: &Context, _: NodeId, _: &ReadDirArgs, reply: &mut DirectoryReply<'_, '_>) -> Result<()> {
        while reply.push(1, 2, 8, b"name") {}
        Ok(())
    }
}

fn message(opcode: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend((40 + body.len() as u32).to_ne_bytes());
    out.extend(opcode.to_ne_bytes());
    out.extend([0; 32]);
    out.extend(body);
    out
}

#[test]
fn getattr_lookup_read_write_and_readdir_allocate_nothing() {
    let server = Server::new(Trivial, Options::default());
    // fh and offset 0, size 64, the rest 0; a WRITE's data follows.
    let io = [[0; 16].as_slice(), &64_u32.to_ne_bytes(), &[0; 20]].concat();
    let init = message(26, &[[7, 0, 0, 0, 46, 0, 0, 0].as_slice(), &[0; 56]].concat());
    let mut requests = [
        message(3, &[0; 16]),
        message(1, b"a.txt\0"),
        message(15, &io),
        message(16, &[io.as_slice(), &[1; 64]].concat()),
        message(28, &io),
        message(17, &[]),
    ];
    let mut reply = [0_u8; 4096];
    let (mut header, body) = ([0_u8; 16], reply.as_mut_slice());
    let reply = [VolatileSlice::from(header.as_mut_slice()), VolatileSlice::from(body)];
    assert!(matches!(server.serve(&init, Payload::empty(), &reply, false), Served::Reply(80)));

    for request in &mut requests {
        let head_len = server.head_len(&request[..40], request.len());
        let head = request[..head_len].to_vec();
        let segments = [VolatileSlice::from(request.as_mut_slice())];
        let before = ALLOCATIONS.get();
        for _ in 0..1000 {
            let served = server.serve(&head, Payload::new(&segments, head_len), &reply, false);
            assert!(matches!(served, Served::Reply(_)));
        }
        let made = ALLOCATIONS.get() - before;
        assert_eq!(made, 0, "opcode {}", head[4]);
    }
}
