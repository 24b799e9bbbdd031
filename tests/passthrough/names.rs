//! Names, symbolic links and the dots: nothing a guest sends leads out of the share.

use std::{fs, os::unix::fs::symlink};

use fuse_abi::{CreateIn, Opcode};
use zerocopy::IntoBytes;

use crate::support::{Client, Errno, ROOT, Result, Share, disk_directory, host, wire::Answer};

type NamedCall = fn(&Client, u64, &str) -> Result<()>;

/// Every operation that takes the name of an entry, in each place where it takes one. `x` exists and is a file.
const TAKES_A_NAME: [(&str, NamedCall); 14] = [
    ("lookup", |c, dir, name| c.lookup(dir, name).map(drop)),
    ("mkdir", |c, dir, name| c.mkdir(dir, name, 0o755).map(drop)),
    ("mknod", |c, dir, name| c.mknod(dir, name, libc::S_IFREG | 0o644, 0).map(drop)),
    ("symlink", |c, dir, name| c.symlink(dir, name, "target").map(drop)),
    ("create", |c, dir, name| c.create(dir, name, libc::O_RDWR, 0o644).map(drop)),
    ("create exclusively", |c, dir, name| c.create(dir, name, libc::O_RDWR | libc::O_EXCL, 0o644).map(drop)),
    ("link", |c, dir, name| c.link(c.lookup(ROOT, "x")?.nodeid, dir, name).map(drop)),
    ("unlink", |c, dir, name| c.unlink(dir, name)),
    ("rmdir", |c, dir, name| c.rmdir(dir, name)),
    ("rename from", |c, dir, name| c.rename((dir, name), (ROOT, "new"))),
    ("rename to", |c, dir, name| c.rename((ROOT, "x"), (dir, name))),
    ("rename2 from", |c, dir, name| c.rename2((dir, name), (ROOT, "new"), libc::RENAME_NOREPLACE)),
    ("rename2 to", |c, dir, name| c.rename2((ROOT, "x"), (dir, name), libc::RENAME_NOREPLACE)),
    ("exchange", |c, dir, name| c.rename2((ROOT, "x"), (dir, name), libc::RENAME_EXCHANGE)),
];

/// A share inside a directory, so that there is an outside to reach.
fn share_with_an_outside() -> (tempfile::TempDir, Share) {
    let outside = disk_directory();
    for dir in ["share", "share/sub", "secret"] {
        fs::create_dir(outside.path().join(dir)).unwrap();
    }
    fs::write(outside.path().join("share/x"), "inside").unwrap();
    fs::write(outside.path().join("secret/file"), "outside").unwrap();
    let share = Share::at(&outside.path().join("share"), |config| config.xattr = true);
    (outside, share)
}

