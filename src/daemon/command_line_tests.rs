//! The command line as tables: what is given, and what the daemon gets or the user is told.

use std::{num::NonZeroUsize, time::Duration};

use super::*;
use crate::daemon::values::{
    CacheMode, DirStreamKind, IdRange, InodeFileHandles, Negotiation, SandboxMode, SeccompMode,
};

/// The least that serves.
const BASE: &str = "--shared-dir /s --socket-path /x";

fn arguments(line: &str) -> impl Iterator<Item = OsString> {
    ["ferryfs"].into_iter().chain(line.split_whitespace()).map(OsString::from)
}

fn daemon(line: &str) -> DaemonOptions {
    match parse(arguments(line)) {
        Ok(Invocation::Serve(options)) => *options,
        other => panic!("{line}: {other:?}"),
    }
}

/// Each row: options beside [`BASE`], and a property of what they result in.
type Row = (&'static str, fn(&DaemonOptions) -> bool);

const DEFAULTS: &[Row] = &[
    ("", |o| o.shared_dir.as_os_str() == "/s"),
    ("", |o| o.listen == Listen::Path { socket: "/x".into(), group: None }),
    ("", |o| o.tag.is_none()),
    ("", |o| o.remarks.is_empty()),
    ("", |o| o.log == LogOptions { level: LevelFilter::Info, syslog: false }),
    ("", |o| o.file_system.cache == CacheMode::Auto),
    ("", |o| o.file_system.entry_timeout.is_none() && o.file_system.attr_timeout.is_none()),
    ("", |o| !o.file_system.xattr() && o.file_system.xattrmap.is_none()),
    ("", |o| o.file_system.posix_acl == Negotiation::Never && o.file_system.security_label == Negotiation::Never),
    ("", |o| !o.file_system.readonly && !o.file_system.writeback),
    ("", |o| !o.file_system.allow_direct_io && !o.file_system.allow_mmap),
    ("", |o| o.file_system.readdirplus() && o.file_system.announces_submounts()),
    ("", |o| o.file_system.drops_privileges() && !o.file_system.preserve_noatime),
    ("", |o| o.file_system.inode_file_handles == InodeFileHandles::Prefer),
    ("", |o| o.file_system.translate_uid.is_empty() && o.file_system.translate_gid.is_empty()),
    ("", |o| o.file_system.dir_stream.is_none()),
    ("", |o| o.isolation.sandbox == SandboxMode::Namespace && o.isolation.seccomp == SeccompMode::Kill),
    ("", |o| o.isolation.uid_map.is_empty() && o.isolation.gid_map.is_empty()),
    ("", |o| o.isolation.rlimit_nofile.is_none() && o.isolation.modcaps == "".parse().unwrap()),
    ("", |o| o.queues.num_request_queues.is_none() && o.queues.thread_pool_size.is_none()),
    ("", |o| o.queues.poll_us.is_none() && !o.queues.persist && !o.file_system.notify),
];

const BY_NAME: &[Row] = &[
    ("--socket-group kvm", |o| o.listen == Listen::Path { socket: "/x".into(), group: Some("kvm".into()) }),
    ("--tag share", |o| o.tag.as_ref().unwrap().as_str() == "share"),
    ("--thread-pool-size 0", |o| o.queues.thread_pool_size == Some(0)),
    ("--thread-pool-size=7", |o| o.queues.thread_pool_size == Some(7)),
    ("--xattr", |o| o.file_system.xattr()),
    ("--posix-acl", |o| o.file_system.posix_acl == Negotiation::Always && o.file_system.xattr()),
    ("--posix-acl=auto", |o| o.file_system.posix_acl == Negotiation::Auto && o.file_system.xattr()),
    ("--posix-acl=never", |o| o.file_system.posix_acl == Negotiation::Never && !o.file_system.xattr()),
    ("--security-label", |o| o.file_system.security_label == Negotiation::Always && o.file_system.xattr()),
    ("--security-label=auto", |o| o.file_system.security_label == Negotiation::Auto),
    ("--xattrmap :map::user.x.:", |o| {
        o.file_system.xattrmap.as_deref() == Some(":map::user.x.:") && o.file_system.xattr()
    }),
    ("--sandbox chroot", |o| o.isolation.sandbox == SandboxMode::Chroot),
    ("--sandbox=None", |o| o.isolation.sandbox == SandboxMode::None),
    ("--readonly", |o| o.file_system.readonly),
    ("--seccomp none", |o| o.isolation.seccomp == SeccompMode::None),
    ("--seccomp=log", |o| o.isolation.seccomp == SeccompMode::Log),
    ("--seccomp=trap", |o| o.isolation.seccomp == SeccompMode::Trap),
    ("--announce-submounts", |o| o.file_system.announces_submounts()),
    ("--no-announce-submounts", |o| !o.file_system.announces_submounts()),
    ("--no-announce-submounts --announce-submounts", |o| o.file_system.announces_submounts()),
    ("--inode-file-handles=never", |o| o.file_system.inode_file_handles == InodeFileHandles::Never),
    ("--inode-file-handles=fallback", |o| o.file_system.inode_file_handles == InodeFileHandles::Prefer),
    ("--inode-file-handles=mandatory", |o| o.file_system.inode_file_handles == InodeFileHandles::Mandatory),
    ("--cache never", |o| o.file_system.cache == CacheMode::Never && !o.file_system.readdirplus()),
    ("--cache=metadata", |o| o.file_system.cache == CacheMode::Metadata && o.file_system.readdirplus()),
    ("--cache=Always", |o| o.file_system.cache == CacheMode::Always),
    ("--cache=coherent", |o| o.file_system.cache == CacheMode::Coherent),
    ("--cache=always --cache=never", |o| o.file_system.cache == CacheMode::Never),
    ("--allow-mmap", |o| o.file_system.allow_mmap),
    ("--no-readdirplus", |o| !o.file_system.readdirplus()),
    ("--writeback", |o| o.file_system.writeback),
    ("--allow-direct-io", |o| o.file_system.allow_direct_io),
    ("--modcaps=+sys_admin:-chown", |o| o.isolation.modcaps.drops("CHOWN")),
    ("--modcaps -chown", |o| o.isolation.modcaps.drops("CHOWN")),
    ("--log-level debug", |o| o.log.level == LevelFilter::Debug),
    ("--log-level=off", |o| o.log.level == LevelFilter::Off),
    ("--syslog", |o| o.log.syslog),
    ("--rlimit-nofile 0", |o| o.isolation.rlimit_nofile == Some(0)),
    ("--rlimit-nofile=4096", |o| o.isolation.rlimit_nofile == Some(4096)),
    ("--killpriv-v2", |o| o.file_system.drops_privileges()),
    ("--no-killpriv-v2", |o| !o.file_system.drops_privileges()),
    ("--killpriv-v2 --no-killpriv-v2", |o| !o.file_system.drops_privileges()),
    ("--uid-map :0:1000:1: --uid-map /1/2000/5/", |o| o.isolation.uid_map.len() == 2),
    ("--gid-map :0:1000:1:", |o| o.isolation.gid_map == [IdRange { inside: 0, outside: 1000, count: 1 }]),
    ("--translate-uid map:0:1:2 --translate-uid guest:5:6:7", |o| o.file_system.translate_uid.len() == 2),
    ("--translate-gid host:1:2:3", |o| o.file_system.translate_gid == ["host:1:2:3"]),
    ("--preserve-noatime", |o| o.file_system.preserve_noatime),
    ("--num-request-queues 64", |o| o.queues.num_request_queues == Some(64)),
    ("--poll-us 50", |o| o.queues.poll_us == Some(50)),
    // Who starts the daemon may have options of its own before the user's.
    ("--cache=auto --cache=coherent", |o| o.file_system.cache == CacheMode::Coherent),
    ("--no-open --cache always", |o| o.file_system.no_open),
    ("--no-statx", |o| o.file_system.no_statx),
    ("--dir-stream snapshot", |o| o.file_system.dir_stream == Some(DirStreamKind::Snapshot)),
    ("--entry-timeout 1.5", |o| o.file_system.entry_timeout == Some(Duration::from_millis(1500))),
    ("--attr-timeout 0", |o| o.file_system.attr_timeout == Some(Duration::ZERO)),
    ("--persist", |o| o.queues.persist),
    ("--notify --cache coherent", |o| o.file_system.notify && o.file_system.negative_timeout.is_none()),
    ("--notify --cache coherent --negative-timeout 60", |o| {
        o.file_system.negative_timeout == Some(Duration::from_secs(60))
    }),
];

const DEPRECATED: &[Row] = &[
    ("-d", |o| o.log.level == LevelFilter::Debug && o.remarks.len() == 1),
    ("-d --log-level error", |o| o.log.level == LevelFilter::Debug),
    ("-f", |o| o.remarks.len() == 1),
    ("--migration-mode=find-paths --migration-on-error=guest-error", |o| o.remarks.len() == 1),
    ("--migration-verify-handles --migration-confirm-paths", |o| o.remarks.len() == 1),
    ("-o source=/other", |o| o.shared_dir.as_os_str() == "/other"),
    ("-o source=/a=b", |o| o.shared_dir.as_os_str() == "/a=b"),
    ("-o cache=none,writeback,xattr", |o| {
        o.file_system.cache == CacheMode::Never && o.file_system.writeback && o.file_system.xattr()
    }),
    ("--cache=never -o cache=always", |o| o.file_system.cache == CacheMode::Always),
    ("-o cache=auto -o cache=metadata", |o| o.file_system.cache == CacheMode::Metadata),
    ("--xattr -o no_xattr", |o| !o.file_system.xattr()),
    ("--no-readdirplus -o readdirplus", |o| o.file_system.readdirplus()),
    ("-o no_readdirplus", |o| !o.file_system.readdirplus()),
    ("--writeback -o no_writeback", |o| !o.file_system.writeback),
    ("-o allow_direct_io", |o| o.file_system.allow_direct_io),
    ("--allow-direct-io -o no_allow_direct_io", |o| !o.file_system.allow_direct_io),
    ("-o announce_submounts", |o| o.file_system.announces_submounts()),
    ("-o killpriv_v2", |o| o.file_system.drops_privileges()),
    ("--killpriv-v2 -o no_killpriv_v2", |o| !o.file_system.drops_privileges()),
    ("-o posix_acl", |o| o.file_system.posix_acl == Negotiation::Always),
    ("--posix-acl -o no_posix_acl", |o| o.file_system.posix_acl == Negotiation::Never),
    ("-o security_label", |o| o.file_system.security_label == Negotiation::Always),
    ("--security-label -o no_security_label", |o| o.file_system.security_label == Negotiation::Never),
    ("-o no_posix_lock,no_flock", |o| o.remarks.len() == 1),
    ("-o xattrmap=:map::a.:", |o| o.file_system.xattrmap.as_deref() == Some(":map::a.:")),
    ("-o loglevel=err", |o| o.log.level == LevelFilter::Error),
    ("-o loglevel=warn", |o| o.log.level == LevelFilter::Warn),
    ("-o sandbox=chroot", |o| o.isolation.sandbox == SandboxMode::Chroot),
    ("-o modcaps=-mknod", |o| o.isolation.modcaps.drops("MKNOD")),
];

#[test]
fn every_option_results_in_what_it_says() {
    for (line, holds) in [DEFAULTS, BY_NAME, DEPRECATED].concat() {
        assert!(holds(&daemon(&format!("{BASE} {line}"))), "{line}");
    }
}

#[test]
fn the_socket_and_the_directory_may_be_given_in_older_ways() {
    assert_eq!(daemon("--shared-dir /s --fd 5").listen, Listen::Descriptor(5));
    let old = daemon("-o source=/s --socket /y");
    assert_eq!((old.shared_dir, old.listen), ("/s".into(), Listen::Path { socket: "/y".into(), group: None }));
    assert_eq!(old.remarks.len(), 2);
}

#[test]
fn mount_takes_the_options_of_the_file_system_and_not_those_of_the_device() {
    let parsed = parse(arguments("mount /s /m --cache=coherent --xattr --readonly --threads 3 --log-level warn"));
    let Ok(Invocation::Mount(options)) = parsed else { panic!("{parsed:?}") };
    assert_eq!((options.source, options.mountpoint), ("/s".into(), "/m".into()));
    assert_eq!(options.threads, NonZeroUsize::new(3));
    assert_eq!(options.log.level, LevelFilter::Warn);
    assert!(options.file_system.xattr() && options.file_system.readonly);
    assert_eq!(options.file_system.cache, CacheMode::Coherent);
    assert!(matches!(parse(arguments("mount /s /m --socket-path /x")), Err(Error::Usage(_))));
}

/// Each row: a whole command line, and words the answer must have: what is wrong, or how to mend it.
const WRONG: &[(&str, &[&str])] = &[
    ("", &["--shared-dir"]),
    ("--socket-path /x", &["--shared-dir"]),
    ("--shared-dir /s", &["--socket-path", "--fd"]),
    ("--shared-dir /s --socket-path /x --fd 4", &["--fd", "--socket-path"]),
    ("--shared-dir /s --fd 4 --socket-group kvm", &["--socket-group"]),
    ("--shared-dir /s --fd -1", &["-1", "--fd"]),
    ("--shared-dir /s --fd x", &["--fd"]),
    ("--shared-dir", &["--shared-dir"]),
    ("--no-such-option", &["--no-such-option"]),
    ("--read-only", &["--readonly"]),
    ("stray", &["stray"]),
    ("--shared-dir /s mount /a /b", &["mount"]),
    ("mount /a", &["MOUNTPOINT"]),
    ("mount /a /b --threads 0", &["--threads"]),
    ("--cache=sometimes", &["sometimes", "auto", "coherent"]),
    ("--sandbox=jail", &["jail", "namespace"]),
    ("--seccomp=yes", &["yes", "kill"]),
    ("--posix-acl=maybe", &["maybe", "auto"]),
    ("--inode-file-handles=perhaps", &["perhaps", "prefer"]),
    ("--dir-stream=list", &["list", "getdents"]),
    ("--migration-mode=fly", &["fly", "find-paths"]),
    ("--num-request-queues 0", &["0", "1..=64"]),
    ("--num-request-queues 65", &["65", "1..=64"]),
    ("--poll-us -1", &["-1", "--poll-us"]),
    ("--entry-timeout soon", &["soon", "seconds"]),
    ("--attr-timeout=-1", &["-1", "seconds"]),
    ("--log-level loud", &["loud", "warn"]),
    ("--rlimit-nofile many", &["many"]),
    ("--thread-pool-size -1", &["-1", "0..=1024"]),
    ("--thread-pool-size 1025", &["1025", "0..=1024"]),
    ("--shared-dir /s --socket-path /x --xattrmap=bogus", &["--xattrmap", "rule 1"]),
    ("--shared-dir /s --socket-path /x --translate-uid fly", &["--translate-uid", "fly"]),
    ("mount /a /b --translate-gid fly", &["--translate-gid", "fly"]),
    ("--tag 0123456789012345678901234567890123456", &["36 bytes"]),
    ("--uid-map 0:1:2", &[":NAMESPACE_ID:HOST_ID:COUNT:"]),
    ("--gid-map :0:1:0:", &["at least one"]),
    ("--modcaps chown", &["chown", "+"]),
    ("--modcaps +fly", &["fly"]),
    ("--shared-dir /s --socket-path /x --modcaps=-dac_read_search", &["--inode-file-handles=never"]),
    ("--shared-dir /s --socket-path /x --posix-acl --translate-uid map:0:1:2", &["--translate-uid", "--posix-acl"]),
    ("--shared-dir /s --socket-path /x --notify", &["--notify", "--cache=coherent"]),
    ("--shared-dir /s --socket-path /x --negative-timeout 1", &["--notify"]),
    ("--shared-dir /s --socket-path /x --no-open", &["no-open", "cache=always"]),
    ("--shared-dir /s --socket-path /x --no-open --cache coherent", &["no-open", "cache=always"]),
    ("--shared-dir /s --socket-path /x --no-open --cache always --allow-direct-io", &["allow-direct-io"]),
    ("--shared-dir /s --socket-path /x --no-open --cache always --preserve-noatime", &["preserve-noatime"]),
    ("--shared-dir /s --socket-path /x -o cache=sometimes", &["sometimes", "metadata"]),
    ("--shared-dir /s --socket-path /x -o sandbox=none", &["none", "namespace"]),
    ("--shared-dir /s --socket-path /x -o loglevel=loud", &["loud", "err"]),
    ("--shared-dir /s --socket-path /x -o modcaps=chown", &["modcaps", "chown"]),
    ("--shared-dir /s --socket-path /x -o fly", &["-o fly"]),
    ("--shared-dir /s --socket-path /x -o fly=1", &["-o fly"]),
    ("--shared-dir /s --socket-path /x -o no_fly", &["-o no_fly"]),
    ("--shared-dir /s --socket-path /x -o writeback,", &["-o "]),
];

#[test]
fn a_wrong_command_line_is_answered_in_one_line_that_helps() {
    for (line, words) in WRONG {
        let error = match parse(arguments(line)) {
            Err(error @ Error::Usage(_)) => error.to_string(),
            other => panic!("{line}: {other:?}"),
        };
        assert!(!error.contains('\n'), "{line}: {error}");
        assert!(words.iter().all(|word| error.contains(word)), "{line}: {error}");
    }
}

#[test]
fn help_version_and_capabilities_are_printed_and_nothing_else_is_asked_for() {
    for (line, word) in [
        ("--help", "--shared-dir"),
        ("-h", "--cache"),
        ("mount --help", "MOUNTPOINT"),
        ("--version", env!("CARGO_PKG_VERSION")),
        ("-V", "ferryfs"),
        ("--print-capabilities", "\"type\": \"fs\""),
    ] {
        match parse(arguments(line)) {
            Ok(Invocation::Print(text)) => assert!(text.contains(word), "{line}: {text}"),
            other => panic!("{line}: {other:?}"),
        }
    }
}

#[test]
fn the_help_explains_every_option_of_virtiofsd() {
    let Ok(Invocation::Print(help)) = parse(arguments("--help")) else { panic!("no help") };
    let options = "shared-dir tag socket-path socket-group fd thread-pool-size xattr posix-acl xattrmap sandbox \
        readonly seccomp announce-submounts no-announce-submounts inode-file-handles cache allow-mmap no-readdirplus \
        writeback allow-direct-io print-capabilities modcaps log-level syslog rlimit-nofile no-killpriv-v2 killpriv-v2 \
        security-label uid-map gid-map translate-uid translate-gid preserve-noatime migration-mode migration-on-error \
        migration-verify-handles migration-confirm-paths";
    for option in options.split_whitespace() {
        assert!(help.contains(&format!("--{option}")), "{option}");
    }
}
