//! Guests and front ends that come, reboot, leave and die.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use ferryfs_guest::{Client, LaneSize, Options, expect_errno};
use fuse_abi::{Errno, ROOT_ID};

use crate::load::{Load, Target};
use crate::support::{HANG, O_RDWR, Share, connect, expect_service, in_every_sandbox, options, wait_for};

/// Gives the guest inodes by descriptor and open files, so that what is not given back shows.
fn occupy(share: &Share, client: &mut Client) -> Vec<(u64, u64)> {
    (0..20).for_each(|n| fs::write(share.path().join(format!("held{n}")), b"x").unwrap());
    let open = |n| {
        let node = client.lookup(ROOT_ID, format!("held{n}")).unwrap().nodeid;
        (node, client.open(node, 0).unwrap().fh)
    };
    (0..20).map(open).collect()
}

/// Waits until the serving process has no more descriptors than that.
fn expect_given_back(share: &Share, before: usize) {
    let mut open = 0;
    let given_back = || {
        open = share.daemon.open_files().unwrap();
        (open <= before).then_some(())
    };
    wait_for("descriptors to be given back", given_back);
}

#[test]
fn destroy_gives_everything_back_and_init_begins_anew() {
    in_every_sandbox(&[], |share| {
        let mut client = share.client();
        let before = share.daemon.open_files().unwrap();
        for round in 0..5 {
            let held = occupy(share, &mut client);
            assert!(share.daemon.open_files().unwrap() >= before + 20);
            if round % 2 == 0 {
                client.destroy().unwrap();
                assert_eq!(share.daemon.open_files().unwrap(), before);
                expect_errno(client.getattr(ROOT_ID), Errno::EIO);
            }
            // Without DESTROY: the guest was reset, and its firmware or its kernel starts again.
            client.init().unwrap();
            assert_eq!(share.daemon.open_files().unwrap(), before);
            for (node, fh) in held {
                assert!(client.read(node, fh, 0, 1).unwrap_err().errno().is_some());
                assert!(client.getattr(node).unwrap_err().errno().is_some());
            }
            expect_service(&mut client, "a new session");
        }
    });
}

#[test]
fn a_guest_reboots_with_and_without_a_reset_of_the_device() {
    in_every_sandbox(&[], |share| {
        let mut client = share.client();
        let before = share.daemon.open_files().unwrap();
        for _ in 0..10 {
            occupy(share, &mut client);
            // Stops every queue, resets the device, starts every queue.
            assert!(client.reset().unwrap().is_empty());
            client.init().unwrap();
            assert_eq!(share.daemon.open_files().unwrap(), before);
            expect_service(&mut client, "a reboot");
        }
    });
}

/// A front end with four queues, a file for each, in the middle of its work.
fn under_load(share: &mut Share) -> (Client, Load) {
    let mut client = share.client_with(&Options { request_queues: 4, ..options() });
    occupy(share, &mut client);
    let target = |n| {
        let (entry, open) = client.create(ROOT_ID, format!("file{n}"), 0o644, O_RDWR).unwrap();
        Target { node: entry.nodeid, fh: open.fh }
    };
    let targets: Vec<_> = (0..4).map(target).collect();
    let load = Load::start(&mut client, &targets);
    load.progress(200);
    (client, load)
}

#[test]
fn a_front_end_that_leaves_in_the_middle_takes_all_of_its_own_along() {
    in_every_sandbox(&["--persist", "--num-request-queues=4"], |share| {
        drop(connect(&mut share.daemon, &options()));
        // What the daemon has open with one front end connected and idle, once as a measure and then at each end.
        let idle = |share: &mut Share| {
            let client = share.client_with(&Options { request_queues: 4, ..options() });
            let open = share.daemon.open_files().unwrap();
            drop(client);
            open
        };
        let (before, mut memory) = (idle(share), Vec::new());
        for _ in 0..12 {
            let (client, load) = under_load(share);
            load.break_off(|| drop(client));
            assert_eq!(idle(share), before);
            memory.push(share.daemon.kilobytes("VmRSS").unwrap());
        }
        let (early, late) = (memory[2], memory[11]);
        assert!(late < early + 4096, "memory grows: {memory:?} KiB");
    });
}

/// The environment variable that makes this program a front end that works until it is killed.
const VICTIM: &str = "FERRYFS_TEST_VICTIM";