fn listing(path: &std::path::Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_name_that_appears_after_many_were_looked_for_in_vain_is_found() {
    let share = Share::new();
    let client = share.client();
    for name in 0..200 {
        assert_eq!(client.lookup(ROOT, &format!("missing-{name}")).unwrap_err(), Errno::ENOENT);
    }
    for name in ["first", "second"] {
        std::fs::write(share.host(name), "text").unwrap();
        let node = client.lookup(ROOT, name).unwrap().nodeid;
        assert_eq!(client.lookup(ROOT, name).unwrap().nodeid, node);
    }
}

#[test]
fn a_name_that_is_not_one_component_is_refused_by_every_operation() {
    let (outside, share) = share_with_an_outside();
    let client = share.client();
    let sub = client.lookup(ROOT, "sub").unwrap().nodeid;
    let before = (listing(outside.path()), listing(share.path()));
    let long = "n".repeat(256);
    for (name, expected) in [
        ("", Errno::EINVAL),
        (".", Errno::EINVAL),
        ("..", Errno::EINVAL),
        ("../y", Errno::EINVAL),
        ("sub/y", Errno::EINVAL),
        ("/y", Errno::EINVAL),
        ("y/", Errno::EINVAL),
        ("../secret/file", Errno::EINVAL),
        (long.as_str(), Errno::ENAMETOOLONG),
    ] {
        for (operation, call) in TAKES_A_NAME {
            if operation == "lookup" && (name == "." || name == "..") {
                continue;
            }
            for dir in [ROOT, sub] {
                assert_eq!(call(&client, dir, name), Err(expected), "{operation} of {name:?}");
            }
        }
    }
    assert_eq!((listing(outside.path()), listing(share.path())), before);
}

#[test]
fn a_name_without_an_end_is_refused() {
    let (_outside, share) = share_with_an_outside();
    let client = share.client();
    let new = CreateIn { flags: libc::O_RDWR as u32, mode: 0o644, umask: 0, open_flags: 0 };
    for (opcode, parts) in [
        (Opcode::Lookup, vec![&b"endless"[..]]),
        (Opcode::Unlink, vec![b"endless"]),
        (Opcode::Rmdir, vec![b"endless"]),
        (Opcode::Create, vec![new.as_bytes(), b"endless"]),
        (Opcode::Symlink, vec![b"name\0", b"endless"]),
        (Opcode::Rename, vec![&[0; 8], b"old\0", b"endless"]),
    ] {
        let answer = client.send(client.message(opcode, ROOT, &parts, 1024));
        assert_eq!(answer, Answer::Failed(Errno::EINVAL), "{opcode}");
    }
    assert_eq!(listing(share.path()), ["sub", "x"]);
}

#[test]
fn a_symbolic_link_or_a_file_in_place_of_a_directory_is_not_followed() {
    let (outside, share) = share_with_an_outside();
    symlink(outside.path().join("secret"), share.host("link")).unwrap();
    let client = share.client();
    for name in ["link", "x"] {
        let node = client.lookup(ROOT, name).unwrap().nodeid;
        for (operation, call) in TAKES_A_NAME {
            assert_eq!(call(&client, node, "file"), Err(Errno::ENOTDIR), "{operation} beneath {name}");
        }
        assert_eq!(client.opendir(node).unwrap_err(), Errno::ENOTDIR, "{name}");
        assert_eq!(client.lookup(node, "..").unwrap_err(), Errno::ENOTDIR, "{name}");
        assert_eq!(client.tmpfile(node, libc::O_RDWR, 0o600).unwrap_err(), Errno::ENOTDIR, "{name}");
    }
    assert_eq!(listing(&outside.path().join("secret")), ["file"]);
}

#[test]
fn what_is_done_to_a_symbolic_link_does_not_reach_its_target() {
    let (outside, share) = share_with_an_outside();
    let target = outside.path().join("secret/file");
    symlink(&target, share.host("link")).unwrap();
    let before = fs::metadata(&target).unwrap();
    let client = share.client();
    let link = client.lookup(ROOT, "link").unwrap();
    assert_eq!(link.attr.mode & libc::S_IFMT, libc::S_IFLNK);
    let node = link.nodeid;
    assert_eq!(client.readlink(node).unwrap(), target.to_str().unwrap());
    assert_eq!(client.open(node, libc::O_RDWR).unwrap_err(), Errno::ELOOP);
    assert_eq!(client.create(ROOT, "link", libc::O_RDWR, 0o666).unwrap_err(), Errno::ELOOP);
    assert_eq!(client.create(ROOT, "link", libc::O_RDWR | libc::O_EXCL, 0o666).unwrap_err(), Errno::EEXIST);
    assert_eq!(client.truncate(node, None, 0, false).unwrap_err(), Errno::EINVAL);
    assert!(client.chmod(node, 0o600).is_err(), "Linux gives links no mode of their own");
    assert!(client.setxattr(node, "user.x", b"1").is_err());
    assert_eq!(client.getxattr(node, "user.x").unwrap_err(), Errno::ENODATA);
    if crate::support::is_root() {
        assert_eq!(client.chown(node, Some(12), Some(13)).unwrap().uid, 12);
        assert_eq!(host::owner(&share.host("link")), (12, 13));
    }
    let hard = client.link(node, ROOT, "hard").unwrap();
    assert_eq!((hard.nodeid, hard.attr.nlink), (node, 2));
    let after = fs::metadata(&target).unwrap();
    let seen = |found: &fs::Metadata| {
        use std::os::unix::fs::MetadataExt;
        (found.uid(), found.mode(), found.nlink(), found.size(), found.ctime_nsec())
    };
    assert_eq!(seen(&before), seen(&after));
}

#[test]
fn the_dots_lead_to_the_directory_itself_and_to_its_parent() {
    let (_outside, share) = share_with_an_outside();
    fs::create_dir(share.host("sub/deep")).unwrap();
    let client = share.client();
    let sub = client.lookup(ROOT, "sub").unwrap().nodeid;
    let deep = client.lookup(sub, "deep").unwrap().nodeid;
    for (node, name, expected) in [
        (ROOT, ".", ROOT),
        (ROOT, "..", ROOT),
        (sub, ".", sub),
        (sub, "..", ROOT),
        (deep, "..", sub),
        (deep, ".", deep),
    ] {
        assert_eq!(client.lookup(node, name).unwrap().nodeid, expected, "{name} of {node}");
    }
    // Each of them is a reference of its own, but for the root.
    client.batch_forget(&[(sub, 3), (deep, 2)]);
    assert_eq!(share.known_inodes(), 0);
}

#[test]
fn the_parent_of_the_shares_root_is_the_root_in_listings_too() {
    let (outside, share) = share_with_an_outside();
    let client = share.client();
    let handle = client.opendir(ROOT).unwrap().fh;
    let entries = client.readdir(ROOT, handle, 0, 4096).unwrap();
    let up = entries.iter().find(|entry| entry.name == "..").unwrap();
    assert_eq!(up.ino, host::inode(share.path()));
    assert_ne!(up.ino, host::inode(outside.path()));
}

#[test]
fn the_dots_of_a_directory_that_the_host_moved_out_do_not_leave_the_share() {
    let (outside, share) = share_with_an_outside();
    fs::create_dir(share.host("sub/deep")).unwrap();
    let client = share.client();
    let sub = client.lookup(ROOT, "sub").unwrap().nodeid;
    let deep = client.lookup(sub, "deep").unwrap().nodeid;
    fs::rename(share.host("sub"), outside.path().join("secret/sub")).unwrap();
    assert_eq!(client.lookup(sub, "..").unwrap_err(), Errno::ESTALE);
    assert_eq!(client.lookup(deep, "..").unwrap_err(), Errno::ESTALE);
    assert_eq!(client.lookup(sub, ".").unwrap().nodeid, sub);
    fs::rename(outside.path().join("secret/sub"), share.host("sub")).unwrap();
    assert_eq!(client.lookup(deep, "..").unwrap().nodeid, sub);
    assert_eq!(client.lookup(sub, "..").unwrap().nodeid, ROOT);
}

#[test]
fn the_dots_stay_inside_while_the_host_moves_a_directory_in_and_out() {
    let (outside, share) = share_with_an_outside();
    fs::create_dir(share.host("sub/deep")).unwrap();
    let client = share.client();
    let sub = client.lookup(ROOT, "sub").unwrap().nodeid;
    let deep = client.lookup(sub, "deep").unwrap().nodeid;
    let (here, there) = (share.host("sub"), outside.path().join("secret/sub"));
    std::thread::scope(|scope| {
        let mover = scope.spawn(|| {
            for _ in 0..3000 {
                fs::rename(&here, &there).unwrap();
                fs::rename(&there, &here).unwrap();
            }
        });
        let mut steps = 0;
        while !mover.is_finished() || steps == 0 {
            for (node, inside) in [(sub, [ROOT, sub]), (deep, [sub, sub])] {
                match client.lookup(node, "..") {
                    Ok(found) => assert!(inside.contains(&found.nodeid), "{node} led to {}", found.nodeid),
                    Err(errno) => assert_eq!(errno, Errno::ESTALE),
                }
            }
            steps += 1;
        }
    });
}
