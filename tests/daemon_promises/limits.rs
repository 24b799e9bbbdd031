//! Descriptors and memory have a bound, and a guest that reaches it can go on.

use std::fs;

use ferryfs_guest::{Client, expect_errno};
use fuse_abi::{Errno, ROOT_ID, SetattrIn, SetattrValid};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::support::{O_RDWR, expect_service, in_every_sandbox, is_root};

/// Leaves the guest some ninety descriptors: the daemon keeps 609 and one for each thread to itself.
const FEW: [&str; 6] =
    ["--rlimit-nofile=700", "--num-request-queues=1", "--thread-pool-size=1", "--log-level=warn", "--cache", "auto"];

/// Does something until it answers ENFILE; returns what was got. Anything else it may answer is a failure.
fn exhaust<T>(
    client: &mut Client,
    most: usize,
    mut take: impl FnMut(&mut Client, usize) -> ferryfs_guest::Result<T>,
) -> Vec<T> {
    let mut taken = Vec::new();
    for n in 0..most {
        match take(client, n) {
            Ok(one) => taken.push(one),
            Err(error) => {
                assert_eq!(error.errno(), Some(Errno::ENFILE), "{error} after {n}");
                return taken;
            }
        }
    }
    panic!("no end after {most}");
}

#[test]
fn a_guest_with_too_many_open_files_gets_enfile_and_can_release() {
    in_every_sandbox(&FEW, |share| {
        fs::write(share.path().join("file"), b"x").unwrap();
        let mut client = share.client();
        let node = client.lookup(ROOT_ID, "file").unwrap().nodeid;
        for _ in 0..3 {
            let handles = exhaust(&mut client, 200, |client, n| match n % 2 {
                0 => client.open(node, 0).map(|open| (false, open.fh)),
                _ => client.opendir(ROOT_ID).map(|open| (true, open.fh)),
            });
            assert!(handles.len() >= 10, "{} handles", handles.len());
            expect_errno(client.create(ROOT_ID, "new", 0o644, 2), Errno::ENFILE);
            assert!(!share.path().join("new").exists());
            expect_service(&mut client, "ENFILE");
            assert_eq!(client.lookup(ROOT_ID, "file").unwrap().nodeid, node);
            for (is_dir, fh) in handles {
                let release = if is_dir { client.releasedir(ROOT_ID, fh) } else { client.release(node, fh) };
                release.unwrap();
            }
        }
    });
}

#[test]
fn a_guest_with_too_many_inodes_gets_enfile_and_can_forget() {
    // CVE-2020-10717.
    in_every_sandbox(&[&FEW[..], &["--inode-file-handles=never"]].concat(), |share| {
        (0..300).for_each(|n| fs::write(share.path().join(n.to_string()), b"x").unwrap());
        let mut client = share.client();
        for _ in 0..3 {
            let nodes = exhaust(&mut client, 300, |client, n| client.lookup(ROOT_ID, n.to_string()));
            assert!(nodes.len() >= 30, "{} inodes", nodes.len());
            expect_errno(client.mkdir(ROOT_ID, "new", 0o755), Errno::ENFILE);
            expect_errno(client.create(ROOT_ID, "new", 0o644, 2), Errno::ENFILE);
            assert!(!share.path().join("new").exists(), "what cannot be kept is not left behind");
            // What is known is served as before, also by opening it.
            let last = nodes.last().unwrap().nodeid;
            assert_eq!(client.getattr(last).unwrap().size, 1);
            let fh = client.open(last, 0).unwrap().fh;
            assert_eq!(client.read(last, fh, 0, 10).unwrap(), b"x");
            client.release(last, fh).unwrap();
            for node in nodes {
                client.forget(node.nodeid, 1).unwrap();
            }
            let again = client.lookup(ROOT_ID, "299").unwrap().nodeid;
            client.forget(again, 1).unwrap();
        }
    });
}

#[test]
fn beyond_the_descriptors_inodes_are_kept_by_file_handle() {
    if !is_root() {
        return ferryfs_guest::skipped("only root may open by file handle");
    }
    in_every_sandbox(&FEW, |share| {
        (0..1000).for_each(|n| fs::write(share.path().join(n.to_string()), n.to_string()).unwrap());
        let mut client = share.client();
        let nodes: Vec<u64> = (0..1000).map(|n| client.lookup(ROOT_ID, n.to_string()).unwrap().nodeid).collect();
        for (n, node) in nodes.iter().enumerate() {
            let fh = client.open(*node, 0).unwrap().fh;
            assert_eq!(client.read(*node, fh, 0, 10).unwrap(), n.to_string().as_bytes());
            client.release(*node, fh).unwrap();
        }
        assert!(share.daemon.open_files().unwrap() < 700);
    });
}

#[test]
fn a_listing_at_the_limit_is_whole() {
    in_every_sandbox(&[&FEW[..], &["--inode-file-handles=never"]].concat(), |share| {
        (0..300).for_each(|n| fs::write(share.path().join(n.to_string()), b"x").unwrap());
        let mut client = share.client();
        let fh = client.opendir(ROOT_ID).unwrap().fh;
        let (mut names, mut offset) = (std::collections::BTreeSet::new(), 0);
        loop {
            // Entries that cannot be looked up come without a node, or the listing as a whole says so.
            let some = client.readdirplus(ROOT_ID, fh, offset, 4096).unwrap();
            let Some((_, last)) = some.last() else { break };
            offset = last.off;
            names.extend(some.into_iter().map(|(_, entry)| entry.name()));
        }
        assert_eq!(names.len(), 302, "{names:?}");
        expect_service(&mut client, "a listing at the limit");
    });
}

#[test]
fn a_write_beyond_the_limit_of_file_sizes_fails_and_ends_nothing() {
    in_every_sandbox(&[], |share| {
        let mut client = share.client();
        let pid = Pid::from_raw(share.daemon.serving_pid().try_into().unwrap());
        let most = Rlimit { current: Some(1 << 16), maximum: Some(1 << 16) };
        prlimit(pid, Resource::Fsize, most).unwrap();
        let (file, open) = client.create(ROOT_ID, "file", 0o644, O_RDWR).unwrap();
        assert_eq!(client.write(file.nodeid, open.fh, 0, &[1; 4096]).unwrap(), 4096);
        expect_errno(client.write(file.nodeid, open.fh, 1 << 16, b"x"), Errno::EFBIG);
        let long = SetattrIn { valid: SetattrValid::SIZE.bits(), size: 1 << 20, ..SetattrIn::default() };
        expect_errno(client.setattr(file.nodeid, &long), Errno::EFBIG);
        expect_service(&mut client, "writes beyond the limit");
    });
}
