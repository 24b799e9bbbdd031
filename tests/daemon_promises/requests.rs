//! Requests as no driver sends them, and the bytes of replies: what is written, how much, and where not.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use ferryfs_guest::lane::REPLY_LEAD;
use ferryfs_guest::{Client, Cuts, Request, expect_errno};
use fuse_abi::{
    BatchForgetIn, CreateIn, EntryOut, Errno, ForgetIn, ForgetOne, GetattrIn, InHeader, InterruptIn, LinkIn, MkdirIn,
    MknodIn, Opcode, OpenOut, ROOT_ID, ReadIn, Rename2In, RenameIn, WriteIn,
};
use zerocopy::IntoBytes;

use crate::support::{O_RDWR, Share, expect_service, in_every_sandbox};

/// Every opcode there is, some that are not, and nothing that ends the session.
fn opcodes() -> impl Iterator<Item = u32> {
    let last = [55, 100, 4095, 4096, u32::MAX, fuse_abi::INIT_BSWAP_RESERVED];
    (0..55).chain(last).filter(|n| ![Opcode::Init, Opcode::Destroy].iter().any(|opcode| opcode.number() == *n))
}

fn has_reply(opcode: u32) -> bool {
    let silent = [Opcode::Forget, Opcode::BatchForget, Opcode::Interrupt, Opcode::NotifyReply];
    !silent.iter().any(|silent| silent.number() == opcode)
}

#[test]
fn every_reply_has_the_length_and_the_number_that_the_ring_says() {
    in_every_sandbox(&[], |share| {
        let mut client = share.client();
        for opcode in opcodes() {
            for body in [0, 1, 8, 16, 24, 39, 40, 64, 88, 128, 4096] {
                for room in [0, 16, 1000, 8192] {
                    let body = vec![1; body];
                    let reply = client.raw(opcode, ROOT_ID, &body, room).unwrap();
                    if has_reply(opcode) {
                        assert!(reply.is_sound(), "{opcode} with {} bytes: {reply:?}", body.len());
                    } else {
                        assert_eq!(reply.used, 0, "{opcode} with {} bytes", body.len());
                    }
                }
            }
        }
        expect_service(&mut client, "bodies of any length");
    });
}

#[test]
fn a_request_that_cannot_be_decoded_ends_alone() {
    in_every_sandbox(&[], |share| {
        let mut client = share.client();
        for opcode in opcodes().filter(|opcode| has_reply(*opcode)) {
            let name = b"no-such-name\0";
            let true_len = (size_of::<InHeader>() + name.len()) as u32;
            for len in [0, 1, 39, 40, true_len - 1, true_len + 1, 4096, u32::MAX] {
                let header = InHeader { len, ..client.header(opcode, ROOT_ID, name.len()) };
                let bytes = [header.as_bytes(), name].concat();
                let reply = client.raw_bytes(header.unique, &bytes, 4096, &Cuts::LINUX).unwrap();
                assert!(reply.is_sound(), "{opcode}, {len} for {true_len}: {reply:?}");
                assert!(reply.errno().is_some(), "{opcode}, {len} for {true_len}");
            }
            let header = InHeader { total_extlen: u16::MAX, ..client.header(opcode, ROOT_ID, name.len()) };
            let bytes = [header.as_bytes(), name].concat();
            let reply = client.raw_bytes(header.unique, &bytes, 4096, &Cuts::LINUX).unwrap();
            assert!(reply.is_sound() && reply.errno().is_some(), "{opcode} with extensions that are not there");
        }
        expect_service(&mut client, "lengths that disagree");
        assert_eq!(fs::read_dir(share.path()).unwrap().count(), 0);
    });
}

#[test]
fn before_a_session_begins_nothing_but_init_is_served() {
    in_every_sandbox(&[], |share| {
        let mut client = crate::support::connect(&mut share.daemon, &crate::support::options());
        for opcode in opcodes().filter(|opcode| has_reply(*opcode)) {
            let reply = client.raw(opcode, ROOT_ID, &[0; 64], 4096).unwrap();
            assert!(reply.is_sound() && reply.errno().is_some(), "{opcode}: {reply:?}");
        }
        client.init().unwrap();
        expect_service(&mut client, "INIT");
    });
}

