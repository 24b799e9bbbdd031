//! How many system calls an operation costs, held against the table that the design promises.
//!
//! The test runs itself once more under `strace`: there it serves requests on one thread, with a mark around each, and
//! here it counts what lies between the marks. What the allocator asks the system for is not counted: an operation does
//! so once in thousands, when its tables grow.

mod support;

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use ferryfs::{
    coherence::policy::CacheMode,
    directory::StreamKind,
    protocol::{FileSystem, Sent},
};
use fuse_abi::{SetattrIn, SetattrValid};

use support::{Client, ROOT, Share, host, is_root, skipped};

/// How often each operation is done.
const TIMES: usize = 16;
const MARK: &str = "/ferryfs-mark/";
const ALLOCATOR: [&str; 6] = ["brk", "mmap", "munmap", "mremap", "madvise", "mprotect"];

/// Operations and what each may cost, in the order in which they are done. `READDIRPLUS` counts a whole reply.
const TABLE: [(&str, usize); 50] = [
    ("LOOKUP, known", 1),
    ("LOOKUP, known since another took its name", 1),
    ("LOOKUP, missing", 1),
    ("LOOKUP, missing as many before it", 1),
    ("LOOKUP, new", 2),
    ("LOOKUP, of a directory", 1),
    ("FORGET, the last", 1),
    ("GETATTR", 1),
    ("GETATTR, by handle", 1),
    ("STATX", 1),
    ("SETATTR, mode", 2),
    ("SETATTR, size by handle", 2),
    ("READLINK", 1),
    ("STATFS", 1),
    ("OPEN", 1),
    ("READ", 1),
    ("READ, short", 1),
    ("READ, without waiting", 1),
    ("WRITE", 1),
    ("FLUSH", 0),
    ("RELEASE", 1),
    ("CREATE, as root", 2),
    // One more than of a file that was opened: now the inode gets the descriptor that CREATE was spared.
    ("RELEASE, of a CREATE", 2),
    ("CREATE, as another user", 4),
    ("CREATE, by the same user", 2),
    ("LOOKUP, by the same user", 1),
    ("GETATTR, by the same user", 1),
    ("WRITE, by the same user", 1),
    ("UNLINK, by the same user", 1),
    // mkdirat, openat, statx. Two would do if the descriptor were opened at first use, but until then only name and
    // times would tell the directory from another one that the host puts in its place.
    ("MKDIR", 3),
    ("SYMLINK", 3),
    ("UNLINK", 1),
    ("RMDIR", 1),
    ("RENAME", 1),
    ("LINK", 2),
    ("OPENDIR", 1),
    ("READDIR", 1),
    ("READDIRPLUS, of 32 known", 1 + 32),
    ("READDIRPLUS, of 32 new", 1 + 2 * 32),
    ("RELEASEDIR", 1),
    // Without OPEN: the first request opens, and the others cost what they do with a handle.
    ("READ, first, not opened", 2),
    ("READ, not opened", 1),
    ("WRITE, first, not opened", 2),
    ("WRITE, not opened", 1),
    ("GETATTR, not opened", 1),
    ("UNLINK, not opened", 1),
    // The descriptor serves the inode and the requests that follow.
    ("CREATE, not opened", 2),
    // A guest that hears of changes: a directory is watched before the first name in it is looked up.
    ("LOOKUP, first in a directory, heard of", 3),
    ("LOOKUP, known, heard of", 1),
    ("GETATTR, heard of", 1),
];

