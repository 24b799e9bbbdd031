//! Torture of a vhost-user-fs daemon: seeded mutations of requests, of descriptor chains, of rings and of vhost-user
//! messages, many at once, against a daemon that must answer a right request between them and keep nothing afterwards.
//!
//! Everything follows from the seed, but for the order in which several queues answer. So what was done since a session
//! began is kept as well, and written to a file when the daemon fails: [`replay`] does it again.

mod chatter;
mod lane;
mod messages;
mod mutate;
mod patient;
mod place;
mod plan;
mod record;
mod session;
mod tally;
mod templates;
mod values;
mod world;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fastrand::Rng;
use fuse_abi::Opcode;

use self::chatter::Chatter;
use self::patient::Patient;
use self::place::Place;
use self::record::{Journal, Step};
use self::session::{Around, Session};
pub use self::tally::Tally;
use self::templates::Templates;
use self::values::{HostileNames, one_in};
use self::world::World;
use crate::error::{Error, Result};

/// Mutated requests between two checks.
const ROUND: u32 = 1000;
/// Steps of the record that are shown.
const SHOWN: usize = 3;

/// What to do to whom.
#[derive(Clone, Debug)]
pub struct Orders {
    /// The daemon.
    pub daemon: PathBuf,
    /// Its arguments beside the share, the socket, and those that the torture needs itself.
    pub args: Vec<String>,
    /// Where everything follows from.
    pub seed: u64,
    /// At least so many mutated requests,
    pub requests: u64,
    /// and at least so long.
    pub time: Duration,
    /// The directory in which the share is made.
    pub within: PathBuf,
    /// Where the record of a failure goes.
    pub record: PathBuf,
    /// How long a daemon may take to answer.
    pub limit: Duration,
    /// Request queues, where the daemon has more than one.
    pub queues: u16,
    /// Count deaths and go on, instead of ending at the first.
    pub keep_going: bool,
}

/// How it went.
#[derive(Debug)]
pub struct Report {
    /// Everything counted.
    pub tally: Tally,
    /// How long it took.
    pub time: Duration,
    /// What went wrong, in words; nothing when the daemon held.
    pub failures: Vec<String>,
    /// What the daemon held in the end.
    pub measure: String,
}

struct Run<'o> {
    orders: &'o Orders,
    place: Place,
    names: HostileNames,
    patient: Patient,
    chatter: Chatter,
    rng: Rng,
    tally: Tally,
    journal: Journal,
    examples: Vec<String>,
    failures: Vec<String>,
}

/// Tortures the daemon as ordered, and tells of it along the way.
///
/// # Errors
/// When the torture itself cannot be done; what the daemon does wrong is in the report.
pub fn run(orders: &Orders, tell: &mut dyn FnMut(&str)) -> Result<Report> {
    let start = Instant::now();
    let mut run = Run::new(orders)?;
    let mut told = start;
    while run.tally.mutated() < orders.requests || start.elapsed() < orders.time {
        let outcome = run.connection();
        if let Err(error) = outcome.or_else(|error| run.explain(error)) {
            let last = run.journal.steps().iter().rev().take(SHOWN).map(record::line);
            last.for_each(|step| tell(&format!("  last: {}", shorten(&step))));
            run.journal.save(&orders.record)?;
            run.failures.push(format!("{error}; seed {}, record in {}", orders.seed, orders.record.display()));
            run.patient.discard();
            if !orders.keep_going {
                break;
            }
        }
        if told.elapsed() > Duration::from_secs(15) {
            told = Instant::now();
            let rate = run.tally.mutated() as f64 / start.elapsed().as_secs_f64();
            tell(&format!("{} mutated, {rate:.0}/s, {}", run.tally.mutated(), run.patient.measure()));
        }
        run.place.renew()?;
    }
    let strays = run.place.strays()?;
    run.failures.extend(strays.into_iter().map(|stray| format!("outside the share: {stray}")));
    if run.tally.wrong > 0 {
        run.failures.push(format!("{} wrong replies, such as: {}", run.tally.wrong, run.examples.join("; ")));
    }
    let measure = run.patient.measure();
    Ok(Report { tally: run.tally, time: start.elapsed(), failures: run.failures, measure })
}

