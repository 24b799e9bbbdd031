//! Bytes to typed requests, results to replies, and the trait that stands between.
//!
//! This room makes no system call and knows no operating system: what a request says is decided here once, so that
//! everything behind [`FileSystem`] works with types that cannot be wrong. Nothing in it panics, whatever the bytes.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::panic
    )
)]

mod arguments;
mod body;
mod dirents;
mod extensions;
mod file_arguments;
mod filesystem;
mod ioctl;
mod name;
mod open_flags;
mod operations;
mod reply;
mod request;
mod server;
mod session;
mod table;
mod turns;
mod wire;

pub use arguments::*;
pub use body::{Body, Payload};
pub use dirents::DirectoryReply;
pub use extensions::Extensions;
pub use file_arguments::*;
pub use filesystem::*;
pub use ioctl::IoctlCall;
pub use name::{LookupName, NAME_MAX, Name, SymlinkTarget, XattrName};
pub use open_flags::{Access, GuestArch, OpenFlags};
pub use operations::{Operation, Request};
pub use reply::{Dropped, Served};
pub use request::{MAX_HEAD, Message, Terms};
pub use server::{Options, Server};
pub use turns::{Turn, Turns};
