//! What happens on the host and the guest does not ask about: watched, held against what the guest knows, and told.
//!
//! A directory is watched before anything in it is looked at for the guest, so that what the guest is told of it and may
//! keep is told again when it changes. What is worth telling is decided as late as possible: after every request that began
//! before the change is answered, by what the guest knows then. What the guest did itself it knows.

use std::{
    collections::HashSet,
    ffi::CString,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use fuse_abi::{EntryOut, Errno};

use super::{
    Passthrough,
    config::Config,
    events::{EventFile, Happened},
    inodes::{Inode, NameHint},
};
use crate::{
    coherence::{
        absent::Absences,
        notify::{Batch, Change, MESSAGE_MAX, Notification, Outbox, PRUNE_MAX, Place},
        policy::CacheMode,
        validation::Untold,
        watch::{Event, Watches},
    },
    host::{self, Kind, SelfFds, Stat},
    protocol::{Context, Ear, Name, NodeId, Sent, Turns},
};

/// The minor version from which a client can be told to look up every name again.
const INC_EPOCH: u32 = 44;
/// The one from which it can be told to forget nodes. Since then, too, word of a single name leaves it missing.
const PRUNE: u32 = 45;
/// How many directories find no watch before the guest is asked again to forget some.
const REFUSALS: u64 = 1024;

/// What it takes to tell the guest of changes.
pub(super) struct News {
    outbox: Outbox,
    watches: Watches,
    absences: Absences,
    events: Option<EventFile>,
    /// The version that the session agreed on.
    minor: AtomicU32,
    names: Duration,
    attributes: Duration,
    missing: Duration,
}

impl News {
    /// Nothing where none are wanted, or the host has no means to watch.
    ///
    /// # Errors
    /// Those of opening the event file.
    pub(super) fn new(config: &Config, root: BorrowedFd<'_>, fds: &SelfFds) -> host::Result<Option<Self>> {
        if !(config.notify || config.event_file.is_some()) || config.cache != CacheMode::Coherent {
            return Ok(None);
        }
        let watches = match Watches::new(config.watch_budget) {
            Ok(watches) => watches,
            Err(errno) => {
                log::warn!("the host cannot be watched, and changes show when asked for: {errno}");
                return Ok(None);
            }
        };
        let events = config.event_file.as_deref().map(|name| EventFile::open(root, fds, name)).transpose()?;
        let (names, attributes) = config.hearing();
        let (outbox, absences, minor) = Default::default();
        let missing = config.negative_timeout;
        Ok(Some(Self { outbox, watches, absences, events, minor, names, attributes, missing }))
    }

    pub(super) fn begin(&self, minor: u32) {
        self.minor.store(minor, Ordering::Relaxed);
    }

    pub(super) fn clear(&self) {
        self.watches.clear();
        self.absences.clear();
    }

    pub(super) fn mute(&self) {
        self.outbox.mute();
        self.watches.mute();
    }

    pub(super) fn is_mute(&self) -> bool {
        self.outbox.is_mute()
    }

    /// Nobody hears for now.
    pub(super) fn unheard(&self) {
        self.outbox.end();
    }

    pub(super) fn unmute(&self) {
        self.outbox.unmute();
        self.watches.unmute();
    }

    fn minor(&self) -> u32 {
        self.minor.load(Ordering::Relaxed)
    }

    /// Takes in what happened on the host.
    fn take_in(&self, event: Event<'_>) {
        match event {
            Event::Name(dir, name) => self.outbox.changed(Place::Name(dir, name.into()), true),
            Event::Content(dir, name) => self.outbox.changed(Place::Name(dir, name.into()), false),
            Event::Directory(dir) | Event::Lost(dir) => self.outbox.changed(Place::Node(dir), false),
            Event::Overflow => self.outbox.lost_track(),
        }
    }
}

/// What is granted.
impl Passthrough {
    /// Watches a directory, before something in it is looked at for the guest.
    pub(super) fn follow(&self, dir: &Inode) {
        // Whether a directory may be watched is not for the caller's permissions to say.
        if self.watch_as_caller(dir) == Err(Errno::EACCES)
            && self.as_server().and_then(|()| self.watch_as_caller(dir)) == Err(Errno::EACCES)
        {
            dir.set_watched(false);
        }
    }

    fn watch_as_caller(&self, dir: &Inode) -> host::Result<()> {
        let Some(news) = &self.news else { return Ok(()) };
        if !dir.may_be_watched() || !news.outbox.is_speaking() {
            return Ok(());
        }
        if !news.watches.has_room() {
            // The guest may know many that it has no use for.
            if news.watches.refuse() % REFUSALS == 1 {
                news.outbox.prune();
            }
            return Ok(());
        }
        let added = self.fd(dir).and_then(|fd| news.watches.add(&self.fds, fd.as_fd(), dir.id.0));
        match added {
            Ok(()) => dir.set_watched(true),
            Err(Errno::EACCES | Errno::ENOSPC | Errno::ENOMEM) => {}
            Err(_) => dir.set_watched(false),
        }
        added
    }

    /// A directory that the guest has forgotten is watched no longer.
    pub(super) fn unfollow(&self, dir: &Inode) {
        if let Some(news) = &self.news
            && dir.unwatch()
        {
            news.watches.remove(dir.id.0);
        }
    }

    fn hears_in(&self, dir: &Inode) -> Option<&News> {
        self.news.as_ref().filter(|news| dir.is_watched() && news.outbox.is_trusted())
    }

    /// Whether a helper of the guest sets a time that nobody means.
    pub(super) fn takes_pokes(&self) -> bool {
        self.news.as_ref().is_some_and(|news| news.events.is_some())
    }

    /// How long the guest may trust a name in this directory.
    pub(super) fn name_grant(&self, dir: &Inode) -> Duration {
        let hears = self.hears_in(dir).filter(|_| host::WATCHES_NAMES);
        hears.map_or(self.grants.entry, |news| news.names)
    }

    /// How long the guest may trust attributes, where it hears of every change by the watch on the directory `by`.
    pub(super) fn hears_of(&self, by: Option<NodeId>) -> Option<Duration> {
        let news = self.news.as_ref()?;
        let dir = self.inodes.get(by?).ok()?;
        self.hears_in(&dir).filter(|_| host::WATCHES_NAMES && self.is_proven(&dir)).map(|_| news.attributes)
    }

    /// What the guest is told of a name that is missing, where it may keep that.
    pub(super) fn missing(&self, cx: &Context, dir: &Inode, name: Name<'_>) -> Option<EntryOut> {
        let news = self.hears_in(dir).filter(|news| {
            host::WATCHES_NAMES && !news.missing.is_zero() && news.minor() >= INC_EPOCH && self.is_proven(dir)
        })?;
        let hint = self.inodes.hint(dir, name.as_bytes());
        if self.walks.looks_again(cx.pid) || !news.absences.grant(hint.as_u64()) {
            return None;
        }
        let (entry_valid, entry_valid_nsec) = (news.missing.as_secs(), news.missing.subsec_nanos());
        Some(EntryOut { entry_valid, entry_valid_nsec, ..EntryOut::default() })
    }

    /// The guest learns that there is something by this name.
    pub(super) fn found_name(&self, hint: NameHint) {
        if let Some(news) = &self.news {
            news.absences.take(hint.as_u64());
        }
    }

    /// Another inode has taken a name of this one, by no doing of the guest's.
    pub(super) fn lost_name(&self, inode: &Inode) {
        if let Some(news) = &self.news {
            news.outbox.changed(Place::Node(inode.id.0), false);
        }
    }
}

/// What is told.
impl Passthrough {
    pub(super) fn watch_host(&self) {
        let Some(news) = &self.news else { return };
        news.watches.run(|event| {
            if let Event::Lost(dir) = event
                && let Ok(dir) = self.inodes.get(NodeId(dir))
            {
                dir.unwatch();
            }
            news.take_in(event);
        });
    }

    pub(super) fn tell_news(&self, turns: &Turns, send: Option<Ear<'_>>) {
        let Some(news) = &self.news else { return };
        news.outbox.begin(send.is_some());
        let mut nobody = |_: &[u8]| Sent::Heard;
        let send = send.unwrap_or(&mut nobody);
        let mut teller =
            Teller { shared: self, news, send, bytes: Vec::with_capacity(MESSAGE_MAX), heard: Sent::Heard };
        while teller.heard != Sent::Gone
            && let Some(batch) = news.outbox.take()
        {
            // What began before the change was seen may have read what was there before, and is answered first.
            turns.settle();
            teller.tell(batch);
        }
        news.outbox.end();
    }
}

struct Teller<'t, 's> {
    shared: &'t Passthrough,
    news: &'t News,
    send: &'s mut dyn FnMut(&[u8]) -> Sent,
    bytes: Vec<u8>,
    /// What became of the messages about the present place: the worst of it.
    heard: Sent,
}

impl Teller<'_, '_> {
    fn send(&mut self, what: Notification<'_>) {
        if self.heard == Sent::Gone {
            return;
        }
        what.write_to(&mut self.bytes);
        match (self.send)(&self.bytes) {
            Sent::Heard => {}
            worse => self.heard = worse,
        }
    }

    fn tell(&mut self, batch: Batch) {
        if batch.everything {
            self.tell_everything();
        }
        let mut directories = HashSet::new();
        for Change { place, named, again } in batch.changes {
            if self.heard == Sent::Gone {
                return;
            }
            self.heard = Sent::Heard;
            match &place {
                Place::Name(dir, name) => {
                    let Ok(dir) = self.shared.inodes.get(NodeId(*dir)) else { continue };
                    self.tell_name(&dir, name, named);
                    if named {
                        directories.insert(dir.id);
                    }
                }
                Place::Node(node) => drop(directories.insert(NodeId(*node))),
            }
            self.repeat_unless_heard(place, named, again);
        }
        for node in directories {
            self.heard = if self.heard == Sent::Gone { return } else { Sent::Heard };
            if let Ok(inode) = self.shared.inodes.get(node) {
                self.tell_node(&inode);
                self.repeat_unless_heard(Place::Node(node.0), false, false);
            }
        }
        if batch.prune && self.news.minor() >= PRUNE {
            let nodes = self.news.watches.oldest(PRUNE_MAX);
            self.send(Notification::Prune(&nodes));
        }
    }

    /// A client that holds nothing yet may be about to take in an answer that was right when it was given.
    fn repeat_unless_heard(&self, place: Place, named: bool, again: bool) {
        if self.heard == Sent::Unsure && !again {
            self.news.outbox.again(place, named);
        }
    }

    /// Holds a name against what the guest believes it to be.
    fn tell_name(&mut self, dir: &Inode, name: &[u8], named: bool) {
        let hint = self.shared.inodes.hint(dir, name);
        let believed = self.shared.inodes.expected(hint);
        let found = self.look_at(dir, name);
        if let (Some(inode), Ok(found)) = (&believed, &found)
            && self.leads_to(dir, name, inode, found)
        {
            if self.tell_inode(inode, found) {
                self.record(Happened::Changed, dir, name);
            }
            return;
        }
        match (&believed, &found) {
            (Some(_), Err(_)) => self.record(Happened::Went, dir, name),
            (None, Ok(_)) if named => self.record(Happened::Came, dir, name),
            (_, Ok(_)) => self.record(Happened::Changed, dir, name),
            (None, Err(_)) => {}
        }
        if let Ok(found) = &found
            && let Some(other) = self.shared.inodes.peek(&found.identity)
        {
            // It has a name more, or lost one.
            self.tell_inode(&other, found);
        }
        if named && (believed.is_some() || found.is_ok()) {
            dir.changed();
        }
        match &believed {
            Some(inode) => self.tell_that_it_left(dir, name, inode),
            None if found.is_ok() && self.news.absences.take(hint.as_u64()) => self.tell_that_it_came(dir, name),
            None => {}
        }
    }

    /// Notes what the host did for those whom no kernel tells.
    fn record(&self, what: Happened, dir: &Inode, name: &[u8]) {
        let Some(events) = &self.news.events else { return };
        if dir.id == NodeId::ROOT && events.is(name) {
            return;
        }
        if let Some(path) = self.shared.share_path(dir, name) {
            events.tell(what, &path);
        }
    }

    fn look_at(&self, dir: &Inode, name: &[u8]) -> host::Result<Stat> {
        let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
        host::stat_at(self.shared.fd(dir)?.as_fd(), &name)
    }

    fn leads_to(&self, dir: &Inode, name: &[u8], inode: &Inode, found: &Stat) -> bool {
        let same = |name: &CString| self.shared.fd(dir).is_ok_and(|dir| inode.place.is_entry(dir.as_fd(), name));
        inode.identity == found.identity && CString::new(name).is_ok_and(|name| same(&name))
    }

    fn tell_that_it_left(&mut self, dir: &Inode, name: &[u8], inode: &Inode) {
        if let Some(mut known) = inode.known() {
            known.strayed = true;
        }
        // What was only moved must not be taken for dead, least of all a directory.
        let gone = match self.shared.fd(inode).and_then(|fd| host::stat(fd.as_fd())) {
            Ok(found) => found.nlink == 0,
            Err(errno) => errno == Errno::ESTALE,
        };
        if gone {
            self.send(Notification::Delete(dir.id.0, inode.id.0, name));
        } else {
            self.send(Notification::InvalEntry(dir.id.0, name));
        }
        self.send(Notification::InvalInode(inode.id.0));
    }

    fn tell_that_it_came(&mut self, dir: &Inode, name: &[u8]) {
        if self.news.minor() >= PRUNE {
            self.news.absences.clear();
            self.send(Notification::IncEpoch);
        } else {
            self.send(Notification::InvalEntry(dir.id.0, name));
        }
    }

    fn tell_node(&mut self, inode: &Inode) {
        match self.shared.fd(inode).and_then(|fd| host::stat(fd.as_fd())) {
            Ok(found) => {
                self.tell_inode(inode, &found);
            }
            Err(_) => self.send(Notification::InvalInode(inode.id.0)),
        }
    }

    /// Holds what is true of an inode against what the guest was told of it. Says whether that was something else.
    fn tell_inode(&mut self, inode: &Inode, found: &Stat) -> bool {
        let now = self.shared.print(inode.kind, 0, found);
        let untold = inode.known().map_or(Untold::Nothing, |known| match inode.kind {
            Kind::Directory => known.record.untold_listing(now),
            _ => known.record.untold(now),
        });
        match untold {
            Untold::Nothing => {}
            Untold::Attributes => self.send(Notification::InvalAttributes(inode.id.0)),
            Untold::Content => self.send(Notification::InvalInode(inode.id.0)),
        }
        untold != Untold::Nothing
    }

    /// Looks at all that the guest knows.
    fn tell_everything(&mut self) {
        if !self.news.absences.is_empty() {
            self.news.absences.clear();
            self.send(Notification::IncEpoch);
        }
        let shared = self.shared;
        shared.inodes.each(|inode: Arc<Inode>| {
            let names: Vec<(NodeId, Box<[u8]>)> = inode
                .known()
                .map(|known| known.names().map(|(parent, name)| (parent, name.into())).collect())
                .unwrap_or_default();
            for (parent, name) in names {
                if let Ok(dir) = shared.inodes.get(parent) {
                    // It may have been looked up when nobody was to be told.
                    let _ = shared.watch_as_caller(&dir);
                    self.tell_name(&dir, &name, true);
                }
            }
            self.tell_node(&inode);
        });
        // Asked last: whoever stops listening from here on says so.
        if self.heard != Sent::Gone && (self.send)(&[]) != Sent::Gone {
            self.news.outbox.told_everything();
        } else {
            self.heard = Sent::Gone;
        }
    }
}
