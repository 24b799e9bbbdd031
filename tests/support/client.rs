//! Each operation as a call with types.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use ferryfs::{passthrough::Passthrough, protocol::Server};
use fuse_abi::*;
use zerocopy::{FromBytes, IntoBytes};

use super::{
    Result,
    wire::{Answer, Message, Queue},
};

/// A queue and whoever uses it.
#[derive(Clone)]
pub struct Client {
    pub server: Arc<Server<Passthrough>>,
    queue: Arc<Queue>,
    pub uid: u32,
    pub gid: u32,
    pub umask: u32,
    /// The supplementary group that goes with creations.
    pub group: Option<u32>,
    /// The security label that goes with creations.
    pub label: Option<(&'static str, &'static [u8])>,
}

/// An entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub ino: u64,
    pub next: u64,
    pub kind: u32,
}

/// Room for any struct of a reply.
const STRUCT: usize = 1024;
/// The process of the guest.
const PID: u32 = 4321;
static UNIQUE: AtomicU64 = AtomicU64::new(2);

fn decode<T: FromBytes>(bytes: &[u8]) -> T {
    T::read_from_bytes(bytes).unwrap_or_else(|_| panic!("a reply of {} bytes", size_of::<T>()))
}

fn text(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0"].concat()
}

impl Client {
    pub fn new(server: &Arc<Server<Passthrough>>) -> Self {
        Self::on(server, Queue::new(server))
    }

    /// On the calling thread: for tests that watch what that thread does.
    pub fn here(server: &Arc<Server<Passthrough>>) -> Self {
        Self::on(server, Queue::here(server))
    }

    fn on(server: &Arc<Server<Passthrough>>, queue: Queue) -> Self {
        let queue = Arc::new(queue);
        Self { server: Arc::clone(server), queue, uid: 0, gid: 0, umask: 0, group: None, label: None }
    }

    /// Somebody else on the same queue.
    pub fn as_user(&self, uid: u32, gid: u32) -> Self {
        Self { uid, gid, ..self.clone() }
    }

    /// The same user on a queue of their own.
    pub fn another_queue(&self) -> Self {
        Self { queue: Arc::new(Queue::new(&self.server)), ..self.clone() }
    }

    pub fn with_umask(&self, umask: u32) -> Self {
        Self { umask, ..self.clone() }
    }

    pub fn with_group(&self, group: u32) -> Self {
        Self { group: Some(group), ..self.clone() }
    }

    pub fn with_label(&self, name: &'static str, value: &'static [u8]) -> Self {
        Self { label: Some((name, value)), ..self.clone() }
    }

    pub fn header(&self, opcode: Opcode, node: u64) -> InHeader {
        InHeader {
            opcode: opcode.number(),
            unique: UNIQUE.fetch_add(2, Ordering::Relaxed),
            nodeid: node,
            uid: self.uid,
            gid: self.gid,
            pid: PID,
            ..InHeader::default()
        }
    }

    /// Sends bytes as they are.
    pub fn send(&self, message: Message) -> Answer {
        self.queue.serve(message)
    }

    pub fn message(&self, opcode: Opcode, node: u64, parts: &[&[u8]], room: usize) -> Message {
        Message::new(self.header(opcode, node), &parts.concat(), &[], room + size_of::<OutHeader>())
    }

    pub fn call(&self, opcode: Opcode, node: u64, parts: &[&[u8]], room: usize) -> Result<Vec<u8>> {
        result(self.send(self.message(opcode, node, parts, room)))
    }

    fn get<T: FromBytes>(&self, opcode: Opcode, node: u64, parts: &[&[u8]]) -> Result<T> {
        self.call(opcode, node, parts, STRUCT).map(|bytes| decode(&bytes))
    }

    fn act(&self, opcode: Opcode, node: u64, parts: &[&[u8]]) -> Result<()> {
        self.call(opcode, node, parts, STRUCT).map(|bytes| assert!(bytes.is_empty(), "{opcode} has no body"))
    }

