//! Tortures a vhost-user-fs daemon with mutated requests, chains, rings and messages; see the library's `torture`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use ferryfs_guest::torture::{Orders, Report, replay, run};

/// Torture a vhost-user-fs daemon with mutated requests, chains, rings and messages.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The daemon
    #[arg(long, value_name = "PATH")]
    daemon: PathBuf,
    /// One more argument for the daemon (repeatable), for example --arg=--sandbox=none
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    arg: Vec<String>,
    /// Where everything follows from [default: the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// At least so many mutated requests
    #[arg(long, default_value_t = 100_000)]
    requests: u64,
    /// And at least for so many minutes
    #[arg(long, default_value_t = 0.0)]
    minutes: f64,
    /// Request queues, where the daemon has more than one
    #[arg(long, default_value_t = 4)]
    queues: u16,
    /// Seconds within which the daemon must answer
    #[arg(long, default_value_t = 10)]
    limit: u64,
    /// Where to make the share; a small file system of its own is best [default: the directory for temporary files]
    #[arg(long, value_name = "DIRECTORY")]
    within: Option<PathBuf>,
    /// Where to write what was done to the daemon, should it fail
    #[arg(long, value_name = "FILE", default_value = "ferryfs-torture.record")]
    record: PathBuf,
    /// Do again what is in a record
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Count failures and go on instead of ending at the first
    #[arg(long)]
    keep_going: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64);
    let orders = Orders {
        daemon: arguments.daemon,
        args: arguments.arg,
        seed: arguments.seed.unwrap_or(clock),
        requests: arguments.requests,
        time: Duration::from_secs_f64(60.0 * arguments.minutes.max(0.0)),
        within: arguments.within.unwrap_or_else(std::env::temp_dir),
        record: arguments.record,
        limit: Duration::from_secs(arguments.limit),
        queues: arguments.queues,
        keep_going: arguments.keep_going,
    };
    println!("torture of {} {}: seed {}", orders.daemon.display(), orders.args.join(" "), orders.seed);
    let report = match &arguments.replay {
        Some(record) => replay(&orders, record),
        None => run(&orders, &mut |line| println!("{line}")),
    };
    match report {
        Ok(report) => tell(&report),
        Err(error) => {
            eprintln!("ferryfs-torture: {error}");
            ExitCode::FAILURE
        }
    }
}

fn tell(Report { tally, time, failures, measure }: &Report) -> ExitCode {
    println!("{tally}");
    println!("the daemon: {measure}");
    let rate = tally.mutated() as f64 / time.as_secs_f64();
    let (mutated, deaths, hangs) = (tally.mutated(), tally.deaths, tally.hangs);
    println!("{mutated} mutated in {:.0} s, {rate:.0} a second; {deaths} deaths, {hangs} hangs", time.as_secs_f64());
    failures.iter().take(8).for_each(|failure| println!("FAILED: {failure}"));
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
