//! Reading a command line: what it asks for, or one line that says what is wrong with it.
//!
//! Makes no system call and opens nothing.

use std::ffi::OsString;

use clap::Parser;
use log::LevelFilter;

use super::arguments::{Command, CommandLine, DaemonArguments, LogArguments, MigrationArguments, MountArguments};
use super::compat;
use super::error::{Error, one_line};
use super::features;
use super::options::{DaemonOptions, Listen, LogOptions, MountOptions};
use super::values::InodeFileHandles;

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Serve a directory to a virtual machine.
    Serve(Box<DaemonOptions>),
    /// Mount a directory through the kernel's FUSE client.
    Mount(Box<MountOptions>),
    /// Print this text and end with success.
    Print(String),
}

/// Reads a command line, program name first.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, Error> {
    let line = match CommandLine::try_parse_from(arguments) {
        Ok(line) => line,
        Err(answer) if !answer.use_stderr() => return Ok(Invocation::Print(answer.to_string())),
        Err(error) => return Err(Error::Usage(told_in_one_line(&error))),
    };
    match line.command {
        Some(Command::Mount(arguments)) => arguments.checked().map(|options| Invocation::Mount(Box::new(options))),
        None if line.daemon.print_capabilities => Ok(Invocation::Print(features::DESCRIPTION.to_owned())),
        None => line.daemon.checked().map(|options| Invocation::Serve(Box::new(options))),
    }
}

impl MountArguments {
    fn checked(self) -> Result<MountOptions, Error> {
        self.file_system.check()?;
        let Self { source, mountpoint, threads, file_system, log } = self;
        Ok(MountOptions { source, mountpoint, file_system, threads, log: log.checked() })
    }
}

impl DaemonArguments {
    fn checked(mut self) -> Result<DaemonOptions, Error> {
        let log_level = compat::apply(&mut self)?;
        self.log.log_level = log_level.unwrap_or(self.log.log_level);
        let shared_dir = self
            .shared_dir
            .clone()
            .ok_or_else(|| Error::usage("no directory to share: give --shared-dir DIRECTORY"))?;
        self.file_system.check()?;
        self.check_capabilities()?;
        Ok(DaemonOptions {
            remarks: self.remarks(),
            listen: self.listen()?,
            shared_dir,
            tag: self.tag,
            file_system: self.file_system,
            queues: self.queues,
            isolation: self.isolation,
            log: self.log.checked(),
        })
    }

    fn listen(&self) -> Result<Listen, Error> {
        let group = self.socket_group.clone();
        match (self.fd, self.socket_path.as_ref().or(self.socket.as_ref())) {
            (Some(_), Some(_)) => Err(Error::usage("--fd and --socket-path exclude each other: give one of them")),
            (Some(_), None) if group.is_some() => {
                Err(Error::usage("--socket-group needs --socket-path: an inherited socket already has its group"))
            }
            (Some(number), None) => Ok(Listen::Descriptor(number)),
            (None, Some(socket)) => Ok(Listen::Path { socket: socket.clone(), group }),
            (None, None) => Err(Error::usage("no socket to listen on: give --socket-path SOCKET or --fd NUMBER")),
        }
    }

    fn check_capabilities(&self) -> Result<(), Error> {
        let handles = self.file_system.inode_file_handles != InodeFileHandles::Never;
        if handles && self.isolation.modcaps.drops("DAC_READ_SEARCH") {
            return Err(Error::usage("file handles need dac_read_search: add --inode-file-handles=never to drop it"));
        }
        Ok(())
    }

    fn remarks(&self) -> Vec<String> {
        let table = [
            (self.foreground, "option -f has no effect: leave it out"),
            (self.log.debug, "option -d is deprecated: use --log-level debug"),
            (!self.compat.is_empty(), "option -o is deprecated: use the options by their own names, such as --cache"),
            (self.socket.is_some(), "option --socket is deprecated: use --socket-path"),
            (self.migration.is_used(), "the --migration options have no effect: ferryfs does not migrate yet"),
        ];
        table.iter().filter(|(holds, _)| *holds).map(|(_, text)| (*text).to_owned()).collect()
    }

    /// The options of older tools, one text for each `-o`.
    pub(super) fn compat(&self) -> Vec<String> {
        self.compat.clone()
    }
}

impl LogArguments {
    fn checked(&self) -> LogOptions {
        let level = if self.debug { LevelFilter::Debug } else { self.log_level };
        LogOptions { level, syslog: self.syslog }
    }
}

impl MigrationArguments {
    fn is_used(&self) -> bool {
        self.migration_mode.is_some()
            || self.migration_on_error.is_some()
            || self.migration_verify_handles
            || self.migration_confirm_paths
    }
}

/// clap explains over several paragraphs: what is wrong stands in the first, how to mend it in those called tips.
fn told_in_one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let paragraphs: Vec<String> = text.split("\n\n").map(one_line).collect();
    let wrong = paragraphs.first().map_or("", |first| first.strip_prefix("error: ").unwrap_or(first));
    let tips = paragraphs.iter().filter_map(|text| text.strip_prefix("tip: "));
    let tips: String = tips.map(|tip| format!("; {tip}")).collect();
    format!("{wrong}{tips} (see 'ferryfs --help')")
}

#[cfg(test)]
#[path = "command_line_tests.rs"]
mod tests;
