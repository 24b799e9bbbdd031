//! The process: command line, isolation, limits, messages. What it serves, and how, is passed in as a function.
//!
//! Knows nothing of FUSE or of virtqueues.

mod arguments;
pub mod capabilities;
pub mod command_line;
mod compat;
mod config;
pub mod ending;
pub mod error;
mod features;
mod idmap;
pub mod limits;
pub mod logging;
mod mount;
pub mod options;
pub mod ready;
pub mod sandbox;
pub mod seccomp;
mod seccomp_table;
mod serve;
pub mod socket;
pub mod values;
mod warden;

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;

use log::warn;

use self::command_line::Invocation;
use self::ending::LastWork;
use self::error::Error;
use self::limits::DescriptorBudget;
use self::options::{DaemonOptions, MountOptions};
use self::ready::{Ready, ServiceManager};
use self::sandbox::{Part, Preopened, Share};
use self::seccomp::Role;
use self::socket::{Endpoint, SocketFiles};
use crate::host::linux::process::descriptors;
use crate::host::linux::process::signals::{self, StopSignals};

/// virtiofsd's words for it, by which Kata's runtime knows that it may go on.
const WAITING: &str = "Waiting for vhost-user socket connection";

/// All that serving needs, in a process that is isolated already.
#[derive(Debug)]
pub struct Setup {
    /// The share and what of `/proc` is needed, opened while the host was in view.
    pub preopened: Preopened,
    /// The socket on which the front end connects; it listens.
    pub listener: UnixListener,
    /// What the command line asks for.
    pub options: DaemonOptions,
    /// How many descriptors the guest's inodes and open files may take.
    pub descriptors: DescriptorBudget,
    /// To be told when a front end will be answered.
    pub ready: Ready,
    /// To be told what to do before a signal ends the process.
    pub last_work: LastWork,
}

/// The `ferryfs` command.
pub fn main() -> ExitCode {
    run(std::env::args_os(), serve::serve, |options| mount::mount(&options))
}

/// Does what the command line asks for, with `serve` and `mount` for the work itself. To be called by the process's
/// only thread, before it has opened descriptors.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    serve: impl FnOnce(Setup) -> Result<(), Error>,
    mount: impl FnOnce(MountOptions) -> Result<(), Error>,
) -> ExitCode {
    let limited = |error| Error::system("cannot ignore a signal", error, "");
    let ready = signals::ignore_size_limit().map_err(limited);
    let outcome = ready.and_then(|()| command_line::parse(arguments)).and_then(|invocation| match invocation {
        Invocation::Serve(options) => start(*options, serve),
        Invocation::Mount(options) => {
            logging::start(options.log);
            mount(*options).map(|()| ExitCode::SUCCESS)
        }
        Invocation::Print(text) => {
            // A reader that left has read enough.
            let _ = std::io::stdout().write_all(text.as_bytes());
            Ok(ExitCode::SUCCESS)
        }
    });
    outcome.unwrap_or_else(|error| {
        logging::report(&error);
        error.exit_code()
    })
}

/// The order of start-up: what needs the host's view and privileges comes first, each is given up as soon as it can be.
fn start(options: DaemonOptions, serve: impl FnOnce(Setup) -> Result<(), Error>) -> Result<ExitCode, Error> {
    sandbox::check(&options.isolation)?;
    let endpoint = Endpoint::find(&options.listen)?;
    let share = Share::open(&options.shared_dir)?;
    close_strays(&share, &endpoint)?;

    logging::start(options.log);
    options.remarks.iter().for_each(|remark| warn!("{remark}"));
    let descriptors = limits::raise(options.isolation.rlimit_nofile, options.queues.threads())?;
    let stop = StopSignals::block().map_err(|error| Error::system("cannot hold back signals", error, ""))?;
    let manager = ServiceManager::from_environment();
    let (listener, files) = endpoint.open()?;
    let what = format!("serving '{}' {}: {WAITING}", share.path().display(), options.listen);
    seccomp::set_mode(options.isolation.seccomp);

    let (preopened, ready, files) = match sandbox::divide(&options.isolation)? {
        Part::Outside(child, ready) => {
            drop((listener, share));
            return warden::watch(&child, ready, &stop, &manager);
        }
        Part::Inside(inside) => {
            files.into_iter().for_each(SocketFiles::disown);
            let (preopened, pipe) = sandbox::enter(inside, share, &options.isolation, options.file_system.readonly)?;
            (preopened, Ready::through_warden(pipe, what), None)
        }
        Part::Whole => (sandbox::view_as_it_is(share)?, Ready::directly(manager, what), files),
    };
    capabilities::drop_to_needed(&options)?;
    seccomp::confine(Role::Control)?;
    let last_work = LastWork::default();
    ending::end_on_signal(stop, last_work.clone(), files.as_ref().map(SocketFiles::remover))?;
    serve(Setup { preopened, listener, options, descriptors, ready, last_work })?;
    Ok(ExitCode::SUCCESS)
}

/// Closes what else the process inherited: nothing of it is needed, and it would be within reach from the sandbox.
fn close_strays(share: &Share, endpoint: &Endpoint) -> Result<(), Error> {
    let keep: Vec<_> = [share.as_fd()].into_iter().chain(endpoint.inherited()).collect();
    descriptors::close_others(&keep).map_err(|error| Error::system("cannot close inherited descriptors", error, ""))
}
