//! By which names a guest knows an inode, and whether they still lead to it.
//!
//! Only `--cache=coherent` pays for this: the names a guest has cached cannot be recalled, so each open asks whether the
//! guest's path is still the host's.

use std::{
    ffi::CStr,
    os::fd::AsFd,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fuse_abi::Errno;

use super::{
    Passthrough,
    inodes::{Inode, NameHint},
};
use crate::{
    coherence::{
        habit::Habit,
        validation::{Print, Seen, Telling, observe},
        walks::Asked,
    },
    host::{self, HostStamp, Kind, Stat},
    protocol::{Context, Name, NodeId},
};

/// Setuid and setgid.
const SPECIAL_BITS: u32 = 0o6000;
/// The longest path that is checked: one that is longer is never trusted.
const PATH_MAX: usize = 4096;
/// Deeper than a path can be.
const DEEPEST: usize = PATH_MAX / 2;

/// A path from the root of the share, built from its end.
struct PathBuffer {
    bytes: [u8; PATH_MAX],
    start: usize,
}

impl PathBuffer {
    const fn new() -> Self {
        // The last byte stays 0: the terminator.
        Self { bytes: [0; PATH_MAX], start: PATH_MAX - 1 }
    }

    fn prepend(&mut self, name: &[u8]) -> Option<()> {
        if self.start != PATH_MAX - 1 {
            self.put(b"/")?;
        }
        self.put(name)
    }

    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let start = self.start.checked_sub(bytes.len())?;
        self.bytes.get_mut(start..self.start)?.copy_from_slice(bytes);
        self.start = start;
        Some(())
    }

    fn as_c_str(&self) -> Option<&CStr> {
        CStr::from_bytes_with_nul(self.bytes.get(self.start..)?).ok()
    }
}

impl Inode {
    pub(super) fn changed_status(&self) {
        if let Some(mut known) = self.known() {
            known.record.changed_status();
        }
    }

    pub(super) fn changed_content(&self) {
        if let Some(mut known) = self.known() {
            known.record.changed_content();
        }
    }

    pub(super) fn written_to(&self) {
        if let Some(mut known) = self.known() {
            known.record.written_to();
        }
    }
}

impl Passthrough {
    /// The guest learns that this name leads to `inode`.
    pub(super) fn learn_name(&self, hint: NameHint, dir: &Inode, name: Name<'_>, inode: &Inode) {
        if let Some(before) = self.inodes.expect(hint, inode)
            && before != inode.id
            && let Ok(before) = self.inodes.get(before)
        {
            before.forget_name(dir.id, name.as_bytes());
            self.lost_name(&before);
        }
        if let Some(mut known) = inode.known()
            && known.learn(inode.kind, dir.id, name.as_bytes())
        {
            drop(known);
            self.found_name(hint);
        }
    }

    /// The guest learns that this name leads nowhere.
    pub(super) fn unlearn_name(&self, dir: &Inode, name: Name<'_>) -> Option<Arc<Inode>> {
        let hint = self.inodes.hint(dir, name.as_bytes());
        let inode = self.inodes.get(self.inodes.unexpect(hint)?).ok()?;
        inode.forget_name(dir.id, name.as_bytes());
        inode.changed_status();
        Some(inode)
    }

    /// The guest is about to be told of these attributes. Gives back how long it may trust them.
    pub(super) fn tell(&self, cx: &Context, inode: &Inode, found: &Stat) -> Duration {
        // The next write by anybody may drop these bits, and no reply to a write could say so.
        let fleeting = self.config.killpriv_v2 && inode.kind == Kind::File && found.mode & SPECIAL_BITS != 0;
        let granted = if fleeting { Duration::ZERO } else { self.grants.attributes };
        let Some(mut known) = inode.known() else { return granted };
        if inode.kind != Kind::Directory || self.news.is_some() {
            let telling = Telling { who: cx.pid, at: self.milliseconds() };
            known.record.told(self.print(inode.kind, 0, found), telling);
            if known.record.is_hot() {
                return Duration::ZERO;
            }
        }
        let hears_by = known.hears_by(inode.id, found);
        drop(known);
        if self.walks.looks_again(cx.pid) {
            return Duration::ZERO;
        }
        if fleeting { granted } else { self.hears_of(hears_by).unwrap_or(granted) }
    }

    /// How long this share has been served: enough to tell one moment from the next, wrapped or not.
    pub(super) fn milliseconds(&self) -> u32 {
        self.began.elapsed().as_millis() as u32
    }

