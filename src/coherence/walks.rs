//! Which threads of a guest were sent back to look again, and how far they have come.
//!
//! A client that is answered `ESTALE` walks the path once more, and asks for each name anew on the way. What it reaches
//! then must be granted, whatever it is: a second `ESTALE` would reach the program. What it asks for afterwards, in
//! another system call, must not be. Nothing on the wire tells where a call ends, but while a thread looks again it is
//! told attributes that last no time, so that its next call shows itself by asking for them on its way.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// What a thread asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A name in a directory.
    Name,
    /// Attributes: for `stat`, or for the permission to go on.
    Attributes,
    /// The same of a directory, which one call may ask for twice: to go through it, and to change it.
    Directory,
    /// Where a symbolic link leads.
    Link,
    /// A file or directory, opened. The call ends with it.
    Open,
    /// A change of a directory or of attributes. The call ends with it, but may concern two directories.
    Change,
}

/// More threads than this in one shard are not remembered.
const SHARD_MAX: usize = 256;
const SHARDS: usize = 16;
/// Deeper walks than this are taken for over: a path has no more names.
const VISITED_MAX: usize = 4096;
/// So many links in a second look are taken for a circle. Linux gives up at 40 in a call, the first look counted, and says so to
/// nobody: the next call would pass for a step of this one.
const LINKS_MAX: u8 = 32;

/// The threads that look again.
#[derive(Debug, Default)]
pub struct Walks {
    live: AtomicUsize,
    shards: [Mutex<HashMap<u32, Walk>>; SHARDS],
}

#[derive(Debug)]
struct Walk {
    /// What was answered by `ESTALE`: asked again, it is granted once.
    sent: Option<(Asked, u64)>,
    began: bool,
    /// Where the thread has come by since, each by a name that was just looked up, or from where it began.
    visited: Vec<u64>,
    at: u64,
    /// The directory in which `at` was looked up.
    parent: u64,
    /// How often the attributes of `at` may still be asked for: who asks once more, or then for another's, is on a new way.
    steps: u8,
    /// It was reached by a name.
    found: bool,
    /// A link was read: the way goes on from a directory behind.
    turned: bool,
    /// How many were read.
    links: u8,
    /// Attributes of this directory behind were asked for, which only a change in it does.
    changing: Option<u64>,
}

const ROOT: u64 = 1;
/// For `.`, once for the way and once for the end of it.
const START_STEPS: u8 = 2;

impl Walk {
    const fn new(asked: Asked, node: u64) -> Self {
        let sent = Some((asked, node));
        Self {
            sent,
            began: false,
            visited: Vec::new(),
            at: 0,
            parent: 0,
            steps: START_STEPS,
            found: false,
            turned: false,
            links: 0,
            changing: None,
        }
    }

    /// Whether this request is a step of the same call.
    fn goes_on(&mut self, asked: Asked, node: u64) -> bool {
        let again = self.sent == Some((asked, node));
        if !self.began {
            // A way without names has nothing to ask but its end, if another thread has just asked for its attributes.
            let arrived = again || self.sent.is_some_and(|(_, sent)| sent == node);
            if !arrived && !matches!(asked, Asked::Attributes | Asked::Directory | Asked::Name) {
                return false;
            }
            (self.began, self.at) = (true, node);
            self.visited.push(node);
        }
        if again {
            self.sent = None;
        }
        let visited = self.visited.contains(&node) && self.visited.len() <= VISITED_MAX;
        match asked {
            Asked::Name => self.changing.is_none_or(|dir| dir == node) && (visited || node == ROOT),
            Asked::Attributes | Asked::Directory => {
                (visited || (self.turned && node == ROOT)) && self.permits(node, asked)
            }
            Asked::Link => {
                // Following a link takes no permission: who asked for its attributes was on another way.
                let arrived = visited && node == self.at && self.steps != 0;
                self.turned = true;
                self.visited.retain(|other| *other != node);
                self.links = self.links.saturating_add(1);
                again || (arrived && self.changing.is_none())
            }
            Asked::Open => again || (visited && self.changing.is_none()),
            Asked::Change => again || visited,
        }
    }

    /// Whether attributes may be asked for on the way, after what was asked for before.
    fn permits(&mut self, node: u64, asked: Asked) -> bool {
        if self.turned {
            return true;
        }
        // Every way from the top begins so, unless a name in it is about to be made.
        if node == ROOT && self.at != ROOT && (self.parent != ROOT || self.steps == 0) {
            return false;
        }
        if node == self.at && self.steps != 0 {
            self.steps -= 1;
            return true;
        }
        let first = self.steps != 0 || (asked == Asked::Directory && self.found && self.changing.is_none());
        if first {
            self.changing = Some(node);
        }
        first
    }

    fn found(&mut self, parent: u64, child: Option<u64>) {
        (self.steps, self.found, self.turned, self.changing) = (1, true, false, None);
        (self.at, self.parent) = (child.unwrap_or(parent), parent);
        if let Some(child) = child.filter(|child| !self.visited.contains(child)) {
            self.visited.push(child);
        }
    }
}

