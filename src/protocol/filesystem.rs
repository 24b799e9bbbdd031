//! The seam between protocol and file system: one trait, a method an operation, arguments that were checked.
//!
//! Methods are plain synchronous functions. One that would wait for a disk or another process asks
//! [`Context::leave_to_block`] before its first side effect; on a queue's own thread that ends it with
//! [`Failure::WouldBlock`], and the transport runs it again on a thread that may wait.

use std::ffi::CStr;

use fuse_abi::{AttrOut, EntryOut, Errno, FileLock, InitFlags, Kstatfs, OpenOut, StatxOut, Timestamp};

use super::{Body, LookupName, Name, OpenFlags, Payload, SymlinkTarget, Turns, XattrName, dirents::DirectoryReply};

/// Why an operation did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The guest is told so.
    Errno(Errno),
    /// Nothing was done; the request wants a thread that may wait.
    WouldBlock,
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

/// What every operation returns.
pub type Result<T> = std::result::Result<T, Failure>;

/// The number by which a guest knows an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The root of the share, known without a LOOKUP.
    pub const ROOT: Self = Self(fuse_abi::ROOT_ID);
}

/// The number by which a guest knows an open file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HandleId(pub u64);

/// Who asks, and under which terms.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The request's own number.
    pub unique: u64,
    /// The user it is made for. May be `u32::MAX` where no file is created.
    pub uid: u32,
    /// That user's group.
    pub gid: u32,
    /// The guest's process.
    pub pid: u32,
    /// What this session agreed on.
    pub agreed: InitFlags,
    /// Whether this thread may wait.
    pub may_block: bool,
}

impl Context {
    /// Ends the operation here unless this thread may wait. Call it before the first side effect.
    ///
    /// # Errors
    /// [`Failure::WouldBlock`] on a queue's own thread.
    pub const fn leave_to_block(&self) -> Result<()> {
        if self.may_block { Ok(()) } else { Err(Failure::WouldBlock) }
    }
}

/// What a file system can do, before a guest has said what it can.
#[derive(Clone, Copy, Debug)]
pub struct Wishes {
    /// Flags to agree on if the guest offers them.
    pub flags: InitFlags,
    /// The largest WRITE, in bytes.
    pub max_write: u32,
    /// The largest read-ahead, in bytes.
    pub max_readahead: u32,
    /// How many background requests a client may have in flight, and when it counts as congested.
    pub max_background: u16,
    /// The granularity of timestamps, in nanoseconds.
    pub time_gran: u32,
    /// How many file systems may lie on top of each other under a passthrough mount; 0 when passthrough is not offered.
    pub max_stack_depth: u32,
}

/// What a guest and a file system agreed on at INIT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// The minor version in force: the lower of both.
    pub minor: u32,
    /// Flags that both have.
    pub flags: InitFlags,
}

/// What became of a message that the client did not ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The client has acted on it.
    Heard,
    /// The client may not hold what it is about, or not yet; nobody can tell.
    Unsure,
    /// Nobody listens any more.
    Gone,
}

/// Who hears a message that the client did not ask for.
pub type Ear<'e> = &'e mut dyn FnMut(&[u8]) -> Sent;

/// What goes with every creation.
#[derive(Clone, Copy, Debug)]
pub struct Creation<'r> {
    /// Type and permission bits; the umask is applied already unless `DONT_MASK` was agreed on.
    pub mode: u32,
    /// The guest process's umask.
    pub umask: u32,
    /// A supplementary group of the caller that owns the directory.
    pub group: Option<u32>,
    /// A security label to give at birth.
    pub security: Option<SecurityContext<'r>>,
}

/// A security label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecurityContext<'r> {
    /// The attribute's name, such as `security.selinux`.
    pub name: &'r CStr,
    /// Its value.
    pub value: &'r [u8],
}

/// A timestamp to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewTime {
    /// The moment at which the change is made.
    Now,
    /// A moment given by the caller.
    At(Timestamp),
}

/// What SETATTR is to change; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttributeChanges {
    /// The open file that a change of size goes through.
    pub handle: Option<HandleId>,
    /// New permission bits.
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New size.
    pub size: Option<u64>,
    /// New access time.
    pub atime: Option<NewTime>,
    /// New modification time.
    pub mtime: Option<NewTime>,
    /// New change time. No host sets one; a change of anything moves it.
    pub ctime: Option<Timestamp>,
    /// A change of size also drops setuid and setgid bits.
    pub kill_suidgid: bool,
}

