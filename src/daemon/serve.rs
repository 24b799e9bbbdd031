//! Serving front ends, in a process that is isolated already.

use std::{sync::Arc, time::Duration};

use fuse_abi::Errno;

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
    transport::vhost_user::{self, Closing, DeviceOptions, ThreadRole},
};

/// How long a signal's end may be put off by requests that are under way. Those who send one wait ten seconds and more
/// before they kill.
const LAST_WORK: Duration = Duration::from_secs(5);

/// Serves one front end, or one after the other with `--persist`.
///
/// # Errors
/// When the share cannot be served or the socket fails.
pub(super) fn serve(setup: Setup) -> Result<(), Error> {
    let Setup { preopened, listener, options, descriptors, ready, last_work } = setup;
    let failed = |what: &'static str| move |error: std::io::Error| Error::system(what, error, "");
    let unshared = |errno| cannot_share("cannot share the directory".into(), errno);

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
        record: options.file_system.event_file.is_some(),
    };
    let closing = Arc::new(Closing::default());
    last_work.set({
        let closing = Arc::clone(&closing);
        move || finish(&closing)
    });
    descriptors.remark();
    ready.announce()?;
    loop {
        let (connection, _) = listener.accept().map_err(failed("cannot accept a front end"))?;
        log::info!("a front end connected");
        match vhost_user::serve(connection, &server, &device, &closing, &confine) {
            Ok(()) => log::info!("the front end left"),
            Err(error) if options.queues.persist => log::warn!("the front end was dropped: {error}"),
            Err(error) => return Err(failed("the front end cannot be served")(error)),
        }
        if !options.queues.persist {
            return Ok(());
        }
    }
}

/// Why a directory cannot be served, and how to mend it where an option asks for too much.
pub(super) fn cannot_share(what: String, errno: Errno) -> Error {
    // The only option that a file system or a user's rights can refuse.
    let mend = match errno {
        Errno::EPERM | Errno::EOPNOTSUPP => {
            "; file handles cannot be used here, leave out --inode-file-handles=mandatory"
        }
        _ => "",
    };
    Error::Failed(format!("{what}: {errno}{mend}"))
}

fn finish(closing: &Closing) {
    if !closing.close(LAST_WORK) {
        log::warn!("some requests still wait after {} s: they are left unanswered", LAST_WORK.as_secs());
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
