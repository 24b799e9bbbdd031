//! What is said of an object, and changing it: attributes by path and by handle, inode flags, birth, access.

use std::fs;

use fuse_abi::{SetattrIn, SetattrValid};

use crate::support::{Client, Errno, ROOT, Share, host, is_root, needs_root, open_file, skipped};

const GETFLAGS: u32 = 0x8008_6601;
const SETFLAGS: u32 = 0x4008_6602;
const FSGETXATTR: u32 = 0x801c_581f;
const FSSETXATTR: u32 = 0x401c_5820;
const NODUMP: u32 = 0x40;
const APPEND_ONLY: u32 = 0x20;

#[test]
fn flags_of_files_and_directories_are_read_and_set() {
    let share = Share::new();
    let client = share.client();
    let (file, handle) = open_file(&client, "file");
    let dir = client.mkdir(ROOT, "dir", 0o755).unwrap().nodeid;
    let listing = client.opendir(dir).unwrap().fh;
    for (node, handle) in [(file, handle), (dir, listing)] {
        let flags = match client.ioctl(node, handle, GETFLAGS, &[], 4) {
            Err(Errno::ENOTTY) => {
                skipped("no inode flags here");
                return;
            }
            flags => u32::from_ne_bytes(flags.unwrap().try_into().unwrap()),
        };
        client.ioctl(node, handle, SETFLAGS, &(flags | NODUMP).to_ne_bytes(), 0).unwrap();
        let now = client.ioctl(node, handle, GETFLAGS, &[], 8).unwrap();
        assert_eq!(u32::from_ne_bytes(now[..4].try_into().unwrap()), flags | NODUMP);
        assert_eq!(client.statx(node).unwrap().attributes & u64::from(NODUMP), u64::from(NODUMP));
        let mut extended = client.ioctl(node, handle, FSGETXATTR, &[], 28).unwrap();
        // FS_XFLAG_NODUMP.
        assert_eq!(extended[0] & 0x80, 0x80);
        extended[0] &= !0x80;
        client.ioctl(node, handle, FSSETXATTR, &extended, 0).unwrap();
        let now = client.ioctl(node, handle, GETFLAGS, &[], 4).unwrap();
        assert_eq!(u32::from_ne_bytes(now.try_into().unwrap()), flags);
    }
    for (cmd, room, errno) in
        [(GETFLAGS, 3, Errno::EINVAL), (FSGETXATTR, 27, Errno::EINVAL), (0x5413, 8, Errno::ENOTTY)]
    {
        assert_eq!(client.ioctl(file, handle, cmd, &[], room).unwrap_err(), errno, "{cmd:#x}");
    }
    assert_eq!(client.ioctl(file, handle, SETFLAGS, &[0; 3], 0).unwrap_err(), Errno::EINVAL);
}

#[test]
fn flags_are_set_with_the_callers_rights() {
    if needs_root() {
        return;
    }
    let share = Share::new();
    let client = share.client();
    let user = client.as_user(1000, 1000);
    let (roots, roots_handle) = open_file(&client, "roots");
    if client.ioctl(roots, roots_handle, GETFLAGS, &[], 4).is_err() {
        skipped("no inode flags here");
        return;
    }
    host::chmod(share.path(), 0o777);
    let (own, own_handle) = open_file(&user, "own");
    let set = |who: &Client, node, handle, flag: u32| {
        let now = who.ioctl(node, handle, GETFLAGS, &[], 4).unwrap();
        let flags = u32::from_ne_bytes(now.try_into().unwrap()) ^ flag;
        who.ioctl(node, handle, SETFLAGS, &flags.to_ne_bytes(), 0).map(drop)
    };
    assert_eq!(set(&user, own, own_handle, NODUMP), Ok(()));
    assert_eq!(set(&user, own, own_handle, APPEND_ONLY), Err(Errno::EPERM), "takes CAP_LINUX_IMMUTABLE");
    assert_eq!(set(&user, roots, roots_handle, NODUMP), Err(Errno::EPERM), "takes the owner");
    assert_eq!(set(&client, own, own_handle, APPEND_ONLY), Ok(()));
    assert_eq!(client.truncate(own, None, 0, false).unwrap_err(), Errno::EPERM);
    assert_eq!(set(&client, own, own_handle, APPEND_ONLY), Ok(()));
}

