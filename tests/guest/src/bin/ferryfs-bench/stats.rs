//! What a set of slices says: medians, percentiles, and ratios with their spread.

use crate::rig::{Calls, Slice};
use crate::workloads::Workload;

/// What one side showed in one cell.
#[derive(Debug, Default, Clone)]
pub struct Measured {
    pub slices: Vec<Slice>,
    /// Peak of memory in KiB, and descriptors at the end.
    pub size: (u64, usize),
    pub calls: Option<Calls>,
}

/// One workload at one depth and number of queues.
pub struct Cell {
    pub workload: &'static Workload,
    pub place: &'static str,
    pub depth: usize,
    pub queues: u16,
    /// In the order of the sides; a side that cannot do it has none.
    pub sides: Vec<Option<Measured>>,
    /// CPU time of the bare system calls, in microseconds for each unit.
    pub bare: Option<f64>,
}

/// A median and the range it comes from.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

impl Spread {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Self { low: at(0), median: at(values.len() / 2), high: at(values.len().saturating_sub(1)) }
    }
}

impl Measured {
    pub fn rate(&self) -> f64 {
        Spread::of(self.slices.iter().map(Slice::rate)).median
    }

    pub fn cpu_us(&self) -> f64 {
        Spread::of(self.slices.iter().map(Slice::cpu_us)).median
    }

    /// A percentile of the latency in microseconds: the median over the slices.
    pub fn latency(&self, percent: usize) -> f64 {
        let one = |slice: &Slice| {
            let index = slice.latencies.len() * percent / 100;
            slice.latencies.get(index).map_or(f64::NAN, |&nanos| f64::from(nanos) / 1e3)
        };
        Spread::of(self.slices.iter().map(one)).median
    }
}

impl Cell {
    pub fn ours(&self) -> Option<&Measured> {
        self.sides.first()?.as_ref()
    }

    pub fn side(&self, side: usize) -> Option<&Measured> {
        self.sides.get(side)?.as_ref()
    }

    fn ratio(&self, side: usize, of: impl Fn(&Slice, &Slice) -> f64) -> Option<Spread> {
        let (ours, theirs) = (self.ours()?, self.side(side)?);
        // Slice by slice: the two ran right after each other, so the noise of the moment hit both.
        Some(Spread::of(ours.slices.iter().zip(&theirs.slices).map(|(a, b)| of(a, b))))
    }

    /// How many times as many operations a second as that side.
    pub fn faster(&self, side: usize) -> Option<Spread> {
        self.ratio(side, |a, b| a.rate() / b.rate())
    }

    /// How many times less CPU time for each operation than that side.
    pub fn cheaper(&self, side: usize) -> Option<Spread> {
        self.ratio(side, |a, b| b.cpu_us() / a.cpu_us())
    }

    /// Our median latency as a part of that side's.
    pub fn latency_ratio(&self, side: usize) -> Option<f64> {
        Some(self.ours()?.latency(50) / self.side(side)?.latency(50))
    }
}
