//! A source that does as the host does, and on request fails, changes something in between, or lies about the time.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
};

use fuse_abi::Errno;

use super::fixture::Fixture;
use crate::{
    directory::{DirStream, StreamKind, getdents::Getdents, snapshot, source::Source},
    host::{DirectoryState, Entry, directory},
};

/// What a stream asked of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    State,
    Seek(u64),
    Block,
}

type Hook<'a> = Box<dyn FnOnce() + Send + 'a>;

/// What shall happen, shared by the sources of one test.
#[derive(Default)]
pub struct Plan<'a> {
    log: Mutex<Vec<Call>>,
    /// Reading the entry of this name fails, as from a bad block.
    pub bad_name: Mutex<Option<(String, Errno)>>,
    pub bad_seek: Mutex<Option<Errno>>,
    pub state: Mutex<Option<DirectoryState>>,
    /// Listed as if the directory had it once more.
    pub twice: Mutex<Option<String>>,
    /// Runs once, when a block was read and before the stream hears of it.
    pub after_block: Mutex<Option<Hook<'a>>>,
    /// Runs once, when a block is asked for and before it is read.
    pub before_block: Mutex<Option<Hook<'a>>>,
}

pub fn set<T>(place: &Mutex<T>, value: T) {
    *place.lock().unwrap_or_else(PoisonError::into_inner) = value;
}

fn get<T: Clone>(place: &Mutex<T>) -> T {
    place.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn run(hook: &Mutex<Option<Hook<'_>>>) {
    let hook = hook.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(hook) = hook {
        hook();
    }
}

impl Plan<'_> {
    /// What was asked since the last time.
    pub fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }

    /// How many times since then a directory was read from its start.
    pub fn scans(&self) -> usize {
        self.calls().into_iter().filter(|&call| call == Call::Seek(0)).count()
    }

    fn note(&self, call: Call) {
        self.log.lock().unwrap().push(call);
    }
}

pub struct Injected<'a> {
    descriptor: OwnedFd,
    plan: Arc<Plan<'a>>,
}

impl<'a> Injected<'a> {
    pub fn new(fixture: &Fixture, plan: &Arc<Plan<'a>>) -> Self {
        Self { descriptor: fixture.descriptor(), plan: Arc::clone(plan) }
    }
}

impl Source for Injected<'_> {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    fn state(&self) -> Result<DirectoryState, Errno> {
        self.plan.note(Call::State);
        get(&self.plan.state).map_or_else(|| directory::state(self.descriptor()), Ok)
    }

    fn seek(&self, position: u64) -> Result<(), Errno> {
        self.plan.note(Call::Seek(position));
        get(&self.plan.bad_seek).map_or_else(|| directory::seek(self.descriptor(), position), Err)
    }

    fn read_block(&self, block: &mut Vec<u8>) -> Result<(), Errno> {
        self.plan.note(Call::Block);
        run(&self.plan.before_block);
        let begin = block.len();
        directory::read_block(self.descriptor(), block)?;
        if let Some((name, error)) = get(&self.plan.bad_name) {
            self.cut_before(&name, error, block, begin)?;
        }
        run(&self.plan.after_block);
        Ok(())
    }

    fn scan(&self, each: &mut dyn FnMut(&Entry<'_>) -> Result<(), Errno>) -> Result<(), Errno> {
        self.seek(0)?;
        let twice = get(&self.plan.twice);
        let mut block = Vec::with_capacity(4096);
        loop {
            block.clear();
            self.read_block(&mut block)?;
            if block.is_empty() {
                return Ok(());
            }
            let mut rest = block.as_slice();
            while let Some((entry, following)) = directory::first_entry(rest) {
                each(&entry)?;
                if twice.as_deref().is_some_and(|name| name.as_bytes() == entry.name) {
                    each(&Entry { ino: entry.ino + 1_000, ..entry })?;
                }
                rest = following;
            }
        }
    }
}

impl Injected<'_> {
    /// Takes the entry `name` and what follows out of the block, and leaves the descriptor before it.
    fn cut_before(&self, name: &str, error: Errno, block: &mut Vec<u8>, begin: usize) -> Result<(), Errno> {
        let (mut at, mut last) = (begin, None);
        while let Some((entry, following)) = directory::first_entry(&block[at..]) {
            if entry.name == name.as_bytes() {
                block.truncate(at);
                return directory::seek(self.descriptor(), last.ok_or(error)?);
            }
            last = Some(entry.next);
            at = block.len() - following.len();
        }
        Ok(())
    }
}

/// A stream of either kind over an injected source.
pub fn open<'a>(fixture: &Fixture, plan: &Arc<Plan<'a>>) -> Box<dyn DirStream + 'a> {
    let before = fixture.directory.generation().read();
    let (source, directory) = (Injected::new(fixture, plan), Arc::clone(&fixture.directory));
    match fixture.how.kind() {
        StreamKind::Getdents => Box::new(Getdents::new(source, directory, before)),
        StreamKind::Snapshot => Box::new(snapshot::Stream::new(source, directory, &snapshot::BUDGET)),
    }
}
