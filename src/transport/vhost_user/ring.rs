//! One virtqueue, as the front end sets it up and as its worker serves it.
//!
//! Everything about a ring is behind one lock, which is free but for moments: the worker takes it to take requests and
//! to hand replies back, the pool to hand replies back, and the front end's thread to change it. Requests are served
//! without it, and counted, so that a ring can be stopped with nothing in flight.

use std::{
    fs::File,
    io::Write,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileMemory};

use super::dirty::DirtyLog;
use crate::transport::virtqueue::{Chain, Memory, Table};

/// The largest ring a front end may set up.
pub(super) const RING_MAX: u16 = 1024;
/// The used ring's flags, index and event, and one element of it.
const USED_FIXED: usize = 6;
const USED_ELEMENT: usize = 8;
/// Where the index lies in the available ring.
const AVAILABLE_INDEX: u64 = 2;

/// A virtqueue with what wakes its worker.
#[derive(Debug)]
pub(super) struct Ring {
    pub(super) index: usize,
    state: Mutex<State>,
    drained: Condvar,
    /// What the worker sleeps on: the guest's kick, and our own bell.
    sleep: OwnedFd,
    bell: OwnedFd,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    /// Wrapped once more for this ring alone: its threads count their uses without disturbing another's.
    memory: Option<Memory>,
    kick: Option<File>,
    /// Never blocks.
    call: Option<File>,
    /// Started by a kick descriptor, stopped by GET_VRING_BASE.
    started: bool,
    enabled: bool,
    /// Requests that were taken and have not been handed back.
    in_flight: u16,
    /// Some were handed back since the guest was last asked whether it wants to know.
    unannounced: bool,
    ending: bool,
    log: Option<Arc<DirtyLog>>,
    /// Where the log wants writes to the used ring noted.
    used_log: Option<GuestAddress>,
}

/// What a worker took.
pub(super) enum Taken {
    /// Requests, by the heads of their chains.
    Requests(Memory, Table),
    /// Nothing: the ring is empty, or must not be served now.
    Nothing,
    /// The connection is over.
    End,
}

/// What a worker that found nothing does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Something came in between: look again.
    No,
    /// Sleep until the guest kicks or something changes.
    UntilWoken,
    /// The front end gave no kick: nobody will say when there is something.
    Briefly,
}

/// How long a ring without a kick may go unseen.
const UNSEEN: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

const BELL: u64 = 0;
const KICK: u64 = 1;

