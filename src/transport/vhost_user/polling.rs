//! How long a worker looks for requests before it sleeps.
//!
//! To look spares the guest its kick and the worker a wake-up, which on an idle core takes longer than most requests. But a
//! worker that looks keeps its core: where guest and worker do best in turn on one, or where there are more threads than
//! cores, it is in the way. Which of the two holds cannot be seen from here, so it is tried: at which pace does the guest
//! come back in one way and in the other? Where requests come several at a time the guest has work to do meanwhile, and
//! looking is right.

use std::time::{Duration, Instant};

/// Stands for all the times that requests came, of late. Where several came at once in half of them, the guest has several
/// under way. A program that waits for each request has another beside it at times: it does not wait for its RELEASE.
const SEVERAL: u32 = 1 << 16;
/// For how many times "of late" is.
const OF_LATE: u32 = 16;
/// A guest that came back later than so many times the longest look is not waited for: one with several requests under
/// way, and one with a single one, whose wake-ups count.
const NEAR: (u32, u32) = (2, 4);
/// How many waits it takes to judge a way.
const ENOUGH: u32 = 256;
/// How much better looking has to be, as a logarithm: an eighth.
const MARGIN: i64 = ONE * 3 / 16;
/// How much a wait moves what is taken for the usual pace: in a trial, and of the way that has proved itself.
const STEP: (i64, i64) = (ONE / 64, ONE / 1024);
/// A guest that comes back after so long begins something new. Its threads and the worker may share a core then: the worker
/// sleeps for so much of the time before it tries to look.
const NEW: Duration = Duration::from_millis(500);
const BEGINNING: Duration = Duration::from_millis(150);
/// A guest that usually comes back sooner although the worker slept shares its core: looking would drive them apart.
const SHARED: Duration = Duration::from_micros(20);
/// How long looking is tried, and sleeping. Threads that shared a core take about half of the first to leave it, and threads
/// that sleep longer to find their cores.
const TRIAL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(100));
/// For how long the better way stays before the other one is tried again, at first and at most.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(400), Duration::from_secs(8));

/// A way to wait for a guest that has one request under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Look,
    Sleep,
}

/// What a worker has learned.
#[derive(Debug)]
pub(super) struct Polling {
    longest: Duration,
    /// How often several came at once, of [`SEVERAL`].
    several: u32,
    /// When requests came last, and how long after those before.
    last: Option<Instant>,
    pace: Duration,
    trial: Trial,
}

impl Polling {
    /// Looks for `longest` at a time; never where that is nothing.
    pub(super) const fn new(longest: Duration) -> Self {
        Self { longest, several: 0, last: None, pace: Duration::MAX, trial: Trial::new() }
    }

    /// So many requests were taken at once.
    pub(super) fn took(&mut self, requests: usize) {
        let now = if requests > 1 { SEVERAL / OF_LATE } else { 0 };
        self.several = self.several - self.several / OF_LATE + now;
    }

    /// The worker had to wait for what came now.
    pub(super) fn waited(&mut self, now: Instant) {
        let Some(last) = self.last.replace(now) else { return };
        self.pace = now.saturating_duration_since(last);
        if self.pace > NEW {
            self.trial = Trial::new();
        }
        if !self.are_several() && self.is_near(NEAR.1) {
            self.trial.add(self.pace);
        }
    }

    /// How long to look now.
    pub(super) fn time(&self) -> Option<Duration> {
        let looks_at_one = !self.are_several() && self.trial.now == Way::Look && self.is_near(NEAR.1);
        (looks_at_one || self.looks_at_several()).then_some(self.longest)
    }

    /// Whether this worker looks, and the guest has several requests under way.
    pub(super) fn looks_at_several(&self) -> bool {
        self.are_several() && self.is_near(NEAR.0)
    }

    fn are_several(&self) -> bool {
        self.several >= SEVERAL / 2
    }

    fn is_near(&self, times: u32) -> bool {
        self.pace < self.longest.saturating_mul(times)
    }
}

