//! The `-o` list of older tools, folded into the options that replaced it.
//!
//! Takes what virtiofsd 1.14 takes. An option given this way wins over the same one given by its own name.

use std::path::PathBuf;

use log::LevelFilter;

use super::arguments::DaemonArguments;
use super::error::Error;
use super::values::{CacheMode, SandboxMode};

/// Folds the list in and returns the log level it asks for, if any.
pub(super) fn apply(arguments: &mut DaemonArguments) -> Result<Option<LevelFilter>, Error> {
    let mut level = None;
    for list in arguments.compat() {
        for option in list.split(',') {
            match option.split_once('=') {
                Some(("loglevel", value)) => level = Some(one_of("loglevel", value, LEVELS)?),
                Some((name, value)) => set_value(arguments, name, value)?,
                None => set_flag(arguments, option)?,
            }
        }
    }
    Ok(level)
}

const LEVELS: &[(&str, LevelFilter)] = &[
    ("debug", LevelFilter::Debug),
    ("info", LevelFilter::Info),
    ("warn", LevelFilter::Warn),
    ("err", LevelFilter::Error),
];

/// `none` is the name of the mode in this list, `never` in `--cache`.
const CACHE_MODES: &[(&str, CacheMode)] = &[
    ("auto", CacheMode::Auto),
    ("always", CacheMode::Always),
    ("none", CacheMode::Never),
    ("metadata", CacheMode::Metadata),
];

const SANDBOXES: &[(&str, SandboxMode)] = &[("namespace", SandboxMode::Namespace), ("chroot", SandboxMode::Chroot)];

fn set_value(arguments: &mut DaemonArguments, name: &str, value: &str) -> Result<(), Error> {
    match name {
        "source" => arguments.shared_dir = Some(PathBuf::from(value)),
        "xattrmap" => arguments.file_system.xattrmap = Some(value.to_owned()),
        "cache" => arguments.file_system.cache = one_of(name, value, CACHE_MODES)?,
        "sandbox" => arguments.isolation.sandbox = one_of(name, value, SANDBOXES)?,
        "modcaps" => {
            arguments.isolation.modcaps = value
                .parse()
                .map_err(|reason| Error::Usage(format!("invalid value '{value}' for -o modcaps: {reason}")))?;
        }
        _ => return Err(unknown(name)),
    }
    Ok(())
}

fn set_flag(arguments: &mut DaemonArguments, option: &str) -> Result<(), Error> {
    // Locks were switched by these; submounts can be announced this way, and the announcement cannot be taken back.
    if matches!(option, "no_posix_lock" | "no_flock" | "announce_submounts") {
        return Ok(());
    }
    let (name, value) = option.strip_prefix("no_").map_or((option, true), |name| (name, false));
    if arguments.file_system.set_flag(name, value) { Ok(()) } else { Err(unknown(option)) }
}

fn one_of<T: Copy>(name: &str, value: &str, table: &[(&str, T)]) -> Result<T, Error> {
    table.iter().find(|(text, _)| *text == value).map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<&str> = table.iter().map(|(text, _)| *text).collect();
        Error::Usage(format!("invalid value '{value}' for -o {name}: it takes {}", known.join(", ")))
    })
}

fn unknown(option: &str) -> Error {
    Error::Usage(format!("unknown option '-o {option}' (see 'ferryfs --help' for the options by their own names)"))
}
