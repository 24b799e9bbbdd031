//! The file system: requests in, host objects behind.
//!
//! [`Passthrough`] shows a directory of the host. It knows inodes, handles and whose request it serves; it knows nothing
//! of bytes on a queue, and asks `coherence` what a guest may keep. Each operation's own module holds its code; the
//! implementation of `FileSystem` in `serve` only leads there.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

mod attributes;
pub mod config;
mod create;
mod credentials;
mod directories;
mod events;
mod files;
mod handles;
pub mod idmap;
mod inodes;
mod knowledge;
mod known;
mod lookup;
mod mounts;
mod namespace;
mod news;
mod on_demand;
mod opened;
mod place;
mod population;
mod serve;
mod sharded;
mod unopened;
pub mod xattr_map;
mod xattrs;

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use fuse_abi::{Errno, InitFlags};

use self::{
    config::{Config, InodeFileHandles},
    handles::Handles,
    inodes::InodeTable,
    mounts::{KEPT_MAX, KeptDirectories, Mounts},
    news::News,
    opened::{OpenDirectory, OpenFile},
    unopened::Unopened,
};
use crate::{
    coherence::{
        habit::Askers,
        policy::{CacheMode, Grants},
        validation::Printer,
        walks::Walks,
    },
    host::{self, Budget, FileHandle, Identities, Kind, SelfFds, Storage},
    protocol::Wishes,
};

/// A directory of the host, shared.
pub struct Passthrough {
    config: Config,
    grants: Grants,
    serves_xattrs: bool,
    /// Tells states of inodes apart, for a guest that is kept coherent.
    printer: Printer,
    /// Threads of that guest that were sent back to look again.
    walks: Walks,
    askers: Askers,
    /// What moments are counted from.
    began: Instant,
    warned_of_remote: AtomicBool,
    /// What the guest hears unasked, where it does.
    news: Option<News>,
    fds: SelfFds,
    identities: Identities,
    inodes: InodeTable,
    descriptors: Arc<Budget>,
    mounts: Mounts,
    kept: KeptDirectories,
    files: Handles<OpenFile>,
    directories: Handles<OpenDirectory>,
    /// What is open for a guest that opens nothing.
    unopened: Unopened,
}

impl Passthrough {
    /// Shares the directory that `root` opened. `fds` is how this process reaches its own descriptors by name.
    ///
    /// # Errors
    /// `ENOTDIR` for anything else, `EOPNOTSUPP` where file handles are mandatory and cannot be had, the host's.
    pub fn new(root: OwnedFd, fds: SelfFds, mut config: Config) -> Result<Self, Errno> {
        let found = host::stat(root.as_fd())?;
        if found.kind() != Kind::Directory {
            return Err(Errno::ENOTDIR);
        }
        let mounts = Mounts::of_share(&fds, root.as_fd(), &found);
        let by_handle = || {
            let mount = mounts.of(&found).ok_or(Errno::EOPNOTSUPP)?;
            FileHandle::of(root.as_fd())?.pin(mount.as_fd())
        };
        match (config.inode_file_handles, by_handle()) {
            (InodeFileHandles::Mandatory, outcome) => drop(outcome?),
            // Anybody may ask for a handle, but not everybody may open one.
            (InodeFileHandles::Prefer, Err(_)) => config.inode_file_handles = InodeFileHandles::Never,
            _ => {}
        }
        let is_remote = mounts.storage(&found.identity, root.as_fd()) == Storage::Remote;
        // Directories that stay open lately count as inodes do.
        let kept = match config.inode_file_handles {
            InodeFileHandles::Never => 0,
            _ => KEPT_MAX.min(config.descriptor_budget / 4),
        };
        // Files and directories that are open share one budget.
        let handles = Budget::new(config.handle_budget);
        Ok(Self {
            grants: config.grants(),
            serves_xattrs: config.serves_xattrs(),
            printer: Printer::default(),
            walks: Walks::default(),
            askers: Askers::default(),
            began: Instant::now(),
            warned_of_remote: AtomicBool::new(false),
            news: News::new(&config, root.as_fd(), &fds)?,
            inodes: InodeTable::new(root, &found, is_remote, config.cache == CacheMode::Coherent),
            descriptors: Budget::new(config.descriptor_budget - kept),
            files: Handles::new(Arc::clone(&handles)),
            directories: Handles::new(Arc::clone(&handles)),
            unopened: Unopened::new(handles),
            kept: KeptDirectories::new(kept),
            identities: Identities::of_process(),
            config,
            fds,
            mounts,
        })
    }

    /// How many inodes a guest knows, beside the root.
    #[must_use]
    pub fn known_inodes(&self) -> usize {
        self.inodes.len()
    }

    /// How many descriptors inodes hold.
    #[must_use]
    pub fn held_descriptors(&self) -> usize {
        self.descriptors.used()
    }

    fn wishes_of_config(&self) -> Wishes {
        let config = &self.config;
        let mut flags = InitFlags::ASYNC_READ
            | InitFlags::EXPORT_SUPPORT
            | InitFlags::BIG_WRITES
            | InitFlags::HAS_IOCTL_DIR
            | InitFlags::ASYNC_DIO
            | InitFlags::PARALLEL_DIROPS
            | InitFlags::MAX_PAGES
            | InitFlags::SETXATTR_EXT
            | InitFlags::CREATE_SUPP_GROUP;
        for (wanted, more) in [
            // A coherent guest is told at each open what of its cache to drop; it need not ask before each read.
            (config.cache != CacheMode::Coherent, InitFlags::AUTO_INVAL_DATA),
            (self.grants.readdirplus, InitFlags::DO_READDIRPLUS | InitFlags::READDIRPLUS_AUTO),
            (config.writeback, InitFlags::WRITEBACK_CACHE),
            (config.posix_acl.is_wanted(), InitFlags::POSIX_ACL | InitFlags::DONT_MASK | InitFlags::ALLOW_IDMAP),
            (config.security_label.is_wanted(), InitFlags::SECURITY_CTX),
            (config.killpriv_v2, InitFlags::HANDLE_KILLPRIV_V2 | InitFlags::HANDLE_KILLPRIV),
            (config.announce_submounts, InitFlags::SUBMOUNTS),
            (config.allow_mmap, InitFlags::DIRECT_IO_ALLOW_MMAP),
            (config.no_open, InitFlags::NO_OPEN_SUPPORT | InitFlags::NO_OPENDIR_SUPPORT),
            // Such a client leaves O_TRUNC to an OPEN that it does not send.
            (!config.no_open, InitFlags::ATOMIC_O_TRUNC),
        ] {
            flags.set(more, wanted);
        }
        Wishes {
            flags,
            max_write: 1 << 20,
            max_readahead: u32::MAX,
            max_background: u16::MAX,
            time_gran: 1,
            max_stack_depth: 0,
        }
    }

    /// The session is over: all that the guest knew and had open is given back.
    fn release_everything(&self) {
        self.files.clear();
        self.directories.clear();
        self.unopened.clear();
        self.inodes.clear();
        self.kept.clear();
        self.walks.clear();
        if let Some(news) = &self.news {
            news.clear();
            self.inodes.root().unwatch();
        }
        self.give_back_memory();
    }
}
