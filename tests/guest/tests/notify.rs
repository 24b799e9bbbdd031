//! What a guest sees that hears of changes, with this machine's kernel client as the guest. Needs root and /dev/fuse.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ferryfs_guest::client::start_lane;
use ferryfs_guest::coherence::{Plan, Share, Via, check, eventually, races};
use ferryfs_guest::front_end::{Queue, virtio};
use ferryfs_guest::lane::{Cuts, LaneSize};
use ferryfs_guest::{Client, Daemon, Options, mountable_ferryfs};
use fuse_abi::ROOT_ID;

/// Only ends hangs.
const HANG: Duration = Duration::from_secs(60);
const COHERENT: [&str; 3] = ["--cache", "coherent", "--notify"];

fn share(program: &Path, args: &[&str], via: Via) -> Share {
    let share = Share::start(program, &[&COHERENT, args].concat(), via).unwrap();
    share.await_word();
    share
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < HANG, "{what}: waited in vain");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn every_stat_is_true_as_soon_as_the_guest_has_heard() {
    let Some(program) = mountable_ferryfs() else { return };
    let vias = [(Via::Fuse, "getdents"), (Via::Bridge(1), "snapshot"), (Via::Bridge(2), "getdents")];
    for (seed, (via, stream)) in (1..).zip(vias) {
        let share = share(&program, &["--dir-stream", stream], via);
        let report = check(&share, &Plan { steps: 120, seed, strict: true, hears: true, map: true }).unwrap();
        assert!(report.violations.is_empty() && report.estale == 0, "{via:?} seed {seed}: {report:#?}");
    }
}

#[test]
fn an_application_never_sees_estale_while_the_guest_hears_of_what_the_host_replaces() {
    let Some(program) = mountable_ferryfs() else { return };
    for via in [Via::Fuse, Via::Bridge(2)] {
        let share = share(&program, &[], via);
        let outcome = races::race(&share, 3, 1500, 7).unwrap();
        assert!(outcome.estale.is_empty() && outcome.replacements > 100, "{outcome:?}");
    }
}

#[test]
fn what_the_guest_knows_it_does_not_ask_for_again() {
    let Some(program) = mountable_ferryfs() else { return };
    let share = share(&program, &[], Via::Bridge(1));
    for dir in 0..5 {
        let dir = share.source().join(format!("{dir}"));
        fs::create_dir(&dir).unwrap();
        (0..10).for_each(|file| fs::write(dir.join(format!("{file}")), "text").unwrap());
    }
    share.await_word();
    let stat_all = || {
        for dir in (0..5).map(|dir| share.mountpoint().join(format!("{dir}"))) {
            assert!((0..10).all(|file| fs::metadata(dir.join(format!("{file}"))).is_ok()));
        }
    };
    let bridge = share.bridge().unwrap();
    stat_all();
    // Longer than attributes last where nobody hears. A directory is watched once a name in it was looked up, and what is
    // told of it from then on lasts.
    let short = Duration::from_millis(1500);
    eventually(|| {
        std::thread::sleep(short);
        stat_all();
        bridge.counts().take();
        std::thread::sleep(short);
        stat_all();
        let counts = bridge.counts().take();
        let asked = ["GETATTR", "STATX", "LOOKUP"].map(|opcode| counts.get(opcode));
        if asked == [0; 3] && counts.notifications == 0 { Ok(()) } else { Err(counts.to_string()) }
    });
    fs::write(share.source().join("3/7"), "more text").unwrap();
    share.await_word();
    assert_eq!(fs::metadata(share.mountpoint().join("3/7")).unwrap().len(), 9);
    assert!(bridge.counts().take().notifications > 0);
}

