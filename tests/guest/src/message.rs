//! vhost-user messages as bytes: sent by hand, so that wrong ones can be sent as well as right ones.
//!
//! Knows the framing (header, body, descriptors) and nothing of what the messages mean.

use std::io::{IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::error::{Error, Result};

/// The version bits that every message carries.
pub const VERSION: u32 = 1;
/// The flag of a reply.
pub const REPLY: u32 = 1 << 2;
/// The flag that asks for an acknowledgement (REPLY_ACK).
pub const NEED_REPLY: u32 = 1 << 3;
/// The most descriptors in one message.
pub const MAX_FDS: usize = 32;

/// A longer body than this is no message of the protocol, and is not read.
const MAX_BODY: u32 = 1 << 20;

/// What every message begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Header {
    /// The number of the request.
    pub request: u32,
    /// Version, [`REPLY`], [`NEED_REPLY`].
    pub flags: u32,
    /// Bytes of the body.
    pub size: u32,
}

/// A message that came from the daemon.
#[derive(Debug)]
pub struct Message {
    /// Its header.
    pub header: Header,
    /// Its body.
    pub body: Vec<u8>,
    /// The descriptors that came with it.
    pub fds: Vec<OwnedFd>,
}

impl Message {
    /// The body as a struct; a body of another size is an error.
    pub fn body_as<T: FromBytes>(&self) -> Result<T> {
        T::read_from_bytes(&self.body).map_err(|_| {
            let Header { request, size, .. } = self.header;
            Error::Protocol(format!("reply to request {request} has {size} bytes, not {}", size_of::<T>()))
        })
    }
}

/// The socket to a daemon. Reading never waits longer than the limit.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    limit: Duration,
}

impl Connection {
    /// Speaks over a connected stream and waits at most `limit` for each answer.
    pub fn new(stream: UnixStream, limit: Duration) -> Result<Self> {
        stream.set_read_timeout(Some(limit)).map_err(Error::io("set a time limit"))?;
        stream.set_write_timeout(Some(limit)).map_err(Error::io("set a time limit"))?;
        Ok(Self { stream, limit })
    }

    /// Another handle on the same socket, for bytes of one's own.
    pub fn raw(&self) -> Result<UnixStream> {
        self.stream.try_clone().map_err(Error::io("clone the socket"))
    }

    /// Sends a message: header made from the parts, body and descriptors as given.
    pub fn send(&self, request: u32, flags: u32, body: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        let header = Header { request, flags: VERSION | flags, size: body.len() as u32 };
        self.send_bytes(&[header.as_bytes(), body].concat(), fds)
    }

    /// Sends any bytes; the descriptors go with the first of them.
    pub fn send_bytes(&self, mut bytes: &[u8], mut fds: &[BorrowedFd<'_>]) -> Result<()> {
        while !bytes.is_empty() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
                return Err(Error::Protocol(format!("{} descriptors in one message", fds.len())));
            }
            match sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
                Ok(sent) => (bytes, fds) = (&bytes[sent..], &[]),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.broken(errno, "send a message")),
            }
        }
        Ok(())
    }

    /// Waits for the next message from the daemon.
    pub fn receive(&self) -> Result<Message> {
        let mut header = Header::default();
        let mut fds = Vec::new();
        let mut filled = 0;
        while filled < size_of::<Header>() {
            filled += self.receive_part(&mut header.as_mut_bytes()[filled..], &mut fds)?;
        }
        if header.size > MAX_BODY {
            return Err(Error::Protocol(format!("{header:?} is no message")));
        }
        let mut body = vec![0; header.size as usize];
        (&self.stream).read_exact(&mut body).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => Error::Closed,
            _ => self.broken(Errno::from_io_error(&e).unwrap_or(Errno::IO), "receive a body"),
        })?;
        Ok(Message { header, body, fds })
    }

    /// Sends a request and waits for its reply.
    pub fn call(&self, request: u32, flags: u32, body: &[u8], fds: &[BorrowedFd<'_>]) -> Result<Message> {
        self.send(request, flags, body, fds)?;
        let reply = self.receive()?;
        if reply.header.request != request || reply.header.flags & REPLY == 0 {
            return Err(Error::Protocol(format!("request {request} was answered by {:?}", reply.header)));
        }
        Ok(reply)
    }

    fn receive_part(&self, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut parts = [IoSliceMut::new(buffer)];
            match recvmsg(&self.stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                other => break other,
            }
        };
        let received = received.map_err(|errno| self.broken(errno, "receive a message"))?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        if received.bytes == 0 { Err(Error::Closed) } else { Ok(received.bytes) }
    }

    fn broken(&self, errno: Errno, what: &'static str) -> Error {
        match errno {
            Errno::AGAIN => Error::Timeout { what, limit: self.limit },
            Errno::PIPE | Errno::CONNRESET => Error::Closed,
            _ => Error::Io { what, source: errno.into() },
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