impl Ring {
    pub(super) fn new(index: usize) -> std::io::Result<Arc<Self>> {
        let sleep = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // Edges only: what rang is never read, which spares a system call a wake-up.
        epoll::add(&sleep, &bell, epoll::EventData::new_u64(BELL), epoll::EventFlags::IN | epoll::EventFlags::ET)?;
        let state = State {
            queue: Queue::new(RING_MAX).map_err(std::io::Error::other)?,
            memory: None,
            kick: None,
            call: None,
            started: false,
            enabled: false,
            in_flight: 0,
            unannounced: false,
            ending: false,
            log: None,
            used_log: None,
        };
        Ok(Arc::new(Self { index, state: Mutex::new(state), drained: Condvar::new(), sleep, bell }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the worker look at the ring.
    pub(super) fn ring_bell(&self) {
        // Full only after 2^64 rings, and then the worker is awake.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    /// Sleeps until a kick or the bell, or not for long.
    pub(super) fn sleep(&self, rest: Rest) {
        let limit = match rest {
            Rest::No => return,
            Rest::UntilWoken => None,
            Rest::Briefly => Some(&UNSEEN),
        };
        let mut events = [const { std::mem::MaybeUninit::uninit() }; 2];
        // Interrupted or failed, the worker looks at the ring, which is right in any case.
        let _ = epoll::wait(&self.sleep, &mut events, limit);
    }
}

/// The worker's side.
impl Ring {
    /// Takes up to `most` requests.
    pub(super) fn take(&self, heads: &mut Vec<u16>, most: usize) -> Taken {
        heads.clear();
        let mut state = self.state();
        if state.ending {
            return Taken::End;
        }
        let Some(memory) = state.serving() else { return Taken::Nothing };
        let most = most.min(state.room().into());
        match state.queue.iter(memory.as_ref().as_ref()) {
            Ok(available) => heads.extend(available.take(most).map(|chain| chain.head_index())),
            // More requests than the ring has room for: the guest's ring is broken until it resets it.
            Err(error) => log::debug!("queue {}: {error}", self.index),
        }
        if heads.is_empty() {
            return Taken::Nothing;
        }
        state.in_flight = state.in_flight.saturating_add(u16::try_from(heads.len()).unwrap_or(u16::MAX));
        let table = Table { address: state.queue.desc_table(), len: state.queue.size() };
        Taken::Requests(memory, table)
    }

    /// Whether the ring may be served now.
    pub(super) fn is_served(&self) -> bool {
        self.state().serving().is_some()
    }

    /// Sleeps until the ring may be served; says no at the end of the connection.
    pub(super) fn await_start(&self) -> bool {
        loop {
            let (ending, served) = {
                let state = self.state();
                (state.ending, state.serving().is_some())
            };
            if ending || served {
                return !ending;
            }
            self.sleep(Rest::UntilWoken);
        }
    }

    /// How many requests were taken and not handed back.
    pub(super) fn in_flight(&self) -> usize {
        self.state().in_flight.into()
    }

    /// Whether there is something to take, or the connection is over.
    pub(super) fn has_more(&self) -> bool {
        let state = self.state();
        state.ending || state.serving().is_some_and(|memory| state.has_more(&memory))
    }

    /// Looks several times whether there is something to take, without taking it. Between looks it only reads the guest's
    /// index, where it lies: neither the lock nor the memory's count is touched, which others may be using.
    pub(super) fn watch(&self, looks: u32) -> bool {
        let (memory, index, next) = {
            let state = self.state();
            match state.serving() {
                _ if state.ending => return true,
                Some(memory) if state.has_more(&memory) => return true,
                Some(memory) if state.room() > 0 => {
                    let index = state.queue.avail_ring().saturating_add(AVAILABLE_INDEX);
                    (memory, GuestAddress(index), state.queue.next_avail())
                }
                _ => return false,
            }
        };
        let place = GuestMemoryBackend::get_slice(memory.as_ref().as_ref(), index, size_of::<u16>());
        let Ok(place) = place else { return false };
        let Ok(available) = place.get_atomic_ref::<AtomicU16>(0) else { return false };
        let moved = (0..looks).any(|_| {
            std::hint::spin_loop();
            u16::from_le(available.load(Ordering::Relaxed)) != next
        });
        // An impossible index moves too.
        moved && self.has_more()
    }

    /// Asks the guest to kick from now on, if it has anything to kick.
    pub(super) fn ask_for_kicks(&self) -> Rest {
        let mut state = self.state();
        if state.ending {
            return Rest::No;
        }
        let Some(memory) = state.serving() else { return Rest::UntilWoken };
        if state.kick.is_none() {
            return if state.has_more(&memory) { Rest::No } else { Rest::Briefly };
        }
        let more = state.queue.enable_notification(memory.as_ref().as_ref()).unwrap_or(false);
        state.note_used_ring();
        // A ring with an impossible index has more for ever; it is not worth staying awake for.
        if more && state.has_more(&memory) { Rest::No } else { Rest::UntilWoken }
    }

    /// Asks the guest not to kick while the worker looks by itself.
    pub(super) fn refuse_kicks(&self) {
        let mut state = self.state();
        if let Some(memory) = state.serving() {
            let _ = state.queue.disable_notification(memory.as_ref().as_ref());
            state.note_used_ring();
        }
    }

    /// Hands a request back with `len` bytes of reply.
    pub(super) fn hand_back(&self, head: u16, chain: &Chain, len: u32) {
        let mut state = self.state();
        state.add_used(head, chain, len);
        self.finish(&state);
    }

    /// Hands a request back and notifies the guest if it wants to know.
    pub(super) fn hand_back_and_notify(&self, head: u16, chain: &Chain, len: u32) {
        let mut state = self.state();
        let was_full = state.room() == 0;
        state.add_used(head, chain, len);
        state.announce();
        self.finish(&state);
        drop(state);
        if was_full {
            // The worker may sleep although there is something to take.
            self.ring_bell();
        }
    }

    /// Notifies the guest of what was handed back, if it wants to know.
    pub(super) fn notify(&self) {
        self.state().announce();
    }

    fn finish(&self, state: &State) {
        if state.in_flight == 0 && (!state.started || state.ending) {
            self.drained.notify_all();
        }
    }
}

impl State {
    fn serving(&self) -> Option<Memory> {
        if self.started && self.enabled && !self.ending { self.memory.clone() } else { None }
    }

    /// How many more requests may be in flight. A guest that reuses descriptors before they are handed back could
    /// otherwise make this process hold more and more of them.
    fn room(&self) -> u16 {
        self.queue.size().saturating_sub(self.in_flight)
    }

    fn has_more(&self, memory: &GuestMemoryMmap) -> bool {
        if self.room() == 0 {
            return false;
        }
        let available = self.queue.avail_idx(memory, std::sync::atomic::Ordering::Acquire);
        available.is_ok_and(|index| {
            let waiting = index.0.wrapping_sub(self.queue.next_avail());
            waiting != 0 && waiting <= self.queue.size()
        })
    }

    fn add_used(&mut self, head: u16, chain: &Chain, len: u32) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let Some(memory) = &self.memory else { return };
        if let Some(log) = &self.log {
            chain.written(len as usize).for_each(|(address, len)| log.mark(address, len));
        }
        if let Err(error) = self.queue.add_used(memory.as_ref().as_ref(), head, len) {
            log::debug!("a request could not be handed back: {error}");
        }
        self.unannounced = true;
        self.note_used_ring();
    }

    /// Signals what was handed back, if the guest wants to know. Done before anybody else can stop the ring: the answer
    /// to a stop must not overtake a call.
    fn announce(&mut self) {
        // Without a way to call it is left for when there is one: a front end may give it after the kick.
        let (Some(memory), true) = (&self.memory, self.call.is_some()) else { return };
        if !std::mem::take(&mut self.unannounced) {
            return;
        }
        let wanted = if self.queue.event_idx_enabled() {
            self.queue.needs_notification(memory.as_ref().as_ref()).unwrap_or(true)
        } else {
            !interrupts_unwanted(memory, self.queue.avail_ring())
        };
        if wanted && let Some(call) = &mut self.call {
            // A front end that has gone is noticed by its socket.
            let _ = call.write(&1_u64.to_ne_bytes());
        }
    }

    /// Notes in the log that the used ring was written: all of it, which is three pages at most.
    fn note_used_ring(&self) {
        if let (Some(log), Some(used)) = (&self.log, self.used_log) {
            log.mark(used, USED_FIXED + USED_ELEMENT * usize::from(self.queue.size()));
        }
    }
}

/// Without event indices the guest says by a flag of the available ring that it polls.
fn interrupts_unwanted(memory: &GuestMemoryMmap, avail_ring: u64) -> bool {
    const NO_INTERRUPT: u16 = 1;
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    vm_memory::Bytes::read_obj::<u16>(memory, GuestAddress(avail_ring))
        .is_ok_and(|flags| u16::from_le(flags) & NO_INTERRUPT != 0)
}

/// The front end's side. Each change ends with the bell, so that nothing waits for a kick that was made before it.
impl Ring {
    fn change<T>(&self, how: impl FnOnce(&mut State) -> T) -> T {
        let changed = how(&mut self.state());
        self.ring_bell();
        changed
    }

    pub(super) fn set_memory(&self, memory: Arc<GuestMemoryMmap>) {
        self.change(|state| state.memory = Some(Arc::new(memory)));
    }

    pub(super) fn set_log(&self, log: Option<Arc<DirtyLog>>) {
        self.change(|state| state.log = log);
    }

    pub(super) fn set_size(&self, size: u16) {
        self.change(|state| state.queue.set_size(size));
    }

    pub(super) fn set_event_idx(&self, enabled: bool) {
        self.change(|state| state.queue.set_event_idx(enabled));
    }

    pub(super) fn set_enabled(&self, enabled: bool) {
        self.change(|state| state.enabled = enabled);
    }

    pub(super) fn set_call(&self, call: Option<File>) {
        self.change(|state| {
            state.call = call;
            state.announce();
        });
    }

    pub(super) fn set_next_available(&self, index: u16) {
        self.change(|state| state.queue.set_next_avail(index));
    }

    /// Places the three parts of the ring. The used index goes on where the guest's memory says that it stands.
    pub(super) fn set_addresses(
        &self,
        table: u64,
        available: u64,
        used: u64,
        used_log: Option<GuestAddress>,
    ) -> Result<(), virtio_queue::Error> {
        self.change(|state| {
            state.queue.try_set_desc_table_address(GuestAddress(table))?;
            state.queue.try_set_avail_ring_address(GuestAddress(available))?;
            state.queue.try_set_used_ring_address(GuestAddress(used))?;
            state.used_log = used_log;
            let memory = state.memory.clone().ok_or(virtio_queue::Error::QueueNotReady)?;
            let index = state.queue.used_idx(memory.as_ref().as_ref(), std::sync::atomic::Ordering::Relaxed)?;
            state.queue.set_next_used(index.0);
            Ok(())
        })
    }

    /// Starts the ring with the guest's kick; without one its worker looks at it every so often.
    pub(super) fn start(&self, kick: Option<File>) -> std::io::Result<()> {
        self.change(|state| {
            self.forget_kick(state);
            if let Some(kick) = kick {
                let how = epoll::EventFlags::IN | epoll::EventFlags::ET;
                epoll::add(&self.sleep, &kick, epoll::EventData::new_u64(KICK), how)?;
                state.kick = Some(kick);
            }
            state.started = true;
            state.queue.set_ready(true);
            Ok(())
        })
    }

    fn forget_kick(&self, state: &mut State) {
        if let Some(old) = state.kick.take() {
            // Explicitly: closing our copy alone would leave it in the set.
            let _ = epoll::delete(&self.sleep, old.as_fd());
        }
    }

    /// Stops the ring, waits until every request of it was handed back, and says where it stands.
    pub(super) fn stop(&self) -> u16 {
        let mut state = self.state();
        state.started = false;
        state.queue.set_ready(false);
        while state.in_flight > 0 {
            state = self.drained.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        self.forget_kick(&mut state);
        // The worker may not have come to it yet, and a guest that goes on later waits for what it was not told of.
        state.announce();
        state.call = None;
        state.queue.next_avail()
    }

    /// Stops the ring and forgets how it was set up.
    pub(super) fn reset(&self) {
        self.stop();
        self.change(|state| {
            state.queue.reset();
            state.enabled = false;
            state.used_log = None;
        });
    }

    /// Stops the ring for good, and its worker with it.
    pub(super) fn end(&self) {
        self.stop();
        self.retire();
    }

    /// Takes no more requests, and waits for none of those that were taken.
    pub(super) fn retire(&self) {
        self.change(|state| state.ending = true);
    }

    /// Waits until every request that was taken is handed back and announced, or until the deadline. Says which.
    pub(super) fn is_drained_by(&self, deadline: Instant) -> bool {
        let mut state = self.state();
        while state.in_flight > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return false;
            }
            (state, _) = self.drained.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
        state.announce();
        true
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use vm_memory::Bytes;

    use super::*;

    const TABLE: u64 = 0x1000;
    const AVAILABLE: u64 = 0x2000;
    const USED: u64 = 0x3000;

    /// A ring of eight that was started, with one request in it, and what it calls.
    fn started() -> (Arc<Ring>, Arc<GuestMemoryMmap>, OwnedFd) {
        let memory = Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x4000)]).unwrap());
        let ring = Ring::new(1).unwrap();
        let call = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        ring.set_memory(Arc::clone(&memory));
        ring.set_size(8);
        ring.set_addresses(TABLE, AVAILABLE, USED, None).unwrap();
        ring.set_call(Some(call.try_clone().unwrap().into()));
        ring.set_enabled(true);
        ring.start(None).unwrap();
        offer(&memory, 1);
        (ring, memory, call)
    }

