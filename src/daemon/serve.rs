//! Serving front ends, in a process that is isolated already.

use super::{
    Setup,
    error::Error,
    logging,
    seccomp::{self, Role},
    values::SandboxMode,
};
use crate::{
    host::SelfFds,
    passthrough::Passthrough,
    protocol::{Options, Server},
    transport::vhost_user::{self, DeviceOptions, ThreadRole},
};

/// Serves one front end, or one after the other with `--persist`.
///
/// # Errors
/// When the share cannot be served or the socket fails.
pub(super) fn serve(setup: Setup) -> Result<(), Error> {
    let Setup { preopened, listener, options, descriptors, ready } = setup;
    let failed = |what: &'static str| move |error: std::io::Error| Error::system(what, error, "");
    let unshared = |errno| Error::Failed(format!("cannot share the directory: {errno}"));

    let contained = options.isolation.sandbox != SandboxMode::None;
    let config = options.file_system.config(descriptors, contained)?;
    let protocol = Options { read_only: config.read_only, ..Options::default() };
    let fds = SelfFds::from_directory(preopened.proc_self_fd).map_err(unshared)?;
    let server = Server::new(Passthrough::new(preopened.shared_dir, fds, config).map_err(unshared)?, protocol);
    let device = DeviceOptions {
        tag: options.tag.as_ref().map(|tag| tag.as_str().to_owned()),
        request_queues: options.queues.request_queues(),
        pool_threads: options.queues.pool_threads(),
        polling: options.queues.polling(),
        notify: options.file_system.notify,
    };
    ready.announce()?;
    loop {
        let (connection, _) = listener.accept().map_err(failed("cannot accept a front end"))?;
        log::info!("a front end connected");
        match vhost_user::serve(connection, &server, &device, &confine) {
            Ok(()) => log::info!("the front end left"),
            Err(error) if options.queues.persist => log::warn!("the front end was dropped: {error}"),
            Err(error) => return Err(failed("the front end cannot be served")(error)),
        }
        if !options.queues.persist {
            return Ok(());
        }
    }
}

/// A thread that cannot be confined must not touch what a guest sends.
fn confine(role: ThreadRole) {
    let role = match role {
        ThreadRole::Worker => Role::Worker,
        ThreadRole::Pool => Role::Pool,
        ThreadRole::Notifier => Role::Notifier,
        ThreadRole::Watcher => Role::Watcher,
    };
    if let Err(error) = seccomp::confine(role) {
        logging::report(&error);
        std::process::exit(1);
    }
}
