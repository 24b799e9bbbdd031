//! A checker of cache coherence: host and guest act at random on one tree, and after each action that has finished, what
//! the guest sees is compared with what the host sees.
//!
//! The same look is taken at both sides by the same code ([`observe`]), so that any difference is the share's.

mod actions;
pub mod observe;
pub mod races;
mod share;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fastrand::Rng;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use actions::{Tree, Who};
use observe::{Look, Seen, look};
pub use share::{Share, Via};

/// How long a guest may trust attributes where nothing else was asked for, and then some.
const ATTRIBUTES: Duration = Duration::from_millis(1100);

/// What to check.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Actions, of the host and of the guest.
    pub steps: u32,
    /// The seed of everything random.
    pub seed: u64,
    /// Attributes are never kept: each `stat` is compared, not only what is opened or listed.
    pub strict: bool,
    /// The guest hears of changes: what it sees is compared once it has heard, and nothing is excused by a timeout.
    pub hears: bool,
    /// Read files through mappings too. Not with a server that may be stale: a page beyond the true end kills the reader.
    pub map: bool,
}

/// Something the guest saw that was not so.
#[derive(Clone, Debug)]
pub struct Violation {
    /// After which action.
    pub step: u32,
    /// The action.
    pub action: String,
    /// How it was looked at.
    pub look: Look,
    /// Where: a path, and from which directory.
    pub place: String,
    /// What the guest saw.
    pub guest: Seen,
    /// What the host saw.
    pub host: Seen,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, action, look, place, guest, host } = self;
        write!(f, "step {step}: after {action}: {look:?} {place}: guest {guest}, host {host}")
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Actions of the host.
    pub host_actions: u32,
    /// Actions of the guest.
    pub guest_actions: u32,
    /// Comparisons.
    pub looks: u64,
    /// Differences.
    pub violations: Vec<Violation>,
    /// Differences that are documented to last until a timeout: a name believed to be there that has gone, and a walk
    /// through a name that was a file.
    pub bounded: u64,
    /// How often a program in the guest was told ESTALE.
    pub estale: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host_actions, guest_actions, looks, violations, bounded, estale } = self;
        let stale = violations.len();
        write!(
            f,
            "{host_actions} host + {guest_actions} guest actions, {looks} looks, {stale} stale, {bounded} within a \
             timeout, {estale} ESTALE"
        )
    }
}

/// A directory that both sides hold, by which paths are walked that no longer lead there: as a working directory is.
struct Held {
    name: PathBuf,
    guest: OwnedFd,
    host: OwnedFd,
}

struct Checker<'s> {
    plan: &'s Plan,
    share: &'s Share,
    rng: Rng,
    held: Vec<Held>,
    /// Files kept open in the guest while the host changes them.
    files: Vec<OwnedFd>,
    report: Report,
}

/// Runs a plan on a share that is mounted and empty.
#[must_use]
pub fn check(share: &Share, plan: &Plan) -> Report {
    let checker = Checker {
        plan,
        share,
        rng: Rng::with_seed(plan.seed),
        held: Vec::new(),
        files: Vec::new(),
        report: Report::default(),
    };
    checker.run()
}

