//! A file system that writes down what it is asked and answers with known values.

use std::ffi::CStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use ferryfs::protocol::*;
use fuse_abi::*;
use vm_memory::Bytes;

type Result<T> = ferryfs::protocol::Result<T>;

/// See the module.
pub struct Recorder {
    pub calls: Mutex<Vec<String>>,
    /// Write nothing down.
    pub quiet: bool,
    pub wishes: Wishes,
    /// READ asks for leave to block.
    pub blocks: AtomicBool,
    pub context: Mutex<Option<Context>>,
}

impl Default for Recorder {
    fn default() -> Self {
        let wishes = Wishes {
            flags: InitFlags::all(),
            max_write: 1 << 20,
            max_readahead: 1 << 16,
            max_background: 64,
            time_gran: 1,
            max_stack_depth: 1,
        };
        Self {
            calls: Mutex::default(),
            quiet: false,
            wishes,
            blocks: AtomicBool::new(false),
            context: Mutex::default(),
        }
    }
}

impl Recorder {
    /// What was asked since the last time.
    pub fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    fn note(&self, call: std::fmt::Arguments<'_>) {
        if !self.quiet {
            self.calls.lock().unwrap().push(call.to_string());
        }
    }
}

fn text(text: &CStr) -> String {
    text.to_bytes().escape_ascii().to_string()
}

fn how(new: &Creation<'_>) -> String {
    let label = new.security.map(|label| format!("{}={}", text(label.name), label.value.escape_ascii()));
    format!("mode {:o} umask {:o} group {:?} label {label:?}", new.mode, new.umask, new.group)
}

fn opened(flags: OpenFlags) -> String {
    let mut out = format!("{:?}", flags.access());
    for (set, name) in [
        (flags.append(), "append"),
        (flags.truncate(), "truncate"),
        (flags.exclusive(), "exclusive"),
        (flags.direct(), "direct"),
        (flags.sync(), "sync"),
        (flags.data_sync(), "data_sync"),
        (flags.no_atime(), "no_atime"),
    ] {
        if set {
            out = format!("{out} {name}");
        }
    }
    out
}

pub const ATTR: Attr = Attr {
    ino: 10,
    size: 0x1234,
    blocks: 3,
    atime: 1,
    mtime: 2,
    ctime: 3,
    atimensec: 4,
    mtimensec: 5,
    ctimensec: 6,
    mode: 0o100_644,
    nlink: 1,
    uid: 1000,
    gid: 1001,
    rdev: 0,
    blksize: 4096,
    flags: 0,
};

pub const ENTRY: EntryOut = EntryOut {
    nodeid: 43,
    generation: 1,
    entry_valid: 5,
    attr_valid: 6,
    entry_valid_nsec: 7,
    attr_valid_nsec: 8,
    attr: ATTR,
};

const OPEN: OpenOut = OpenOut { fh: 0x77, open_flags: 2, backing_id: 0 };
const ATTR_OUT: AttrOut = AttrOut { attr_valid: 6, attr_valid_nsec: 8, dummy: 0, attr: ATTR };

impl FileSystem for Recorder {
    fn wishes(&self) -> Wishes {
        self.wishes
    }
    fn begin(&self, agreed: &Agreement) {
        self.note(format_args!("begin 7.{}", agreed.minor));
    }
    fn end(&self) {
        self.note(format_args!("end"));
    }

    fn lookup(&self, cx: &Context, parent: NodeId, name: LookupName<'_>) -> Result<EntryOut> {
        *self.context.lock().unwrap() = Some(*cx);
        match name {
            LookupName::Name(name) => self.note(format_args!("lookup {} {}", parent.0, text(name.as_c_str()))),
            dots => self.note(format_args!("lookup {} {dots:?}", parent.0)),
        }
        Ok(ENTRY)
    }
    fn forget(&self, node: NodeId, count: u64) {
        self.note(format_args!("forget {} {count}", node.0));
    }
    fn getattr(&self, _: &Context, node: NodeId, handle: Option<HandleId>) -> Result<AttrOut> {
        self.note(format_args!("getattr {} {:?}", node.0, handle.map(|h| h.0)));
        Ok(ATTR_OUT)
    }
    fn statx(&self, _: &Context, node: NodeId, handle: Option<HandleId>, flags: u32, mask: u32) -> Result<StatxOut> {
        self.note(format_args!("statx {} {:?} {flags:#x} {mask:#x}", node.0, handle.map(|h| h.0)));
        let stat = Statx { mask: 0x7ff, blksize: 4096, ino: 10, mode: 0o100_644, nlink: 1, ..Statx::default() };
        Ok(StatxOut { attr_valid: 6, attr_valid_nsec: 8, stat, ..StatxOut::default() })
    }
    fn setattr(&self, _: &Context, node: NodeId, changes: &AttributeChanges) -> Result<AttrOut> {
        self.note(format_args!("setattr {} {changes:?}", node.0));
        Ok(ATTR_OUT)
    }
    fn access(&self, _: &Context, node: NodeId, mask: u32) -> Result<()> {
        self.note(format_args!("access {} {mask}", node.0));
        Ok(())
    }
    fn readlink(&self, _: &Context, node: NodeId, body: &mut Body<'_>) -> Result<()> {
        self.note(format_args!("readlink {} room {}", node.0, body.room()));
        let _ = body.put(b"target");
        Ok(())
    }

