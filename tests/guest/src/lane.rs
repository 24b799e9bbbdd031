//! A ring with buffers: slots of guest memory that carry one FUSE request and its reply each, many in flight.
//!
//! A slot is laid out so that the payload of a WRITE and of a READ begins on a page, as a kernel client has it:
//!
//! ```text
//! | indirect table (8 KiB) | .. request header, arguments | payload, pages .. | .. reply header | payload, pages .. |
//!                                                         ^ page boundary                      ^ page boundary
//! ```
//!
//! Knows the two headers, and nothing of what is asked.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use fuse_abi::{Errno, InHeader, OutHeader, WriteIn};
use vm_memory::{ReadVolatile, VolatileMemoryError, WriteVolatile};

use crate::error::{Error, Result};
use crate::memory::{Arena, Memory, PAGE};
use crate::ring::{Desc, Ring, Used};

/// Bytes of a request before a WRITE's payload: what ends at the page boundary.
pub const REQUEST_LEAD: u32 = (size_of::<InHeader>() + size_of::<WriteIn>()) as u32;
/// Bytes of a reply before its payload.
pub const REPLY_LEAD: u32 = size_of::<OutHeader>() as u32;

/// Bytes of a slot's indirect table.
const TABLE: u64 = 2 * PAGE;
/// The most descriptors of one chain.
const MAX_DESCS: usize = TABLE as usize / size_of::<Desc>();

/// Where a request and its reply are cut into descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cuts<'a> {
    /// Offsets in the request at which a new descriptor begins, ascending.
    pub request: &'a [u32],
    /// Offsets in the reply at which a new descriptor begins, ascending.
    pub reply: &'a [u32],
    /// Also cut where guest pages end, from the payload on.
    pub pages: bool,
}

impl Cuts<'static> {
    /// As Linux does: the headers have descriptors of their own.
    pub const LINUX: Self = Self { request: &[size_of::<InHeader>() as u32], reply: &[REPLY_LEAD], pages: false };
    /// As Linux does for WRITE: header, arguments, payload.
    pub const LINUX_WRITE: Self =
        Self { request: &[size_of::<InHeader>() as u32, REQUEST_LEAD], reply: &[REPLY_LEAD], pages: false };
    /// One descriptor for the request, one for the reply.
    pub const NONE: Self = Self { request: &[], reply: &[], pages: false };
}

/// A free slot. It is used up by submitting it, or goes back with [`Lane::give_back`].
#[derive(Debug)]
#[must_use = "a slot that is dropped is lost to its lane"]
pub struct Slot(u16);

/// What is known of a request under way.
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    unique: u64,
    capacity: u32,
}

/// The sizes of a lane.
#[derive(Clone, Copy, Debug)]
pub struct LaneSize {
    /// How many requests at once.
    pub slots: u16,
    /// Bytes that a request may have beyond [`REQUEST_LEAD`].
    pub request: u32,
    /// Bytes that a reply may have beyond [`REPLY_LEAD`].
    pub reply: u32,
    /// Whether chains are sent as indirect tables (where negotiated).
    pub indirect: bool,
}

/// A queue of requests under way on one ring.
pub struct Lane {
    ring: Ring,
    memory: Memory,
    size: LaneSize,
    base: u64,
    stride: u64,
    free: Vec<u16>,
    pending: Vec<Pending>,
    slot_of_head: Vec<u16>,
    scratch: Vec<Desc>,
}

impl Lane {
    /// Takes the buffers of a lane from the arena.
    pub fn new(ring: Ring, arena: &mut Arena, size: LaneSize) -> Result<Self> {
        let pages = |bytes: u32| u64::from(bytes).next_multiple_of(PAGE);
        let stride = TABLE + PAGE + pages(size.request) + PAGE + pages(size.reply);
        let base = arena.take(stride * u64::from(size.slots), PAGE)?;
        Ok(Self {
            memory: ring.memory().clone(),
            size,
            base,
            stride,
            free: (0..size.slots).rev().collect(),
            pending: vec![Pending::default(); size.slots.into()],
            slot_of_head: vec![u16::MAX; ring.layout().size.into()],
            scratch: Vec::with_capacity(MAX_DESCS),
            ring,
        })
    }

