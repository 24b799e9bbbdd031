//! What follows the header in requests. Names and data, where a request has them, come after these structs.

use crate::wire::{constants, structs};

constants! {
    IOCTL_MAX_IOV: usize = 256, FUSE_IOCTL_MAX_IOV, "The most vectors an IOCTL may ask for, in and out together.";
}

structs! {
    /// FORGET.
    ForgetIn = fuse_forget_in {
        nlookup: u64, "How many references the client gives back.";
    }

    /// One node of a BATCH_FORGET.
    ForgetOne = fuse_forget_one {
        nodeid: u64, "The node.";
        nlookup: u64, "How many references the client gives back.";
    }

    /// BATCH_FORGET; `count` of [`ForgetOne`] follow.
    BatchForgetIn = fuse_batch_forget_in {
        count: u32, "How many follow.";
        dummy: u32, "Unused.";
    }

    /// GETATTR.
    GetattrIn = fuse_getattr_in {
        getattr_flags: u32, "See [`GetattrFlags`](crate::GetattrFlags).";
        dummy: u32, "Unused.";
        fh: u64, "The open file, if the flags say so.";
    }

    /// STATX.
    StatxIn = fuse_statx_in {
        getattr_flags: u32, "See [`GetattrFlags`](crate::GetattrFlags).";
        reserved: u32, "Reserved.";
        fh: u64, "The open file, if the flags say so.";
        sx_flags: u32, "`AT_STATX_*`.";
        sx_mask: u32, "`STATX_*` that are wanted.";
    }

    /// SETATTR.
    SetattrIn = fuse_setattr_in {
        valid: u32, "Which fields count, see [`SetattrValid`](crate::SetattrValid).";
        padding: u32, "Unused.";
        fh: u64, "The open file.";
        size: u64, "Bytes.";
        lock_owner: u64, "Who truncates, for mandatory locks; from 7.9.";
        atime: u64, "Access time, seconds.";
        mtime: u64, "Modification time, seconds.";
        ctime: u64, "Time of status change, seconds; from 7.23.";
        atimensec: u32, "Access time, nanoseconds.";
        mtimensec: u32, "Modification time, nanoseconds.";
        ctimensec: u32, "Time of status change, nanoseconds; from 7.23.";
        mode: u32, "Type and permission bits.";
        unused4: u32, "Unused.";
        uid: u32, "Owner.";
        gid: u32, "Group.";
        unused5: u32, "Unused.";
    }

    /// MKNOD; the name follows.
    MknodIn = fuse_mknod_in {
        mode: u32, "Type and permission bits.";
        rdev: u32, "The device, as 32 bits.";
        umask: u32, "The caller's umask, from 7.12.";
        padding: u32, "Unused.";
    }

    /// MKDIR; the name follows.
    MkdirIn = fuse_mkdir_in {
        mode: u32, "Permission bits.";
        umask: u32, "The caller's umask, from 7.12.";
    }

    /// RENAME; old and new name follow.
    RenameIn = fuse_rename_in {
        newdir: u64, "The directory it moves to.";
    }

    /// RENAME2; old and new name follow.
    Rename2In = fuse_rename2_in {
        newdir: u64, "The directory it moves to.";
        flags: u32, "`RENAME_*`.";
        padding: u32, "Unused.";
    }

    /// LINK; the new name follows.
    LinkIn = fuse_link_in {
        oldnodeid: u64, "The node that gets a name.";
    }

    /// OPEN and OPENDIR.
    OpenIn = fuse_open_in {
        flags: u32, "`O_*` as the client numbers them.";
        open_flags: u32, "See [`OpenInFlags`](crate::OpenInFlags).";
    }

    /// CREATE and TMPFILE; the name follows.
    CreateIn = fuse_create_in {
        flags: u32, "`O_*` as the client numbers them.";
        mode: u32, "Type and permission bits.";
        umask: u32, "The caller's umask, from 7.12.";
        open_flags: u32, "See [`OpenInFlags`](crate::OpenInFlags).";
    }

    /// RELEASE and RELEASEDIR.
    ReleaseIn = fuse_release_in {
        fh: u64, "The open file.";
        flags: u32, "`O_*` it was opened with.";
        release_flags: u32, "See [`ReleaseFlags`](crate::ReleaseFlags).";
        lock_owner: u64, "Whose locks end, from 7.8.";
    }

    /// FLUSH.
    FlushIn = fuse_flush_in {
        fh: u64, "The open file.";
        unused: u32, "Unused.";
        padding: u32, "Unused.";
        lock_owner: u64, "Whose locks end.";
    }

    /// READ, READDIR and READDIRPLUS.
    ReadIn = fuse_read_in {
        fh: u64, "The open file.";
        offset: u64, "Where to begin; in a directory the `off` of the last entry seen.";
        size: u32, "The most bytes wanted.";
        read_flags: u32, "See [`ReadFlags`](crate::ReadFlags).";
        lock_owner: u64, "Who reads, for mandatory locks; from 7.9.";
        flags: u32, "`O_*` of the open file, from 7.9.";
        padding: u32, "Unused.";
    }

    /// WRITE; the data follows.
    WriteIn = fuse_write_in {
        fh: u64, "The open file.";
        offset: u64, "Where to begin.";
        size: u32, "Bytes of data.";
        write_flags: u32, "See [`WriteFlags`](crate::WriteFlags).";
        lock_owner: u64, "Who writes, for mandatory locks; from 7.9.";
        flags: u32, "`O_*` of the open file, from 7.9.";
        padding: u32, "Unused.";
    }

    /// FSYNC and FSYNCDIR.
    FsyncIn = fuse_fsync_in {
        fh: u64, "The open file.";
        fsync_flags: u32, "See [`FsyncFlags`](crate::FsyncFlags).";
        padding: u32, "Unused.";
    }

    /// SETXATTR with [`InitFlags::SETXATTR_EXT`](crate::InitFlags::SETXATTR_EXT); name and value follow.
    SetxattrIn = fuse_setxattr_in {
        size: u32, "Bytes of the value.";
        flags: u32, "`XATTR_*`.";
        setxattr_flags: u32, "See [`SetxattrFlags`](crate::SetxattrFlags).";
        padding: u32, "Unused.";
    }

    /// SETXATTR without [`InitFlags::SETXATTR_EXT`](crate::InitFlags::SETXATTR_EXT); name and value follow.
    SetxattrInCompat = fuse_setxattr_in_compat {
        size: u32, "Bytes of the value.";
        flags: u32, "`XATTR_*`.";
    }

    /// GETXATTR and LISTXATTR; the name follows the former.
    GetxattrIn = fuse_getxattr_in {
        size: u32, "The most bytes wanted; 0 asks for the size.";
        padding: u32, "Unused.";
    }

    /// ACCESS.
    AccessIn = fuse_access_in {
        mask: u32, "`R_OK`, `W_OK`, `X_OK`.";
        padding: u32, "Unused.";
    }

    /// INTERRUPT.
    InterruptIn = fuse_interrupt_in {
        unique: u64, "The number of the request to give up.";
    }

    /// BMAP.
    BmapIn = fuse_bmap_in {
        block: u64, "The block of the file.";
        blocksize: u32, "Bytes of a block.";
        padding: u32, "Unused.";
    }

    /// IOCTL; `in_size` bytes follow.
    IoctlIn = fuse_ioctl_in {
        fh: u64, "The open file.";
        flags: u32, "See [`IoctlFlags`](crate::IoctlFlags).";
        cmd: u32, "The call.";
        arg: u64, "Its argument, an address of the caller or a number.";
        in_size: u32, "Bytes that follow.";
        out_size: u32, "The most bytes of the reply's data.";
    }

    /// A range of the caller's memory, in the reply to an unrestricted IOCTL.
    IoctlIovec = fuse_ioctl_iovec {
        base: u64, "Where it begins.";
        len: u64, "Bytes.";
    }

    /// POLL.
    PollIn = fuse_poll_in {
        fh: u64, "The open file.";
        kh: u64, "The number that a notification names.";
        flags: u32, "See [`PollFlags`](crate::PollFlags).";
        events: u32, "`POLL*` that are wanted, from 7.21.";
    }

    /// FALLOCATE.
    FallocateIn = fuse_fallocate_in {
        fh: u64, "The open file.";
        offset: u64, "Where to begin.";
        length: u64, "Bytes.";
        mode: u32, "`FALLOC_FL_*`.";
        padding: u32, "Unused.";
    }

    /// LSEEK.
    LseekIn = fuse_lseek_in {
        fh: u64, "The open file.";
        offset: u64, "Where to begin.";
        whence: u32, "`SEEK_DATA` or `SEEK_HOLE`.";
        padding: u32, "Unused.";
    }

    /// COPY_FILE_RANGE and COPY_FILE_RANGE_64; the header's node is the source.
    CopyFileRangeIn = fuse_copy_file_range_in {
        fh_in: u64, "The open source.";
        off_in: u64, "Where to read.";
        nodeid_out: u64, "The target.";
        fh_out: u64, "The open target.";
        off_out: u64, "Where to write.";
        len: u64, "Bytes.";
        flags: u64, "Reserved, 0.";
    }

    /// SETUPMAPPING.
    SetupmappingIn = fuse_setupmapping_in {
        fh: u64, "The open file.";
        foffset: u64, "Where the range begins in the file.";
        len: u64, "Bytes.";
        flags: u64, "See [`SetupmappingFlags`](crate::SetupmappingFlags).";
        moffset: u64, "Where the range begins in the window.";
    }

    /// REMOVEMAPPING; `count` of [`RemovemappingOne`] follow.
    RemovemappingIn = fuse_removemapping_in {
        count: u32, "How many follow.";
    }

    /// One range of a REMOVEMAPPING.
    RemovemappingOne = fuse_removemapping_one {
        moffset: u64, "Where the range begins in the window.";
        len: u64, "Bytes.";
    }

    /// SYNCFS.
    SyncfsIn = fuse_syncfs_in {
        padding: u64, "Unused.";
    }
}

/// The most ranges in one REMOVEMAPPING of a client with pages of `page_size` bytes.
#[must_use]
pub const fn removemapping_max_entry(page_size: usize) -> usize {
    page_size / size_of::<RemovemappingOne>()
}
