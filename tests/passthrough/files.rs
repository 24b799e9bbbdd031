//! Open files: data goes where it belongs, however they were opened and whatever became of their names.

use std::{
    fs,
    io::Write,
    os::unix::fs::{FileExt, MetadataExt},
};

use fuse_abi::{CopyFileRangeIn, WriteFlags};

use crate::support::{Errno, ROOT, Share, disk_directory, host, memory_directory, open_file, skipped, wire::Answer};

#[test]
fn a_file_without_a_name_stays_readable_writable_and_known() {
    for created in [true, false] {
        let share = Share::with(|config| config.xattr = true);
        let client = share.client();
        let (node, handle) = if created {
            open_file(&client, "file")
        } else {
            fs::write(share.host("file"), "").unwrap();
            let node = client.walk("file").unwrap();
            (node, client.open(node, libc::O_RDWR).unwrap().fh)
        };
        client.unlink(ROOT, "file").unwrap();
        assert_eq!(client.write(node, handle, 0, b"data").unwrap(), 4);
        assert_eq!(client.read(node, handle, 0, 9).unwrap(), b"data");
        assert_eq!(client.attributes(node, Some(handle)).unwrap().nlink, 0);
        assert_eq!(client.getattr(node).unwrap().size, 4);
        assert_eq!(client.truncate(node, None, 2, false).unwrap().size, 2);
        assert_eq!(client.chmod(node, 0o600).unwrap().mode & 0o777, 0o600);
        client.setxattr(node, "user.x", b"1").unwrap();
        let again = client.open(node, libc::O_RDONLY).unwrap().fh;
        assert_eq!(client.read(node, again, 0, 9).unwrap(), b"da");
        client.release(node, handle).unwrap();
        // Its creator's handle is gone; the inode goes on.
        assert_eq!(client.getattr(node).unwrap().size, 2, "created: {created}");
        assert_eq!(client.truncate(node, None, 1, false).unwrap().size, 1);
        client.release(node, again).unwrap();
        client.forget(node, 1);
        assert_eq!((share.known_inodes(), share.held_descriptors()), (0, 0));
    }
}

#[test]
fn an_unnamed_file_gets_a_name_by_link() {
    let share = Share::new();
    let client = share.client();
    for released in [false, true] {
        let (entry, open) = client.tmpfile(ROOT, libc::O_RDWR, 0o640).unwrap();
        assert_eq!(entry.attr.nlink, 0);
        client.write(entry.nodeid, open.fh, 0, b"data").unwrap();
        let name = format!("named-{released}");
        if released {
            client.release(entry.nodeid, open.fh).unwrap();
        }
        let linked = client.link(entry.nodeid, ROOT, &name).unwrap();
        assert_eq!((linked.nodeid, linked.attr.nlink), (entry.nodeid, 1));
        assert_eq!(fs::read(share.host(&name)).unwrap(), b"data");
        assert_eq!(client.lookup(ROOT, &name).unwrap().nodeid, entry.nodeid);
        assert_eq!(client.link(entry.nodeid, ROOT, &name).unwrap_err(), Errno::EEXIST);
    }
}

#[test]
fn a_writeback_cache_reads_what_was_opened_for_writing_only_and_writes_in_place() {
    let share = Share::with(|config| config.writeback = true);
    let client = share.client();
    let (entry, open) = client.create(ROOT, "new", libc::O_WRONLY | libc::O_APPEND, 0o200).unwrap();
    fs::write(share.host("old"), "0123456789").unwrap();
    let old = client.walk("old").unwrap();
    let appending = client.open(old, libc::O_WRONLY | libc::O_APPEND).unwrap().fh;
    client.write(entry.nodeid, open.fh, 0, b"0123456789").unwrap();
    for (node, handle) in [(entry.nodeid, open.fh), (old, appending)] {
        assert_eq!(client.read(node, handle, 2, 3).unwrap(), b"234");
        client.write_with(node, handle, 4, b"xx", WriteFlags::CACHE).unwrap();
        assert_eq!(client.read(node, handle, 0, 99).unwrap(), b"0123xx6789");
    }
}

#[test]
fn an_appending_file_grows_at_its_end_except_for_what_the_cache_writes_back() {
    let share = Share::new();
    fs::write(share.host("file"), "0123456789").unwrap();
    let client = share.client();
    let node = client.walk("file").unwrap();
    let handle = client.open(node, libc::O_WRONLY | libc::O_APPEND).unwrap().fh;
    assert_eq!(client.write(node, handle, 2, b"end").unwrap(), 3);
    assert_eq!(client.write_with(node, handle, 2, b"IN", WriteFlags::CACHE).unwrap(), 2);
    assert_eq!(fs::read(share.host("file")).unwrap(), b"01IN456789end");
}

