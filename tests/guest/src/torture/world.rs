//! What the guest has learned of the share: nodes and open handles that requests can name, so that they lead deep.

use fastrand::Rng;
use fuse_abi::{EntryOut, Opcode, OpenOut, ROOT_ID, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG};
use zerocopy::FromBytes;

use super::values::{HostileNames, NAMES, edge, one_in, pick};

/// How many of each kind are remembered.
const MOST: usize = 48;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
    Link,
    Other,
}

/// Nodes and handles of a session.
#[derive(Debug, Default)]
pub(super) struct World {
    nodes: Vec<(Kind, u64)>,
    files: Vec<(u64, u64)>,
    directories: Vec<(u64, u64)>,
    next: usize,
}

impl World {
    /// Forgets everything: the session is over.
    pub(super) fn clear(&mut self) {
        self.nodes.clear();
        self.files.clear();
        self.directories.clear();
    }

    /// How many handles are known.
    pub(super) fn handles(&self) -> usize {
        self.files.len() + self.directories.len()
    }

    /// A node of this kind, now and then another one or none that exists.
    pub(super) fn node(&self, rng: &mut Rng, kind: Kind) -> u64 {
        match rng.u8(..32) {
            0 => edge(rng),
            1 => rng.u64(..256),
            2 => pick(rng, &self.nodes).map_or(ROOT_ID, |(_, id)| *id),
            3..10 if kind == Kind::Directory => ROOT_ID,
            _ => {
                let start = rng.usize(..self.nodes.len().max(1));
                let (before, after) = self.nodes.split_at(start.min(self.nodes.len()));
                after.iter().chain(before).find(|(found, _)| *found == kind).map_or(ROOT_ID, |(_, id)| *id)
            }
        }
    }

    /// A node and an open file on it, now and then not its own, or none.
    pub(super) fn file(&self, rng: &mut Rng) -> (u64, u64) {
        Self::handle(rng, &self.files, &self.directories)
    }

    /// The same for a directory.
    pub(super) fn directory(&self, rng: &mut Rng) -> (u64, u64) {
        Self::handle(rng, &self.directories, &self.files)
    }

    fn handle(rng: &mut Rng, wanted: &[(u64, u64)], others: &[(u64, u64)]) -> (u64, u64) {
        let fallback = (ROOT_ID, rng.u64(..16));
        match rng.u8(..32) {
            0 => (fallback.0, edge(rng)),
            1 => pick(rng, others).copied().unwrap_or(fallback),
            2 => (ROOT_ID, pick(rng, wanted).map_or(0, |handle| handle.1)),
            _ => pick(rng, wanted).copied().unwrap_or(fallback),
        }
    }

    /// A name and its terminator.
    pub(super) fn name(&self, rng: &mut Rng, hostile: &HostileNames, body: &mut Vec<u8>) {
        if one_in(rng, 24) {
            body.extend(hostile.mark(rng));
        } else {
            body.extend(NAMES[rng.usize(..NAMES.len())].as_bytes());
        }
        body.push(0);
    }

    /// Learns from the reply to a request that succeeded.
    pub(super) fn learn(&mut self, opcode: u32, node: u64, reply: &[u8]) {
        let Ok(opcode) = Opcode::try_from(opcode) else { return };
        match opcode {
            Opcode::Lookup | Opcode::Symlink | Opcode::Mknod | Opcode::Mkdir | Opcode::Link => {
                self.learn_node(reply);
            }
            Opcode::Create | Opcode::Tmpfile => {
                if let Some(id) = self.learn_node(reply)
                    && let Ok((_, open)) = OpenOut::read_from_suffix(reply)
                {
                    Self::put(&mut self.next, &mut self.files, (id, open.fh));
                }
            }
            Opcode::Open | Opcode::Opendir => {
                let handles = if opcode == Opcode::Open { &mut self.files } else { &mut self.directories };
                if let Ok((open, _)) = OpenOut::read_from_prefix(reply) {
                    Self::put(&mut self.next, handles, (node, open.fh));
                }
            }
            _ => {}
        }
    }

    fn learn_node(&mut self, reply: &[u8]) -> Option<u64> {
        let (entry, _) = EntryOut::read_from_prefix(reply).ok()?;
        let kind = match entry.attr.mode & S_IFMT {
            S_IFDIR => Kind::Directory,
            S_IFREG => Kind::File,
            S_IFLNK => Kind::Link,
            _ => Kind::Other,
        };
        if entry.nodeid != 0 && !self.nodes.contains(&(kind, entry.nodeid)) {
            Self::put(&mut self.next, &mut self.nodes, (kind, entry.nodeid));
        }
        Some(entry.nodeid)
    }

    /// Adds, in the place of the oldest when there are many.
    fn put<T>(next: &mut usize, values: &mut Vec<T>, value: T) {
        if values.len() < MOST {
            values.push(value);
        } else {
            *next = next.wrapping_add(1);
            values[*next % MOST] = value;
        }
    }
}