/// Where a READ begins and how much it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadArgs {
    /// The open file.
    pub handle: HandleId,
    /// Position in the file, representable as a signed number.
    pub offset: u64,
    /// How many bytes. The body has exactly this room.
    pub size: u32,
}

/// Where a WRITE goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteArgs {
    /// The open file.
    pub handle: HandleId,
    /// Position in the file, representable as a signed number.
    pub offset: u64,
    /// Written back from the guest's page cache, on behalf of nobody in particular.
    pub from_cache: bool,
    /// The write drops setuid and setgid bits.
    pub kill_suidgid: bool,
    /// What the guest's descriptor was opened with, as far as a write is concerned. Its access is not told.
    pub flags: OpenFlags,
}

/// Where a directory is to be read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadDirArgs {
    /// The open directory.
    pub handle: HandleId,
    /// 0, or the cookie of the entry after which to go on.
    pub offset: u64,
}

/// How LSEEK finds a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whence {
    /// SEEK_SET.
    Start,
    /// SEEK_CUR.
    Current,
    /// SEEK_END.
    End,
    /// The next data at or after the offset.
    Data,
    /// The next hole at or after the offset.
    Hole,
}

/// A range to copy inside the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyRange {
    /// Where it comes from.
    pub from: (NodeId, HandleId),
    /// Position there.
    pub from_offset: u64,
    /// Where it goes.
    pub to: (NodeId, HandleId),
    /// Position there.
    pub to_offset: u64,
    /// How many bytes.
    pub len: u64,
}

/// How RENAME treats what is at the new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// Replace it.
    Replace,
    /// Fail if it exists.
    NoReplace,
    /// Swap both.
    Exchange,
    /// Replace it, and leave a whiteout at the old name.
    Whiteout {
        /// Fail if the new name exists.
        no_replace: bool,
    },
}

/// The extended inode attributes of FS_IOC_FSGETXATTR, as they travel.
pub type ExtendedFlags = [u8; 28];

/// The ioctls a shared file system serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ioctl {
    /// FS_IOC_GETFLAGS.
    GetFlags,
    /// FS_IOC_SETFLAGS.
    SetFlags(u32),
    /// FS_IOC_FSGETXATTR.
    GetExtended,
    /// FS_IOC_FSSETXATTR.
    SetExtended(ExtendedFlags),
}

/// What an ioctl gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoctlData {
    /// Only that it succeeded.
    Nothing,
    /// Inode flags.
    Flags(u32),
    /// Extended inode attributes.
    Extended(ExtendedFlags),
}

/// A request about a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockArgs {
    /// The open file.
    pub handle: HandleId,
    /// Who holds or wants it, as the guest tells its owners apart.
    pub owner: u64,
    /// Range, type and process.
    pub lock: FileLock,
    /// A lock on the whole open file (`flock`), not a range of bytes.
    pub flock: bool,
    /// Wait until it is granted.
    pub wait: bool,
}

/// A file system that a guest can mount.
///
/// What an implementation leaves out answers `ENOSYS`, and clients stop asking.
#[allow(unused_variables, clippy::missing_errors_doc)]
pub trait FileSystem: Send + Sync {
    /// What it can do.
    fn wishes(&self) -> Wishes;
    /// A session begins on these terms.
    fn begin(&self, agreed: &Agreement) {}
    /// The session is over: every inode and handle of it is released. Said again when the client leaves, for what
    /// requests took that overlapped with the end.
    fn end(&self) {}
    /// A thread is about to serve requests: the time for what its privileges allow and later ones do not.
    fn begin_thread(&self) {}