/// Tries both ways in turn, the better one for longer.
#[derive(Debug)]
struct Trial {
    now: Way,
    best: Way,
    /// The usual pace of the best way, and of this one: the median, for a few waits that took far longer say nothing.
    best_pace: i64,
    pace: i64,
    /// How many waits there were this way.
    waits: u32,
    /// How long this way will be taken yet, and how long the best one the next time.
    left: Duration,
    patience: Duration,
}

impl Trial {
    const fn new() -> Self {
        let (now, best) = (Way::Sleep, Way::Sleep);
        Self { now, best, best_pace: 0, pace: 0, waits: 0, left: BEGINNING, patience: PATIENCE.0 }
    }

    /// The guest came back after `pace`.
    fn add(&mut self, pace: Duration) {
        self.left = self.left.saturating_sub(pace);
        self.follow(logarithm(pace));
        if self.now == self.best { self.stay() } else { self.judge() }
    }

    fn follow(&mut self, pace: i64) {
        if self.waits == 0 {
            self.pace = pace;
        }
        self.waits = self.waits.saturating_add(1);
        let proved = self.now == self.best && self.waits > ENOUGH;
        self.pace += (pace - self.pace).signum() * if proved { STEP.1 } else { STEP.0 };
    }

    /// On the best way: it stays for its time.
    fn stay(&mut self) {
        if !self.left.is_zero() {
            return;
        }
        if self.now == Way::Sleep && self.pace < logarithm(SHARED) {
            self.left = PATIENCE.0;
            return;
        }
        self.best_pace = self.pace;
        match self.best {
            Way::Look => self.turn_to(Way::Sleep, TRIAL.1),
            Way::Sleep => self.turn_to(Way::Look, TRIAL.0),
        }
    }

    /// On the other way, for a trial.
    fn judge(&mut self) {
        if self.waits > ENOUGH && self.is_better() {
            self.best = self.now;
            (self.left, self.patience) = (PATIENCE.0, PATIENCE.0 * 2);
        } else if self.left.is_zero() {
            self.turn_to(self.best, self.patience);
            // It has proved itself.
            (self.pace, self.waits) = (self.best_pace, ENOUGH);
            self.patience = self.patience.saturating_mul(2).min(PATIENCE.1);
        }
    }

    fn turn_to(&mut self, way: Way, time: Duration) {
        (self.now, self.left, self.waits) = (way, time, 0);
    }

    /// Whether this way is better than the best one so far. Looking takes a core: it has to be worth it.
    fn is_better(&self) -> bool {
        match self.now {
            Way::Look => self.pace < self.best_pace - MARGIN,
            Way::Sleep => self.pace <= self.best_pace + MARGIN,
        }
    }
}

/// What the logarithm of two is.
const ONE: i64 = 1 << 10;

