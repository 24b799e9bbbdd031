//! The command line as clap takes it: the options of older tools are not folded in yet, and nothing is checked.

use std::{num::NonZeroUsize, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use log::LevelFilter;

use super::options::{FileSystemOptions, IsolationOptions, QueueOptions};
use super::values::{MigrationMode, MigrationOnError, Tag};

/// Where messages go, as the daemon and `ferryfs mount` both take it.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Messages")]
pub(super) struct LogArguments {
    /// Least important message to write (off, error, warn, info, debug, trace); RUST_LOG wins over it
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = level)]
    pub(super) log_level: LevelFilter,
    /// Write to the system log instead of standard error
    #[arg(long)]
    pub(super) syslog: bool,
    /// Log at level debug [deprecated: --log-level debug]
    #[arg(short = 'd', help_heading = "Deprecated")]
    pub(super) debug: bool,
}

/// Accepted, and without effect until migration exists.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Migration (accepted, without effect)")]
pub(super) struct MigrationArguments {
    /// How to hand over what the guest knows
    #[arg(long, value_enum)]
    pub(super) migration_mode: Option<MigrationMode>,
    /// What to do about files that cannot be handed over
    #[arg(long, value_enum)]
    pub(super) migration_on_error: Option<MigrationOnError>,
    /// Compare file handles on arrival
    #[arg(long)]
    pub(super) migration_verify_handles: bool,
    /// Compare paths before the hand-over
    #[arg(long)]
    pub(super) migration_confirm_paths: bool,
}

/// The daemon's options as clap takes them: those of older tools are folded in and the rest is checked afterwards.
#[derive(Args, Clone, Debug)]
pub(super) struct DaemonArguments {
    /// Directory to share
    #[arg(long, value_name = "DIRECTORY")]
    pub(super) shared_dir: Option<PathBuf>,
    /// Socket on which the front end connects
    #[arg(long, value_name = "SOCKET")]
    pub(super) socket_path: Option<PathBuf>,
    /// The same [deprecated: --socket-path]
    #[arg(long, value_name = "SOCKET", hide = true)]
    pub(super) socket: Option<PathBuf>,
    /// Group that may connect to the socket
    #[arg(long, value_name = "GROUP")]
    pub(super) socket_group: Option<String>,
    /// Inherited descriptor of a socket that listens already, instead of --socket-path
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(0..))]
    pub(super) fd: Option<i32>,
    /// Tag to announce in the device's configuration space; not every front end takes it
    #[arg(long)]
    pub(super) tag: Option<Tag>,
    /// Print what the daemon can do, as vhost-user.json describes it, and end
    #[arg(long)]
    pub(super) print_capabilities: bool,
    #[command(flatten)]
    pub(super) file_system: FileSystemOptions,
    #[command(flatten)]
    pub(super) queues: QueueOptions,
    #[command(flatten)]
    pub(super) isolation: IsolationOptions,
    #[command(flatten)]
    pub(super) log: LogArguments,
    #[command(flatten)]
    pub(super) migration: MigrationArguments,
    /// Options in the form of older tools, separated by commas [deprecated: the options by their own names]
    #[arg(short = 'o', value_name = "OPTIONS", help_heading = "Deprecated")]
    pub(super) compat: Vec<String>,
    /// No effect (deprecated)
    #[arg(short = 'f', help_heading = "Deprecated")]
    pub(super) foreground: bool,
}

#[derive(Args, Clone, Debug)]
pub(super) struct MountArguments {
    /// Directory to show
    pub(super) source: PathBuf,
    /// Directory to mount it on
    pub(super) mountpoint: PathBuf,
    /// Threads that read requests [default: the machine's cores]
    #[arg(long)]
    pub(super) threads: Option<NonZeroUsize>,
    #[command(flatten)]
    pub(super) file_system: FileSystemOptions,
    #[command(flatten)]
    pub(super) log: LogArguments,
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum Command {
    /// Mount a directory through this machine's own FUSE client
    Mount(MountArguments),
}

/// Share a directory with a virtual machine over virtio-fs
#[derive(Clone, Debug, Parser)]
#[command(
    name = "ferryfs",
    version,
    args_override_self = true,
    args_conflicts_with_subcommands = true,
    override_usage = "ferryfs --shared-dir DIRECTORY --socket-path SOCKET [OPTIONS]\n       \
                      ferryfs mount SOURCE MOUNTPOINT [OPTIONS]"
)]
pub(super) struct CommandLine {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    #[command(flatten)]
    pub(super) daemon: DaemonArguments,
}

fn level(text: &str) -> Result<LevelFilter, &'static str> {
    text.parse().map_err(|_| "the levels are off, error, warn, info, debug, trace")
}
