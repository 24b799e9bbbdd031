//! The table of system calls, grouped by what they are for.

use libc::c_long;

/// What a group of system calls is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// What the language, the C library and the log need in any thread.
    Base,
    /// Waiting for and signalling events.
    Events,
    /// The shared files.
    Files,
    /// Becoming the user of a request.
    Identity,
    /// Watching a directory of the host, or no longer.
    Watching,
    /// Looking at a shared file without opening it.
    Looking,
    /// What the C library reads before it gives a thread memory or takes some back: how many cores there are, and how
    /// memory is promised.
    Allocating,
    /// Talking to the front end, mapping its memory, creating threads.
    Control,
    /// Taking the socket away at the end.
    Ending,
    /// Waiting for another process.
    Waiting,
}

/// Which arguments a system call may have.
#[derive(Clone, Copy, Debug)]
pub enum Arguments {
    /// Whatever.
    Any,
    /// The argument of this index is one of these.
    OneOf(u8, &'static [u64]),
    /// The argument of this index has, among the bits of the mask, exactly these.
    Bits(u8, u64, u64),
    /// The first argument is this process's own number.
    OwnProcess,
}

use Arguments::{Any, Bits, OneOf, OwnProcess};

/// What the kernel has been asked with `ioctl` of files; the same numbers on every architecture supported here.
const FS_IOC_GETFLAGS: u64 = 0x8008_6601;
const FS_IOC_SETFLAGS: u64 = 0x4008_6602;
const FS_IOC_GETVERSION: u64 = 0x8008_7601;
const FS_IOC_FSGETXATTR: u64 = 0x801c_581f;
const FS_IOC_FSSETXATTR: u64 = 0x401c_5820;
const FUSE_DEV_IOC_CLONE: u64 = 0x8004_e500;

const FILE_IOCTLS: &[u64] =
    &[FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IOC_GETVERSION, FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR, FUSE_DEV_IOC_CLONE];

/// The same number on every architecture; the libc crate does not have it for all of them.
const FCHMODAT2: c_long = 452;

const FCNTLS: &[u64] = &[
    libc::F_GETFD as u64,
    libc::F_SETFD as u64,
    libc::F_GETFL as u64,
    libc::F_SETFL as u64,
    libc::F_DUPFD_CLOEXEC as u64,
    libc::F_OFD_GETLK as u64,
    libc::F_OFD_SETLK as u64,
    libc::F_OFD_SETLKW as u64,
];

const NOT_EXECUTABLE: Arguments = Bits(2, libc::PROT_EXEC as u64, 0);

/// A thread that shares all that threads share, and no new namespace.
const THREAD: u64 = (libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD) as u64;
const NEW_NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP) as u64;

/// System calls that only some architectures have.
#[cfg(target_arch = "x86_64")]
const BASE_OF_ARCHITECTURE: &[(c_long, Arguments)] = &[(libc::SYS_poll, Any), (libc::SYS_time, Any)];
#[cfg(target_arch = "x86_64")]
const EVENTS_OF_ARCHITECTURE: &[(c_long, Arguments)] = &[(libc::SYS_epoll_wait, Any)];
/// musl asks in the older ways for what has a newer one.
#[cfg(target_arch = "x86_64")]
const FILES_OF_ARCHITECTURE: &[(c_long, Arguments)] = &[(libc::SYS_open, Any), (libc::SYS_fstat, Any)];
#[cfg(not(target_arch = "x86_64"))]
const BASE_OF_ARCHITECTURE: &[(c_long, Arguments)] = &[];
#[cfg(not(target_arch = "x86_64"))]
const EVENTS_OF_ARCHITECTURE: &[(c_long, Arguments)] = &[];
#[cfg(not(target_arch = "x86_64"))]
const FILES_OF_ARCHITECTURE: &[(c_long, Arguments)] = &[(libc::SYS_fstat, Any)];

