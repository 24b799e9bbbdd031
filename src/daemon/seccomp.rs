//! The system calls each kind of thread may make.
//!
//! A thread inherits the filter of the one that creates it, and adding another only takes away. So the control thread,
//! which creates all others, is allowed all that any of them needs; each of them then gives up what is not its own.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

use super::error::Error;
use super::seccomp_table::{Arguments, GROUPS, Group};
use super::values::SeccompMode;

/// What a thread is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Talks to the front end and creates the other threads.
    Control,
    /// Serves a request queue.
    Worker,
    /// Serves requests that block.
    Pool,
    /// Watches the host for changes.
    Watcher,
    /// Sends notifications to the guest.
    Notifier,
    /// Waits for signals that ask for an end.
    Signals,
    /// Waits outside of the sandbox.
    Warden,
}

/// The arguments a system call may have, by its number.
type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// Every role.
pub const ROLES: [Role; 7] =
    [Role::Control, Role::Worker, Role::Pool, Role::Watcher, Role::Notifier, Role::Signals, Role::Warden];

impl Role {
    /// The groups of system calls the role's work consists of.
    fn groups(self) -> &'static [Group] {
        match self {
            Self::Control => &[
                Group::Base,
                Group::Events,
                Group::Files,
                Group::Identity,
                Group::Watching,
                Group::Looking,
                Group::Allocating,
                Group::Control,
                Group::Ending,
            ],
            // A directory is watched before it is looked into.
            Self::Worker | Self::Pool => &[Group::Base, Group::Events, Group::Files, Group::Identity, Group::Watching],
            Self::Watcher => &[Group::Base, Group::Events, Group::Allocating],
            Self::Notifier => &[Group::Base, Group::Events, Group::Looking, Group::Watching, Group::Allocating],
            Self::Signals => &[Group::Base, Group::Ending],
            Self::Warden => &[Group::Base, Group::Ending, Group::Waiting],
        }
    }

    fn rules(self) -> Result<Rules, seccompiler::BackendError> {
        let mut rules = Rules::new();
        let mut unconditional = Vec::new();
        for (_, calls) in GROUPS.iter().filter(|(group, _)| self.groups().contains(group)) {
            for (call, arguments) in *calls {
                rules.entry(*call).or_default().extend(conditions(*arguments)?);
                if matches!(arguments, Arguments::Any) {
                    unconditional.push(*call);
                }
            }
        }
        // No rules for a call stand for "whatever its arguments", also where another group is stricter.
        for call in unconditional {
            rules.insert(call, Vec::new());
        }
        Ok(rules)
    }
}

fn conditions(arguments: Arguments) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let rule = |index, operator, value| {
        let condition = SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)?;
        SeccompRule::new(vec![condition])
    };
    match arguments {
        Arguments::Any => Ok(Vec::new()),
        Arguments::OneOf(index, values) => values.iter().map(|v| rule(index, SeccompCmpOp::Eq, *v)).collect(),
        Arguments::Bits(index, mask, value) => Ok(vec![rule(index, SeccompCmpOp::MaskedEq(mask), value)?]),
        Arguments::OwnProcess => Ok(vec![rule(0, SeccompCmpOp::Eq, std::process::id().into())?]),
    }
}

static MODE: OnceLock<SeccompMode> = OnceLock::new();

/// Decides what happens on a forbidden call, in every thread that is confined from now on.
pub fn set_mode(mode: SeccompMode) {
    let _ = MODE.set(mode);
}

/// Takes from the calling thread, and from those it creates, every system call that its role does not need.
///
/// Does nothing with `--seccomp none`, or when no mode was set.
pub fn confine(role: Role) -> Result<(), Error> {
    let on_forbidden = match MODE.get() {
        None | Some(SeccompMode::None) => return Ok(()),
        Some(SeccompMode::Kill) => SeccompAction::KillProcess,
        Some(SeccompMode::Log) => SeccompAction::Log,
        Some(SeccompMode::Trap) => SeccompAction::Trap,
    };
    let failed = |error| Error::Failed(format!("cannot apply the seccomp filter: {error}; use --seccomp none"));
    let apply = |filter: Result<BpfProgram, seccompiler::BackendError>| apply_filter(&filter?);
    if role == Role::Control {
        apply(refuse_clone3()).map_err(failed)?;
    }
    apply(compile(role.rules(), on_forbidden, SeccompAction::Allow)).map_err(failed)
}

/// Answers ENOSYS to clone3: its flags lie in memory, where no filter can see them. The C library then uses clone, whose
/// flags are checked.
fn refuse_clone3() -> Result<BpfProgram, seccompiler::BackendError> {
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    compile(Ok(clone3), SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS.cast_unsigned()))
}

fn compile(
    rules: Result<Rules, seccompiler::BackendError>,
    otherwise: SeccompAction,
    on_match: SeccompAction,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules?, otherwise, on_match, architecture)?.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_has_a_filter_that_compiles() {
        for role in ROLES {
            let filter = compile(role.rules(), SeccompAction::KillProcess, SeccompAction::Allow);
            assert!(filter.is_ok_and(|filter| !filter.is_empty()), "{role:?}");
        }
        assert!(refuse_clone3().is_ok());
    }

    #[test]
    fn the_control_thread_may_do_whatever_a_thread_it_creates_may() {
        let control = Role::Control.rules().unwrap();
        for role in ROLES.into_iter().filter(|role| *role != Role::Warden) {
            for (call, rules) in role.rules().unwrap() {
                let inherited = control.get(&call).unwrap_or_else(|| panic!("{role:?} lacks {call}"));
                assert!(inherited.is_empty() || rules.iter().all(|rule| inherited.contains(rule)), "{role:?} {call}");
            }
        }
    }

    #[test]
    fn no_role_may_execute_a_program_open_a_socket_or_change_a_mount() {
        let never = [libc::SYS_execve, libc::SYS_execveat, libc::SYS_socket, libc::SYS_connect, libc::SYS_mount];
        for role in ROLES {
            let rules = role.rules().unwrap();
            assert!(never.iter().all(|call| !rules.contains_key(call)), "{role:?}");
        }
    }
}
