//! What a great many names cost: the same work with few and with many inodes known, memory and descriptors meanwhile,
//! what stays of them after FORGET, and listings of that length.

use std::fmt::Write;
use std::fs::{self, File};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ferryfs_guest::{Client, Daemon, Error, FrontEnd, Lane, Options, Result};
use fuse_abi::{EntryOut, Opcode, ROOT_ID};
use tempfile::TempDir;

use crate::engine::{Actor, LIMIT, Queue, Script, Stop, forget};
use crate::scripts;
use crate::stats::Spread;

/// Requests under way.
const DEPTH: usize = 32;
/// How often each cost is taken.
const ROUNDS: usize = 5;
const DIRECTORY: &str = "many";

/// What was found with so many names.
struct Row {
    count: usize,
    fresh: f64,
    getattr: f64,
    lookup: f64,
    bytes: f64,
    descriptors: i64,
    /// Memory in KiB and descriptors, more than before, once all is forgotten.
    left: (i64, i64),
    /// Of an entry, by each stream.
    listed: [f64; 2],
}

/// Runs with each number of names, in a directory made below `place`, and writes a table.
pub fn run(program: &Path, place: &Path, counts: &[usize], slice: Duration) -> Result<String> {
    let root = TempDir::with_prefix_in("ferryfs-scale-", place).map_err(Error::io("make a directory to share"))?;
    let many = root.path().join(DIRECTORY);
    fs::create_dir(&many).map_err(Error::io("make a directory"))?;
    let mut counts = counts.to_vec();
    counts.sort_unstable();
    let (mut made, mut rows) = (0, Vec::new());
    for count in counts {
        for number in made..count {
            File::create(many.join(name(number))).map_err(Error::io("make a file"))?;
        }
        made = made.max(count);
        let row = measure(program, root.path(), count, slice)?;
        println!("{count} names: done");
        rows.push(row);
    }
    Ok(table(&rows))
}

fn name(number: usize) -> String {
    format!("one-of-many-names-{number:07}")
}

fn measure(program: &Path, shared: &Path, count: usize, slice: Duration) -> Result<Row> {
    let mut listed = [f64::NAN; 2];
    for (cost, stream) in listed.iter_mut().zip(["getdents", "snapshot"]) {
        *cost = list(program, shared, stream, slice)?;
    }
    let mut rig = Rig::start(program, shared, &[])?;
    let (parent, before) = (rig.parent, rig.size()?);
    let nodes = Arc::new(Mutex::new(Vec::with_capacity(count + DEPTH)));
    let fresh = rig.cost(|actor| look_up_all(parent, actor, count, Arc::clone(&nodes)), until(LIMIT * 60, count))?;
    let during = rig.size()?;
    let known = std::mem::take(&mut *nodes.lock().expect("no thread panics with the numbers"));
    let getattr = rig.costs(|actor| scripts::getattr_of(known[actor % known.len()]), slice)?;
    let lookup = rig.costs(|actor| scripts::lookup_of(parent, name(actor % count)), slice)?;
    rig.forget_all(&known)?;
    let after = rig.size()?;
    let bytes = (during.0 - before.0) as f64 * 1024.0 / count as f64;
    let left = (after.0 - before.0, after.1 - before.1);
    Ok(Row { count, fresh, getattr, lookup, bytes, descriptors: during.1, left, listed })
}

fn until(time: Duration, units: usize) -> Stop {
    Stop { at: Instant::now() + time, units: units as u64 }
}

/// An actor's part of all names, each looked up once; the numbers it is told are kept.
fn look_up_all(parent: u64, actor: usize, count: usize, nodes: Arc<Mutex<Vec<u64>>>) -> Script {
    let mut next = actor;
    Box::new(move |answer, ask| {
        let told = answer.len > 0;
        if told {
            nodes.lock().expect("no thread panics with the numbers").push(answer.get::<EntryOut>().nodeid);
        }
        ask.lookup(parent, &name(next % count));
        next += DEPTH;
        u32::from(told)
    })
}

