//! When a cached listing is worth less than a new one.
//!
//! A new listing brings the attributes of all that it names. Where the guest lists a directory and then looks at what is in
//! it, as `ls -l`, `grep -r` and `make` do, but keeps the listing and no longer trusts the attributes, it asks for each by
//! itself. So it is remembered whether it did, of each directory and of the threads that did it last, and the next open
//! drops a listing that is still true.

use std::sync::atomic::{AtomicU64, Ordering};

/// Fewer questions than this are cheaper than a listing.
const FEW: u32 = 4;
/// As are those about a small part of a directory.
const PART: u32 = 8;
/// For how many opens it is believed that the guest goes on as it did, at first and at most. To be wrong costs a listing; not to
/// believe it, a question for each entry.
const OPENS: (u8, u8) = (8, 64);

/// How a guest uses the listing of one directory.
#[derive(Debug)]
pub struct Habit {
    /// How many entries came with their attributes.
    entries: u32,
    /// About how many entries the guest asked for by themselves since, and how many it opened: having read a file, a client
    /// no longer trusts its attributes.
    asked: u32,
    opened: u32,
    /// When attributes came last and when the directory was opened last, in milliseconds of any clock.
    at: u32,
    open_at: u32,
    /// How long after it opens the directory the guest looks at what is in it.
    lag: u32,
    /// Whether the listing was kept at the last open.
    kept: bool,
    /// For how many more opens a new listing is better, and for how many the next time.
    opens: u8,
    patience: u8,
}

impl Default for Habit {
    fn default() -> Self {
        Self { entries: 0, asked: 0, opened: 0, at: 0, open_at: 0, lag: 0, kept: false, opens: 0, patience: OPENS.0 }
    }
}

impl Habit {
    /// So many entries were listed with their attributes, from the start of the directory or further on.
    pub fn listed(&mut self, from_start: bool, entries: u32, at: u32) {
        let (before, open_at) = if from_start { (0, at) } else { (self.entries, self.open_at) };
        *self = Self { entries: before.saturating_add(entries), asked: 0, opened: 0, at, open_at, ..*self };
    }

    /// The attributes of an entry were asked for. Says whether by now a listing would have been cheaper.
    pub fn asked(&mut self, at: u32) -> bool {
        self.at = at;
        self.asked = self.asked.saturating_add(1);
        self.weigh(self.asked, self.opened);
        let many = self.asked == self.many();
        if many {
            self.lag = at.wrapping_sub(self.open_at);
        }
        many
    }

    /// An entry was opened.
    pub fn opened(&mut self) {
        self.opened = self.opened.saturating_add(1);
        self.weigh(self.opened, self.asked);
    }

    fn weigh(&mut self, count: u32, other: u32) {
        if count == self.many() && other < count {
            self.opens = self.patience;
            self.patience = self.patience.saturating_mul(2).min(OPENS.1);
        }
    }

    fn many(&self) -> u32 {
        FEW.max(self.entries / PART)
    }

    /// The directory is opened, and its listing is still true. Says whether the guest should list it anew for the
    /// attributes, which it trusts for `valid` milliseconds. `asker` tells whether the one who opens it is known to ask.
    pub fn is_wanted_anew(&mut self, at: u32, valid: u32, asker: impl FnOnce() -> bool) -> bool {
        self.open_at = at;
        // One who lists all directories before it looks at what is in them does so faster when it needs not ask.
        let too_late = self.lag >= valid.saturating_mul(2);
        let trusted = self.opened == 0 && at.wrapping_sub(self.at).saturating_add(self.lag) < valid;
        if trusted {
            return false;
        }
        if self.kept && self.asked.max(self.opened) < self.many() {
            self.patience = OPENS.0;
        }
        let wanted = !too_late && (self.opens > 0 || (self.entries >= FEW && asker()));
        self.opens = self.opens.saturating_sub(1);
        (self.asked, self.opened, self.kept) = (0, 0, !wanted);
        wanted
    }
}

/// Threads of the guest that lately asked for one entry after the other. The next directory will be no other. Those whose
/// numbers are alike push each other out.
#[derive(Debug)]
pub struct Askers([AtomicU64; 64]);

/// For how many directories a thread is believed to go on so.
const DIRECTORIES: u64 = 32;

impl Default for Askers {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; 64])
    }
}

impl Askers {
    /// The thread did so.
    pub fn add(&self, who: u32) {
        if let Some(slot) = self.slot(who) {
            slot.store(u64::from(who) << 32 | DIRECTORIES, Ordering::Relaxed);
        }
    }