    /// The guest asks for the attributes of this inode, perhaps because it did not trust those that came with a listing.
    pub(super) fn note_question(&self, cx: &Context, inode: &Inode) {
        self.note_habit(inode, |habit| {
            if habit.asked(self.milliseconds()) {
                self.askers.add(cx.pid);
            }
        });
    }

    /// Takes note of what the guest does with an entry of a directory that it has listed.
    pub(super) fn note_habit(&self, inode: &Inode, note: impl FnOnce(&mut Habit)) {
        let parent = inode.known().and_then(|known| known.names().next().map(|(parent, _)| parent));
        if let Some(dir) = parent.and_then(|parent| self.inodes.get(parent).ok())
            && let Some(mut known) = dir.known()
            && let Some(habit) = &mut known.habit
        {
            note(habit);
        }
    }

    /// Whether the timestamps of an inode prove anything: not where other machines write to the same storage, and this
    /// one hears of it late.
    pub(super) fn is_proven(&self, inode: &Inode) -> bool {
        if !inode.is_followed() {
            return true;
        }
        let proven = !inode.is_remote;
        if !proven && !self.warned_of_remote.swap(true, Ordering::Relaxed) {
            log::warn!(
                "timestamps of a network or FUSE file system prove nothing: its names and data are asked for each time"
            );
        }
        proven
    }

    /// A name moved from one place to another by the guest's own doing.
    pub(super) fn move_known(&self, from: (&Inode, Name<'_>), to: (&Inode, Name<'_>), exchange: bool) {
        let moved = self.unlearn_name(from.0, from.1);
        let replaced = self.unlearn_name(to.0, to.1);
        let learn = |inode: Option<Arc<Inode>>, (dir, name): (&Inode, Name<'_>)| {
            if let Some(inode) = inode {
                self.learn_name(self.inodes.hint(dir, name.as_bytes()), dir, name, &inode);
            }
        };
        learn(moved, to);
        if exchange {
            learn(replaced, from);
        }
    }

    /// Refuses what the guest asks by a path that no longer leads to `inode`: it is to look again.
    ///
    /// Not while it has the inode open: then it may ask through the handle, where nobody looks again.
    pub(super) fn require_path(&self, cx: &Context, asked: Asked, inode: &Inode) -> host::Result<()> {
        if !inode.is_followed() || inode.handles.load(Ordering::Relaxed) != 0 {
            return Ok(());
        }
        let (_, leads_here) = self.follow_names(inode)?;
        self.judge_path(cx, asked, inode, leads_here)
    }

    pub(super) fn judge_path(&self, cx: &Context, asked: Asked, inode: &Inode, leads_here: bool) -> host::Result<()> {
        if self.walks.send_back(cx.pid, asked, inode.id.0, !leads_here) { Err(Errno::ESTALE) } else { Ok(()) }
    }

    /// Refuses to change names in a directory to which the guest's path no longer leads. Handles do not matter: none of
    /// these calls names one.
    pub(super) fn require_directory(&self, cx: &Context, asked: Asked, dir: &Inode) -> host::Result<()> {
        if !dir.is_followed() || dir.id == NodeId::ROOT {
            return Ok(());
        }
        let (_, leads_here) = self.follow_names(dir)?;
        self.judge_path(cx, asked, dir, leads_here)
    }

    /// Whether a name that is missing in `dir` is there where the guest believes `dir` to be.
    ///
    /// Where it is missing too nobody is sent back: a client that is about to make the name would not look again.
    pub(super) fn is_hidden(&self, dir: &Inode, name: Name<'_>) -> host::Result<bool> {
        if !dir.is_followed() || dir.id == NodeId::ROOT {
            return Ok(false);
        }
        let mut path = PathBuffer::new();
        let Some(()) = path.prepend(name.as_bytes()) else { return Ok(false) };
        let Some(base) = self.path_of(dir, 0, &mut path) else { return Ok(false) };
        // A symbolic link in the way leads the guest elsewhere: it has to see that for itself.
        Ok(matches!(self.stat_path(&base, &path), Ok(_) | Err(Errno::ELOOP | Errno::EXDEV)))
    }

