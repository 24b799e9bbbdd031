//! What an embedder or a command line decides about a share, as plain data.
//!
//! The defaults are those of the `virtiofsd` command. Where options depend on each other, this module says how; it
//! opens nothing and asks the system nothing.

use std::{ffi::CString, time::Duration};

use super::{idmap::IdMap, xattr_map::XattrMap};
use crate::{
    coherence::policy::{CacheMode, Grants, HEARING},
    directory::StreamKind,
};

/// Options of a shared directory.
#[derive(Clone, Debug)]
pub struct Config {
    /// Serve extended attributes. Other options may imply it: ask [`Config::serves_xattrs`].
    pub xattr: bool,
    /// Store POSIX access control lists for the guest to enforce.
    pub posix_acl: Negotiation,
    /// How names of extended attributes translate.
    pub xattr_map: XattrMap,
    /// Refuse every change.
    pub read_only: bool,
    /// Let the guest collect writes. For shares that only this guest changes.
    pub writeback: bool,
    /// Open with `O_DIRECT` on the host where the guest's program did.
    pub allow_direct_io: bool,
    /// Let files be mapped shared although the cache mode keeps no file data.
    pub allow_mmap: bool,
    /// Send attributes along with listings, where the cache mode can use them.
    pub readdirplus: bool,
    /// How users translate.
    pub uid_map: IdMap,
    /// How groups translate.
    pub gid_map: IdMap,
    /// Store the security label that the guest sends along when it creates a file.
    pub security_label: Negotiation,
    /// Drop setuid and setgid bits on the server when the guest asks, instead of by requests of the guest. On by
    /// default, unlike virtiofsd: without it a truncation by another user keeps them.
    pub killpriv_v2: bool,
    /// Pass `O_NOATIME` on to the host, which refuses it for files of others.
    pub preserve_noatime: bool,
    /// What the guest may cache.
    pub cache: CacheMode,
    /// How long the guest may trust names, in place of the cache mode's own time.
    pub entry_timeout: Option<Duration>,
    /// How long the guest may trust attributes, in place of the cache mode's own time.
    pub attr_timeout: Option<Duration>,
    /// How long a guest that hears of changes may trust a name to be missing. Not at all by default: some kernels can be
    /// told of one such name only by having them look all names up again.
    pub negative_timeout: Duration,
    /// Watch the directories that the guest knows, and tell the guest of changes: for `--cache=coherent`, and transports
    /// whose client hears.
    pub notify: bool,
    /// The name of a file in the root of the share to which paths that the host changed are appended, for a helper in a
    /// guest that no kernel tells. Goes with `--cache=coherent`, too.
    pub event_file: Option<CString>,
    /// How many directories may be watched.
    pub watch_budget: usize,
    /// Let the guest open files and directories without asking, where it can: what is read and written is named by its
    /// inode. Goes with [`CacheMode::Always`] only. `dir_stream` is then snapshots unless it says otherwise.
    pub no_open: bool,
    /// Answer STATX with `ENOSYS`. No other reply tells when an object was born, so that a Linux guest asks for each inode
    /// once more, the first time a program wants to know; many want to and never look.
    pub no_statx: bool,
    /// How directories are read. By default with the kernel's cookies, but in snapshots where those do not hold: tmpfs
    /// starts over or repeats names when the next entry of a scan is removed or replaced (seen on Linux 6.18).
    pub dir_stream: Option<StreamKind>,
    /// The process sees nothing but the share, so that a path within it may be walked by the host.
    pub contained: bool,
    /// Show the guest where other file systems begin.
    pub announce_submounts: bool,
    /// How inodes are kept beyond the budget of descriptors.
    pub inode_file_handles: InodeFileHandles,
    /// How many descriptors inodes may hold.
    pub descriptor_budget: usize,
    /// How many files and directories the guest may have open.
    pub handle_budget: usize,
}

/// What the budgets share by default: three quarters of the 1024 descriptors that a process may have unless it asks.
const DEFAULT_DESCRIPTORS: usize = 768;
/// A watch takes about a kilobyte of the host's kernel.
const WATCHES: usize = 1 << 16;

