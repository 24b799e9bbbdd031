//! One look at one place, the same for guest and host.

use std::fmt;
use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

/// How to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Look {
    /// Open it and read all there is; a directory is listed.
    Open,
    /// As [`Look::Open`], but a file is read through a mapping.
    Map,
    /// Its attributes, by name.
    Stat,
    /// Whether the name is there.
    Found,
    /// The target of a symbolic link.
    Link,
}

/// What was read from a file: its length, a digest of it, and how it begins.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content(usize, u64, String);

impl Content {
    fn of(bytes: &[u8]) -> Self {
        let mut digest = DefaultHasher::new();
        digest.write(bytes);
        let start = String::from_utf8_lossy(bytes.get(..24).unwrap_or(bytes)).into_owned();
        Self(bytes.len(), digest.finish(), start)
    }
}

/// What was seen.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seen {
    /// A file: inode, size as `fstat` tells it, permissions, content.
    File(u64, u64, u32, Content),
    /// A directory: inode, and each entry's name, inode and type.
    Directory(u64, Vec<(String, u64, u8)>),
    /// Attributes: inode, mode, links, size, modification time.
    Attributes(u64, u32, u64, i64, (i64, u64)),
    /// A link's target.
    Target(String),
    /// Something is there.
    Present,
    /// Nothing is there.
    Absent,
    /// Another error.
    Error(#[serde(with = "number")] Errno),
}

/// An error as its number.
mod number {
    use rustix::io::Errno;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(errno: &Errno, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i32(errno.raw_os_error())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Errno, D::Error> {
        i32::deserialize(from).map(Errno::from_raw_os_error)
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(ino, size, mode, Content(length, digest, start)) => {
                write!(f, "file {ino} mode {mode:o} size {size}, read {length} bytes {start:?} ({digest:016x})")
            }
            Self::Directory(ino, entries) => {
                let names: Vec<_> = entries.iter().map(|(name, ino, kind)| format!("{name}={ino}/{kind}")).collect();
                write!(f, "directory {ino} [{}]", names.join(" "))
            }
            Self::Attributes(ino, mode, links, size, mtime) => {
                write!(f, "inode {ino} mode {mode:o} links {links} size {size} mtime {mtime:?}")
            }
            Self::Target(target) => write!(f, "link to {target:?}"),
            Self::Present => write!(f, "present"),
            Self::Absent => write!(f, "absent"),
            Self::Error(errno) => write!(f, "{errno:?}"),
        }
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Looks at `path`, from `dir` if it is relative.
#[must_use]
pub fn look(dir: BorrowedFd<'_>, path: &Path, how: Look) -> Seen {
    try_look(dir, path, how).unwrap_or_else(|errno| match errno {
        Errno::NOENT => Seen::Absent,
        errno => Seen::Error(errno),
    })
}

fn try_look(dir: BorrowedFd<'_>, path: &Path, how: Look) -> Result<Seen, Errno> {
    match how {
        Look::Open | Look::Map => {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let opened = rustix::fs::openat(dir, path, flags, Mode::empty())?;
            let found = rustix::fs::fstat(&opened)?;
            match FileType::from_raw_mode(found.st_mode) {
                FileType::Directory => Ok(Seen::Directory(found.st_ino, list(opened)?)),
                _ => {
                    let content = if how == Look::Map { mapped(&opened, found.st_size)? } else { read_all(&opened)? };
                    Ok(Seen::File(
                        found.st_ino,
                        found.st_size.cast_unsigned(),
                        found.st_mode & 0o7777,
                        Content::of(&content),
                    ))
                }
            }
        }
        Look::Stat => {
            let s = rustix::fs::statat(dir, path, AtFlags::SYMLINK_NOFOLLOW)?;
            let directory = FileType::from_raw_mode(s.st_mode) == FileType::Directory;
            // The sizes of directories are no promise of any file system, and FUSE clients keep them as they please.
            let size = if directory { 0 } else { s.st_size };
            Ok(Seen::Attributes(s.st_ino, s.st_mode, s.st_nlink, size, (s.st_mtime, s.st_mtime_nsec)))
        }
        Look::Found => rustix::fs::statat(dir, path, AtFlags::SYMLINK_NOFOLLOW).map(|_| Seen::Present),
        Look::Link => match rustix::fs::readlinkat(dir, path, Vec::new()) {
            Ok(target) => Ok(Seen::Target(target.to_string_lossy().into_owned())),
            Err(Errno::INVAL) => Ok(Seen::Present),
            Err(errno) => Err(errno),
        },
    }
}

fn list(opened: OwnedFd) -> Result<Vec<(String, u64, u8)>, Errno> {
    let mut entries = Vec::new();
    for entry in Dir::new(opened)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy();
        if name != "." && name != ".." {
            entries.push((name.into_owned(), entry.ino(), entry.file_type().as_raw_mode().to_be_bytes()[2] >> 4));
        }
    }
    entries.sort();
    Ok(entries)
}

fn read_all(file: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let mut content = Vec::new();
    let mut block = vec![0; 1 << 16];
    loop {
        match rustix::io::read(file, &mut block)? {
            0 => return Ok(content),
            count => content.extend_from_slice(block.get(..count).unwrap_or_default()),
        }
    }
}

/// What a program sees that maps the file for the size it was told.
fn mapped(file: &OwnedFd, size: i64) -> Result<Vec<u8>, Errno> {
    let len = usize::try_from(size).unwrap_or(0);
    if len == 0 {
        return Ok(Vec::new());
    }
    let file = File::from(file.as_fd().try_clone_to_owned().map_err(|_| Errno::IO)?);
    let (read_only, private) = (1, 2);
    let region = MmapRegion::<()>::build(Some(FileOffset::new(file, 0)), len, read_only, private);
    let region = match region {
        Ok(region) => region,
        Err(_) => return Err(Errno::NODEV),
    };
    let mut content = vec![0; len];
    region.get_slice(0, len).map_err(|_| Errno::IO)?.copy_to(content.as_mut_slice());
    Ok(content)
}