#[test]
fn an_operation_makes_no_more_system_calls_than_the_table_says() {
    if std::env::var_os("FERRYFS_WORKLOAD").is_some() {
        return workload();
    }
    if !is_root() && skipped("needs root") {
        return;
    }
    let log = tempfile::NamedTempFile::new().unwrap();
    let traced = Command::new("strace")
        .args(["-f", "-qq", "-o", log.path().to_str().unwrap()])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "an_operation_makes_no_more_system_calls_than_the_table_says", "--nocapture"])
        .env("FERRYFS_WORKLOAD", "1")
        // With several arenas the C library asks /proc, once in a while, whether it may shrink one.
        .env("MALLOC_ARENA_MAX", "1")
        .output();
    let output = match traced {
        Ok(output) => output,
        Err(error) => {
            skipped(&format!("strace cannot be run: {error}"));
            return;
        }
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("ptrace") && skipped("strace may not trace here") {
        return;
    }
    assert!(output.status.success(), "{said}");
    let counted = count(&fs::read_to_string(log.path()).unwrap());
    let mut wrong = Vec::new();
    println!("{:<44} {:>8} {:>8}", "operation", "calls", "promised");
    for (name, promised) in TABLE {
        let calls = counted.get(name).unwrap_or_else(|| panic!("{name} was not measured"));
        let total: usize = calls.values().sum();
        println!("{name:<44} {:>8.2} {promised:>8}   {}", total as f64 / TIMES as f64, names(calls));
        if total != promised * TIMES {
            wrong.push(format!("{name}: {total} calls in {TIMES} operations, not {promised} each: {}", names(calls)));
        }
    }
    assert_eq!(counted.len(), TABLE.len(), "each row is measured, and nothing else");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What the standard library asks before it closes a descriptor, where assertions are on.
fn is_check_of_debug_builds(call: &str) -> bool {
    cfg!(debug_assertions) && call.starts_with("fcntl(") && call.contains("F_GETFD")
}

fn names(calls: &BTreeMap<String, usize>) -> String {
    calls.iter().map(|(call, count)| format!("{call} {count}")).collect::<Vec<_>>().join(", ")
}

/// The calls between the marks, by operation and by name.
fn count(log: &str) -> BTreeMap<String, BTreeMap<String, usize>> {
    let mut counted: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    // The thread that is marked, and the operation.
    let mut inside: Option<(&str, String)> = None;
    for line in log.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        let Some((name, _)) = call.split_once('(') else { continue };
        if let Some((_, rest)) = call.split_once(MARK) {
            let (operation, end) = rest.split_once('"').unwrap().0.rsplit_once('/').unwrap();
            inside = match end {
                "begin" => {
                    counted.entry(operation.to_owned()).or_default();
                    Some((thread, operation.to_owned()))
                }
                _ => None,
            };
        } else if let Some((marked, operation)) = &inside
            && *marked == thread
            && !ALLOCATOR.contains(&name)
            // The rest of a line that another thread's calls cut in two.
            && !name.starts_with('<')
            // Where other threads work at the same time a lock may be taken.
            && !(name == "futex" && operation.ends_with("heard of"))
            && !is_check_of_debug_builds(call)
        {
            *counted.get_mut(operation).unwrap().entry(name.to_owned()).or_default() += 1;
        }
    }
    counted
}

/// Does something between marks in the log.
fn measure<R>(operation: &str, work: impl FnOnce() -> R) -> R {
    let mark = |end: &str| drop(fs::symlink_metadata(format!("{MARK}{operation}/{end}")));
    mark("begin");
    let done = work();
    mark("end");
    done
}

fn workload() {
    let share = Share::with(|config| config.dir_stream = Some(StreamKind::Getdents));
    host::chmod(share.path(), 0o777);
    let client = Client::here(&share.server);
    // The thread's first request, and the file system's: a cost of its own, paid once.
    client.mkdir(ROOT, "warm", 0o755).unwrap();
    let (warm, open) = client.create(ROOT, "warm-file", libc::O_RDWR, 0o644).unwrap();
    client.release(warm.nodeid, open.fh).unwrap();
    names_and_attributes(&client, share.path());
    data(&client, share.path());
    creations(&client);
    listings(&client, share.path());
    let unasked = Share::with(support::unasked);
    without_opens(&Client::here(&unasked.server), unasked.path());
    heard_of();
}

/// What it costs that the guest hears of changes. Who watches and who speaks have threads of their own.
fn heard_of() {
    let share =
        Share::with(|config| (config.cache, config.notify, config.contained) = (CacheMode::Coherent, true, true));
    let (server, path) = (&share.server, share.path());
    let client = Client::here(server);
    server.file_system().unmute();
    std::thread::scope(|scope| {
        scope.spawn(|| server.file_system().watch());
        scope.spawn(|| server.speak(Some(&mut |_: &[u8]| Sent::Heard)));
        fs::write(path.join("file"), "").unwrap();
        while client.lookup(ROOT, "file").unwrap().entry_valid != 3600 {
            std::thread::yield_now();
        }
        for number in 0..TIMES {
            let name = format!("heard-{number}");
            fs::create_dir(path.join(&name)).unwrap();
            fs::write(path.join(&name).join("file"), "").unwrap();
            let dir = client.lookup(ROOT, &name).unwrap().nodeid;
            measure("LOOKUP, first in a directory, heard of", || client.lookup(dir, "file").unwrap());
            let found = measure("LOOKUP, known, heard of", || client.lookup(dir, "file").unwrap());
            assert_eq!((found.entry_valid, found.attr_valid), (3600, 60));
            measure("GETATTR, heard of", || client.getattr(found.nodeid).unwrap());
        }
        server.file_system().mute();
    });
}

