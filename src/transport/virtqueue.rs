//! Descriptor chains: from guest addresses to the memory of one request and its reply.
//!
//! Whatever a guest writes into its descriptors ends in a chain of mapped memory or in the reason why not. The rings
//! themselves are `virtio-queue`'s; its iterator over descriptors is not used because it leaves out malformed ones
//! without a word.

use std::sync::Arc;

use virtio_queue::desc::split::Descriptor;
use vm_memory::{
    Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
    VolatileMemory, VolatileSlice,
};

use crate::protocol::{FileSystem, Payload, Served, Server};

/// The memory of a guest. Each thread wraps the shared pointer once more, so that counting its own uses concerns no
/// other thread.
pub type Memory = Arc<Arc<GuestMemoryMmap>>;

/// The most segments of a chain: what one `preadv` takes.
const SEGMENTS_MAX: usize = 1024;
const DESCRIPTOR_SIZE: usize = size_of::<Descriptor>();

/// Why a chain is no request. It ends that request alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// An index beyond its table.
    #[error("a descriptor beyond its table")]
    Index,
    /// More descriptors than a table has, or more than a system call takes: a loop, most likely.
    #[error("a chain without an end")]
    Endless,
    /// A table inside a table, or one that is not the chain's last descriptor.
    #[error("a misplaced indirect table")]
    Nested,
    /// A table that is empty or not a whole number of descriptors.
    #[error("an indirect table of impossible length")]
    Table,
    /// A descriptor of nothing.
    #[error("an empty descriptor")]
    Empty,
    /// What the device reads after what it writes.
    #[error("a readable descriptor after a writable one")]
    Order,
    /// Memory that the guest does not have.
    #[error("memory that is not the guest's")]
    Memory,
}

/// The memory of one request: what the device reads, and what it writes. Its room is used again and again.
#[derive(Debug, Default)]
pub struct Chain {
    // Never handed out for longer than `memory` is held here.
    readable: Vec<VolatileSlice<'static>>,
    writable: Vec<VolatileSlice<'static>>,
    /// The writable memory as the guest knows it: for the log of dirty pages.
    written: Vec<(GuestAddress, usize)>,
    memory: Option<Memory>,
}

// SAFETY: the slices point into memory that any thread may use at any time, and that the chain itself keeps mapped.
unsafe impl Send for Chain {}

/// Where the descriptors of a queue are.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// The guest address of the first.
    pub address: u64,
    /// How many there are.
    pub len: u16,
}

impl Chain {
    /// Takes up the chain that begins at `head`.
    ///
    /// # Errors
    /// When it is malformed; the chain is then empty.
    pub fn load(&mut self, memory: &Memory, table: Table, head: u16) -> Result<(), Malformed> {
        self.clear();
        let outcome = self.walk(memory, table, head);
        match outcome {
            Ok(()) => self.memory = Some(Arc::clone(memory)),
            Err(_) => self.clear(),
        }
        outcome
    }

    fn walk(&mut self, memory: &GuestMemoryMmap, table: Table, head: u16) -> Result<(), Malformed> {
        let (mut address, mut len, mut index) = (table.address, usize::from(table.len), usize::from(head));
        let (mut indirect, mut left) = (false, len);
        let mut finder = Finder { memory, region: None };
        loop {
            if index >= len {
                return Err(Malformed::Index);
            }
            left = left.checked_sub(1).ok_or(Malformed::Endless)?;
            let at = address.checked_add((index * DESCRIPTOR_SIZE) as u64).ok_or(Malformed::Memory)?;
            let found = finder.descriptor(GuestAddress(at)).ok_or(Malformed::Memory)?;
            if found.refers_to_indirect_table() {
                if indirect || found.has_next() {
                    return Err(Malformed::Nested);
                }
                let size = found.len() as usize;
                if size == 0 || !size.is_multiple_of(DESCRIPTOR_SIZE) {
                    return Err(Malformed::Table);
                }
                (address, len, index) = (found.addr().0, size / DESCRIPTOR_SIZE, 0);
                (indirect, left) = (true, len);
                continue;
            }
            self.take(&mut finder, &found)?;
            if !found.has_next() {
                return Ok(());
            }
            index = usize::from(found.next());
        }
    }

