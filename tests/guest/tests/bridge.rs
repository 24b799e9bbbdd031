//! The bridge with this machine's kernel client on one side and a real daemon on the other. Needs root and /dev/fuse.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ferryfs_guest::front_end::virtio;
use ferryfs_guest::{Bridge, BridgeOptions, Daemon, find_daemon, skipped};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

struct Shared {
    dir: TempDir,
    mountpoint: TempDir,
}

/// Two new directories, or nothing where bridges cannot be: said aloud.
fn shared() -> Option<(PathBuf, Shared)> {
    let program = find_daemon();
    let reason = match &program {
        None => "no vhost-user-fs daemon; set FERRYFS_TEST_DAEMON or put one on the path",
        Some(_) if !geteuid().is_root() => "not root",
        Some(_) if File::open("/dev/fuse").is_err() => "no /dev/fuse",
        Some(_) => "",
    };
    if !reason.is_empty() {
        skipped(reason);
        return None;
    }
    let new = |name| TempDir::with_prefix(name).unwrap();
    Some((program?, Shared { dir: new("ferryfs-share-"), mountpoint: new("ferryfs-mount-") }))
}

/// A daemon and a mount. In this order, so that a test that fails unmounts before it ends the daemon.
fn bridge(program: &Path, shared: &Shared, args: &[&str], options: &BridgeOptions) -> (Daemon, Bridge) {
    let mut daemon = Daemon::share(program, shared.dir.path(), args).unwrap();
    let bridge = Bridge::mount(daemon.connect().unwrap(), shared.mountpoint.path(), options).unwrap();
    (daemon, bridge)
}

fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

