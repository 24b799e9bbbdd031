//! What a host tells of a directory that is watched.

/// Something that happened in or to a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen<'s> {
    /// A name in it was made, removed or moved.
    Name(&'s [u8]),
    /// What a name in it leads to was changed.
    Content(&'s [u8]),
    /// It was changed itself, or in ways that the host does not name.
    Directory,
    /// It is not watched any more: it was removed, or its file system unmounted.
    Lost,
    /// Events of any directory were lost.
    Overflow,
}
