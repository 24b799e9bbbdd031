//! A split virtqueue driven by hand, from the driver's side: post anything, see exactly what the device gives back.
//!
//! The ring keeps its own books of what is in flight, outside guest memory, so that a chain answered twice or never
//! posted is found. It does not know what the chains mean.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::Timespec;
use rustix::io::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::error::{Error, Result};
use crate::memory::{Arena, Memory};

/// The descriptor goes on at `next`.
pub const NEXT: u16 = 1;
/// The device writes to it.
pub const WRITE: u16 = 2;
/// It holds a table of descriptors.
pub const INDIRECT: u16 = 4;

/// In the flags of the available ring: the driver wants no call.
const NO_INTERRUPT: u16 = 1;
/// In the flags of the used ring: the device wants no kick.
const NO_NOTIFY: u16 = 1;

/// A descriptor as it lies in guest memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Desc {
    /// Guest address.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
    /// [`NEXT`], [`WRITE`], [`INDIRECT`], or anything.
    pub flags: u16,
    /// The next descriptor of the chain.
    pub next: u16,
}

impl Desc {
    /// A buffer that the device reads.
    #[must_use]
    pub fn readable(addr: u64, len: u32) -> Self {
        Self { addr, len, ..Self::default() }
    }

    /// A buffer that the device writes.
    #[must_use]
    pub fn writable(addr: u64, len: u32) -> Self {
        Self { addr, len, flags: WRITE, next: 0 }
    }

    /// A table of `count` descriptors.
    #[must_use]
    pub fn indirect(addr: u64, count: usize) -> Self {
        Self { addr, len: (count * size_of::<Self>()) as u32, flags: INDIRECT, next: 0 }
    }
}

/// Sets `next` and [`NEXT`] so that the descriptors form one chain in order, numbered from 0: a correct indirect table.
pub fn link(table: &mut [Desc]) {
    let last = table.len().saturating_sub(1);
    for (index, desc) in table.iter_mut().enumerate() {
        (desc.flags, desc.next) =
            if index < last { (desc.flags | NEXT, index as u16 + 1) } else { (desc.flags & !NEXT, 0) };
    }
}

/// A chain that the device gave back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// The descriptor that the chain begins with.
    pub head: u16,
    /// How many bytes the device says it wrote.
    pub len: u32,
}

/// Where the three parts of a ring lie in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Number of descriptors, a power of two.
    pub size: u16,
    /// The descriptor table.
    pub desc: u64,
    /// The available ring.
    pub avail: u64,
    /// The used ring.
    pub used: u64,
}

impl Layout {
    /// Takes room for a ring of `size` descriptors.
    pub fn take(arena: &mut Arena, size: u16) -> Result<Self> {
        let n = u64::from(size);
        Ok(Self {
            size,
            desc: arena.take(16 * n, 16)?,
            avail: arena.take(6 + 2 * n, 2)?,
            used: arena.take(6 + 8 * n, 4)?,
        })
    }

    fn avail_entry(&self, index: u16) -> u64 {
        self.avail + 4 + 2 * u64::from(index % self.size)
    }

    fn used_entry(&self, index: u16) -> u64 {
        self.used + 4 + 8 * u64::from(index % self.size)
    }

    /// Where the driver says after which used entry it wants a call.
    fn used_event(&self) -> u64 {
        self.avail + 4 + 2 * u64::from(self.size)
    }

    /// Where the device says after which available entry it wants a kick.
    fn avail_event(&self) -> u64 {
        self.used + 4 + 8 * u64::from(self.size)
    }
}

/// What the daemon is told of a ring: enough to stop and start it while another thread drives it.
#[derive(Debug)]
pub struct Ends {
    /// Where it lies.
    pub layout: Layout,
    /// The descriptor that wakes the device.
    pub kick: OwnedFd,
    /// The descriptor by which the device wakes us.
    pub call: OwnedFd,
}

/// The driver's side of one queue.
pub struct Ring {
    memory: Memory,
    layout: Layout,
    event_idx: bool,
    kick: OwnedFd,
    call: OwnedFd,
    /// Descriptors that no chain holds.
    free: Vec<u16>,
    /// For each head in flight how many descriptors its chain holds, else 0.
    held: Vec<u16>,
    /// For each descriptor of a chain the one reserved after it.
    after: Vec<u16>,
    /// The next available entry to fill, which may be ahead of what the device was told.
    next_avail: u16,
    /// The available index at the last decision about a kick.
    kicked_at: u16,
    next_used: u16,
}

impl Ring {
    /// A ring of zeros; `event_idx` as negotiated.
    pub fn new(memory: Memory, layout: Layout, event_idx: bool) -> Result<Self> {
        let new_fd = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(Error::io("eventfd"));
        let n = usize::from(layout.size);
        let mut ring = Self {
            memory,
            layout,
            event_idx,
            kick: new_fd()?,
            call: new_fd()?,
            free: Vec::with_capacity(n),
            held: vec![0; n],
            after: vec![0; n],
            next_avail: 0,
            kicked_at: 0,
            next_used: 0,
        };
        ring.reset()?;
        Ok(ring)
    }

