//! What a coherent share promises, with this machine's kernel client as the guest. Needs root and /dev/fuse.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, SystemTime};

use ferryfs_guest::coherence::{Plan, Share, Via, check, eventually, races};
use ferryfs_guest::{Client, Daemon, Options, mountable_ferryfs};
use fuse_abi::{OpenOutFlags, ROOT_ID};
use rustix::io::Errno;

#[test]
fn what_is_opened_or_listed_is_never_stale() {
    let Some(program) = mountable_ferryfs() else { return };
    let vias = [(Via::Fuse, "getdents"), (Via::Bridge(1), "snapshot"), (Via::Bridge(2), "getdents")];
    for (seed, (via, stream)) in (1..).zip(vias) {
        for mode in ["coherent", "never"] {
            let share = Share::start(&program, &["--cache", mode, "--dir-stream", stream], via).unwrap();
            let report =
                check(&share, &Plan { steps: 150, seed, strict: false, hears: false, map: mode == "coherent" })
                    .unwrap();
            assert!(report.violations.is_empty() && report.estale == 0, "{mode} {via:?} seed {seed}: {report:#?}");
        }
    }
}

#[test]
fn without_attribute_timeout_every_stat_is_true_as_well() {
    let Some(program) = mountable_ferryfs() else { return };
    let share = Share::start(&program, &["--cache", "coherent", "--attr-timeout", "0"], Via::Bridge(1)).unwrap();
    let report = check(&share, &Plan { steps: 150, seed: 4, strict: true, hears: false, map: true }).unwrap();
    assert!(report.violations.is_empty() && report.estale == 0, "{report:#?}");
}

#[test]
fn the_checker_finds_what_a_mode_shows_that_trusts_blindly() {
    let Some(program) = mountable_ferryfs() else { return };
    let share = Share::start(&program, &["--cache", "always"], Via::Bridge(1)).unwrap();
    let report = check(&share, &Plan { steps: 100, seed: 1, strict: false, hears: false, map: false }).unwrap();
    assert!(!report.violations.is_empty(), "{report}");
}

#[test]
fn an_application_never_sees_estale_while_the_host_replaces_what_it_uses() {
    let Some(program) = mountable_ferryfs() else { return };
    for via in [Via::Fuse, Via::Bridge(2)] {
        let share = Share::start(&program, &["--cache", "coherent"], via).unwrap();
        let outcome = races::race(&share, 3, 2000, 7).unwrap();
        assert!(outcome.estale.is_empty() && outcome.replacements > 100, "{outcome:?}");
    }
}

/// Reads every file and lists every directory, as `grep -r` does.
fn read_all(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            read_all(&entry.path());
        } else {
            fs::read(entry.path()).unwrap();
        }
    }
}

#[test]
fn what_has_not_changed_is_neither_read_nor_listed_nor_looked_up_again() {
    let Some(program) = mountable_ferryfs() else { return };
    let share = Share::start(&program, &["--cache", "coherent"], Via::Bridge(1)).unwrap();
    for dir in 0..5 {
        let dir = share.source().join(format!("{dir}"));
        fs::create_dir(&dir).unwrap();
        for file in 0..10 {
            fs::write(dir.join(format!("{file}")), "text").unwrap();
        }
    }
    // Timestamps too young prove nothing. The time of change cannot be set back, so it is waited for.
    let settled = SystemTime::now() + Duration::from_millis(50);
    while SystemTime::now() < settled {
        std::thread::sleep(Duration::from_millis(5));
    }
    let bridge = share.bridge().unwrap();
    read_all(share.mountpoint());
    eventually(|| {
        bridge.counts().take();
        read_all(share.mountpoint());
        let counts = bridge.counts().take();
        let asked = ["READ", "READDIR", "READDIRPLUS", "LOOKUP", "FLUSH", "OPEN", "OPENDIR"].map(|op| counts.get(op));
        if asked == [0, 0, 0, 0, 0, 50, 6] { Ok(()) } else { Err(counts.to_string()) }
    });
}

#[test]
fn a_source_whose_timestamps_prove_nothing_is_read_anew_at_each_open() {
    let Some(program) = mountable_ferryfs() else { return };
    // A FUSE mount as the source: what is beneath may change without its timestamps telling in time.
    let beneath = Share::start(&program, &["--cache", "auto"], Via::Fuse).unwrap();
    let share = Share::start_in(beneath.mountpoint(), &program, &["--cache", "coherent"], Via::Bridge(1)).unwrap();
    fs::write(share.source().join("file"), "text").unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let bridge = share.bridge().unwrap();
    for _ in 0..3 {
        bridge.counts().take();
        read_all(share.mountpoint());
        let counts = bridge.counts().take();
        assert_eq!(counts.get("READ"), 1, "{counts}");
        assert!(counts.get("READDIR") + counts.get("READDIRPLUS") > 0, "{counts}");
    }
    assert_eq!(share.log().matches("prove nothing").count(), 1, "{}", share.log());
}

