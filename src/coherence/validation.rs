//! What a guest was told of an inode, held against what is true now.
//!
//! Stock guests cannot be told anything: what they may keep is decided when they ask to open. A [`Record`] remembers
//! what the guest knows and what it may have cached; held against the host's present state, that says what an open is
//! granted. It is pure: whoever asks has looked at the host, and says when.

use std::hash::{BuildHasher, Hash};

use fuse_abi::Timestamp;
use hashbrown::DefaultHashBuilder;

/// A state of an inode, reduced to what tells two states apart: equal prints are equal states, but for one chance in
/// 2^64 that nobody can aim for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Print {
    content: u64,
    status: u64,
}

/// Makes prints, with a seed of its own.
#[derive(Clone, Debug, Default)]
pub struct Printer(DefaultHashBuilder);

impl Printer {
    /// The print of a file: what a change of its content moves, and what a change of anything moves.
    #[must_use]
    pub fn file(&self, size: u64, mtime: Timestamp, status: impl Hash) -> Print {
        Print { content: self.0.hash_one((size, mtime)), status: self.0.hash_one(status) }
    }

    /// The print of a directory: its times, and how often it was changed through here.
    #[must_use]
    pub fn directory(&self, generation: u64, mtime: Timestamp, status: impl Hash) -> Print {
        Print { content: self.0.hash_one((generation, mtime)), status: self.0.hash_one(status) }
    }
}

/// Reads a state, and before it the version that says whether the state still holds: a version read afterwards would pass
/// off a state as current that had changed in between.
pub fn observe<V, S>(version: impl FnOnce() -> V, state: impl FnOnce() -> S) -> (V, S) {
    let version = version();
    let state = state();
    (version, state)
}

/// What an observer saw of the host just now.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// The state.
    pub print: Print,
    /// Whether its timestamps are old enough that any later change is certain to move them.
    pub settled: bool,
    /// Whether every name by which the guest knows the inode still leads to it.
    pub leads_here: bool,
}

/// Whom a reply with attributes is for, and when it leaves, in milliseconds of any clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Telling {
    /// The thread of the guest.
    pub who: u32,
    /// When.
    pub at: u32,
}

/// Within this time a guest's thread has taken in what it was told.
const TAKEN_IN: u32 = 1000;

/// Which threads of a guest may be taking in replies at once.
///
/// A client drops attributes that were asked for before others came in: of two replies on their way to two threads either
/// may be the one that counts, and the older one may win.
#[derive(Debug, Default)]
struct Listeners {
    last: Option<Telling>,
    /// When a thread other than the last one was told something.
    others: Option<u32>,
}

impl Listeners {
    /// Says whether all that was told before has been taken in by now, or was told to the same thread.
    fn hear(&mut self, now: Telling) -> bool {
        if let Some(last) = self.last.replace(now)
            && last.who != now.who
        {
            self.others = Some(last.at);
        }
        self.others.is_none_or(|others| now.at.wrapping_sub(others) >= TAKEN_IN)
    }
}

/// What one guest knows of one inode.
#[derive(Debug, Default)]
pub struct Record {
    /// The attributes it was last told.
    told: Option<Print>,
    listeners: Listeners,
    /// It may have taken older attributes for the last ones.
    unsure: bool,
    /// The state since which all it has cached of the content was read.
    cached: Option<Print>,
    /// The guest made a change that moves the time of change alone: a name more or less, an extended attribute.
    own_status: bool,
    /// It changes while it is opened: attributes of it are not worth keeping.
    hot: bool,
    /// The guest is writing to it, and has not said that it is done.
    writing: bool,
}

/// What a guest that takes word unasked has to hear of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untold {
    /// Nothing: it knows, or it asks by itself.
    Nothing,
    /// Attributes have changed and the content has not.
    Attributes,
    /// The content has changed.
    Content,
}

