//! Runs the coherence checker: host and guest act at random on one tree, and what the guest sees is compared.

use std::error::Error;
use std::io::{stdin, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use ferryfs_guest::coherence::remote::{Remote, serve};
use ferryfs_guest::coherence::side::Local;
use ferryfs_guest::coherence::{Plan, Report, Share, Via, Who, check, check_sides, races};
use tempfile::TempDir;

#[derive(Parser)]
#[command(about, version)]
struct Arguments {
    /// The server under test
    #[arg(long, default_value = "target/release/ferryfs")]
    program: PathBuf,
    /// Its options, words split at spaces
    #[arg(long, default_value = "--cache coherent", allow_hyphen_values = true)]
    args: String,
    /// Request queues of the bridge; 0 mounts by /dev/fuse instead
    #[arg(long, default_value_t = 1)]
    queues: u16,
    /// Actions
    #[arg(long, default_value_t = 2000)]
    steps: u32,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, one after the other
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Keep no attributes, and compare each stat
    #[arg(long)]
    strict: bool,
    /// The guest hears of changes, and every stat is compared as soon as it has heard
    #[arg(long)]
    notify: bool,
    /// A directory of the file system to share
    #[arg(long, default_value = "/tmp")]
    place: PathBuf,
    /// How many violations to show
    #[arg(long, default_value_t = 5)]
    show: usize,
    /// Instead, let this many calls a thread race with replacements on the host, and count ESTALE
    #[arg(long)]
    race: Option<u64>,
    /// Fail unless there are violations: shows that the checker finds them
    #[arg(long)]
    expect_stale: bool,
    /// Instead of starting a server: this directory is shared already, with the guest at standard input and output
    #[arg(long, conflicts_with_all = ["race", "notify", "seeds"])]
    shared: Option<PathBuf>,
    /// Be that guest, with the share mounted on this directory, until an empty line
    #[arg(long, conflicts_with = "shared")]
    guest: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ferryfs-coherence: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    if let Some(mountpoint) = &arguments.guest {
        serve(Local::new(mountpoint, mountpoint, Who::Guest), stdin().lock(), stdout().lock())?;
        return Ok(true);
    }
    if let Some(shared) = &arguments.shared {
        let report = check_machine(shared, &plan(arguments, arguments.seed))?;
        let label = format!("seed {}, in a machine", arguments.seed);
        return Ok(is_stale(arguments, &label, &report) == arguments.expect_stale);
    }
    let mut args: Vec<&str> = arguments.args.split_whitespace().collect();
    if arguments.notify {
        args.push("--notify");
    } else if arguments.strict {
        args.extend(["--attr-timeout", "0"]);
    }
    let via = if arguments.queues == 0 { Via::Fuse } else { Via::Bridge(arguments.queues) };
    let label = format!("{via:?}, {}", args.join(" "));
    let mut stale = false;
    for seed in arguments.seed..arguments.seed + arguments.seeds {
        let share = Share::start_in(&arguments.place, &arguments.program, &args, via)?;
        if let Some(calls) = arguments.race {
            let outcome = races::race(&share, 3, calls, seed)?;
            println!("seed {seed}, {label}: {outcome:?}");
            stale |= !outcome.estale.is_empty();
        } else {
            stale |= is_stale(arguments, &format!("seed {seed}, {label}"), &check(&share, &plan(arguments, seed))?);
        }
    }
    Ok(stale == arguments.expect_stale)
}

fn plan(arguments: &Arguments, seed: u64) -> Plan {
    Plan {
        steps: arguments.steps,
        seed,
        strict: arguments.strict || arguments.notify,
        hears: arguments.notify,
        map: !arguments.expect_stale,
    }
}

fn check_machine(shared: &Path, plan: &Plan) -> Result<Report, Box<dyn Error>> {
    // Of the same file system, and not shared.
    let stage = TempDir::with_prefix_in("ferryfs-stage-", shared.parent().unwrap_or(shared))?;
    let host = Local::new(shared, stage.path(), Who::Host);
    let mut guest = Remote::new(stdin().lock(), stdout().lock());
    Ok(check_sides(host, &mut guest, &|| (), plan)?)
}

/// Shows what was found. Where standard output leads to the guest, it is shown on the other one.
fn is_stale(arguments: &Arguments, label: &str, report: &Report) -> bool {
    let shown = report.violations.iter().take(arguments.show).map(|violation| format!("  {violation}"));
    for line in shown.chain([format!("{label}: {report}")]) {
        if arguments.shared.is_some() { eprintln!("{line}") } else { println!("{line}") }
    }
    !report.violations.is_empty() || report.estale != 0
}
