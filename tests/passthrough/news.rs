//! What a guest that hears of changes is told, when, and what it may keep on the strength of that.

use std::{
    cell::RefCell,
    collections::HashSet,
    fs,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use ferryfs::{
    coherence::policy::CacheMode,
    passthrough::{Passthrough, config::Config},
    protocol::{FileSystem, Sent, Server},
};
use fuse_abi::Opcode;

use crate::support::{Client, OFFER, ROOT, Share};

/// Only ends hangs.
const HANG: Duration = Duration::from_secs(60);
const HOUR: u64 = 3600;
const MINUTE: u64 = 60;

/// What was said unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Inode(u64),
    Attributes(u64),
    Entry(u64, String),
    Deleted(u64, u64, String),
    Epoch,
    Prune(Vec<u64>),
}
use Said::{Attributes, Deleted, Entry, Epoch, Inode, Prune};

fn decode(message: &[u8]) -> Said {
    let word = |at: usize| u64::from_ne_bytes(message[at..at + 8].try_into().unwrap());
    let name = |at: usize| String::from_utf8(message[at..message.len() - 1].to_vec()).unwrap();
    match message[4] {
        2 if word(24) == u64::MAX => Attributes(word(16)),
        2 => Inode(word(16)),
        3 => Entry(word(16), name(32)),
        6 => Deleted(word(16), word(24), name(40)),
        8 => Epoch,
        9 => Prune((32..message.len()).step_by(8).map(word).collect()),
        code => panic!("a message of code {code}"),
    }
}

/// A share whose client listens.
struct Heard {
    share: Share,
    said: Receiver<Said>,
    threads: Vec<JoinHandle<()>>,
    /// Each message waits for one of these, where they are wanted.
    leave: Option<Sender<()>>,
    markers: RefCell<HashSet<u64>>,
}

impl Heard {
    fn new() -> Self {
        Self::with(|_| {}, false)
    }

    fn with(change: impl FnOnce(&mut Config), waits: bool) -> Self {
        let share = Share::with(|config| {
            (config.cache, config.notify) = (CacheMode::Coherent, true);
            change(config);
        });
        let (says, said) = channel();
        let (leave, left) = channel::<()>();
        let server = Arc::clone(&share.server);
        server.file_system().unmute();
        let send = move |message: &[u8]| {
            if message.is_empty() {
                return Sent::Heard;
            }
            let _ = says.send(decode(message));
            if waits && left.recv().is_err() {
                return Sent::Gone;
            }
            Sent::Heard
        };
        let threads = vec![
            spawn(&server, move |server| server.speak(Some(&mut { send }))),
            spawn(&server, |server| server.file_system().watch()),
        ];
        let heard = Self { share, said, threads, leave: waits.then_some(leave), markers: RefCell::default() };
        // It speaks as soon as what is looked up may be kept for long.
        let probe = heard.share.host("probe");
        fs::write(&probe, "").unwrap();
        heard.wait(|client| client.lookup(ROOT, "probe").unwrap().entry_valid == HOUR);
        if !waits {
            fs::remove_file(&probe).unwrap();
            heard.said();
        }
        heard
    }

    fn client(&self) -> Client {
        self.share.client()
    }

