//! The scripts of the workloads: which requests make an operation, a step after the other.

use std::fs;

use ferryfs_guest::{Client, Error, Result, dirents};
use fuse_abi::{
    AttrOut, CreateIn, EntryOut, Errno, FsyncIn, GetattrIn, GetxattrIn, Kstatfs, MkdirIn, Opcode, OpenIn, OpenOut,
    ROOT_ID, ReadIn, ReleaseIn, Rename2In, S_IFREG, WriteIn, WriteOut,
};
use rustix::fs::OFlags;
use zerocopy::IntoBytes;

use crate::engine::{Answer, Ask, Script};
use crate::source::{BLOCK, DATA, FILES, file_name, work};
use crate::workloads::Stage;

/// The bytes of a large read or write.
pub const LARGE: usize = 1 << 20;
/// The bytes of the data file that small requests touch: they stay within the processor's reach of the page cache.
const CACHED: u64 = 64 << 20;

const RDONLY: u32 = OFlags::RDONLY.bits();
const RDWR: u32 = OFlags::RDWR.bits();

/// A script of `count` steps that returns to the first: the answer that the first step sees ends an operation.
fn steps(count: u32, mut step: impl FnMut(u32, &Answer<'_>, &mut Ask) + Send + 'static) -> Script {
    let mut next = 0;
    Box::new(move |answer, ask| {
        let now = next;
        next = (next + 1) % count;
        step(now, answer, ask);
        u32::from(now == 0)
    })
}

/// Numbers without a pattern that a cache could follow, the same in each run.
struct Random(u64);

impl Random {
    fn of(stage: &Stage<'_>) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ (stage.number as u64 + 1) << 32)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

impl Ask {
    fn open(&mut self, node: u64, flags: u32) {
        let body = OpenIn { flags, open_flags: 0 };
        self.set(Opcode::Open, node, &[body.as_bytes()], size_of::<OpenOut>());
    }

    fn release(&mut self, node: u64, fh: u64) {
        let body = ReleaseIn { fh, ..ReleaseIn::default() };
        self.set(Opcode::Release, node, &[body.as_bytes()], 0);
    }

    fn read(&mut self, node: u64, fh: u64, offset: u64, size: usize) {
        let body = ReadIn { fh, offset, size: size as u32, ..ReadIn::default() };
        self.set(Opcode::Read, node, &[body.as_bytes()], size);
    }

    fn write(&mut self, node: u64, fh: u64, offset: u64, size: usize) {
        let body = WriteIn { fh, offset, size: size as u32, ..WriteIn::default() };
        self.set(Opcode::Write, node, &[body.as_bytes()], size_of::<WriteOut>());
        self.with_payload(size as u32);
    }

    pub fn lookup(&mut self, parent: u64, name: &str) {
        self.set(Opcode::Lookup, parent, &[name.as_bytes(), b"\0"], size_of::<EntryOut>());
    }

    fn create(&mut self, parent: u64, name: &str) {
        let body = CreateIn { flags: RDWR, mode: S_IFREG | 0o644, ..CreateIn::default() };
        let room = size_of::<EntryOut>() + size_of::<OpenOut>();
        self.set(Opcode::Create, parent, &[body.as_bytes(), name.as_bytes(), b"\0"], room);
    }

    fn named(&mut self, opcode: Opcode, parent: u64, name: &str) {
        self.set(opcode, parent, &[name.as_bytes(), b"\0"], 0);
    }
}

fn files(client: &mut Client) -> Result<u64> {
    Ok(client.lookup(ROOT_ID, "files")?.nodeid)
}

/// A small file of the actor's own.
fn file_of(client: &mut Client, stage: &Stage<'_>) -> Result<u64> {
    let parent = files(client)?;
    Ok(client.lookup(parent, file_name(stage.number))?.nodeid)
}

/// The actor's own directory, without what a run before left there in mid-operation.
fn work_of(client: &mut Client, stage: &Stage<'_>) -> Result<u64> {
    let path = stage.source.shared().join(work(stage.side, stage.number));
    fs::remove_dir_all(&path).and_then(|()| fs::create_dir(&path)).map_err(Error::io("clear a directory"))?;
    Ok(client.lookup(ROOT_ID, work(stage.side, stage.number))?.nodeid)
}

fn data(client: &mut Client, flags: u32) -> Result<(u64, u64)> {
    let node = client.lookup(ROOT_ID, "data")?.nodeid;
    Ok((node, client.open(node, flags)?.fh))
}

type Made = Result<(Script, bool)>;

fn counted(script: Script) -> Made {
    Ok((script, true))
}

pub fn getattr(client: &mut Client, stage: &Stage<'_>) -> Made {
    counted(getattr_of(file_of(client, stage)?))
}

pub fn getattr_of(node: u64) -> Script {
    steps(1, move |_, _, ask| {
        ask.set(Opcode::Getattr, node, &[GetattrIn::default().as_bytes()], size_of::<AttrOut>());
    })
}

pub fn statfs(client: &mut Client, stage: &Stage<'_>) -> Made {
    let node = file_of(client, stage)?;
    counted(steps(1, move |_, _, ask| ask.set(Opcode::Statfs, node, &[], size_of::<Kstatfs>())))
}

pub fn lookup_known(client: &mut Client, stage: &Stage<'_>) -> Made {
    let parent = files(client)?;
    let name = file_name(stage.number);
    client.lookup(parent, &name)?;
    counted(lookup_of(parent, name))
}

pub fn lookup_of(parent: u64, name: String) -> Script {
    steps(1, move |_, _, ask| ask.lookup(parent, &name))
}

pub fn lookup_missing(client: &mut Client, stage: &Stage<'_>) -> Made {
    let parent = files(client)?;
    let name = format!("no-such-file-{}", stage.number);
    counted(steps(1, move |_, _, ask| {
        ask.lookup(parent, &name);
        ask.errno = Errno::ENOENT.get();
    }))
}

/// Each actor looks up its part of all names, then forgets them, as a guest does that drops its caches.
pub fn lookup_fresh(client: &mut Client, stage: &Stage<'_>) -> Made {
    let parent = files(client)?;
    let (mut next, end) = (FILES * stage.number / stage.of, FILES * (stage.number + 1) / stage.of);
    let begin = next;
    let mut found = Vec::with_capacity(end - begin);
    counted(steps(1, move |_, answer, ask| {
        if answer.len > 0 {
            found.push((answer.get::<EntryOut>().nodeid, 1));
        }
        if next == end {
            next = begin;
            ask.forgets.append(&mut found);
        }
        ask.lookup(parent, &file_name(next));
        next += 1;
    }))
}

pub fn open_release(client: &mut Client, stage: &Stage<'_>) -> Made {
    let node = file_of(client, stage)?;
    counted(steps(2, move |step, answer, ask| match step {
        0 => ask.open(node, RDONLY),
        _ => ask.release(node, answer.get::<OpenOut>().fh),
    }))
}

pub fn open_read_release(client: &mut Client, stage: &Stage<'_>) -> Made {
    counted(steps(OPEN_READ, open_read(file_of(client, stage)?)))
}

/// The steps of [`open_read`].
const OPEN_READ: u32 = 3;

fn open_read(node: u64) -> impl FnMut(u32, &Answer<'_>, &mut Ask) + Send {
    let mut fh = 0;
    move |step, answer, ask| match step {
        0 => ask.open(node, RDONLY),
        1 => {
            fh = answer.get::<OpenOut>().fh;
            ask.read(node, fh, 0, BLOCK);
        }
        _ => ask.release(node, fh),
    }
}

pub fn read_small(client: &mut Client, stage: &Stage<'_>) -> Made {
    let (node, fh) = data(client, RDONLY)?;
    let mut random = Random::of(stage);
    counted(steps(1, move |_, _, ask| ask.read(node, fh, random.below(CACHED / 4096) * 4096, BLOCK)))
}

pub fn write_small(client: &mut Client, stage: &Stage<'_>) -> Made {
    let (node, fh) = data(client, RDWR)?;
    let mut random = Random::of(stage);
    counted(steps(1, move |_, _, ask| ask.write(node, fh, random.below(CACHED / 4096) * 4096, BLOCK)))
}

/// All of the file once through; every actor its own part.
fn sequence(stage: &Stage<'_>) -> impl FnMut() -> u64 + Send + use<> {
    let blocks = DATA / LARGE as u64;
    let (number, of) = (stage.number as u64, stage.of as u64);
    let (begin, end) = (blocks * number / of, blocks * (number + 1) / of);
    let mut next = begin;
    move || {
        let now = next;
        next = if now + 1 == end { begin } else { now + 1 };
        now * LARGE as u64
    }
}

pub fn read_large(client: &mut Client, stage: &Stage<'_>) -> Made {
    let (node, fh) = data(client, RDONLY)?;
    let mut next = sequence(stage);
    counted(steps(1, move |_, _, ask| ask.read(node, fh, next(), LARGE)))
}

pub fn write_large(client: &mut Client, stage: &Stage<'_>) -> Made {
    let (node, fh) = data(client, RDWR)?;
    let mut next = sequence(stage);
    counted(steps(1, move |_, _, ask| ask.write(node, fh, next(), LARGE)))
}

pub fn read_cold(client: &mut Client, stage: &Stage<'_>) -> Made {
    let (node, fh) = data(client, RDONLY)?;
    let mut random = Random::of(stage);
    counted(steps(1, move |_, _, ask| ask.read(node, fh, random.below(DATA / 4096) * 4096, BLOCK)))
}

pub fn create_write_release_unlink(client: &mut Client, stage: &Stage<'_>) -> Made {
    counted(steps(CREATE, create_cycle(work_of(client, stage)?)))
}

/// The steps of [`create_cycle`].
const CREATE: u32 = 4;

fn create_cycle(parent: u64) -> impl FnMut(u32, &Answer<'_>, &mut Ask) + Send {
    let (mut node, mut fh, mut serial) = (0, 0, 0_u64);
    let mut name = String::new();
    move |step, answer, ask| match step {
        0 => {
            if node != 0 {
                ask.forgets.push((node, 1));
            }
            serial += 1;
            name = format!("new-{serial}");
            ask.create(parent, &name);
        }
        1 => {
            node = answer.get::<EntryOut>().nodeid;
            fh = answer.get_after::<OpenOut>(size_of::<EntryOut>()).fh;
            ask.write(node, fh, 0, BLOCK);
        }
        2 => ask.release(node, fh),
        _ => ask.named(Opcode::Unlink, parent, &name),
    }
}

pub fn mkdir_rmdir(client: &mut Client, stage: &Stage<'_>) -> Made {
    let parent = work_of(client, stage)?;
    let mut node = 0;
    counted(steps(2, move |step, answer, ask| {
        if step == 0 {
            if node != 0 {
                ask.forgets.push((node, 1));
            }
            let body = MkdirIn { mode: 0o755, umask: 0 };
            ask.set(Opcode::Mkdir, parent, &[body.as_bytes(), b"new\0"], size_of::<EntryOut>());
        } else {
            node = answer.get::<EntryOut>().nodeid;
            ask.named(Opcode::Rmdir, parent, "new");
        }
    }))
}

pub fn rename(client: &mut Client, stage: &Stage<'_>) -> Made {
    let parent = work_of(client, stage)?;
    let (entry, open) = client.create(parent, "a", 0o644, RDWR)?;
    client.release(entry.nodeid, open.fh)?;
    let mut there = false;
    counted(steps(1, move |_, _, ask| {
        there = !there;
        let (from, to): (&[u8], &[u8]) = if there { (b"a\0", b"b\0") } else { (b"b\0", b"a\0") };
        let body = Rename2In { newdir: parent, flags: 0, padding: 0 };
        ask.set(Opcode::Rename2, parent, &[body.as_bytes(), from, to], 0);
    }))
}

pub fn getxattr_missing(client: &mut Client, stage: &Stage<'_>) -> Made {
    let node = file_of(client, stage)?;
    counted(steps(1, move |_, _, ask| {
        let body = GetxattrIn { size: 256, padding: 0 };
        ask.set(Opcode::Getxattr, node, &[body.as_bytes(), b"user.missing\0"], 256);
        ask.errno = Errno::ENODATA.get();
    }))
}

/// Lists the directory again and again: from the start, then from where the last reply ended, and again from the start
/// after an empty reply. A unit is an entry.
fn listing(client: &mut Client, opcode: Opcode, size: usize, forgets: bool) -> Made {
    let node = client.lookup(ROOT_ID, "list")?.nodeid;
    let fh = client.opendir(node)?.fh;
    counted(listing_of(opcode, node, fh, size, forgets))
}

pub fn listing_of(opcode: Opcode, node: u64, fh: u64, size: usize, forgets: bool) -> Script {
    let mut found = Vec::new();
    Box::new(move |answer, ask| {
        let (count, offset) = match opcode {
            Opcode::Readdirplus => {
                let entries = dirents::parse_plus(answer.body).unwrap_or_default();
                if forgets {
                    found.extend(entries.iter().map(|(entry, _)| (entry.nodeid, 1)).filter(|(node, _)| *node != 0));
                }
                (entries.len(), entries.last().map_or(0, |(_, entry)| entry.off))
            }
            _ => {
                let entries = dirents::parse(answer.body).unwrap_or_default();
                (entries.len(), entries.last().map_or(0, |entry| entry.off))
            }
        };
        if count == 0 {
            ask.forgets.append(&mut found);
        }
        let body = ReadIn { fh, offset, size: size as u32, ..ReadIn::default() };
        ask.set(opcode, node, &[body.as_bytes()], size);
        count as u32
    })
}

pub fn readdir_4k(client: &mut Client, _: &Stage<'_>) -> Made {
    listing(client, Opcode::Readdir, 4 << 10, false)
}

pub fn readdir_128k(client: &mut Client, _: &Stage<'_>) -> Made {
    listing(client, Opcode::Readdir, 128 << 10, false)
}

pub fn readdirplus_4k(client: &mut Client, _: &Stage<'_>) -> Made {
    listing(client, Opcode::Readdirplus, 4 << 10, false)
}

pub fn readdirplus_128k(client: &mut Client, _: &Stage<'_>) -> Made {
    listing(client, Opcode::Readdirplus, 128 << 10, false)
}

pub fn readdirplus_fresh(client: &mut Client, _: &Stage<'_>) -> Made {
    listing(client, Opcode::Readdirplus, 128 << 10, true)
}

/// The first actor writes 1 MiB and syncs, again and again; it does not count.
fn syncing(client: &mut Client, stage: &Stage<'_>) -> Made {
    let parent = work_of(client, stage)?;
    let (entry, open) = client.create(parent, "synced", 0o644, RDWR)?;
    let (node, fh) = (entry.nodeid, open.fh);
    let script = steps(2, move |step, _, ask| match step {
        0 => ask.write(node, fh, 0, LARGE),
        _ => ask.set(Opcode::Fsync, node, &[FsyncIn { fh, ..FsyncIn::default() }.as_bytes()], 0),
    });
    Ok((script, false))
}

pub fn reads_beside_fsync(client: &mut Client, stage: &Stage<'_>) -> Made {
    if stage.number == 0 { syncing(client, stage) } else { read_small(client, stage) }
}

pub fn getattr_beside_fsync(client: &mut Client, stage: &Stage<'_>) -> Made {
    if stage.number == 0 { syncing(client, stage) } else { getattr(client, stage) }
}

pub fn getattr_beside_cold_reads(client: &mut Client, stage: &Stage<'_>) -> Made {
    if stage.number.is_multiple_of(2) { Ok((read_cold(client, stage)?.0, false)) } else { getattr(client, stage) }
}

/// Two users on one queue: seven of ten operations open and read a file, three make, write and remove one.
pub fn mixed(client: &mut Client, stage: &Stage<'_>) -> Made {
    let user = 1001 + (stage.number % 2) as u32;
    let parent = work_of(client, stage)?;
    let path = stage.source.shared().join(work(stage.side, stage.number));
    std::os::unix::fs::chown(path, Some(user), Some(user)).map_err(Error::io("give a directory away"))?;
    let (mut read, mut write) = (open_read(file_of(client, stage)?), create_cycle(parent));
    let mut random = Random::of(stage);
    let (mut reads, mut next) = (true, 0);
    counted(Box::new(move |answer, ask| {
        let now = next;
        if now == 0 {
            reads = random.below(10) < 7;
        }
        ask.uid = user;
        if reads {
            read(now, answer, ask)
        } else {
            write(now, answer, ask)
        }
        next = (now + 1) % if reads { OPEN_READ } else { CREATE };
        u32::from(now == 0)
    }))
}