    /// The ring below, to do with it what one likes.
    pub fn ring(&mut self) -> &mut Ring {
        &mut self.ring
    }

    /// Guest memory.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The sizes it was made with.
    #[must_use]
    pub fn size(&self) -> LaneSize {
        self.size
    }

    /// Whether another request can be taken on.
    #[must_use]
    pub fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// The descriptor by which the device calls.
    #[must_use]
    pub fn call_fd(&self) -> BorrowedFd<'_> {
        self.ring.call_fd()
    }

    /// How many requests are under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        usize::from(self.size.slots) - self.free.len()
    }

    /// Where the slot's request begins in guest memory.
    #[must_use]
    pub fn request_at(&self, slot: &Slot) -> u64 {
        self.start(slot.0) + TABLE + PAGE - u64::from(REQUEST_LEAD)
    }

    /// Where the slot's reply begins in guest memory.
    #[must_use]
    pub fn reply_at(&self, slot: &Slot) -> u64 {
        self.reply_start(slot.0)
    }

    /// The most bytes of a whole request.
    #[must_use]
    pub fn request_capacity(&self) -> u32 {
        REQUEST_LEAD + self.size.request
    }

    /// The most bytes of a whole reply.
    #[must_use]
    pub fn reply_capacity(&self) -> u32 {
        REPLY_LEAD + self.size.reply
    }

    /// A free slot, the one used last first.
    pub fn take(&mut self) -> Option<Slot> {
        self.free.pop().map(Slot)
    }

    /// A slot that was not submitted after all.
    pub fn give_back(&mut self, slot: Slot) {
        self.free.push(slot.0);
    }

    /// Writes a request into a slot, its parts one after the other, and returns its length.
    pub fn fill(&self, slot: &Slot, head: &[u8], body: &[&[u8]]) -> Result<u32> {
        let mut len = 0;
        for part in std::iter::once(&head).chain(body) {
            if len + part.len() > self.request_capacity() as usize {
                return Err(Error::Layout(format!("a request beyond {} bytes", self.request_capacity())));
            }
            self.memory.write(self.request_at(slot) + len as u64, part)?;
            len += part.len();
        }
        Ok(len as u32)
    }

    /// Fills a free slot and submits it, with room for `reply` bytes in all.
    pub fn send(&mut self, unique: u64, head: &[u8], body: &[&[u8]], reply: u32, cuts: &Cuts<'_>) -> Result<()> {
        let slot = self.take().ok_or(Error::Full)?;
        match self.fill(&slot, head, body) {
            Ok(len) => self.submit(slot, unique, len, reply, cuts),
            Err(error) => {
                self.give_back(slot);
                Err(error)
            }
        }
    }

    /// Reads a request straight into a slot, with one call, and returns its length.
    pub fn fill_from(&self, slot: &Slot, source: &mut impl ReadVolatile) -> Result<io::Result<u32>> {
        let mut slice = self.memory.slice(self.request_at(slot), self.request_capacity() as usize)?;
        Ok(source.read_volatile(&mut slice).map(|len| len as u32).map_err(plain))
    }

    /// The header that stands in a slot.
    pub fn header(&self, slot: &Slot) -> Result<InHeader> {
        self.memory.get(self.request_at(slot))
    }

    /// Sends what stands in a slot: `request` bytes, with room for `reply` bytes of reply (0: none at all).
    /// Staged and published at once; kicks only if the device asked for it.
    pub fn submit(&mut self, slot: Slot, unique: u64, request: u32, reply: u32, cuts: &Cuts<'_>) -> Result<()> {
        self.stage(slot, unique, request, reply, cuts)?;
        self.flush()
    }

    /// [`Lane::submit`] but for telling the device, which [`Lane::flush`] does.
    pub fn stage(&mut self, slot: Slot, unique: u64, request: u32, reply: u32, cuts: &Cuts<'_>) -> Result<()> {
        let Slot(index) = slot;
        match self.add(index, request, reply, cuts) {
            Ok(head) => {
                self.slot_of_head[usize::from(head)] = index;
                self.pending[usize::from(index)] = Pending { unique, capacity: reply };
                Ok(())
            }
            Err(error) => {
                self.free.push(index);
                Err(error)
            }
        }
    }

    /// Publishes what was staged and kicks if the device asked for it.
    pub fn flush(&mut self) -> Result<()> {
        self.ring.publish()?;
        self.ring.notify()?;
        Ok(())
    }

    /// A request that the device is done with, if there is one.
    pub fn try_complete(&mut self) -> Result<Option<Completion<'_>>> {
        match self.ring.pop()? {
            Some(used) => self.completion(used).map(Some),
            None => Ok(None),
        }
    }

    /// Waits until the device is done with a request.
    pub fn complete(&mut self, limit: Duration) -> Result<Completion<'_>> {
        let used = self.ring.wait(limit)?;
        self.completion(used)
    }

    /// [`Lane::complete`] without sleeping, for benchmarks of the device alone.
    pub fn spin(&mut self, limit: Duration) -> Result<Completion<'_>> {
        let start = Instant::now();
        loop {
            if let Some(used) = self.ring.pop()? {
                return self.completion(used);
            }
            if start.elapsed() > limit {
                return Err(Error::Timeout { what: "spin for a reply", limit });
            }
            std::hint::spin_loop();
        }
    }

    /// Waits until nothing is under way and throws the replies away.
    pub fn drain(&mut self, limit: Duration) -> Result<()> {
        while self.in_flight() > 0 {
            self.complete(limit)?;
        }
        Ok(())
    }

    /// After a stop or reset: an empty ring, every slot free. Returns what had not been answered.
    pub fn abandon(&mut self) -> Result<Vec<u64>> {
        let open = (0..self.size.slots).filter(|slot| !self.free.contains(slot));
        let open = open.map(|slot| self.pending[usize::from(slot)].unique).collect();
        self.free = (0..self.size.slots).rev().collect();
        self.slot_of_head.fill(u16::MAX);
        self.ring.reset()?;
        Ok(open)
    }

    fn completion(&mut self, used: Used) -> Result<Completion<'_>> {
        let slot = std::mem::replace(&mut self.slot_of_head[usize::from(used.head)], u16::MAX);
        let pending = self.pending.get(usize::from(slot)).ok_or(Error::NotInFlight(used.head.into()))?;
        let Pending { unique, capacity } = *pending;
        let header = if used.len >= REPLY_LEAD && capacity >= REPLY_LEAD {
            self.memory.get(self.reply_start(slot))?
        } else {
            OutHeader::default()
        };
        Ok(Completion { lane: self, slot, unique, capacity, used: used.len, header })
    }

    fn start(&self, slot: u16) -> u64 {
        self.base + self.stride * u64::from(slot)
    }

    fn reply_start(&self, slot: u16) -> u64 {
        let requests = u64::from(self.size.request).next_multiple_of(PAGE);
        self.start(slot) + TABLE + PAGE + requests + PAGE - u64::from(REPLY_LEAD)
    }

    fn add(&mut self, slot: u16, request: u32, reply: u32, cuts: &Cuts<'_>) -> Result<u16> {
        if request > self.request_capacity() || reply > self.reply_capacity() {
            return Err(Error::Layout(format!("{request} and {reply} bytes do not fit a slot")));
        }
        let mut chain = std::mem::take(&mut self.scratch);
        chain.clear();
        let at = self.request_at(&Slot(slot));
        cut(&mut chain, Desc::readable(at, request), cuts.request, cuts.pages.then_some(REQUEST_LEAD));
        let at = self.reply_start(slot);
        cut(&mut chain, Desc::writable(at, reply), cuts.reply, cuts.pages.then_some(REPLY_LEAD));
        let head = if chain.len() > MAX_DESCS {
            Err(Error::Full)
        } else if self.size.indirect {
            self.ring.add_indirect(self.start(slot), &mut chain)
        } else {
            self.ring.add(&chain)
        };
        self.scratch = chain;
        head
    }
}