#[test]
fn reads_and_writes_respect_how_a_file_was_opened() {
    let share = Share::new();
    fs::write(share.host("file"), "data").unwrap();
    let client = share.client();
    let node = client.walk("file").unwrap();
    let reader = client.open(node, libc::O_RDONLY).unwrap().fh;
    let writer = client.open(node, libc::O_WRONLY).unwrap().fh;
    assert_eq!(client.write(node, reader, 0, b"x").unwrap_err(), Errno::EBADF);
    assert_eq!(client.read(node, writer, 0, 4).unwrap_err(), Errno::EBADF);
    assert_eq!(client.fallocate(node, reader, 0, 0, 10).unwrap_err(), Errno::EBADF);
    // A size is set through a handle that cannot write, where the client has checked the right.
    assert_eq!(client.truncate(node, Some(reader), 2, false).unwrap().size, 2);
    assert_eq!(client.truncate(node, Some(writer), 3, false).unwrap().size, 3);
    assert_eq!(fs::read(share.host("file")).unwrap(), b"da\0");
    let truncating = client.open(node, libc::O_RDWR | libc::O_TRUNC).unwrap().fh;
    assert_eq!(client.attributes(node, Some(truncating)).unwrap().size, 0);
}

#[test]
fn a_handle_serves_its_own_inode_only_and_only_until_it_is_released() {
    let share = Share::new();
    let client = share.client();
    let (a, a_handle) = open_file(&client, "a");
    let (b, _) = open_file(&client, "b");
    let dir = client.opendir(ROOT).unwrap().fh;
    for (node, handle) in [(b, a_handle), (ROOT, a_handle), (a, a_handle + 1000), (a, 0)] {
        assert_eq!(client.read(node, handle, 0, 1).unwrap_err(), Errno::EBADF, "{node} {handle}");
        assert_eq!(client.write(node, handle, 0, b"x").unwrap_err(), Errno::EBADF);
        assert_eq!(client.attributes(node, Some(handle)).unwrap_err(), Errno::EBADF);
        assert!(client.truncate(node, Some(handle), 0, false).is_err());
        assert_eq!(client.release(node, handle).unwrap_err(), Errno::EBADF);
        assert_eq!(client.flush(node, handle).unwrap_err(), Errno::EBADF);
        assert_eq!(client.fsync(node, handle).unwrap_err(), Errno::EBADF);
        assert_eq!(client.lseek(node, handle, 0, libc::SEEK_DATA).unwrap_err(), Errno::EBADF);
    }
    assert_eq!(client.readdir(a, dir, 0, 4096).unwrap_err(), Errno::EBADF);
    assert_eq!(client.releasedir(a, dir).unwrap_err(), Errno::EBADF);
    assert_eq!(client.write(a, a_handle, 0, b"x").unwrap(), 1);
    client.release(a, a_handle).unwrap();
    assert_eq!(client.read(a, a_handle, 0, 1).unwrap_err(), Errno::EBADF);
    client.releasedir(ROOT, dir).unwrap();
    assert_eq!(client.readdir(ROOT, dir, 0, 4096).unwrap_err(), Errno::EBADF);
}

#[test]
fn a_read_gives_what_there_is_up_to_the_end_wherever_that_is() {
    let directories = [Some(disk_directory()), memory_directory()];
    for directory in directories.into_iter().flatten() {
        let share = Share::of(directory, |_| {});
        let mut data: Vec<u8> = (0..20_000_u32).flat_map(u32::to_le_bytes).collect();
        let file = fs::File::create(share.host("file")).unwrap();
        file.write_all_at(&data, 0).unwrap();
        // A hole, then data whose end is no multiple of a page, and one whose end is.
        file.set_len(200_000).unwrap();
        file.write_all_at(b"tail", 200_000).unwrap();
        data.resize(200_000, 0);
        data.extend_from_slice(b"tail");
        let client = share.client();
        let node = client.walk("file").unwrap();
        let handle = client.open(node, libc::O_RDONLY).unwrap().fh;
        for (offset, size) in [
            (0, 10),
            (0, 4096),
            (1, 4095),
            (79_990, 20),
            (79_000, 50_000),
            (100_000, 4096),
            (196_608, 8192),
            (200_000, 4096),
            (200_003, 1),
            (200_004, 4096),
            (1 << 40, 4096),
            (0, 300_000),
        ] {
            let (start, end) = (data.len().min(offset as usize), data.len().min((offset + u64::from(size)) as usize));
            let expected = &data[start..end];
            assert_eq!(client.read(node, handle, offset, size).unwrap(), expected, "{size} at {offset}");
            // All of it is in memory now, so a thread that may not wait reads the same.
            let mut message = client.read_message(node, handle, offset, size);
            message.may_block = false;
            assert_eq!(client.send(message), Answer::Done(expected.to_vec()), "{size} at {offset}, without waiting");
        }
        assert_eq!(client.read(node, handle, u64::MAX, 1).unwrap_err(), Errno::EINVAL);
    }
}

