//! A bridge between this machine's own kernel FUSE client and a vhost-user-fs daemon: a real client at native speed,
//! over real virtqueues, without a VM.
//!
//! It does what a guest's virtio-fs driver does, no more: FORGET goes to hiprio, INTERRUPT nowhere, DESTROY is sent at
//! the end. It changes one message only: the reply to INIT, so that requests fit its buffers.

mod counts;
mod device;
mod notifier;
mod shape;
mod worker;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fuse_abi::{InHeader, InitFlags, InitOut, Opcode, OutHeader};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::Timespec;
use zerocopy::{FromBytes, IntoBytes};

pub use counts::{Counts, Snapshot};
use device::Device;
use notifier::{NOTIFICATIONS, Notifier};
use worker::Worker;

use crate::client::{MAX_PAYLOAD, start_lane};
use crate::error::{Error, Result};
use crate::front_end::{FrontEnd, Options, Queue, virtio};
use crate::lane::{Cuts, Lane, LaneSize, REPLY_LEAD};
use crate::memory::PAGE;

/// The buffers of hiprio.
const HIPRIO: LaneSize = LaneSize { slots: 64, request: 4096, reply: 4096, indirect: true };
/// How long a busy mount is tried again before it is taken away by force.
const BUSY: Duration = Duration::from_secs(2);

/// How to bridge.
#[derive(Clone, Debug)]
pub struct BridgeOptions {
    /// Request queues, a thread each.
    pub queues: u16,
    /// Descriptors in each ring.
    pub queue_size: u16,
    /// Requests in flight on each queue.
    pub depth: u16,
    /// Virtio features to acknowledge where offered.
    pub virtio: u64,
    /// Cut payloads into descriptors of a page, as a guest with scattered memory does.
    pub pages: bool,
    /// How long a queue looks for replies before it sleeps.
    pub spin: Duration,
    /// How long the daemon may take to answer control messages, and to finish at the end.
    pub limit: Duration,
    /// More mount options, for example `max_read`.
    pub mount_options: Vec<(String, Option<String>)>,
}

impl Default for BridgeOptions {
    fn default() -> Self {
        Self {
            queues: 1,
            queue_size: 256,
            depth: 64,
            virtio: Options::default().virtio,
            pages: false,
            spin: Duration::ZERO,
            limit: Duration::from_secs(30),
            mount_options: Vec::new(),
        }
    }
}

/// A mounted bridge. Dropping it unmounts.
pub struct Bridge {
    mountpoint: PathBuf,
    counts: Arc<Counts>,
    hiprio: Arc<Mutex<Lane>>,
    front: FrontEnd,
    init: InitOut,
    workers: Vec<JoinHandle<Result<Lane>>>,
    helpers: Vec<JoinHandle<Result<()>>>,
    gone: Arc<OwnedFd>,
    daemon_gone: Arc<AtomicBool>,
    limit: Duration,
}

impl Bridge {
    /// Sets the device up over a connected socket, mounts, and lets kernel and daemon agree on INIT.
    pub fn mount(stream: UnixStream, mountpoint: &Path, options: &BridgeOptions) -> Result<Self> {
        let size = LaneSize {
            slots: options.depth,
            request: MAX_PAYLOAD + PAGE as u32,
            reply: MAX_PAYLOAD + PAGE as u32,
            indirect: true,
        };
        // What the slots of all queues take, and as much again for rings, hiprio and notifications.
        let slots = u64::from(options.queues) * u64::from(options.depth) * u64::from(2 * MAX_PAYLOAD + (64 << 10));
        let memory = (slots + (64 << 20)).next_multiple_of(2 << 20);
        let front_options = Options {
            virtio: options.virtio,
            memory: vec![(0, memory)],
            request_queues: options.queues,
            queue_size: options.queue_size,
            limit: options.limit,
            ..Options::default()
        };
        let mut front = FrontEnd::new(stream, &front_options)?;
        let hiprio = start_lane(&mut front, Queue::Hiprio, options.queue_size, HIPRIO)?;
        let notifications = (front.virtio() & virtio::NOTIFICATION != 0)
            .then(|| start_lane(&mut front, Queue::Notification, options.queue_size, NOTIFICATIONS))
            .transpose()?;
        let mut lanes = (0..options.queues)
            .map(|n| start_lane(&mut front, Queue::Request(n), options.queue_size, size))
            .collect::<Result<Vec<_>>>()?;

        let device = Device::open()?;
        device.mount(mountpoint, "ferryfs-bridge", &options.mount_options)?;
        let first = lanes.first_mut().ok_or_else(|| Error::Layout("no request queue".into()))?;
        let counts = Arc::new(Counts::default());
        let init = agree(&device, first, options.limit, &counts).inspect_err(|_| drop(device::abort(mountpoint)))?;

        let gone = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(Error::io("eventfd"))?;
        let mut bridge = Self {
            mountpoint: mountpoint.to_owned(),
            counts,
            hiprio: Arc::new(Mutex::new(hiprio)),
            front,
            init,
            workers: Vec::new(),
            helpers: Vec::new(),
            gone: Arc::new(gone),
            daemon_gone: Arc::default(),
            limit: options.limit,
        };
        match bridge.start(device, lanes, notifications, options) {
            Ok(()) => Ok(bridge),
            Err(error) => {
                let _ = device::abort(mountpoint);
                let _ = bridge.end();
                Err(error)
            }
        }
    }

