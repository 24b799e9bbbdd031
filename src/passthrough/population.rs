//! How many inodes there are, and when so many have gone that their memory is worth giving back to the system.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Fewer than this are not worth the walk through free memory.
const MANY: usize = 10_000;
/// The part of the most there were that must be left, at most.
const EBB: usize = 8;

/// A count, and the most it was since memory was last given back.
#[derive(Debug, Default)]
pub(super) struct Population {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Population {
    pub(super) fn born(&self) {
        let now = self.now.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if now > self.most.load(Ordering::Relaxed) {
            self.most.fetch_max(now, Ordering::Relaxed);
        }
    }

    pub(super) fn died(&self, count: usize) {
        self.now.fetch_sub(count, Ordering::Relaxed);
    }

    /// Whether most of many have gone: said once, until there were many again.
    pub(super) fn has_ebbed(&self) -> bool {
        let (now, most) = (self.now.load(Ordering::Relaxed), self.most.load(Ordering::Relaxed));
        most >= MANY
            && now <= most / EBB
            && self.most.compare_exchange(most, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ebb_is_noticed_once_and_only_where_there_were_many() {
        let population = Population::default();
        (0..MANY - 1).for_each(|_| population.born());
        population.died(MANY - 1);
        assert!(!population.has_ebbed());

        (0..MANY).for_each(|_| population.born());
        assert!(!population.has_ebbed());
        population.died(MANY - MANY / EBB - 1);
        assert!(!population.has_ebbed());
        population.died(1);
        assert_eq!([(); 2].map(|()| population.has_ebbed()), [true, false]);
    }
}
