//! Keeps many requests under way on the queues of one device and measures them. Knows no file system: what is asked
//! comes from scripts, one for each request that is under way at a time.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use ferryfs_guest::{Cuts, Error, Lane, Result};
use fuse_abi::{ForgetIn, InHeader, Opcode};
use zerocopy::{FromBytes, IntoBytes};

/// How long any reply may take before the daemon counts as hung.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The next request of a script. Its room is used again and again.
#[derive(Debug, Default)]
pub struct Ask {
    opcode: u32,
    nodeid: u64,
    body: Vec<u8>,
    payload: u32,
    reply: u32,
    copies: bool,
    /// Who asks.
    pub uid: u32,
    /// The errno that the reply must carry; 0 for success.
    pub errno: i32,
    /// What to forget before the request, by the queue of high priority: node and count.
    pub forgets: Vec<(u64, u64)>,
}

impl Ask {
    /// A request of these parts, with room for `reply` bytes.
    pub fn set(&mut self, opcode: Opcode, nodeid: u64, parts: &[&[u8]], reply: usize) {
        (self.opcode, self.nodeid, self.reply) = (opcode.number(), nodeid, reply as u32);
        (self.payload, self.errno) = (0, 0);
        // Data is for the guest's page cache; this client only looks at what it must.
        self.copies = opcode != Opcode::Read;
        self.body.clear();
        parts.iter().for_each(|part| self.body.extend_from_slice(part));
    }

    /// Adds so many bytes of data, whatever stands in the slot.
    pub fn with_payload(&mut self, len: u32) {
        self.payload = len;
    }
}

/// What came back.
#[derive(Debug, Default)]
pub struct Answer<'a> {
    /// The bytes after the header, but for data.
    pub body: &'a [u8],
    /// How many bytes the reply has after its header.
    pub len: u32,
}

impl Answer<'_> {
    /// The struct that the reply begins with; zeros when it is too short.
    pub fn get<T: FromBytes>(&self) -> T {
        self.get_after(0)
    }

    /// The struct that follows after `skip` bytes.
    pub fn get_after<T: FromBytes>(&self, skip: usize) -> T {
        let rest = self.body.get(skip..).unwrap_or_default();
        T::read_from_prefix(rest).map_or_else(|_| T::new_zeroed(), |(value, _)| value)
    }
}

