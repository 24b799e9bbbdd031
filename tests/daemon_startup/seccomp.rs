//! What happens to a thread that does what it may not.

use std::os::unix::process::ExitStatusExt;

use ferryfs::daemon::seccomp::{ROLES, Role};

use crate::cases;
use crate::support::{Place, thread_status};

cases! {
    Nothing:
        a_forbidden_system_call_ends_the_process_whatever_the_role,
        only_the_control_thread_may_create_threads,
        every_role_can_do_what_every_thread_needs,
        without_the_filter_nothing_is_forbidden,
        a_filter_that_logs_lets_the_call_through,
        a_filter_that_traps_sends_a_signal;
    Root:
        the_process_outside_tells_that_the_one_inside_did_something_forbidden;
}

fn a_forbidden_system_call_ends_the_process_whatever_the_role() {
    for role in ROLES {
        let place = Place::new();
        let mut daemon = place.start("--sandbox none");
        assert_eq!(daemon.ask(&format!("forbidden {role:?}")), "", "{role:?}");
        assert_eq!(daemon.wait().0.signal(), Some(libc::SIGSYS), "{role:?}");
    }
}

fn only_the_control_thread_may_create_threads() {
    for role in ROLES {
        let place = Place::new();
        let mut daemon = place.start("--sandbox none");
        let expected = if role == Role::Control { "made a thread" } else { "" };
        assert_eq!(daemon.ask(&format!("thread {role:?}")), expected, "{role:?}");
    }
}

fn every_role_can_do_what_every_thread_needs() {
    let place = Place::new();
    let mut daemon = place.start("--sandbox none");
    for role in ROLES {
        assert_eq!(daemon.ask(&format!("usual {role:?}")), "67108864 1 0", "{role:?}");
    }
}

fn without_the_filter_nothing_is_forbidden() {
    let place = Place::new();
    let mut daemon = place.start("--sandbox none --seccomp none");
    assert_eq!(daemon.ask("forbidden Worker"), "made a socket");
    assert!(thread_status(daemon.pid()).iter().all(|thread| thread["Seccomp"] == "0" && thread["NoNewPrivs"] == "1"));
}

fn a_filter_that_logs_lets_the_call_through() {
    let place = Place::new();
    let mut daemon = place.start("--sandbox none --seccomp log");
    assert_eq!(daemon.ask("forbidden Worker"), "made a socket");
    assert!(thread_status(daemon.pid()).iter().all(|thread| thread["Seccomp"] == "2"));
}

fn a_filter_that_traps_sends_a_signal() {
    let place = Place::new();
    let mut daemon = place.start("--sandbox none --seccomp trap");
    assert_eq!(daemon.ask("forbidden Worker"), "");
    assert_eq!(daemon.wait().0.signal(), Some(libc::SIGSYS));
}

fn the_process_outside_tells_that_the_one_inside_did_something_forbidden() {
    let place = Place::new();
    let mut daemon = place.start("");
    assert_eq!(daemon.ask("forbidden Worker"), "");
    let (status, told) = daemon.wait();
    assert_eq!(status.code(), Some(128 + libc::SIGSYS));
    assert!(told.contains("--seccomp forbids"), "{told}");
    assert!(!place.socket().exists() && !place.pid_file().exists());
}
