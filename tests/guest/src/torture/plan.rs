//! A request with the chain it travels in, as positions rather than addresses: it can be written down and posted again.

use fastrand::Rng;

use super::values::{edge, one_in};
use crate::ring::{Desc, INDIRECT, NEXT, WRITE};

/// Where a descriptor points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// Into the slot's request.
    Request(u64),
    /// Into the slot's room for a reply.
    Reply(u64),
    /// Into the slot's table.
    Table(u64),
    /// Into memory that belongs to no slot.
    Scratch(u64),
    /// Anywhere.
    Absolute(u64),
}

/// A descriptor; `next` counts within its own list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) at: At,
    pub(super) len: u32,
    pub(super) flags: u16,
    pub(super) next: u16,
}

/// A request and its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) bytes: Vec<u8>,
    /// The descriptors in the ring.
    pub(super) links: Vec<Link>,
    /// Those in the slot's own table.
    pub(super) table: Vec<Link>,
    /// The room for a reply, where the chain is as it should be: its reply can be checked.
    pub(super) room: Option<u32>,
}

/// Guest addresses of a slot, and what lies around it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) request: u64,
    pub(super) reply: u64,
    pub(super) table: u64,
}

/// The sizes of a slot's parts.
pub(super) const REQUEST: u64 = 16 << 10;
pub(super) const REPLY: u64 = 20 << 10;
pub(super) const TABLE: u64 = 4 << 10;

/// Guest memory as the torture lays it out: rings and tables, a hole, slots, memory of nobody in two regions that
/// touch, another hole, and a last region that is smaller than anybody would expect.
pub(super) const MEMORY: [(u64, u64); 4] =
    [(0, 4 << 20), (16 << 20, 16 << 20), (32 << 20, 1 << 20), (64 << 20, 0x1_0000)];
pub(super) const SLOTS: (u64, u64) = MEMORY[1];
const SCRATCH: u64 = 31 << 20;
const SCRATCH_SIZE: u64 = 2 << 20;
/// What lies before it belongs to a ring or a slot.
const OWNED: u64 = SCRATCH;
/// No memory.
const HOLE: u64 = 8 << 20;

impl Plan {
    /// A chain as drivers make them, cut as Linux cuts it or elsewhere.
    pub(super) fn new(rng: &mut Rng, bytes: Vec<u8>, room: u32, indirect: bool) -> Self {
        let mut chain = Vec::new();
        let len = bytes.len() as u32;
        let (request_cuts, reply_cuts) = if one_in(rng, 4) {
            (vec![rng.u32(..=len), rng.u32(..=len), rng.u32(..64)], vec![rng.u32(..=room), rng.u32(..32)])
        } else {
            (vec![40, 80], vec![16])
        };
        cut(&mut chain, len, request_cuts, At::Request, 0);
        cut(&mut chain, room, reply_cuts, At::Reply, WRITE);
        if chain.is_empty() {
            // A chain has at least one descriptor.
            chain.push(Link { at: At::Request(0), len: 0, flags: 0, next: 0 });
        }
        join(&mut chain);
        let (links, table) = if indirect {
            let len = (chain.len() * size_of::<Desc>()) as u32;
            (vec![Link { at: At::Table(0), len, flags: INDIRECT, next: 0 }], chain)
        } else {
            (chain, Vec::new())
        };
        Self { bytes, links, table, room: Some(room) }
    }

    /// Makes the chain another than drivers make.
    pub(super) fn mutate(&mut self, rng: &mut Rng) {
        self.room = None;
        let before = (self.links.clone(), self.table.clone());
        while (&before.0, &before.1) == (&self.links, &self.table) {
            for _ in 0..rng.u8(1..=3) {
                let list = if self.table.is_empty() || one_in(rng, 3) { &mut self.links } else { &mut self.table };
                change(rng, list);
            }
        }
    }

    /// The descriptors for the ring and for the table. A tame chain may be wrong in any way that stays its own affair:
    /// it writes to its own slot or to memory of nobody, and follows no table but its own.
    pub(super) fn place(&self, slot: &Slot, tame: bool, ring: &mut Vec<Desc>, table: &mut Vec<Desc>) {
        ring.clear();
        table.clear();
        let count = self.links.len() as u16;
        ring.extend(self.links.iter().map(|link| {
            let mut desc = link.place(slot, tame);
            if tame && desc.next >= count {
                // Beyond its own descriptors lie those of others.
                desc.next |= 0x8000;
            }
            desc
        }));
        table.extend(self.table.iter().map(|link| link.place(slot, tame)));
    }
}

