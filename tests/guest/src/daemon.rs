//! A daemon under test: started in a folder of its own, reached when a connection succeeds, ended by its pid.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::error::{Error, Result};

/// How long a daemon may take to accept a connection, and to end when told to.
const LIMIT: Duration = Duration::from_secs(20);
/// How long to sleep between looks at something that cannot be waited for.
const PAUSE: Duration = Duration::from_millis(5);

/// The program named by `FERRYFS_TEST_DAEMON`, or the `ferryfs` that was built along with the tests, or the first
/// `ferryfs` or `virtiofsd` on the path.
#[must_use]
pub fn find_daemon() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("FERRYFS_TEST_DAEMON") {
        return Some(named.into());
    }
    let beside = built_beside();
    if beside.is_some() {
        return beside;
    }
    let path = std::env::var_os("PATH")?;
    let found = |name: &str| std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
    found("ferryfs").or_else(|| found("virtiofsd"))
}

/// The `ferryfs` that was built along with the tests, which lie in `deps`, one below the programs of the same build.
fn built_beside() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    own.ancestors().nth(2).map(|build| build.join("ferryfs")).filter(|file| file.is_file())
}

/// The `ferryfs` that was built along with a test that mounts it, or nothing where it cannot be mounted: said aloud.
#[must_use]
pub fn mountable_ferryfs() -> Option<PathBuf> {
    let built = built_beside();
    let reason = match () {
        () if built.is_none() => "no ferryfs beside this test: build the workspace",
        () if !geteuid().is_root() => "not root",
        () if File::open("/dev/fuse").is_err() => "no /dev/fuse",
        () => return built,
    };
    skipped(reason);
    None
}

/// Says that a test, or a part of it, is skipped, and why: past the test harness, which would swallow it.
pub fn skipped(reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {reason}");
}

/// How often descriptors are counted.
const LOOKS: u32 = 4;

/// What a panic looks like, told by ferryfs itself or by the language.
const MISTAKES: [&str; 2] = ["mistake of ferryfs's own", "panicked at"];

/// A running daemon. Dropping it ends exactly this process and waits for it.
pub struct Daemon {
    child: Child,
    folder: TempDir,
    first: Option<UnixStream>,
}

impl Daemon {
    /// Starts `program --socket-path SOCKET args...` and waits until it accepts a connection.
    pub fn start<S: AsRef<OsStr>>(program: &Path, args: &[S]) -> Result<Self> {
        Self::start_with(program, args, |_| {})
    }

    /// [`Daemon::start`], with a last word on the command: environment, limits, a wrapper's own arguments.
    pub fn start_with<S: AsRef<OsStr>>(program: &Path, args: &[S], change: impl FnOnce(&mut Command)) -> Result<Self> {
        let folder = TempDir::with_prefix("ferryfs-daemon-").map_err(Error::io("make a folder"))?;
        let log = File::create(folder.path().join("log")).map_err(Error::io("create the log"))?;
        let log_too = log.try_clone().map_err(Error::io("share the log"))?;
        let mut command = Command::new(program);
        command.arg("--socket-path").arg(folder.path().join("socket")).args(args);
        command.stdin(Stdio::null()).stdout(log).stderr(log_too);
        change(&mut command);
        let child = command.spawn().map_err(|e| Error::Daemon(format!("{}: {e}", program.display())))?;
        let mut daemon = Self { child, folder, first: None };
        daemon.first = Some(daemon.reach()?);
        Ok(daemon)
    }

    /// Starts a daemon that shares `dir`, by the options every virtiofsd-like daemon takes.
    pub fn share(program: &Path, dir: &Path, args: &[&str]) -> Result<Self> {
        let shared = [OsStr::new("--shared-dir"), dir.as_os_str()];
        let all: Vec<&OsStr> = shared.into_iter().chain(args.iter().map(OsStr::new)).collect();
        Self::start(program, &all)
    }

