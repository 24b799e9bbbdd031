//! Requests as a guest may send them, an arm an operation: what mutation begins with.

use fastrand::Rng;
use fuse_abi::{
    AccessIn, BatchForgetIn, BmapIn, CopyFileRangeIn, CreateIn, ExtHeader, FallocateIn, FileLock, FlushIn, ForgetIn,
    ForgetOne, FsyncIn, GetattrIn, GetxattrIn, InHeader, InitIn, InterruptIn, IoctlIn, LinkIn, LkIn, LseekIn, MkdirIn,
    MknodIn, Opcode, OpenIn, PollIn, ROOT_ID, ReadIn, ReleaseIn, RemovemappingIn, Rename2In, RenameIn, Secctx,
    SecctxHeader, SetattrIn, SetupmappingIn, SetxattrIn, SetxattrInCompat, StatxIn, SuppGroups, SyncfsIn, WriteIn,
};
use zerocopy::IntoBytes;

use super::mutate::correct_length;
use super::values::{HostileNames, one_in, pick, size};
use super::world::{Kind, World};
use crate::operations::{LINUX_OFFERS, MINOR};

/// Bytes of the header of a request.
pub(super) const HEADER: usize = size_of::<InHeader>();

/// How often each operation is sent. What makes and opens is as frequent as what uses it.
const WEIGHTS: &[(Opcode, usize)] = &[
    (Opcode::Lookup, 20),
    (Opcode::Forget, 2),
    (Opcode::BatchForget, 1),
    (Opcode::Getattr, 5),
    (Opcode::Statx, 2),
    (Opcode::Setattr, 6),
    (Opcode::Readlink, 2),
    (Opcode::Symlink, 3),
    (Opcode::Mknod, 3),
    (Opcode::Mkdir, 4),
    (Opcode::Unlink, 4),
    (Opcode::Rmdir, 2),
    (Opcode::Rename, 3),
    (Opcode::Rename2, 3),
    (Opcode::Link, 3),
    (Opcode::Open, 8),
    (Opcode::Read, 8),
    (Opcode::Write, 8),
    (Opcode::Statfs, 1),
    (Opcode::Release, 2),
    (Opcode::Fsync, 1),
    (Opcode::Setxattr, 5),
    (Opcode::Getxattr, 4),
    (Opcode::Listxattr, 3),
    (Opcode::Removexattr, 2),
    (Opcode::Flush, 2),
    (Opcode::Opendir, 5),
    (Opcode::Readdir, 5),
    (Opcode::Readdirplus, 5),
    (Opcode::Releasedir, 2),
    (Opcode::Fsyncdir, 1),
    (Opcode::Getlk, 2),
    (Opcode::Setlk, 3),
    (Opcode::Setlkw, 1),
    (Opcode::Access, 2),
    (Opcode::Create, 8),
    (Opcode::Interrupt, 2),
    (Opcode::Bmap, 1),
    (Opcode::Ioctl, 4),
    (Opcode::Poll, 1),
    (Opcode::NotifyReply, 1),
    (Opcode::Fallocate, 3),
    (Opcode::Lseek, 3),
    (Opcode::CopyFileRange, 2),
    (Opcode::CopyFileRange64, 2),
    (Opcode::Setupmapping, 1),
    (Opcode::Removemapping, 1),
    (Opcode::Syncfs, 1),
    (Opcode::Tmpfile, 3),
];

/// The requests a session is made of.
pub(super) struct Templates {
    drawn: Vec<Opcode>,
    unique: u64,
}

impl Templates {
    pub(super) fn new() -> Self {
        let drawn = WEIGHTS.iter().flat_map(|&(opcode, weight)| std::iter::repeat_n(opcode, weight)).collect();
        Self { drawn, unique: 0 }
    }

    /// A request of any kind. INIT and DESTROY are rare: they take everything that was learned with them.
    pub(super) fn draw(&mut self, rng: &mut Rng, world: &World, names: &HostileNames) -> Vec<u8> {
        let opcode = match rng.u16(..16_384) {
            0 => Opcode::Destroy,
            1 => Opcode::Init,
            2 => Opcode::CuseInit,
            _ => self.drawn[rng.usize(..self.drawn.len())],
        };
        let mut bytes = self.request(opcode, rng, world, names);
        if one_in(rng, 24) {
            let units = extensions(rng, &mut bytes);
            bytes[36..38].copy_from_slice(&units.to_ne_bytes());
            correct_length(&mut bytes);
        }
        bytes
    }

