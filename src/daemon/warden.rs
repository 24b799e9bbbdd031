//! The process that stays outside of a sandbox: it waits for the one inside, passes signals in and the exit status
//! out, and takes the socket away at the end. It reads nothing a guest can write.

use std::os::fd::OwnedFd;
use std::process::ExitCode;

use log::error;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;

use super::error::Error;
use super::ready::ServiceManager;
use super::seccomp::{self, Role};
use crate::host::linux::process::identity::{self, CapabilitySet};
use crate::host::linux::process::namespaces::{Child, Ending};
use crate::host::linux::process::signals::{Signal, StopSignals};

/// Waits for the process inside and returns the status it ended with.
pub fn watch(child: &Child, ready: OwnedFd, stop: &StopSignals, manager: &ServiceManager) -> Result<ExitCode, Error> {
    let failed = |error| Error::system("cannot watch over the sandbox", error, "");
    // Of all privileges it needs only the one to remove a socket from another user's directory.
    identity::restrict_capabilities(CapabilitySet::DAC_OVERRIDE).map_err(failed)?;
    identity::forbid_new_privileges().map_err(failed)?;
    seccomp::confine(Role::Warden)?;
    let mut ready = Some(ready);
    loop {
        let [ended, stopped, spoke] = await_event(child, stop, ready.as_ref()).map_err(failed)?;
        if spoke && let Some(pipe) = ready.take() {
            hear(&pipe, manager);
        }
        if stopped {
            stop.wait().and_then(|()| child.signal(Signal::TERM)).map_err(failed)?;
        }
        if ended {
            return child.wait().map(status).map_err(failed);
        }
    }
}

/// Waits until the child has ended, a signal has come, or the child has spoken.
fn await_event(child: &Child, stop: &StopSignals, ready: Option<&OwnedFd>) -> std::io::Result<[bool; 3]> {
    let mut watched = vec![PollFd::new(child, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
    watched.extend(ready.map(|pipe| PollFd::new(pipe, PollFlags::IN)));
    retry_on_intr(|| poll(&mut watched, None))?;
    let mut seen = watched.iter().map(|one| !one.revents().is_empty());
    Ok(std::array::from_fn(|_| seen.next().unwrap_or(false)))
}

fn hear(pipe: &OwnedFd, manager: &ServiceManager) {
    // Nothing to read means that the child ended first.
    if matches!(retry_on_intr(|| rustix::io::read(pipe, &mut [0])), Ok(1)) {
        manager.tell();
    }
}

fn status(ending: Ending) -> ExitCode {
    match ending {
        Ending::Exited(code) => ExitCode::from(code),
        Ending::Killed(signal) => {
            let why = if signal == libc::SIGSYS { ": it made a system call that --seccomp forbids" } else { "" };
            error!("the serving process was ended by signal {signal}{why}");
            ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX))
        }
    }
}
