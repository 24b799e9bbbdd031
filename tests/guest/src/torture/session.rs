//! A connection with a right handshake, over which requests, chains and rings go wrong.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use fastrand::Rng;
use fuse_abi::{GetattrIn, InHeader, Opcode, ROOT_ID};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use zerocopy::IntoBytes;

use super::lane::{DEPTH, Finished, Lane, Outcome};
use super::mutate::{self, Stock};
use super::plan::{MEMORY, Plan, REPLY, REQUEST, SLOTS, address};
use super::record::{Journal, Step};
use super::tally::{Class, Tally};
use super::templates::{Templates, prologue};
use super::values::{HostileNames, edge, one_in};
use super::world::World;
use crate::error::{Error, Result};
use crate::front_end::{FrontEnd, Options, Queue, virtio};
use crate::memory::Arena;
use crate::ring::Desc;

/// Descriptors in each ring.
pub(super) const RING: u16 = 512;
/// The header's number in requests of the check itself.
const CHECK: u64 = 1 << 60;

/// What a session needs from outside, and leaves there.
pub(super) struct Around<'a> {
    pub(super) rng: &'a mut Rng,
    pub(super) names: &'a HostileNames,
    pub(super) tally: &'a mut Tally,
    pub(super) journal: &'a mut Journal,
    pub(super) limit: Duration,
    /// How many wrong replies are told one by one.
    pub(super) examples: &'a mut Vec<String>,
}

impl Around<'_> {
    /// Counts how a request ended, and keeps the first wrong ones to show.
    fn count(&mut self, outcome: &Outcome) {
        self.tally.count(outcome);
        if let Outcome::Wrong(what) = outcome
            && self.examples.len() < 20
        {
            self.examples.push(what.clone());
        }
    }
}

/// Hiprio and the request queues of one connection.
pub(super) struct Session {
    front: FrontEnd,
    lanes: Vec<Lane>,
    templates: Templates,
    world: World,
    /// INIT or DESTROY may have been served since the last INIT of our own.
    doubtful: bool,
    indirect: bool,
    spare: Vec<u8>,
}

impl Session {
    /// Shakes hands, sets up hiprio and `queues` request queues, and mounts.
    pub(super) fn begin(stream: UnixStream, queues: u16, around: &mut Around<'_>) -> Result<Self> {
        let event_idx = if around.rng.bool() { virtio::EVENT_IDX } else { 0 };
        let base = virtio::VERSION_1 | virtio::INDIRECT_DESC | virtio::PROTOCOL_FEATURES;
        let options = Options {
            virtio: base | event_idx,
            memory: MEMORY.to_vec(),
            request_queues: queues,
            queue_size: RING,
            limit: around.limit,
            ..Options::default()
        };
        let mut front = FrontEnd::new(stream, &options)?;
        let mut slots = Arena::new(SLOTS.0, SLOTS.1);
        let all = std::iter::once(Queue::Hiprio).chain((0..queues).map(Queue::Request));
        let mut lanes = Vec::new();
        for queue in all {
            let ring = front.start(front.index(queue), RING)?;
            lanes.push(Lane::new(ring, front.arena(), &mut slots)?);
        }
        around.journal.clear();
        let (templates, world) = (Templates::new(), World::default());
        let spare = vec![0; size_of::<InHeader>()];
        let mut session = Self { front, lanes, templates, world, doubtful: false, indirect: true, spare };
        session.mount(around)?;
        Ok(session)
    }

    /// INIT, and the requests that make things to name.
    pub(super) fn mount(&mut self, around: &mut Around<'_>) -> Result<()> {
        self.world.clear();
        self.doubtful = false;
        let init = self.templates.request(Opcode::Init, around.rng, &self.world, around.names);
        let outcome = self.ask(1, init, around)?;
        if outcome != Outcome::Done {
            return Err(Error::Protocol(format!("INIT was answered by {outcome:?}")));
        }
        for (opcode, nodeid, body) in prologue() {
            let head = InHeader {
                len: (size_of::<InHeader>() + body.len()) as u32,
                opcode: opcode.number(),
                unique: CHECK + 2,
                nodeid,
                ..InHeader::default()
            };
            // What the torture has removed, it removed; the check says whether the daemon lives.
            self.ask(1, [head.as_bytes(), &body].concat(), around)?;
        }
        Ok(())
    }