    fn symlink(
        &self,
        _: &Context,
        p: NodeId,
        n: Name<'_>,
        t: SymlinkTarget<'_>,
        new: &Creation<'_>,
    ) -> Result<EntryOut> {
        self.note(format_args!("symlink {} {} -> {} {}", p.0, text(n.as_c_str()), text(t.as_c_str()), how(new)));
        Ok(ENTRY)
    }
    fn mknod(&self, _: &Context, p: NodeId, n: Name<'_>, rdev: u32, new: &Creation<'_>) -> Result<EntryOut> {
        self.note(format_args!("mknod {} {} {rdev:#x} {}", p.0, text(n.as_c_str()), how(new)));
        Ok(ENTRY)
    }
    fn mkdir(&self, _: &Context, p: NodeId, n: Name<'_>, new: &Creation<'_>) -> Result<EntryOut> {
        self.note(format_args!("mkdir {} {} {}", p.0, text(n.as_c_str()), how(new)));
        Ok(ENTRY)
    }
    fn unlink(&self, _: &Context, p: NodeId, n: Name<'_>) -> Result<()> {
        self.note(format_args!("unlink {} {}", p.0, text(n.as_c_str())));
        Ok(())
    }
    fn rmdir(&self, _: &Context, p: NodeId, n: Name<'_>) -> Result<()> {
        self.note(format_args!("rmdir {} {}", p.0, text(n.as_c_str())));
        Ok(())
    }
    fn rename(&self, _: &Context, from: (NodeId, Name<'_>), to: (NodeId, Name<'_>), mode: RenameMode) -> Result<()> {
        let (a, b) = (text(from.1.as_c_str()), text(to.1.as_c_str()));
        self.note(format_args!("rename {} {a} -> {} {b} {mode:?}", from.0.0, to.0.0));
        Ok(())
    }
    fn link(&self, _: &Context, node: NodeId, p: NodeId, n: Name<'_>) -> Result<EntryOut> {
        self.note(format_args!("link {} at {} {}", node.0, p.0, text(n.as_c_str())));
        Ok(ENTRY)
    }

    fn open(&self, _: &Context, node: NodeId, flags: OpenFlags, kill: bool) -> Result<OpenOut> {
        self.note(format_args!("open {} {} kill {kill}", node.0, opened(flags)));
        Ok(OPEN)
    }
    fn create(
        &self,
        _: &Context,
        p: NodeId,
        n: Name<'_>,
        flags: OpenFlags,
        kill: bool,
        new: &Creation<'_>,
    ) -> Result<(EntryOut, OpenOut)> {
        self.note(format_args!("create {} {} {} kill {kill} {}", p.0, text(n.as_c_str()), opened(flags), how(new)));
        Ok((ENTRY, OPEN))
    }
    fn tmpfile(&self, _: &Context, p: NodeId, flags: OpenFlags, new: &Creation<'_>) -> Result<(EntryOut, OpenOut)> {
        self.note(format_args!("tmpfile {} {} {}", p.0, opened(flags), how(new)));
        Ok((ENTRY, OPEN))
    }
    fn read(&self, cx: &Context, node: NodeId, args: &ReadArgs, body: &mut Body<'_>) -> Result<()> {
        if self.blocks.load(Ordering::Relaxed) {
            cx.leave_to_block()?;
        }
        self.note(format_args!("read {} {args:?}", node.0));
        // As much as the memory takes, as `preadv` on a long file would.
        let mut total = 0;
        for segment in body.unfilled() {
            segment.write_slice(&vec![b'D'; segment.len()], 0).unwrap();
            total += segment.len();
        }
        body.filled(total);
        Ok(())
    }
    fn write(&self, _: &Context, node: NodeId, args: &WriteArgs, payload: Payload<'_>) -> Result<u32> {
        let mut data = Vec::new();
        for segment in payload.segments() {
            let mut part = vec![0; segment.len()];
            segment.read_slice(&mut part, 0).unwrap();
            data.extend(part);
        }
        self.note(format_args!("write {} {args:?} {}", node.0, data.escape_ascii()));
        Ok(data.len() as u32)
    }
    fn flush(&self, _: &Context, node: NodeId, handle: HandleId, lock_owner: u64) -> Result<()> {
        self.note(format_args!("flush {} {} {lock_owner}", node.0, handle.0));
        Ok(())
    }
    fn release(&self, _: &Context, node: NodeId, handle: HandleId, flock_owner: Option<u64>) -> Result<()> {
        self.note(format_args!("release {} {} {flock_owner:?}", node.0, handle.0));
        Ok(())
    }
    fn fsync(&self, _: &Context, node: NodeId, handle: HandleId, data_only: bool) -> Result<()> {
        self.note(format_args!("fsync {} {} {data_only}", node.0, handle.0));
        Ok(())
    }
    fn fallocate(&self, _: &Context, node: NodeId, h: HandleId, mode: u32, offset: u64, len: u64) -> Result<()> {
        self.note(format_args!("fallocate {} {} {mode:#x} {offset} {len}", node.0, h.0));
        Ok(())
    }
    fn lseek(&self, _: &Context, node: NodeId, handle: HandleId, offset: u64, whence: Whence) -> Result<u64> {
        self.note(format_args!("lseek {} {} {offset} {whence:?}", node.0, handle.0));
        Ok(0x3000)
    }
    fn copy_file_range(&self, _: &Context, range: &CopyRange) -> Result<u64> {
        self.note(format_args!("copy_file_range {range:?}"));
        Ok(range.len)
    }
    fn ioctl(&self, _: &Context, node: NodeId, handle: HandleId, request: &Ioctl) -> Result<IoctlData> {
        self.note(format_args!("ioctl {} {} {request:?}", node.0, handle.0));
        Ok(match request {
            Ioctl::GetFlags => IoctlData::Flags(0x80),
            Ioctl::GetExtended => IoctlData::Extended([9; 28]),
            Ioctl::SetFlags(_) | Ioctl::SetExtended(_) => IoctlData::Nothing,
        })
    }

