//! Starting the program under test, asking it, and looking at it from outside.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The environment variable that makes this program the one under test.
pub const STUB: &str = "FERRYFS_TEST_STUB";

/// The user who stands for any user without privileges.
pub const NOBODY: u32 = 65534;

/// Far beyond what anything here takes: whoever waits this long hangs.
const HANG: Duration = Duration::from_secs(60);

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The user as whom tests of unprivileged operation run the daemon.
pub fn plain_user() -> u32 {
    if is_root() { NOBODY } else { rustix::process::geteuid().as_raw() }
}

pub fn plain_group() -> u32 {
    if is_root() { NOBODY } else { rustix::process::getegid().as_raw() }
}

pub fn has_user_namespaces() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--mount", "true"]).stderr(Stdio::null());
        become_plain(&mut command);
        command.status().is_ok_and(|status| status.success())
    })
}

pub fn has_id_map_programs() -> bool {
    let exists = |path| Path::new(path).exists();
    has_user_namespaces()
        && ["/usr/bin/newuidmap", "/usr/bin/newgidmap", "/etc/subuid", "/etc/subgid"].into_iter().all(exists)
}

pub fn become_plain(command: &mut Command) {
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
}

static TOOLS: OnceLock<PathBuf> = OnceLock::new();

/// Programs that tests start, made before there are threads: a process that another thread starts in the meantime
/// would inherit the file as open for writing, and it could not be executed.
pub fn prepare_tools() -> TempDir {
    let tools = TempDir::new().unwrap();
    fs::set_permissions(tools.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(std::env::current_exe().unwrap(), tools.path().join("program")).unwrap();
    let refuses = "#!/bin/sh\nshift; echo \"asked for $*\" >&2; echo refused >&2; exit 1\n";
    fs::write(tools.path().join("newuidmap"), refuses).unwrap();
    for name in ["program", "newuidmap"] {
        fs::set_permissions(tools.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    TOOLS.set(tools.path().to_owned()).unwrap();
    tools
}

pub fn tool(name: &str) -> PathBuf {
    TOOLS.get().unwrap().join(name)
}

/// A place for one test: a share with two entries, and room for a socket.
pub struct Place {
    root: TempDir,
}

impl Place {
    /// A place that every user may enter, with the share and the rest owned by the plain user.
    pub fn new() -> Self {
        let root = TempDir::new().unwrap();
        let place = Self { root };
        fs::set_permissions(place.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir_all(place.path("share/directory")).unwrap();
        fs::write(place.path("share/file"), "text").unwrap();
        fs::create_dir(place.path("run")).unwrap();
        for name in ["share", "share/directory", "share/file", "run"] {
            if is_root() {
                std::os::unix::fs::chown(place.path(name), Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("run/socket")
    }

    pub fn pid_file(&self) -> PathBuf {
        self.path("run/socket.pid")
    }

    /// The program under test with the share, the socket and these options.
    pub fn command(&self, options: &str) -> Command {
        let mut command = self.bare_command();
        command.arg("--shared-dir").arg(self.path("share")).arg("--socket-path").arg(self.socket());
        command.args(options.split_whitespace());
        command
    }

    /// The same as the plain user, who may not be able to reach the program where it was built.
    pub fn plain_command(&self, options: &str) -> Command {
        let mut command = Command::new(tool("program"));
        command.args(self.command(options).get_args()).env(STUB, "1").current_dir("/");
        become_plain(&mut command);
        command
    }

    pub fn bare_command(&self) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(STUB, "1").env_remove("NOTIFY_SOCKET").env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
        command
    }

    /// Starts it and waits until it answers.
    pub fn start(&self, options: &str) -> Daemon {
        self.start_command(&mut self.command(options))
    }

    /// Starts it without waiting.
    pub fn spawn(&self, command: &mut Command) -> Daemon {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        Daemon { child, socket: self.socket() }
    }

    pub fn start_command(&self, command: &mut Command) -> Daemon {
        let mut daemon = self.spawn(command);
        assert_eq!(daemon.ask("list share"), "directory file");
        daemon
    }
}

/// The program under test, running. Ends with its owner.
pub struct Daemon {
    pub child: Child,
    pub socket: PathBuf,
}

impl Daemon {
    /// Sends a request and returns the answer; an empty one when the program ends instead.
    pub fn ask(&mut self, request: &str) -> String {
        let mut connection = self.connect();
        connection.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        // A program that dies with the request unread resets the connection.
        let _ = connection.read_to_string(&mut answer);
        answer
    }

    fn connect(&mut self) -> UnixStream {
        wait_for("a connection", || {
            if let Ok(Some(status)) = self.child.try_wait() {
                let mut told = String::new();
                self.child.stderr.take().map(|mut pipe| pipe.read_to_string(&mut told));
                panic!("the daemon ended with {status}: {told}");
            }
            UnixStream::connect(&self.socket).ok()
        })
    }

    /// The number of the process that was started.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The number of the process that serves: in a sandbox a child of the one that was started.
    pub fn serving(&self) -> u32 {
        let children = processes().into_iter().filter(|pid| status(*pid).get("PPid") == Some(&self.pid().to_string()));
        children.max().unwrap_or(self.pid())
    }

    /// Waits for its end; returns how it ended and what it said.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let status = wait_for("the daemon's end", || self.child.try_wait().unwrap());
        let mut told = String::new();
        if let Some(mut pipe) = self.child.stderr.take() {
            pipe.read_to_string(&mut told).unwrap();
        }
        (status, told)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command that is expected to end by itself: its status, and the lines on standard error that are no log.
pub fn fail(command: &mut Command) -> (i32, Vec<String>) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap_or(-1), text.lines().map(Into::into).collect())
}

/// Expects exactly one line, with these words, and this status.
pub fn assert_fails(command: &mut Command, status: i32, words: &[&str]) {
    let (code, lines) = fail(command);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("ferryfs: "), "{lines:?}");
    assert!(words.iter().all(|word| lines[0].contains(word)), "{lines:?} lacks one of {words:?}");
    assert_eq!(code, status, "{lines:?}");
}

/// Tries again until there is something; the limit only ends a hang.
pub fn wait_for<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(start.elapsed() < HANG, "waited for {what} in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The fields of `/proc/PID/status`.
pub fn status(pid: u32) -> BTreeMap<String, String> {
    fields(Path::new(&format!("/proc/{pid}/status")))
}

/// The fields of the status of each thread.
pub fn thread_status(pid: u32) -> Vec<BTreeMap<String, String>> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    threads.map(|thread| fields(&thread.path().join("status"))).collect()
}

fn fields(path: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| line.split_once(':')).map(|(k, v)| (k.into(), v.trim().into())).collect()
}

/// Where the descriptors of a process lead.
pub fn descriptors(pid: u32) -> Vec<String> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    links.filter_map(|link| fs::read_link(link.path()).ok()).map(|path| path.display().to_string()).collect()
}

pub fn namespace(pid: impl std::fmt::Display, kind: &str) -> OsString {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().into()
}
