//! What an option promises: read-only, extended attributes and their map, translated users, and bounds of a request.

use std::fs;

use ferryfs::passthrough::{
    config::Config,
    idmap::IdMap,
    xattr_map::{Internal, XattrMap},
};
use fuse_abi::{
    CopyFileRangeIn, GetxattrIn, InitFlags, Opcode, OpenOutFlags, SetattrIn, SetattrValid, WriteFlags, WriteIn,
};
use zerocopy::IntoBytes;

use crate::support::{
    Client, Errno, ROOT, Result, Share, disk_directory, host, needs_root,
    wire::{Answer, Message},
};

/// What the operations of a table work on: a file and a directory with their handles, opened for reading.
struct Fixture {
    file: u64,
    handle: u64,
    dir: u64,
    listing: u64,
}

const GETFLAGS: u32 = 0x8008_6601;
const NODUMP: u32 = 0x40;

type Operation = (&'static str, fn(&Client, &Fixture) -> Result<()>);

/// Every operation that changes something, and every open that could.
const CHANGING: [Operation; 31] = [
    ("chmod", |c, f| c.chmod(f.file, 0o600).map(drop)),
    ("chown", |c, f| {
        let now = c.getattr(f.file)?;
        c.chown(f.file, Some(now.uid), Some(now.gid)).map(drop)
    }),
    ("truncate", |c, f| c.truncate(f.file, None, 0, false).map(drop)),
    ("ftruncate", |c, f| c.truncate(f.file, Some(f.handle), 0, false).map(drop)),
    ("utimes", |c, f| c.setattr(f.file, SetattrValid::MTIME_NOW, SetattrIn::default()).map(drop)),
    ("mkdir", |c, f| c.mkdir(f.dir, "new", 0o755).map(drop)),
    ("mknod", |c, f| c.mknod(f.dir, "new", libc::S_IFREG | 0o644, 0).map(drop)),
    ("mkfifo", |c, f| c.mknod(f.dir, "new", libc::S_IFIFO | 0o644, 0).map(drop)),
    ("symlink", |c, f| c.symlink(f.dir, "new", "x").map(drop)),
    ("link", |c, f| c.link(f.file, f.dir, "new").map(drop)),
    ("unlink", |c, _| c.unlink(ROOT, "file")),
    ("rmdir", |c, _| c.rmdir(ROOT, "empty")),
    ("rename", |c, _| c.rename((ROOT, "file"), (ROOT, "new"))),
    ("rename2", |c, _| c.rename2((ROOT, "file"), (ROOT, "new"), 1)),
    ("exchange", |c, _| c.rename2((ROOT, "file"), (ROOT, "dir"), 2)),
    ("create", |c, f| c.create(f.dir, "new", libc::O_RDWR, 0o644).map(drop)),
    ("create of what is there", |c, _| c.create(ROOT, "file", libc::O_RDONLY, 0o644).map(drop)),
    ("tmpfile", |c, f| c.tmpfile(f.dir, libc::O_RDWR, 0o644).map(drop)),
    ("open for writing", |c, f| c.open(f.file, libc::O_WRONLY).map(drop)),
    ("open for both", |c, f| c.open(f.file, libc::O_RDWR).map(drop)),
    ("open and truncate", |c, f| c.open(f.file, libc::O_RDONLY | libc::O_TRUNC).map(drop)),
    ("write", |c, f| c.write(f.file, f.handle, 0, b"x").map(drop)),
    ("write back", |c, f| c.write_with(f.file, f.handle, 0, b"x", WriteFlags::CACHE).map(drop)),
    ("fallocate", |c, f| c.fallocate(f.file, f.handle, 0, 0, 100)),
    ("copy", |c, f| {
        let range = CopyFileRangeIn {
            fh_in: f.handle,
            nodeid_out: f.file,
            fh_out: f.handle,
            off_out: 5,
            len: 1,
            ..CopyFileRangeIn::default()
        };
        c.copy(range, f.file).map(drop)
    }),
    ("copy counted in 32 bits", |c, f| {
        let range = CopyFileRangeIn {
            fh_in: f.handle,
            nodeid_out: f.file,
            fh_out: f.handle,
            off_out: 5,
            len: 1,
            ..CopyFileRangeIn::default()
        };
        c.copy_32(range, f.file).map(drop)
    }),
    ("setxattr", |c, f| c.setxattr(f.file, "user.x", b"new")),
    ("removexattr", |c, f| c.removexattr(f.file, "user.x")),
    ("set flags", |c, f| {
        // One more than there are: ext4 takes the lack of another for the wish to store the file in another way.
        let now =
            c.ioctl(f.file, f.handle, GETFLAGS, &[], 4).map_or(0, |now| u32::from_ne_bytes(now.try_into().unwrap()));
        c.ioctl(f.file, f.handle, 0x4008_6602, &(now | NODUMP).to_ne_bytes(), 0).map(drop)
    }),
    ("set extended flags", |c, f| c.ioctl(f.file, f.handle, 0x401c_5820, &[0; 28], 0).map(drop)),
    ("access to write", |c, f| c.access(f.file, 2)),
];

/// Everything else works as ever.
const READING: [Operation; 18] = [
    ("lookup", |c, _| c.lookup(ROOT, "dir").map(drop)),
    ("getattr", |c, f| c.getattr(f.file).map(drop)),
    ("statx", |c, f| c.statx(f.file).map(drop)),
    ("access to read", |c, f| c.access(f.file, 4)),
    ("readlink", |c, _| c.readlink(c.lookup(ROOT, "link")?.nodeid).map(drop)),
    ("read", |c, f| c.read(f.file, f.handle, 0, 10).map(|data| assert_eq!(data, b"data"))),
    ("lseek", |c, f| c.lseek(f.file, f.handle, 0, libc::SEEK_DATA).map(drop)),
    ("flush", |c, f| c.flush(f.file, f.handle)),
    ("fsync", |c, f| c.fsync(f.file, f.handle)),
    ("getxattr", |c, f| c.getxattr(f.file, "user.x").map(|value| assert_eq!(value, b"1"))),
    ("listxattr", |c, f| c.listxattr(f.file).map(|names| assert_eq!(names, ["user.x"]))),
    ("get flags", |c, f| c.ioctl(f.file, f.handle, GETFLAGS, &[], 8).map(drop)),
    ("readdir", |c, f| c.names(f.dir, f.listing).map(drop)),
    ("readdirplus", |c, f| c.readdirplus(f.dir, f.listing, 0, 4096).map(drop)),
    ("fsyncdir", |c, f| c.fsyncdir(f.dir, f.listing)),
    ("statfs", |c, f| c.statfs(f.file).map(drop)),
    ("syncfs", |c, _| c.syncfs(ROOT)),
    ("open and release", |c, f| c.release(f.file, c.open(f.file, libc::O_RDONLY)?.fh)),
];

/// All that can be seen of a directory.
fn picture(share: &Share) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let mut seen = Vec::new();
    for dir in ["", "dir"] {
        for entry in fs::read_dir(share.host(dir)).unwrap() {
            let path = entry.unwrap().path();
            let found = fs::symlink_metadata(&path).unwrap();
            let times = (found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec());
            let facts = (found.mode(), found.uid(), found.gid(), found.nlink(), found.size(), found.ino());
            let attribute = host::xattr(&path, "user.x");
            let data = if found.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            seen.push(format!("{path:?} {facts:?} {times:?} {attribute:?} {data:?}"));
        }
    }
    seen.sort();
    seen
}

