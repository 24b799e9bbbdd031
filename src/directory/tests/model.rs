//! Random changes against random readers, held against a model of what each reader must and must not see.
//!
//! The model knows, for every name, when its creation and its removal began and when they were acknowledged. A reader
//! may jump back to any cookie it was handed; what it saw up to there and what it sees from there make one scan. Names
//! are never used again once they are gone, so that seeing one twice is always an error.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use super::fixture::{Fixture, How, Place, Seen, read, suite};
use crate::directory::DirStream;

suite! {
    random_schedules_keep_every_promise,
    random_threads_keep_every_promise;
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }
}

fn seed(what: &str) -> u64 {
    let seed = env::var("FERRYFS_SEED").map_or(0x0fe2_27f5, |given| given.parse().expect("FERRYFS_SEED is a number"));
    println!("{what}: FERRYFS_SEED={seed}");
    seed
}

/// When a name came and went. `u64::MAX`: not yet.
#[derive(Clone, Copy, Debug)]
struct Life {
    creating: u64,
    created: u64,
    removing: u64,
    removed: u64,
    /// The host's file system may move its entry once in mid-scan, so that it is missed.
    moves: bool,
}

const NEVER: u64 = u64::MAX;

impl Life {
    const fn begun(now: u64) -> Self {
        Self { creating: now, created: NEVER, removing: NEVER, removed: NEVER, moves: false }
    }
}

/// The directory, and the life of every name in it.
struct Model {
    fixture: Fixture,
    place: Place,
    lives: Mutex<BTreeMap<String, Life>>,
    clock: AtomicU64,
    names: AtomicUsize,
}

impl Model {
    fn new(how: How, place: Place, permanent: usize) -> Self {
        let fixture = Fixture::new(how, place);
        let model =
            Self { fixture, place, lives: Mutex::default(), clock: AtomicU64::new(1), names: AtomicUsize::new(0) };
        // ext4 gives the dots other hashes when the directory outgrows its first block.
        let life = Life { created: 0, moves: model.host_moves(Place::Disk), ..Life::begun(0) };
        model.lives.lock().unwrap().extend([".", ".."].map(|dot| (dot.to_owned(), life)));
        (0..permanent).for_each(|_| drop(model.create()));
        model
    }

    /// Whether the stream depends on what this file system does with its cookies.
    fn host_moves(&self, place: Place) -> bool {
        matches!(self.fixture.how, How::Getdents | How::GetdentsForAll) && self.place == place
    }

    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn new_name(&self) -> String {
        // Of many lengths, so that blocks end everywhere.
        let number = self.names.fetch_add(1, Ordering::SeqCst);
        format!("{number:05}{}", "x".repeat(number * 7 % 90))
    }

    fn begin(&self, name: &str) {
        let life = Life::begun(self.now());
        self.lives.lock().unwrap().insert(name.to_owned(), life);
    }

    fn mark(&self, name: &str, mark: impl FnOnce(&mut Life, u64)) {
        mark(self.lives.lock().unwrap().get_mut(name).unwrap(), self.now());
    }

    fn create(&self) -> String {
        let name = self.new_name();
        self.begin(&name);
        self.fixture.create(&name);
        self.mark(&name, |life, now| life.created = now);
        name
    }

    fn unlink(&self, name: &str) {
        self.mark(name, |life, now| life.removing = now);
        self.fixture.unlink(name);
        self.mark(name, |life, now| life.removed = now);
    }

    fn rename(&self, from: &str) -> String {
        let to = self.new_name();
        self.begin(&to);
        self.mark(from, |life, now| life.removing = now);
        self.fixture.rename(from, &to);
        self.mark(&to, |life, now| life.created = now);
        self.mark(from, |life, now| life.removed = now);
        to
    }

    /// Puts another file in the place of a name, which is there at every moment.
    fn replace(&self, name: &str) {
        // tmpfs repeats entries then, to any local reader too: see the module of the stream.
        if self.host_moves(Place::Tmpfs) {
            return;
        }
        let new = self.fixture.elsewhere(&format!("for-{name}"));
        File::create(&new).unwrap();
        self.fixture.change(|| fs::rename(&new, self.fixture.path(name)));
    }

    /// One random change; `own` are the names that this caller may take away.
    fn change(&self, random: &mut Random, own: &mut Vec<String>) {
        let chosen = if own.is_empty() { 0 } else { random.below(own.len()) };
        match random.below(10) {
            0..4 if own.len() < 50 => own.push(self.create()),
            _ if own.is_empty() => {}
            0..7 => self.unlink(&own.swap_remove(chosen)),
            7..9 => own[chosen] = self.rename(&own[chosen]),
            _ => self.replace(&own[chosen]),
        }
    }

