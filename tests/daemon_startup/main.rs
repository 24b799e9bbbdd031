//! The daemon's start-up, seen from outside: what it leaves in the file system, what it can still do, how it ends.
//!
//! The program under test is this one, started again: the daemon's own code around a small server (`stub`), which
//! answers what it sees and does on request what is forbidden. It needs a main without threads, hence no test harness.

mod ending;
mod isolation;
mod seccomp;
mod socket;
mod stub;
mod support;
mod user;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// A test, and what it cannot do without.
pub struct Case {
    name: &'static str,
    needs: Needs,
    run: fn(),
}

/// What a test cannot do without.
#[derive(Clone, Copy)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// To be root.
    Root,
    /// That users may make namespaces.
    UserNamespaces,
    /// To be root, and the programs that write id maps for users.
    IdMapPrograms,
}

impl Needs {
    fn missing(self) -> Option<&'static str> {
        match self {
            Self::Root if !support::is_root() => Some("needs root"),
            Self::UserNamespaces if !support::has_user_namespaces() => Some("users get no namespaces here"),
            Self::IdMapPrograms if !support::is_root() => Some("needs root"),
            Self::IdMapPrograms if !support::has_id_map_programs() => {
                Some("needs newuidmap and newgidmap (Debian: package uidmap), /etc/subuid and /etc/subgid")
            }
            _ => None,
        }
    }
}

/// Lists functions as tests, under their own names.
macro_rules! cases {
    ($($needs:ident: $($name:ident),+ $(,)?;)+) => {
        pub const CASES: &[crate::Case] =
            &[$($(crate::Case { name: stringify!($name), needs: crate::Needs::$needs, run: $name }),+),+];
    };
}
use cases;

fn main() -> ExitCode {
    if std::env::var_os(support::STUB).is_some() {
        return stub::main();
    }
    let arguments = Arguments::from_args();
    let _tools = support::prepare_tools();
    let cases = [ending::CASES, isolation::CASES, seccomp::CASES, socket::CASES, user::CASES].into_iter().flatten();
    let trials = cases.map(|case| {
        let missing = case.needs.missing();
        if let (Some(reason), false) = (missing, arguments.list) {
            eprintln!("SKIPPED {}: {reason}", case.name);
        }
        Trial::test(case.name, move || {
            (case.run)();
            Ok(())
        })
        .with_ignored_flag(missing.is_some())
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