    /// A request of this kind.
    pub(super) fn request(&mut self, opcode: Opcode, rng: &mut Rng, world: &World, names: &HostileNames) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        let nodeid = body(opcode, rng, world, names, &mut bytes);
        self.unique += 2;
        let (uid, gid) = if one_in(rng, 4) { (rng.u32(..3) * 1000, rng.u32(..3) * 1000) } else { (0, 0) };
        let header = InHeader {
            len: bytes.len() as u32,
            opcode: opcode.number(),
            unique: self.unique,
            nodeid,
            uid,
            gid,
            pid: 100 + rng.u32(..8),
            ..InHeader::default()
        };
        bytes[..HEADER].copy_from_slice(header.as_bytes());
        bytes
    }
}

/// `O_*` of x86-64: the access mode and any others.
fn open_flags(rng: &mut Rng) -> u32 {
    const OTHERS: [u32; 10] =
        [0o100, 0o200, 0o1000, 0o2000, 0o4000, 0o40_000, 0o200_000, 0o400_000, 0o1_000_000, 0o20_200_000];
    let mut flags = rng.u32(..4);
    while one_in(rng, 4) {
        flags |= pick(rng, &OTHERS).copied().unwrap_or(0);
    }
    flags
}

fn mode(rng: &mut Rng) -> u32 {
    const TYPES: [u32; 7] = [0o10_0000, 0o10_0000, 0o4_0000, 0o1_0000, 0o2_0000, 0o6_0000, 0o14_0000];
    pick(rng, &TYPES).copied().unwrap_or(0) | if one_in(rng, 3) { rng.u32(..0o1_0000) } else { 0o777 }
}

fn attribute(rng: &mut Rng, body: &mut Vec<u8>) {
    const ATTRIBUTES: [&str; 9] = [
        "user.a",
        "user.b",
        "user.long-name-of-an-attribute",
        "trusted.a",
        "security.capability",
        "security.selinux",
        "system.posix_acl_access",
        "user.",
        "",
    ];
    body.extend(pick(rng, &ATTRIBUTES).copied().unwrap_or_default().as_bytes());
    body.push(0);
}

