//! The directories that are watched on the host: those in which the guest knows names, as many as there is room for.
//!
//! A directory that cannot be watched is none that anything is promised of: what the guest keeps of it is validated as
//! without a watcher, and never stale.

use std::{
    collections::{BTreeMap, HashMap},
    os::fd::BorrowedFd,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use fuse_abi::Errno;

use crate::host::{self, Mark, Seen, SelfFds, Watch};

/// What happened on the host, by the number of the directory in which it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'e> {
    /// A name was made, removed or moved.
    Name(u64, &'e [u8]),
    /// What a name leads to was changed.
    Content(u64, &'e [u8]),
    /// The directory itself was changed.
    Directory(u64),
    /// The directory is not watched any more.
    Lost(u64),
    /// Events were lost.
    Overflow,
}

/// What is watched.
#[derive(Debug)]
pub struct Watches {
    host: Watch,
    table: Mutex<Table>,
    most: AtomicUsize,
    count: AtomicUsize,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    /// Whose directory each mark is; the oldest first. One that is known through two mounts has one mark and two numbers.
    nodes: BTreeMap<Mark, Vec<u64>>,
    marks: HashMap<u64, Mark>,
}

impl Watches {
    /// With room for `most` directories.
    ///
    /// # Errors
    /// The host's.
    pub fn new(most: usize) -> host::Result<Self> {
        let (table, count, refused) = Default::default();
        Ok(Self { host: Watch::new()?, table, most: most.into(), count, refused })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more directory may be watched.
    pub fn has_room(&self) -> bool {
        self.count.load(Ordering::Relaxed) < self.most.load(Ordering::Relaxed)
    }

    /// Takes note that there was no room. Gives back how often that was.
    pub fn refuse(&self) -> u64 {
        let refused = self.refused.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if refused == 1 {
            let most = self.most.load(Ordering::Relaxed);
            log::warn!("no more than {most} directories can be watched: in others, changes show when asked for");
        }
        refused
    }

    /// How often there was no room.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Watches a directory from now on.
    ///
    /// # Errors
    /// `ENOSPC` where the host has no room; the host's.
    pub fn add(&self, fds: &SelfFds, dir: BorrowedFd<'_>, node: u64) -> host::Result<()> {
        // Held over the call: the event that comes at once finds its directory.
        let mut table = self.table();
        let mark = self.host.add(fds, dir).inspect_err(|errno| {
            if *errno == Errno::ENOSPC {
                // The host's limit is lower than ours.
                self.most.store(table.marks.len(), Ordering::Relaxed);
            }
        })?;
        if table.marks.insert(node, mark).is_none() {
            self.count.fetch_add(1, Ordering::Relaxed);
            table.nodes.entry(mark).or_default().push(node);
        }
        Ok(())
    }

    /// Watches a directory no longer.
    pub fn remove(&self, node: u64) {
        let mut table = self.table();
        let Some(mark) = table.marks.remove(&node) else { return };
        self.count.fetch_sub(1, Ordering::Relaxed);
        if let Some(nodes) = table.nodes.get_mut(&mark) {
            nodes.retain(|other| *other != node);
            if nodes.is_empty() {
                table.nodes.remove(&mark);
                self.host.remove(mark);
            }
        }
    }

    /// Watches nothing any more.
    pub fn clear(&self) {
        let mut table = self.table();
        table.nodes.keys().for_each(|mark| self.host.remove(*mark));
        *table = Table::default();
        self.count.store(0, Ordering::Relaxed);
    }

    /// The directories that were watched first.
    pub fn oldest(&self, count: usize) -> Vec<u64> {
        self.table().nodes.values().flatten().copied().take(count).collect()
    }

    /// Waits for events and passes them on until [`mute`](Self::mute).
    pub fn run(&self, mut take_in: impl FnMut(Event<'_>)) {
        let mut nodes = Vec::new();
        while self.host.wait() {
            self.host.read(&mut |mark, seen| self.pass_on(mark, seen, &mut nodes, &mut take_in));
        }
    }

    fn pass_on(&self, mark: Mark, seen: Seen<'_>, nodes: &mut Vec<u64>, take_in: &mut impl FnMut(Event<'_>)) {
        nodes.clear();
        match seen {
            Seen::Overflow => return take_in(Event::Overflow),
            Seen::Lost => {
                let mut table = self.table();
                nodes.extend(table.nodes.remove(&mark).unwrap_or_default());
                table.marks.retain(|_, other| *other != mark);
                self.count.fetch_sub(nodes.len(), Ordering::Relaxed);
            }
            _ => nodes.extend(self.table().nodes.get(&mark).into_iter().flatten()),
        }
        // With no lock held: whoever takes it in may want to watch less.
        for node in nodes.iter().copied() {
            take_in(match seen {
                Seen::Name(name) => Event::Name(node, name),
                Seen::Content(name) => Event::Content(node, name),
                Seen::Directory => Event::Directory(node),
                Seen::Lost | Seen::Overflow => Event::Lost(node),
            });
        }
    }

    /// Ends [`run`](Self::run), also one that has not begun, until [`unmute`](Self::unmute).
    pub fn mute(&self) {
        self.host.stop();
    }

    /// Lets [`run`](Self::run) be called again.
    pub fn unmute(&self) {
        self.host.go_on();
    }
}