#[test]
fn a_missing_name_becomes_visible_as_soon_as_the_host_makes_it() {
    let Some(program) = mountable_ferryfs() else { return };
    let share = Share::start(&program, &["--cache", "coherent"], Via::Bridge(2)).unwrap();
    for round in 0..50 {
        let name = format!("{round}");
        assert!(fs::metadata(share.mountpoint().join(&name)).is_err());
        fs::write(share.source().join(&name), "text").unwrap();
        assert_eq!(fs::read(share.mountpoint().join(&name)).unwrap(), b"text");
    }
}

#[test]
fn a_link_that_the_host_moved_is_gone_from_its_old_place_also_after_a_circle_of_links() {
    let Some(program) = mountable_ferryfs() else { return };
    let share = Share::start(&program, &["--cache", "coherent"], Via::Bridge(1)).unwrap();
    let (here, there) = (share.source(), share.mountpoint());
    fs::create_dir_all(here.join("p")).unwrap();
    fs::create_dir_all(here.join("q/p")).unwrap();
    for round in 0..10 {
        std::os::unix::fs::symlink("p", here.join("q/f")).unwrap();
        assert!(fs::read_dir(there.join("q/f")).is_ok(), "{round}");
        fs::rename(here.join("q/f"), here.join("p/p")).unwrap();
        // There it leads to itself.
        assert_eq!(fs::read_dir(there.join("p/p")).unwrap_err().raw_os_error(), Some(Errno::LOOP.raw_os_error()));
        assert_eq!(fs::read_dir(there.join("q/f")).unwrap_err().kind(), ErrorKind::NotFound, "{round}");
        fs::remove_file(here.join("p/p")).unwrap();
    }
}

#[test]
fn a_listing_that_was_under_way_while_the_directory_changed_does_not_outlive_the_next_open() {
    let Some(program) = mountable_ferryfs() else { return };
    for stream in ["getdents", "snapshot"] {
        let share = Share::start(&program, &["--cache", "coherent", "--dir-stream", stream], Via::Bridge(2)).unwrap();
        // More than one reply holds.
        (0..2000).for_each(|n| fs::write(share.source().join(format!("{n:0100}")), "").unwrap());
        std::thread::sleep(Duration::from_millis(50));
        for round in 0..10 {
            let mut listing = fs::read_dir(share.mountpoint()).unwrap();
            assert!(listing.by_ref().take(700).all(|entry| entry.is_ok()));
            let new = format!("new-{round}");
            fs::write(share.source().join(&new), "").unwrap();
            // The old listing ends, and with it the guest's cache of it is whole.
            assert!(listing.all(|entry| entry.is_ok()));
            let names: Vec<_> = fs::read_dir(share.mountpoint()).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert!(names.iter().any(|name| *name == *new), "{stream} {round}");
            assert_eq!(names.len(), 2001 + round);
        }
    }
}

#[test]
fn a_listing_is_kept_only_from_a_scan_that_began_with_what_is_still_there() {
    let Some(program) = mountable_ferryfs() else { return };
    let dir = tempfile::TempDir::with_prefix("ferryfs-share-").unwrap();
    (0..300).for_each(|n| fs::write(dir.path().join(format!("{n:0100}")), "").unwrap());
    std::thread::sleep(Duration::from_millis(50));
    let mut daemon = Daemon::share(&program, dir.path(), &["--cache", "coherent"]).unwrap();
    let mut client = Client::connect(daemon.connect().unwrap(), &Options::default()).unwrap();
    client.init().unwrap();
    let mut kept = |change: bool| {
        let opened = client.opendir(ROOT_ID).unwrap();
        let first = client.readdir(ROOT_ID, opened.fh, 0, 4096).unwrap();
        if change {
            fs::write(dir.path().join("between"), "").unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
        let next = first.last().unwrap().off;
        client.readdir(ROOT_ID, opened.fh, next, 4096).unwrap();
        client.releasedir(ROOT_ID, opened.fh).unwrap();
        opened.open_flags & OpenOutFlags::KEEP_CACHE.bits() != 0
    };
    assert_eq!([false, true, false, false].map(&mut kept), [false, true, false, true]);
}

#[test]
fn a_program_in_a_directory_that_was_moved_or_removed_works_on() {
    let Some(program) = mountable_ferryfs() else { return };
    let share = Share::start(&program, &["--cache", "coherent", "--attr-timeout", "0"], Via::Bridge(1)).unwrap();
    fs::create_dir_all(share.source().join("a/b")).unwrap();
    fs::write(share.source().join("a/b/file"), "text").unwrap();
    let script = "stat . file >/dev/null && read go && stat . file >/dev/null && cat file && echo more >new && ls && \
                  mkdir sub && cd -P sub && stat . >/dev/null && echo done";
    let mut child = std::process::Command::new("sh")
        .args(["-c", script])
        .current_dir(share.mountpoint().join("a/b"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(200));
    fs::rename(share.source().join("a"), share.source().join("z")).unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"go\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "textfile\nnew\ndone\n");
    assert!(share.source().join("z/b/sub").is_dir());
}
