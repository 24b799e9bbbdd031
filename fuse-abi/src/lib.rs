//! The FUSE kernel protocol as data: opcodes, flags and structs with their exact layout.
//!
//! Everything that `include/uapi/linux/fuse.h` publishes up to minor 46 (Linux 7.3) is here under the kernel's names,
//! without the common prefix and in Rust's case: `struct fuse_init_in` is [`InitIn`], `FUSE_POSIX_ACL` is
//! [`InitFlags::POSIX_ACL`], `FUSE_LOOKUP` is [`Opcode::Lookup`]. What older minors send and expect is told by the
//! `size_for_minor` of the structs that grew.
//!
//! Integers are in the byte order of the machine, as the protocol has it. Flag words are plain integers in the structs;
//! the types of flags convert from them. Every struct may be read from any bytes and written as bytes.
//!
//! This crate does no I/O and allocates nothing; it only says what the bytes mean.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod attributes;
mod compat;
mod device;
mod directory;
mod errno;
mod extensions;
mod flags;
mod header;
mod init;
mod notify;
mod opcodes;
mod replies;
mod requests;
#[cfg(test)]
mod tests;
mod time;
mod wire;

pub use attributes::*;
pub use compat::*;
pub use device::*;
pub use directory::*;
pub use errno::Errno;
pub use extensions::*;
pub use flags::*;
pub use header::*;
pub use init::*;
pub use notify::*;
pub use opcodes::*;
pub use replies::*;
pub use requests::*;
pub use time::Timestamp;
