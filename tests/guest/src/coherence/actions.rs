//! What host and guest do to the tree. The tree is small, so that they meet.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use fastrand::Rng;
use rustix::fs::{AtFlags, CWD, RenameFlags, Timespec, Timestamps};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

const DIRS: [&str; 2] = ["p", "q"];
const LEAVES: [&str; 4] = ["f", "g", "p", "q"];
const DEEPEST: usize = 3;

/// Whose actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The host's.
    Host,
    /// The guest's.
    Guest,
}

/// What was done.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Done {
    /// In words.
    pub text: String,
    /// What it may have changed.
    pub paths: Vec<PathBuf>,
    /// It was told ESTALE.
    pub estale: bool,
}

/// The tree as one side reaches it.
pub struct Tree {
    root: PathBuf,
    /// Where new files are made before they are moved into place.
    stage: PathBuf,
    who: Who,
}

/// A path of the tree, whether or not anything is there.
pub fn any_path(rng: &mut Rng) -> PathBuf {
    let mut path = any_directory(rng);
    path.push(any_name(rng));
    path
}

pub fn any_name(rng: &mut Rng) -> &'static str {
    LEAVES[rng.usize(..LEAVES.len())]
}

fn any_directory(rng: &mut Rng) -> PathBuf {
    let depth = rng.usize(..=DEEPEST);
    (0..depth).map(|_| DIRS[rng.usize(..DIRS.len())]).collect()
}

/// Every path there can be.
pub fn all_paths() -> Vec<PathBuf> {
    let (mut all, mut level) = (Vec::new(), vec![PathBuf::new()]);
    for _ in 0..=DEEPEST {
        all.extend(level.iter().flat_map(|dir| LEAVES.iter().map(|name| dir.join(name))));
        level = level.iter().flat_map(|dir| DIRS.iter().map(|name| dir.join(name))).collect();
    }
    all
}

impl Tree {
    pub fn new(root: impl Into<PathBuf>, stage: impl Into<PathBuf>, who: Who) -> Self {
        Self { root: root.into(), stage: stage.into(), who }
    }

    /// Something to begin with.
    pub fn plant(&self, rng: &mut Rng) {
        for first in DIRS {
            for second in DIRS {
                let dir = self.root.join(first).join(second).join("p");
                let _ = fs::create_dir_all(&dir);
                let _ = fs::write(dir.join("f"), content(0, rng));
                let _ = fs::write(dir.join("../g"), content(0, rng));
            }
        }
    }

