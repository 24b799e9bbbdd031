//! A checker of cache coherence: host and guest act at random on one tree, and after each action that has finished, what
//! the guest sees is compared with what the host sees.
//!
//! The same look is taken at both sides by the same code ([`observe`]), so that any difference is the share's. The guest
//! is this machine's kernel client, or another machine that runs the same program ([`remote`]).

mod actions;
pub mod observe;
pub mod races;
pub mod remote;
mod share;
pub mod side;

use std::path::{Path, PathBuf};
use std::{fmt, io};

use fastrand::Rng;
use rustix::io::Errno;

pub use actions::Who;
use observe::{Look, Seen};
pub use share::{Share, Via, eventually};
use side::{Glance, Local, Request, Side};

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

/// Looks by one thread, and by this many at once now and then.
const MANY: usize = 3;

struct Checker<'s> {
    plan: &'s Plan,
    host: Local,
    guest: &'s mut dyn Side,
    /// Waits until the guest has heard of all that the host did.
    await_word: &'s dyn Fn(),
    rng: Rng,
    /// Directories that both sides hold, by which paths are walked that no longer lead there: as a working directory is.
    held: Vec<(u32, PathBuf)>,
    /// Files kept open in the guest while the host changes them.
    files: Vec<u32>,
    /// The last number that something was kept by.
    numbers: u32,
    /// The latest action and what it was.
    step: u32,
    action: String,
    report: Report,
}

/// Runs a plan on a share that is mounted here and empty.
///
/// # Errors
/// Never: the guest is this machine.
pub fn check(share: &Share, plan: &Plan) -> io::Result<Report> {
    let mut guest = Local::new(share.mountpoint(), share.mountpoint(), Who::Guest);
    let host = Local::new(share.source(), share.stage(), Who::Host);
    check_sides(host, &mut guest, &|| share.await_word(), plan)
}

/// Runs a plan on an empty share that `guest` has mounted.
///
/// # Errors
/// When the guest does not answer.
pub fn check_sides(host: Local, guest: &mut dyn Side, await_word: &dyn Fn(), plan: &Plan) -> io::Result<Report> {
    let checker = Checker {
        plan,
        host,
        guest,
        await_word,
        rng: Rng::with_seed(plan.seed),
        held: Vec::new(),
        files: Vec::new(),
        numbers: 0,
        step: 0,
        action: String::new(),
        report: Report::default(),
    };
    checker.run()
}

