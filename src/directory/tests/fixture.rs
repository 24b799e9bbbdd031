//! A directory with names in it, changed as the file system changes it for a guest, and read as a guest reads it.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    ops::ControlFlow,
    os::fd::OwnedFd,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use fuse_abi::Errno;

use crate::directory::{DirStream, Directory, Entry, Generation, StreamKind, open, open_for_all};

/// Where the directories of a test lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Tmpfs,
    Disk,
}

impl Place {
    pub fn folder(self) -> tempfile::TempDir {
        let tmpfs = Path::new("/dev/shm");
        if self == Self::Tmpfs && tmpfs.is_dir() {
            return tempfile::tempdir_in(tmpfs).unwrap();
        }
        if self == Self::Tmpfs {
            eprintln!("SKIPPED on tmpfs: this system has no /dev/shm; run in the temporary directory instead");
        }
        tempfile::tempdir().unwrap()
    }
}

/// What reads a directory under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Getdents,
    Snapshot,
    /// One for all users, and made anew now and then.
    GetdentsForAll,
    SnapshotForAll,
}

impl How {
    pub const fn kind(self) -> StreamKind {
        match self {
            Self::Getdents | Self::GetdentsForAll => StreamKind::Getdents,
            Self::Snapshot | Self::SnapshotForAll => StreamKind::Snapshot,
        }
    }
}

/// A stream that nobody opens: every third read gets a new one, as if the old one had been closed for lack of room.
struct ForAll {
    kind: StreamKind,
    directory: Arc<Directory>,
    opened: OwnedFd,
    reads: AtomicUsize,
    current: Mutex<Option<Arc<dyn DirStream>>>,
}

impl ForAll {
    fn stream(&self) -> Arc<dyn DirStream> {
        let mut current = self.current.lock().unwrap();
        if self.reads.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) {
            *current = None;
        }
        let made = current.get_or_insert_with(|| {
            let before = self.directory.generation().read();
            // By its descriptor: its name may be gone.
            let again = File::open(format!("/proc/self/fd/{}", self.opened.as_raw_fd())).unwrap();
            open_for_all(self.kind, again.into(), Arc::clone(&self.directory), before).into()
        });
        Arc::clone(made)
    }
}

impl DirStream for ForAll {
    fn read(&self, cookie: u64, emit: &mut dyn FnMut(&Entry<'_>) -> ControlFlow<()>) -> Result<(), Errno> {
        self.stream().read(cookie, emit)
    }

    fn started_with(&self) -> Option<Generation> {
        None
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.opened.as_fd()
    }
}

/// A directory under test, and beside it another for what comes and goes.
pub struct Fixture {
    pub how: How,
    pub directory: Arc<Directory>,
    elsewhere: PathBuf,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

/// An entry that a read handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub name: String,
    pub next: u64,
    pub ino: u64,
    pub kind: u32,
}

impl Fixture {
    pub fn new(how: How, place: Place) -> Self {
        let folder = place.folder();
        let [path, elsewhere] = ["directory", "elsewhere"].map(|name| folder.path().join(name));
        fs::create_dir(&path).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        Self { how, directory: Arc::new(Directory::new()), elsewhere, path, _folder: folder }
    }

