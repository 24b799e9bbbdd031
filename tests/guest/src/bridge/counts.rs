//! Requests counted by opcode: what a kernel client asks for is what a cache is judged by.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use fuse_abi::Opcode;

/// One more than the highest opcode that is counted by itself.
const OPCODES: usize = 64;

/// Counters that every thread of a bridge adds to.
#[derive(Debug)]
pub struct Counts {
    by_opcode: [AtomicU64; OPCODES],
    other: AtomicU64,
    malformed: AtomicU64,
    notifications: AtomicU64,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            by_opcode: [const { AtomicU64::new(0) }; OPCODES],
            other: AtomicU64::new(0),
            malformed: AtomicU64::new(0),
            notifications: AtomicU64::new(0),
        }
    }
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Requests by their name, without the prefix; only those that came.
    pub requests: BTreeMap<&'static str, u64>,
    /// Replies whose lengths or number were wrong; the kernel got EIO instead.
    pub malformed: u64,
    /// Notifications carried to the kernel.
    pub notifications: u64,
}

impl Counts {
    /// Counts a request.
    pub fn request(&self, opcode: u32) {
        self.by_opcode.get(opcode as usize).unwrap_or(&self.other).fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a reply that broke the rules.
    pub fn malformed(&self) {
        self.malformed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a notification.
    pub fn notification(&self) {
        self.notifications.fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted so far.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.collect(|counter| counter.load(Ordering::Relaxed))
    }

    /// What was counted so far, and begins again at 0.
    pub fn take(&self) -> Snapshot {
        self.collect(|counter| counter.swap(0, Ordering::Relaxed))
    }

    fn collect(&self, read: impl Fn(&AtomicU64) -> u64) -> Snapshot {
        let named = self.by_opcode.iter().enumerate().map(|(number, counter)| {
            let opcode = Opcode::try_from(number as u32);
            (opcode.map_or("unknown", |opcode| opcode.name().trim_start_matches("FUSE_")), read(counter))
        });
        let mut requests = BTreeMap::new();
        for (name, count) in named.chain([("unknown", read(&self.other))]).filter(|(_, count)| *count > 0) {
            *requests.entry(name).or_default() += count;
        }
        Snapshot { requests, malformed: read(&self.malformed), notifications: read(&self.notifications) }
    }
}

impl Snapshot {
    /// How many requests of one opcode, by its name without the prefix.
    #[must_use]
    pub fn get(&self, name: &str) -> u64 {
        self.requests.get(name).copied().unwrap_or(0)
    }

    /// How many requests in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.requests.values().sum()
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.requests.iter().try_for_each(|(name, count)| writeln!(f, "{name:<20} {count:>12}"))?;
        writeln!(f, "{:<20} {:>12}", "total", self.total())?;
        writeln!(f, "{:<20} {:>12}", "malformed replies", self.malformed)?;
        writeln!(f, "{:<20} {:>12}", "notifications", self.notifications)
    }
}
