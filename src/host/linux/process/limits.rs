//! How many descriptors the process may open.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A limit of the process: what counts now, and how far it may be raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorLimit {
    /// What counts now.
    pub soft: u64,
    /// How far it may be raised without privilege.
    pub hard: u64,
}

/// The limit as it stands.
pub fn descriptor_limit() -> DescriptorLimit {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    DescriptorLimit { soft: current.unwrap_or(u64::MAX), hard: maximum.unwrap_or(u64::MAX) }
}

/// Sets both limits.
pub fn set_descriptor_limit(count: u64) -> io::Result<()> {
    Ok(setrlimit(Resource::Nofile, Rlimit { current: Some(count), maximum: Some(count) })?)
}