#[test]
fn a_read_only_share_refuses_every_change_and_nothing_changes() {
    let directory = disk_directory();
    fs::create_dir(directory.path().join("dir")).unwrap();
    fs::create_dir(directory.path().join("empty")).unwrap();
    fs::write(directory.path().join("file"), "data").unwrap();
    std::os::unix::fs::symlink("target", directory.path().join("link")).unwrap();
    host::set_xattr(&directory.path().join("file"), "user.x", b"1").unwrap();
    let share = Share::of(directory, |config| (config.read_only, config.xattr) = (true, true));
    let client = share.client();
    let (file, dir) = (client.walk("file").unwrap(), client.walk("dir").unwrap());
    let handle = client.open(file, libc::O_RDONLY).unwrap().fh;
    let fixture = Fixture { file, handle, dir, listing: client.opendir(dir).unwrap().fh };
    let before = picture(&share);
    for (what, operation) in CHANGING {
        assert_eq!(operation(&client, &fixture), Err(Errno::EROFS), "{what}");
    }
    for (what, operation) in READING {
        let done = operation(&client, &fixture);
        assert!(done == Ok(()) || what == "get flags" && done == Err(Errno::ENOTTY), "{what}: {done:?}");
    }
    assert_eq!(picture(&share), before);
}

#[test]
fn the_same_operations_work_where_changes_are_allowed() {
    // What keeps the table above honest: an operation that fails for a reason of its own would prove nothing.
    for (what, operation) in CHANGING {
        let share = Share::with(|config| config.xattr = true);
        for dir in ["dir", "empty"] {
            fs::create_dir(share.host(dir)).unwrap();
        }
        fs::write(share.host("file"), "data").unwrap();
        host::set_xattr(&share.host("file"), "user.x", b"1").unwrap();
        let client = share.client();
        let (file, dir) = (client.walk("file").unwrap(), client.walk("dir").unwrap());
        let handle = client.open(file, libc::O_RDWR).unwrap().fh;
        let fixture = Fixture { file, handle, dir, listing: client.opendir(dir).unwrap().fh };
        let done = operation(&client, &fixture);
        assert!(done == Ok(()) || what.contains("flags") && done == Err(Errno::ENOTTY), "{what}: {done:?}");
    }
}

