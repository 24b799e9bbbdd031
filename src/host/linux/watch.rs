//! What happens in directories, as inotify tells it.

use std::{
    mem::MaybeUninit,
    os::fd::{BorrowedFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno as HostErrno,
};

use super::{Result, SelfFds, errno};
use crate::host::watched::Seen;

/// Whether events name what happened, and tell of changes of what the names lead to.
pub const WATCHES_NAMES: bool = true;

/// A directory that is watched.
pub type Mark = i32;

/// Events that follow each other closely are read together: the kernel joins those that repeat the last one unread.
const PAUSE: Duration = Duration::from_millis(1);
/// Room for a few hundred events.
const BUFFER: usize = 64 * 1024;

/// A queue of events, and what ends waiting for them.
#[derive(Debug)]
pub struct Watch {
    queue: OwnedFd,
    bell: OwnedFd,
    busy: AtomicBool,
}

impl Watch {
    /// That watches nothing yet.
    ///
    /// # Errors
    /// `EMFILE` where the user has too many queues; the host's.
    pub fn new() -> Result<Self> {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(errno)?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(errno)?;
        Ok(Self { queue, bell, busy: AtomicBool::new(false) })
    }

    /// Watches a directory; one that is watched already keeps its mark.
    ///
    /// # Errors
    /// `ENOSPC` where the user watches too many; the host's.
    pub fn add(&self, fds: &SelfFds, dir: BorrowedFd<'_>) -> Result<Mark> {
        let wanted = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::DELETE_SELF
            | WatchFlags::ONLYDIR
            | WatchFlags::EXCL_UNLINK;
        inotify::add_watch(&self.queue, fds.path(dir).as_c_str(), wanted).map_err(errno)
    }

    /// Watches a directory no longer.
    pub fn remove(&self, mark: Mark) {
        // Gone already where the directory is.
        let _ = inotify::remove_watch(&self.queue, mark);
    }

    /// Waits until there are events. Says no when it is to end.
    pub fn wait(&self) -> bool {
        let mut wait = [PollFd::new(&self.bell, PollFlags::IN), PollFd::new(&self.queue, PollFlags::IN)];
        if self.busy.swap(false, Ordering::Relaxed) {
            let pause = rustix::fs::Timespec { tv_sec: 0, tv_nsec: i64::from(PAUSE.subsec_nanos()) };
            if matches!(poll(&mut wait[..1], Some(&pause)), Ok(1..)) {
                return false;
            }
        }
        loop {
            match poll(&mut wait, None) {
                Ok(_) if !wait[0].revents().is_empty() => return false,
                Ok(_) => return true,
                Err(HostErrno::INTR) => {}
                Err(error) => {
                    log::error!("the host can no longer be watched: {error}");
                    return false;
                }
            }
        }
    }

    /// Hands over all events there are, without waiting.
    pub fn read(&self, each: &mut dyn FnMut(Mark, Seen<'_>)) {
        let mut buffer = [const { MaybeUninit::uninit() }; BUFFER];
        let mut events = inotify::Reader::new(&self.queue, &mut buffer);
        self.busy.store(true, Ordering::Relaxed);
        while let Ok(event) = events.next() {
            let (what, name) = (event.events(), event.file_name().map(std::ffi::CStr::to_bytes));
            let named = ReadFlags::CREATE | ReadFlags::DELETE | ReadFlags::MOVED_FROM | ReadFlags::MOVED_TO;
            let seen = match name {
                _ if what.contains(ReadFlags::QUEUE_OVERFLOW) => Seen::Overflow,
                _ if what.intersects(ReadFlags::IGNORED) => Seen::Lost,
                Some(name) if what.intersects(named) => Seen::Name(name),
                Some(name) => Seen::Content(name),
                None => Seen::Directory,
            };
            each(event.wd(), seen);
        }
    }

    /// Ends waiting, now and later, until [`go_on`](Self::go_on).
    pub fn stop(&self) {
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    /// Lets waiting begin again.
    pub fn go_on(&self) {
        // Nothing to read is as good.
        let _ = rustix::io::read(&self.bell, &mut [0_u8; 8]);
    }
}
