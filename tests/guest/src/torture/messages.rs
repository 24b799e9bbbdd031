//! vhost-user messages: a handshake that is right, and what can be wrong with it.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use fastrand::Rng;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::pipe::{PipeFlags, pipe_with};
use zerocopy::IntoBytes;

use super::plan::{MEMORY, address};
use super::values::{edge, one_in, pick};
use crate::error::{Error, Result};
use crate::front_end::{FrontendReq, ProtocolFeatures, virtio};
use crate::memory::{Memory, Region, USER_BASE};
use crate::message::{Header, MAX_FDS, NEED_REPLY, VERSION};
use crate::ring::{Layout, Ring};

/// What a descriptor that comes with a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A region of guest memory.
    Memory(u8),
    /// The kick or the call descriptor of a ring.
    Kick(u8),
    /// The same, for calls.
    Call(u8),
    /// An event descriptor of nobody.
    Event,
    /// One that blocks whoever adds to it.
    FullEvent,
    /// A pipe that nobody reads from.
    FullPipe,
    /// A socket.
    Socket,
    /// A file that can only be read.
    ReadOnly,
    /// A directory.
    Directory,
    /// A small piece of memory.
    Small,
    /// A set of descriptors to wait for.
    Poll,
}

impl Kind {
    const PLAIN: [Self; 8] = [
        Self::Event,
        Self::FullEvent,
        Self::FullPipe,
        Self::Socket,
        Self::ReadOnly,
        Self::Directory,
        Self::Small,
        Self::Poll,
    ];

    pub(super) fn number(self) -> u16 {
        match self {
            Self::Memory(region) => 0x100 + u16::from(region),
            Self::Kick(ring) => 0x200 + u16::from(ring),
            Self::Call(ring) => 0x300 + u16::from(ring),
            plain => Self::PLAIN.iter().position(|kind| *kind == plain).unwrap_or(0) as u16,
        }
    }

    pub(super) fn from_number(number: u16) -> Option<Self> {
        let [low, high] = number.to_le_bytes();
        match high {
            0 => Self::PLAIN.get(usize::from(low)).copied(),
            1 => Some(Self::Memory(low)),
            2 => Some(Self::Kick(low)),
            3 => Some(Self::Call(low)),
            _ => None,
        }
    }
}

/// A message as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) request: u32,
    pub(super) flags: u32,
    /// What the header says of the body.
    pub(super) size: u32,
    pub(super) body: Vec<u8>,
    pub(super) fds: Vec<Kind>,
}

impl Message {
    fn new(request: FrontendReq, body: &[u8], fds: &[Kind]) -> Self {
        let flags = VERSION | NEED_REPLY;
        Self { request: request.into(), flags, size: body.len() as u32, body: body.to_vec(), fds: fds.to_vec() }
    }

    /// The bytes on the socket.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let header = Header { request: self.request, flags: self.flags, size: self.size };
        [header.as_bytes(), &self.body].concat()
    }
}

/// The descriptors that messages bring.
pub(super) struct Descriptors {
    plain: Vec<OwnedFd>,
    /// What keeps the other ends.
    _others: Vec<OwnedFd>,
}

impl Descriptors {
    pub(super) fn new() -> Result<Self> {
        let io = Error::io::<rustix::io::Errno>;
        let event = || eventfd(0, EventfdFlags::CLOEXEC).map_err(io("eventfd"));
        let full = event()?;
        rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()).map_err(io("fill an eventfd"))?;
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(io("pipe"))?;
        while rustix::io::write(&writer, &[0; 4096]).is_ok() {}
        rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::empty()).map_err(io("make a pipe block"))?;
        let (one, other) = UnixStream::pair().map_err(Error::io("a pair of sockets"))?;
        let small = memfd_create("small", MemfdFlags::CLOEXEC).map_err(io("memfd_create"))?;
        ftruncate(&small, 4096).map_err(io("size a memfd"))?;
        let read_only: OwnedFd = File::open("/proc/self/exe").map_err(Error::io("open a file"))?.into();
        let directory: OwnedFd = File::open("/proc/self").map_err(Error::io("open a directory"))?.into();
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(io("epoll"))?;
        let plain = vec![event()?, full, writer, one.into(), read_only, directory, small, poll];
        Ok(Self { plain, _others: vec![reader, other.into()] })
    }

    /// A descriptor of this kind.
    pub(super) fn get<'d>(&'d self, kind: Kind, memory: &'d Memory, rings: &'d [Ring]) -> BorrowedFd<'d> {
        let region = |index: u8| memory.regions().get(usize::from(index)).map(Region::fd);
        let ring = |index: u8| rings.get(usize::from(index));
        let found = match kind {
            Kind::Memory(index) => region(index),
            Kind::Kick(index) => ring(index).map(Ring::kick_fd),
            Kind::Call(index) => ring(index).map(Ring::call_fd),
            plain => self.plain.get(usize::from(plain.number())).map(AsFd::as_fd),
        };
        found.unwrap_or_else(|| self.plain[0].as_fd())
    }
}

