//! As whom a guest's requests are done: what is made belongs to the caller, as the local file system has it.

use std::{fs, path::Path};

use ferryfs::{coherence::policy::CacheMode, passthrough::config::Negotiation};
use fuse_abi::InitFlags;

use crate::support::{
    Client, Errno, OFFER, ROOT, Result, Share, Stop, directories,
    host::{self, tag},
    in_handle_mode, needs_root,
};

type Make = (&'static str, fn(&Client, u64, &str, u32) -> Result<()>);
/// Every way to make something that has a name, and a mode if it can have one.
const MAKES: [Make; 4] = [
    ("create", |c, dir, name, mode| {
        let (entry, open) = c.create(dir, name, libc::O_RDWR, mode)?;
        c.release(entry.nodeid, open.fh)?;
        c.forget(entry.nodeid, 1);
        Ok(())
    }),
    ("mkdir", |c, dir, name, mode| c.mkdir(dir, name, mode).map(|entry| c.forget(entry.nodeid, 1))),
    ("mknod", |c, dir, name, mode| c.mknod(dir, name, libc::S_IFREG | mode, 0).map(|entry| c.forget(entry.nodeid, 1))),
    ("symlink", |c, dir, name, _| c.symlink(dir, name, "x").map(|entry| c.forget(entry.nodeid, 1))),
];

/// What the host's own calls make of the same, for a process of that user.
fn make_locally(what: &str, path: &Path, mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    match what {
        "create" => fs::File::options().write(true).create_new(true).mode(mode).open(path).map(drop),
        "mkdir" => fs::DirBuilder::new().mode(mode).create(path),
        "mknod" => host::device(path, libc::S_IFREG | mode, 0, 0),
        _ => std::os::unix::fs::symlink("x", path),
    }
}

#[test]
fn what_a_user_makes_has_the_owner_group_and_mode_it_would_have_locally() {
    if needs_root() {
        return;
    }
    // Setgid directories among them, whose group the creator is in by its own group, by another one, or not at all:
    // there a file must lose its setgid bit (CVE-2022-0358).
    let creators: [(u32, u32, Option<u32>); 6] =
        [(0, 0, None), (0, 7, None), (1000, 1000, None), (1000, 2000, None), (1000, 1000, Some(2000)), (1000, 0, None)];
    for (directory, modes) in
        directories().into_iter().zip([&[0o644, 0o2755, 0o6777][..], &[0o755, 0o2755, 0o4711, 0o2644, 0o6777, 0o1777]])
    {
        let share = Share::of(directory, |_| {});
        let client = share.client();
        for (number, (owner, group, mode)) in
            [(0, 0, 0o777), (0, 2000, 0o2777), (1000, 2000, 0o2755), (0, 2000, 0o2775), (0, 0, 0o2777)]
                .into_iter()
                .enumerate()
        {
            let dir = format!("dir-{number}");
            fs::create_dir(share.host(&dir)).unwrap();
            host::chown(&share.host(&dir), owner, group);
            host::chmod(&share.host(&dir), mode);
            let node = client.walk(&dir).unwrap();
            for (turn, (uid, gid, more)) in creators.into_iter().enumerate() {
                let mut user = client.as_user(uid, gid);
                user.group = more;
                for (what, make) in MAKES {
                    for mode in modes.iter().copied() {
                        let name = |side: &str| format!("{side}-{what}-{turn}-{mode:o}");
                        let local = share.host(&dir).join(name("local"));
                        let groups: Vec<u32> = more.into_iter().collect();
                        let done = host::as_user(uid, gid, &groups, || make_locally(what, &local, mode));
                        let case = format!("{what} {mode:o} in {dir} as {uid}:{gid}+{more:?}");
                        if done.is_err() {
                            // Only the guest's kernel refuses this; the server trusts that it did.
                            continue;
                        }
                        make(&user, node, &name("guest"), mode).unwrap_or_else(|errno| panic!("{case}: {errno}"));
                        let guest = share.host(&dir).join(name("guest"));
                        assert_eq!(host::owner(&guest), host::owner(&local), "{case}");
                        assert_eq!(format!("{:o}", host::mode(&guest)), format!("{:o}", host::mode(&local)), "{case}");
                    }
                }
            }
        }
    }
}

#[test]
fn an_unnamed_file_belongs_to_its_creator() {
    if needs_root() {
        return;
    }
    let share = Share::new();
    host::chmod(share.path(), 0o777);
    let user = share.client().as_user(1234, 4321);
    let (entry, open) = user.tmpfile(ROOT, libc::O_RDWR, 0o640).unwrap();
    assert_eq!((entry.attr.uid, entry.attr.gid, entry.attr.mode), (1234, 4321, libc::S_IFREG | 0o640));
    assert_eq!(user.link(entry.nodeid, ROOT, "named").unwrap().attr.nlink, 1);
    user.release(entry.nodeid, open.fh).unwrap();
    assert_eq!(host::owner(&share.host("named")), (1234, 4321));
}

#[test]
fn two_users_on_two_queues_never_mix() {
    if needs_root() {
        return;
    }
    let share = Share::in_memory(|_| {});
    host::chmod(share.path(), 0o777);
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    std::thread::scope(|scope| {
        for (number, users) in [[1000, 2000], [1000, 3000], [0, 2000]].into_iter().enumerate() {
            let client = share.client();
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed ^ number as u64);
                for round in 0..1200 {
                    let uid = users[random.usize(..2)];
                    let user = client.as_user(uid, uid + 1);
                    let name = format!("{number}-{round}");
                    let what = random.usize(..7);
                    match what {
                        0..=3 => {
                            let (_, make) = MAKES[what];
                            make(&user, ROOT, &name, 0o640).unwrap();
                            let entry = user.lookup(ROOT, &name).unwrap();
                            assert_eq!((entry.attr.uid, entry.attr.gid), (uid, uid + 1), "{round}: {what}");
                            user.forget(entry.nodeid, 1);
                        }
                        4 => {
                            let (entry, open) = user.tmpfile(ROOT, libc::O_RDWR, 0o600).unwrap();
                            assert_eq!((entry.attr.uid, entry.attr.gid), (uid, uid + 1), "{round}");
                            user.write(entry.nodeid, open.fh, 0, b"x").unwrap();
                            user.release(entry.nodeid, open.fh).unwrap();
                            user.forget(entry.nodeid, 1);
                        }
                        5 => drop(user.lookup(ROOT, &name).unwrap_err()),
                        _ => drop(user.getattr(ROOT).unwrap()),
                    }
                }
            });
        }
    });
    assert_eq!((share.known_inodes(), share.held_descriptors()), (0, 0));
}

