//! The only room with system calls, and with `unsafe` for them.
//!
//! One folder a system, with the same functions in each; what both do alike stands in `unix`. Every call takes borrowed
//! descriptors and single path components, and gives back owned descriptors or an errno captured where the call was
//! made. It knows nothing of guests: no node ids, no requests, no policy.
#![allow(unsafe_code)]

mod budget;
#[cfg(target_os = "linux")]
pub mod linux;
mod listing;
#[cfg(target_os = "macos")]
mod macos;
mod stat;
mod unix;
mod watched;

// What macOS decides without asking the system is tested wherever the tests run.
#[cfg(all(test, not(target_os = "macos")))]
#[path = "macos/allocation.rs"]
mod macos_allocation;
#[cfg(all(test, not(target_os = "macos")))]
#[path = "macos/errno.rs"]
mod macos_errno;

#[cfg(target_os = "linux")]
use linux as system;
#[cfg(target_os = "macos")]
use macos as system;

pub use budget::{Budget, Permit};
pub use listing::{DirectoryState, Entry, HostStamp, Moment};
pub use stat::{Identity, Kind, Space, Stat, TYPE_MASK};
pub use system::*;
pub use unix::*;
pub use watched::Seen;

use fuse_abi::Errno;

/// What every call here returns.
pub type Result<T> = std::result::Result<T, Errno>;