/// The groups and what belongs to each.
pub const GROUPS: &[(Group, &[(c_long, Arguments)])] = &[
    (Group::Base, BASE),
    (Group::Base, BASE_OF_ARCHITECTURE),
    (Group::Events, EVENTS),
    (Group::Events, EVENTS_OF_ARCHITECTURE),
    (Group::Files, FILES),
    (Group::Files, FILES_OF_ARCHITECTURE),
    (Group::Identity, IDENTITY),
    (Group::Watching, WATCHING),
    (Group::Looking, LOOKING),
    (Group::Allocating, ALLOCATING),
    (Group::Control, CONTROL),
    (Group::Ending, ENDING),
    (Group::Waiting, WAITING),
];

const BASE: &[(c_long, Arguments)] = &[
    (libc::SYS_brk, Any),
    (libc::SYS_clock_getres, Any),
    (libc::SYS_clock_gettime, Any),
    (libc::SYS_clock_nanosleep, Any),
    (libc::SYS_close, Any),
    (libc::SYS_exit, Any),
    (libc::SYS_exit_group, Any),
    (libc::SYS_fcntl, OneOf(1, FCNTLS)),
    (libc::SYS_futex, Any),
    (libc::SYS_getpid, Any),
    (libc::SYS_getrandom, Any),
    (libc::SYS_gettid, Any),
    (libc::SYS_gettimeofday, Any),
    (libc::SYS_madvise, Any),
    (libc::SYS_membarrier, Any),
    (libc::SYS_mmap, NOT_EXECUTABLE),
    (libc::SYS_mprotect, NOT_EXECUTABLE),
    (libc::SYS_mremap, Any),
    (libc::SYS_munmap, Any),
    (libc::SYS_nanosleep, Any),
    (libc::SYS_ppoll, Any),
    (libc::SYS_read, Any),
    (libc::SYS_restart_syscall, Any),
    (libc::SYS_rseq, Any),
    (libc::SYS_rt_sigaction, Any),
    (libc::SYS_rt_sigprocmask, Any),
    (libc::SYS_rt_sigreturn, Any),
    (libc::SYS_sched_getaffinity, Any),
    (libc::SYS_sched_yield, Any),
    (libc::SYS_set_robust_list, Any),
    (libc::SYS_sigaltstack, Any),
    // A panic or a failed allocation ends the process by abort, which sends the signal to itself.
    (libc::SYS_tgkill, OwnProcess),
    (libc::SYS_write, Any),
    (libc::SYS_writev, Any),
];

const EVENTS: &[(c_long, Arguments)] = &[
    (libc::SYS_dup, Any),
    (libc::SYS_epoll_create1, Any),
    (libc::SYS_epoll_ctl, Any),
    (libc::SYS_epoll_pwait, Any),
    (libc::SYS_epoll_pwait2, Any),
    (libc::SYS_eventfd2, Any),
];

