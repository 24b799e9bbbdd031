//! What is said of files and file systems: attributes, totals, locks, and the messages that only carry those.

use crate::wire::structs;

structs! {
    /// The attributes of a node.
    Attr = fuse_attr {
        ino: u64, "The inode number that callers see.";
        size: u64, "Bytes.";
        blocks: u64, "Allocated space in units of 512 bytes.";
        atime: u64, "Last access, seconds; a negative time as two's complement.";
        mtime: u64, "Last modification, seconds; a negative time as two's complement.";
        ctime: u64, "Last change of status, seconds; a negative time as two's complement.";
        atimensec: u32, "Last access, nanoseconds.";
        mtimensec: u32, "Last modification, nanoseconds.";
        ctimensec: u32, "Last change of status, nanoseconds.";
        mode: u32, "Type and permission bits.";
        nlink: u32, "Number of names.";
        uid: u32, "Owner.";
        gid: u32, "Group.";
        rdev: u32, "The device a special file stands for, as 32 bits.";
        blksize: u32, "The size that suits I/O, from 7.9.";
        flags: u32, "See [`AttrFlags`](crate::AttrFlags), from 7.32.";
    }

    /// A point in time, as in `statx`.
    SxTime = fuse_sx_time {
        tv_sec: i64, "Seconds.";
        tv_nsec: u32, "Nanoseconds.";
        __reserved: i32, "Reserved.";
    }

    /// The extended attributes of a node, as in `statx`.
    Statx = fuse_statx {
        mask: u32, "Which fields are valid, `STATX_*`.";
        blksize: u32, "The size that suits I/O.";
        attributes: u64, "`STATX_ATTR_*` that hold.";
        nlink: u32, "Number of names.";
        uid: u32, "Owner.";
        gid: u32, "Group.";
        mode: u16, "Type and permission bits.";
        __spare0: [u16; 1], "Reserved.";
        ino: u64, "Inode number.";
        size: u64, "Bytes.";
        blocks: u64, "Allocated space in units of 512 bytes.";
        attributes_mask: u64, "`STATX_ATTR_*` that are known.";
        atime: SxTime, "Last access.";
        btime: SxTime, "Birth.";
        ctime: SxTime, "Last change of status.";
        mtime: SxTime, "Last modification.";
        rdev_major: u32, "Major number of the device a special file stands for.";
        rdev_minor: u32, "Minor number of the device a special file stands for.";
        dev_major: u32, "Major number of the device it lies on.";
        dev_minor: u32, "Minor number of the device it lies on.";
        __spare2: [u64; 14], "Reserved.";
    }

    /// The totals of a file system.
    Kstatfs = fuse_kstatfs {
        blocks: u64, "Blocks in all, of `frsize` bytes.";
        bfree: u64, "Free blocks.";
        bavail: u64, "Free blocks for ordinary users.";
        files: u64, "Inodes in all.";
        ffree: u64, "Free inodes.";
        bsize: u32, "The size that suits I/O.";
        namelen: u32, "The longest name.";
        frsize: u32, "The size of a block, from 7.4.";
        padding: u32, "Unused.";
        spare: [u32; 6], "Reserved.";
    }

    /// A lock on a range of a file.
    FileLock = fuse_file_lock {
        start: u64, "First byte.";
        end: u64, "Last byte, included.";
        r#type: u32, "`F_RDLCK`, `F_WRLCK` or `F_UNLCK`.";
        pid: u32, "The process that holds it.";
    }

    /// Reply to whatever finds or makes a node.
    EntryOut = fuse_entry_out {
        nodeid: u64, "The node; 0 says that the name does not exist and may be remembered so.";
        generation: u64, "With `nodeid` unique for the life of the file system.";
        entry_valid: u64, "How long the name may be cached, seconds.";
        attr_valid: u64, "How long the attributes may be cached, seconds.";
        entry_valid_nsec: u32, "How long the name may be cached, nanoseconds.";
        attr_valid_nsec: u32, "How long the attributes may be cached, nanoseconds.";
        attr: Attr, "The attributes.";
    }

    /// Reply to GETATTR and SETATTR.
    AttrOut = fuse_attr_out {
        attr_valid: u64, "How long the attributes may be cached, seconds.";
        attr_valid_nsec: u32, "How long the attributes may be cached, nanoseconds.";
        dummy: u32, "Unused.";
        attr: Attr, "The attributes.";
    }

    /// Reply to STATX.
    StatxOut = fuse_statx_out {
        attr_valid: u64, "How long the attributes may be cached, seconds.";
        attr_valid_nsec: u32, "How long the attributes may be cached, nanoseconds.";
        flags: u32, "Reserved.";
        spare: [u64; 2], "Reserved.";
        stat: Statx, "The attributes.";
    }

    /// Reply to STATFS.
    StatfsOut = fuse_statfs_out {
        st: Kstatfs, "The totals.";
    }

    /// GETLK, SETLK and SETLKW.
    LkIn = fuse_lk_in {
        fh: u64, "The open file.";
        owner: u64, "Whose lock.";
        lk: FileLock, "The lock.";
        lk_flags: u32, "See [`LkFlags`](crate::LkFlags), from 7.9.";
        padding: u32, "Unused.";
    }

    /// Reply to GETLK.
    LkOut = fuse_lk_out {
        lk: FileLock, "The lock that conflicts, or one of type `F_UNLCK`.";
    }
}
