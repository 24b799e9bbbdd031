//! The values that options take, each a type that holds only what is allowed.
//!
//! Knows how a value is written on a command line and nothing of what it does.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;

use crate::host::linux::process::identity::CapabilitySet;
pub use crate::{
    coherence::policy::CacheMode,
    directory::StreamKind as DirStreamKind,
    passthrough::config::{InodeFileHandles, Negotiation},
};

/// How the process is isolated from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SandboxMode {
    /// Namespaces of its own, with the share as the root directory and nothing else in view.
    Namespace,
    /// The share as the root directory; needs root.
    Chroot,
    /// No isolation.
    None,
}

/// What happens on a system call that is not on the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SeccompMode {
    /// No list is applied.
    None,
    /// The process ends.
    Kill,
    /// The call is made and the kernel logs it.
    Log,
    /// The thread gets SIGSYS.
    Trap,
}

/// How a migration would hand over what the guest knows. Accepted, and without effect until migration exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MigrationMode {
    /// By paths.
    FindPaths,
    /// By file handles.
    FileHandles,
}

/// How a migration would answer what it cannot carry over. Accepted, and without effect until migration exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MigrationOnError {
    /// The migration fails.
    Abort,
    /// The guest gets errors for what is lost.
    GuestError,
}

/// Capabilities to keep and to drop beside the usual ones, as `--modcaps` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapabilityChanges {
    pub(super) kept: CapabilitySet,
    pub(super) dropped: CapabilitySet,
}

impl CapabilityChanges {
    /// Whether the named capability is asked to be dropped.
    pub fn drops(self, name: &str) -> bool {
        CapabilitySet::from_name(name).is_some_and(|capability| self.dropped.contains(capability))
    }
}

impl FromStr for CapabilityChanges {
    type Err = String;

    /// Takes `+NAME:-NAME:...`; of two changes to one capability the later counts.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut changes = Self { kept: CapabilitySet::empty(), dropped: CapabilitySet::empty() };
        for change in text.split(':').filter(|_| !text.is_empty()) {
            let (keep, name) = match (change.strip_prefix('+'), change.strip_prefix('-')) {
                (Some(name), _) => (true, name),
                (_, Some(name)) => (false, name),
                _ => return Err(format!("'{change}' begins with neither + nor -")),
            };
            let capability = CapabilitySet::from_name(&name.to_uppercase())
                .ok_or_else(|| format!("there is no capability '{name}' (write it as in sys_admin)"))?;
            changes.kept.set(capability, keep);
            changes.dropped.set(capability, !keep);
        }
        Ok(changes)
    }
}

/// The name under which the guest mounts the share: 1 to 36 bytes, as the device's configuration space has room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag(String);

impl Tag {
    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.len() {
            1..=36 => Ok(Self(text.to_owned())),
            _ => Err("a tag has 1 to 36 bytes"),
        }
    }
}

/// A range of user or group ids in a user namespace and the range of the host it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// First id inside the namespace.
    pub inside: u32,
    /// First id on the host.
    pub outside: u32,
    /// How many ids, at least one.
    pub count: u32,
}

impl FromStr for IdRange {
    type Err = &'static str;

    /// Takes `:inside:outside:count:`, where any character that is not a letter or digit may stand for the colon.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "the form is :NAMESPACE_ID:HOST_ID:COUNT:";
        let delimiter = text.chars().next().filter(|c| !c.is_alphanumeric()).ok_or(FORM)?;
        let inner = text.strip_prefix(delimiter).and_then(|rest| rest.strip_suffix(delimiter)).ok_or(FORM)?;
        let numbers: Vec<u32> = inner.split(delimiter).map(str::parse).collect::<Result<_, _>>().map_err(|_| FORM)?;
        let &[inside, outside, count] = numbers.as_slice() else { return Err(FORM) };
        let fits = |first: u32| count > 0 && first.checked_add(count - 1).is_some();
        if !fits(inside) || !fits(outside) {
            return Err("a range holds at least one id and ends below 4294967296");
        }
        Ok(Self { inside, outside, count })
    }
}

impl fmt::Display for IdRange {
    /// Writes the range as a line of `/proc/PID/uid_map` has it.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {} {}", self.inside, self.outside, self.count)
    }
}

/// Takes a time in seconds, fractions allowed.
pub fn seconds(text: &str) -> Result<Duration, &'static str> {
    const FORM: &str = "a time is a number of seconds, 0 or more; fractions are allowed";
    Duration::try_from_secs_f64(text.parse().map_err(|_| FORM)?).map_err(|_| FORM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_range_takes_any_delimiter_and_nothing_malformed() {
        let good = IdRange { inside: 0, outside: 100000, count: 65536 };
        for text in [":0:100000:65536:", "/0/100000/65536/", " 0 100000 65536 "] {
            assert_eq!(text.parse(), Ok(good), "{text}");
        }
        for text in ["", ":", "::", "0:1:1", ":0:1:1", ":0:1:", ":0:1:1:1:", ":0:1:0:", ":0:4294967295:2:", ":a:1:1:"] {
            assert!(text.parse::<IdRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_tag_is_neither_empty_nor_longer_than_the_configuration_space() {
        assert!("a".repeat(36).parse::<Tag>().is_ok());
        assert!("a".repeat(37).parse::<Tag>().is_err());
        assert!("é".repeat(19).parse::<Tag>().is_err(), "bytes count, not characters");
        assert!("".parse::<Tag>().is_err());
    }

    #[test]
    fn a_time_may_have_a_fraction_and_no_sign() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(seconds("0"), Ok(Duration::ZERO));
        for text in ["", "-1", "nan", "inf", "1s", "1e300"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