#[test]
fn a_name_that_the_guest_believes_missing_becomes_visible_when_the_host_makes_it() {
    let Some(program) = mountable_ferryfs() else { return };
    for via in [Via::Fuse, Via::Bridge(2)] {
        let share = share(&program, &["--negative-timeout", "3600"], via);
        for round in 0..20 {
            let name = format!("{round}");
            let missing = || fs::metadata(share.mountpoint().join(&name)).is_err();
            assert!(missing() && missing());
            fs::write(share.source().join(&name), "text").unwrap();
            share.await_word();
            let read = fs::read(share.mountpoint().join(&name));
            assert!(read.as_deref().is_ok_and(|text| text == b"text"), "{via:?} {round}: {read:?}");
        }
        if let Some(bridge) = share.bridge() {
            let mut names = 0..;
            eventually(|| {
                let name = format!("never-{}", names.next().unwrap());
                bridge.counts().take();
                assert!((0..10).all(|_| fs::metadata(share.mountpoint().join(&name)).is_err()));
                let counts = bridge.counts().take();
                if counts.get("LOOKUP") == 1 { Ok(()) } else { Err(format!("it is not kept: {counts}")) }
            });
        }
    }
}

#[test]
fn a_listing_in_progress_while_its_directory_is_invalidated_does_not_hide_the_change() {
    let Some(program) = mountable_ferryfs() else { return };
    for stream in ["getdents", "snapshot"] {
        let share = share(&program, &["--dir-stream", stream], Via::Bridge(2));
        let (here, there) = (share.source().join("dir"), share.mountpoint().join("dir"));
        fs::create_dir(&here).unwrap();
        // More than one reply holds.
        (0..2000).for_each(|n| fs::write(here.join(format!("{n:0100}")), "").unwrap());
        for round in 0..10 {
            let mut listing = fs::read_dir(&there).unwrap();
            assert!(listing.by_ref().take(700).all(|entry| entry.is_ok()));
            let new = format!("new-{round}");
            fs::write(here.join(&new), "").unwrap();
            share.await_word();
            assert!(listing.all(|entry| entry.is_ok()));
            let names: Vec<_> = fs::read_dir(&there).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert!(names.iter().any(|name| *name == *new), "{stream} {round}");
            assert_eq!(names.len(), 2001 + round);
            assert_eq!(
                fs::metadata(&there).unwrap().modified().unwrap(),
                fs::metadata(&here).unwrap().modified().unwrap()
            );
        }
    }
}

struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn an_open_and_an_invalidation_of_one_file_leave_the_truth_in_either_order() {
    let Some(program) = mountable_ferryfs() else { return };
    for via in [Via::Fuse, Via::Bridge(2)] {
        let share = share(&program, &[], via);
        let (here, there) = (share.source().join("file"), share.mountpoint().join("file"));
        fs::write(&here, "0").unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Also when the test fails: otherwise it would never end.
            let _done = SetAtEnd(&done);
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        fs::read(&there).unwrap();
                        fs::metadata(&there).unwrap();
                    }
                });
            }
            for round in 1..300 {
                let content = "x".repeat(round);
                fs::write(&here, &content).unwrap();
                if round % 10 == 0 {
                    share.await_word();
                    // What the guest keeps after the race is what is there.
                    assert_eq!(fs::metadata(&there).unwrap().len(), round as u64, "{via:?}");
                    assert_eq!(fs::read_to_string(&there).unwrap(), content, "{via:?}");
                }
            }
        });
    }
}

