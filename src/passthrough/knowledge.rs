//! What one guest knows of one inode: its names, and what it was told.

use crate::{
    coherence::{
        habit::Habit,
        validation::{Record, Seen},
    },
    host::{Kind, Stat},
    protocol::NodeId,
};

/// What is known of what the guest knows.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Most inodes have one name, directories always.
    names: Vec<(NodeId, Box<[u8]>)>,
    pub(super) record: Record,
    /// One of the names was seen to lead elsewhere, and none was looked up since.
    pub(super) strayed: bool,
    /// Only of directories that were listed with attributes.
    pub(super) habit: Option<Box<Habit>>,
}

impl Known {
    pub(super) fn names(&self) -> impl ExactSizeIterator<Item = (NodeId, &[u8])> {
        self.names.iter().map(|(parent, name)| (*parent, &**name))
    }

    /// The directory whose watch tells of every change of the inode, if there is one: its own, or that of its only name.
    pub(super) fn hears_by(&self, node: NodeId, found: &Stat) -> Option<NodeId> {
        match (found.kind(), &*self.names) {
            (Kind::Directory, _) => Some(node),
            // By another name it could be changed from anywhere; and what the guest writes is not told from the host's.
            (_, [(parent, _)]) if found.nlink == 1 && !self.strayed && !self.record.is_written_to() => Some(*parent),
            _ => None,
        }
    }

    /// A directory is opened at this time. Says whether the guest keeps its listing.
    pub(super) fn keeps_listing(&mut self, seen: &Seen, at: u32, valid: u32, asker: impl FnOnce() -> bool) -> bool {
        let anew = |habit: &mut Box<Habit>| habit.is_wanted_anew(at, valid, asker);
        self.record.grant_opendir(seen) && !self.habit.as_mut().is_some_and(anew)
    }

    /// The guest learns a name of an inode of this kind. Says whether it is new.
    pub(super) fn learn(&mut self, kind: Kind, parent: NodeId, name: &[u8]) -> bool {
        self.strayed = false;
        if self.names().any(|known| known == (parent, name)) {
            return false;
        }
        if kind == Kind::Directory {
            // A client gives a directory one name: the last it learned.
            self.names.clear();
        }
        self.names.push((parent, name.into()));
        true
    }

    /// The guest knows it by this name no more.
    pub(super) fn forget(&mut self, parent: NodeId, name: &[u8]) {
        self.names.retain(|(dir, known)| *dir != parent || **known != *name);
    }
}