/// Does again what a record says, alone. The report tells how the daemon took it.
///
/// # Errors
/// When there is no such record or the daemon cannot be started.
pub fn replay(orders: &Orders, record: &Path) -> Result<Report> {
    let start = Instant::now();
    let recorded = Journal::load(record)?;
    let mut run = Run::new(orders)?;
    let stream = run.patient.connect()?;
    let says = recorded.steps().iter().any(|step| matches!(step, Step::Say(_)));
    let queues = run.patient.queues;
    let (chatter, mut around) = run.around();
    let outcome = if says {
        chatter.replay(stream, recorded.steps(), &mut around).map(drop)
    } else {
        Session::begin(stream, queues, &mut around)
            .and_then(|mut session| session.replay(recorded.steps(), &mut around))
    };
    let outcome = outcome.and_then(|()| run.after());
    if let Err(error) = outcome.or_else(|error| run.explain(error)) {
        let done = run.journal.steps().len();
        let step = recorded.steps().get(done).map_or_else(String::new, |step| shorten(&record::line(step)));
        run.failures.push(format!("{error}; after {done} of {} steps: {step}", recorded.steps().len()));
    }
    let measure = run.patient.measure();
    Ok(Report { tally: run.tally, time: start.elapsed(), failures: run.failures, measure })
}

fn shorten(text: &str) -> String {
    text.chars().take(300).collect()
}

impl<'o> Run<'o> {
    fn new(orders: &'o Orders) -> Result<Self> {
        let place = Place::new(&orders.within)?;
        let patient = Patient::new(&orders.daemon, &place.share(), orders.queues, &orders.args)?;
        Ok(Self {
            names: place.names(),
            place,
            patient,
            chatter: Chatter::new()?,
            rng: Rng::with_seed(orders.seed),
            tally: Tally::default(),
            journal: Journal::default(),
            examples: Vec::new(),
            failures: Vec::new(),
            orders,
        })
    }

    fn around(&mut self) -> (&Chatter, Around<'_>) {
        let around = Around {
            rng: &mut self.rng,
            names: &self.names,
            tally: &mut self.tally,
            journal: &mut self.journal,
            limit: self.orders.limit,
            examples: &mut self.examples,
        };
        (&self.chatter, around)
    }

    /// One connection of one kind, and a look at the daemon afterwards.
    fn connection(&mut self) -> Result<()> {
        if one_in(&mut self.rng, 3) { self.messages() } else { self.requests() }
    }

    /// A session of requests, with a check after each round.
    fn requests(&mut self) -> Result<()> {
        let stream = self.patient.connect()?;
        let queues = self.patient.queues;
        self.tally.sessions += 1;
        let (_, mut around) = self.around();
        let around = &mut around;
        let mut session = Session::begin(stream, queues, around)?;
        for _ in 0..around.rng.u32(2..24) {
            if one_in(around.rng, 8) {
                session.wild(around)?;
            }
            if !session.round(ROUND, around)? {
                break;
            }
            session.check(around)?;
        }
        session.leave(around)?;
        self.after()
    }

    /// Some connections of messages, and one of requests that shows whether the daemon still serves.
    fn messages(&mut self) -> Result<()> {
        for _ in 0..self.rng.u32(1..24) {
            let stream = self.patient.connect()?;
            self.tally.sessions += 1;
            let (chatter, mut around) = self.around();
            let said = chatter.talk(stream, &mut around)?;
            self.tally.messages += said;
            self.after()?;
        }
        let stream = self.patient.connect()?;
        let queues = self.patient.queues;
        self.tally.sessions += 1;
        let (_, mut around) = self.around();
        let mut session = Session::begin(stream, queues, &mut around)?;
        session.check(&mut around)?;
        session.leave(&mut around)?;
        self.after()
    }

    /// The front end has left.
    fn after(&mut self) -> Result<()> {
        self.patient.settle(self.orders.limit)
    }

    /// What an error means: that the daemon has died, that it hangs, or what it says itself.
    fn explain(&mut self, error: Error) -> Result<()> {
        let what = match self.patient.died()? {
            Some(how) => {
                self.tally.deaths += 1;
                format!("the daemon ended: {how} ({error})")
            }
            None => {
                self.tally.hangs += u64::from(matches!(error, Error::Timeout { .. } | Error::Hang(_)));
                format!("the daemon failed: {error}")
            }
        };
        Err(Error::Daemon(what))
    }
}

/// Requests that are right, `each` of every operation: seeds for whoever mutates them otherwise.
#[must_use]
pub fn samples(seed: u64, each: usize) -> Vec<Vec<u8>> {
    let (mut rng, mut templates, world) = (Rng::with_seed(seed), Templates::new(), World::default());
    let names = HostileNames::new(Path::new("around"), Path::new("around/share"));
    let operations = Opcode::ALL.iter().flat_map(|opcode| std::iter::repeat_n(*opcode, each));
    operations.map(|opcode| templates.request(opcode, &mut rng, &world, &names)).collect()
}
