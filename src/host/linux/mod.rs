//! Linux. Calls that `rustix` types well go through it; the rest through `libc`.

mod attributes;
mod credentials;
mod data;
pub mod directory;
mod names;
mod objects;
#[cfg(feature = "daemon")]
pub mod process;
mod watch;
mod xattr;

pub use attributes::*;
pub use credentials::*;
pub use data::*;
pub use names::*;
pub use objects::*;
pub use watch::*;
pub use xattr::*;

use fuse_abi::Errno;

use super::{
    Result,
    unix::{check, errno, permission_bits},
};

/// What the guest is told where this system says `number`.
pub(super) const fn guest_errno(number: i32) -> Errno {
    Errno::from_linux(number)
}
