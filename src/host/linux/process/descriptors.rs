//! Descriptors the process was started with.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::net::sockopt;

/// Takes over a descriptor that the process inherited, when it is a Unix socket that listens.
///
/// `Ok(None)` stands for a descriptor that is something else.
pub fn adopt_listening_socket(number: RawFd) -> io::Result<Option<OwnedFd>> {
    // SAFETY: asking for the flags of a number is harmless whether or not it is open.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, the command line hands it to us, and it is adopted once.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::CLOEXEC)?;
    match (sockopt::socket_domain(&descriptor), sockopt::socket_acceptconn(&descriptor)) {
        (Ok(rustix::net::AddressFamily::UNIX), Ok(true)) => Ok(Some(descriptor)),
        _ => Ok(None),
    }
}

/// Closes every descriptor above standard error but those in `keep`.
///
/// To be called before anything else has opened descriptors: whoever owns one of the others would lose it.
pub fn close_others(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok()).collect();
    kept.sort_unstable();
    let mut first: u32 = 3;
    for number in kept.into_iter().chain([u32::MAX]) {
        if number > first {
            close_range(first, number - 1)?;
        }
        first = first.max(number.saturating_add(1));
    }
    Ok(())
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: the caller says that nothing owns a descriptor of this range.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