fn without_opens(client: &Client, path: &Path) {
    let (warm, _) = client.create(ROOT, "warm", libc::O_RDWR, 0o644).unwrap();
    client.read(warm.nodeid, 0, 0, 4096).unwrap();
    for number in 0..TIMES {
        let at = |name: &str| format!("{name}-{number}");
        fs::write(path.join(at("data")), vec![7; 10_000]).unwrap();
        let node = client.lookup(ROOT, &at("data")).unwrap().nodeid;
        for what in ["READ, first, not opened", "READ, not opened"] {
            assert_eq!(measure(what, || client.read(node, 0, 0, 4096).unwrap()).len(), 4096);
        }
        for what in ["WRITE, first, not opened", "WRITE, not opened"] {
            measure(what, || client.write(node, 0, 0, &[1; 4096]).unwrap());
        }
        measure("GETATTR, not opened", || client.attributes(node, Some(0)).unwrap());
        measure("CREATE, not opened", || client.create(ROOT, &at("new"), libc::O_RDWR, 0o644).unwrap());
        measure("UNLINK, not opened", || client.unlink(ROOT, &at("data")).unwrap());
    }
}

fn names_and_attributes(client: &Client, path: &Path) {
    for number in 0..TIMES {
        let at = |name: &str| format!("{name}-{number}");
        for name in ["known", "new", "old", "taker"] {
            fs::write(path.join(at(name)), "data").unwrap();
        }
        fs::create_dir(path.join(at("dir"))).unwrap();
        std::os::unix::fs::symlink("target", path.join(at("link"))).unwrap();
        let known = client.lookup(ROOT, &at("known")).unwrap().nodeid;
        measure("LOOKUP, known", || client.lookup(ROOT, &at("known")).unwrap());
        client.lookup(ROOT, &at("dir")).unwrap();
        measure("LOOKUP, of a directory", || client.lookup(ROOT, &at("dir")).unwrap());
        measure("LOOKUP, missing", || client.lookup(ROOT, &at("missing")).unwrap_err());
        (0..100).for_each(|_| assert!(client.lookup(ROOT, &at("missing")).is_err()));
        measure("LOOKUP, missing as many before it", || client.lookup(ROOT, &at("missing")).unwrap_err());
        // The first that is there after many that are not costs one more.
        client.lookup(ROOT, &at("taker")).unwrap();
        let new = measure("LOOKUP, new", || client.lookup(ROOT, &at("new")).unwrap()).nodeid;
        measure("FORGET, the last", || client.forget(new, 1));
        // As an editor saves: a new file takes the name, and the old one is forgotten.
        let old = client.lookup(ROOT, &at("old")).unwrap().nodeid;
        client.lookup(ROOT, &at("taker")).unwrap();
        client.rename((ROOT, &at("taker")), (ROOT, &at("old"))).unwrap();
        client.lookup(ROOT, &at("old")).unwrap();
        client.forget(old, 1);
        client.lookup(ROOT, &at("old")).unwrap();
        measure("LOOKUP, known since another took its name", || client.lookup(ROOT, &at("old")).unwrap());
        measure("GETATTR", || client.getattr(known).unwrap());
        measure("STATX", || client.statx(known).unwrap());
        measure("SETATTR, mode", || client.chmod(known, 0o600).unwrap());
        let link = client.lookup(ROOT, &at("link")).unwrap().nodeid;
        measure("READLINK", || client.readlink(link).unwrap());
        measure("STATFS", || client.statfs(known).unwrap());
        measure("RENAME", || client.rename((ROOT, &at("known")), (ROOT, &at("renamed"))).unwrap());
        measure("LINK", || client.link(known, ROOT, &at("more")).unwrap());
        measure("UNLINK", || client.unlink(ROOT, &at("more")).unwrap());
        measure("RMDIR", || client.rmdir(ROOT, &at("dir")).unwrap());
    }
}

