//! A guest that opens without asking (`--cache always --no-open`), with this machine's kernel client as the guest. Needs
//! root and /dev/fuse.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ferryfs_guest::bridge::Snapshot;
use ferryfs_guest::coherence::{Share, Via, eventually};
use ferryfs_guest::{Bridge, BridgeOptions, Daemon, mountable_ferryfs};
use tempfile::TempDir;
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

const ARGS: [&str; 3] = ["--cache", "always", "--no-open"];

fn share(program: &Path, more: &[&str], via: Via) -> Share {
    Share::start(program, &[&ARGS[..], more].concat(), via).unwrap()
}

/// On each way to a share, with each stream.
fn everywhere(test: impl Fn(&Share)) {
    let Some(program) = mountable_ferryfs() else { return };
    for (via, more) in [
        (Via::Fuse, &[][..]),
        (Via::Bridge(2), &["--dir-stream", "getdents"]),
        (Via::Bridge(1), &["--inode-file-handles", "mandatory"]),
    ] {
        test(&share(&program, more, via));
    }
}

fn make_tree(root: &Path, dirs: usize, files: usize) {
    for dir in 0..dirs {
        let dir = root.join(format!("{dir}"));
        fs::create_dir(&dir).unwrap();
        (0..files).for_each(|file| fs::write(dir.join(format!("{file}")), format!("text of {file}\n")).unwrap());
    }
}

fn run(dir: &Path, command: &str) {
    let status = Command::new("sh").args(["-c", command]).current_dir(dir).stdout(Stdio::null()).status().unwrap();
    assert!(status.success(), "{command}: {status}");
}

/// What was asked, but for what the kernel gives back of its own accord, and how full the share is: a client keeps no
/// answer to that, and `grep -r` and `find` ask once each.
fn asked(counts: &Snapshot) -> u64 {
    ["FORGET", "BATCH_FORGET", "STATFS"].iter().fold(counts.total(), |total, opcode| total - counts.get(opcode))
}

fn asks_nothing(bridge: &Bridge, dir: &Path, command: &str) {
    eventually(|| {
        run(dir, command);
        let counts = bridge.counts().take();
        if asked(&counts) == 0 { Ok(()) } else { Err(format!("{command}: {counts}")) }
    });
}

#[test]
fn a_warm_grep_and_a_warm_listing_ask_nothing() {
    let Some(program) = mountable_ferryfs() else { return };
    for stream in ["getdents", "snapshot"] {
        let share = share(&program, &["--dir-stream", stream], Via::Bridge(1));
        make_tree(share.source(), 20, 10);
        let bridge = share.bridge().unwrap();
        let (grep, list) = ("grep -r no-such-text . || test $? = 1", "ls -lR .");
        run(share.mountpoint(), grep);
        let cold = bridge.counts().take();
        assert_eq!((cold.get("OPEN"), cold.get("OPENDIR")), (1, 1), "{stream}: one question each, and never again");
        // Reading a file makes the client ask once for its time of access.
        eventually(|| {
            run(share.mountpoint(), grep);
            let warm = bridge.counts().take();
            if asked(&warm) == warm.get("GETATTR") { Ok(()) } else { Err(format!("{stream}: {warm}")) }
        });
        // And `ls -l` asks once whether there are extended attributes.
        run(share.mountpoint(), list);
        bridge.counts().take();
        for command in [grep, list, "find . -type f", grep] {
            asks_nothing(bridge, share.mountpoint(), command);
        }
    }
}

