//! What the serving process sees and may do, as root.

use std::fs;
use std::process::Command;

use crate::cases;
use crate::support::{Place, STUB, assert_fails, descriptors, namespace, status, thread_status};

cases! {
    Root:
        a_sandbox_of_namespaces_shows_the_share_and_nothing_else,
        a_sandbox_by_chroot_shows_the_share_and_nothing_else,
        what_was_opened_before_the_sandbox_does_not_lead_out_of_it,
        mounts_beneath_the_share_are_part_of_the_view,
        a_mount_that_the_host_makes_later_shows_in_the_view,
        the_root_directory_itself_can_be_shared,
        a_read_only_share_is_read_only_for_the_process_too,
        capabilities_are_dropped_to_what_the_options_need,
        no_thread_keeps_groups_or_a_way_to_privileges,
        the_process_outside_keeps_almost_nothing,
        id_maps_are_refused_to_root;
    Nothing:
        inherited_descriptors_do_not_reach_the_server,
        without_a_sandbox_the_share_is_found_by_its_own_path,
        the_limit_of_descriptors_is_what_was_asked_for,
        a_limit_of_descriptors_too_small_to_serve_is_refused;
}

const BITS: &[(&str, u32)] = &[
    ("chown", 0),
    ("dac_override", 1),
    ("dac_read_search", 2),
    ("fowner", 3),
    ("fsetid", 4),
    ("setgid", 6),
    ("setuid", 7),
    ("sys_admin", 21),
    ("mknod", 27),
    ("setfcap", 31),
];

/// A set of capabilities as the kernel writes it.
fn mask(names: &str) -> String {
    let bit = |name: &str| BITS.iter().find(|(known, _)| *known == name).unwrap().1;
    format!("{:016x}", names.split_whitespace().map(|name| 1_u64 << bit(name)).sum::<u64>())
}

fn a_sandbox_of_namespaces_shows_the_share_and_nothing_else() {
    let place = Place::new();
    let mut daemon = place.start("");
    let pid = daemon.serving();
    assert_ne!(pid, daemon.pid());
    assert_eq!(daemon.ask("list /"), "directory file");
    let seen = fs::read_dir(format!("/proc/{pid}/root")).unwrap().count();
    assert_eq!(seen, 2);
    for kind in ["mnt", "pid", "net", "ipc", "uts"] {
        assert_ne!(namespace(pid, kind), namespace("self", kind), "{kind}");
        assert_eq!(namespace(daemon.pid(), kind), namespace("self", kind), "the one outside changed its {kind}");
    }
    assert_eq!(namespace(pid, "user"), namespace("self", "user"));
    let mounts = daemon.ask("mounts now");
    assert_eq!(mounts, fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap());
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert_eq!(mounts.split(' ').nth(4), Some("/"), "{mounts}");
    assert_eq!(daemon.ask("share in-mountinfo"), "/");
    assert_eq!(status(pid)["NSpid"].split('\t').next_back(), Some("1"));
}

fn a_sandbox_by_chroot_shows_the_share_and_nothing_else() {
    let place = Place::new();
    let mut daemon = place.start("--sandbox chroot");
    assert_eq!(daemon.ask("list /"), "directory file");
    assert_eq!(daemon.ask("list /.."), "directory file");
    assert_eq!(fs::read_link(format!("/proc/{}/root", daemon.serving())).unwrap(), place.path("share"));
    assert_eq!(daemon.ask("share in-mountinfo"), "/");
    assert!(daemon.ask("mounts now").lines().all(|line| !line.contains(" /proc ")), "mounts of the host are listed");
}

fn what_was_opened_before_the_sandbox_does_not_lead_out_of_it() {
    for sandbox in ["namespace", "chroot"] {
        let place = Place::new();
        let mut daemon = place.start(&format!("--sandbox {sandbox}"));
        assert_eq!(daemon.ask("list above-share"), "directory file", "{sandbox}");
        assert_eq!(daemon.ask("through fds"), "directory file", "{sandbox}");
        // Numbers only: the directory above would show `status` and the like.
        let above = daemon.ask("list above-fds");
        assert!(above.split(' ').all(|name| name.parse::<u32>().is_ok()), "{sandbox}: {above}");
        let all = daemon.ask("list above-every-descriptor");
        let inside =
            |names: &str| names == "directory file" || names.split(' ').all(|name| name.parse::<u32>().is_ok());
        assert!(all.lines().count() >= 2 && all.lines().all(inside), "{sandbox}: {all}");
    }
}