impl Default for Config {
    fn default() -> Self {
        let mut config = Self {
            xattr: false,
            posix_acl: Negotiation::Never,
            xattr_map: XattrMap::default(),
            read_only: false,
            writeback: false,
            allow_direct_io: false,
            allow_mmap: false,
            readdirplus: true,
            uid_map: IdMap::identity(),
            gid_map: IdMap::identity(),
            security_label: Negotiation::Never,
            killpriv_v2: true,
            preserve_noatime: false,
            cache: CacheMode::default(),
            entry_timeout: None,
            attr_timeout: None,
            negative_timeout: Duration::ZERO,
            notify: false,
            event_file: None,
            watch_budget: WATCHES,
            no_open: false,
            no_statx: false,
            dir_stream: None,
            contained: false,
            announce_submounts: true,
            inode_file_handles: InodeFileHandles::default(),
            descriptor_budget: 0,
            handle_budget: 0,
        };
        config.share_descriptors(DEFAULT_DESCRIPTORS);
        config
    }
}

impl Config {
    /// Whether extended attributes are served: asked for, or needed by another option.
    #[must_use]
    pub fn serves_xattrs(&self) -> bool {
        let needed = [self.posix_acl, self.security_label].into_iter().any(Negotiation::is_wanted);
        self.xattr || needed || !self.xattr_map.is_identity()
    }

    /// What the guest may keep: the cache mode's grants, with the times and the listings that were asked for.
    #[must_use]
    pub fn grants(&self) -> Grants {
        let mode = self.cache.grants();
        Grants {
            entry: self.entry_timeout.unwrap_or(mode.entry),
            attributes: self.attr_timeout.unwrap_or(mode.attributes),
            readdirplus: mode.readdirplus && self.readdirplus,
            ..mode
        }
    }

    /// What a guest may keep of what it hears changes of: names, and attributes.
    #[must_use]
    pub fn hearing(&self) -> (Duration, Duration) {
        let (entry, attributes) = HEARING;
        (self.entry_timeout.unwrap_or(entry), self.attr_timeout.unwrap_or(attributes))
    }

    /// Divides the descriptors that a guest may use: a quarter for what it has open, the rest for inodes.
    pub fn share_descriptors(&mut self, available: usize) {
        self.handle_budget = available / 4;
        self.descriptor_budget = available - self.handle_budget;
    }

    /// Says which options cannot go together.
    ///
    /// # Errors
    /// The first pair that contradict each other.
    pub fn check(&self) -> Result<(), Contradiction> {
        let translated = !(self.uid_map.is_identity() && self.gid_map.is_identity());
        if translated && self.posix_acl.is_wanted() {
            return Err(Contradiction::TranslatedAcl);
        }
        if (self.notify || self.event_file.is_some()) && self.cache != CacheMode::Coherent {
            return Err(Contradiction::NotifyWithoutValidation);
        }
        if self.no_open {
            // What only an OPEN would tell is not told.
            for (stands_against, contradiction) in [
                (self.cache != CacheMode::Always, Contradiction::UncachedOpen),
                (self.allow_direct_io, Contradiction::DirectOpen),
                (self.preserve_noatime, Contradiction::QuietOpen),
            ] {
                if stands_against {
                    return Err(contradiction);
                }
            }
        }
        Ok(())
    }
}

/// Options that exclude each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// Access control lists hold users and groups too, and those would not be translated.
    #[error("posix-acl cannot be used together with translated users or groups: the ids in the lists stay as they are")]
    TranslatedAcl,
    /// What is told unasked is decided by what the guest is known to believe.
    #[error(
        "notifications and an event file go with the cache mode coherent: no other keeps account of what the guest knows"
    )]
    NotifyWithoutValidation,
    /// A guest that does not ask at an open keeps what it has, which only one mode allows.
    #[error("no-open needs cache=always: other modes learn or decide something at each open")]
    UncachedOpen,
    /// The open flags do not reach the server.
    #[error("no-open cannot be used together with allow-direct-io: the host would not hear of O_DIRECT")]
    DirectOpen,
    /// The open flags do not reach the server.
    #[error("no-open cannot be used together with preserve-noatime: the host would not hear of O_NOATIME")]
    QuietOpen,
}

/// What to do about a feature that the guest may lack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "daemon", derive(clap::ValueEnum))]
pub enum Negotiation {
    /// Do without it.
    #[default]
    Never,
    /// Use it if the guest can, warn otherwise.
    Auto,
    /// Refuse a guest that cannot.
    Always,
}

impl Negotiation {
    /// Whether the guest is asked for it.
    #[must_use]
    pub const fn is_wanted(self) -> bool {
        !matches!(self, Self::Never)
    }
}

