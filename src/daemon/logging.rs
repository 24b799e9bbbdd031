//! Where messages go: standard error or the system log.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use env_logger::{Builder, Target};
use log::{Level, error, warn};

use super::error::{Error, one_line};
use super::options::LogOptions;

/// Facility "daemon" of RFC 3164, as the receiver sorts messages by it.
const FACILITY: u8 = 3 << 3;

/// Whether messages go to the system log, where nobody reads standard error.
static TO_SYSTEM_LOG: AtomicBool = AtomicBool::new(false);

/// Tells why the process ends: on standard error in any case, at any level, and in the system log if that is in use.
pub fn report(error: &Error) {
    // In one piece, as others may write there as well. It may be closed.
    let _ = io::stderr().write_all(format!("ferryfs: {error}\n").as_bytes());
    if TO_SYSTEM_LOG.load(Ordering::Relaxed) {
        error!("{error}");
    }
}

/// Starts logging. The environment variable RUST_LOG wins over the level given.
pub fn start(options: LogOptions) {
    let mut builder = Builder::new();
    builder.filter_level(options.level);
    if let Ok(filters) = std::env::var("RUST_LOG") {
        builder.parse_filters(&filters);
    }
    let system_log = if options.syslog { Some(SystemLog::connect()) } else { None };
    let failure = match system_log {
        Some(Ok(socket)) => {
            to_system_log(&mut builder, socket);
            None
        }
        Some(Err(error)) => Some(error),
        None => None,
    };
    // A logger that is there already is the embedding program's own.
    let _ = builder.try_init();
    // In one line like all else, and to where messages go; rarely enough that a guest who finds one cannot fill the log.
    static MISTAKES: AtomicU64 = AtomicU64::new(0);
    std::panic::set_hook(Box::new(|panic| {
        let count = MISTAKES.fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_power_of_two() {
            error!("{} ({count} so far)", mistake(panic));
        }
    }));
    if let Some(error) = failure {
        warn!("cannot reach the system log at /dev/log ({error}): messages go to standard error");
    }
}

fn mistake(panic: &std::panic::PanicHookInfo<'_>) -> String {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let what = one_line(panic.payload_as_str().unwrap_or("no reason given"));
    let thread = std::thread::current();
    format!(
        "this is a mistake of ferryfs's own, please report it: {what} (thread '{}', {place})",
        thread.name().unwrap_or("?")
    )
}

fn to_system_log(builder: &mut Builder, socket: SystemLog) {
    TO_SYSTEM_LOG.store(true, Ordering::Relaxed);
    // The process seen from outside: the one that serves is number 1 of its own pid namespace.
    let pid = std::process::id();
    builder.target(Target::Pipe(Box::new(socket))).format(move |out, record| {
        // Without a time stamp: the receiver puts its own.
        write!(out, "<{}>ferryfs[{pid}]: {}", FACILITY | severity(record.level()), record.args())
    });
}

fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// The socket of the system log; it stays connected when the path goes out of view.
struct SystemLog(OwnedFd);

impl SystemLog {
    fn connect() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect("/dev/log")?;
        Ok(Self(socket.into()))
    }
}

impl Write for SystemLog {
    /// Each message is one datagram, and written by `write`, which every thread may call.
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(&self.0, message)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
