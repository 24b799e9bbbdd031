//! What a host says of a directory and its entries, in terms that every system shares.

/// A point in time: seconds and nanoseconds since the epoch.
pub type Moment = (i64, u32);

/// One entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The inode number.
    pub ino: u64,
    /// The cookie at which a later read goes on after this entry.
    pub next: u64,
    /// The type, as `DT_*` numbers it.
    pub kind: u32,
    /// The name, without a terminator.
    pub name: &'a [u8],
}

/// The times of a directory: they move when its entries change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HostStamp {
    /// Last change of the content.
    pub mtime: Moment,
    /// Last change of anything.
    pub ctime: Moment,
}

/// What a snapshot compares to learn whether a directory changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryState {
    /// Its times.
    pub stamp: HostStamp,
    /// The wall clock just before `stamp` was read.
    pub seen: Moment,
    /// It has no name left.
    pub unlinked: bool,
}

/// Two ticks of the slowest kernel clock (100 Hz); exFAT and FAT's ctime count in 10 ms too.
const FINE: i128 = 20_000_000;
/// FAT counts mtime in 2 s; HFS+, old ext4 and some servers in 1 s.
const COARSE: i128 = 2_000_000_000;

impl HostStamp {
    /// Whether a change made at `now` or later is certain to show as another stamp. One too young proves nothing: the
    /// next change may fall within the same tick, and leave the times as they are.
    #[must_use]
    pub fn is_settled(&self, now: Moment) -> bool {
        let now = nanoseconds(now);
        [self.mtime, self.ctime].into_iter().all(|time| {
            let grain = if time.1 == 0 { COARSE } else { FINE };
            nanoseconds(time) + grain <= now
        })
    }
}

fn nanoseconds(moment: Moment) -> i128 {
    i128::from(moment.0) * 1_000_000_000 + i128::from(moment.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_settles_once_its_tick_has_passed_and_a_whole_second_only_after_two() {
        let stamp = |nanos| HostStamp { mtime: (100, nanos), ctime: (100, nanos) };
        for (nanos, now, settled) in [
            (5, (100, 5), false),
            (5, (100, 20_000_004), false),
            (5, (100, 20_000_005), true),
            (0, (101, 999_999_999), false),
            (0, (102, 0), true),
            (5, (99, 0), false),
        ] {
            assert_eq!(stamp(nanos).is_settled(now), settled, "{nanos} ns, seen at {now:?}");
        }
        let mixed = HostStamp { mtime: (100, 0), ctime: (100, 7) };
        assert!(!mixed.is_settled((101, 0)), "the coarser of the two decides");
        let extreme = HostStamp { mtime: (i64::MIN, 0), ctime: (i64::MAX, u32::MAX) };
        assert!(!extreme.is_settled((i64::MAX, 0)));
    }
}