    /// What must be in a scan that ran between these times, and that nothing else is.
    fn check(&self, seen: &[Seen], began: u64, ended: u64, context: &str) {
        let context = &format!(
            "{context}\n{}",
            seen.iter().map(|e| format!("{:.5}@{:x}", e.name, e.next)).collect::<Vec<_>>().join(" ")
        );
        let mut counts = BTreeMap::<&str, usize>::new();
        seen.iter().for_each(|entry| *counts.entry(&entry.name).or_default() += 1);
        let lives = self.lives.lock().unwrap();
        for (name, life) in lives.iter() {
            let count = counts.remove(name.as_str()).unwrap_or(0);
            if life.created < began && life.removing > ended && !life.moves {
                assert_eq!(count, 1, "{context}: {name} was there throughout: {life:?}, {began} to {ended}");
            } else if life.removed < began || life.creating > ended {
                assert_eq!(count, 0, "{context}: {name} was not there at all: {life:?}, {began} to {ended}");
            } else {
                assert!(count <= 1, "{context}: {name} came {count} times");
            }
        }
        assert!(counts.is_empty(), "{context}: names that never were: {counts:?}");
    }
}

/// One reader and the scan it is in.
struct Reader<'a> {
    model: &'a Model,
    stream: &'a dyn DirStream,
    random: Random,
    seen: Vec<Seen>,
    began: u64,
    scans: usize,
    context: String,
}

impl<'a> Reader<'a> {
    fn new(model: &'a Model, stream: &'a dyn DirStream, seed: u64, context: String) -> Self {
        Self { model, stream, random: Random(seed), seen: Vec::new(), began: 0, scans: 0, context }
    }

    /// One read, now and then after a jump back or a rewind. At the end the scan is checked, and some are gone on with.
    fn step(&mut self) {
        let end = match self.random.below(50) {
            0 => {
                self.seen.clear();
                self.read()
            }
            1..4 if !self.seen.is_empty() => {
                let back = 1 + self.random.below(self.seen.len());
                self.seen.truncate(back);
                self.read()
            }
            _ => self.read(),
        };
        if end {
            let ended = self.model.now();
            self.model.check(&self.seen, self.began, ended, &self.context);
            self.scans += 1;
            // After the end: back to where any entry was, or to the start.
            let keep = if self.random.below(3) == 0 { self.random.below(self.seen.len() + 1) } else { 0 };
            self.seen.truncate(keep);
        }
    }

    /// Whether that was the end.
    fn read(&mut self) -> bool {
        let cookie = self.seen.last().map_or(0, |last| last.next);
        if cookie == 0 {
            self.began = self.model.now();
        }
        let room = [1, 1, 2, 3, 5, 8, 40][self.random.below(7)];
        let some = read(self.stream, cookie, room).unwrap();
        let end = some.is_empty();
        self.seen.extend(some);
        end
    }
}

/// One thread does everything in an order that the seed decides: what fails can be run again.
fn random_schedules_keep_every_promise(how: How, place: Place) {
    let seed = seed("schedules");
    let mut scans = 0;
    for round in 0..40 {
        let mut random = Random(seed ^ (round << 32));
        // One that stays at the far end: without it tmpfs starts over when the last entries go (see `getdents`).
        let permanent = 1 + random.below(60);
        let model = Model::new(how, place, permanent);
        let [shared, own] = [model.fixture.open(), model.fixture.open()];
        let context = |reader: &str| format!("seed {seed}, round {round}, {reader}");
        let mut readers = [
            Reader::new(&model, &*shared, random.next(), context("one of two on a handle")),
            Reader::new(&model, &*shared, random.next(), context("the other on that handle")),
            Reader::new(&model, &*own, random.next(), context("alone on a handle")),
        ];
        let mut names = Vec::new();
        for _ in 0..1_000 {
            match random.below(5) {
                0 | 1 => model.change(&mut random, &mut names),
                _ => readers[random.below(3)].step(),
            }
        }
        scans += readers.iter().map(|reader| reader.scans).sum::<usize>();
    }
    println!("{scans} scans of 120 readers");
    assert!(scans > 1_000, "only {scans} scans came to their end");
}

/// Threads that change the directory, against threads that read it, two of them by one handle.
fn random_threads_keep_every_promise(how: How, place: Place) {
    let seed = seed("threads");
    let model = Model::new(how, place, 70);
    let [shared, own] = [model.fixture.open(), model.fixture.open()];
    let (reading, steps) = (AtomicUsize::new(3), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for (number, stream) in [&shared, &shared, &own].into_iter().enumerate() {
            let (model, reading, steps) = (&model, &reading, &steps);
            let mut reader = Reader::new(model, &**stream, seed + number as u64, format!("seed {seed}, {number}"));
            scope.spawn(move || {
                // Lets the others end too when a check fails.
                let _done = Done(reading);
                while reader.scans < 250 {
                    reader.step();
                    steps.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for number in 0..2 {
            let (model, reading, steps) = (&model, &reading, &steps);
            scope.spawn(move || {
                let (mut random, mut names, mut changes) = (Random(seed + 100 + number), Vec::new(), 0);
                // As many changes as reads, each at a moment of its own.
                while reading.load(Ordering::SeqCst) > 0 {
                    if changes < steps.load(Ordering::SeqCst) {
                        model.change(&mut random, &mut names);
                        changes += 1;
                    } else {
                        std::thread::yield_now();
                    }
                }
            });
        }
    });
}

struct Done<'a>(&'a AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
