//! Cookies that come from the names alone.
//!
//! A scan goes through the names in the order of a hash that stays the same as long as the process runs. So a cookie
//! means the same in every snapshot, whoever took it and when: reading on after it gives each name whose hash is higher,
//! once, though nobody remembers who reads or what they have seen. Names of one hash take the numbers that follow; two
//! that meet by chance (2^-63 for each pair, and none can be aimed for) may repeat or miss one of them when the other
//! goes in mid-scan.

use std::{
    hash::{BuildHasher, RandomState},
    sync::LazyLock,
};

/// Nobody outside can tell which names would meet.
static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Leaves room above for names that meet, within what a signed offset holds.
const HIGHEST: u64 = (1 << 63) - (1 << 32);
/// Below are the dots.
const LOWEST: u64 = 3;

/// Where a scan goes on after this name.
pub(super) fn cookie(name: &[u8]) -> u64 {
    match name {
        b"." => 1,
        b".." => 2,
        _ => LOWEST + KEY.hash_one(name) % (HIGHEST - LOWEST),
    }
}