    /// One action at random, again until one succeeds that can, a few times at most.
    pub fn act(&self, rng: &mut Rng, step: u32) -> Done {
        let mut done = Done::default();
        for _ in 0..20 {
            let (text, paths, result) = self.try_act(rng, step);
            let error = result.err().map(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
            done = Done { text: format!("{:?} {text}", self.who), paths, estale: error == Some(Errno::STALE) };
            if error.is_none() || done.estale {
                break;
            }
        }
        done
    }

    fn try_act(&self, rng: &mut Rng, step: u32) -> (String, Vec<PathBuf>, io::Result<()>) {
        let path = any_path(rng);
        let at = self.root.join(&path);
        let (dir, other) = (any_directory(rng), any_directory(rng));
        let one = |text: &str, path: PathBuf, result| (format!("{text} {}", path.display()), vec![path], result);
        match rng.u32(..20) {
            0 | 1 => one("write", path, existing_file(&at).and_then(|()| fs::write(&at, content(step, rng)))),
            2 => one("overwrite with the old time", path, overwrite_in_place(&at, step)),
            3 => one("append to", path, append(&at, step)),
            4 => {
                let size = rng.u64(..10_000);
                one("truncate", path, existing_file(&at).and_then(|()| open_to_write(&at)?.set_len(size)))
            }
            5..=7 => one("replace", path, self.replace(&at, step, rng)),
            8 | 9 => one("create", path, create(&at, step, rng)),
            10 => one("unlink", path, fs::remove_file(&at)),
            11 | 12 => one("mkdir", path, fs::create_dir(&at)),
            13 => one("rmdir", path, if rng.bool() { fs::remove_dir(&at) } else { fs::remove_dir_all(&at) }),
            14 => {
                let mode = 0o600 | rng.u32(..0o100);
                one(
                    "chmod",
                    path,
                    fs::symlink_metadata(&at).and_then(|found| {
                        let mode = if found.is_dir() { mode | 0o700 } else { mode };
                        if found.is_symlink() {
                            return Err(io::ErrorKind::NotFound.into());
                        }
                        fs::set_permissions(&at, fs::Permissions::from_mode(mode))
                    }),
                )
            }
            15 => {
                let to = any_path(rng);
                let result = existing_file(&at).and_then(|()| fs::hard_link(&at, self.root.join(&to)));
                (format!("link {} to {}", path.display(), to.display()), vec![to, path], result)
            }
            16 => one("symlink", path, symlink(any_name(rng), &at)),
            17 => {
                let to = any_path(rng);
                let result = fs::rename(&at, self.root.join(&to));
                let below = to.join(any_name(rng));
                (format!("rename {} to {}", path.display(), to.display()), vec![to, path, below], result)
            }
            _ => self.move_directory(rng, &dir, &other),
        }
    }

    /// Moves or exchanges directories, and names paths up to three levels below.
    fn move_directory(&self, rng: &mut Rng, from: &Path, to: &Path) -> (String, Vec<PathBuf>, io::Result<()>) {
        let flags = if rng.bool() { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
        let result = rustix::fs::renameat_with(CWD, self.root.join(from), CWD, self.root.join(to), flags);
        let mut paths = Vec::new();
        for place in [from, to] {
            let mut path = place.to_owned();
            for _ in 0..3 {
                paths.push(path.join(any_name(rng)));
                path.push(DIRS[rng.usize(..DIRS.len())]);
            }
            paths.push(place.to_owned());
        }
        let text = format!("rename directory {} to {} {flags:?}", from.display(), to.display());
        (text, paths, result.map_err(Into::into))
    }

    fn replace(&self, at: &Path, step: u32, rng: &mut Rng) -> io::Result<()> {
        existing_file(at)?;
        let new = self.stage.join(format!("new-{step}"));
        fs::write(&new, content(step, rng))?;
        fs::rename(&new, at).inspect_err(|_| drop(fs::remove_file(&new)))
    }
}

/// What no other step writes, of a length that crosses pages now and then.
fn content(step: u32, rng: &mut Rng) -> Vec<u8> {
    let tag = format!("step {step};");
    let len = if rng.bool() { rng.usize(tag.len()..40) } else { rng.usize(40..14_000) };
    tag.bytes().cycle().take(len).collect()
}

fn existing_file(at: &Path) -> io::Result<()> {
    if fs::symlink_metadata(at)?.is_file() { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
}

fn open_to_write(at: &Path) -> io::Result<File> {
    File::options().write(true).open(at)
}

fn append(at: &Path, step: u32) -> io::Result<()> {
    existing_file(at)?;
    File::options().append(true).open(at)?.write_all(format!("more {step};").as_bytes())
}

fn create(at: &Path, step: u32, rng: &mut Rng) -> io::Result<()> {
    File::options().write(true).create_new(true).open(at)?.write_all(&content(step, rng))
}

/// New content of the same length, and then the times as they were: only the time of change tells.
fn overwrite_in_place(at: &Path, step: u32) -> io::Result<()> {
    existing_file(at)?;
    let found = rustix::fs::statat(CWD, at, AtFlags::SYMLINK_NOFOLLOW)?;
    let size = usize::try_from(found.st_size).unwrap_or(0);
    let file = open_to_write(at)?;
    (&file).write_all(&format!("over {step};").bytes().cycle().take(size).collect::<Vec<u8>>())?;
    let time = |seconds, nanos: u64| Timespec { tv_sec: seconds, tv_nsec: nanos.cast_signed() };
    let times = Timestamps {
        last_access: time(found.st_atime, found.st_atime_nsec),
        last_modification: time(found.st_mtime, found.st_mtime_nsec),
    };
    rustix::fs::futimens(&file, &times)?;
    Ok(())
}