/// Fills the room of every reply so that each byte the daemon writes shows.
fn poisoned(client: &mut Client, request: &Request<'_>) -> (u32, Vec<u8>) {
    const POISON: u8 = 0xa5;
    let limit = client.limit();
    let header = client.header(request.opcode, request.nodeid, request.body.iter().map(|part| part.len()).sum());
    let lane = client.lane();
    let slot = lane.take().unwrap();
    lane.memory().fill(lane.reply_at(&slot), lane.reply_capacity() as usize, POISON).unwrap();
    let len = lane.fill(&slot, header.as_bytes(), request.body).unwrap();
    lane.submit(slot, header.unique, len, REPLY_LEAD + request.reply, &request.cuts).unwrap();
    let completion = lane.complete(limit).unwrap();
    assert_eq!(completion.used(), completion.header().len);
    let room = completion.room().unwrap();
    let (written, rest) = room.split_at(completion.used() as usize);
    assert!(rest.iter().all(|byte| *byte == POISON), "bytes beyond {} were written", written.len());
    (completion.used(), written[REPLY_LEAD as usize..].to_vec())
}

#[test]
fn a_reply_writes_what_was_asked_for_and_not_a_byte_more() {
    in_every_sandbox(&["--xattr"], |share| {
        fs::write(share.path().join("file"), vec![7; 20_000]).unwrap();
        std::os::unix::fs::symlink("target", share.path().join("link")).unwrap();
        let mut client = share.client();
        let node = client.lookup(ROOT_ID, "file").unwrap().nodeid;
        let link = client.lookup(ROOT_ID, "link").unwrap().nodeid;
        let fh = client.open(node, 0).unwrap().fh;
        // (offset, size, what is there)
        let reads = [(0, 10, 10), (0, 0, 0), (4090, 10, 10), (19_995, 4096, 5), (20_000, 10, 0), (1 << 40, 10, 0)];
        for (offset, size, there) in reads {
            let body = ReadIn { fh, offset, size, ..ReadIn::default() };
            for cuts in [Cuts::LINUX, Cuts::NONE, Cuts { request: &[], reply: &[1, 16, 17, 20], pages: true }] {
                let body = [body.as_bytes()];
                let request = Request { cuts, ..Request::new(Opcode::Read, node, &body, 8192) };
                let (used, data) = poisoned(&mut client, &request);
                assert_eq!((used, data), (16 + there, vec![7; there as usize]), "{size} at {offset}");
            }
        }
        let getattr = GetattrIn::default();
        let short_lookup = [b"file\0".as_slice()];
        let cases: [(Opcode, u64, &[&[u8]]); 6] = [
            (Opcode::Getattr, node, &[getattr.as_bytes()]),
            (Opcode::Lookup, ROOT_ID, &short_lookup),
            (Opcode::Readlink, link, &[]),
            (Opcode::Statfs, ROOT_ID, &[]),
            (Opcode::Lookup, ROOT_ID, &[b"missing\0"]),
            (Opcode::Readlink, node, &[]),
        ];
        for (opcode, node, body) in cases {
            poisoned(&mut client, &Request::new(opcode, node, body, 8192));
        }
        let fh = client.opendir(ROOT_ID).unwrap().fh;
        for opcode in [Opcode::Readdir, Opcode::Readdirplus] {
            for size in [0, 10, 24, 100, 152, 1000] {
                let body = ReadIn { fh, size, ..ReadIn::default() };
                let (_, data) = poisoned(&mut client, &Request::new(opcode, ROOT_ID, &[body.as_bytes()], 8192));
                assert!(data.len() <= size as usize, "{opcode} of {size}");
            }
        }
    });
}

