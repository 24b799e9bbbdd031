//! What the protocol costs without a file system: parsing, a whole request with its reply, packing a listing.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ferryfs::protocol::*;
use fuse_abi::{AttrOut, EntryOut, InHeader, InitFlags, KERNEL_MINOR_VERSION, Opcode};
use vm_memory::VolatileSlice;
use zerocopy::IntoBytes;

/// Answers at once what these benchmarks ask.
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
}

fn message(opcode: Opcode, body: &[u8]) -> Vec<u8> {
    let len = (size_of::<InHeader>() + body.len()) as u32;
    let header = InHeader { len, opcode: opcode.number(), nodeid: 1, ..InHeader::default() };
    [header.as_bytes(), body].concat()
}

fn requests() -> [(&'static str, Vec<u8>); 4] {
    [
        ("getattr", message(Opcode::Getattr, &[0; 16])),
        ("lookup", message(Opcode::Lookup, b"a-name-of-some-length.txt\0")),
        ("read", message(Opcode::Read, &[0; 40])),
        ("create", message(Opcode::Create, b"\x02\0\0\0\xa4\x81\0\0\0\0\0\0\0\0\0\0a-name.txt\0")),
    ]
}

fn parser(c: &mut Criterion) {
    let agreed = Agreement { minor: KERNEL_MINOR_VERSION, flags: InitFlags::empty() };
    let terms = Terms { agreed, arch: GuestArch::NATIVE };
    let mut group = c.benchmark_group("parse");
    for (name, bytes) in requests() {
        group.bench_function(name, |b| {
            b.iter(|| Message::open(black_box(&bytes)).map(|message| message.parse(0, &terms).map(black_box)));
        });
    }
    group.finish();
}

fn served(c: &mut Criterion) {
    let server = Server::new(Trivial, Options::default());
    let (mut header, mut body) = ([0_u8; 16], [0_u8; 4096]);
    let reply = [VolatileSlice::from(header.as_mut_slice()), VolatileSlice::from(body.as_mut_slice())];
    let init = message(Opcode::Init, &[[7, 0, 0, 0, 43, 0, 0, 0].as_slice(), &[0; 56]].concat());
    assert!(matches!(server.serve(&init, Payload::empty(), &reply, false), Served::Reply(80)));
    let mut group = c.benchmark_group("serve");
    for (name, bytes) in requests().into_iter().take(2) {
        group.bench_function(name, |b| b.iter(|| server.serve(black_box(&bytes), Payload::empty(), &reply, false)));
    }
    group.finish();
}

fn listing(c: &mut Criterion) {
    let mut room = vec![0_u8; 128 << 10];
    let segments = [VolatileSlice::from(room.as_mut_slice())];
    let name = b"an-entry-of-the-list-00000";
    let entry = EntryOut { nodeid: 2, ..EntryOut::default() };
    let mut group = c.benchmark_group("pack 1000 entries");
    group.throughput(Throughput::Elements(1000));
    group.bench_function("readdir", |b| {
        b.iter(|| {
            let mut body = Body::new(&segments, 0);
            let mut reply = DirectoryReply::new(&mut body);
            (0..1000).filter(|next| reply.push(7, *next, 8, black_box(name))).count()
        });
    });
    group.bench_function("readdirplus", |b| {
        b.iter(|| {
            let mut body = Body::new(&segments, 0);
            let mut reply = DirectoryReply::new(&mut body);
            // As many as fit 128 KiB, then refused: both are part of the work.
            (0..1000).filter(|next| reply.push_plus(&entry, 7, *next, 8, black_box(name))).count()
        });
    });
    group.finish();
}

criterion_group!(benches, parser, served, listing);
criterion_main!(benches);
