//! What the daemon was told, as the rest of it takes it: every option of virtiofsd 1.14 with its meaning, and ours.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use log::LevelFilter;

use super::values::{
    CacheMode, CapabilityChanges, DirStreamKind, IdRange, InodeFileHandles, Negotiation, SandboxMode, SeccompMode, Tag,
    seconds,
};

/// Everything `ferryfs --shared-dir ...` was told, checked.
#[derive(Clone, Debug)]
pub struct DaemonOptions {
    /// The directory to share.
    pub shared_dir: PathBuf,
    /// Where the front end connects.
    pub listen: Listen,
    /// The device's tag, when it is to be announced in the configuration space.
    pub tag: Option<Tag>,
    /// What the file system does.
    pub file_system: FileSystemOptions,
    /// What drives the request queues.
    pub queues: QueueOptions,
    /// How the process is isolated.
    pub isolation: IsolationOptions,
    /// Where messages go.
    pub log: LogOptions,
    /// What to tell the user about options that are deprecated or have no effect, once messages can be logged.
    pub remarks: Vec<String>,
}

/// Where the front end connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A socket to create, and the group that may connect.
    Path {
        /// Path of the socket.
        socket: PathBuf,
        /// Name of the group.
        group: Option<String>,
    },
    /// The number of an inherited descriptor that listens already.
    Descriptor(i32),
}

impl fmt::Display for Listen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path { socket, .. } => write!(out, "on the socket '{}'", socket.display()),
            Self::Descriptor(number) => write!(out, "on the inherited socket {number}"),
        }
    }
}

/// Everything `ferryfs mount` was told, checked.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// The directory to show.
    pub source: PathBuf,
    /// Where to show it.
    pub mountpoint: PathBuf,
    /// What the file system does.
    pub file_system: FileSystemOptions,
    /// How many threads read requests; chosen from the machine when absent.
    pub threads: Option<NonZeroUsize>,
    /// Where messages go.
    pub log: LogOptions,
}

/// Where messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// The least important message that is written.
    pub level: LevelFilter,
    /// To the system log rather than to standard error.
    pub syslog: bool,
}

/// Options of the file system itself, shared by the daemon and `ferryfs mount`.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "File system")]
pub struct FileSystemOptions {
    /// What the guest may cache
    #[arg(long, value_enum, default_value_t = CacheMode::Auto, ignore_case = true)]
    pub cache: CacheMode,
    /// How long the guest may keep a name without asking again [default: set by --cache]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = seconds)]
    pub entry_timeout: Option<Duration>,
    /// How long the guest may keep attributes without asking again [default: set by --cache]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = seconds)]
    pub attr_timeout: Option<Duration>,
    /// Watch the share, offer the guest a queue of notifications and, if it takes it, tell it of the host's changes, so that
    /// it may keep names for an hour and attributes for a minute (with --cache=coherent)
    #[arg(long)]
    pub notify: bool,
    /// How long a guest that takes notifications may believe a name to be missing without asking again. On clients from
    /// Linux 6.18 on, each such name that the host makes has all names looked up again, which unmounts what the guest
    /// has mounted on the share
    #[arg(long, value_name = "SECONDS", value_parser = seconds, requires = "notify")]
    pub negative_timeout: Option<Duration>,
    /// Append paths that the host changed to this file in the root of the share: for ferryfs-events in a guest, which
    /// turns them into file events there (with --cache=coherent)
    #[arg(long, value_name = "NAME")]
    pub event_file: Option<String>,
    /// Serve extended attributes
    #[arg(long)]
    xattr: bool,
    /// Rules that translate names of extended attributes between host and guest (implies --xattr)
    #[arg(long, value_name = "RULES")]
    pub xattrmap: Option<String>,
    /// Serve POSIX ACLs (implies --xattr)
    #[arg(long, value_enum, require_equals = true, num_args = 0..=1, default_missing_value = "always",
        default_value_t = Negotiation::Never)]
    pub posix_acl: Negotiation,
    /// Store the security label the guest sends when it creates a file (implies --xattr)
    #[arg(long, value_enum, require_equals = true, num_args = 0..=1, default_missing_value = "always",
        default_value_t = Negotiation::Never)]
    pub security_label: Negotiation,
    /// Refuse everything that would change the share
    #[arg(long)]
    pub readonly: bool,
    /// Let the guest collect writes in its own cache
    #[arg(long)]
    pub writeback: bool,
    /// Honour O_DIRECT of guest applications
    #[arg(long)]
    pub allow_direct_io: bool,
    /// Allow shared mmap with --cache=never and --cache=metadata
    #[arg(long)]
    pub allow_mmap: bool,
    /// Do not offer READDIRPLUS
    #[arg(long)]
    no_readdirplus: bool,
    /// Let the server drop setuid, setgid and file capabilities on writes (default)
    #[arg(long, overrides_with = "no_killpriv_v2")]
    killpriv_v2: bool,
    /// Leave that to the guest
    #[arg(long, overrides_with = "killpriv_v2")]
    no_killpriv_v2: bool,
    /// Tell the guest which directories are mount points (default)
    #[arg(long, overrides_with = "no_announce_submounts")]
    announce_submounts: bool,
    /// Do not tell the guest which directories are mount points
    #[arg(long, overrides_with = "announce_submounts")]
    no_announce_submounts: bool,
    /// When to remember inodes by file handle instead of by an open descriptor
    #[arg(long, value_enum, default_value_t = InodeFileHandles::Prefer)]
    pub inode_file_handles: InodeFileHandles,
    /// Pass O_NOATIME on to the host instead of dropping it
    #[arg(long)]
    pub preserve_noatime: bool,
    /// Translate user ids between guest and host: TYPE:SOURCE:TARGET:COUNT (repeatable; types guest, host,
    /// squash-guest, squash-host, forbid-guest, map)
    #[arg(long, value_name = "RULE")]
    pub translate_uid: Vec<String>,
    /// Translate group ids between guest and host, as --translate-uid does
    #[arg(long, value_name = "RULE")]
    pub translate_gid: Vec<String>,
    /// Let the guest open files and directories without a request, for shares that nobody else changes (needs
    /// --cache=always)
    #[arg(long)]
    pub no_open: bool,
    /// Do not tell when files were born: programs that ask (those in Rust and Node.js always do) need no request for each
    /// file then
    #[arg(long)]
    pub no_statx: bool,
    /// How directories are listed [default: getdents, but snapshot with --no-open, and on tmpfs, whose own cookies do
    /// not hold]
    #[arg(long, value_enum)]
    pub dir_stream: Option<DirStreamKind>,
}

