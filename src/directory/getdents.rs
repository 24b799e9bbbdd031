//! The stream that passes the kernel's cookies on: one `getdents64` a read, and no seek while the guest reads on.
//!
//! That an entry comes once is what the host's file system makes of its cookies while the directory changes. ext4, xfs,
//! btrfs and overlayfs keep it, but for these: ext4 gives `.` and `..` other places when a directory outgrows its first
//! block, and names whose 63-bit hashes collide share a cookie; on btrfs a name that is removed and made anew in
//! mid-scan is a new entry, and may come again. What follows does not keep it; use `Snapshot` there:
//! - tmpfs since 6.14 (seen on 6.18, by any local reader): when a rename puts another file in the place of the next
//!   unread name, or when the unread ones are all unlinked, reading on starts over and repeats names.
//! - ramfs, and tmpfs before 6.6: a cookie is a count, and means another entry after a change.
//! - f2fs, while a small directory with a directory level set grows; NFS, 9p, FUSE and FAT as their servers have it.
//!
//! A directory that fits one block is read at once, and what happens to it meanwhile is no matter while the guest reads
//! on.
//!
//! Memory: a handle keeps at most one block of 32 KiB, from its first read to the end of the directory.

use std::{
    ops::ControlFlow,
    os::fd::BorrowedFd,
    sync::{Arc, Mutex},
};

use fuse_abi::Errno;

use super::{DirStream, Directory, Entry, Generation, lock, source::Source};
use crate::host::directory::first_entry;

/// What a handle keeps of entries; the C library's readdir asks for as much.
pub(super) const BLOCK: usize = 32 * 1024;
/// With less room than this left a call is not worth it. A record is 280 bytes at most.
const ROOM: usize = 4 * 1024;

type Emit<'a> = dyn FnMut(&Entry<'_>) -> ControlFlow<()> + 'a;

pub(super) struct Getdents<S> {
    source: S,
    shared: Arc<Directory>,
    place: Mutex<Place>,
}

/// Where a handle is: what was read ahead, and where the descriptor stands.
struct Place {
    /// Entries as the kernel gave them, from those of the last reply on: a guest that could not use all of a reply
    /// comes back to its middle.
    block: Vec<u8>,
    /// The cookie before the first entry of the block.
    first: u64,
    /// Where the last read stopped: a cookie, and its offset in the block.
    head: (u64, usize),
    /// Where the descriptor stands, if that is known.
    stands: Option<u64>,
    /// The generation before the descriptor was opened, while nothing was read from it.
    untouched: Option<Generation>,
    /// An error that came after entries which had to be delivered first, and its position.
    failed: Option<(u64, Errno)>,
    started: Option<Generation>,
}

impl<S: Source> Getdents<S> {
    pub(super) const fn new(source: S, shared: Arc<Directory>, before: Generation) -> Self {
        let place = Place {
            block: Vec::new(),
            first: 0,
            head: (0, 0),
            stands: Some(0),
            untouched: Some(before),
            failed: None,
            started: None,
        };
        Self { source, shared, place: Mutex::new(place) }
    }

    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        lock(&self.place).block.capacity()
    }
}

impl<S: Source> DirStream for Getdents<S> {
    fn read(&self, cookie: u64, emit: &mut Emit<'_>) -> Result<(), Errno> {
        if self.shared.generation.is_dead() {
            return Err(Errno::ENOENT);
        }
        let place = &mut *lock(&self.place);
        if cookie == 0 {
            // Taken before the seek and the read below: a change after this line is a change after the scan.
            let generation = self.shared.generation.read();
            place.rewind(generation);
        }
        let start = place.find(cookie);
        let mut at = Cursor { cookie, offset: start, emitted: false };
        let result = place.read_on(&self.source, &mut at, start, emit);
        place.head = (at.cookie, at.offset);
        if cookie == 0 && result.is_err() {
            place.started = None;
        }
        result
    }