    pub fn with_names(how: How, place: Place, count: usize) -> Self {
        let fixture = Self::new(how, place);
        fixture.create_many("name", count);
        fixture
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn elsewhere(&self, name: &str) -> PathBuf {
        self.elsewhere.join(name)
    }

    /// A change that the guest asked for: made, made known, and then acknowledged by returning.
    pub fn change<T>(&self, make: impl FnOnce() -> std::io::Result<T>) {
        make().unwrap();
        self.directory.generation().bump();
    }

    pub fn create(&self, name: &str) {
        self.change(|| File::create(self.path(name)));
    }

    pub fn create_many(&self, prefix: &str, count: usize) {
        (0..count).for_each(|number| self.create(&format!("{prefix}{number:03}")));
    }

    pub fn unlink(&self, name: &str) {
        self.change(|| fs::remove_file(self.path(name)));
    }

    pub fn rename(&self, from: &str, to: &str) {
        self.change(|| fs::rename(self.path(from), self.path(to)));
    }

    pub fn descriptor(&self) -> OwnedFd {
        File::open(&self.path).unwrap().into()
    }

    pub fn open(&self) -> Box<dyn DirStream> {
        let (kind, directory) = (self.how.kind(), Arc::clone(&self.directory));
        if matches!(self.how, How::Getdents | How::Snapshot) {
            let before = directory.generation().read();
            return open(kind, self.descriptor(), directory, before);
        }
        let (opened, reads, current) = (self.descriptor(), AtomicUsize::new(0), Mutex::default());
        Box::new(ForAll { kind, directory, opened, reads, current })
    }

    /// What is in the directory, dots included, as the standard library says.
    pub fn names(&self) -> BTreeSet<String> {
        let names = fs::read_dir(&self.path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.chain([".".into(), "..".into()]).collect()
    }
}

fn seen(entry: &Entry<'_>) -> Seen {
    Seen { name: String::from_utf8_lossy(entry.name).into_owned(), next: entry.next, ino: entry.ino, kind: entry.kind }
}

/// One read into a reply with room for `room` entries.
pub fn read(stream: &dyn DirStream, cookie: u64, room: usize) -> Result<Vec<Seen>, Errno> {
    let mut taken = Vec::new();
    stream.read(cookie, &mut |entry| {
        if taken.len() == room {
            return ControlFlow::Break(());
        }
        taken.push(seen(entry));
        ControlFlow::Continue(())
    })?;
    Ok(taken)
}

/// Reads from `cookie` to the end, `room` entries at a time.
pub fn read_to_end(stream: &dyn DirStream, cookie: u64, room: usize) -> Result<Vec<Seen>, Errno> {
    let (mut all, mut cookie) = (Vec::new(), cookie);
    loop {
        let some = read(stream, cookie, room)?;
        let Some(last) = some.last() else { return Ok(all) };
        cookie = last.next;
        all.extend(some);
        assert!(all.len() < 3_000_000, "a listing without an end");
    }
}

pub fn names(entries: &[Seen]) -> Vec<&str> {
    entries.iter().map(|entry| entry.name.as_str()).collect()
}

/// The names, which must not repeat.
pub fn distinct(entries: &[Seen]) -> BTreeSet<String> {
    let set: BTreeSet<String> = entries.iter().map(|entry| entry.name.clone()).collect();
    assert_eq!(set.len(), entries.len(), "a name came twice in {:?}", names(entries));
    set
}

/// Makes of each function over a fixture a test for each stream on each file system: those after the semicolon for
/// streams that somebody opened.
macro_rules! suite {
    ($($name:ident),+ ; $($opened:ident),* $(,)?) => {
        $crate::directory::tests::fixture::suite! { ; $($name,)* $($opened),* }
        $crate::directory::tests::fixture::suite! { @ getdents_for_all_on_disk GetdentsForAll Disk $($name)* }
        $crate::directory::tests::fixture::suite! { @ snapshot_for_all_on_tmpfs SnapshotForAll Tmpfs $($name)* }
        $crate::directory::tests::fixture::suite! { @ snapshot_for_all_on_disk SnapshotForAll Disk $($name)* }
    };
    (; $($opened:ident),* $(,)?) => {
        $crate::directory::tests::fixture::suite! { @ getdents_on_tmpfs Getdents Tmpfs $($opened)* }
        $crate::directory::tests::fixture::suite! { @ getdents_on_disk Getdents Disk $($opened)* }
        $crate::directory::tests::fixture::suite! { @ snapshot_on_tmpfs Snapshot Tmpfs $($opened)* }
        $crate::directory::tests::fixture::suite! { @ snapshot_on_disk Snapshot Disk $($opened)* }
    };
    (@ $module:ident $how:ident $place:ident $($name:ident)*) => {
        mod $module {
            use $crate::directory::tests::fixture::{How, Place};
            $(#[test] fn $name() { super::$name(How::$how, Place::$place); })*
        }
    };
}
pub(super) use suite;