    /// The path of a name from the root of the share, as the guest knows it.
    pub(super) fn share_path(&self, dir: &Inode, name: &[u8]) -> Option<Vec<u8>> {
        let mut path = PathBuffer::new();
        path.prepend(name)?;
        let rooted = dir.id == NodeId::ROOT || self.path_of(dir, 0, &mut path)?.id == NodeId::ROOT;
        path.as_c_str().filter(|_| rooted).map(|path| path.to_bytes().to_vec())
    }

    /// What a path that begins at `base` leads to.
    fn stat_path(&self, base: &Inode, path: &PathBuffer) -> host::Result<Stat> {
        let path = path.as_c_str().ok_or(Errno::ENAMETOOLONG)?;
        let base = self.fd(base)?;
        let follow = || host::stat_beneath(base.as_fd(), path, self.config.contained);
        match follow() {
            // Whether a path leads somewhere is not for the caller's permissions to say.
            Err(Errno::EACCES) => {
                self.as_server()?;
                follow()
            }
            done => done,
        }
    }

    /// What is true of an inode now, and whether the guest's names of it still lead to it.
    ///
    /// One system call while they do, but for a directory that the host has changed.
    pub(super) fn look(&self, inode: &Inode) -> host::Result<(Stat, Seen)> {
        let look = || observe(|| (inode.directory_generation(), wall_clock()), || self.follow_names(inode));
        let ((mut generation, mut now), mut followed) = look();
        if let Ok((found, _)) = &followed
            && let Ok(directory) = inode.directory()
            && directory.generation().observe(stamp_of(found))
        {
            // News of the host, or the first look: the generation it has from here on is the one to know it by.
            ((generation, now), followed) = look();
        }
        let (found, leads_here) = followed?;
        let print = self.print(inode.kind, generation, &found);
        Ok((found, Seen { print, settled: stamp_of(&found).is_settled(now), leads_here }))
    }

    pub(super) fn print(&self, kind: Kind, generation: u64, found: &Stat) -> Print {
        // The time of change alone would do, did it not stand still for milliseconds.
        let status = (found.ctime, found.mode, found.nlink, found.uid, found.gid);
        match kind {
            Kind::Directory => self.printer.directory(generation, found.mtime, status),
            _ => self.printer.file(found.size, found.mtime, status),
        }
    }

    pub(super) fn follow_names(&self, inode: &Inode) -> host::Result<(Stat, bool)> {
        let mut last = None;
        let names = inode.known().map_or(0, |known| known.names().len());
        for index in 0..names {
            let mut path = PathBuffer::new();
            // A name whose directory the guest has forgotten is forgotten with it.
            let Some(base) = self.path_of(inode, index, &mut path) else { continue };
            match self.stat_path(&base, &path) {
                Ok(found) if found.identity == inode.identity => last = Some(found),
                _ => return Ok((host::stat(self.fd(inode)?.as_fd())?, false)),
            }
        }
        match last {
            Some(found) => Ok((found, true)),
            None => Ok((host::stat(self.fd(inode)?.as_fd())?, true)),
        }
    }

    /// The path of an inode's name, as the guest knows the directories above it, and where it begins: at the root, or at
    /// a directory that has lost its name and that the guest can only be in.
    fn path_of(&self, inode: &Inode, index: usize, path: &mut PathBuffer) -> Option<Arc<Inode>> {
        let mut above = self.inodes.get(inode.prepend_name(index, path)?).ok()?;
        for _ in 0..DEEPEST {
            if above.id == NodeId::ROOT {
                return Some(above);
            }
            match above.prepend_name(0, path) {
                Some(parent) => above = self.inodes.get(parent).ok()?,
                None => return Some(above),
            }
        }
        None
    }
}

impl Inode {
    fn prepend_name(&self, index: usize, path: &mut PathBuffer) -> Option<NodeId> {
        let known = self.known()?;
        let (parent, name) = known.names().nth(index)?;
        path.prepend(name)?;
        Some(parent)
    }

    fn forget_name(&self, parent: NodeId, name: &[u8]) {
        if let Some(mut known) = self.known() {
            known.forget(parent, name);
        }
    }

    fn directory_generation(&self) -> u64 {
        self.directory().map_or(0, |directory| directory.generation().read().as_u64())
    }
}

fn stamp_of(found: &Stat) -> HostStamp {
    HostStamp {
        mtime: (found.mtime.seconds, found.mtime.nanoseconds),
        ctime: (found.ctime.seconds, found.ctime.nanoseconds),
    }
}

fn wall_clock() -> host::Moment {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (i64::try_from(now.as_secs()).unwrap_or(i64::MAX), now.subsec_nanos())
}
