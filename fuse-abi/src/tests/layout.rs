//! Every size, offset and number against what the kernel publishes: always against the facts of the newest header,
//! kept in `testdata`, and, where there is a C compiler, against this machine's header.
//!
//! `FUSE_ABI_HEADER` names another header, `CC` another compiler.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::string::String;
use std::vec::Vec;
use std::{env, format, fs};

use super::c_header;
use super::facts::{Facts, ours, parse};
use crate::KERNEL_MINOR_VERSION;

/// The facts of Linux 7.3's header.
const NEWEST: &str = include_str!("../../testdata/fuse-7.46.txt");
/// Before this minor structs were shorter than today's, so that an older header cannot be compared.
const OLDEST_COMPARABLE: u64 = 36;
const MINOR: &str = "value FUSE_KERNEL_MINOR_VERSION";

/// What we describe and the header does not name: the short form of a struct, and one that is nested in C.
const ONLY_OURS: [&str; 2] = ["fuse_setxattr_in_compat", "fuse_uring_bufpool"];

/// Facts of older headers that are no longer so.
const CHANGED: [&str; 3] = [
    MINOR,
    "value FUSE_NOTIFY_CODE_MAX", // one more than the last code, until there was a tenth
    "struct fuse_uring_cmd_req",  // grew in 7.46
];

/// Unused fields are what later minors take new ones from.
fn is_reserved(about: &str) -> bool {
    let field = about.rsplit('.').next().unwrap().trim_start_matches('_');
    about.starts_with("field")
        && ["padding", "unused", "spare", "dummy", "reserved"].iter().any(|r| field.starts_with(r))
}

fn newest() -> Facts {
    parse(NEWEST)
}

#[test]
fn every_size_offset_and_number_is_as_linux_published_it() {
    let ours = ours();
    let differs = |(about, fact): &(&String, &String)| ours.get(*about) != Some(*fact);
    let published = newest();
    let wrong: Vec<_> = published.iter().filter(differs).map(|(about, fact)| (about, fact, ours.get(about))).collect();
    assert!(wrong.is_empty(), "(what, published, ours): {wrong:#?}");
}

#[test]
fn nothing_is_described_that_linux_does_not_publish() {
    let published = newest();
    let is_only_ours = |about: &&String| !published.contains_key(*about);
    let ours = ours();
    let only_ours: BTreeSet<_> =
        ours.keys().filter(is_only_ours).map(|about| about.split([' ', '.']).nth(1).unwrap()).collect();
    assert_eq!(only_ours, BTreeSet::from(ONLY_OURS));
}

#[test]
fn the_facts_are_those_of_the_minor_this_crate_claims() {
    assert_eq!(newest()[MINOR], format!("{KERNEL_MINOR_VERSION}"));
}

fn this_machines_header() -> PathBuf {
    env::var_os("FUSE_ABI_HEADER").map_or_else(|| "/usr/include/linux/fuse.h".into(), PathBuf::from)
}

fn compiler() -> String {
    env::var("CC").unwrap_or_else(|_| "cc".into())
}

/// Past the test harness, which shows nothing of a test that passes.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "fuse-abi: {text}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_c_compiler_agrees_about_this_machines_header() {
    let header = this_machines_header();
    let theirs = match c_header::facts(&compiler(), &header) {
        Ok(facts) => parse(&facts),
        Err(reason) => return say(&format!("SKIPPED the comparison with a C header: {reason}")),
    };
    let minor: u64 = theirs[MINOR].parse().unwrap();
    if minor < OLDEST_COMPARABLE {
        return say(&format!("SKIPPED the comparison with {}: it is of minor {minor}", header.display()));
    }
    let same_minor = minor == u64::from(KERNEL_MINOR_VERSION);
    let ours = ours();
    let mut wrong = Vec::new();
    for (about, fact) in &theirs {
        match ours.get(about) {
            Some(our) if our == fact => {}
            _ if !same_minor && (CHANGED.contains(&about.as_str()) || is_reserved(about)) => {}
            None if minor > u64::from(KERNEL_MINOR_VERSION) => say(&format!("not described yet: {about} {fact}")),
            our => wrong.push((about, fact, our)),
        }
    }
    assert!(wrong.is_empty(), "(what, in {}, ours): {wrong:#?}", header.display());
    say(&format!("{} facts of {}, minor {minor}, are as described", theirs.len(), header.display()));
}

#[test]
#[ignore = "writes testdata; run it with FUSE_ABI_HEADER when Linux publishes a newer minor"]
fn write_the_facts_of_a_header() {
    let facts = c_header::facts(&compiler(), &this_machines_header()).unwrap();
    let minor = &parse(&facts)[MINOR];
    fs::write(format!("{}/testdata/fuse-7.{minor}.txt", env!("CARGO_MANIFEST_DIR")), facts).unwrap();
}
