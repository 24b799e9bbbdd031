//! Any byte string gives a reply, silence or a counted drop: no panic, and no byte beyond the room.
//!
//! `FERRYFS_SEED` and `FERRYFS_ROUNDS` repeat and lengthen a run.

use ferryfs::protocol::{GuestArch, Options, Served, Server};

use crate::golden::GOLDEN;
use crate::guest::{bytes, init, message, send, send_cut};
use crate::recorder::Recorder;

/// The generator of Marsaglia's xorshift family; any seed but 0.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 11) as usize % bound.max(1)
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// Values that lie on the edge of something.
const EDGES: [u64; 12] =
    [0, 1, 7, 8, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, 0x8000_0000_0000_0000, u64::MAX];

fn mutate(random: &mut Random, whole: &mut Vec<u8>) {
    for _ in 0..random.below(6) {
        let at = random.below(whole.len());
        match random.below(6) {
            0 if !whole.is_empty() => whole[at] ^= 1 << random.below(8),
            1 if !whole.is_empty() => whole[at] = random.next() as u8,
            2 => whole.truncate(at),
            3 => {
                let tail: Vec<u8> = (0..random.below(40)).map(|_| random.next() as u8).collect();
                whole.splice(at..at, tail);
            }
            4 if whole.len() > at + 8 => {
                let (edge, len) = (EDGES[random.below(EDGES.len())], [1, 2, 4, 8][random.below(4)]);
                whole[at..at + len].copy_from_slice(&edge.to_ne_bytes()[..len]);
            }
            _ if whole.len() > 48 => {
                // A field of the header or the first of the body.
                let edge = EDGES[random.below(EDGES.len())] as u32;
                let at = [4, 36, 40, 44][random.below(4)];
                whole[at..at + 4].copy_from_slice(&edge.to_ne_bytes());
            }
            _ => {}
        }
    }
    // Most get past the first check.
    if whole.len() >= 4 && !random.one_in(4) {
        let len = whole.len() as u32;
        whole[..4].copy_from_slice(&len.to_ne_bytes());
    }
}

#[test]
fn mutated_requests_are_answered_within_their_room() {
    let seed = number("FERRYFS_SEED", 0x5eed_f00d);
    let rounds = number("FERRYFS_ROUNDS", 100_000);
    println!("seed {seed}, {rounds} rounds");
    let mut random = Random(seed.max(1));
    let quiet = || Recorder { quiet: true, ..Recorder::default() };
    let servers = [false, true].map(|read_only| Server::new(quiet(), Options { read_only, arch: GuestArch::Generic }));
    servers.iter().for_each(|server| assert_eq!(send(server, &init()).error(), 0));
    let mut corpus: Vec<Vec<u8>> = GOLDEN
        .iter()
        .map(|golden| message(golden.operation.number(), golden.extensions, &bytes(golden.request)))
        .collect();
    corpus.extend([init(), message(38, 0, &[])]);
    let (mut good, mut errors, mut silent, mut dropped) = (0, 0, 0, 0);
    for round in 0..rounds {
        let mut whole = if random.one_in(50) {
            (0..random.below(200)).map(|_| random.next() as u8).collect()
        } else {
            corpus[random.below(corpus.len())].clone()
        };
        mutate(&mut random, &mut whole);
        let room = if random.one_in(3) { random.below(200) } else { random.below(5000) };
        let cuts: Vec<usize> = (0..random.below(6)).map(|_| random.below(70)).collect();
        let server = &servers[random.below(2)];
        let answer = send_cut(server, &whole, room, &cuts, random.one_in(2));
        match answer.served {
            Served::Reply(_) if answer.error() == 0 => good += 1,
            Served::Reply(_) => errors += 1,
            Served::Silent => silent += 1,
            Served::Dropped(_) => dropped += 1,
            Served::WouldBlock => panic!("round {round}"),
        }
        if server.agreement().is_none() && random.one_in(20) {
            assert_eq!(send(server, &init()).error(), 0, "round {round}");
        }
    }
    println!("{good} good, {errors} errors, {silent} silent, {dropped} dropped");
    // A run that reaches only one of the outcomes tests nothing.
    assert!([good, errors, silent, dropped].iter().all(|count| *count > rounds / 1000));
}
