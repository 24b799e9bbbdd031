//! Requests as bytes, and a queue that carries them: a thread that serves what it is sent, one after the other.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use ferryfs::{
    passthrough::Passthrough,
    protocol::{Payload, Served, Server},
};
use fuse_abi::{Errno, InHeader, OutHeader};
use vm_memory::VolatileSlice;
use zerocopy::{FromBytes, IntoBytes};

/// Longer than anything here takes on a busy machine: a request that is not answered by then hangs.
const HANG: Duration = Duration::from_secs(60);
/// What reply memory holds before it is written.
const UNTOUCHED: u8 = 0xa5;
const HEADER: usize = size_of::<OutHeader>();

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// What followed the header.
    Done(Vec<u8>),
    Failed(Errno),
    WouldBlock,
    /// No reply, as it has to be.
    Silent,
    /// No reply, for lack of a valid request.
    Dropped,
}

/// A request as it lies in memory.
#[derive(Clone, Debug)]
pub struct Message {
    pub head: Vec<u8>,
    pub payload: Vec<u8>,
    /// Bytes of memory for the reply.
    pub room: usize,
    pub may_block: bool,
}

impl Message {
    /// Puts a header before the parts of a request.
    pub fn new(mut header: InHeader, body: &[u8], payload: &[u8], room: usize) -> Self {
        header.len = (size_of::<InHeader>() + body.len() + payload.len()) as u32;
        let head = [header.as_bytes(), body].concat();
        Self { head, payload: payload.to_vec(), room, may_block: true }
    }

    /// Serves it on this thread, and holds the reply against what every reply has to be.
    pub fn serve(&mut self, server: &Server<Passthrough>) -> Answer {
        let unique = InHeader::read_from_prefix(&self.head).map_or(0, |(header, _)| header.unique);
        let mut reply = vec![UNTOUCHED; self.room];
        // Cut into pieces that match nothing, as guests do.
        let third = self.payload.len() / 3;
        let (first, second) = self.payload.split_at_mut(third);
        let payload = [VolatileSlice::from(first), VolatileSlice::from(second)];
        let (front, back) = reply.split_at_mut(self.room.min(HEADER + 3));
        let segments = [VolatileSlice::from(front), VolatileSlice::from(back)];
        // As a transport does: word of a change waits for what is under way.
        let turn = server.turns().enlist();
        turn.begin();
        let served = server.serve(&self.head, Payload::new(&payload, 0), &segments, self.may_block);
        drop(turn);
        assert_eq!(server.mistakes(), 0, "a panic was answered as an error");
        let len = match served {
            Served::Reply(len) => len as usize,
            Served::WouldBlock => return Answer::WouldBlock,
            Served::Silent => return Answer::Silent,
            Served::Dropped(_) => return Answer::Dropped,
        };
        let (header, _) = OutHeader::read_from_prefix(&reply).unwrap();
        assert_eq!((header.len as usize, header.unique), (len, unique), "the header and the used length agree");
        assert!(len >= HEADER && len <= self.room);
        // A file system may have filled memory before it failed, but never more than was asked for.
        if header.error == 0 {
            assert!(reply[len..].iter().all(|byte| *byte == UNTOUCHED), "nothing is written beyond the reply");
            return Answer::Done(reply[HEADER..len].to_vec());
        }
        assert_eq!(len, HEADER, "an error has no body");
        Answer::Failed(Errno::from_linux(-header.error))
    }
}

/// What serves requests: a thread, or the caller's own.
pub struct Queue {
    server: Arc<Server<Passthrough>>,
    requests: Option<Sender<(Message, Sender<Answer>)>>,
    thread: Option<JoinHandle<()>>,
}

impl Queue {
    pub fn new(server: &Arc<Server<Passthrough>>) -> Self {
        let (requests, taken) = channel();
        let (server, own) = (Arc::clone(server), Arc::clone(server));
        let name = std::thread::current().name().unwrap_or("queue").to_owned();
        let thread = std::thread::Builder::new().name(name).spawn(move || work(&server, &taken)).unwrap();
        Self { server: own, requests: Some(requests), thread: Some(thread) }
    }

    /// Serves on the thread that asks, which then acts as whom it last served.
    pub fn here(server: &Arc<Server<Passthrough>>) -> Self {
        Self { server: Arc::clone(server), requests: None, thread: None }
    }

    pub fn serve(&self, mut message: Message) -> Answer {
        let Some(requests) = &self.requests else { return message.serve(&self.server) };
        let (back, answer) = channel();
        requests.send((message, back)).unwrap();
        answer.recv_timeout(HANG).expect("an answer, and not a hang")
    }
}

fn work(server: &Server<Passthrough>, taken: &Receiver<(Message, Sender<Answer>)>) {
    while let Ok((mut message, back)) = taken.recv() {
        let _ = back.send(message.serve(server));
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        drop(self.requests.take());
        // One that hangs was reported, and must not hang its test too.
        if !std::thread::panicking()
            && let Some(thread) = self.thread.take()
        {
            thread.join().unwrap();
        }
    }
}