/// Whether inodes beyond the budget of descriptors are kept by file handle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "daemon", derive(clap::ValueEnum))]
pub enum InodeFileHandles {
    /// No: what does not fit is refused.
    Never,
    /// Where file system and privileges allow it.
    #[cfg_attr(feature = "daemon", value(alias = "fallback"))]
    #[default]
    Prefer,
    /// Yes, and a file system that has none is not served.
    Mandatory,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(change: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config::default();
        change(&mut config);
        config
    }

    #[test]
    fn what_stores_its_state_in_attributes_implies_them() {
        let map = || XattrMap::parse(":ok:all:::").unwrap();
        for (expected, config) in [
            (false, Config::default()),
            (true, config(|c| c.xattr = true)),
            (true, config(|c| c.posix_acl = Negotiation::Auto)),
            (true, config(|c| c.security_label = Negotiation::Always)),
            (true, config(|c| c.xattr_map = map())),
        ] {
            assert_eq!(config.serves_xattrs(), expected, "{config:?}");
        }
    }

    #[test]
    fn a_timeout_that_was_given_replaces_the_modes_own_and_nothing_else() {
        let minute = Duration::from_secs(60);
        for mode in [CacheMode::Never, CacheMode::Metadata, CacheMode::Auto, CacheMode::Always, CacheMode::Coherent] {
            let own = mode.grants();
            assert_eq!(config(|c| c.cache = mode).grants(), own);
            let entry = config(|c| (c.cache, c.entry_timeout) = (mode, Some(minute))).grants();
            assert_eq!(entry, Grants { entry: minute, ..own });
            let attributes = config(|c| (c.cache, c.attr_timeout) = (mode, Some(Duration::ZERO))).grants();
            assert_eq!(attributes, Grants { attributes: Duration::ZERO, ..own });
        }
    }

    #[test]
    fn listings_come_with_lookups_where_both_user_and_mode_want_it() {
        for (mode, asked, expected) in [
            (CacheMode::Auto, true, true),
            (CacheMode::Auto, false, false),
            (CacheMode::Never, true, false),
            (CacheMode::Never, false, false),
        ] {
            let config = config(|c| (c.cache, c.readdirplus) = (mode, asked));
            assert_eq!(config.grants().readdirplus, expected, "{mode} {asked}");
        }
    }

    #[test]
    fn access_control_lists_and_translated_ids_exclude_each_other() {
        let map = || IdMap::parse(["map:0:1000:1"]).unwrap();
        let (allowed, refused) = (Ok(()), Err(Contradiction::TranslatedAcl));
        for (expected, config) in [
            (allowed, Config::default()),
            (allowed, config(|c| c.posix_acl = Negotiation::Always)),
            (allowed, config(|c| (c.uid_map, c.gid_map) = (map(), map()))),
            (refused, config(|c| (c.uid_map, c.posix_acl) = (map(), Negotiation::Auto))),
            (refused, config(|c| (c.gid_map, c.posix_acl) = (map(), Negotiation::Always))),
        ] {
            assert_eq!(config.check(), expected, "{config:?}");
        }
    }

    #[test]
    fn a_guest_that_opens_without_asking_needs_a_mode_in_which_nothing_is_asked() {
        let unasked = |cache| config(|c| (c.no_open, c.cache) = (true, cache));
        assert_eq!(unasked(CacheMode::Always).check(), Ok(()));
        for cache in [CacheMode::Never, CacheMode::Metadata, CacheMode::Auto, CacheMode::Coherent] {
            assert_eq!(unasked(cache).check(), Err(Contradiction::UncachedOpen), "{cache}");
        }
        let always = unasked(CacheMode::Always);
        let direct = Config { allow_direct_io: true, ..always.clone() };
        assert_eq!(direct.check(), Err(Contradiction::DirectOpen));
        let quiet = Config { preserve_noatime: true, ..always };
        assert_eq!(quiet.check(), Err(Contradiction::QuietOpen));
    }

    #[test]
    fn both_budgets_together_are_what_is_available() {
        for available in [0, 1, 3, 4, 1000, 1_000_000, usize::MAX] {
            let config = config(|c| c.share_descriptors(available));
            assert_eq!(config.descriptor_budget + config.handle_budget, available);
            assert!(config.descriptor_budget >= config.handle_budget);
        }
        let config = Config::default();
        assert_eq!((config.descriptor_budget, config.handle_budget), (576, 192));
    }
}
