//! Serves one queue: takes what is there, serves it, hands it back, and looks a while longer before it sleeps.

use std::{sync::Arc, time::Instant};

use super::{
    drops::Drops,
    polling::Polling,
    pool::{Job, Pool},
    ring::{Rest, Ring, Taken},
};
use crate::{
    protocol::{FileSystem, Served, Server, Turn},
    transport::virtqueue::{self, Chain, Memory, Table},
};

/// How many requests are taken before the guest is told of those that are done.
const BATCH: usize = 16;
/// For how many turns of a loop, about a microsecond, a worker that took few of several requests lets the guest get ahead:
/// right behind it, each request costs both of them the cache lines that the other is writing.
const LEAD: u32 = 100;
/// How often a worker looks before it asks the clock again.
const LOOKS: u32 = 32;

pub(super) struct Worker<'s, F> {
    pub(super) ring: Arc<Ring>,
    pub(super) server: &'s Server<F>,
    /// Without one, requests that wait are waited for here.
    pub(super) pool: Option<&'s Pool>,
    pub(super) drops: &'s Drops,
    pub(super) polling: Polling,
}

impl<F: FileSystem> Worker<'_, F> {
    /// The life of the thread.
    pub(super) fn run(mut self) {
        let mut room = Room { heads: Vec::with_capacity(BATCH), chain: Chain::default(), head: Vec::new() };
        // All that the guest has asked for is in the pool: it waits for that, and is not likely to ask for more.
        let mut guest_waits = false;
        let mut waited = false;
        let turn = self.server.turns().enlist();
        loop {
            match self.ring.take(&mut room.heads, BATCH) {
                Taken::Requests(memory, table) => {
                    self.polling.took(room.heads.len());
                    if std::mem::take(&mut waited) {
                        self.polling.waited(Instant::now());
                    }
                    let few = self.polling.looks_at_several() && room.heads.len() < BATCH / 2;
                    guest_waits = self.serve_batch(&memory, table, &mut room, &turn);
                    if few {
                        (0..LEAD).for_each(|_| std::hint::spin_loop());
                    }
                }
                Taken::Nothing => {
                    room.chain.clear();
                    let found = !std::mem::take(&mut guest_waits) && self.poll();
                    if !found {
                        self.rest();
                    }
                    waited = true;
                }
                Taken::End => return,
            }
        }
    }

    /// Sleeps, unless something came in between.
    fn rest(&self) {
        let rest = self.ring.ask_for_kicks();
        self.ring.sleep(rest);
        if rest == Rest::UntilWoken {
            self.ring.refuse_kicks();
        }
    }

    /// Says whether all that the guest waits for was handed over.
    fn serve_batch(&self, memory: &Memory, table: Table, room: &mut Room, turn: &Turn<'_>) -> bool {
        turn.begin();
        let mut all_handed_over = true;
        let mut heads = std::mem::take(&mut room.heads);
        let count = heads.len();
        for index in heads.drain(..) {
            all_handed_over &= self.serve_one(memory, table, index, room, turn);
        }
        room.heads = heads;
        if !all_handed_over {
            self.ring.notify();
        }
        turn.end();
        all_handed_over && self.ring.in_flight() <= count
    }

    /// Says whether the request was handed over.
    fn serve_one(&self, memory: &Memory, table: Table, index: u16, room: &mut Room, turn: &Turn<'_>) -> bool {
        let len = match room.chain.load(memory, table, index) {
            Ok(()) => {
                virtqueue::copy_head(self.server, &room.chain, &mut room.head);
                match virtqueue::serve(self.server, &room.chain, &room.head, false) {
                    Served::WouldBlock => match self.pool {
                        Some(pool) => {
                            self.hand_over(pool, index, room);
                            return true;
                        }
                        None => self.wait_for(room, turn),
                    },
                    served => self.drops.len_of(self.ring.index, served),
                }
            }
            Err(why) => self.drops.note(self.ring.index, &why),
        };
        self.ring.hand_back(index, &room.chain, len);
        false
    }

    /// Serves here what waits. Those before it need not wait for it.
    fn wait_for(&self, room: &Room, turn: &Turn<'_>) -> u32 {
        self.ring.notify();
        // What waits carries no names and attributes that last until there is word: nothing is held back for it, here or
        // in the pool.
        turn.end();
        let len = self.drops.len_of(self.ring.index, virtqueue::serve(self.server, &room.chain, &room.head, true));
        turn.begin();
        len
    }

    fn hand_over(&self, pool: &Pool, index: u16, room: &mut Room) {
        let (chain, head) = (std::mem::take(&mut room.chain), std::mem::take(&mut room.head));
        pool.submit(Job { ring: Arc::clone(&self.ring), index, chain, head });
    }

    /// Looks for requests for a while. Says whether there are some.
    fn poll(&self) -> bool {
        let Some(time) = self.polling.time() else { return false };
        let start = Instant::now();
        while start.elapsed() < time {
            if self.ring.watch(LOOKS) {
                return true;
            }
        }
        false
    }
}

/// What a worker uses again for each request.
struct Room {
    heads: Vec<u16>,
    chain: Chain,
    head: Vec<u8>,
}
