//! The table of inodes under several threads, through the file system itself: getattr and lookup of known names, and
//! lookups of fresh names with their forgets. Each includes its system calls; what grows with threads is contention.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ferryfs::host::SelfFds;
use ferryfs::passthrough::{Passthrough, config::Config};
use ferryfs::protocol::{Context, FileSystem, LookupName, Name, NodeId};
use fuse_abi::InitFlags;

const FILES: usize = 1024;
const ROOT: NodeId = NodeId(1);

fn context() -> Context {
    Context { unique: 2, uid: 0, gid: 0, pid: 1, agreed: InitFlags::empty(), may_block: true }
}

fn name(number: usize) -> std::ffi::CString {
    std::ffi::CString::new(format!("file-{number:04}")).expect("digits and letters")
}

fn lookup(fs: &Passthrough, number: usize) -> u64 {
    let name = name(number);
    let name = LookupName::Name(Name::new(&name).expect("a plain name"));
    fs.lookup(&context(), ROOT, name).map(|entry| entry.nodeid).expect("the file is there")
}

/// How long `iterations` calls take on each of `threads` threads at once.
fn timed(fs: &Passthrough, threads: usize, iterations: u64, work: impl Fn(usize) + Sync) -> Duration {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let work = &work;
            scope.spawn(move || {
                fs.begin_thread();
                let mut number = FILES * thread / threads;
                for _ in 0..iterations {
                    work(number);
                    number = (number + 1) % FILES;
                }
            });
        }
    });
    start.elapsed()
}

fn table(c: &mut Criterion) {
    // On a tmpfs where there is one: the disk's own work would hide the table's.
    let shm = Path::new("/dev/shm");
    let place = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
    let dir = tempfile::tempdir_in(place).expect("a directory to share");
    for number in 0..FILES {
        fs::write(dir.path().join(name(number).to_string_lossy().as_ref()), b"").expect("a file to share");
    }
    let root = File::open(dir.path()).expect("the shared directory");
    let fds = SelfFds::open().expect("/proc is mounted");
    let fs = Passthrough::new(root.into(), fds, Config::default()).expect("a directory can be shared");
    let nodes: Vec<u64> = (0..FILES).map(|number| lookup(&fs, number)).collect();
    let mut group = c.benchmark_group("inodes");
    for threads in [1, 2, 4] {
        group.bench_function(BenchmarkId::new("getattr", threads), |b| {
            b.iter_custom(|iterations| {
                timed(&fs, threads, iterations, |number| {
                    fs.getattr(&context(), NodeId(nodes[number]), None).expect("a known inode");
                })
            });
        });
        group.bench_function(BenchmarkId::new("lookup known, forget one", threads), |b| {
            b.iter_custom(|iterations| {
                timed(&fs, threads, iterations, |number| fs.forget(NodeId(lookup(&fs, number)), 1))
            });
        });
    }
    nodes.iter().for_each(|node| fs.forget(NodeId(*node), 1));
    for threads in [1, 2, 4] {
        group.bench_function(BenchmarkId::new("lookup fresh, forget", threads), |b| {
            b.iter_custom(|iterations| {
                timed(&fs, threads, iterations, |number| fs.forget(NodeId(lookup(&fs, number)), 1))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, table);
criterion_main!(benches);
