//! macOS 13 and later. Calls that `rustix` types well go through it; the rest through `libc`.
//!
//! What differs from Linux in meaning, because the system does:
//! - There is no descriptor that merely pins. `pins` says what stands in for it.
//! - The process acts as its own user: `credentials`.
//! - What is created belongs to its directory's group, as on every BSD.
//! - Nothing tells whether a read would wait; no file is created without a name; there are no whiteouts.

mod allocation;
mod attributes;
mod credentials;
mod data;
pub mod directory;
mod errno;
mod handles;
mod names;
mod objects;
mod open;
mod paths;
mod pins;
mod stat;
mod watch;
mod xattr;

pub use attributes::*;
pub use credentials::*;
pub use data::*;
pub use handles::FileHandle;
pub use names::*;
pub use objects::*;
pub use open::OpenMode;
use open::PIN;
pub use pins::{pin_at, pin_parent};
pub use stat::is_mount_root;
pub use watch::*;
pub use xattr::*;

use fuse_abi::Errno;

use super::{
    Result,
    unix::{check, errno, permission_bits},
};

/// What the guest is told where this system says `number`.
pub(super) const fn guest_errno(number: i32) -> Errno {
    Errno::from_linux(errno::linux_number(number))
}