#[test]
fn a_guest_that_mounts_read_only_asks_nothing_the_second_time() {
    let Some(program) = mountable_ferryfs() else { return };
    let new = |name| TempDir::with_prefix(name).unwrap();
    let (source, mountpoint) = (new("ferryfs-share-"), new("ferryfs-mount-"));
    make_tree(source.path(), 5, 10);
    let mut daemon = Daemon::share(&program, source.path(), &ARGS).unwrap();
    let options = BridgeOptions { mount_options: vec![("ro".into(), None)], ..BridgeOptions::default() };
    let bridge = Bridge::mount(daemon.connect().unwrap(), mountpoint.path(), &options).unwrap();
    for command in ["grep -r no-such-text . || test $? = 1", "ls -lR ."] {
        run(mountpoint.path(), command);
        bridge.counts().take();
        asks_nothing(&bridge, mountpoint.path(), command);
    }
    bridge.unmount().unwrap();
}

#[test]
fn a_file_is_truncated_by_the_open_that_asks_for_it() {
    everywhere(|share| {
        let (here, there) = (share.mountpoint().join("file"), share.source().join("file"));
        fs::write(&there, "long text").unwrap();
        for round in 0..3 {
            let mut options = OpenOptions::new();
            options.write(true).truncate(true).create(round == 1);
            let mut file = options.open(&here).unwrap();
            assert_eq!(fs::read(&there).unwrap(), b"", "round {round}: at the open and no later");
            file.write_all(b"short").unwrap();
            drop(file);
            assert_eq!(fs::read(&there).unwrap(), b"short", "round {round}");
            assert_eq!(fs::read(&here).unwrap(), b"short", "round {round}");
        }
        // A file that nobody but the host knows.
        fs::write(share.source().join("other"), "long text").unwrap();
        fs::write(share.mountpoint().join("other"), "x").unwrap();
        assert_eq!(fs::read(share.source().join("other")).unwrap(), b"x");
    });
}

#[test]
fn two_who_append_do_not_write_over_each_other() {
    everywhere(|share| {
        let path = share.mountpoint().join("log");
        let open = |create| OpenOptions::new().append(true).create(create).open(&path).unwrap();
        let (mut first, mut second) = (open(true), open(false));
        let random = OpenOptions::new().write(true).open(&path).unwrap();
        for round in 0..20 {
            writeln!(first, "first {round:02}").unwrap();
            writeln!(second, "second {round:02}").unwrap();
        }
        random.write_all_at(b"FIRST", 0).unwrap();
        let expected: String = (0..20).map(|round| format!("first {round:02}\nsecond {round:02}\n")).collect();
        let text = fs::read_to_string(share.source().join("log")).unwrap();
        assert_eq!(text, expected.replacen("first", "FIRST", 1));
    });
}

#[test]
fn an_open_file_outlives_its_name() {
    everywhere(|share| {
        for replaced in [false, true] {
            let (path, other) = (share.mountpoint().join("file"), share.mountpoint().join("other"));
            // One that was made through the guest, and one that was found.
            for made in [false, true] {
                let root = if made { share.mountpoint() } else { share.source() };
                fs::write(root.join("file"), "data").unwrap();
                let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
                if replaced {
                    fs::write(&other, "other").unwrap();
                    fs::rename(&other, &path).unwrap();
                } else {
                    fs::remove_file(&path).unwrap();
                }
                let what = format!("replaced: {replaced}, made: {made}");
                file.write_all_at(b"more", 4).unwrap();
                file.sync_all().unwrap();
                let mut text = [0; 8];
                file.read_exact_at(&mut text, 0).unwrap();
                assert_eq!(&text, b"datamore", "{what}");
                let found = file.metadata().unwrap();
                assert_eq!((found.nlink(), found.len()), (0, 8), "{what}");
                file.set_len(2).unwrap();
                assert_eq!(file.metadata().unwrap().len(), 2, "{what}");
            }
            let _ = fs::remove_file(&path);
        }
    });
}

