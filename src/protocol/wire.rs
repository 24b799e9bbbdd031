//! Which structs travel, and how long each is for a client of an older minor version.

use fuse_abi::*;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A struct of the protocol. Structs only ever grew at their end, so an older client has a prefix of it.
pub(super) trait Wire: FromBytes + IntoBytes + Immutable + Sized {
    /// Bytes of it in a session of that minor version.
    fn size(_minor: u32) -> usize {
        size_of::<Self>()
    }
}

macro_rules! wire {
    (steady: $($steady:ty),*; grown: $($grown:ty),*;) => {
        $(impl Wire for $steady {})*
        $(impl Wire for $grown {
            fn size(minor: u32) -> usize {
                Self::size_for_minor(minor)
            }
        })*
    };
}

wire! {
    steady: u64, AccessIn, CopyFileRangeIn, FallocateIn, FlushIn, ForgetOne, FsyncIn, BatchForgetIn, GetxattrIn,
        IoctlIn, LseekIn, MkdirIn, OpenIn, Rename2In, SetattrIn, SetxattrIn, SetxattrInCompat, StatxIn,
        CopyFileRangeOut, GetxattrOut, IoctlOut, LkOut, LseekOut, OpenOut, StatxOut, WriteOut;
    grown: CreateIn, GetattrIn, LkIn, MknodIn, ReadIn, ReleaseIn, WriteIn, AttrOut, EntryOut, InitOut, StatfsOut;
}
