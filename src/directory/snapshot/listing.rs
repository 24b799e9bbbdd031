//! A listing while it is read, and the snapshot it becomes.

use std::{
    hash::{BuildHasher, RandomState},
    ops::ControlFlow,
};

use fuse_abi::Errno;
use hashbrown::HashTable;

use super::{
    super::{Entry, Generation},
    budget::{Budget, Share},
    names,
};
use crate::host::{DirectoryState, HostStamp};

/// One entry of a snapshot.
#[derive(Clone, Copy, Debug)]
struct Record {
    /// Where to go on after it. 0 while it has none.
    cookie: u64,
    ino: u64,
    /// Where its name begins among the names.
    start: u32,
    length: u16,
    kind: u8,
    /// Not listed, since the read failed before its turn may have come: keeps its cookie for the next snapshot.
    ghost: bool,
}

const RECORD: usize = size_of::<Record>();

/// Where the cookies of a snapshot come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Numbering {
    /// Counted, after those of the snapshot before.
    InOrder,
    /// From each entry's name.
    ByName,
}

/// What was known of the directory before the first entry was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    pub(super) generation: Generation,
    /// When the scan began, in the order of all generations drawn.
    pub(super) drawn: u64,
    times: HostStamp,
    /// A later change is certain to move the times.
    settled: bool,
}

impl Stamp {
    pub(super) fn new(generation: Generation, state: &DirectoryState, drawn: u64) -> Self {
        Self { generation, drawn, times: state.stamp, settled: state.stamp.is_settled(state.seen) }
    }
}

/// A listing of one directory that never changes, in the order of its cookies.
#[derive(Debug)]
pub(in crate::directory) struct Snapshot {
    pub(super) stamp: Stamp,
    records: Vec<Record>,
    names: Vec<u8>,
    /// Higher than every cookie handed out so far.
    next_cookie: u64,
    /// What ended the read before the end of the directory.
    failed: Option<Errno>,
    _share: Share,
}

impl Snapshot {
    /// A truncated listing is for the reader that met the error, and for nobody else.
    pub(super) const fn is_whole(&self) -> bool {
        self.failed.is_none()
    }

    /// Whether a scan now would find the same.
    pub(super) fn is_current(&self, generation: Generation, state: &DirectoryState) -> bool {
        self.is_whole()
            && self.stamp.settled
            && self.stamp.generation == generation
            && self.stamp.times == state.stamp
            && !state.unlinked
    }

    pub(super) fn read(&self, cookie: u64, emit: &mut dyn FnMut(&Entry<'_>) -> ControlFlow<()>) -> Result<(), Errno> {
        let begin = self.records.partition_point(|record| record.cookie <= cookie);
        let mut emitted = false;
        for record in self.records.get(begin..).unwrap_or_default().iter().filter(|record| !record.ghost) {
            let name = name_of(&self.names, record);
            let entry = Entry { ino: record.ino, next: record.cookie, kind: u32::from(record.kind), name };
            if emit(&entry).is_break() {
                return Ok(());
            }
            emitted = true;
        }
        self.failed.filter(|_| !emitted).map_or(Ok(()), Err)
    }
}

fn name_of<'a>(names: &'a [u8], record: &Record) -> &'a [u8] {
    let (start, length) = (record.start as usize, usize::from(record.length));
    names.get(start..).and_then(|rest| rest.get(..length)).unwrap_or_default()
}

/// A listing that is being read.
pub(super) struct Listing {
    records: Vec<Record>,
    names: Vec<u8>,
    /// The records by name: finds what was listed twice, and the old cookies.
    index: HashTable<u32>,
    hasher: RandomState,
    share: Share,
}