/// Cuts one buffer into descriptors, at the offsets given and, from `pages` on, at every page.
fn cut(chain: &mut Vec<Desc>, whole: Desc, at: &[u32], pages: Option<u32>) {
    let (mut from, mut rest) = (0, at);
    while from < whole.len {
        while let [first, others @ ..] = rest
            && *first <= from
        {
            rest = others;
        }
        let mut to = rest.first().map_or(whole.len, |&next| next.min(whole.len));
        if let Some(lead) = pages {
            to = to.min(if from < lead { lead } else { from + PAGE as u32 });
        }
        chain.push(Desc { addr: whole.addr + u64::from(from), len: to - from, ..whole });
        from = to;
    }
}

fn plain(error: VolatileMemoryError) -> io::Error {
    match error {
        VolatileMemoryError::IOError(error) => error,
        other => io::Error::other(other),
    }
}

/// A request that the device is done with. Its slot is free again when this is dropped.
pub struct Completion<'a> {
    lane: &'a mut Lane,
    slot: u16,
    unique: u64,
    capacity: u32,
    used: u32,
    header: OutHeader,
}

impl Completion<'_> {
    /// The number it was submitted with.
    #[must_use]
    pub fn unique(&self) -> u64 {
        self.unique
    }

    /// The length that the device said it wrote.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.used
    }

    /// The reply's header; zeros when it is too short to have one.
    #[must_use]
    pub fn header(&self) -> OutHeader {
        self.header
    }

    /// Where the reply lies in guest memory.
    #[must_use]
    pub fn reply_at(&self) -> u64 {
        self.lane.reply_start(self.slot)
    }

    /// The errno in the reply, if its lengths and number are right.
    pub fn check(&self) -> Result<()> {
        let OutHeader { len, error, unique } = self.header;
        let (used, wanted, capacity) = (self.used, self.unique, self.capacity);
        if used != len || used < REPLY_LEAD || used > capacity || unique != wanted || error > 0 {
            let room = format!("room {capacity}, unique {wanted}");
            return Err(Error::Reply(format!("used {used}, len {len}, error {error}, unique {unique}; {room}")));
        }
        if error == 0 { Ok(()) } else { Err(Error::Errno(Errno::from_linux(-error))) }
    }

    /// What follows the header, as far as the device says it wrote.
    pub fn body(&self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        self.body_into(&mut body)?;
        Ok(body)
    }

    /// [`Completion::body`] into a buffer that is used again.
    pub fn body_into(&self, body: &mut Vec<u8>) -> Result<()> {
        let len = self.used.min(self.capacity).saturating_sub(REPLY_LEAD);
        body.resize(len as usize, 0);
        self.lane.memory.read(self.reply_at() + u64::from(REPLY_LEAD), body)
    }

    /// Every byte that the reply had room for, written or not, to see what the device touched.
    pub fn room(&self) -> Result<Vec<u8>> {
        let mut room = vec![0; self.capacity as usize];
        self.lane.memory.read(self.reply_at(), &mut room)?;
        Ok(room)
    }

    /// Writes the whole reply somewhere with one call, straight from guest memory.
    pub fn write_to(&self, sink: &mut impl WriteVolatile) -> Result<io::Result<usize>> {
        let slice = self.lane.memory.slice(self.reply_at(), self.used.min(self.capacity) as usize)?;
        Ok(sink.write_volatile(&slice).map_err(plain))
    }
}

impl Drop for Completion<'_> {
    fn drop(&mut self) {
        self.lane.free.push(self.slot);
    }
}
