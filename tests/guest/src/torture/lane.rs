//! A queue of mutated requests: posts them by their plans, keeps the books, and judges the replies.

use std::time::Duration;

use fuse_abi::{Opcode, OutHeader};
use zerocopy::IntoBytes;

use super::mutate::header;
use super::plan::{Plan, REPLY, REQUEST, Slot, TABLE};
use crate::error::{Error, Result};
use crate::memory::Arena;
use crate::ring::{Desc, Ring, Used};

/// Requests at once on one queue.
pub(super) const DEPTH: u16 = 48;
/// Bytes of a reply's header.
pub(super) const REPLY_HEADER: u32 = size_of::<OutHeader>() as u32;
/// No errno of Linux is larger.
const ERRNO_MAX: i32 = 4095;

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Answered with success.
    Done,
    /// Answered with an error.
    Refused(i32),
    /// Handed back without an answer, as it must be: it has no reply, no header, or no room for one.
    Silent,
    /// Its chain was mutated and it was handed back; what with is not told from outside.
    Returned,
    /// Handed back with an answer that no client may get.
    Wrong(String),
}

/// A request that came back.
pub(super) struct Finished<'l> {
    pub(super) outcome: Outcome,
    pub(super) opcode: u32,
    pub(super) nodeid: u64,
    /// The body of a reply to learn from.
    pub(super) body: &'l [u8],
}

#[derive(Clone, Copy, Debug, Default)]
struct Flying {
    slot: u16,
    opcode: u32,
    nodeid: u64,
    unique: u64,
    /// What of the reply can be expected.
    expected: Expected,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Expected {
    /// A reply within this room.
    Reply(u32),
    /// Nothing.
    Silence,
    /// Anything within the rules of the ring.
    #[default]
    Anything,
}

/// A ring, its slots, and what is under way.
pub(super) struct Lane {
    pub(super) ring: Ring,
    slots: Vec<Slot>,
    free: Vec<u16>,
    flying: Vec<Option<Flying>>,
    chain: Vec<Desc>,
    table: Vec<Desc>,
    body: Vec<u8>,
}

impl Lane {
    /// Takes tables beside the ring, and slots from the arena of slots.
    pub(super) fn new(ring: Ring, tables: &mut Arena, slots: &mut Arena) -> Result<Self> {
        let slot = |_| {
            let table = tables.take(TABLE, TABLE)?;
            Ok(Slot { request: slots.take(REQUEST, 8)?, reply: slots.take(REPLY, 8)?, table })
        };
        Ok(Self {
            slots: (0..DEPTH).map(slot).collect::<Result<_>>()?,
            free: (0..DEPTH).collect(),
            flying: vec![None; ring.layout().size.into()],
            chain: Vec::new(),
            table: Vec::new(),
            body: Vec::new(),
            ring,
        })
    }

    /// How many more requests it takes.
    pub(super) fn room(&self) -> usize {
        // The longest chains need more descriptors than a fair share.
        if self.ring.free() < 128 { 0 } else { self.free.len() }
    }

    pub(super) fn in_flight(&self) -> usize {
        usize::from(DEPTH) - self.free.len()
    }

    /// Whether all that is under way are locks that wait for others.
    pub(super) fn only_waits(&self) -> bool {
        let waits = self.flying.iter().flatten().filter(|one| one.opcode == Opcode::Setlkw.number()).count();
        waits == self.in_flight()
    }

    /// What is under way, in words.
    pub(super) fn describe(&self) -> String {
        let opcodes: Vec<String> = self.flying.iter().flatten().map(|one| one.opcode.to_string()).collect();
        format!("{} requests of opcodes [{}]", opcodes.len(), opcodes.join(" "))
    }

