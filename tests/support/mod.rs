//! A client in the same process: it speaks FUSE bytes to a server over plain memory, as whom and on what terms a test
//! likes. A share is a temporary directory; a client is a queue with a thread of its own, so that the test's thread
//! stays the superuser and sees a request that hangs.
#![allow(dead_code, unused_imports)]

pub mod client;
pub mod host;
pub mod wire;

use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

pub use client::{Client, Entry};
use ferryfs::{
    coherence::policy::CacheMode,
    host::{FileHandle, SelfFds},
    passthrough::{
        Passthrough,
        config::{Config, InodeFileHandles},
    },
    protocol::{Options, Server},
};
pub use fuse_abi::{Errno, InitFlags, ROOT_ID as ROOT};
use tempfile::TempDir;

pub type Result<T> = std::result::Result<T, Errno>;

/// What a current kernel offers at INIT, as far as it matters here.
pub const OFFER: InitFlags = InitFlags::from_bits_retain(
    InitFlags::ASYNC_READ.bits()
        | InitFlags::ATOMIC_O_TRUNC.bits()
        | InitFlags::EXPORT_SUPPORT.bits()
        | InitFlags::BIG_WRITES.bits()
        | InitFlags::DONT_MASK.bits()
        | InitFlags::HAS_IOCTL_DIR.bits()
        | InitFlags::AUTO_INVAL_DATA.bits()
        | InitFlags::DO_READDIRPLUS.bits()
        | InitFlags::READDIRPLUS_AUTO.bits()
        | InitFlags::WRITEBACK_CACHE.bits()
        | InitFlags::PARALLEL_DIROPS.bits()
        | InitFlags::POSIX_ACL.bits()
        | InitFlags::MAX_PAGES.bits()
        | InitFlags::SUBMOUNTS.bits()
        | InitFlags::HANDLE_KILLPRIV.bits()
        | InitFlags::HANDLE_KILLPRIV_V2.bits()
        | InitFlags::SETXATTR_EXT.bits()
        | InitFlags::INIT_EXT.bits()
        | InitFlags::SECURITY_CTX.bits()
        | InitFlags::CREATE_SUPP_GROUP.bits()
        | InitFlags::DIRECT_IO_ALLOW_MMAP.bits()
        | InitFlags::ALLOW_IDMAP.bits()
        | InitFlags::NO_OPEN_SUPPORT.bits()
        | InitFlags::NO_OPENDIR_SUPPORT.bits(),
);

/// A directory that is shared, and its server.
pub struct Share {
    pub server: Arc<Server<Passthrough>>,
    /// Deleted with the share if it is a temporary one.
    directory: Directory,
}

enum Directory {
    Temporary(TempDir),
    Elsewhere(PathBuf),
}

const PREFIX: &str = "ferryfs-test-";

/// An empty directory on a disk, to be deleted with the value.
pub fn disk_directory() -> TempDir {
    TempDir::with_prefix_in(PREFIX, env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// An empty directory in memory, where there is one.
pub fn memory_directory() -> Option<TempDir> {
    TempDir::with_prefix_in(PREFIX, "/dev/shm").ok()
}

/// Directories on every kind of file system there is without mounting one.
pub fn directories() -> Vec<TempDir> {
    [Some(disk_directory()), memory_directory()].into_iter().flatten().collect()
}

impl Share {
    /// With the defaults, on terms that a current kernel offers.
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::on_terms(OFFER, change)
    }

    pub fn on_terms(offer: InitFlags, change: impl FnOnce(&mut Config)) -> Self {
        Self::start(Directory::Temporary(disk_directory()), offer, change)
    }

    /// In memory where that can be: for what makes and removes a lot.
    pub fn in_memory(change: impl FnOnce(&mut Config)) -> Self {
        Self::of(memory_directory().unwrap_or_else(disk_directory), change)
    }

    /// Of a directory in which the test has something already.
    pub fn of(directory: TempDir, change: impl FnOnce(&mut Config)) -> Self {
        Self::start(Directory::Temporary(directory), OFFER, change)
    }

    /// Of a directory that outlives the share.
    pub fn at(path: &Path, change: impl FnOnce(&mut Config)) -> Self {
        Self::at_on_terms(path, OFFER, change)
    }

    pub fn at_on_terms(path: &Path, offer: InitFlags, change: impl FnOnce(&mut Config)) -> Self {
        Self::start(Directory::Elsewhere(path.into()), offer, change)
    }

    fn start(directory: Directory, offer: InitFlags, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        change(&mut config);
        let path = match &directory {
            Directory::Temporary(temporary) => temporary.path(),
            Directory::Elsewhere(path) => path,
        };
        let server = Arc::new(Server::new(
            passthrough(path, config.clone()).unwrap(),
            Options { read_only: config.read_only, ..Options::default() },
        ));
        let share = Self { server, directory };
        share.client().init(offer).unwrap();
        share
    }

    /// A new queue, used by the superuser until it is told otherwise.
    pub fn client(&self) -> Client {
        Client::new(&self.server)
    }

    pub fn path(&self) -> &Path {
        match &self.directory {
            Directory::Temporary(temporary) => temporary.path(),
            Directory::Elsewhere(path) => path,
        }
    }

    /// A name in the share, as the host knows it.
    pub fn host(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn known_inodes(&self) -> usize {
        self.server.file_system().known_inodes()
    }

    pub fn held_descriptors(&self) -> usize {
        self.server.file_system().held_descriptors()
    }
}

pub fn passthrough(path: &Path, config: Config) -> Result<Passthrough> {
    let root: OwnedFd = std::fs::File::open(path).unwrap().into();
    Passthrough::new(root, SelfFds::open().unwrap(), config)
}

/// Says that a test cannot do its work here, in the form that the test command counts. Always true.
pub fn skipped(reason: &str) -> bool {
    eprintln!("skipped: {}: {reason}", std::thread::current().name().unwrap_or("a test"));
    true
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether the test has to be left out because it acts as several users.
pub fn needs_root() -> bool {
    !is_root() && skipped("needs root")
}

/// A file of the guest, open for reading and writing: its node and its handle.
pub fn open_file(client: &Client, name: &str) -> (u64, u64) {
    let (entry, open) = client.create(ROOT, name, libc::O_RDWR, 0o644).unwrap();
    (entry.nodeid, open.fh)
}

/// Lets the guest open without asking.
pub fn unasked(config: &mut Config) {
    (config.cache, config.no_open) = (CacheMode::Always, true);
}

/// Keeps every inode by file handle.
pub fn in_handle_mode(config: &mut Config) {
    config.inode_file_handles = InodeFileHandles::Prefer;
    config.descriptor_budget = 0;
}

/// Whether objects of that file system can be kept by file handle.
pub fn supports_handles(path: &Path) -> bool {
    FileHandle::of(std::fs::File::open(path).unwrap().as_fd()).is_ok()
}

/// Tells other threads to stop when it goes, also when the test fails.
#[derive(Default)]
pub struct Stop(AtomicBool);

impl Stop {
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Asks at the end of the scope.
    pub fn at_the_end(&self) -> impl Drop + '_ {
        struct Asks<'s>(&'s AtomicBool);
        impl Drop for Asks<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        Asks(&self.0)
    }
}
