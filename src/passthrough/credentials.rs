//! As whom an operation is done on the host.
//!
//! The guest's kernel has checked permissions before it asks, so most operations are the server's own. What is created
//! belongs to the caller, and is made as the caller. Threads switch lazily: see `host::Actor`.

use fuse_abi::{Errno, InitFlags};

use super::Passthrough;
use crate::{
    host::{self, Actor},
    protocol::{Context, Creation, Result},
};

/// What the host may refuse to a plain user although the guest's kernel allowed it: it knows more of the user's groups,
/// access lists and capabilities than a request carries.
const fn is_refusal(errno: Errno) -> bool {
    matches!(errno, Errno::EACCES | Errno::EPERM)
}

impl Passthrough {
    /// Does what any user may do once the guest has allowed it, without a switch if the thread acts for the caller.
    pub(super) fn freely<T>(&self, cx: &Context, mut call: impl FnMut() -> host::Result<T>) -> Result<T> {
        let as_server = match (self.config.uid_map.to_host(cx.uid), self.config.gid_map.to_host(cx.gid)) {
            (Ok(uid), Ok(gid)) => self.identities.act_as_server_or(uid, gid)?,
            _ => self.as_server().map(|()| true)?,
        };
        match call() {
            Err(errno) if is_refusal(errno) && !as_server => {
                self.as_server()?;
                Ok(call()?)
            }
            done => Ok(done?),
        }
    }

    /// From here on this thread acts as the server.
    pub(super) fn as_server(&self) -> host::Result<()> {
        self.identities.act_as_server()
    }

    /// Creates something as the caller, so that the host gives it the right owner, group and mode at birth.
    pub(super) fn creating<T>(
        &self,
        cx: &Context,
        new: &Creation<'_>,
        mut call: impl FnMut() -> host::Result<T>,
    ) -> Result<T> {
        let mut actor = self.creator(cx, new)?;
        self.identities.act_as(&actor)?;
        match call() {
            Err(errno) if is_refusal(errno) && !actor.overrides => {
                actor.overrides = true;
                self.identities.act_as(&actor)?;
                Ok(call()?)
            }
            done => Ok(done?),
        }
    }

    /// From here on this thread has the caller's rights and no more.
    pub(super) fn as_caller(&self, cx: &Context) -> host::Result<()> {
        let new = Creation { mode: 0, umask: 0, group: None, security: None };
        self.identities.act_as(&self.creator(cx, &new)?)
    }

    /// As [`as_caller`](Self::as_caller), with the group that came along with a creation.
    pub(super) fn act_as_creator(&self, cx: &Context, new: &Creation<'_>, drop_suid: bool) -> host::Result<()> {
        let creator = self.creator(cx, new)?;
        let keeps_suid = creator.keeps_suid && !drops_suid(cx, drop_suid);
        self.identities.act_as(&Actor { keeps_suid, ..creator })
    }

    fn creator(&self, cx: &Context, new: &Creation<'_>) -> host::Result<Actor> {
        let uid = self.config.uid_map.to_host(cx.uid)?;
        let gid = self.config.gid_map.to_host(cx.gid)?;
        if uid == u32::MAX || gid == u32::MAX {
            return Err(Errno::EOVERFLOW);
        }
        let group = match new.group {
            Some(group) => Some(self.config.gid_map.to_host(group)?).filter(|group| *group != gid && uid != 0),
            None => None,
        };
        let umask = if cx.agreed.contains(InitFlags::DONT_MASK) { new.umask & 0o777 } else { 0 };
        Ok(Actor { uid, gid, group, keeps_suid: uid == 0, overrides: uid == 0, umask })
    }

    /// Makes sure that setuid and setgid bits survive a change of the file, or that they do not.
    ///
    /// With the first version of killpriv the client leaves all of it to the server; with the second, which clients offer
    /// beside the first, it says which changes drop them; without any it has dropped them itself.
    pub(super) fn keep_suid(&self, cx: &Context, asked_to_drop: bool) -> host::Result<()> {
        if drops_suid(cx, asked_to_drop) {
            self.identities.act_dropping_suid()
        } else if cx.uid == 0 {
            self.as_server()
        } else {
            // Only the superuser's changes keep them, so as whom a plain user's change is made does not matter.
            Ok(())
        }
    }

    /// As [`keep_suid`](Self::keep_suid), for an open that truncates: it must be allowed, whomever the thread acts for.
    pub(super) fn keep_suid_at_open(&self, cx: &Context, asked_to_drop: bool) -> host::Result<()> {
        self.identities.act_as(&Actor { keeps_suid: !drops_suid(cx, asked_to_drop), ..Actor::SERVER })
    }
}

fn drops_suid(cx: &Context, asked_to_drop: bool) -> bool {
    let second = cx.agreed.contains(InitFlags::HANDLE_KILLPRIV_V2);
    asked_to_drop || (cx.agreed.contains(InitFlags::HANDLE_KILLPRIV) && !second)
}