const FILES: &[(c_long, Arguments)] = &[
    (libc::SYS_copy_file_range, Any),
    (libc::SYS_faccessat, Any),
    (libc::SYS_faccessat2, Any),
    (libc::SYS_fadvise64, Any),
    (libc::SYS_fallocate, Any),
    (libc::SYS_fchdir, Any),
    (libc::SYS_fchmod, Any),
    (libc::SYS_fchmodat, Any),
    (FCHMODAT2, Any),
    (libc::SYS_fchown, Any),
    (libc::SYS_fchownat, Any),
    (libc::SYS_fdatasync, Any),
    (libc::SYS_fgetxattr, Any),
    (libc::SYS_flistxattr, Any),
    (libc::SYS_flock, Any),
    (libc::SYS_fremovexattr, Any),
    (libc::SYS_fsetxattr, Any),
    (libc::SYS_fstatfs, Any),
    (libc::SYS_fsync, Any),
    (libc::SYS_ftruncate, Any),
    (libc::SYS_getdents64, Any),
    (libc::SYS_getxattr, Any),
    (libc::SYS_ioctl, OneOf(1, FILE_IOCTLS)),
    (libc::SYS_lgetxattr, Any),
    (libc::SYS_linkat, Any),
    (libc::SYS_listxattr, Any),
    (libc::SYS_llistxattr, Any),
    (libc::SYS_lremovexattr, Any),
    (libc::SYS_lseek, Any),
    (libc::SYS_lsetxattr, Any),
    (libc::SYS_mkdirat, Any),
    (libc::SYS_mknodat, Any),
    (libc::SYS_name_to_handle_at, Any),
    (libc::SYS_newfstatat, Any),
    (libc::SYS_open_by_handle_at, Any),
    (libc::SYS_openat, Any),
    (libc::SYS_openat2, Any),
    // To pin once more what is open, and never to copy a mount.
    (libc::SYS_open_tree, Bits(2, libc::OPEN_TREE_CLONE as u64, 0)),
    (libc::SYS_pread64, Any),
    (libc::SYS_preadv, Any),
    (libc::SYS_preadv2, Any),
    (libc::SYS_pwrite64, Any),
    (libc::SYS_pwritev, Any),
    (libc::SYS_pwritev2, Any),
    (libc::SYS_readahead, Any),
    (libc::SYS_readlinkat, Any),
    (libc::SYS_readv, Any),
    (libc::SYS_removexattr, Any),
    (libc::SYS_renameat2, Any),
    (libc::SYS_setxattr, Any),
    (libc::SYS_statfs, Any),
    (libc::SYS_statx, Any),
    (libc::SYS_symlinkat, Any),
    (libc::SYS_sync_file_range, Any),
    (libc::SYS_syncfs, Any),
    (libc::SYS_umask, Any),
    (libc::SYS_unlinkat, Any),
    (libc::SYS_utimensat, Any),
];

const IDENTITY: &[(c_long, Arguments)] = &[
    (libc::SYS_capget, Any),
    (libc::SYS_capset, Any),
    (libc::SYS_getegid, Any),
    (libc::SYS_geteuid, Any),
    (libc::SYS_getgroups, Any),
    (libc::SYS_setfsgid, Any),
    (libc::SYS_setfsuid, Any),
    (libc::SYS_setgroups, Any),
    (libc::SYS_setresgid, Any),
    (libc::SYS_setresuid, Any),
];

const WATCHING: &[(c_long, Arguments)] = &[(libc::SYS_inotify_add_watch, Any), (libc::SYS_inotify_rm_watch, Any)];

const ALLOCATING: &[(c_long, Arguments)] =
    &[(libc::SYS_openat, Bits(2, (libc::O_ACCMODE | libc::O_CREAT) as u64, libc::O_RDONLY as u64))];

/// With what keeps the event file short.
const LOOKING: &[(c_long, Arguments)] = &[
    (libc::SYS_ftruncate, Any),
    (libc::SYS_name_to_handle_at, Any),
    (libc::SYS_open_by_handle_at, Any),
    (libc::SYS_statx, Any),
];

const CONTROL: &[(c_long, Arguments)] = &[
    (libc::SYS_accept4, Any),
    (libc::SYS_clone, Bits(0, THREAD | NEW_NAMESPACES, THREAD)),
    // Answered with ENOSYS by a filter of its own.
    (libc::SYS_clone3, Any),
    (libc::SYS_getsockopt, Any),
    (libc::SYS_inotify_init1, Any),
    // A thread takes its name, and its filter, when it begins.
    (libc::SYS_prctl, OneOf(0, &[libc::PR_SET_NAME as u64, libc::PR_SET_NO_NEW_PRIVS as u64])),
    (libc::SYS_recvfrom, Any),
    (libc::SYS_recvmsg, Any),
    (libc::SYS_seccomp, OneOf(0, &[libc::SECCOMP_SET_MODE_FILTER as u64])),
    (libc::SYS_sendmsg, Any),
    (libc::SYS_shutdown, Any),
    // A thread that serves has a working directory and a umask of its own.
    (libc::SYS_unshare, OneOf(0, &[libc::CLONE_FS as u64])),
];

const ENDING: &[(c_long, Arguments)] =
    &[(libc::SYS_newfstatat, Any), (libc::SYS_statx, Any), (libc::SYS_unlinkat, Any)];

const WAITING: &[(c_long, Arguments)] = &[(libc::SYS_pidfd_send_signal, Any), (libc::SYS_waitid, Any)];
