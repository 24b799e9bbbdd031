//! Packs directory entries into the body of a reply.
//!
//! An entry is a fixed part, the name, and zeros up to a multiple of eight bytes. It is written whole or not at all:
//! clients drop a listing's tail that is cut short, padding included.

use fuse_abi::{Dirent, EntryOut, dirent_size, direntplus_size};
use zerocopy::IntoBytes;

use super::Body;

/// The reply to READDIR or READDIRPLUS while it is being packed.
#[derive(Debug)]
pub struct DirectoryReply<'b, 'r> {
    body: &'b mut Body<'r>,
}

impl<'b, 'r> DirectoryReply<'b, 'r> {
    /// Packs into `body`.
    pub fn new(body: &'b mut Body<'r>) -> Self {
        Self { body }
    }

    /// Whether nothing was packed yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.body.written() == 0
    }

    /// Appends an entry of READDIR; false when it does not fit. `next` is where a reader goes on after it, `kind` is
    /// its `DT_*`.
    #[must_use]
    pub fn push(&mut self, ino: u64, next: u64, kind: u32, name: &[u8]) -> bool {
        fits(self.body, dirent_size(name.len())) && self.append(&[], ino, next, kind, name)
    }

    /// Whether an entry of READDIRPLUS with a name this long would fit: asked before its lookup is made.
    #[must_use]
    pub fn has_room_plus(&self, name: &[u8]) -> bool {
        fits(self.body, direntplus_size(name.len()))
    }

    /// Appends an entry of READDIRPLUS; false when it does not fit. A default `EntryOut` (nodeid 0) carries no
    /// reference.
    #[must_use]
    pub fn push_plus(&mut self, node: &EntryOut, ino: u64, next: u64, kind: u32, name: &[u8]) -> bool {
        self.has_room_plus(name) && self.append(node.as_bytes(), ino, next, kind, name)
    }

    fn append(&mut self, node: &[u8], ino: u64, next: u64, kind: u32, name: &[u8]) -> bool {
        let Ok(namelen) = u32::try_from(name.len()) else { return false };
        let entry = Dirent { ino, off: next, namelen, r#type: kind };
        let padding = name.len().next_multiple_of(8).saturating_sub(name.len());
        let zeros = [0_u8; 8];
        self.body.put(node)
            && self.body.put(entry.as_bytes())
            && self.body.put(name)
            && self.body.put(zeros.get(..padding).unwrap_or_default())
    }
}

fn fits(body: &Body<'_>, size: Option<usize>) -> bool {
    size.is_some_and(|size| size <= body.room())
}