impl Link {
    fn place(&self, slot: &Slot, tame: bool) -> Desc {
        let addr = match self.at {
            At::Request(offset) => slot.request.wrapping_add(offset),
            At::Reply(offset) => slot.reply.wrapping_add(offset),
            At::Table(offset) => slot.table.wrapping_add(offset),
            At::Scratch(offset) => SCRATCH + offset % SCRATCH_SIZE,
            At::Absolute(address) => address,
        };
        let mut desc = Desc { addr, len: self.len, flags: self.flags, next: self.next };
        if !tame {
            return desc;
        }
        let end = addr.saturating_add(u64::from(self.len));
        let within = |from: u64, len: u64| addr >= from && end <= from + len;
        if self.flags & INDIRECT != 0 {
            if !within(slot.table, TABLE) && addr < MEMORY[3].0 + MEMORY[3].1 {
                desc.addr = HOLE;
            }
        } else if self.flags & WRITE != 0
            && addr < OWNED
            && !within(slot.request, REQUEST)
            && !within(slot.reply, REPLY)
        {
            desc.addr = SCRATCH;
        }
        desc
    }
}

fn cut(chain: &mut Vec<Link>, len: u32, mut cuts: Vec<u32>, at: fn(u64) -> At, flags: u16) {
    cuts.push(len);
    cuts.sort_unstable();
    let mut from = 0;
    for to in cuts.into_iter().filter(|to| *to <= len) {
        if to > from {
            chain.push(Link { at: at(from.into()), len: to - from, flags, next: 0 });
            from = to;
        }
    }
}

/// Makes a list one chain.
fn join(chain: &mut [Link]) {
    let last = chain.len().saturating_sub(1);
    for (index, link) in chain.iter_mut().enumerate() {
        (link.flags, link.next) =
            if index < last { (link.flags | NEXT, index as u16 + 1) } else { (link.flags & !NEXT, 0) };
    }
}

fn change(rng: &mut Rng, list: &mut Vec<Link>) {
    let len = list.len();
    let at = rng.usize(..len);
    let link = &mut list[at];
    match rng.u8(..14) {
        0 => link.flags ^= 1 << rng.u8(..16),
        1 => link.flags ^= 1 << rng.u8(..3),
        2 => link.next = rng.u16(..len as u16 + 1),
        3 => link.next = edge(rng) as u16,
        4 => link.len = edge(rng) as u32,
        5 => link.len = rng.u32(..200),
        6 => link.len = link.len.wrapping_add(rng.u32(..3)).wrapping_sub(1),
        7 => link.at = At::Absolute(address(rng)),
        8 => {
            let offset = if one_in(rng, 4) { SCRATCH_SIZE - rng.u64(1..64) } else { rng.u64(..SCRATCH_SIZE) };
            *link = Link { at: At::Scratch(offset), len: rng.u32(1..1 << 20), ..*link };
        }
        9 => {
            let other = rng.usize(..len);
            list.swap(at, other);
        }
        10 => {
            list.remove(at);
            if list.is_empty() {
                list.push(Link { at: At::Absolute(address(rng)), len: 16, flags: rng.u16(..8), next: 0 });
            }
        }
        11 => {
            // Long, and of the same memory again and again.
            let copy = *link;
            let count = if one_in(rng, 16) { rng.usize(1..48) } else { 1 };
            let count = if len < 64 { count } else { 0 };
            list.splice(at..at, std::iter::repeat_n(copy, count));
            join(list);
        }
        12 => {
            let (first, rest) = (link.len / 2, link.len - link.len / 2);
            let copy = Link { len: rest, ..*link };
            link.len = first;
            list.insert(at + 1, copy);
            join(list);
        }
        _ => {
            list.reverse();
            join(list);
        }
    }
}

/// An address where something begins or ends.
pub(super) fn address(rng: &mut Rng) -> u64 {
    let (start, size) = MEMORY[rng.usize(..MEMORY.len())];
    let near = match rng.u8(..6) {
        0 => edge(rng),
        1 => start,
        2 | 3 => start + size,
        4 => start + rng.u64(..size),
        _ => HOLE,
    };
    near.wrapping_add(rng.u64(..64)).wrapping_sub(rng.u64(..64))
}