impl Walks {
    /// The thread `who` asks something of an inode; `doubtful` says that the guest's idea of it is out of date. Says
    /// whether it is to look again.
    pub fn send_back(&self, who: u32, asked: Asked, node: u64, doubtful: bool) -> bool {
        if !doubtful && self.live.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let mut shard = self.shard(who);
        if let Some(goes_on) = shard.get_mut(&who).map(|walk| walk.goes_on(asked, node)) {
            if !goes_on || asked == Asked::Open {
                self.forget(&mut shard, who);
            }
            if goes_on {
                return false;
            }
        }
        if doubtful {
            self.remember(&mut shard, who, Walk::new(asked, node));
        }
        doubtful
    }

    /// Whether the thread `who`, which now reads a link, goes round in a circle. It is to be told so: its call ends with that.
    pub fn circles(&self, who: u32) -> bool {
        if self.live.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let mut shard = self.shard(who);
        let circles = shard.get(&who).is_some_and(|walk| walk.links > LINKS_MAX);
        if circles {
            self.forget(&mut shard, who);
        }
        circles
    }

    /// The thread `who` was told where a name leads, or that it leads nowhere.
    pub fn found(&self, who: u32, parent: u64, child: Option<u64>) {
        if self.live.load(Ordering::Relaxed) != 0
            && let Some(walk) = self.shard(who).get_mut(&who)
        {
            walk.found(parent, child);
        }
    }

    /// Whether the thread `who` looks again: what it is told of attributes lasts no time.
    pub fn looks_again(&self, who: u32) -> bool {
        self.live.load(Ordering::Relaxed) != 0 && self.shard(who).contains_key(&who)
    }

    /// The call of the thread `who` has ended.
    pub fn ended(&self, who: u32) {
        if self.live.load(Ordering::Relaxed) != 0 {
            self.forget(&mut self.shard(who), who);
        }
    }