#[test]
fn a_read_that_misses_the_page_cache_is_left_to_a_thread_that_may_wait() {
    let share = Share::new();
    let data: Vec<u8> = (0..65_536_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(share.host("file"), &data).unwrap();
    let client = share.client();
    let node = client.walk("file").unwrap();
    let handle = client.open(node, libc::O_RDONLY).unwrap().fh;
    let try_read = |offset, size| {
        let mut message = client.read_message(node, handle, offset, size);
        message.may_block = false;
        client.send(message)
    };
    assert_eq!(try_read(0, 4096), Answer::Done(data[..4096].to_vec()), "just written, so in memory");
    host::drop_cache(&share.host("file"));
    if try_read(131_072, 8192) != Answer::WouldBlock {
        skipped("this file system does not let go of cached pages");
        return;
    }
    assert_eq!(client.read(node, handle, 131_072, 8192).unwrap(), data[131_072..139_264]);
    assert_eq!(try_read(131_072, 8192), Answer::Done(data[131_072..139_264].to_vec()), "read once, so in memory");
    // Partly in memory: nothing of it is delivered as if it were all.
    host::drop_cache(&share.host("file"));
    client.read(node, handle, 0, 4096).unwrap();
    match try_read(0, 262_144) {
        Answer::WouldBlock => {}
        Answer::Done(all) => assert_eq!(all, data, "the host has read ahead to the end"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_waits_by_intent_waits_on_another_thread() {
    let share = Share::with(|config| config.allow_direct_io = true);
    fs::write(share.host("file"), vec![1; 8192]).unwrap();
    let client = share.client();
    let node = client.walk("file").unwrap();
    for flags in [libc::O_SYNC, libc::O_DSYNC, libc::O_DIRECT] {
        let Ok(open) = client.open(node, libc::O_RDWR | flags) else {
            skipped("no O_DIRECT here");
            continue;
        };
        let mut write = client.write_message(node, open.fh, 0, &[2; 4096], WriteFlags::empty());
        write.may_block = false;
        assert_eq!(client.send(write), Answer::WouldBlock, "{flags:o}");
        assert_eq!(fs::read(share.host("file")).unwrap()[0], 1, "nothing was done");
        if flags == libc::O_DIRECT {
            let mut read = client.read_message(node, open.fh, 0, 4096);
            read.may_block = false;
            assert_eq!(client.send(read), Answer::WouldBlock);
        }
    }
}

#[test]
fn data_and_holes_are_found() {
    let share = Share::new();
    let file = fs::File::create(share.host("file")).unwrap();
    file.write_all_at(&[1; 4096], 65_536).unwrap();
    file.set_len(262_144).unwrap();
    if file.metadata().unwrap().blocks() * 512 >= 262_144 {
        skipped("no sparse files here");
        return;
    }
    let client = share.client();
    let node = client.walk("file").unwrap();
    let handle = client.open(node, libc::O_RDONLY).unwrap().fh;
    for (offset, whence, expected) in [
        (0, libc::SEEK_DATA, Ok(65_536)),
        (65_536, libc::SEEK_DATA, Ok(65_536)),
        (65_540, libc::SEEK_DATA, Ok(65_540)),
        (0, libc::SEEK_HOLE, Ok(0)),
        (65_536, libc::SEEK_HOLE, Ok(69_632)),
        (69_632, libc::SEEK_DATA, Err(Errno::ENXIO)),
        (262_144, libc::SEEK_HOLE, Err(Errno::ENXIO)),
        (u64::MAX, libc::SEEK_DATA, Err(Errno::ENXIO)),
        (10, libc::SEEK_SET, Ok(10)),
        (0, libc::SEEK_END, Ok(262_144)),
        (0, 9, Err(Errno::EINVAL)),
    ] {
        assert_eq!(client.lseek(node, handle, offset, whence), expected, "{offset} {whence}");
    }
}

#[test]
fn ranges_are_copied_inside_the_host() {
    let share = Share::new();
    fs::write(share.host("from"), "0123456789").unwrap();
    let client = share.client();
    let from = client.walk("from").unwrap();
    let fh_in = client.open(from, libc::O_RDONLY).unwrap().fh;
    let (nodeid_out, fh_out) = open_file(&client, "to");
    let range = CopyFileRangeIn { fh_in, nodeid_out, fh_out, ..CopyFileRangeIn::default() };
    let copy = |off_in, off_out, len| client.copy(CopyFileRangeIn { off_in, off_out, len, ..range }, from);
    assert_eq!(copy(2, 0, 3).unwrap(), 3);
    assert_eq!(client.copy_32(CopyFileRangeIn { off_in: 5, off_out: 3, len: 99, ..range }, from).unwrap(), 5);
    assert_eq!(fs::read(share.host("to")).unwrap(), b"23456789");
    assert_eq!(copy(10, 0, 5).unwrap(), 0, "from the end there is nothing");
    assert_eq!(copy(0, u64::MAX, 5).unwrap_err(), Errno::EINVAL);
    let bad = CopyFileRangeIn { flags: 1, len: 1, ..range };
    assert_eq!(client.copy(bad, from).unwrap_err(), Errno::EINVAL);
    let read_only = CopyFileRangeIn { nodeid_out: from, fh_out: fh_in, off_out: 100, len: 1, ..range };
    assert_eq!(client.copy(read_only, from).unwrap_err(), Errno::EBADF);
}

#[test]
fn copies_of_more_than_four_gigabytes_are_counted_in_full() {
    const SIZE: u64 = 5 << 30;
    let share = Share::in_memory(|_| {});
    let client = share.client();
    let (from, fh_in) = open_file(&client, "from");
    let (nodeid_out, fh_out) = open_file(&client, "to");
    // Sparse: it takes no space on either side.
    assert_eq!(client.truncate(from, Some(fh_in), SIZE, false).unwrap().size, SIZE);
    client.write(from, fh_in, SIZE - 4, b"last").unwrap();
    let range = CopyFileRangeIn { fh_in, nodeid_out, fh_out, ..CopyFileRangeIn::default() };
    let (start, len) = (SIZE - (1 << 20), (1 << 20) + 7);
    let copied = client.copy(CopyFileRangeIn { off_in: start, off_out: start, len, ..range }, from).unwrap();
    assert_eq!(copied, 1 << 20);
    assert_eq!(client.read(nodeid_out, fh_out, SIZE - 4, 9).unwrap(), b"last");
    // A length beyond 32 bits is neither refused nor cut to its lower half (0x1000).
    let long = CopyFileRangeIn { off_in: start, off_out: 0, len: (1 << 32) + 0x1000, ..range };
    assert_eq!(client.copy(long, from).unwrap(), 1 << 20);
    assert_eq!(client.copy_32(long, from).unwrap(), 1 << 20);
}

#[test]
fn space_is_allocated_punched_and_zeroed_as_the_host_can() {
    let share = Share::new();
    let client = share.client();
    let (node, handle) = open_file(&client, "file");
    client.write(node, handle, 0, &[7; 16_384]).unwrap();
    for (mode, offset, len, size) in [
        (0, 0, 32_768, 32_768),
        (libc::FALLOC_FL_KEEP_SIZE, 0, 65_536, 32_768),
        (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 4096, 4096, 32_768),
        (libc::FALLOC_FL_ZERO_RANGE, 8192, 4096, 32_768),
        (libc::FALLOC_FL_COLLAPSE_RANGE, 0, 4096, 28_672),
        (libc::FALLOC_FL_INSERT_RANGE, 0, 4096, 32_768),
    ] {
        match client.fallocate(node, handle, mode, offset, len) {
            Err(Errno::EOPNOTSUPP) => {
                skipped(&format!("no fallocate with mode {mode:#x} here"));
            }
            done => assert_eq!((done, client.getattr(node).unwrap().size), (Ok(()), size), "{mode:#x}"),
        }
    }
    let expected: Vec<u8> = [0, 0, 0, 7].into_iter().flat_map(|byte| [byte; 4096]).collect();
    assert_eq!(client.read(node, handle, 0, 16_384).unwrap(), expected);
    for (mode, offset, len, errno) in [
        (0, 0, 0, Errno::EINVAL),
        (0, u64::MAX, 1, Errno::EINVAL),
        (0, i64::MAX as u64, 1, Errno::EFBIG),
        (0x4000_0000, 0, 1, Errno::EOPNOTSUPP),
        (libc::FALLOC_FL_PUNCH_HOLE, 0, 1, Errno::EOPNOTSUPP),
        (-1, 0, 1, Errno::EOPNOTSUPP),
    ] {
        assert_eq!(client.fallocate(node, handle, mode, offset, len), Err(errno), "{mode:#x} {offset} {len}");
    }
}

#[test]
fn renames_replace_swap_and_leave_whiteouts() {
    const NO_REPLACE: u32 = 1;
    const EXCHANGE: u32 = 2;
    const WHITEOUT: u32 = 4;
    let share = Share::new();
    let client = share.client();
    for (name, data) in [("a", "a"), ("b", "b")] {
        fs::write(share.host(name), data).unwrap();
    }
    fs::create_dir(share.host("dir")).unwrap();
    let dir = client.walk("dir").unwrap();
    let (a, b) = (client.walk("a").unwrap(), client.walk("b").unwrap());
    assert_eq!(client.rename2((ROOT, "a"), (ROOT, "b"), NO_REPLACE).unwrap_err(), Errno::EEXIST);
    client.rename2((ROOT, "a"), (ROOT, "b"), EXCHANGE).unwrap();
    assert_eq!((client.walk("a").unwrap(), client.walk("b").unwrap()), (b, a));
    assert_eq!(client.rename2((ROOT, "a"), (dir, "x"), EXCHANGE).unwrap_err(), Errno::ENOENT);
    client.rename2((ROOT, "a"), (dir, "x"), NO_REPLACE).unwrap();
    assert_eq!(client.lookup(dir, "x").unwrap().nodeid, b);
    client.rename2((dir, "x"), (ROOT, "dir"), EXCHANGE).unwrap_err();
    for flags in [NO_REPLACE | EXCHANGE, EXCHANGE | WHITEOUT, 8, u32::MAX] {
        assert_eq!(client.rename2((ROOT, "b"), (dir, "y"), flags).unwrap_err(), Errno::EINVAL, "{flags}");
    }
    match client.rename2((ROOT, "b"), (dir, "y"), WHITEOUT) {
        Ok(()) => {
            let left = client.lookup(ROOT, "b").unwrap().attr;
            assert_eq!((left.mode & libc::S_IFMT, left.rdev), (libc::S_IFCHR, 0));
            assert_eq!(client.lookup(dir, "y").unwrap().nodeid, a);
        }
        Err(errno) => {
            assert!([Errno::EINVAL, Errno::EPERM].contains(&errno) && skipped("no whiteouts here"), "{errno}")
        }
    }
    client.rename((dir, "x"), (dir, "y")).unwrap();
    assert_eq!(client.lookup(dir, "y").unwrap().nodeid, b);
}

#[test]
fn what_is_in_memory_is_synchronized_where_it_is_asked() {
    let Some(memory) = memory_directory() else {
        skipped("no directory in memory");
        return;
    };
    let share = Share::of(memory, |_| {});
    let client = share.client();
    let (node, file) = open_file(&client, "file");
    let dir = client.opendir(ROOT).unwrap().fh;
    for (opcode, node, handle) in [(fuse_abi::Opcode::Fsync, node, file), (fuse_abi::Opcode::Fsyncdir, ROOT, dir)] {
        let mut message = client.message(opcode, node, &[&handle.to_ne_bytes(), &[0; 8]], 64);
        message.may_block = false;
        assert_eq!(client.send(message), Answer::Done(Vec::new()), "{opcode:?}");
    }
}

#[test]
fn what_is_written_reaches_the_host_at_once_and_the_disk_when_asked() {
    let share = Share::new();
    let client = share.client();
    let (node, handle) = open_file(&client, "file");
    client.write(node, handle, 0, b"data").unwrap();
    assert_eq!(fs::read(share.host("file")).unwrap(), b"data");
    client.fsync(node, handle).unwrap();
    client.flush(node, handle).unwrap();
    client.syncfs(ROOT).unwrap();
    for message in [
        client.message(fuse_abi::Opcode::Fsync, node, &[&handle.to_ne_bytes(), &[0; 8]], 64),
        client.message(fuse_abi::Opcode::Syncfs, ROOT, &[&[0; 8]], 64),
    ] {
        let mut message = message;
        message.may_block = false;
        assert_eq!(client.send(message), Answer::WouldBlock);
    }
    let mut file = fs::File::options().append(true).open(share.host("file")).unwrap();
    file.write_all(b" of the host").unwrap();
    assert_eq!(client.read(node, handle, 0, 99).unwrap(), b"data of the host");
}