impl Record {
    /// A reply carries attributes.
    pub fn told(&mut self, print: Print, telling: Telling) {
        let again = self.told == Some(print) && self.listeners.last.is_some_and(|last| last.who == telling.who);
        let alone = self.listeners.hear(telling);
        if self.told != Some(print) {
            self.unsure = (self.told.is_some() || self.unsure) && !alone;
            self.told = Some(print);
            self.hot = false;
        } else if again || alone {
            // The thread has the first reply, so that no older one can win over this.
            self.unsure = false;
        }
        self.own_status = false;
    }

    /// The guest changed a name or an attribute that only the time of change shows.
    pub fn changed_status(&mut self) {
        self.own_status = true;
    }

    /// The guest changed the content: what it has cached is no state of the host's any more.
    pub fn changed_content(&mut self) {
        self.cached = None;
    }

    /// The guest writes through a handle: what it has cached is its own work, until it says that it is done.
    pub fn written_to(&mut self) {
        self.cached = None;
        self.writing = true;
    }

    /// The guest changed a directory, and has dropped by itself what it knew of it.
    pub fn changed_entries(&mut self) {
        self.unsure |= self.told.is_some();
        self.told = None;
    }

    /// A writer of the guest has closed: as close-to-open file systems do, what is there now is taken for its work.
    pub fn written(&mut self, print: Print) {
        self.told = Some(print);
        self.own_status = false;
        self.writing = false;
    }

    /// A writer has gone without saying when it was done: the next open looks again.
    pub fn doubt(&mut self) {
        self.told = Some(Print { content: 0, status: 0 });
        self.own_status = false;
        self.writing = false;
        self.cached = None;
    }

    /// Whether the guest is writing to it: others may be too, and would not be told apart.
    #[must_use]
    pub const fn is_written_to(&self) -> bool {
        self.writing
    }

    /// What the guest has to hear of the state that a file or a directory has now, if it hears of changes.
    #[must_use]
    pub fn untold(&self, now: Print) -> Untold {
        match self.told {
            Some(told) if !self.writing => {
                let cached = self.cached.is_none_or(|cached| cached.content == now.content);
                match told {
                    told if told.content != now.content || !cached => Untold::Content,
                    told if told.status != now.status || self.unsure => Untold::Attributes,
                    _ => Untold::Nothing,
                }
            }
            _ => Untold::Nothing,
        }
    }

    /// The same of a directory: its listing is held against the state at each open.
    #[must_use]
    pub fn untold_listing(&self, now: Print) -> Untold {
        match self.told {
            Some(told) if told != now => Untold::Content,
            Some(_) if self.unsure => Untold::Attributes,
            _ => Untold::Nothing,
        }
    }

    /// Whether attributes are to be asked for each time they are needed.
    #[must_use]
    pub const fn is_hot(&self) -> bool {
        self.hot || self.unsure
    }

    /// Whether a file that is opened is not what the guest believes: it is to look again before it is granted.
    #[must_use]
    pub fn is_doubtful(&self, seen: &Seen) -> bool {
        self.unsure || !seen.leads_here || self.is_news(seen.print)
    }

    /// A file is opened. Gives back whether what the guest has cached of it is still true.
    pub fn grant_open(&mut self, seen: &Seen) -> bool {
        // Granted although the guest does not know the present state: it changes faster than the guest can look.
        self.hot = !seen.leads_here || self.is_news(seen.print);
        let keep = !self.is_hot() && self.cached == Some(seen.print);
        self.cached = seen.settled.then_some(seen.print);
        keep
    }

    /// A directory is opened. The guest's own changes show in the state as the host's do, so a new state is no reason to
    /// look again: the listing that was cached is dropped.
    pub fn grant_opendir(&mut self, seen: &Seen) -> bool {
        let keep = seen.leads_here && self.cached == Some(seen.print);
        self.cached = seen.settled.then_some(seen.print);
        keep
    }