/// Sees the answer to its last request, writes the next, and says how many units of work the answer completed: 0 within
/// an operation. The first answer is empty.
pub type Script = Box<dyn FnMut(&Answer<'_>, &mut Ask) -> u32 + Send>;

/// A script at work.
pub struct Actor {
    script: Script,
    /// Whether its work counts, or only keeps the device busy.
    counts: bool,
    ask: Ask,
    began: Instant,
    /// Whether the operation under way was interrupted by the end of a slice: its latency means nothing.
    parked: bool,
}

impl Actor {
    /// Takes the first request from the script.
    pub fn new(mut script: Script, counts: bool) -> Self {
        let mut ask = Ask::default();
        script(&Answer::default(), &mut ask);
        Self { script, counts, ask, began: Instant::now(), parked: true }
    }
}

/// When a slice ends.
#[derive(Clone, Copy)]
pub struct Stop {
    /// At this time.
    pub at: Instant,
    /// After so much work on each queue.
    pub units: u64,
}

/// What one queue did in a slice.
#[derive(Default)]
pub struct Tally {
    /// Units of work.
    pub units: u64,
    /// Nanoseconds of each operation.
    pub latencies: Vec<u32>,
}

/// A request queue and who uses it.
pub struct Queue {
    lane: Lane,
    actors: Vec<Actor>,
    sequence: u64,
    body: Vec<u8>,
}

const ACTORS_MAX: u64 = 128;

impl Queue {
    /// At most 128 actors, and no more than the lane has slots.
    pub fn new(lane: Lane, actors: Vec<Actor>) -> Self {
        let mut queue = Self { lane, actors: Vec::new(), sequence: 0, body: Vec::new() };
        queue.assign(actors);
        queue
    }

    /// Puts other actors to work from the next slice on.
    pub fn assign(&mut self, actors: Vec<Actor>) {
        assert!(actors.len() as u64 <= ACTORS_MAX && actors.len() <= usize::from(self.lane.size().slots));
        self.actors = actors;
    }

    /// Lets the scripts run until the end of the slice; then nothing is under way.
    pub fn run(&mut self, hiprio: &Mutex<Lane>, stop: Stop) -> Result<Tally> {
        let mut tally = Tally::default();
        for index in 0..self.actors.len() {
            self.send(index, hiprio)?;
        }
        while self.lane.in_flight() > 0 {
            let index = self.take_one(&mut tally)?;
            if Instant::now() < stop.at && tally.units < stop.units {
                self.send(index, hiprio)?;
            } else {
                self.actors[index].parked = true;
            }
        }
        hiprio.lock().expect("no thread panics with a lane").drain(LIMIT)?;
        Ok(tally)
    }

    /// Takes a reply to its script; says whose it was.
    fn take_one(&mut self, tally: &mut Tally) -> Result<usize> {
        let completion = self.lane.complete(LIMIT)?;
        let index = (completion.unique() / 2 % ACTORS_MAX) as usize;
        let actor = &mut self.actors[index];
        let errno = completion.check().err().map_or(Ok(0), |error| error.errno().map(|e| e.get()).ok_or(error))?;
        if errno != actor.ask.errno {
            return Err(Error::Reply(format!("errno {errno} in reply to {:?}", actor.ask)));
        }
        self.body.clear();
        if actor.ask.copies {
            completion.body_into(&mut self.body)?;
        }
        let len = completion.used().saturating_sub(size_of::<fuse_abi::OutHeader>() as u32);
        drop(completion);
        let units = (actor.script)(&Answer { body: &self.body, len }, &mut actor.ask);
        if units > 0 {
            let now = Instant::now();
            if actor.counts {
                tally.units += u64::from(units);
                if !actor.parked {
                    tally.latencies.push((now - actor.began).as_nanos().try_into().unwrap_or(u32::MAX));
                }
            }
            actor.parked = false;
            actor.began = now;
        }
        Ok(index)
    }

    fn send(&mut self, index: usize, hiprio: &Mutex<Lane>) -> Result<()> {
        let actor = &mut self.actors[index];
        if !actor.ask.forgets.is_empty() {
            forget(&mut hiprio.lock().expect("no thread panics with a lane"), &mut actor.ask.forgets)?;
            actor.began = Instant::now();
        }
        let ask = &actor.ask;
        self.sequence += 1;
        let unique = (self.sequence * ACTORS_MAX + index as u64) * 2;
        let len = (size_of::<InHeader>() + ask.body.len()) as u32 + ask.payload;
        let (opcode, nodeid, uid) = (ask.opcode, ask.nodeid, ask.uid);
        let header = InHeader { len, opcode, unique, nodeid, uid, gid: uid, pid: 1, ..InHeader::default() };
        let slot = self.lane.take().ok_or(Error::Full)?;
        let filled = self.lane.fill(&slot, header.as_bytes(), &[&ask.body])?;
        let cuts = if ask.payload > 0 { Cuts::LINUX_WRITE } else { Cuts::LINUX };
        let reply = size_of::<fuse_abi::OutHeader>() as u32 + ask.reply;
        if actor.parked {
            actor.began = Instant::now();
        }
        self.lane.submit(slot, unique, filled + ask.payload, reply, &cuts)
    }
}

/// Sends FORGET after FORGET as the kernel does, and waits only for room.
pub fn forget(lane: &mut Lane, forgets: &mut Vec<(u64, u64)>) -> Result<()> {
    for (nodeid, nlookup) in forgets.drain(..) {
        while lane.try_complete()?.is_some() {}
        if !lane.has_free() {
            lane.complete(LIMIT)?;
        }
        let body = ForgetIn { nlookup };
        let len = (size_of::<InHeader>() + size_of_val(&body)) as u32;
        let header = InHeader { len, opcode: Opcode::Forget.number(), unique: 2, nodeid, ..InHeader::default() };
        lane.send(2, header.as_bytes(), &[body.as_bytes()], 0, &Cuts::NONE)?;
    }
    Ok(())
}