    /// Stages a request. It is shown to the device by [`Lane::flush`].
    pub(super) fn stage(&mut self, plan: &Plan, tame: bool) -> Result<()> {
        let slot = self.free.pop().ok_or(Error::Full)?;
        let place = self.slots[usize::from(slot)];
        plan.place(&place, tame, &mut self.chain, &mut self.table);
        let memory = self.ring.memory();
        memory.write(place.request, &plan.bytes)?;
        // What an earlier reply left must not pass for this one.
        memory.write(place.reply, OutHeader { len: u32::MAX, error: 1, unique: u64::MAX }.as_bytes())?;
        if !self.table.is_empty() {
            self.table.truncate(TABLE as usize / size_of::<Desc>());
            memory.write(place.table, self.table.as_bytes())?;
        }
        let header = header(&plan.bytes).unwrap_or_default();
        let whole = plan.bytes.len() >= size_of_val(&header);
        let silent = Opcode::try_from(header.opcode).is_ok_and(|opcode| {
            matches!(opcode, Opcode::Forget | Opcode::BatchForget | Opcode::Interrupt | Opcode::NotifyReply)
        });
        let expected = match plan.room {
            None => Expected::Anything,
            Some(room) if whole && !silent && room >= REPLY_HEADER => Expected::Reply(room),
            Some(_) => Expected::Silence,
        };
        let head = self.ring.add_raw(&self.chain)?;
        let (opcode, nodeid, unique) = (header.opcode, header.nodeid, header.unique);
        self.flying[usize::from(head)] = Some(Flying { slot, opcode, nodeid, unique, expected });
        Ok(())
    }

    /// Shows the device what was staged.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.ring.publish()?;
        self.ring.notify().map(drop)
    }

    /// The next request that came back.
    pub(super) fn next(&mut self) -> Result<Option<Finished<'_>>> {
        let Some(used) = self.ring.pop()? else { return Ok(None) };
        self.finish(used).map(Some)
    }

    /// Waits for it.
    pub(super) fn wait(&mut self, limit: Duration) -> Result<Finished<'_>> {
        let used = self.ring.wait(limit)?;
        self.finish(used)
    }

    fn finish(&mut self, Used { head, len }: Used) -> Result<Finished<'_>> {
        let flying = self.flying.get_mut(usize::from(head)).and_then(Option::take);
        let flying = flying.ok_or(Error::NotInFlight(head.into()))?;
        self.free.push(flying.slot);
        self.body.clear();
        let outcome = self.judge(&flying, len)?;
        Ok(Finished { outcome, opcode: flying.opcode, nodeid: flying.nodeid, body: &self.body })
    }

    fn judge(&mut self, flying: &Flying, used: u32) -> Result<Outcome> {
        let wrong = |why: String| Ok(Outcome::Wrong(format!("opcode {}: {why}", flying.opcode)));
        let room = match flying.expected {
            Expected::Anything => return Ok(Outcome::Returned),
            Expected::Silence if used == 0 => return Ok(Outcome::Silent),
            Expected::Silence => return wrong(format!("{used} bytes where no reply can be")),
            Expected::Reply(room) => room,
        };
        let reply = self.slots[usize::from(flying.slot)].reply;
        let memory = self.ring.memory();
        let header: OutHeader = memory.get(reply)?;
        let sound = used == header.len && used >= REPLY_HEADER && used <= room && header.unique == flying.unique;
        if !sound || header.error > 0 || header.error < -ERRNO_MAX || (header.error < 0 && used != REPLY_HEADER) {
            return wrong(format!("used {used} of {room}, unique {}, {header:?}", flying.unique));
        }
        if header.error < 0 {
            return Ok(Outcome::Refused(-header.error));
        }
        self.body.resize((used - REPLY_HEADER).min(256) as usize, 0);
        memory.read(reply + u64::from(REPLY_HEADER), &mut self.body)?;
        Ok(Outcome::Done)
    }

    /// After a stop: an empty ring, and nothing under way.
    pub(super) fn abandon(&mut self) -> Result<()> {
        self.free = (0..DEPTH).collect();
        self.flying.fill(None);
        self.ring.reset()
    }
}
