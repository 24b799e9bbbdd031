//! The `ferryfs` command: parses the command line and hands over to the daemon.

use std::process::ExitCode;

#[cfg(all(feature = "daemon", target_os = "linux"))]
fn main() -> ExitCode {
    ferryfs::daemon::main()
}

#[cfg(not(all(feature = "daemon", target_os = "linux")))]
fn main() -> ExitCode {
    eprintln!("ferryfs: the daemon needs Linux and the feature 'daemon'; the library serves elsewhere");
    ExitCode::FAILURE
}
