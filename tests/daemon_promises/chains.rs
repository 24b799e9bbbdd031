//! Descriptor chains as no driver sends them: each ends its own request and nothing else.

use ferryfs_guest::client::MAX_PAYLOAD;
use ferryfs_guest::memory::Memory;
use ferryfs_guest::ring::{INDIRECT, NEXT, WRITE, link};
use ferryfs_guest::{Client, Desc, Options};
use fuse_abi::{AttrOut, GetattrIn, InHeader, Opcode, OutHeader, ROOT_ID, ReadIn};
use zerocopy::IntoBytes;

use crate::support::{expect_service, in_every_sandbox, options};

const HEADER: u32 = size_of::<InHeader>() as u32;
const REPLY: u32 = (size_of::<OutHeader>() + size_of::<AttrOut>()) as u32;
/// Where the memory of [`options`] ends.
const END: u64 = 128 << 20;

/// A valid GETATTR in guest memory, with room for its reply and for tables.
struct Desk {
    memory: Memory,
    request: u64,
    len: u32,
    reply: u64,
    table: u64,
}

impl Desk {
    fn new(client: &mut Client) -> Self {
        let mut take = || client.front.arena().take(1 << 16, 4096).unwrap();
        let (request, reply, table) = (take(), take(), take());
        let memory = client.front.memory().clone();
        let body = GetattrIn::default();
        let header = client.header(Opcode::Getattr.number(), ROOT_ID, size_of_val(&body));
        memory.write(request, &[header.as_bytes(), body.as_bytes()].concat()).unwrap();
        Self { memory, request, len: header.len, reply, table }
    }

    fn readable(&self) -> Desc {
        Desc::readable(self.request, self.len)
    }

    fn writable(&self) -> Desc {
        Desc::writable(self.reply, 4096)
    }

    /// A table of descriptors as they are, and the one that points to it.
    fn table(&self, descs: &[Desc]) -> Desc {
        self.memory.write(self.table, descs.as_bytes()).unwrap();
        Desc::indirect(self.table, descs.len())
    }

    /// Posts a chain whose `next` is relative to it; returns the used length, and the reply's header.
    fn post(&self, client: &mut Client, chain: &[Desc]) -> (u32, OutHeader) {
        self.memory.put(self.reply, &OutHeader::default()).unwrap();
        let limit = client.limit();
        let ring = client.lane().ring();
        let head = ring.post_raw(chain).unwrap();
        let used = ring.wait(limit).unwrap();
        assert_eq!(used.head, head);
        (used.len, self.memory.get(self.reply).unwrap())
    }
}

fn next(desc: Desc, next: u16) -> Desc {
    Desc { flags: desc.flags | NEXT, next, ..desc }
}

fn with(desc: Desc, flags: u16) -> Desc {
    Desc { flags: desc.flags | flags, ..desc }
}