    /// Where it is mounted.
    #[must_use]
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// The counters of requests.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What the daemon answered to INIT, as the kernel was told.
    #[must_use]
    pub fn init(&self) -> &InitOut {
        &self.init
    }

    /// The control side, to change things under load.
    pub fn front(&mut self) -> &mut FrontEnd {
        &mut self.front
    }

    /// Becomes readable when the mount is gone.
    #[must_use]
    pub fn gone_fd(&self) -> BorrowedFd<'_> {
        self.gone.as_fd()
    }

    /// Unmounts, lets the daemon finish, sends DESTROY, and disconnects.
    pub fn unmount(mut self) -> Result<()> {
        self.end()
    }

    fn start(
        &mut self,
        device: Device,
        lanes: Vec<Lane>,
        notifications: Option<Lane>,
        options: &BridgeOptions,
    ) -> Result<()> {
        let clones = (0..lanes.len()).map(|_| device.try_clone()).collect::<Result<Vec<_>>>()?;
        self.watch()?;
        if let Some(lane) = notifications {
            let gone = self.gone.try_clone().map_err(Error::io("dup"))?;
            let notifier = Notifier { device: device.try_clone()?, lane, counts: self.counts.clone(), gone };
            self.helpers.push(std::thread::spawn(|| notifier.run()));
        }
        for (device, lane) in clones.into_iter().zip(lanes) {
            let (hiprio, counts) = (self.hiprio.clone(), self.counts.clone());
            let (limit, spin, pages) = (options.limit, options.spin, options.pages);
            let daemon_gone = self.daemon_gone.clone();
            let worker = Worker { device, lane, hiprio, counts, limit, spin, pages, daemon_gone };
            let (gone, mountpoint) = (self.gone.clone(), self.mountpoint.clone());
            self.workers.push(std::thread::spawn(move || {
                let result = worker.run();
                if let Err(error) = &result {
                    // Callers must not wait for a queue that nobody serves.
                    eprintln!("bridge: {error}");
                    let _ = device::abort(&mountpoint);
                }
                let _ = rustix::io::write(&gone, &1u64.to_ne_bytes());
                result
            }));
        }
        Ok(())
    }

    /// Ends the mount when the daemon hangs up: otherwise every access would wait for ever.
    fn watch(&mut self) -> Result<()> {
        let socket = self.front.as_fd().try_clone_to_owned().map_err(Error::io("dup"))?;
        let (gone, mountpoint, daemon_gone) = (self.gone.clone(), self.mountpoint.clone(), self.daemon_gone.clone());
        self.helpers.push(std::thread::spawn(move || {
            let mut fds = [PollFd::new(&socket, PollFlags::RDHUP), PollFd::new(&gone, PollFlags::IN)];
            while let Err(rustix::io::Errno::INTR) = poll(&mut fds, None) {}
            // Looked at first: a mount that ended because the daemon died shows both.
            if !fds[0].revents().is_empty() {
                daemon_gone.store(true, Ordering::SeqCst);
                let _ = device::abort(&mountpoint);
                return Err(Error::Closed);
            }
            Ok(())
        }));
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let busy = if self.workers.iter().all(JoinHandle::is_finished) { Ok(()) } else { self.unmount_now() };
        let mut result = busy;
        let mut lanes = Vec::new();
        for worker in self.workers.drain(..) {
            match worker.join() {
                Ok(Ok(lane)) => lanes.push(lane),
                Ok(Err(error)) => result = Err(error),
                Err(_) => result = Err(Error::Daemon("a thread of the bridge panicked".into())),
            }
        }
        let _ = rustix::io::write(&*self.gone, &1u64.to_ne_bytes());
        for helper in self.helpers.drain(..) {
            if let Ok(Err(error)) = helper.join() {
                result = Err(error);
            }
        }
        if let (Ok(()), Some(lane)) = (&result, lanes.first_mut()) {
            self.hiprio.lock().unwrap_or_else(PoisonError::into_inner).drain(self.limit)?;
            destroy(lane, self.limit)?;
        }
        result
    }

    fn unmount_now(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            let Err(error) = device::unmount_plain(&self.mountpoint) else { return Ok(()) };
            let busy = error.raw_os_error() == Some(fuse_abi::Errno::EBUSY.get());
            if !busy || start.elapsed() > BUSY {
                // Gone already, or held by somebody: either way no caller may be left waiting.
                let _ = device::abort(&self.mountpoint);
                return if busy { Err(Error::Io { what: "unmount", source: error }) } else { Ok(()) };
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if !self.workers.is_empty() {
            let _ = self.end();
        }
    }
}

