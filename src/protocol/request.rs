//! From bytes to a request. Any byte string gives a request or an errno; nothing here can panic.
//!
//! The bytes are a copy that the guest can no longer change. They are read from the front, each part once, and a
//! request carries what its row in `operations.rs` says and not a byte more.

use std::ffi::CStr;

use fuse_abi::{Errno, InHeader, WriteIn};
use zerocopy::FromBytes;

use super::wire::Wire;
use super::{Agreement, GuestArch, NodeId, Operation, Request};

/// The most bytes of a request that a transport copies before it is served, the data of a WRITE apart. The longest
/// that Linux sends is a SYMLINK: two names and a security label of 64 KiB. What is longer is `E2BIG`.
pub const MAX_HEAD: usize = 72 * 1024;

/// What decides how bytes are read.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// What the session agreed on.
    pub agreed: Agreement,
    /// Whose numbers open flags have.
    pub arch: GuestArch,
}

/// How many of the `available` bytes of a request that begins with `start` make its head: all but the data of a WRITE.
pub(super) fn head_len(start: &[u8], available: usize, minor: u32) -> usize {
    let opcode = InHeader::read_from_prefix(start).map(|(header, _)| header.opcode).ok();
    match opcode.and_then(Operation::from_number) {
        Some(Operation::Write) => available.min(size_of::<InHeader>().saturating_add(WriteIn::size(minor))),
        _ => available,
    }
}

/// A request whose header was read and whose rest was not.
#[derive(Clone, Copy, Debug)]
pub struct Message<'r> {
    /// The header.
    pub header: InHeader,
    /// What it asks for, if the protocol knows it.
    pub operation: Option<Operation>,
    body: &'r [u8],
}

impl<'r> Message<'r> {
    /// Reads the header; without a whole one there is nobody to answer.
    #[must_use]
    pub fn open(head: &'r [u8]) -> Option<Self> {
        let (header, body) = InHeader::read_from_prefix(head).ok()?;
        Some(Self { header, operation: Operation::from_number(header.opcode), body })
    }

    /// Understands the rest. `payload` is how many bytes the request has beyond its head.
    ///
    /// # Errors
    /// `EINVAL` where the bytes are not what the operation carries or their number is not what the header says,
    /// `ENOSYS` for operations that are not served, `E2BIG` for a request longer than any of its kind, and what
    /// Linux answers to names and values that no file system takes.
    pub fn parse(&self, payload: usize, terms: &Terms) -> Result<Request<'r>, Errno> {
        let total = size_of::<InHeader>().saturating_add(self.body.len()).saturating_add(payload);
        if self.header.len as usize != total {
            return Err(Errno::EINVAL);
        }
        let operation = self.operation.ok_or(Errno::ENOSYS)?;
        if payload != 0 && operation != Operation::Write {
            return Err(Errno::E2BIG);
        }
        let mut cursor = Cursor::new(&self.header, self.body, payload, terms)?;
        let request = Request::take(operation, &mut cursor)?;
        cursor.finish()?;
        Ok(request)
    }
}

/// A part of a request that takes itself off the bytes.
pub(super) trait Take<'r>: Sized {
    fn take(cursor: &mut Cursor<'r>) -> Result<Self, Errno>;
}

/// The bytes of a request that no part has taken yet, and what the parts need to know to read theirs.
#[derive(Debug)]
pub(super) struct Cursor<'r> {
    rest: &'r [u8],
    extensions: &'r [u8],
    /// The node of the header.
    pub node: NodeId,
    /// Bytes of data behind the head.
    pub payload: usize,
    pub terms: Terms,
}

impl<'r> Cursor<'r> {
    fn new(header: &InHeader, body: &'r [u8], payload: usize, terms: &Terms) -> Result<Self, Errno> {
        // Extensions lie at the end; the header counts them in units of eight bytes.
        let extensions = usize::from(header.total_extlen).saturating_mul(8);
        let parts = body.len().checked_sub(extensions).ok_or(Errno::EINVAL)?;
        let (rest, extensions) = body.split_at_checked(parts).ok_or(Errno::EINVAL)?;
        Ok(Self { rest, extensions, node: NodeId(header.nodeid), payload, terms: *terms })
    }

    /// The next fixed struct, as long as a client of this minor version sends it; what it does not send is zero.
    pub fn fixed<T: Wire>(&mut self) -> Result<T, Errno> {
        let bytes = self.bytes(T::size(self.terms.agreed.minor))?;
        match T::read_from_bytes(bytes) {
            Ok(value) => Ok(value),
            Err(_) => fuse_abi::read_short(bytes, 0).ok_or(Errno::EINVAL),
        }
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&'r [u8], Errno> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or(Errno::EINVAL)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// The next text up to its terminator.
    pub fn string(&mut self) -> Result<&'r CStr, Errno> {
        let text = CStr::from_bytes_until_nul(self.rest).map_err(|_| Errno::EINVAL)?;
        self.bytes(text.to_bytes_with_nul().len())?;
        Ok(text)
    }

    /// All that is left before the extensions.
    pub fn rest(&mut self) -> &'r [u8] {
        std::mem::take(&mut self.rest)
    }

    /// The extensions that the header counts.
    pub fn extensions(&mut self) -> &'r [u8] {
        std::mem::take(&mut self.extensions)
    }

    fn finish(self) -> Result<(), Errno> {
        if self.rest.is_empty() && self.extensions.is_empty() { Ok(()) } else { Err(Errno::EINVAL) }
    }
}
