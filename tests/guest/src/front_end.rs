//! The vhost-user front end: what a VMM says to a vhost-user-fs daemon, a method a message, in any order the test likes.
//!
//! Knows the control messages and where rings lie; not what travels in the rings.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

pub use vhost::vhost_user::message::{FrontendReq, VhostUserProtocolFeatures as ProtocolFeatures};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::dirty_log::DirtyLog;
use crate::error::{Error, Result};
use crate::memory::{Arena, Memory, PAGE, Region, USER_BASE};
use crate::message::{Connection, Message, NEED_REPLY};
use crate::ring::{Ends, Layout, Ring};

/// Virtio feature bits that concern a virtio-fs device.
pub mod virtio {
    /// The device has a notification queue.
    pub const NOTIFICATION: u64 = 1 << 0;
    /// Writes of the device are logged (vhost).
    pub const LOG_ALL: u64 = 1 << 26;
    /// Descriptors may point to tables of descriptors.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// Both sides say after which entry they want to be woken.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// The protocol features can be asked for (vhost-user).
    pub const PROTOCOL_FEATURES: u64 = 1 << 30;
    /// Virtio 1.0 or later.
    pub const VERSION_1: u64 = 1 << 32;
    /// A single queue can be reset.
    pub const RING_RESET: u64 = 1 << 40;
}

/// How to set a device up. Features that the daemon does not offer are left out.
#[derive(Clone, Debug)]
pub struct Options {
    /// Virtio features to acknowledge where offered.
    pub virtio: u64,
    /// Protocol features to acknowledge where offered.
    pub protocol: ProtocolFeatures,
    /// Guest memory: (guest address, size), ascending. Rings and slots are taken from the first region.
    pub memory: Vec<(u64, u64)>,
    /// How many request queues.
    pub request_queues: u16,
    /// Descriptors in each ring.
    pub queue_size: u16,
    /// How long to wait for any answer before the daemon counts as hung.
    pub limit: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            virtio: virtio::VERSION_1 | virtio::EVENT_IDX | virtio::INDIRECT_DESC | virtio::PROTOCOL_FEATURES,
            protocol: ProtocolFeatures::MQ
                | ProtocolFeatures::LOG_SHMFD
                | ProtocolFeatures::REPLY_ACK
                | ProtocolFeatures::CONFIG
                | ProtocolFeatures::RESET_DEVICE
                | ProtocolFeatures::CONFIGURE_MEM_SLOTS,
            memory: vec![(0, 1 << 30)],
            request_queues: 1,
            queue_size: 128,
            limit: Duration::from_secs(30),
        }
    }
}

/// Which queue of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// FORGET and INTERRUPT.
    Hiprio,
    /// What the device says unasked; only where [`virtio::NOTIFICATION`] was acknowledged.
    Notification,
    /// A request queue, from 0.
    Request(u16),
}

/// The device's configuration space.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct FsConfig {
    /// The tag, padded with zeros.
    pub tag: [u8; 36],
    /// Number of request queues.
    pub num_request_queues: u32,
    /// The least size of a buffer on the notification queue.
    pub notify_buf_size: u32,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct VringAddr {
    index: u32,
    flags: u32,
    desc: u64,
    used: u64,
    avail: u64,
    log: u64,
}

/// In the flags of a vring's addresses: writes to the used ring are logged.
const VRING_LOG: u32 = 1;
/// In the number that goes with a kick or call descriptor: there is none.
const NO_FD: u64 = 1 << 8;

/// A front end that has negotiated features and told the daemon of its memory.
pub struct FrontEnd {
    connection: Connection,
    memory: Memory,
    arena: Arena,
    virtio_offered: u64,
    virtio: u64,
    protocol_offered: ProtocolFeatures,
    protocol: ProtocolFeatures,
}

impl FrontEnd {
    /// Negotiates over a connected socket and sends the memory table. No ring is set up yet.
    pub fn new(stream: UnixStream, options: &Options) -> Result<Self> {
        let memory = Memory::new(&options.memory)?;
        let first = memory.regions().first().ok_or_else(|| Error::Layout("no memory".into()))?;
        // Address 0 stays unused: a descriptor of zeros must not point into a ring.
        let arena = Arena::new(first.guest() + PAGE, first.size() - PAGE);
        let connection = Connection::new(stream, options.limit)?;
        let none = ProtocolFeatures::empty();
        let mut front =
            Self { connection, memory, arena, virtio_offered: 0, virtio: 0, protocol_offered: none, protocol: none };
        front.set(FrontendReq::SET_OWNER, &[], &[])?;
        front.virtio_offered = front.get_features()?;
        if front.virtio_offered & options.virtio & virtio::PROTOCOL_FEATURES != 0 {
            let offered = front.get_u64(FrontendReq::GET_PROTOCOL_FEATURES)?;
            front.protocol_offered = ProtocolFeatures::from_bits_retain(offered);
            let wanted = front.protocol_offered & options.protocol;
            front.set(FrontendReq::SET_PROTOCOL_FEATURES, wanted.bits().as_bytes(), &[])?;
            front.protocol = wanted;
        }
        front.set_features(front.virtio_offered & options.virtio)?;
        front.send_memory_table()?;
        Ok(front)
    }

