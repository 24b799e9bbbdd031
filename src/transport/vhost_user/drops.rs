//! Requests that end without an answer: counted, and told of rarely enough that a guest cannot fill the log.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::protocol::Served;

/// How many requests of one front end were dropped.
#[derive(Debug, Default)]
pub(super) struct Drops(AtomicU64);

impl Drops {
    /// The used length of a request that was served, or dropped.
    pub(super) fn len_of(&self, queue: usize, served: Served) -> u32 {
        match served {
            Served::Reply(len) => len,
            Served::Silent => 0,
            Served::Dropped(why) => self.note(queue, &why),
            Served::WouldBlock => self.note(queue, &"it waits where it may not"),
        }
    }

    /// Notes one for that reason; its used length is 0.
    pub(super) fn note(&self, queue: usize, why: &dyn std::fmt::Display) -> u32 {
        let count = self.0.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        // The first, the second, the fourth: a guest that sends nothing else is told of 64 times at most.
        if count.is_power_of_two() {
            log::warn!("queue {queue}: a request was dropped: {why} ({count} so far)");
        } else {
            log::debug!("queue {queue}: a request was dropped: {why}");
        }
        0
    }
}
