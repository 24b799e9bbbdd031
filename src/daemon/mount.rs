//! `ferryfs mount`: a directory mounted on this machine.

use std::{os::fd::OwnedFd, thread};

use rustix::event::{PollFd, PollFlags, poll};

use super::{error::Error, limits, options::MountOptions, serve::cannot_share};
use crate::{
    host::{SelfFds, linux::process::signals::StopSignals},
    passthrough::Passthrough,
    protocol::{Options, Server},
    transport::dev_fuse::Mount,
};

/// Mounts, serves, and unmounts at a signal.
///
/// # Errors
/// When the directory cannot be opened or the mount cannot be made.
pub(super) fn mount(options: &MountOptions) -> Result<(), Error> {
    let failed = |what: String| move |error: std::io::Error| Error::system(what, error, "");
    let threads = options.threads.map_or_else(cores, usize::from);
    let descriptors = limits::raise(None, threads as u64)?;
    let config = options.file_system.config(descriptors, false)?;
    let read_only = config.read_only;
    let what = format!("cannot share '{}'", options.source.display());
    let root: OwnedFd = std::fs::File::open(&options.source).map_err(failed(what.clone()))?.into();
    let fds = SelfFds::open().map_err(|errno| Error::Failed(format!("cannot open /proc/self/fd: {errno}")))?;
    let shared = Passthrough::new(root, fds, config).map_err(|errno| cannot_share(what, errno))?;
    let server = Server::new(shared, Options { read_only, ..Options::default() });

    // Blocked before the first thread starts, so that all of them hold the signals back.
    let stop = StopSignals::block().map_err(failed("cannot hold back signals".into()))?;
    let at = format!("cannot mount at '{}'", options.mountpoint.display());
    let mount = Mount::new(&options.source, &options.mountpoint, read_only).map_err(|error| {
        let mend = if error.kind() == std::io::ErrorKind::PermissionDenied { "mounting takes root" } else { "" };
        Error::system(at, error, mend)
    })?;
    let (ended, serving) = std::io::pipe().map_err(failed("cannot make a pipe".into()))?;
    descriptors.remark();
    log::info!("'{}' is mounted at '{}'", options.source.display(), options.mountpoint.display());
    thread::scope(|scope| {
        let served = scope.spawn(|| {
            // Closed when serving ends, for whatever reason.
            let _serving = serving;
            mount.serve(&server, threads)
        });
        let mut wait = [PollFd::new(&stop, PollFlags::IN), PollFd::new(&ended, PollFlags::IN)];
        let waited = rustix::io::retry_on_intr(|| poll(&mut wait, None));
        // Also when nobody asked for an end but serving failed: a mount without a server would hang its users.
        let _ = mount.unmount();
        let served = served.join().unwrap_or_else(|_| Err(std::io::Error::other("the server panicked")));
        waited.map_err(Into::into).and(served).map_err(failed("cannot serve".into()))
    })
}

fn cores() -> usize {
    thread::available_parallelism().map_or(2, usize::from)
}
