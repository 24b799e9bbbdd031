//! What happens to directories, as a kqueue tells it: that entries came or went, and not which.

use std::{
    collections::HashMap,
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
    ptr::null_mut,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustix::event::{
    PollFd, PollFlags,
    kqueue::{Event, EventFilter, EventFlags, UserDefinedFlags, UserFlags, VnodeEvents, kevent, kqueue},
    poll,
};

use super::{Result, SelfFds, errno};
use crate::host::watched::Seen;

/// Whether events name what happened, and tell of changes of what the names lead to.
pub const WATCHES_NAMES: bool = false;

/// A directory that is watched: the descriptor that does.
pub type Mark = RawFd;

const BELL: isize = 0;
const EVENTS: usize = 64;

/// A queue of events, and the descriptors that it watches by.
#[derive(Debug)]
pub struct Watch {
    queue: OwnedFd,
    watched: Mutex<HashMap<Mark, OwnedFd>>,
    stopped: AtomicBool,
}

impl Watch {
    /// That watches nothing yet.
    ///
    /// # Errors
    /// The host's.
    pub fn new() -> Result<Self> {
        let queue = kqueue().map_err(errno)?;
        let watch = Self { queue, watched: Mutex::default(), stopped: AtomicBool::new(false) };
        watch.change(bell(UserFlags::NOINPUT, EventFlags::ADD | EventFlags::CLEAR))?;
        Ok(watch)
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<Mark, OwnedFd>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, event: Event) -> Result<()> {
        let mut none: [Event; 0] = [];
        // SAFETY: descriptors in the queue are held for as long as it watches them: see `watched`.
        unsafe { kevent(&self.queue, &[event], &mut none[..], None) }.map(drop).map_err(errno)
    }

    /// Watches a directory.
    ///
    /// # Errors
    /// The host's.
    pub fn add(&self, _: &SelfFds, dir: BorrowedFd<'_>) -> Result<Mark> {
        let own = rustix::io::fcntl_dupfd_cloexec(dir, 0).map_err(errno)?;
        let mark = own.as_raw_fd();
        let flags = VnodeEvents::DELETE | VnodeEvents::WRITE | VnodeEvents::EXTEND | VnodeEvents::ATTRIBUTES;
        let vnode = EventFilter::Vnode { vnode: mark, flags: flags | VnodeEvents::RENAME | VnodeEvents::REVOKE };
        self.change(Event::new(vnode, EventFlags::ADD | EventFlags::CLEAR, null_mut()))?;
        self.watched().insert(mark, own);
        Ok(mark)
    }

    /// Watches a directory no longer.
    pub fn remove(&self, mark: Mark) {
        // A queue forgets a descriptor that is closed.
        let own = self.watched().remove(&mark);
        drop(own);
    }

    /// Waits until there are events. Says no when it is to end.
    pub fn wait(&self) -> bool {
        let mut wait = [PollFd::new(&self.queue, PollFlags::IN)];
        loop {
            if self.stopped.load(Ordering::Acquire) {
                return false;
            }
            match poll(&mut wait, None) {
                Ok(_) => return !self.stopped.load(Ordering::Acquire),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    log::error!("the host can no longer be watched: {error}");
                    return false;
                }
            }
        }
    }

    /// Hands over all events there are, without waiting.
    pub fn read(&self, each: &mut dyn FnMut(Mark, Seen<'_>)) {
        let mut room = [const { MaybeUninit::<Event>::uninit() }; EVENTS];
        // SAFETY: as in `change`.
        while let Ok((events, _)) = unsafe { kevent(&self.queue, &[], &mut room[..], Some(Duration::ZERO)) } {
            if events.is_empty() {
                return;
            }
            for event in events.iter() {
                if let EventFilter::Vnode { vnode, flags } = event.filter() {
                    let gone = flags.intersects(VnodeEvents::DELETE | VnodeEvents::REVOKE);
                    each(vnode, if gone { Seen::Lost } else { Seen::Directory });
                }
            }
        }
    }

    /// Ends waiting, now and later, until [`go_on`](Self::go_on).
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        // One that cannot be rung is one that nobody waits for.
        let _ = self.change(bell(UserFlags::TRIGGER, EventFlags::empty()));
    }

    /// Lets waiting begin again.
    pub fn go_on(&self) {
        self.stopped.store(false, Ordering::Release);
    }
}

fn bell(flags: UserFlags, how: EventFlags) -> Event {
    let filter = EventFilter::User { ident: BELL, flags, user_flags: UserDefinedFlags::new(0) };
    Event::new(filter, how, null_mut())
}