    /// The connection, for messages of one's own.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Virtio features the daemon offered.
    #[must_use]
    pub fn virtio_offered(&self) -> u64 {
        self.virtio_offered
    }

    /// Virtio features that were acknowledged.
    #[must_use]
    pub fn virtio(&self) -> u64 {
        self.virtio
    }

    /// Protocol features the daemon offered.
    #[must_use]
    pub fn protocol_offered(&self) -> ProtocolFeatures {
        self.protocol_offered
    }

    /// Protocol features that were acknowledged.
    #[must_use]
    pub fn protocol(&self) -> ProtocolFeatures {
        self.protocol
    }

    /// Guest memory as the daemon was last told.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The arena over the first region, from which rings and slots are taken.
    pub fn arena(&mut self) -> &mut Arena {
        &mut self.arena
    }

    // Asking.

    /// GET_FEATURES; also a way to know that everything sent before was handled.
    pub fn get_features(&self) -> Result<u64> {
        self.get_u64(FrontendReq::GET_FEATURES)
    }

    /// GET_QUEUE_NUM: hiprio and the notification queue are counted.
    pub fn queue_num(&self) -> Result<u64> {
        self.get_u64(FrontendReq::GET_QUEUE_NUM)
    }

    /// GET_CONFIG of the whole configuration space.
    pub fn config(&self) -> Result<FsConfig> {
        let size = size_of::<FsConfig>();
        let body = [[0u32, size as u32, 0].as_bytes(), &vec![0; size]].concat();
        let reply = self.connection.call(FrontendReq::GET_CONFIG.into(), 0, &body, &[])?;
        let payload = reply.body.get(12..).unwrap_or_default();
        FsConfig::read_from_bytes(payload).map_err(|_| Error::Protocol(format!("config space of {}", payload.len())))
    }

    /// GET_MAX_MEM_SLOTS.
    pub fn max_mem_slots(&self) -> Result<u64> {
        self.get_u64(FrontendReq::GET_MAX_MEM_SLOTS)
    }

    /// The index of a queue, which depends on whether notifications were acknowledged.
    #[must_use]
    pub fn index(&self, queue: Queue) -> u32 {
        let first = 1 + u32::from(self.virtio & virtio::NOTIFICATION != 0);
        match queue {
            Queue::Hiprio => 0,
            Queue::Notification => 1,
            Queue::Request(n) => first + u32::from(n),
        }
    }

    // Setting.

    /// SET_FEATURES; only these bits count afterwards.
    pub fn set_features(&mut self, virtio: u64) -> Result<()> {
        self.set(FrontendReq::SET_FEATURES, virtio.as_bytes(), &[])?;
        self.virtio = virtio;
        Ok(())
    }

    /// SET_MEM_TABLE with the current memory once more.
    pub fn send_memory_table(&self) -> Result<()> {
        let regions = self.memory.regions();
        let mut body = [regions.len() as u32, 0].as_bytes().to_vec();
        regions.iter().for_each(|region| body.extend_from_slice(describe(region).as_bytes()));
        let fds: Vec<_> = regions.iter().map(Region::fd).collect();
        self.set(FrontendReq::SET_MEM_TABLE, &body, &fds)
    }

    /// Replaces the memory by another set and sends it. Rings that run must lie in both.
    pub fn set_memory(&mut self, memory: Memory) -> Result<()> {
        self.memory = memory;
        self.send_memory_table()
    }

    /// ADD_MEM_REG with a new region of zeros.
    pub fn add_region(&mut self, guest: u64, size: u64) -> Result<()> {
        let memory = self.memory.with(guest, size)?;
        let region = memory.region(guest)?;
        self.set(FrontendReq::ADD_MEM_REG, &single(region), &[region.fd()])?;
        self.memory = memory;
        Ok(())
    }

    /// REM_MEM_REG of the region that begins at `guest`.
    pub fn remove_region(&mut self, guest: u64) -> Result<()> {
        let region = self.memory.region(guest)?;
        self.set(FrontendReq::REM_MEM_REG, &single(region), &[])?;
        self.memory = self.memory.without(guest)?;
        Ok(())
    }

    /// Makes a ring of `size` descriptors in the arena and starts it as queue `index`.
    pub fn start(&mut self, index: u32, size: u16) -> Result<Ring> {
        let layout = Layout::take(&mut self.arena, size)?;
        let ring = Ring::new(self.memory.clone(), layout, self.virtio & virtio::EVENT_IDX != 0)?;
        self.attach(index, &ring, 0)?;
        Ok(ring)
    }

    /// Tells the daemon everything about a ring, which goes on at available index `base`, and enables it.
    pub fn attach(&self, index: u32, ring: &Ring, base: u16) -> Result<()> {
        self.attach_ends(index, &ring.ends()?, base)
    }

