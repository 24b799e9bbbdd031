//! What older minors send and expect: structs only ever grew at their end, so an old one is a prefix of today's.

use zerocopy::{FromBytes, IntoBytes};

use crate::wire::constants;
use crate::{
    AttrOut, CreateIn, EntryOut, GetattrIn, InitFlags, InitIn, InitOut, LkIn, MknodIn, ReadIn, ReleaseIn, SetxattrIn,
    StatfsOut, WriteIn,
};

constants! {
    COMPAT_ENTRY_OUT_SIZE: usize = 120, FUSE_COMPAT_ENTRY_OUT_SIZE, "Bytes of [`EntryOut`] before 7.9.";
    COMPAT_ATTR_OUT_SIZE: usize = 96, FUSE_COMPAT_ATTR_OUT_SIZE, "Bytes of [`AttrOut`] before 7.9.";
    COMPAT_MKNOD_IN_SIZE: usize = 8, FUSE_COMPAT_MKNOD_IN_SIZE, "Bytes of [`MknodIn`] before 7.12.";
    COMPAT_WRITE_IN_SIZE: usize = 24, FUSE_COMPAT_WRITE_IN_SIZE, "Bytes of [`WriteIn`] before 7.9.";
    COMPAT_STATFS_SIZE: usize = 48, FUSE_COMPAT_STATFS_SIZE, "Bytes of [`StatfsOut`] before 7.4.";
    COMPAT_SETXATTR_IN_SIZE: usize = 8, FUSE_COMPAT_SETXATTR_IN_SIZE,
        "Bytes of [`SetxattrIn`] without [`InitFlags::SETXATTR_EXT`].";
    COMPAT_INIT_OUT_SIZE: usize = 8, FUSE_COMPAT_INIT_OUT_SIZE, "Bytes of [`InitOut`] before 7.5.";
    COMPAT_22_INIT_OUT_SIZE: usize = 24, FUSE_COMPAT_22_INIT_OUT_SIZE, "Bytes of [`InitOut`] before 7.23.";
}

/// Bytes of [`InitIn`] before 7.6.
pub const COMPAT_INIT_IN_SIZE: usize = 8;
/// Bytes of [`InitIn`] before 7.36.
pub const COMPAT_35_INIT_IN_SIZE: usize = 16;
/// Bytes of [`ReadIn`] before 7.9.
pub const COMPAT_READ_IN_SIZE: usize = 24;
/// Bytes of [`LkIn`] before 7.9.
pub const COMPAT_LK_IN_SIZE: usize = 40;
/// Bytes of [`ReleaseIn`] before 7.8.
pub const COMPAT_RELEASE_IN_SIZE: usize = 16;
/// Bytes of [`CreateIn`] before 7.12.
pub const COMPAT_CREATE_IN_SIZE: usize = 8;

macro_rules! sizes {
    ($($name:ident { $($minor:literal => $size:expr),* })*) => {
        $(impl $name {
            /// Bytes of this struct in a session of that minor version.
            #[must_use]
            pub const fn size_for_minor(minor: u32) -> usize {
                $(if minor < $minor {
                    return $size;
                })*
                size_of::<Self>()
            }
        })*
    };
}

sizes! {
    InitIn { 6 => COMPAT_INIT_IN_SIZE, 36 => COMPAT_35_INIT_IN_SIZE }
    InitOut { 5 => COMPAT_INIT_OUT_SIZE, 23 => COMPAT_22_INIT_OUT_SIZE }
    EntryOut { 9 => COMPAT_ENTRY_OUT_SIZE }
    AttrOut { 9 => COMPAT_ATTR_OUT_SIZE }
    StatfsOut { 4 => COMPAT_STATFS_SIZE }
    GetattrIn { 9 => 0 }
    MknodIn { 12 => COMPAT_MKNOD_IN_SIZE }
    CreateIn { 12 => COMPAT_CREATE_IN_SIZE }
    ReadIn { 9 => COMPAT_READ_IN_SIZE }
    WriteIn { 9 => COMPAT_WRITE_IN_SIZE }
    ReleaseIn { 8 => COMPAT_RELEASE_IN_SIZE }
    LkIn { 9 => COMPAT_LK_IN_SIZE }
}

impl SetxattrIn {
    /// Bytes of this struct in a session with those flags: the minor version does not decide it.
    #[must_use]
    pub const fn size_for_flags(accepted: InitFlags) -> usize {
        if accepted.contains(InitFlags::SETXATTR_EXT) { size_of::<Self>() } else { COMPAT_SETXATTR_IN_SIZE }
    }
}

/// Reads a struct of which a client sent only the first bytes, at least `least`; what it did not send is zero.
///
/// More bytes than the struct has are ignored, as those of a newer client are meant to be.
#[must_use]
pub fn read_short<T: FromBytes + IntoBytes>(bytes: &[u8], least: usize) -> Option<T> {
    if bytes.len() < least {
        return None;
    }
    let mut value = T::new_zeroed();
    value.as_mut_bytes().iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    Some(value)
}