    /// Whether the guest believes otherwise than `print` says, and not by its own doing.
    fn is_news(&self, print: Print) -> bool {
        let Some(told) = self.told else { return false };
        if self.own_status { told.content != print.content } else { told != print }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: Telling = Telling { who: 1, at: 0 };

    fn at(content: u64, status: u64) -> Seen {
        Seen { print: Print { content, status }, settled: true, leads_here: true }
    }

    fn told(content: u64, status: u64) -> Record {
        let mut record = Record::default();
        record.told(Print { content, status }, ALONE);
        record
    }

    /// What an open is answered with, when the guest looks again if it is asked to.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Open {
        Refresh,
        Keep,
        Drop,
    }
    use Open::{Drop, Keep, Refresh};

    fn open(record: &mut Record, seen: Seen) -> Open {
        if record.is_doubtful(&seen) {
            return Refresh;
        }
        if record.grant_open(&seen) { Keep } else { Drop }
    }

    #[test]
    fn a_file_that_did_not_change_keeps_its_cache_from_the_second_open_on() {
        let mut record = told(1, 1);
        assert_eq!([(); 3].map(|()| open(&mut record, at(1, 1))), [Drop, Keep, Keep]);
    }

    #[test]
    fn a_change_on_the_host_is_shown_by_looking_again_once_and_drops_the_cache() {
        let mut record = told(1, 1);
        open(&mut record, at(1, 1));
        assert_eq!(open(&mut record, at(2, 2)), Refresh);
        record.told(at(2, 2).print, ALONE);
        assert_eq!([(); 2].map(|()| open(&mut record, at(2, 2))), [Drop, Keep]);
    }

    #[test]
    fn content_changed_under_an_unchanged_size_and_modification_time_is_noticed() {
        let mut record = told(1, 1);
        open(&mut record, at(1, 1));
        assert_eq!(open(&mut record, at(1, 2)), Refresh);
    }

