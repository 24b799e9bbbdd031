//! Mounts a directory that a vhost-user-fs daemon shares, with this machine's own kernel client and without a VM.

use std::error::Error;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgGroup, Parser};
use ferryfs_guest::bridge::{Bridge, BridgeOptions};
use ferryfs_guest::front_end::virtio;
use ferryfs_guest::{Daemon, Error as GuestError};
use rustix::event::{PollFd, PollFlags, poll};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::low_level::pipe;

#[derive(Parser)]
#[command(about, version, group(ArgGroup::new("peer").required(true).args(["daemon", "socket"])))]
struct Arguments {
    /// Request queues, a thread each
    #[arg(long, default_value_t = 1)]
    queues: u16,
    /// Descriptors in each ring
    #[arg(long, default_value_t = 256)]
    queue_size: u16,
    /// Requests in flight on each queue
    #[arg(long, default_value_t = 64)]
    depth: u16,
    /// Start this daemon, words split at spaces; --socket-path is added
    #[arg(long, value_name = "PATH ARGS...")]
    daemon: Option<String>,
    /// Connect to a daemon that listens here
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Append the requests counted by opcode at the end and, beginning again at 0, at each SIGUSR1
    #[arg(long, value_name = "FILE")]
    count: Option<PathBuf>,
    /// Take notifications from the device
    #[arg(long)]
    notify: bool,
    /// Chain descriptors in the ring instead of tables of their own
    #[arg(long)]
    no_indirect: bool,
    /// Wake and be woken without EVENT_IDX
    #[arg(long)]
    no_event_idx: bool,
    /// Cut payloads into descriptors of a page
    #[arg(long)]
    pages: bool,
    /// Microseconds to look for replies before sleeping
    #[arg(long, default_value_t = 0)]
    spin_us: u64,
    /// A mount option beside those every FUSE mount has, for example max_read=131072
    #[arg(short, value_name = "KEY[=VALUE]")]
    option: Vec<String>,
    /// Where to mount
    mountpoint: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ferryfs-bridge: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    // Before anything is mounted, so that a signal finds somebody who unmounts.
    let (mut signals, sender) = UnixStream::pair()?;
    let (mut counts_wanted, counts_sender) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        pipe::register(signal, sender.try_clone()?)?;
    }
    pipe::register(SIGUSR1, counts_sender)?;

    let mut daemon = None;
    let stream = match (&arguments.daemon, &arguments.socket) {
        (Some(command), _) => {
            let mut words = command.split_whitespace();
            let program = words.next().ok_or("--daemon names no program")?;
            daemon.insert(Daemon::start(Path::new(program), &words.collect::<Vec<_>>())?).connect()?
        }
        (None, Some(socket)) => UnixStream::connect(socket).map_err(|e| format!("{}: {e}", socket.display()))?,
        (None, None) => return Err("neither --daemon nor --socket".into()),
    };
    let bridge = Bridge::mount(stream, &arguments.mountpoint, &arguments.options()).map_err(|error| {
        let log = daemon.as_ref().map(Daemon::log).unwrap_or_default();
        format!("{error}\n{log}")
    })?;
    eprintln!("ferryfs-bridge: mounted on {}", arguments.mountpoint.display());
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(bridge.gone_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(counts_wanted.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let [gone, signal, count] = fds.map(|fd| !fd.revents().is_empty());
        if count {
            counts_wanted.read_exact(&mut [0; 1])?;
            arguments.write_counts(&bridge, true)?;
        }
        if signal {
            signals.read_exact(&mut [0; 1])?;
        }
        if signal || gone {
            break;
        }
    }
    arguments.write_counts(&bridge, false)?;
    bridge.unmount().map_err(|error| match (&error, &daemon) {
        (GuestError::Closed, Some(daemon)) => format!("the daemon went away\n{}", daemon.log()),
        _ => error.to_string(),
    })?;
    Ok(())
}

impl Arguments {
    fn options(&self) -> BridgeOptions {
        let default = BridgeOptions::default();
        let mut features = default.virtio;
        for (leave_out, feature) in [(self.no_indirect, virtio::INDIRECT_DESC), (self.no_event_idx, virtio::EVENT_IDX)]
        {
            if leave_out {
                features &= !feature;
            }
        }
        if self.notify {
            features |= virtio::NOTIFICATION;
        }
        let split = |option: &String| match option.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (option.clone(), None),
        };
        BridgeOptions {
            queues: self.queues,
            queue_size: self.queue_size,
            depth: self.depth,
            virtio: features,
            pages: self.pages,
            spin: Duration::from_micros(self.spin_us),
            mount_options: self.option.iter().map(split).collect(),
            ..default
        }
    }

    fn write_counts(&self, bridge: &Bridge, reset: bool) -> std::io::Result<()> {
        let Some(path) = &self.count else { return Ok(()) };
        let counts = if reset { bridge.counts().take() } else { bridge.counts().snapshot() };
        writeln!(OpenOptions::new().create(true).append(true).open(path)?, "{counts}")
    }
}