#[test]
fn a_read_of_more_than_there_is_room_for_is_refused() {
    in_every_sandbox(&[], |share| {
        fs::write(share.path().join("file"), vec![7; 20_000]).unwrap();
        let mut client = share.client();
        let node = client.lookup(ROOT_ID, "file").unwrap().nodeid;
        let fh = client.open(node, 0).unwrap().fh;
        let body = ReadIn { fh, size: 4096, ..ReadIn::default() };
        let reply = client.raw(Opcode::Read, node, body.as_bytes(), 4095).unwrap();
        assert!(reply.is_sound() && reply.used <= 16 + 4095, "{reply:?}");
        let body = ReadIn { fh, size: u32::MAX, ..ReadIn::default() };
        let reply = client.raw(Opcode::Read, node, body.as_bytes(), 4096).unwrap();
        assert!(reply.is_sound() && reply.used <= 16 + 4096, "{reply:?}");
        expect_service(&mut client, "reads of too much");
    });
}

#[test]
fn a_write_whose_size_is_not_its_payload_writes_nothing() {
    in_every_sandbox(&[], |share| {
        let mut client = share.client();
        let (file, open) = client.create(ROOT_ID, "file", 0o644, O_RDWR).unwrap();
        for (size, payload) in [(10, 4096), (4096, 10), (0, 1), (1, 0), (u32::MAX, 4096), (4095, 4096), (4097, 4096)] {
            let body = WriteIn { fh: open.fh, size, ..WriteIn::default() };
            let payload = vec![1; payload];
            let parts = [body.as_bytes(), &payload];
            let reply = client.call(&Request::new(Opcode::Write, file.nodeid, &parts, 8)).unwrap();
            assert_eq!((reply.is_sound(), reply.errno()), (true, Some(Errno::EINVAL)), "{size} of {}", payload.len());
            assert_eq!(fs::metadata(share.path().join("file")).unwrap().len(), 0);
        }
        // Also when the header lies about the whole.
        let body = WriteIn { fh: open.fh, size: 10, ..WriteIn::default() };
        for wrong in [1, 4086, -1_i32] {
            let mut header = client.header(Opcode::Write.number(), file.nodeid, size_of_val(&body) + 10);
            header.len = header.len.wrapping_add_signed(wrong);
            let bytes = [header.as_bytes(), body.as_bytes(), &[1; 10]].concat();
            let reply = client.raw_bytes(header.unique, &bytes, 24, &Cuts::LINUX_WRITE).unwrap();
            assert_eq!(reply.errno(), Some(Errno::EINVAL));
        }
        assert_eq!(fs::metadata(share.path().join("file")).unwrap().len(), 0);
        assert_eq!(client.write(file.nodeid, open.fh, 0, &[1; 10]).unwrap(), 10);
    });
}

#[test]
fn a_write_may_be_cut_anywhere() {
    in_every_sandbox(&[], |share| {
        let mut client = share.client();
        let (file, open) = client.create(ROOT_ID, "file", 0o644, O_RDWR).unwrap();
        let data: Vec<u8> = (0..9000_u32).map(|n| (n % 253) as u8).collect();
        let cuts: [&[u32]; 6] = [&[], &[1], &[79], &[81], &[80, 4000, 4001], &[13, 40, 77, 80, 81, 82, 5000]];
        for (round, request) in cuts.into_iter().enumerate() {
            let offset = round as u64 * 10_000;
            let body = WriteIn { fh: open.fh, offset, size: data.len() as u32, ..WriteIn::default() };
            let parts = [body.as_bytes(), &data];
            let cuts = Cuts { request, reply: &[3], pages: round % 2 == 1 };
            let request = Request { cuts, ..Request::new(Opcode::Write, file.nodeid, &parts, 8) };
            assert!(client.call(&request).unwrap().errno().is_none(), "{cuts:?}");
            assert_eq!(fs::read(share.path().join("file")).unwrap()[offset as usize..], data, "{cuts:?}");
        }
    });
}

