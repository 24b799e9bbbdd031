//! Changes to the bytes of a request that was right.

use fastrand::Rng;
use fuse_abi::{InHeader, Opcode};
use zerocopy::FromBytes;

use super::templates::HEADER;
use super::values::{edge, one_in};

/// What changes may need beside the request.
pub(super) struct Stock<'s> {
    /// A request of another kind, to graft from.
    pub(super) other: &'s [u8],
    /// The longest request that a slot takes.
    pub(super) most: usize,
}

/// Changes at least one thing in a request, keeps it within the slot, and in most cases makes its length right again,
/// so that it passes the first check.
pub(super) fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>, stock: &Stock<'_>) {
    let unmutated = bytes.clone();
    loop {
        // One change leads deeper than many.
        let changes = if one_in(rng, 4) { rng.u8(1..=4) } else { 1 };
        for _ in 0..changes {
            change(rng, bytes, stock);
        }
        bytes.truncate(stock.most);
        if !one_in(rng, 6) {
            correct_length(bytes);
        }
        if *bytes != unmutated && !(ends_session(bytes) && !ends_session(&unmutated) && !one_in(rng, 32)) {
            return;
        }
        bytes.clone_from(&unmutated);
    }
}

/// Makes the header's length that of the request.
pub(super) fn correct_length(bytes: &mut [u8]) {
    let len = bytes.len() as u32;
    if let Some(place) = bytes.first_chunk_mut() {
        *place = len.to_ne_bytes();
    }
}

/// The header, where it is whole.
pub(super) fn header(bytes: &[u8]) -> Option<InHeader> {
    InHeader::read_from_prefix(bytes).ok().map(|(header, _)| header)
}

/// Whether it begins or ends a session.
pub(super) fn ends_session(bytes: &[u8]) -> bool {
    header(bytes).is_some_and(|header| [Opcode::Init.number(), Opcode::Destroy.number()].contains(&header.opcode))
}

fn change(rng: &mut Rng, bytes: &mut Vec<u8>, stock: &Stock<'_>) {
    let len = bytes.len().max(1);
    match rng.u8(..24) {
        // A field of the body: they are 4 or 8 bytes and aligned.
        0..14 => {
            let width = if rng.bool() { 4 } else { 8 };
            let fields = (len - HEADER.min(len)).min(64) / width;
            let at = HEADER + width * rng.usize(..fields.max(1));
            put(bytes, at, &edge(rng).to_ne_bytes()[..width]);
        }
        // A field of the header: len, opcode, unique, nodeid, uid, gid, pid, extensions.
        14..17 => {
            const FIELDS: [(usize, usize); 8] = [(0, 4), (4, 4), (8, 8), (16, 8), (24, 4), (28, 4), (32, 4), (36, 2)];
            let (at, width) = FIELDS[rng.usize(..FIELDS.len())];
            let value = match at {
                4 if !one_in(rng, 8) => rng.u64(..56),
                16 if rng.bool() => rng.u64(..64),
                36 => rng.u64(..8),
                _ => edge(rng),
            };
            put(bytes, at, &value.to_ne_bytes()[..width]);
        }
        17 => {
            let at = rng.usize(..len);
            put(bytes, at, &[rng.u8(..)]);
        }
        18 => {
            let at = rng.usize(..len);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << rng.u8(..8);
            }
        }
        19 => bytes.truncate(rng.usize(..len)),
        20 => {
            // Terminators go, and come where there were none.
            let zero = bytes.iter().rposition(|byte| *byte == 0).filter(|at| *at >= HEADER);
            match zero {
                Some(at) if rng.bool() => bytes[at] = b'z',
                _ => put(bytes, rng.usize(..len), &[0]),
            }
        }
        21 => {
            let count = if one_in(rng, 16) { rng.usize(..stock.most) } else { rng.usize(..48) };
            let value = rng.u8(..);
            bytes.resize(bytes.len() + count, value);
        }
        22 => {
            let at = rng.usize(..len);
            let run: Vec<u8> = (0..rng.usize(1..16)).map(|_| rng.u8(..)).collect();
            bytes.splice(at.min(bytes.len())..at.min(bytes.len()), run);
        }
        _ => {
            let at = rng.usize(HEADER..=len.max(HEADER)).min(bytes.len());
            bytes.truncate(at);
            bytes.extend(stock.other.iter().skip(HEADER));
        }
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at.saturating_add(value.len())) {
        place.copy_from_slice(value);
    }
}