/// Makes directories on four queues and names each once it is acknowledged.
fn work_until_killed(socket: &std::ffi::OsStr) {
    let options = Options { request_queues: 4, ..options() };
    let size = LaneSize { slots: 16, request: 4096, reply: 4096, indirect: true };
    let mut client = Client::connect_with(UnixStream::connect(socket).unwrap(), &options, size).unwrap();
    client.init().unwrap();
    let mut names = std::collections::HashMap::new();
    let mut out = std::io::stdout();
    for n in 0_u64.. {
        client.queue = (n % 4) as usize;
        let name = format!("made{n}");
        let body = fuse_abi::MkdirIn { mode: 0o755, umask: 0 };
        let parts = [zerocopy::IntoBytes::as_bytes(&body), name.as_bytes(), b"\0"];
        let request = ferryfs_guest::Request::new(fuse_abi::Opcode::Mkdir, ROOT_ID, &parts, 128);
        names.insert(client.submit(&request).unwrap(), name);
        if n % 64 == 63 {
            for queue in 0..4 {
                client.queue = queue;
                for _ in 0..16 {
                    let done = client.complete().unwrap();
                    done.check().unwrap();
                    let name = names.remove(&done.unique()).expect("answered once");
                    out.write_all(format!("acknowledged {name}\n").as_bytes()).unwrap();
                }
            }
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_front_end_is_killed() {
    if let Some(socket) = std::env::var_os(VICTIM) {
        return work_until_killed(&socket);
    }
    in_every_sandbox(&["--persist", "--num-request-queues=4"], |share| {
        drop(share.client());
        let before = share.daemon.open_files().unwrap();
        for round in 1..=3_usize {
            let mut victim = Command::new(std::env::current_exe().unwrap());
            let name = "sessions::nothing_acknowledged_is_lost_when_the_front_end_is_killed";
            victim.args([name, "--exact", "--nocapture"]).env(VICTIM, share.daemon.socket());
            let mut child = victim.stdout(Stdio::piped()).spawn().unwrap();
            let mut said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
            let acknowledged = |line: String| line.strip_prefix("acknowledged ").map(str::to_owned);
            let mut names: Vec<String> = said.by_ref().filter_map(acknowledged).take(64 * round).collect();
            child.kill().unwrap();
            // What it said before its end counts as well; a line that was cut does not.
            names.extend(said.filter_map(acknowledged));
            child.wait().unwrap();
            assert!(names.len() >= 64 * round);
            let mut client = share.client();
            let last = names.pop();
            for name in &names {
                assert!(share.path().join(name).is_dir(), "{name} was acknowledged and is not there");
                client.rmdir(ROOT_ID, name).unwrap();
            }
            assert!(last.is_some());
            drop(client);
            for left in fs::read_dir(share.path()).unwrap().flatten() {
                fs::remove_dir(left.path()).unwrap();
            }
        }
        expect_given_back(share, before);
    });
}

#[test]
fn a_daemon_ends_with_success_when_its_front_end_leaves() {
    in_every_sandbox(&[], |share| {
        let mut client = share.client();
        occupy(share, &mut client);
        drop(client);
        let status = share.daemon.wait_exit(HANG).unwrap();
        assert_eq!(status.code(), Some(0));
        assert!(!share.daemon.socket().exists(), "the socket is taken away");
    });
}

#[test]
fn a_daemon_that_persists_serves_one_front_end_after_the_other() {
    in_every_sandbox(&["--persist"], |share| {
        let mut known: Option<u64> = None;
        for round in 0..5 {
            let mut client = share.client();
            // What the guest before knew is nothing to this one.
            assert!(known.is_none_or(|node| client.getattr(node).unwrap_err().errno().is_some()));
            known = Some(client.mkdir(ROOT_ID, format!("round{round}"), 0o755).unwrap().nodeid);
        }
        assert_eq!(fs::read_dir(share.path()).unwrap().count(), 5);
    });
}

#[test]
fn a_second_front_end_waits_for_its_turn() {
    in_every_sandbox(&["--persist"], |share| {
        let mut first = share.client();
        let waiting = share.daemon.connect().unwrap();
        let second = std::thread::spawn(move || {
            let mut client = Client::connect(waiting, &options()).unwrap();
            client.init().unwrap();
            client.getattr(ROOT_ID).unwrap().ino
        });
        for _ in 0..50 {
            expect_service(&mut first, "a second connection");
        }
        assert!(!second.is_finished(), "it cannot have been served");
        let ino = first.getattr(ROOT_ID).unwrap().ino;
        drop(first);
        assert_eq!(second.join().unwrap(), ino);
    });
}

#[test]
fn a_client_of_another_version_is_told_ours_and_served() {
    in_every_sandbox(&[], |share| {
        let mut client = connect(&mut share.daemon, &options());
        let offer = fuse_abi::InitIn { major: 8, minor: 1, ..fuse_abi::InitIn::default() };
        assert_eq!(client.init_with(&offer).unwrap().major, 7);
        expect_errno(client.getattr(ROOT_ID), Errno::EIO);
        let offer = fuse_abi::InitIn { major: 6, ..fuse_abi::InitIn::default() };
        expect_errno(client.init_with(&offer), Errno::EPROTO);
        client.init().unwrap();
        expect_service(&mut client, "INIT of another version");
    });
}
