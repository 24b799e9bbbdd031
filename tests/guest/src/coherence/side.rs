//! One side of a share as its programs see it: it acts and looks as it is asked to, and keeps what it holds open.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fastrand::Rng;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::actions::{Done, Tree, Who};
use super::observe::{Look, Seen, look};

/// How long a guest may trust attributes where nothing else was asked for, and then some.
const ATTRIBUTES: Duration = Duration::from_millis(1100);

/// One look at one place.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Glance {
    /// The directory, by its number, from which the path leads; otherwise the root of the share.
    pub from: Option<u32>,
    /// Where to look.
    pub path: PathBuf,
    /// And how.
    pub how: Look,
}

/// What a side is asked for.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// One action at random: the seed of its choice, and the step that it is.
    Act(u64, u32),
    /// Looks, one after the other.
    Look(Vec<Glance>),
    /// So many threads open each path, each for itself: all that the first saw, then the second, and so on.
    LookByMany(usize, Vec<PathBuf>),
    /// Keeps a directory as a working directory is kept, under a number; answered by what is in it.
    Hold(u32, PathBuf),
    /// Keeps a file open, under a number; answered by whether it could.
    Open(u32, PathBuf),
    /// Asks for the attributes of a file that is kept open; answered by whether it has them.
    Fstat(u32),
    /// Closes what is kept.
    Close(Vec<u32>),
    /// Looks into every directory there is.
    Visit,
    /// Waits until attributes are trusted no longer.
    Outlast,
}

/// The answer.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Reply {
    /// What was done, if that was asked.
    pub done: Done,
    /// What was seen, in the order in which it was asked.
    pub seen: Vec<Seen>,
}

/// One side, here or in another machine.
pub trait Side {
    /// Does what is asked.
    ///
    /// # Errors
    /// When the other machine does not answer.
    fn ask(&mut self, request: &Request) -> io::Result<Reply>;
}

/// A side that this machine reaches by its own paths.
pub struct Local {
    root: PathBuf,
    tree: Tree,
    kept: HashMap<u32, OwnedFd>,
}

impl Local {
    /// `stage` is where new files are made before they are moved into place.
    #[must_use]
    pub fn new(root: &Path, stage: &Path, who: Who) -> Self {
        Self { root: root.to_owned(), tree: Tree::new(root, stage, who), kept: HashMap::new() }
    }

    /// Something to begin with.
    pub fn plant(&self, rng: &mut Rng) {
        self.tree.plant(rng);
    }

    fn glance(&self, at: &Glance) -> Seen {
        match at.from.map(|number| self.kept.get(&number)) {
            None => look(CWD, &self.root.join(&at.path), at.how),
            Some(Some(dir)) => look(dir.as_fd(), &at.path, at.how),
            Some(None) => Seen::Error(Errno::BADF),
        }
    }

    fn look_by_many(&self, threads: usize, paths: &[PathBuf]) -> Vec<Seen> {
        std::thread::scope(|scope| {
            let look_all = || paths.iter().map(|path| look(CWD, &self.root.join(path), Look::Open)).collect();
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(look_all)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap_or_else(|_| Vec::new())).collect()
        })
    }

    fn hold(&mut self, number: u32, path: &Path) -> Seen {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(self.root.join(path), flags, Mode::empty()) {
            Ok(dir) => {
                let seen = look(dir.as_fd(), Path::new("."), Look::Open);
                self.kept.insert(number, dir);
                seen
            }
            Err(errno) => Seen::Error(errno),
        }
    }

    fn open(&mut self, number: u32, path: &Path) -> Seen {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = rustix::fs::open(self.root.join(path), flags, Mode::empty());
        presence(opened.map(|file| self.kept.insert(number, file)))
    }

    fn visit(dir: &mut PathBuf) {
        for entry in std::fs::read_dir(&*dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                dir.push(entry.file_name());
                Self::visit(dir);
                dir.pop();
            }
        }
    }
}

fn presence<T>(result: Result<T, Errno>) -> Seen {
    result.map_or_else(Seen::Error, |_| Seen::Present)
}

impl Side for Local {
    fn ask(&mut self, request: &Request) -> io::Result<Reply> {
        let seen = match request {
            Request::Act(seed, step) => {
                let done = self.tree.act(&mut Rng::with_seed(*seed), *step);
                return Ok(Reply { done, seen: Vec::new() });
            }
            Request::Look(glances) => glances.iter().map(|at| self.glance(at)).collect(),
            Request::LookByMany(threads, paths) => self.look_by_many(*threads, paths),
            Request::Hold(number, path) => vec![self.hold(*number, path)],
            Request::Open(number, path) => vec![self.open(*number, path)],
            Request::Fstat(number) => {
                self.kept.get(number).map(|file| presence(rustix::fs::fstat(file))).into_iter().collect()
            }
            Request::Close(numbers) => {
                self.kept.retain(|number, _| !numbers.contains(number));
                Vec::new()
            }
            Request::Visit => {
                Self::visit(&mut self.root.clone());
                Vec::new()
            }
            Request::Outlast => {
                std::thread::sleep(ATTRIBUTES);
                Vec::new()
            }
        };
        Ok(Reply { done: Done::default(), seen })
    }
}
