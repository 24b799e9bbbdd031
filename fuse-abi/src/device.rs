//! The client's device file: control calls and the io_uring transport. A virtio-fs server has neither; a program that
//! stands in for the client or bridges to it does.

use crate::wire::{codes, constants, structs};

constants! {
    DEV_IOC_MAGIC: u32 = 229, FUSE_DEV_IOC_MAGIC, "The type byte of the device's control calls.";
    DEV_IOC_CLONE: u32 = 0x8004_e500, FUSE_DEV_IOC_CLONE,
        "Attach to the session of another descriptor; with the number encoding most architectures share.";
    DEV_IOC_BACKING_OPEN: u32 = 0x4010_e501, FUSE_DEV_IOC_BACKING_OPEN, "Register a [`BackingMap`].";
    DEV_IOC_BACKING_CLOSE: u32 = 0x4004_e502, FUSE_DEV_IOC_BACKING_CLOSE, "Give a backing file up.";
    DEV_IOC_SYNC_INIT: u32 = 0xe503, FUSE_DEV_IOC_SYNC_INIT, "Make mounting wait for the reply to INIT.";
    URING_IN_OUT_HEADER_SZ: usize = 128, FUSE_URING_IN_OUT_HEADER_SZ, "Bytes for the header of a ring entry.";
    URING_OP_IN_OUT_SZ: usize = 128, FUSE_URING_OP_IN_OUT_SZ, "Bytes for the operation's struct in a ring entry.";
}

codes! {
    /// What a command of the io_uring transport does.
    UringCmd {
        Invalid = 0, FUSE_IO_URING_CMD_INVALID, "Nothing.";
        Register = 1, FUSE_IO_URING_CMD_REGISTER, "Register an entry and fetch a request.";
        CommitAndFetch = 2, FUSE_IO_URING_CMD_COMMIT_AND_FETCH, "Reply and fetch the next request.";
        AddQueue = 3, FUSE_IO_URING_CMD_ADD_QUEUE, "Add a queue.";
        AddBufpool = 4, FUSE_IO_URING_CMD_ADD_BUFPOOL, "Add a buffer pool to a queue.";
    }
}

structs! {
    /// A file that serves as the backing of open files.
    BackingMap = fuse_backing_map {
        fd: i32, "Its descriptor.";
        flags: u32, "Reserved, 0.";
        padding: u64, "Unused.";
    }

    /// The part of a ring entry that the ring itself uses.
    UringEntInOut = fuse_uring_ent_in_out {
        flags: u64, "See [`UringEntFlags`](crate::UringEntFlags).";
        commit_id: u64, "The number that the reply repeats.";
        payload_sz: u32, "Bytes in the data buffer.";
        offset: u32, "Where the data lies in the buffer pool; unused before 7.46.";
        reserved: u64, "Reserved.";
    }

    /// The header of a ring entry.
    UringReqHeader = fuse_uring_req_header {
        in_out: [u8; URING_IN_OUT_HEADER_SZ], "An [`InHeader`](crate::InHeader) or [`OutHeader`](crate::OutHeader).";
        op_in: [u8; URING_OP_IN_OUT_SZ], "The operation's struct.";
        ring_ent_in_out: UringEntInOut, "What the ring itself uses.";
    }

    /// A buffer pool, as a command adds it.
    UringBufpool = fuse_uring_bufpool {
        uaddr: u64, "Where it begins in memory.";
        len: u32, "Bytes.";
        reserved: u32, "Reserved.";
    }

    /// A command, in the space that a submission leaves for it. Before 7.46 it ends after `padding`.
    UringCmdReq = fuse_uring_cmd_req {
        flags: u64, "See [`UringQueueFlags`](crate::UringQueueFlags).";
        commit_id: u64, "The entry that is replied to.";
        qid: u16, "The queue.";
        padding: [u8; 6], "Unused.";
        bufpool: UringBufpool, "The pool of ADD_BUFPOOL; REGISTER keeps the entry's buffer index in its place.";
    }
}

impl UringCmdReq {
    /// The entry's place in the table of registered buffers, which shares its bytes with `bufpool`.
    #[must_use]
    pub const fn ent_zero_copy_buf_index(&self) -> u16 {
        let [first, second, ..] = self.bufpool.uaddr.to_ne_bytes();
        u16::from_ne_bytes([first, second])
    }

    /// Sets the entry's place in the table of registered buffers, and clears the rest of `bufpool`.
    pub const fn set_ent_zero_copy_buf_index(&mut self, index: u16) {
        let [first, second] = index.to_ne_bytes();
        let uaddr = u64::from_ne_bytes([first, second, 0, 0, 0, 0, 0, 0]);
        self.bufpool = UringBufpool { uaddr, len: 0, reserved: 0 };
    }
}