#[test]
fn forget_has_no_reply_whatever_room_it_leaves() {
    in_every_sandbox(&[], |share| {
        fs::write(share.path().join("file"), b"").unwrap();
        let mut client = share.client();
        let forget = ForgetIn { nlookup: 1 };
        let batch = BatchForgetIn { count: 2, dummy: 0 };
        let interrupt = InterruptIn { unique: 2 };
        for room in [0, 8, 4096] {
            let node = client.lookup(ROOT_ID, "file").unwrap().nodeid;
            let one = ForgetOne { nodeid: node, nlookup: 1 };
            let two = [batch.as_bytes(), one.as_bytes(), one.as_bytes()].concat();
            let too_few = [batch.as_bytes(), one.as_bytes()].concat();
            for (opcode, body) in [
                (Opcode::Forget, forget.as_bytes()),
                (Opcode::Forget, &[]),
                (Opcode::BatchForget, &two),
                (Opcode::BatchForget, &too_few),
                (Opcode::BatchForget, &[0xff; 8]),
                (Opcode::Interrupt, interrupt.as_bytes()),
            ] {
                let header = client.header(opcode.number(), node, body.len());
                let bytes = [header.as_bytes(), body].concat();
                let reply = client.raw_bytes(header.unique, &bytes, room, &Cuts::NONE).unwrap();
                assert_eq!(reply.used, 0, "{opcode}");
                let hiprio = &mut client.hiprio;
                hiprio.send(header.unique, &bytes, &[], room, &Cuts::NONE).unwrap();
                assert_eq!(hiprio.complete(crate::support::HANG).unwrap().used(), 0, "{opcode} on hiprio");
            }
        }
        expect_service(&mut client, "forgets");
    });
}

/// Every operation that carries a name, with that name. The other of two is harmless.
fn naming(name: &[u8], target: u64) -> Vec<(Opcode, Vec<u8>)> {
    let name = [name, b"\0"].concat();
    let (mkdir, mknod) = (MkdirIn { mode: 0o755, umask: 0 }, MknodIn { mode: 0o100_644, ..MknodIn::default() });
    let create = CreateIn { flags: O_RDWR, mode: 0o100_644, ..CreateIn::default() };
    let rename = RenameIn { newdir: ROOT_ID };
    let rename2 = Rename2In { newdir: ROOT_ID, ..Rename2In::default() };
    let link = LinkIn { oldnodeid: target };
    let with = |body: &[u8]| [body, &name].concat();
    vec![
        (Opcode::Lookup, name.clone()),
        (Opcode::Mkdir, with(mkdir.as_bytes())),
        (Opcode::Mknod, with(mknod.as_bytes())),
        (Opcode::Create, with(create.as_bytes())),
        (Opcode::Symlink, [&name, b"x\0".as_slice()].concat()),
        (Opcode::Link, with(link.as_bytes())),
        (Opcode::Unlink, name.clone()),
        (Opcode::Rmdir, name.clone()),
        (Opcode::Rename, [with(rename.as_bytes()), b"other\0".to_vec()].concat()),
        (Opcode::Rename, [rename.as_bytes(), b"file\0", &name].concat()),
        (Opcode::Rename2, [with(rename2.as_bytes()), b"other\0".to_vec()].concat()),
        (Opcode::Rename2, [rename2.as_bytes(), b"file\0", &name].concat()),
    ]
}

/// All that lies in and beside the share, by path, type and inode number.
fn everything(share: &Share) -> BTreeSet<(std::path::PathBuf, String, u64)> {
    let mut found = BTreeSet::new();
    let mut left = vec![share.outside().to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let data = entry.metadata().unwrap();
            found.insert((entry.path(), format!("{:?}", data.file_type()), data.ino()));
            if data.is_dir() {
                left.push(entry.path());
            }
        }
    }
    found
}

