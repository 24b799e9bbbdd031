//! The stream over snapshots: whole listings that never change, numbered here. For any Unix.
//!
//! A directory is read at offset 0 only, when its generation or its times moved or its times are too young to prove
//! anything. Handles share the latest snapshot; each keeps the one it reads until it rewinds. A name that is also in
//! the next snapshot keeps its cookie there, and a new one gets a higher cookie than any before: so when one of two
//! users of a handle rewinds, the other goes on in the new snapshot without missing or repeating an entry.
//!
//! Where nobody opens or rewinds anything, entries are numbered by their names instead: see `names`.
//!
//! Memory: 24 bytes and the name for an entry, in one piece each, for every snapshot that is being read, all of them
//! within one budget; while one is built up to three times that. None is kept once the last handle is closed.

mod budget;
mod listing;
mod names;

use std::{
    ops::ControlFlow,
    os::fd::BorrowedFd,
    sync::{Arc, Mutex, atomic::Ordering},
};

use fuse_abi::Errno;

pub use self::budget::limit_snapshot_memory;
pub(super) use self::budget::{BUDGET, Budget};
pub(super) use self::listing::Snapshot;
use self::listing::{Listing, Numbering, Stamp};
use super::{DirStream, Directory, Entry, Generation, dir_gen, lock, source::Source};

pub(super) struct Stream<S> {
    source: S,
    shared: Arc<Directory>,
    budget: &'static Budget,
    numbering: Numbering,
    reading: Mutex<Reading>,
}

/// What a handle is reading.
#[derive(Default)]
struct Reading {
    snapshot: Option<Arc<Snapshot>>,
    started: Option<Generation>,
}

impl<S: Source> Stream<S> {
    pub(super) fn new(source: S, shared: Arc<Directory>, budget: &'static Budget) -> Self {
        Self::numbered(source, shared, budget, Numbering::InOrder)
    }

    /// A stream whose cookies come from the names alone, and are the same in another stream.
    pub(super) fn by_name(source: S, shared: Arc<Directory>, budget: &'static Budget) -> Self {
        Self::numbered(source, shared, budget, Numbering::ByName)
    }

    fn numbered(source: S, shared: Arc<Directory>, budget: &'static Budget, numbering: Numbering) -> Self {
        shared.streams.fetch_add(1, Ordering::AcqRel);
        Self { source, shared, budget, numbering, reading: Mutex::default() }
    }

    /// A snapshot that shows every change acknowledged before this call.
    fn current(&self) -> Result<Arc<Snapshot>, Errno> {
        let arrived = dir_gen::draw();
        let mut latest = lock(&self.shared.latest);
        if let Some(snapshot) = latest.as_ref().filter(|snapshot| snapshot.is_whole() && snapshot.stamp.drawn > arrived)
        {
            // Another thread read it all while this one waited.
            return Ok(Arc::clone(snapshot));
        }
        let state = self.source.state()?;
        self.shared.generation.observe(state.stamp);
        // Taken before the scan below, and never after: what changes meanwhile must not pass as read.
        let generation = self.shared.generation.read();
        if let Some(snapshot) = latest.as_ref().filter(|snapshot| snapshot.is_current(generation, &state)) {
            return Ok(Arc::clone(snapshot));
        }
        let stamp = Stamp::new(generation, &state, dir_gen::draw());
        let mut listing = Listing::new(self.budget, latest.as_deref());
        let mut refused = None;
        let read = self.source.scan(&mut |entry| listing.push(entry).inspect_err(|&error| refused = Some(error)));
        match read {
            // Not the directory's error but a limit of ours: no part of it is worth keeping.
            Err(_) if let Some(error) = refused => return Err(error),
            Err(error) if listing.is_empty() => return Err(error),
            // In the order of names an error has no position that could be told from others.
            Err(error) if self.numbering == Numbering::ByName => return Err(error),
            _ => {}
        }
        let snapshot = Arc::new(match self.numbering {
            Numbering::InOrder => listing.finish(stamp, read.err(), latest.as_deref())?,
            Numbering::ByName => listing.finish_by_name(stamp),
        });
        *latest = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// The snapshot in which to go on after `cookie`.
    fn at(&self, cookie: u64) -> Result<Arc<Snapshot>, Errno> {
        if cookie != 0
            && let Some(snapshot) = &lock(&self.reading).snapshot
        {
            return Ok(Arc::clone(snapshot));
        }
        // Not under the handle's lock: its other users read on meanwhile.
        let found = self.current();
        let mut reading = lock(&self.reading);
        if cookie == 0 {
            reading.started = found.as_ref().ok().filter(|found| found.is_whole()).map(|found| found.stamp.generation);
        }
        let found = found?;
        reading.go_on_with(&found);
        Ok(found)
    }
}

impl Reading {
    /// Of two rewinds at once the newer stays: going back would lose what the other already showed.
    fn go_on_with(&mut self, found: &Arc<Snapshot>) {
        if self.snapshot.as_ref().is_none_or(|own| own.stamp.drawn < found.stamp.drawn) {
            self.snapshot = Some(Arc::clone(found));
        }
    }
}

impl<S: Source> DirStream for Stream<S> {
    fn read(&self, cookie: u64, emit: &mut dyn FnMut(&Entry<'_>) -> ControlFlow<()>) -> Result<(), Errno> {
        if self.shared.generation.is_dead() {
            return Err(Errno::ENOENT);
        }
        i64::try_from(cookie).map_err(|_| Errno::EINVAL)?;
        self.at(cookie)?.read(cookie, emit)
    }

    fn started_with(&self) -> Option<Generation> {
        lock(&self.reading).started
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.source.descriptor()
    }
}

impl<S> Drop for Stream<S> {
    fn drop(&mut self) {
        if self.shared.streams.fetch_sub(1, Ordering::AcqRel) == 1 {
            let mut latest = lock(&self.shared.latest);
            // Somebody may have opened it since; then it is theirs to drop.
            if self.shared.streams.load(Ordering::Acquire) == 0 {
                *latest = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::OwnedFd};

    use super::*;

    #[test]
    fn a_rewind_that_was_overtaken_does_not_lead_back() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Arc::new(Directory::new());
        let descriptor: OwnedFd = File::open(folder.path()).unwrap().into();
        let stream = Stream::new(descriptor, Arc::clone(&directory), &BUDGET);
        let older = stream.current().unwrap();
        File::create(folder.path().join("new")).unwrap();
        directory.generation.bump();
        let newer = stream.current().unwrap();
        for order in [[&older, &newer], [&newer, &older]] {
            let mut reading = Reading::default();
            order.into_iter().for_each(|found| reading.go_on_with(found));
            assert!(Arc::ptr_eq(reading.snapshot.as_ref().unwrap(), &newer));
        }
    }
}