    fn opendir(&self, _: &Context, node: NodeId, flags: OpenFlags) -> Result<OpenOut> {
        self.note(format_args!("opendir {} {}", node.0, opened(flags)));
        Ok(OPEN)
    }
    fn readdir(&self, _: &Context, node: NodeId, args: &ReadDirArgs, reply: &mut DirectoryReply<'_, '_>) -> Result<()> {
        self.note(format_args!("readdir {} {args:?}", node.0));
        let _ = reply.push(10, 1, 8, b"a.txt") && reply.push(11, 2, 4, b"directory");
        Ok(())
    }
    fn readdirplus(
        &self,
        _: &Context,
        n: NodeId,
        args: &ReadDirArgs,
        reply: &mut DirectoryReply<'_, '_>,
    ) -> Result<()> {
        self.note(format_args!("readdirplus {} {args:?}", n.0));
        let _ = reply.push_plus(&ENTRY, 10, 1, 8, b"a.txt");
        Ok(())
    }
    fn releasedir(&self, _: &Context, node: NodeId, handle: HandleId) -> Result<()> {
        self.note(format_args!("releasedir {} {}", node.0, handle.0));
        Ok(())
    }
    fn fsyncdir(&self, _: &Context, node: NodeId, handle: HandleId, data_only: bool) -> Result<()> {
        self.note(format_args!("fsyncdir {} {} {data_only}", node.0, handle.0));
        Ok(())
    }

    fn statfs(&self, _: &Context, node: NodeId) -> Result<Kstatfs> {
        self.note(format_args!("statfs {}", node.0));
        Ok(Kstatfs {
            blocks: 100,
            bfree: 50,
            bavail: 40,
            files: 30,
            ffree: 20,
            bsize: 4096,
            namelen: 255,
            frsize: 4096,
            ..Kstatfs::default()
        })
    }
    fn syncfs(&self, _: &Context, node: NodeId) -> Result<()> {
        self.note(format_args!("syncfs {}", node.0));
        Ok(())
    }

    fn getxattr(&self, _: &Context, n: NodeId, name: XattrName<'_>, size: u32, body: &mut Body<'_>) -> Result<u32> {
        self.note(format_args!("getxattr {} {} {size} room {}", n.0, text(name.as_c_str()), body.room()));
        let _ = size != 0 && body.put(b"value");
        Ok(5)
    }
    fn listxattr(&self, _: &Context, node: NodeId, size: u32, body: &mut Body<'_>) -> Result<u32> {
        self.note(format_args!("listxattr {} {size} room {}", node.0, body.room()));
        let _ = size != 0 && body.put(b"user.a\0user.b\0");
        Ok(14)
    }
    fn setxattr(&self, _: &Context, n: NodeId, name: XattrName<'_>, v: &[u8], flags: u32, kill: bool) -> Result<()> {
        let value = v.escape_ascii();
        self.note(format_args!("setxattr {} {}={value} {flags} kill {kill}", n.0, text(name.as_c_str())));
        Ok(())
    }
    fn removexattr(&self, _: &Context, node: NodeId, name: XattrName<'_>) -> Result<()> {
        self.note(format_args!("removexattr {} {}", node.0, text(name.as_c_str())));
        Ok(())
    }

    fn getlk(&self, _: &Context, node: NodeId, args: &LockArgs) -> Result<FileLock> {
        self.note(format_args!("getlk {} {args:?}", node.0));
        Ok(FileLock { start: 1, end: 2, r#type: 1, pid: 99 })
    }
    fn setlk(&self, _: &Context, node: NodeId, args: &LockArgs) -> Result<()> {
        self.note(format_args!("setlk {} {args:?}", node.0));
        Ok(())
    }
    fn interrupt(&self, unique: u64) {
        self.note(format_args!("interrupt {unique}"));
    }
}
