//! What one guest knows of one inode: its names, and what it was told.

use std::sync::Mutex;

use crate::{coherence::validation::Record, host::Kind, protocol::NodeId};

/// What is known of what the guest knows.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Most inodes have one name, directories always.
    names: Vec<(NodeId, Box<[u8]>)>,
    pub(super) record: Record,
}

impl Known {
    /// Room for it, where it is kept.
    pub(super) fn room(wanted: bool) -> Option<Box<Mutex<Self>>> {
        wanted.then(Box::default)
    }

    pub(super) fn names(&self) -> impl ExactSizeIterator<Item = (NodeId, &[u8])> {
        self.names.iter().map(|(parent, name)| (*parent, &**name))
    }

    /// The guest learns a name of an inode of this kind.
    pub(super) fn learn(&mut self, kind: Kind, parent: NodeId, name: &[u8]) {
        if self.names().any(|known| known == (parent, name)) {
            return;
        }
        if kind == Kind::Directory {
            // A client gives a directory one name: the last it learned.
            self.names.clear();
        }
        self.names.push((parent, name.into()));
    }

    /// The guest knows it by this name no more.
    pub(super) fn forget(&mut self, parent: NodeId, name: &[u8]) {
        self.names.retain(|(dir, known)| *dir != parent || **known != *name);
    }
}