#[test]
fn extended_attributes_that_are_off_do_not_exist() {
    let share = Share::new();
    fs::write(share.host("file"), "").unwrap();
    host::set_xattr(&share.host("file"), "user.x", b"1").unwrap();
    let client = share.client();
    let node = client.walk("file").unwrap();
    assert_eq!(client.getxattr(node, "user.x").unwrap_err(), Errno::ENOSYS);
    assert_eq!(client.setxattr(node, "user.x", b"2").unwrap_err(), Errno::ENOSYS);
    assert_eq!(client.listxattr(node).unwrap_err(), Errno::ENOSYS);
    assert_eq!(client.removexattr(node, "user.x").unwrap_err(), Errno::ENOSYS);
    assert_eq!(host::xattr(&share.host("file"), "user.x").unwrap(), b"1");
}

fn get_size(client: &Client, opcode: Opcode, node: u64, name: &[u8], size: u32) -> Answer {
    let get = GetxattrIn { size, padding: 0 };
    client.send(client.message(opcode, node, &[get.as_bytes(), name], size.max(8) as usize))
}

#[test]
fn lengths_of_attributes_are_told_and_kept() {
    let share = Share::with(|config| config.xattr = true);
    let client = share.client();
    let (entry, _) = client.create(ROOT, "file", libc::O_RDWR, 0o644).unwrap();
    let node = entry.nodeid;
    for len in [0_usize, 1, 255, 256, 257, 2000] {
        let value = vec![b'v'; len];
        client.setxattr(node, "user.x", &value).unwrap();
        assert_eq!(client.getxattr(node, "user.x").unwrap(), value, "{len}");
        let told = get_size(&client, Opcode::Getxattr, node, b"user.x\0", 0);
        assert_eq!(told, Answer::Done([(len as u32).to_ne_bytes(), [0; 4]].concat()), "{len}");
        if len > 0 {
            let exact = get_size(&client, Opcode::Getxattr, node, b"user.x\0", len as u32);
            assert_eq!(exact, Answer::Done(value), "{len}");
        }
        if len > 1 {
            let short = get_size(&client, Opcode::Getxattr, node, b"user.x\0", len as u32 - 1);
            assert_eq!(short, Answer::Failed(Errno::ERANGE), "{len}");
        }
    }
    client.setxattr(node, "user.yy", b"1").unwrap();
    let mut names = client.listxattr(node).unwrap();
    names.sort();
    assert_eq!(names, ["user.x", "user.yy"]);
    let told = get_size(&client, Opcode::Listxattr, node, b"", 0);
    assert_eq!(told, Answer::Done([15_u32.to_ne_bytes(), [0; 4]].concat()));
    assert_eq!(get_size(&client, Opcode::Listxattr, node, b"", 14), Answer::Failed(Errno::ERANGE));
    let (create, replace) = (1, 2);
    let set = |name, flags| client.setxattr_with(node, name, b"2", flags, fuse_abi::SetxattrFlags::empty());
    assert_eq!(set("user.x", create), Err(Errno::EEXIST));
    assert_eq!(set("user.z", replace), Err(Errno::ENODATA));
    assert_eq!(set("user.z", create), Ok(()));
    assert_eq!(client.removexattr(node, "user.w"), Err(Errno::ENODATA));
    assert_eq!(client.getxattr(node, ""), Err(Errno::ERANGE));
    assert_eq!(client.getxattr(node, &"x".repeat(256)), Err(Errno::ERANGE));
}

