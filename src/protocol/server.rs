//! One request from its bytes to its reply: parse, refuse what a read-only share must not do, call the file system.

use std::sync::atomic::{AtomicU64, Ordering};

use fuse_abi::{
    CopyFileRangeOut, Errno, GetxattrOut, InitOut, IoctlOut, LkOut, LseekOut, S_IFLNK, StatfsOut, WriteOut,
};
use vm_memory::VolatileSlice;

use super::arguments::{AttributeSource, Offer, RenameTo};
use super::file_arguments::{Listing, Writing, XattrSize};
use super::reply::{Dropped, Reply, Served};
use super::request::{MAX_HEAD, Message, Terms, head_len};
use super::session::Session;
use super::turns::Turns;
use super::wire::Wire;
use super::{
    Agreement, Body, Context, DirectoryReply, Ear, Failure, FileSystem, GuestArch, IoctlData, LockArgs, NodeId,
    Operation, Payload, ReadDirArgs, RenameMode, Request, Result,
};

/// The longest target a symbolic link can have; Linux leaves no room for more.
const TARGET_MAX: usize = 4095;
/// What the 32 bits in COPY_FILE_RANGE's reply can count, in whole pages.
const COPY_MAX: u64 = 0xffff_f000;

/// How a file system is served.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Refuse with `EROFS` whatever would change it.
    pub read_only: bool,
    /// Whose numbers the guest's open flags have.
    pub arch: GuestArch,
}

impl Default for Options {
    fn default() -> Self {
        Self { read_only: false, arch: GuestArch::NATIVE }
    }
}

/// Serves a file system to one client, on as many threads as like.
///
/// Requests run at once with each other, also with the INIT or DESTROY that ends their session: a request that began
/// before the end may finish after it. A client waits for its requests before it says DESTROY, and a transport drains
/// its queues before it resets, so only a hostile guest makes them meet; what it gains is references that the next end
/// takes.
#[derive(Debug)]
pub struct Server<F> {
    fs: F,
    options: Options,
    session: Session,
    turns: Turns,
    mistakes: AtomicU64,
}

impl<F: FileSystem> Server<F> {
    /// Serves `fs`.
    pub fn new(fs: F, options: Options) -> Self {
        Self { fs, options, session: Session::default(), turns: Turns::default(), mistakes: AtomicU64::new(0) }
    }

    /// What is served.
    pub const fn file_system(&self) -> &F {
        &self.fs
    }

    /// How many requests ended in a panic of the file system's or of this crate.
    pub fn mistakes(&self) -> u64 {
        self.mistakes.load(Ordering::Relaxed)
    }

    /// What the session in force agreed on.
    pub fn agreement(&self) -> Option<Agreement> {
        self.session.agreement()
    }

    /// Where threads that serve say what they are about, for what is said unasked to keep its place among the answers.
    pub const fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Lets the file system speak unasked, by `send`, until [`FileSystem::mute`] or until nobody listens any more.
    pub fn speak(&self, send: Option<Ear<'_>>) {
        self.fs.speak(&self.turns, send);
    }

    /// Ends the session, however often DESTROY did: the client is gone, and no request of it is under way.
    pub fn end_session(&self) {
        self.session.leave(&self.fs);
    }

    /// How many bytes of a request a transport copies before it calls [`serve`](Self::serve): all but the data of a
    /// WRITE, [`MAX_HEAD`] at most.
    ///
    /// `start` is the beginning of the request as it was copied out of guest memory (the header, or all there is),
    /// `available` how many bytes the request has in all. The caller goes on copying after `start`, never over it:
    /// guest memory may have changed since.
    pub fn head_len(&self, start: &[u8], available: usize) -> usize {
        self.private_head_len(start, available).min(MAX_HEAD)
    }

    /// The same for a request that nobody else can write to and that lies in one piece: nothing is copied, so nothing
    /// is too long. The kernel's `/dev/fuse` puts as many forgets into a batch as fit the buffer it reads into.
    pub fn private_head_len(&self, start: &[u8], available: usize) -> usize {
        head_len(start, available, self.agreement().map_or(0, |agreed| agreed.minor))
    }

