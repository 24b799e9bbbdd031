//! Open flags as the guest's architecture numbers them, turned into what they mean.

use bitflags::bitflags;
use fuse_abi::Errno;

/// Whose numbers the guest uses. It is the host's own architecture unless the guest is emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestArch {
    /// x86, RISC-V, LoongArch, s390x: the generic numbers.
    Generic,
    /// 64-bit and 32-bit Arm, PowerPC: four flags are numbered otherwise.
    Arm,
}

impl GuestArch {
    /// What a guest runs on when the host's processor runs it.
    pub const NATIVE: Self = if cfg!(any(target_arch = "aarch64", target_arch = "arm", target_arch = "powerpc64")) {
        Self::Arm
    } else {
        Self::Generic
    };
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// For reading.
    Read,
    /// For writing.
    Write,
    /// For both.
    ReadWrite,
}

impl Access {
    /// Whether data can be written through it.
    #[must_use]
    pub const fn writes(self) -> bool {
        !matches!(self, Self::Read)
    }
}

bitflags! {
    /// What else was asked for at an open. What only concerns the guest's own descriptor is not among it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Options: u16 {
        const APPEND = 1;
        const TRUNCATE = 1 << 1;
        const EXCLUSIVE = 1 << 2;
        const DIRECT = 1 << 3;
        const SYNC = 1 << 4;
        const DATA_SYNC = 1 << 5;
        const NO_ATIME = 1 << 6;
        const CREATE = 1 << 7;
        const TEMPORARY = 1 << 8;
    }
}

/// A guest's open flags, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFlags {
    access: Access,
    options: Options,
}

const ACCESS_MODE: u32 = 0o3;
const CREATE: u32 = 0o100;
const EXCLUSIVE: u32 = 0o200;
const TRUNCATE: u32 = 0o1000;
const APPEND: u32 = 0o2000;
const DATA_SYNC: u32 = 0o10000;
const SYNC: u32 = 0o4_010_000;
const NO_ATIME: u32 = 0o1_000_000;
/// `__O_TMPFILE` alone: the kernel adds O_DIRECTORY, whose number differs.
const TEMPORARY: u32 = 0o20_000_000;

impl OpenFlags {
    /// Understands the flags of a guest of this architecture.
    ///
    /// # Errors
    /// `EINVAL` for access mode 3, which opens nothing that could be read or written.
    pub fn new(raw: u32, arch: GuestArch) -> Result<Self, Errno> {
        let access = match raw & ACCESS_MODE {
            0 => Access::Read,
            1 => Access::Write,
            2 => Access::ReadWrite,
            _ => return Err(Errno::EINVAL),
        };
        Ok(Self { access, options: Self::options(raw, arch) })
    }

    /// What the server opens of its own accord.
    #[must_use]
    pub const fn of(access: Access, append: bool) -> Self {
        Self { access, options: if append { Options::APPEND } else { Options::empty() } }
    }

    /// Understands the flags that a request sends along of a descriptor that is open already, without its access.
    #[must_use]
    pub fn of_descriptor(raw: u32, arch: GuestArch) -> Self {
        Self { access: Access::Read, options: Self::options(raw, arch) }
    }

    fn options(raw: u32, arch: GuestArch) -> Options {
        let direct = match arch {
            GuestArch::Generic => 0o40_000,
            GuestArch::Arm => 0o200_000,
        };
        let mut options = Options::empty();
        for (bits, option) in [
            (APPEND, Options::APPEND),
            (TRUNCATE, Options::TRUNCATE),
            (EXCLUSIVE, Options::EXCLUSIVE),
            (direct, Options::DIRECT),
            (SYNC, Options::SYNC),
            (DATA_SYNC, Options::DATA_SYNC),
            (NO_ATIME, Options::NO_ATIME),
            (CREATE, Options::CREATE),
            (TEMPORARY, Options::TEMPORARY),
        ] {
            options.set(option, raw & bits == bits);
        }
        options
    }

    /// How the file is opened.
    #[must_use]
    pub const fn access(self) -> Access {
        self.access
    }

    /// The same flags with another access.
    #[must_use]
    pub const fn with_access(self, access: Access) -> Self {
        Self { access, ..self }
    }

    /// The same flags without O_APPEND: with a writeback cache the guest knows the end better than the host.
    #[must_use]
    pub const fn without_append(self) -> Self {
        Self { options: self.options.difference(Options::APPEND), ..self }
    }

    /// The same flags without O_DIRECT.
    #[must_use]
    pub const fn without_direct(self) -> Self {
        Self { options: self.options.difference(Options::DIRECT), ..self }
    }

    /// The same flags without O_NOATIME, which only an owner may ask for.
    #[must_use]
    pub const fn without_no_atime(self) -> Self {
        Self { options: self.options.difference(Options::NO_ATIME), ..self }
    }

    /// Whether an open with these flags changes anything or could later.
    #[must_use]
    pub const fn changes(self) -> bool {
        self.access.writes()
            || self.options.intersects(Options::TRUNCATE.union(Options::CREATE).union(Options::TEMPORARY))
    }
}

macro_rules! questions {
    ($($(#[$doc:meta])* $ask:ident $option:ident;)*) => {
        impl OpenFlags {
            $($(#[$doc])* #[must_use] pub const fn $ask(self) -> bool { self.options.contains(Options::$option) })*
        }
    };
}

questions! {
    /// O_APPEND.
    append APPEND;
    /// O_TRUNC.
    truncate TRUNCATE;
    /// O_EXCL.
    exclusive EXCLUSIVE;
    /// O_DIRECT.
    direct DIRECT;
    /// O_SYNC.
    sync SYNC;
    /// O_DSYNC.
    data_sync DATA_SYNC;
    /// O_NOATIME.
    no_atime NO_ATIME;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn direct_io_is_told_from_o_directory_by_the_guests_architecture() {
        // 0o40000 is O_DIRECT on x86-64 and O_DIRECTORY on arm64; 0o200000 the other way round.
        for (raw, arch, direct) in [
            (0o40_000, GuestArch::Generic, true),
            (0o200_000, GuestArch::Generic, false),
            (0o40_000, GuestArch::Arm, false),
            (0o200_000, GuestArch::Arm, true),
        ] {
            assert_eq!(OpenFlags::new(raw, arch).unwrap().direct(), direct, "{raw:o} {arch:?}");
        }
    }

    #[test]
    fn o_sync_contains_o_dsync_and_not_the_other_way_round() {
        let data_sync = OpenFlags::new(0o10_000, GuestArch::Generic).unwrap();
        assert!(data_sync.data_sync() && !data_sync.sync());
        let sync = OpenFlags::new(0o4_010_000, GuestArch::Generic).unwrap();
        assert!(sync.data_sync() && sync.sync());
    }

    #[test]
    fn every_way_to_change_a_file_counts_as_a_change() {
        for (raw, changes) in [(0, false), (1, true), (2, true), (0o1000, true), (0o100, true), (0o2000, false)] {
            assert_eq!(OpenFlags::new(raw, GuestArch::Generic).unwrap().changes(), changes, "{raw:o}");
        }
        assert_eq!(OpenFlags::new(3, GuestArch::Generic), Err(Errno::EINVAL));
    }
}
