//! A share with its daemon, in each sandbox, and a look at whether it still serves.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use ferryfs_guest::lane::LaneSize;
use ferryfs_guest::{Client, Daemon, Options, skipped};
use fuse_abi::ROOT_ID;
use tempfile::TempDir;

pub const O_RDWR: u32 = libc::O_RDWR as u32;

/// Only ends hangs: far beyond what anything here takes on a loaded machine.
pub const HANG: Duration = Duration::from_secs(60);

/// The program under test.
pub fn program() -> PathBuf {
    std::env::var_os("FERRYFS_TEST_DAEMON").map_or_else(|| env!("CARGO_BIN_EXE_ferryfs").into(), PathBuf::from)
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn has_namespaces() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--mount", "true"]).stderr(Stdio::null());
        is_root() || command.status().is_ok_and(|status| status.success())
    })
}

/// Whether there is such a sandbox here; says so when not.
pub fn can_have(sandbox: &str) -> bool {
    let can = sandbox == "none" || has_namespaces();
    if !can {
        skipped("in part: users get no namespaces here");
    }
    can
}

/// Runs a test without a sandbox and in one of namespaces.
pub fn in_every_sandbox(args: &[&str], test: impl Fn(&mut Share)) {
    for sandbox in ["none", "namespace"] {
        if !can_have(sandbox) {
            continue;
        }
        let mut share = Share::new(&[args, &["--sandbox", sandbox]].concat());
        test(&mut share);
        share.expect_alive();
    }
}

/// A directory, and the daemon that shares it.
pub struct Share {
    pub daemon: Daemon,
    outside: TempDir,
}

impl Share {
    pub fn new(args: &[&str]) -> Self {
        Self::of(&program(), args)
    }

    /// A share of another daemon.
    pub fn of(program: &Path, args: &[&str]) -> Self {
        Self::start(program, args, |_| {})
    }

    /// Shares a new directory, which lies in another one that is this test's alone, once it was prepared.
    pub fn prepared(args: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        Self::start(&program(), args, prepare)
    }

    fn start(program: &Path, args: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let outside = TempDir::with_prefix("ferryfs-promises-").unwrap();
        fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let dir = outside.path().join("share");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
        prepare(&dir);
        let daemon = Daemon::share(program, &dir, args).unwrap();
        Self { daemon, outside }
    }

    /// The shared directory on the host.
    pub fn path(&self) -> PathBuf {
        self.outside.path().join("share")
    }

    /// What lies beside the share, and must never change.
    pub fn outside(&self) -> &Path {
        self.outside.path()
    }

    /// Ends the daemon. What is mounted in the directory can go then, and the directory after it.
    pub fn end(self) -> TempDir {
        self.outside
    }

    /// A client whose session has begun.
    pub fn client(&mut self) -> Client {
        self.client_with(&options())
    }

    pub fn client_with(&mut self, options: &Options) -> Client {
        let mut client = connect(&mut self.daemon, options);
        client.init().unwrap();
        client
    }

    /// That the process runs and met no mistake of its own: one that ended with its only front end has done so with success.
    pub fn expect_alive(&mut self) {
        assert_eq!(self.daemon.mistake(), None);
        if let Some(status) = self.daemon.exited().unwrap() {
            assert!(status.success(), "the daemon ended with {status}: {}", self.daemon.log());
        }
    }
}

/// Less memory than usual: tests run side by side.
pub fn options() -> Options {
    Options { memory: vec![(0, 128 << 20)], limit: HANG, ..Options::default() }
}

/// A client with 32 requests of up to 64 KiB on each queue, before INIT.
pub fn connect(daemon: &mut Daemon, options: &Options) -> Client {
    let size = LaneSize { slots: 32, request: 1 << 16, reply: 1 << 16, indirect: true };
    Client::connect_with(daemon.connect().unwrap(), options, size).unwrap()
}

/// That the daemon answers a valid request on the current queue.
#[track_caller]
pub fn expect_service(client: &mut Client, after: &str) {
    if let Err(error) = client.getattr(ROOT_ID) {
        panic!("after {after}: {error}");
    }
}

/// Tries again until there is something; the limit only ends a hang.
#[track_caller]
pub fn wait_for<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(start.elapsed() < HANG, "waited for {what} in vain");
        std::thread::sleep(Duration::from_millis(2));
    }
}
