//! Threads for requests that would wait: each finishes its request on the queue it came from.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, PoisonError},
};

use super::{drops::Drops, ring::Ring};
use crate::{
    protocol::{FileSystem, Server},
    transport::virtqueue::{self, Chain},
};

/// A request on its way, with all it needs: it can be finished on any thread.
pub(super) struct Job {
    pub(super) ring: Arc<Ring>,
    pub(super) index: u16,
    pub(super) chain: Chain,
    /// The copied request: guest memory is not read again.
    pub(super) head: Vec<u8>,
}

/// Requests that wait for a thread. There are never more than the rings hold.
#[derive(Default)]
pub(super) struct Pool {
    waiting: Mutex<Waiting>,
    came: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    ended: bool,
}

impl Pool {
    pub(super) fn submit(&self, job: Job) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).jobs.push_back(job);
        self.came.notify_one();
    }

    /// Lets the threads end once nothing waits any more.
    pub(super) fn end(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.came.notify_all();
    }

    fn next(&self) -> Option<Job> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(job) = waiting.jobs.pop_front() {
                return Some(job);
            }
            if waiting.ended {
                return None;
            }
            waiting = self.came.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The life of one thread.
    pub(super) fn run<F: FileSystem>(&self, server: &Server<F>, drops: &Drops) {
        while let Some(mut job) = self.next() {
            let served = virtqueue::serve(server, &job.chain, &job.head, true);
            let len = drops.len_of(job.ring.index, served);
            job.ring.hand_back_and_notify(job.index, &job.chain, len);
            // The guest's memory is not held while this thread waits.
            job.chain.clear();
        }
    }
}
