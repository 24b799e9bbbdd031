//! Measures ferryfs against another vhost-user-fs daemon on the same directory, workload by workload and in turn, so
//! that the machine's noise hits both. No virtual machine is needed: requests come from this program over virtqueues.

mod bare;
mod engine;
mod limits;
mod machine;
mod plot;
mod report;
mod rig;
mod scale;
mod scripts;
mod source;
mod stats;
mod workloads;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use ferryfs_guest::{Error, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::report::Report;
use crate::rig::{Rig, Side};
use crate::source::Source;
use crate::stats::{Cell, Measured};
use crate::workloads::{ALL, Where, Workload};

/// Measures ferryfs against a peer.
#[derive(Parser)]
struct Options {
    /// The ferryfs to measure
    #[arg(long, default_value = "target/release/ferryfs")]
    ferryfs: PathBuf,
    /// The virtiofsd to compare with; without it, or if it is missing, ferryfs is measured alone
    #[arg(long)]
    peer: Option<PathBuf>,
    /// Only workloads whose name contains one of these
    filters: Vec<String>,
    /// Short slices and few rounds: a look, not a measurement
    #[arg(long)]
    quick: bool,
    /// How often each side has its turn [default: 5, or 3 with --quick]
    #[arg(long)]
    rounds: Option<usize>,
    /// How long a turn is, in milliseconds [default: 400, or 120 with --quick]
    #[arg(long)]
    slice: Option<u64>,
    /// Requests under way on each queue
    #[arg(long, value_delimiter = ',', default_value = "1,32")]
    depths: Vec<usize>,
    /// Numbers of queues
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    queues: Vec<u16>,
    /// Where to make the directory for metadata: best a tmpfs
    #[arg(long, default_value = "/dev/shm")]
    memory: PathBuf,
    /// Where to make the directory on a disk
    #[arg(long, default_value = "target")]
    disk: PathBuf,
    /// Do not count system calls (which needs strace)
    #[arg(long)]
    no_calls: bool,
    /// Instead, show what so many names cost: listings, inodes known, and their end
    #[arg(long, value_delimiter = ',')]
    scale: Vec<usize>,
    /// Put the tables into this file, between its marks, and a picture beside it
    #[arg(long)]
    report: Option<PathBuf>,
    /// Extra arguments for ferryfs
    #[arg(long, allow_hyphen_values = true)]
    with: Vec<String>,
}

impl Options {
    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 3 } else { 5 })
    }

    fn slice(&self) -> Duration {
        Duration::from_millis(self.slice.unwrap_or(if self.quick { 120 } else { 400 }))
    }

    /// Where the scheduler lays the threads of a guest that waits for each request changes within the first third of a
    /// second. What is said of their latency is to hold after that.
    fn slice_of(&self, workload: &Workload, depth: usize, queues: u16) -> Duration {
        let settles = depth == 1 && queues == 1 && workload.median.is_some();
        if settles { self.slice() * 5 } else { self.slice() }
    }

    fn wants(&self, workload: &Workload) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| workload.name.contains(filter.as_str()))
    }

    fn sides(&self) -> Vec<Side> {
        let full = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let ours =
            Side { name: "ferryfs", program: full(&self.ferryfs), args: self.with.clone(), queues: 64, is_peer: false };
        let mut sides = vec![ours];
        if let Some(peer) = self.peer.as_deref().filter(|peer| peer.is_file()) {
            let fastest = ["--sandbox", "none", "--inode-file-handles=never"].map(str::to_owned).to_vec();
            let program = full(peer);
            sides.push(Side { name: "virtiofsd", program: program.clone(), args: vec![], queues: 1, is_peer: true });
            sides.push(Side { name: "fastest", program, args: fastest, queues: 1, is_peer: true });
        } else {
            println!("skipped: the peer: no virtiofsd; `make bench-peer` installs it");
        }
        sides
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(missed) => {
            println!("bench: {missed} targets missed");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<usize> {
    raise_limit();
    if !options.scale.is_empty() {
        return run_scale(options);
    }
    let sides = options.sides();
    let machine = machine::describe(&sides);
    let mut report = Report { sides, cells: Vec::new(), null: Vec::new() };
    for &depth in &options.depths {
        report.null.push(limits::null_device(depth, options.slice())?);
    }
    for (place, path) in [(Where::Memory, &options.memory), (Where::Disk, &options.disk)] {
        let here = |w: &&Workload| options.wants(w) && (w.place == place || w.place == Where::Both);
        if ALL.iter().any(|w| here(&w)) {
            let source = Source::new(path, place == Where::Memory)?;
            for workload in ALL.iter().filter(here) {
                measure_all(options, &mut report, &source, workload)?;
            }
        }
    }
    let tables = report.markdown();
    print!("{machine}{tables}");
    if let Some(path) = &options.report {
        write_report(path, &report, &machine, &tables, options)?;
    }
    let deep = |cell: &&Cell| cell.depth > 1 && cell.queues == 1;
    Ok(report.cells.iter().filter(deep).filter(|cell| report::verdict(cell) == Some(false)).count())
}

fn run_scale(options: &Options) -> Result<usize> {
    let program = options.ferryfs.canonicalize().map_err(Error::io("find ferryfs"))?;
    let table = scale::run(&program, &options.memory, &options.scale, options.slice())?;
    print!("{table}");
    if let Some(path) = &options.report {
        replace_between(path, SCALE, &table)?;
    }
    Ok(0)
}

/// A daemon that keeps a descriptor for each inode needs more of them than most systems allow at first.
fn raise_limit() {
    const WANTED: Option<u64> = Some(1_000_000);
    if setrlimit(Resource::Nofile, Rlimit { current: WANTED, maximum: WANTED }).is_err() {
        let limit = getrlimit(Resource::Nofile);
        // Refused: then as many as there may be.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}

fn measure_all(options: &Options, report: &mut Report, source: &Source, workload: &'static Workload) -> Result<()> {
    let mut bare = None;
    if let Some(make) = workload.bare {
        bare = Some(bare::measure(make(source)?, options.slice() / 2)?);
    }
    for &depth in &options.depths {
        for &queues in &options.queues {
            // One actor keeps the device busy, at least one other is measured.
            let depth = depth.max(workload.least_depth);
            let mut cell = measure(options, &report.sides, source, workload, depth, queues)?;
            cell.bare = bare;
            tell(&report.sides, &cell);
            report.cells.push(cell);
        }
    }
    Ok(())
}

fn measure(
    options: &Options,
    sides: &[Side],
    source: &Source,
    workload: &'static Workload,
    depth: usize,
    queues: u16,
) -> Result<Cell> {
    let context = |side: &Side| {
        let name = side.name;
        move |error: Error| Error::Daemon(format!("{}, depth {depth}, {name}: {error}", workload.name))
    };
    let mut rigs = Vec::new();
    for numbered in sides.iter().enumerate() {
        let rig = (queues <= numbered.1.queues).then(|| Rig::start(numbered, source, workload, depth, queues));
        rigs.push(rig.transpose().map_err(context(numbered.1))?);
    }
    let time = options.slice_of(workload, depth, queues);
    let mut found: Vec<Option<Measured>> = rigs.iter().map(|rig| rig.as_ref().map(|_| Measured::default())).collect();
    // The first round warms up and is thrown away.
    for round in 0..=options.rounds() {
        for ((side, rig), found) in sides.iter().zip(&mut rigs).zip(&mut found) {
            let (Some(running), Some(measured)) = (rig.as_mut(), found.as_mut()) else { continue };
            if workload.cold {
                source.drop_cache()?;
            }
            match running.slice(time).map_err(context(side)) {
                Ok(slice) if round > 0 => measured.slices.push(slice),
                Ok(_) => {}
                // What the peer cannot do leaves a gap in the table; what ferryfs cannot do is an error.
                Err(error) if side.is_peer => {
                    println!("skipped: {error}");
                    (*rig, *found) = (None, None);
                }
                Err(error) => return Err(error),
            }
        }
    }
    let counts = !options.no_calls && queues == 1 && options.depths.iter().all(|d| *d <= depth);
    for ((side, rig), found) in sides.iter().zip(&mut rigs).zip(&mut found) {
        let (Some(rig), Some(found)) = (rig, found) else { continue };
        found.size = rig.size()?;
        match counts.then(|| rig.calls(4000)).transpose() {
            Ok(calls) => found.calls = calls,
            Err(error) if side.is_peer => println!("skipped: system calls of {}: {error}", side.name),
            Err(error) => return Err(context(side)(error)),
        }
    }
    Ok(Cell { workload, place: source.name, depth, queues, sides: found, bare: None })
}

/// A line while the run goes on.
fn tell(sides: &[Side], cell: &Cell) {
    let mut line = format!("{:<32} {:<5} depth {:>2} x{}:", cell.workload.name, cell.place, cell.depth, cell.queues);
    for (side, measured) in sides.iter().zip(&cell.sides) {
        if let Some(m) = measured {
            let (rate, cpu, p50) = (m.rate(), m.cpu_us(), m.latency(50));
            line += &format!(" | {} {rate:>8.0}/s {cpu:>6.2} us cpu, p50 {p50:>6.1}", side.name);
        }
    }
    for side in [1, 2] {
        if let (Some(faster), Some(cheaper)) = (cell.faster(side), cell.cheaper(side)) {
            line += &format!(" | x{:.2} cpu x{:.2}", faster.median, cheaper.median);
        }
    }
    println!("{line}{}", if report::verdict(cell) == Some(false) && cell.depth > 1 { " MISSED" } else { "" });
}

/// Where in the report the tables stand.
const TABLES: &str = "<!-- Made by `make bench` from here: -->";
const SCALE: &str = "<!-- Made by `make bench-scale` from here: -->";
const END: &str = "<!-- to here. -->";

/// What is written by hand around the tables stays.
fn write_report(path: &Path, report: &Report, machine: &str, tables: &str, options: &Options) -> Result<()> {
    let picture = path.with_extension("svg");
    let depth = options.depths.iter().copied().max().unwrap_or(1);
    fs::write(&picture, plot::svg(report, depth)).map_err(Error::io("write the picture"))?;
    let shown = picture.file_name().unwrap_or_default().to_string_lossy().into_owned();
    replace_between(path, TABLES, &format!("{machine}\n![ratios]({shown})\n{tables}"))
}

fn replace_between(path: &Path, begin: &str, made: &str) -> Result<()> {
    let old = fs::read_to_string(path).unwrap_or_else(|_| String::from("# Performance\n"));
    let (before, rest) = old.split_once(begin).unwrap_or((&old, ""));
    let after = rest.split_once(END).map_or("\n", |(_, after)| after);
    fs::write(path, format!("{before}{begin}\n\n{made}\n{END}{after}")).map_err(Error::io("write the report"))
}
