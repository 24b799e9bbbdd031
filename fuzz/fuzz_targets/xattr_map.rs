//! Any text as rules for names of extended attributes, and any names under them: an internal attribute is never met.
//!
//! Input: the rules, a NUL, and names with a NUL after each.
#![no_main]

use std::ffi::CStr;

use ferryfs::passthrough::xattr_map::{Internal, XattrMap};
use ferryfs::protocol::XattrName;
use libfuzzer_sys::fuzz_target;

const INTERNAL: &CStr = c"user.internal";

fuzz_target!(|data: &[u8]| {
    let (rules, names) = data.split_at(data.iter().position(|byte| *byte == 0).map_or(data.len(), |at| at + 1));
    let rules = String::from_utf8_lossy(rules.strip_suffix(b"\0").unwrap_or(rules));
    let map = match XattrMap::parse(&rules) {
        Ok(map) => map.with_internal(Internal::new(&[INTERNAL])),
        Err(error) => {
            assert!(!error.to_string().contains('\n'), "{error}");
            return;
        }
    };
    assert_eq!(map.to_guest(INTERNAL.to_bytes()), None);
    for name in names.split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        if let Ok(name) = XattrName::new(name)
            && let Ok(host) = map.to_host(name)
        {
            assert!(!host.to_bytes().eq_ignore_ascii_case(INTERNAL.to_bytes()));
            assert!(host.to_bytes().len() <= 255, "{host:?}");
        }
        let _ = map.remapped(name);
    }
    for guest in map.list_to_guest(names) {
        assert!(!guest.is_empty());
    }
});
