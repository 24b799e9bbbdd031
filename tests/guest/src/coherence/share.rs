//! A shared directory, mounted one way or another.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::bridge::{Bridge, BridgeOptions};
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::front_end::virtio;

const LIMIT: Duration = Duration::from_secs(60);

/// How a guest reaches the share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// `ferryfs mount`: this machine's own /dev/fuse.
    Fuse,
    /// A vhost-user daemon and the bridge, with so many request queues.
    Bridge(u16),
}

enum Server {
    Fuse(Child),
    // In this order: the mount goes before its daemon does.
    Bridge(Option<Box<Bridge>>, Daemon),
}

/// A directory of the host, and where the guest has it mounted. Dropping it unmounts and removes everything.
pub struct Share {
    server: Option<Server>,
    mountpoint: TempDir,
    source: PathBuf,
    stage: PathBuf,
    words: AtomicU32,
    _host: TempDir,
}

impl Share {
    /// Shares a new temporary directory by `program`.
    pub fn start(program: &Path, args: &[&str], via: Via) -> Result<Self> {
        Self::start_in(&std::env::temp_dir(), program, args, via)
    }

    /// [`Share::start`], with the directory beneath `place`.
    pub fn start_in(place: &Path, program: &Path, args: &[&str], via: Via) -> Result<Self> {
        let host = TempDir::with_prefix_in("ferryfs-share-", place).map_err(Error::io("make a directory"))?;
        let mountpoint = TempDir::with_prefix("ferryfs-mount-").map_err(Error::io("make a directory"))?;
        let (source, stage) = (host.path().join("share"), host.path().join("stage"));
        for dir in [&source, &stage] {
            fs::create_dir(dir).map_err(Error::io("make a directory"))?;
        }
        let server = match via {
            Via::Fuse => {
                let mut command = Command::new(program);
                command.arg("mount").args(args).arg(&source).arg(mountpoint.path()).stdin(Stdio::null());
                let mut child = command.spawn().map_err(|e| Error::Daemon(format!("{}: {e}", program.display())))?;
                wait_mounted(&mut child, mountpoint.path())?;
                Server::Fuse(child)
            }
            Via::Bridge(queues) => {
                let mut daemon = Daemon::share(program, &source, args)?;
                let mut options = BridgeOptions { queues, ..BridgeOptions::default() };
                if args.contains(&"--notify") {
                    options.virtio |= virtio::NOTIFICATION;
                }
                let bridge = Bridge::mount(daemon.connect()?, mountpoint.path(), &options)?;
                Server::Bridge(Some(Box::new(bridge)), daemon)
            }
        };
        Ok(Self { server: Some(server), mountpoint, source, stage, words: AtomicU32::new(0), _host: host })
    }

    /// What is shared, as the host sees it.
    #[must_use]
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// A directory of the same file system that is not shared.
    #[must_use]
    pub fn stage(&self) -> &Path {
        &self.stage
    }

    /// What is shared, as the guest sees it.
    #[must_use]
    pub fn mountpoint(&self) -> &Path {
        self.mountpoint.path()
    }

    /// Waits until the guest has heard of everything that the host did until now: of two files of its own, the second of
    /// which is told as removed after all that was told with the first. Only word makes the guest's kernel say so.
    ///
    /// # Panics
    /// When it does not hear in time.
    pub fn await_word(&self) {
        for _ in 0..2 {
            // A name that was never heard of before: what is still said of another does not concern it.
            let name = format!("word-{}", self.words.fetch_add(1, Ordering::Relaxed));
            let (here, there) = (self.source.join(&name), self.mountpoint().join(&name));
            let heard = || -> io::Result<()> {
                fs::write(&here, "")?;
                let removal = Removal::of(&there)?;
                fs::remove_file(&here)?;
                removal.wait()
            };
            heard().unwrap_or_else(|error| panic!("the guest does not hear of changes: {error}"));
        }
    }

    /// The bridge, if there is one.
    #[must_use]
    pub fn bridge(&self) -> Option<&Bridge> {
        match &self.server {
            Some(Server::Bridge(bridge, _)) => bridge.as_deref(),
            _ => None,
        }
    }

    /// What the daemon wrote, if there is one apart from the mount.
    #[must_use]
    pub fn log(&self) -> String {
        match &self.server {
            Some(Server::Bridge(_, daemon)) => daemon.log(),
            _ => String::new(),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        match self.server.take() {
            Some(Server::Fuse(mut child)) => {
                let _ = kill_process(Pid::from_child(&child), Signal::TERM);
                let _ = child.wait();
            }
            Some(Server::Bridge(mut bridge, daemon)) => {
                if let Some(bridge) = bridge.take() {
                    let _ = bridge.unmount();
                }
                drop(daemon);
            }
            None => {}
        }
    }
}

/// Something that holds as long as the guest's kernel keeps what it knows is tried a few times: a machine that is short of memory
/// takes back what is cached.
///
/// # Panics
/// When it never holds; with what was found each time.
pub fn eventually(mut holds: impl FnMut() -> std::result::Result<(), String>) {
    let mut found = Vec::new();
    while let Err(why) = holds() {
        found.push(why);
        assert!(found.len() < 5, "{found:#?}");
    }
}

/// A file of the guest whose end is waited for. It is held, so that a machine that is short of memory does not make its kernel
/// forget the name, which then could not be told as gone.
struct Removal(OwnedFd);

impl Removal {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?))
    }

    fn wait(&self) -> io::Result<()> {
        let end = Instant::now() + LIMIT;
        // What the guest's kernel has in mind, without asking anybody.
        let (flags, wanted) = (AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, StatxFlags::NLINK);
        while rustix::fs::statx(&self.0, "", flags, wanted)?.stx_nlink != 0 {
            if Instant::now() >= end {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

fn wait_mounted(child: &mut Child, mountpoint: &Path) -> Result<()> {
    let end = Instant::now() + LIMIT;
    loop {
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(Error::io("read mounts"))?;
        if mounts.lines().any(|line| line.split(' ').nth(4) == mountpoint.to_str()) {
            return Ok(());
        }
        if let Some(status) = child.try_wait().map_err(Error::io("wait for the mount"))? {
            return Err(Error::Daemon(format!("ended before it mounted: {status}")));
        }
        if Instant::now() >= end {
            let _ = child.kill();
            return Err(Error::Timeout { what: "wait for the mount", limit: LIMIT });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