    /// Offers the first descriptor once more, `index` times in all.
    fn offer(memory: &GuestMemoryMmap, index: u16) {
        memory.write_obj(index, GuestAddress(AVAILABLE + 2)).unwrap();
    }

    fn calls(call: &OwnedFd) -> u64 {
        let mut count = [0; 8];
        rustix::io::read(call, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
    }

    fn take(ring: &Ring) -> usize {
        let mut heads = Vec::new();
        ring.take(&mut heads, 1000);
        heads.len()
    }

    #[test]
    fn a_stop_announces_what_its_worker_had_not_come_to_announce() {
        let (ring, memory, call) = started();
        assert_eq!(take(&ring), 1);
        std::thread::scope(|scope| {
            let stop = scope.spawn(|| ring.stop());
            ring.hand_back(0, &Chain::default(), 16);
            assert_eq!(stop.join().unwrap(), 1);
        });
        assert_eq!(calls(&call), 1);
        // The worker comes to it afterwards.
        ring.notify();
        assert_eq!(calls(&call), 0);
        assert_eq!(memory.read_obj::<u16>(GuestAddress(USED + 2)).unwrap(), 1);
    }

    #[test]
    fn nothing_is_announced_twice_or_for_nothing() {
        let (ring, _memory, call) = started();
        ring.notify();
        assert_eq!(calls(&call), 0);
        assert_eq!(take(&ring), 1);
        ring.hand_back_and_notify(0, &Chain::default(), 16);
        ring.notify();
        assert_eq!(calls(&call), 1);
    }

    #[test]
    fn what_was_done_before_there_was_a_way_to_call_is_announced_when_there_is_one() {
        let (ring, _memory, call) = started();
        ring.set_call(None);
        assert_eq!(take(&ring), 1);
        ring.hand_back_and_notify(0, &Chain::default(), 16);
        assert_eq!(calls(&call), 0);
        ring.set_call(Some(call.try_clone().unwrap().into()));
        assert_eq!(calls(&call), 1);
    }

    #[test]
    fn no_more_is_in_flight_than_the_ring_is_long() {
        let (ring, memory, _call) = started();
        offer(&memory, 8);
        assert_eq!(take(&ring), 8);
        // A guest that offers what it has not got back.
        offer(&memory, 16);
        assert_eq!((take(&ring), ring.has_more(), ring.ask_for_kicks()), (0, false, Rest::Briefly));
        ring.hand_back_and_notify(0, &Chain::default(), 16);
        assert_eq!((ring.has_more(), take(&ring), take(&ring)), (true, 1, 0));
    }
}