#[test]
fn after_a_users_creation_the_thread_works_as_the_server_again() {
    if needs_root() {
        return;
    }
    let share = Share::with(|config| config.xattr = true);
    host::chmod(share.path(), 0o777);
    fs::create_dir(share.host("private")).unwrap();
    host::chmod(&share.host("private"), 0o700);
    fs::write(share.host("private/secret"), "root's").unwrap();
    host::chmod(&share.host("private/secret"), 0o600);
    let root = share.client();
    let user = root.as_user(1000, 1000);
    type Step = (&'static str, fn(&Client) -> Result<()>);
    // By the guest's root, and by a plain user whom the guest's kernel has let pass.
    let steps: [Step; 8] = [
        ("lookup", |c| c.walk("private/secret").map(drop)),
        ("open and read", |c| {
            let node = c.walk("private/secret")?;
            let handle = c.open(node, libc::O_RDWR)?.fh;
            assert_eq!(c.read(node, handle, 0, 9)?, b"root's");
            c.release(node, handle)
        }),
        ("chown", |c| c.chown(c.walk("private/secret")?, Some(5), Some(5)).map(drop)),
        ("chmod", |c| c.chmod(c.walk("private/secret")?, 0o400).map(drop)),
        ("setxattr", |c| c.setxattr(c.walk("private/secret")?, "trusted.x", b"1")),
        ("list", |c| {
            let node = c.walk("private")?;
            let handle = c.opendir(node)?.fh;
            assert_eq!(c.names(node, handle)?, ["secret"]);
            c.releasedir(node, handle)
        }),
        ("rename", |c| c.rename((c.walk("private")?, "secret"), (c.walk("private")?, "secret"))),
        ("link and unlink", |c| {
            let (dir, node) = (c.walk("private")?, c.walk("private/secret")?);
            c.link(node, dir, "link")?;
            c.unlink(dir, "link")
        }),
    ];
    for (number, (what, step)) in steps.into_iter().enumerate() {
        for who in [&root, &user] {
            user.mkdir(ROOT, &format!("{number}-{}", who.uid), 0o755).unwrap();
            assert_eq!(step(who), Ok(()), "{what} as {}", who.uid);
        }
    }
    root.mkdir(ROOT, "roots", 0o755).unwrap();
    assert_eq!(host::owner(&share.host("roots")), (0, 0));
    root.unlink(root.walk("private").unwrap(), "secret").unwrap();
}

#[test]
fn what_the_host_refuses_but_the_guest_allowed_is_made_all_the_same_and_as_the_caller() {
    if needs_root() {
        return;
    }
    let share = Share::new();
    let list = host::acl(&[
        (tag::OWNER, 7, tag::NOBODY),
        (tag::USER, 7, 1000),
        (tag::GROUP_OWNER, 0, tag::NOBODY),
        (tag::MASK, 7, tag::NOBODY),
        (tag::OTHER, 0, tag::NOBODY),
    ]);
    for (name, group, mode) in
        [("others", 0, 0o700), ("group", 3000, 0o770), ("setgid", 3000, 0o2770), ("acl", 0, 0o770)]
    {
        fs::create_dir(share.host(name)).unwrap();
        host::chown(&share.host(name), 2000, group);
        host::chmod(&share.host(name), mode);
    }
    host::set_xattr(&share.host("acl"), "system.posix_acl_access", &list).unwrap();
    let user = share.client().as_user(1000, 1000);
    for (dir, group) in [("others", 1000), ("group", 1000), ("setgid", 3000), ("acl", 1000)] {
        let node = user.walk(dir).unwrap();
        for (what, make) in MAKES {
            let case = format!("{what} in {dir}");
            make(&user, node, what, 0o2755).unwrap_or_else(|errno| panic!("{case}: {errno}"));
            let path = share.host(dir).join(what);
            assert_eq!(host::owner(&path), (1000, group), "{case}");
            if what == "create" || what == "mknod" {
                // What overrides permissions does not override that the creator is not in the group.
                let setgid = if dir == "setgid" { 0 } else { 0o2000 };
                assert_eq!(host::mode(&path), 0o755 | setgid, "{case}");
            }
        }
        let (entry, open) = user.tmpfile(node, libc::O_RDWR, 0o600).unwrap();
        assert_eq!((entry.attr.uid, entry.attr.gid), (1000, group), "an unnamed file in {dir}");
        user.release(entry.nodeid, open.fh).unwrap();
        user.unlink(node, "create").unwrap();
        user.rmdir(node, "mkdir").unwrap();
    }
}

#[test]
fn a_create_that_finds_a_file_opens_it_with_the_callers_rights_and_no_more() {
    if needs_root() {
        return;
    }
    let share = Share::new();
    host::chmod(share.path(), 0o777);
    for (name, owner, mode) in [("roots", 0, 0o600), ("shared", 0, 0o666), ("own", 1000, 0o600), ("readable", 0, 0o644)]
    {
        fs::write(share.host(name), "data").unwrap();
        host::chown(&share.host(name), owner, owner);
        host::chmod(&share.host(name), mode);
    }
    let root = share.client();
    let user = root.as_user(1000, 1000);
    // The client has asked nobody whether the caller may: to it there was no file. ESTALE makes it look again, and ask.
    for (name, flags, expected) in [
        ("roots", libc::O_RDWR, Err(Errno::ESTALE)),
        ("roots", libc::O_RDONLY, Err(Errno::ESTALE)),
        ("roots", libc::O_WRONLY | libc::O_TRUNC, Err(Errno::ESTALE)),
        ("readable", libc::O_RDONLY, Ok(())),
        ("readable", libc::O_RDWR, Err(Errno::ESTALE)),
        ("shared", libc::O_RDWR, Ok(())),
        ("own", libc::O_RDWR, Ok(())),
    ] {
        // Whatever the thread was before: itself, or this very user.
        for warm in [true, false] {
            if warm {
                user.create(ROOT, "warm", libc::O_RDWR, 0o600).map(drop).unwrap()
            } else {
                root.walk("own").map(drop).unwrap()
            }
            let done = user.create(ROOT, name, flags, 0o600);
            assert_eq!(done.map(drop), expected, "{name} {flags:o}");
        }
    }
    assert_eq!(fs::read(share.host("roots")).unwrap(), b"data");
    let (entry, open) = root.create(ROOT, "roots", libc::O_RDWR | libc::O_TRUNC, 0o600).unwrap();
    assert_eq!(entry.attr.size, 0);
    root.release(entry.nodeid, open.fh).unwrap();
}

fn default_acl() -> Vec<u8> {
    host::acl(&[
        (tag::OWNER, 7, tag::NOBODY),
        (tag::USER, 7, 1234),
        (tag::GROUP_OWNER, 5, tag::NOBODY),
        (tag::MASK, 7, tag::NOBODY),
        (tag::OTHER, 0, tag::NOBODY),
    ])
}

#[test]
fn the_umask_is_the_servers_to_apply_where_agreed_and_a_default_acl_replaces_it() {
    if needs_root() {
        return;
    }
    let with_acl = |config: &mut ferryfs::passthrough::config::Config| config.posix_acl = Negotiation::Auto;
    for (terms, masked) in [(OFFER, true), (OFFER - InitFlags::DONT_MASK - InitFlags::POSIX_ACL, false)] {
        let share = Share::on_terms(terms, with_acl);
        for name in ["plain", "acl"] {
            fs::create_dir(share.host(name)).unwrap();
            host::chmod(&share.host(name), 0o777);
        }
        host::set_xattr(&share.host("acl"), "system.posix_acl_default", &default_acl()).unwrap();
        let client = share.client();
        let (plain, acl) = (client.walk("plain").unwrap(), client.walk("acl").unwrap());
        for (uid, umask) in [(0, 0o027), (1000, 0o077), (1000, 0), (0, 0o777), (1000, 0o027)] {
            let user = client.as_user(uid, uid).with_umask(umask);
            for (what, make) in &MAKES[..3] {
                let name = format!("{what}-{uid}-{umask:o}");
                make(&user, plain, &name, 0o666).unwrap();
                make(&user, acl, &name, 0o666).unwrap();
                let expected = if masked { 0o666 & !umask } else { 0o666 };
                assert_eq!(host::mode(&share.host("plain").join(&name)), expected, "{name}");
                // The list: rwx for the owner, a mask of rwx for the group, nothing for others; bounded by the mode.
                assert_eq!(host::mode(&share.host("acl").join(&name)), 0o660, "{name} with a default list");
            }
        }
    }
}

#[test]
fn an_impossible_user_makes_nothing_and_asks_as_anybody() {
    let share = Share::new();
    let client = share.client();
    let nobody = client.as_user(u32::MAX, u32::MAX);
    for (what, make) in MAKES {
        assert!(make(&nobody, ROOT, what, 0o644).is_err(), "{what}");
    }
    assert_eq!(fs::read_dir(share.path()).unwrap().count(), 0);
    assert!(nobody.getattr(ROOT).is_ok());
    assert_eq!(nobody.lookup(ROOT, "x").unwrap_err(), Errno::ENOENT);
}

#[test]
fn the_servers_own_groups_give_nobody_anything() {
    if needs_root() {
        return;
    }
    let share = Share::new();
    fs::create_dir(share.host("dir")).unwrap();
    host::chown(&share.host("dir"), 0, 4000);
    host::chmod(&share.host("dir"), 0o2777);
    // A queue started by a thread that is in the directory's group.
    let mode = host::as_user(0, 0, &[4000], || {
        let user = share.client().as_user(1000, 1000);
        let dir = user.walk("dir").unwrap();
        user.create(dir, "file", libc::O_RDWR, 0o2755).unwrap();
        host::mode(&share.host("dir/file"))
    });
    assert_eq!(mode, 0o755, "the creator is not in the group, so the setgid bit goes");
}

#[test]
fn a_request_in_flight_keeps_its_user_while_another_queue_serves_the_superuser() {
    if needs_root() {
        return;
    }
    let share = Share::in_memory(|_| {});
    host::chmod(share.path(), 0o777);
    fs::write(share.host("secret"), "x").unwrap();
    host::chmod(&share.host("secret"), 0o600);
    let (stop, root, user) = (Stop::default(), share.client(), share.client().as_user(1000, 1000));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.is_asked() {
                let node = root.walk("secret").unwrap();
                assert!(root.chown(node, Some(0), Some(0)).is_ok());
                root.forget(node, 1);
            }
        });
        let _stop = stop.at_the_end();
        for round in 0..1000 {
            let made = user.mkdir(ROOT, &format!("d{round}"), 0o755).unwrap();
            assert_eq!((made.attr.uid, made.attr.gid), (1000, 1000));
            let refused = user.create(ROOT, "secret", libc::O_RDWR, 0o600);
            assert_eq!(refused.map(drop), Err(Errno::ESTALE));
        }
    });
}

#[test]
fn a_coherent_guest_is_not_told_to_look_again_because_a_user_acted_before() {
    if needs_root() {
        return;
    }
    for by_handle in [false, true] {
        let share = Share::with(|config| {
            config.cache = CacheMode::Coherent;
            if by_handle {
                in_handle_mode(config);
            }
        });
        host::chmod(share.path(), 0o777);
        fs::create_dir(share.host("private")).unwrap();
        fs::write(share.host("private/file"), "data").unwrap();
        host::chmod(&share.host("private"), 0o700);
        let root = share.client();
        let user = root.as_user(1000, 1000);
        let (dir, file) = (root.walk("private").unwrap(), root.walk("private/file").unwrap());
        let mut number = 0;
        let mut as_user = || {
            number += 1;
            user.mkdir(ROOT, &format!("d{number}"), 0o755).unwrap();
        };
        as_user();
        assert_eq!(user.getattr(file).map(|attr| attr.size), Ok(4), "by handle: {by_handle}");
        as_user();
        assert_eq!(user.open(file, libc::O_RDONLY).map(drop), Ok(()), "by handle: {by_handle}");
        as_user();
        assert_eq!(root.opendir(dir).map(drop), Ok(()), "by handle: {by_handle}");
    }
}