    /// Sends one request that is as it should be, alone on its queue, and waits for it.
    fn ask(&mut self, queue: usize, bytes: Vec<u8>, around: &mut Around<'_>) -> Result<Outcome> {
        let plan = Plan::new(&mut Rng::with_seed(0), bytes, 16 + 4096, false);
        let lane = &mut self.lanes[queue];
        lane.stage(&plan, true)?;
        lane.flush()?;
        let Finished { outcome, opcode, nodeid, body } = lane.wait(around.limit)?;
        if outcome == Outcome::Done {
            self.world.learn(opcode, nodeid, body);
        }
        Ok(outcome)
    }

    /// Sends `count` requests over all queues, as many at once as they take, and waits for all. Returns false when the
    /// session cannot go on, because what is left are locks that wait for each other.
    pub(super) fn round(&mut self, count: u32, around: &mut Around<'_>) -> Result<bool> {
        let mut left = count;
        while left > 0 {
            let mut staged = 0;
            for queue in 0..self.lanes.len() {
                // Hiprio gets its share of anything, but a small one.
                let share = if queue == 0 { 4 } else { usize::from(DEPTH) };
                let room = self.lanes[queue].room().min(share).min(left as usize);
                if room < share / 3 {
                    continue;
                }
                for _ in 0..room {
                    let (plan, class) = self.plan(around);
                    self.lanes[queue].stage(&plan, true)?;
                    around.journal.add(Step::Post(queue as u8, true, plan));
                    around.tally.sent(class);
                }
                self.lanes[queue].flush()?;
                (left, staged) = (left - room as u32, staged + room);
            }
            if self.collect(around)? == 0 && staged == 0 && !self.sleep(around.limit)? {
                return self.stuck(around.limit);
            }
        }
        while self.lanes.iter().any(|lane| lane.in_flight() > 0) {
            if self.collect(around)? == 0 && !self.sleep(around.limit)? {
                return self.stuck(around.limit);
            }
        }
        Ok(true)
    }

    /// Nothing came back for too long: an error, unless it is only locks.
    fn stuck(&self, limit: Duration) -> Result<bool> {
        if self.lanes.iter().all(Lane::only_waits) {
            return Ok(false);
        }
        let left: Vec<String> = self.lanes.iter().map(Lane::describe).collect();
        Err(Error::Hang(format!("after {limit:?} there are still: {}", left.join("; "))))
    }

    /// The next request, mutated in one way or the other; now and then one that is right.
    fn plan(&mut self, around: &mut Around<'_>) -> (Plan, Class) {
        let rng = &mut *around.rng;
        let mut bytes = self.templates.draw(rng, &self.world, around.names);
        let choice = rng.u8(..16);
        if (3..14).contains(&choice) {
            let stock = Stock { other: &self.spare, most: (REQUEST - 5000) as usize };
            mutate::mutate(rng, &mut bytes, &stock);
        } else if !mutate::ends_session(&bytes) {
            self.spare.clone_from(&bytes);
        }
        let correct = mutate::header(&bytes).is_some_and(|header| header.len as usize == bytes.len());
        around.names.put_in(&mut bytes, size_of::<InHeader>());
        bytes.truncate(REQUEST as usize);
        if correct {
            mutate::correct_length(&mut bytes);
        }
        self.doubtful |= mutate::ends_session(&bytes);
        let room = if one_in(rng, 6) { rng.u32(..300) } else { REPLY as u32 - rng.u32(..2048) };
        let indirect = self.indirect && !one_in(rng, 4);
        let mut plan = Plan::new(rng, bytes, room, indirect);
        match choice {
            0..3 => (plan, Class::Plain),
            3..12 => (plan, Class::Request),
            _ => {
                plan.mutate(rng);
                (plan, Class::Chain)
            }
        }
    }