/// A tree with small, page-sized and large files, and its names with their contents.
fn make_tree(root: &Path) {
    for dir in ["a", "a/b", "a/b/c", "d"] {
        fs::create_dir(root.join(dir)).unwrap();
        for len in [0, 1, 4095, 4096, 4097, 3_000_000] {
            let data: Vec<u8> = (0..len).map(|n: u32| (n % 253) as u8).collect();
            fs::write(root.join(dir).join(format!("{len}")), data).unwrap();
        }
    }
    std::os::unix::fs::symlink("a/b", root.join("link")).unwrap();
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_tree_is_the_same_through_the_bridge_whatever_carries_it() {
    let Some((program, _)) = shared() else { return };
    let default = BridgeOptions::default();
    let plain = default.virtio & !virtio::INDIRECT_DESC & !virtio::EVENT_IDX;
    let variants = [
        default.clone(),
        BridgeOptions { pages: true, ..default.clone() },
        BridgeOptions { virtio: plain, queue_size: 64, ..default.clone() },
        BridgeOptions { depth: 1, spin: Duration::from_micros(20), ..default.clone() },
    ];
    for options in variants {
        let (_, shared) = shared().unwrap();
        let (mut daemon, bridge) = bridge(&program, &shared, &[], &options);
        let (here, there) = (shared.mountpoint.path(), shared.dir.path());
        make_tree(&here.join("."));
        run(Command::new("cp").args(["-r", "a"]).arg("copy").current_dir(here));
        run(Command::new("diff").arg("-r").arg(here).arg(there));
        run(Command::new("diff").arg("-r").arg(there.join("a")).arg(there.join("copy")));
        assert_eq!(run(Command::new("ls").arg(here)), "a\ncopy\nd\nlink\n");
        let counts = bridge.counts().snapshot();
        assert_eq!((counts.get("INIT"), counts.get("MKDIR"), counts.malformed), (1, 7, 0), "{counts}");
        bridge.unmount().unwrap();
        assert!(!is_mounted(here));
        assert_eq!(fs::read_dir(here).unwrap().count(), 0);
        daemon.wait_exit(Duration::from_secs(20)).unwrap();
    }
}

#[test]
fn many_threads_are_served_at_once() {
    let Some((program, shared)) = shared() else { return };
    let (_daemon, bridge) = bridge(&program, &shared, &["--cache", "never"], &BridgeOptions::default());
    let root = shared.mountpoint.path();
    std::thread::scope(|scope| {
        for thread in 0..8u8 {
            scope.spawn(move || {
                let file = File::options().create_new(true).read(true).write(true).open(root.join(format!("{thread}")));
                let file = file.unwrap();
                for round in 0..200u64 {
                    let data = [thread ^ round as u8; 5000];
                    file.write_all_at(&data, round * 5000).unwrap();
                    let mut back = [0; 5000];
                    file.read_exact_at(&mut back, round * 5000).unwrap();
                    assert_eq!(back, data);
                    assert_eq!(file.metadata().unwrap().len(), (round + 1) * 5000);
                }
            });
        }
    });
    let counts = bridge.counts().take();
    assert_eq!(counts.malformed, 0, "{counts}");
    assert!(counts.get("WRITE") >= 1600, "{counts}");
    // A RELEASE may still come after the files were closed; a WRITE cannot.
    assert_eq!(bridge.counts().snapshot().get("WRITE"), 0, "take begins again at 0");
    bridge.unmount().unwrap();
}

#[test]
fn what_the_kernel_forgets_the_daemon_forgets() {
    let Some((program, shared)) = shared() else { return };
    (0..3000).for_each(|n| fs::write(shared.dir.path().join(format!("{n}")), b"").unwrap());
    // With descriptors for inodes the daemon's references can be counted from outside.
    let args = ["--inode-file-handles=never"];
    let (daemon, bridge) = bridge(&program, &shared, &args, &BridgeOptions::default());
    let path = |n: u32| shared.mountpoint.path().join(n.to_string());
    let before = daemon.open_files().unwrap();
    assert!((0..3000).all(|n| fs::metadata(path(n)).is_ok()));
    let held = daemon.open_files().unwrap();
    assert!(held >= before + 1000, "{held} descriptors, {before} before");
    // Removed inodes leave the kernel's cache at once; the caches of the whole machine need not be dropped.
    (0..3000).for_each(|n| fs::remove_file(path(n)).unwrap());
    let start = Instant::now();
    while daemon.open_files().unwrap() > before + 8 {
        assert!(start.elapsed() < Duration::from_secs(20), "{:?} of {held} descriptors", daemon.open_files());
        std::thread::sleep(Duration::from_millis(10));
    }
    let counts = bridge.counts().snapshot();
    assert!(counts.get("FORGET") + counts.get("BATCH_FORGET") > 0, "{counts}");
    bridge.unmount().unwrap();
}

#[test]
fn a_daemon_that_dies_does_not_leave_callers_waiting() {
    let Some((program, shared)) = shared() else { return };
    let (daemon, bridge) = bridge(&program, &shared, &[], &BridgeOptions::default());
    let mut file = File::create(shared.mountpoint.path().join("file")).unwrap();
    drop(daemon);
    // The connection is gone, and whatever reaches it now or is waiting on it fails.
    let mut fds = [PollFd::from_borrowed_fd(bridge.gone_fd(), PollFlags::IN)];
    poll(&mut fds, None).unwrap();
    let failed = file.write_all(&[0; 100]).and_then(|()| file.sync_all());
    assert!(failed.is_err());
    assert!(bridge.unmount().is_err(), "it says that the daemon went away");
    assert!(!is_mounted(shared.mountpoint.path()));
}

/// The command, mounted, with its standard error read so far.
fn command(program: &Path, shared: &Shared, counts: &Path) -> Child {
    let daemon = format!("{} --shared-dir {}", program.display(), shared.dir.path().display());
    let mut child = Command::new(env!("CARGO_BIN_EXE_ferryfs-bridge"))
        .args(["--daemon", &daemon, "--count"])
        .args([counts, shared.mountpoint.path()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = Vec::new();
    let stderr = child.stderr.as_mut().unwrap();
    while !said.ends_with(b"\n") {
        let mut byte = [0];
        assert_eq!(stderr.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&said));
        said.push(byte[0]);
    }
    assert!(is_mounted(shared.mountpoint.path()), "{}", String::from_utf8_lossy(&said));
    child
}

#[test]
fn the_command_ends_cleanly_by_a_signal_and_when_it_is_unmounted() {
    for signal in [Some(Signal::TERM), Some(Signal::INT), None] {
        let Some((program, shared)) = shared() else { return };
        let counts = shared.dir.path().join("counts");
        let mut child = command(&program, &shared, &counts);
        fs::write(shared.mountpoint.path().join("made"), b"here").unwrap();
        match signal {
            Some(signal) => kill_process(Pid::from_child(&child), signal).unwrap(),
            None => drop(run(Command::new("umount").arg(shared.mountpoint.path()))),
        }
        let status = child.wait().unwrap();
        assert!(status.success(), "{signal:?}: {status}");
        assert!(!is_mounted(shared.mountpoint.path()));
        assert_eq!(fs::read(shared.dir.path().join("made")).unwrap(), b"here");
        let table = fs::read_to_string(counts).unwrap();
        assert!(table.lines().any(|line| line.starts_with("CREATE") && line.ends_with(" 1")), "{table}");
    }
}
