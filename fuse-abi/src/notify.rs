//! What follows the header in notifications, and in the one request that answers one.

use crate::wire::structs;

structs! {
    /// POLL: a file is ready.
    NotifyPollWakeupOut = fuse_notify_poll_wakeup_out {
        kh: u64, "The `kh` of the request that asked.";
    }

    /// INVAL_INODE: drop what is cached of a node.
    NotifyInvalInodeOut = fuse_notify_inval_inode_out {
        ino: u64, "The node.";
        off: i64, "First byte to drop; negative keeps the data and drops only attributes.";
        len: i64, "Bytes to drop; 0 or less means up to the end.";
    }

    /// INVAL_ENTRY: drop a cached name; the name and a zero byte follow.
    NotifyInvalEntryOut = fuse_notify_inval_entry_out {
        parent: u64, "The directory.";
        namelen: u32, "Bytes of the name, without the zero byte.";
        flags: u32, "See [`InvalEntryFlags`](crate::InvalEntryFlags), from 7.38.";
    }

    /// DELETE: a name was deleted; the name and a zero byte follow.
    NotifyDeleteOut = fuse_notify_delete_out {
        parent: u64, "The directory.";
        child: u64, "The node that had the name.";
        namelen: u32, "Bytes of the name, without the zero byte.";
        padding: u32, "Unused.";
    }

    /// STORE: put data into the cache; the data follows.
    NotifyStoreOut = fuse_notify_store_out {
        nodeid: u64, "The node.";
        offset: u64, "Where the data begins.";
        size: u32, "Bytes of data.";
        padding: u32, "Unused.";
    }

    /// RETRIEVE: send cached data back.
    NotifyRetrieveOut = fuse_notify_retrieve_out {
        notify_unique: u64, "The `unique` of the NOTIFY_REPLY.";
        nodeid: u64, "The node.";
        offset: u64, "Where the data begins.";
        size: u32, "Bytes wanted.";
        padding: u32, "Unused.";
    }

    /// The request NOTIFY_REPLY; the data follows. As large as a [`WriteIn`](crate::WriteIn).
    NotifyRetrieveIn = fuse_notify_retrieve_in {
        dummy1: u64, "Unused.";
        offset: u64, "Where the data begins.";
        size: u32, "Bytes of data.";
        dummy2: u32, "Unused.";
        dummy3: u64, "Unused.";
        dummy4: u64, "Unused.";
    }

    /// PRUNE: drop unused nodes; `count` node numbers of 64 bits follow.
    NotifyPruneOut = fuse_notify_prune_out {
        count: u32, "How many follow.";
        padding: u32, "Unused.";
        spare: u64, "Reserved.";
    }
}