#[test]
fn a_burst_of_changes_leaves_nothing_stale() {
    let Some(program) = mountable_ferryfs() else { return };
    let share = share(&program, &[], Via::Bridge(1));
    let dirs: Vec<_> = (0..4).map(|dir| format!("{dir}")).collect();
    for dir in &dirs {
        fs::create_dir(share.source().join(dir)).unwrap();
        (0..50).for_each(|file| fs::write(share.source().join(dir).join(format!("{file}")), "").unwrap());
    }
    let lengths = |root: &Path| -> Vec<u64> {
        let paths = dirs.iter().flat_map(|dir| (0..50).map(move |file| root.join(dir).join(format!("{file}"))));
        paths.map(|path| fs::metadata(path).unwrap().len()).collect()
    };
    assert_eq!(lengths(share.mountpoint()), lengths(share.source()));
    // More names at once than the list holds: made and removed again before anybody looks, most of them.
    for round in 1.. {
        for (dir, name) in dirs.iter().flat_map(|dir| (0..1500).map(move |file| (dir, format!("burst-{file}")))) {
            fs::write(share.source().join(dir).join(name), "").unwrap();
        }
        for (dir, file) in dirs.iter().flat_map(|dir| (0..50).map(move |file| (dir, format!("{file}")))) {
            fs::write(share.source().join(dir).join(file), "x".repeat(round)).unwrap();
        }
        for (dir, name) in dirs.iter().flat_map(|dir| (0..1500).map(move |file| (dir, format!("burst-{file}")))) {
            fs::remove_file(share.source().join(dir).join(name)).unwrap();
        }
        if share.log().contains("all is looked at again") || round == 5 {
            break;
        }
    }
    share.await_word();
    assert_eq!(lengths(share.mountpoint()), lengths(share.source()));
}

#[test]
fn a_program_in_the_guest_that_watches_a_file_is_told_when_the_host_removes_it() {
    use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};
    let Some(program) = mountable_ferryfs() else { return };
    for via in [Via::Fuse, Via::Bridge(1)] {
        let share = share(&program, &[], via);
        fs::write(share.source().join("file"), "").unwrap();
        let waiting = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        add_watch(&waiting, share.mountpoint().join("file"), WatchFlags::DELETE_SELF).unwrap();
        fs::remove_file(share.source().join("file")).unwrap();
        let mut room = [const { std::mem::MaybeUninit::uninit() }; 4096];
        let mut events = Reader::new(&waiting, &mut room);
        wait_for("the guest's own event", || {
            events.next().is_ok_and(|event| event.events().contains(ReadFlags::DELETE_SELF))
        });
    }
}

fn connect(daemon: &mut Daemon, options: &Options) -> Client {
    let mut client = Client::connect(daemon.connect().unwrap(), options).unwrap();
    client.init().unwrap();
    client
}

#[test]
fn a_guest_that_does_not_take_the_queue_has_its_queues_where_it_always_had_them() {
    let Some(program) = mountable_ferryfs() else { return };
    let dir = tempfile::TempDir::with_prefix("ferryfs-share-").unwrap();
    fs::write(dir.path().join("file"), "text").unwrap();
    let args = [&COHERENT[..], &["--num-request-queues", "2", "--tag", "share"]].concat();
    let mut daemon = Daemon::share(&program, dir.path(), &args).unwrap();
    let mut client = connect(&mut daemon, &Options { request_queues: 2, ..Options::default() });
    assert_ne!(client.front.virtio_offered() & virtio::NOTIFICATION, 0);
    assert_eq!((client.front.index(Queue::Request(0)), client.front.queue_num().unwrap()), (1, 4));
    for queue in 0..2 {
        client.queue = queue;
        let entry = client.lookup(ROOT_ID, "file").unwrap();
        assert_eq!((entry.entry_valid, entry.attr_valid), (60, 1), "nothing is promised to who cannot hear");
    }
}

