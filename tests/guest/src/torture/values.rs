//! Numbers and names that lie on the edge of something.

use std::path::Path;

use fastrand::Rng;

/// Where lengths, offsets and counts change their meaning.
const EDGES: [u64; 24] = [
    0,
    1,
    2,
    7,
    8,
    15,
    16,
    39,
    40,
    0xff,
    0x100,
    4095,
    4096,
    0xffff,
    0x1_0000,
    0x10_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    1 << 40,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];

/// True once in `times`.
pub(super) fn one_in(rng: &mut Rng, times: u32) -> bool {
    rng.u32(..times) == 0
}

/// One of them.
pub(super) fn pick<'v, T>(rng: &mut Rng, values: &'v [T]) -> Option<&'v T> {
    if values.is_empty() { None } else { values.get(rng.usize(..values.len())) }
}

/// An edge, one beside it, a single bit, or anything.
pub(super) fn edge(rng: &mut Rng) -> u64 {
    let base = EDGES[rng.usize(..EDGES.len())];
    match rng.u8(..8) {
        0 => base.wrapping_add(1),
        1 => base.wrapping_sub(1),
        2 => 1 << rng.u32(..64),
        3 => rng.u64(..),
        4 => base.wrapping_neg(),
        _ => base,
    }
}

/// Sizes and offsets as programs use them.
pub(super) fn size(rng: &mut Rng) -> u64 {
    match rng.u8(..16) {
        0 => edge(rng),
        1..8 => rng.u64(..4096),
        8..14 => 512 * rng.u64(..64),
        _ => rng.u64(..1 << 22),
    }
}

/// The names of ordinary files: few, so that they meet again.
pub(super) const NAMES: [&str; 20] = [
    "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "dir0", "dir1", "dir2", "file0", "file1", "file2", "link0",
    "link1", "fifo", "big",
];

/// The names that no server may take, and the longest ones that it may.
#[derive(Debug)]
pub(super) struct HostileNames(Vec<Vec<u8>>);

/// Stands for a hostile name until the request is mutated: a mutation must not make a name of its own that leads out.
const MARK: [u8; 3] = [0xf5, 0xf6, 0xf7];

impl HostileNames {
    /// Names that lead out of `share` lead into `around`, the directory that holds it, and no further.
    pub(super) fn new(around: &Path, share: &Path) -> Self {
        let inside = share.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let plain = [
            "",
            ".",
            "..",
            "/",
            "./a",
            "a/",
            "a/b",
            "dir0/a",
            "dir0/../a",
            "../stray",
            "./../stray",
            "dir0/../../stray",
        ];
        let mut names: Vec<Vec<u8>> = plain.iter().map(|name| name.as_bytes().to_vec()).collect();
        names.push(format!("../{inside}/a").into_bytes());
        names.push(format!("{}/stray", around.display()).into_bytes());
        names.push(format!("{}/a", share.display()).into_bytes());
        names.extend([255, 256, 4096].map(|len| vec![b'n'; len]));
        names.extend([b"\xff\xfe\x80".to_vec(), b"a\nb".to_vec(), b" ".to_vec(), b"\x7f\x01".to_vec()]);
        Self(names)
    }

    /// Bytes that [`HostileNames::put_in`] exchanges for a hostile name.
    pub(super) fn mark(&self, rng: &mut Rng) -> [u8; 4] {
        let [a, b, c] = MARK;
        [a, b, c, rng.u8(..self.0.len() as u8)]
    }

    /// Takes every slash out of `bytes`, and puts the hostile names in.
    pub(super) fn put_in(&self, bytes: &mut Vec<u8>, from: usize) {
        let Some(body) = bytes.get_mut(from..) else { return };
        body.iter_mut().filter(|byte| **byte == b'/').for_each(|byte| *byte = b'_');
        while let Some(at) = bytes[from..].windows(3).position(|window| window == MARK) {
            let at = from + at;
            let number = bytes.get(at + 3).copied().unwrap_or(0);
            let name = &self.0[usize::from(number) % self.0.len()];
            let end = bytes.len().min(at + 4);
            bytes.splice(at..end, name.iter().copied());
        }
    }
}
