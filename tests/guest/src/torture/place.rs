//! The share, and what lies around it: nothing may appear there that the torture did not put there.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, IFlags, Mode, ioctl_getflags, ioctl_setflags, mknodat, statvfs};
use tempfile::TempDir;

use super::values::HostileNames;
use crate::error::{Error, Result};

/// What lies beside the share, as it must still lie there afterwards.
const CANARY: &str = "nobody but the torture itself may change this file\n";

/// The most bytes that the share may grow by. Filling a disk takes longer than any limit, and leaves no room for others.
const MOST_ROOM: u64 = 1 << 30;

/// A directory with the share in it.
pub(super) struct Place {
    root: TempDir,
}

impl Place {
    pub(super) fn new(within: &Path) -> Result<Self> {
        let room = statvfs(within).map_err(Error::io("ask for the free space"))?;
        if room.f_bavail.saturating_mul(room.f_frsize) > MOST_ROOM {
            let within = within.display();
            return Err(Error::Layout(format!(
                "{within} has more room than a guest gone wild should fill: give a small file system, such as one made by \
                 'mount -t tmpfs -o size=64m tmpfs DIRECTORY'"
            )));
        }
        let root = TempDir::with_prefix_in("ferryfs-torture-", within).map_err(Error::io("make a directory"))?;
        let place = Self { root };
        for directory in [place.around(), place.share()] {
            fs::create_dir(&directory).map_err(Error::io("make a directory"))?;
        }
        for canary in place.canaries() {
            fs::write(canary, CANARY).map_err(Error::io("write a file"))?;
        }
        place.furnish()?;
        Ok(place)
    }

    /// The directory that holds the share: `..` seen from there.
    fn around(&self) -> PathBuf {
        self.root.path().join("around")
    }

    pub(super) fn share(&self) -> PathBuf {
        self.around().join("share")
    }

    fn canaries(&self) -> [PathBuf; 2] {
        [self.root.path().join("canary"), self.around().join("canary")]
    }

    pub(super) fn names(&self) -> HostileNames {
        HostileNames::new(&self.around(), &self.share())
    }

    /// Makes the share what it was at first. Nobody is connected.
    pub(super) fn renew(&self) -> Result<()> {
        clear(&self.share())?;
        self.furnish()
    }

    fn furnish(&self) -> Result<()> {
        let share = self.share();
        let make = |result: std::io::Result<()>| result.map_err(Error::io("furnish the share"));
        make(fs::set_permissions(&share, fs::Permissions::from_mode(0o777)))?;
        for name in ["dir0", "dir1"] {
            make(fs::create_dir(share.join(name)))?;
            for number in 0..40 {
                make(fs::write(share.join(name).join(format!("entry{number}")), name))?;
            }
        }
        for name in ["file0", "file1"] {
            make(fs::write(share.join(name), vec![b'0'; 10_000]))?;
        }
        make(File::create(share.join("big")).and_then(|file| file.set_len(1 << 30)))?;
        make(symlink("../canary", share.join("link0")))?;
        let fifo = mknodat(CWD, share.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o666), 0);
        fifo.map_err(Error::io("make a fifo"))
    }

    /// What lies outside the share and should not, or no longer lies as it did.
    pub(super) fn strays(&self) -> Result<Vec<String>> {
        let mut strays = Vec::new();
        let expected = [(self.root.path().to_owned(), ["around", "canary"]), (self.around(), ["canary", "share"])];
        for (directory, wanted) in expected {
            for entry in fs::read_dir(&directory).map_err(Error::io("list a directory"))? {
                let name = entry.map_err(Error::io("list a directory"))?.file_name();
                if !wanted.iter().any(|wanted| name == **wanted) {
                    strays.push(directory.join(name).display().to_string());
                }
            }
        }
        for canary in self.canaries() {
            if fs::read_to_string(&canary).ok().as_deref() != Some(CANARY) {
                strays.push(format!("{} was changed", canary.display()));
            }
        }
        Ok(strays)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What was made immutable cannot be removed with the rest.
        let _ = clear(&self.share());
    }
}

/// Removes everything in a directory, whatever flags and modes it was given.
fn clear(directory: &Path) -> Result<()> {
    free(directory);
    let entries = fs::read_dir(directory).map_err(Error::io("list the share"))?;
    for entry in entries {
        let entry = entry.map_err(Error::io("list the share"))?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(Error::io("look at the share"))?);
        let removed = if kind.is_dir() {
            clear(&path)?;
            fs::remove_dir(&path)
        } else {
            if !kind.is_fifo() && !kind.is_symlink() {
                free(&path);
            }
            fs::remove_file(&path)
        };
        removed.map_err(Error::io("clear the share"))?;
    }
    Ok(())
}

/// Takes the flags off that forbid a change. Where there are none this fails, and nothing is lost.
fn free(path: &Path) {
    use rustix::fs::{OFlags, open};
    // A device of the guest's making is not opened, and neither is what a link leads to.
    let plain = fs::symlink_metadata(path).is_ok_and(|data| data.is_dir() || data.is_file());
    if !plain {
        return;
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    if let Ok(file) = open(path, flags, Mode::empty())
        && let Ok(found) = ioctl_getflags(&file)
        && found.intersects(IFlags::IMMUTABLE | IFlags::APPEND)
    {
        let _ = ioctl_setflags(&file, found - (IFlags::IMMUTABLE | IFlags::APPEND));
    }
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
}
