//! Signals that ask the process to end, taken as something to read instead of as an interruption.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

pub use rustix::process::Signal;

/// The signals that ask for an end.
const STOPPING: [libc::c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// Lets a write beyond the limit of file sizes fail with `EFBIG`, and not end the process: a guest chooses where it
/// writes.
pub fn ignore_size_limit() -> io::Result<()> {
    // SAFETY: no handler is installed, and no other thread is concerned with this signal.
    match unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Holds back the signals that ask for an end, and reports them.
#[derive(Debug)]
pub struct StopSignals(OwnedFd);

impl StopSignals {
    /// Blocks them in the calling thread, and so in every thread and process it creates.
    pub fn block() -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `set` is valid for writing, and initialised by sigemptyset before it is used.
        let descriptor = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in STOPPING {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            match libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) {
                0 => libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC),
                error => return Err(io::Error::from_raw_os_error(error)),
            }
        };
        match descriptor {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: signalfd just returned it and nothing else owns it.
            number => Ok(Self(unsafe { OwnedFd::from_raw_fd(number) })),
        }
    }

    /// Waits for the next of them.
    pub fn wait(&self) -> io::Result<()> {
        let mut record = [0_u8; size_of::<libc::signalfd_siginfo>()];
        while rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut record))? == 0 {}
        Ok(())
    }
}

impl AsFd for StopSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
