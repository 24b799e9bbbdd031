//! Any words as a command line: options, a text to print, or one line that says what is wrong.
//!
//! Input: the words, a line each.
#![no_main]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use ferryfs::daemon::command_line::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let words = data.split(|byte| *byte == b'\n').map(|word| OsStr::from_bytes(word).to_owned());
    if let Err(error) = parse([OsString::from("ferryfs")].into_iter().chain(words)) {
        let text = error.to_string();
        assert!(!text.is_empty() && !text.contains('\n'), "{text:?}");
    }
});
