//! A connection on which the vhost-user messages themselves go wrong, with requests waiting in the rings meanwhile.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use fastrand::Rng;
use fuse_abi::Opcode;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::lane::Lane;
use super::messages::{Descriptors, Message, mutate, script};
use super::mutate::correct_length;
use super::plan::{MEMORY, Plan, SLOTS};
use super::record::Step;
use super::session::{Around, RING};
use super::templates::{HEADER, Templates};
use super::values::{HostileNames, one_in};
use super::world::World;
use crate::error::{Error, Result};
use crate::memory::{Arena, Memory, PAGE};
use crate::message::Connection;
use crate::ring::{Layout, Ring};

/// Hiprio and one request queue are enough to be wrong about.
const QUEUES: usize = 2;

/// How long a front end waits for an answer that may not be due, and for a call.
const PATIENCE: Duration = Duration::from_micros(500);

/// What every such connection uses.
pub(super) struct Chatter {
    fds: Descriptors,
}

impl Chatter {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { fds: Descriptors::new()? })
    }

    /// Says a mutated script. Returns how many messages the daemon took before it hung up, if it did.
    pub(super) fn talk(&self, stream: UnixStream, around: &mut Around<'_>) -> Result<u64> {
        around.journal.clear();
        let seed = around.rng.u64(..);
        around.journal.add(Step::Fill(seed));
        let (memory, rings) = fill(seed, around.names)?;
        let mut messages = script(around.rng, &rings);
        mutate(around.rng, &mut messages);
        messages.iter().for_each(|message| around.journal.add(Step::Say(message.clone())));
        self.say(stream, &messages, &memory, &rings, around.limit, !one_in(around.rng, 8))
    }

    /// Says again what was recorded.
    pub(super) fn replay(&self, stream: UnixStream, steps: &[Step], around: &mut Around<'_>) -> Result<u64> {
        let seed = steps.iter().find_map(|step| if let Step::Fill(seed) = step { Some(*seed) } else { None });
        let (memory, rings) = fill(seed.unwrap_or(0), around.names)?;
        let say = |step: &Step| if let Step::Say(message) = step { Some(message.clone()) } else { None };
        let messages: Vec<Message> = steps.iter().filter_map(say).collect();
        self.say(stream, &messages, &memory, &rings, around.limit, true)
    }

    fn say(
        &self,
        stream: UnixStream,
        messages: &[Message],
        memory: &Memory,
        rings: &[Ring],
        limit: Duration,
        stay: bool,
    ) -> Result<u64> {
        let connection = Connection::new(stream, limit)?;
        let mut said = 0;
        for message in messages {
            let fds: Vec<_> = message.fds.iter().map(|kind| self.fds.get(*kind, memory, rings)).collect();
            match connection.send_bytes(&message.bytes(), &fds) {
                Ok(()) => said += 1,
                // A front end that says such things may be left.
                Err(Error::Closed) => break,
                Err(error) => return Err(error),
            }
            rings.iter().try_for_each(Ring::kick)?;
            // One that does not listen is in trouble with its answers before long; most do.
            if stay {
                wait(&connection, PATIENCE)?;
            }
            listen(&connection)?;
        }
        if stay {
            rings.iter().try_for_each(|ring| ring.wait_call(PATIENCE).map(drop))?;
            hear_out(&connection, limit)?;
        }
        Ok(said)
    }
}

/// Reads whatever the daemon has said so far, so that it never waits to be heard.
fn listen(connection: &Connection) -> Result<()> {
    let stream = connection.raw()?;
    let mut bytes = [0; 4096];
    loop {
        match recv(&stream, &mut bytes[..], RecvFlags::DONTWAIT) {
            Ok((_, 0)) | Err(Errno::AGAIN | Errno::CONNRESET) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::io("hear the daemon")(errno)),
        }
    }
}

/// Waits until the daemon has said something, or for a while.
fn wait(connection: &Connection, limit: Duration) -> Result<bool> {
    let mut fds = [PollFd::new(connection, PollFlags::IN)];
    let limit = Timespec::try_from(limit).map_err(|e| Error::Layout(e.to_string()))?;
    match poll(&mut fds, Some(&limit)) {
        Ok(count) => Ok(count > 0),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(Error::io("wait for the daemon")(errno)),
    }
}

/// Says no more, and hears what the daemon has to say until it hangs up.
fn hear_out(connection: &Connection, limit: Duration) -> Result<()> {
    let stream = connection.raw()?;
    // A daemon that has hung up already cannot be told.
    let _ = stream.shutdown(Shutdown::Write);
    let mut bytes = [0; 4096];
    loop {
        if !wait(connection, limit)? {
            return Err(Error::Timeout { what: "wait for the daemon to hang up", limit });
        }
        match recv(&stream, &mut bytes[..], RecvFlags::DONTWAIT) {
            Ok((_, 0)) | Err(Errno::CONNRESET) => return Ok(()),
            Ok(_) | Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => return Err(Error::io("hear the daemon")(errno)),
        }
    }
}

/// Guest memory with rings in which requests wait for a daemon to find them.
fn fill(seed: u64, names: &HostileNames) -> Result<(Memory, Vec<Ring>)> {
    let rng = &mut Rng::with_seed(seed);
    let memory = Memory::new(&MEMORY)?;
    let mut arena = Arena::new(PAGE, MEMORY[0].1 - PAGE);
    let mut slots = Arena::new(SLOTS.0, SLOTS.1);
    let (mut templates, world) = (Templates::new(), World::default());
    let mut rings = Vec::new();
    for _ in 0..QUEUES {
        let ring = Ring::new(memory.clone(), Layout::take(&mut arena, RING)?, true)?;
        let mut lane = Lane::new(ring, &mut arena, &mut slots)?;
        for number in 0..rng.usize(1..lane.room()) {
            let mut bytes = match number {
                0 => templates.request(Opcode::Init, rng, &world, names),
                _ => templates.draw(rng, &world, names),
            };
            names.put_in(&mut bytes, HEADER);
            correct_length(&mut bytes);
            lane.stage(&Plan::new(rng, bytes, 4096, number % 2 == 0), true)?;
        }
        lane.ring.publish()?;
        rings.push(lane.ring);
    }
    Ok((memory, rings))
}