    /// A request that creates, with what goes along.
    fn creation(&self, opcode: Opcode, node: u64, parts: &[&[u8]]) -> Result<Vec<u8>> {
        let mut extensions = Vec::new();
        if let Some((name, value)) = self.label {
            let context = Secctx { size: value.len() as u32, padding: 0 };
            extend(&mut extensions, 1, &[context.as_bytes(), &text(name), value].concat());
        }
        if let Some(group) = self.group {
            let groups = SuppGroups { nr_groups: 1 };
            extend(&mut extensions, EXT_GROUPS, &[groups.as_bytes(), group.as_bytes()].concat());
        }
        let mut header = self.header(opcode, node);
        header.total_extlen = (extensions.len() / 8) as u16;
        let body = [parts.concat(), extensions].concat();
        result(self.send(Message::new(header, &body, &[], STRUCT)))
    }

    pub fn init(&self, offer: InitFlags) -> Result<InitOut> {
        let mut init = InitIn { major: 7, minor: KERNEL_MINOR_VERSION, max_readahead: 1 << 20, ..InitIn::default() };
        (init.flags, init.flags2) = (offer | InitFlags::INIT_EXT).split();
        self.get(Opcode::Init, 0, &[init.as_bytes()])
    }

    pub fn destroy(&self) -> Result<()> {
        self.act(Opcode::Destroy, 0, &[])
    }

    pub fn lookup(&self, parent: u64, name: &str) -> Result<EntryOut> {
        self.get(Opcode::Lookup, parent, &[&text(name)])
    }

    /// The node at the end of a path of several names. What is on the way stays referenced.
    pub fn walk(&self, path: &str) -> Result<u64> {
        path.split('/').try_fold(ROOT_ID, |node, name| self.lookup(node, name).map(|entry| entry.nodeid))
    }

    pub fn forget(&self, node: u64, count: u64) {
        let answer = self.send(self.message(Opcode::Forget, node, &[count.as_bytes()], STRUCT));
        assert_eq!(answer, Answer::Silent);
    }

    pub fn batch_forget(&self, forgets: &[(u64, u64)]) {
        let batch = BatchForgetIn { count: forgets.len() as u32, dummy: 0 };
        let mut body = batch.as_bytes().to_vec();
        for (nodeid, nlookup) in forgets {
            body.extend_from_slice(ForgetOne { nodeid: *nodeid, nlookup: *nlookup }.as_bytes());
        }
        let answer = self.send(self.message(Opcode::BatchForget, 0, &[&body], STRUCT));
        assert_eq!(answer, Answer::Silent);
    }

    pub fn getattr(&self, node: u64) -> Result<Attr> {
        self.attributes(node, None)
    }

    pub fn attributes(&self, node: u64, handle: Option<u64>) -> Result<Attr> {
        let flags = if handle.is_some() { GetattrFlags::FH } else { GetattrFlags::empty() };
        let get = GetattrIn { getattr_flags: flags.bits(), dummy: 0, fh: handle.unwrap_or(0) };
        self.get::<AttrOut>(Opcode::Getattr, node, &[get.as_bytes()]).map(|out| out.attr)
    }

    pub fn statx(&self, node: u64) -> Result<Statx> {
        let get = StatxIn { sx_mask: 0xfff, ..StatxIn::default() };
        self.get::<StatxOut>(Opcode::Statx, node, &[get.as_bytes()]).map(|out| out.stat)
    }

    pub fn setattr(&self, node: u64, valid: SetattrValid, set: SetattrIn) -> Result<Attr> {
        let set = SetattrIn { valid: valid.bits(), ..set };
        self.get::<AttrOut>(Opcode::Setattr, node, &[set.as_bytes()]).map(|out| out.attr)
    }

    pub fn chmod(&self, node: u64, mode: u32) -> Result<Attr> {
        self.setattr(node, SetattrValid::MODE, SetattrIn { mode, ..SetattrIn::default() })
    }

    pub fn chown(&self, node: u64, uid: Option<u32>, gid: Option<u32>) -> Result<Attr> {
        let mut valid = SetattrValid::empty();
        valid.set(SetattrValid::UID, uid.is_some());
        valid.set(SetattrValid::GID, gid.is_some());
        let set = SetattrIn { uid: uid.unwrap_or(0), gid: gid.unwrap_or(0), ..SetattrIn::default() };
        self.setattr(node, valid, set)
    }

    pub fn truncate(&self, node: u64, handle: Option<u64>, size: u64, kill: bool) -> Result<Attr> {
        let mut valid = SetattrValid::SIZE;
        valid.set(SetattrValid::FH, handle.is_some());
        valid.set(SetattrValid::KILL_SUIDGID, kill);
        self.setattr(node, valid, SetattrIn { fh: handle.unwrap_or(0), size, ..SetattrIn::default() })
    }