/// Runs a script that sets up mounts of its own and then becomes the program under test.
fn in_private_mounts(place: &Place, script: &str, options: &str) -> Command {
    let mut command = Command::new("unshare");
    let program = place.command(options);
    command.args(["--mount", "sh", "-c", &format!("{script} && exec \"$0\" \"$@\"")]);
    command.arg(program.get_program()).args(program.get_args()).env(STUB, "1");
    command
}

fn mounts_beneath_the_share_are_part_of_the_view() {
    for sandbox in ["namespace", "chroot", "none"] {
        let place = Place::new();
        let below = place.path("share/directory").display().to_string();
        let script = format!("mount -t tmpfs none {below} && mkdir {below}/mounted");
        let options = format!("--sandbox {sandbox}");
        let mut daemon = place.start_command(&mut in_private_mounts(&place, &script, &options));
        let root = daemon.ask("share in-mountinfo");
        let below = format!("{}/directory", root.trim_end_matches('/'));
        let mounts = daemon.ask("mounts now");
        assert!(mounts.lines().any(|line| line.split(' ').nth(4) == Some(&below)), "{sandbox}: {mounts}");
        if sandbox != "none" {
            assert_eq!(daemon.ask("list /directory"), "mounted", "{sandbox}");
        }
    }
}

fn a_mount_that_the_host_makes_later_shows_in_the_view() {
    let place = Place::new();
    let program = place.command("");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "shared", "--"]);
    command.arg(program.get_program()).args(program.get_args()).env(STUB, "1");
    let mut daemon = place.start_command(&mut command);
    let mut mount = Command::new("nsenter");
    mount.args([
        "--target",
        &daemon.pid().to_string(),
        "--mount",
        "sh",
        "-c",
        "mount -t tmpfs none $0 && mkdir $0/late",
    ]);
    assert!(mount.arg(place.path("share/directory")).status().unwrap().success());
    assert_eq!(daemon.ask("list /directory"), "late");
}

fn the_root_directory_itself_can_be_shared() {
    let place = Place::new();
    let mut command = place.bare_command();
    command.args(["--shared-dir", "/", "--socket-path"]).arg(place.socket());
    let mut daemon = place.spawn(&mut command);
    let mut names: Vec<_> = fs::read_dir("/").unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(daemon.ask("list share"), names.join(" "));
    assert_eq!(daemon.ask("list /"), names.join(" "));
}

fn a_read_only_share_is_read_only_for_the_process_too() {
    let place = Place::new();
    let mut daemon = place.start("--readonly");
    let flags = |mounts: String| mounts.split(' ').nth(5).unwrap().to_owned();
    assert!(flags(daemon.ask("mounts now")).starts_with("ro,nosuid,nodev"));
    let place = Place::new();
    let mut daemon = place.start("");
    assert!(flags(daemon.ask("mounts now")).starts_with("rw,nosuid,nodev"));
}

fn capabilities_are_dropped_to_what_the_options_need() {
    let usual = "chown dac_override dac_read_search fowner fsetid setgid setuid mknod setfcap";
    let rows = [
        ("", usual),
        ("--sandbox chroot", usual),
        ("--sandbox none", usual),
        ("--inode-file-handles=never", "chown dac_override fowner fsetid setgid setuid mknod setfcap"),
        ("--readonly", "dac_override dac_read_search fowner setgid setuid"),
        (
            "--modcaps=+sys_admin:-mknod",
            "chown dac_override dac_read_search fowner fsetid setgid setuid setfcap sys_admin",
        ),
    ];
    for (options, kept) in rows {
        let place = Place::new();
        let daemon = place.start(options);
        for thread in thread_status(daemon.serving()) {
            for set in ["CapPrm", "CapEff", "CapBnd"] {
                assert_eq!(thread[set], mask(kept), "{set} with '{options}'");
            }
            assert_eq!((thread["CapInh"].as_str(), thread["CapAmb"].as_str()), (&*mask(""), &*mask("")), "'{options}'");
        }
    }
}

