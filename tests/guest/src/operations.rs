//! Typed helpers of the [`Client`]: one FUSE operation each, its reply checked and taken apart.

use fuse_abi::{
    Attr, AttrOut, CreateIn, EntryOut, ForgetIn, FsyncIn, GetattrIn, GetxattrIn, InitFlags, InitIn, InitOut, Kstatfs,
    LinkIn, MkdirIn, Opcode, OpenIn, OpenOut, ReadIn, ReleaseIn, Rename2In, SetattrIn, SetxattrInCompat, WriteIn,
    WriteOut,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::client::{Client, Request};
use crate::dirents::{self, Entry};
use crate::error::{Error, Result};

/// What a Linux guest offers in INIT over virtio-fs.
pub const LINUX_OFFERS: InitFlags = InitFlags::from_bits_retain(
    InitFlags::all().bits()
        & !(InitFlags::FILE_OPS.bits()
            | InitFlags::INIT_RESERVED.bits()
            | InitFlags::MAP_ALIGNMENT.bits()
            | InitFlags::HAS_INODE_DAX.bits()
            | InitFlags::OVER_IO_URING.bits()
            | InitFlags::HAS_IO_URING_BUFPOOL.bits()
            | InitFlags::PASSTHROUGH.bits()),
);

/// The minor version that [`Client::init`] speaks, unless another is asked for.
pub const MINOR: u32 = 43;

/// The longest target of a symbolic link.
const MAX_TARGET: u32 = 4095;

impl Client {
    /// INIT as a Linux guest sends it.
    pub fn init(&mut self) -> Result<InitOut> {
        let (flags, flags2) = LINUX_OFFERS.split();
        self.init_with(&InitIn { major: 7, minor: MINOR, max_readahead: 1 << 17, flags, flags2, ..InitIn::default() })
    }

    /// INIT with an offer of one's own; the reply must be of full length.
    pub fn init_with(&mut self, offer: &InitIn) -> Result<InitOut> {
        self.fixed(Opcode::Init, 0, &[offer.as_bytes()])
    }

    /// DESTROY.
    pub fn destroy(&mut self) -> Result<()> {
        self.empty(Opcode::Destroy, 0, &[])
    }

    /// LOOKUP.
    pub fn lookup(&mut self, parent: u64, name: impl AsRef<[u8]>) -> Result<EntryOut> {
        self.fixed(Opcode::Lookup, parent, &[name.as_ref(), b"\0"])
    }

    /// FORGET of one node, on hiprio.
    pub fn forget(&mut self, nodeid: u64, nlookup: u64) -> Result<()> {
        self.send_hiprio(Opcode::Forget, nodeid, ForgetIn { nlookup }.as_bytes())
    }

    /// GETATTR by node.
    pub fn getattr(&mut self, nodeid: u64) -> Result<Attr> {
        Ok(self.fixed::<AttrOut>(Opcode::Getattr, nodeid, &[GetattrIn::default().as_bytes()])?.attr)
    }

    /// SETATTR.
    pub fn setattr(&mut self, nodeid: u64, change: &SetattrIn) -> Result<Attr> {
        Ok(self.fixed::<AttrOut>(Opcode::Setattr, nodeid, &[change.as_bytes()])?.attr)
    }

    /// OPEN.
    pub fn open(&mut self, nodeid: u64, flags: u32) -> Result<OpenOut> {
        self.fixed(Opcode::Open, nodeid, &[OpenIn { flags, open_flags: 0 }.as_bytes()])
    }

    /// READ.
    pub fn read(&mut self, nodeid: u64, fh: u64, offset: u64, size: u32) -> Result<Vec<u8>> {
        let body = ReadIn { fh, offset, size, ..ReadIn::default() };
        self.request(&Request::new(Opcode::Read, nodeid, &[body.as_bytes()], size))
    }

    /// WRITE.
    pub fn write(&mut self, nodeid: u64, fh: u64, offset: u64, data: &[u8]) -> Result<u32> {
        let body = WriteIn { fh, offset, size: data.len() as u32, ..WriteIn::default() };
        Ok(self.fixed::<WriteOut>(Opcode::Write, nodeid, &[body.as_bytes(), data])?.size)
    }

    /// CREATE, with `O_*` in `flags`.
    pub fn create(
        &mut self,
        parent: u64,
        name: impl AsRef<[u8]>,
        mode: u32,
        flags: u32,
    ) -> Result<(EntryOut, OpenOut)> {
        let body = CreateIn { flags, mode: mode | fuse_abi::S_IFREG, ..CreateIn::default() };
        let reply = self.sized(
            Opcode::Create,
            parent,
            &[body.as_bytes(), name.as_ref(), b"\0"],
            size_of::<EntryOut>() + size_of::<OpenOut>(),
        )?;
        let (entry, open) = reply.split_at_checked(size_of::<EntryOut>()).unwrap_or_default();
        Ok((exact(entry)?, exact(open)?))
    }

    /// MKDIR.
    pub fn mkdir(&mut self, parent: u64, name: impl AsRef<[u8]>, mode: u32) -> Result<EntryOut> {
        let body = MkdirIn { mode, umask: 0 };
        self.fixed(Opcode::Mkdir, parent, &[body.as_bytes(), name.as_ref(), b"\0"])
    }

    /// SYMLINK.
    pub fn symlink(&mut self, parent: u64, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Result<EntryOut> {
        self.fixed(Opcode::Symlink, parent, &[name.as_ref(), b"\0", target.as_ref(), b"\0"])
    }

    /// READLINK.
    pub fn readlink(&mut self, nodeid: u64) -> Result<Vec<u8>> {
        self.request(&Request::new(Opcode::Readlink, nodeid, &[], MAX_TARGET))
    }

    /// LINK.
    pub fn link(&mut self, oldnodeid: u64, parent: u64, name: impl AsRef<[u8]>) -> Result<EntryOut> {
        self.fixed(Opcode::Link, parent, &[LinkIn { oldnodeid }.as_bytes(), name.as_ref(), b"\0"])
    }

    /// UNLINK.
    pub fn unlink(&mut self, parent: u64, name: impl AsRef<[u8]>) -> Result<()> {
        self.empty(Opcode::Unlink, parent, &[name.as_ref(), b"\0"])
    }

    /// RMDIR.
    pub fn rmdir(&mut self, parent: u64, name: impl AsRef<[u8]>) -> Result<()> {
        self.empty(Opcode::Rmdir, parent, &[name.as_ref(), b"\0"])
    }

    /// RENAME2.
    pub fn rename(
        &mut self,
        parent: u64,
        name: impl AsRef<[u8]>,
        newdir: u64,
        newname: impl AsRef<[u8]>,
        flags: u32,
    ) -> Result<()> {
        let body = Rename2In { newdir, flags, padding: 0 };
        self.empty(Opcode::Rename2, parent, &[body.as_bytes(), name.as_ref(), b"\0", newname.as_ref(), b"\0"])
    }

    /// RELEASE.
    pub fn release(&mut self, nodeid: u64, fh: u64) -> Result<()> {
        self.empty(Opcode::Release, nodeid, &[ReleaseIn { fh, ..ReleaseIn::default() }.as_bytes()])
    }

    /// FSYNC.
    pub fn fsync(&mut self, nodeid: u64, fh: u64) -> Result<()> {
        self.empty(Opcode::Fsync, nodeid, &[FsyncIn { fh, ..FsyncIn::default() }.as_bytes()])
    }

    /// STATFS.
    pub fn statfs(&mut self, nodeid: u64) -> Result<Kstatfs> {
        self.fixed(Opcode::Statfs, nodeid, &[])
    }

    /// GETXATTR with room for `size` bytes, which must not be 0.
    pub fn getxattr(&mut self, nodeid: u64, name: impl AsRef<[u8]>, size: u32) -> Result<Vec<u8>> {
        let body = GetxattrIn { size, padding: 0 };
        self.request(&Request::new(Opcode::Getxattr, nodeid, &[body.as_bytes(), name.as_ref(), b"\0"], size))
    }

    /// SETXATTR in its short form, for sessions without SETXATTR_EXT.
    pub fn setxattr(&mut self, nodeid: u64, name: impl AsRef<[u8]>, value: &[u8], flags: u32) -> Result<()> {
        let body = SetxattrInCompat { size: value.len() as u32, flags };
        self.empty(Opcode::Setxattr, nodeid, &[body.as_bytes(), name.as_ref(), b"\0", value])
    }

    /// OPENDIR.
    pub fn opendir(&mut self, nodeid: u64) -> Result<OpenOut> {
        self.fixed(Opcode::Opendir, nodeid, &[OpenIn::default().as_bytes()])
    }

    /// READDIR from a cookie with a buffer of `size` bytes.
    pub fn readdir(&mut self, nodeid: u64, fh: u64, offset: u64, size: u32) -> Result<Vec<Entry>> {
        let body = ReadIn { fh, offset, size, ..ReadIn::default() };
        dirents::parse(&self.request(&Request::new(Opcode::Readdir, nodeid, &[body.as_bytes()], size))?)
    }

    /// READDIRPLUS from a cookie with a buffer of `size` bytes.
    pub fn readdirplus(&mut self, nodeid: u64, fh: u64, offset: u64, size: u32) -> Result<Vec<(EntryOut, Entry)>> {
        let body = ReadIn { fh, offset, size, ..ReadIn::default() };
        dirents::parse_plus(&self.request(&Request::new(Opcode::Readdirplus, nodeid, &[body.as_bytes()], size))?)
    }

    /// A whole directory, READDIR after READDIR, `.` and `..` included.
    pub fn list(&mut self, nodeid: u64, size: u32) -> Result<Vec<Entry>> {
        let fh = self.opendir(nodeid)?.fh;
        let mut all: Vec<Entry> = Vec::new();
        loop {
            let offset = all.last().map_or(0, |entry| entry.off);
            let more = self.readdir(nodeid, fh, offset, size)?;
            if more.is_empty() {
                break;
            }
            all.extend(more);
        }
        self.releasedir(nodeid, fh)?;
        Ok(all)
    }

    /// RELEASEDIR.
    pub fn releasedir(&mut self, nodeid: u64, fh: u64) -> Result<()> {
        self.empty(Opcode::Releasedir, nodeid, &[ReleaseIn { fh, ..ReleaseIn::default() }.as_bytes()])
    }

    /// Any operation whose reply is one struct.
    pub fn fixed<T: FromBytes>(&mut self, opcode: Opcode, nodeid: u64, body: &[&[u8]]) -> Result<T> {
        exact(&self.sized(opcode, nodeid, body, size_of::<T>())?)
    }

    /// Any operation whose reply is a header alone.
    pub fn empty(&mut self, opcode: Opcode, nodeid: u64, body: &[&[u8]]) -> Result<()> {
        self.sized(opcode, nodeid, body, 0).map(drop)
    }

    fn sized(&mut self, opcode: Opcode, nodeid: u64, body: &[&[u8]], size: usize) -> Result<Vec<u8>> {
        let reply = self.request(&Request::new(opcode, nodeid, body, size as u32))?;
        if reply.len() == size {
            return Ok(reply);
        }
        Err(Error::Reply(format!("{} bytes after the header in reply to {opcode}, not {size}", reply.len())))
    }
}

fn exact<T: FromBytes>(bytes: &[u8]) -> Result<T> {
    T::read_from_bytes(bytes).map_err(|_| Error::Reply(format!("{} bytes, not {}", bytes.len(), size_of::<T>())))
}
