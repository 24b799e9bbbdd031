//! What it was measured on and with.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::rig::Side;
use crate::source;

/// A list for the report: machine, kernel, versions, command.
pub fn describe(sides: &[Side]) -> String {
    let mut out = String::new();
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    let _ = writeln!(
        out,
        "- Machine: {} cores, {}, {} GiB of memory; load when the run began: {}",
        cores,
        model.unwrap_or("unknown processor"),
        memory.unwrap_or(0) >> 20,
        fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').next().unwrap_or("?"),
    );
    let _ = writeln!(
        out,
        "- Kernel: Linux {}",
        fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim()
    );
    let _ = writeln!(out, "- Listed: {} entries; looked up: {} files", source::entries(), source::FILES);
    for side in sides {
        let program = side.program.file_name().unwrap_or_default().to_string_lossy();
        let _ = writeln!(out, "- {}: {} `{program} {}`", side.name, version(&side.program), side.args.join(" "));
    }
    // Paths are this machine's own.
    let words = std::env::args().skip(1).filter(|word| !word.contains('/') && word != "--peer" && word != "--report");
    let words: Vec<String> = words.collect();
    let _ = writeln!(out, "- Command: `make bench`, which runs `ferryfs-bench {}`", words.join(" "));
    out
}

fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output();
    output.map_or_else(|e| e.to_string(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