/// A daemon with one queue, on which one set of scripts after the other runs.
struct Rig {
    daemon: Daemon,
    /// Kept: the daemon ends when its front end leaves.
    _front: FrontEnd,
    hiprio: Mutex<Lane>,
    queue: Queue,
    /// The directory of the many names.
    parent: u64,
    /// The same, opened.
    opened: u64,
}

impl Rig {
    fn start(program: &Path, shared: &Path, args: &[&str]) -> Result<Self> {
        let mut daemon = Daemon::share(program, shared, args)?;
        let mut client = Client::connect(daemon.connect()?, &Options { limit: LIMIT, ..Options::default() })?;
        client.init()?;
        let parent = client.lookup(ROOT_ID, DIRECTORY)?.nodeid;
        let opened = client.opendir(parent)?.fh;
        let Client { front, hiprio, queues, .. } = client;
        let lane = queues.into_iter().next().ok_or(Error::Full)?;
        Ok(Self {
            daemon,
            _front: front,
            hiprio: Mutex::new(hiprio),
            queue: Queue::new(lane, Vec::new()),
            parent,
            opened,
        })
    }

    /// CPU time of the daemon for each unit of work, in microseconds.
    fn cost(&mut self, script: impl Fn(usize) -> Script, stop: Stop) -> Result<f64> {
        self.queue.assign((0..DEPTH).map(|actor| Actor::new(script(actor), true)).collect());
        self.run(stop)
    }

    /// The same several times, and the median.
    fn costs(&mut self, script: impl Fn(usize) -> Script, slice: Duration) -> Result<f64> {
        self.queue.assign((0..DEPTH).map(|actor| Actor::new(script(actor), true)).collect());
        let costs: Result<Vec<f64>> = (0..ROUNDS).map(|_| self.run(until(slice, usize::MAX))).collect();
        Ok(Spread::of(costs?).median)
    }

    fn run(&mut self, stop: Stop) -> Result<f64> {
        let before = self.daemon.cpu_time()?;
        let units = self.queue.run(&self.hiprio, stop)?.units;
        Ok((self.daemon.cpu_time()? - before).as_secs_f64() * 1e6 / units.max(1) as f64)
    }

    /// Gives back all that is known of these nodes, however often they were looked up.
    fn forget_all(&mut self, nodes: &[u64]) -> Result<()> {
        let mut lane = self.hiprio.lock().expect("no thread panics with a lane");
        forget(&mut lane, &mut nodes.iter().map(|node| (*node, u64::MAX)).collect())?;
        lane.drain(LIMIT)
    }

    /// Memory in KiB, and descriptors.
    fn size(&self) -> Result<(i64, i64)> {
        Ok((self.daemon.kilobytes("VmRSS")? as i64, self.daemon.open_files()? as i64))
    }
}

/// CPU time for each entry of a listing by this stream.
fn list(program: &Path, shared: &Path, stream: &str, slice: Duration) -> Result<f64> {
    let mut rig = Rig::start(program, shared, &["--dir-stream", stream])?;
    let (parent, opened) = (rig.parent, rig.opened);
    rig.queue.assign(vec![Actor::new(scripts::listing_of(Opcode::Readdir, parent, opened, 128 << 10, false), true)]);
    let costs: Result<Vec<f64>> = (0..ROUNDS).map(|_| rig.run(until(slice, usize::MAX))).collect();
    Ok(Spread::of(costs?).median)
}

fn table(rows: &[Row]) -> String {
    let mut out = String::from(
        "\n### Many names, depth 32, one queue: CPU time of the daemon in microseconds\n\n\
         | inodes known | LOOKUP, fresh | GETATTR | LOOKUP, known | bytes an inode | descriptors | after FORGET of all: \
         KiB more | descriptors more | READDIR, an entry, getdents | snapshot |\n|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for row in rows {
        let [getdents, snapshot] = row.listed;
        let _ = writeln!(
            out,
            "| {} | {:.2} | {:.2} | {:.2} | {:.0} | {} | {} | {} | {getdents:.3} | {snapshot:.3} |",
            row.count, row.fresh, row.getattr, row.lookup, row.bytes, row.descriptors, row.left.0, row.left.1,
        );
    }
    out
}