impl Listing {
    /// `previous` tells how much room to make at once.
    pub(super) fn new(budget: &'static Budget, previous: Option<&Snapshot>) -> Self {
        let (records, names) = previous.map_or((0, 0), |previous| (previous.records.len(), previous.names.len()));
        Self {
            records: Vec::with_capacity(records),
            names: Vec::with_capacity(names),
            index: HashTable::with_capacity(records),
            hasher: RandomState::new(),
            share: Share::new(budget),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Adds an entry. The host may list a name twice when it was replaced in mid-scan: then the later one counts.
    pub(super) fn push(&mut self, entry: &Entry<'_>) -> Result<(), Errno> {
        let hash = self.hasher.hash_one(entry.name);
        let kind = u8::try_from(entry.kind).unwrap_or(0);
        if let Some(record) = self.find(hash, entry.name) {
            (record.ino, record.kind) = (entry.ino, kind);
            return Ok(());
        }
        let number =
            self.append(Record { cookie: 0, ino: entry.ino, start: 0, length: 0, kind, ghost: false }, entry.name)?;
        let Self { records, names, index, hasher, .. } = self;
        index.insert_unique(hash, number, |&other| {
            hasher.hash_one(records.get(other as usize).map_or(&[][..], |record| name_of(names, record)))
        });
        Ok(())
    }

    fn append(&mut self, record: Record, name: &[u8]) -> Result<u32, Errno> {
        let number = u32::try_from(self.records.len()).map_err(|_| Errno::EOVERFLOW)?;
        let start = u32::try_from(self.names.len()).map_err(|_| Errno::EOVERFLOW)?;
        let length = u16::try_from(name.len()).map_err(|_| Errno::EOVERFLOW)?;
        self.share.grow_to((self.records.len() + 1) * RECORD + self.names.len() + name.len())?;
        self.names.extend_from_slice(name);
        self.records.push(Record { start, length, ..record });
        Ok(number)
    }

    fn find(&mut self, hash: u64, name: &[u8]) -> Option<&mut Record> {
        let Self { records, names, index, .. } = self;
        let same = |number: &u32| records.get(*number as usize).is_some_and(|record| name_of(names, record) == name);
        let number = *index.find(hash, same)?;
        records.get_mut(number as usize)
    }

    /// Numbers the entries: those that the previous snapshot had as it did, the others after all that ever were.
    pub(super) fn finish(
        mut self,
        stamp: Stamp,
        failed: Option<Errno>,
        previous: Option<&Snapshot>,
    ) -> Result<Snapshot, Errno> {
        for old in previous.map_or(&[][..], |previous| &previous.records) {
            let name = previous.map_or(&[][..], |previous| name_of(&previous.names, old));
            let hash = self.hasher.hash_one(name);
            if let Some(record) = self.find(hash, name) {
                record.cookie = old.cookie;
            } else if failed.is_some() {
                self.append(Record { ghost: true, ..*old }, name)?;
            }
        }
        let mut next_cookie = previous.map_or(1, |previous| previous.next_cookie);
        for record in self.records.iter_mut().filter(|record| record.cookie == 0) {
            record.cookie = next_cookie;
            next_cookie += 1;
        }
        self.records.sort_unstable_by_key(|record| record.cookie);
        Ok(self.packed(stamp, next_cookie, failed))
    }

    /// Numbers the entries by their names.
    pub(super) fn finish_by_name(mut self, stamp: Stamp) -> Snapshot {
        for record in &mut self.records {
            record.cookie = names::cookie(name_of(&self.names, record));
        }
        self.records.sort_unstable_by(|a, b| {
            a.cookie.cmp(&b.cookie).then_with(|| name_of(&self.names, a).cmp(name_of(&self.names, b)))
        });
        let mut least = 1;
        for record in &mut self.records {
            record.cookie = record.cookie.max(least);
            least = record.cookie + 1;
        }
        self.packed(stamp, least, None)
    }

    fn packed(mut self, stamp: Stamp, next_cookie: u64, failed: Option<Errno>) -> Snapshot {
        self.records.shrink_to_fit();
        self.names.shrink_to_fit();
        let Self { records, names, mut share, .. } = self;
        share.shrink_to(records.len() * RECORD + names.len());
        Snapshot { stamp, records, names, next_cookie, failed, _share: share }
    }
}
