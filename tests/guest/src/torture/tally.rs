//! What came of it all, counted.

use std::collections::BTreeMap;
use std::fmt;

use fuse_abi::Errno;

use super::lane::Outcome;

/// What was done to a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Class {
    Plain,
    Request,
    Chain,
}

/// Counts of a run.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Requests that were mutated.
    pub requests: u64,
    /// Requests whose chains were.
    pub chains: u64,
    /// Entries of rings that were.
    pub rings: u64,
    /// Messages of sessions whose messages were.
    pub messages: u64,
    /// Requests that were as they should be, but for a name or a number.
    pub plain: u64,
    /// Valid requests between them, each answered within the limit.
    pub checks: u64,
    /// Connections.
    pub sessions: u64,
    /// How often the daemon ended although it should not.
    pub deaths: u64,
    /// How often a valid request found no answer within the limit.
    pub hangs: u64,
    /// Replies that no client may get.
    pub wrong: u64,
    done: u64,
    silent: u64,
    returned: u64,
    refused: BTreeMap<i32, u64>,
}

impl Tally {
    /// Everything that was mutated.
    #[must_use]
    pub fn mutated(&self) -> u64 {
        self.requests + self.chains + self.rings + self.messages
    }

    /// Counts a request.
    pub(super) fn sent(&mut self, class: Class) {
        match class {
            Class::Plain => self.plain += 1,
            Class::Request => self.requests += 1,
            Class::Chain => self.chains += 1,
        }
    }

    /// Counts how a request ended.
    pub(super) fn count(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Done => self.done += 1,
            Outcome::Refused(errno) => *self.refused.entry(*errno).or_default() += 1,
            Outcome::Silent => self.silent += 1,
            Outcome::Returned => self.returned += 1,
            Outcome::Wrong(_) => self.wrong += 1,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, chains, rings, messages, plain, sessions, checks, .. } = self;
        writeln!(f, "mutated: {requests} requests, {chains} chains, {rings} ring entries, {messages} messages")?;
        writeln!(f, "beside them: {plain} unmutated requests, {checks} checks, {sessions} connections")?;
        let refused: u64 = self.refused.values().sum();
        let Self { done, silent, returned, wrong, .. } = self;
        write!(f, "outcomes: {done} done, {refused} refused, {silent} without reply, {returned} mutated chains ")?;
        writeln!(f, "handed back, {wrong} wrong replies")?;
        let mut errnos: Vec<_> = self.refused.iter().collect();
        errnos.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let errnos: Vec<String> =
            errnos.iter().map(|(errno, count)| format!("{} {count}", Errno::from_linux(**errno))).collect();
        write!(f, "refused by: {}", errnos.join(", "))
    }
}
