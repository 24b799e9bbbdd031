//! Users and groups, as the guest numbers them and as the host does.
//!
//! The rules are those of virtiofsd's `--translate-uid` and `--translate-gid`. Each direction has its own: what no rule
//! covers keeps its number. This module computes numbers and knows nothing of credentials, files or user namespaces.

use fuse_abi::Errno;

mod rules;
#[cfg(test)]
mod tests;

pub use rules::{IdMapError, IdProblem};

/// The number that is nobody's: system calls read it as "leave as it is".
pub const NO_ID: u32 = u32::MAX;

/// How user or group numbers translate. The default leaves every number as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMap {
    /// `None` forbids.
    to_host: Table<Option<Target>>,
    to_guest: Table<Target>,
}

impl IdMap {
    /// The map that leaves every number as it is.
    #[must_use]
    pub fn identity() -> Self {
        Self::default()
    }

    /// Understands rules such as `map:1000:1001:1`. Those for one direction may not cover a number twice.
    ///
    /// # Errors
    /// Says in one line which rule is wrong and why.
    pub fn parse<'r>(rules: impl IntoIterator<Item = &'r str>) -> Result<Self, IdMapError> {
        rules::parse(rules)
    }

    /// Whether every number stays as it is.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.to_host.0.is_empty() && self.to_guest.0.is_empty()
    }

    /// The host's number for a guest's that a file is to be created with or given to.
    ///
    /// # Errors
    /// `EPERM` for a number that the guest may not use, `EINVAL` for [`NO_ID`]: the host would read it as no change, and
    /// a request would run as the server itself.
    pub fn to_host(&self, guest_id: u32) -> Result<u32, Errno> {
        if guest_id == NO_ID {
            return Err(Errno::EINVAL);
        }
        match self.to_host.find(guest_id) {
            None => Ok(guest_id),
            Some((offset, Some(target))) => Ok(target.at(offset)),
            Some((_, None)) => Err(Errno::EPERM),
        }
    }

    /// The number under which the guest sees a host's. [`NO_ID`] stays what it is; clients show it as `nobody`.
    #[must_use]
    pub fn to_guest(&self, host_id: u32) -> u32 {
        self.to_guest.find(host_id).map_or(host_id, |(offset, target)| target.at(offset))
    }
}

/// What a range of numbers becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// A range of the same length that begins here.
    Range(u32),
    /// All the same.
    One(u32),
}

impl Target {
    fn at(self, offset: u32) -> u32 {
        match self {
            // A range that would pass the last number was refused with its rule.
            Self::Range(base) => base.wrapping_add(offset),
            Self::One(id) => id,
        }
    }
}

/// A range of numbers, both ends included, and what is done with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span<T> {
    first: u32,
    last: u32,
    target: T,
}

/// Ranges in ascending order that do not overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Table<T>(Box<[Span<T>]>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(Box::default())
    }
}

impl<T: Copy> Table<T> {
    /// How far into its range a number lies, and what is done with it.
    fn find(&self, id: u32) -> Option<(u32, T)> {
        let span = self.0.get(self.0.partition_point(|span| span.last < id))?;
        Some((id.checked_sub(span.first)?, span.target))
    }
}
