//! The same work as bare system calls in a loop: what no server of any make can undercut by much.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use ferryfs_guest::{Error, Result};
use rustix::fs::{AtFlags, Mode, OFlags, RawDir, StatxFlags};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use crate::scripts::LARGE;
use crate::source::{BLOCK, DATA, Source, file_name, work};

/// Does some work and says how many units it was.
pub type Loop = Box<dyn FnMut() -> std::result::Result<u32, Errno>>;

/// CPU time of this thread for each unit, in microseconds, over `time`.
pub fn measure(mut work: Loop, time: Duration) -> Result<f64> {
    let cpu = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default();
    let (start, mut units) = (cpu(), 0_u64);
    loop {
        for _ in 0..64 {
            units += u64::from(work().map_err(Error::io("a bare system call"))?);
        }
        let spent = cpu() - start;
        if spent > time {
            return Ok(spent.as_secs_f64() * 1e6 / units as f64);
        }
    }
}

const WANTED: StatxFlags = StatxFlags::BASIC_STATS;

fn name(text: impl Into<Vec<u8>>) -> CString {
    CString::new(text).expect("no name here has a NUL")
}

fn files(source: &Source) -> Result<OwnedFd> {
    source.open("files", OFlags::PATH)
}

fn own(source: &Source) -> Result<OwnedFd> {
    source.open(work(0, 0), OFlags::PATH)
}

fn a_file(source: &Source) -> Result<OwnedFd> {
    source.open(format!("files/{}", file_name(0)), OFlags::PATH)
}

pub fn getattr(source: &Source) -> Result<Loop> {
    let file = a_file(source)?;
    Ok(Box::new(move || rustix::fs::statx(&file, c"", AtFlags::EMPTY_PATH, WANTED).map(|_| 1)))
}

pub fn statfs(source: &Source) -> Result<Loop> {
    let file = a_file(source)?;
    Ok(Box::new(move || rustix::fs::fstatfs(&file).map(|_| 1)))
}

pub fn lookup_known(source: &Source) -> Result<Loop> {
    let (dir, name) = (files(source)?, name(file_name(0)));
    Ok(Box::new(move || rustix::fs::statx(&dir, &name, AtFlags::SYMLINK_NOFOLLOW, WANTED).map(|_| 1)))
}

pub fn lookup_missing(source: &Source) -> Result<Loop> {
    let dir = files(source)?;
    Ok(Box::new(move || match rustix::fs::statx(&dir, c"no-such-file", AtFlags::SYMLINK_NOFOLLOW, WANTED) {
        Err(Errno::NOENT) => Ok(1),
        other => other.map(|_| 1),
    }))
}

pub fn lookup_fresh(source: &Source) -> Result<Loop> {
    let (dir, name) = (files(source)?, name(file_name(1)));
    Ok(Box::new(move || {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let pin = rustix::fs::openat(&dir, &name, flags, Mode::empty())?;
        rustix::fs::statx(&pin, c"", AtFlags::EMPTY_PATH, WANTED).map(|_| 1)
    }))
}

