//! A FUSE client on the front end: raw requests, and typed helpers for what tests ask most.
//!
//! It caches nothing and checks every reply's lengths and number.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use fuse_abi::{Errno, InHeader, OutHeader};
use zerocopy::IntoBytes;

use crate::error::{Error, Result};
use crate::front_end::{FrontEnd, Options, ProtocolFeatures, Queue, virtio};
use crate::lane::{Completion, Cuts, Lane, LaneSize, REPLY_LEAD};

/// The largest payload of the client's requests and replies.
pub const MAX_PAYLOAD: u32 = 1 << 20;

/// The buffers of a request queue.
const REQUESTS: LaneSize =
    LaneSize { slots: 40, request: MAX_PAYLOAD + 4096, reply: MAX_PAYLOAD + 4096, indirect: true };
/// The buffers of hiprio: a FORGET is short and has no reply.
const HIPRIO: LaneSize = LaneSize { slots: 32, request: 65536, reply: 4096, indirect: true };

/// Who asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Process.
    pub pid: u32,
}

/// A request, to be sent when the caller likes.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The operation, known or not.
    pub opcode: u32,
    /// The node.
    pub nodeid: u64,
    /// What follows the header, in parts.
    pub body: &'a [&'a [u8]],
    /// How many bytes may follow the reply's header.
    pub reply: u32,
    /// Where it is cut into descriptors.
    pub cuts: Cuts<'a>,
}

impl<'a> Request<'a> {
    /// A request cut as Linux cuts it.
    pub fn new(opcode: impl Into<u32>, nodeid: u64, body: &'a [&'a [u8]], reply: u32) -> Self {
        let opcode = opcode.into();
        let write = opcode == fuse_abi::Opcode::Write.number();
        let cuts = if write { Cuts::LINUX_WRITE } else { Cuts::LINUX };
        Self { opcode, nodeid, body, reply, cuts }
    }
}

/// A reply, copied out of guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The number of the request.
    pub unique: u64,
    /// Its header; zeros when it is too short to have one.
    pub header: OutHeader,
    /// What follows the header, as far as the used length goes.
    pub body: Vec<u8>,
    /// The length that the device said it wrote.
    pub used: u32,
}

impl Reply {
    /// Whether used length, header length and number agree, as Linux 7.1 and later demand.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.used >= REPLY_LEAD
            && self.used == self.header.len
            && self.unique == self.header.unique
            && self.header.error <= 0
    }

    /// The errno it carries.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        (self.header.error < 0).then(|| Errno::from_linux(-self.header.error))
    }
}

/// Panics unless the result is this errno from the daemon.
#[track_caller]
pub fn expect_errno<T: std::fmt::Debug>(result: Result<T>, errno: Errno) {
    match result {
        Err(Error::Errno(got)) if got == errno => {}
        other => panic!("expected {errno}, got {other:?}"),
    }
}

/// The front end with a lane on every queue.
pub struct Client {
    /// The control side.
    pub front: FrontEnd,
    /// The queue of FORGET.
    pub hiprio: Lane,
    /// The request queues. Move them out ([`std::mem::take`]) to drive each from a thread of its own.
    pub queues: Vec<Lane>,
    /// Which request queue the helpers use.
    pub queue: usize,
    /// Whom the requests come from.
    pub caller: Caller,
    limit: Duration,
    unique: u64,
}

impl Client {
    /// Negotiates, starts every queue, and gives each 40 slots of 1 MiB or what the ring has room for.
    pub fn connect(stream: UnixStream, options: &Options) -> Result<Self> {
        Self::connect_with(stream, options, REQUESTS)
    }

    /// [`Client::connect`] with other buffers for the request queues.
    pub fn connect_with(stream: UnixStream, options: &Options, requests: LaneSize) -> Result<Self> {
        let mut front = FrontEnd::new(stream, options)?;
        let hiprio = start_lane(&mut front, Queue::Hiprio, options.queue_size, HIPRIO)?;
        let queues = (0..options.request_queues)
            .map(|n| start_lane(&mut front, Queue::Request(n), options.queue_size, requests))
            .collect::<Result<_>>()?;
        let caller = Caller { uid: 0, gid: 0, pid: std::process::id() };
        Ok(Self { front, hiprio, queues, queue: 0, caller, limit: options.limit, unique: 0 })
    }

    /// The lane that the helpers use.
    pub fn lane(&mut self) -> &mut Lane {
        &mut self.queues[self.queue]
    }

