//! The daemon run by a user without privileges.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::cases;
use crate::support::{
    NOBODY, Place, STUB, assert_fails, is_root, namespace, plain_group, plain_user, status, thread_status, tool,
    wait_for,
};

cases! {
    UserNamespaces:
        a_user_gets_the_same_empty_view_in_a_user_namespace,
        a_user_can_be_root_of_the_namespace,
        a_larger_map_is_asked_of_newuidmap,
        a_program_for_maps_that_is_missing_is_named;
    IdMapPrograms:
        a_user_can_have_the_ids_that_were_granted_to_them;
    Nothing:
        a_user_without_a_sandbox_has_no_capabilities,
        a_user_cannot_chroot_and_is_told_what_to_use,
        id_maps_without_a_user_namespace_are_refused,
        a_directory_that_a_user_may_not_enter_is_refused;
}

fn words(path: String) -> Vec<String> {
    fs::read_to_string(path).unwrap().split_whitespace().map(Into::into).collect()
}

fn map(inside: u32, outside: u32) -> Vec<String> {
    vec![inside.to_string(), outside.to_string(), "1".into()]
}

fn a_user_gets_the_same_empty_view_in_a_user_namespace() {
    let place = Place::new();
    let mut daemon = place.start_command(&mut place.plain_command(""));
    let pid = daemon.serving();
    assert_eq!(daemon.ask("list /"), "directory file");
    for kind in ["mnt", "pid", "net", "ipc", "uts", "user"] {
        assert_ne!(namespace(pid, kind), namespace("self", kind), "{kind}");
    }
    assert_eq!(words(format!("/proc/{pid}/uid_map")), map(plain_user(), plain_user()));
    assert_eq!(words(format!("/proc/{pid}/gid_map")), map(plain_group(), plain_group()));
    assert_eq!(words(format!("/proc/{pid}/setgroups")), ["deny"]);
    for thread in thread_status(pid) {
        assert_eq!((thread["NoNewPrivs"].as_str(), thread["Seccomp"].as_str()), ("1", "2"));
        // chown dac_override dac_read_search fowner fsetid setgid setuid mknod setfcap
        assert_eq!((thread["CapEff"].as_str(), thread["CapBnd"].as_str()), ("00000000880000df", "00000000880000df"));
    }
    wait_for("the filter", || (status(daemon.pid())["Seccomp"] == "2").then_some(()));
    assert_eq!(status(daemon.pid())["CapEff"], "0000000000000000");
    assert_eq!(daemon.ask("quit well"), "");
    assert!(daemon.wait().0.success());
    assert!(!place.socket().exists() && !place.pid_file().exists());
}

fn a_user_can_be_root_of_the_namespace() {
    let place = Place::new();
    let (user, group) = (plain_user(), plain_group());
    let options = format!("--uid-map :0:{user}:1: --gid-map /0/{group}/1/");
    let mut daemon = place.start_command(&mut place.plain_command(&options));
    let pid = daemon.serving();
    assert_eq!(words(format!("/proc/{pid}/uid_map")), map(0, user));
    assert_eq!(words(format!("/proc/{pid}/gid_map")), map(0, group));
    assert_eq!(status(pid)["Uid"].split_whitespace().next(), Some(&*user.to_string()), "on the host it stays itself");
    assert_eq!(daemon.ask("list share"), "directory file");
}

fn a_larger_map_is_asked_of_newuidmap() {
    let place = Place::new();
    let mut command = place.plain_command("--uid-map :0:100000:65536: --uid-map :65536:1000:1:");
    command.env("PATH", format!("{}:/usr/bin:/bin", tool("").display()));
    let asked = "asked for 0 100000 65536 65536 1000 1 refused";
    assert_fails(&mut command, 1, &["newuidmap", asked, "/etc/subuid"]);
    assert!(!place.socket().exists() && !place.pid_file().exists());
}

fn a_user_can_have_the_ids_that_were_granted_to_them() {
    let place = Place::new();
    fs::write(place.path("granted"), "nobody:100000:65536\n").unwrap();
    // The path can be entered by the user alone, whose own id is not mapped.
    fs::set_permissions(place.path("share"), fs::Permissions::from_mode(0o700)).unwrap();
    let program = place.plain_command("--uid-map :0:100000:65536: --gid-map :0:100000:65536:");
    let script = format!(
        "mount --bind {granted} /etc/subuid && mount --bind {granted} /etc/subgid && \
         exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups \"$0\" \"$@\"",
        granted = place.path("granted").display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).arg(program.get_program()).args(program.get_args()).env(STUB, "1");
    let mut daemon = place.spawn(&mut command);
    assert_eq!(daemon.ask("share in-mountinfo"), "/");
    let pid = daemon.serving();
    assert_eq!(words(format!("/proc/{pid}/uid_map")), ["0", "100000", "65536"]);
    assert_eq!(words(format!("/proc/{pid}/gid_map")), ["0", "100000", "65536"]);
    assert_eq!(status(pid)["Uid"].split_whitespace().next(), Some("100000"));
    assert_eq!(status(pid)["Groups"], "");
    // Changing ids undoes the tie to the parent: it has to be made after that.
    let started = rustix::process::Pid::from_raw(i32::try_from(daemon.pid()).unwrap()).unwrap();
    rustix::process::kill_process(started, rustix::process::Signal::KILL).unwrap();
    wait_for("the end of the one inside", || (!fs::exists(format!("/proc/{pid}")).unwrap()).then_some(()));
}

fn a_program_for_maps_that_is_missing_is_named() {
    let place = Place::new();
    let mut command = place.plain_command("--gid-map :0:100000:65536:");
    command.env("PATH", place.path("run"));
    assert_fails(&mut command, 1, &["newgidmap", "uidmap"]);
}

fn a_user_without_a_sandbox_has_no_capabilities() {
    let place = Place::new();
    let daemon = place.start_command(&mut place.plain_command("--sandbox none"));
    for thread in thread_status(daemon.serving()) {
        assert_eq!((thread["CapPrm"].as_str(), thread["NoNewPrivs"].as_str()), ("0000000000000000", "1"));
    }
}

fn a_user_cannot_chroot_and_is_told_what_to_use() {
    assert_fails(&mut Place::new().plain_command("--sandbox chroot"), 2, &["needs root", "--sandbox namespace"]);
}

fn id_maps_without_a_user_namespace_are_refused() {
    let options = "--sandbox none --uid-map :0:1000:1:";
    assert_fails(&mut Place::new().plain_command(options), 2, &["--uid-map", "--sandbox namespace"]);
}

fn a_directory_that_a_user_may_not_enter_is_refused() {
    let place = Place::new();
    fs::create_dir(place.path("private")).unwrap();
    fs::create_dir(place.path("private/inner")).unwrap();
    fs::set_permissions(place.path("private"), fs::Permissions::from_mode(0o000)).unwrap();
    for directory in ["private/inner", "private"] {
        let mut command = place.plain_command("");
        command.arg("--shared-dir").arg(place.path(directory));
        assert_fails(&mut command, 1, &[directory, "may enter"]);
    }
    fs::set_permissions(place.path("private"), fs::Permissions::from_mode(0o700)).unwrap();
    let mut command = place.plain_command("--socket-path /ferryfs-test-socket");
    command.arg("--sandbox").arg("none");
    if is_root() {
        assert_fails(&mut command, 1, &["/ferryfs-test-socket", "may write"]);
    }
}