/// A handshake and some more, all as it should be.
pub(super) fn script(rng: &mut Rng, rings: &[Ring]) -> Vec<Message> {
    use FrontendReq as Req;
    let say = Message::new;
    let features = virtio::VERSION_1 | virtio::EVENT_IDX | virtio::INDIRECT_DESC | virtio::PROTOCOL_FEATURES;
    let features = features | if rng.bool() { virtio::LOG_ALL } else { 0 };
    let protocol = ProtocolFeatures::MQ
        | ProtocolFeatures::REPLY_ACK
        | ProtocolFeatures::CONFIGURE_MEM_SLOTS
        | ProtocolFeatures::LOG_SHMFD
        | ProtocolFeatures::CONFIG
        | ProtocolFeatures::RESET_DEVICE;
    let mut script = vec![
        say(Req::SET_OWNER, &[], &[]),
        say(Req::GET_FEATURES, &[], &[]),
        say(Req::GET_PROTOCOL_FEATURES, &[], &[]),
        say(Req::SET_PROTOCOL_FEATURES, protocol.bits().as_bytes(), &[]),
        say(Req::GET_QUEUE_NUM, &[], &[]),
        say(Req::SET_FEATURES, features.as_bytes(), &[]),
        say(Req::SET_MEM_TABLE, &table(MEMORY.len()), &[0, 1, 2, 3].map(Kind::Memory)),
    ];
    for (index, ring) in rings.iter().enumerate() {
        let odd = if one_in(rng, 16) { pick(rng, &Kind::PLAIN) } else { None };
        let (kick, call) = (Kind::Kick(index as u8), odd.copied().unwrap_or(Kind::Call(index as u8)));
        let number = (index as u64).to_ne_bytes();
        script.push(say(Req::SET_VRING_NUM, [index as u32, ring.layout().size.into()].as_bytes(), &[]));
        script.push(say(Req::SET_VRING_BASE, [index as u32, 0].as_bytes(), &[]));
        script.push(say(Req::SET_VRING_ADDR, &addresses(index as u32, ring.layout()), &[]));
        script.push(say(Req::SET_VRING_CALL, &number, &[call]));
        script.push(say(Req::SET_VRING_KICK, &number, &[kick]));
        script.push(say(Req::SET_VRING_ENABLE, [index as u32, 1].as_bytes(), &[]));
    }
    for _ in 0..rng.usize(..12) {
        script.push(more(rng, rings));
    }
    script
}

/// A message that may come at any time.
fn more(rng: &mut Rng, rings: &[Ring]) -> Message {
    use FrontendReq as Req;
    let say = Message::new;
    let index = rng.u32(..rings.len() as u32);
    let region = rng.usize(..MEMORY.len());
    match rng.u8(..16) {
        0 => say(Req::GET_VRING_BASE, [index, 0].as_bytes(), &[]),
        1 => say(Req::SET_MEM_TABLE, &table(MEMORY.len()), &[0, 1, 2, 3].map(Kind::Memory)),
        2 => say(Req::ADD_MEM_REG, &single(region), &[Kind::Memory(region as u8)]),
        3 => say(Req::REM_MEM_REG, &single(region), &[]),
        4 => say(Req::SET_LOG_BASE, [4096u64, 0].as_bytes(), &[Kind::Small]),
        5 => say(Req::RESET_DEVICE, &[], &[]),
        6 => say(Req::GET_CONFIG, &[[0u32, 60, 0].as_bytes(), &[0; 60]].concat(), &[]),
        7 => say(Req::SET_VRING_ENABLE, [index, rng.u32(..2)].as_bytes(), &[]),
        8 => say(Req::SET_VRING_CALL, (u64::from(index) | 0x100).as_bytes(), &[]),
        9 => say(Req::SET_VRING_ERR, u64::from(index).as_bytes(), &[Kind::Event]),
        10 => say(Req::GET_MAX_MEM_SLOTS, &[], &[]),
        11 => say(Req::SET_VRING_BASE, [index, rng.u32(..70_000)].as_bytes(), &[]),
        12 => say(Req::GET_INFLIGHT_FD, [4096u64, 0, 1].as_bytes(), &[]),
        13 => say(Req::RESET_OWNER, &[], &[]),
        14 => say(Req::SET_FEATURES, edge(rng).as_bytes(), &[]),
        _ => {
            let body: Vec<u8> = (0..rng.usize(..48)).map(|_| rng.u8(..)).collect();
            let fds = if one_in(rng, 3) { vec![Kind::Socket] } else { Vec::new() };
            Message { request: rng.u32(..48), ..say(Req::SET_OWNER, &body, &fds) }.sized()
        }
    }
}

