//! Listings as the daemon packs them, taken apart and checked.

use fuse_abi::{Dirent, Direntplus, EntryOut, NAME_OFFSET, NAME_OFFSET_DIRENTPLUS, rec_align};
use zerocopy::FromBytes;

use crate::error::{Error, Result};

/// An entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Inode number.
    pub ino: u64,
    /// Where the listing goes on after it.
    pub off: u64,
    /// Type, as `d_type`.
    pub kind: u32,
    /// Name.
    pub name: Vec<u8>,
}

impl Entry {
    /// The name, for messages and comparisons.
    #[must_use]
    pub fn name(&self) -> String {
        String::from_utf8_lossy(&self.name).into()
    }

    /// Whether it is `.` or `..`.
    #[must_use]
    pub fn is_dot(&self) -> bool {
        self.name == b"." || self.name == b".."
    }
}

/// The entries of a READDIR reply. A torn record is an error.
pub fn parse(mut bytes: &[u8]) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let (dirent, _) = Dirent::read_from_prefix(bytes).map_err(|_| torn(bytes))?;
        entries.push(take(&mut bytes, dirent, NAME_OFFSET)?);
    }
    Ok(entries)
}

/// The entries of a READDIRPLUS reply.
pub fn parse_plus(mut bytes: &[u8]) -> Result<Vec<(EntryOut, Entry)>> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let (record, _) = Direntplus::read_from_prefix(bytes).map_err(|_| torn(bytes))?;
        entries.push((record.entry_out, take(&mut bytes, record.dirent, NAME_OFFSET_DIRENTPLUS)?));
    }
    Ok(entries)
}

fn take(bytes: &mut &[u8], dirent: Dirent, fixed: usize) -> Result<Entry> {
    let end = fixed + dirent.namelen as usize;
    let record = rec_align(end).and_then(|len| bytes.split_at_checked(len));
    let (record, rest) = record.ok_or_else(|| torn(bytes))?;
    *bytes = rest;
    Ok(Entry { ino: dirent.ino, off: dirent.off, kind: dirent.r#type, name: record[fixed..end].to_vec() })
}

fn torn(bytes: &[u8]) -> Error {
    Error::Reply(format!("a listing ends in a torn record of {} bytes", bytes.len()))
}