#[test]
fn a_guest_that_takes_the_queue_has_it_between_the_others() {
    let Some(program) = mountable_ferryfs() else { return };
    let dir = tempfile::TempDir::with_prefix("ferryfs-share-").unwrap();
    fs::write(dir.path().join("file"), "text").unwrap();
    let args = [&COHERENT[..], &["--num-request-queues", "2", "--tag", "share"]].concat();
    let mut daemon = Daemon::share(&program, dir.path(), &args).unwrap();
    let options = Options::default();
    let options = Options { request_queues: 2, virtio: options.virtio | virtio::NOTIFICATION, ..options };
    let mut client = connect(&mut daemon, &options);
    let config = client.front.config().unwrap();
    assert_eq!((config.num_request_queues, config.notify_buf_size), (2, 1024));
    assert_eq!(client.front.index(Queue::Request(1)), 3);
    for queue in 0..2 {
        client.queue = queue;
        let entry = client.lookup(ROOT_ID, "file").unwrap();
        assert_eq!((entry.entry_valid, entry.attr_valid), (60, 1), "it takes the queue and has not set it up");
    }
    let size = LaneSize { slots: 4, request: 64, reply: 1024, indirect: false };
    let mut lane = start_lane(&mut client.front, Queue::Notification, 32, size).unwrap();
    while let Some(slot) = lane.take() {
        lane.submit(slot, 0, 0, 1024, &Cuts::NONE).unwrap();
    }
    wait_for("trust", || client.lookup(ROOT_ID, "file").unwrap().entry_valid == 3600);
    let index = client.front.index(Queue::Notification);
    let base = client.front.stop(index).unwrap();
    assert_eq!(client.lookup(ROOT_ID, "file").unwrap().entry_valid, 60, "it hears no more");
    client.front.attach(index, lane.ring(), base).unwrap();
    wait_for("trust again", || client.lookup(ROOT_ID, "file").unwrap().entry_valid == 3600);
}

/// Ends what runs for a test.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_helper_turns_changes_of_the_host_into_events_of_a_guest_that_cannot_hear() {
    use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};
    use std::os::unix::fs::MetadataExt;
    let Some(program) = mountable_ferryfs() else { return };
    let args = ["--cache", "coherent", "--event-file", ".events"];
    let share = Share::start(&program, &args, Via::Bridge(1)).unwrap();
    let (here, there) = (share.source(), share.mountpoint());
    fs::create_dir(here.join("dir")).unwrap();
    for name in ["dir/file", "dir/removed", "dir/own"] {
        fs::write(here.join(name), "text").unwrap();
    }
    let helper = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/ferryfs-events");
    let mut command = std::process::Command::new("sh");
    command.arg(helper).arg(there).args([".events", "0.05"]).stdout(std::process::Stdio::piped());
    let mut helper = Ended(command.spawn().unwrap());
    let mut said = String::new();
    BufReader::new(helper.0.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert!(said.contains("following"), "{said}");
    let waiting = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
    add_watch(&waiting, there.join("dir"), WatchFlags::MODIFY | WatchFlags::ONLYDIR).unwrap();
    // The server follows directories in which the guest has looked.
    assert_eq!(fs::read_dir(there.join("dir")).unwrap().count(), 3);
    let mut room = [const { std::mem::MaybeUninit::uninit() }; 4096];
    let mut events = Reader::new(&waiting, &mut room);
    let mut next = |wanted: Option<&std::ffi::CStr>| {
        wait_for("an event", || events.next().is_ok_and(|event| event.file_name() == wanted));
    };
    let times = |name: &str| {
        let found = fs::metadata(here.join(name)).unwrap();
        (found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec())
    };
    fs::write(here.join("dir/file"), "more text").unwrap();
    let before = times("dir/file");
    next(Some(c"file"));
    assert_eq!(times("dir/file"), before, "nothing of the share changes by it");
    assert_eq!(fs::read_to_string(there.join("dir/file")).unwrap(), "more text");
    fs::write(here.join("dir/new"), "").unwrap();
    next(Some(c"new"));
    fs::remove_file(here.join("dir/removed")).unwrap();
    next(None);
    let told = fs::read_to_string(here.join(".events")).unwrap();
    for line in ["! dir/file", "+ dir/new", "- dir/removed"] {
        assert!(told.lines().any(|told| told == line), "{told}");
    }
    fs::write(there.join("dir/own"), "the guest's own").unwrap();
    fs::write(here.join("dir/file"), "at last").unwrap();
    next(Some(c"file"));
    assert!(!fs::read_to_string(here.join(".events")).unwrap().contains("dir/own"));
}
