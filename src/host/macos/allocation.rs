//! What Linux's fallocate asks, in terms of what macOS has: reserving space at the end, punching whole blocks, writing zeros.
//!
//! Pure arithmetic: it asks nothing of the system, and is tested on every host.

use std::ops::Range;

use fuse_abi::Errno;

const KEEP_SIZE: u32 = 0x01;
const PUNCH_HOLE: u32 = 0x02;
const ZERO_RANGE: u32 = 0x10;

/// The steps of one request, in order. What is empty is not done.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Space is to be there up to this position.
    pub(super) reserve: Option<u64>,
    /// Whole blocks to give back.
    pub(super) punch: Range<u64>,
    /// What is left of the range before and behind whole blocks: to be overwritten with zeros.
    pub(super) zero: [Range<u64>; 2],
    /// The file is to be at least this long.
    pub(super) grow: Option<u64>,
}

impl Plan {
    /// The steps for `mode`, which has Linux's `FALLOC_FL_*` bits, on a file of `size` bytes in blocks of `block`.
    pub(super) fn new(mode: u32, offset: u64, len: u64, size: u64, block: u64) -> Result<Self, Errno> {
        let largest = i64::MAX as u64;
        if len == 0 || offset > largest || len > largest {
            return Err(Errno::EINVAL);
        }
        let end = offset.checked_add(len).filter(|end| *end <= largest).ok_or(Errno::EFBIG)?;
        let grow = if mode & KEEP_SIZE == 0 && end > size { Some(end) } else { None };
        let nothing = || [0..0, 0..0];
        match mode & !KEEP_SIZE {
            0 => Ok(Self { reserve: Some(end), punch: 0..0, zero: nothing(), grow }),
            // Linux takes a hole only together with KEEP_SIZE.
            PUNCH_HOLE if mode & KEEP_SIZE != 0 => Ok(Self::clear(offset..end, size, block, None)),
            ZERO_RANGE => Ok(Self::clear(offset..end, size, block, grow)),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// Clears a range as far as the file reaches; what it grows by reads as zeros anyway.
    fn clear(range: Range<u64>, size: u64, block: u64, grow: Option<u64>) -> Self {
        let block = block.max(1);
        let end = range.end.min(size);
        let start = range.start.min(end);
        let first = start.checked_next_multiple_of(block).unwrap_or(end);
        let last = end.saturating_sub(end.checked_rem(block).unwrap_or(0));
        if first >= last {
            return Self { reserve: None, punch: 0..0, zero: [start..end, 0..0], grow };
        }
        Self { reserve: None, punch: first..last, zero: [start..first, last..end], grow }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = 16;

    #[test]
    fn a_cleared_range_is_whole_blocks_and_two_edges_that_touch_them() {
        // Every range of a small file, in and beyond it: the pieces cover it once, up to the end of the file.
        for size in [0, 1, 15, 16, 17, 40, 48] {
            for offset in 0..60 {
                for len in 1..60 {
                    let plan = Plan::new(PUNCH_HOLE | KEEP_SIZE, offset, len, size, BLOCK).unwrap();
                    assert_eq!((plan.punch.start % BLOCK, plan.punch.end % BLOCK), (0, 0));
                    let mut cleared = vec![0; 128];
                    for piece in plan.zero.iter().chain([&plan.punch]) {
                        piece.clone().for_each(|at| cleared[at as usize] += 1);
                    }
                    let wanted: Vec<_> =
                        (0..128).map(|at| i32::from(at >= offset && at < offset + len && at < size)).collect();
                    assert_eq!(cleared, wanted, "{offset}+{len} of {size}");
                    assert!(plan.zero.iter().all(|edge| plan.punch.is_empty() || edge.end - edge.start < BLOCK));
                    assert_eq!((plan.reserve, plan.grow), (None, None));
                }
            }
        }
    }

    #[test]
    fn only_a_mode_without_keep_size_makes_a_file_longer() {
        for (mode, end, grow) in [
            (0, 40, Some(40)),
            (KEEP_SIZE, 40, None),
            (ZERO_RANGE, 40, Some(40)),
            (ZERO_RANGE | KEEP_SIZE, 40, None),
            (0, 20, None),
            (ZERO_RANGE, 20, None),
        ] {
            assert_eq!(Plan::new(mode, 10, end - 10, 30, BLOCK).unwrap().grow, grow, "{mode:#x} to {end}");
        }
    }

    #[test]
    fn space_is_reserved_up_to_the_end_of_the_range() {
        for mode in [0, KEEP_SIZE] {
            let plan = Plan::new(mode, 100, 28, 5, BLOCK).unwrap();
            assert_eq!((plan.reserve, plan.punch.is_empty()), (Some(128), true));
        }
    }

    #[test]
    fn what_macos_cannot_do_and_what_makes_no_sense_is_refused() {
        let (last, max) = (i64::MAX as u64, u64::MAX);
        for (mode, offset, len, refused) in [
            (PUNCH_HOLE, 0, 1, Errno::EOPNOTSUPP),
            (0x08, 0, 16, Errno::EOPNOTSUPP),
            (0x20, 0, 16, Errno::EOPNOTSUPP),
            (0x40, 0, 16, Errno::EOPNOTSUPP),
            (PUNCH_HOLE | ZERO_RANGE | KEEP_SIZE, 0, 16, Errno::EOPNOTSUPP),
            (0, 0, 0, Errno::EINVAL),
            (0, max, 1, Errno::EINVAL),
            (0, 1, max, Errno::EINVAL),
            (0, last, 1, Errno::EFBIG),
        ] {
            assert_eq!(Plan::new(mode, offset, len, 64, BLOCK), Err(refused), "{mode:#x} {offset} {len}");
        }
    }
}