    /// [`FrontEnd::attach`] for a ring that another thread drives.
    pub fn attach_ends(&self, index: u32, ends: &Ends, base: u16) -> Result<()> {
        self.set(FrontendReq::SET_VRING_NUM, [index, ends.layout.size.into()].as_bytes(), &[])?;
        self.set(FrontendReq::SET_VRING_BASE, [index, base.into()].as_bytes(), &[])?;
        self.set_layout(index, ends.layout)?;
        self.set(FrontendReq::SET_VRING_KICK, u64::from(index).as_bytes(), &[ends.kick.as_fd()])?;
        self.set(FrontendReq::SET_VRING_CALL, u64::from(index).as_bytes(), &[ends.call.as_fd()])?;
        self.enable(index, true)
    }

    /// SET_VRING_ADDR; with the log on when LOG_ALL is acknowledged.
    pub fn set_vring_addr(&self, index: u32, ring: &Ring) -> Result<()> {
        self.set_layout(index, ring.layout())
    }

    fn set_layout(&self, index: u32, layout: Layout) -> Result<()> {
        let Layout { desc, avail, used, .. } = layout;
        let flags = if self.virtio & virtio::LOG_ALL != 0 { VRING_LOG } else { 0 };
        let user = |guest| USER_BASE + guest;
        let addr = VringAddr { index, flags, desc: user(desc), used: user(used), avail: user(avail), log: used };
        self.set(FrontendReq::SET_VRING_ADDR, addr.as_bytes(), &[])
    }

    /// SET_VRING_CALL with no descriptor: the ring is polled.
    pub fn remove_call(&self, index: u32) -> Result<()> {
        self.set(FrontendReq::SET_VRING_CALL, (u64::from(index) | NO_FD).as_bytes(), &[])
    }

    /// SET_VRING_KICK with no descriptor: the device has to look by itself.
    pub fn remove_kick(&self, index: u32) -> Result<()> {
        self.set(FrontendReq::SET_VRING_KICK, (u64::from(index) | NO_FD).as_bytes(), &[])
    }

    /// SET_VRING_ENABLE. Without protocol features a ring is enabled by its kick descriptor, and this does nothing.
    pub fn enable(&self, index: u32, on: bool) -> Result<()> {
        if self.virtio & virtio::PROTOCOL_FEATURES == 0 {
            return Ok(());
        }
        self.set(FrontendReq::SET_VRING_ENABLE, [index, on.into()].as_bytes(), &[])
    }

    /// GET_VRING_BASE: stops the ring and says which available entry the device would have taken next.
    pub fn stop(&self, index: u32) -> Result<u16> {
        let request = FrontendReq::GET_VRING_BASE.into();
        let [_, base] = self.connection.call(request, 0, [index, 0].as_bytes(), &[])?.body_as::<[u32; 2]>()?;
        u16::try_from(base).map_err(|_| Error::Protocol(format!("vring base {base}")))
    }

    /// RESET_DEVICE: every ring is disabled and the device as at the start.
    pub fn reset_device(&self) -> Result<()> {
        self.set(FrontendReq::RESET_DEVICE, &[], &[])
    }

    /// SET_LOG_BASE with a log that covers all memory, and LOG_ALL acknowledged from here on.
    /// Rings that are already attached need [`FrontEnd::set_vring_addr`] again for their own log flag.
    pub fn start_log(&mut self) -> Result<DirtyLog> {
        let end = self.memory.regions().iter().map(|r| r.guest() + r.size()).max().unwrap_or(0);
        let log = DirtyLog::new(end)?;
        let region = log.region()?;
        self.connection.call(FrontendReq::SET_LOG_BASE.into(), 0, [region.size(), 0].as_bytes(), &[region.fd()])?;
        self.set_features(self.virtio | virtio::LOG_ALL)?;
        Ok(log)
    }

    /// Ends the connection, as a VMM that quits.
    pub fn disconnect(self) {}

    /// Sends a message that changes something; where REPLY_ACK is agreed, waits until the daemon says it worked.
    pub fn set(&self, request: FrontendReq, body: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        let request = request.into();
        if !self.protocol.contains(ProtocolFeatures::REPLY_ACK) {
            return self.connection.send(request, 0, body, fds);
        }
        let code = self.connection.call(request, NEED_REPLY, body, fds)?.body_as::<u64>()?;
        if code == 0 { Ok(()) } else { Err(Error::Refused { request, code }) }
    }

    /// Sends a request without a body and returns the whole reply.
    pub fn get(&self, request: FrontendReq) -> Result<Message> {
        self.connection.call(request.into(), 0, &[], &[])
    }

    fn get_u64(&self, request: FrontendReq) -> Result<u64> {
        self.get(request)?.body_as()
    }
}

impl AsFd for FrontEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

fn describe(region: &Region) -> [u64; 4] {
    [region.guest(), region.size(), region.user(), 0]
}

fn single(region: &Region) -> Vec<u8> {
    [0u64.as_bytes(), describe(region).as_bytes()].concat()
}