fn data(client: &Client, path: &Path) {
    fs::write(path.join("data"), vec![7; 10_000]).unwrap();
    let node = client.lookup(ROOT, "data").unwrap().nodeid;
    let warm = client.open(node, libc::O_RDWR).unwrap().fh;
    client.write(node, warm, 0, &[1; 4096]).unwrap();
    for _ in 0..TIMES {
        let handle = measure("OPEN", || client.open(node, libc::O_RDWR).unwrap()).fh;
        assert_eq!(measure("READ", || client.read(node, handle, 0, 4096).unwrap()).len(), 4096);
        assert_eq!(measure("READ, short", || client.read(node, handle, 8192, 4096).unwrap()).len(), 1808);
        let mut message = client.read_message(node, handle, 0, 10_000);
        message.may_block = false;
        measure("READ, without waiting", || client.send(message));
        measure("WRITE", || client.write(node, handle, 0, &[1; 4096]).unwrap());
        measure("GETATTR, by handle", || client.attributes(node, Some(handle)).unwrap());
        let size = SetattrIn { fh: handle, size: 10_000, ..SetattrIn::default() };
        let valid = SetattrValid::SIZE | SetattrValid::FH;
        measure("SETATTR, size by handle", || client.setattr(node, valid, size).unwrap());
        measure("FLUSH", || client.flush(node, handle).unwrap());
        measure("RELEASE", || client.release(node, handle).unwrap());
    }
}

fn creations(client: &Client) {
    let user = client.as_user(1000, 1000);
    for number in 0..TIMES {
        let at = |name: &str| format!("{name}-{number}");
        // The server again, whoever was served before.
        client.chmod(client.lookup(ROOT, "warm-file").unwrap().nodeid, 0o644).unwrap();
        let create = |who: &Client, name: &str| who.create(ROOT, &at(name), libc::O_RDWR, 0o644).unwrap();
        let (made, open) = measure("CREATE, as root", || create(client, "roots"));
        measure("RELEASE, of a CREATE", || client.release(made.nodeid, open.fh).unwrap());
        measure("MKDIR", || client.mkdir(ROOT, &at("made"), 0o755).unwrap());
        measure("SYMLINK", || client.symlink(ROOT, &at("symlink"), "target").unwrap());
        measure("CREATE, as another user", || create(&user, "users"));
        let (made, open) = measure("CREATE, by the same user", || create(&user, "more"));
        measure("LOOKUP, by the same user", || user.lookup(ROOT, &at("more")).unwrap());
        measure("GETATTR, by the same user", || user.getattr(made.nodeid).unwrap());
        measure("WRITE, by the same user", || user.write(made.nodeid, open.fh, 0, b"data").unwrap());
        measure("UNLINK, by the same user", || user.unlink(ROOT, &at("more")).unwrap());
        user.release(made.nodeid, open.fh).unwrap();
    }
}

fn listings(client: &Client, path: &Path) {
    // With both dots, 34 entries.
    let some = path.join("some");
    fs::create_dir(&some).unwrap();
    (0..32).for_each(|number| fs::write(some.join(number.to_string()), "").unwrap());
    let some = client.lookup(ROOT, "some").unwrap().nodeid;
    let many = path.join("many");
    fs::create_dir(&many).unwrap();
    (0..3000).for_each(|number| fs::write(many.join(format!("a-rather-long-name-of-a-file-{number}")), "").unwrap());
    let many = client.lookup(ROOT, "many").unwrap().nodeid;
    for _ in 0..TIMES {
        let handle = measure("OPENDIR", || client.opendir(some).unwrap()).fh;
        let list = || client.readdirplus(some, handle, 0, 65_536).unwrap();
        let listed = measure("READDIRPLUS, of 32 new", list);
        assert_eq!(listed.len(), 34);
        client.releasedir(some, handle).unwrap();
        let handle = client.opendir(some).unwrap().fh;
        let again = measure("READDIRPLUS, of 32 known", || client.readdirplus(some, handle, 0, 65_536).unwrap());
        let forgets = listed.iter().chain(&again).map(|(node, _)| (node.nodeid, 1)).filter(|(node, _)| *node != 0);
        client.batch_forget(&forgets.collect::<Vec<_>>());
        measure("RELEASEDIR", || client.releasedir(some, handle).unwrap());
    }
    // Sequential reads of a directory, each as large as what the kernel gives at once: no seek between them.
    for _ in 0..TIMES / 4 {
        let handle = client.opendir(many).unwrap().fh;
        let mut offset = 0;
        for _ in 0..4 {
            let page = measure("READDIR", || client.readdir(many, handle, offset, 32_768).unwrap());
            offset = page.last().map_or(0, |last| last.next);
            assert_ne!(offset, 0, "the directory is large enough");
        }
        client.releasedir(many, handle).unwrap();
    }
}
