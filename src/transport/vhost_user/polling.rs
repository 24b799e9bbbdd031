//! How long a worker looks for requests before it sleeps.
//!
//! To look spares a guest that is awake its kick, and the worker a wake-up. A guest that sleeps until it is called takes
//! longer to come back than looking is worth: while the worker holds a core, the guest's thread lies on another, and that
//! core has to be woken for every reply. So a worker looks for a short time, and only as long as it mostly finds something.
//! Where requests come several at a time the guest has work to do meanwhile, and it looks for longer. Having given up it
//! tries again after a while, and sooner where they come several at a time.

use std::time::Duration;

/// How good looking has to have been to be trusted fully.
const BEST: u32 = 16;
/// How much shorter a worker looks where the guest has one request under way: less than it takes to wake a core.
const ALONE: u32 = 5;
/// What one vain look costs: two in three have to find something.
const VAIN: u32 = 2;
/// How many waits it takes until looking is tried again, at first and at most.
const PATIENCE: (u32, u32) = (1 << 12, 1 << 16);
/// For how many waits one counts that ended with several requests: the guest did not wait for each.
const SEVERAL: u32 = 64;

/// What a worker has learned.
#[derive(Debug)]
pub(super) struct Polling {
    longest: Duration,
    /// Nothing where looking was given up.
    score: u32,
    patience: u32,
    /// For how many more times the guest is believed to have several requests under way: they come one by one, too.
    several: u32,
    /// How many waits are left until looking is tried again.
    left: u32,
}

impl Polling {
    /// Looks for `longest` at a time at most; never where that is nothing.
    pub(super) const fn new(longest: Duration) -> Self {
        Self { longest, score: BEST / 2, patience: PATIENCE.0, several: 0, left: 0 }
    }

    /// So many requests were taken at once.
    pub(super) fn took(&mut self, requests: usize) {
        self.several = if requests > 1 { BEST } else { self.several.saturating_sub(1) };
    }

    /// Whether the guest has several requests under way.
    pub(super) fn has_several(&self) -> bool {
        self.several > 0
    }

    /// How long to look now.
    pub(super) fn time(&self) -> Option<Duration> {
        let time = if self.has_several() { self.longest } else { self.longest / ALONE };
        (self.score > 0 && !time.is_zero()).then_some(time)
    }

    /// There was something while it looked.
    pub(super) fn found(&mut self) {
        self.score = (self.score + 1).min(BEST);
        if self.score == BEST {
            self.patience = PATIENCE.0;
        }
    }

    /// There was nothing.
    pub(super) fn found_nothing(&mut self) {
        self.score = self.score.saturating_sub(VAIN);
        if self.score == 0 {
            self.left = self.patience;
            self.patience = self.patience.saturating_mul(2).min(PATIENCE.1);
        }
    }

    /// So many requests were there after sleeping.
    pub(super) fn woken(&mut self, requests: usize) {
        if self.score == 0 {
            self.left = self.left.saturating_sub(if requests > 1 { SEVERAL } else { 1 });
            if self.left == 0 {
                self.score = BEST / 2;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_micros(50);

    /// How many of `waits` waits a worker looks in, where looking finds something or not.
    fn looks(polling: &mut Polling, waits: u32, finds: bool, requests: usize) -> u32 {
        let mut looks = 0;
        for _ in 0..waits {
            polling.took(requests);
            let looked = polling.time().is_some();
            looks += u32::from(looked);
            match (looked, finds) {
                (true, true) => polling.found(),
                (looked, _) => {
                    if looked {
                        polling.found_nothing();
                    }
                    polling.woken(requests);
                }
            }
        }
        looks
    }

    #[test]
    fn a_worker_looks_as_long_as_it_finds_something() {
        let mut polling = Polling::new(LONGEST);
        assert_eq!(looks(&mut polling, 1000, true, 1), 1000);
    }

    #[test]
    fn a_worker_looks_for_longer_while_the_guest_has_several_requests_under_way() {
        let mut polling = Polling::new(LONGEST);
        assert_eq!(polling.time(), Some(LONGEST / ALONE));
        looks(&mut polling, 1, true, 2);
        looks(&mut polling, BEST - 1, true, 1);
        assert_eq!(polling.time(), Some(LONGEST));
        looks(&mut polling, 1, true, 1);
        assert_eq!(polling.time(), Some(LONGEST / ALONE));
    }

    #[test]
    fn a_worker_gives_up_soon_where_the_guest_sleeps_until_it_is_called_and_tries_again_ever_more_seldom() {
        let mut polling = Polling::new(LONGEST);
        assert_eq!(looks(&mut polling, PATIENCE.0, false, 1), BEST / 2 / VAIN);
        assert!(looks(&mut polling, 1 << 20, false, 1) < 100);
    }

    #[test]
    fn a_worker_that_had_given_up_looks_again_soon_when_requests_come_several_at_a_time() {
        let mut polling = Polling::new(LONGEST);
        looks(&mut polling, 1 << 20, false, 1);
        assert!(looks(&mut polling, 2 * PATIENCE.1 / SEVERAL, true, 5) > PATIENCE.1 / SEVERAL / 2);
    }

    #[test]
    fn a_worker_that_is_not_to_look_never_does() {
        let mut polling = Polling::new(Duration::ZERO);
        assert_eq!(looks(&mut polling, 1 << 20, true, 5), 0);
    }
}