#[test]
fn a_map_moves_attributes_aside_and_hides_what_the_host_has_of_its_own() {
    let share = Share::with(|config| {
        config.xattr_map = XattrMap::parse(":map::user.virtiofs.:").unwrap();
    });
    fs::write(share.host("file"), "").unwrap();
    host::set_xattr(&share.host("file"), "user.hosts", b"secret").unwrap();
    let client = share.client();
    let node = client.walk("file").unwrap();
    assert_eq!(client.getxattr(node, "user.hosts").unwrap_err(), Errno::ENODATA);
    assert!(client.listxattr(node).unwrap().is_empty());
    client.setxattr(node, "trusted.x", b"1").unwrap();
    client.setxattr(node, "user.hosts", b"the guest's").unwrap();
    assert_eq!(host::xattr(&share.host("file"), "user.virtiofs.trusted.x").unwrap(), b"1");
    assert_eq!(host::xattr(&share.host("file"), "trusted.x"), None);
    assert_eq!(host::xattr(&share.host("file"), "user.hosts").unwrap(), b"secret");
    let mut names = client.listxattr(node).unwrap();
    names.sort();
    assert_eq!(names, ["trusted.x", "user.hosts"]);
    client.removexattr(node, "user.hosts").unwrap();
    assert_eq!(host::xattr(&share.host("file"), "user.hosts").unwrap(), b"secret");
    assert_eq!(client.setxattr(node, &format!("user.{}", "x".repeat(245)), b"1").unwrap_err(), Errno::ERANGE);
}

#[test]
fn attributes_of_the_server_are_out_of_reach_under_every_name() {
    static GUARDED: &[&std::ffi::CStr] = &[c"user.ferryfs.override"];
    let maps = [XattrMap::default(), XattrMap::parse(":ok:all:::").unwrap(), XattrMap::parse(":map::user.:").unwrap()];
    for (map, name) in maps.into_iter().zip(["user.ferryfs.override", "user.ferryfs.override", "ferryfs.override"]) {
        let share = Share::with(|config| {
            (config.xattr, config.xattr_map) = (true, map.with_internal(Internal::new(GUARDED)));
        });
        fs::write(share.host("file"), "").unwrap();
        host::set_xattr(&share.host("file"), "user.ferryfs.override", b"0:0:0755").unwrap();
        let client = share.client();
        let node = client.walk("file").unwrap();
        for name in [name.to_owned(), name.to_uppercase()] {
            assert_eq!(client.getxattr(node, &name).unwrap_err(), Errno::EPERM, "{name}");
            assert_eq!(client.setxattr(node, &name, b"1:1:0777").unwrap_err(), Errno::EPERM, "{name}");
            assert_eq!(client.removexattr(node, &name).unwrap_err(), Errno::EPERM, "{name}");
        }
        assert!(client.listxattr(node).unwrap().is_empty());
        assert_eq!(host::xattr(&share.host("file"), "user.ferryfs.override").unwrap(), b"0:0:0755");
    }
}