    pub fn access(&self, node: u64, mask: u32) -> Result<()> {
        self.act(Opcode::Access, node, &[AccessIn { mask, padding: 0 }.as_bytes()])
    }

    pub fn readlink(&self, node: u64) -> Result<String> {
        self.call(Opcode::Readlink, node, &[], 4096).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    pub fn symlink(&self, parent: u64, name: &str, target: &str) -> Result<EntryOut> {
        self.creation(Opcode::Symlink, parent, &[&text(name), &text(target)]).map(|bytes| decode(&bytes))
    }

    pub fn mknod(&self, parent: u64, name: &str, mode: u32, rdev: u32) -> Result<EntryOut> {
        let new = MknodIn { mode, rdev, umask: self.umask, padding: 0 };
        self.creation(Opcode::Mknod, parent, &[new.as_bytes(), &text(name)]).map(|bytes| decode(&bytes))
    }

    pub fn mkdir(&self, parent: u64, name: &str, mode: u32) -> Result<EntryOut> {
        let new = MkdirIn { mode, umask: self.umask };
        self.creation(Opcode::Mkdir, parent, &[new.as_bytes(), &text(name)]).map(|bytes| decode(&bytes))
    }

    pub fn unlink(&self, parent: u64, name: &str) -> Result<()> {
        self.act(Opcode::Unlink, parent, &[&text(name)])
    }

    pub fn rmdir(&self, parent: u64, name: &str) -> Result<()> {
        self.act(Opcode::Rmdir, parent, &[&text(name)])
    }

    pub fn rename(&self, from: (u64, &str), to: (u64, &str)) -> Result<()> {
        self.act(Opcode::Rename, from.0, &[RenameIn { newdir: to.0 }.as_bytes(), &text(from.1), &text(to.1)])
    }

    pub fn rename2(&self, from: (u64, &str), to: (u64, &str), flags: u32) -> Result<()> {
        let how = Rename2In { newdir: to.0, flags, padding: 0 };
        self.act(Opcode::Rename2, from.0, &[how.as_bytes(), &text(from.1), &text(to.1)])
    }

    pub fn link(&self, node: u64, parent: u64, name: &str) -> Result<EntryOut> {
        self.get(Opcode::Link, parent, &[LinkIn { oldnodeid: node }.as_bytes(), &text(name)])
    }

    pub fn open(&self, node: u64, flags: i32) -> Result<OpenOut> {
        self.open_with(node, flags, false)
    }

    pub fn open_with(&self, node: u64, flags: i32, kill: bool) -> Result<OpenOut> {
        let how = OpenIn { flags: flags as u32, open_flags: u32::from(kill) };
        self.get(Opcode::Open, node, &[how.as_bytes()])
    }

    pub fn create(&self, parent: u64, name: &str, flags: i32, mode: u32) -> Result<(EntryOut, OpenOut)> {
        self.new_file(Opcode::Create, parent, name, flags | libc::O_CREAT, mode)
    }

    pub fn tmpfile(&self, parent: u64, flags: i32, mode: u32) -> Result<(EntryOut, OpenOut)> {
        self.new_file(Opcode::Tmpfile, parent, "/", flags | libc::O_TMPFILE, mode)
    }

    fn new_file(&self, op: Opcode, parent: u64, name: &str, flags: i32, mode: u32) -> Result<(EntryOut, OpenOut)> {
        let new = CreateIn { flags: flags as u32, mode: mode | S_IFREG, umask: self.umask, open_flags: 0 };
        let bytes = self.creation(op, parent, &[new.as_bytes(), &text(name)])?;
        let (entry, open) = bytes.split_at(size_of::<EntryOut>());
        Ok((decode(entry), decode(open)))
    }

    pub fn read(&self, node: u64, handle: u64, offset: u64, size: u32) -> Result<Vec<u8>> {
        result(self.send(self.read_message(node, handle, offset, size)))
    }

    pub fn read_message(&self, node: u64, handle: u64, offset: u64, size: u32) -> Message {
        let read = ReadIn { fh: handle, offset, size, ..ReadIn::default() };
        // More memory than was asked for: it has to stay as it is.
        self.message(Opcode::Read, node, &[read.as_bytes()], size as usize + 4096)
    }

    pub fn write(&self, node: u64, handle: u64, offset: u64, data: &[u8]) -> Result<u32> {
        self.write_with(node, handle, offset, data, WriteFlags::empty())
    }

    pub fn write_with(&self, node: u64, handle: u64, offset: u64, data: &[u8], flags: WriteFlags) -> Result<u32> {
        result(self.send(self.write_message(node, handle, offset, data, flags)))
            .map(|bytes| decode::<WriteOut>(&bytes).size)
    }

    /// Through a guest's descriptor that was opened so, where there are no handles.
    pub fn write_opened(&self, node: u64, flags: i32, offset: u64, data: &[u8]) -> Result<u32> {
        let write = WriteIn { offset, size: data.len() as u32, flags: flags as u32, ..WriteIn::default() };
        let message = Message::new(self.header(Opcode::Write, node), write.as_bytes(), data, STRUCT);
        result(self.send(message)).map(|bytes| decode::<WriteOut>(&bytes).size)
    }

    pub fn write_message(&self, node: u64, handle: u64, offset: u64, data: &[u8], flags: WriteFlags) -> Message {
        let write =
            WriteIn { fh: handle, offset, size: data.len() as u32, write_flags: flags.bits(), ..WriteIn::default() };
        Message::new(self.header(Opcode::Write, node), write.as_bytes(), data, STRUCT)
    }

    pub fn flush(&self, node: u64, handle: u64) -> Result<()> {
        self.act(Opcode::Flush, node, &[FlushIn { fh: handle, ..FlushIn::default() }.as_bytes()])
    }

    pub fn release(&self, node: u64, handle: u64) -> Result<()> {
        self.act(Opcode::Release, node, &[ReleaseIn { fh: handle, ..ReleaseIn::default() }.as_bytes()])
    }

    pub fn fsync(&self, node: u64, handle: u64) -> Result<()> {
        self.act(Opcode::Fsync, node, &[FsyncIn { fh: handle, ..FsyncIn::default() }.as_bytes()])
    }

    pub fn fallocate(&self, node: u64, handle: u64, mode: i32, offset: u64, length: u64) -> Result<()> {
        let how = FallocateIn { fh: handle, offset, length, mode: mode as u32, padding: 0 };
        self.act(Opcode::Fallocate, node, &[how.as_bytes()])
    }

    pub fn lseek(&self, node: u64, handle: u64, offset: u64, whence: i32) -> Result<u64> {
        let how = LseekIn { fh: handle, offset, whence: whence as u32, padding: 0 };
        self.get::<LseekOut>(Opcode::Lseek, node, &[how.as_bytes()]).map(|out| out.offset)
    }

    pub fn copy(&self, range: CopyFileRangeIn, from: u64) -> Result<u64> {
        self.get::<CopyFileRangeOut>(Opcode::CopyFileRange64, from, &[range.as_bytes()]).map(|out| out.bytes_copied)
    }

    pub fn copy_32(&self, range: CopyFileRangeIn, from: u64) -> Result<u32> {
        self.get::<WriteOut>(Opcode::CopyFileRange, from, &[range.as_bytes()]).map(|out| out.size)
    }

    /// An ioctl that gives back `out_size` bytes.
    pub fn ioctl(&self, node: u64, handle: u64, cmd: u32, data: &[u8], out_size: u32) -> Result<Vec<u8>> {
        let flags = IoctlFlags::empty().bits();
        let call = IoctlIn { fh: handle, flags, cmd, arg: 0, in_size: data.len() as u32, out_size };
        let bytes = self.call(Opcode::Ioctl, node, &[call.as_bytes(), data], STRUCT)?;
        Ok(bytes[size_of::<IoctlOut>()..].to_vec())
    }

    pub fn opendir(&self, node: u64) -> Result<OpenOut> {
        self.get(Opcode::Opendir, node, &[OpenIn { flags: libc::O_DIRECTORY as u32, open_flags: 0 }.as_bytes()])
    }

    pub fn readdir(&self, node: u64, handle: u64, offset: u64, size: u32) -> Result<Vec<Entry>> {
        let read = ReadIn { fh: handle, offset, size, ..ReadIn::default() };
        let bytes = self.call(Opcode::Readdir, node, &[read.as_bytes()], size as usize)?;
        Ok(records(&bytes, 0).into_iter().map(|(_, entry)| entry).collect())
    }

    pub fn readdirplus(&self, node: u64, handle: u64, offset: u64, size: u32) -> Result<Vec<(EntryOut, Entry)>> {
        let read = ReadIn { fh: handle, offset, size, ..ReadIn::default() };
        let bytes = self.call(Opcode::Readdirplus, node, &[read.as_bytes()], size as usize)?;
        Ok(records(&bytes, size_of::<EntryOut>()))
    }

    /// All names of a directory but the dots, in order.
    pub fn names(&self, node: u64, handle: u64) -> Result<Vec<String>> {
        let (mut names, mut offset) = (Vec::new(), 0);
        loop {
            let entries = self.readdir(node, handle, offset, 4096)?;
            let Some(last) = entries.last() else { break };
            offset = last.next;
            names.extend(entries.into_iter().map(|entry| entry.name).filter(|name| name != "." && name != ".."));
        }
        names.sort();
        Ok(names)
    }

    pub fn releasedir(&self, node: u64, handle: u64) -> Result<()> {
        self.act(Opcode::Releasedir, node, &[ReleaseIn { fh: handle, ..ReleaseIn::default() }.as_bytes()])
    }

    pub fn fsyncdir(&self, node: u64, handle: u64) -> Result<()> {
        self.act(Opcode::Fsyncdir, node, &[FsyncIn { fh: handle, ..FsyncIn::default() }.as_bytes()])
    }

    pub fn statfs(&self, node: u64) -> Result<Kstatfs> {
        self.get::<StatfsOut>(Opcode::Statfs, node, &[]).map(|out| out.st)
    }

    pub fn syncfs(&self, node: u64) -> Result<()> {
        self.act(Opcode::Syncfs, node, &[SyncfsIn { padding: 0 }.as_bytes()])
    }

    pub fn getxattr(&self, node: u64, name: &str) -> Result<Vec<u8>> {
        self.call(Opcode::Getxattr, node, &[GetxattrIn { size: 65536, padding: 0 }.as_bytes(), &text(name)], 65536)
    }

    pub fn listxattr(&self, node: u64) -> Result<Vec<String>> {
        let bytes = self.call(Opcode::Listxattr, node, &[GetxattrIn { size: 65536, padding: 0 }.as_bytes()], 65536)?;
        let names = bytes.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        Ok(names.map(|name| String::from_utf8(name.to_vec()).unwrap()).collect())
    }

    pub fn setxattr(&self, node: u64, name: &str, value: &[u8]) -> Result<()> {
        self.setxattr_with(node, name, value, 0, SetxattrFlags::empty())
    }

    pub fn setxattr_with(&self, node: u64, name: &str, value: &[u8], flags: i32, more: SetxattrFlags) -> Result<()> {
        let set = SetxattrIn { size: value.len() as u32, flags: flags as u32, setxattr_flags: more.bits(), padding: 0 };
        self.act(Opcode::Setxattr, node, &[set.as_bytes(), &text(name), value])
    }

    pub fn removexattr(&self, node: u64, name: &str) -> Result<()> {
        self.act(Opcode::Removexattr, node, &[&text(name)])
    }
}

fn result(answer: Answer) -> Result<Vec<u8>> {
    match answer {
        Answer::Done(bytes) => Ok(bytes),
        Answer::Failed(errno) => Err(errno),
        other => panic!("an answer, and not {other:?}"),
    }
}

fn extend(extensions: &mut Vec<u8>, kind: u32, body: &[u8]) {
    let size = (size_of::<ExtHeader>() + body.len()).next_multiple_of(8);
    extensions.extend_from_slice(ExtHeader { size: size as u32, r#type: kind }.as_bytes());
    extensions.extend_from_slice(body);
    extensions.resize(extensions.len().next_multiple_of(8), 0);
}

/// Takes a listing apart; each record begins with `before` bytes of a lookup.
fn records(mut bytes: &[u8], before: usize) -> Vec<(EntryOut, Entry)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (node, rest) = bytes.split_at(before);
        let node = if before == 0 { EntryOut::default() } else { decode(node) };
        let (fixed, rest) = Dirent::read_from_prefix(rest).unwrap();
        let name = String::from_utf8(rest[..fixed.namelen as usize].to_vec()).unwrap();
        found.push((node, Entry { name, ino: fixed.ino, next: fixed.off, kind: fixed.r#type }));
        let record = before + size_of::<Dirent>() + fixed.namelen as usize;
        bytes = &bytes[record.next_multiple_of(8)..];
    }
    found
}