/// Security contexts or supplementary groups at the end; returns their length in units of eight bytes.
fn extensions(rng: &mut Rng, bytes: &mut Vec<u8>) -> u16 {
    let start = bytes.len();
    let mut data = Vec::new();
    let kind = if rng.bool() {
        let nr_groups = rng.u32(..40);
        data.extend(SuppGroups { nr_groups }.as_bytes());
        (0..nr_groups).for_each(|group| data.extend(group.as_bytes()));
        32
    } else {
        let context = vec![b'c'; rng.usize(..40)];
        data.extend(Secctx { size: context.len() as u32, padding: 0 }.as_bytes());
        data.extend(b"security.selinux\0");
        data.extend(context);
        let size = (size_of::<SecctxHeader>() + data.len()) as u32;
        data.splice(..0, SecctxHeader { size, nr_secctx: 1 }.as_bytes().iter().copied());
        return append(bytes, start, &data);
    };
    let size = (size_of::<ExtHeader>() + data.len()) as u32;
    data.splice(..0, ExtHeader { size, r#type: kind }.as_bytes().iter().copied());
    append(bytes, start, &data)
}

fn append(bytes: &mut Vec<u8>, start: usize, data: &[u8]) -> u16 {
    bytes.extend(data);
    let len = data.len().next_multiple_of(8);
    bytes.resize(start + len, 0);
    (len / 8) as u16
}

/// Appends what follows the header and returns the node.
fn body(opcode: Opcode, rng: &mut Rng, world: &World, names: &HostileNames, to: &mut Vec<u8>) -> u64 {
    use Kind::{Directory, File, Link};
    macro_rules! put {
        ($value:expr) => {
            to.extend($value.as_bytes())
        };
    }
    macro_rules! name {
        () => {
            world.name(rng, names, to)
        };
    }
    let parent = world.node(rng, Directory);
    match opcode {
        Opcode::Lookup | Opcode::Unlink | Opcode::Rmdir => name!(),
        Opcode::Symlink => {
            name!();
            name!();
        }
        Opcode::Mknod => {
            put!(MknodIn { mode: mode(rng), rdev: rng.u32(..0x1000), umask: 0o22, padding: 0 });
            name!();
        }
        Opcode::Mkdir => {
            put!(MkdirIn { mode: 0o777, umask: 0 });
            name!();
        }
        Opcode::Rename => {
            put!(RenameIn { newdir: world.node(rng, Directory) });
            name!();
            name!();
        }
        Opcode::Rename2 => {
            put!(Rename2In { newdir: world.node(rng, Directory), flags: rng.u32(..8), padding: 0 });
            name!();
            name!();
        }
        Opcode::Link => {
            put!(LinkIn { oldnodeid: world.node(rng, File) });
            name!();
        }
        Opcode::Create | Opcode::Tmpfile => {
            let mode = if one_in(rng, 8) { mode(rng) } else { 0o10_0666 };
            let flags = if one_in(rng, 4) { open_flags(rng) } else { rng.u32(..3) };
            put!(CreateIn { flags: flags | 0o100, mode, umask: 0o22, open_flags: rng.u32(..2) });
            name!();
        }
        Opcode::Readdir | Opcode::Readdirplus => {
            let (node, fh) = world.directory(rng);
            let offset = if rng.bool() { 0 } else { size(rng) };
            put!(ReadIn { fh, offset, size: (size(rng) % 16_000) as u32, ..ReadIn::default() });
            return node;
        }
        Opcode::Releasedir | Opcode::Fsyncdir => {
            let (node, fh) = world.directory(rng);
            match opcode {
                Opcode::Releasedir => put!(ReleaseIn { fh, ..ReleaseIn::default() }),
                _ => put!(FsyncIn { fh, fsync_flags: rng.u32(..2), padding: 0 }),
            }
            return node;
        }
        Opcode::Opendir => put!(OpenIn { flags: 0o200_000, open_flags: 0 }),
        Opcode::Statfs | Opcode::Destroy => {}
        Opcode::Syncfs => put!(SyncfsIn::default()),
        Opcode::Init | Opcode::CuseInit => {
            let (flags, flags2) = LINUX_OFFERS.split();
            put!(InitIn { major: 7, minor: MINOR, max_readahead: 1 << 17, flags, flags2, ..InitIn::default() });
            return 0;
        }
        Opcode::Readlink => return world.node(rng, Link),
        _ => return body_of_node(opcode, rng, world, to),
    }
    parent
}

/// Operations on a node, or on a file that is open.
fn body_of_node(opcode: Opcode, rng: &mut Rng, world: &World, to: &mut Vec<u8>) -> u64 {
    macro_rules! put {
        ($value:expr) => {
            to.extend($value.as_bytes())
        };
    }
    let (node, fh) = world.file(rng);
    let any = match rng.u8(..4) {
        0 => world.node(rng, Kind::Directory),
        1 => world.node(rng, Kind::Other),
        _ => world.node(rng, Kind::File),
    };
    match opcode {
        Opcode::Forget => put!(ForgetIn { nlookup: rng.u64(..2) }),
        Opcode::BatchForget => {
            let count = rng.u32(..6);
            put!(BatchForgetIn { count, dummy: 0 });
            (0..count).for_each(|_| put!(ForgetOne { nodeid: world.node(rng, Kind::File), nlookup: rng.u64(..2) }));
        }
        Opcode::Getattr => put!(GetattrIn { getattr_flags: rng.u32(..2), dummy: 0, fh }),
        Opcode::Statx => put!(StatxIn { fh, sx_mask: rng.u32(..), ..StatxIn::default() }),
        Opcode::Setattr => put!(SetattrIn {
            valid: rng.u32(..1 << 12),
            fh,
            size: size(rng),
            atime: rng.u64(..1 << 40),
            mode: mode(rng),
            uid: rng.u32(..3) * 1000,
            gid: rng.u32(..3) * 1000,
            ..SetattrIn::default()
        }),
        Opcode::Open => put!(OpenIn { flags: open_flags(rng), open_flags: rng.u32(..2) }),
        Opcode::Setxattr => {
            let len = rng.u32(..200);
            if rng.bool() {
                put!(SetxattrIn { size: len, flags: rng.u32(..3), ..SetxattrIn::default() });
            } else {
                put!(SetxattrInCompat { size: len, flags: rng.u32(..3) });
            }
            attribute(rng, to);
            (0..len).for_each(|byte| to.push(byte as u8));
        }
        Opcode::Getxattr => {
            put!(GetxattrIn { size: rng.u32(..300), padding: 0 });
            attribute(rng, to);
        }
        Opcode::Listxattr => put!(GetxattrIn { size: rng.u32(..600), padding: 0 }),
        Opcode::Removexattr => attribute(rng, to),
        Opcode::Access => put!(AccessIn { mask: rng.u32(..8), padding: 0 }),
        Opcode::Interrupt => put!(InterruptIn { unique: rng.u64(..1 << 20) }),
        Opcode::Removemapping => put!(RemovemappingIn { count: rng.u32(..3) }),
        Opcode::NotifyReply => (0..rng.usize(..64)).for_each(|_| to.push(rng.u8(..))),
        _ => {
            body_of_handle(opcode, rng, world, fh, to);
            return node;
        }
    }
    any
}

fn body_of_handle(opcode: Opcode, rng: &mut Rng, world: &World, fh: u64, to: &mut Vec<u8>) {
    macro_rules! put {
        ($value:expr) => {
            to.extend($value.as_bytes())
        };
    }
    match opcode {
        Opcode::Read => {
            put!(ReadIn { fh, offset: size(rng), size: (size(rng) % 16_000) as u32, ..ReadIn::default() });
        }
        Opcode::Write => {
            let len = rng.usize(..3000);
            put!(WriteIn { fh, offset: size(rng), size: len as u32, write_flags: rng.u32(..8), ..WriteIn::default() });
            to.resize(to.len() + len, b'w');
        }
        Opcode::Release => put!(ReleaseIn { fh, release_flags: rng.u32(..4), ..ReleaseIn::default() }),
        Opcode::Flush => put!(FlushIn { fh, lock_owner: rng.u64(..4), ..FlushIn::default() }),
        Opcode::Fsync => put!(FsyncIn { fh, fsync_flags: rng.u32(..2), padding: 0 }),
        Opcode::Getlk | Opcode::Setlk | Opcode::Setlkw => {
            let (start, end) = (size(rng), size(rng));
            let lk = FileLock { start, end, r#type: rng.u32(..4), pid: rng.u32(..4) };
            put!(LkIn { fh, owner: rng.u64(..4), lk, lk_flags: rng.u32(..2), padding: 0 });
        }
        Opcode::Bmap => put!(BmapIn { block: size(rng), blocksize: 512, padding: 0 }),
        Opcode::Ioctl => {
            // The inode flags of every file system, XFS's form of them, and numbers that nobody serves.
            const CALLS: [u32; 6] = [0x8008_6601, 0x4008_6602, 0x801c_581f, 0x401c_5820, 0x5401, 0x8004_6601];
            let data = vec![if one_in(rng, 4) { rng.u8(..) } else { 0 }; rng.usize(..40)];
            let cmd = pick(rng, &CALLS).copied().unwrap_or(0);
            put!(IoctlIn { fh, flags: 0, cmd, arg: 0, in_size: data.len() as u32, out_size: rng.u32(..64) });
            to.extend(data);
        }
        Opcode::Poll => put!(PollIn { fh, kh: rng.u64(..8), flags: 1, events: rng.u32(..64) }),
        Opcode::Fallocate => {
            put!(FallocateIn { fh, offset: size(rng), length: size(rng), mode: rng.u32(..0x80), padding: 0 });
        }
        Opcode::Lseek => put!(LseekIn { fh, offset: size(rng), whence: rng.u32(..6), padding: 0 }),
        Opcode::CopyFileRange | Opcode::CopyFileRange64 => {
            let (nodeid_out, fh_out) = world.file(rng);
            let (off_in, off_out, len) = (size(rng), size(rng), size(rng));
            put!(CopyFileRangeIn { fh_in: fh, off_in, nodeid_out, fh_out, off_out, len, flags: 0 });
        }
        Opcode::Setupmapping => put!(SetupmappingIn { fh, len: size(rng), ..SetupmappingIn::default() }),
        other => debug_assert!(other == Opcode::Rename, "{other} has no template"),
    }
}

/// The requests by which a session begins: nodes and handles to name.
pub(super) fn prologue() -> Vec<(Opcode, u64, Vec<u8>)> {
    let named = |value: &[u8], name: &str| [value, name.as_bytes(), b"\0"].concat();
    let create = CreateIn { flags: 0o102, mode: 0o10_0644, umask: 0, open_flags: 0 };
    let mut requests = vec![(Opcode::Opendir, ROOT_ID, OpenIn { flags: 0o200_000, open_flags: 0 }.as_bytes().to_vec())];
    for name in ["dir0", "dir1", "file0", "file1", "link0", "fifo", "big"] {
        requests.push((Opcode::Lookup, ROOT_ID, named(&[], name)));
    }
    for name in ["a", "b", "c"] {
        requests.push((Opcode::Create, ROOT_ID, named(create.as_bytes(), name)));
    }
    requests
}