    /// Adds the memory of one descriptor, in as many segments as there are regions under it.
    fn take(&mut self, finder: &mut Finder<'_>, found: &Descriptor) -> Result<(), Malformed> {
        let (mut address, mut left) = (found.addr(), found.len() as usize);
        if left == 0 {
            return Err(Malformed::Empty);
        }
        let segments = if found.is_write_only() {
            self.written.push((address, left));
            &mut self.writable
        } else if self.writable.is_empty() {
            &mut self.readable
        } else {
            return Err(Malformed::Order);
        };
        while left > 0 {
            let slice = finder.piece(address, left).ok_or(Malformed::Memory)?;
            // SAFETY: the memory is mapped while this chain holds its pointer, which it does as long as the slice.
            segments.push(unsafe { VolatileSlice::new(slice.ptr_guard_mut().as_ptr(), slice.len()) });
            left = left.saturating_sub(slice.len());
            address = address.checked_add(slice.len() as u64).ok_or(Malformed::Memory)?;
        }
        if segments.len() > SEGMENTS_MAX { Err(Malformed::Endless) } else { Ok(()) }
    }

    /// Gives the guest's memory up; its own room stays.
    pub fn clear(&mut self) {
        self.readable.clear();
        self.writable.clear();
        self.written.clear();
        self.memory = None;
    }

    /// What the device reads.
    #[must_use]
    pub fn readable(&self) -> &[VolatileSlice<'_>] {
        &self.readable
    }

    /// What the device writes.
    #[must_use]
    pub fn writable(&self) -> &[VolatileSlice<'_>] {
        &self.writable
    }

    /// The first `len` bytes of what the device writes, as the guest knows them.
    pub fn written(&self, len: usize) -> impl Iterator<Item = (GuestAddress, usize)> + '_ {
        let mut left = len;
        self.written.iter().map_while(move |(address, room)| {
            let count = left.min(*room);
            left -= count;
            (count > 0).then_some((*address, count))
        })
    }
}

/// Finds guest memory. What lies in the region of the last find, as almost all of a request does, is found at once.
struct Finder<'m> {
    memory: &'m GuestMemoryMmap,
    region: Option<&'m GuestRegionMmap>,
}

impl<'m> Finder<'m> {
    /// The memory at this address, as much of it as lies in one piece.
    fn piece(&mut self, address: GuestAddress, len: usize) -> Option<VolatileSlice<'m>> {
        let near = self.region.and_then(|region| Some((region, region.to_region_addr(address)?)));
        let (region, start) = near.or_else(|| self.memory.to_region_addr(address))?;
        self.region = Some(region);
        let here = usize::try_from(region.len().checked_sub(start.0)?).ok()?;
        region.get_slice(start, len.min(here)).ok()
    }

    /// The descriptor at this address. The guest may be changing it: it is read once.
    fn descriptor(&mut self, address: GuestAddress) -> Option<Descriptor> {
        let piece = self.piece(address, DESCRIPTOR_SIZE)?;
        match piece.get_ref::<Descriptor>(0) {
            Ok(whole) => Some(whole.load()),
            // Half of it is in the next region.
            Err(_) => self.memory.read_obj(address).ok(),
        }
    }
}

/// What the header of every request takes.
const HEADER: usize = size_of::<fuse_abi::InHeader>();

/// Copies out of guest memory all of a request but the data of a WRITE. It is read here, once.
pub fn copy_head<F: FileSystem>(server: &Server<F>, chain: &Chain, head: &mut Vec<u8>) {
    let available: usize = chain.readable().iter().map(VolatileSlice::len).fold(0, usize::saturating_add);
    head.clear();
    extend(head, chain.readable(), available.min(HEADER));
    let wanted = server.head_len(head, available).min(available);
    extend(head, chain.readable(), wanted);
}

/// Copies on from where `head` ends until it has `len` bytes.
fn extend(head: &mut Vec<u8>, segments: &[VolatileSlice<'_>], len: usize) {
    let (mut skip, mut done) = (head.len(), head.len());
    if done >= len {
        return;
    }
    head.resize(len, 0);
    for segment in segments {
        let from = skip.min(segment.len());
        skip -= from;
        let Some(room) = head.get_mut(done..) else { return };
        let Ok(rest) = segment.offset(from) else { return };
        done += rest.copy_to(room);
    }
}

/// Serves the request in `chain` whose head was copied.
pub fn serve<F: FileSystem>(server: &Server<F>, chain: &Chain, head: &[u8], may_block: bool) -> Served {
    server.serve(head, Payload::new(chain.readable(), head.len()), chain.writable(), may_block)
}
