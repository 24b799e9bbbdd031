//! How the daemon ends, and what it leaves behind.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use crate::cases;
use crate::support::{Daemon, Place, assert_fails, is_root, wait_for};

cases! {
    Nothing:
        a_signal_that_asks_for_an_end_is_a_success_and_leaves_nothing,
        a_failure_of_the_server_is_told_and_ends_with_1,
        a_mistake_of_the_servers_own_is_told_in_one_line,
        a_wrong_option_ends_with_2,
        help_goes_to_standard_output_and_ends_with_0;
    Root:
        the_serving_process_ends_with_the_one_that_was_started,
        the_status_of_the_serving_process_is_passed_on,
        a_socket_that_was_replaced_meanwhile_is_left_alone;
}

fn sandboxes() -> &'static [&'static str] {
    if is_root() { &["--sandbox namespace", "--sandbox chroot", "--sandbox none"] } else { &["--sandbox none"] }
}

fn send(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

fn await_end(pid: u32) {
    wait_for("the end of the serving process", || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
}

fn a_signal_that_asks_for_an_end_is_a_success_and_leaves_nothing() {
    for sandbox in sandboxes() {
        for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
            let place = Place::new();
            let daemon = place.start(sandbox);
            let serving = daemon.serving();
            send(daemon.pid(), signal);
            let (status, told) = daemon.wait();
            assert_eq!(status.code(), Some(0), "{sandbox} {signal:?}: {told}");
            await_end(serving);
            assert!(!place.socket().exists() && !place.pid_file().exists(), "{sandbox} {signal:?}");
        }
    }
}

fn a_failure_of_the_server_is_told_and_ends_with_1() {
    for sandbox in sandboxes() {
        let place = Place::new();
        let mut daemon = place.start(sandbox);
        assert_eq!(daemon.ask("quit badly"), "");
        let (status, told) = daemon.wait();
        assert_eq!(status.code(), Some(1), "{sandbox}");
        assert_eq!(told.lines().filter(|line| *line == "ferryfs: asked to fail").count(), 1, "{sandbox}: {told}");
        assert!(!place.socket().exists() && !place.pid_file().exists(), "{sandbox}");
    }
}

fn a_mistake_of_the_servers_own_is_told_in_one_line() {
    for sandbox in sandboxes() {
        let place = Place::new();
        let mut daemon = place.start(sandbox);
        assert_eq!(daemon.ask("make a mistake"), "");
        let (status, told) = daemon.wait();
        assert_eq!(status.code(), Some(101), "{sandbox}: {told}");
        let lines: Vec<_> = told.lines().filter(|line| line.contains("does not know")).collect();
        assert!(lines.len() == 1 && lines[0].contains("mistake of ferryfs's own"), "{sandbox}: {told}");
        assert!(!told.contains("panicked at") && !told.contains("backtrace"), "{sandbox}: {told}");
        assert!(!place.socket().exists() && !place.pid_file().exists(), "{sandbox}");
    }
}

fn a_wrong_option_ends_with_2() {
    let place = Place::new();
    assert_fails(&mut place.command("--cache=sometimes"), 2, &["sometimes", "coherent"]);
    assert_fails(&mut place.bare_command(), 2, &["--shared-dir"]);
    assert!(!place.socket().exists());
}

fn help_goes_to_standard_output_and_ends_with_0() {
    for (option, word) in [("--help", "--shared-dir"), ("--version", "ferryfs"), ("--print-capabilities", "fs")] {
        let output = Place::new().bare_command().arg(option).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{option}");
        assert!(String::from_utf8(output.stdout).unwrap().contains(word), "{option}");
    }
}

fn the_serving_process_ends_with_the_one_that_was_started() {
    for sandbox in ["namespace", "chroot"] {
        let place = Place::new();
        let daemon = place.start(&format!("--sandbox {sandbox}"));
        let serving = daemon.serving();
        assert_ne!(serving, daemon.pid());
        send(daemon.pid(), Signal::KILL);
        await_end(serving);
    }
}

fn the_status_of_the_serving_process_is_passed_on() {
    let place = Place::new();
    let daemon: Daemon = place.start("");
    send(daemon.serving(), Signal::KILL);
    let (status, told) = daemon.wait();
    assert_eq!(status.code(), Some(128 + libc::SIGKILL));
    assert!(told.contains("signal 9"), "{told}");
    assert!(!place.socket().exists() && !place.pid_file().exists());
}

fn a_socket_that_was_replaced_meanwhile_is_left_alone() {
    let place = Place::new();
    let mut daemon = place.start("");
    std::fs::rename(place.socket(), place.path("run/moved")).unwrap();
    std::fs::write(place.socket(), "another's").unwrap();
    daemon.socket = place.path("run/moved");
    daemon.ask("quit well");
    assert!(daemon.wait().0.success());
    assert_eq!(std::fs::read_to_string(place.socket()).unwrap(), "another's");
}