    /// Back to an empty ring, as after a device reset. The device must not be using it.
    pub fn reset(&mut self) -> Result<()> {
        let n = usize::from(self.layout.size);
        self.memory.fill(self.layout.desc, 16 * n, 0)?;
        self.memory.fill(self.layout.avail, 6 + 2 * n, 0)?;
        self.memory.fill(self.layout.used, 6 + 8 * n, 0)?;
        self.free.clear();
        self.free.extend((0..self.layout.size).rev());
        self.held.fill(0);
        (self.next_avail, self.kicked_at, self.next_used) = (0, 0, 0);
        self.drain_call();
        Ok(())
    }

    /// Where the ring lies.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The memory it lies in.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The descriptor that wakes the device.
    #[must_use]
    pub fn kick_fd(&self) -> BorrowedFd<'_> {
        self.kick.as_fd()
    }

    /// The descriptor by which the device wakes us.
    #[must_use]
    pub fn call_fd(&self) -> BorrowedFd<'_> {
        self.call.as_fd()
    }

    /// Its ends, for whoever talks to the daemon.
    pub fn ends(&self) -> Result<Ends> {
        let copy = |fd: &OwnedFd| fd.try_clone().map_err(Error::io("copy a descriptor"));
        Ok(Ends { layout: self.layout, kick: copy(&self.kick)?, call: copy(&self.call)? })
    }

    /// How many descriptors are free.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// How many chains the device has not given back.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.held.iter().filter(|&&held| held > 0).count()
    }

    /// The available index, published or not.
    #[must_use]
    pub fn next_avail(&self) -> u16 {
        self.next_avail
    }

    /// The used index up to which chains were taken back.
    #[must_use]
    pub fn next_used(&self) -> u16 {
        self.next_used
    }

    // Posting.

    /// Links the descriptors into a chain and stages it; [`Ring::publish`] shows it to the device.
    pub fn add(&mut self, chain: &[Desc]) -> Result<u16> {
        let head = self.reserve(chain.len())?;
        let mut index = head;
        for (position, desc) in chain.iter().enumerate() {
            let next = self.after[usize::from(index)];
            let more = position + 1 < chain.len();
            let (flags, next) = if more { (desc.flags | NEXT, next) } else { (desc.flags & !NEXT, 0) };
            self.set(index, Desc { flags, next, ..*desc })?;
            index = self.after[usize::from(index)];
        }
        self.stage(head)?;
        Ok(head)
    }

    /// Writes a correct indirect table at `table` and stages the one descriptor that points to it. Links `chain`.
    pub fn add_indirect(&mut self, table: u64, chain: &mut [Desc]) -> Result<u16> {
        link(chain);
        self.memory.write(table, chain.as_bytes())?;
        self.add(&[Desc::indirect(table, chain.len())])
    }

    /// [`Ring::add`], [`Ring::publish`], and [`Ring::notify`].
    pub fn post(&mut self, chain: &[Desc]) -> Result<u16> {
        let head = self.add(chain)?;
        self.publish()?;
        self.notify()?;
        Ok(head)
    }

    /// Writes the descriptors as they are, `next` relative to the chain's own positions, and posts the first:
    /// loops, missing ends, wrong flags. A `next` beyond the list is written as it is.
    pub fn post_raw(&mut self, chain: &[Desc]) -> Result<u16> {
        let head = self.add_raw(chain)?;
        self.publish()?;
        self.notify()?;
        Ok(head)
    }

    /// [`Ring::post_raw`] without showing it.
    pub fn add_raw(&mut self, chain: &[Desc]) -> Result<u16> {
        let head = self.reserve(chain.len())?;
        let after = |&id: &u16| Some(self.after[usize::from(id)]);
        let ids: Vec<u16> = std::iter::successors(Some(head), after).take(chain.len()).collect();
        for (desc, &id) in chain.iter().zip(&ids) {
            let next = ids.get(usize::from(desc.next)).copied().unwrap_or(desc.next);
            self.set(id, Desc { next, ..*desc })?;
        }
        self.stage(head)?;
        Ok(head)
    }

    /// Takes `count` free descriptors for a chain and returns its head; it is in flight from here on.
    pub fn reserve(&mut self, count: usize) -> Result<u16> {
        if count == 0 || count > self.free.len() {
            return Err(Error::Full);
        }
        // Taken from the end: the last one freed is the first one used, and still in the cache.
        let from = self.free.len() - count;
        for pair in self.free[from..].windows(2) {
            self.after[usize::from(pair[1])] = pair[0];
        }
        let head = self.free[self.free.len() - 1];
        self.free.truncate(from);
        self.held[usize::from(head)] = count as u16;
        Ok(head)
    }

    /// Writes one descriptor of the table.
    pub fn set(&self, index: u16, desc: Desc) -> Result<()> {
        self.memory.put(self.layout.desc + 16 * u64::from(index), &desc)
    }

    /// Puts any head into the next available entry, without showing it.
    pub fn stage(&mut self, head: u16) -> Result<()> {
        self.memory.put(self.layout.avail_entry(self.next_avail), &head)?;
        self.next_avail = self.next_avail.wrapping_add(1);
        Ok(())
    }

    /// Shows the device everything that was staged.
    pub fn publish(&self) -> Result<()> {
        self.set_avail_index(self.next_avail)
    }

    /// Writes any available index.
    pub fn set_avail_index(&self, index: u16) -> Result<()> {
        self.memory.store(self.layout.avail + 2, index)
    }

    /// Kicks if the device asked to be told of what was published since the last call.
    pub fn notify(&mut self) -> Result<bool> {
        // The device reads the index before it looks again, we the other way round: both need the full fence.
        fence(Ordering::SeqCst);
        let (old, new) = (self.kicked_at, self.next_avail);
        self.kicked_at = new;
        let wanted = if self.event_idx {
            let event = self.memory.load(self.layout.avail_event())?;
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            self.memory.load(self.layout.used)? & NO_NOTIFY == 0
        };
        if wanted && new != old {
            self.kick()?;
        }
        Ok(wanted && new != old)
    }

    /// Kicks, asked or not.
    pub fn kick(&self) -> Result<()> {
        match rustix::io::write(&self.kick, &1u64.to_ne_bytes()) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(Error::io("kick")(errno)),
        }
    }

    // Taking back.

    /// Whether the device gave something back that was not taken yet.
    pub fn has_used(&self) -> Result<bool> {
        Ok(self.memory.load(self.layout.used + 2)? != self.next_used)
    }

    /// The next chain that the device gave back, if there is one.
    pub fn pop(&mut self) -> Result<Option<Used>> {
        let pending = self.memory.load(self.layout.used + 2)?.wrapping_sub(self.next_used);
        if pending == 0 {
            return Ok(None);
        }
        if pending > self.layout.size {
            return Err(Error::UsedIndex(pending));
        }
        let [id, len] = self.memory.get::<[u32; 2]>(self.layout.used_entry(self.next_used))?;
        self.next_used = self.next_used.wrapping_add(1);
        let head = u16::try_from(id).map_err(|_| Error::NotInFlight(id))?;
        self.release(head)?;
        Ok(Some(Used { head, len }))
    }

    /// Takes a chain's descriptors back without the device having used it: after a stop, or when it was dropped.
    pub fn release(&mut self, head: u16) -> Result<()> {
        let held = self.held.get_mut(usize::from(head)).filter(|held| **held > 0);
        let count = std::mem::take(held.ok_or(Error::NotInFlight(head.into()))?);
        let mut index = head;
        let from = self.free.len();
        for _ in 0..count {
            self.free.push(index);
            index = self.after[usize::from(index)];
        }
        self.free[from..].reverse();
        Ok(())
    }

    /// Asks for a call at the next used chain. Look once more after it, then wait.
    pub fn arm(&self) -> Result<()> {
        if self.event_idx {
            self.memory.store(self.layout.used_event(), self.next_used)?;
        } else {
            self.memory.store(self.layout.avail, 0)?;
        }
        fence(Ordering::SeqCst);
        Ok(())
    }

    /// Asks for no calls.
    pub fn disarm(&self) -> Result<()> {
        if self.event_idx {
            // An entry that lies a whole turn of the index away.
            self.memory.store(self.layout.used_event(), self.next_used.wrapping_sub(1))
        } else {
            self.memory.store(self.layout.avail, NO_INTERRUPT)
        }
    }

    /// The used index as the device left it.
    pub fn used_index(&self) -> Result<u16> {
        self.memory.load(self.layout.used + 2)
    }

    /// Clears the call descriptor and says how often the device has called since.
    pub fn drain_call(&self) -> u64 {
        let mut count = [0; 8];
        match rustix::io::read(&self.call, &mut count) {
            Ok(_) => u64::from_ne_bytes(count),
            Err(_) => 0,
        }
    }

    /// Waits for the next used chain; the device must call for it.
    pub fn wait(&mut self, limit: Duration) -> Result<Used> {
        let end = Instant::now() + limit;
        loop {
            if let Some(used) = self.pop()? {
                return Ok(used);
            }
            self.arm()?;
            if let Some(used) = self.pop()? {
                return Ok(used);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.wait_call(left)? {
                return Err(Error::Timeout { what: "wait for a used chain", limit });
            }
        }
    }

    /// Waits until the device calls; false when the time is over.
    pub fn wait_call(&self, limit: Duration) -> Result<bool> {
        let mut fds = [PollFd::new(&self.call, PollFlags::IN)];
        let limit = Timespec::try_from(limit).map_err(|e| Error::Layout(e.to_string()))?;
        match poll(&mut fds, Some(&limit)) {
            Ok(0) => Ok(false),
            Ok(_) => {
                self.drain_call();
                Ok(true)
            }
            Err(Errno::INTR) => Ok(true),
            Err(errno) => Err(Error::io("wait for a call")(errno)),
        }
    }
}
