//! Runs the coherence checker: host and guest act at random on one tree, and what the guest sees is compared.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use ferryfs_guest::coherence::{Plan, Share, Via, check, races};

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
    let mut args: Vec<&str> = arguments.args.split_whitespace().collect();
    if arguments.notify {
        args.push("--notify");
    } else if arguments.strict {
        args.extend(["--attr-timeout", "0"]);
    }
    let via = if arguments.queues == 0 { Via::Fuse } else { Via::Bridge(arguments.queues) };
    let mut stale = 0;
    for seed in arguments.seed..arguments.seed + arguments.seeds {
        let share = Share::start(&arguments.program, &args, via, &arguments.place)?;
        if let Some(calls) = arguments.race {
            let outcome = races::race(&share, 3, calls, seed)?;
            println!("seed {seed}, {via:?}, {}: {outcome:?}", args.join(" "));
            stale += outcome.estale.values().sum::<u64>();
            continue;
        }
        let plan = Plan {
            steps: arguments.steps,
            seed,
            strict: arguments.strict || arguments.notify,
            hears: arguments.notify,
            map: !arguments.expect_stale,
        };
        let report = check(&share, &plan);
        for violation in report.violations.iter().take(arguments.show) {
            println!("  {violation}");
        }
        println!("seed {seed}, {via:?}, {}: {report}", args.join(" "));
        stale += report.violations.len() as u64 + report.estale;
    }
    Ok((stale != 0) == arguments.expect_stale)
}
