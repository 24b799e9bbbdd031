//! Names that were checked: one that exists is safe to hand to the host as a single component.

use std::ffi::CStr;

use fuse_abi::Errno;

/// The longest name a directory entry or an extended attribute can have on Linux.
pub const NAME_MAX: usize = 255;
/// The longest target of a symbolic link, without its terminator.
const TARGET_MAX: usize = 4095;

/// One component of a path: not empty, not `.` or `..`, no `/`, at most 255 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Name<'r>(&'r CStr);

impl<'r> Name<'r> {
    /// Checks a name as it came off the wire.
    ///
    /// # Errors
    /// `EINVAL` for what no directory can hold, `ENAMETOOLONG` beyond 255 bytes.
    pub fn new(name: &'r CStr) -> Result<Self, Errno> {
        let bytes = name.to_bytes();
        if bytes.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') {
            return Err(Errno::EINVAL);
        }
        Ok(Self(name))
    }

    /// The name with its terminator, as system calls take it.
    #[must_use]
    pub const fn as_c_str(self) -> &'r CStr {
        self.0
    }

    /// The name without its terminator.
    #[must_use]
    pub const fn as_bytes(self) -> &'r [u8] {
        self.0.to_bytes()
    }
}

/// What LOOKUP can ask for: a name, or a step that an exported file system needs to reconnect a file handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupName<'r> {
    /// An entry of the directory.
    Name(Name<'r>),
    /// The directory itself.
    Dot,
    /// Its parent, or itself at the root of the share.
    DotDot,
}

impl<'r> LookupName<'r> {
    /// Checks a name as it came off the wire.
    ///
    /// # Errors
    /// As [`Name::new`], but for `.` and `..`.
    pub fn new(name: &'r CStr) -> Result<Self, Errno> {
        match name.to_bytes() {
            b"." => Ok(Self::Dot),
            b".." => Ok(Self::DotDot),
            _ => Name::new(name).map(Self::Name),
        }
    }
}

/// The target of a symbolic link: any text that a link can hold, never followed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SymlinkTarget<'r>(&'r CStr);

impl<'r> SymlinkTarget<'r> {
    /// Checks a target as it came off the wire.
    ///
    /// # Errors
    /// `ENOENT` when empty, `ENAMETOOLONG` beyond 4095 bytes.
    pub fn new(target: &'r CStr) -> Result<Self, Errno> {
        match target.to_bytes().len() {
            0 => Err(Errno::ENOENT),
            1..=TARGET_MAX => Ok(Self(target)),
            _ => Err(Errno::ENAMETOOLONG),
        }
    }

    /// The target with its terminator.
    #[must_use]
    pub const fn as_c_str(self) -> &'r CStr {
        self.0
    }
}

/// The name of an extended attribute: not empty, at most 255 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XattrName<'r>(&'r CStr);

impl<'r> XattrName<'r> {
    /// Checks a name as it came off the wire.
    ///
    /// # Errors
    /// `ERANGE` when empty or too long, as Linux answers.
    pub fn new(name: &'r CStr) -> Result<Self, Errno> {
        match name.to_bytes().len() {
            1..=NAME_MAX => Ok(Self(name)),
            _ => Err(Errno::ERANGE),
        }
    }

    /// The name with its terminator.
    #[must_use]
    pub const fn as_c_str(self) -> &'r CStr {
        self.0
    }

    /// The name without its terminator.
    #[must_use]
    pub const fn as_bytes(self) -> &'r [u8] {
        self.0.to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(bytes: &[u8]) -> Result<(), Errno> {
        Name::new(&std::ffi::CString::new(bytes).unwrap()).map(drop)
    }

    #[test]
    fn a_name_is_one_component_and_nothing_else() {
        for good in [&b"a"[..], b"...", b".a", b"..a", b"\xff\xfe", &[b'x'; 255]] {
            assert_eq!(name(good), Ok(()), "{good:?}");
        }
        for bad in [&b""[..], b".", b"..", b"/", b"a/b", b"../x", b"/etc"] {
            assert_eq!(name(bad), Err(Errno::EINVAL), "{bad:?}");
        }
        assert_eq!(name(&[b'x'; 256]), Err(Errno::ENAMETOOLONG));
    }

    #[test]
    fn lookup_alone_takes_the_dots() {
        assert_eq!(LookupName::new(c"."), Ok(LookupName::Dot));
        assert_eq!(LookupName::new(c".."), Ok(LookupName::DotDot));
        assert_eq!(LookupName::new(c"../x"), Err(Errno::EINVAL));
    }
}
