//! Queues under load, each driven by a thread, while the test changes the device beneath them.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use ferryfs_guest::ring::Ends;
use ferryfs_guest::{Client, Cuts, Error, Lane};
use fuse_abi::{FsyncIn, GetattrIn, InHeader, Opcode, ROOT_ID, ReadIn, WriteIn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use zerocopy::IntoBytes;

/// What one queue has in flight at most.
const DEPTH: usize = 16;
/// Bytes of a WRITE.
const CHUNK: usize = 3000;

/// A file that one queue works on, which has room for what it writes.
#[derive(Clone, Copy)]
pub struct Target {
    pub node: u64,
    pub fh: u64,
}

/// Queues with a thread each. Every request is counted when it is answered, and nothing is answered twice, or the ring
/// says so.
pub struct Load {
    lanes: Vec<Arc<Mutex<Lane>>>,
    pub ends: Vec<Ends>,
    pub answered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// A request of a queue's own sequence: mostly short ones, some with data, some that wait in the pool.
fn request(n: u64, target: Target) -> (Opcode, u64, Vec<u8>, u32) {
    let Target { node, fh } = target;
    let at = (n % 50) * CHUNK as u64;
    match n % 8 {
        0 => {
            let body = WriteIn { fh, offset: at, size: CHUNK as u32, ..WriteIn::default() };
            (Opcode::Write, node, [body.as_bytes(), &[n as u8; CHUNK]].concat(), 8)
        }
        1 | 5 => {
            (Opcode::Read, node, ReadIn { fh, offset: at, size: 8000, ..ReadIn::default() }.as_bytes().into(), 8000)
        }
        2 if n % 64 == 2 => (Opcode::Fsync, node, FsyncIn { fh, ..FsyncIn::default() }.as_bytes().into(), 0),
        3 => (Opcode::Lookup, ROOT_ID, b"no-such-name\0".to_vec(), 128),
        _ => (Opcode::Getattr, ROOT_ID, GetattrIn::default().as_bytes().into(), 104),
    }
}

impl Load {
    /// Takes the client's request queues and starts.
    pub fn start(client: &mut Client, targets: &[Target]) -> Self {
        let lanes: Vec<_> = std::mem::take(&mut client.queues).into_iter().map(|l| Arc::new(Mutex::new(l))).collect();
        let ends = lanes.iter().map(|lane| lane.lock().unwrap().ring().ends().unwrap()).collect();
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let start = |(lane, target): (&Arc<Mutex<Lane>>, &Target)| {
            let (lane, target) = (Arc::clone(lane), *target);
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            std::thread::spawn(move || drive(&lane, target, &stop, &answered))
        };
        let threads = lanes.iter().zip(targets).map(start).collect();
        Self { lanes, ends, answered, stop, threads }
    }

    /// Waits until so many more requests were answered.
    pub fn progress(&self, more: u64) {
        let until = self.answered.load(Ordering::Relaxed) + more;
        crate::support::wait_for("answers", || {
            assert!(self.threads.iter().all(|thread| !thread.is_finished()), "a queue failed");
            (self.answered.load(Ordering::Relaxed) >= until).then_some(())
        });
    }

    /// Ends after `change` was made with every queue held and in the middle of its work. The rings are empty then, and
    /// what was in flight has no answer, as in a guest that is reset.
    pub fn break_off(self, change: impl FnOnce()) -> Vec<Lane> {
        {
            let mut held: Vec<_> = self.lanes.iter().map(|lane| lane.lock().unwrap()).collect();
            change();
            self.stop.store(true, Ordering::Relaxed);
            held.iter_mut().for_each(|lane| drop(lane.abandon().unwrap()));
        }
        self.finish()
    }

    /// Ends once all that was posted was answered. The queues can be used again.
    pub fn finish(self) -> Vec<Lane> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        self.lanes.into_iter().map(|lane| Arc::into_inner(lane).unwrap().into_inner().unwrap()).collect()
    }
}

/// The life of one queue.
fn drive(lane: &Mutex<Lane>, target: Target, stop: &AtomicBool, answered: &AtomicU64) {
    let call: OwnedFd = lane.lock().unwrap().call_fd().try_clone_to_owned().unwrap();
    let mut n = 0;
    loop {
        {
            let mut lane = lane.lock().unwrap();
            let ended = stop.load(Ordering::Relaxed);
            if ended && lane.in_flight() == 0 {
                return;
            }
            while !ended && lane.in_flight() < DEPTH {
                let (opcode, nodeid, body, reply) = request(n, target);
                n += 1;
                let len = (size_of::<InHeader>() + body.len()) as u32;
                let (opcode, unique) = (opcode.number(), 2 * n);
                let header = InHeader { len, opcode, unique, nodeid, ..InHeader::default() };
                lane.send(unique, header.as_bytes(), &[&body], 16 + reply, &Cuts::LINUX).unwrap();
            }
            let mut taken = 0;
            while let Some(done) = lane.try_complete().unwrap() {
                match done.check() {
                    Ok(()) => {}
                    Err(Error::Errno(errno)) => assert_eq!(errno, fuse_abi::Errno::ENOENT),
                    Err(error) => panic!("{error}"),
                }
                taken += 1;
            }
            answered.fetch_add(taken, Ordering::Relaxed);
            if taken > 0 {
                continue;
            }
            lane.ring().arm().unwrap();
        }
        // A change of the device may take the call with it: then the ring is looked at all the same.
        let mut fds = [PollFd::new(&call, PollFlags::IN)];
        let _ = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 2_000_000 }));
        lane.lock().unwrap().ring().drain_call();
    }
}
