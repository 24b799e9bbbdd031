//! What every message begins with, and the values that may stand in it.

use crate::wire::{constants, structs};

constants! {
    KERNEL_VERSION: u32 = 7, FUSE_KERNEL_VERSION, "The major version of the protocol.";
    KERNEL_MINOR_VERSION: u32 = 46, FUSE_KERNEL_MINOR_VERSION, "The newest minor version this crate describes.";
    ROOT_ID: u64 = 1, FUSE_ROOT_ID, "The node number of the root.";
    MIN_READ_BUFFER: usize = 8192, FUSE_MIN_READ_BUFFER, "The smallest buffer a client's requests may need.";
    UNIQUE_RESEND: u64 = 1 << 63, FUSE_UNIQUE_RESEND, "The bit of `unique` that marks a request sent again.";
    INVALID_UIDGID: u32 = u32::MAX, FUSE_INVALID_UIDGID, "The `uid` and `gid` of a caller the idmapping does not map.";
}

/// The oldest minor version whose requests this crate promises to describe in full.
pub const OLDEST_MINOR: u32 = 27;

structs! {
    /// What every request begins with.
    InHeader = fuse_in_header {
        len: u32, "Bytes of the whole request, this header included.";
        opcode: u32, "The operation, see [`Opcode`](crate::Opcode).";
        unique: u64, "The number that the reply repeats.";
        nodeid: u64, "The node it is about.";
        uid: u32, "The caller's user.";
        gid: u32, "The caller's group.";
        pid: u32, "The caller's process.";
        total_extlen: u16, "Bytes of the extensions at the end, in units of 8.";
        padding: u16, "Unused.";
    }

    /// What every reply and notification begins with.
    OutHeader = fuse_out_header {
        len: u32, "Bytes of the whole message, this header included.";
        error: i32, "0 or a negated error number; the code in a notification.";
        unique: u64, "The number of the request; 0 in a notification.";
    }
}
