//! The end that a signal asks for: what is under way is finished first.

use std::fmt;
use std::sync::{Arc, OnceLock};

use super::error::Error;
use super::logging;
use super::seccomp::{self, Role};
use crate::host::linux::process::signals::StopSignals;

/// What is to be done before the process ends. Left to the server, who does it within a bounded time.
#[derive(Clone, Default)]
pub struct LastWork(Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>);

impl LastWork {
    /// Sets it, once.
    pub fn set(&self, work: impl Fn() + Send + Sync + 'static) {
        // Whoever set it first serves already.
        let _ = self.0.set(Box::new(work));
    }

    fn run(&self) {
        if let Some(work) = self.0.get() {
            work();
        }
    }
}

impl fmt::Debug for LastWork {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("LastWork").field("is_set", &self.0.get().is_some()).finish()
    }
}

/// Ends the process with success when a signal asks for an end, after `last` was done and the files are removed.
pub fn end_on_signal(
    stop: StopSignals,
    last: LastWork,
    remove_files: Option<impl Fn() + Send + 'static>,
) -> Result<(), Error> {
    let wait = move || {
        if let Err(error) = seccomp::confine(Role::Signals) {
            logging::report(&error);
            std::process::exit(1);
        }
        let failed = stop.wait().is_err();
        last.run();
        if let Some(remove) = remove_files {
            remove();
        }
        std::process::exit(failed.into())
    };
    let thread = std::thread::Builder::new().name("signals".into()).spawn(wait);
    thread.map(drop).map_err(|error| Error::system("cannot start a thread", error, ""))
}
