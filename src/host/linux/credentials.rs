//! As whom this thread acts on the file system.
//!
//! Linux keeps file-system credentials a thread. Each thread remembers what it last asked for, and asks the kernel again
//! only when a request needs something else: a run of requests of one user switches once.

use std::cell::Cell;

use fuse_abi::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets, Gid};

use super::{Result, check, errno};
use crate::host::unix::Actor;

/// What the kernel was last told for this thread.
#[derive(Clone, Copy)]
struct Applied {
    actor: Actor,
    /// The capabilities this thread started with. What it never had it never tries to raise.
    capabilities: CapabilitySets,
}

thread_local! {
    static APPLIED: Cell<Option<Applied>> = const { Cell::new(None) };
}

/// Who the process is: fixed before it serves.
#[derive(Clone, Copy, Debug)]
pub struct Identities {
    /// What the process is when it does not switch.
    uid: u32,
    gid: u32,
    /// Whether it may act as others at all.
    can_switch: bool,
    /// Whether every number of a user names one: not inside a user namespace with a partial map.
    all_mapped: bool,
}

impl Identities {
    /// Finds out who this process is, and whether it may act as others.
    #[must_use]
    pub fn of_process() -> Self {
        let needed = CapabilitySet::SETUID | CapabilitySet::SETGID;
        let able = rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed));
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let can_switch = able && uid == 0;
        Self { uid, gid, can_switch, all_mapped: can_switch && every_user_is_mapped() }
    }

    /// Makes this thread act as `actor` from here on.
    ///
    /// # Errors
    /// `EPERM` where this process may not act as that user.
    pub fn act_as(&self, actor: &Actor) -> Result<()> {
        let applied = match APPLIED.get() {
            Some(applied) if applied.actor == *actor => return Ok(()),
            Some(applied) => applied,
            None => begin_thread()?,
        };
        if applied.actor == *actor {
            return Ok(());
        }
        if !self.can_switch {
            return self.act_unprivileged(actor, applied);
        }
        let reached = self.switch(actor, applied);
        if reached.is_err() {
            self.return_to_server(&applied.capabilities)?;
        }
        reached
    }

    /// Half way to another user is nobody: go back, whatever the thread has become.
    fn return_to_server(&self, capabilities: &CapabilitySets) -> Result<()> {
        self.set_uid(0)?;
        self.set_gid(0)?;
        // Refused inside some user namespaces, where no group was ever set.
        let _ = rustix::thread::set_thread_groups(&[]);
        rustix::process::umask(rustix::fs::Mode::empty());
        rustix::thread::set_capabilities(None, *capabilities).map_err(errno)?;
        APPLIED.set(Some(Applied { actor: Actor::SERVER, capabilities: *capabilities }));
        Ok(())
    }

    /// Makes this thread act as the server in all that does not create: what is left of groups and umask is of no
    /// account there.
    ///
    /// # Errors
    /// As [`act_as`](Self::act_as).
    pub fn act_as_server(&self) -> Result<()> {
        match APPLIED.get() {
            Some(Applied { actor, .. }) if actor.uid == 0 && actor.keeps_suid => Ok(()),
            _ => self.act_as(&Actor::SERVER),
        }
    }

    /// Makes this thread act as the server, whether or not it keeps setuid bits, unless it acts for this user already.
    /// Says whether it acts as the server.
    ///
    /// # Errors
    /// As [`act_as`](Self::act_as).
    pub fn act_as_server_or(&self, uid: u32, gid: u32) -> Result<bool> {
        match APPLIED.get() {
            Some(Applied { actor, .. }) if actor.uid == 0 => Ok(true),
            Some(Applied { actor, .. }) if (actor.uid, actor.gid) == (uid, gid) => Ok(false),
            _ => self.act_as(&Actor::SERVER).map(|()| true),
        }
    }

    /// Makes this thread act so that setuid and setgid bits do not survive a write.
    ///
    /// # Errors
    /// As [`act_as`](Self::act_as).
    pub fn act_dropping_suid(&self) -> Result<()> {
        match APPLIED.get() {
            // A plain user never keeps them, whoever it is.
            Some(Applied { actor, .. }) if !actor.keeps_suid => Ok(()),
            _ => self.act_as(&Actor { keeps_suid: false, ..Actor::SERVER }),
        }
    }

    fn act_unprivileged(&self, actor: &Actor, applied: Applied) -> Result<()> {
        let own = |wanted: u32, mine: u32| wanted == 0 || wanted == mine;
        // What cannot be given away must not silently become the server's own, but for the guest's superuser.
        if !own(actor.uid, self.uid) || !own(actor.gid, self.gid) {
            return Err(Errno::EPERM);
        }
        set_umask(&applied.actor, actor);
        APPLIED.set(Some(Applied { actor: *actor, ..applied }));
        Ok(())
    }

    fn switch(&self, to: &Actor, applied: Applied) -> Result<()> {
        let from = applied.actor;
        set_umask(&from, to);
        if from.uid != to.uid && from.uid != 0 && to.uid == 0 {
            // Back to the superuser first: it restores the capabilities that the file system knows.
            self.set_uid(0)?;
        }
        if from.group != to.group {
            let group = to.group.map(|group| [Gid::from_raw(group)]);
            rustix::thread::set_thread_groups(group.as_ref().map_or(&[], |one| one.as_slice())).map_err(errno)?;
        }
        if from.gid != to.gid {
            self.set_gid(to.gid)?;
        }
        if from.uid != to.uid && to.uid != 0 {
            self.set_uid(to.uid)?;
        }
        set_capabilities(&from, to, &applied.capabilities)?;
        APPLIED.set(Some(Applied { actor: *to, ..applied }));
        Ok(())
    }

    fn set_uid(&self, uid: u32) -> Result<()> {
        // SAFETY: the call takes no memory and concerns this thread alone.
        unsafe { libc::syscall(libc::SYS_setfsuid, uid) };
        // It reports no failure; asking for an impossible user tells who is set.
        // SAFETY: as above.
        if !self.all_mapped && unsafe { libc::syscall(libc::SYS_setfsuid, u32::MAX) } as u32 != uid {
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    fn set_gid(&self, gid: u32) -> Result<()> {
        // SAFETY: the call takes no memory and concerns this thread alone.
        unsafe { libc::syscall(libc::SYS_setfsgid, gid) };
        // SAFETY: as above.
        if !self.all_mapped && unsafe { libc::syscall(libc::SYS_setfsgid, u32::MAX) } as u32 != gid {
            return Err(Errno::EPERM);
        }
        Ok(())
    }
}

/// Whether this user namespace knows every user there can be: it does if it knows the last.
///
/// Tried on a thread of its own, because a thread that changes its user no longer ends with the process above it.
fn every_user_is_mapped() -> bool {
    const LAST: u32 = u32::MAX - 1;
    let knows_last = || {
        // SAFETY: the calls take no memory and concern this thread alone.
        unsafe {
            libc::syscall(libc::SYS_setfsuid, LAST);
            libc::syscall(libc::SYS_setfsuid, u32::MAX) as u32 == LAST
        }
    };
    // Where no thread can be made nothing is assumed.
    std::thread::Builder::new().spawn(knows_last).is_ok_and(|thread| thread.join().unwrap_or(false))
}

/// The first switch of a thread: it gets a umask and a working directory of its own, loses the groups it inherited, and
/// remembers its capabilities.
fn begin_thread() -> Result<Applied> {
    // SAFETY: separates only this thread's umask and working directory; no memory is concerned.
    check(unsafe { libc::unshare(libc::CLONE_FS) } as isize)?;
    rustix::process::umask(rustix::fs::Mode::empty());
    // The groups of whoever started the server are no caller's. Refused without privileges, where nobody is switched to.
    let _ = rustix::thread::set_thread_groups(&[]);
    let capabilities = rustix::thread::capabilities(None).map_err(errno)?;
    let applied = Applied { actor: Actor::SERVER, capabilities };
    APPLIED.set(Some(applied));
    Ok(applied)
}

fn set_umask(from: &Actor, to: &Actor) {
    if from.umask != to.umask {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(to.umask & 0o777));
    }
}

