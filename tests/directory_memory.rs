//! A directory of a million names lists in bounded memory: what each stream holds, counted by the allocator.
#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fs::{self, File},
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use ferryfs::directory::{DirStream, Directory, StreamKind, open};

const NAMES: usize = 1_000_000;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, and how much of it is in use.
struct Counting;

// SAFETY: every call is the system allocator's, with the caller's own arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Runs `work`, and says by how much memory in use rose at its highest, and at its end.
fn measure<T>(work: impl FnOnce() -> T) -> (T, usize, usize) {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = work();
    let over = |now: &AtomicUsize| now.load(Ordering::Relaxed).saturating_sub(before);
    (result, over(&PEAK), over(&NOW))
}

/// Reads to the end in replies of 32 KiB as FUSE packs them; how many entries, and how many bytes of names.
fn list(stream: &dyn DirStream) -> (usize, usize) {
    let (mut count, mut bytes, mut cookie) = (0, 0, 0);
    loop {
        let (mut room, before) = (32 * 1024, count);
        stream
            .read(cookie, &mut |entry| {
                let size = (24 + entry.name.len()).next_multiple_of(8);
                if size > room {
                    return ControlFlow::Break(());
                }
                room -= size;
                count += 1;
                bytes += entry.name.len();
                cookie = entry.next;
                ControlFlow::Continue(())
            })
            .unwrap();
        if count == before {
            return (count, bytes);
        }
    }
}

#[test]
fn a_million_names_list_in_bounded_memory() {
    let folder = if Path::new("/dev/shm").is_dir() { tempfile::tempdir_in("/dev/shm") } else { tempfile::tempdir() };
    let folder = folder.unwrap();
    let path = folder.path().join("many");
    fs::create_dir(&path).unwrap();
    // Names of one inode cost the host little, where it allows so many.
    let first = path.join("name-0000000");
    File::create(&first).unwrap();
    for number in 1..NAMES {
        let name = path.join(format!("name-{number:07}"));
        if fs::hard_link(&first, &name).is_err() {
            File::create(&name).unwrap();
        }
    }
    let directory = Arc::new(Directory::new());
    let opened = |kind| {
        let before = directory.generation().read();
        open(kind, File::open(&path).unwrap().into(), Arc::clone(&directory), before)
    };
    let expected = (NAMES + 2, NAMES * 12 + 3);

    #[cfg(target_os = "linux")]
    {
        let stream = opened(StreamKind::Getdents);
        let (found, peak, rest) = measure(|| list(&*stream));
        println!("getdents: {peak} bytes at most, {rest} after the end");
        assert_eq!(found, expected);
        assert!(peak <= 33 * 1024, "one block a handle");
        assert_eq!(rest, 0);
    }

    let streams = [(); 8].map(|()| opened(StreamKind::Snapshot));
    let (found, peak, rest) = measure(|| list(&*streams[0]));
    println!(
        "snapshot: {:.1} bytes a name at most, {:.1} kept ({rest} bytes), of which the name is 12",
        peak as f64 / NAMES as f64,
        rest as f64 / NAMES as f64
    );
    assert_eq!(found, expected);
    assert!(rest <= expected.0 * 24 + expected.1 + 1_024, "24 bytes and the name");
    assert!(peak <= 3 * rest, "three times that while it is built");

    // The last name is older than a tick by now: the others share it.
    let (found, peak, _) = measure(|| streams.each_ref().map(|stream| list(&**stream)));
    println!("snapshot, eight handles more: {peak} bytes");
    assert_eq!(found, [expected; 8]);
    assert!(peak <= 3 * rest, "one snapshot for all");
    let (_, _, kept) = measure(|| drop(streams));
    assert_eq!(kept, 0);
    assert!(NOW.load(Ordering::Relaxed) < rest / 2, "let go with the last handle");
}
