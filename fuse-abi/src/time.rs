//! A moment as attributes carry it.

use crate::SxTime;

/// A moment: seconds since the epoch, and nanoseconds below a thousand million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since the epoch; negative before it.
    pub seconds: i64,
    /// Nanoseconds within the second.
    pub nanoseconds: u32,
}

impl From<Timestamp> for SxTime {
    fn from(time: Timestamp) -> Self {
        Self { tv_sec: time.seconds, tv_nsec: time.nanoseconds, ..Self::default() }
    }
}
