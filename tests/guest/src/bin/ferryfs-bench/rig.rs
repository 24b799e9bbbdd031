//! One daemon under measurement: started for one workload, driven slice by slice, watched from outside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ferryfs_guest::{Client, Daemon, Error, FrontEnd, Lane, Options, Result};

use crate::engine::{Actor, LIMIT, Queue, Stop, Tally};
use crate::source::Source;
use crate::workloads::{Stage, Workload};

/// A way to run a daemon.
#[derive(Clone, Debug)]
pub struct Side {
    /// How the table calls it.
    pub name: &'static str,
    pub program: PathBuf,
    pub args: Vec<String>,
    pub is_peer: bool,
    /// How many request queues it can serve.
    pub queues: u16,
}

/// What a slice showed.
#[derive(Debug, Default, Clone)]
pub struct Slice {
    pub units: u64,
    pub wall: Duration,
    pub cpu: Duration,
    /// Nanoseconds, sorted.
    pub latencies: Vec<u32>,
}

impl Slice {
    pub fn rate(&self) -> f64 {
        self.units as f64 / self.wall.as_secs_f64()
    }

    /// Microseconds of the daemon's CPU time for each unit.
    pub fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.units.max(1) as f64
    }
}

/// System calls for each unit of work.
#[derive(Debug, Default, Clone)]
pub struct Calls {
    /// Calls that do the work.
    pub work: f64,
    /// Calls that wait, wake and tell the time.
    pub wakes: f64,
    /// The names and counts of those that do the work.
    pub names: String,
}

/// A daemon with a workload's actors on its queues.
pub struct Rig {
    daemon: Daemon,
    /// Kept: the daemon ends when its front end leaves.
    _front: FrontEnd,
    hiprio: Mutex<Lane>,
    queues: Vec<Queue>,
}

impl Rig {
    pub fn start(
        (number, side): (usize, &Side),
        source: &Source,
        workload: &Workload,
        depth: usize,
        queues: u16,
    ) -> Result<Self> {
        let args: Vec<&str> = side.args.iter().map(String::as_str).chain(workload.args.iter().copied()).collect();
        let mut daemon = Daemon::share(&side.program, source.shared(), &args)?;
        let options = Options { request_queues: queues, limit: LIMIT, ..Options::default() };
        let mut client = Client::connect(daemon.connect()?, &options)?;
        client.init()?;
        let mut actors: Vec<Vec<Actor>> = Vec::new();
        for queue in 0..usize::from(queues) {
            let mut here = Vec::new();
            for actor in 0..depth {
                let of = depth * usize::from(queues);
                let stage = Stage { source, side: number, number: queue * depth + actor, of };
                let (script, counts) = (workload.script)(&mut client, &stage)?;
                here.push(Actor::new(script, counts));
            }
            actors.push(here);
        }
        let Client { front, hiprio, queues, .. } = client;
        let queues = queues.into_iter().zip(actors).map(|(lane, actors)| Queue::new(lane, actors)).collect();
        Ok(Self { daemon, _front: front, hiprio: Mutex::new(hiprio), queues })
    }

    /// Runs for `time`, one thread a queue.
    pub fn slice(&mut self, time: Duration) -> Result<Slice> {
        self.run(Stop { at: Instant::now() + time, units: u64::MAX })
    }

    fn run(&mut self, stop: Stop) -> Result<Slice> {
        let cpu = self.daemon.cpu_time()?;
        let start = Instant::now();
        let hiprio = &self.hiprio;
        let tallies: Vec<Result<Tally>> = match self.queues.as_mut_slice() {
            [one] => vec![one.run(hiprio, stop)],
            many => std::thread::scope(|scope| {
                let threads: Vec<_> =
                    many.iter_mut().map(|queue| scope.spawn(move || queue.run(hiprio, stop))).collect();
                threads.into_iter().map(|thread| thread.join().expect("a queue's thread panicked")).collect()
            }),
        };
        let mut slice = Slice { wall: start.elapsed(), cpu: self.daemon.cpu_time()? - cpu, ..Slice::default() };
        for tally in tallies {
            let tally = tally?;
            slice.units += tally.units;
            slice.latencies.extend(tally.latencies);
        }
        slice.latencies.sort_unstable();
        Ok(slice)
    }

    /// The serving process's peak of memory in KiB and its descriptors.
    pub fn size(&self) -> Result<(u64, usize)> {
        Ok((self.daemon.kilobytes("VmHWM")?, self.daemon.open_files()?))
    }

    /// Counts system calls over some work, with strace looking on. Times of such a run mean nothing.
    pub fn calls(&mut self, units: u64) -> Result<Calls> {
        let pid = self.daemon.serving_pid();
        let report = tempfile::NamedTempFile::new().map_err(Error::io("make a file for strace"))?;
        let mut strace = Command::new("strace")
            .args(["-c", "-f", "-U", "calls,name", "-o"])
            .arg(report.path())
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Error::io("start strace"))?;
        wait_until_traced(pid, &mut strace)?;
        let slice = self.run(Stop { at: Instant::now() + LIMIT, units });
        let tracer = rustix::process::Pid::from_child(&strace);
        rustix::process::kill_process(tracer, rustix::process::Signal::INT).map_err(Error::io("end strace"))?;
        strace.wait().map_err(Error::io("wait for strace"))?;
        let text = fs::read_to_string(report.path()).map_err(Error::io("read strace's report"))?;
        Ok(parse_calls(&text, slice?.units.max(1)))
    }
}

fn wait_until_traced(pid: u32, strace: &mut std::process::Child) -> Result<()> {
    let end = Instant::now() + LIMIT;
    let traced = |status: &Path| {
        let text = fs::read_to_string(status).unwrap_or_default();
        text.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|rest| rest.trim() != "0"))
    };
    loop {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).map_err(Error::io("list threads"))?;
        if tasks.flatten().all(|task| traced(&task.path().join("status"))) {
            return Ok(());
        }
        if strace.try_wait().map_err(Error::io("wait for strace"))?.is_some() || Instant::now() > end {
            return Err(Error::Daemon("strace cannot attach".into()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Takes strace's summary apart: columns of calls and name between two rulers.
fn parse_calls(text: &str, units: u64) -> Calls {
    const WAKES: &[&str] = &[
        "epoll_wait",
        "epoll_pwait",
        "poll",
        "ppoll",
        "read",
        "write",
        "futex",
        "clock_nanosleep",
        "restart_syscall",
        "clock_gettime",
        "sched_yield",
    ];
    let mut calls = Calls::default();
    let mut names = Vec::new();
    for line in text.lines() {
        let Some((count, name)) = line
            .split_whitespace()
            .collect::<Vec<_>>()
            .split_first()
            .and_then(|(c, n)| Some((c.parse::<u64>().ok()?, n.first()?.to_string())))
        else {
            continue;
        };
        let each = count as f64 / units as f64;
        if name == "total" {
        } else if WAKES.contains(&name.as_str()) {
            calls.wakes += each;
        } else {
            calls.work += each;
            if each >= 0.05 {
                names.push((each, name));
            }
        }
    }
    names.sort_by(|a, b| b.0.total_cmp(&a.0));
    let names: Vec<String> = names.iter().map(|(each, name)| format!("{each:.1} {name}")).collect();
    calls.names = names.join(", ");
    calls
}