    /// Takes back what has come back, and returns how much.
    fn collect(&mut self, around: &mut Around<'_>) -> Result<usize> {
        let mut count = 0;
        for lane in &mut self.lanes {
            while let Some(Finished { outcome, opcode, nodeid, body }) = lane.next()? {
                count += 1;
                around.count(&outcome);
                if outcome == Outcome::Done {
                    self.world.learn(opcode, nodeid, body);
                }
            }
        }
        Ok(count)
    }

    /// Waits until a queue calls; false when the time is over.
    fn sleep(&mut self, limit: Duration) -> Result<bool> {
        for lane in &self.lanes {
            lane.ring.arm()?;
            if lane.ring.has_used()? {
                return Ok(true);
            }
        }
        // A call that is late, or for another queue, is no reason to give up before the limit.
        let end = Instant::now() + limit;
        loop {
            let mut fds: Vec<PollFd<'_>> =
                self.lanes.iter().map(|lane| PollFd::from_borrowed_fd(lane.ring.call_fd(), PollFlags::IN)).collect();
            fds.push(PollFd::from_borrowed_fd(self.front.as_fd(), PollFlags::RDHUP));
            let left = end.saturating_duration_since(Instant::now());
            let time = Timespec::try_from(left).map_err(|e| Error::Layout(e.to_string()))?;
            match poll(&mut fds, Some(&time)) {
                Ok(0) => return Ok(false),
                Ok(_) if fds.last().is_some_and(|front| !front.revents().is_empty()) => return Err(Error::Closed),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Error::io("wait for a call")(errno)),
            }
            for lane in &self.lanes {
                lane.ring.drain_call();
            }
            for lane in &self.lanes {
                if lane.ring.has_used()? {
                    return Ok(true);
                }
            }
        }
    }

    /// A valid request on every request queue, answered within the limit.
    pub(super) fn check(&mut self, around: &mut Around<'_>) -> Result<()> {
        if self.doubtful || self.world.handles() < 4 {
            self.mount(around)?;
        }
        for queue in 1..self.lanes.len() {
            let len = (size_of::<InHeader>() + size_of::<GetattrIn>()) as u32;
            let (opcode, unique) = (Opcode::Getattr.number(), CHECK + 4);
            let head = InHeader { len, opcode, unique, nodeid: ROOT_ID, ..InHeader::default() };
            let bytes = [head.as_bytes(), GetattrIn::default().as_bytes()].concat();
            let outcome = self.ask(queue, bytes, around)?;
            if outcome != Outcome::Done {
                return Err(Error::Protocol(format!("a valid GETATTR of the root was answered by {outcome:?}")));
            }
            around.tally.checks += 1;
        }
        Ok(())
    }

    /// Lets the rings themselves go wrong for a while, then stops them and starts them anew.
    pub(super) fn wild(&mut self, around: &mut Around<'_>) -> Result<()> {
        for _ in 0..around.rng.u32(4..24) {
            let queue = around.rng.usize(..self.lanes.len());
            for _ in 0..around.rng.u32(..24) {
                if self.lanes[queue].room() > 0 {
                    let (mut plan, _) = self.plan(around);
                    plan.mutate(around.rng);
                    self.lanes[queue].stage(&plan, false)?;
                    around.journal.add(Step::Post(queue as u8, false, plan));
                }
            }
            let step = Self::disturbance(queue as u8, around.rng);
            if one_in(around.rng, 2) {
                self.disturb(&step)?;
                around.journal.add(step.clone());
            }
            self.lanes[queue].flush()?;
            // The device may be reading what changes here.
            if one_in(around.rng, 2) {
                self.disturb(&step)?;
                around.journal.add(step);
            }
            self.lanes[queue].ring.kick()?;
        }
        self.doubtful = true;
        around.journal.add(Step::Recover);
        let taken = self.recover()?;
        around.tally.rings += u64::from(taken);
        self.mount(around)
    }

    fn disturbance(queue: u8, rng: &mut Rng) -> Step {
        match rng.u8(..8) {
            0..4 => {
                let (addr, len) = (address(rng), if rng.bool() { edge(rng) as u32 } else { rng.u32(..4096) });
                let next = if one_in(rng, 4) { edge(rng) as u16 } else { rng.u16(..RING) };
                Step::Poke(queue, rng.u16(..RING), Desc { addr, len, flags: rng.u16(..8), next })
            }
            4 | 5 => Step::Head(queue, if one_in(rng, 4) { edge(rng) as u16 } else { rng.u16(..RING) }),
            6 => Step::Index(queue, rng.u16(..1024)),
            _ => Step::Index(queue, edge(rng) as u16),
        }
    }

    fn disturb(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Poke(queue, index, desc) => self.ring(*queue)?.set(*index, *desc),
            Step::Head(queue, head) => self.ring(*queue)?.stage(*head),
            Step::Index(queue, index) => self.ring(*queue)?.set_avail_index(*index),
            _ => Ok(()),
        }
    }

    fn ring(&mut self, queue: u8) -> Result<&mut crate::ring::Ring> {
        self.lanes.get_mut(usize::from(queue)).map(|lane| &mut lane.ring).ok_or(Error::Full)
    }

    /// Stops every ring and starts it anew. Returns how many requests the device had taken from them.
    fn recover(&mut self) -> Result<u32> {
        let mut taken = 0;
        for index in 0..self.lanes.len() as u32 {
            taken += u32::from(self.front.stop(index)?);
        }
        for (index, lane) in (0..).zip(&mut self.lanes) {
            lane.abandon()?;
            self.front.attach(index, &lane.ring, 0)?;
        }
        Ok(taken)
    }

    /// Leaves: with or without a word, and with requests under way.
    pub(super) fn leave(mut self, around: &mut Around<'_>) -> Result<()> {
        match around.rng.u8(..4) {
            0 => {
                let destroy = self.templates.request(Opcode::Destroy, around.rng, &self.world, around.names);
                self.ask(1, destroy, around).map(drop)
            }
            1 => (0..self.lanes.len() as u32).try_for_each(|index| self.front.stop(index).map(drop)),
            2 if self.front.protocol().contains(crate::front_end::ProtocolFeatures::RESET_DEVICE) => {
                self.front.reset_device()
            }
            _ => {
                for queue in 0..self.lanes.len() {
                    for _ in 0..self.lanes[queue].room() {
                        let (plan, _) = self.plan(around);
                        self.lanes[queue].stage(&plan, true)?;
                        around.journal.add(Step::Post(queue as u8, true, plan));
                    }
                    self.lanes[queue].flush()?;
                }
                Ok(())
            }
        }
    }

    /// Does again what was recorded.
    pub(super) fn replay(&mut self, steps: &[Step], around: &mut Around<'_>) -> Result<()> {
        for step in steps {
            match step {
                Step::Post(queue, tame, plan) => {
                    let lane = self.lanes.get_mut(usize::from(*queue)).ok_or(Error::Full)?;
                    lane.stage(plan, *tame)?;
                    lane.flush()?;
                    if *tame {
                        let Finished { outcome, .. } = lane.wait(around.limit)?;
                        around.count(&outcome);
                    }
                }
                Step::Recover => {
                    self.recover()?;
                    self.mount(around)?;
                }
                Step::Say(_) | Step::Fill(_) => {}
                other => self.disturb(other)?,
            }
            around.journal.add(step.clone());
        }
        self.doubtful = true;
        self.check(around)
    }
}
