//! The flag words. Each type has the published bits under the published name without its common prefix.
//!
//! Structs carry the raw words. Convert with `from_bits_retain`, so that a bit of a newer client survives a round trip.

use bitflags::bitflags;

bitflags! {
    /// What client and server offer each other in INIT (`FUSE_*`): `flags`, and from 7.36 `flags2` as the upper half.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct InitFlags: u64 {
        /// Several reads of a file may be under way at once.
        const ASYNC_READ = 1 << 0;
        /// The server keeps POSIX file locks.
        const POSIX_LOCKS = 1 << 1;
        /// Never used: file handles for attribute requests.
        const FILE_OPS = 1 << 2;
        /// The server truncates when it opens with `O_TRUNC`.
        const ATOMIC_O_TRUNC = 1 << 3;
        /// The server can look up `.` and `..`.
        const EXPORT_SUPPORT = 1 << 4;
        /// Writes may be larger than 4 KiB.
        const BIG_WRITES = 1 << 5;
        /// The server applies the umask, not the client.
        const DONT_MASK = 1 << 6;
        /// The device can be spliced to.
        const SPLICE_WRITE = 1 << 7;
        /// Spliced pages may be moved.
        const SPLICE_MOVE = 1 << 8;
        /// The device can be spliced from.
        const SPLICE_READ = 1 << 9;
        /// The server keeps BSD file locks.
        const FLOCK_LOCKS = 1 << 10;
        /// Directories take device control calls.
        const HAS_IOCTL_DIR = 1 << 11;
        /// The client drops cached data when size or modification time changed.
        const AUTO_INVAL_DATA = 1 << 12;
        /// Listings may come with lookups.
        const DO_READDIRPLUS = 1 << 13;
        /// The client chooses between plain listings and those with lookups.
        const READDIRPLUS_AUTO = 1 << 14;
        /// Direct I/O may be submitted asynchronously.
        const ASYNC_DIO = 1 << 15;
        /// The client collects writes in its cache.
        const WRITEBACK_CACHE = 1 << 16;
        /// A server that answers OPEN with `ENOSYS` is not asked again.
        const NO_OPEN_SUPPORT = 1 << 17;
        /// A directory may serve several lookups and listings at once.
        const PARALLEL_DIROPS = 1 << 18;
        /// The server clears setuid, setgid and capabilities on write, chown and truncate.
        const HANDLE_KILLPRIV = 1 << 19;
        /// The server stores POSIX access control lists and the client enforces them.
        const POSIX_ACL = 1 << 20;
        /// Reading the device after an abort says so.
        const ABORT_ERROR = 1 << 21;
        /// `max_pages` of the reply is valid.
        const MAX_PAGES = 1 << 22;
        /// The client keeps the targets of symbolic links.
        const CACHE_SYMLINKS = 1 << 23;
        /// A server that answers OPENDIR with `ENOSYS` is not asked again.
        const NO_OPENDIR_SUPPORT = 1 << 24;
        /// The client drops cached data only when told to.
        const EXPLICIT_INVAL_DATA = 1 << 25;
        /// `map_alignment` of the reply is valid.
        const MAP_ALIGNMENT = 1 << 26;
        /// A directory may be marked as another file system's root.
        const SUBMOUNTS = 1 << 27;
        /// As `HANDLE_KILLPRIV`, with the rules of Linux and only when the client asks.
        const HANDLE_KILLPRIV_V2 = 1 << 28;
        /// SETXATTR comes with the long struct.
        const SETXATTR_EXT = 1 << 29;
        /// `flags2` is valid.
        const INIT_EXT = 1 << 30;
        /// Reserved; never set it.
        const INIT_RESERVED = 1 << 31;
        /// Requests that create carry a security context.
        const SECURITY_CTX = 1 << 32;
        /// Each inode says whether it uses the shared window.
        const HAS_INODE_DAX = 1 << 33;
        /// Requests that create carry the supplementary group that matches the parent.
        const CREATE_SUPP_GROUP = 1 << 34;
        /// A name can be expired instead of dropped.
        const HAS_EXPIRE_ONLY = 1 << 35;
        /// A file open for direct I/O may be mapped shared.
        const DIRECT_IO_ALLOW_MMAP = 1 << 36;
        /// Obsolete name of `DIRECT_IO_ALLOW_MMAP`.
        const DIRECT_IO_RELAX = Self::DIRECT_IO_ALLOW_MMAP.bits();
        /// An open file may be backed by one of the client's host.
        const PASSTHROUGH = 1 << 37;
        /// The server cannot turn an exported handle back into a node.
        const NO_EXPORT_SUPPORT = 1 << 38;
        /// Unanswered requests can be sent again, marked with [`UNIQUE_RESEND`](crate::UNIQUE_RESEND).
        const HAS_RESEND = 1 << 39;
        /// The mount may be idmapped.
        const ALLOW_IDMAP = 1 << 40;
        /// Requests may travel over io_uring.
        const OVER_IO_URING = 1 << 41;
        /// `request_timeout` of the reply is valid.
        const REQUEST_TIMEOUT = 1 << 42;
        /// io_uring queues may have buffer pools.
        const HAS_IO_URING_BUFPOOL = 1 << 43;
    }

    /// What a character device's server and its client offer each other (`CUSE_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct CuseInitFlags: u32 {
        /// Device control calls may name memory freely.
        const UNRESTRICTED_IOCTL = 1 << 0;
    }

    /// Which fields of SETATTR count (`FATTR_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct SetattrValid: u32 {
        /// `mode`.
        const MODE = 1 << 0;
        /// `uid`.
        const UID = 1 << 1;
        /// `gid`.
        const GID = 1 << 2;
        /// `size`.
        const SIZE = 1 << 3;
        /// `atime` and `atimensec`.
        const ATIME = 1 << 4;
        /// `mtime` and `mtimensec`.
        const MTIME = 1 << 5;
        /// `fh`.
        const FH = 1 << 6;
        /// The access time becomes the server's present time.
        const ATIME_NOW = 1 << 7;
        /// The modification time becomes the server's present time.
        const MTIME_NOW = 1 << 8;
        /// `lock_owner`.
        const LOCKOWNER = 1 << 9;
        /// `ctime` and `ctimensec`.
        const CTIME = 1 << 10;
        /// Clear setuid and setgid.
        const KILL_SUIDGID = 1 << 11;
    }

    /// What the server says of a file it opened (`FOPEN_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct OpenOutFlags: u32 {
        /// Reads and writes go past the client's cache.
        const DIRECT_IO = 1 << 0;
        /// What the client has cached of the file is still true.
        const KEEP_CACHE = 1 << 1;
        /// The file has no position.
        const NONSEEKABLE = 1 << 2;
        /// The client may keep the listing.
        const CACHE_DIR = 1 << 3;
        /// The file is a stream.
        const STREAM = 1 << 4;
        /// Closing need not write cached data back.
        const NOFLUSH = 1 << 5;
        /// Direct writes to the file may run at once.
        const PARALLEL_DIRECT_WRITES = 1 << 6;
        /// Reads and writes go to the file that `backing_id` names.
        const PASSTHROUGH = 1 << 7;
        /// Reads and writes may use io_uring without a copy.
        const IO_URING_ZERO_COPY = 1 << 8;
    }

    /// What the client asks of an OPEN or CREATE besides the open flags (`FUSE_OPEN_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct OpenInFlags: u32 {
        /// Clear setuid and setgid if the file is executable.
        const KILL_SUIDGID = 1 << 0;
    }

    /// What a RELEASE does besides closing (`FUSE_RELEASE_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct ReleaseFlags: u32 {
        /// Flush too.
        const FLUSH = 1 << 0;
        /// Release the BSD lock of `lock_owner`.
        const FLOCK_UNLOCK = 1 << 1;
    }

    /// What GETATTR and STATX carry (`FUSE_GETATTR_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct GetattrFlags: u32 {
        /// `fh` is valid.
        const FH = 1 << 0;
    }

    /// What kind of lock a request means (`FUSE_LK_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct LkFlags: u32 {
        /// A BSD lock, not a POSIX one.
        const FLOCK = 1 << 0;
    }

    /// How a WRITE came about (`FUSE_WRITE_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct WriteFlags: u32 {
        /// Written back from the cache; the file handle is a guess.
        const CACHE = 1 << 0;
        /// `lock_owner` is valid.
        const LOCKOWNER = 1 << 1;
        /// Clear setuid and setgid.
        const KILL_SUIDGID = 1 << 2;
        /// Obsolete name of `KILL_SUIDGID`.
        const KILL_PRIV = Self::KILL_SUIDGID.bits();
    }

    /// What a READ carries (`FUSE_READ_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct ReadFlags: u32 {
        /// `lock_owner` is valid.
        const LOCKOWNER = 1 << 1;
    }

    /// How a device control call is made and answered (`FUSE_IOCTL_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct IoctlFlags: u32 {
        /// A 32-bit call on a 64-bit machine.
        const COMPAT = 1 << 0;
        /// Not bound to the well-formed calls; may be retried.
        const UNRESTRICTED = 1 << 1;
        /// In a reply: try again with these vectors.
        const RETRY = 1 << 2;
        /// A 32-bit call.
        const _32BIT = 1 << 3;
        /// On a directory.
        const DIR = 1 << 4;
        /// An x32 call on a 64-bit machine, with 64-bit time.
        const COMPAT_X32 = 1 << 5;
    }

    /// What a POLL asks for (`FUSE_POLL_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct PollFlags: u32 {
        /// Notify when it becomes ready.
        const SCHEDULE_NOTIFY = 1 << 0;
    }

    /// How much FSYNC makes durable (`FUSE_FSYNC_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct FsyncFlags: u32 {
        /// Only the data, and what is needed to reach it.
        const FDATASYNC = 1 << 0;
    }

    /// What attributes say of a node besides its numbers (`FUSE_ATTR_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct AttrFlags: u32 {
        /// The root of another file system.
        const SUBMOUNT = 1 << 0;
        /// Use the shared window for this file.
        const DAX = 1 << 1;
    }

    /// What a SETXATTR does besides setting (`FUSE_SETXATTR_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct SetxattrFlags: u32 {
        /// Setting the access control list clears setgid.
        const ACL_KILL_SGID = 1 << 0;
    }

    /// How a name is invalidated (`FUSE_*` of `fuse_notify_inval_entry_out`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct InvalEntryFlags: u32 {
        /// Expire the name: it is looked up again before it is used, but stays mounted upon.
        const EXPIRE_ONLY = 1 << 0;
    }

    /// What a mapping of the shared window allows (`FUSE_SETUPMAPPING_FLAG_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct SetupmappingFlags: u64 {
        /// Writing.
        const WRITE = 1 << 0;
        /// Reading.
        const READ = 1 << 1;
    }

    /// What an io_uring entry carries (`FUSE_URING_ENT_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct UringEntFlags: u64 {
        /// The data is in registered pages, not in the buffer.
        const ZERO_COPY = 1 << 0;
    }

    /// How an io_uring queue is added (`FUSE_URING_*` of `fuse_uring_cmd_req`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct UringQueueFlags: u64 {
        /// The queue may carry data without a copy; needs a buffer pool and a privileged server.
        const ZERO_COPY = 1 << 0;
    }
}

impl InitFlags {
    /// Both words as one, whatever [`InitFlags::INIT_EXT`] says.
    #[must_use]
    pub const fn join(flags: u32, flags2: u32) -> Self {
        Self::from_bits_retain((flags2 as u64) << 32 | flags as u64)
    }

    /// The words `(flags, flags2)`.
    #[must_use]
    pub const fn split(self) -> (u32, u32) {
        (self.bits() as u32, (self.bits() >> 32) as u32)
    }
}
