//! A device in this process that answers every request at once: header alone, success. What a ring itself costs, and
//! the other side for this crate's own tests. It serves one ring and speaks no vhost-user.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::error::{Error, Result};
use crate::memory::Memory;
use crate::ring::Ring;

/// A thread that serves a ring until it is dropped.
pub struct NullDevice {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    kick: OwnedFd,
    thread: Option<JoinHandle<Result<()>>>,
}

struct Worker {
    queue: Queue,
    memory: Memory,
    kick: OwnedFd,
    call: OwnedFd,
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
}

impl NullDevice {
    /// Serves `ring`; `event_idx` as the ring was made with.
    pub fn start(ring: &Ring, event_idx: bool) -> Result<Self> {
        let layout = ring.layout();
        let wrong = |e: virtio_queue::Error| Error::Layout(e.to_string());
        let mut queue = Queue::new(layout.size).map_err(wrong)?;
        queue.try_set_desc_table_address(GuestAddress(layout.desc)).map_err(wrong)?;
        queue.try_set_avail_ring_address(GuestAddress(layout.avail)).map_err(wrong)?;
        queue.try_set_used_ring_address(GuestAddress(layout.used)).map_err(wrong)?;
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        let copy = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map_err(Error::io("dup"));
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut worker = Worker {
            queue,
            memory: ring.memory().clone(),
            kick: copy(ring.kick_fd())?,
            call: copy(ring.call_fd())?,
            stop: stop.clone(),
            served: served.clone(),
        };
        let thread = std::thread::spawn(move || worker.run());
        Ok(Self { stop, served, kick: copy(ring.kick_fd())?, thread: Some(thread) })
    }

    /// How many chains were answered.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// Stops the thread and says how it went.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        self.stop.store(true, Ordering::SeqCst);
        rustix::io::write(&self.kick, &1u64.to_ne_bytes()).map_err(Error::io("kick"))?;
        thread.join().unwrap_or_else(|_| Err(Error::Daemon("the null device panicked".into())))
    }
}

impl Drop for NullDevice {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

impl Worker {
    fn run(&mut self) -> Result<()> {
        let failed = |e: virtio_queue::Error| Error::Layout(e.to_string());
        let map = self.memory.map().clone();
        while !self.stop.load(Ordering::SeqCst) {
            self.queue.disable_notification(&map).map_err(failed)?;
            self.serve(&map).map_err(failed)?;
            if !self.queue.enable_notification(&map).map_err(failed)? {
                self.sleep()?;
            }
        }
        Ok(())
    }

    fn serve(&mut self, map: &GuestMemoryMmap<()>) -> std::result::Result<(), virtio_queue::Error> {
        let mut any = false;
        while let Some(chain) = self.queue.pop_descriptor_chain(map) {
            let head = chain.head_index();
            let unique = chain.clone().readable().next().and_then(|d| {
                let at = GuestAddress(d.addr().0.checked_add(8)?);
                map.read_obj::<u64>(at).ok()
            });
            let reply = chain.writable().next().filter(|desc| desc.len() >= 16);
            let written = match (unique, reply) {
                (Some(unique), Some(desc)) => {
                    let header: [u64; 2] = [16, unique];
                    map.write_obj(header, desc.addr()).map_or(0, |()| 16)
                }
                _ => 0,
            };
            self.queue.add_used(map, head, written)?;
            self.served.fetch_add(1, Ordering::Relaxed);
            any = true;
        }
        if any && self.queue.needs_notification(map)? {
            let _ = rustix::io::write(&self.call, &1u64.to_ne_bytes());
        }
        Ok(())
    }

    fn sleep(&self) -> Result<()> {
        let mut fds = [PollFd::from_borrowed_fd(self.kick.as_fd(), PollFlags::IN)];
        poll(&mut fds, None).map_err(Error::io("wait for a kick"))?;
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.kick, &mut count);
        Ok(())
    }
}
