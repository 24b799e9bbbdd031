//! The directory that the daemons share: made once for each file system, and removed at the end.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use ferryfs_guest::{Error, Result};
use rustix::fs::{Mode, OFlags};
use tempfile::TempDir;

/// Small files to look up, open and read.
pub const FILES: usize = 10_000;
/// Entries of the directory that is listed, or fewer where a daemon that keeps a descriptor for each could not.
pub fn entries() -> usize {
    const WANTED: usize = 20_000;
    const SPARE: u64 = 1000;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.map_or(WANTED, |limit| WANTED.min(limit.saturating_sub(SPARE) as usize))
}
/// Bytes of the file for reads and writes.
pub const DATA: u64 = 256 << 20;
/// The bytes of a small read or write, and of each small file.
pub const BLOCK: usize = 4096;
/// The most actors, and the most daemons: each actor of each daemon has a directory of its own.
pub const ACTORS: usize = 64;
pub const SIDES: usize = 3;

/// A shared directory.
pub struct Source {
    root: TempDir,
    /// The file system's name in tables.
    pub name: &'static str,
}

impl Source {
    /// Makes the directory below `place`. Listings and small files are for metadata, and made only where it is measured.
    pub fn new(place: &Path, metadata: bool) -> Result<Self> {
        let root = TempDir::with_prefix_in("ferryfs-bench-", place).map_err(Error::io("make a directory to share"))?;
        let name = file_system(place)?;
        let source = Self { root, name };
        source.fill(metadata).map_err(Error::io("fill the directory to share"))?;
        Ok(source)
    }

    fn fill(&self, metadata: bool) -> std::io::Result<()> {
        let block = [7; BLOCK];
        for (side, actor) in (0..SIDES).flat_map(|side| (0..ACTORS).map(move |actor| (side, actor))) {
            fs::create_dir(self.shared().join(work(side, actor)))?;
        }
        fs::create_dir(self.shared().join("files"))?;
        for number in 0..if metadata { FILES } else { 100 } {
            fs::write(self.shared().join("files").join(file_name(number)), block)?;
        }
        fs::create_dir(self.shared().join("list"))?;
        for number in 0..if metadata { entries() } else { 0 } {
            File::create(self.shared().join("list").join(format!("an-entry-of-the-list-{number:05}")))?;
        }
        let mut data = File::create(self.shared().join("data"))?;
        let chunk = vec![7; 1 << 20];
        for _ in 0..DATA >> 20 {
            data.write_all(&chunk)?;
        }
        data.sync_all()
    }

    /// What the daemons share.
    pub fn shared(&self) -> &Path {
        self.root.path()
    }

    /// Opens something in it as the bare calls do.
    pub fn open(&self, name: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd> {
        let path: PathBuf = self.shared().join(name);
        rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).map_err(Error::io("open in the share"))
    }

    /// Drops the data file from the page cache.
    pub fn drop_cache(&self) -> Result<()> {
        let file = self.open("data", OFlags::RDONLY)?;
        rustix::fs::fsync(&file).map_err(Error::io("sync the data"))?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).map_err(Error::io("drop the cache"))
    }
}

/// The directory of one actor's own.
pub fn work(side: usize, actor: usize) -> String {
    format!("work-{side}-{actor:02}")
}

/// A small file.
pub fn file_name(number: usize) -> String {
    format!("f{number:05}")
}

/// What lies below a directory.
pub fn file_system(place: &Path) -> Result<&'static str> {
    let found = rustix::fs::statfs(place).map_err(Error::io("ask for the file system"))?;
    Ok(match found.f_type {
        0x0102_1994 => "tmpfs",
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        _ => "other",
    })
}
