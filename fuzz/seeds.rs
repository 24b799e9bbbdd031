//! Writes the seeds: `seeds DIRECTORY` makes a folder a target in it, with a few small inputs that are right.

use std::fs;
use std::path::Path;

use ferryfs_guest::ring::{Desc, WRITE, link};
use ferryfs_guest::torture::samples;
use zerocopy::IntoBytes;

const XATTR_MAPS: [&str; 5] = [
    ":map::user.virtiofs.:",
    ":map:trusted.:user.virtiofs.:",
    ":prefix:all::user.virtiofs.::bad:all:::",
    ":ok:all:user.::unsupported:client:system.::bad:all:::",
    "/prefix/client/trusted./user.x./ /bad/server//trusted./ /ok/all///",
];
const ID_MAPS: [&str; 4] = [
    "map:1000:2000:10",
    "guest:0:100000:65536\nhost:100000:0:65536",
    "squash-guest:0:65534:4294967295\nsquash-host:0:65534:1000",
    "forbid-guest:5:10",
];
const COMMAND_LINES: [&str; 6] = [
    "--shared-dir\n/srv\n--socket-path\n/run/s",
    "--shared-dir=/srv\n--fd=3\n--cache=always\n--xattr\n--posix-acl=auto\n--writeback",
    "-o\nsource=/srv,cache=none,no_xattr,sandbox=chroot,log_level=debug\n--socket=/run/s\n-f\n-d",
    "--shared-dir\n/srv\n--socket-path\n/run/s\n--uid-map\n:0:1000:1:\n--modcaps=+sys_admin:-chown\n--tag\nx",
    "mount\n/srv\n/mnt\n--threads=2\n--translate-uid\nmap:1:2:3",
    "--print-capabilities",
];

fn main() -> std::io::Result<()> {
    let directory = std::env::args_os().nth(1).unwrap_or_else(|| "corpus".into());
    let directory = Path::new(&directory);
    let requests = samples(7, 3);
    write(directory, "request", requests.iter().map(|request| [&[45, 0, 0xff, 1], &request[..]].concat()))?;
    write(directory, "chain", requests.iter().map(|request| chain(request)))?;
    let names = b"\0user.a\0trusted.b\0security.capability\0user.internal\0user.virtiofs.trusted.c\0";
    write(directory, "xattr_map", XATTR_MAPS.iter().map(|rules| [rules.as_bytes(), names].concat()))?;
    let numbers = [0u32, 1000, 1005, 70_000, u32::MAX];
    write(directory, "id_map", ID_MAPS.iter().map(|rules| [rules.as_bytes(), b"\0", numbers.as_bytes()].concat()))?;
    write(directory, "options", COMMAND_LINES.iter().map(|line| line.as_bytes().to_vec()))
}

/// A table of its own behind an indirect descriptor, the request behind it.
fn chain(request: &[u8]) -> Vec<u8> {
    let (at, len) = (0x400, request.len() as u32);
    let first = len.min(40);
    let mut table = [
        Desc::readable(at, first),
        Desc::readable(at + u64::from(first), len - first),
        Desc::writable(0x2000, 16),
        Desc::writable(0x3ff0, 0x800),
    ];
    link(&mut table);
    debug_assert!(table[3].flags & WRITE != 0);
    let mut memory = vec![0; 0x400];
    memory[..16].copy_from_slice(Desc::indirect(0x100, table.len()).as_bytes());
    memory[0x100..0x100 + size_of_val(&table)].copy_from_slice(table.as_bytes());
    let lead = [0u8, 0, 16, 0, 0, 0, 0, 0];
    [&lead[..], &memory, request].concat()
}

fn write(directory: &Path, target: &str, seeds: impl Iterator<Item = Vec<u8>>) -> std::io::Result<()> {
    let directory = directory.join(target);
    fs::create_dir_all(&directory)?;
    for (number, seed) in seeds.enumerate() {
        fs::write(directory.join(format!("seed-{number:03}")), seed)?;
    }
    Ok(())
}