    /// A connection: the one that showed that the daemon listens, later new ones.
    pub fn connect(&mut self) -> Result<UnixStream> {
        match self.first.take() {
            Some(stream) => Ok(stream),
            None => self.reach(),
        }
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to its standard output and error.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(self.folder.path().join("log")).map_or_else(|_| String::new(), |b| String::from_utf8_lossy(&b).into())
    }

    /// The first mistake of its own that it told of: it may have contained it and gone on.
    #[must_use]
    pub fn mistake(&self) -> Option<String> {
        let told = self.log();
        let line = told.lines().find(|line| MISTAKES.iter().any(|words| line.contains(words)));
        line.map(str::to_owned)
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().map_err(Error::io("wait for the daemon"))
    }

    /// Waits until it has ended by itself.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.exited()? {
                return Ok(status);
            }
            if Instant::now() >= end {
                return Err(Error::Timeout { what: "wait for the daemon to end", limit });
            }
            sleep(PAUSE);
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).map_err(Error::io("signal the daemon"))
    }

    /// The processes that serve: the child and, where it forked to serve in a namespace, its descendants.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let mut pids = vec![self.pid()];
        let mut next = 0;
        while let Some(&pid) = pids.get(next) {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            pids.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
            next += 1;
        }
        pids
    }

    /// The process that holds the connection: the last of [`Daemon::pids`].
    #[must_use]
    pub fn serving_pid(&self) -> u32 {
        self.pids().last().copied().unwrap_or(self.pid())
    }

    /// How many descriptors the serving process has open: the fewest that some looks find, because a thread that has
    /// just begun may hold one for a moment (the C library looks how many processors there are).
    pub fn open_files(&self) -> Result<usize> {
        let path = format!("/proc/{}/fd", self.serving_pid());
        let mut fewest = usize::MAX;
        for _ in 0..LOOKS {
            fewest = fewest.min(fs::read_dir(&path).map_err(Error::io("list descriptors"))?.count());
            sleep(PAUSE);
        }
        Ok(fewest)
    }

    /// CPU time that the serving process has used, user and system.
    pub fn cpu_time(&self) -> Result<Duration> {
        let pid = self.serving_pid();
        let schedstat = |task: &Path| fs::read_to_string(task.join("schedstat")).unwrap_or_default();
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).map_err(Error::io("list threads"))?;
        // Nanoseconds on the CPU, where /proc/PID/stat counts in ticks of 10 ms. Threads that have ended are missing.
        let nanos = tasks
            .flatten()
            .filter_map(|task| schedstat(&task.path()).split_whitespace().next()?.parse::<u64>().ok())
            .sum();
        Ok(Duration::from_nanos(nanos))
    }

    /// A line of the serving process's `/proc/PID/status` that counts kilobytes, for example `VmRSS` or `VmHWM`.
    pub fn kilobytes(&self, field: &str) -> Result<u64> {
        let path = format!("/proc/{}/status", self.serving_pid());
        let status = fs::read_to_string(&path).map_err(Error::io("read the status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        number.ok_or_else(|| Error::Daemon(format!("no {field} in {path}")))
    }

    fn reach(&mut self) -> Result<UnixStream> {
        let end = Instant::now() + LIMIT;
        loop {
            // The file is there before anybody listens: only a connection shows that the daemon is ready.
            let error = match UnixStream::connect(self.socket()) {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            if let Some(status) = self.exited()? {
                let how = status.signal().map_or_else(|| status.to_string(), |signal| format!("signal {signal}"));
                return Err(Error::Daemon(format!("ended before it listened ({how}): {}", self.log().trim())));
            }
            if Instant::now() >= end {
                return Err(Error::Daemon(format!("does not listen after {LIMIT:?} ({error}): {}", self.log().trim())));
            }
            sleep(PAUSE);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Children first: one that outlives its parent would be nobody's to wait for.
        for pid in self.pids().into_iter().skip(1).rev() {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of daemon {} ---\n{}", self.pid(), self.log());
        }
    }
}
