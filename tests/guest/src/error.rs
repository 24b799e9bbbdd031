//! What can go wrong on the guest's side, an errno from the daemon included.

use std::io;
use std::time::Duration;

use fuse_abi::Errno;

/// The one error type of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call of ours failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The error of the call.
        source: io::Error,
    },
    /// An address lies outside the guest's memory.
    #[error("guest memory: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
    /// The guest's memory cannot be laid out as asked.
    #[error("guest memory layout: {0}")]
    Layout(String),
    /// Nothing came in time: the daemon hangs, or forgot to notify.
    #[error("{what}: no answer within {limit:?}")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long.
        limit: Duration,
    },
    /// Requests that were posted did not come back.
    #[error("requests hang: {0}")]
    Hang(String),
    /// The ring or the slots have no room for another chain.
    #[error("no room for another chain")]
    Full,
    /// The device returned a chain that is not in flight: answered twice, or never posted.
    #[error("the device used head {0}, which is not in flight")]
    NotInFlight(u32),
    /// The device moved the used index further than the ring is long.
    #[error("the device claims {0} used chains at once")]
    UsedIndex(u16),
    /// The daemon closed the vhost-user connection.
    #[error("the daemon closed the connection")]
    Closed,
    /// The daemon answered a vhost-user message with a failure.
    #[error("the daemon refused vhost-user request {request}: {code}")]
    Refused {
        /// The number of the request.
        request: u32,
        /// The value it acknowledged with.
        code: u64,
    },
    /// The daemon broke the vhost-user protocol.
    #[error("vhost-user: {0}")]
    Protocol(String),
    /// A FUSE reply whose lengths or number are wrong.
    #[error("malformed reply: {0}")]
    Reply(String),
    /// A FUSE reply that carries an error.
    #[error("{0}")]
    Errno(Errno),
    /// The daemon could not be started, or ended too early.
    #[error("daemon: {0}")]
    Daemon(String),
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The errno the daemon answered with, if this is one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Errno(errno) => Some(*errno),
            _ => None,
        }
    }

    /// Wraps the error of a system call; for `map_err`.
    pub fn io<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { what, source: source.into() }
    }
}
