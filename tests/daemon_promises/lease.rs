//! A lease on a file, as file servers take them: whoever opens the file waits until it is given up.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Given up when dropped.
pub struct Lease(File);

impl Lease {
    /// Takes one that every open breaks.
    pub fn take(path: &Path) -> Self {
        let file = File::options().read(true).write(true).open(path).unwrap();
        // SAFETY: no handler is installed; the signal that asks for the lease would end this process.
        unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
        let lease = Self(file);
        assert_eq!(lease.set(libc::F_WRLCK), 0, "{}", std::io::Error::last_os_error());
        lease
    }

    fn set(&self, kind: i32) -> i32 {
        // SAFETY: the call takes no memory.
        unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_SETLEASE, kind) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.set(libc::F_UNLCK);
    }
}