/// Of the nanoseconds, to the base of two, straight between its powers.
fn logarithm(time: Duration) -> i64 {
    let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).clamp(1, 1 << 40);
    let power = nanoseconds.ilog2();
    let rest = (nanoseconds << 10 >> power) & 1023;
    i64::from(power) * ONE + rest.cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_micros(200);

    /// A worker and the guest that it waits for.
    struct Game {
        polling: Polling,
        now: Instant,
        /// Since when the worker sleeps for each request.
        sleeps_since: Option<Instant>,
    }

    impl Game {
        fn new(longest: Duration) -> Self {
            Self { polling: Polling::new(longest), now: Instant::now(), sleeps_since: None }
        }

        /// For how much of `seconds` it looked, in percent. So many `requests` come at a time, in turn, and so many
        /// microseconds after the last when looked for, and what `asleep` says, of how long there was no looking, else.
        fn play(
            &mut self,
            seconds: u64,
            requests: &[usize],
            look: u64,
            mut asleep: impl FnMut(Duration) -> u64,
        ) -> u128 {
            let (began, mut looked) = (self.now, Duration::ZERO);
            let mut requests = requests.iter().cycle();
            while self.now - began < Duration::from_secs(seconds) {
                let looks = self.polling.time().is_some();
                if looks {
                    self.sleeps_since = None;
                } else {
                    self.sleeps_since.get_or_insert(self.now);
                }
                let pace = self.sleeps_since.map_or(look, |since| asleep(self.now - since));
                self.now += Duration::from_micros(pace);
                looked += Duration::from_micros(if looks { pace } else { 0 });
                self.polling.took(*requests.next().unwrap());
                self.polling.waited(self.now);
            }
            looked.as_micros() * 100 / (self.now - began).as_micros()
        }
    }

    #[test]
    fn a_worker_looks_for_a_guest_that_comes_back_sooner_then() {
        assert!(Game::new(LONGEST).play(60, &[1], 20, |_| 50) >= 95);
    }

    #[test]
    fn a_worker_sleeps_where_guest_and_worker_are_faster_in_turn() {
        assert!(Game::new(LONGEST).play(60, &[1], 20, |_| 15) <= 2);
    }

    #[test]
    fn a_worker_that_shares_a_core_with_the_guest_never_tries_to_look() {
        assert_eq!(Game::new(LONGEST).play(60, &[1], 2, |_| 6), 0);
    }

    #[test]
    fn a_worker_sleeps_long_enough_to_see_threads_find_their_cores() {
        let slow_at_first = |slept: Duration| if slept < Duration::from_millis(115) { 85 } else { 6 };
        assert!(Game::new(LONGEST).play(60, &[1], 20, slow_at_first) <= 5);
    }

    #[test]
    fn a_worker_sleeps_where_that_is_mostly_faster() {
        let mut waits = 0;
        let mostly_fast = |_| {
            waits += 1;
            if waits % 5 < 2 { 85 } else { 6 }
        };
        assert!(Game::new(LONGEST).play(60, &[1], 25, mostly_fast) <= 5);
    }

    #[test]
    fn a_worker_does_not_look_where_that_gains_next_to_nothing() {
        assert!(Game::new(LONGEST).play(60, &[1], 145, |_| 150) <= 5);
    }

    #[test]
    fn a_worker_sleeps_when_the_guest_begins_something_new() {
        let mut game = Game::new(LONGEST);
        assert!(game.play(60, &[1], 20, |_| 50) >= 95);
        assert!(game.polling.time().is_some());
        for pace in [NEW * 2, Duration::from_micros(20)] {
            game.now += pace;
            game.polling.waited(game.now);
            assert_eq!(game.polling.time(), None, "it may be faster asleep now");
        }
        assert!(game.play(60, &[1], 20, |_| 50) >= 95);
    }

    #[test]
    fn a_worker_changes_its_mind_when_the_guest_does() {
        let mut game = Game::new(LONGEST);
        assert!(game.play(60, &[1], 20, |_| 6) <= 2);
        assert!(game.play(60, &[1], 20, |_| 50) >= 80);
        assert!(game.play(60, &[1], 20, |_| 6) <= 20);
    }

    #[test]
    fn a_worker_does_not_look_for_a_guest_that_takes_long() {
        for requests in [1, 4] {
            assert_eq!(Game::new(LONGEST).play(60, &[requests], 5000, |_| 5000), 0);
        }
    }

    #[test]
    fn a_worker_looks_for_a_guest_with_several_requests_under_way_whatever_it_learned_of_single_ones() {
        let mut game = Game::new(LONGEST);
        assert!(game.play(60, &[1], 20, |_| 6) <= 2);
        assert!(game.play(1, &[5], 20, |_| 6) >= 99);
        assert!(game.polling.looks_at_several());
        assert!(game.play(5, &[1], 20, |_| 6) <= 5);
    }

    #[test]
    fn a_guest_that_waits_for_most_of_its_requests_has_not_several_under_way() {
        let waits_for_no_release = [1, 1, 2];
        assert!(Game::new(LONGEST).play(60, &waits_for_no_release, 40, |_| 25) <= 5);
        assert!(Game::new(LONGEST).play(60, &waits_for_no_release, 20, |_| 50) >= 95);
    }

    #[test]
    fn a_worker_that_is_not_to_look_never_does() {
        for requests in [1, 5] {
            let mut game = Game::new(Duration::ZERO);
            assert_eq!(game.play(10, &[requests], 2, |_| 2), 0);
            assert!(!game.polling.looks_at_several());
        }
    }
}
