//! Error numbers as they travel in replies: Linux's numbers, whatever system the server runs on.

use core::fmt;

/// An error number as the guest understands it. Always positive; the wire carries its negation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(u16);

macro_rules! errnos {
    ($($name:ident = $value:literal, $text:literal;)*) => {
        /// The numbers of Linux, the same on every architecture that FUSE guests use.
        impl Errno {
            $(#[doc = $text] pub const $name: Self = Self($value);)*

            /// The symbolic name, if this crate knows the number.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

errnos! {
    EPERM = 1, "Operation not permitted.";
    ENOENT = 2, "No such file or directory.";
    EINTR = 4, "Interrupted system call.";
    EIO = 5, "Input/output error.";
    ENXIO = 6, "No such device or address.";
    E2BIG = 7, "Argument list too long.";
    EBADF = 9, "Bad file descriptor.";
    EAGAIN = 11, "Resource temporarily unavailable.";
    ENOMEM = 12, "Cannot allocate memory.";
    EACCES = 13, "Permission denied.";
    EFAULT = 14, "Bad address.";
    EBUSY = 16, "Device or resource busy.";
    EEXIST = 17, "File exists.";
    EXDEV = 18, "Invalid cross-device link.";
    ENODEV = 19, "No such device.";
    ENOTDIR = 20, "Not a directory.";
    EISDIR = 21, "Is a directory.";
    EINVAL = 22, "Invalid argument.";
    ENFILE = 23, "Too many open files in system.";
    EMFILE = 24, "Too many open files.";
    ENOTTY = 25, "Inappropriate ioctl for device.";
    ETXTBSY = 26, "Text file busy.";
    EFBIG = 27, "File too large.";
    ENOSPC = 28, "No space left on device.";
    ESPIPE = 29, "Illegal seek.";
    EROFS = 30, "Read-only file system.";
    EMLINK = 31, "Too many links.";
    EPIPE = 32, "Broken pipe.";
    ERANGE = 34, "Numerical result out of range.";
    EDEADLK = 35, "Resource deadlock avoided.";
    ENAMETOOLONG = 36, "File name too long.";
    ENOLCK = 37, "No locks available.";
    ENOSYS = 38, "Function not implemented.";
    ENOTEMPTY = 39, "Directory not empty.";
    ELOOP = 40, "Too many levels of symbolic links.";
    ENODATA = 61, "No data available (a missing extended attribute).";
    EPROTO = 71, "Protocol error.";
    EOVERFLOW = 75, "Value too large for defined data type.";
    EUSERS = 87, "Too many users.";
    EOPNOTSUPP = 95, "Operation not supported.";
    ETIMEDOUT = 110, "Connection timed out.";
    ESTALE = 116, "Stale file handle.";
    EDQUOT = 122, "Disk quota exceeded.";
    ECANCELED = 125, "Operation canceled.";
}

impl Errno {
    /// A number as the host's kernel gave it. What cannot travel in a reply (0, negative, beyond 511) becomes `EIO`.
    #[must_use]
    pub const fn from_linux(number: i32) -> Self {
        // The kernel client treats an error below -512 as a broken reply.
        if number >= 1 && number < 512 { Self(number as u16) } else { Self::EIO }
    }

    /// The positive number.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0 as i32
    }

    /// The value of the `error` field of a reply.
    #[must_use]
    pub const fn wire(self) -> i32 {
        -(self.0 as i32)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl core::error::Error for Errno {}
