//! The other limit: a ring without a file system behind it.

use std::collections::HashSet;
use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ferryfs_guest::memory::{Arena, Memory, PAGE};
use ferryfs_guest::ring::Layout;
use ferryfs_guest::{Error, Lane, LaneSize, NullDevice, Result, Ring};
use fuse_abi::{GetattrIn, Opcode, ROOT_ID};
use zerocopy::IntoBytes;

use crate::engine::{Actor, Queue, Script, Stop};
use crate::report::NullRow;

/// Requests to a device in a thread of this process that answers each at once.
pub fn null_device(depth: usize, time: Duration) -> Result<NullRow> {
    let size = 64 << 20;
    let mut arena = Arena::new(PAGE, size - PAGE);
    let memory = Memory::new(&[(0, size)])?;
    let lane = |arena: &mut Arena| {
        let layout = Layout::take(arena, 128)?;
        let ring = Ring::new(memory.clone(), layout, true)?;
        let size = LaneSize { slots: 64, request: 4096, reply: 4096, indirect: true };
        Lane::new(ring, arena, size)
    };
    let (mut requests, hiprio) = (lane(&mut arena)?, lane(&mut arena)?);
    let before = threads();
    let _device = NullDevice::start(requests.ring(), true)?;
    let new: Vec<String> = threads().difference(&before).cloned().collect();
    let actors = (0..depth).map(|_| {
        let script: Script = Box::new(|_, ask| {
            ask.set(Opcode::Getattr, ROOT_ID, &[GetattrIn::default().as_bytes()], 104);
            1
        });
        Actor::new(script, true)
    });
    let mut queue = Queue::new(requests, actors.collect());
    let cpu = || new.iter().map(|thread| spent(thread)).sum::<Duration>();
    let (cpu_before, start) = (cpu(), Instant::now());
    let mut tally = queue.run(&Mutex::new(hiprio), Stop { at: start + time, units: u64::MAX })?;
    let (wall, cpu) = (start.elapsed(), cpu() - cpu_before);
    tally.latencies.sort_unstable();
    let p50 = tally.latencies.get(tally.latencies.len() / 2).map_or(f64::NAN, |&nanos| f64::from(nanos) / 1e3);
    let units = tally.units.max(1) as f64;
    Ok(NullRow { depth, rate: units / wall.as_secs_f64(), p50, cpu_us: cpu.as_secs_f64() * 1e6 / units })
}

fn threads() -> HashSet<String> {
    let tasks = fs::read_dir("/proc/self/task").map_err(Error::io("list threads"));
    let tasks = tasks.into_iter().flatten().flatten();
    tasks.map(|task| task.file_name().to_string_lossy().into_owned()).collect()
}

fn spent(thread: &str) -> Duration {
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).unwrap_or_default();
    Duration::from_nanos(text.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
}