    fn wait(&self, mut done: impl FnMut(&Client) -> bool) {
        let (client, start) = (self.client(), Instant::now());
        while !done(&client) {
            assert!(start.elapsed() < HANG, "what was waited for did not come");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn next(&self) -> Said {
        self.said.recv_timeout(HANG).expect("something is said")
    }

    /// What is said of changes that were made before, but of the root itself.
    fn said(&self) -> Vec<Said> {
        let mut said = Vec::new();
        // What is said of the second file comes after all that goes with the first, and so after all before it.
        for _ in 0..2 {
            let marker = self.make_marker();
            while said.last() != Some(&marker) {
                said.push(self.next());
            }
        }
        let markers = self.markers.borrow();
        said.retain(|said| match said {
            Inode(node) | Attributes(node) => *node != ROOT && !markers.contains(node),
            Deleted(_, node, _) => !markers.contains(node),
            _ => true,
        });
        said.dedup();
        said
    }

    /// Makes a file that the guest knows, and removes it. Gives back what is said of that.
    fn make_marker(&self) -> Said {
        // A name of its own: what happens to one name more than once is said where it first happened.
        let name = format!("marker-{}", self.markers.borrow().len());
        let marker = self.share.host(&name);
        fs::write(&marker, "").unwrap();
        let node = self.client().lookup(ROOT, &name).unwrap().nodeid;
        self.markers.borrow_mut().insert(node);
        fs::remove_file(&marker).unwrap();
        Deleted(ROOT, node, name)
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        self.leave = None;
        self.share.server.file_system().mute();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// That the guest was told this, and otherwise only more of the same nodes: one change can be seen in parts.
#[track_caller]
fn assert_said(said: &[Said], expected: &[Said]) {
    let node = |said: &Said| match said {
        Inode(node) | Attributes(node) | Deleted(_, node, _) => Some(*node),
        _ => None,
    };
    let nodes: HashSet<_> = expected.iter().map(node).collect();
    assert!(expected.iter().all(|wanted| said.contains(wanted)), "{said:?}, not {expected:?}");
    assert!(
        said.iter().all(|said| nodes.contains(&node(said)) || expected.contains(said)),
        "{said:?}, not {expected:?}"
    );
}

fn spawn(
    server: &Arc<Server<Passthrough>>,
    work: impl FnOnce(&Server<Passthrough>) + Send + 'static,
) -> JoinHandle<()> {
    let server = Arc::clone(server);
    std::thread::spawn(move || work(&server))
}

#[test]
fn a_guest_hears_of_what_the_host_does_to_files_that_it_knows() {
    let heard = Heard::new();
    let (share, client) = (&heard.share, heard.client());
    for name in ["written", "chmodded", "removed", "moved", "replaced", "other"] {
        fs::write(share.host(name), "text").unwrap();
    }
    let node = |name: &str| client.lookup(ROOT, name).unwrap().nodeid;
    let [written, chmodded, removed, moved, replaced] =
        ["written", "chmodded", "removed", "moved", "replaced"].map(node);
    fs::write(share.host("unknown"), "nobody asked").unwrap();
    heard.said();

    fs::write(share.host("written"), "more text").unwrap();
    assert_said(&heard.said(), &[Inode(written)]);
    crate::support::host::chmod(&share.host("chmodded"), 0o600);
    assert_said(&heard.said(), &[Attributes(chmodded)]);
    fs::remove_file(share.host("removed")).unwrap();
    assert_said(&heard.said(), &[Deleted(ROOT, removed, "removed".into()), Inode(removed)]);
    fs::rename(share.host("moved"), share.host("elsewhere")).unwrap();
    assert_said(&heard.said(), &[Entry(ROOT, "moved".into()), Inode(moved)]);
    fs::rename(share.host("other"), share.host("replaced")).unwrap();
    let said = heard.said();
    assert!(said.contains(&Deleted(ROOT, replaced, "replaced".into())) && said.contains(&Inode(replaced)), "{said:?}");
    fs::write(share.host("unknown"), "still nobody").unwrap();
    assert_eq!(heard.said(), []);
}

#[test]
fn what_the_guest_knew_before_anybody_spoke_and_what_it_learns_meanwhile_is_told_of_afterwards() {
    let share = Share::with(|config| (config.cache, config.notify) = (CacheMode::Coherent, true));
    fs::create_dir(share.host("dir")).unwrap();
    fs::write(share.host("dir/early"), "").unwrap();
    let dir = share.client().lookup(ROOT, "dir").unwrap().nodeid;
    let early = share.client().lookup(dir, "early").unwrap().nodeid;
    let (says, said) = channel();
    let (looked, after_look) = channel();
    let (go_on, goes_on) = channel::<()>();
    share.server.file_system().unmute();
    let send = move |message: &[u8]| {
        if message.is_empty() {
            // All was looked at, and nothing is granted on the strength of that yet.
            let _ = looked.send(());
            return if goes_on.recv().is_ok() { Sent::Heard } else { Sent::Gone };
        }
        let _ = says.send(decode(message));
        Sent::Heard
    };
    let threads = vec![
        spawn(&share.server, move |server| server.speak(Some(&mut { send }))),
        spawn(&share.server, |server| server.file_system().watch()),
    ];
    let heard = Heard { share, said, threads, leave: None, markers: RefCell::default() };
    after_look.recv_timeout(HANG).unwrap();
    fs::write(heard.share.host("late"), "").unwrap();
    let late = heard.client().lookup(ROOT, "late").unwrap().nodeid;
    go_on.send(()).unwrap();
    fs::remove_file(heard.share.host("late")).unwrap();
    while heard.next() != Deleted(ROOT, late, "late".into()) {}
    fs::remove_file(heard.share.host("dir/early")).unwrap();
    while heard.next() != Deleted(dir, early, "early".into()) {}
    // Everything may be looked at once more.
    drop(go_on);
}

#[test]
fn a_directory_that_moved_is_not_told_as_dead() {
    let heard = Heard::new();
    fs::create_dir_all(heard.share.host("a/b")).unwrap();
    let client = heard.client();
    let (a, b) = (client.walk("a").unwrap(), client.walk("a/b").unwrap());
    fs::rename(heard.share.host("a/b"), heard.share.host("c")).unwrap();
    let said = heard.said();
    assert!(said.contains(&Entry(a, "b".into())) && said.contains(&Inode(a)), "{said:?}");
    assert!(!said.contains(&Deleted(a, b, "b".into())), "{said:?}");
    assert_eq!(client.lookup(ROOT, "c").unwrap().nodeid, b);
}

#[test]
fn what_the_guest_did_itself_it_is_not_told() {
    let heard = Heard::new();
    let client = heard.client();
    // As a transport does it: what is seen of a request is told, if at all, after its answer.
    let turn = heard.share.server.turns().enlist();
    turn.begin();
    let dir = client.mkdir(ROOT, "dir", 0o755).unwrap().nodeid;
    client.lookup(dir, "file").unwrap_err();
    let (made, open) = client.create(dir, "file", libc::O_RDWR, 0o644).unwrap();
    client.write(made.nodeid, open.fh, 0, b"text").unwrap();
    client.flush(made.nodeid, open.fh).unwrap();
    client.release(made.nodeid, open.fh).unwrap();
    client.chmod(made.nodeid, 0o600).unwrap();
    client.truncate(made.nodeid, None, 2, false).unwrap();
    client.rename((dir, "file"), (dir, "renamed")).unwrap();
    client.link(made.nodeid, dir, "link").unwrap();
    client.symlink(dir, "symlink", "target").unwrap();
    client.unlink(dir, "symlink").unwrap();
    client.getattr(made.nodeid).unwrap();
    turn.end();
    assert_eq!(heard.said(), []);
}

#[test]
fn what_the_host_does_to_a_file_is_told_whatever_its_name() {
    let heard = Heard::new();
    let (share, client) = (&heard.share, heard.client());
    fs::create_dir(share.host("dir")).unwrap();
    fs::write(share.host("file"), "text").unwrap();
    fs::hard_link(share.host("file"), share.host("dir/link")).unwrap();
    let node = client.walk("file").unwrap();
    // Only this makes the other directory known; the name in it never is.
    client.lookup(client.walk("dir").unwrap(), "nothing").unwrap_err();
    heard.said();
    fs::write(share.host("dir/link"), "other text").unwrap();
    assert_said(&heard.said(), &[Inode(node)]);
}

#[test]
fn word_of_a_change_waits_for_the_answers_to_requests_that_began_before_it() {
    let heard = Heard::new();
    let (share, client) = (&heard.share, heard.client());
    fs::write(share.host("file"), "text").unwrap();
    let node = client.walk("file").unwrap();
    heard.said();
    let turns = share.server.turns();
    let turn = turns.enlist();
    turn.begin();
    fs::write(share.host("file"), "more text").unwrap();
    heard.wait(|_| turns.are_awaited());
    assert!(heard.said.try_iter().all(|said| said != Inode(node)), "the answer would come after the word");
    turn.end();
    while heard.next() != Inode(node) {}
}

#[test]
fn a_reply_never_waits_for_word_to_be_taken() {
    let heard = Heard::with(|_| {}, true);
    let (share, client) = (&heard.share, heard.client());
    fs::write(share.host("file"), "text").unwrap();
    client.walk("file").unwrap();
    fs::write(share.host("file"), "more text").unwrap();
    // Whoever speaks is held by a guest that does not take the word.
    heard.next();
    for _ in 0..100 {
        assert_eq!(client.lookup(ROOT, "file").unwrap().attr.size, 9);
    }
}

#[test]
fn names_and_attributes_last_long_where_word_of_them_comes_and_as_usual_elsewhere() {
    let heard = Heard::new();
    let (share, client) = (&heard.share, heard.client());
    fs::create_dir_all(share.host("dir")).unwrap();
    fs::write(share.host("dir/file"), "text").unwrap();
    fs::write(share.host("linked"), "text").unwrap();
    fs::hard_link(share.host("linked"), share.host("link")).unwrap();
    let dir = client.walk("dir").unwrap();
    let times = |parent, name: &str| {
        let entry = client.lookup(parent, name).unwrap();
        (entry.entry_valid, entry.attr_valid)
    };
    assert_eq!(times(dir, "file"), (HOUR, MINUTE));
    assert_eq!(times(ROOT, "linked"), (HOUR, 1), "it could be changed by its other name");
    // The guest writes: what it does is not told from what the host does.
    let node = client.lookup(dir, "file").unwrap().nodeid;
    let open = client.open(node, libc::O_RDWR).unwrap();
    client.write(node, open.fh, 0, b"x").unwrap();
    assert_eq!(times(dir, "file"), (HOUR, 1));
    client.flush(node, open.fh).unwrap();
    assert_eq!(times(dir, "file"), (HOUR, MINUTE));
    let unheard = Share::with(|config| (config.cache, config.notify) = (CacheMode::Coherent, true));
    fs::write(unheard.host("file"), "text").unwrap();
    let entry = unheard.client().lookup(ROOT, "file").unwrap();
    assert_eq!((entry.entry_valid, entry.attr_valid), (60, 1), "nobody listens");
}

#[test]
fn a_file_that_left_the_directory_by_which_it_was_heard_of_is_not_trusted_on() {
    let heard = Heard::new();
    let (share, client) = (&heard.share, heard.client());
    fs::create_dir(share.host("unwatched")).unwrap();
    fs::write(share.host("file"), "text").unwrap();
    let node = client.walk("file").unwrap();
    let open = client.open(node, libc::O_RDONLY).unwrap();
    fs::rename(share.host("file"), share.host("unwatched/file")).unwrap();
    heard.said();
    let get = fuse_abi::GetattrIn { getattr_flags: 1, dummy: 0, fh: open.fh };
    let reply = client.call(Opcode::Getattr, node, &[zerocopy::IntoBytes::as_bytes(&get)], 1024).unwrap();
    assert_eq!(u64::from_ne_bytes(reply[..8].try_into().unwrap()), 1);
}

#[test]
fn more_than_can_be_listed_is_told_by_looking_at_everything_and_nothing_lasts_long_meanwhile() {
    let heard = Heard::with(|_| {}, true);
    let (share, client) = (&heard.share, heard.client());
    for name in ["first", "known", "gone"] {
        fs::write(share.host(name), "text").unwrap();
    }
    let [first, known, gone] = ["first", "known", "gone"].map(|name| client.walk(name).unwrap());
    let lasts = |client: &Client| client.lookup(ROOT, "known").unwrap().attr_valid;
    assert_eq!(lasts(&client), MINUTE);
    fs::write(share.host("first"), "more text").unwrap();
    assert_eq!(heard.next(), Inode(first));
    // The guest takes no more for now.
    fs::write(share.host("known"), "more text").unwrap();
    fs::remove_file(share.host("gone")).unwrap();
    for number in 0..5000 {
        fs::write(share.host(&format!("new-{number}")), "").unwrap();
    }
    heard.wait(|client| lasts(client) == 1);
    fs::write(share.host("known"), "yet more text").unwrap();
    // From here on the guest takes everything.
    let leave = heard.leave.clone().unwrap();
    for _ in 0..100_000 {
        let _ = leave.send(());
    }
    let mut said = Vec::new();
    while ![Deleted(ROOT, gone, "gone".into()), Inode(known)].iter().all(|wanted| said.contains(wanted)) {
        said.push(heard.next());
    }
    heard.wait(|client| lasts(client) == MINUTE);
}

#[test]
fn a_missing_name_that_the_guest_may_believe_in_is_told_when_it_comes() {
    let heard = Heard::with(|config| config.negative_timeout = Duration::from_secs(HOUR), false);
    let (share, client) = (&heard.share, heard.client());
    let missing = |name: &str| client.lookup(ROOT, name).map(|entry| (entry.nodeid, entry.entry_valid));
    assert_eq!(missing("later"), Ok((0, HOUR)));
    fs::write(share.host("never-asked"), "").unwrap();
    assert_eq!(heard.said(), []);
    fs::write(share.host("later"), "").unwrap();
    assert_said(&heard.said(), &[Epoch]);
    assert_ne!(client.lookup(ROOT, "later").unwrap().nodeid, 0);
    let unheard = Share::with(|config| (config.cache, config.notify) = (CacheMode::Coherent, true));
    assert_eq!(unheard.client().lookup(ROOT, "later").unwrap_err(), fuse_abi::Errno::ENOENT);
}

#[test]
fn directories_beyond_the_budget_are_validated_and_the_guest_is_asked_to_forget_some() {
    let heard = Heard::with(|config| config.watch_budget = 2, false);
    let (share, client) = (&heard.share, heard.client());
    for dir in ["a", "b"] {
        fs::create_dir(share.host(dir)).unwrap();
        fs::write(share.host(dir).join("file"), "text").unwrap();
    }
    let (a, b) = (client.walk("a").unwrap(), client.walk("b").unwrap());
    let lasts = |dir| client.lookup(dir, "file").unwrap().attr_valid;
    assert_eq!((lasts(a), lasts(b)), (MINUTE, 1));
    while heard.next() != Prune(vec![ROOT, a]) {}
    // A directory that is forgotten makes room.
    client.forget(a, 1);
    assert_eq!(lasts(b), MINUTE);
}

#[test]
fn a_session_that_begins_anew_is_told_of_nothing_from_before() {
    let heard = Heard::new();
    let (share, client) = (&heard.share, heard.client());
    fs::create_dir(share.host("dir")).unwrap();
    fs::write(share.host("dir/file"), "text").unwrap();
    client.walk("dir/file").unwrap();
    client.destroy().unwrap();
    client.init(OFFER).unwrap();
    fs::write(share.host("dir/file"), "more text").unwrap();
    assert_eq!(heard.said(), []);
    let node = client.walk("dir/file").unwrap();
    fs::write(share.host("dir/file"), "yet more text").unwrap();
    assert_said(&heard.said(), &[Inode(node)]);
}