    /// The thread opens a directory. Says whether it will ask.
    pub fn will_ask(&self, who: u32) -> bool {
        let takes_one = |slot: u64| (slot >> 32 == u64::from(who) && slot as u32 != 0).then(|| slot - 1);
        self.slot(who).is_some_and(|slot| slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, takes_one).is_ok())
    }

    fn slot(&self, who: u32) -> Option<&AtomicU64> {
        self.0.get(who as usize % self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: fn() -> bool = || false;

    const VALID: u32 = 1000;

    /// A program goes through a directory of `entries` entries, long after the last one did. Gives back how many requests
    /// that took beside those for the directory itself.
    fn go_through(habit: &mut Habit, now: &mut u32, entries: u32, opens: bool, asks: bool) -> u32 {
        *now += 2 * VALID;
        let anew = habit.is_wanted_anew(*now, VALID, NOBODY);
        if anew {
            habit.listed(true, entries, *now);
        }
        for _ in 0..entries {
            if opens {
                habit.opened();
            }
            if asks && !anew {
                habit.asked(*now);
            }
        }
        u32::from(anew) * 2 + if asks && !anew { entries } else { 0 }
    }

    fn many(passes: u32, entries: u32, opens: bool, asks: bool) -> u32 {
        let (mut habit, mut now) = (Habit::default(), 0);
        habit.listed(true, entries, now);
        (0..passes).map(|_| go_through(&mut habit, &mut now, entries, opens, asks)).sum()
    }

    #[test]
    fn a_directory_whose_entries_are_asked_about_one_by_one_is_listed_anew() {
        assert!(many(100, 10, false, true) < 350, "instead of 1000");
    }

    #[test]
    fn files_that_were_read_make_the_next_listing_come_anew() {
        let (mut habit, mut now) = (Habit::default(), 0);
        habit.listed(true, 10, now);
        (0..10).for_each(|_| habit.opened());
        assert_eq!(go_through(&mut habit, &mut now, 10, true, true), 2, "without a question before");
        assert_eq!(go_through(&mut habit, &mut now, 10, true, true), 2);
    }

    #[test]
    fn a_directory_that_is_only_listed_keeps_its_listing() {
        assert_eq!(many(100, 10, false, false), 0);
        // What others did is forgotten soon.
        let (mut habit, mut now) = (Habit::default(), 0);
        habit.listed(true, 10, now);
        go_through(&mut habit, &mut now, 10, true, true);
        let later: u32 = (0..100).map(|_| go_through(&mut habit, &mut now, 10, false, false)).sum();
        assert!(later <= 2 * u32::from(OPENS.0));
    }

    #[test]
    fn few_questions_and_those_about_a_small_part_are_cheaper_than_a_listing() {
        assert_eq!(many(100, FEW - 1, true, true), 100 * (FEW - 1));
        let mut habit = Habit::default();
        habit.listed(true, 1000, 0);
        habit.listed(false, 1000, 0);
        (0..249).for_each(|_| _ = habit.asked(0));
        assert!(!habit.is_wanted_anew(VALID, VALID, NOBODY));
        (0..250).for_each(|_| _ = habit.asked(VALID));
        assert!(habit.is_wanted_anew(2 * VALID, VALID, NOBODY));
    }

    #[test]
    fn attributes_that_are_still_trusted_need_no_listing() {
        let mut habit = Habit::default();
        habit.listed(true, 10, 500);
        (0..10).for_each(|_| _ = habit.asked(500));
        assert!(!habit.is_wanted_anew(1499, VALID, NOBODY));
        assert!(habit.is_wanted_anew(1500, VALID, NOBODY));
        assert!(!habit.is_wanted_anew(9000, 0, NOBODY), "where none are, no listing helps");
    }

    #[test]
    fn a_guest_that_looks_at_entries_long_after_it_listed_them_lists_them_anew_before_they_expire() {
        for (lag, anew) in [(0, false), (399, false), (400, true), (1999, true), (2000, false)] {
            let mut habit = Habit::default();
            habit.listed(true, 10, 0);
            assert!(!habit.is_wanted_anew(5000, VALID, NOBODY));
            (0..10).for_each(|_| _ = habit.asked(5000 + lag));
            habit.listed(true, 10, 9400);
            assert_eq!(habit.is_wanted_anew(10_000, VALID, NOBODY), anew, "{lag}");
        }
    }

    #[test]
    fn a_guest_that_once_looked_much_later_is_not_held_to_it() {
        let (mut habit, mut now) = (Habit::default(), 0);
        habit.listed(true, 10, now);
        now = 100_000;
        (0..10).for_each(|_| _ = habit.asked(now));
        assert_eq!(go_through(&mut habit, &mut now, 10, false, true), 10, "a listing might be too old by then");
        assert_eq!(go_through(&mut habit, &mut now, 10, false, true), 2);
    }

    #[test]
    fn a_thread_that_asked_in_one_directory_is_given_the_next_ones_anew_for_a_while() {
        let askers = Askers::default();
        let mut first = Habit::default();
        first.listed(true, 10, 0);
        let asks = (0..10).map(|_| first.asked(VALID)).filter(|many| *many).count();
        assert_eq!(asks, 1, "once is enough to say so");
        askers.add(7);
        let open = |who: u32| {
            let mut next = Habit::default();
            next.listed(true, 10, 0);
            next.is_wanted_anew(2 * VALID, VALID, || askers.will_ask(who))
        };
        assert!(!open(8) && !open(7 + 64) && open(7));
        let more = (0..2 * DIRECTORIES).filter(|_| open(7)).count() as u64;
        assert_eq!(more, DIRECTORIES - 1);
    }
}
