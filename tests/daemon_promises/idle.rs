//! What the daemon does when there is nothing to do, and what a request costs beside its own work.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use ferryfs_guest::{Client, Daemon, Options, Request, skipped};
use fuse_abi::{GetattrIn, Opcode, ROOT_ID, ReadIn};
use zerocopy::IntoBytes;

use crate::support::{Share, expect_service, in_every_sandbox, options, wait_for};

/// How often each thread of the serving process was on a CPU. A thread that was not made no system call either.
fn turns(daemon: &Daemon) -> BTreeMap<String, String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.serving_pid())).unwrap().flatten();
    let turns = |task: fs::DirEntry| {
        let name = fs::read_to_string(task.path().join("comm")).unwrap();
        let numbers = fs::read_to_string(task.path().join("schedstat")).unwrap();
        (format!("{} {}", task.file_name().display(), name.trim()), numbers)
    };
    tasks.map(turns).collect()
}

/// That the daemon comes to rest, and that for a second no thread of it runs at all.
#[track_caller]
pub fn expect_idle(daemon: &Daemon) {
    let mut last = turns(daemon);
    wait_for("a second without a thread that ran", || {
        std::thread::sleep(Duration::from_secs(1));
        let now = turns(daemon);
        let idle = now == last;
        last = now;
        idle.then_some(())
    });
}

#[test]
fn a_daemon_without_requests_does_nothing() {
    in_every_sandbox(&["--num-request-queues=4"], |share| {
        let mut client = share.client_with(&Options { request_queues: 4, ..options() });
        for queue in 0..4 {
            client.queue = queue;
            expect_service(&mut client, "its turn");
        }
        expect_idle(&share.daemon);
        // Nor while a ring claims more than it can hold.
        let good = client.lane().ring().next_avail();
        client.lane().ring().set_avail_index(good.wrapping_add(5000)).unwrap();
        client.lane().ring().kick().unwrap();
        expect_idle(&share.daemon);
        client.lane().ring().set_avail_index(good).unwrap();
        expect_service(&mut client, "an impossible index");
    });
}

/// The system calls that the serving process makes while `work` is done, by name. Nothing without strace.
fn traced(share: &Share, work: impl FnOnce()) -> Option<BTreeMap<String, u64>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("calls");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-U", "name,calls", "-p", &share.daemon.serving_pid().to_string(), "-o"]).arg(&path);
    let mut strace = match strace.stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
        Ok(strace) => strace,
        Err(error) => {
            skipped(&format!("cannot run strace: {error}"));
            return None;
        }
    };
    let threads = || fs::read_dir(format!("/proc/{}/task", share.daemon.serving_pid())).unwrap().flatten();
    let traced = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).unwrap();
        status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
    };
    let mut refused = false;
    wait_for("strace", || {
        refused = strace.try_wait().unwrap().is_some();
        (refused || threads().all(traced)).then_some(())
    });
    if refused {
        skipped("strace may not trace here");
        return None;
    }
    work();
    rustix::process::kill_process(rustix::process::Pid::from_child(&strace), rustix::process::Signal::INT).unwrap();
    strace.wait().unwrap();
    let table = fs::read_to_string(&path).unwrap();
    let row = |line: &str| {
        let (name, calls) = line.trim().split_once(char::is_whitespace)?;
        Some((name.to_owned(), calls.trim().parse().ok()?))
    };
    Some(table.lines().filter_map(row).filter(|(name, _)| name != "total").collect())
}

/// Keeps 32 requests in flight until `count` are answered.
fn at_depth_32(client: &mut Client, count: usize, request: &Request<'_>) {
    let (mut sent, mut done) = (0, 0);
    while done < count {
        while sent < count && sent - done < 32 {
            client.submit(request).unwrap();
            sent += 1;
        }
        client.complete().unwrap().check().unwrap();
        done += 1;
    }
}

#[test]
fn a_request_at_depth_costs_little_beside_its_own_call() {
    in_every_sandbox(&["--num-request-queues=1", "--persist"], |share| {
        fs::write(share.path().join("file"), vec![7; 100_000]).unwrap();
        let mut client = share.client();
        let node = client.lookup(ROOT_ID, "file").unwrap().nodeid;
        let fh = client.open(node, 0).unwrap().fh;
        let getattr = GetattrIn::default();
        let read = ReadIn { fh, size: 4096, ..ReadIn::default() };
        const COUNT: usize = 2000;
        for (opcode, body, reply, own) in
            [(Opcode::Getattr, getattr.as_bytes(), 104, "statx"), (Opcode::Read, read.as_bytes(), 4096, "preadv2")]
        {
            let parts = [body];
            let request = Request::new(opcode, node, &parts, reply);
            let Some(calls) = traced(share, || at_depth_32(&mut client, COUNT, &request)) else { return };
            let work = calls.get(own).copied().unwrap_or(0);
            let all: u64 = calls.values().sum();
            eprintln!("{opcode}: {work} {own} and {} others for {COUNT} requests: {calls:?}", all - work);
            assert_eq!(work, COUNT as u64, "{calls:?}");
            assert!(all - work < COUNT as u64 / 5, "{opcode}: {calls:?}");
        }
    });
}
