//! A file system to share whose one file can be read, written and synchronised only when the test lets it: what a disk
//! or a network that takes its time looks like to the daemon. So are some names looked up, attributes told and listings
//! read. Mounted through /dev/fuse, so it needs root.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use ferryfs::protocol::{
    Body, Context, HandleId, LookupName, NodeId, OpenFlags, Options, Payload, ReadArgs, ReadDirArgs, Result, Server,
    Wishes, WriteArgs,
};
use ferryfs::protocol::{DirectoryReply, Failure, FileSystem};
use ferryfs::transport::dev_fuse::Mount;
use fuse_abi::{Attr, AttrOut, EntryOut, Errno, InitFlags, Kstatfs, OpenOut, ROOT_ID};

use crate::support::wait_for;

/// How many requests can stand before the gate at once.
const THREADS: usize = 40;
const SIZE: u64 = 1 << 20;
const FILE: u64 = 2;
/// Its attributes are asked for each time, and waited for.
const FLEETING: u64 = 3;
/// A directory whose listing is waited for.
const HALL: u64 = 4;

#[derive(Debug, Default)]
struct State {
    /// How many may pass; none wait when it is open.
    permits: usize,
    open: bool,
    waiting: usize,
}

/// Where requests wait.
#[derive(Debug, Default)]
struct Turnstile {
    state: Mutex<State>,
    moved: Condvar,
}

impl Turnstile {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        while !state.open && state.permits == 0 {
            state = self.moved.wait(state).unwrap();
        }
        state.permits = state.permits.saturating_sub(1);
        state.waiting -= 1;
    }
}

struct Gated {
    turnstile: Arc<Turnstile>,
    /// The root's attributes are asked for each time, and waited for.
    root_is_fleeting: bool,
}

impl Gated {
    fn is_fleeting(&self, node: u64) -> bool {
        node == FLEETING || (node == ROOT_ID && self.root_is_fleeting)
    }
}

fn attr(node: u64) -> Attr {
    let mode = if matches!(node, FILE | FLEETING) { 0o100_666 } else { 0o40_755 };
    let size = if node == FILE { SIZE } else { 0 };
    Attr { ino: node, mode, size, nlink: 1, blksize: 4096, ..Attr::default() }
}

impl FileSystem for Gated {
    fn wishes(&self) -> Wishes {
        let flags = InitFlags::ASYNC_READ | InitFlags::MAX_PAGES | InitFlags::PARALLEL_DIROPS;
        Wishes { flags, max_write: 1 << 20, max_readahead: 0, max_background: 64, time_gran: 1, max_stack_depth: 0 }
    }

    fn lookup(&self, _: &Context, _: NodeId, name: LookupName<'_>) -> Result<EntryOut> {
        let LookupName::Name(name) = name else { return Err(Failure::Errno(Errno::ENOENT)) };
        let node = match name.as_bytes() {
            b"slow" => FILE,
            b"fleeting" => FLEETING,
            b"hall" => HALL,
            b"late" => {
                self.turnstile.pass();
                FILE
            }
            _ => return Err(Failure::Errno(Errno::ENOENT)),
        };
        let attr_valid = if node == FLEETING { 0 } else { 60 };
        Ok(EntryOut { nodeid: node, entry_valid: 60, attr_valid, attr: attr(node), ..EntryOut::default() })
    }

    fn getattr(&self, _: &Context, node: NodeId, _: Option<HandleId>) -> Result<AttrOut> {
        if self.is_fleeting(node.0) {
            self.turnstile.pass();
            return Ok(AttrOut { attr: attr(node.0), ..AttrOut::default() });
        }
        Ok(AttrOut { attr_valid: 60, attr: attr(node.0), ..AttrOut::default() })
    }

    fn statfs(&self, _: &Context, _: NodeId) -> Result<Kstatfs> {
        Ok(Kstatfs { bsize: 4096, frsize: 4096, namelen: 255, ..Kstatfs::default() })
    }

    fn open(&self, _: &Context, _: NodeId, _: OpenFlags, _: bool) -> Result<OpenOut> {
        // FOPEN_DIRECT_IO: each request of the daemon comes here, as it is.
        Ok(OpenOut { fh: 1, open_flags: 1, ..OpenOut::default() })
    }

    fn read(&self, _: &Context, _: NodeId, args: &ReadArgs, body: &mut Body<'_>) -> Result<()> {
        self.turnstile.pass();
        let there = SIZE.saturating_sub(args.offset).min(body.room() as u64);
        let _ = body.put(&vec![7; there as usize]);
        Ok(())
    }

    fn write(&self, _: &Context, _: NodeId, _: &WriteArgs, payload: Payload<'_>) -> Result<u32> {
        self.turnstile.pass();
        Ok(payload.len() as u32)
    }

    fn fsync(&self, _: &Context, _: NodeId, _: HandleId, _: bool) -> Result<()> {
        self.turnstile.pass();
        Ok(())
    }

    fn opendir(&self, _: &Context, _: NodeId, _: OpenFlags) -> Result<OpenOut> {
        Ok(OpenOut::default())
    }

    fn readdir(&self, _: &Context, node: NodeId, _: &ReadDirArgs, _: &mut DirectoryReply<'_, '_>) -> Result<()> {
        if node.0 == HALL {
            self.turnstile.pass();
        }
        Ok(())
    }
}

/// The mounted file system.
pub struct Gate {
    turnstile: Arc<Turnstile>,
    mount: Arc<Mount>,
    server: Option<JoinHandle<()>>,
}

impl Gate {
    /// Mounts it, shut, with the one file `slow`.
    pub fn mount(mountpoint: &Path) -> Self {
        Self::mount_as(mountpoint, false)
    }

    /// The same, open, with a root whose attributes are waited for when it is shut.
    pub fn mount_fleeting(mountpoint: &Path) -> Self {
        Self::mount_as(mountpoint, true)
    }

    fn mount_as(mountpoint: &Path, root_is_fleeting: bool) -> Self {
        let turnstile = Arc::new(Turnstile::default());
        let mount = Arc::new(Mount::new(&PathBuf::from("gate"), mountpoint, false).unwrap());
        turnstile.state.lock().unwrap().open = root_is_fleeting;
        let gated = Gated { turnstile: Arc::clone(&turnstile), root_is_fleeting };
        let serving = Arc::clone(&mount);
        let serve = move || serving.serve(&Server::new(gated, Options::default()), THREADS).unwrap();
        Self { turnstile, mount, server: Some(std::thread::spawn(serve)) }
    }

    /// Waits until so many requests stand before the gate.
    pub fn wait_for(&self, count: usize) {
        wait_for("requests at the gate", || (self.waiting() == count).then_some(()));
    }

    pub fn waiting(&self) -> usize {
        self.turnstile.state.lock().unwrap().waiting
    }

    /// Lets so many pass.
    pub fn let_pass(&self, count: usize) {
        self.turnstile.state.lock().unwrap().permits += count;
        self.turnstile.moved.notify_all();
    }

    /// Lets everybody pass, from now on or no more.
    pub fn set_open(&self, open: bool) {
        self.turnstile.state.lock().unwrap().open = open;
        self.turnstile.moved.notify_all();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.set_open(true);
        // Serving ends with the mount: the daemon, which had it open, is gone by now.
        let _ = self.mount.unmount();
        self.server.take().map(JoinHandle::join);
    }
}
