//! The table of workloads: one row each, from which the runs, the tables and the verdicts are made.

use ferryfs_guest::{Client, Result};

use crate::bare::{self, Loop};
use crate::engine::Script;
use crate::scripts as s;
use crate::source::Source;

/// What a script is made for.
pub struct Stage<'a> {
    pub source: &'a Source,
    /// Which of the daemons it is for.
    pub side: usize,
    /// Which of all actors it is.
    pub number: usize,
    /// How many there are.
    pub of: usize,
}

/// Makes the script of one actor, and says whether its work counts.
type Make = fn(&mut Client, &Stage<'_>) -> Result<(Script, bool)>;
/// Makes the loop of bare system calls that do the same.
type Bare = fn(&Source) -> Result<Loop>;

/// What must be reached against the peer with its defaults and with its fastest settings: operations a second and CPU
/// time an operation at depth 32 on one queue.
pub type Target = Option<(f64, f64)>;

/// On which file systems it is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Where {
    Memory,
    Disk,
    Both,
}

/// A row of the table.
pub struct Workload {
    pub name: &'static str,
    /// What one unit is, for the table.
    pub unit: &'static str,
    pub place: Where,
    pub script: Make,
    pub bare: Option<Bare>,
    pub target: Target,
    /// The most that the latency's median may be of the peer's at depth 1.
    pub median: Option<f64>,
    /// More arguments for every daemon.
    pub args: &'static [&'static str],
    /// Whether the page cache is dropped before each slice.
    pub cold: bool,
    /// The least depth at which it means something.
    pub least_depth: usize,
}

const PLAIN: Workload = Workload {
    name: "",
    unit: "op",
    place: Where::Memory,
    script: s::getattr,
    bare: None,
    target: None,
    median: None,
    args: &[],
    cold: false,
    least_depth: 1,
};

const fn row(name: &'static str, script: Make, bare: Option<Bare>, target: Target) -> Workload {
    Workload { name, script, bare, target, ..PLAIN }
}

const fn data(name: &'static str, script: Make, bare: Option<Bare>, target: Target) -> Workload {
    Workload { place: Where::Both, ..row(name, script, bare, target) }
}

const fn entries(name: &'static str, script: Make, bare: Bare, target: Target) -> Workload {
    Workload { unit: "entry", ..row(name, script, Some(bare), target) }
}

/// All of them.
pub const ALL: &[Workload] = &[
    Workload { median: Some(0.7), ..row("getattr", s::getattr, Some(bare::getattr), Some((3.0, 1.8))) },
    row("statfs", s::statfs, Some(bare::statfs), Some((3.0, 1.8))),
    Workload { median: Some(0.7), ..row("lookup known", s::lookup_known, Some(bare::lookup_known), Some((3.5, 2.0))) },
    row("lookup missing", s::lookup_missing, Some(bare::lookup_missing), Some((2.5, 1.3))),
    row("lookup fresh, forget", s::lookup_fresh, Some(bare::lookup_fresh), Some((2.2, 1.3))),
    Workload { args: &["--xattr"], ..row("getxattr missing", s::getxattr_missing, Some(bare::getxattr_missing), None) },
    row("open release", s::open_release, Some(bare::open_release), Some((1.3, 1.3))),
    row("open read release", s::open_read_release, Some(bare::open_read_release), Some((1.4, 1.4))),
    Workload { median: Some(0.8), ..data("read 4 KiB", s::read_small, Some(bare::read_small), Some((1.5, 1.5))) },
    data("write 4 KiB", s::write_small, Some(bare::write_small), Some((1.0, 1.0))),
    data("read 1 MiB", s::read_large, Some(bare::read_large), Some((1.0, 1.0))),
    data("write 1 MiB", s::write_large, Some(bare::write_large), Some((1.0, 1.0))),
    Workload { place: Where::Disk, cold: true, ..row("read 4 KiB, cold", s::read_cold, None, Some((3.0, 0.0))) },
    row(
        "create write release unlink",
        s::create_write_release_unlink,
        Some(bare::create_write_release_unlink),
        Some((2.0, 1.6)),
    ),
    row("mkdir rmdir", s::mkdir_rmdir, Some(bare::mkdir_rmdir), Some((1.1, 1.0))),
    row("rename", s::rename, Some(bare::rename), None),
    entries("readdir 4 KiB", s::readdir_4k, bare::readdir, Some((1.2, 1.2))),
    entries("readdir 128 KiB", s::readdir_128k, bare::readdir, Some((1.2, 1.2))),
    entries("readdirplus 4 KiB", s::readdirplus_4k, bare::readdirplus, None),
    entries("readdirplus 128 KiB", s::readdirplus_128k, bare::readdirplus, Some((4.0, 2.2))),
    entries("readdirplus fresh, forget", s::readdirplus_fresh, bare::readdirplus, None),
    beside("read 4 KiB beside fsync", s::reads_beside_fsync),
    beside("getattr beside fsync", s::getattr_beside_fsync),
    Workload { cold: true, ..beside("getattr beside cold reads", s::getattr_beside_cold_reads) },
    row("two users, 7 reads to 3 writes", s::mixed, None, None),
];

const fn beside(name: &'static str, script: Make) -> Workload {
    Workload { place: Where::Disk, least_depth: 2, ..row(name, script, None, None) }
}