#[test]
fn users_and_groups_are_translated_both_ways_in_every_operation() {
    if needs_root() {
        return;
    }
    // Guest 1000..1009 is host 5000..5009; what no rule covers keeps its number, and 7 is nobody's to use.
    let share = Share::with(|config| {
        config.uid_map = IdMap::parse(["map:1000:5000:10", "forbid-guest:7:1"]).unwrap();
        config.gid_map = IdMap::parse(["map:1000:6000:10", "forbid-guest:7:1"]).unwrap();
    });
    host::chmod(share.path(), 0o777);
    let root = share.client();
    let user = root.as_user(1001, 1002);
    type Make = fn(&Client, &str) -> Result<(u64, fuse_abi::Attr)>;
    let makes: [(&str, Make); 4] = [
        ("create", |c, name| c.create(ROOT, name, libc::O_RDWR, 0o600).map(|(e, _)| (e.nodeid, e.attr))),
        ("mkdir", |c, name| c.mkdir(ROOT, name, 0o700).map(|e| (e.nodeid, e.attr))),
        ("mknod", |c, name| c.mknod(ROOT, name, libc::S_IFIFO | 0o600, 0).map(|e| (e.nodeid, e.attr))),
        ("symlink", |c, name| c.symlink(ROOT, name, "x").map(|e| (e.nodeid, e.attr))),
    ];
    for (what, make) in makes {
        let (node, attr) = make(&user, what).unwrap();
        assert_eq!((attr.uid, attr.gid), (1001, 1002), "{what}");
        assert_eq!(host::owner(&share.host(what)), (5001, 6002), "{what}");
        let (plain, more) = (user.getattr(node).unwrap(), user.statx(node).unwrap());
        assert_eq!((plain.uid, plain.gid, more.uid, more.gid), (1001, 1002, 1001, 1002), "{what}");
        let changed = root.chown(node, Some(1003), Some(1004)).unwrap();
        assert_eq!((changed.uid, changed.gid), (1003, 1004), "{what}");
        assert_eq!(host::owner(&share.host(what)), (5003, 6004), "{what}");
        assert_eq!(root.chown(node, Some(7), None).unwrap_err(), Errno::EPERM, "{what}");
        assert_eq!(root.chown(node, None, Some(7)).unwrap_err(), Errno::EPERM, "{what}");
        assert_eq!(make(&root.as_user(7, 1002), "new").unwrap_err(), Errno::EPERM, "{what}");
        assert_eq!(make(&root.as_user(1001, 7), "new").unwrap_err(), Errno::EPERM, "{what}");
        assert!(!share.host("new").exists(), "{what}");
    }
    // What the host gives to a user whom no guest knows shows as it is.
    fs::write(share.host("theirs"), "").unwrap();
    host::chown(&share.host("theirs"), 5009, 99);
    let listing = user.opendir(ROOT).unwrap().fh;
    let entries = user.readdirplus(ROOT, listing, 0, 65536).unwrap();
    let theirs = &entries.iter().find(|(_, entry)| entry.name == "theirs").unwrap().0;
    assert_eq!((theirs.attr.uid, theirs.attr.gid), (1009, 99));
}

