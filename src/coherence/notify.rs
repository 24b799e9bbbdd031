//! What the client is to hear unasked: the messages, and the list of changes that wait to be told.
//!
//! The list holds places where something changed, not messages: what is worth saying of a place is decided when its turn
//! comes, by what the client knows then. So many changes of one place are one, and a change that the client has heard of
//! by itself is none. The list is bounded. When it overflows everything the client knows is looked at again, and until
//! that is done nothing is granted on the strength of word to come.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fuse_abi::{NotifyCode, NotifyDeleteOut, NotifyInvalEntryOut, NotifyInvalInodeOut, NotifyPruneOut, OutHeader};
use zerocopy::IntoBytes;

/// The longest message, which is one that prunes.
pub const MESSAGE_MAX: usize = 1024;
/// How many nodes one message prunes.
pub const PRUNE_MAX: usize = (MESSAGE_MAX - size_of::<OutHeader>() - size_of::<NotifyPruneOut>()) / size_of::<u64>();
/// How many places may wait to be told of.
const CHANGES_MAX: usize = 4096;

/// How long a client may take to act on an answer that it got, beyond all reason.
const MOMENT: Duration = Duration::from_millis(20);

/// A message that the client did not ask for. Nodes are named by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notification<'n> {
    /// Attributes and cached content of a node are out of date.
    InvalInode(u64),
    /// Attributes of a node are, and nothing else.
    InvalAttributes(u64),
    /// A name in a directory may lead elsewhere now.
    InvalEntry(u64, &'n [u8]),
    /// A name in a directory is gone, and with it the node that it led to.
    Delete(u64, u64, &'n [u8]),
    /// No name is to be used before it was asked for again. From 7.44.
    IncEpoch,
    /// These nodes are better forgotten where nothing uses them. From 7.45.
    Prune(&'n [u64]),
}

impl Notification<'_> {
    /// The message, in place of what `bytes` held.
    pub fn write_to(&self, bytes: &mut Vec<u8>) {
        bytes.clear();
        bytes.extend_from_slice(OutHeader::default().as_bytes());
        let name_of = |bytes: &mut Vec<u8>, name: &[u8]| {
            bytes.extend_from_slice(name);
            bytes.push(0);
        };
        let code = match *self {
            Self::InvalInode(ino) => {
                // The whole of it: a file's data, or a directory's listing.
                bytes.extend_from_slice(NotifyInvalInodeOut { ino, off: 0, len: 0 }.as_bytes());
                NotifyCode::InvalInode
            }
            Self::InvalAttributes(ino) => {
                bytes.extend_from_slice(NotifyInvalInodeOut { ino, off: -1, len: 0 }.as_bytes());
                NotifyCode::InvalInode
            }
            Self::InvalEntry(parent, name) => {
                let head = NotifyInvalEntryOut { parent, namelen: length(name), flags: 0 };
                bytes.extend_from_slice(head.as_bytes());
                name_of(bytes, name);
                NotifyCode::InvalEntry
            }
            Self::Delete(parent, child, name) => {
                let head = NotifyDeleteOut { parent, child, namelen: length(name), padding: 0 };
                bytes.extend_from_slice(head.as_bytes());
                name_of(bytes, name);
                NotifyCode::Delete
            }
            Self::IncEpoch => NotifyCode::IncEpoch,
            Self::Prune(nodes) => {
                let nodes = nodes.get(..PRUNE_MAX).unwrap_or(nodes);
                let count = u32::try_from(nodes.len()).unwrap_or(0);
                bytes.extend_from_slice(NotifyPruneOut { count, ..NotifyPruneOut::default() }.as_bytes());
                bytes.extend_from_slice(nodes.as_bytes());
                NotifyCode::Prune
            }
        };
        let header = OutHeader { len: length(bytes), error: code.number().cast_signed(), unique: 0 };
        if let Some(place) = bytes.get_mut(..size_of::<OutHeader>()) {
            place.copy_from_slice(header.as_bytes());
        }
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// Where something changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A name in a directory, and what it leads to.
    Name(u64, Box<[u8]>),
    /// A node, whatever its names.
    Node(u64),
}

/// A place that is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub place: Place,
    /// The name itself changed, and not only what it leads to.
    pub named: bool,
    /// It was told of already, to a client that may not have been ready to hear.
    pub again: bool,
}

/// What waits to be told, as it is taken to be told.
#[derive(Debug, Default)]
pub struct Batch {
    /// Places.
    pub changes: Vec<Change>,
    /// So much changed that nobody knows what: places are not listed.
    pub everything: bool,
    /// Nodes are better forgotten where nothing uses them.
    pub prune: bool,
}

/// The list of changes that wait to be told.
#[derive(Debug, Default)]
pub struct Outbox {
    state: Mutex<State>,
    came: Condvar,
    /// Somebody tells, or is about to tell of all that changed before.
    speaking: AtomicBool,
    /// Somebody tells, and will tell of every change.
    trusted: AtomicBool,
    overflows: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Places in the order in which they were first seen to change.
    changes: Vec<Change>,
    /// Where in that order each is.
    listed: HashMap<Place, usize>,
    /// What is to be looked at once more, and when. In that order.
    again: VecDeque<(Instant, Place, bool)>,
    everything: bool,
    prune: bool,
    /// A client hears.
    heard: bool,
    ended: bool,
}

impl State {
    fn has_something(&self) -> bool {
        !self.changes.is_empty() || self.everything || self.prune
    }

    fn take(&mut self, now: Instant) -> Batch {
        let due = self.again.iter().take_while(|(when, ..)| *when <= now).count();
        let again = self.again.drain(..due).map(|(_, place, named)| Change { place, named, again: true });
        let mut changes: Vec<_> = again.collect();
        changes.append(&mut self.changes);
        self.listed.clear();
        Batch { changes, everything: std::mem::take(&mut self.everything), prune: std::mem::take(&mut self.prune) }
    }
}

impl Outbox {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether every change from now on will be told, if not trusted yet then by looking at all that the client knows.
    pub fn is_speaking(&self) -> bool {
        self.speaking.load(Ordering::SeqCst)
    }

    /// Whether every change from now on will be told.
    pub fn is_trusted(&self) -> bool {
        self.trusted.load(Ordering::Acquire)
    }

    /// How often more changed than could be listed.
    pub fn overflows(&self) -> u64 {
        self.overflows.load(Ordering::Relaxed)
    }

    /// Something changed at `place`; `named` says that the name itself did.
    pub fn changed(&self, place: Place, named: bool) {
        let mut state = self.state();
        if !self.is_speaking() || state.everything {
            return;
        }
        if let Some(listed) = state.listed.get(&place).copied() {
            if let Some(change) = state.changes.get_mut(listed) {
                change.named |= named;
            }
            return;
        }
        if state.changes.len() >= CHANGES_MAX {
            return self.overflow(&mut state);
        }
        let next = state.changes.len();
        state.listed.insert(place.clone(), next);
        state.changes.push(Change { place, named, again: false });
        self.came.notify_one();
    }

    /// So much changed that nobody knows what.
    pub fn lost_track(&self) {
        self.overflow(&mut self.state());
    }

    fn overflow(&self, state: &mut State) {
        if !self.is_speaking() {
            return;
        }
        // First nothing more is granted, then what was granted is looked at.
        self.trusted.store(false, Ordering::SeqCst);
        let count = self.overflows.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if count.is_power_of_two() {
            log::warn!("more changed on the host than is told one by one: all is looked at again ({count} so far)");
        }
        state.changes.clear();
        state.listed.clear();
        state.again.clear();
        state.everything = true;
        self.came.notify_one();
    }

    /// Nodes that nothing uses are better forgotten.
    pub fn prune(&self) {
        let mut state = self.state();
        if self.is_speaking() {
            state.prune = true;
            self.came.notify_one();
        }
    }

    /// Looks at a place once more in a moment: the client may have been about to take in what had just been answered.
    pub fn again(&self, place: Place, named: bool) {
        let mut state = self.state();
        if state.again.len() < CHANGES_MAX {
            state.again.push_back((Instant::now() + MOMENT, place, named));
        }
    }

    /// Somebody begins to tell: first of all that changed while nobody did.
    /// `heard` says whether a client listens, or whether it is for the record only.
    pub fn begin(&self, heard: bool) {
        let mut state = self.state();
        (state.heard, state.everything) = (heard, true);
        self.speaking.store(true, Ordering::SeqCst);
    }

    /// Nobody tells any more, or not now.
    pub fn end(&self) {
        let mut state = self.state();
        self.trusted.store(false, Ordering::SeqCst);
        self.speaking.store(false, Ordering::SeqCst);
        *state = State { ended: state.ended, ..State::default() };
        self.came.notify_all();
    }

    /// Somebody may begin to tell.
    pub fn unmute(&self) {
        self.state().ended = false;
    }

    /// Whether nobody is to tell any more.
    pub fn is_mute(&self) -> bool {
        self.state().ended
    }

    /// Nobody is to tell any more.
    pub fn mute(&self) {
        self.state().ended = true;
        self.came.notify_all();
    }

    /// Waits for changes, and takes all there are; `None` at the end.
    pub fn take(&self) -> Option<Batch> {
        let mut state = self.state();
        loop {
            let now = Instant::now();
            let wait = state.again.front().map(|(when, ..)| when.saturating_duration_since(now));
            if state.ended || !self.is_speaking() {
                return None;
            }
            if state.has_something() || wait.is_some_and(|wait| wait.is_zero()) {
                return Some(state.take(now));
            }
            state = match wait {
                Some(wait) => self.came.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0,
                None => self.came.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// All there was is told. If no more was lost meanwhile, grants are given again.
    pub fn told_everything(&self) {
        let state = self.state();
        if self.is_speaking() && state.heard && !state.everything && !state.ended {
            self.trusted.store(true, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> Place {
        Place::Name(1, number.to_string().into_bytes().into())
    }

    fn speaking() -> Outbox {
        let outbox = Outbox::default();
        outbox.begin(true);
        assert!(outbox.take().unwrap().everything, "first all that changed while nobody spoke");
        outbox.told_everything();
        outbox
    }

    #[test]
    fn messages_are_what_the_protocol_says() {
        let message = |what: Notification<'_>| {
            let mut bytes = vec![7; 3];
            what.write_to(&mut bytes);
            let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
            assert_eq!((word(0) as usize, word(8), word(12)), (bytes.len(), 0, 0), "{what:?}");
            (word(4), bytes[16..].to_vec())
        };
        let words = |words: &[u64]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>();
        assert_eq!(message(Notification::InvalInode(5)), (2, words(&[5, 0, 0])));
        assert_eq!(message(Notification::InvalAttributes(5)), (2, words(&[5, u64::MAX, 0])));
        assert_eq!(message(Notification::InvalEntry(5, b"ab")), (3, [&words(&[5, 2])[..], b"ab\0"].concat()));
        assert_eq!(message(Notification::Delete(5, 6, b"ab")), (6, [&words(&[5, 6, 2])[..], b"ab\0"].concat()));
        assert_eq!(message(Notification::IncEpoch), (8, vec![]));
        assert_eq!(message(Notification::Prune(&[5, 6])), (9, words(&[2, 0, 5, 6])));
        let all = vec![1; 10_000];
        assert_eq!(message(Notification::Prune(&all)).1.len() + 16, MESSAGE_MAX);
    }

    #[test]
    fn changes_of_one_place_are_one_and_are_told_in_the_order_in_which_they_came() {
        let outbox = speaking();
        for (number, named) in [(1, false), (2, false), (1, true), (3, false), (2, false)] {
            outbox.changed(name(number), named);
        }
        let change = |number, named| Change { place: name(number), named, again: false };
        assert_eq!(outbox.take().unwrap().changes, [change(1, true), change(2, false), change(3, false)]);
    }

    #[test]
    fn more_than_can_be_listed_ends_all_trust_until_everything_was_told() {
        let outbox = speaking();
        assert!(outbox.is_trusted());
        (0..=CHANGES_MAX).for_each(|number| outbox.changed(name(number), true));
        assert!(!outbox.is_trusted());
        assert_eq!(outbox.overflows(), 1);
        let batch = outbox.take().unwrap();
        assert!(batch.everything && batch.changes.is_empty());
        // What changes while everything is told is listed again.
        outbox.changed(name(7), true);
        outbox.told_everything();
        assert!(outbox.is_trusted());
        assert_eq!(outbox.take().unwrap().changes.len(), 1);
        outbox.lost_track();
        outbox.told_everything();
        assert!(!outbox.is_trusted(), "more was lost meanwhile");
    }

    #[test]
    fn nothing_is_listed_while_nobody_speaks_and_all_is_told_when_somebody_does() {
        let outbox = Outbox::default();
        outbox.changed(name(1), true);
        assert!(!outbox.is_trusted() && outbox.take().is_none());
        outbox.begin(true);
        assert!(!outbox.is_trusted());
        assert!(outbox.take().unwrap().everything);
        outbox.told_everything();
        outbox.end();
        assert!(!outbox.is_trusted() && outbox.take().is_none());
    }

    #[test]
    fn a_mute_ends_waiting_and_an_unmute_lets_it_begin_again() {
        let outbox = speaking();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| outbox.take().is_none());
            outbox.mute();
            assert!(waiting.join().unwrap());
        });
        outbox.end();
        outbox.unmute();
        outbox.begin(true);
        assert!(outbox.take().is_some());
    }

    #[test]
    fn what_may_not_have_been_heard_is_looked_at_once_more() {
        let outbox = speaking();
        outbox.again(name(1), true);
        assert_eq!(outbox.take().unwrap().changes, [Change { place: name(1), named: true, again: true }]);
    }
}
