//! A mistake in the server itself, which shows as a panic, costs the request that met it and no other.

use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use ferryfs::protocol::{
    Context, FileSystem, HandleId, LookupName, NodeId, Options as Protocol, Result, Server, Wishes,
};
use ferryfs::transport::vhost_user::{self, Closing, DeviceOptions, ThreadRole};
use ferryfs_guest::client::expect_errno;
use ferryfs_guest::{Client, LaneSize, Queue};
use fuse_abi::{Attr, AttrOut, EntryOut, Errno, InitFlags, ROOT_ID};

use crate::support::{expect_service, options};

struct Clumsy;

impl FileSystem for Clumsy {
    fn wishes(&self) -> Wishes {
        let flags = InitFlags::ASYNC_READ;
        Wishes { flags, max_write: 4096, max_readahead: 0, max_background: 8, time_gran: 1, max_stack_depth: 0 }
    }

    fn getattr(&self, _: &Context, node: NodeId, _: Option<HandleId>) -> Result<AttrOut> {
        Ok(AttrOut { attr: Attr { ino: node.0, ..Attr::default() }, ..AttrOut::default() })
    }

    fn lookup(&self, _: &Context, _: NodeId, _: LookupName<'_>) -> Result<EntryOut> {
        panic!("on a queue's own thread");
    }

    fn fsync(&self, cx: &Context, _: NodeId, _: HandleId, _: bool) -> Result<()> {
        cx.leave_to_block()?;
        panic!("in the pool");
    }

    fn forget(&self, _: NodeId, _: u64) {
        panic!("where there is no reply");
    }
}

/// Serves a front end to its end; says how many requests met a mistake.
fn serve(connection: UnixStream, confine: impl Fn(ThreadRole) + Sync) -> u64 {
    let options = DeviceOptions {
        tag: None,
        request_queues: 1,
        pool_threads: 1,
        polling: Duration::ZERO,
        notify: false,
        record: false,
    };
    let server = Server::new(Clumsy, Protocol::default());
    vhost_user::serve(connection, &server, &options, &Closing::default(), &confine).unwrap();
    server.mistakes()
}

#[test]
fn a_panic_ends_the_request_that_met_it_and_nothing_else() {
    let (front, back) = UnixStream::pair().unwrap();
    let device = std::thread::spawn(|| serve(back, |_| {}));
    let size = LaneSize { slots: 8, request: 4096, reply: 4096, indirect: true };
    let mut client = Client::connect_with(front, &options(), size).unwrap();
    client.init().unwrap();
    for _ in 0..5 {
        expect_errno(client.lookup(ROOT_ID, "x"), Errno::EIO);
        expect_service(&mut client, "a panic of its own thread");
        expect_errno(client.fsync(ROOT_ID, 1), Errno::EIO);
        client.forget(ROOT_ID, 1).unwrap();
        expect_service(&mut client, "a panic in the pool");
    }
    for queue in [Queue::Hiprio, Queue::Request(0)] {
        client.front.stop(client.front.index(queue)).unwrap();
    }
    drop(client);
    assert_eq!(device.join().unwrap(), 15);
}

#[test]
fn a_thread_that_fails_outside_of_a_request_ends_the_process_aloud() {
    const CHILD: &str = "FERRYFS_TEST_FAILS_OUTSIDE";
    if std::env::var_os(CHILD).is_some() {
        let (_front, back) = UnixStream::pair().unwrap();
        serve(back, |_| panic!("cannot go on"));
        return;
    }
    let name = "mistakes::a_thread_that_fails_outside_of_a_request_ends_the_process_aloud";
    let mut child = Command::new(std::env::current_exe().unwrap());
    let ended = child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.signal(), Some(libc::SIGABRT), "{told}");
    assert!(told.contains("cannot go on"), "{told}");
}