#[test]
fn a_write_whose_size_is_not_that_of_its_data_writes_nothing() {
    let share = Share::new();
    let client = share.client();
    let (entry, open) = client.create(ROOT, "file", libc::O_RDWR, 0o644).unwrap();
    for (size, data) in [(10, 4096), (4096, 10), (0, 10), (10, 0), (u32::MAX, 10)] {
        let write = WriteIn { fh: open.fh, size, ..WriteIn::default() };
        let header = client.header(Opcode::Write, entry.nodeid);
        let answer = client.send(Message::new(header, write.as_bytes(), &vec![1; data], 64));
        assert_eq!(answer, Answer::Failed(Errno::EINVAL), "{size} of {data}");
    }
    assert_eq!(fs::metadata(share.host("file")).unwrap().len(), 0);
}

#[test]
fn memory_beyond_what_a_read_asks_for_stays_as_it_was() {
    let share = Share::new();
    fs::write(share.host("file"), vec![1; 8192]).unwrap();
    let client = share.client();
    let node = client.walk("file").unwrap();
    let handle = client.open(node, libc::O_RDONLY).unwrap().fh;
    for size in [0, 1, 10, 4095, 4096] {
        // The client holds the memory behind the reply against its pattern.
        assert_eq!(client.read(node, handle, 0, size).unwrap().len(), size as usize);
    }
    let mut message = client.read_message(node, handle, 0, 4096);
    message.room = 100;
    assert_eq!(client.send(message), Answer::Failed(Errno::EINVAL), "a short reply would read as the end of the file");
}

#[test]
fn a_request_that_cannot_be_answered_has_done_nothing() {
    let share = Share::new();
    let client = share.client();
    for room in [0, 15, 16, 17, 100] {
        let mut message = client.message(Opcode::Mkdir, ROOT, &[&[0; 8], b"dir\0"], 0);
        message.room = room;
        let expected = if room < 16 { Answer::Dropped } else { Answer::Failed(Errno::EINVAL) };
        assert_eq!(client.send(message), expected, "{room}");
    }
    assert!(!share.host("dir").exists());
}

#[test]
fn what_a_guest_may_keep_follows_the_cache_mode_in_every_reply() {
    use ferryfs::coherence::policy::CacheMode;
    for (mode, seconds) in [(CacheMode::Never, 0), (CacheMode::Auto, 1), (CacheMode::Always, 86_400)] {
        let share = Share::with(|config: &mut Config| config.cache = mode);
        fs::write(share.host("file"), "").unwrap();
        let client = share.client();
        let found = client.lookup(ROOT, "file").unwrap();
        let (made, opened) = client.create(ROOT, "new", libc::O_RDWR, 0o600).unwrap();
        for entry in [found, made, client.mkdir(ROOT, "dir", 0o700).unwrap()] {
            assert_eq!((entry.entry_valid, entry.attr_valid), (seconds, seconds), "{mode}");
        }
        assert_eq!(opened.open_flags, mode.grants().file.bits(), "{mode}");
        let read_only = client.open(found.nodeid, libc::O_RDONLY).unwrap();
        let quiet = mode.grants().file | OpenOutFlags::NOFLUSH;
        assert_eq!(read_only.open_flags, quiet.bits(), "{mode}: its FLUSH would bring back nothing");
        assert_eq!(client.opendir(ROOT).unwrap().open_flags, mode.grants().directory.bits(), "{mode}");
    }
}

#[test]
fn an_older_clients_terms_are_served_too() {
    let old = InitFlags::ASYNC_READ | InitFlags::BIG_WRITES | InitFlags::ATOMIC_O_TRUNC;
    let share = Share::on_terms(old, |_| {});
    let client = share.client();
    let (entry, open) = client.create(ROOT, "file", libc::O_RDWR, 0o644).unwrap();
    client.write(entry.nodeid, open.fh, 0, b"data").unwrap();
    assert_eq!(client.read(entry.nodeid, open.fh, 0, 9).unwrap(), b"data");
}
