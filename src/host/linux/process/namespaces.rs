//! A second process in namespaces of its own, and what ties the two together.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

/// Which namespaces the second process gets of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespaces {
    /// None: it is a plain child.
    None,
    /// Mounts, processes, network, IPC and host name.
    System,
    /// The same, inside a user namespace, for a process without privileges.
    User,
}

impl Namespaces {
    fn flags(self) -> libc::c_int {
        let system =
            libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        match self {
            Self::None => 0,
            Self::System => system,
            Self::User => system | libc::CLONE_NEWUSER,
        }
    }
}

/// On which side of the division the caller finds itself.
#[derive(Debug)]
pub enum Side {
    /// The process that was there before.
    Outside(Child),
    /// The new process.
    Inside,
}

/// The process inside, as seen from outside.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    descriptor: OwnedFd,
}

/// How the process inside ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It returned this status.
    Exited(u8),
    /// It was ended by this signal.
    Killed(i32),
}

/// Divides the process in two. To be called while it has one thread.
///
/// One call creates the child inside all its namespaces, so the parent keeps its own view, and can write id maps.
pub fn divide(namespaces: Namespaces) -> io::Result<Side> {
    let mut arguments = CloneArguments {
        flags: namespaces.flags().cast_unsigned().into(),
        exit_signal: libc::SIGCHLD.cast_unsigned().into(),
        ..CloneArguments::default()
    };
    // As glibc's fork has it: it keeps the thread's id at this place and reads it again later. musl keeps a lock there.
    if cfg!(target_env = "gnu")
        && let Ok(Some(place)) = rustix::thread::get_clear_child_tid_address()
    {
        arguments.child_tid = place.as_ptr() as u64;
        arguments.flags |= (libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID).cast_unsigned() as u64;
    }
    // SAFETY: without CLONE_VM and a stack this forks: the child goes on with a copy of everything, and as there is one
    // thread no lock is held by another. The place of the thread's id is one the kernel writes to already.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<CloneArguments>()) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Inside),
        number => {
            let no_child = || io::Error::from_raw_os_error(libc::ECHILD);
            let pid = i32::try_from(number).ok().and_then(Pid::from_raw).ok_or_else(no_child)?;
            // It cannot have been reaped yet, so the number still stands for it.
            let descriptor = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
            Ok(Side::Outside(Child { pid, descriptor }))
        }
    }
}

/// `struct clone_args` of the kernel, version 0; the libc crate does not have it for every C library.
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

impl Child {
    /// Its number in the caller's pid namespace.
    pub fn number(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Sends it a signal; that it is gone already is no failure.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match rustix::process::pidfd_send_signal(&self.descriptor, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until it has ended.
    pub fn wait(&self) -> io::Result<Ending> {
        let who = || WaitId::PidFd(self.descriptor.as_fd());
        let status = rustix::io::retry_on_intr(|| rustix::process::waitid(who(), WaitIdOptions::EXITED))?;
        let status = status.ok_or_else(|| io::Error::from_raw_os_error(libc::ECHILD))?;
        Ok(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Ending::Exited(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
            (None, signal) => Ending::Killed(signal.unwrap_or(libc::SIGKILL)),
        })
    }
}

impl AsFd for Child {
    /// Becomes readable when the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Makes the calling thread, and with it the process, end with the process that created it.
///
/// Changing ids undoes this, so it is done after that.
pub fn end_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Two ends of a pipe: what is written to the second is read from the first.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}
