//! The table of operations: one row an opcode, from which the parser, the names, the read-only rule and the room a
//! reply needs are made. Adding an operation is one row here, a method of `FileSystem` and a line in `server.rs`.
//!
//! A row says: number, name (as `fuse_abi` has it), what the request carries after its header (parts in the order of
//! the wire, each a type that exists only when its bytes were good), whether it changes the file system, and what its
//! reply carries. `changes(part)` means that the part knows; [`Data`] is as many bytes as the request asked for;
//! [`NoReply`] is never answered, not even with an error.

use fuse_abi::{
    AttrOut, CopyFileRangeOut, EntryOut, IoctlOut, LkOut, LseekOut, OpenOut, StatfsOut, StatxOut, WriteOut,
};

use super::arguments::{
    AccessMask, AttributeSource, Forgets, NewDirectory, NewFile, NewNode, Offer, Opening, RenameTo, StatxArgs, TmpName,
    Unused,
};
use super::extensions::Extensions;
use super::file_arguments::{Allocation, Flushing, Listing, NewXattr, Releasing, Seeking, Syncing, Writing, XattrSize};
use super::ioctl::IoctlCall;
use super::reply::{Data, NoReply, ReplyShape};
use super::request::{Cursor, Take};
use super::table::operations;
use super::{AttributeChanges, CopyRange, LockArgs, LookupName, Name, NodeId, ReadArgs, SymlinkTarget, XattrName};

operations! {
    served {
        1  Lookup          (name: LookupName<'r>)                                reads         -> EntryOut;
        2  Forget          (count: u64)                                          reads         -> NoReply;
        3  Getattr         (source: AttributeSource)                             reads         -> AttrOut;
        4  Setattr         (changes: AttributeChanges)                           changes       -> AttrOut;
        5  Readlink        ()                                                    reads         -> Data;
        6  Symlink         (name: Name<'r>, target: SymlinkTarget<'r>, ext: Extensions<'r>) changes       -> EntryOut;
        8  Mknod           (new: NewNode, name: Name<'r>, ext: Extensions<'r>)   changes       -> EntryOut;
        9  Mkdir           (new: NewDirectory, name: Name<'r>, ext: Extensions<'r>) changes       -> EntryOut;
        10 Unlink          (name: Name<'r>)                                      changes       -> ();
        11 Rmdir           (name: Name<'r>)                                      changes       -> ();
        12 Rename          (to: NodeId, name: Name<'r>, new_name: Name<'r>)      changes       -> ();
        13 Link            (node: NodeId, name: Name<'r>)                        changes       -> EntryOut;
        14 Open            (open: Opening)                                       changes(open) -> OpenOut;
        15 Read            (args: ReadArgs)                                      reads         -> Data;
        16 Write           (write: Writing)                                      changes       -> WriteOut;
        17 Statfs          ()                                                    reads         -> StatfsOut;
        18 Release         (args: Releasing)                                     reads         -> ();
        20 Fsync           (args: Syncing)                                       reads         -> ();
        21 Setxattr        (xattr: NewXattr<'r>)                                 changes       -> ();
        22 Getxattr        (size: XattrSize, name: XattrName<'r>)                reads         -> Data;
        23 Listxattr       (size: XattrSize)                                     reads         -> Data;
        24 Removexattr     (name: XattrName<'r>)                                 changes       -> ();
        25 Flush           (args: Flushing)                                      reads         -> ();
        26 Init            (offer: Offer)                                        reads         -> Data;
        27 Opendir         (open: Opening)                                       reads         -> OpenOut;
        28 Readdir         (args: Listing)                                       reads         -> Data;
        29 Releasedir      (args: Releasing)                                     reads         -> ();
        30 Fsyncdir        (args: Syncing)                                       reads         -> ();
        31 Getlk           (lock: LockArgs)                                      reads         -> LkOut;
        32 Setlk           (lock: LockArgs)                                      reads         -> ();
        33 Setlkw          (lock: LockArgs)                                      reads         -> ();
        34 Access          (mask: AccessMask)                                    changes(mask) -> ();
        35 Create          (new: NewFile, name: Name<'r>, ext: Extensions<'r>)   changes       -> (EntryOut, OpenOut);
        36 Interrupt       (unique: u64)                                         reads         -> NoReply;
        38 Destroy         ()                                                    reads         -> ();
        39 Ioctl           (call: IoctlCall)                                     changes(call) -> IoctlOut;
        42 BatchForget     (forgets: Forgets<'r>)                                reads         -> NoReply;
        43 Fallocate       (args: Allocation)                                    changes       -> ();
        44 Readdirplus     (args: Listing)                                       reads         -> Data;
        45 Rename2         (to: RenameTo, name: Name<'r>, new_name: Name<'r>)    changes       -> ();
        46 Lseek           (args: Seeking)                                       reads         -> LseekOut;
        47 CopyFileRange   (range: CopyRange)                                    changes       -> WriteOut;
        50 Syncfs          (unused: Unused)                                      reads         -> ();
        51 Tmpfile         (new: NewFile, name: TmpName, ext: Extensions<'r>)    changes       -> (EntryOut, OpenOut);
        52 Statx           (args: StatxArgs)                                     reads         -> StatxOut;
        53 CopyFileRange64 (range: CopyRange)                                    changes       -> CopyFileRangeOut;
    }
    // Answered with ENOSYS, whatever they carry. No block device, no poll, no shared window, no character device.
    unserved {
        37   Bmap          -> ();
        40   Poll          -> ();
        41   NotifyReply   -> NoReply;
        48   Setupmapping  -> ();
        49   Removemapping -> ();
        4096 CuseInit      -> ();
    }
}

#[cfg(test)]
mod tests {
    use fuse_abi::Opcode;

    use super::*;

    #[test]
    fn every_opcode_of_the_protocol_has_one_row() {
        assert_eq!(Operation::COUNT, Opcode::ALL.len());
        for opcode in Opcode::ALL {
            let operation = Operation::from_number(opcode.number()).unwrap_or_else(|| panic!("no row for {opcode}"));
            assert_eq!(operation.number(), opcode.number());
            assert_eq!(operation.name(), opcode.name().trim_start_matches("FUSE_"));
        }
        for number in (0..6000).filter(|number| Opcode::try_from(*number).is_err()) {
            assert_eq!(Operation::from_number(number), None);
        }
    }

    #[test]
    fn operations_index_an_array_of_their_count() {
        for (index, operation) in Operation::ALL.iter().enumerate() {
            assert_eq!(*operation as usize, index);
        }
        assert_eq!(Operation::ALL.len(), Operation::COUNT);
    }

    #[test]
    fn only_forgets_interrupts_and_notify_replies_stay_unanswered() {
        let silent: Vec<_> =
            Operation::ALL.iter().filter(|operation| !operation.has_reply()).map(|o| o.name()).collect();
        assert_eq!(silent, ["FORGET", "INTERRUPT", "BATCH_FORGET", "NOTIFY_REPLY"]);
    }
}
