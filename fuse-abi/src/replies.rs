//! What follows the header in replies, except attributes (see `attributes`) and listings (see `directory`).

use crate::wire::structs;

structs! {
    /// Reply to OPEN and OPENDIR, and the end of the reply to CREATE and TMPFILE.
    OpenOut = fuse_open_out {
        fh: u64, "The number that later requests name the open file by.";
        open_flags: u32, "See [`OpenOutFlags`](crate::OpenOutFlags).";
        backing_id: i32, "The backing file, with [`OpenOutFlags::PASSTHROUGH`](crate::OpenOutFlags::PASSTHROUGH).";
    }

    /// Reply to WRITE and COPY_FILE_RANGE.
    WriteOut = fuse_write_out {
        size: u32, "Bytes written.";
        padding: u32, "Unused.";
    }

    /// Reply to COPY_FILE_RANGE_64.
    CopyFileRangeOut = fuse_copy_file_range_out {
        bytes_copied: u64, "Bytes copied.";
    }

    /// Reply to GETXATTR and LISTXATTR that asked for the size.
    GetxattrOut = fuse_getxattr_out {
        size: u32, "Bytes that the value or list has.";
        padding: u32, "Unused.";
    }

    /// Reply to BMAP.
    BmapOut = fuse_bmap_out {
        block: u64, "The block of the device.";
    }

    /// Reply to IOCTL; data or [`IoctlIovec`](crate::IoctlIovec)s follow.
    IoctlOut = fuse_ioctl_out {
        result: i32, "What the call returns.";
        flags: u32, "See [`IoctlFlags`](crate::IoctlFlags).";
        in_iovs: u32, "How many ranges to read follow, with `RETRY`.";
        out_iovs: u32, "How many ranges to write follow, with `RETRY`.";
    }

    /// Reply to POLL.
    PollOut = fuse_poll_out {
        revents: u32, "`POLL*` that hold.";
        padding: u32, "Unused.";
    }

    /// Reply to LSEEK.
    LseekOut = fuse_lseek_out {
        offset: u64, "Where the data or hole begins.";
    }
}