#[test]
fn every_attribute_is_set_by_path_and_by_handle() {
    let share = Share::new();
    let client = share.client();
    let (file, handle) = open_file(&client, "file");
    let reader = client.open(file, libc::O_RDONLY).unwrap().fh;
    for (number, source) in [None, Some(handle), Some(reader)].into_iter().enumerate() {
        let number = number as u32;
        let mut through = SetattrValid::empty();
        through.set(SetattrValid::FH, source.is_some());
        let set = |valid: SetattrValid, set: SetattrIn| {
            client.setattr(file, valid | through, SetattrIn { fh: source.unwrap_or(0), ..set }).unwrap()
        };
        let empty = SetattrIn::default();
        assert_eq!(set(SetattrValid::MODE, SetattrIn { mode: 0o640 + number, ..empty }).mode & 0o7777, 0o640 + number);
        assert_eq!(
            set(SetattrValid::SIZE, SetattrIn { size: 100 + u64::from(number), ..empty }).size,
            100 + u64::from(number)
        );
        if is_root() {
            let uid = set(SetattrValid::UID, SetattrIn { uid: 70 + number, ..empty });
            let gid = set(SetattrValid::GID, SetattrIn { gid: 80 + number, ..empty });
            assert_eq!((uid.uid, gid.uid, gid.gid), (70 + number, 70 + number, 80 + number));
        }
        let at = |seconds: i64, nanoseconds| SetattrIn {
            atime: seconds as u64,
            mtime: (seconds + 1) as u64,
            atimensec: nanoseconds,
            mtimensec: nanoseconds + 1,
            ..empty
        };
        let both = SetattrValid::ATIME | SetattrValid::MTIME;
        let new = set(both, at(1000, 5));
        assert_eq!((new.atime, new.atimensec, new.mtime, new.mtimensec), (1000, 5, 1001, 6));
        // One alone leaves the other as it is.
        let new = set(SetattrValid::MTIME, at(2000, 7));
        assert_eq!((new.atime, new.atimensec, new.mtime, new.mtimensec), (1000, 5, 2001, 8));
        let new = set(SetattrValid::ATIME, at(3000, 9));
        assert_eq!((new.atime, new.atimensec, new.mtime, new.mtimensec), (3000, 9, 2001, 8));
        let new = set(both, at(-5, 3));
        assert_eq!((new.atime as i64, new.atimensec, new.mtime as i64), (-5, 3, -4), "before the epoch");
        let wrong = SetattrIn { atimensec: 1_000_000_000, ..empty };
        assert_eq!(client.setattr(file, SetattrValid::ATIME, wrong).unwrap_err(), Errno::EINVAL);
        let before = client.getattr(file).unwrap();
        let now = set(SetattrValid::ATIME | SetattrValid::ATIME_NOW, at(-5, 3));
        assert!(now.atime > 1_700_000_000 && now.mtime == before.mtime);
        let now = set(both | SetattrValid::MTIME_NOW, at(-5, 3));
        assert!((now.atime as i64, now.mtime > 1_700_000_000) == (-5, true));
        // A change time cannot be set; that it was asked for is no error, and it moves.
        let now = set(SetattrValid::CTIME | SetattrValid::MODE, SetattrIn { mode: 0o600, ctime: 7, ..empty });
        assert!(now.ctime > 1_700_000_000);
        let all = SetattrValid::MODE | SetattrValid::SIZE | both;
        let new = set(all, SetattrIn { mode: 0o604, size: 9, ..at(50, 1) });
        assert_eq!((new.mode & 0o7777, new.size, new.atime, new.mtime), (0o604, 9, 50, 51));
        assert_eq!(set(SetattrValid::empty(), empty).size, 9, "nothing to change is an answer too");
    }
    assert_eq!(client.truncate(ROOT, None, 0, false).unwrap_err(), Errno::EISDIR);
    assert_eq!(client.truncate(file, None, u64::MAX, false).unwrap_err(), Errno::EINVAL);
    let nobody = client.chown(file, Some(u32::MAX), None);
    assert_eq!(nobody.unwrap_err(), Errno::EINVAL);
}

#[test]
fn statx_says_when_an_object_was_born() {
    let share = Share::new();
    let client = share.client();
    let (file, handle) = open_file(&client, "file");
    client.write(file, handle, 0, b"data").unwrap();
    let found = client.statx(file).unwrap();
    let plain = client.getattr(file).unwrap();
    let local = fs::metadata(share.host("file")).unwrap();
    assert_eq!((found.ino, found.size, u32::from(found.mode), found.nlink), (plain.ino, 4, plain.mode, 1));
    assert_eq!((found.mtime.tv_sec as u64, found.mtime.tv_nsec), (plain.mtime, plain.mtimensec));
    match local.created() {
        Ok(born) => {
            let born = born.duration_since(std::time::UNIX_EPOCH).unwrap();
            assert_eq!(found.mask & 0x800, 0x800);
            assert_eq!((found.btime.tv_sec as u64, found.btime.tv_nsec), (born.as_secs(), born.subsec_nanos()));
        }
        Err(_) => assert_eq!(found.mask & 0x800, 0),
    }
}

#[test]
fn a_share_without_statx_says_that_there_is_none_and_tells_attributes_as_ever() {
    let share = Share::with(|config| config.no_statx = true);
    let client = share.client();
    let (file, _) = open_file(&client, "file");
    assert_eq!(client.statx(file).unwrap_err(), Errno::ENOSYS);
    assert_eq!(client.getattr(file).unwrap().nlink, 1);
}

#[test]
fn access_is_decided_by_the_bits_that_concern_the_caller() {
    if needs_root() {
        return;
    }
    let share = Share::new();
    fs::write(share.host("file"), "").unwrap();
    host::chown(&share.host("file"), 1000, 2000);
    host::chmod(&share.host("file"), 0o640);
    let root = share.client();
    let node = root.walk("file").unwrap();
    for (uid, gid, mask, expected) in [
        (0, 0, 6, Ok(())),
        (0, 0, 1, Err(Errno::EACCES)),
        (1000, 1, 6, Ok(())),
        (1000, 1, 1, Err(Errno::EACCES)),
        (1, 2000, 4, Ok(())),
        (1, 2000, 2, Err(Errno::EACCES)),
        (1, 1, 4, Err(Errno::EACCES)),
        (1, 1, 0, Ok(())),
        (0, 0, 8, Err(Errno::EINVAL)),
    ] {
        assert_eq!(root.as_user(uid, gid).access(node, mask), expected, "{uid}:{gid} {mask}");
    }
    host::chmod(&share.host("file"), 0o010);
    assert_eq!(root.access(node, 1), Ok(()), "what anybody may execute, the superuser may");
}