#[test]
fn what_is_written_through_a_mapping_reaches_the_host() {
    everywhere(|share| {
        const LENGTH: usize = 3 * 4096 + 100;
        let path = share.mountpoint().join("mapped");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(LENGTH as u64).unwrap();
        let (read_and_write, shared) = (3, 1);
        let again = file.try_clone().unwrap();
        let region = MmapRegion::<()>::build(Some(FileOffset::new(again, 0)), LENGTH, read_and_write, shared).unwrap();
        let text: Vec<u8> = (0..LENGTH).map(|n| (n % 251) as u8).collect();
        region.get_slice(0, LENGTH).unwrap().copy_from(&text);
        drop(region);
        file.sync_all().unwrap();
        assert_eq!(fs::read(share.source().join("mapped")).unwrap(), text);
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), text);
    });
}

/// What a user without privileges hears of a command.
fn as_nobody(dir: &Path, command: &str) -> bool {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).current_dir(dir).uid(65534).gid(65534).stdout(Stdio::null()).stderr(Stdio::null());
    shell.status().unwrap().success()
}

#[test]
fn who_may_not_open_a_file_or_list_a_directory_does_not() {
    everywhere(|share| {
        let root = share.mountpoint();
        for dir in [root, share.source().parent().unwrap()] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::create_dir(root.join("dir")).unwrap();
        fs::write(root.join("file"), "data").unwrap();
        // Known and cached, also by the superuser, who may.
        run(root, "cat file; ls dir");
        for (mode, reads, writes) in [(0o644, true, false), (0o600, false, false), (0o606, true, true)] {
            fs::set_permissions(root.join("file"), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(as_nobody(root, "cat file"), reads, "{mode:o}");
            assert_eq!(as_nobody(root, "echo x >>file"), writes, "{mode:o}");
            assert_eq!(as_nobody(root, ": >file"), writes, "{mode:o}");
        }
        for (mode, lists) in [(0o755, true), (0o700, false)] {
            fs::set_permissions(root.join("dir"), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(as_nobody(root, "ls dir"), lists, "{mode:o}");
        }
    });
}

#[test]
fn ten_thousand_files_are_read_with_a_few_hundred_descriptors() {
    const FILES: usize = 10_000;
    const LIMIT: &str = "900";
    let Some(program) = mountable_ferryfs() else { return };
    let new = |name| TempDir::with_prefix_in(name, "/dev/shm").or_else(|_| TempDir::with_prefix(name)).unwrap();
    let (source, mountpoint) = (new("ferryfs-share-"), new("ferryfs-mount-"));
    make_tree(source.path(), 100, FILES / 100);
    let args = [&ARGS[..], &["--rlimit-nofile", LIMIT]].concat();
    let mut daemon = Daemon::share(&program, source.path(), &args).unwrap();
    let options = BridgeOptions { queues: 2, ..BridgeOptions::default() };
    let bridge = Bridge::mount(daemon.connect().unwrap(), mountpoint.path(), &options).unwrap();
    let (read, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let most = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let (root, read) = (mountpoint.path(), &read);
                scope.spawn(move || {
                    for number in (0..FILES).map(|n| (n + thread * FILES / 4) % FILES) {
                        let path = root.join(format!("{}/{}", number / 100, number % 100));
                        let mut text = String::new();
                        File::open(&path).unwrap().read_to_string(&mut text).unwrap();
                        assert_eq!(text, format!("text of {}\n", number % 100));
                        read.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(daemon.open_files().unwrap());
                std::thread::yield_now();
            }
            most
        });
        let read: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        done.store(true, Ordering::Relaxed);
        read.into_iter().for_each(Result::unwrap);
        watch.join().unwrap()
    });
    assert_eq!(read.load(Ordering::Relaxed), 4 * FILES);
    // Of the limit 609 and one for each thread are kept back for what is not the guest's.
    assert!(most < 400, "{most} descriptors");
    // Beyond the budget inodes are kept by file handle, and what has lost its name is held all the same.
    let file = OpenOptions::new().write(true).open(mountpoint.path().join("7/7")).unwrap();
    run(mountpoint.path(), "rm -r 7");
    file.write_all_at(b"text", 0).unwrap();
    file.sync_all().unwrap();
    drop(file);
    bridge.unmount().unwrap();
}
