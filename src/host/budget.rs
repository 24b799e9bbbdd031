//! A bound on how many descriptors a purpose may hold, kept by counting permits.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// How many permits there are, and how many are out.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    /// A budget of `limit` permits.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0) })
    }

    /// Takes a permit, or none when all are out.
    #[must_use]
    pub fn take(self: &Arc<Self>) -> Option<Permit> {
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            if used < self.limit { used.checked_add(1) } else { None }
        });
        taken.ok().map(|_| Permit(Arc::clone(self)))
    }

    /// How many permits are out.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// Leave to hold one descriptor; given back when dropped.
#[derive(Debug)]
pub struct Permit(Arc<Budget>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spent_budget_grants_again_once_a_permit_came_back() {
        let budget = Budget::new(2);
        let first = budget.take().unwrap();
        let _second = budget.take().unwrap();
        assert!(budget.take().is_none());
        drop(first);
        assert_eq!(budget.used(), 1);
        assert!(budget.take().is_some());
    }
}