fn no_thread_keeps_groups_or_a_way_to_privileges() {
    for sandbox in ["namespace", "chroot", "none"] {
        let place = Place::new();
        let mut command = Command::new("setpriv");
        let program = place.command(&format!("--sandbox {sandbox}"));
        command.args(["--groups", "4,24", "--inh-caps=+chown", "--"]);
        command.arg(program.get_program()).args(program.get_args()).env(STUB, "1");
        let daemon = place.start_command(&mut command);
        let threads = thread_status(daemon.serving());
        assert!(threads.len() > 1, "{sandbox}");
        for thread in threads {
            assert_eq!(thread["Groups"], "", "{sandbox}");
            assert_eq!(thread["NoNewPrivs"], "1", "{sandbox}");
            assert_eq!(thread["Seccomp"], "2", "{sandbox}");
            assert_eq!(thread["CapInh"], mask(""), "{sandbox}");
        }
    }
}

fn the_process_outside_keeps_almost_nothing() {
    let place = Place::new();
    let daemon = place.start("");
    // It lets go after it has started the one inside, which may answer first.
    crate::support::wait_for("the filter", || (status(daemon.pid())["Seccomp"] == "2").then_some(()));
    let outside = status(daemon.pid());
    assert_eq!(outside["CapPrm"], mask("dac_override"));
    assert_eq!(outside["CapBnd"], mask("dac_override"));
    assert_eq!(outside["NoNewPrivs"], "1");
    assert_eq!(outside["Groups"], "");
    assert!(descriptors(daemon.pid()).iter().all(|path| !path.starts_with("socket:")), "it holds the socket");
    assert!(!descriptors(daemon.pid()).contains(&place.path("share").display().to_string()));
}

fn id_maps_are_refused_to_root() {
    let place = Place::new();
    for option in ["--uid-map :0:1000:1:", "--gid-map :0:1000:1:"] {
        assert_fails(&mut place.command(option), 2, &["--uid-map", "leave them out"]);
    }
}

fn inherited_descriptors_do_not_reach_the_server() {
    let stray = fs::File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&stray, rustix::io::FdFlags::empty()).unwrap();
    for sandbox in ["namespace", "none"] {
        if sandbox == "namespace" && !crate::support::is_root() {
            continue;
        }
        let place = Place::new();
        let daemon = place.start(&format!("--sandbox {sandbox}"));
        for pid in [daemon.pid(), daemon.serving()] {
            assert!(!descriptors(pid).contains(&"/etc/passwd".to_owned()), "{sandbox}");
        }
    }
    drop(stray);
}

fn without_a_sandbox_the_share_is_found_by_its_own_path() {
    let place = Place::new();
    let mut daemon = place.start("--sandbox none");
    assert_eq!(daemon.serving(), daemon.pid());
    assert_eq!(daemon.ask("share in-mountinfo"), place.path("share").display().to_string());
    assert_eq!(daemon.ask("through fds"), "directory file");
    drop(daemon);
    let through = format!("--sandbox none --shared-dir {}/directory/..", place.path("share").display());
    assert_eq!(place.start(&through).ask("share in-mountinfo"), place.path("share").display().to_string());
}

fn the_limit_of_descriptors_is_what_was_asked_for() {
    let place = Place::new();
    let mut daemon = place.start("--sandbox none --rlimit-nofile 3000 --num-request-queues 2 --thread-pool-size 3");
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let row = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(row.split_whitespace().nth(3), Some("3000"));
    assert_eq!(daemon.ask("descriptors left"), format!("3000 {}", 3000 - 509 - 100 - 2 - 3));
}

fn a_limit_of_descriptors_too_small_to_serve_is_refused() {
    let place = Place::new();
    let small = "--sandbox none --rlimit-nofile 500 --num-request-queues 2 --thread-pool-size 3";
    assert_fails(&mut place.command(small), 1, &["500", "--rlimit-nofile", "615"]);
    let large = "--sandbox none --rlimit-nofile 18446744073709551615";
    assert_fails(&mut place.command(large), 1, &["--rlimit-nofile", "at most"]);
}
