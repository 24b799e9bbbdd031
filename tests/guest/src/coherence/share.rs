//! A shared directory, mounted one way or another.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::bridge::{Bridge, BridgeOptions};
use crate::daemon::Daemon;
use crate::error::{Error, Result};

const LIMIT: Duration = Duration::from_secs(20);

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
    _host: TempDir,
}

impl Share {
    /// Shares a new directory beneath `place` by `program`.
    pub fn start(program: &Path, args: &[&str], via: Via, place: &Path) -> Result<Self> {
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
                let options = BridgeOptions { queues, ..BridgeOptions::default() };
                let bridge = Bridge::mount(daemon.connect()?, mountpoint.path(), &options)?;
                Server::Bridge(Some(Box::new(bridge)), daemon)
            }
        };
        Ok(Self { server: Some(server), mountpoint, source, stage, _host: host })
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
