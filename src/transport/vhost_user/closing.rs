//! Serving ends before the process does: what was taken from the rings is answered, and no more is taken.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::ring::Ring;

/// Lets another thread end the serving of requests.
#[derive(Debug, Default)]
pub struct Closing(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    closed: bool,
    /// Of the front end that is served.
    rings: Vec<Arc<Ring>>,
}

impl Closing {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes no more requests, of this front end or another, and waits until those that were taken are answered, for
    /// `limit` at most. Says whether they are.
    pub fn close(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let rings = {
            let mut state = self.state();
            state.closed = true;
            state.rings.clone()
        };
        rings.iter().for_each(|ring| ring.retire());
        rings.iter().all(|ring| ring.is_drained_by(deadline))
    }

    /// Knows the rings of a front end for as long as the guard lives.
    pub(super) fn admit(&self, rings: &[Arc<Ring>]) -> Admitted<'_> {
        let mut state = self.state();
        state.rings = rings.to_vec();
        if state.closed {
            rings.iter().for_each(|ring| ring.retire());
        }
        Admitted(self)
    }
}

/// A front end is served. Afterwards nothing of it is kept: rings hold descriptors and the guest's memory.
pub(super) struct Admitted<'c>(&'c Closing);

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        let gone = std::mem::take(&mut self.0.state().rings);
        drop(gone);
    }
}
