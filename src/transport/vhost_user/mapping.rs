//! Maps what the front end hands over, as far as the file goes: memory that a file does not have ends the process that
//! touches it. A front end that shortens the file afterwards can still do that; it could as well kill the process.

use std::{fs::File, io, os::unix::fs::FileTypeExt};

use vm_memory::{FileOffset, MmapRegion};

/// Maps `size` bytes from `offset` on, shared and writable.
pub(super) fn map(file: File, offset: u64, size: u64) -> io::Result<MmapRegion> {
    let data = file.metadata()?;
    // A device, such as persistent memory, has no length to compare with; it refuses by itself.
    let is_device = data.file_type().is_char_device() || data.file_type().is_block_device();
    let end = offset.checked_add(size).filter(|end| *end <= data.len() || is_device);
    let size = usize::try_from(size).ok().filter(|size| *size > 0 && end.is_some());
    let size = size.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "memory that its file does not have"))?;
    MmapRegion::from_file(FileOffset::new(file, offset), size).map_err(io::Error::other)
}
