//! What macOS says of an object, in the terms that every system shares.

use fuse_abi::Timestamp;

use crate::host::{Identity, Kind, Stat};

pub(super) fn stat_of(found: &rustix::fs::Stat) -> Stat {
    let time = |seconds, nanoseconds| Timestamp { seconds, nanoseconds: u32::try_from(nanoseconds).unwrap_or(0) };
    let birth = time(found.st_birthtime, found.st_birthtime_nsec);
    Stat {
        // One device is one mount here.
        identity: Identity { dev: u64::from(found.st_dev as u32), ino: found.st_ino, mount: 0 },
        mode: u32::from(found.st_mode),
        nlink: u32::from(found.st_nlink),
        uid: found.st_uid,
        gid: found.st_gid,
        rdev: pack_device(found.st_rdev),
        size: u64::try_from(found.st_size).unwrap_or(0),
        blocks: u64::try_from(found.st_blocks).unwrap_or(0),
        block_size: u32::try_from(found.st_blksize).unwrap_or(4096),
        atime: time(found.st_atime, found.st_atime_nsec),
        mtime: time(found.st_mtime, found.st_mtime_nsec),
        ctime: time(found.st_ctime, found.st_ctime_nsec),
        btime: if birth.seconds == 0 { None } else { Some(birth) },
        attributes: attributes(found.st_flags),
    }
}

/// Flags of macOS, and the `STATX_ATTR_*` bit that says the same.
const ATTRIBUTES: [(u32, u64); 4] = [
    (libc::UF_COMPRESSED, 0x04),
    (libc::UF_IMMUTABLE | libc::SF_IMMUTABLE, 0x10),
    (libc::UF_APPEND | libc::SF_APPEND, 0x20),
    (libc::UF_NODUMP, 0x40),
];

fn attributes(flags: u32) -> (u64, u64) {
    ATTRIBUTES
        .iter()
        .fold((0, 0), |(known, set), (flag, bit)| (known | bit, if flags & flag == 0 { set } else { set | bit }))
}

/// Whether the object is where another file system is mounted.
///
/// The root of an APFS or HFS+ volume has number 2, which nothing else there has.
#[must_use]
pub fn is_mount_root(found: &Stat) -> bool {
    matches!(found.kind(), Kind::Directory) && found.identity.ino == 2
}

/// A device number as FUSE packs it into 32 bits.
fn pack_device(device: libc::dev_t) -> u32 {
    let (major, minor) = (libc::major(device) as u32, libc::minor(device) as u32);
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xfff00) << 12)
}

/// The device number that [`pack_device`] packed.
pub(super) fn unpack_device(packed: u32) -> libc::dev_t {
    let (major, minor) = ((packed & 0xfff00) >> 8, (packed & 0xff) | ((packed >> 12) & 0xfff00));
    libc::makedev(major as i32, minor as i32)
}