    /// Serves one request. `head` is the request but for the data of a WRITE, which is `payload`; the reply goes to
    /// `reply`. Unless this thread `may_block`, a request that would wait ends as [`Served::WouldBlock`] and can be
    /// served again.
    pub fn serve(&self, head: &[u8], payload: Payload<'_>, reply: &[VolatileSlice<'_>], may_block: bool) -> Served {
        let Some(message) = Message::open(head) else { return Served::Dropped(Dropped::NoHeader) };
        let call = Call { agreed: self.session.agreement(), message, payload, may_block };
        if message.operation.is_some_and(|operation| !operation.has_reply()) {
            let heard = || self.request(&call).map(|request| self.hear(request, NodeId(message.header.nodeid)));
            return match self.contained(heard).unwrap_or(Err(Errno::EIO)) {
                Ok(()) => Served::Silent,
                Err(errno) => Served::Dropped(Dropped::Refused(errno)),
            };
        }
        let minor = call.agreed.map_or(0, |agreed| agreed.minor);
        let Some(mut reply) = Reply::new(reply, message.header.unique, minor) else {
            return Served::Dropped(Dropped::NoRoom);
        };
        match self.contained(|| self.answer(&call, &mut reply)).unwrap_or(Err(Failure::Errno(Errno::EIO))) {
            Ok(()) => reply.finish(Ok(())),
            Err(Failure::Errno(errno)) => reply.finish(Err(errno)),
            Err(Failure::WouldBlock) if !may_block => Served::WouldBlock,
            // A file system that has leave to wait and does not: nothing can be done for the request.
            Err(Failure::WouldBlock) => reply.finish(Err(Errno::EIO)),
        }
    }

    /// Does a request's work. A panic in it ends this request, and not the thread that serves all others of its queue.
    fn contained<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        if done.is_err() {
            self.mistakes.fetch_add(1, Ordering::Relaxed);
        }
        done.ok()
    }

    /// The request, if it may be made now.
    fn request<'r>(&self, call: &Call<'r>) -> std::result::Result<Request<'r>, Errno> {
        let any_time = matches!(call.message.operation, Some(Operation::Init | Operation::Destroy));
        let agreed = match call.agreed {
            Some(agreed) => agreed,
            None if any_time => Agreement::default(),
            // Nothing can be understood before it is agreed on.
            None => return Err(Errno::EIO),
        };
        let request = call.message.parse(call.payload.len(), &Terms { agreed, arch: self.options.arch })?;
        if self.options.read_only && request.changes() {
            return Err(Errno::EROFS);
        }
        Ok(request)
    }

    /// Does what has no reply.
    fn hear(&self, request: Request<'_>, node: NodeId) {
        match request {
            Request::Forget { count } => self.fs.forget(node, count),
            Request::BatchForget { forgets } => forgets.iter().for_each(|(node, count)| self.fs.forget(node, count)),
            Request::Interrupt { unique } => self.fs.interrupt(unique),
            _ => {}
        }
    }

    fn answer(&self, call: &Call<'_>, reply: &mut Reply<'_>) -> Result<()> {
        let request = self.request(call)?;
        let agreed = call.agreed.unwrap_or_default();
        // Asked before anything is done: what a lookup or an open gives could not be given back otherwise.
        if reply.room() < request.operation().reply_size(agreed.minor) {
            return Err(Failure::Errno(Errno::EINVAL));
        }
        let header = &call.message.header;
        let cx = Context {
            unique: header.unique,
            uid: header.uid,
            gid: header.gid,
            pid: header.pid,
            agreed: agreed.flags,
            may_block: call.may_block,
        };
        self.dispatch(&cx, NodeId(header.nodeid), request, call.payload, reply)
    }

    fn init(&self, offer: &Offer, reply: &mut Reply<'_>) -> Result<()> {
        let minor = if offer.major == fuse_abi::KERNEL_VERSION { offer.minor } else { fuse_abi::KERNEL_MINOR_VERSION };
        if reply.room() < InitOut::size(minor) {
            return Err(Failure::Errno(Errno::EINVAL));
        }
        reply.put_for(&self.session.begin(&self.fs, offer)?, minor)
    }

    /// The counterpart of the table: a line an operation.
    fn dispatch(
        &self,
        cx: &Context,
        node: NodeId,
        request: Request<'_>,
        payload: Payload<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<()> {
        use Request as R;
        let fs = &self.fs;
        match request {
            R::Init { offer } => self.init(&offer, reply),
            R::Destroy {} => {
                self.session.end(&self.fs);
                Ok(())
            }
            // Heard above; the table says that they have no reply.
            R::Forget { .. } | R::BatchForget { .. } | R::Interrupt { .. } => Ok(()),

            R::Lookup { name } => reply.put(&fs.lookup(cx, node, name)?),
            R::Getattr { source: AttributeSource(handle) } => reply.put(&fs.getattr(cx, node, handle)?),
            R::Statx { args } => reply.put(&fs.statx(cx, node, args.source.0, args.flags, args.mask)?),
            R::Setattr { changes } => reply.put(&fs.setattr(cx, node, &changes)?),
            R::Access { mask } => fs.access(cx, node, mask.0),
            R::Readlink {} => fs.readlink(cx, node, reply.at_most(TARGET_MAX)),

            R::Symlink { name, target, ext } => {
                reply.put(&fs.symlink(cx, node, name, target, &ext.creation(S_IFLNK | 0o777, 0))?)
            }
            R::Mknod { new, name, ext } => {
                reply.put(&fs.mknod(cx, node, name, new.rdev, &ext.creation(new.mode, new.umask))?)
            }
            R::Mkdir { new, name, ext } => reply.put(&fs.mkdir(cx, node, name, &ext.creation(new.mode, new.umask))?),
            R::Unlink { name } => fs.unlink(cx, node, name),
            R::Rmdir { name } => fs.rmdir(cx, node, name),
            R::Rename { to, name, new_name } => fs.rename(cx, (node, name), (to, new_name), RenameMode::Replace),
            R::Rename2 { to: RenameTo { directory, mode }, name, new_name } => {
                fs.rename(cx, (node, name), (directory, new_name), mode)
            }
            R::Link { node: linked, name } => reply.put(&fs.link(cx, linked, node, name)?),

            R::Open { open } => reply.put(&fs.open(cx, node, open.flags, open.kill_suidgid)?),
            R::Create { new, name, ext } => {
                let how = ext.creation(new.mode, new.umask);
                let (entry, open) = fs.create(cx, node, name, new.flags, new.kill_suidgid, &how)?;
                reply.put(&entry)?;
                reply.put(&open)
            }
            R::Tmpfile { new, name: _, ext } => {
                let (entry, open) = fs.tmpfile(cx, node, new.flags, &ext.creation(new.mode, new.umask))?;
                reply.put(&entry)?;
                reply.put(&open)
            }
            R::Read { args } => fs.read(cx, node, &args, reply.exactly(args.size)?),
            R::Write { write: Writing(args) } => {
                reply.put(&WriteOut { size: fs.write(cx, node, &args, payload)?, padding: 0 })
            }
            R::Flush { args } => fs.flush(cx, node, args.handle, args.lock_owner),
            R::Release { args } => fs.release(cx, node, args.handle, args.flock_owner),
            R::Fsync { args } => fs.fsync(cx, node, args.handle, args.data_only),
            R::Fallocate { args } => fs.fallocate(cx, node, args.handle, args.mode, args.offset, args.len),
            R::Lseek { args } => {
                reply.put(&LseekOut { offset: fs.lseek(cx, node, args.handle, args.offset, args.whence)? })
            }
            R::CopyFileRange { mut range } => {
                range.len = range.len.min(COPY_MAX);
                let copied = fs.copy_file_range(cx, &range)?;
                reply.put(&WriteOut { size: u32::try_from(copied).map_err(|_| Errno::EIO)?, padding: 0 })
            }
            R::CopyFileRange64 { range } => {
                reply.put(&CopyFileRangeOut { bytes_copied: fs.copy_file_range(cx, &range)? })
            }
            R::Ioctl { call } => {
                let data = fs.ioctl(cx, node, call.handle, &call.request)?;
                reply.put(&IoctlOut::default())?;
                match data {
                    IoctlData::Nothing => Ok(()),
                    IoctlData::Flags(flags) => reply.put_bytes(&flags.to_ne_bytes()),
                    IoctlData::Extended(extended) => reply.put_bytes(&extended),
                }
            }

            R::Opendir { open } => reply.put(&fs.opendir(cx, node, open.flags)?),
            R::Readdir { args } => {
                let (args, body) = listing(&args, reply)?;
                fs.readdir(cx, node, &args, &mut DirectoryReply::new(body))
            }
            R::Readdirplus { args } => {
                let (args, body) = listing(&args, reply)?;
                fs.readdirplus(cx, node, &args, &mut DirectoryReply::new(body))
            }
            R::Releasedir { args } => fs.releasedir(cx, node, args.handle),
            R::Fsyncdir { args } => fs.fsyncdir(cx, node, args.handle, args.data_only),

            R::Statfs {} => reply.put(&StatfsOut { st: fs.statfs(cx, node)? }),
            R::Syncfs { .. } => fs.syncfs(cx, node),

            R::Getxattr { size, name } => sized(size, reply, |size, body| fs.getxattr(cx, node, name, size, body)),
            R::Listxattr { size } => sized(size, reply, |size, body| fs.listxattr(cx, node, size, body)),
            R::Setxattr { xattr: x } => fs.setxattr(cx, node, x.name, x.value, x.flags, x.kill_sgid),
            R::Removexattr { name } => fs.removexattr(cx, node, name),

            R::Getlk { lock } => reply.put(&LkOut { lk: fs.getlk(cx, node, &lock)? }),
            R::Setlk { lock } => fs.setlk(cx, node, &lock),
            R::Setlkw { lock } => fs.setlk(cx, node, &LockArgs { wait: true, ..lock }),
        }
    }
}

/// A request on its way through the server.
struct Call<'r> {
    agreed: Option<Agreement>,
    message: Message<'r>,
    payload: Payload<'r>,
    may_block: bool,
}

fn listing<'b, 'r>(args: &Listing, reply: &'b mut Reply<'r>) -> Result<(ReadDirArgs, &'b mut Body<'r>)> {
    let body = reply.exactly(args.size)?;
    Ok((ReadDirArgs { handle: args.handle, offset: args.offset }, body))
}

/// GETXATTR and LISTXATTR: the bytes themselves, or only how many there are.
fn sized(
    XattrSize(size): XattrSize,
    reply: &mut Reply<'_>,
    get: impl FnOnce(u32, &mut Body<'_>) -> Result<u32>,
) -> Result<()> {
    if size == 0 {
        let length = get(0, &mut Body::new(&[], 0))?;
        return reply.put(&GetxattrOut { size: length, padding: 0 });
    }
    get(size, reply.exactly(size)?).map(drop)
}
