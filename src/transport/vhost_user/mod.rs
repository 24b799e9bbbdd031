//! A vhost-user device: virtqueues that a virtual machine monitor hands over, each served by a thread of its own.
//!
//! It stands on `vhost` for the messages and on `virtio-queue` for the rings. `vhost-user-backend`, which joins the two,
//! is not used: its worker ends for good at the first error, it forgets nothing of a ring at a reset, and its threads
//! begin without a chance to confine them.

mod closing;
mod device;
mod dirty;
mod drops;
mod mapping;
mod notifier;
mod polling;
mod pool;
mod ring;
mod worker;

use std::{
    io,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use vhost::vhost_user::{BackendReqHandler, Error};

pub use self::closing::Closing;
use self::{
    device::{Device, Told},
    drops::Drops,
    polling::Polling,
    pool::Pool,
    ring::Ring,
    worker::Worker,
};
use crate::protocol::{FileSystem, Server};

/// The queue that FORGET and INTERRUPT come by.
const HIPRIO: usize = 0;

/// How a device is served.
#[derive(Clone, Debug)]
pub struct DeviceOptions {
    /// The name a guest mounts it by, for front ends that do not give one.
    pub tag: Option<String>,
    /// How many request queues the front end may set up.
    pub request_queues: usize,
    /// How many threads wait for what blocks; 0 lets the queues' own threads wait.
    pub pool_threads: usize,
    /// How long a queue's thread looks for requests before it sleeps.
    pub polling: Duration,
    /// Offer the guest a queue by which it hears what it did not ask for.
    pub notify: bool,
    /// Let the file system follow the host for the record, whether or not the guest hears.
    pub record: bool,
}

/// What a thread is for: told to whoever confines it, before it does anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadRole {
    /// Serves a queue.
    Worker,
    /// Waits for what blocks.
    Pool,
    /// Tells the guest what it did not ask for.
    Notifier,
    /// Follows what happens on the host.
    Watcher,
}

/// Serves one front end until it leaves, or until `closing` says that no more is taken. When this returns nothing is in
/// flight and the guest's session is over.
///
/// # Errors
/// When a thread or a descriptor cannot be had, or the front end says what cannot be.
pub fn serve<F: FileSystem>(
    connection: UnixStream,
    server: &Server<F>,
    options: &DeviceOptions,
    closing: &Closing,
    confine: &(impl Fn(ThreadRole) + Sync),
) -> io::Result<()> {
    // A front end that counts a queue of notifications and does not take it may use one more for requests.
    let spare = usize::from(options.notify);
    let rings: Vec<Arc<Ring>> = (0..=options.request_queues + spare).map(Ring::new).collect::<io::Result<_>>()?;
    let follows = options.notify || options.record;
    let notifications = follows.then(|| Ring::new(notifier::QUEUE)).transpose()?;
    let (pool, drops) = (Pool::default(), Drops::default());
    let fs = server.file_system();
    let _admitted = closing.admit(&rings);
    thread::scope(|scope| {
        let crew = Crew { rings: &rings, notifications: notifications.as_deref(), pool: &pool, fs };
        for ring in &rings {
            let ring = Arc::clone(ring);
            let name = if ring.index == HIPRIO { "hiprio".into() } else { format!("queue {}", ring.index) };
            let worker = Worker {
                server,
                pool: (options.pool_threads > 0).then_some(&pool),
                // What comes by the queue of high priority has no reply that anybody waits for.
                polling: Polling::new(if ring.index == HIPRIO { Duration::ZERO } else { options.polling }),
                drops: &drops,
                ring,
            };
            thread::Builder::new().name(name).spawn_scoped(scope, move || {
                let _vital = Vital;
                server.file_system().begin_thread();
                confine(ThreadRole::Worker);
                worker.run();
            })?;
        }
        for _ in 0..options.pool_threads {
            thread::Builder::new().name("pool".into()).spawn_scoped(scope, || {
                let _vital = Vital;
                server.file_system().begin_thread();
                confine(ThreadRole::Pool);
                pool.run(server, &drops);
            })?;
        }
        if let Some(ring) = &notifications {
            fs.unmute();
            thread::Builder::new().name("notifier".into()).spawn_scoped(scope, || {
                let _vital = Vital;
                fs.begin_thread();
                confine(ThreadRole::Notifier);
                notifier::run(ring, server, options.record);
            })?;
            thread::Builder::new().name("watcher".into()).spawn_scoped(scope, || {
                let _vital = Vital;
                confine(ThreadRole::Watcher);
                fs.watch();
            })?;
        }
        let ended = talk(connection, &rings, notifications.as_ref().filter(|_| options.notify), server, options);
        drop(crew);
        server.end_session();
        ended
    })
}

/// Stops everybody when it is dropped, however serving ended: the threads are waited for.
struct Crew<'c, F: FileSystem> {
    rings: &'c [Arc<Ring>],
    notifications: Option<&'c Ring>,
    pool: &'c Pool,
    fs: &'c F,
}

impl<F: FileSystem> Drop for Crew<'_, F> {
    fn drop(&mut self) {
        self.rings.iter().map(|ring| &**ring).chain(self.notifications).for_each(Ring::end);
        self.fs.mute();
        self.pool.end();
    }
}

/// In a thread that no queue, and no guest that relies on being told, can do without. A panic within a request ends that request alone; one anywhere else would
/// leave requests that nobody hands back, and whoever stops the ring would wait for them for ever.
struct Vital;

impl Drop for Vital {
    fn drop(&mut self) {
        if thread::panicking() {
            log::error!("a thread that serves the guest has failed: nothing can be served any more");
            std::process::abort();
        }
    }
}

/// Answers the front end's messages until it leaves.
fn talk<F: FileSystem>(
    connection: UnixStream,
    rings: &[Arc<Ring>],
    notifications: Option<&Arc<Ring>>,
    server: &Server<F>,
    options: &DeviceOptions,
) -> io::Result<()> {
    let (end_session, unheard) = (|| server.end_session(), || server.file_system().unheard());
    let device = Device::new(
        rings.to_vec(),
        notifications.cloned(),
        options,
        Told { end_session: &end_session, unheard: &unheard },
    );
    let mut messages = BackendReqHandler::from_stream(connection, Arc::new(Mutex::new(device)));
    loop {
        match messages.handle_request() {
            Ok(()) => {}
            Err(Error::Disconnected | Error::SocketBroken(_) | Error::PartialMessage) => return Ok(()),
            Err(error) => return Err(io::Error::other(error)),
        }
    }
}