impl Message {
    fn sized(mut self) -> Self {
        self.size = self.body.len() as u32;
        self
    }
}

fn region(index: usize) -> [u64; 4] {
    let (guest, size) = MEMORY[index];
    [guest, size, USER_BASE + guest, 0]
}

fn table(count: usize) -> Vec<u8> {
    let mut body = [count as u32, 0].as_bytes().to_vec();
    (0..count).for_each(|index| body.extend(region(index).as_bytes()));
    body
}

fn single(index: usize) -> Vec<u8> {
    [0u64.as_bytes(), region(index).as_bytes()].concat()
}

fn addresses(index: u32, Layout { desc, avail, used, .. }: Layout) -> Vec<u8> {
    let user = |guest| USER_BASE + guest;
    [[index, 0].as_bytes(), [user(desc), user(used), user(avail), used].as_bytes()].concat()
}

/// Makes a script another than front ends follow. Says how many messages are not as they were.
pub(super) fn mutate(rng: &mut Rng, script: &mut Vec<Message>) {
    for _ in 0..rng.u8(1..=4) {
        let (len, at) = (script.len(), rng.usize(..script.len().max(1)));
        match rng.u8(..12) {
            0 if len > 1 => drop(script.remove(at)),
            1 => script.swap(at, rng.usize(..len)),
            2 => script.insert(rng.usize(..=len), script[at].clone()),
            3 if one_in(rng, 4) => script.truncate(at + 1),
            _ => change(rng, &mut script[at]),
        }
    }
}

fn change(rng: &mut Rng, message: &mut Message) {
    let len = message.body.len();
    // What comes with a message deserves as much attention as what it says.
    let choice = if !message.fds.is_empty() && rng.bool() { 11 } else { rng.u8(..12) };
    match choice {
        0..5 if len > 0 => {
            let width = if rng.bool() { 4 } else { 8 };
            let at = width * rng.usize(..len.div_ceil(width));
            let value = if one_in(rng, 3) { USER_BASE.wrapping_add(address(rng)) } else { edge(rng) };
            let value = if one_in(rng, 3) { rng.u64(..16) } else { value };
            if let Some(place) = message.body.get_mut(at..at + width) {
                place.copy_from_slice(&value.to_ne_bytes()[..width]);
            }
        }
        5 => message.request = rng.u32(..48),
        6 => message.flags = if rng.bool() { edge(rng) as u32 } else { VERSION },
        7 => message.size = if rng.bool() { edge(rng) as u32 } else { rng.u32(..256) },
        8 => {
            message.body.resize(rng.usize(..200), rng.u8(..));
            if rng.bool() {
                message.size = message.body.len() as u32;
            }
        }
        9 => drop(message.fds.pop()),
        10 => {
            let count = if one_in(rng, 8) { MAX_FDS } else { rng.usize(..4) };
            message.fds = (0..count).filter_map(|_| pick(rng, &Kind::PLAIN).copied()).collect();
        }
        _ => {
            let kind = match rng.u8(..4) {
                0 => Kind::Memory(rng.u8(..4)),
                1 => Kind::Kick(rng.u8(..3)),
                _ => pick(rng, &Kind::PLAIN).copied().unwrap_or(Kind::Event),
            };
            match message.fds.first_mut() {
                Some(first) => *first = kind,
                None => message.fds.push(kind),
            }
        }
    }
}
