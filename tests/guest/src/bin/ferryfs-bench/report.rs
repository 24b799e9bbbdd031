//! Tables of what was measured, as Markdown.

use std::fmt::Write;

use crate::rig::Side;
use crate::stats::{Cell, Measured, Spread};

/// The ring alone: a device that answers every request at once.
pub struct NullRow {
    pub depth: usize,
    pub rate: f64,
    pub p50: f64,
    pub cpu_us: f64,
}

/// Everything that a run showed.
pub struct Report {
    pub sides: Vec<Side>,
    pub cells: Vec<Cell>,
    pub null: Vec<NullRow>,
}

fn number(value: f64) -> String {
    match value {
        v if !v.is_finite() => "-".into(),
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

fn thousands(value: f64) -> String {
    if value >= 1000.0 { format!("{} k", number(value / 1000.0)) } else { number(value) }
}

fn spread(spread: Option<Spread>) -> String {
    spread.map_or("-".into(), |s| format!("**{}** ({}-{})", number(s.median), number(s.low), number(s.high)))
}

fn name(cell: &Cell) -> String {
    let each = if cell.workload.unit == "op" { String::new() } else { format!(" (each {})", cell.workload.unit) };
    format!("{}, {}{each}", cell.workload.name, cell.place)
}

fn of(measured: Option<&Measured>, get: impl Fn(&Measured) -> f64) -> String {
    measured.map_or("-".into(), |measured| number(get(measured)))
}

/// Whether operations a second and CPU time both reach what is asked, against each peer; and against which not.
pub fn verdict(cell: &Cell) -> Option<bool> {
    let (default, fastest) = cell.workload.target?;
    let reached = |side: usize, target: f64| {
        let reaches = |spread: Option<Spread>| spread.is_none_or(|s| s.median >= target);
        // Reads that wait for a disk are to overlap; they need not cost less.
        reaches(cell.faster(side)) && (cell.workload.cold || reaches(cell.cheaper(side)))
    };
    Some(reached(1, default) && reached(2, fastest))
}

fn heading(out: &mut String, title: &str, columns: &[String]) {
    let _ = writeln!(out, "\n### {title}\n\n| {} |", columns.join(" | "));
    let _ = writeln!(out, "|---{}|", "|---:".repeat(columns.len() - 1));
}

fn columns(first: &str, sides: &[Side], each: &[&str], rest: &[&str]) -> Vec<String> {
    let mut columns = vec![first.to_owned()];
    for what in each {
        columns.extend(sides.iter().map(|side| format!("{}{what}", side.name)));
    }
    columns.extend(rest.iter().map(|text| (*text).to_owned()));
    columns
}

impl Report {
    fn at(&self, depth: usize, queues: u16) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter(move |cell| cell.depth == depth && cell.queues == queues)
    }

    /// All tables.
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        let mut depths: Vec<usize> = self.cells.iter().map(|cell| cell.depth).collect();
        depths.sort_unstable();
        depths.dedup();
        for &depth in depths.iter().rev() {
            self.throughput(&mut out, depth);
        }
        for &depth in &depths {
            self.latency(&mut out, depth);
        }
        for &depth in depths.iter().rev() {
            self.queues(&mut out, depth);
        }
        self.calls(&mut out);
        self.sizes(&mut out);
        out
    }

    fn throughput(&self, out: &mut String, depth: usize) {
        let title = format!("Operations a second and CPU time of the daemon, depth {depth}, one queue");
        let rest = ["faster", "CPU less", "faster than fastest", "CPU less than fastest", "to reach", "reached"];
        let mut columns = columns("workload", &self.sides, &[" /s", " us"], &["bare calls, us"]);
        columns.extend(rest.iter().map(|text| (*text).to_owned()));
        heading(out, &title, &columns);
        for row in self.null.iter().filter(|row| row.depth == depth) {
            let (rate, cpu) = (thousands(row.rate), number(row.cpu_us));
            let empty = " | ".repeat(self.sides.len() - 1);
            let _ = writeln!(out, "| a device that answers at once | {rate} | {empty}{cpu} | {empty} | | | | | | |");
        }
        for cell in self.at(depth, 1) {
            let mut row = vec![name(cell)];
            row.extend(cell.sides.iter().map(|side| side.as_ref().map_or("-".into(), |m| thousands(m.rate()))));
            row.extend(cell.sides.iter().map(|side| of(side.as_ref(), Measured::cpu_us)));
            row.push(cell.bare.map_or("-".into(), number));
            row.extend([1, 2].into_iter().flat_map(|side| [spread(cell.faster(side)), spread(cell.cheaper(side))]));
            let target = cell.workload.target.filter(|_| depth > 1);
            row.push(target.map_or(String::new(), |(a, b)| format!("{a:.1} ({b:.1})")));
            let verdict = verdict(cell).filter(|_| depth > 1);
            row.push(verdict.map_or(String::new(), |reached| if reached { "yes" } else { "no" }.into()));
            let _ = writeln!(out, "| {} |", row.join(" | "));
        }
    }

    fn latency(&self, out: &mut String, depth: usize) {
        let title = format!("Latency in microseconds, depth {depth}, one queue");
        let rest = ["p50 as a part of the peer's", "at most"];
        heading(out, &title, &columns("workload", &self.sides, &[" p50", " p99"], &rest));
        for row in self.null.iter().filter(|row| row.depth == depth) {
            let empty = " | ".repeat(2 * self.sides.len());
            let _ = writeln!(out, "| a device that answers at once | {} | {empty} |", number(row.p50));
        }
        for cell in self.at(depth, 1) {
            let mut row = vec![name(cell)];
            for percent in [50, 99] {
                row.extend(cell.sides.iter().map(|side| of(side.as_ref(), |m| m.latency(percent))));
            }
            row.push(cell.latency_ratio(1).map_or("-".into(), number));
            let most = cell.workload.median.filter(|_| depth == 1);
            row.push(most.map_or(String::new(), |most| format!("{most:.1}")));
            let _ = writeln!(out, "| {} |", row.join(" | "));
        }
    }

    /// What a second queue costs: only one daemon has one.
    fn queues(&self, out: &mut String, depth: usize) {
        let two: Vec<&Cell> = self.at(depth, 2).collect();
        if two.is_empty() {
            return;
        }
        let title = format!("Two queues, depth {depth} on each, ferryfs");
        let columns = ["workload", "one queue /s", "two queues /s", "one queue us", "two queues us", "us, two to one"];
        heading(out, &title, &columns.map(str::to_owned));
        for cell in two {
            let same = |one: &&Cell| one.workload.name == cell.workload.name && one.place == cell.place;
            let one = self.at(depth, 1).find(same).and_then(Cell::ours);
            let (Some(one), Some(two)) = (one, cell.ours()) else { continue };
            let pairs = one.slices.iter().zip(&two.slices).map(|(a, b)| b.cpu_us() / a.cpu_us());
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} |",
                name(cell),
                thousands(one.rate()),
                thousands(two.rate()),
                number(one.cpu_us()),
                number(two.cpu_us()),
                spread(Some(Spread::of(pairs)))
            );
        }
    }

    fn calls(&self, out: &mut String) {
        let deepest = self.cells.iter().map(|cell| cell.depth).max().unwrap_or(0);
        if !self.cells.iter().any(|cell| cell.sides.iter().flatten().any(|m| m.calls.is_some())) {
            return;
        }
        let title = format!("System calls for each unit of work, depth {deepest}, counted by strace");
        let each = ["", " waits and wakes"];
        heading(out, &title, &columns("workload", &self.sides, &each, &["the calls of ferryfs"]));
        for cell in self.at(deepest, 1) {
            let calls = |side: &Option<Measured>| side.as_ref().and_then(|m| m.calls.clone());
            let mut row = vec![name(cell)];
            row.extend(cell.sides.iter().map(|side| calls(side).map_or("-".into(), |calls| number(calls.work))));
            row.extend(cell.sides.iter().map(|side| calls(side).map_or("-".into(), |calls| number(calls.wakes))));
            row.push(cell.sides.first().and_then(calls).map_or(String::new(), |calls| calls.names));
            let _ = writeln!(out, "| {} |", row.join(" | "));
        }
    }

    fn sizes(&self, out: &mut String) {
        let deepest = self.cells.iter().map(|cell| cell.depth).max().unwrap_or(0);
        let title = format!("Peak memory in MiB, and descriptors at the end, depth {deepest}, one queue");
        heading(out, &title, &columns("workload", &self.sides, &[" MiB", " descriptors"], &[]));
        for cell in self.at(deepest, 1) {
            let mut row = vec![name(cell)];
            row.extend(cell.sides.iter().map(|side| of(side.as_ref(), |m| m.size.0 as f64 / 1024.0)));
            row.extend(cell.sides.iter().map(|side| side.as_ref().map_or("-".into(), |m| m.size.1.to_string())));
            let _ = writeln!(out, "| {} |", row.join(" | "));
        }
    }
}