    /// The longest wait for a reply.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Runs some requests as another caller.
    pub fn as_caller<T>(&mut self, caller: Caller, run: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.caller, caller);
        let result = run(self);
        self.caller = before;
        result
    }

    /// A correct header for a request with `body` bytes after it.
    pub fn header(&mut self, opcode: u32, nodeid: u64, body: usize) -> InHeader {
        // Even numbers, as the kernel counts: the odd one after each is its INTERRUPT.
        self.unique += 2;
        let Caller { uid, gid, pid } = self.caller;
        let len = (size_of::<InHeader>() + body) as u32;
        InHeader { len, opcode, unique: self.unique, nodeid, uid, gid, pid, ..InHeader::default() }
    }

    /// Resets the device as a guest that reboots: every queue is stopped, the device reset where that is agreed, and the
    /// queues start again empty. Returns the numbers of requests that had no answer. The next request must be INIT.
    pub fn reset(&mut self) -> Result<Vec<u64>> {
        let indexes: Vec<u32> = (0..self.queues.len() as u16).map(|n| self.front.index(Queue::Request(n))).collect();
        let hiprio = self.front.index(Queue::Hiprio);
        for &index in indexes.iter().chain([&hiprio]) {
            self.front.stop(index)?;
        }
        if self.front.protocol().contains(ProtocolFeatures::RESET_DEVICE) {
            self.front.reset_device()?;
        }
        // A reset takes the acknowledged features with it, and a driver that starts again sends all of it anew.
        self.front.set_features(self.front.virtio())?;
        self.front.send_memory_table()?;
        let mut open = self.hiprio.abandon()?;
        self.front.attach(hiprio, self.hiprio.ring(), 0)?;
        for (lane, index) in self.queues.iter_mut().zip(indexes) {
            open.extend(lane.abandon()?);
            self.front.attach(index, lane.ring(), 0)?;
        }
        Ok(open)
    }

    /// Sends a request on the current queue and returns its number without waiting.
    pub fn submit(&mut self, request: &Request<'_>) -> Result<u64> {
        let header = self.header(request.opcode, request.nodeid, request.body.iter().map(|part| part.len()).sum());
        self.lane().send(header.unique, header.as_bytes(), request.body, REPLY_LEAD + request.reply, &request.cuts)?;
        Ok(header.unique)
    }

    /// Waits for the next reply on the current queue, in the order the device gives them.
    pub fn complete(&mut self) -> Result<Completion<'_>> {
        self.queues[self.queue].complete(self.limit)
    }

    /// Sends a request and returns its reply, whatever it says. Nothing else may be under way on the queue.
    pub fn call(&mut self, request: &Request<'_>) -> Result<Reply> {
        let unique = self.submit(request)?;
        self.reply_to(unique)
    }

    /// A request of which only the parts are given, cut as Linux cuts it.
    pub fn raw(&mut self, opcode: impl Into<u32>, nodeid: u64, body: &[u8], reply: u32) -> Result<Reply> {
        self.call(&Request::new(opcode, nodeid, &[body], reply))
    }

    /// Sends any bytes as a request, with room for `reply` bytes including a header; `unique` is only remembered.
    pub fn raw_bytes(&mut self, unique: u64, bytes: &[u8], reply: u32, cuts: &Cuts<'_>) -> Result<Reply> {
        self.lane().send(unique, bytes, &[], reply, cuts)?;
        self.reply_to(unique)
    }

    /// A request that must succeed with a sound reply; returns what follows the header.
    pub fn request(&mut self, request: &Request<'_>) -> Result<Vec<u8>> {
        let unique = self.submit(request)?;
        let completion = self.complete()?;
        if completion.unique() != unique {
            return Err(Error::Reply(format!("reply to {} while {unique} was waited for", completion.unique())));
        }
        completion.check()?;
        completion.body()
    }

    /// Sends a request without a reply on hiprio and waits until the device has taken it.
    pub fn send_hiprio(&mut self, opcode: impl Into<u32>, nodeid: u64, body: &[u8]) -> Result<()> {
        let header = self.header(opcode.into(), nodeid, body.len());
        self.hiprio.send(header.unique, header.as_bytes(), &[body], 0, &Cuts::NONE)?;
        let used = self.hiprio.complete(self.limit)?.used();
        if used == 0 { Ok(()) } else { Err(Error::Reply(format!("{used} bytes in reply to a FORGET"))) }
    }

    fn reply_to(&mut self, unique: u64) -> Result<Reply> {
        let completion = self.complete()?;
        if completion.unique() != unique {
            return Err(Error::Reply(format!("reply to {} while {unique} was waited for", completion.unique())));
        }
        Ok(Reply { unique, header: completion.header(), body: completion.body()?, used: completion.used() })
    }
}

/// Starts a queue and gives it buffers: as many as asked for, or as the ring has room for.
pub fn start_lane(front: &mut FrontEnd, queue: Queue, queue_size: u16, size: LaneSize) -> Result<Lane> {
    let indirect = size.indirect && front.virtio() & virtio::INDIRECT_DESC != 0;
    let index = front.index(queue);
    if front.protocol().contains(ProtocolFeatures::MQ) {
        let queues = front.queue_num()?;
        if u64::from(index) >= queues {
            return Err(Error::Protocol(format!("queue {index} is wanted, the daemon has {queues}")));
        }
    }
    let ring = front.start(index, queue_size)?;
    // Five descriptors: header, arguments and payload of a request, header and payload of a reply.
    let slots = size.slots.min(if indirect { queue_size } else { queue_size / 5 });
    Lane::new(ring, front.arena(), LaneSize { indirect, slots, ..size })
}
