//! Which requests are under way: what the client is told unasked waits until those before it are answered.
//!
//! A change is seen, and the client is to hear of it. A request that began before may have read the old state and not have
//! been answered yet: were its answer to arrive after the word of the change, the client would keep what is no longer
//! so. So each thread that serves publishes when its present requests began, and whoever has word to send waits until all
//! that began earlier are answered. Nobody who serves ever waits for anybody here.

use std::sync::{
    Arc, Condvar, Mutex, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

/// When a thread's requests began; 0 while it has none. On a cache line of its own: threads do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Slot(AtomicU64);

/// The threads that serve, and what each is about.
#[derive(Debug)]
pub struct Turns {
    /// Counts the changes that word was sent of. Never 0.
    now: AtomicU64,
    slots: Mutex<Vec<Arc<Slot>>>,
    waiting: AtomicUsize,
    turn_ended: Condvar,
}

/// One thread's place among those that serve.
#[derive(Debug)]
pub struct Turn<'t> {
    turns: &'t Turns,
    slot: Arc<Slot>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            now: AtomicU64::new(1),
            slots: Mutex::default(),
            waiting: AtomicUsize::new(0),
            turn_ended: Condvar::new(),
        }
    }
}

impl Turns {
    /// A place for one more thread.
    pub fn enlist(&self) -> Turn<'_> {
        let slot = Arc::<Slot>::default();
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&slot));
        Turn { turns: self, slot }
    }

    /// Whether somebody has word to send and waits for requests to be answered.
    pub fn are_awaited(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) != 0
    }

    /// Waits until every request that is under way now has been answered. Those that begin meanwhile are not waited for.
    pub fn settle(&self) {
        let next = self.now.fetch_add(1, Ordering::SeqCst).saturating_add(1);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        while slots.iter().any(|slot| (1..next).contains(&slot.0.load(Ordering::SeqCst))) {
            slots = self.turn_ended.wait(slots).unwrap_or_else(PoisonError::into_inner);
        }
        drop(slots);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Turn<'_> {
    /// Requests were taken, and nothing was looked at for them yet.
    pub fn begin(&self) {
        // A request whose store comes too late for `settle` to see looks at the host after the change.
        self.slot.0.swap(self.turns.now.load(Ordering::Relaxed), Ordering::SeqCst);
    }

    /// They are answered, or those that are not carry nothing that a client keeps.
    pub fn end(&self) {
        self.slot.0.swap(0, Ordering::SeqCst);
        if self.turns.waiting.load(Ordering::SeqCst) != 0 {
            // Under the lock: between a look at the slots and the sleep after it nothing is announced.
            let _slots = self.turns.slots.lock().unwrap_or_else(PoisonError::into_inner);
            self.turns.turn_ended.notify_all();
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.end();
        self.turns.slots.lock().unwrap_or_else(PoisonError::into_inner).retain(|slot| !Arc::ptr_eq(slot, &self.slot));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Settles on another thread, and says by the channel when that is done.
    fn settling<'s>(scope: &'s std::thread::Scope<'s, '_>, turns: &'s Turns) -> mpsc::Receiver<()> {
        let (done, settled) = mpsc::channel();
        scope.spawn(move || {
            turns.settle();
            let _ = done.send(());
        });
        while turns.waiting.load(Ordering::SeqCst) == 0 && settled.try_recv().is_err() {
            std::thread::yield_now();
        }
        settled
    }

    #[test]
    fn word_of_a_change_waits_for_requests_that_began_before_it_and_for_no_others() {
        let turns = Turns::default();
        let (before, idle, after) = (turns.enlist(), turns.enlist(), turns.enlist());
        before.begin();
        std::thread::scope(|scope| {
            let settled = settling(scope, &turns);
            after.begin();
            assert!(settled.try_recv().is_err());
            before.end();
            settled.recv().unwrap();
            after.end();
        });
        // Nobody serves: nobody is waited for.
        turns.settle();
        idle.begin();
        idle.end();
        turns.settle();
    }

    #[test]
    fn a_thread_that_ends_in_the_middle_of_a_request_holds_nobody_up() {
        let turns = Turns::default();
        let gone = turns.enlist();
        gone.begin();
        std::thread::scope(|scope| {
            let settled = settling(scope, &turns);
            drop(gone);
            settled.recv().unwrap();
        });
        assert!(turns.slots.lock().unwrap().is_empty());
    }

    #[test]
    fn a_thread_that_always_serves_delays_word_by_one_turn() {
        let turns = Turns::default();
        let busy = std::sync::atomic::AtomicBool::new(true);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let turn = turns.enlist();
                while busy.load(Ordering::Relaxed) {
                    turn.begin();
                    turn.end();
                }
            });
            (0..1000).for_each(|_| turns.settle());
            busy.store(false, Ordering::Relaxed);
        });
    }
}
