//! How many descriptors the process may open, and how many of them are the guest's.

use log::warn;

use super::error::Error;
use crate::host::linux::process::limits::{DescriptorLimit, descriptor_limit, set_descriptor_limit};

/// The limit aimed at when none is asked for.
const DEFAULT: u64 = 1_000_000;

/// Memory regions a front end may send, each with a descriptor.
const MEMORY_REGIONS: u64 = 509;

/// Sockets, logs, event descriptors of queues and threads, and room to spare.
const OWN: u64 = 100;

/// Fewer than this make a share hardly usable.
const LOW: u64 = 128;

/// How the process's descriptors are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorBudget {
    /// How many the process may have open.
    pub limit: u64,
    /// How many of them the guest's inodes and open files may take.
    pub guest: u64,
    /// What was aimed at, where the system did not grant it.
    short_of: Option<u64>,
}

impl DescriptorBudget {
    /// Says what of it is worth knowing to whoever starts the daemon, once it serves.
    pub fn remark(&self) {
        let Self { limit, guest, short_of } = self;
        if let Some(aim) = short_of {
            warn!("the limit of descriptors is {limit}: to raise it to {aim} takes CAP_SYS_RESOURCE");
        }
        if *guest < LOW {
            warn!("the limit of {limit} descriptors leaves only {guest} to the guest");
        }
    }

    /// None at all: enough to see whether options make sense.
    pub(super) const fn none() -> Self {
        Self { limit: 0, guest: 0, short_of: None }
    }
}

/// Raises the limit as `--rlimit-nofile` asks, and shares out what came of it.
///
/// `threads` is how many threads may each hold a descriptor that is not accounted for yet.
pub fn raise(asked: Option<u64>, threads: u64) -> Result<DescriptorBudget, Error> {
    let (limit, short_of) = set(asked)?;
    let reserved = MEMORY_REGIONS + OWN + threads;
    let guest = limit.checked_sub(reserved).filter(|guest| *guest > 0).ok_or_else(|| {
        let least = reserved + 1;
        Error::Failed(format!("a limit of {limit} descriptors is too small: set --rlimit-nofile to at least {least}"))
    })?;
    Ok(DescriptorBudget { limit, guest, short_of })
}

/// Sets the limit; says which it is now, and what was aimed at where that is more.
fn set(asked: Option<u64>) -> Result<(u64, Option<u64>), Error> {
    let DescriptorLimit { soft, hard } = descriptor_limit();
    let most = most_allowed();
    let Some(aim) = aim(asked, soft, most)? else { return Ok((soft, None)) };
    match set_descriptor_limit(aim) {
        Ok(()) => Ok((aim, None)),
        Err(error) if asked.is_some() => {
            let mend = format!("ask for at most {hard}, or start it with a higher limit");
            Err(Error::system(format!("cannot set the limit of descriptors to {aim}"), error, &mend))
        }
        Err(_) => {
            set_descriptor_limit(hard).map_err(|e| Error::system("cannot set the limit of descriptors", e, ""))?;
            Ok((hard, Some(aim)))
        }
    }
}

/// Which limit to set, if any: what was asked for, or the default unless the limit is higher already.
fn aim(asked: Option<u64>, soft: u64, most: u64) -> Result<Option<u64>, Error> {
    match asked {
        Some(0) => Ok(None),
        Some(count) if count > most => {
            Err(Error::Failed(format!("--rlimit-nofile={count} is above what the system allows: use at most {most}")))
        }
        Some(count) => Ok(Some(count)),
        None if soft >= DEFAULT => Ok(None),
        None => Ok(Some(DEFAULT.min(most))),
    }
}

/// What the system allows any process.
fn most_allowed() -> u64 {
    std::fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_the_default_unless_asked_for_another_or_higher_already() {
        let most = 1 << 20;
        let cases = [
            (None, 1024, most, Some(DEFAULT)),
            (None, 1024, 4096, Some(4096)),
            (None, DEFAULT, most, None),
            (Some(0), 1024, most, None),
            (Some(2000), 1024, most, Some(2000)),
            (Some(most), 1024, most, Some(most)),
        ];
        for (asked, soft, most, expected) in cases {
            assert_eq!(aim(asked, soft, most).unwrap(), expected, "{asked:?} {soft} {most}");
        }
        assert!(aim(Some(most + 1), 1024, most).is_err());
    }
}