    /// Somebody may listen: [`speak`](Self::speak) and [`watch`](Self::watch) are about to begin, each on a thread of its own.
    fn unmute(&self) {}
    /// Says what the client did not ask for, a message at a time, until nobody listens or [`mute`](Self::mute). An empty
    /// message asks whether anybody does. Every thread that serves has its place in `turns`.
    /// Without `send` nobody hears, and the file system may keep a record for others.
    fn speak(&self, turns: &Turns, send: Option<Ear<'_>>) {}
    /// Follows what happens on the host, until [`mute`](Self::mute).
    fn watch(&self) {}
    /// Nobody listens for now: ends [`speak`](Self::speak) if it is under way.
    fn unheard(&self) {}
    /// Whether [`speak`](Self::speak) would end at once.
    fn is_mute(&self) -> bool {
        true
    }
    /// Ends [`speak`](Self::speak) and [`watch`](Self::watch), those under way and those to come.
    fn mute(&self) {}

    /// Finds a name in a directory. The reply counts as a reference until FORGET.
    fn lookup(&self, cx: &Context, parent: NodeId, name: LookupName<'_>) -> Result<EntryOut> {
        unserved()
    }
    /// Gives back references. Has no reply.
    fn forget(&self, node: NodeId, count: u64) {}
    /// Attributes of an inode, through an open file if one is named.
    fn getattr(&self, cx: &Context, node: NodeId, handle: Option<HandleId>) -> Result<AttrOut> {
        unserved()
    }
    /// More attributes than GETATTR has.
    fn statx(&self, cx: &Context, node: NodeId, handle: Option<HandleId>, flags: u32, mask: u32) -> Result<StatxOut> {
        unserved()
    }
    /// Changes attributes.
    fn setattr(&self, cx: &Context, node: NodeId, changes: &AttributeChanges) -> Result<AttrOut> {
        unserved()
    }
    /// Checks what the caller may do, where the client does not check by itself.
    fn access(&self, cx: &Context, node: NodeId, mask: u32) -> Result<()> {
        unserved()
    }
    /// Where a symbolic link points.
    fn readlink(&self, cx: &Context, node: NodeId, body: &mut Body<'_>) -> Result<()> {
        unserved()
    }

    /// Makes a symbolic link.
    fn symlink(
        &self,
        cx: &Context,
        parent: NodeId,
        name: Name<'_>,
        target: SymlinkTarget<'_>,
        new: &Creation<'_>,
    ) -> Result<EntryOut> {
        unserved()
    }
    /// Makes a file, FIFO, socket or device node.
    fn mknod(&self, cx: &Context, parent: NodeId, name: Name<'_>, rdev: u32, new: &Creation<'_>) -> Result<EntryOut> {
        unserved()
    }
    /// Makes a directory.
    fn mkdir(&self, cx: &Context, parent: NodeId, name: Name<'_>, new: &Creation<'_>) -> Result<EntryOut> {
        unserved()
    }
    /// Removes a name that is not a directory's.
    fn unlink(&self, cx: &Context, parent: NodeId, name: Name<'_>) -> Result<()> {
        unserved()
    }
    /// Removes an empty directory.
    fn rmdir(&self, cx: &Context, parent: NodeId, name: Name<'_>) -> Result<()> {
        unserved()
    }
    /// Moves a name.
    fn rename(&self, cx: &Context, from: (NodeId, Name<'_>), to: (NodeId, Name<'_>), mode: RenameMode) -> Result<()> {
        unserved()
    }
    /// Gives an inode another name.
    fn link(&self, cx: &Context, node: NodeId, parent: NodeId, name: Name<'_>) -> Result<EntryOut> {
        unserved()
    }

    /// Opens a file.
    fn open(&self, cx: &Context, node: NodeId, flags: OpenFlags, kill_suidgid: bool) -> Result<OpenOut> {
        unserved()
    }
    /// Makes a file and opens it.
    fn create(
        &self,
        cx: &Context,
        parent: NodeId,
        name: Name<'_>,
        flags: OpenFlags,
        kill_suidgid: bool,
        new: &Creation<'_>,
    ) -> Result<(EntryOut, OpenOut)> {
        unserved()
    }
    /// Makes a file without a name and opens it.
    fn tmpfile(
        &self,
        cx: &Context,
        parent: NodeId,
        flags: OpenFlags,
        new: &Creation<'_>,
    ) -> Result<(EntryOut, OpenOut)> {
        unserved()
    }
    /// Reads into the body, which has room for exactly what was asked.
    fn read(&self, cx: &Context, node: NodeId, args: &ReadArgs, body: &mut Body<'_>) -> Result<()> {
        unserved()
    }
    /// Writes the payload; says how much was taken.
    fn write(&self, cx: &Context, node: NodeId, args: &WriteArgs, payload: Payload<'_>) -> Result<u32> {
        unserved()
    }
    /// A descriptor of the guest was closed; others may remain.
    fn flush(&self, cx: &Context, node: NodeId, handle: HandleId, lock_owner: u64) -> Result<()> {
        unserved()
    }
    /// The open file is gone. `flock_owner` is set when locks of it are to be given back.
    fn release(&self, cx: &Context, node: NodeId, handle: HandleId, flock_owner: Option<u64>) -> Result<()> {
        unserved()
    }
    /// Brings a file to the disk.
    fn fsync(&self, cx: &Context, node: NodeId, handle: HandleId, data_only: bool) -> Result<()> {
        unserved()
    }
    /// Allocates or punches space. `mode` has Linux's bits.
    fn fallocate(&self, cx: &Context, node: NodeId, handle: HandleId, mode: u32, offset: u64, len: u64) -> Result<()> {
        unserved()
    }
    /// Finds data or a hole.
    fn lseek(&self, cx: &Context, node: NodeId, handle: HandleId, offset: u64, whence: Whence) -> Result<u64> {
        unserved()
    }
    /// Copies between files inside the host; says how much.
    fn copy_file_range(&self, cx: &Context, range: &CopyRange) -> Result<u64> {
        unserved()
    }
    /// The inode ioctls that a shared file system can serve.
    fn ioctl(&self, cx: &Context, node: NodeId, handle: HandleId, request: &Ioctl) -> Result<IoctlData> {
        unserved()
    }

    /// Opens a directory.
    fn opendir(&self, cx: &Context, node: NodeId, flags: OpenFlags) -> Result<OpenOut> {
        unserved()
    }
    /// Lists a directory.
    fn readdir(
        &self,
        cx: &Context,
        node: NodeId,
        args: &ReadDirArgs,
        reply: &mut DirectoryReply<'_, '_>,
    ) -> Result<()> {
        unserved()
    }
    /// Lists a directory and looks every entry up.
    fn readdirplus(
        &self,
        cx: &Context,
        node: NodeId,
        args: &ReadDirArgs,
        reply: &mut DirectoryReply<'_, '_>,
    ) -> Result<()> {
        unserved()
    }
    /// The open directory is gone.
    fn releasedir(&self, cx: &Context, node: NodeId, handle: HandleId) -> Result<()> {
        unserved()
    }
    /// Brings a directory to the disk.
    fn fsyncdir(&self, cx: &Context, node: NodeId, handle: HandleId, data_only: bool) -> Result<()> {
        unserved()
    }

    /// How full the file system is.
    fn statfs(&self, cx: &Context, node: NodeId) -> Result<Kstatfs> {
        unserved()
    }
    /// Brings the whole file system that holds `node` to the disk.
    fn syncfs(&self, cx: &Context, node: NodeId) -> Result<()> {
        unserved()
    }

    /// Reads an extended attribute. With `size` 0 only its length is wanted; longer than `size` is `ERANGE`.
    fn getxattr(&self, cx: &Context, node: NodeId, name: XattrName<'_>, size: u32, body: &mut Body<'_>) -> Result<u32> {
        unserved()
    }
    /// Lists extended attributes. With `size` 0 only the list's length is wanted.
    fn listxattr(&self, cx: &Context, node: NodeId, size: u32, body: &mut Body<'_>) -> Result<u32> {
        unserved()
    }
    /// Sets an extended attribute. `flags` are Linux's XATTR_CREATE and XATTR_REPLACE.
    fn setxattr(
        &self,
        cx: &Context,
        node: NodeId,
        name: XattrName<'_>,
        value: &[u8],
        flags: u32,
        kill_sgid: bool,
    ) -> Result<()> {
        unserved()
    }
    /// Removes an extended attribute.
    fn removexattr(&self, cx: &Context, node: NodeId, name: XattrName<'_>) -> Result<()> {
        unserved()
    }

    /// Whether a lock could be had; the answer has type F_UNLCK or describes the one in the way.
    fn getlk(&self, cx: &Context, node: NodeId, args: &LockArgs) -> Result<FileLock> {
        unserved()
    }
    /// Sets or gives back a lock.
    fn setlk(&self, cx: &Context, node: NodeId, args: &LockArgs) -> Result<()> {
        unserved()
    }
    /// The request `unique` is no longer waited for. Has no reply.
    fn interrupt(&self, unique: u64) {}
}

fn unserved<T>() -> Result<T> {
    Err(Failure::Errno(Errno::ENOSYS))
}