    #[test]
    fn attributes_learned_in_between_spare_the_second_look_but_not_the_cache() {
        let mut record = told(1, 1);
        open(&mut record, at(1, 1));
        record.told(at(2, 2).print, ALONE);
        assert_eq!(open(&mut record, at(2, 2)), Drop);
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_looked_up_again() {
        let mut record = told(1, 1);
        assert_eq!(open(&mut record, Seen { leads_here: false, ..at(1, 1) }), Refresh);
    }

    #[test]
    fn a_file_that_changes_faster_than_the_guest_can_look_is_granted_and_asked_about_each_time() {
        let mut record = told(1, 1);
        assert!(!record.grant_open(&at(3, 3)));
        assert!(record.is_hot());
        record.told(at(3, 3).print, ALONE);
        assert!(!record.is_hot());
    }

    #[test]
    fn a_timestamp_too_young_to_prove_anything_keeps_no_cache() {
        let mut record = told(1, 1);
        let young = Seen { settled: false, ..at(1, 1) };
        assert_eq!([(); 2].map(|()| open(&mut record, young)), [Drop, Drop]);
        assert_eq!([(); 2].map(|()| open(&mut record, at(1, 1))), [Drop, Keep]);
    }

    #[test]
    fn what_the_guest_wrote_is_no_news_to_it_after_its_flush_and_what_came_later_is() {
        let mut record = told(1, 1);
        open(&mut record, at(1, 1));
        record.changed_content();
        record.written(at(3, 3).print);
        assert_eq!([(); 2].map(|()| open(&mut record, at(3, 3))), [Drop, Keep]);
        assert_eq!(open(&mut record, at(4, 4)), Refresh);
    }

    #[test]
    fn a_writer_that_never_flushed_makes_the_next_open_look_again() {
        let mut record = told(1, 1);
        record.changed_content();
        record.doubt();
        assert_eq!(open(&mut record, at(1, 1)), Refresh);
    }

    #[test]
    fn a_name_more_is_no_news_but_new_content_is_and_neither_keeps_the_cache() {
        let mut record = told(1, 1);
        open(&mut record, at(1, 1));
        record.changed_status();
        assert_eq!(open(&mut record, at(1, 2)), Drop);
        assert_eq!(open(&mut record, at(2, 3)), Refresh);
    }

    #[test]
    fn a_change_right_after_the_state_was_read_does_not_pass_for_part_of_it() {
        let version = std::cell::Cell::new(1);
        let (observed, state) = observe(
            || version.get(),
            || {
                version.set(2);
                "before the change"
            },
        );
        assert_eq!(
            (observed, state),
            (1, "before the change"),
            "what was read is of version 1, and known not to be current"
        );
    }

    #[test]
    fn a_guest_hears_of_what_it_was_told_otherwise_and_did_not_do_itself() {
        let now = at(2, 2).print;
        let untold = |record: &Record| record.untold(now);
        assert_eq!(untold(&Record::default()), Untold::Nothing);
        assert_eq!(untold(&told(2, 2)), Untold::Nothing);
        assert_eq!(untold(&told(2, 1)), Untold::Attributes);
        assert_eq!(untold(&told(1, 1)), Untold::Content);
        let mut cached = told(1, 1);
        cached.grant_open(&at(1, 1));
        cached.told(now, ALONE);
        assert_eq!(untold(&cached), Untold::Content, "it has attributes anew, and the content of before");
        let mut overlapped = told(1, 1);
        overlapped.told(now, Telling { who: 2, at: 1 });
        assert_eq!(untold(&overlapped), Untold::Attributes, "which of two answers it holds is not known");
        overlapped.told(now, Telling { who: 2, at: 2 });
        assert_eq!(untold(&overlapped), Untold::Nothing);
        let mut writing = told(1, 1);
        writing.written_to();
        assert_eq!(untold(&writing), Untold::Nothing, "its own work is not told from the host's while it writes");
        writing.written(now);
        assert_eq!(untold(&writing), Untold::Nothing);
        assert_eq!(writing.untold(at(3, 3).print), Untold::Content);
    }

    #[test]
    fn a_directory_that_changed_is_granted_without_its_cached_listing() {
        let mut record = Record::default();
        assert_eq!([(); 2].map(|()| record.grant_opendir(&at(1, 1))), [false, true]);
        assert_eq!([(); 2].map(|()| record.grant_opendir(&at(2, 2))), [false, true]);
        assert!(!record.grant_opendir(&Seen { leads_here: false, ..at(2, 2) }));
    }

    #[test]
    fn of_two_states_told_to_two_threads_at_once_the_older_may_count_so_the_next_open_looks_again() {
        let mut record = told(1, 1);
        record.told(at(2, 2).print, Telling { who: 2, at: 999 });
        assert!(record.is_hot());
        assert_eq!(open(&mut record, at(2, 2)), Refresh);
        // The second look of the same thread is sent after it has taken in the first.
        record.told(at(2, 2).print, Telling { who: 2, at: 999 });
        assert!(!record.is_hot());
        assert_eq!(open(&mut record, at(2, 2)), Drop);
    }

    #[test]
    fn a_second_look_of_another_thread_at_once_proves_nothing_either() {
        let mut record = told(1, 1);
        record.told(at(2, 2).print, Telling { who: 2, at: 1 });
        record.told(at(2, 2).print, Telling { who: 3, at: 2 });
        assert_eq!(open(&mut record, at(2, 2)), Refresh);
        record.told(at(2, 2).print, Telling { who: 2, at: 2000 });
        assert_eq!(open(&mut record, at(2, 2)), Drop);
    }

    #[test]
    fn states_told_to_one_thread_or_long_after_each_other_are_taken_in_in_order() {
        let mut record = told(1, 1);
        record.told(at(2, 2).print, ALONE);
        assert_eq!(open(&mut record, at(2, 2)), Drop);
        record.told(at(3, 3).print, Telling { who: 2, at: TAKEN_IN });
        assert_eq!(open(&mut record, at(3, 3)), Drop);
    }

    #[test]
    fn the_same_state_told_to_many_threads_is_no_reason_to_doubt() {
        let mut record = told(1, 1);
        (0..10).for_each(|who| record.told(at(1, 1).print, Telling { who, at: 0 }));
        assert_eq!([(); 2].map(|()| open(&mut record, at(1, 1))), [Drop, Keep]);
    }
}