impl FileSystemOptions {
    /// Whether extended attributes are served: asked for, or needed by another option.
    pub fn xattr(&self) -> bool {
        self.xattr
            || self.xattrmap.is_some()
            || self.posix_acl != Negotiation::Never
            || self.security_label != Negotiation::Never
    }

    /// Whether the server drops setuid and setgid bits: without it a truncation by another user keeps them.
    pub fn drops_privileges(&self) -> bool {
        self.killpriv_v2 || !self.no_killpriv_v2
    }

    /// Whether READDIRPLUS is offered: with nothing cached it would only waste the attributes it carries.
    pub fn readdirplus(&self) -> bool {
        !self.no_readdirplus && self.cache != CacheMode::Never
    }

    /// Whether the guest is told which directories are mount points.
    pub fn announces_submounts(&self) -> bool {
        !self.no_announce_submounts
    }
}

/// What drives the request queues.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Queues")]
pub struct QueueOptions {
    /// Request queues, each with a thread of its own [default: what the front end sets up, at most the machine's cores]
    #[arg(long, value_name = "1..64", allow_negative_numbers = true, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub num_request_queues: Option<u8>,
    /// Threads for requests that block; 0 serves them on the queue's own thread [default: automatic]
    #[arg(long, value_name = "THREADS", allow_negative_numbers = true,
        value_parser = clap::value_parser!(u16).range(..=1024))]
    pub thread_pool_size: Option<u16>,
    /// How long a queue's thread looks for requests before it sleeps, in microseconds; 0: never. It does so while they come
    /// in quick succession, and where they come one by one only if that is faster [default: 200]
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    pub poll_us: Option<u32>,
    /// Keep serving after the front end leaves; otherwise the process ends then
    #[arg(long)]
    pub persist: bool,
}

impl QueueOptions {
    /// How many request queues a front end may set up.
    pub fn request_queues(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(64);
        self.num_request_queues.map_or_else(cores, usize::from)
    }

    /// How many threads wait for what blocks. They cost nothing while nothing does, so there are as many as keep a disk
    /// busy.
    pub fn pool_threads(&self) -> usize {
        self.thread_pool_size.map_or(16, usize::from)
    }

    /// How long a queue's thread looks for requests before it sleeps.
    pub fn polling(&self) -> Duration {
        Duration::from_micros(self.poll_us.map_or(200, u64::from))
    }

    /// At most how many threads serve requests.
    pub fn threads(&self) -> u64 {
        self.request_queues().saturating_add(self.pool_threads()).try_into().unwrap_or(u64::MAX)
    }
}

/// How the process is isolated.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Isolation")]
pub struct IsolationOptions {
    /// How the process is kept away from the rest of the host
    #[arg(long, value_enum, default_value_t = SandboxMode::Namespace, ignore_case = true)]
    pub sandbox: SandboxMode,
    /// What happens on a system call that the daemon never makes
    #[arg(long, value_enum, default_value_t = SeccompMode::Kill)]
    pub seccomp: SeccompMode,
    /// Capabilities to keep or drop beside the usual ones, e.g. +sys_admin:-chown
    #[arg(long, value_name = "+CAP:-CAP", allow_hyphen_values = true, default_value = "", hide_default_value = true)]
    pub modcaps: CapabilityChanges,
    /// Most descriptors the process may open; 0 leaves the limit alone [default: 1000000, or what the system allows]
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true)]
    pub rlimit_nofile: Option<u64>,
    /// Map host user ids into the user namespace of an unprivileged daemon: :NAMESPACE_ID:HOST_ID:COUNT: (repeatable)
    #[arg(long, value_name = "RANGE")]
    pub uid_map: Vec<IdRange>,
    /// Map host group ids into the user namespace of an unprivileged daemon, as --uid-map does
    #[arg(long, value_name = "RANGE")]
    pub gid_map: Vec<IdRange>,
}

/// What the options of older tools may set in the file system's options, by the name they give it.
impl FileSystemOptions {
    pub(super) fn set_flag(&mut self, name: &str, value: bool) -> bool {
        let mode = if value { Negotiation::Always } else { Negotiation::Never };
        match name {
            "xattr" => self.xattr = value,
            "readdirplus" => self.no_readdirplus = !value,
            "writeback" => self.writeback = value,
            "allow_direct_io" => self.allow_direct_io = value,
            "killpriv_v2" => (self.killpriv_v2, self.no_killpriv_v2) = (value, !value),
            "posix_acl" => self.posix_acl = mode,
            "security_label" => self.security_label = mode,
            _ => return false,
        }
        true
    }
}