#[test]
fn a_name_that_leads_anywhere_is_refused_everywhere_and_changes_nothing() {
    in_every_sandbox(&[], |share| {
        fs::create_dir_all(share.path().join("dir/sub")).unwrap();
        fs::write(share.path().join("file"), b"x").unwrap();
        fs::create_dir(share.outside().join("victim")).unwrap();
        fs::write(share.outside().join("target"), b"x").unwrap();
        let mut client = share.client();
        let file = client.lookup(ROOT_ID, "file").unwrap().nodeid;
        let dir = client.lookup(ROOT_ID, "dir").unwrap().nodeid;
        let before = everything(share);
        let absolute = share.outside().join("made").into_os_string().into_encoded_bytes();
        let names: [&[u8]; 12] = [
            b"",
            b".",
            b"..",
            b"../x",
            b"../victim",
            b"../target",
            b"dir/sub",
            b"./file",
            b"/",
            b"file/",
            &absolute,
            &[b'x'; 256],
        ];
        for name in names {
            for (opcode, body) in naming(name, file) {
                for parent in [ROOT_ID, dir] {
                    let lookup_of_dots = opcode == Opcode::Lookup && (name == b"." || name == b"..");
                    let reply = client.raw(opcode, parent, &body, 256).unwrap();
                    assert!(reply.is_sound(), "{opcode} {name:?}");
                    let refused = [Some(Errno::EINVAL), Some(Errno::ENAMETOOLONG)].contains(&reply.errno());
                    assert!(refused || lookup_of_dots, "{opcode} {}: {:?}", name.escape_ascii(), reply.errno());
                }
            }
        }
        // A name without its end, and one that ends too early.
        for (opcode, body) in naming(b"ok", file) {
            let reply = client.raw(opcode, ROOT_ID, &body[..body.len() - 1], 256).unwrap();
            assert_eq!(reply.errno(), Some(Errno::EINVAL), "{opcode} without a terminator");
        }
        assert_eq!(everything(share), before);
        expect_service(&mut client, "names");
    });
}

#[test]
fn lookup_of_the_dots_stays_in_the_share() {
    in_every_sandbox(&[], |share| {
        fs::create_dir(share.path().join("dir")).unwrap();
        let mut client = share.client();
        let root = client.getattr(ROOT_ID).unwrap().ino;
        let dir = client.lookup(ROOT_ID, "dir").unwrap();
        for (parent, name, wanted) in
            [(ROOT_ID, ".", root), (ROOT_ID, "..", root), (dir.nodeid, ".", dir.attr.ino), (dir.nodeid, "..", root)]
        {
            assert_eq!(client.lookup(parent, name).unwrap().attr.ino, wanted, "{name} of {parent}");
        }
    });
}

#[test]
fn a_fifo_of_the_host_is_never_opened() {
    // CVE-2020-35517. Root's device nodes are the same to the daemon; here nobody needs to be root.
    in_every_sandbox(&[], |share| {
        let path = share.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o666.into(), 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(share.path().join("socket")).unwrap();
        let mut client = share.client();
        for name in ["fifo", "socket"] {
            let node = client.lookup(ROOT_ID, name).unwrap().nodeid;
            for flags in [0, 1, O_RDWR, libc::O_NONBLOCK as u32, O_RDWR | libc::O_TRUNC as u32] {
                assert!(client.open(node, flags).is_err(), "{name} with {flags:o}");
            }
            for flags in [O_RDWR, O_RDWR | libc::O_EXCL as u32, O_RDWR | libc::O_TRUNC as u32] {
                assert!(client.create(ROOT_ID, name, 0o644, flags).is_err(), "{name} with {flags:o}");
            }
            assert!(client.opendir(node).is_err());
        }
        assert!(fs::symlink_metadata(path).unwrap().file_type().is_fifo());
        expect_service(&mut client, "special files");
    });
}

#[test]
fn an_entry_that_does_not_fit_takes_no_reference() {
    in_every_sandbox(&[], |share| {
        fs::write(share.path().join("file"), b"x").unwrap();
        let mut client = share.client();
        let reply = client.raw(Opcode::Lookup, ROOT_ID, b"file\0", size_of::<EntryOut>() as u32 - 1).unwrap();
        assert_eq!((reply.is_sound(), reply.errno()), (true, Some(Errno::EINVAL)));
        let body = CreateIn { flags: O_RDWR, mode: 0o100_644, ..CreateIn::default() };
        let room = (size_of::<EntryOut>() + size_of::<OpenOut>()) as u32 - 1;
        let reply = client.raw(Opcode::Create, ROOT_ID, &[body.as_bytes(), b"new\0"].concat(), room).unwrap();
        assert_eq!((reply.is_sound(), reply.errno()), (true, Some(Errno::EINVAL)));
        assert!(!share.path().join("new").exists(), "nothing is made that cannot be told of");
        expect_errno(client.lookup(ROOT_ID, "new"), Errno::ENOENT);
    });
}