impl Checker<'_> {
    fn run(mut self) -> Report {
        let host = Tree::new(self.share.source(), self.share.stage(), Who::Host);
        let guest = Tree::new(self.share.mountpoint(), self.share.mountpoint(), Who::Guest);
        host.plant(&mut self.rng);
        for step in 1..=self.plan.steps {
            let by_host = self.rng.u32(..3) != 0;
            let tree = if by_host { &host } else { &guest };
            // What the guest may be told of the host's latest change is told by what it does: its own error is a look.
            let done = tree.act(&mut self.rng, step);
            if by_host {
                self.report.host_actions += 1;
            } else {
                self.report.guest_actions += 1;
            }
            if done.error == Some(Errno::STALE) {
                self.report.estale += 1;
            }
            if self.plan.hears {
                self.share.await_word();
                // The guest hears of what happens in directories that it has looked into.
                self.visit(&mut self.share.mountpoint().to_owned());
            }
            self.after(step, &done.text, &done.paths);
        }
        self.report
    }

    /// Has the guest look into every directory there is.
    fn visit(&self, dir: &mut PathBuf) {
        for entry in std::fs::read_dir(&*dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                dir.push(entry.file_name());
                self.visit(dir);
                dir.pop();
            }
        }
    }

    fn after(&mut self, step: u32, action: &str, paths: &[PathBuf]) {
        let mut places: Vec<PathBuf> = paths.to_vec();
        for _ in 0..3 {
            places.push(actions::any_path(&mut self.rng));
        }
        for path in &places {
            self.look_from_root(step, action, path);
        }
        if self.rng.u32(..4) == 0 {
            self.look_by_many(step, action, &places);
        }
        self.look_from_held(step, action);
        self.hold(&places);
        if step.is_multiple_of(400) && !self.plan.strict {
            // Names of files that are held open may be believed for longer.
            self.files.clear();
            std::thread::sleep(ATTRIBUTES);
            let all = actions::all_paths();
            for path in &all {
                self.compare(
                    step,
                    action,
                    Look::Stat,
                    (CWD, self.share.mountpoint()),
                    (CWD, self.share.source()),
                    path,
                );
            }
        }
    }

    fn look_from_root(&mut self, step: u32, action: &str, path: &Path) {
        let (guest, host) = ((CWD, self.share.mountpoint()), (CWD, self.share.source()));
        let looks: &[Look] = match (self.plan.strict, self.rng.bool()) {
            (true, true) => &[Look::Stat, Look::Open],
            (true, false) => &[Look::Open, Look::Stat, Look::Link],
            (false, true) => &[Look::Open, Look::Found],
            (false, false) => &[Look::Found, Look::Open],
        };
        let mapped = self.rng.u32(..4) == 0 && self.plan.map;
        for look in looks {
            let look = if mapped && *look == Look::Open { Look::Map } else { *look };
            self.compare(step, action, look, guest, host, path);
        }
    }

    /// Several threads look at once, each for itself.
    fn look_by_many(&mut self, step: u32, action: &str, places: &[PathBuf]) {
        let mountpoint = self.share.mountpoint();
        let seen: Vec<Vec<Seen>> = std::thread::scope(|scope| {
            let look_all = || places.iter().map(|path| look(CWD, &mountpoint.join(path), Look::Open)).collect();
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(look_all)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_default()).collect()
        });
        for (index, path) in places.iter().enumerate() {
            let host = look(CWD, &self.share.source().join(path), Look::Open);
            for guest in seen.iter().filter_map(|thread| thread.get(index)) {
                self.judge(step, action, Look::Open, path.display().to_string(), guest.clone(), host.clone());
            }
        }
    }

    /// Looks from directories that may have been moved or removed since: relative paths lead where the directory went.
    fn look_from_held(&mut self, step: u32, action: &str) {
        let held = std::mem::take(&mut self.held);
        for place in &held {
            let name = Path::new(actions::any_name(&mut self.rng));
            let deeper = Path::new(actions::any_name(&mut self.rng)).join(actions::any_name(&mut self.rng));
            for path in [Path::new("."), name, &deeper] {
                let how = if self.plan.strict && self.rng.bool() { Look::Stat } else { Look::Open };
                let (guest, host) = (look(place.guest.as_fd(), path, how), look(place.host.as_fd(), path, how));
                let place = format!("{} from the held {}", path.display(), place.name.display());
                self.judge(step, action, how, place, guest, host);
            }
        }
        self.held = held;
    }

    fn hold(&mut self, places: &[PathBuf]) {
        if (!self.plan.strict || self.plan.hears) && self.rng.u32(..8) == 0 {
            let file = actions::any_path(&mut self.rng);
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            self.files.extend(rustix::fs::open(self.share.mountpoint().join(file), flags, Mode::empty()));
        }
        if self.files.len() > 6 {
            let file = self.files.swap_remove(self.rng.usize(..self.files.len()));
            self.report.looks += 1;
            if rustix::fs::fstat(&file).err() == Some(Errno::STALE) {
                self.report.estale += 1;
            }
        }
        if self.rng.u32(..10) == 0
            && let Some(path) = places.first()
        {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let open = |root: &Path| rustix::fs::open(root.join(path), flags, Mode::empty());
            if let (Ok(guest), Ok(host)) = (open(self.share.mountpoint()), open(self.share.source())) {
                // An O_PATH walk may have used names within their time: only a true pair can be compared later.
                let same =
                    look(guest.as_fd(), Path::new("."), Look::Open) == look(host.as_fd(), Path::new("."), Look::Open);
                if same && ino(&guest) == ino(&host) {
                    self.held.push(Held { name: path.clone(), guest, host });
                }
            }
        }
        if self.held.len() > 3 {
            self.held.remove(0);
        }
    }

    fn compare(
        &mut self,
        step: u32,
        action: &str,
        how: Look,
        guest: (BorrowedFd<'_>, &Path),
        host: (BorrowedFd<'_>, &Path),
        path: &Path,
    ) {
        let (there, here) = (look(guest.0, &guest.1.join(path), how), look(host.0, &host.1.join(path), how));
        self.judge(step, action, how, path.display().to_string(), there, here);
    }

    fn judge(&mut self, step: u32, action: &str, look: Look, place: String, guest: Seen, host: Seen) {
        self.report.looks += 1;
        if guest == Seen::Error(Errno::STALE) {
            self.report.estale += 1;
        }
        // A name that was there a moment ago may be believed for the attributes' time; one that is there must be found.
        let bounded = (look == Look::Found && host != Seen::Present) || hidden_by_a_file(&guest, &host);
        let bounded = bounded && !self.plan.hears;
        // The directory has gone, or is no directory: either way nothing is there.
        let nothing = guest == Seen::Absent && host == Seen::Error(Errno::NOTDIR);
        let bounded = bounded || nothing;
        if guest != host && bounded && !nothing {
            self.report.bounded += 1;
        }
        if guest != host && !bounded {
            self.report.violations.push(Violation { step, action: action.into(), look, place, guest, host });
        }
    }
}

/// A walk through a name that the guest knows as a file ends in the guest's kernel: no server hears of it, and only the
/// time of names bounds it.
fn hidden_by_a_file(guest: &Seen, host: &Seen) -> bool {
    *guest == Seen::Error(Errno::NOTDIR) && *host != *guest
}

fn ino(fd: &OwnedFd) -> Option<u64> {
    rustix::fs::fstat(fd).ok().map(|found| found.st_ino)
}
