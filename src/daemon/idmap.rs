//! The id maps of an unprivileged daemon's user namespace, written from outside of it.
//!
//! A user may map only their own id. Anything more is asked of newuidmap and newgidmap, which know what the user was
//! granted in /etc/subuid and /etc/subgid.

use std::process::Command;

use super::error::{Error, one_line};
use super::values::IdRange;
use crate::host::linux::process::identity;

/// The maps of one user namespace.
#[derive(Debug)]
pub struct IdMaps {
    users: Vec<IdRange>,
    groups: Vec<IdRange>,
}

impl IdMaps {
    /// The maps asked for; without any, the user's own id stays what it is and there is no other.
    pub fn new(users: &[IdRange], groups: &[IdRange]) -> Self {
        let or_own = |ranges: &[IdRange], own| match ranges {
            [] => vec![IdRange { inside: own, outside: own, count: 1 }],
            ranges => ranges.to_vec(),
        };
        Self { users: or_own(users, identity::user()), groups: or_own(groups, identity::group()) }
    }

    /// Whether there is a user 0 inside.
    pub fn have_root_user(&self) -> bool {
        self.users.iter().any(|range| range.inside == 0)
    }

    /// Whether there is a group 0 inside.
    pub fn have_root_group(&self) -> bool {
        self.groups.iter().any(|range| range.inside == 0)
    }

    /// Gives the maps to the user namespace of process `pid`.
    pub fn write(&self, pid: i32) -> Result<(), Error> {
        match is_own_id(&self.users, identity::user()) {
            Some(range) => write_file(pid, "uid_map", &range.to_string())?,
            None => ask("newuidmap", "/etc/subuid", pid, &self.users)?,
        }
        match is_own_id(&self.groups, identity::group()) {
            Some(range) => {
                // The kernel lets users write this map only once the namespace cannot change groups any more.
                write_file(pid, "setgroups", "deny")?;
                write_file(pid, "gid_map", &range.to_string())
            }
            None => ask("newgidmap", "/etc/subgid", pid, &self.groups),
        }
    }
}

fn is_own_id(ranges: &[IdRange], own: u32) -> Option<&IdRange> {
    match ranges {
        [range] if range.outside == own && range.count == 1 => Some(range),
        _ => None,
    }
}

fn write_file(pid: i32, name: &str, text: &str) -> Result<(), Error> {
    std::fs::write(format!("/proc/{pid}/{name}"), text)
        .map_err(|error| Error::system(format!("cannot write the sandbox's {name}"), error, "use --sandbox none"))
}

fn ask(program: &str, grants: &str, pid: i32, ranges: &[IdRange]) -> Result<(), Error> {
    let mut command = Command::new(program);
    command.arg(pid.to_string());
    for range in ranges {
        command.args([range.inside, range.outside, range.count].map(|number| number.to_string()));
    }
    let answer = command.output().map_err(|error| {
        Error::system(format!("cannot run {program}"), error, "install it (Debian: package uidmap)")
    })?;
    if answer.status.success() {
        return Ok(());
    }
    let told = one_line(&String::from_utf8_lossy(&answer.stderr));
    Err(Error::Failed(format!("{program} refused the id map: {told}; the user needs these ids in {grants}")))
}