fn reopen(source: &Source) -> Result<impl Fn() -> std::result::Result<OwnedFd, Errno> + use<>> {
    let file = a_file(source)?;
    let fds = rustix::fs::open("/proc/self/fd", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::io("open /proc/self/fd"))?;
    let name = name(file.as_raw_fd().to_string());
    Ok(move || {
        let _keeps_the_number = &file;
        rustix::fs::openat(&fds, &name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    })
}

pub fn open_release(source: &Source) -> Result<Loop> {
    let reopen = reopen(source)?;
    Ok(Box::new(move || reopen().map(|_| 1)))
}

pub fn open_read_release(source: &Source) -> Result<Loop> {
    let reopen = reopen(source)?;
    let mut buffer = vec![0; BLOCK];
    Ok(Box::new(move || rustix::io::pread(reopen()?, &mut buffer, 0).map(|_| 1)))
}

/// Offsets of the small and large blocks of the data file, one after the other or far apart.
fn offsets(step: u64, end: u64) -> impl FnMut() -> u64 {
    let mut next = 0;
    move || {
        next = (next + step) % end;
        next
    }
}

fn reads(source: &Source, size: usize, mut next: impl FnMut() -> u64 + 'static) -> Result<Loop> {
    let file = source.open("data", OFlags::RDONLY)?;
    let mut buffer = vec![0; size];
    Ok(Box::new(move || rustix::io::pread(&file, &mut buffer, next()).map(|_| 1)))
}

fn writes(source: &Source, size: usize, mut next: impl FnMut() -> u64 + 'static) -> Result<Loop> {
    let file = source.open("data", OFlags::RDWR)?;
    let buffer = vec![7; size];
    Ok(Box::new(move || rustix::io::pwrite(&file, &buffer, next()).map(|_| 1)))
}

/// A stride that meets every block of the first 64 MiB, in no order that is read ahead.
const STRIDE: u64 = 4096 * 5003;

pub fn read_small(source: &Source) -> Result<Loop> {
    reads(source, BLOCK, offsets(STRIDE, 64 << 20))
}

pub fn write_small(source: &Source) -> Result<Loop> {
    writes(source, BLOCK, offsets(STRIDE, 64 << 20))
}

pub fn read_large(source: &Source) -> Result<Loop> {
    reads(source, LARGE, offsets(LARGE as u64, DATA))
}

pub fn write_large(source: &Source) -> Result<Loop> {
    writes(source, LARGE, offsets(LARGE as u64, DATA))
}

pub fn create_write_release_unlink(source: &Source) -> Result<Loop> {
    let dir = own(source)?;
    let block = [7; BLOCK];
    Ok(Box::new(move || {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&dir, c"bare", flags, Mode::RUSR | Mode::WUSR)?;
        rustix::fs::statx(&file, c"", AtFlags::EMPTY_PATH, WANTED)?;
        rustix::io::pwrite(&file, &block, 0)?;
        drop(file);
        rustix::fs::unlinkat(&dir, c"bare", AtFlags::empty()).map(|()| 1)
    }))
}

pub fn mkdir_rmdir(source: &Source) -> Result<Loop> {
    let dir = own(source)?;
    Ok(Box::new(move || {
        rustix::fs::mkdirat(&dir, c"bare", Mode::RWXU)?;
        rustix::fs::statx(&dir, c"bare", AtFlags::SYMLINK_NOFOLLOW, WANTED)?;
        rustix::fs::unlinkat(&dir, c"bare", AtFlags::REMOVEDIR).map(|()| 1)
    }))
}

pub fn rename(source: &Source) -> Result<Loop> {
    let dir = own(source)?;
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::openat(&dir, c"bare-a", flags, Mode::RUSR).map_err(Error::io("create a file"))?;
    let mut there = false;
    Ok(Box::new(move || {
        there = !there;
        let (from, to) = if there { (c"bare-a", c"bare-b") } else { (c"bare-b", c"bare-a") };
        rustix::fs::renameat(&dir, from, &dir, to).map(|()| 1)
    }))
}

pub fn getxattr_missing(source: &Source) -> Result<Loop> {
    let file = source.open(format!("files/{}", file_name(0)), OFlags::RDONLY)?;
    let mut value = [0; 256];
    Ok(Box::new(move || match rustix::fs::fgetxattr(&file, c"user.missing", &mut value) {
        Err(Errno::NODATA) => Ok(1),
        other => other.map(|_| 1),
    }))
}

/// Lists all entries, and asks for the attributes of each if wanted.
fn listing(source: &Source, attributes: bool) -> Result<Loop> {
    let dir = source.open("list", OFlags::RDONLY)?;
    let mut buffer = vec![MaybeUninit::uninit(); 128 << 10];
    Ok(Box::new(move || {
        rustix::fs::seek(&dir, rustix::fs::SeekFrom::Start(0))?;
        let mut entries = RawDir::new(dir.as_fd(), &mut buffer);
        let mut count = 0;
        while let Some(entry) = entries.next() {
            let entry = entry?;
            count += 1;
            if attributes {
                rustix::fs::statx(&dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW, WANTED)?;
            }
        }
        Ok(count)
    }))
}

pub fn readdir(source: &Source) -> Result<Loop> {
    listing(source, false)
}

pub fn readdirplus(source: &Source) -> Result<Loop> {
    listing(source, true)
}
