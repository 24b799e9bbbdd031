//! Any text as rules for users and groups, and any number under them: none becomes the one that means no change.
//!
//! Input: the rules, a line each, a NUL, and numbers of four bytes.
#![no_main]

use ferryfs::passthrough::idmap::IdMap;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (rules, numbers) = data.split_at(data.iter().position(|byte| *byte == 0).map_or(data.len(), |at| at + 1));
    let rules = String::from_utf8_lossy(rules.strip_suffix(b"\0").unwrap_or(rules));
    let map = match IdMap::parse(rules.lines()) {
        Ok(map) => map,
        Err(error) => {
            assert!(!error.to_string().contains('\n'), "{error}");
            return;
        }
    };
    let edges = [0, 1, 1000, u32::MAX - 1, u32::MAX];
    let numbers = numbers.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes));
    for number in numbers.chain(edges) {
        if let Ok(host) = map.to_host(number) {
            assert_ne!(host, u32::MAX, "{number}");
        }
        let _ = map.to_guest(number);
    }
    assert!(map.to_host(u32::MAX).is_err());
});
