//! Programs in the guest that run on while the host replaces what they use: they may see the old or the new, and never
//! an error that no local file system gives.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fastrand::Rng;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::Share;

/// What a run of [`race`] counted.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Calls of the guest's programs.
    pub calls: u64,
    /// Replacements made by the host meanwhile.
    pub replacements: u64,
    /// Calls that failed with ESTALE, by the name of the call.
    pub estale: BTreeMap<&'static str, u64>,
}

type Call = fn(&Path, &mut Rng) -> Result<(), Errno>;

/// Every way by which a program uses a name.
const CALLS: [(&str, Call); 14] = [
    ("open", |root, rng| open(&root.join(file(rng)), OFlags::RDONLY)),
    ("open for writing", |root, rng| open(&root.join(file(rng)), OFlags::RDWR)),
    ("open with O_PATH", |root, rng| open(&root.join(file(rng)), OFlags::PATH)),
    ("open to create", |root, rng| {
        rustix::fs::open(root.join(file(rng)), OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC, Mode::RWXU).map(drop)
    }),
    ("opendir", |root, rng| open(&root.join(directory(rng)), OFlags::RDONLY | OFlags::DIRECTORY)),
    ("stat", |root, rng| rustix::fs::stat(root.join(file(rng))).map(drop)),
    ("lstat", |root, rng| rustix::fs::lstat(root.join(directory(rng))).map(drop)),
    ("access", |root, rng| rustix::fs::access(root.join(file(rng)), rustix::fs::Access::EXEC_OK)),
    ("readlink", |root, _| rustix::fs::readlink(root.join("link"), Vec::new()).map(drop)),
    ("open through a link", |root, _| open(&root.join("link"), OFlags::RDONLY)),
    ("chmod", |root, rng| rustix::fs::chmod(root.join(file(rng)), Mode::RWXU)),
    ("unlink", |root, rng| rustix::fs::unlink(root.join(directory(rng)).join("spare"))),
    ("mkdir and rmdir", |root, rng| {
        // A name of its own: one that exists where the host has just put another directory cannot be made unnoticed.
        let at = root.join(directory(rng)).join(format!("made-{}", rng.u64(..)));
        let made = rustix::fs::mkdir(&at, Mode::RWXU);
        made.and_then(|()| rustix::fs::rmdir(&at))
    }),
    ("walk from a directory", |root, rng| {
        let dir = rustix::fs::open(root.join(directory(rng)), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        for path in ["x", ".", "deep/y", "x"] {
            let stat = rustix::fs::statat(&dir, path, AtFlags::empty()).err();
            let open = rustix::fs::openat(&dir, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).err();
            if [stat, open].contains(&Some(Errno::STALE)) {
                return Err(Errno::STALE);
            }
        }
        Ok(())
    }),
];

fn open(path: &Path, flags: OFlags) -> Result<(), Errno> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).map(drop)
}

fn directory(rng: &mut Rng) -> &'static str {
    ["a", "b", "a/deep"][rng.usize(..3)]
}

fn file(rng: &mut Rng) -> &'static str {
    ["a/x", "b/x", "a/deep/y", "b/deep/y", "top"][rng.usize(..5)]
}

fn plant(root: &Path) -> std::io::Result<()> {
    for dir in ["a", "b"] {
        fs::create_dir_all(root.join(dir).join("deep"))?;
        fs::write(root.join(dir).join("x"), dir)?;
        fs::write(root.join(dir).join("deep/y"), dir)?;
        fs::write(root.join(dir).join("spare"), dir)?;
    }
    fs::copy("/bin/true", root.join("top"))?;
    symlink("a/x", root.join("link"))
}

/// One replacement by the host: of a file, a link, a program, or of whole directories.
fn replace(share: &Share, rng: &mut Rng, serial: u64) -> std::io::Result<()> {
    let (root, new) = (share.source(), share.stage().join(format!("new-{serial}")));
    match rng.u32(..8) {
        0 | 1 => rustix::fs::renameat_with(CWD, root.join("a"), CWD, root.join("b"), RenameFlags::EXCHANGE)?,
        2 => {
            symlink(["a/x", "b/x", "top"][rng.usize(..3)], &new)?;
            fs::rename(&new, root.join("link"))?;
        }
        3 => {
            fs::copy("/bin/true", &new)?;
            fs::rename(&new, root.join("top"))?;
        }
        _ => {
            let at = if rng.bool() { file(rng) } else { ["a/spare", "b/spare"][rng.usize(..2)] };
            if at == "top" {
                return Ok(());
            }
            fs::write(&new, format!("{serial}"))?;
            fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
            fs::rename(&new, root.join(at))?;
        }
    }
    Ok(())
}

/// Lets `threads` of the guest make `calls` each while the host replaces what they use, and now and then runs a program.
///
/// # Errors
/// When the tree cannot be made.
pub fn race(share: &Share, threads: u64, calls: u64, seed: u64) -> std::io::Result<Outcome> {
    plant(share.source())?;
    let (done, replacements) = (AtomicBool::new(false), AtomicU64::new(0));
    let root = share.mountpoint();
    let mut outcome = Outcome::default();
    std::thread::scope(|scope| {
        let host = scope.spawn(|| {
            let mut rng = Rng::with_seed(seed);
            while !done.load(Ordering::Relaxed) {
                let serial = replacements.fetch_add(1, Ordering::Relaxed);
                replace(share, &mut rng, serial)?;
            }
            Ok(())
        });
        let guests: Vec<_> = (1..=threads)
            .map(|thread| {
                scope.spawn(move || {
                    let mut rng = Rng::with_seed(seed.wrapping_add(thread));
                    let mut estale = Vec::new();
                    for call in 0..calls {
                        let (name, make) = CALLS[rng.usize(..CALLS.len())];
                        if make(root, &mut rng) == Err(Errno::STALE) {
                            estale.push(name);
                        }
                        if call.is_multiple_of(200) && is_stale(std::process::Command::new(root.join("top")).status()) {
                            estale.push("exec");
                        }
                        if call.is_multiple_of(200)
                            && is_stale(
                                std::process::Command::new("/bin/true").current_dir(root.join("a/deep")).status(),
                            )
                        {
                            estale.push("chdir");
                        }
                    }
                    estale
                })
            })
            .collect();
        for guest in guests {
            for name in guest.join().unwrap_or_else(|_| vec!["a thread panicked"]) {
                *outcome.estale.entry(name).or_default() += 1;
            }
        }
        done.store(true, Ordering::Relaxed);
        host.join().unwrap_or_else(|_| Err(std::io::Error::other("the host's thread panicked")))
    })?;
    outcome.calls = threads * calls;
    outcome.replacements = replacements.into_inner();
    Ok(outcome)
}

fn is_stale<T>(result: std::io::Result<T>) -> bool {
    result.err().and_then(|error| Errno::from_io_error(&error)) == Some(Errno::STALE)
}