    fn started_with(&self) -> Option<Generation> {
        lock(&self.place).started
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.source.descriptor()
    }
}

/// How far one read has come.
struct Cursor {
    cookie: u64,
    offset: usize,
    emitted: bool,
}

impl Place {
    /// What was read ahead is no longer good: a generation proves nothing of changes that the host made unseen.
    fn rewind(&mut self, generation: Generation) {
        self.block.clear();
        self.failed = None;
        self.stands = (self.untouched == Some(generation)).then_some(0);
        self.started = Some(generation);
    }

    /// The offset in the block that follows `cookie`; a cookie that is not there empties the block.
    fn find(&mut self, cookie: u64) -> usize {
        if !self.block.is_empty() {
            if self.head.0 == cookie {
                return self.head.1;
            }
            if self.first == cookie {
                return 0;
            }
            let mut rest = self.block.as_slice();
            while let Some((entry, following)) = first_entry(rest) {
                if entry.next == cookie {
                    return self.block.len() - following.len();
                }
                rest = following;
            }
        }
        self.block.clear();
        self.first = cookie;
        self.failed = self.failed.filter(|failed| failed.0 == cookie);
        0
    }

    /// Emits what is buffered, and then what one call of the host gives. `start` is the offset at which the read began.
    fn read_on(
        &mut self,
        source: &impl Source,
        at: &mut Cursor,
        start: usize,
        emit: &mut Emit<'_>,
    ) -> Result<(), Errno> {
        let begin = at.cookie;
        if self.emit_buffered(at, emit)?.is_break() {
            return Ok(());
        }
        if let Some((_, error)) = self.failed.filter(|failed| failed.0 == at.cookie) {
            return if at.emitted { Ok(()) } else { self.failed.take().map_or(Ok(()), |_| Err(error)) };
        }
        // Earlier replies are not asked for again; this one may be.
        self.block.drain(..start);
        at.offset -= start;
        self.first = begin;
        match self.fill(source, at.cookie) {
            Ok(()) => {}
            Err(error) if at.emitted => {
                self.failed = Some((at.cookie, error));
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        if self.block.is_empty() {
            self.block = Vec::new();
        }
        self.emit_buffered(at, emit).map(|_| ())
    }

    /// Appends what one call of the host gives after `cookie`, which is where the block ends.
    fn fill(&mut self, source: &impl Source, cookie: u64) -> Result<(), Errno> {
        if self.block.capacity() - self.block.len() < ROOM {
            if !self.block.is_empty() {
                return Ok(());
            }
            self.block.reserve_exact(BLOCK);
        }
        if self.untouched.take().is_some() && cookie != 0 {
            // ext4 believes of a descriptor whose first read was at the end that it stands at the start (seen on 6.18).
            let kept = self.block.len();
            source.read_block(&mut self.block)?;
            self.block.truncate(kept);
            self.stands = None;
        }
        // Unknown until the call came back well: a failed one may have moved it.
        if self.stands.take() != Some(cookie) {
            source.seek(cookie)?;
        }
        let mut end = self.block.len();
        source.read_block(&mut self.block)?;
        let mut stands = cookie;
        while let Some((entry, following)) = self.block.get(end..).and_then(first_entry) {
            stands = entry.next;
            end = self.block.len() - following.len();
        }
        self.stands = Some(stands);
        Ok(())
    }

    /// Emits until the block runs out or the receiver is full.
    fn emit_buffered(&self, at: &mut Cursor, emit: &mut Emit<'_>) -> Result<ControlFlow<()>, Errno> {
        while at.offset < self.block.len() {
            let Some((entry, following)) = self.block.get(at.offset..).and_then(first_entry) else {
                return if at.emitted { Ok(ControlFlow::Break(())) } else { Err(Errno::EIO) };
            };
            if emit(&entry).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            *at = Cursor { cookie: entry.next, offset: self.block.len() - following.len(), emitted: true };
        }
        Ok(ControlFlow::Continue(()))
    }
}
