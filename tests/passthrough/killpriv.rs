//! Setuid, setgid and file capabilities: what of them survives a change, on every term a client can have.

use std::{fs, path::Path};

use ferryfs::{
    coherence::policy::CacheMode,
    passthrough::{config::Negotiation, xattr_map::XattrMap},
};
use fuse_abi::{CopyFileRangeIn, InitFlags, SetxattrFlags, WriteFlags};

use crate::support::{
    Client, OFFER, ROOT, Result, Share,
    host::{self, tag},
    is_root, needs_root, skipped,
};

/// What a client does: whether it asked to drop the bits, where it can ask.
type Change = (&'static str, fn(&Client, u64, u64, bool) -> Result<()>);

/// Every change of a file's data. The handle is of a file open for both; the last argument is the client's wish.
const CHANGES: [Change; 7] = [
    ("write", |c, node, handle, kill| {
        let flags = if kill { WriteFlags::KILL_SUIDGID } else { WriteFlags::empty() };
        c.write_with(node, handle, 0, b"x", flags).map(drop)
    }),
    ("truncate", |c, node, _, kill| c.truncate(node, None, 1, kill).map(drop)),
    ("ftruncate", |c, node, handle, kill| c.truncate(node, Some(handle), 1, kill).map(drop)),
    ("truncate through a reader", |c, node, _, kill| {
        let reader = c.open(node, libc::O_RDONLY)?.fh;
        c.truncate(node, Some(reader), 1, kill)?;
        c.release(node, reader)
    }),
    ("open", |c, node, _, kill| {
        let open = c.open_with(node, libc::O_RDWR | libc::O_TRUNC, kill)?;
        c.release(node, open.fh)
    }),
    // These have no way to say what the client wishes.
    ("fallocate", |c, node, handle, _| c.fallocate(node, handle, 0, 0, 100)),
    ("copy", |c, node, handle, _| {
        let (fh_in, nodeid_out, fh_out) = (handle, node, handle);
        c.copy(CopyFileRangeIn { fh_in, nodeid_out, fh_out, off_out: 10, len: 1, ..CopyFileRangeIn::default() }, node)
            .map(drop)
    }),
];

const NO_FLAG: [&str; 2] = ["fallocate", "copy"];

/// A file with special bits that belongs to `owner`, open as the superuser. Its group should have leave to execute it:
/// without, setgid means something else.
fn special_file(share: &Share, client: &Client, owner: u32, mode: u32) -> (u64, u64) {
    let path = share.host("file");
    let _ = fs::remove_file(&path);
    fs::write(&path, "0123456789").unwrap();
    host::chown(&path, owner, owner);
    host::chmod(&path, mode);
    let node = client.walk("file").unwrap();
    (node, client.open(node, libc::O_RDWR).unwrap().fh)
}

#[test]
fn the_bits_survive_what_they_would_survive_locally() {
    if needs_root() {
        return;
    }
    let both = InitFlags::HANDLE_KILLPRIV | InitFlags::HANDLE_KILLPRIV_V2;
    for (terms, offer) in [
        ("none", OFFER - both),
        ("version 1", OFFER - InitFlags::HANDLE_KILLPRIV_V2),
        ("version 2", OFFER - InitFlags::HANDLE_KILLPRIV),
        ("both", OFFER),
    ] {
        let share = Share::on_terms(offer, |_| {});
        host::chmod(share.path(), 0o777);
        let root = share.client();
        for (what, change) in CHANGES {
            for (uid, owner, mode) in [(0, 0, 0o6755), (0, 1000, 0o6755), (1000, 1000, 0o6710), (1000, 0, 0o6777)] {
                // The same thread may have acted for anybody before.
                for before in [0, 1000, 2000] {
                    let (node, handle) = special_file(&share, &root, owner, mode);
                    let (warm, open) = root.as_user(before, before).create(ROOT, "warm", libc::O_RDWR, 0o600).unwrap();
                    root.as_user(before, before).release(warm.nodeid, open.fh).unwrap();
                    root.as_user(before, before).unlink(ROOT, "warm").unwrap();
                    let kill = uid != 0 && offer.contains(InitFlags::HANDLE_KILLPRIV_V2);
                    let case = format!("{what} by {uid} of {mode:o} of {owner}, terms: {terms}, thread was {before}");
                    change(&root.as_user(uid, uid), node, handle, kill).unwrap_or_else(|e| panic!("{case}: {e}"));
                    let left = host::mode(&share.host("file"));
                    let dropped = mode & 0o777;
                    match terms {
                        "version 1" => assert_eq!(left, dropped, "{case}"),
                        "none" if uid == 0 => assert_eq!(left, mode, "{case}"),
                        // Such a client has dropped them itself, before.
                        "none" => {}
                        _ if uid == 0 => assert_eq!(left, mode, "{case}"),
                        _ => assert_eq!(left, dropped, "{case}"),
                    }
                    root.release(node, handle).unwrap();
                }
            }
        }
    }
}

#[test]
fn a_client_that_asks_is_obeyed_also_for_the_superuser() {
    if needs_root() {
        return;
    }
    let share = Share::new();
    let root = share.client();
    for (what, change) in CHANGES.into_iter().filter(|(what, _)| !NO_FLAG.contains(what)) {
        let (node, handle) = special_file(&share, &root, 0, 0o6755);
        change(&root, node, handle, true).unwrap();
        assert_eq!(host::mode(&share.host("file")), 0o755, "{what}");
    }
}

#[test]
fn a_new_owner_or_group_drops_the_bits_on_every_term() {
    if needs_root() {
        return;
    }
    for offer in [OFFER, OFFER - InitFlags::HANDLE_KILLPRIV_V2 - InitFlags::HANDLE_KILLPRIV] {
        let share = Share::on_terms(offer, |_| {});
        let root = share.client();
        for (uid, gid) in [(Some(5), None), (None, Some(5)), (Some(6), Some(6))] {
            let (node, _) = special_file(&share, &root, 0, 0o6755);
            root.chown(node, uid, gid).unwrap();
            assert_eq!(host::mode(&share.host("file")), 0o755, "{uid:?} {gid:?}");
        }
    }
}

#[test]
fn a_changed_file_loses_its_capabilities_wherever_they_are_kept() {
    if !is_root() && skipped("needs root") {
        return;
    }
    let maps: [(&str, Option<&str>); 4] = [
        ("security.capability", None),
        ("user.virtiofs.security.capability", Some(":map::user.virtiofs.:")),
        ("trusted.virtiofs.security.capability", Some(":map:security.capability:trusted.virtiofs.:")),
        ("user.x.security.capability", Some(":prefix:all:security.:user.x.::ok:all:::")),
    ];
    for (name, map) in maps {
        let share = Share::with(|config| {
            config.xattr = true;
            config.xattr_map = map.map(|map| XattrMap::parse(map).unwrap()).unwrap_or_default();
        });
        let root = share.client();
        let chown: Change = ("chown", |c, node, _, _| c.chown(node, Some(3), None).map(drop));
        let chgrp: Change = ("chgrp", |c, node, _, _| c.chown(node, None, Some(3)).map(drop));
        let create: Change = ("create", |c, _, _, _| {
            let (entry, open) = c.create(ROOT, "file", libc::O_RDWR | libc::O_TRUNC, 0o600)?;
            c.release(entry.nodeid, open.fh)
        });
        for (what, change) in CHANGES.into_iter().chain([chown, chgrp, create]) {
            for uid in [0, 1000] {
                let (node, handle) = special_file(&share, &root, 0, 0o777);
                root.setxattr(node, "security.capability", &host::CAPABILITY).unwrap();
                assert!(host::xattr(&share.host("file"), name).is_some(), "{name} is where it is kept");
                // Nothing else of that kind goes with it.
                root.setxattr(node, "user.kept", b"1").unwrap();
                let user = root.as_user(uid, uid);
                change(&user, node, handle, uid != 0).unwrap_or_else(|errno| panic!("{what} {name}: {errno}"));
                assert_eq!(host::xattr(&share.host("file"), name), None, "{what} by {uid}, {name}");
                assert_eq!(root.getxattr(node, "user.kept").unwrap(), b"1", "{what}");
            }
        }
        // Reading, and changes of nothing that matters, leave them.
        let (node, handle) = special_file(&share, &root, 0, 0o755);
        root.setxattr(node, "security.capability", &host::CAPABILITY).unwrap();
        root.read(node, handle, 0, 4).unwrap();
        root.chmod(node, 0o700).unwrap();
        root.rename((ROOT, "file"), (ROOT, "moved")).unwrap();
        assert!(host::xattr(&share.host("moved"), name).is_some(), "{name}");
    }
}

fn list(group: u16) -> Vec<u8> {
    host::acl(&[
        (tag::OWNER, 7, tag::NOBODY),
        (tag::USER, 5, 1234),
        (tag::GROUP_OWNER, group, tag::NOBODY),
        (tag::MASK, 7, tag::NOBODY),
        (tag::OTHER, 5, tag::NOBODY),
    ])
}

#[test]
fn an_access_list_set_by_a_stranger_to_the_group_drops_setgid_when_the_client_asks() {
    if needs_root() {
        return;
    }
    let share = Share::with(|config| config.posix_acl = Negotiation::Always);
    let root = share.client();
    for group in [0, 2000] {
        for (kill, expected) in [(false, 0o2000), (true, 0)] {
            let path = share.host("file");
            let _ = fs::remove_file(&path);
            fs::write(&path, "").unwrap();
            host::chown(&path, 1000, group);
            host::chmod(&path, 0o2755);
            let node = root.walk("file").unwrap();
            let flags = if kill { SetxattrFlags::ACL_KILL_SGID } else { SetxattrFlags::empty() };
            let user = root.as_user(1000, 1000);
            user.setxattr_with(node, "system.posix_acl_access", &list(5), 0, flags).unwrap();
            assert_eq!(host::mode(&path) & 0o7000, expected, "group {group}, asked: {kill}");
            assert_eq!(host::xattr(&path, "system.posix_acl_access").unwrap(), list(5));
        }
    }
}

#[test]
fn access_lists_pass_both_ways_where_they_are_enabled_and_are_hidden_where_not() {
    if needs_root() {
        return;
    }
    for (negotiation, shown) in [(Negotiation::Auto, true), (Negotiation::Never, false)] {
        let share = Share::with(|config| {
            config.posix_acl = negotiation;
            config.xattr = true;
        });
        fs::write(share.host("file"), "").unwrap();
        let client = share.client();
        let node = client.walk("file").unwrap();
        let name = "system.posix_acl_access";
        let set = client.setxattr(node, name, &list(5));
        if shown {
            set.unwrap();
            assert_eq!(client.getxattr(node, name).unwrap(), list(5));
            assert_eq!(client.getattr(node).unwrap().mode & 0o777, 0o775, "the mask shows as the group's bits");
            assert_eq!(client.listxattr(node).unwrap(), [name]);
            client.removexattr(node, name).unwrap();
            assert_eq!(host::xattr(&share.host("file"), name), None);
        } else {
            assert_eq!(set.unwrap_err(), crate::support::Errno::EOPNOTSUPP);
            host::set_xattr(&share.host("file"), name, &list(5)).unwrap();
            assert_eq!(client.getxattr(node, name).unwrap_err(), crate::support::Errno::EOPNOTSUPP);
            assert_eq!(client.removexattr(node, name).unwrap_err(), crate::support::Errno::EOPNOTSUPP);
            assert!(client.listxattr(node).unwrap().is_empty());
            assert!(host::xattr(&share.host("file"), name).is_some());
        }
    }
}

#[test]
fn attributes_with_special_bits_are_not_for_the_guest_to_keep() {
    if needs_root() {
        return;
    }
    // A write drops the bits, and its reply cannot say so.
    for (served, mode, kept) in
        [(true, 0o755, true), (true, 0o4755, false), (true, 0o2755, false), (false, 0o6755, true)]
    {
        let share = Share::with(|config| (config.killpriv_v2, config.cache) = (served, CacheMode::Always));
        let client = share.client();
        special_file(&share, &client, 1000, mode);
        let found = client.lookup(ROOT, "file").unwrap();
        assert_eq!(found.attr_valid != 0, kept, "mode {mode:o}, the server drops them: {served}");
    }
}

type LabelledMake = (&'static str, fn(&Client) -> Result<()>);
const LABELLED: [LabelledMake; 5] = [
    ("create", |c| c.create(ROOT, "create", libc::O_RDWR, 0o600).map(drop)),
    ("mkdir", |c| c.mkdir(ROOT, "mkdir", 0o700).map(drop)),
    ("mknod", |c| c.mknod(ROOT, "mknod", libc::S_IFREG | 0o600, 0).map(drop)),
    ("fifo", |c| c.mknod(ROOT, "fifo", libc::S_IFIFO | 0o600, 0).map(drop)),
    ("symlink", |c| c.symlink(ROOT, "symlink", "x").map(drop)),
];

fn label_on(path: &Path) -> Option<Vec<u8>> {
    host::xattr(path, "security.ferryfs-test")
}

#[test]
fn a_security_label_is_there_from_the_beginning_and_nothing_is_left_without_it() {
    if needs_root() {
        return;
    }
    let share = Share::with(|config| config.security_label = Negotiation::Auto);
    host::chmod(share.path(), 0o777);
    let label: &[u8] = b"system_u:object_r:x_t:s0\0";
    for uid in [0, 1000] {
        let user = share.client().as_user(uid, uid).with_label("security.ferryfs-test", label);
        for (what, make) in LABELLED {
            make(&user).unwrap_or_else(|errno| panic!("{what} by {uid}: {errno}"));
            assert_eq!(label_on(&share.host(what)).as_deref(), Some(label), "{what} by {uid}");
            assert_eq!(host::owner(&share.host(what)), (uid, uid));
            if what == "mkdir" { user.rmdir(ROOT, what).unwrap() } else { user.unlink(ROOT, what).unwrap() }
        }
        let (entry, open) = user.tmpfile(ROOT, libc::O_RDWR, 0o600).unwrap();
        assert_eq!(user.getxattr(entry.nodeid, "security.ferryfs-test").unwrap(), label);
        user.release(entry.nodeid, open.fh).unwrap();
        let known = share.known_inodes();
        // A name that no file system keeps: what was made goes again.
        let refused = share.client().as_user(uid, uid).with_label("nonsense.label", label);
        for (what, make) in LABELLED {
            assert!(make(&refused).is_err(), "{what} by {uid}");
            assert!(!share.host(what).exists() && share.host(what).symlink_metadata().is_err(), "{what} by {uid}");
        }
        assert_eq!(share.known_inodes(), known);
    }
}

#[test]
fn a_security_label_goes_through_the_map() {
    if needs_root() {
        return;
    }
    let share = Share::with(|config| {
        config.security_label = Negotiation::Auto;
        config.xattr_map = XattrMap::parse(":map:security.:user.virtiofs.:").unwrap();
    });
    let client = share.client().with_label("security.ferryfs-test", b"label");
    client.create(ROOT, "file", libc::O_RDWR, 0o600).unwrap();
    assert_eq!(label_on(&share.host("file")), None);
    assert_eq!(host::xattr(&share.host("file"), "user.virtiofs.security.ferryfs-test").unwrap(), b"label");
}