    /// Forgets all threads.
    pub fn clear(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            self.live.fetch_sub(shard.len(), Ordering::Relaxed);
            shard.clear();
        }
    }

    fn remember(&self, shard: &mut HashMap<u32, Walk>, who: u32, walk: Walk) {
        if shard.len() >= SHARD_MAX
            && let Some(other) = shard.keys().next().copied()
        {
            self.forget(shard, other);
        }
        if shard.insert(who, walk).is_none() {
            self.live.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn forget(&self, shard: &mut HashMap<u32, Walk>, who: u32) {
        if shard.remove(&who).is_some() {
            self.live.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[allow(clippy::indexing_slicing, reason = "the index is reduced to the number of shards, which is fixed")]
    fn shard(&self, who: u32) -> MutexGuard<'_, HashMap<u32, Walk>> {
        self.shards[who as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: u32 = 7;
    const DIR: u64 = 2;
    const OLD: u64 = 3;
    const NEW: u64 = 4;

    /// One request of a thread: what it asks for, of which inode, whether that is out of date, whether it is sent back.
    type Request = (Asked, u64, bool, bool);

    fn replay(steps: &[(&str, Request, Option<u64>)]) {
        let walks = Walks::default();
        for (what, (asked, node, doubtful, expected), child) in steps {
            assert_eq!(walks.send_back(WHO, *asked, *node, *doubtful), *expected, "{what}");
            if *asked == Asked::Name && !expected {
                walks.found(WHO, *node, *child);
            }
        }
    }

    #[test]
    fn what_a_second_look_leads_to_is_granted_though_it_changed_again() {
        replay(&[
            ("open", (Asked::Open, OLD, true, true), None),
            ("the name again", (Asked::Name, DIR, false, false), Some(NEW)),
            ("permission", (Asked::Attributes, NEW, true, false), None),
            ("open, replaced once more", (Asked::Open, NEW, true, false), None),
            ("the next call", (Asked::Open, NEW, true, true), None),
        ]);
    }

    #[test]
    fn a_thread_in_a_moved_directory_is_sent_back_once_a_call() {
        replay(&[
            ("stat of .", (Asked::Attributes, DIR, true, true), None),
            ("again, for the way", (Asked::Attributes, DIR, true, false), None),
            ("and for itself", (Asked::Attributes, DIR, true, false), None),
            ("the next call", (Asked::Attributes, DIR, true, true), None),
            ("again", (Asked::Attributes, DIR, true, false), None),
            ("and on from there", (Asked::Name, DIR, true, false), Some(OLD)),
            ("to the file", (Asked::Attributes, OLD, true, false), None),
            ("the next call", (Asked::Attributes, OLD, true, true), None),
        ]);
    }

    #[test]
    fn a_thread_for_which_another_has_asked_for_attributes_is_sent_back_once_a_call() {
        replay(&[
            ("open of ., permission for the way", (Asked::Directory, DIR, false, false), None),
            ("permission to read, moved in between", (Asked::Directory, DIR, true, true), None),
            ("again, and nothing is left to ask but this", (Asked::Open, DIR, true, false), None),
            ("the next call", (Asked::Open, DIR, true, true), None),
        ]);
    }

    #[test]
    fn a_call_after_one_that_ended_without_an_open_is_judged_by_itself() {
        replay(&[
            ("stat", (Asked::Attributes, OLD, true, true), None),
            ("the name again", (Asked::Name, DIR, false, false), Some(NEW)),
            ("attributes", (Asked::Attributes, NEW, false, false), None),
            ("another call, permission first", (Asked::Attributes, DIR, false, false), None),
            ("open, replaced in between", (Asked::Open, NEW, true, true), None),
        ]);
    }

    #[test]
    fn making_and_removing_names_in_a_moved_directory_is_sent_back_once() {
        replay(&[
            ("mkdir looks for the name", (Asked::Name, DIR, true, true), None),
            ("again", (Asked::Name, DIR, true, false), None),
            ("permission", (Asked::Attributes, DIR, true, false), None),
            ("and makes it", (Asked::Change, DIR, true, false), None),
        ]);
        replay(&[
            ("open, to create", (Asked::Open, OLD, true, true), None),
            ("the name again", (Asked::Name, DIR, false, false), Some(NEW)),
            ("permission to create", (Asked::Directory, DIR, false, false), None),
            ("the name once more", (Asked::Name, DIR, false, false), Some(NEW)),
            ("open, replaced again", (Asked::Open, NEW, true, false), None),
        ]);
        replay(&[
            ("open, to create", (Asked::Open, OLD, true, true), None),
            ("the directory again", (Asked::Name, ROOT, false, false), Some(DIR)),
            ("permission to go on", (Asked::Directory, DIR, true, false), None),
            ("permission to create", (Asked::Directory, DIR, true, false), None),
            ("the name once more", (Asked::Name, DIR, false, false), Some(NEW)),
            ("open, replaced again", (Asked::Open, NEW, true, false), None),
        ]);
        replay(&[
            ("open, to create at the top", (Asked::Open, OLD, true, true), None),
            ("the way", (Asked::Directory, ROOT, false, false), None),
            ("the name again", (Asked::Name, ROOT, false, false), Some(NEW)),
            ("permission to create", (Asked::Directory, ROOT, false, false), None),
            ("the name once more", (Asked::Name, ROOT, false, false), Some(NEW)),
            ("open, replaced again", (Asked::Open, NEW, true, false), None),
        ]);
        replay(&[
            ("unlink", (Asked::Change, DIR, true, true), None),
            ("the name again", (Asked::Name, DIR, false, false), Some(OLD)),
            ("permission", (Asked::Attributes, DIR, true, false), None),
            ("and removes it", (Asked::Change, DIR, true, false), None),
        ]);
    }

    #[test]
    fn a_thread_that_does_not_look_again_gains_nothing() {
        replay(&[
            ("open", (Asked::Open, OLD, true, true), None),
            ("another file", (Asked::Open, NEW, true, true), None),
        ]);
    }

    #[test]
    fn a_link_is_read_once_a_call() {
        replay(&[
            ("readlink", (Asked::Link, OLD, true, true), None),
            ("permission", (Asked::Attributes, DIR, false, false), None),
            ("the name again", (Asked::Name, DIR, false, false), Some(NEW)),
            ("readlink", (Asked::Link, NEW, true, false), None),
            ("permission to go on beside it", (Asked::Attributes, DIR, false, false), None),
            ("the name in it", (Asked::Name, DIR, false, false), Some(NEW)),
            ("which is the same link", (Asked::Link, NEW, true, false), None),
            ("the name in it", (Asked::Name, DIR, false, false), Some(NEW)),
            ("lstat", (Asked::Attributes, NEW, true, false), None),
            ("the next call", (Asked::Link, NEW, true, true), None),
        ]);
    }

    #[test]
    fn a_call_that_ended_in_a_circle_of_links_is_not_taken_for_the_next_one() {
        let walks = Walks::default();
        assert!(walks.send_back(WHO, Asked::Link, NEW, true));
        for count in 0..=LINKS_MAX {
            assert!(!walks.send_back(WHO, Asked::Name, DIR, false));
            walks.found(WHO, DIR, Some(NEW));
            assert!(!walks.send_back(WHO, Asked::Link, NEW, true));
            assert_eq!(walks.circles(WHO), count == LINKS_MAX);
        }
        assert!(walks.send_back(WHO, Asked::Link, NEW, true), "by an old name of the link");
    }

    #[test]
    fn threads_are_forgotten_when_there_are_too_many() {
        let walks = Walks::default();
        for who in 0..100_000 {
            assert!(walks.send_back(who, Asked::Open, OLD, true));
        }
        assert!(walks.live.load(Ordering::Relaxed) <= SHARDS * SHARD_MAX);
        walks.clear();
        assert!(!walks.looks_again(99_999));
        assert_eq!(walks.live.load(Ordering::Relaxed), 0);
    }
}