/// Carries INIT, and holds the reply to what the slots can carry.
fn agree(device: &Device, lane: &mut Lane, limit: Duration, counts: &Counts) -> Result<InitOut> {
    let mut fds = [PollFd::new(device, PollFlags::IN)];
    let timeout = Timespec::try_from(limit).map_err(|e| Error::Layout(e.to_string()))?;
    if poll(&mut fds, Some(&timeout)).map_err(Error::io("wait for INIT"))? == 0 {
        return Err(Error::Timeout { what: "wait for INIT from the kernel", limit });
    }
    let slot = lane.take().ok_or(Error::Full)?;
    let len = lane.fill_from(&slot, &mut device.as_fd())?.map_err(Error::io("read INIT"))?;
    let header = lane.header(&slot)?;
    counts.request(header.opcode);
    if header.opcode != Opcode::Init.number() {
        return Err(Error::Protocol(format!("the kernel began with {header:?}")));
    }
    let size = size_of::<InitOut>();
    lane.submit(slot, header.unique, len, REPLY_LEAD + size as u32, &Cuts::LINUX)?;
    let completion = lane.complete(limit)?;
    completion.check()?;
    let body = completion.body()?;
    let mut init = InitOut::read_from_bytes(&body)
        .map_err(|_| Error::Reply(format!("{} bytes in reply to INIT, not {size}", body.len())))?;
    init.max_write = init.max_write.min(MAX_PAYLOAD);
    init.max_pages = init.max_pages.min((u64::from(MAX_PAYLOAD) / PAGE) as u16);
    // The bridge reads requests from the device, not from a ring of the kernel's.
    let (_, ring) = InitFlags::OVER_IO_URING.split();
    init.flags2 &= !ring;
    let reply = OutHeader { len: REPLY_LEAD + size as u32, error: 0, unique: header.unique };
    let bytes = [reply.as_bytes(), init.as_bytes()].concat();
    rustix::io::write(device, &bytes).map_err(Error::io("answer INIT"))?;
    Ok(init)
}

/// DESTROY, which /dev/fuse mounts do not send and virtio-fs does.
fn destroy(lane: &mut Lane, limit: Duration) -> Result<()> {
    let len = size_of::<InHeader>() as u32;
    // Odd numbers are never used by the kernel for requests.
    let header = InHeader { len, opcode: Opcode::Destroy.number(), unique: 1, ..InHeader::default() };
    lane.send(header.unique, header.as_bytes(), &[], REPLY_LEAD, &Cuts::LINUX)?;
    lane.complete(limit)?;
    Ok(())
}
