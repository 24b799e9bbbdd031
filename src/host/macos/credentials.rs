//! As whom this process acts on the file system: always as its own user.
//!
//! macOS keeps credentials for the process; its call for a thread's own is private and asks for the superuser. So a
//! request of another user is refused where something would be created for that user, and what can only be set for
//! the whole process, the umask, is left alone: the creating calls make up for it.

use std::cell::Cell;

use fuse_abi::Errno;
use rustix::fs::Mode;

use super::{Result, permission_bits};
use crate::host::unix::Actor;

/// Who the process is: fixed before it serves.
#[derive(Clone, Copy, Debug)]
pub struct Identities {
    uid: u32,
    gid: u32,
    umask: u32,
}

/// What is masked from permission bits: by the guest's wish, and by the process whether it wishes or not.
#[derive(Clone, Copy)]
struct Masks {
    wanted: u32,
    process: u32,
}

thread_local! {
    static MASKS: Cell<Masks> = const { Cell::new(Masks { wanted: 0, process: 0o777 }) };
}

impl Identities {
    /// Reads who this process is. Call it before other threads create files: the umask can only be read by changing it.
    #[must_use]
    pub fn of_process() -> Self {
        let umask = rustix::process::umask(Mode::from_raw_mode(0o077));
        rustix::process::umask(umask);
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self { uid, gid, umask: u32::from(umask.as_raw_mode()) }
    }

    /// Makes this thread act as `actor` from here on.
    ///
    /// # Errors
    /// `EPERM` for any user but the process's own and the guest's superuser, for whom that one stands.
    pub fn act_as(&self, actor: &Actor) -> Result<()> {
        let own = |wanted: u32, mine: u32| wanted == 0 || wanted == mine;
        // What cannot be given away must not silently become the server's own, but for the guest's superuser.
        if !own(actor.uid, self.uid) || !own(actor.gid, self.gid) {
            return Err(Errno::EPERM);
        }
        MASKS.set(Masks { wanted: actor.umask & 0o777, process: self.umask });
        Ok(())
    }

    /// Makes this thread act as the server.
    ///
    /// # Errors
    /// None.
    pub fn act_as_server(&self) -> Result<()> {
        self.act_as(&Actor::SERVER)
    }

    /// Makes this thread act as the server, which here it does for any user. Says so.
    ///
    /// # Errors
    /// None.
    pub fn act_as_server_or(&self, _uid: u32, _gid: u32) -> Result<bool> {
        self.act_as_server().map(|()| true)
    }

    /// Makes this thread act so that setuid and setgid bits do not survive a write: no plain user's ever do.
    ///
    /// # Errors
    /// None.
    pub fn act_dropping_suid(&self) -> Result<()> {
        self.act_as(&Actor { keeps_suid: false, ..Actor::SERVER })
    }
}

/// The permission bits that something to be created gets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grant {
    bits: u32,
    /// Bits that the process's umask or the creating call may have taken away.
    lost: u32,
}

impl Grant {
    pub(super) fn of(permissions: u32) -> Self {
        let Masks { wanted, process } = MASKS.get();
        let bits = permissions & 0o7777 & !wanted;
        // mkdir takes no bits beyond the ordinary ones, and open no sticky bit.
        Self { bits, lost: bits & (process | 0o7000) }
    }

    /// What to create with.
    pub(super) const fn bits(self) -> libc::mode_t {
        self.bits as libc::mode_t
    }

    /// Gives back by `chmod` what creation took away. What the system refuses stays taken: less is safe.
    pub(super) fn restore(self, chmod: impl Fn(Mode) -> rustix::io::Result<()>) {
        if self.lost != 0 && chmod(permission_bits(self.bits)).is_err() {
            let _ = chmod(permission_bits(self.bits & 0o777));
        }
    }
}