/// The kernel took away or gave back what the file system knows when the uid left or reached 0; this does the rest.
fn set_capabilities(from: &Actor, to: &Actor, all: &CapabilitySets) -> Result<()> {
    let have = effective(from, from.uid != to.uid, to.uid);
    let want = effective(to, false, to.uid);
    if have == want {
        return Ok(());
    }
    let (keeps_suid, overrides) = want;
    let mut sets = *all;
    let mut drop = CapabilitySet::empty();
    drop.set(CapabilitySet::FSETID, !keeps_suid);
    if to.uid != 0 {
        drop |= CapabilitySet::CHOWN | CapabilitySet::FOWNER | CapabilitySet::MKNOD | CapabilitySet::LINUX_IMMUTABLE;
        drop.set(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH, !overrides);
    }
    sets.effective.remove(drop);
    rustix::thread::set_capabilities(None, sets).map_err(errno)
}

/// Which of the two capabilities that matter here are in force: after a change of uid, by the kernel's own rule.
fn effective(actor: &Actor, uid_changed: bool, uid: u32) -> (bool, bool) {
    match (uid, uid_changed) {
        (0, true) => (true, true),
        (0, false) => (actor.keeps_suid, true),
        (_, true) if actor.uid == 0 => (false, false),
        (_, _) => (false, actor.uid != 0 && actor.overrides),
    }
}
