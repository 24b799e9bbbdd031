//! What serving costs in memory: nothing a request once things are warm, and a bounded number of bytes an inode.
//!
//! A binary of its own, because its allocator counts. It does so for each thread: the test's own serves the requests.
#![allow(unsafe_code, reason = "a global allocator cannot be written without")]

mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fs::File,
};

use ferryfs::{
    passthrough::{Passthrough, config::Config},
    protocol::{Payload, Served, Server},
};
use fuse_abi::WriteFlags;
use vm_memory::VolatileSlice;

use support::{Client, ROOT, Share, in_handle_mode, needs_root, supports_handles, wire::Message};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<i64> = const { Cell::new(0) };
}

// SAFETY: every call goes on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        BYTES.set(BYTES.get() + layout.size() as i64);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.set(BYTES.get() - layout.size() as i64);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often a thread asks for memory while it serves the same request a thousand times over.
fn allocations(server: &Server<Passthrough>, mut message: Message) -> u64 {
    let mut reply = vec![0; message.room];
    let reply = [VolatileSlice::from(reply.as_mut_slice())];
    let payload = [VolatileSlice::from(message.payload.as_mut_slice())];
    let serve = || {
        let served = server.serve(&message.head, Payload::new(&payload, 0), &reply, true);
        assert!(matches!(served, Served::Reply(len) if len >= 16), "{served:?}");
    };
    serve();
    let before = ALLOCATIONS.get();
    (0..1000).for_each(|_| serve());
    ALLOCATIONS.get() - before
}

#[test]
fn getattr_lookup_read_and_write_allocate_nothing_once_they_are_warm() {
    use fuse_abi::Opcode;
    let share = Share::new();
    let client = Client::here(&share.server);
    let (entry, open) = client.create(ROOT, "file", libc::O_RDWR, 0o644).unwrap();
    let (node, handle) = (entry.nodeid, open.fh);
    client.write(node, handle, 0, &[7; 8192]).unwrap();
    let request = |opcode, node, body: &[u8]| client.message(opcode, node, &[body], 256);
    for (what, message) in [
        ("GETATTR", request(Opcode::Getattr, node, &[0; 16])),
        ("GETATTR of the root", request(Opcode::Getattr, ROOT, &[0; 16])),
        ("LOOKUP of a known name", request(Opcode::Lookup, ROOT, b"file\0")),
        ("STATFS", request(Opcode::Statfs, node, &[])),
        ("READ", client.read_message(node, handle, 0, 8192)),
        ("WRITE", client.write_message(node, handle, 0, &[8; 8192], WriteFlags::empty())),
        ("FLUSH", request(Opcode::Flush, node, &[handle.to_ne_bytes(), [0; 8], [0; 8]].concat())),
    ] {
        assert_eq!(allocations(&share.server, message), 0, "{what}");
    }
}

/// Bytes that an inode takes on the heap, with all its entries in tables, over many of them.
fn bytes_per_inode(inodes: usize, config: impl FnOnce(&mut Config)) -> f64 {
    let share = Share::in_memory(config);
    let client = Client::here(&share.server);
    let name = |number: usize| format!("{number:06}");
    (0..inodes).for_each(|number| drop(File::create(share.host(&name(number))).unwrap()));
    client.lookup(ROOT, &name(0)).unwrap();
    let before = BYTES.get();
    for number in 1..inodes {
        client.lookup(ROOT, &name(number)).unwrap();
    }
    let after = BYTES.get();
    assert_eq!(share.known_inodes(), inodes);
    (after - before) as f64 / (inodes - 1) as f64
}

const MANY: usize = 100_000;
/// What an inode may take beside its names and what the kernel keeps.
const BYTES_PER_INODE: f64 = 200.0;

#[test]
fn an_inode_that_is_kept_by_descriptor_takes_no_more_than_its_share_of_memory() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    // As many as this process may have, and room for its own.
    let inodes = MANY.min(usize::try_from(hard.saturating_sub(500)).unwrap_or(MANY));
    let bytes = bytes_per_inode(inodes, |config| config.descriptor_budget = inodes);
    println!("{bytes:.1} bytes an inode by descriptor, {inodes} of them");
    assert!(bytes <= BYTES_PER_INODE, "{bytes}");
}

#[test]
fn an_inode_that_is_kept_by_file_handle_takes_no_more_than_its_share_of_memory() {
    let directory = support::memory_directory().unwrap_or_else(support::disk_directory);
    if needs_root() || !supports_handles(directory.path()) && support::skipped("no file handles here") {
        return;
    }
    let bytes = bytes_per_inode(MANY, in_handle_mode);
    println!("{bytes:.1} bytes an inode by file handle, {MANY} of them");
    assert!(bytes <= BYTES_PER_INODE, "{bytes}");
}

#[test]
fn what_many_inodes_took_is_given_back_with_the_last_forget() {
    let share = Share::in_memory(in_handle_mode);
    if needs_root() || !supports_handles(share.path()) && support::skipped("no file handles here") {
        return;
    }
    let client = Client::here(&share.server);
    let name = |number: usize| format!("{number:06}");
    (0..MANY).for_each(|number| drop(File::create(share.host(&name(number))).unwrap()));
    let before = BYTES.get();
    let nodes: Vec<u64> = (0..MANY).map(|number| client.lookup(ROOT, &name(number)).unwrap().nodeid).collect();
    nodes.iter().for_each(|node| client.forget(*node, 1));
    drop(nodes);
    let left = BYTES.get() - before;
    println!("{left} bytes are left of {MANY} inodes");
    // Tables that have many shards keep a little room in each.
    assert!(left < 400_000, "{left}");
}
