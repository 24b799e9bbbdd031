//! The one writer of replies: it alone sets lengths and errors.
//!
//! A reply's body is written first, in place; its header last, once it is known whether there is a body at all.

use fuse_abi::{Errno, OutHeader};
use vm_memory::VolatileSlice;
use zerocopy::IntoBytes;

use super::wire::Wire;
use super::{Body, Failure};

/// How a request ended, for the transport that brought it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// It was answered; so many bytes of the reply's memory are used, and its header says the same.
    Reply(u32),
    /// It was done and has no reply: the used length is 0.
    Silent,
    /// It could not be answered: the used length is 0, and the transport counts it.
    Dropped(Dropped),
    /// Nothing was done. The same bytes can be served again, on a thread that may wait.
    WouldBlock,
}

/// Why a request got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Dropped {
    /// It had no whole header, so there is no number to answer to.
    #[error("it has no whole header")]
    NoHeader,
    /// It left no room for the header of a reply.
    #[error("it has no room for a reply")]
    NoRoom,
    /// It is of a kind that has no reply, and could not be done.
    #[error("it has no reply and failed: {0}")]
    Refused(Errno),
}

/// What a reply carries, for the table of operations.
pub(super) trait ReplyShape {
    const ANSWERED: bool = true;
    /// Bytes of the fixed part.
    fn fixed_size(minor: u32) -> usize;
}

/// As many bytes as the request asked for.
#[derive(Debug)]
pub(super) struct Data;

/// No reply, not even an error.
#[derive(Debug)]
pub(super) struct NoReply;

impl ReplyShape for Data {
    fn fixed_size(_minor: u32) -> usize {
        0
    }
}

impl ReplyShape for NoReply {
    const ANSWERED: bool = false;
    fn fixed_size(_minor: u32) -> usize {
        0
    }
}

impl ReplyShape for () {
    fn fixed_size(_minor: u32) -> usize {
        0
    }
}

impl<T: Wire> ReplyShape for T {
    fn fixed_size(minor: u32) -> usize {
        T::size(minor)
    }
}

impl<T: Wire, U: Wire> ReplyShape for (T, U) {
    fn fixed_size(minor: u32) -> usize {
        T::size(minor).saturating_add(U::size(minor))
    }
}

/// A reply that is being written.
#[derive(Debug)]
pub(super) struct Reply<'r> {
    segments: &'r [VolatileSlice<'r>],
    unique: u64,
    minor: u32,
    body: Body<'r>,
}

const HEADER: usize = size_of::<OutHeader>();

impl<'r> Reply<'r> {
    /// A reply to the request `unique`, unless there is no room for even an error.
    pub fn new(segments: &'r [VolatileSlice<'r>], unique: u64, minor: u32) -> Option<Self> {
        if Body::new(segments, 0).room() < HEADER {
            return None;
        }
        let mut body = Body::new(segments, HEADER);
        // The header's length has 32 bits.
        body.limit((u32::MAX as usize).saturating_sub(HEADER));
        Some(Self { segments, unique, minor, body })
    }

    /// How many bytes of body still fit.
    pub const fn room(&self) -> usize {
        self.body.room()
    }

    /// The body, with room for exactly `size` bytes.
    ///
    /// A client that asks for more than it left room for would take the short reply for the end of the file, so it
    /// gets `EINVAL`.
    pub fn exactly(&mut self, size: u32) -> Result<&mut Body<'r>, Errno> {
        if size as usize > self.body.room() {
            return Err(Errno::EINVAL);
        }
        Ok(self.at_most(size as usize))
    }

    /// The body, with room for `size` bytes or as many as there are.
    pub fn at_most(&mut self, size: usize) -> &mut Body<'r> {
        self.body.limit(size);
        &mut self.body
    }

    /// Appends a struct, as long as a client of this minor version takes it.
    pub fn put<T: Wire>(&mut self, value: &T) -> Result<(), Failure> {
        self.put_for(value, self.minor)
    }

    /// Appends a struct as a client of another minor version takes it.
    pub fn put_for<T: Wire>(&mut self, value: &T, minor: u32) -> Result<(), Failure> {
        let bytes = value.as_bytes();
        self.put_bytes(bytes.get(..T::size(minor)).unwrap_or(bytes))
    }

    /// Appends bytes.
    pub fn put_bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.body.put(bytes) { Ok(()) } else { Err(Failure::Errno(Errno::EINVAL)) }
    }

    /// Writes the header: of what was put, or of an error that has no body.
    pub fn finish(self, outcome: Result<(), Errno>) -> Served {
        let (body, error) = match outcome {
            Ok(()) => (self.body.written(), 0),
            Err(errno) => (0, errno.wire()),
        };
        let Ok(len) = u32::try_from(body.saturating_add(HEADER)) else {
            return Served::Dropped(Dropped::NoRoom);
        };
        let header = OutHeader { len, error, unique: self.unique };
        if Body::new(self.segments, 0).put(header.as_bytes()) {
            Served::Reply(len)
        } else {
            Served::Dropped(Dropped::NoRoom)
        }
    }
}