#[test]
fn a_malformed_chain_ends_that_request_alone() {
    type Case = (&'static str, fn(&Desk) -> Vec<Desc>);
    let cases: &[Case] = &[
        ("a loop of two", |d| vec![next(d.readable(), 1), next(d.readable(), 0)]),
        ("a loop of one", |d| vec![next(d.readable(), 0)]),
        ("a loop of writable descriptors", |d| vec![next(d.readable(), 1), next(d.writable(), 1)]),
        ("an empty readable descriptor", |d| vec![next(Desc { len: 0, ..d.readable() }, 1), d.writable()]),
        ("an empty writable descriptor", |d| vec![next(d.readable(), 1), Desc { len: 0, ..d.writable() }]),
        ("memory beyond the end", |d| vec![next(Desc { addr: END, ..d.readable() }, 1), d.writable()]),
        ("memory across the end", |d| vec![next(Desc { addr: END - 8, ..d.readable() }, 1), d.writable()]),
        ("memory around the address space", |d| vec![next(Desc::readable(u64::MAX - 7, HEADER), 1), d.writable()]),
        ("all there is", |d| vec![next(Desc::readable(0, u32::MAX), 1), d.writable()]),
        ("a reply beyond the end", |d| vec![next(d.readable(), 1), Desc { addr: END - 8, ..d.writable() }]),
        ("a next beyond the table", |d| vec![next(d.readable(), 4000)]),
        ("readable after writable", |d| vec![next(d.readable(), 1), next(d.writable(), 2), d.readable()]),
        ("writable before all", |d| vec![next(d.writable(), 1), d.readable()]),
        ("no room for a reply", |d| vec![d.readable()]),
        ("room for 15 bytes", |d| vec![next(d.readable(), 1), Desc { len: 15, ..d.writable() }]),
        ("nothing to read", |d| vec![d.writable()]),
        ("a header cut short", |d| vec![next(Desc { len: HEADER - 1, ..d.readable() }, 1), d.writable()]),
        ("a table in a table", |d| {
            let inner = [next(d.readable(), 1), with(d.writable(), INDIRECT)];
            vec![d.table(&inner)]
        }),
        ("a table in itself", |d| vec![d.table(&[Desc::indirect(d.table, 1)])]),
        ("a table that is not the last", |d| {
            let table = d.table(&[next(d.readable(), 1), d.writable()]);
            vec![next(table, 1), d.writable()]
        }),
        ("an empty table", |d| vec![Desc { len: 0, ..Desc::indirect(d.table, 1) }]),
        ("half a descriptor", |d| vec![Desc { len: 8, ..d.table(&[d.readable()]) }]),
        ("a table and a half", |d| vec![Desc { len: 40, ..d.table(&[next(d.readable(), 1), d.writable()]) }]),
        ("a table beyond the end", |_| vec![Desc::indirect(END - 16, 2)]),
        ("the longest table there can be", |_| vec![Desc { len: !15, ..Desc::indirect(4096, 1) }]),
        ("a next beyond its own table", |d| vec![d.table(&[next(d.readable(), 2), d.writable()])]),
        ("a loop in a table", |d| vec![d.table(&[next(d.readable(), 1), next(d.readable(), 0)])]),
        ("more descriptors than a system call takes", |d| {
            let mut many = vec![Desc::readable(d.request, 1); 2000];
            link(&mut many);
            many[1999] = d.writable();
            vec![d.table(&many)]
        }),
    ];
    in_every_sandbox(&[], |share| {
        let mut client = share.client();
        let desk = Desk::new(&mut client);
        for (name, chain) in cases {
            let (used, reply) = desk.post(&mut client, &chain(&desk));
            assert_eq!((used, reply), (0, OutHeader::default()), "{name}");
            expect_service(&mut client, name);
        }
        let log = share.daemon.log();
        assert!(
            log.contains("a request was dropped: ") && log.contains("so far)"),
            "dropped requests are told of: {log}"
        );
    });
}

#[test]
fn an_unusual_chain_is_served_like_any_other() {
    type Case = (&'static str, fn(&Desk) -> Vec<Desc>);
    let cases: &[Case] = &[
        ("one descriptor each way", |d| vec![next(d.readable(), 1), d.writable()]),
        ("a descriptor a byte", |d| {
            let mut bytes: Vec<Desc> = (0..d.len).map(|n| Desc::readable(d.request + u64::from(n), 1)).collect();
            bytes.extend((0..REPLY).map(|n| Desc::writable(d.reply + u64::from(n), 1)));
            link(&mut bytes);
            vec![d.table(&bytes)]
        }),
        ("a table that says it is writable", |d| vec![with(d.table(&[next(d.readable(), 1), d.writable()]), WRITE)]),
        ("a table after a plain descriptor", |d| {
            let rest = Desc::readable(d.request + u64::from(HEADER), d.len - HEADER);
            let table = d.table(&[next(rest, 1), d.writable()]);
            vec![next(Desc { len: HEADER, ..d.readable() }, 1), table]
        }),
        ("descriptors in any order", |d| {
            let (first, rest) = (Desc { len: 9, ..d.readable() }, Desc::readable(d.request + 9, d.len - 9));
            vec![d.table(&[next(first, 2), d.writable(), next(rest, 1)])]
        }),
        ("no more room than the reply takes", |d| vec![next(d.readable(), 1), Desc { len: REPLY, ..d.writable() }]),
    ];
    in_every_sandbox(&[], |share| {
        let mut client = share.client();
        let desk = Desk::new(&mut client);
        for (name, chain) in cases {
            let (used, reply) = desk.post(&mut client, &chain(&desk));
            assert_eq!((used, reply.len, reply.error), (REPLY, REPLY, 0), "{name}");
        }
    });
}

/// Memory in three regions: two that touch, and one behind a gap.
fn regions() -> Options {
    const REGION: u64 = 64 << 20;
    Options { memory: vec![(0, REGION), (REGION, REGION), (3 * REGION, 1 << 20)], ..options() }
}

#[test]
fn a_descriptor_may_span_regions_that_touch_but_not_a_gap() {
    const TOUCH: u64 = 64 << 20;
    in_every_sandbox(&[], |share| {
        let data: Vec<u8> = (0..60_000_u32).map(|n| (n % 251) as u8).collect();
        std::fs::write(share.path().join("file"), &data).unwrap();
        let mut client = share.client_with(&regions());
        let mut desk = Desk::new(&mut client);
        let node = client.lookup(ROOT_ID, "file").unwrap().nodeid;
        let fh = client.open(node, 0).unwrap().fh;
        let body = ReadIn { fh, size: 60_000, ..ReadIn::default() };
        let header = client.header(Opcode::Read.number(), node, size_of_val(&body));
        // The request's header and the reply's data both lie on the border.
        (desk.request, desk.len, desk.reply) = (TOUCH - 17, header.len, TOUCH - 30_000);
        desk.memory.write(desk.request, &[header.as_bytes(), body.as_bytes()].concat()).unwrap();
        let table = desk.table(&[next(desk.readable(), 1), Desc { len: 60_016, ..desk.writable() }]);
        // The reply overwrites the request, which was read before.
        let (used, reply) = desk.post(&mut client, &[table]);
        assert_eq!((used, reply.len, reply.error), (60_016, 60_016, 0));
        let mut read = vec![0; data.len()];
        desk.memory.read(desk.reply + 16, &mut read).unwrap();
        assert_eq!(read, data);

        let gap = 2 * TOUCH;
        for at in [gap - 30_000, gap, 3 * TOUCH - 8] {
            let desk = Desk { reply: desk.table + 4096, ..Desk::new(&mut client) };
            let table = desk.table(&[next(desk.readable(), 1), Desc::writable(at, 60_016)]);
            assert_eq!(desk.post(&mut client, &[table]).0, 0, "{at:#x}");
            expect_service(&mut client, "a descriptor over a gap");
        }
    });
}

#[test]
fn a_head_that_is_no_descriptor_is_passed_over() {
    in_every_sandbox(&[], |share| {
        let mut client = share.client();
        let size = client.lane().ring().layout().size;
        for head in [size, u16::MAX] {
            client.lane().ring().stage(head).unwrap();
            expect_service(&mut client, "a head beyond the table");
        }
        // It does not count as under way for ever either.
        let index = client.front.index(ferryfs_guest::Queue::Request(0));
        let base = client.front.stop(index).unwrap();
        assert_eq!(base, client.lane().ring().next_avail());
    });
}

#[test]
fn an_available_index_that_cannot_be_is_waited_out() {
    in_every_sandbox(&[], |share| {
        let mut client = share.client();
        let (size, good) = (client.lane().ring().layout().size, client.lane().ring().next_avail());
        for wrong in [good.wrapping_add(size + 1), good.wrapping_sub(1), good.wrapping_add(0x8000)] {
            client.lane().ring().set_avail_index(wrong).unwrap();
            client.lane().ring().kick().unwrap();
            // Another queue goes on, and this one does as soon as the index is right again.
            client.forget(ROOT_ID, 0).unwrap();
            client.lane().ring().set_avail_index(good).unwrap();
            client.lane().ring().kick().unwrap();
        }
        expect_service(&mut client, "wrong available indices");
    });
}

#[test]
fn the_longest_chain_of_a_guest_is_served() {
    // A megabyte of single pages, as a guest with scattered memory sends it.
    in_every_sandbox(&[], |share| {
        std::fs::write(share.path().join("file"), vec![7; MAX_PAYLOAD as usize]).unwrap();
        let options = Options { memory: vec![(0, 1 << 30)], ..options() };
        let mut client = Client::connect(share.daemon.connect().unwrap(), &options).unwrap();
        client.init().unwrap();
        let node = client.lookup(ROOT_ID, "file").unwrap().nodeid;
        let fh = client.open(node, 0).unwrap().fh;
        let body = ReadIn { fh, size: MAX_PAYLOAD, ..ReadIn::default() };
        let mut request = ferryfs_guest::Request::new(Opcode::Read, node, &[], MAX_PAYLOAD);
        let body = [body.as_bytes()];
        request.body = &body;
        request.cuts.pages = true;
        let reply = client.call(&request).unwrap();
        assert!(reply.is_sound() && reply.body.len() == MAX_PAYLOAD as usize, "{:?}", reply.header);
        assert!(reply.body.iter().all(|byte| *byte == 7));
    });
}