impl Checker<'_> {
    fn run(mut self) -> io::Result<Report> {
        self.host.plant(&mut self.rng);
        for step in 1..=self.plan.steps {
            let by_host = self.rng.u32(..3) != 0;
            let act = Request::Act(self.rng.u64(..), step);
            // What the guest may be told of the host's latest change is told by what it does: its own error is a look.
            let done = if by_host { self.host.ask(&act)? } else { self.guest.ask(&act)? }.done;
            if by_host {
                self.report.host_actions += 1;
            } else {
                self.report.guest_actions += 1;
            }
            self.report.estale += u64::from(done.estale);
            if self.plan.hears {
                (self.await_word)();
                // The guest hears of what happens in directories that it has looked into.
                self.guest.ask(&Request::Visit)?;
            }
            (self.step, self.action) = (step, done.text);
            self.after(done.paths)?;
        }
        Ok(self.report)
    }

    fn after(&mut self, mut places: Vec<PathBuf>) -> io::Result<()> {
        for _ in 0..3 {
            places.push(actions::any_path(&mut self.rng));
        }
        let from_root: Vec<_> = places.iter().flat_map(|path| self.looks_at(path)).collect();
        self.compare(&from_root)?;
        if self.rng.u32(..4) == 0 {
            self.look_by_many(&places)?;
        }
        let from_held = self.looks_from_held();
        self.compare(&from_held)?;
        self.hold(&places)?;
        if self.step.is_multiple_of(400) && !self.plan.strict {
            // Names of files that are held open may be believed for longer.
            self.guest.ask(&Request::Close(std::mem::take(&mut self.files)))?;
            self.guest.ask(&Request::Outlast)?;
            let stat = |path| Glance { from: None, path, how: Look::Stat };
            self.compare(&actions::all_paths().into_iter().map(stat).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn looks_at(&mut self, path: &Path) -> Vec<Glance> {
        let looks: &[Look] = match (self.plan.strict, self.rng.bool()) {
            (true, true) => &[Look::Stat, Look::Open],
            (true, false) => &[Look::Open, Look::Stat, Look::Link],
            (false, true) => &[Look::Open, Look::Found],
            (false, false) => &[Look::Found, Look::Open],
        };
        let mapped = self.rng.u32(..4) == 0 && self.plan.map;
        let how = |look| if mapped && look == Look::Open { Look::Map } else { look };
        looks.iter().map(|look| Glance { from: None, path: path.to_owned(), how: how(*look) }).collect()
    }

    /// From directories that may have been moved or removed since: relative paths lead where the directory went.
    fn looks_from_held(&mut self) -> Vec<Glance> {
        let mut looks = Vec::new();
        for (number, _) in &self.held {
            let name = actions::any_name(&mut self.rng).into();
            let deeper = Path::new(actions::any_name(&mut self.rng)).join(actions::any_name(&mut self.rng));
            for path in [".".into(), name, deeper] {
                let how = if self.plan.strict && self.rng.bool() { Look::Stat } else { Look::Open };
                looks.push(Glance { from: Some(*number), path, how });
            }
        }
        looks
    }

    /// The guest looks, and then the host: nobody acts meanwhile.
    fn compare(&mut self, glances: &[Glance]) -> io::Result<()> {
        let request = Request::Look(glances.to_vec());
        let (guest, host) = (self.guest.ask(&request)?.seen, self.host.ask(&request)?.seen);
        all_answered(guest.len(), glances.len())?;
        for (glance, (guest, host)) in glances.iter().zip(guest.into_iter().zip(host)) {
            self.judge(glance, guest, host);
        }
        Ok(())
    }

    /// Several threads of the guest look at once, each for itself.
    fn look_by_many(&mut self, places: &[PathBuf]) -> io::Result<()> {
        let guest = self.guest.ask(&Request::LookByMany(MANY, places.to_vec()))?.seen;
        let host = self.host.ask(&Request::LookByMany(1, places.to_vec()))?.seen;
        all_answered(guest.len(), places.len() * MANY)?;
        for (guest, (path, host)) in guest.into_iter().zip(places.iter().zip(&host).cycle()) {
            self.judge(&Glance { from: None, path: path.clone(), how: Look::Open }, guest, host.clone());
        }
        Ok(())
    }

    fn hold(&mut self, places: &[PathBuf]) -> io::Result<()> {
        if (!self.plan.strict || self.plan.hears) && self.rng.u32(..8) == 0 {
            let (number, path) = (self.number(), actions::any_path(&mut self.rng));
            if self.guest.ask(&Request::Open(number, path))?.seen == [Seen::Present] {
                self.files.push(number);
            }
        }
        if self.files.len() > 6 {
            let number = self.files.swap_remove(self.rng.usize(..self.files.len()));
            self.report.looks += 1;
            let seen = self.guest.ask(&Request::Fstat(number))?.seen;
            self.report.estale += u64::from(seen == [Seen::Error(Errno::STALE)]);
            self.guest.ask(&Request::Close(vec![number]))?;
        }
        if self.rng.u32(..10) == 0
            && let Some(path) = places.first()
        {
            let number = self.number();
            let hold = Request::Hold(number, path.clone());
            let (guest, host) = (self.guest.ask(&hold)?.seen, self.host.ask(&hold)?.seen);
            // An O_PATH walk may have used names within their time: only a true pair can be compared later.
            if guest == host && matches!(guest[..], [Seen::Directory(..)]) {
                self.held.push((number, path.clone()));
            } else {
                self.let_go(number)?;
            }
        }
        if self.held.len() > 3 {
            let (number, _) = self.held.remove(0);
            self.let_go(number)?;
        }
        Ok(())
    }

    fn let_go(&mut self, number: u32) -> io::Result<()> {
        let close = Request::Close(vec![number]);
        self.guest.ask(&close)?;
        self.host.ask(&close).map(drop)
    }

    fn number(&mut self) -> u32 {
        self.numbers += 1;
        self.numbers
    }

    fn judge(&mut self, at: &Glance, guest: Seen, host: Seen) {
        self.report.looks += 1;
        if guest == Seen::Error(Errno::STALE) {
            self.report.estale += 1;
        }
        // A name that was there a moment ago may be believed for the attributes' time; one that is there must be found.
        let bounded = (at.how == Look::Found && host != Seen::Present) || hidden_by_a_file(&guest, &host);
        let bounded = bounded && !self.plan.hears;
        // The directory has gone, or is no directory: either way nothing is there.
        let nothing = guest == Seen::Absent && host == Seen::Error(Errno::NOTDIR);
        if guest == host || nothing {
            return;
        }
        if bounded {
            self.report.bounded += 1;
            return;
        }
        let (step, action, look, place) = (self.step, self.action.clone(), at.how, self.describe(at));
        self.report.violations.push(Violation { step, action, look, place, guest, host });
    }

    fn describe(&self, at: &Glance) -> String {
        let from = self.held.iter().find(|(number, _)| Some(*number) == at.from);
        let from = from.map(|(_, name)| format!(" from the held {}", name.display()));
        format!("{}{}", at.path.display(), from.unwrap_or_default())
    }
}

/// A guest that leaves out answers would pass for one that sees the truth.
fn all_answered(seen: usize, asked: usize) -> io::Result<()> {
    if seen == asked { Ok(()) } else { Err(io::Error::other(format!("{seen} answers to {asked} looks"))) }
}

/// A walk through a name that the guest knows as a file ends in the guest's kernel: no server hears of it, and only the
/// time of names bounds it.
fn hidden_by_a_file(guest: &Seen, host: &Seen) -> bool {
    *guest == Seen::Error(Errno::NOTDIR) && *host != *guest
}
