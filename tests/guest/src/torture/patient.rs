//! The daemon under torture: started, watched for growth, and started again when it has ended.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::daemon::Daemon;
use crate::error::{Error, Result};

/// Sessions after which the daemon must have found its size.
const WARM_UP: u64 = 12;
/// How many looks in a row must see the same at the end of the first session.
const STEADY: u32 = 20;
/// Kilobytes of its own memory by which it may differ from that: what an allocator keeps, and no more.
const SLACK: u64 = 24 << 10;

/// What a daemon holds while nobody is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Size {
    files: BTreeSet<u32>,
    threads: u64,
}

/// A daemon and what is needed to start it again.
pub(super) struct Patient {
    program: PathBuf,
    share: PathBuf,
    args: Vec<String>,
    /// Whether it stays when its front end leaves.
    pub(super) persists: bool,
    /// Whether it has more than one request queue.
    pub(super) queues: u16,
    daemon: Option<Daemon>,
    sessions: u64,
    size: Option<Size>,
    /// Its largest memory when it was warm, in kilobytes.
    warm: u64,
    /// Its memory at the last look.
    last: u64,
}

impl Patient {
    /// Asks the program what it can do.
    pub(super) fn new(program: &Path, share: &Path, queues: u16, args: &[String]) -> Result<Self> {
        let help = Command::new(program).arg("--help").output();
        let help = help.map_err(|error| Error::Daemon(format!("{}: {error}", program.display())))?;
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        let (persists, several) = (help.contains("--persist"), help.contains("--num-request-queues"));
        let queues = if several { queues } else { 1 };
        let mut all = vec!["--log-level".into(), "error".into()];
        if persists {
            all.push("--persist".into());
        }
        if several {
            all.extend(["--num-request-queues".into(), queues.to_string()]);
        }
        all.extend_from_slice(args);
        let (program, share) = (program.to_owned(), share.to_owned());
        Ok(Self {
            program,
            share,
            args: all,
            persists,
            queues,
            daemon: None,
            sessions: 0,
            size: None,
            warm: 0,
            last: 0,
        })
    }

    /// A connection to the daemon, which is started when there is none.
    pub(super) fn connect(&mut self) -> Result<UnixStream> {
        let daemon = match &mut self.daemon {
            Some(daemon) => daemon,
            none => {
                let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
                (self.sessions, self.size, self.warm) = (0, None, 0);
                none.insert(Daemon::share(&self.program, &self.share, &args)?)
            }
        };
        daemon.connect()
    }

    /// How the daemon ended, if it has: its status and what it said. It is started again by the next connection.
    pub(super) fn died(&mut self) -> Result<Option<String>> {
        // A connection that broke is often the first that is seen of a death.
        let end = Instant::now() + Duration::from_millis(300);
        let Some(daemon) = &mut self.daemon else { return Ok(None) };
        loop {
            if let Some(status) = daemon.exited()? {
                let log = daemon.log();
                let tail: Vec<&str> = log.lines().rev().take(4).collect();
                let said: Vec<&str> = tail.into_iter().rev().collect();
                self.daemon = None;
                return Ok(Some(format!("{status}; its last words: {}", said.join(" | "))));
            }
            if Instant::now() > end {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends the daemon; the next connection finds a new one.
    pub(super) fn discard(&mut self) {
        self.daemon = None;
    }

    /// After a session: everything it took must have been given back, and it must have met no mistake of its own. For a
    /// daemon that does not stay: it must have ended well.
    pub(super) fn settle(&mut self, limit: Duration) -> Result<()> {
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        if !self.persists {
            let status = daemon.wait_exit(limit);
            self.daemon = None;
            let status = status?;
            return if status.success() { Ok(()) } else { Err(Error::Daemon(format!("ended with {status}"))) };
        }
        if let Some(mistake) = daemon.mistake() {
            return Err(Error::Daemon(mistake));
        }
        self.sessions += 1;
        let pid = daemon.serving_pid();
        let end = Instant::now() + limit;
        let (mut seen, mut steady) = (None, 0);
        let size = loop {
            let size = Size { files: numbers(&format!("/proc/{pid}/fd"))?, threads: daemon.kilobytes("Threads")? };
            match &self.size {
                Some(first) if size.threads <= first.threads && size.files.len() <= first.files.len() => break size,
                Some(_) => {}
                // Of the first session's end nothing is known but that it comes, and that nothing changes after it.
                None if steady == STEADY => break size,
                None => {}
            }
            if Instant::now() > end {
                let at_first = self.size.as_ref().or(seen.as_ref());
                return Err(Error::Daemon(format!("after a session it holds {size:?}, at first {at_first:?}")));
            }
            steady = if seen.as_ref() == Some(&size) { steady + 1 } else { 0 };
            seen = Some(size);
            std::thread::sleep(Duration::from_micros(if self.size.is_none() { 5000 } else { 200 }));
        };
        self.size = Some(size);
        self.last = daemon.kilobytes("RssAnon")?;
        if self.sessions <= WARM_UP {
            self.warm = self.warm.max(self.last);
        } else if self.last > self.warm + SLACK {
            let (last, warm) = (self.last, self.warm);
            return Err(Error::Daemon(format!("its memory grew from {warm} to {last} KiB")));
        }
        Ok(())
    }

    /// What it holds, in words.
    pub(super) fn measure(&self) -> String {
        let Some(size) = self.size.as_ref().filter(|_| self.daemon.is_some()) else { return "not running".into() };
        let Size { files, threads } = size;
        let (warm, last) = (self.warm, self.last);
        format!(
            "{} descriptors and {threads} threads between sessions, {warm} KiB warm, {last} KiB at the end",
            files.len()
        )
    }
}

fn numbers(path: &str) -> Result<BTreeSet<u32>> {
    let entries = fs::read_dir(path).map_err(Error::io("list descriptors"))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}
