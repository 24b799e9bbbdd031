//! Cache modes, and what each lets the guest keep.
//!
//! One table, a row a mode. Neither `O_DIRECT` nor writeback nor mapping under direct I/O changes a row: the client
//! itself sends an `O_DIRECT` file's reads and writes past its cache, and the other two are agreed on once, at INIT. This
//! module is pure: it knows no inode and no clock, and whether a promise still holds is for others to find out.

use std::{fmt, time::Duration};

use fuse_abi::OpenOutFlags;

/// How much of a share the guest may cache. The modes of virtiofsd mean what they mean there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "daemon", derive(clap::ValueEnum))]
pub enum CacheMode {
    /// Nothing: each read, write and `stat` asks the server. Shared writable mappings need `allow_mmap`.
    Never,
    /// Names, attributes and listings for a day, file data not at all. For shares that only this guest changes.
    Metadata,
    /// Names and attributes for a second; file data from an open on, until the next.
    #[default]
    Auto,
    /// Everything, for a day. For shares that only this guest changes.
    Always,
    /// Names for a minute and attributes for a second; file data and listings for as long as each open proves them true.
    Coherent,
}

/// What a guest may keep without asking again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grants {
    /// How long a name may be trusted to lead where it led.
    pub entry: Duration,
    /// How long attributes may be trusted.
    pub attributes: Duration,
    /// How long a name may be trusted to be missing. Nothing could correct a guest that is wrong about it.
    pub negative: Duration,
    /// With what OPEN and CREATE are answered.
    pub file: OpenOutFlags,
    /// With what OPENDIR is answered.
    pub directory: OpenOutFlags,
    /// Whether a listing should come with lookups. Where the guest forgets them at once they are wasted.
    pub readdirplus: bool,
}

const NONE: Duration = Duration::ZERO;
const SECOND: Duration = Duration::from_secs(1);
/// How long a coherent guest may be wrong about the one thing that shows itself in no request.
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

const ASK: OpenOutFlags = OpenOutFlags::empty();
const DIRECT: OpenOutFlags = OpenOutFlags::DIRECT_IO;
const KEEP: OpenOutFlags = OpenOutFlags::KEEP_CACHE;
const LISTING: OpenOutFlags = OpenOutFlags::KEEP_CACHE.union(OpenOutFlags::CACHE_DIR);

/// Mode, name, time for names, time for attributes, file flags, directory flags, listings with lookups.
type Row = (CacheMode, &'static str, Duration, Duration, OpenOutFlags, OpenOutFlags, bool);

/// What a guest may keep in place of its mode's times where it hears of each change: names, missing ones too, and
/// attributes. Changes that no host tells of, such as stores to a mapping, show after the second.
pub const HEARING: (Duration, Duration) = (Duration::from_secs(3600), MINUTE);

const MODES: [Row; 5] = [
    (CacheMode::Never, "never", NONE, NONE, DIRECT, ASK, false),
    (CacheMode::Metadata, "metadata", DAY, DAY, DIRECT, LISTING, true),
    (CacheMode::Auto, "auto", SECOND, SECOND, ASK, ASK, true),
    (CacheMode::Always, "always", DAY, DAY, KEEP, LISTING, true),
    (CacheMode::Coherent, "coherent", MINUTE, SECOND, ASK, OpenOutFlags::CACHE_DIR, true),
];

impl CacheMode {
    const fn row(self) -> &'static Row {
        // The rows stand in the order of the modes, which a test holds.
        &MODES[self as usize]
    }

    /// What this mode lets the guest keep.
    #[must_use]
    pub const fn grants(self) -> Grants {
        let &(_, _, entry, attributes, file, directory, readdirplus) = self.row();
        Grants { entry, attributes, negative: NONE, file, directory, readdirplus }
    }

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().1
    }
}

impl fmt::Display for CacheMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mode_grants_what_users_know_it_for() {
        // Seconds for names and for attributes, then the bits of the protocol: 1 direct, 2 keep, 8 cache the listing.
        for (name, entry, attributes, file, directory, readdirplus) in [
            ("never", 0, 0, 1, 0, false),
            ("metadata", 86_400, 86_400, 1, 2 | 8, true),
            ("auto", 1, 1, 0, 0, true),
            ("always", 86_400, 86_400, 2, 2 | 8, true),
            ("coherent", 60, 1, 0, 8, true),
        ] {
            let mode = MODES.iter().find(|row| row.1 == name).unwrap().0;
            let grants = mode.grants();
            assert_eq!(mode.name(), name);
            let expected = (Duration::from_secs(entry), Duration::from_secs(attributes));
            assert_eq!((grants.entry, grants.attributes), expected, "{name}");
            assert_eq!((grants.file.bits(), grants.directory.bits()), (file, directory), "{name}");
            assert_eq!(grants.readdirplus, readdirplus, "{name}");
        }
    }

    #[test]
    fn no_mode_lets_a_missing_name_be_remembered() {
        for (mode, ..) in MODES {
            assert_eq!(mode.grants().negative, Duration::ZERO, "{mode}");
        }
    }
}
