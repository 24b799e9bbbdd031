//! The server under test: answers one line for each connection, from inside whatever isolation was asked for.

use std::fmt::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

use ferryfs::daemon::error::Error;
use ferryfs::daemon::seccomp::{ROLES, Role, confine};
use ferryfs::daemon::{self, Setup};
use rustix::fs::{CWD, Dir, Mode, OFlags};

pub fn main() -> ExitCode {
    let mount = |_| Err(Error::Failed("the stub mounts nothing".into()));
    daemon::run(std::env::args_os(), serve, mount)
}

fn serve(setup: Setup) -> Result<(), Error> {
    let Setup { preopened, listener, descriptors, ready, .. } = setup;
    ready.announce()?;
    loop {
        let (connection, _) = listener.accept().map_err(|error| Error::system("cannot accept", error, ""))?;
        let answer = match receive(connection.as_fd()).split_once(' ').unwrap_or_default() {
            ("quit", "well") => return Ok(()),
            ("quit", _) => return Err(Error::Failed("asked to fail".into())),
            ("list", "share") => list(&preopened.shared_dir, "."),
            ("list", "above-share") => list(&preopened.shared_dir, ".."),
            ("list", "above-every-descriptor") => list_above_all(&preopened.proc_self_fd),
            ("list", "above-fds") => list(&preopened.proc_self_fd, ".."),
            ("list", path) => list(CWD, path),
            ("through", "fds") => list(&preopened.proc_self_fd, &preopened.shared_dir.as_fd().as_raw_fd().to_string()),
            ("mounts", _) => read(&preopened.mountinfo),
            ("share", "in-mountinfo") => preopened.shared_dir_in_mountinfo.display().to_string(),
            ("descriptors", _) => format!("{} {}", descriptors.limit, descriptors.guest),
            ("forbidden", role) => in_role(role, forbidden),
            ("thread", role) => in_role(role, || std::thread::spawn(|| "made a thread".to_owned()).join().unwrap()),
            ("usual", role) => in_role(role, usual),
            other => panic!("the stub does not know {other:?}"),
        };
        send(connection.as_fd(), &answer);
    }
}

/// Reads and writes as any thread may, where the standard library would use calls of sockets.
fn receive(connection: BorrowedFd<'_>) -> String {
    let mut request = vec![0; 4096];
    let length = rustix::io::read(connection, &mut request).unwrap();
    request.truncate(length);
    String::from_utf8(request).unwrap()
}

fn send(connection: BorrowedFd<'_>, mut answer: &str) {
    while !answer.is_empty() {
        answer = &answer[rustix::io::write(connection, answer.as_bytes()).unwrap()..];
    }
}

fn list(at: impl AsFd, path: &str) -> String {
    let directory = match rustix::fs::openat(at, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
        Ok(directory) => directory,
        Err(error) => return format!("error: {error}"),
    };
    let names =
        Dir::read_from(&directory).unwrap().map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned());
    let mut names: Vec<_> = names.filter(|name| name != "." && name != "..").collect();
    names.sort();
    names.join(" ")
}

/// What lies above each descriptor that is a directory, one line each.
fn list_above_all(descriptors: &OwnedFd) -> String {
    let numbers = list(descriptors, ".");
    let above = numbers.split(' ').map(|number| list(descriptors, &format!("{number}/..")));
    above.filter(|names| !names.starts_with("error")).collect::<Vec<_>>().join("\n")
}

fn read(file: &OwnedFd) -> String {
    let mut text = Vec::new();
    let mut part = [0; 4096];
    loop {
        match rustix::io::read(file, &mut part).unwrap() {
            0 => return String::from_utf8(text).unwrap(),
            length => text.extend_from_slice(&part[..length]),
        }
    }
}

/// Does `work` in a thread confined to the role of this name.
fn in_role(name: &str, work: fn() -> String) -> String {
    let role = ROLES.into_iter().find(|role| format!("{role:?}") == name).unwrap();
    let thread = std::thread::spawn(move || {
        confine_now(role);
        work()
    });
    thread.join().unwrap()
}

fn confine_now(role: Role) {
    confine(role).unwrap();
}

/// What no thread may do.
fn forbidden() -> String {
    use rustix::net::{AddressFamily, SocketType, socket};
    socket(AddressFamily::UNIX, SocketType::STREAM, None).map_or_else(|e| e.to_string(), |_| "made a socket".into())
}

/// What every thread may do: memory, locks, time, randomness, output.
fn usual() -> String {
    let mut text = String::new();
    let large = vec![7_u8; 64 << 20];
    let lock = std::sync::Mutex::new(large.len());
    write!(text, "{}", lock.lock().unwrap()).unwrap();
    std::thread::sleep(std::time::Duration::from_micros(1));
    let seeded: std::collections::HashSet<u8> = large.into_iter().take(1000).collect();
    write!(text, " {} {}", seeded.len(), std::time::Instant::now().elapsed().as_secs()).unwrap();
    text
}
