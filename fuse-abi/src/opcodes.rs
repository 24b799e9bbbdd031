//! What a request asks for, and what a server may tell the client without being asked.

use core::fmt;

use crate::wire::{codes, constants};

codes! {
    /// The operation a request asks for (`opcode` of [`InHeader`](crate::InHeader)).
    Opcode {
        Lookup = 1, FUSE_LOOKUP, "Find a name in a directory and take a reference on what it names.";
        Forget = 2, FUSE_FORGET, "Give references back; has no reply.";
        Getattr = 3, FUSE_GETATTR, "Read attributes.";
        Setattr = 4, FUSE_SETATTR, "Change attributes.";
        Readlink = 5, FUSE_READLINK, "Read the target of a symbolic link.";
        Symlink = 6, FUSE_SYMLINK, "Make a symbolic link.";
        Mknod = 8, FUSE_MKNOD, "Make a file, special files included.";
        Mkdir = 9, FUSE_MKDIR, "Make a directory.";
        Unlink = 10, FUSE_UNLINK, "Remove a name of a file.";
        Rmdir = 11, FUSE_RMDIR, "Remove an empty directory.";
        Rename = 12, FUSE_RENAME, "Rename, replacing what is there.";
        Link = 13, FUSE_LINK, "Give a file another name.";
        Open = 14, FUSE_OPEN, "Open a file.";
        Read = 15, FUSE_READ, "Read from an open file.";
        Write = 16, FUSE_WRITE, "Write to an open file.";
        Statfs = 17, FUSE_STATFS, "Read the file system's totals.";
        Release = 18, FUSE_RELEASE, "Close an open file for good.";
        Fsync = 20, FUSE_FSYNC, "Make a file durable.";
        Setxattr = 21, FUSE_SETXATTR, "Set an extended attribute.";
        Getxattr = 22, FUSE_GETXATTR, "Read an extended attribute, or its size.";
        Listxattr = 23, FUSE_LISTXATTR, "List the extended attributes, or the size of the list.";
        Removexattr = 24, FUSE_REMOVEXATTR, "Remove an extended attribute.";
        Flush = 25, FUSE_FLUSH, "A descriptor of an open file was closed.";
        Init = 26, FUSE_INIT, "Begin a session: agree on version, flags and sizes.";
        Opendir = 27, FUSE_OPENDIR, "Open a directory.";
        Readdir = 28, FUSE_READDIR, "List a directory.";
        Releasedir = 29, FUSE_RELEASEDIR, "Close an open directory for good.";
        Fsyncdir = 30, FUSE_FSYNCDIR, "Make a directory durable.";
        Getlk = 31, FUSE_GETLK, "Ask which lock would conflict.";
        Setlk = 32, FUSE_SETLK, "Take or release a lock, failing rather than waiting.";
        Setlkw = 33, FUSE_SETLKW, "Take a lock, waiting for it.";
        Access = 34, FUSE_ACCESS, "Check permission.";
        Create = 35, FUSE_CREATE, "Create a file and open it.";
        Interrupt = 36, FUSE_INTERRUPT, "The caller of an earlier request no longer wants to wait.";
        Bmap = 37, FUSE_BMAP, "Map a block of a file to a block of its device.";
        Destroy = 38, FUSE_DESTROY, "End the session.";
        Ioctl = 39, FUSE_IOCTL, "A device control call on an open file.";
        Poll = 40, FUSE_POLL, "Ask whether an open file is ready.";
        NotifyReply = 41, FUSE_NOTIFY_REPLY, "Data that a notification asked for; has no reply.";
        BatchForget = 42, FUSE_BATCH_FORGET, "Give references to many nodes back; has no reply.";
        Fallocate = 43, FUSE_FALLOCATE, "Allocate, punch or zero a range.";
        Readdirplus = 44, FUSE_READDIRPLUS, "List a directory and look up what it lists.";
        Rename2 = 45, FUSE_RENAME2, "Rename with flags: do not replace, exchange, leave a whiteout.";
        Lseek = 46, FUSE_LSEEK, "Find data or a hole.";
        CopyFileRange = 47, FUSE_COPY_FILE_RANGE, "Copy from file to file; the reply counts in 32 bits.";
        Setupmapping = 48, FUSE_SETUPMAPPING, "Map a range of a file into the shared window.";
        Removemapping = 49, FUSE_REMOVEMAPPING, "Unmap ranges of the shared window.";
        Syncfs = 50, FUSE_SYNCFS, "Make the whole file system durable.";
        Tmpfile = 51, FUSE_TMPFILE, "Create a file without a name and open it.";
        Statx = 52, FUSE_STATX, "Read extended attributes of the inode, birth time included.";
        CopyFileRange64 = 53, FUSE_COPY_FILE_RANGE_64, "Copy from file to file; the reply counts in 64 bits.";
        CuseInit = 4096, CUSE_INIT, "Begin a session of a character device.";
    }
}

codes! {
    /// What a notification says: the `error` field of its [`OutHeader`](crate::OutHeader), whose `unique` is 0.
    NotifyCode {
        Poll = 1, FUSE_NOTIFY_POLL, "A file that was polled is ready.";
        InvalInode = 2, FUSE_NOTIFY_INVAL_INODE, "Drop cached attributes and a range of cached data.";
        InvalEntry = 3, FUSE_NOTIFY_INVAL_ENTRY, "Drop, or expire, a cached name.";
        Store = 4, FUSE_NOTIFY_STORE, "Put data into the cache.";
        Retrieve = 5, FUSE_NOTIFY_RETRIEVE, "Send cached data back in a NOTIFY_REPLY.";
        Delete = 6, FUSE_NOTIFY_DELETE, "A name was deleted: drop it and tell its watchers.";
        Resend = 7, FUSE_NOTIFY_RESEND, "Send the requests that are still unanswered again.";
        IncEpoch = 8, FUSE_NOTIFY_INC_EPOCH, "Look every cached name up again before it is used.";
        Prune = 9, FUSE_NOTIFY_PRUNE, "Drop nodes that nothing uses from the cache.";
    }
}

/// A number that the protocol, as this crate knows it, gives no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UnknownCode(pub u32);

impl fmt::Display for UnknownCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown code {}", self.0)
    }
}

impl core::error::Error for UnknownCode {}

constants! {
    CUSE_INIT_BSWAP_RESERVED: u32 = 1_048_576, CUSE_INIT_BSWAP_RESERVED,
        "What `CUSE_INIT` looks like from a client of the other byte order.";
    INIT_BSWAP_RESERVED: u32 = 436_207_616, FUSE_INIT_BSWAP_RESERVED,
        "What `FUSE_INIT` looks like from a client of the other byte order.";
}
